//! `RUN`

use super::ast::{Command, Device, Heredoc, Network, RunBody, RunCmd, Security};
use super::check::parse_bool;
use super::error::ParseErrorKind as E;
use super::flags::{Flags, Takes};
use super::heredoc::marker;
use super::instruction::{Given, Parsed, command};
use super::mount::{MountSpec, csv};

pub(super) fn run(mut given: Given<'_>) -> Parsed<RunCmd> {
    const KNOWN: [(&str, Takes); 4] =
        [("mount", Takes::Many), ("network", Takes::One), ("security", Takes::One), ("device", Takes::Many)];
    let flags = Flags::parse(std::mem::take(&mut given.parts.flags), &KNOWN)?;
    let mut mounts = Vec::new();
    for (value, at) in flags.many("mount") {
        mounts.push(MountSpec::parse(value).map_err(|e| (E::Mount(e), at))?);
    }
    let mut devices = Vec::new();
    for (value, at) in flags.many("device") {
        let bad = || (E::Device(value.chars().take(100).collect()), at);
        devices.push(device(value).ok_or_else(bad)?);
    }
    let network = match flags.many("network").next() {
        None | Some(("default", _)) => Network::Default,
        Some(("none", _)) => Network::None,
        Some(("host", _)) => Network::Host,
        Some((other, at)) => return Err((E::Network(other.chars().take(100).collect()), at).into()),
    };
    let security = match flags.many("security").next() {
        None | Some(("sandbox", _)) => Security::Sandbox,
        Some(("insecure", _)) => Security::Insecure,
        Some((other, at)) => return Err((E::Security(other.chars().take(100).collect()), at).into()),
    };
    let args = given.parts.args;
    if args.is_empty() {
        return Err(E::AtLeastOne("RUN").into());
    }
    let body = match command(args).map_err(|kind| (kind, given.parts.args_at))? {
        Command::Exec(args) if args.is_empty() => return Err(E::AtLeastOne("RUN").into()),
        Command::Exec(args) => RunBody::Exec(args),
        Command::Shell(text) => body(text, given.heredocs),
    };
    Ok(RunCmd { body, mounts, network, security, devices })
}

/// A shell's text with its heredocs. One heredoc and nothing else is the text, or a file if it says what runs it.
fn body(text: String, heredocs: &[Heredoc]) -> RunBody {
    if let (Some(_), Some(bare)) = (marker(&text), heredocs.first()) {
        let content = bare.text().into_owned();
        return if content.starts_with("#!") {
            RunBody::Script { name: bare.name.clone(), content }
        } else {
            RunBody::Shell(content)
        };
    }
    let mut text = text;
    for heredoc in heredocs {
        text.push('\n');
        text.push_str(&heredoc.content);
        text.push_str(&heredoc.name);
    }
    RunBody::Shell(text)
}

/// `vendor.com/class=name`, `name=...`, `required`
fn device(text: &str) -> Option<Device> {
    let mut device = Device::default();
    for field in csv(text).ok()? {
        match field.split_once('=') {
            Some((key, value)) if key.eq_ignore_ascii_case("name") => {
                if !device.name.is_empty() {
                    return None;
                }
                value.clone_into(&mut device.name);
            }
            Some((key, value)) if key.eq_ignore_ascii_case("required") => {
                device.required = parse_bool(value)?
            }
            None if field.eq_ignore_ascii_case("required") => device.required = true,
            // A CDI name has a `=` of its own.
            _ if device.name.is_empty() => device.name = field,
            _ => return None,
        }
    }
    Some(device)
}
