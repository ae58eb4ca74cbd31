//! Name, flags and arguments to an instruction.

use super::ast::{
    ArgDef, Command, Escape, FromCmd, Healthcheck, Heredoc, Instruction, Kind, OnbuildCmd, Pair, Word,
};
use super::duration;
use super::error::{ParseError, ParseErrorKind as E};
use super::files;
use super::flags::{Flags, Takes};
use super::json::{self, Array};
use super::lines::Logical;
use super::run;
use super::suggest::hint;
use super::words::{self, At, Parts};
use std::time::Duration;

/// The instructions, as they are usually written.
const NAMES: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// What an instruction is made from.
#[derive(Debug)]
pub(super) struct Given<'a> {
    pub(super) parts: Parts<'a>,
    pub(super) escape: Escape,
    pub(super) heredocs: &'a [Heredoc],
    pub(super) comments: &'a [String],
    pub(super) logical: &'a Logical,
    pub(super) end_line: u32,
}

/// What is wrong: with this instruction, at an offset of its text or as a whole, or with the trigger in it.
#[derive(Debug)]
pub(super) enum Failure {
    Here(E, Option<usize>),
    Inside(Box<ParseError>),
}

impl From<E> for Failure {
    fn from(kind: E) -> Self {
        Self::Here(kind, None)
    }
}

impl From<(E, usize)> for Failure {
    fn from((kind, at): (E, usize)) -> Self {
        Self::Here(kind, Some(at))
    }
}

pub(super) type Parsed<T> = Result<T, Failure>;

/// The usual writing of an instruction's name.
pub(super) fn upper(name: &str) -> Option<&'static str> {
    NAMES.into_iter().find(|n| n.eq_ignore_ascii_case(name))
}

/// Reads the instruction.
pub(super) fn parse(given: Given<'_>) -> Parsed<Kind> {
    let Some(name) = upper(given.parts.name) else { return Err(unknown(given.parts.name).into()) };
    Ok(match name {
        "ADD" => Kind::Add(files::add(given)?),
        "ARG" => Kind::Arg(arg(given)?),
        "CMD" => Kind::Cmd(any_command(given)?),
        "COPY" => Kind::Copy(files::copy(given)?),
        "ENTRYPOINT" => Kind::Entrypoint(any_command(given)?),
        "ENV" => Kind::Env(pairs(given, "ENV")?),
        "EXPOSE" => Kind::Expose(expose(given)?),
        "FROM" => Kind::From(from(given)?),
        "HEALTHCHECK" => Kind::Healthcheck(healthcheck(given)?),
        "LABEL" => Kind::Label(pairs(given, "LABEL")?),
        "MAINTAINER" => Kind::Maintainer(single(given, "MAINTAINER")?),
        "ONBUILD" => Kind::Onbuild(onbuild(given)?),
        "RUN" => Kind::Run(run::run(given)?),
        "SHELL" => Kind::Shell(shell(given)?),
        "STOPSIGNAL" => Kind::Stopsignal(Word(single(given, "STOPSIGNAL")?)),
        "USER" => Kind::User(Word(single(given, "USER")?)),
        "VOLUME" => Kind::Volume(volume(given)?),
        _ => Kind::Workdir(Word(single(given, "WORKDIR")?)),
    })
}

fn unknown(name: &str) -> E {
    let mut hint = hint(&name.to_uppercase(), NAMES);
    if name == name.to_lowercase() {
        hint.0 = hint.0.map(|h| h.to_lowercase());
    }
    E::UnknownInstruction { name: name.chars().take(100).collect(), hint }
}

/// Whether an instruction may stand behind `ONBUILD`.
pub(super) fn may_trigger(kind: &Kind) -> Result<(), E> {
    match kind {
        Kind::Onbuild(_) => Err(E::OnbuildChain),
        Kind::From(_) => Err(E::OnbuildTrigger("FROM")),
        Kind::Maintainer(_) => Err(E::OnbuildTrigger("MAINTAINER")),
        _ => Ok(()),
    }
}

fn no_flags(given: &mut Given<'_>) -> Parsed<()> {
    Flags::parse(std::mem::take(&mut given.parts.flags), &[])?;
    Ok(())
}

/// A command in one of its forms.
pub(super) fn command(text: &str) -> Result<Command, E> {
    match json::array(text) {
        Array::Strings(args) => Ok(Command::Exec(args)),
        Array::Others => Err(E::NotStrings),
        Array::Not => Ok(Command::Shell(text.to_owned())),
    }
}

/// Words: those of a JSON array, or those between space.
pub(super) fn list(text: &str) -> Result<Vec<At<String>>, E> {
    match json::array(text) {
        Array::Strings(items) if items.len() > super::limits::MAX_WORDS => Err(E::TooManyWords),
        Array::Strings(items) => Ok(items.into_iter().map(|i| (i, 0)).collect()),
        Array::Others => Err(E::NotStrings),
        Array::Not => words::plain(text),
    }
}

fn any_command(mut given: Given<'_>) -> Parsed<Command> {
    no_flags(&mut given)?;
    command(given.parts.args).map_err(|kind| (kind, given.parts.args_at).into())
}

/// The one argument, space and all.
fn single(mut given: Given<'_>, name: &'static str) -> Parsed<String> {
    no_flags(&mut given)?;
    if given.parts.args.is_empty() {
        return Err(E::ExactlyOne(name).into());
    }
    Ok(given.parts.args.to_owned())
}

fn arg(mut given: Given<'_>) -> Parsed<Vec<ArgDef>> {
    no_flags(&mut given)?;
    let words = words::quoted(given.parts.args, given.escape)?;
    if words.is_empty() {
        return Err(E::AtLeastOne("ARG").into());
    }
    let mut defs = Vec::with_capacity(words.len());
    for (word, at) in words {
        let (name, default) = match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(Word(value.to_owned()))),
            None => (word, None),
        };
        if name.is_empty() {
            return Err((E::BlankName("ARG"), given.parts.args_at + at).into());
        }
        let doc = doc(given.comments, &name);
        defs.push(ArgDef { name, default, doc });
    }
    Ok(defs)
}

/// The description in `# name description`.
pub(super) fn doc(comments: &[String], name: &str) -> Option<String> {
    comments.iter().find_map(|c| c.strip_prefix(name)?.strip_prefix(' ')).map(str::to_owned)
}

fn pairs(mut given: Given<'_>, name: &'static str) -> Parsed<Vec<Pair>> {
    no_flags(&mut given)?;
    let Parts { args, args_at, .. } = given.parts;
    let words = words::quoted(args, given.escape)?;
    let Some((first, _)) = words.first() else { return Err(E::AtLeastOne(name).into()) };
    if !first.contains('=') {
        let Some((key, value)) = args.split_once(words::SPACE) else {
            return Err(E::TwoArguments(name).into());
        };
        let value = value.trim_start_matches(words::SPACE);
        return Ok(vec![Pair { key: key.into(), value: value.into(), legacy: true }]);
    }
    let mut pairs = Vec::with_capacity(words.len());
    for (word, at) in words {
        let Some((key, value)) = word.split_once('=') else {
            return Err((E::NoEquals(word.chars().take(100).collect()), args_at + at).into());
        };
        if key.is_empty() {
            return Err((E::BlankName(name), args_at + at).into());
        }
        pairs.push(Pair { key: key.into(), value: value.into(), legacy: false });
    }
    Ok(pairs)
}

fn expose(mut given: Given<'_>) -> Parsed<Vec<Word>> {
    no_flags(&mut given)?;
    let mut ports: Vec<Word> = words::plain(given.parts.args)?.into_iter().map(|(w, _)| Word(w)).collect();
    if ports.is_empty() {
        return Err(E::AtLeastOne("EXPOSE").into());
    }
    ports.sort();
    Ok(ports)
}

fn volume(mut given: Given<'_>) -> Parsed<Vec<Word>> {
    no_flags(&mut given)?;
    let words = list(given.parts.args)?;
    if words.is_empty() {
        return Err(E::AtLeastOne("VOLUME").into());
    }
    let mut volumes = Vec::with_capacity(words.len());
    for (word, at) in words {
        match word.trim() {
            "" => return Err((E::EmptyVolume, given.parts.args_at + at).into()),
            volume => volumes.push(volume.into()),
        }
    }
    Ok(volumes)
}

fn shell(mut given: Given<'_>) -> Parsed<Vec<String>> {
    no_flags(&mut given)?;
    match command(given.parts.args)? {
        Command::Exec(args) if args.is_empty() => Err(E::AtLeastOne("SHELL").into()),
        Command::Exec(args) => Ok(args),
        Command::Shell(text) if text.is_empty() => Err(E::AtLeastOne("SHELL").into()),
        Command::Shell(_) => Err((E::NotJson("SHELL"), given.parts.args_at).into()),
    }
}

fn from(given: Given<'_>) -> Parsed<FromCmd> {
    let Parts { args, args_at, flags, .. } = given.parts;
    let flags = Flags::parse(flags, &[("platform", Takes::One)])?;
    let platform = flags.one("platform").map(|(p, _)| p.into());
    let words = words::plain(args)?;
    let (image, written) = match words.as_slice() {
        [(image, _)] => (image, None),
        [(image, _), (keyword, _), name] if keyword.eq_ignore_ascii_case("as") => {
            (image, Some((keyword, name)))
        }
        _ => return Err(E::FromArguments.into()),
    };
    let mut alias = None;
    if let Some((_, (name, at))) = written {
        let lower = name.to_lowercase();
        if !is_stage_name(&lower) {
            return Err((E::StageName(name.chars().take(100).collect()), args_at + at).into());
        }
        alias = Some(lower);
    }
    let written = written.map(|(keyword, (name, _))| (keyword.clone(), name.clone()));
    Ok(FromCmd { image: Word(image.clone()), platform, alias, written })
}

/// `[a-z][a-z0-9-_.]*`
fn is_stage_name(name: &str) -> bool {
    let rest = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.bytes().all(rest)
}

fn healthcheck(given: Given<'_>) -> Parsed<Healthcheck> {
    const KNOWN: [(&str, Takes); 5] = [
        ("interval", Takes::One),
        ("timeout", Takes::One),
        ("start-period", Takes::One),
        ("start-interval", Takes::One),
        ("retries", Takes::One),
    ];
    let Parts { args, args_at, flags, .. } = given.parts;
    let flags = Flags::parse(flags, &KNOWN)?;
    let (kind, rest) = args.split_once(char::is_whitespace).unwrap_or((args, ""));
    let rest = rest.trim_start();
    if kind.is_empty() {
        return Err(E::AtLeastOne("HEALTHCHECK").into());
    }
    if kind.eq_ignore_ascii_case("none") {
        return if rest.is_empty() { Ok(Healthcheck::None) } else { Err(E::HealthNone.into()) };
    }
    if !kind.eq_ignore_ascii_case("cmd") {
        let kind = kind.to_uppercase().chars().take(100).collect();
        return Err((E::HealthType(kind), args_at).into());
    }
    let command = command(rest).map_err(|kind| (kind, args_at + args.len() - rest.len()))?;
    if matches!(&command, Command::Exec(args) if args.is_empty()) || rest.is_empty() {
        return Err(E::HealthCommand.into());
    }
    Ok(Healthcheck::Check {
        command,
        interval: interval(&flags, "interval")?,
        timeout: interval(&flags, "timeout")?,
        start_period: interval(&flags, "start-period")?,
        start_interval: interval(&flags, "start-interval")?,
        retries: retries(&flags)?,
    })
}

fn interval(flags: &Flags, name: &'static str) -> Parsed<Duration> {
    let Some((value, at)) = flags.one(name) else { return Ok(Duration::ZERO) };
    let bad = || (E::Duration { flag: name, value: value.chars().take(100).collect() }, at);
    let duration = duration::parse(value).ok_or_else(bad)?;
    if duration > Duration::ZERO && duration < Duration::from_millis(1) {
        return Err((E::ShortDuration(name), at).into());
    }
    Ok(duration)
}

fn retries(flags: &Flags) -> Parsed<u32> {
    let Some((value, at)) = flags.one("retries") else { return Ok(0) };
    let number = value.parse::<u32>().ok().filter(|n| i32::try_from(*n).is_ok());
    number.ok_or_else(|| (E::Retries(value.chars().take(100).collect()), at).into())
}

fn onbuild(mut given: Given<'_>) -> Parsed<OnbuildCmd> {
    no_flags(&mut given)?;
    let Parts { args, args_at, .. } = given.parts;
    if args.is_empty() {
        return Err(E::AtLeastOne("ONBUILD").into());
    }
    // Before the trigger is looked at: a chain of any length goes no deeper than this.
    match args.split(words::SPACE).next().and_then(upper) {
        Some("ONBUILD") => return Err((E::OnbuildChain, args_at).into()),
        Some(name @ ("FROM" | "MAINTAINER")) => return Err((E::OnbuildTrigger(name), args_at).into()),
        _ => {}
    }
    let mut expression = args.to_owned();
    for heredoc in given.heredocs {
        expression.push('\n');
        expression.push_str(&heredoc.content);
        expression.push_str(&heredoc.name);
    }
    let inner = given.logical.after(args_at);
    let trigger: Instruction =
        super::parse::one(&inner, given.escape, given.heredocs.to_vec(), Vec::new(), given.end_line)
            .map_err(|e| Failure::Inside(Box::new(e)))?;
    Ok(OnbuildCmd { trigger: Box::new(trigger), expression })
}
