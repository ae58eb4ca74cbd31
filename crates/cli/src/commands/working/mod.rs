//! `working`: images made step by step. Our own; Docker's daemon has nothing like it.

mod copy;
mod list;
mod run;

use http_body_util::BodyExt as _;
use hyper::Method;
use longshore_api::IdResponse;
use longshore_api::working::{Configured, Mounted, Working, WorkingChange, WorkingLine};
use serde_json::Value;

use super::build::{forget, is_plain, write};
use super::container::repository_and_tag;
use super::inspect::{self, Kind};
use super::upkeep::only_ours;
use super::{App, each, registry, say};
use crate::args::working::{AllArgs, CommitArgs, ConfigArgs, FromArgs, MountArgs, RenameArgs, Work};
use crate::client::{Client, Lines, Payload, escape, query};
use crate::credentials::header_of_all;
use crate::error::{Context, Failure, Result};
use crate::interrupt::Interrupt;
use crate::streams;
use crate::tty;

/// What the environment calls the time that an image is to say (reproducible-builds.org/specs/source-date-epoch).
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Does it.
pub(crate) async fn work(app: &App<'_>, work: Work) -> Result<()> {
    let c = &app.client;
    let done = match work {
        Work::From(args) => from(app, &args).await,
        Work::Run(args) => return run::run(app, &args).await,
        Work::Copy(args) => copy::copy(app, &args, false).await,
        Work::Add(args) => copy::copy(app, &args, true).await,
        Work::Config(args) => config(c, &args).await,
        Work::Commit(args) => commit(c, &args).await,
        Work::Ls(args) => list::list(c, &args).await,
        Work::Rm(args) => remove(c, &args).await,
        Work::Mount(args) => mount(c, &args).await,
        Work::Unmount(args) => unmount(c, &args).await,
        Work::Inspect(args) => {
            return inspect::inspect(c, &args.containers, args.format.as_deref(), Kind::Working).await;
        }
        Work::Rename(args) => rename(c, &args).await,
    };
    done.map_err(ours)
}

/// Docker's daemon knows no such page.
fn ours(e: Failure) -> Failure {
    match e.message.ends_with("page not found") {
        true => only_ours("working", e),
        false => e,
    }
}

fn path(container: &str, verb: &str) -> String {
    format!("/longshore/working/{}/{verb}", escape(container))
}

async fn all(c: &Client) -> Result<Vec<Working>> {
    c.json(Method::GET, "/longshore/working", Payload::Empty).await
}

/// What registries are told of users.
async fn users(app: &App<'_>) -> Result<String> {
    let config = app.config.clone();
    let (users, problems) = tokio::task::spawn_blocking(move || config.all_credentials())
        .await
        .context(|| "read credentials".into())?;
    for problem in problems {
        eprintln!("WARNING: {}", tty::printable(&problem));
    }
    Ok(header_of_all(&users))
}

async fn from(app: &App<'_>, args: &FromArgs) -> Result<()> {
    let platform = registry::platform(args.platform.as_deref());
    let route = query(
        "/longshore/working",
        &[("image", &args.image), ("name", &args.name), ("pull", pull(&args.pull)), ("platform", &platform)],
    );
    let users = users(app).await?;
    let mut interrupt = Interrupt::listen()?;
    let answer = app.client.call_as_all(&users, Method::POST, &route, Payload::Empty).await?;
    let mut body = answer.into_body();
    let (mut lines, mut name) = (Lines::default(), None);
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            status = interrupt.came() => return Err(Failure::exit(status)),
        };
        let Some(frame) = frame else { break };
        let frame = frame.context(|| "read the daemon's answer".into())?;
        if let Some(data) = frame.data_ref() {
            lines.push(data, |line| take(line, args.quiet, &mut name))?;
        }
    }
    lines.end(|line| take(line, args.quiet, &mut name))?;
    let name = name.ok_or_else(|| Failure::new("the daemon made no working container and said no word"))?;
    say(&name)
}

fn take(line: Value, quiet: bool, made: &mut Option<String>) -> Result<()> {
    let line: WorkingLine =
        serde_json::from_value(line).context(|| "the daemon's answer is not understood".into())?;
    match line {
        WorkingLine::Pull { progress } if !quiet => {
            let value = serde_json::to_value(progress).unwrap_or_default();
            let text = crate::format::progress::Message::new(&value).plain();
            streams::show(longshore_api::stream::Stream::Stderr, text.as_bytes())
        }
        WorkingLine::Pull { .. } | WorkingLine::Unknown => Ok(()),
        WorkingLine::Made { name, .. } => {
            *made = Some(name);
            Ok(())
        }
        WorkingLine::Failed { message } => {
            Err(Failure::new(format!("Error response from daemon: {message}")))
        }
    }
}

/// As the API has it; Buildah's older words mean the same.
fn pull(text: &str) -> &str {
    match text {
        "true" => "missing",
        "false" => "never",
        other => other,
    }
}

async fn config(c: &Client, args: &ConfigArgs) -> Result<()> {
    let own = |variable: &String| match (variable.contains('='), variable.ends_with('-')) {
        // A name alone takes this program's value.
        (false, false) => std::env::var(variable).map(|value| format!("{variable}={value}")).map_err(|_| {
            Failure::new(format!("--env {variable}: want NAME=value, or NAME of a variable that is set here"))
        }),
        _ => Ok(variable.clone()),
    };
    let change = WorkingChange {
        author: args.author.clone(),
        comment: args.comment.clone(),
        created_by: args.created_by.clone(),
        hostname: args.hostname.clone(),
        domainname: args.domainname.clone(),
        os: args.os.clone(),
        architecture: args.arch.clone(),
        variant: args.variant.clone(),
        os_version: args.os_version.clone(),
        cmd: args.cmd.clone(),
        entrypoint: args.entrypoint.clone(),
        shell: args.shell.clone(),
        user: args.user.clone(),
        working_dir: args.workingdir.clone(),
        stop_signal: args.stop_signal.clone(),
        env: args.env.iter().map(own).collect::<Result<_>>()?,
        annotations: args.annotation.clone(),
        labels: args.label.clone(),
        ports: args.port.iter().flat_map(|p| p.split(',')).map(str::to_owned).collect(),
        volumes: args.volume.clone(),
        on_build: args.onbuild.clone(),
        health: args.healthcheck.clone(),
        health_interval: args.healthcheck_interval.clone(),
        health_timeout: args.healthcheck_timeout.clone(),
        health_start_period: args.healthcheck_start_period.clone(),
        health_start_interval: args.healthcheck_start_interval.clone(),
        health_retries: args.healthcheck_retries,
        add_history: args.add_history,
    };
    let change = serde_json::to_value(change).context(|| "write the change".into())?;
    let done: Configured =
        c.json(Method::POST, &path(&args.container, "config"), Payload::Json(change)).await?;
    for warning in done.warnings {
        eprintln!("WARNING: {}", tty::printable(&warning));
    }
    Ok(())
}

async fn commit(c: &Client, args: &CommitArgs) -> Result<()> {
    let (repo, tag) = repository_and_tag(args.image.as_deref().unwrap_or_default())?;
    if args.source_date_epoch.is_some() && args.timestamp.is_some() {
        return Err(Failure::new("--timestamp and --source-date-epoch both say when: give one"));
    }
    let created = match (args.timestamp.or(args.source_date_epoch), std::env::var(EPOCH)) {
        (Some(seconds), _) => seconds.to_string(),
        (None, Ok(text)) if !text.is_empty() => {
            text.parse::<i64>().context(|| format!("{EPOCH}={text} is no number of seconds"))?.to_string()
        }
        _ => String::new(),
    };
    if let Some(file) = args.iidfile.as_ref().filter(|file| is_plain(file)) {
        forget(file)?;
    }
    let flag = |on: bool| if on { "1" } else { "" };
    let mtime = args.timestamp.map(|t| t.to_string()).unwrap_or_default();
    let route = query(
        &path(&args.container, "commit"),
        &[
            ("repo", repo.as_str()),
            ("tag", &tag),
            ("created", &created),
            ("mtime", &mtime),
            ("squash", flag(args.squash)),
            ("rm", flag(args.rm)),
        ],
    );
    let made: IdResponse = c.json(Method::POST, &route, Payload::Empty).await?;
    if let Some(file) = &args.iidfile {
        write(file, &made.id)?;
    }
    say(&made.id)
}

/// The names of those that are meant.
async fn chosen(c: &Client, args: &AllArgs, fits: impl Fn(&Working) -> bool) -> Result<Vec<String>> {
    match (args.all, args.containers.is_empty()) {
        (true, true) => Ok(all(c).await?.into_iter().filter(fits).map(|w| w.id).collect()),
        (false, false) => Ok(args.containers.clone()),
        (true, false) => Err(Failure::new("name working containers or give --all, not both")),
        (false, true) => Err(Failure::new("name a working container, or give --all")),
    }
}

async fn remove(c: &Client, args: &AllArgs) -> Result<()> {
    let names = chosen(c, args, |_| true).await?;
    each(&names, |name| async move {
        let route = format!("/longshore/working/{}", escape(&name));
        let gone: IdResponse = c.json(Method::DELETE, &route, Payload::Empty).await.map_err(ours)?;
        say(&gone.id)
    })
    .await
}

async fn mount(c: &Client, args: &MountArgs) -> Result<()> {
    if args.containers.is_empty() {
        for working in all(c).await?.iter().filter(|w| !w.mount_point.is_empty()) {
            say(&format!("{} {}", working.name, working.mount_point))?;
        }
        return Ok(());
    }
    if !c.host().starts_with("unix://") {
        return Err(Failure::new(format!(
            "mounting needs a daemon on this machine, and {} is reached over the network",
            c.host()
        )));
    }
    let many = args.containers.len() > 1;
    each(&args.containers, |name| async move {
        let done = c.json::<Mounted>(Method::POST, &path(&name, "mount"), Payload::Empty).await;
        let done = done.map_err(ours)?;
        say(&if many { format!("{name} {}", done.mount_point) } else { done.mount_point })
    })
    .await
}

async fn unmount(c: &Client, args: &AllArgs) -> Result<()> {
    let names = chosen(c, args, |w| !w.mount_point.is_empty()).await?;
    each(&names, |name| async move {
        let done = c.json::<Mounted>(Method::POST, &path(&name, "umount"), Payload::Empty).await;
        let id = done.map_err(ours)?.id;
        if id.is_empty() { Ok(()) } else { say(&id) }
    })
    .await
}

async fn rename(c: &Client, args: &RenameArgs) -> Result<()> {
    c.post(&query(&path(&args.container, "rename"), &[("name", &args.new_name)])).await
}
