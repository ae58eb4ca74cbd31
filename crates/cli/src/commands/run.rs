//! `run` and `create`.

use std::fs;

use hyper::Method;
use longshore_api::stream::Stream;
use longshore_api::{ContainerCreated, WaitResponse};
use longshore_oci::Reference;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::progress::show_progress;
use super::{App, say};
use crate::args::Attached;
use crate::args::create::CreateArgs;
use crate::args::ports::one_by_one;
use crate::cli::RunArgs;
use crate::client::{Client, Hijacked, Payload, escape, query, read};
use crate::credentials::key;
use crate::error::{Context, Failure, Result};
use crate::keys::Keys;
use crate::streams::{self, End, Resize, Session};
use crate::tty;

/// The status when the daemon, or what it was asked, is at fault, not the process.
const WRONG: i32 = 125;

/// `run`.
pub(crate) async fn run(app: &App<'_>, args: &RunArgs) -> Result<()> {
    let (c, create) = (&app.client, &args.create);
    let detach = args.options.detach;
    if detach && !create.attach.is_empty() {
        return Err(Failure::new("conflicting options: cannot specify both --attach and --detach"));
    }
    let attached = if detach { Attached::NONE } else { create.attached() };
    let body = request(app, create, attached).map_err(|e| wrong(app.called, "run", e))?;
    if create.tty && attached.stdin && !tty::stdin_is_terminal() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    let id = make(app, create, body).await.map_err(|e| failed(app, e))?;
    if attached == Attached::NONE {
        start_one(c, &id).await.map_err(|e| failed(app, e))?;
        say(&id)?;
        return Ok(());
    }
    let keys = app.config.detach_keys(args.options.detach_keys.as_deref());
    attached_run(app, args, &id, attached, keys).await
}

async fn attached_run(app: &App<'_>, args: &RunArgs, id: &str, attached: Attached, keys: &str) -> Result<()> {
    let (c, create) = (&app.client, &args.create);
    let hijacked = attach_to(c, id, attached, keys).await.map_err(|e| failed(app, e))?;
    // Armed before the start, so that a quick end is not missed.
    let condition = if create.rm { "removed" } else { "next-exit" };
    let ended = wait_for(c, id, condition).await.map_err(|e| failed(app, e))?;
    let proxies =
        if args.options.sig_proxy && !create.tty { streams::proxy_signals(c, id) } else { Vec::new() };
    if let Err(e) = start_one(c, id).await {
        // With --rm the container goes; the next command must not meet it.
        if create.rm {
            let _ = ended.await;
        }
        return Err(failed(app, e));
    }
    let session = Session { tty: create.tty, stdin: attached.stdin, keys: Keys::new(keys) };
    let end = show(c, hijacked, id, &session, false).await;
    proxies.into_iter().for_each(|t| t.abort());
    finish(end?, ended).await
}

/// The message and status of a `run` that failed before or at the start of the process: those that a shell would give
/// where the process is at fault.
fn failed(app: &App<'_>, e: Failure) -> Failure {
    let has = |words: &[&str]| words.iter().any(|w| e.message.contains(w));
    let code = if e.message.is_empty() {
        e.code
    } else if has(&["executable file not found", "no such file or directory"]) {
        127
    } else if has(&["permission denied", "is a directory"]) {
        126
    } else {
        WRONG
    };
    wrong(app.called, "run", e).with_code(code)
}

/// The message and status of a command that got no further than its options.
pub(super) fn wrong(called: &str, command: &str, e: Failure) -> Failure {
    if e.message.is_empty() {
        // The user ended it.
        return e;
    }
    let program = called.split(' ').next().unwrap_or_default();
    let hint = format!("Run '{program} {command} --help' for more information");
    let message = format!("{program}: {}\n\n{hint}", e.message);
    Failure { message, code: WRONG, ..e }
}

/// Shows a session on this terminal, whose size the other side follows.
pub(super) async fn show(
    c: &Client,
    hijacked: Hijacked,
    id: &str,
    session: &Session,
    redraw: bool,
) -> Result<End> {
    let resize = Resize::Container(id.to_owned());
    let following = if session.tty && tty::stdout_is_terminal() {
        if redraw {
            resize.redraw(c).await
        } else {
            resize.now(c).await
        }
        Some(resize.follow(c))
    } else {
        None
    };
    let end = streams::run(hijacked, session).await;
    following.into_iter().for_each(|t| t.abort());
    end
}

/// The process's exit status; after a detach the container runs on, and all is well.
pub(super) async fn finish(end: End, ended: JoinHandle<Result<WaitResponse>>) -> Result<()> {
    if end == End::Detached {
        return Ok(());
    }
    let result = ended.await.map_err(|_| Failure::new("waiting for the container failed"))??;
    if let Some(e) = result.error.filter(|e| !e.message.is_empty()) {
        return Err(Failure::new(format!("Error waiting for container: {}", e.message)).with_code(WRONG));
    }
    match i32::try_from(result.status_code).unwrap_or(1) {
        0 => Ok(()),
        code => Err(Failure::exit(code)),
    }
}

/// `create`.
pub(crate) async fn create(app: &App<'_>, args: &CreateArgs) -> Result<()> {
    let body = request(app, args, args.attached()).map_err(|e| wrong(app.called, "create", e))?;
    let id = make(app, args, body).await?;
    say(&id)
}

/// The request, after what can be said without a daemon.
fn request(app: &App<'_>, create: &CreateArgs, attached: Attached) -> Result<Value> {
    if !["always", "missing", "never", ""].contains(&create.pull.as_str()) {
        return Err(Failure::new(format!(
            "invalid pull option: '{}': must be one of \"always\", \"missing\" or \"never\"",
            create.pull
        )));
    }
    let mut body = create.body(attached, create.tty.then(tty::size).flatten())?;
    if let Some(env) = body["Env"].as_array_mut() {
        let given = |name: &str| create.env.iter().any(|e| e.split('=').next() == Some(name));
        let proxies = app.config.proxies(&app.client.host()).into_iter().filter(|(name, _)| !given(name));
        env.extend(proxies.map(|(name, value)| Value::from(format!("{name}={value}"))));
    }
    Ok(body)
}

/// Makes the container; an image that is missing is asked for first.
async fn make(app: &App<'_>, create: &CreateArgs, body: Value) -> Result<String> {
    if !create.cidfile.is_empty() && fs::metadata(&create.cidfile).is_ok() {
        return Err(Failure::new(format!(
            "container ID file found, make sure the other container isn't running or delete {}",
            create.cidfile
        )));
    }
    super::image::reference(&create.image)?;
    let platform = super::registry::platform(create.platform.as_deref());
    if !platform.is_empty() {
        super::image::platform(&platform)
            .map_err(|e| Failure::new(format!("error parsing specified platform: {e}")))?;
    }
    // Made before the container, so that nothing is left behind where it cannot be written.
    let cidfile = match create.cidfile.as_str() {
        "" => None,
        file => Some(fs::File::create(file).map_err(|e| {
            let e = crate::error::words(&e);
            Failure::new(format!("failed to create the container ID file: open {file}: {e}"))
        })?),
    };
    let mut made = ask(app, create, &platform, body).await;
    if let Ok(new) = &made
        && !create.publish_mode.is_empty()
        && let Err(e) = heeded(&app.client, &new.id, &create.publish_mode).await
    {
        made = Err(e);
    }
    let made = match (made, cidfile) {
        (Ok(made), Some(mut file)) => {
            std::io::Write::write_all(&mut file, made.id.as_bytes())
                .context(|| format!("write the container ID to the file {}", create.cidfile))?;
            made
        }
        (Err(e), Some(_)) => {
            let _ = fs::remove_file(&create.cidfile);
            return Err(e);
        }
        (made, None) => made?,
    };
    for warning in made.warnings {
        eprintln!("WARNING: {}", tty::printable(&warning));
    }
    Ok(made.id)
}

/// Other daemons ignore a mode that they do not know: then the container is not what was asked for, and goes again.
async fn heeded(c: &Client, id: &str, mode: &str) -> Result<()> {
    let path = format!("/containers/{id}");
    if c.value(&format!("{path}/json")).await?["HostConfig"]["PublishMode"] == mode {
        return Ok(());
    }
    let _: Value = c.json(Method::DELETE, &path, Payload::Empty).await?;
    Err(Failure::new("this daemon does not know --publish-mode; Longshore's does"))
}

/// Asks for the container, and before that, or where it is missing, for its image.
async fn ask(app: &App<'_>, create: &CreateArgs, platform: &str, body: Value) -> Result<ContainerCreated> {
    let c = &app.client;
    let name = create.name.as_deref().unwrap_or_default();
    let path = query("/containers/create", &[("name", name), ("platform", platform)]);
    // An id is no name that a registry knows.
    let image = create.image.parse::<Reference>().ok().map(Reference::or_latest);
    if create.pull == "always"
        && let Some(image) = &image
    {
        pull(app, create, image, platform).await?;
    }
    let missing = |e: &Failure| {
        e.is_not_found() && ["No such image", "image with reference"].iter().any(|t| e.message.contains(t))
    };
    // Docker's daemon knows no rows of ports; ours is spared tens of thousands of words.
    let no_rows = |e: &Failure| e.message.contains("invalid port specification");
    let mut body = body;
    let mut made = c.json(Method::POST, &path, Payload::Json(body.clone())).await;
    if let Err(e) = &made
        && no_rows(e)
        && let Some(each) = one_by_one(&body)
    {
        body = each;
        made = c.json(Method::POST, &path, Payload::Json(body.clone())).await;
    }
    match (made, image) {
        (Err(e), Some(image)) if missing(&e) && create.pull == "missing" => {
            if !create.quiet {
                eprintln!("Unable to find image '{}' locally", image.familiar());
            }
            pull(app, create, &image, platform).await?;
            c.json(Method::POST, &path, Payload::Json(body)).await
        }
        (other, _) => other,
    }
}

/// Pulls a container's image; what goes on is no result of the command's.
async fn pull(app: &App<'_>, create: &CreateArgs, image: &Reference, platform: &str) -> Result<()> {
    let (user, problem) = app.config.credentials(key(image.registry()));
    if let Some(e) = problem {
        return Err(Failure::new(e));
    }
    let path = super::registry::pull_path(image, platform);
    let answer = app.client.call_as(&user, Method::POST, &path).await?;
    show_progress(answer, Stream::Stderr, create.quiet).await.map(drop)
}

/// Starts a container.
pub(super) async fn start_one(c: &Client, id: &str) -> Result<()> {
    c.post(&format!("/containers/{}/start", escape(id))).await
}

/// Takes a connection to a container's streams.
pub(super) async fn attach_to(c: &Client, id: &str, attached: Attached, keys: &str) -> Result<Hijacked> {
    let flag = |on: bool| if on { "1" } else { "" };
    let path = query(
        &format!("/containers/{}/attach", escape(id)),
        &[
            ("stream", "1"),
            ("stdin", flag(attached.stdin)),
            ("stdout", flag(attached.stdout)),
            ("stderr", flag(attached.stderr)),
            ("detachKeys", keys),
        ],
    );
    c.hijack(&path, Payload::Empty).await
}

/// Asks for the end of a container; the daemon knows of it when this returns.
pub(super) async fn wait_for(
    c: &Client,
    id: &str,
    condition: &str,
) -> Result<JoinHandle<Result<WaitResponse>>> {
    let path = query(&format!("/containers/{}/wait", escape(id)), &[("condition", condition)]);
    let answer = c.call(Method::POST, &path, Payload::Empty).await?;
    Ok(tokio::spawn(async move {
        let body = read(answer).await?;
        longshore_api::json::from_slice(&body)
            .map_err(|e| Failure::new(format!("the daemon's answer is not understood: {e}")))
    }))
}
