//! `config`: a pure change of what a commit puts into the image.

use std::collections::BTreeMap;

use longshore_oci::image::{Empty, HealthConfig, History, JsonSet, RunConfig};

use super::Record;
use crate::changes::{duration, set_env};
use crate::container::ports::expose_keys;
use crate::model::{WorkingAbout, WorkingChange};
use crate::time::{now, rfc3339};
use crate::{Engine, Error, Result, signals, words};

/// Takes away all of something.
const ALL: &str = "-";

impl Engine {
    /// Changes the configuration of a working container. Gives what people should know.
    ///
    /// # Errors
    /// For a value that is none; then nothing is changed.
    pub async fn configure_working(&self, name: &str, change: WorkingChange) -> Result<Vec<String>> {
        let turn = self.working_turn(name).await?;
        self.blocking(move |e| {
            let mut record = turn.working.record();
            let warnings = apply(&mut record, &change)?;
            e.store_working(&turn.working, record)?;
            Ok(warnings)
        })
        .await
    }
}

/// Applies a change to a record.
fn apply(record: &mut Record, change: &WorkingChange) -> Result<Vec<String>> {
    let mut lines = about(&mut record.about, change)?;
    lines.extend(lists(&mut record.config, change)?);
    lines.extend(single(&mut record.config, change)?);
    let mut warnings = Vec::new();
    let replaced = change.entrypoint.as_deref().is_some_and(|e| !e.is_empty()) && change.cmd.is_none();
    if let Some(cmd) = record.config.cmd.as_ref().filter(|_| replaced) {
        let cmd = cmd.join(" ");
        warnings.push(format!("cmd {cmd:?} exists and will be passed to entrypoint as a parameter"));
    }
    if change.add_history {
        let created = Some(rfc3339(now()));
        record.history.extend(lines.into_iter().map(|line| History {
            created: created.clone(),
            created_by: Some(format!("/bin/sh -c #(nop) {line}")),
            empty_layer: true,
            ..History::default()
        }));
    }
    Ok(warnings)
}

/// What is said of the image; gives lines for the history.
fn about(about: &mut WorkingAbout, change: &WorkingChange) -> Result<Vec<String>> {
    let some = |text: &Option<String>| text.clone().map(|t| Some(t).filter(|t| !t.is_empty()));
    let set = |to: &mut Option<String>, from: &Option<String>| {
        if let Some(value) = some(from) {
            *to = value;
        }
    };
    set(&mut about.author, &change.author);
    set(&mut about.comment, &change.comment);
    set(&mut about.created_by, &change.created_by);
    set(&mut about.variant, &change.variant);
    set(&mut about.os_version, &change.os_version);
    for (what, to, from) in
        [("os", &mut about.os, &change.os), ("arch", &mut about.architecture, &change.architecture)]
    {
        if let Some(value) = from {
            if value.is_empty() {
                return Err(Error::invalid(format!("--{what} needs a value: an image is of some {what}")));
            }
            to.clone_from(value);
        }
    }
    for (what, to, from) in [
        ("hostname", &mut about.hostname, &change.hostname),
        ("domainname", &mut about.domainname, &change.domainname),
    ] {
        if let Some(value) = from {
            // The kernel's limit for both (uname(2)).
            if value.len() > 64 || value.contains(char::is_whitespace) || value.contains('\0') {
                return Err(Error::invalid(format!(
                    "invalid {what} {value:?}: 64 characters at most, no spaces"
                )));
            }
            to.clone_from(value);
        }
    }
    for text in &change.annotations {
        match pair("--annotation", text)? {
            Change::All => about.annotations.clear(),
            Change::Take(name) => drop(about.annotations.remove(&name)),
            Change::Put(name, value) => drop(about.annotations.insert(name, value)),
        }
    }
    Ok(change.author.iter().filter(|a| !a.is_empty()).map(|a| format!("MAINTAINER {a}")).collect())
}

/// What there may be many of.
fn lists(config: &mut RunConfig, change: &WorkingChange) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for text in &change.env {
        let env = config.env.get_or_insert_default();
        match pair("--env", text)? {
            Change::All => env.clear(),
            Change::Take(name) => env.retain(|e| e.split('=').next() != Some(&name)),
            Change::Put(name, value) => {
                let value = words::expand(&quoted(&value), env)?;
                set_env(env, &name, &value);
                lines.push(format!("ENV {name}={value}"));
            }
        }
    }
    for text in &change.labels {
        let labels = config.labels.get_or_insert_default();
        match pair("--label", text)? {
            Change::All => labels.clear(),
            Change::Take(name) => drop(labels.remove(&name)),
            Change::Put(name, value) => {
                lines.push(format!("LABEL {name}={value}"));
                labels.insert(name, value);
            }
        }
    }
    for text in &change.ports {
        let ports = config.exposed_ports.get_or_insert_default();
        set(ports, text, "EXPOSE", &mut lines, expose_keys)?;
    }
    for text in &change.volumes {
        let volumes = config.volumes.get_or_insert_default();
        set(volumes, text, "VOLUME", &mut lines, |path| match path.starts_with('/') {
            true => Ok(vec![path.to_owned()]),
            false => Err(Error::invalid(format!("invalid volume {path:?}: it has to be an absolute path"))),
        })?;
    }
    for text in &change.on_build {
        if text == ALL {
            config.on_build = None;
            continue;
        }
        crate::changes::apply(config, &[format!("ONBUILD {text}")])?;
        lines.push(format!("ONBUILD {text}"));
    }
    let empty = |map: &BTreeMap<String, String>| map.is_empty();
    config.labels = config.labels.take().filter(|l| !empty(l));
    config.exposed_ports = config.exposed_ports.take().filter(|p| !p.is_empty());
    config.volumes = config.volumes.take().filter(|v| !v.is_empty());
    Ok(lines)
}

/// A value in which only variables mean something.
fn quoted(value: &str) -> String {
    value
        .chars()
        .flat_map(|c| matches!(c, '\\' | '"' | '\'').then_some('\\').into_iter().chain([c]))
        .collect()
}

enum Change {
    All,
    Take(String),
    Put(String, String),
}

/// `name=value`, `name-` or `-`.
fn pair(option: &str, text: &str) -> Result<Change> {
    if text == ALL {
        return Ok(Change::All);
    }
    match (text.split_once('='), text.strip_suffix('-')) {
        (Some((name, value)), _) if !name.is_empty() => Ok(Change::Put(name.to_owned(), value.to_owned())),
        (None, Some(name)) => Ok(Change::Take(name.to_owned())),
        _ => Err(Error::invalid(format!("{option} {text:?}: want name=value, or name- to take it away"))),
    }
}

fn set(
    all: &mut JsonSet,
    text: &str,
    instruction: &str,
    lines: &mut Vec<String>,
    read: impl Fn(&str) -> Result<Vec<String>>,
) -> Result<()> {
    if text == ALL {
        all.clear();
        return Ok(());
    }
    match text.strip_suffix('-') {
        Some(rest) => {
            for key in read(rest)? {
                all.remove(&key);
            }
        }
        None => {
            for key in read(text)? {
                lines.push(format!("{instruction} {key}"));
                all.insert(key, Empty {});
            }
        }
    }
    Ok(())
}

/// What there is one of.
fn single(config: &mut RunConfig, change: &WorkingChange) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    if let Some(text) = &change.cmd {
        config.cmd = Some(command_line(text)?).filter(|c| !c.is_empty());
        lines.extend(config.cmd.iter().map(|c| format!("CMD {}", c.join(" "))));
    }
    if let Some(text) = &change.entrypoint {
        config.entrypoint = match json_list(text)? {
            Some(list) => Some(list),
            None if text.is_empty() => None,
            None => Some(vec!["/bin/sh".into(), "-c".into(), text.clone()]),
        }
        .filter(|e| !e.is_empty());
        lines.extend(config.entrypoint.iter().map(|e| format!("ENTRYPOINT {}", e.join(" "))));
    }
    if let Some(text) = &change.shell {
        config.shell = Some(command_line(text)?).filter(|s| !s.is_empty());
        lines.extend(config.shell.iter().map(|s| format!("SHELL {}", s.join(" "))));
    }
    if let Some(user) = &change.user {
        config.user.clone_from(user);
        lines.push(format!("USER {user}"));
    }
    if let Some(dir) = &change.working_dir {
        if !dir.starts_with('/') {
            return Err(Error::invalid(format!(
                "invalid working directory {dir:?}: it has to be an absolute path"
            )));
        }
        config.working_dir.clone_from(dir);
        lines.push(format!("WORKDIR {dir}"));
    }
    if let Some(signal) = &change.stop_signal {
        if !signal.is_empty() {
            signals::parse(signal)?;
        }
        config.stop_signal = Some(signal.clone()).filter(|s| !s.is_empty());
        lines.push(format!("STOPSIGNAL {signal}"));
    }
    if health(config, change)? {
        lines.push("HEALTHCHECK".to_owned());
    }
    Ok(lines)
}

fn health(config: &mut RunConfig, change: &WorkingChange) -> Result<bool> {
    let times = [
        &change.health_interval,
        &change.health_timeout,
        &change.health_start_period,
        &change.health_start_interval,
    ];
    if change.health.is_none() && change.health_retries.is_none() && times.iter().all(|t| t.is_none()) {
        return Ok(false);
    }
    let check = config.healthcheck.get_or_insert_default();
    let mut clear = false;
    if let Some(text) = &change.health {
        check.test = test_of(text)?;
        clear = check.test.is_none();
    }
    let time = |to: &mut i64, name: &str, text: &Option<String>| -> Result<()> {
        text.as_ref().map_or(Ok(()), |t| duration(name, t).map(|n| *to = n))
    };
    time(&mut check.interval, "interval", &change.health_interval)?;
    time(&mut check.timeout, "timeout", &change.health_timeout)?;
    time(&mut check.start_period, "start-period", &change.health_start_period)?;
    time(&mut check.start_interval, "start-interval", &change.health_start_interval)?;
    if let Some(n) = change.health_retries {
        if n < 0 {
            return Err(Error::invalid(format!("--healthcheck-retries cannot be negative ({n})")));
        }
        check.retries = n;
    }
    if clear {
        config.healthcheck = None;
    }
    config.healthcheck = config.healthcheck.take().filter(|c| *c != HealthConfig::default());
    Ok(true)
}

/// `CMD curl x` (words), `CMD-SHELL text`, `NONE`; empty: none of its own.
fn test_of(text: &str) -> Result<Option<Vec<String>>> {
    let (kind, rest) = text.trim().split_once(char::is_whitespace).unwrap_or((text.trim(), ""));
    let rest = rest.trim();
    match kind.to_ascii_uppercase().as_str() {
        "" => Ok(None),
        "NONE" if rest.is_empty() => Ok(Some(vec!["NONE".into()])),
        "CMD" if !rest.is_empty() => {
            Ok(Some(std::iter::once("CMD".to_owned()).chain(command_line(rest)?).collect()))
        }
        "CMD-SHELL" if !rest.is_empty() => Ok(Some(vec!["CMD-SHELL".into(), rest.to_owned()])),
        _ => Err(Error::invalid(format!("--healthcheck {text:?}: want CMD ..., CMD-SHELL ... or NONE"))),
    }
}

/// A JSON list of texts, if it is one.
fn json_list(text: &str) -> Result<Option<Vec<String>>> {
    if !text.trim_start().starts_with('[') {
        return Ok(None);
    }
    // `[` is a program, too.
    Ok(serde_json::from_str(text).ok())
}

/// A JSON list, or words parted and quoted as in a shell; nothing is expanded.
fn command_line(text: &str) -> Result<Vec<String>> {
    if let Some(list) = json_list(text)? {
        return Ok(list);
    }
    let mut all = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some('"') | None, '\\') => {
                let next =
                    chars.next().ok_or_else(|| Error::invalid(format!("{text:?} ends in a backslash")))?;
                word.get_or_insert_default().push(next);
            }
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => all.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(Error::invalid(format!("{text:?} has a quote that is not closed")));
    }
    all.extend(word);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        serde_json::from_value(serde_json::json!({
            "id": "x", "name": "n", "created": 0, "image": null, "image_name": "scratch",
            "base": {"rootfs": {"type": "layers"}}, "config": {"Env": ["PATH=/bin"]},
        }))
        .expect("record")
    }

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn words_are_those_of_a_shell() {
        for (text, want) in [
            ("a \"b c\" 'd e' f\\ g", vec!["a", "b c", "d e", "f g"]),
            ("", vec![]),
            ("''", vec![""]),
            ("[\"a\",\"b\"]", vec!["a", "b"]),
            ("[ -f x ]", vec!["[", "-f", "x", "]"]),
            ("$A \"\\\"\"", vec!["$A", "\""]),
        ] {
            assert_eq!(command_line(text).expect("words"), want, "{text}");
        }
        assert!(command_line("'a").is_err() && command_line("a\\").is_err());
    }

    #[test]
    fn changes_add_and_take_away() {
        let mut r = record();
        let change = WorkingChange {
            env: strings(&["A=1", "B=$A:2", "C=it's \"x\"", "A=$B"]),
            labels: strings(&["a=1", "b=2", "a-"]),
            ports: strings(&["80", "53/udp", "90-91", "91-"]),
            volumes: strings(&["/v", "/w", "/v-"]),
            entrypoint: Some("run it".into()),
            cmd: Some("a 'b c'".into()),
            health: Some("CMD curl x".into()),
            health_interval: Some("5s".into()),
            on_build: strings(&["RUN x"]),
            author: Some("me".into()),
            add_history: true,
            ..WorkingChange::default()
        };
        assert!(apply(&mut r, &change).expect("applied").is_empty());
        let c = &r.config;
        assert_eq!(c.env.as_deref().expect("env"), ["PATH=/bin", "A=1:2", "B=1:2", "C=it's \"x\""]);
        assert_eq!(c.labels.as_ref().expect("labels").keys().collect::<Vec<_>>(), ["b"]);
        let ports: Vec<_> = c.exposed_ports.as_ref().expect("ports").keys().collect();
        assert_eq!(ports, ["53/udp", "80/tcp", "90/tcp"]);
        assert_eq!(c.volumes.as_ref().expect("volumes").keys().collect::<Vec<_>>(), ["/w"]);
        assert_eq!(c.entrypoint.as_deref().expect("entrypoint"), ["/bin/sh", "-c", "run it"]);
        assert_eq!(c.cmd.as_deref().expect("cmd"), ["a", "b c"]);
        assert_eq!(c.healthcheck.as_ref().expect("health").interval, 5_000_000_000);
        assert_eq!(
            r.history.first().and_then(|h| h.created_by.as_deref()),
            Some("/bin/sh -c #(nop) MAINTAINER me")
        );
        assert!(r.history.iter().all(|h| h.empty_layer));
        // What was there is passed to another entry point.
        let change = WorkingChange { entrypoint: Some("[\"e\"]".into()), ..WorkingChange::default() };
        assert_eq!(apply(&mut r, &change).expect("applied").len(), 1);
        let nothing = WorkingChange {
            cmd: Some(String::new()),
            entrypoint: Some(String::new()),
            env: strings(&["-"]),
            labels: strings(&["-"]),
            ports: strings(&["-"]),
            volumes: strings(&["-"]),
            on_build: strings(&["-"]),
            health: Some(String::new()),
            ..WorkingChange::default()
        };
        apply(&mut r, &nothing).expect("applied");
        let left = RunConfig { env: Some(Vec::new()), ..RunConfig::default() };
        assert_eq!(r.config, left);
    }

    #[test]
    fn what_is_no_value_is_refused() {
        let with = |f: fn(&mut WorkingChange)| {
            let mut change = WorkingChange::default();
            f(&mut change);
            assert!(apply(&mut record(), &change).is_err(), "{change:?}");
        };
        with(|c| c.env = strings(&["A"]));
        with(|c| c.env = strings(&["=1"]));
        with(|c| c.labels = strings(&["a"]));
        with(|c| c.ports = strings(&["x"]));
        with(|c| c.volumes = strings(&["v"]));
        with(|c| c.working_dir = Some("x".into()));
        with(|c| c.stop_signal = Some("SIGBAD".into()));
        with(|c| c.health = Some("X y".into()));
        with(|c| c.health_interval = Some("5".into()));
        with(|c| c.health_retries = Some(-1));
        with(|c| c.cmd = Some("'a".into()));
        with(|c| c.hostname = Some("a b".into()));
        with(|c| c.os = Some(String::new()));
        with(|c| c.on_build = strings(&["FROM x"]));
    }
}
