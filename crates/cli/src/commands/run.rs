//! `run`, `create`, `start`, `attach` and `exec`: commands that give a process this terminal.

use std::fs;

use hyper::Method;
use longshore_api::{ContainerCreated, ExecInspect, IdResponse, WaitResponse};
use serde_json::json;
use tokio::task::JoinHandle;

use super::{each, say};
use crate::args::run::{Attached, CreateArgs};
use crate::cli::{AttachArgs, CreateOnlyArgs, ExecArgs, RunArgs, StartArgs};
use crate::client::{Client, Payload, escape, query, read};
use crate::error::{Context, Failure, Result};
use crate::streams::{self, Resize, Session};
use crate::tty::{self, Raw};

/// `docker run` fails with this status when the daemon, not the process, is at fault.
const DAEMON_FAILED: i32 = 125;

/// `run`.
pub(crate) async fn run(c: &Client, args: &RunArgs) -> Result<()> {
    run_inner(c, args).await.map_err(|e| {
        if e.status.is_none() || e.message.is_empty() {
            return e;
        }
        let message = format!("docker: {}\n\nRun 'docker run --help' for more information", e.message);
        Failure { message, ..e }
    })
}

async fn run_inner(c: &Client, args: &RunArgs) -> Result<()> {
    let create = &args.create;
    let attached =
        if args.detach { Attached { stdin: false, stdout: false, stderr: false } } else { attached(create)? };
    if create.tty && attached.stdin && !tty::stdin_is_terminal() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    let id = make(c, create, attached).await.map_err(|e| e.with_code(DAEMON_FAILED))?;
    if args.detach {
        start_one(c, &id).await?;
        return say(&id);
    }
    let session = Session { tty: create.tty, stdin: attached.stdin, output: true };
    let hijacked = attach_to(c, &id, attached, &args.detach_keys, false)
        .await
        .map_err(|e| e.with_code(DAEMON_FAILED))?;
    // Armed before the start, so that a quick end is not missed.
    let ended = wait_for(c, &id, if create.rm { "removed" } else { "next-exit" })
        .await
        .map_err(|e| e.with_code(DAEMON_FAILED))?;
    let proxies = if args.sig_proxy && !create.tty { streams::proxy_signals(c, &id) } else { Vec::new() };
    start_one(c, &id).await?;
    let raw = (create.tty && attached.stdin).then(Raw::start).flatten();
    let resizes = create.tty.then(|| Resize::Container(id.clone()));
    if let Some(r) = &resizes {
        r.now(c).await;
    }
    let following = resizes.map(|r| r.follow(c));
    let shown = streams::run(hijacked, &session).await;
    drop(raw);
    following.into_iter().chain(proxies).for_each(|t| t.abort());
    shown?;
    finish(c, &id, ended).await
}

/// The process's exit status; after a detach the container runs on, and all is well.
async fn finish(c: &Client, id: &str, ended: JoinHandle<Result<WaitResponse>>) -> Result<()> {
    let mut ended = ended;
    let result = tokio::select! {
        result = &mut ended => result,
        () = detached(c, id) => return Ok(()),
    };
    let result = result.map_err(|_| Failure::new("waiting for the container failed"))??;
    if let Some(e) = result.error.filter(|e| !e.message.is_empty()) {
        return Err(
            Failure::new(format!("Error waiting for container: {}", e.message)).with_code(DAEMON_FAILED)
        );
    }
    match i32::try_from(result.status_code).unwrap_or(1) {
        0 => Ok(()),
        code => Err(Failure::exit(code)),
    }
}

/// Resolves when the output has ended although the container runs: somebody typed the detach keys.
async fn detached(c: &Client, id: &str) {
    loop {
        // An end is announced right after the output; give it a moment before asking.
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        match c.value(&format!("/containers/{}/json", escape(id))).await {
            Ok(v) if v["State"]["Running"] == json!(true) => return,
            Ok(_) => {}
            Err(_) => std::future::pending().await,
        }
    }
}

/// `create`.
pub(crate) async fn create(c: &Client, args: &CreateOnlyArgs) -> Result<()> {
    let none = Attached { stdin: args.create.interactive, stdout: true, stderr: true };
    let id = make(c, &args.create, none).await?;
    say(&id)
}

fn attached(create: &CreateArgs) -> Result<Attached> {
    if create.attach.is_empty() {
        return Ok(Attached { stdin: create.interactive, stdout: true, stderr: true });
    }
    let mut out = Attached { stdin: create.interactive, stdout: false, stderr: false };
    for name in &create.attach {
        match name.to_ascii_lowercase().as_str() {
            "stdin" => out.stdin = true,
            "stdout" => out.stdout = true,
            "stderr" => out.stderr = true,
            _ => {
                return Err(
                    Failure::new("valid streams are STDIN, STDOUT and STDERR").with_code(DAEMON_FAILED)
                );
            }
        }
    }
    Ok(out)
}

/// Makes the container; an image that is missing is asked for first.
async fn make(c: &Client, create: &CreateArgs, attached: Attached) -> Result<String> {
    if !["always", "missing", "never"].contains(&create.pull.as_str()) {
        return Err(Failure::new(format!(
            "invalid pull option: '{}': must be one of \"always\", \"missing\" or \"never\"",
            create.pull
        )));
    }
    if !create.cidfile.is_empty() && fs::metadata(&create.cidfile).is_ok() {
        return Err(Failure::new(format!(
            "container ID file found, make sure the other container isn't running or delete {}",
            create.cidfile
        )));
    }
    let body = create.body(attached, create.tty.then(tty::size).flatten())?;
    let path = query(
        "/containers/create",
        &[("name", create.name.as_deref().unwrap_or_default()), ("platform", &create.platform)],
    );
    if create.pull == "always" {
        pull(c, &create.image, &create.platform).await?;
    }
    let made = c.json::<ContainerCreated>(Method::POST, &path, Payload::Json(body.clone())).await;
    let made = match made {
        Err(e) if e.is_not_found() && e.message.contains("No such image") && create.pull == "missing" => {
            let shown = create
                .image
                .parse::<longshore_oci::Reference>()
                .map_or(create.image.clone(), |r| r.or_latest().familiar());
            eprintln!("Unable to find image '{shown}' locally");
            pull(c, &create.image, &create.platform).await?;
            c.json(Method::POST, &path, Payload::Json(body)).await?
        }
        other => other?,
    };
    for warning in made.warnings {
        eprintln!("WARNING: {warning}");
    }
    if !create.cidfile.is_empty() {
        fs::write(&create.cidfile, &made.id)
            .context(|| format!("write the container ID to the file {}", create.cidfile))?;
    }
    Ok(made.id)
}

async fn pull(c: &Client, image: &str, platform: &str) -> Result<()> {
    let path = query("/images/create", &[("fromImage", image), ("platform", platform)]);
    let answer = c.call(Method::POST, &path, Payload::Empty).await?;
    crate::client::each_line(answer, |line| {
        match line["errorDetail"]["message"].as_str().or(line["error"].as_str()) {
            Some(e) => Err(Failure::daemon(500, e)),
            None => Ok(()),
        }
    })
    .await
}

/// Starts a container; the status of a failure is the one that a shell would give.
async fn start_one(c: &Client, id: &str) -> Result<()> {
    let path = format!("/containers/{}/start", escape(id));
    c.post(&path).await.map_err(|e| {
        let text = e.message.as_str();
        let code =
            if ["executable file not found", "no such file or directory", "system cannot find the file"]
                .iter()
                .any(|t| text.contains(t))
            {
                127
            } else if ["permission denied", "is a directory", "not a directory"]
                .iter()
                .any(|t| text.contains(t))
            {
                126
            } else {
                DAEMON_FAILED
            };
        e.with_code(code)
    })
}

async fn attach_to(
    c: &Client,
    id: &str,
    attached: Attached,
    keys: &str,
    logs: bool,
) -> Result<crate::client::Hijacked> {
    let flag = |on: bool| if on { "1" } else { "" };
    let path = query(
        &format!("/containers/{}/attach", escape(id)),
        &[
            ("stream", "1"),
            ("stdin", flag(attached.stdin)),
            ("stdout", flag(attached.stdout)),
            ("stderr", flag(attached.stderr)),
            ("logs", flag(logs)),
            ("detachKeys", keys),
        ],
    );
    c.hijack(&path, Payload::Empty).await
}

/// Asks for the end of a container; the daemon knows of it when this returns.
async fn wait_for(c: &Client, id: &str, condition: &str) -> Result<JoinHandle<Result<WaitResponse>>> {
    let path = query(&format!("/containers/{}/wait", escape(id)), &[("condition", condition)]);
    let answer = c.call(Method::POST, &path, Payload::Empty).await?;
    Ok(tokio::spawn(async move {
        let body = read(answer).await?;
        longshore_api::json::from_slice(&body)
            .map_err(|e| Failure::new(format!("the daemon's answer is not understood: {e}")))
    }))
}

/// `start`.
pub(crate) async fn start(c: &Client, args: &StartArgs) -> Result<()> {
    if !args.attach && !args.interactive {
        return each(&args.containers, |name| async move {
            c.post(&format!("/containers/{}/start", escape(&name))).await?;
            say(&name)
        })
        .await;
    }
    let [name] = args.containers.as_slice() else {
        return Err(Failure::new("you cannot start and attach multiple containers at once"));
    };
    let info = c.value(&format!("/containers/{}/json", escape(name))).await?;
    let id = info["Id"].as_str().unwrap_or(name).to_owned();
    let with_tty = info["Config"]["Tty"] == json!(true);
    let stdin = args.interactive && info["Config"]["OpenStdin"] == json!(true);
    let attached = Attached { stdin, stdout: true, stderr: true };
    let hijacked = attach_to(c, &id, attached, &args.detach_keys, false).await?;
    let condition = if info["HostConfig"]["AutoRemove"] == json!(true) { "removed" } else { "next-exit" };
    let ended = wait_for(c, &id, condition).await?;
    let proxies = if with_tty { Vec::new() } else { streams::proxy_signals(c, &id) };
    start_one(c, &id).await.map_err(|e| e.with_code(1))?;
    show(c, hijacked, &id, with_tty, stdin, proxies).await?;
    finish(c, &id, ended).await
}

async fn show(
    c: &Client,
    hijacked: crate::client::Hijacked,
    id: &str,
    with_tty: bool,
    stdin: bool,
    proxies: Vec<JoinHandle<()>>,
) -> Result<()> {
    let raw = (with_tty && stdin).then(Raw::start).flatten();
    let resize = Resize::Container(id.to_owned());
    let following = if with_tty {
        resize.now(c).await;
        Some(resize.follow(c))
    } else {
        None
    };
    let shown = streams::run(hijacked, &Session { tty: with_tty, stdin, output: true }).await;
    drop(raw);
    following.into_iter().chain(proxies).for_each(|t| t.abort());
    shown
}

/// `attach`.
pub(crate) async fn attach(c: &Client, args: &AttachArgs) -> Result<()> {
    let info = c.value(&format!("/containers/{}/json", escape(&args.container))).await?;
    let state = &info["State"];
    if state["Running"] != json!(true) {
        return Err(Failure::new("cannot attach to a stopped container, start it first"));
    }
    if state["Paused"] == json!(true) {
        return Err(Failure::new("cannot attach to a paused container, unpause it first"));
    }
    let id = info["Id"].as_str().unwrap_or(&args.container).to_owned();
    let with_tty = info["Config"]["Tty"] == json!(true);
    let stdin = !args.no_stdin && info["Config"]["OpenStdin"] == json!(true);
    if with_tty && stdin && !tty::stdin_is_terminal() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    let ended = wait_for(c, &id, "not-running").await?;
    let attached = Attached { stdin, stdout: true, stderr: true };
    let hijacked = attach_to(c, &id, attached, &args.detach_keys, false).await?;
    let proxies = if args.sig_proxy && !with_tty { streams::proxy_signals(c, &id) } else { Vec::new() };
    show(c, hijacked, &id, with_tty, stdin, proxies).await?;
    finish(c, &id, ended).await
}

/// `exec`.
pub(crate) async fn exec(c: &Client, args: &ExecArgs) -> Result<()> {
    if args.tty && args.interactive && !args.detach && !tty::stdin_is_terminal() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    let mut env = Vec::new();
    for file in &args.env_file {
        let text = fs::read_to_string(file).context(|| format!("open {file}"))?;
        env.extend(
            text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).map(str::to_owned),
        );
    }
    env.extend(args.env.iter().filter_map(|e| {
        if e.contains('=') { Some(e.clone()) } else { std::env::var(e).ok().map(|v| format!("{e}={v}")) }
    }));
    let size = args.tty.then(tty::size).flatten().map(|(h, w)| [h, w]);
    let mut body = json!({
        "User": args.user, "Privileged": args.privileged, "Tty": args.tty,
        "AttachStdin": args.interactive && !args.detach, "AttachStdout": !args.detach, "AttachStderr": !args.detach,
        "DetachKeys": args.detach_keys, "Env": env, "WorkingDir": args.workdir, "Cmd": args.command,
    });
    if let Some(size) = size {
        body["ConsoleSize"] = json!(size);
    }
    let path = format!("/containers/{}/exec", escape(&args.container));
    let made: IdResponse = c.json(Method::POST, &path, Payload::Json(body)).await?;
    let start = format!("/exec/{}/start", made.id);
    if args.detach {
        return super::drop_answer(
            c,
            Method::POST,
            &start,
            Payload::Json(json!({"Detach": true, "Tty": args.tty})),
        )
        .await;
    }
    let mut begin = json!({"Detach": false, "Tty": args.tty});
    if let Some(size) = size {
        begin["ConsoleSize"] = json!(size);
    }
    let hijacked = c.hijack(&start, Payload::Json(begin)).await?;
    let raw = (args.tty && args.interactive).then(Raw::start).flatten();
    let following = args.tty.then(|| Resize::Exec(made.id.clone()).follow(c));
    let shown =
        streams::run(hijacked, &Session { tty: args.tty, stdin: args.interactive, output: true }).await;
    drop(raw);
    following.into_iter().for_each(|t| t.abort());
    shown?;
    let end: ExecInspect = c.json(Method::GET, &format!("/exec/{}/json", made.id), Payload::Empty).await?;
    match end.exit_code.unwrap_or(0) {
        0 => Ok(()),
        code => Err(Failure::exit(code)),
    }
}
