//! `commit --change` and `import --change`: Dockerfile instructions applied to an image's configuration.

use longshore_oci::image::{Empty, HealthConfig, RunConfig};

use crate::time::parse_go_duration;
use crate::{Error, Result, words};

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
    if changes.is_empty() {
        return Ok(());
    }
    let lines = logical_lines(&changes.join("\n"));
    if lines.is_empty() {
        return Err(Error::invalid("file with no instructions"));
    }
    let mut job = Job { config, cmd_given: false };
    lines.iter().try_for_each(|line| job.apply(line))
}

/// Lines with continuations joined; comments and empty ones left out.
fn logical_lines(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut open = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with('#') {
            continue;
        }
        match line.trim_end_matches([' ', '\t']).strip_suffix('\\') {
            // Two are one that was escaped.
            Some(part) if !part.ends_with('\\') => open.push_str(part),
            _ => {
                open.push_str(line);
                out.push(std::mem::take(&mut open));
            }
        }
    }
    out.push(open);
    out.retain(|l| !l.trim().is_empty());
    out
}

struct Job<'a> {
    config: &'a mut RunConfig,
    /// Whether one of the instructions set the command.
    cmd_given: bool,
}

impl Job<'_> {
    /// A word with the variables of the environment so far.
    fn expand(&self, word: &str) -> Result<String> {
        words::expand(word, self.config.env.as_deref().unwrap_or_default())
    }

    fn apply(&mut self, line: &str) -> Result<()> {
        let line = line.trim_start();
        let (word, whole) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = whole.trim();
        let name = word.to_ascii_uppercase();
        match name.as_str() {
            "CMD" => {
                self.config.cmd = Some(self.command(rest));
                self.cmd_given = true;
            }
            "ENTRYPOINT" => {
                self.config.entrypoint = Some(if rest.is_empty() { Vec::new() } else { self.command(rest) });
                // As in a Dockerfile: a command meant for the old entry point does not fit the new one.
                if !self.cmd_given {
                    self.config.cmd = None;
                }
            }
            "ENV" => {
                for (k, v) in self.pairs("ENV", rest)? {
                    set_env(self.config.env.get_or_insert_default(), &k, &v);
                }
            }
            "LABEL" => {
                let labels = self.pairs("LABEL", rest)?;
                self.config.labels.get_or_insert_default().extend(labels);
            }
            "EXPOSE" => self.expose(rest)?,
            "VOLUME" => self.volume(rest)?,
            "USER" => self.config.user = self.one("USER", rest)?,
            "WORKDIR" => {
                let dir = self.one("WORKDIR", rest)?;
                if dir.is_empty() {
                    return Err(Error::invalid("cannot normalize nothing"));
                }
                self.config.working_dir = join_dir(&self.config.working_dir, &dir);
            }
            "STOPSIGNAL" => {
                let text = self.one("STOPSIGNAL", rest)?;
                crate::signals::parse(&text)?;
                self.config.stop_signal = Some(text);
            }
            "ONBUILD" => self.on_build(whole.trim_start())?,
            "HEALTHCHECK" => self.config.healthcheck = Some(healthcheck(rest)?),
            _ => return Err(Error::invalid(format!("{word} is not a valid change command"))),
        }
        Ok(())
    }

    /// The exec form, or the shell form through the image's shell.
    fn command(&self, rest: &str) -> Vec<String> {
        if let Some(list) = json_words(rest) {
            return list;
        }
        let shell = self.config.shell.clone().filter(|s| !s.is_empty());
        let mut command = shell.unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()]);
        if !rest.is_empty() {
            command.push(rest.to_owned());
        }
        command
    }

    /// The one argument that an instruction has.
    fn one(&self, name: &str, rest: &str) -> Result<String> {
        match rest {
            "" => Err(Error::invalid(format!("{name} requires exactly one argument"))),
            r => self.expand(r),
        }
    }

    fn expose(&mut self, rest: &str) -> Result<()> {
        let words = need("EXPOSE", words::split(rest))?;
        for word in words {
            let ports = self.expand(&word)?;
            for port in ports.split_whitespace() {
                // An address and a port of the host may stand before it; an image has no say in them.
                let own = port.rsplit(':').next().unwrap_or(port);
                for key in crate::container::ports::expose_keys(own)? {
                    self.config.exposed_ports.get_or_insert_default().insert(key, Empty {});
                }
            }
        }
        Ok(())
    }

    fn volume(&mut self, rest: &str) -> Result<()> {
        let paths = need("VOLUME", json_words(rest).unwrap_or_else(|| words::split(rest)))?;
        for path in paths {
            let path = self.expand(&path)?;
            if path.is_empty() {
                return Err(Error::invalid("VOLUME specified can not be an empty string"));
            }
            self.config.volumes.get_or_insert_default().insert(path, Empty {});
        }
        Ok(())
    }

    fn on_build(&mut self, rest: &str) -> Result<()> {
        let trigger = rest.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        match trigger.as_str() {
            "" => return Err(at_least_one("ONBUILD")),
            "ONBUILD" => {
                return Err(Error::invalid("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"));
            }
            "MAINTAINER" | "FROM" => {
                return Err(Error::invalid(format!("{trigger} isn't allowed as an ONBUILD trigger")));
            }
            _ => self.config.on_build.get_or_insert_default().push(rest.to_owned()),
        }
        Ok(())
    }

    /// `NAME=value ...`, or the old form `NAME value with spaces`.
    fn pairs(&self, name: &str, rest: &str) -> Result<Vec<(String, String)>> {
        let parts = need(name, words::split(rest))?;
        if !parts[0].contains('=') {
            return match rest.split_once(char::is_whitespace) {
                Some((k, v)) => Ok(vec![(self.expand(k)?, self.expand(v.trim())?)]),
                None => Err(Error::invalid(format!("{name} must have two arguments"))),
            };
        }
        parts
            .iter()
            .map(|part| match part.split_once('=') {
                Some(("", _)) => Err(Error::invalid(format!("{name} names can not be blank"))),
                Some((k, v)) => Ok((self.expand(k)?, self.expand(v)?)),
                None => Err(Error::invalid(format!(
                    "Syntax error - can't find = in {part:?}. Must be of the form: name=value"
                ))),
            })
            .collect()
    }
}

fn at_least_one(name: &str) -> Error {
    Error::invalid(format!("{name} requires at least one argument"))
}

/// Refuses an instruction without arguments.
fn need(name: &str, words: Vec<String>) -> Result<Vec<String>> {
    if words.is_empty() { Err(at_least_one(name)) } else { Ok(words) }
}

fn json_words(rest: &str) -> Option<Vec<String>> {
    rest.starts_with('[').then(|| serde_json::from_str(rest).ok()).flatten()
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
            .ok_or_else(|| Error::invalid(format!("missing a value on flag: --{text}")))?;
        match name {
            "interval" => health.interval = duration(name, value)?,
            "timeout" => health.timeout = duration(name, value)?,
            "start-period" => health.start_period = duration(name, value)?,
            "start-interval" => health.start_interval = duration(name, value)?,
            "retries" => health.retries = retries(value)?,
            _ => return Err(Error::invalid(format!("unknown flag: --{name}"))),
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

/// A time of a health check in nanoseconds.
///
/// # Errors
/// For a text that is none, and for less than a millisecond.
pub(crate) fn duration(name: &str, value: &str) -> Result<i64> {
    let nanos = parse_go_duration(value)
        .ok_or_else(|| Error::invalid(format!("time: invalid duration {value:?}")))?;
    if nanos != 0 && nanos < 1_000_000 {
        return Err(Error::invalid(format!("Interval {name:?} cannot be less than 1ms")));
    }
    Ok(nanos)
}

fn retries(value: &str) -> Result<i64> {
    match value.parse::<i64>() {
        Ok(n) if n >= 0 => Ok(n),
        Ok(n) => Err(Error::invalid(format!("--retries cannot be negative ({n})"))),
        Err(_) => Err(Error::invalid(format!("--retries is not a number: {value:?}"))),
    }
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
    fn variables_are_those_of_the_instructions_before() {
        let mut c = RunConfig {
            env: Some(vec!["PATH=/bin".into()]),
            working_dir: "/w".into(),
            shell: Some(vec!["/bin/bash".into(), "-ec".into()]),
            ..RunConfig::default()
        };
        let changes = [
            "ENV PATH=$PATH:/x A=1 B=${A:-none}",
            "LABEL a=$A",
            "EXPOSE $A 127.0.0.1:8080:81",
            "VOLUME /$A",
            "WORKDIR $A",
            "USER ${A}",
            "STOPSIGNAL $A",
            "CMD echo $A",
            "ENTRYPOINT [\"$A\"]",
            "ONBUILD RUN $A ",
        ];
        apply(&mut c, &changes.map(str::to_owned)).expect("valid");
        assert_eq!(c.env, Some(vec!["PATH=/bin:/x".to_owned(), "A=1".into(), "B=none".into()]));
        assert_eq!(c.labels.expect("labels")["a"], "1");
        assert_eq!(c.exposed_ports.expect("ports").into_keys().collect::<Vec<_>>(), ["1/tcp", "81/tcp"]);
        assert_eq!(c.volumes.expect("volumes").into_keys().collect::<Vec<_>>(), ["/1"]);
        assert_eq!((c.working_dir.as_str(), c.user.as_str()), ("/w/1", "1"));
        // The command was given: the new entry point does not take it away.
        assert_eq!(c.cmd, Some(vec!["/bin/bash".to_owned(), "-ec".into(), "echo $A".into()]));
        assert_eq!(c.entrypoint, Some(vec!["$A".to_owned()]));
        assert_eq!(c.on_build, Some(vec!["RUN $A ".to_owned()]));
    }

    #[test]
    fn lines_are_joined_over_the_changes() {
        let c = config(&["ENV A=1 \\", "# between", " B=2"]);
        assert_eq!(c.env, Some(vec!["A=1".to_owned(), "B=2".into()]));
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
            "ENV A=\"open",
            "ENV A=${A",
            "WORKDIR $NOTHING",
            "# nothing",
            "",
        ] {
            assert!(apply(&mut RunConfig::default(), &[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
