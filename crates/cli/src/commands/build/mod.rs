//! `build`.

mod cache;
mod debug;
pub(super) mod keys;
mod output;
pub(super) mod secrets;
mod send;
mod share;
mod source;
mod verify;
mod view;

use std::fs;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::Method;
use longshore_api::build::{BuildHead, BuildLine};
use longshore_api::stream::Stream;
use serde_json::{Value, json};

use self::output::Outputs;
use self::send::Sender;
use self::source::{Files, Shared, Source};
use self::view::View;
use super::progress::show_progress;
use super::{App, registry, say};
use crate::args::build::{BuildArgs, Progress};
use crate::args::output::{Dest, Made, Output};
use crate::args::registry::no_content_trust;
use crate::client::{Hijacked, Lines, Payload, query};
use crate::credentials::header_of_all;
use crate::error::{Context, Failure, Result, words};
use crate::format::build::{Outcome, mistake};
use crate::interrupt::Interrupt;
use crate::tty;

/// What a build is asked for with, once everything was looked at.
struct Asked {
    path: String,
    /// What is known of users at registries.
    users: String,
    /// What errors call the Dockerfile, and what is in it.
    dockerfile: Option<(String, Vec<u8>)>,
    /// Directories with caches that the daemon may use meanwhile.
    _offers: Vec<cache::Offer>,
    /// Agents that were started for it.
    _agents: Vec<keys::KeyAgent>,
}

/// `build`.
pub(crate) async fn build(app: &App<'_>, args: &BuildArgs) -> Result<()> {
    no_content_trust(args.disable_content_trust)?;
    let progress = progress(args)?;
    if args.compress {
        eprintln!("WARNING: --compress changes nothing: the daemon is on this machine");
    }
    if args.verify_reproducible && args.platform.len() > 1 {
        return Err(Failure::new("--verify-reproducible compares two images: build for one platform"));
    }
    if args.pushes() && args.names().is_empty() {
        return Err(Failure::new("a tag is needed when pushing: name the image with --tag"));
    }
    if args.verify_reproducible && (!args.records() || args.context == "-" || args.file == "-") {
        return Err(Failure::new(
            "--verify-reproducible compares images of files that are read twice: build a folder, and an image",
        ));
    }
    if args.debug_shell && !(tty::stdin_is_terminal() && tty::stdout_is_terminal()) {
        return Err(Failure::new("--debug-shell needs a terminal on standard input and output"));
    }
    if let Some(file) = args.iidfile.as_ref().filter(|file| is_plain(file)) {
        forget(file)?;
    }
    let id = one_build(app, args, progress).await?;
    if let Some(id) = id.as_deref().filter(|_| args.verify_reproducible) {
        verify::verify(app, args, progress, id).await?;
    }
    finish(app, args, progress, id.as_deref()).await
}

/// Builds once; gives the image's id, if there is one.
async fn one_build(app: &App<'_>, args: &BuildArgs, progress: Progress) -> Result<Option<String>> {
    let own = is_ours(app).await?;
    if !own && args.outputs().iter().any(|o| !matches!(o.made, Made::Image { .. })) {
        return Err(Failure::new("outputs other than an image need a Longshore daemon: this one is another"));
    }
    let given = Some(args.platform.join(",")).filter(|platforms| !platforms.is_empty());
    let platform = registry::platform(given.as_deref());
    if !own && platform.contains(',') {
        return Err(Failure::new("--platform: several need a Longshore daemon: this one is another"));
    }
    let mut interrupt = Interrupt::listen()?;
    let prepared = prepare(app, args, &platform, own);
    let (asked, sender) = tokio::select! {
        prepared = prepared => prepared?,
        status = interrupt.came() => return Err(Failure::exit(status)),
    };
    let mut outputs = Outputs::open(&args.outputs())?;
    match own {
        true => ours(app, args, &asked, sender, View::new(progress, interrupt)?, &mut outputs).await,
        false => theirs(app, &asked, sender, progress == Progress::Quiet, interrupt).await.map(Some),
    }
}

/// How it is shown: by option, else by the environment as buildx reads it.
fn progress(args: &BuildArgs) -> Result<Progress> {
    if args.quiet {
        return Ok(Progress::Quiet);
    }
    let own = || std::env::var("BUILDKIT_PROGRESS").unwrap_or_default();
    let text = args.progress.clone().unwrap_or_else(own);
    let progress = Progress::read(&text).map_err(|e| Failure::new(format!("BUILDKIT_PROGRESS: {e}")))?;
    let moves = std::env::var("TERM").is_ok_and(|t| !["", "dumb"].contains(&t.as_str()));
    match (progress, tty::stderr_is_terminal()) {
        (Progress::Tty, false) => Err(Failure::new("--progress tty: standard error is no terminal")),
        (Progress::Auto, true) if moves => Ok(Progress::Tty),
        (Progress::Auto, _) => Ok(Progress::Plain),
        (progress, _) => Ok(progress),
    }
}

/// Whether the daemon has our routes.
async fn is_ours(app: &App<'_>) -> Result<bool> {
    let version = app.client.value("/version").await?;
    Ok(version["Platform"]["Name"].as_str().is_some_and(|name| name.starts_with("Longshore")))
}

/// Looks at everything that is to be sent, which may take a while.
async fn prepare(app: &App<'_>, args: &BuildArgs, platform: &str, own: bool) -> Result<(Asked, Sender)> {
    let (context, file, config) = (args.context.clone(), args.file.clone(), app.config.clone());
    let additional = args.additional();
    let looking = tokio::task::spawn_blocking(move || {
        let mut source = Source::open(&context, &file, std::io::stdin(), own)?;
        match &mut source.files {
            Files::Shared(shared) => shared.add(additional)?,
            _ if additional.is_empty() => {}
            _ => {
                return Err(Failure::new(
                    "--build-context needs a Longshore daemon, and a context that is no tar",
                ));
            }
        }
        Ok::<_, Failure>((source, config.all_credentials()))
    });
    let (source, (users, problems)) = looking.await.context(|| "read the context".into())??;
    for problem in problems {
        eprintln!("WARNING: {}", tty::printable(&problem));
    }
    let proxies = app.config.proxies(&app.client.host());
    let mut parameters =
        args.parameters(&source.dockerfile, platform, |name| std::env::var(name).ok(), &proxies)?;
    if let Files::Elsewhere(address) | Files::Shared(Shared { elsewhere: Some(address), .. }) = &source.files
    {
        parameters.push(("remote", address.clone()));
    }
    if !own {
        // Docker's daemon wants each by itself.
        let hosts =
            parameters.iter().position(|(name, _)| *name == "extrahosts").map(|at| parameters.remove(at));
        let hosts = hosts.iter().flat_map(|(name, all)| all.split(',').map(|host| (*name, host.to_owned())));
        let hosts: Vec<_> = hosts.collect();
        parameters.extend(hosts);
    }
    let pairs: Vec<(&str, &str)> = parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let route = if own { "/longshore/build" } else { "/build" };
    let (mut head, agents) = secrets::head(args)?;
    if let Some(option) = args.ours_alone().filter(|_| !own) {
        return Err(Failure::new(format!("{option} needs a Longshore daemon: this one is another")));
    }
    let offers = cache::offer(app, args, &mut head).await?;
    let asked = Asked {
        path: query(route, &pairs),
        users: header_of_all(&users),
        dockerfile: source.shown,
        _offers: offers,
        _agents: agents,
    };
    Ok((asked, Sender::new(source.files, head)?))
}

/// Builds with our own daemon; gives the image's id, if there is one.
async fn ours(
    app: &App<'_>,
    args: &BuildArgs,
    asked: &Asked,
    sender: Sender,
    mut view: View,
    outputs: &mut Outputs,
) -> Result<Option<String>> {
    let mut sender = sender;
    let built = follow(app, asked, &mut sender, &mut view, outputs).await;
    view.close()?;
    let explained: String = view.build.explained.iter().map(|line| format!("{line}\n")).collect();
    view.tell(&explained)?;
    let dockerfile = asked.dockerfile.as_ref().map(|(name, text)| (name.as_str(), text.as_slice()));
    match (&view.build.outcome, built) {
        (Some(Outcome::Built(id)), Ok(())) => Ok(Some(id.clone())),
        (Some(Outcome::Exported), Ok(())) => Ok(outputs.id.clone()),
        (Some(Outcome::Failed { .. }), Ok(())) => {
            view.tell(&view.build.failure(dockerfile))?;
            if let Some(image) = view.build.left.take() {
                drop(view);
                debug::shell(app, &image, &args.network).await?;
            }
            Err(Failure::exit(1))
        }
        (Some(Outcome::Checked(0)), Ok(())) => {
            say("Check complete, no warnings found.")?;
            Err(Failure::exit(0))
        }
        (Some(Outcome::Checked(n)), Ok(())) => {
            let many = if *n == 1 { "1 warning has".to_owned() } else { format!("{n} warnings have") };
            say(&format!("Check complete, {many} been found!"))?;
            Err(Failure::exit(1))
        }
        (None, Ok(())) => Err(Failure::new("the daemon ended the build without a result")),
        (_, Err(e)) => Err(refused(e, dockerfile)),
    }
}

/// What the daemon refused at once; where that is the Dockerfile, with the place.
fn refused(e: Failure, dockerfile: Option<(&str, &[u8])>) -> Failure {
    let place = dockerfile.filter(|_| e.status == Some(400)).map(|(name, text)| mistake(name, text));
    match place.filter(|place| !place.is_empty()) {
        Some(place) => {
            let why = e.message.strip_prefix("Error response from daemon: ").unwrap_or(&e.message);
            Failure::new(format!("{place}ERROR: failed to build: {why}"))
        }
        None => e,
    }
}

/// Sends the context, or shares it, and reads the answer to its end.
async fn follow(
    app: &App<'_>,
    asked: &Asked,
    sender: &mut Sender,
    view: &mut View,
    outputs: &mut Outputs,
) -> Result<()> {
    if let Some((head, directories)) = sender.shared() {
        let hijacked = hijack(app, asked, &head, view).await?;
        return share::share(hijacked, sender.sent(), directories, view, outputs).await;
    }
    let payload = Payload::Stream(sender.kind(), sender.start());
    let sent = sender.counted();
    if let Some(sent) = &sent {
        view.sending(sent, false)?;
    }
    let answer = {
        let call = app.client.call_as_all(&asked.users, Method::POST, &asked.path, payload);
        view.watch(call, sent.as_ref()).await?
    };
    let answer = answer.map_err(|e| sender.failure().unwrap_or(e))?;
    if let Some(sent) = &sent {
        view.sending(sent, true)?;
    }
    let mut body = answer.into_body();
    let mut incoming = Incoming::default();
    loop {
        let Some(frame) = view.watch(body.frame(), None).await? else { break };
        let frame = frame.context(|| "read the daemon's answer".into())?;
        if let Some(data) = frame.data_ref() {
            for line in incoming.push(data)? {
                outputs.take(&line).await?;
                view.take(line)?;
            }
        }
    }
    for line in incoming.end()? {
        outputs.take(&line).await?;
        view.take(line)?;
    }
    Ok(())
}

/// The lines of an answer as they come.
#[derive(Default)]
struct Incoming {
    lines: Lines,
}

impl Incoming {
    fn push(&mut self, data: &[u8]) -> Result<Vec<BuildLine>> {
        let mut out = Vec::new();
        self.lines.push(data, |line| Self::read(line, &mut out))?;
        Ok(out)
    }

    fn end(&mut self) -> Result<Vec<BuildLine>> {
        let mut out = Vec::new();
        self.lines.end(|line| Self::read(line, &mut out))?;
        Ok(out)
    }

    fn read(line: Value, out: &mut Vec<BuildLine>) -> Result<()> {
        out.push(serde_json::from_value(line).context(|| "the daemon's answer is not understood".into())?);
        Ok(())
    }
}

/// Asks for a build whose directories are shared.
async fn hijack(app: &App<'_>, asked: &Asked, head: &BuildHead, view: &mut View) -> Result<Hijacked> {
    let payload = Payload::Json(serde_json::to_value(head).context(|| "write the request".into())?);
    view.watch(app.client.hijack_as_all(&asked.users, &asked.path, payload), None).await?
}

/// Builds with Docker's daemon, whose classic builder tells everything in words; gives the image's id.
async fn theirs(
    app: &App<'_>,
    asked: &Asked,
    mut sender: Sender,
    quiet: bool,
    mut interrupt: Interrupt,
) -> Result<String> {
    let payload = Payload::Stream("application/x-tar", sender.start());
    let call = app.client.call_as_all(&asked.users, Method::POST, &asked.path, payload);
    let answer = tokio::select! {
        answer = call => answer.map_err(|e| sender.failure().unwrap_or(e))?,
        status = interrupt.came() => return Err(Failure::exit(status)),
    };
    drop(interrupt);
    let results = show_progress(answer, Stream::Stderr, quiet).await?;
    let id = results.iter().rev().find_map(|result| result["ID"].as_str());
    id.map(str::to_owned).ok_or_else(|| Failure::new("the daemon ended the build without a result"))
}

/// Hands over what was built.
async fn finish(app: &App<'_>, args: &BuildArgs, progress: Progress, id: Option<&str>) -> Result<()> {
    // Files alone have no image.
    let Some(id) = id else { return Ok(()) };
    if let Some(file) = &args.iidfile {
        write(file, id)?;
    }
    let mut pushed = None;
    if args.pushes() {
        for name in args.names() {
            pushed = registry::push_built(app, &name, progress == Progress::Quiet).await?;
        }
    }
    if let Some(file) = &args.metadata_file {
        write(file, &format!("{:#}\n", metadata(args, id, pushed.as_deref())))?;
    }
    let to_stdout = |output: Output| match output.made {
        Made::Tar(to) | Made::Archive(to) => to == Dest::Stdout,
        Made::Image { .. } | Made::Folder(_) => false,
    };
    if progress == Progress::Quiet && !args.outputs().into_iter().any(to_stdout) { say(id) } else { Ok(()) }
}

/// What buildx writes about an image. Where no registry has it, no manifest says what it is but its configuration.
fn metadata(args: &BuildArgs, id: &str, pushed: Option<&str>) -> Value {
    let mut out = json!({"containerimage.config.digest": id, "containerimage.digest": pushed.unwrap_or(id)});
    let names: Vec<String> = args.names().iter().filter_map(|name| full(name)).collect();
    if !names.is_empty() {
        out["image.name"] = names.join(",").into();
    }
    out
}

/// A name with its registry and tag.
fn full(name: &str) -> Option<String> {
    let name = name.parse::<longshore_oci::Reference>().ok()?.or_latest();
    Some(format!("{}/{}:{}", name.registry(), name.repository(), name.tag().unwrap_or_default()))
}

/// Whether a path is, or may become, a file that is replaced as a whole; what else there is, such as `/dev/stdout`, is
/// written to as it is.
pub(super) fn is_plain(file: &str) -> bool {
    fs::symlink_metadata(file).map_or(true, |meta| meta.is_file())
}

/// Writes a file in one step.
pub(super) fn write(file: &str, text: &str) -> Result<()> {
    let failed = |e: std::io::Error| Failure::new(format!("write {file}: {}", words(&e)));
    if !is_plain(file) {
        return fs::write(file, text).map_err(failed);
    }
    let aside = format!("{file}.{}", std::process::id());
    let written = fs::write(&aside, text).and_then(|()| fs::rename(&aside, file));
    written.map_err(|e| {
        let _ = fs::remove_file(&aside);
        failed(e)
    })
}

/// Removes what an earlier build wrote: whoever finds a file afterwards may trust it.
pub(super) fn forget(file: &str) -> Result<()> {
    match fs::remove_file(file) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::new(format!("removing image ID file {file}: {}", words(&e))))
        }
        _ => Ok(()),
    }
}

/// How often what changes is drawn, and how often lines that wait get their turn.
const FRAME: Duration = Duration::from_millis(100);
