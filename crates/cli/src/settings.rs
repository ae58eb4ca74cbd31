//! Which daemon is meant, and how it is started when none is there.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::cli::Global;
use crate::client::{Client, Host};
use crate::config::Config;
use crate::error::{Failure, Result};

/// Seconds without work after which a daemon leaves that the command line started.
const IDLE_EXIT: &str = "300";

/// Where the daemon is, and whether it may be started.
#[derive(Debug)]
pub(crate) struct Target {
    host: Host,
    /// Nobody named a daemon: then one of our own is started when none answers.
    own: bool,
}

impl Target {
    /// From `--host`, `--context`, `DOCKER_HOST`, `DOCKER_CONTEXT` and the settings, as docker ranks them; else the
    /// default socket.
    pub(crate) fn resolve(global: &Global, config: &Config) -> Result<Self> {
        let env = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let own = || Ok(Self { host: Host::Unix(default_socket()?), own: true });
        let named = |text: &str| Ok(Self { host: parse(text).map_err(unresolved)?, own: false });
        if !global.hosts.is_empty() && !global.context.is_empty() {
            return Err(Failure::new("conflicting options: cannot specify both --host and --context"));
        }
        match global.hosts.as_slice() {
            [] => {}
            [text] if text.is_empty() => return own(),
            [text] => return named(text),
            _ => return Err(unresolved(Failure::new("Specify only one -H"))),
        }
        let host = env("DOCKER_HOST");
        if global.context.is_empty()
            && let Some(text) = &host
        {
            return named(text);
        }
        let context = match global.context.as_str() {
            "" => env("DOCKER_CONTEXT").unwrap_or_else(|| config.text("currentContext").to_owned()),
            name => name.to_owned(),
        };
        if !["", "default"].contains(&context.as_str()) {
            return Err(unresolved(Failure::new(format!(
                "context {context:?}: contexts are not implemented yet; name the daemon with --host or DOCKER_HOST"
            ))));
        }
        host.map_or_else(own, |text| named(&text))
    }

    /// A client of the daemon; starts one if that is what the user would want.
    pub(crate) async fn connect(&self, debug: bool) -> Result<Client> {
        if self.own
            && let Host::Unix(path) = &self.host
            && std::os::unix::net::UnixStream::connect(path).is_err()
        {
            start(path)?;
        }
        let pinned = std::env::var("DOCKER_API_VERSION").ok().filter(|v| !v.is_empty());
        let negotiate = pinned.is_none() && !self.own;
        let mut client = Client::new(self.host.clone(), pinned, debug);
        // Our own daemon speaks what we speak; another is asked.
        if negotiate {
            client.negotiate().await?;
        }
        Ok(client)
    }

    /// A client of a daemon that is there already.
    pub(crate) async fn reach(&self) -> Result<Client> {
        let mut client = Client::new(self.host.clone(), None, false);
        client.negotiate().await?;
        Ok(client)
    }
}

fn unresolved(e: Failure) -> Failure {
    Failure::new(format!("Failed to initialize: unable to resolve docker endpoint: {}", e.message))
}

fn parse(text: &str) -> Result<Host> {
    match text.split_once("://") {
        Some(("unix", path)) => Ok(Host::Unix(path.into())),
        Some(("tcp", addr)) => {
            let name = addr.rsplit_once(':').map_or(addr, |(h, _)| h).trim_matches(['[', ']']);
            if name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()) {
                Ok(Host::Tcp(addr.to_owned()))
            } else {
                Err(Failure::new(format!(
                    "{text}: TCP to other machines needs TLS, which is not supported yet"
                )))
            }
        }
        Some((scheme, _)) => {
            Err(Failure::new(format!("{text}: {scheme}:// is not supported yet; use unix://")))
        }
        // Docker takes a path without a scheme for a name of a machine; nobody means that.
        None if text.starts_with('/') => Ok(Host::Unix(text.into())),
        None => Err(Failure::new(format!("unable to parse docker host `{text}`"))),
    }
}

fn default_socket() -> Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok("/run/longshore.sock".into());
    }
    match crate::user::runtime_dir() {
        Ok(dir) => Ok(dir.join("longshore.sock")),
        Err(e) => Err(Failure::new(format!("{e}, or name the daemon with -H or DOCKER_HOST"))),
    }
}

/// Starts a daemon in the background and waits until it answers.
fn start(socket: &Path) -> Result<()> {
    let log = socket.with_extension("log");
    let failed = |e: &dyn std::fmt::Display| {
        Failure::new(format!("cannot start a daemon: {e}; start one with: longshore daemon"))
    };
    let out = std::fs::OpenOptions::new().create(true).append(true).open(&log).map_err(|e| failed(&e))?;
    let err = out.try_clone().map_err(|e| failed(&e))?;
    let before = out.metadata().map_or(0, |m| m.len());
    let exe = std::env::current_exe().map_err(|e| failed(&e))?;
    let mut command = Command::new("setsid");
    command.arg(&exe).args(["daemon", "--idle-exit", IDLE_EXIT]);
    let mut child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().map_err(|e| failed(&e))?;
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        if std::os::unix::net::UnixStream::connect(socket).is_ok() {
            eprintln!(
                "longshore: started a daemon in the background; it leaves by itself (log: {})",
                log.display()
            );
            return Ok(());
        }
        if let Ok(Some(status)) = child.try_wait()
            && !status.success()
        {
            match std::fs::read(&log).ok().and_then(|text| last_words(&text, before)) {
                // Somebody else has started one meanwhile: that will answer.
                Some(why) if why.contains("in use by another daemon") => {}
                Some(why) => return Err(Failure::new(format!("cannot start a daemon: {why}"))),
                None => break,
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(failed(&format!("it does not answer; its log is {}", log.display())))
}

/// What a daemon says before it gives up.
const SAYS: &str = "longshore daemon: ";

/// What was added to a log since it had `before` bytes: what the daemon said at last, which may be several lines, or else
/// the last line.
fn last_words(log: &[u8], before: u64) -> Option<String> {
    let added = String::from_utf8_lossy(log.get(usize::try_from(before).ok()?..)?);
    let said = added.rfind(SAYS).filter(|at| *at == 0 || added.as_bytes().get(at - 1) == Some(&b'\n'));
    let words = match said.and_then(|at| added.get(at + SAYS.len()..)) {
        Some(words) => words.trim_end(),
        None => added.lines().rfind(|line| !line.trim().is_empty())?,
    };
    Some(words.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_cannot_start_is_quoted() {
        let log = b"longshore daemon: of old\nWARN x\nlongshore daemon: no disk\n\n";
        assert_eq!(last_words(log, 25).as_deref(), Some("no disk"));
        assert_eq!(last_words(&log[..25], 25), None);
        assert_eq!(last_words(log, 900), None);
        let list = b"longshore daemon: missing:\n  a\n  b\n";
        assert_eq!(last_words(list, 0).as_deref(), Some("missing:\n  a\n  b"));
        assert_eq!(last_words(b"ERROR no space\n", 0).as_deref(), Some("ERROR no space"));
    }

    #[test]
    fn hosts_are_understood_or_refused() {
        assert_eq!(parse("unix:///a").unwrap(), Host::Unix("/a".into()));
        assert_eq!(parse("tcp://127.0.0.1:2375").unwrap(), Host::Tcp("127.0.0.1:2375".into()));
        for bad in ["tcp://10.0.0.1:2375", "ssh://x", "nonsense"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
