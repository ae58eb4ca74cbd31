//! From a command line to what is to be done.

mod build;
pub(crate) mod complete;
mod network;
mod registry;
mod scripts;
mod tree;
mod working;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;

pub(crate) use tree::{Command, Group, Names};

use crate::args::build::{BuildArgs, BuilderDuArgs, BuilderPruneArgs};
use crate::args::create::{CreateArgs, RunOptions};
use crate::args::layers::Look;
use crate::args::networks::{
    NetworkConnectArgs, NetworkCreateArgs, NetworkDisconnectArgs, NetworkRmArgs, PortsArgs,
};
use crate::args::update::UpdateArgs;
use crate::args::working::Work;
use crate::args::{container as c, image as i, object as o, registry as r, system as s};
use crate::error::{Failure, Result};
use crate::flags::{self, BOOL, Count, Flag, LIST, Matches, STRING, flag, help};

/// Status for a wrong option, as docker gives it.
const WRONG_OPTION: i32 = 125;

/// Options of `run`.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunArgs {
    pub(crate) options: RunOptions,
    pub(crate) create: CreateArgs,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    Run(Box<RunArgs>),
    Create(Box<CreateArgs>),
    Start(c::StartArgs),
    Stop(c::StopArgs),
    Restart(c::StopArgs),
    Kill(c::KillArgs),
    Rm(c::RmArgs),
    Ps(c::PsArgs),
    Logs(c::LogsArgs),
    Attach(c::AttachArgs),
    Exec(c::ExecArgs),
    Wait(c::Names),
    Rename(c::RenameArgs),
    Pause(c::Names),
    Unpause(c::Names),
    Top(c::TopArgs),
    Port(c::PortArgs),
    Diff(c::DiffArgs),
    Commit(c::CommitArgs),
    Export(c::ExportArgs),
    Cp(c::CpArgs),
    ContainerInspect(o::ContainerInspectArgs),
    ContainerPrune(o::ContainerPruneArgs),
    Build(Box<BuildArgs>),
    Images(i::ImagesArgs),
    Load(i::LoadArgs),
    Save(i::SaveArgs),
    Import(i::ImportArgs),
    Tag(i::TagArgs),
    Rmi(i::RmiArgs),
    History(i::HistoryArgs),
    ImageInspect(i::ImageInspectArgs),
    ImagePrune(i::ImagePruneArgs),
    BuilderPrune(BuilderPruneArgs),
    BuilderDu(BuilderDuArgs),
    Pull(r::PullArgs),
    Push(r::PushArgs),
    Login(r::LoginArgs),
    Logout(r::LogoutArgs),
    Search(r::SearchArgs),
    ManifestInspect(r::ManifestInspectArgs),
    ManifestReferrers(r::ReferrersArgs),
    VolumeCreate(o::VolumeCreateArgs),
    VolumeLs(o::VolumeLsArgs),
    VolumeInspect(o::VolumeInspectArgs),
    VolumeRm(o::VolumeRmArgs),
    VolumePrune(o::VolumePruneArgs),
    NetworkCreate(Box<NetworkCreateArgs>),
    NetworkConnect(NetworkConnectArgs),
    NetworkDisconnect(NetworkDisconnectArgs),
    NetworkRm(NetworkRmArgs),
    NetworkLs(o::NetworkLsArgs),
    NetworkInspect(o::NetworkInspectArgs),
    Ports(PortsArgs),
    Update(UpdateArgs),
    Inspect(o::InspectArgs),
    Events(o::EventsArgs),
    Info(o::FormatArgs),
    Version(o::FormatArgs),
    SystemDf(s::DfArgs),
    SystemPrune(s::SystemPruneArgs),
    SystemGc(s::GcArgs),
    SystemCheck(s::CheckArgs),
    NetworkPrune(s::NetworkPruneArgs),
    /// Seeing into layers.
    Look(Look),
    /// Images made step by step.
    Work(Work),
    /// What a shell asks for: the words so far, and whether with descriptions.
    Complete(Vec<String>, bool),
}

/// Options before the command.
#[derive(Clone, Debug, Default)]
pub(crate) struct Global {
    pub(crate) config: Option<String>,
    pub(crate) context: String,
    pub(crate) hosts: Vec<String>,
    pub(crate) debug: bool,
}

/// A command line that was understood.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one, for the life of the program")]
pub(crate) enum Parsed {
    /// Something to do, and what it was called: `docker run`.
    Do(Global, Action, String),
    /// Text to show: on standard output, or (when it stands for an error) on the other.
    Show { text: String, error: bool },
}

const GLOBAL: &[Flag] = &[
    flag("config", STRING, "Location of client config files"),
    flag(
        "context",
        STRING,
        "Name of the context to use to connect to the daemon (overrides DOCKER_HOST env var; only \"default\" is there yet)",
    )
    .short('c'),
    flag("debug", BOOL, "Enable debug mode").short('D'),
    flag("host", LIST, "Daemon socket to connect to").short('H'),
    flag("log-level", STRING, "Set the logging level (\"debug\", \"info\", \"warn\", \"error\", \"fatal\")")
        .short('l')
        .default("info"),
    flag("tls", BOOL, "Use TLS").refused(NO_TLS),
    flag("tlscacert", STRING, "Trust certs signed only by this CA").refused(NO_TLS),
    flag("tlscert", STRING, "Path to TLS certificate file").refused(NO_TLS),
    flag("tlskey", STRING, "Path to TLS key file").refused(NO_TLS),
    flag("tlsverify", BOOL, "Use TLS and verify the remote").refused(NO_TLS),
    flag("version", BOOL, "Print version information and quit").short('v'),
];

const NO_TLS: &str = "is not implemented yet: connections to other machines need TLS";

/// Shown by commands that have another use for `-h`.
const HELP: &[Flag] = &[flag("help", BOOL, "Print usage")];

const COMPLETION: &str = "Print a shell's completion script";
const DAEMON: &str = "Run the engine's daemon";

/// Reads a command line. The program's name decides what help calls it.
pub(crate) fn parse(argv: Vec<OsString>) -> Result<Parsed> {
    let name = argv.first().and_then(|a| Path::new(a).file_name()?.to_str()).unwrap_or("longshore");
    let program = if name == "docker" { "docker" } else { "longshore" };
    let words: Vec<String> = argv.iter().skip(1).map(|w| w.to_string_lossy().into_owned()).collect();
    let m = flags::parse(GLOBAL, &words, false)
        .map_err(|e| wrong(&e, &format!("{program} [OPTIONS] COMMAND [ARG...]"), program))?;
    if m.help {
        return Ok(show(&m, top_help(program)));
    }
    if flags::values::truth(m.last("version")) == Some(true) {
        let text = format!("Longshore version {}\n", env!("CARGO_PKG_VERSION"));
        return Ok(Parsed::Show { text, error: false });
    }
    let global = Global {
        config: m.given("config").then(|| m.last("config").to_owned()),
        context: m.last("context").to_owned(),
        hosts: m.all("host").to_vec(),
        debug: flags::values::truth(m.last("debug")) == Some(true)
            || ["debug", "trace"].contains(&m.last("log-level")),
    };
    let level = m.last("log-level");
    if !["panic", "fatal", "error", "warn", "warning", "info", "debug", "trace"].contains(&level) {
        return Err(Failure::new(format!("Unable to parse logging level: {level}")));
    }
    let words: Vec<String> = m.args().into();
    let Some((word, rest)) = words.split_first() else {
        return Ok(Parsed::Show { text: top_help(program), error: true });
    };
    match word.as_str() {
        "help" => help_about(program, rest),
        "completion" => scripts::parse(program, rest),
        "__complete" => Ok(Parsed::Do(global, Action::Complete(rest.to_vec(), true), String::new())),
        "__completeNoDesc" => Ok(Parsed::Do(global, Action::Complete(rest.to_vec(), false), String::new())),
        "daemon" => Err(Failure::new("the daemon is run as: longshore daemon")),
        _ => {
            let path = format!("{program} {word}");
            match (tree::top(word), tree::group(word)) {
                (Some(command), _) => leaf(global, command, path, rest),
                (None, Some(group)) => grouped(global, group, &path, rest),
                (None, None) => Err(unknown(program, &path, tree::LATER.contains(&word.as_str()), "")),
            }
        }
    }
}

fn grouped(global: Global, group: &Group, path: &str, words: &[String]) -> Result<Parsed> {
    let m = flags::parse(&[], words, false).map_err(|e| wrong(&e, path, path))?;
    if m.help {
        return Ok(show(&m, group_help(group, path)));
    }
    let words: Vec<String> = m.args().into();
    let Some((word, rest)) = words.split_first() else {
        return Ok(Parsed::Show { text: group_help(group, path), error: true });
    };
    let full = format!("{path} {word}");
    match group.find(word) {
        Some(command) => leaf(global, command, format!("{path} {}", command.name), rest),
        None => {
            let program = path.split(' ').next().unwrap_or_default();
            let usage = format!("Usage:  {path}{}\n\n", group.usage);
            Err(unknown(program, &full, group.later.contains(&word.as_str()), &usage))
        }
    }
}

fn leaf(global: Global, command: &Command, path: String, words: &[String]) -> Result<Parsed> {
    let flags = command.all_flags();
    let m =
        flags::parse(&flags, words, command.mixed).map_err(|e| wrong(&e, &usage(command, &path), &path))?;
    if m.help {
        return Ok(show(&m, command_help(command, &path)));
    }
    for note in &m.notes {
        crate::commands::say(note)?;
    }
    if let Some(what) = command.count.wrong(m.count()) {
        // Docker's hint differs between the rules (its "SRun" for the third is a slip that we leave out).
        let hint = if matches!(command.count, Count::AtLeast(_)) { "See" } else { "Run" };
        let program = path.split(' ').next().unwrap_or_default();
        return Err(Failure::new(format!(
            "{program}: '{path}' {what}\n\nUsage:  {}\n\n{hint} '{path} --help' for more information",
            usage(command, &path)
        )));
    }
    Ok(Parsed::Do(global, (command.make)(&m), path))
}

fn usage(command: &Command, path: &str) -> String {
    let program = path.split(' ').next().unwrap_or_default();
    let text = if command.usage.is_empty() { path.to_owned() } else { format!("{path} {}", command.usage) };
    text.replace("\tdocker cp", &format!("\t{program} cp"))
}

/// A wrong option.
fn wrong(error: &str, usage: &str, path: &str) -> Failure {
    let text = format!("{error}\n\nUsage:  {usage}\n\nRun '{path} --help' for more information");
    Failure::new(text).with_code(WRONG_OPTION)
}

fn unknown(program: &str, path: &str, later: bool, usage: &str) -> Failure {
    if later {
        return Failure::new(format!("{program}: '{path}' is not implemented yet"));
    }
    let about = path.rsplit_once(' ').map_or(program, |(p, _)| p);
    Failure::new(format!(
        "{program}: unknown command: {path}\n\n{usage}Run '{about} --help' for more information"
    ))
}

fn show(m: &Matches, text: String) -> Parsed {
    let notes: String = m.notes.iter().map(|n| format!("{n}\n")).collect();
    Parsed::Show { text: notes + &text, error: false }
}

fn help_about(program: &str, words: &[String]) -> Result<Parsed> {
    let text = match words {
        [] => Some(top_help(program)),
        [word] if word == "completion" => Some(scripts::help(program)),
        [word, ..] => match (tree::top(word), tree::group(word)) {
            (Some(command), _) => Some(command_help(command, &format!("{program} {word}"))),
            (None, Some(group)) => Some(match words.get(1).map(|w| group.find(w)) {
                Some(Some(command)) => command_help(command, &format!("{program} {word} {}", command.name)),
                _ => group_help(group, &format!("{program} {word}")),
            }),
            (None, None) => None,
        },
    };
    let text = text.ok_or_else(|| Failure::new(format!("unknown help topic: {}", words.join(" "))))?;
    Ok(Parsed::Show { text, error: false })
}

fn rows(out: &mut String, title: &str, rows: impl Iterator<Item = (&'static str, &'static str)>) {
    let _ = writeln!(out, "{title}:");
    for (name, about) in rows {
        let _ = writeln!(out, "  {name:<11} {about}");
    }
    out.push('\n');
}

fn top_help(program: &str) -> String {
    let mut out =
        format!("Usage:  {program} [OPTIONS] COMMAND\n\nA self-sufficient runtime for containers\n\n");
    rows(&mut out, "Common Commands", tree::COMMON.iter().map(|c| (c.name, c.about)));
    rows(&mut out, "Management Commands", tree::GROUPS.iter().map(|g| (g.name, g.about)));
    let mut others: Vec<_> = tree::OTHERS.iter().map(|c| (c.name, c.about)).collect();
    others.push(("completion", COMPLETION));
    if program == "longshore" {
        others.push(("daemon", DAEMON));
    }
    others.sort_unstable();
    rows(&mut out, "Commands", others.into_iter());
    let _ = writeln!(out, "Global Options:\n{}", help::options(GLOBAL, help::columns()));
    let _ = writeln!(out, "Run '{program} COMMAND --help' for more information on a command.");
    out
}

fn group_help(group: &Group, path: &str) -> String {
    let mut out = format!("Usage:  {path} COMMAND\n\n{}\n\n", group.about);
    rows(&mut out, "Commands", group.commands.iter().map(|c| (c.name, c.about)));
    let _ = writeln!(out, "Run '{path} COMMAND --help' for more information on a command.");
    out
}

fn command_help(command: &Command, path: &str) -> String {
    let program = path.split(' ').next().unwrap_or_default();
    let about = if command.long.is_empty() { command.about } else { command.long };
    let mut out = format!("Usage:  {}\n\n{about}\n", usage(command, path));
    if !command.also.is_empty() {
        let all: Vec<String> = command.also.iter().map(|a| format!("{program} {a}")).collect();
        let _ = writeln!(out, "\nAliases:\n  {}", all.join(", "));
    }
    let mut flags = command.all_flags();
    flags.retain(|f| program == "longshore" || !f.is_ours);
    if flags.iter().any(|f| f.short == Some('h')) {
        flags.extend(HELP);
    }
    if !flags.is_empty() {
        let _ = write!(out, "\nOptions:\n{}", help::options(&flags, help::columns()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Parsed> {
        parse(std::iter::once("docker").chain(line.split_whitespace()).map(OsString::from).collect())
    }

    fn action(line: &str) -> Action {
        match parsed(line) {
            Ok(Parsed::Do(_, action, _)) => action,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn every_command() -> impl Iterator<Item = &'static Command> {
        tree::COMMON.iter().chain(tree::OTHERS).chain(tree::GROUPS.iter().flat_map(|g| g.commands)).copied()
    }

    #[test]
    fn no_option_is_defined_twice() {
        for command in every_command() {
            let flags = command.all_flags();
            for (i, a) in flags.iter().enumerate() {
                for b in &flags[i + 1..] {
                    assert!(
                        a.long != b.long && (a.short.is_none() || a.short != b.short),
                        "{}: {}",
                        command.name,
                        a.long
                    );
                }
            }
        }
    }

    #[test]
    fn commands_are_found_under_all_their_names() {
        for line in ["ps", "container ls", "container list", "container ps"] {
            assert!(matches!(action(line), Action::Ps(_)), "{line}");
        }
        for line in ["rmi x", "image rm x", "image remove x"] {
            assert!(matches!(action(line), Action::Rmi(_)), "{line}");
        }
        let Action::Run(run) = action("run -d -it --rm --name x busybox sh -c true") else { panic!() };
        assert!(run.options.detach && run.create.tty && run.create.interactive && run.create.rm);
        assert_eq!((run.create.image.as_str(), run.create.command.len()), ("busybox", 3));
        let Action::Stop(stop) = action("stop --time 3 a b") else { panic!() };
        assert_eq!((stop.timeout, stop.containers.len()), (Some(3), 2));
    }

    #[test]
    fn errors_are_dockers() {
        for (line, code, want) in [
            ("foo", 1, "docker: unknown command: docker foo\n\nRun 'docker --help' for more information"),
            (
                "image foo",
                1,
                "docker: unknown command: docker image foo\n\nUsage:  docker image\n\nRun 'docker image --help' for more information",
            ),
            ("compose x", 1, "docker: 'docker compose' is not implemented yet"),
            ("manifest create x", 1, "docker: 'docker manifest create' is not implemented yet"),
            (
                "ps --foo",
                125,
                "unknown flag: --foo\n\nUsage:  docker ps [OPTIONS]\n\nRun 'docker ps --help' for more information",
            ),
            (
                "rm",
                1,
                "docker: 'docker rm' requires at least 1 argument\n\nUsage:  docker rm [OPTIONS] CONTAINER [CONTAINER...]\n\nSee 'docker rm --help' for more information",
            ),
            (
                "rename a",
                1,
                "docker: 'docker rename' requires 2 arguments\n\nUsage:  docker rename CONTAINER NEW_NAME\n\nRun 'docker rename --help' for more information",
            ),
            (
                "--foo",
                125,
                "unknown flag: --foo\n\nUsage:  docker [OPTIONS] COMMAND [ARG...]\n\nRun 'docker --help' for more information",
            ),
            ("help foo", 1, "unknown help topic: foo"),
            ("-l foo ps", 1, "Unable to parse logging level: foo"),
        ] {
            let e = parsed(line).unwrap_err();
            assert_eq!((e.code, e.message.as_str()), (code, want), "{line}");
        }
    }
}
