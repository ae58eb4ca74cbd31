//! What each command does.

mod container;
mod cp;
mod image;
mod inspect;
mod lists;
mod run;
mod system;
mod volume;

use std::io::Write;

use hyper::Method;
use serde_json::{Map, Value};

use crate::cli::{
    Cli, Command, ContainerCommand, ContainersCommand, ImageCommand, NetworkCommand, SystemCommand,
};
use crate::client::{Client, Payload};
use crate::error::{Failure, Result};
use crate::settings::Target;

/// Commands of docker's that are not there yet.
const LATER: &[&str] = &[
    "build",
    "builder",
    "buildx",
    "compose",
    "context",
    "login",
    "logout",
    "manifest",
    "plugin",
    "pull",
    "push",
    "search",
    "stats",
    "swarm",
    "service",
    "stack",
    "secret",
    "config",
    "node",
    "trust",
    "update",
    "checkpoint",
];

/// Carries a command line out.
pub(crate) async fn run(cli: Cli) -> Result<()> {
    match &cli.command {
        Command::Other(words) => return Err(unknown(words)),
        Command::Completion { shell } => {
            let mut command = crate::cli::command();
            clap_complete::generate(*shell, &mut command, "longshore", &mut std::io::stdout());
            return Ok(());
        }
        Command::Daemon => return Err(Failure::new("the daemon is run as: longshore daemon")),
        _ => {}
    }
    let client = Target::resolve(cli.host.as_deref())?.connect().await?;
    let c = &client;
    match cli.command {
        Command::Container(command) | Command::Containers(ContainersCommand::Container(command)) => {
            containers(c, command).await
        }
        Command::Containers(ContainersCommand::Ls(args)) => lists::ps(c, &args).await,
        Command::Containers(ContainersCommand::Inspect(args)) => {
            inspect::inspect(c, &args, "container").await
        }
        Command::Containers(ContainersCommand::Prune(args)) => system::prune_containers(c, &args).await,
        Command::Images(args) | Command::Image(ImageCommand::Ls(args)) => lists::images(c, &args).await,
        Command::Load(args) | Command::Image(ImageCommand::Load(args)) => image::load(c, &args).await,
        Command::Save(args) | Command::Image(ImageCommand::Save(args)) => image::save(c, &args).await,
        Command::Import(args) | Command::Image(ImageCommand::Import(args)) => image::import(c, &args).await,
        Command::Tag(args) | Command::Image(ImageCommand::Tag(args)) => image::tag(c, &args).await,
        Command::Rmi(args) | Command::Image(ImageCommand::Rm(args)) => image::rmi(c, &args).await,
        Command::History(args) | Command::Image(ImageCommand::History(args)) => {
            lists::history(c, &args).await
        }
        Command::Image(ImageCommand::Inspect(args)) => inspect::inspect(c, &args, "image").await,
        Command::Volume(command) => volume::run(c, command).await,
        Command::Network(NetworkCommand::Ls(args)) => lists::networks(c, &args).await,
        Command::Network(NetworkCommand::Inspect(args)) => inspect::inspect(c, &args, "network").await,
        Command::Inspect(args) => inspect::inspect(c, &args, "").await,
        Command::Events(args) | Command::System(SystemCommand::Events(args)) => {
            system::events(c, &args).await
        }
        Command::Info(args) | Command::System(SystemCommand::Info(args)) => system::info(c, &args).await,
        Command::Version(args) => system::version(c, &args).await,
        Command::Other(_) | Command::Completion { .. } | Command::Daemon => Ok(()),
    }
}

async fn containers(c: &Client, command: ContainerCommand) -> Result<()> {
    use ContainerCommand as C;
    match command {
        C::Run(args) => run::run(c, &args).await,
        C::Create(args) => run::create(c, &args).await,
        C::Start(args) => run::start(c, &args).await,
        C::Stop(args) => container::stop(c, "stop", &args).await,
        C::Restart(args) => container::stop(c, "restart", &args).await,
        C::Kill(args) => container::kill(c, &args).await,
        C::Rm(args) => container::rm(c, &args).await,
        C::Ps(args) => lists::ps(c, &args).await,
        C::Logs(args) => container::logs(c, &args).await,
        C::Attach(args) => run::attach(c, &args).await,
        C::Exec(args) => run::exec(c, &args).await,
        C::Wait(names) => container::wait(c, &names.containers).await,
        C::Rename { container, new_name } => container::rename(c, &container, &new_name).await,
        C::Pause(names) => container::simple(c, "pause", &names.containers).await,
        C::Unpause(names) => container::simple(c, "unpause", &names.containers).await,
        C::Top { container, ps_options } => container::top(c, &container, &ps_options).await,
        C::Port { container, port } => container::port(c, &container, port.as_deref()).await,
        C::Diff { container } => container::diff(c, &container).await,
        C::Commit(args) => container::commit(c, &args).await,
        C::Export { output, container } => container::export(c, output.as_deref(), &container).await,
        C::Cp(args) => cp::cp(c, &args).await,
    }
}

fn unknown(words: &[std::ffi::OsString]) -> Failure {
    let word = words.first().map(|w| w.to_string_lossy().into_owned()).unwrap_or_default();
    if LATER.contains(&word.as_str()) {
        return Failure::new(format!("{word} is not implemented yet"));
    }
    Failure::new(format!("unknown command: {word}\n\nRun 'longshore --help' for more information"))
}

/// Does `f` for every name, goes on after failures, and fails if one did.
async fn each<F>(names: &[String], mut f: impl FnMut(String) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let mut failed = None;
    for name in names {
        if let Err(e) = f(name.clone()).await {
            eprintln!("{}", crate::tty::printable(&e.message));
            failed = Some(e.code);
        }
    }
    failed.map_or(Ok(()), |code| Err(Failure::exit(code)))
}

/// Prints a line to standard output.
fn say(text: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure::exit(141)),
        Err(e) => Err(Failure::new(format!("write output: {e}"))),
        Ok(()) => Ok(()),
    }
}

/// `--filter key=value` as the API takes it.
fn filters(values: &[String]) -> Result<String> {
    if values.is_empty() {
        return Ok(String::new());
    }
    let mut map: Map<String, Value> = Map::new();
    for text in values {
        let (key, value) = text.split_once('=').ok_or_else(|| {
            Failure::new(format!(
                "invalid argument {text:?} for \"-f, --filter\" flag: invalid filter '{text}'"
            ))
        })?;
        let list = map.entry(key.trim().to_ascii_lowercase()).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(list) = list {
            list.push(Value::from(value.trim()));
        }
    }
    Ok(Value::Object(map).to_string())
}

/// Whether the user agrees; only asked on a terminal.
fn confirmed(question: &str) -> Result<bool> {
    eprint!("{question} [y/N] ");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(|e| Failure::new(format!("read the answer: {e}")))?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

/// Sends a request and throws the answer's body away.
async fn drop_answer(c: &Client, method: Method, path: &str, payload: Payload) -> Result<()> {
    crate::client::read(c.call(method, path, payload).await?).await.map(drop)
}
