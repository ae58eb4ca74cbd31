//! Commands on containers that need no terminal.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use hyper::Method;
use longshore_api::stream::{Decoder, Stream};
use longshore_api::{Change, IdResponse, Top, WaitResponse};
use serde_json::{Value, json};

use super::{drop_answer, each, say};
use crate::args::container::{CommitArgs, KillArgs, LogsArgs, RmArgs, StopArgs};
use crate::args::restart;
use crate::args::update::{UpdateArgs, changed};
use crate::client::{Client, Payload, each_chunk, escape, query};
use crate::error::{Context, Failure, Result};
use crate::format::align_from;
use crate::format::human::timestamp;
use crate::{streams, tty};

/// `stop` and `restart`.
pub(crate) async fn stop(c: &Client, what: &str, args: &StopArgs) -> Result<()> {
    let timeout = args.timeout.map(|t| t.to_string()).unwrap_or_default();
    each(&args.containers, |name| {
        let path = query(
            &format!("/containers/{}/{what}", escape(&name)),
            &[("t", &timeout), ("signal", &args.signal)],
        );
        async move {
            c.post(&path).await?;
            say(&name)
        }
    })
    .await
}

/// `kill`.
pub(crate) async fn kill(c: &Client, args: &KillArgs) -> Result<()> {
    each(&args.containers, |name| async move {
        c.post(&query(&format!("/containers/{}/kill", escape(&name)), &[("signal", &args.signal)])).await?;
        say(&name)
    })
    .await
}

/// `pause` and `unpause`.
pub(crate) async fn simple(c: &Client, what: &str, names: &[String]) -> Result<()> {
    each(names, |name| async move {
        c.post(&format!("/containers/{}/{what}", escape(&name))).await?;
        say(&name)
    })
    .await
}

/// `update`.
pub(crate) async fn update(c: &Client, args: &UpdateArgs) -> Result<()> {
    if args.publish.is_empty() && args.restart.is_empty() {
        return Err(Failure::new("you must provide one or more flags when using this command"));
    }
    let policy = match args.restart.as_str() {
        "" => Value::Null,
        text => restart(text)?,
    };
    each(&args.containers, |name| {
        let policy = policy.clone();
        async move {
            let path = format!("/containers/{}", escape(&name));
            let mut body = json!({});
            if !policy.is_null() {
                body["RestartPolicy"] = policy;
            }
            if !args.publish.is_empty() {
                let now = c.value(&format!("{path}/json")).await?;
                let bindings = &now["HostConfig"]["PortBindings"];
                body["PortBindings"] = changed(bindings, &now["NetworkSettings"]["Ports"], &args.publish)?;
            }
            let ports = body["PortBindings"].clone();
            let _: Value = c.json(Method::POST, &format!("{path}/update"), Payload::Json(body)).await?;
            // Other daemons ignore what they do not know.
            if !ports.is_null()
                && c.value(&format!("{path}/json")).await?["HostConfig"]["PortBindings"] != ports
            {
                return Err(Failure::new(format!(
                    "{name}: this daemon does not change the ports of a container; Longshore's does"
                )));
            }
            say(&name)
        }
    })
    .await
}

/// `rm`.
pub(crate) async fn rm(c: &Client, args: &RmArgs) -> Result<()> {
    let flag = |on: bool| if on { "1" } else { "" };
    each(&args.containers, |name| {
        let empty = name.trim_matches('/').is_empty();
        let path = query(
            &format!("/containers/{}", escape(name.trim_start_matches('/'))),
            &[("force", flag(args.force)), ("link", flag(args.link)), ("v", flag(args.volumes))],
        );
        async move {
            if empty {
                return Err(Failure::new("container name cannot be empty"));
            }
            match drop_answer(c, Method::DELETE, &path, Payload::Empty).await {
                Err(e) if args.force && e.is_not_found() => eprintln!("{}", e.message),
                other => {
                    other?;
                    say(&name)?;
                }
            }
            Ok(())
        }
    })
    .await
}

/// `wait`.
pub(crate) async fn wait(c: &Client, names: &[String]) -> Result<()> {
    each(names, |name| async move {
        let path = format!("/containers/{}/wait", escape(&name));
        let done: WaitResponse = c.json(Method::POST, &path, Payload::Empty).await?;
        say(&done.status_code.to_string())
    })
    .await
}

/// `rename`.
pub(crate) async fn rename(c: &Client, name: &str, new: &str) -> Result<()> {
    if name.is_empty() || new.is_empty() {
        return Err(Failure::new("Error: Neither old nor new names may be empty"));
    }
    c.post(&query(&format!("/containers/{}/rename", escape(name)), &[("name", new)])).await.map_err(|e| {
        Failure { message: format!("{}\nError: failed to rename container named {name}", e.message), ..e }
    })
}

/// `logs`.
pub(crate) async fn logs(c: &Client, args: &LogsArgs) -> Result<()> {
    let info = c.value(&format!("/containers/{}/json", escape(&args.container))).await?;
    let raw = info["Config"]["Tty"] == json!(true);
    let flag = |on: bool| if on { "1" } else { "" };
    let path = query(
        &format!("/containers/{}/logs", escape(&args.container)),
        &[
            ("stdout", "1"),
            ("stderr", "1"),
            ("details", flag(args.details)),
            ("follow", flag(args.follow)),
            ("timestamps", flag(args.timestamps)),
            ("since", &moment("since", &args.since)?),
            ("until", &moment("until", &args.until)?),
            ("tail", &args.tail),
        ],
    );
    let answer = c.call(Method::GET, &path, Payload::Empty).await?;
    let mut decoder = Decoder::new();
    each_chunk(answer, |chunk| {
        if raw { streams::show(Stream::Stdout, chunk) } else { streams::demultiplex(&mut decoder, chunk) }
    })
    .await
}

/// A time as the daemon takes it.
fn moment(option: &str, text: &str) -> Result<String> {
    timestamp(text).map_err(|e| Failure::new(format!("invalid value for {option:?}: {e}")))
}

/// `top`.
pub(crate) async fn top(c: &Client, name: &str, options: &[String]) -> Result<()> {
    let path = query(&format!("/containers/{}/top", escape(name)), &[("ps_args", &options.join(" "))]);
    let top: Top = c.json(Method::GET, &path, Payload::Empty).await?;
    let lines: Vec<String> =
        std::iter::once(&top.titles).chain(&top.processes).map(|row| row.join("\t")).collect();
    say(align_from(&lines, 20).trim_end_matches('\n'))
}

/// `port`.
pub(crate) async fn port(c: &Client, name: &str, wanted: Option<&str>) -> Result<()> {
    let info = c.value(&format!("/containers/{}/json", escape(name))).await?;
    let ports = info["NetworkSettings"]["Ports"].as_object().cloned().unwrap_or_default();
    let text = |b: &Value| {
        let ip = b["HostIp"].as_str().unwrap_or_default();
        let ip = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        format!("{ip}:{}", b["HostPort"].as_str().unwrap_or_default())
    };
    if let Some(wanted) = wanted {
        let number = wanted.split('/').next().unwrap_or_default();
        crate::flags::values::uint(number, u16::MAX.into())
            .map_err(|e| Failure::new(format!("Error: invalid port ({number}): {e}")))?;
        let key = if wanted.contains('/') { wanted.to_owned() } else { format!("{wanted}/tcp") };
        let bindings = ports.get(&key).and_then(Value::as_array).filter(|b| !b.is_empty());
        let bindings = bindings
            .ok_or_else(|| Failure::new(format!("Error: No public port '{wanted}' published for {name}")))?;
        return bindings.iter().try_for_each(|b| say(&text(b)));
    }
    for (port, bindings) in &ports {
        for b in bindings.as_array().into_iter().flatten() {
            say(&format!("{port} -> {}", text(b)))?;
        }
    }
    Ok(())
}

/// `diff`.
pub(crate) async fn diff(c: &Client, name: &str) -> Result<()> {
    let path = format!("/containers/{}/changes", escape(name));
    let changes: Vec<Change> = c.json(Method::GET, &path, Payload::Empty).await?;
    for change in changes {
        let kind = ["C", "A", "D"].get(usize::from(change.kind)).copied().unwrap_or("?");
        let shown = if tty::stdout_is_terminal() { tty::printable(&change.path) } else { change.path };
        say(&format!("{kind} {shown}"))?;
    }
    Ok(())
}

/// `commit`.
pub(crate) async fn commit(c: &Client, args: &CommitArgs) -> Result<()> {
    let (repo, tag) = repository_and_tag(args.reference.as_deref().unwrap_or_default())?;
    let mut pairs = vec![
        ("container", args.container.as_str()),
        ("repo", &repo),
        ("tag", &tag),
        ("author", &args.author),
        ("comment", &args.message),
        ("pause", if args.pause { "" } else { "0" }),
    ];
    pairs.extend(args.change.iter().map(|ch| ("changes", ch.as_str())));
    let made: IdResponse = c.json(Method::POST, &query("/commit", &pairs), Payload::Json(json!({}))).await?;
    say(&made.id)
}

/// A new image's name in two, checked; both are empty when there is no name.
pub(super) fn repository_and_tag(text: &str) -> Result<(String, String)> {
    if text.is_empty() {
        return Ok((String::new(), String::new()));
    }
    let name: longshore_oci::Reference = text.parse().map_err(super::image::bad_reference)?;
    if name.digest().is_some() {
        return Err(Failure::new("refusing to create a tag with a digest reference"));
    }
    let name = name.or_latest();
    Ok((name.familiar_name(), name.tag().unwrap_or_default().to_owned()))
}

/// `export`.
pub(crate) async fn export(c: &Client, output: Option<&str>, name: &str) -> Result<()> {
    download(c, &format!("/containers/{}/export", escape(name)), output, "export container").await
}

/// Writes a body to a file, or to standard output unless that is a terminal. A broken download leaves no file.
pub(super) async fn download(c: &Client, path: &str, output: Option<&str>, what: &str) -> Result<()> {
    let Some(file) = output.filter(|o| !o.is_empty()) else {
        if tty::stdout_is_terminal() {
            return Err(Failure::new("cowardly refusing to save to a terminal. Use the -o flag or redirect"));
        }
        let answer = c.call(Method::GET, path, Payload::Empty).await?;
        return each_chunk(answer, |chunk| streams::show(Stream::Stdout, chunk)).await;
    };
    output_path(file).map_err(|e| Failure::new(format!("failed to {what}: {e}")))?;
    let answer = c.call(Method::GET, path, Payload::Empty).await?;
    // A device or a pipe is written to; only a file can be replaced at once.
    if fs::metadata(file).is_ok_and(|m| !m.is_file()) {
        let mut out = File::create(file).context(|| format!("open {file}"))?;
        return each_chunk(answer, |chunk| out.write_all(chunk).context(|| format!("write {file}"))).await;
    }
    let temp = format!("{file}.part-{}", std::process::id());
    let mut out = File::create(&temp).context(|| format!("create {temp}"))?;
    let done = each_chunk(answer, |chunk| out.write_all(chunk).context(|| format!("write {temp}")))
        .await
        .and_then(|()| fs::rename(&temp, file).context(|| format!("write {file}")));
    if done.is_err() {
        let _ = fs::remove_file(&temp);
    }
    done
}

/// Why a file cannot be written, before anything is asked for.
fn output_path(file: &str) -> Result<(), String> {
    let path = Path::new(file);
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Err(e) = fs::metadata(folder) {
        return Err(format!("invalid output path: stat {}: {}", folder.display(), crate::error::words(&e)));
    }
    if fs::metadata(path).is_ok_and(|m| m.is_dir()) {
        return Err("cannot write to a directory".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_new_images_are_taken_apart() {
        let split = |t: &str| repository_and_tag(t).map_err(|e| e.message);
        assert_eq!(split("a"), Ok(("a".into(), "latest".into())));
        assert_eq!(split("host:5000/a:b"), Ok(("host:5000/a".into(), "b".into())));
        assert_eq!(split(""), Ok((String::new(), String::new())));
        assert_eq!(split("a:b:c"), Err("invalid reference format".into()));
        assert!(split("Foo").unwrap_err().ends_with("must be lowercase"));
    }
}
