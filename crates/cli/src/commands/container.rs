//! Commands on containers that need no terminal.

use std::fs::File;
use std::io::Write;

use hyper::Method;
use longshore_api::stream::{Decoder, Stream};
use longshore_api::{Change, IdResponse, Top, WaitResponse};
use serde_json::{Value, json};

use super::{drop_answer, each, say};
use crate::cli::{CommitArgs, KillArgs, LogsArgs, RmArgs, StopArgs};
use crate::client::{Client, Payload, each_chunk, escape, query};
use crate::error::{Context, Failure, Result};
use crate::format::align;
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

/// `rm`.
pub(crate) async fn rm(c: &Client, args: &RmArgs) -> Result<()> {
    let flag = |on: bool| if on { "1" } else { "" };
    each(&args.containers, |name| {
        let path = query(
            &format!("/containers/{}", escape(name.trim_start_matches('/'))),
            &[("force", flag(args.force)), ("link", flag(args.link)), ("v", flag(args.volumes))],
        );
        async move {
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
    c.post(&format!("/containers/{}/rename?name={}", escape(name), escape(new))).await
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
            ("since", &args.since),
            ("until", &args.until),
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

/// `top`.
pub(crate) async fn top(c: &Client, name: &str, options: &[String]) -> Result<()> {
    let path = query(&format!("/containers/{}/top", escape(name)), &[("ps_args", &options.join(" "))]);
    let top: Top = c.json(Method::GET, &path, Payload::Empty).await?;
    let lines: Vec<String> =
        std::iter::once(&top.titles).chain(&top.processes).map(|row| row.join("\t")).collect();
    say(align(&lines).trim_end_matches('\n'))
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
    let (repo, tag) = split_reference(args.reference.as_deref().unwrap_or_default());
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

/// `name:tag` in two; a port is no tag.
pub(super) fn split_reference(text: &str) -> (String, String) {
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name.to_owned(), tag.to_owned()),
        _ => (text.to_owned(), String::new()),
    }
}

/// `export`.
pub(crate) async fn export(c: &Client, output: Option<&str>, name: &str) -> Result<()> {
    download(c, &format!("/containers/{}/export", escape(name)), output).await
}

/// Writes a body to a file, or to standard output unless that is a terminal. A broken download leaves no file.
pub(super) async fn download(c: &Client, path: &str, output: Option<&str>) -> Result<()> {
    let Some(file) = output.filter(|o| *o != "-") else {
        if tty::stdout_is_terminal() {
            return Err(Failure::new("cowardly refusing to save to a terminal. Use the -o flag or redirect"));
        }
        let answer = c.call(Method::GET, path, Payload::Empty).await?;
        return each_chunk(answer, |chunk| streams::show(Stream::Stdout, chunk)).await;
    };
    let answer = c.call(Method::GET, path, Payload::Empty).await?;
    let temp = format!("{file}.part-{}", std::process::id());
    let mut out = File::create(&temp).context(|| format!("create {temp}"))?;
    let done = each_chunk(answer, |chunk| out.write_all(chunk).context(|| format!("write {temp}")))
        .await
        .and_then(|()| std::fs::rename(&temp, file).context(|| format!("write {file}")));
    if done.is_err() {
        let _ = std::fs::remove_file(&temp);
    }
    done
}
