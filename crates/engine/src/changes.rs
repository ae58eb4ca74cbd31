//! `commit --change` and `import --change`: Dockerfile instructions applied to an image's configuration.

use longshore_oci::image::{Empty, HealthConfig, RunConfig};

use crate::time::parse_go_duration;
use crate::{Error, Result};

/// More text than this is no list of instructions.
const MAX_BYTES: usize = 1 << 20;

/// Applies `changes` in order.
///
/// # Errors
/// For instructions that cannot be applied so, and for those whose arguments are wrong.
pub(crate) fn apply(config: &mut RunConfig, changes: &[String]) -> Result<()> {
    if changes.iter().map(String::len).sum::<usize>() > MAX_BYTES {
        return Err(Error::invalid("changes are larger than 1 MiB"));
    }
    for line in changes.iter().flat_map(|c| logical_lines(c)) {
        apply_one(config, &line)?;
    }
    Ok(())
}

/// Lines with continuations joined; comments and empty ones left out.
fn logical_lines(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut open = String::new();
    for line in text.lines() {
        if open.is_empty() && line.trim_start().starts_with('#') {
            continue;
        }
        match line.strip_suffix('\\') {
            Some(part) => open.push_str(part),
            None => {
                open.push_str(line);
                out.push(std::mem::take(&mut open));
            }
        }
    }
    out.push(open);
    out.retain(|l| !l.trim().is_empty());
    out
}

fn apply_one(config: &mut RunConfig, line: &str) -> Result<()> {
    let line = line.trim();
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    let name = word.to_ascii_uppercase();
    let need = || Error::invalid(format!("{name} requires at least one argument"));
    let one = || match rest {
        "" => Err(Error::invalid(format!("{name} requires exactly one argument"))),
        r => Ok(unquote(r)),
    };
    match name.as_str() {
        "CMD" => config.cmd = Some(command(rest)),
        "ENTRYPOINT" => {
            config.entrypoint = Some(command(rest));
            // As in a Dockerfile: a command meant for the old entry point does not fit the new one.
            config.cmd = None;
        }
        "ENV" => {
            for (k, v) in pairs("ENV", rest)? {
                set_env(config.env.get_or_insert_default(), &k, &v);
            }
        }
        "LABEL" => config.labels.get_or_insert_default().extend(pairs("LABEL", rest)?),
        "EXPOSE" => {
            let ports = words(rest);
            if ports.is_empty() {
                return Err(need());
            }
            for port in ports {
                for key in crate::container::ports::expose_keys(&port)? {
                    config.exposed_ports.get_or_insert_default().insert(key, Empty {});
                }
            }
        }
        "VOLUME" => {
            let paths = json_words(rest).unwrap_or_else(|| words(rest));
            if paths.is_empty() {
                return Err(need());
            }
            for p in paths {
                if p.is_empty() {
                    return Err(Error::invalid("VOLUME specified can not be an empty string"));
                }
                config.volumes.get_or_insert_default().insert(p, Empty {});
            }
        }
        "USER" => config.user = one()?,
        "WORKDIR" => config.working_dir = join_dir(&config.working_dir, &one()?),
        "STOPSIGNAL" => {
            let text = one()?;
            crate::signals::parse(&text)?;
            config.stop_signal = Some(text);
        }
        "ONBUILD" => {
            let trigger = rest.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
            match trigger.as_str() {
                "" => return Err(need()),
                "ONBUILD" => {
                    return Err(Error::invalid("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"));
                }
                "MAINTAINER" | "FROM" => {
                    return Err(Error::invalid(format!("{trigger} isn't allowed as an ONBUILD trigger")));
                }
                _ => config.on_build.get_or_insert_default().push(rest.to_owned()),
            }
        }
        "HEALTHCHECK" => config.healthcheck = Some(healthcheck(rest)?),
        _ => return Err(Error::invalid(format!("{word} is not a valid change command"))),
    }
    Ok(())
}

/// The exec form, or the shell form through `/bin/sh -c`.
fn command(rest: &str) -> Vec<String> {
    match json_words(rest) {
        Some(list) => list,
        None if rest.is_empty() => Vec::new(),
        None => vec!["/bin/sh".into(), "-c".into(), rest.to_owned()],
    }
}

fn json_words(rest: &str) -> Option<Vec<String>> {
    rest.starts_with('[').then(|| serde_json::from_str(rest).ok()).flatten()
}

/// `NAME=value ...`, or the old form `NAME value with spaces`.
fn pairs(name: &str, rest: &str) -> Result<Vec<(String, String)>> {
    let parts = words_raw(rest);
    let Some(first) = parts.first() else {
        return Err(Error::invalid(format!("{name} requires at least one argument")));
    };
    if !first.contains('=') {
        return match rest.split_once(char::is_whitespace) {
            Some((k, v)) => Ok(vec![(k.to_owned(), unquote(v.trim()))]),
            None => Err(Error::invalid(format!("{name} must have two arguments"))),
        };
    }
    parts
        .iter()
        .map(|part| match part.split_once('=') {
            Some((k, v)) if !unquote(k).is_empty() => Ok((unquote(k), unquote(v))),
            Some(_) => Err(Error::invalid(format!("{name} names can not be blank"))),
            None => {
                let msg = "must be of the form: name=value";
                Err(Error::invalid(format!("Syntax error - can't find = in {part:?}: {name} {msg}")))
            }
        })
        .collect()
}

fn words(rest: &str) -> Vec<String> {
    words_raw(rest).iter().map(|w| unquote(w)).collect()
}

/// Words at white space outside quotes, quotes kept.
fn words_raw(rest: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut word = String::new();
    let mut quote: Option<char> = None;
    let mut chars = rest.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (_, '\\') if quote != Some('\'') => {
                word.push(c);
                word.extend(chars.next());
            }
            (None, '"' | '\'') => {
                quote = Some(c);
                word.push(c);
            }
            (Some(q), c) if q == c => {
                quote = None;
                word.push(c);
            }
            (None, c) if c.is_whitespace() => {
                if !word.is_empty() {
                    out.push(std::mem::take(&mut word));
                }
            }
            (_, c) => word.push(c),
        }
    }
    if !word.is_empty() {
        out.push(word);
    }
    out
}

/// Without quotes and escapes.
fn unquote(text: &str) -> String {
    let mut out = String::new();
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, '\\') => out.extend(chars.next()),
            (Some('"'), '\\') => match chars.next() {
                Some(e @ ('"' | '\\' | '$')) => out.push(e),
                Some(e) => out.extend(['\\', e]),
                None => out.push('\\'),
            },
            (None, '"' | '\'') => quote = Some(c),
            (Some(q), c) if q == c => quote = None,
            (_, c) => out.push(c),
        }
    }
    out
}

pub(crate) fn set_env(env: &mut Vec<String>, key: &str, value: &str) {
    let entry = format!("{key}={value}");
    match env.iter_mut().find(|e| e.split('=').next() == Some(key)) {
        Some(old) => *old = entry,
        None => env.push(entry),
    }
}

/// `WORKDIR`: a relative one is below the last one; `.` and `..` are worked out as text.
fn join_dir(base: &str, dir: &str) -> String {
    let whole = if dir.starts_with('/') { dir.to_owned() } else { format!("{base}/{dir}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            p => parts.push(p),
        }
    }
    format!("/{}", parts.join("/"))
}

fn healthcheck(rest: &str) -> Result<HealthConfig> {
    let mut health = HealthConfig::default();
    let mut rest = rest;
    while let Some(flag) = rest.strip_prefix("--") {
        let (text, after) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| Error::invalid(format!("missing a value on flag: {name}", name = text)))?;
        let duration = || {
            parse_go_duration(value)
                .filter(|d| *d == 0 || *d >= 1_000_000)
                .ok_or_else(|| Error::invalid(format!("invalid duration {value:?} of --{name}")))
        };
        match name {
            "interval" => health.interval = duration()?,
            "timeout" => health.timeout = duration()?,
            "start-period" => health.start_period = duration()?,
            "start-interval" => health.start_interval = duration()?,
            "retries" => {
                health.retries = value
                    .parse::<i64>()
                    .ok()
                    .filter(|n| *n >= 0)
                    .ok_or_else(|| Error::invalid("--retries cannot be negative"))?;
            }
            _ => return Err(Error::invalid(format!("Unknown flag: {name}"))),
        }
        rest = after.trim_start();
    }
    let (kind, args) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let args = args.trim();
    health.test = Some(match kind.to_ascii_uppercase().as_str() {
        "NONE" if args.is_empty() => vec!["NONE".into()],
        "NONE" => return Err(Error::invalid("HEALTHCHECK NONE takes no arguments")),
        "CMD" => match json_words(args) {
            Some(list) if !list.is_empty() => std::iter::once("CMD".to_owned()).chain(list).collect(),
            None if !args.is_empty() => vec!["CMD-SHELL".into(), args.to_owned()],
            _ => return Err(Error::invalid("Missing command after HEALTHCHECK CMD")),
        },
        "" => return Err(Error::invalid("HEALTHCHECK requires at least one argument")),
        other => {
            return Err(Error::invalid(format!("Unknown type {other:?} in HEALTHCHECK (try CMD)")));
        }
    });
    Ok(health)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(changes: &[&str]) -> RunConfig {
        let mut c = RunConfig::default();
        apply(&mut c, &changes.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()).expect("valid");
        c
    }

    #[test]
    fn instructions() {
        let c = config(&[
            "CMD [\"true\"]",
            "ENV A=1 B=\"x y\"",
            "env A 2 3",
            "LABEL l=v",
            "EXPOSE 80 53/udp",
            "WORKDIR /a\nWORKDIR b/../c",
            "USER 1:2",
            "STOPSIGNAL SIGUSR1",
            "VOLUME [\"/v\"]",
            "ONBUILD RUN x",
        ]);
        assert_eq!(c.cmd, Some(vec!["true".to_owned()]));
        assert_eq!(c.env, Some(vec!["A=2 3".to_owned(), "B=x y".to_owned()]));
        assert_eq!((c.working_dir.as_str(), c.user.as_str()), ("/a/c", "1:2"));
        let ports: Vec<_> = c.exposed_ports.expect("ports").into_keys().collect();
        assert_eq!(ports, ["53/udp", "80/tcp"]);
    }

    #[test]
    fn shell_form_and_health() {
        let c = config(&["CMD echo hi", "HEALTHCHECK --interval=5s --retries=2 CMD curl x"]);
        assert_eq!(c.cmd, Some(vec!["/bin/sh".into(), "-c".into(), "echo hi".into()]));
        let h = c.healthcheck.expect("health");
        assert_eq!((h.interval, h.retries), (5_000_000_000, 2));
        assert_eq!(h.test, Some(vec!["CMD-SHELL".into(), "curl x".into()]));
    }

    #[test]
    fn refuses_what_cannot_be_applied() {
        for bad in [
            "RUN x",
            "FROM y",
            "ENV",
            "ENV A",
            "ONBUILD FROM x",
            "STOPSIGNAL SIGBAD",
            "HEALTHCHECK X",
            "ENV =1",
        ] {
            assert!(apply(&mut RunConfig::default(), &[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
