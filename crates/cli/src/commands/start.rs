//! `start` and `attach`.

use serde_json::{Value, json};

use super::run::{attach_to, finish, show, start_one, wait_for};
use super::{App, say};
use crate::args::Attached;
use crate::args::container::{AttachArgs, StartArgs};
use crate::client::{Client, escape};
use crate::error::{Failure, Result};
use crate::keys::Keys;
use crate::streams::{self, End, Session};
use crate::tty;

/// `start`.
pub(crate) async fn start(app: &App<'_>, args: &StartArgs) -> Result<()> {
    let c = &app.client;
    if !args.attach && !args.interactive {
        return start_all(c, &args.containers).await;
    }
    let [name] = args.containers.as_slice() else {
        return Err(Failure::new("you cannot start and attach multiple containers at once"));
    };
    let info = c.value(&format!("/containers/{}/json", escape(name))).await?;
    let id = info["Id"].as_str().unwrap_or(name).to_owned();
    let with_tty = info["Config"]["Tty"] == json!(true);
    let stdin = args.interactive && info["Config"]["OpenStdin"] == json!(true);
    let keys = app.config.detach_keys(args.detach_keys.as_deref());
    let hijacked = attach_to(c, &id, Attached { stdin, stdout: true, stderr: true }, keys).await?;
    let removed = info["HostConfig"]["AutoRemove"] == json!(true);
    let ended = wait_for(c, &id, if removed { "removed" } else { "next-exit" }).await?;
    let proxies = if with_tty { Vec::new() } else { streams::proxy_signals(c, &id) };
    start_one(c, &id).await?;
    let session = Session { tty: with_tty, stdin, keys: Keys::new(keys) };
    let end = show(c, hijacked, &id, &session, false).await;
    proxies.into_iter().for_each(|t| t.abort());
    finish(end?, ended).await
}

async fn start_all(c: &Client, names: &[String]) -> Result<()> {
    let mut failed: Vec<&str> = Vec::new();
    for name in names {
        match c.post(&format!("/containers/{}/start", escape(name))).await {
            Ok(()) => say(name)?,
            Err(e) => {
                eprintln!("{}", tty::printable(&e.message));
                failed.push(name);
            }
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("Error: failed to start containers: {}", failed.join(", "))))
}

/// `attach`.
pub(crate) async fn attach(app: &App<'_>, args: &AttachArgs) -> Result<()> {
    let c = &app.client;
    let info = c.value(&format!("/containers/{}/json", escape(&args.container))).await?;
    check_state(&info["State"])?;
    let id = info["Id"].as_str().unwrap_or(&args.container).to_owned();
    let with_tty = info["Config"]["Tty"] == json!(true);
    let stdin = !args.no_stdin && info["Config"]["OpenStdin"] == json!(true);
    if with_tty && stdin && !tty::stdin_is_terminal() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    let keys = app.config.detach_keys(args.detach_keys.as_deref());
    let ended = wait_for(c, &id, "not-running").await?;
    let hijacked = attach_to(c, &id, Attached { stdin, stdout: true, stderr: true }, keys).await?;
    let proxies = if args.sig_proxy && !with_tty { streams::proxy_signals(c, &id) } else { Vec::new() };
    let session = Session { tty: with_tty, stdin, keys: Keys::new(keys) };
    let end = show(c, hijacked, &id, &session, true).await;
    proxies.into_iter().for_each(|t| t.abort());
    match end? {
        End::Detached => Err(streams::left_behind()),
        end => finish(end, ended).await,
    }
}

fn check_state(state: &Value) -> Result<()> {
    for (is, message) in [
        (state["Running"] != json!(true), "You cannot attach to a stopped container, start it first"),
        (state["Paused"] == json!(true), "You cannot attach to a paused container, unpause it first"),
        (
            state["Restarting"] == json!(true),
            "You cannot attach to a restarting container, wait until it is running",
        ),
    ] {
        if is {
            return Err(Failure::new(message));
        }
    }
    Ok(())
}
