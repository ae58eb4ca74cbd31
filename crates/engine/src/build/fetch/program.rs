//! Running `git`: with nothing of this machine's settings, no hook, no question to anybody, and no way to reach a
//! repository but over the network.

use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use longshore_build::remote::Address;
use longshore_build::{Cancel, Error as BuildError, Result};
use longshore_oci::Kind;
use longshore_registry::ProxyConfig;
use longshore_store::usage::allocated;
use longshore_sys::child::end_with_thread;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use super::{Fetches, auth, host};

/// How often a running `git` is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// How often what it has written is measured.
const MEASURE: Duration = Duration::from_secs(5);
/// How long one run may take.
const MAX_TIME: Duration = Duration::from_secs(3600);
/// Bytes that a repository and its files may take.
const MAX_SIZE: u64 = 64 << 30;
/// Bytes that are read of what it says.
const MAX_SAID: u64 = 16 << 20;
/// Bytes of its complaints that are told.
const MAX_TOLD: usize = 2000;
/// The protocols that a repository, or one that it names, is reached by.
const PROTOCOLS: &str = "http:https:git:ssh";
/// No key of this machine is shown to a server that a Dockerfile names. A host that this machine knows has to be that;
/// others are taken as they are, as BuildKit does.
const SSH: &str = "ssh -F /dev/null -o BatchMode=yes -o IdentityFile=none -o ClearAllForwardings=yes \
                   -o ConnectTimeout=15 -o ServerAliveInterval=15 -o UserKnownHostsFile=/dev/null \
                   -o StrictHostKeyChecking=accept-new";
/// Without an agent that the build was given there is none.
const NO_AGENT: &str = "-o IdentitiesOnly=yes -o IdentityAgent=none";
/// Settings that hold whatever a repository says: on the command line, which goes before all else.
const SETTINGS: [&str; 14] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.autocrlf=false",
    "core.symlinks=true",
    "core.logAllRefUpdates=false",
    "credential.helper=",
    "gc.auto=0",
    "maintenance.auto=false",
    "init.defaultBranch=master",
    "advice.detachedHead=false",
    "fetch.recurseSubmodules=false",
    "protocol.file.allow=never",
    "http.lowSpeedLimit=1024",
    "http.lowSpeedTime=60",
];

/// Runs `git` for one address.
pub(super) struct Git<'a> {
    address: &'a Address,
    /// What is shown to its server, and to no other.
    authorization: Option<String>,
    proxy: &'a ProxyConfig,
    agent: Option<&'a Path>,
    cancel: &'a Cancel,
    /// An empty directory, in which it runs.
    home: PathBuf,
    /// What it writes to lies below.
    room: PathBuf,
}

/// How a run ended that was not called off.
pub(super) enum Ran {
    /// Well; what it said.
    Well(String),
    /// Badly; its complaints.
    Badly(String),
}

impl<'a> Git<'a> {
    /// `room` holds `home`, and all that is written to.
    pub(super) fn new(
        fetches: &'a Fetches<'_>,
        address: &'a Address,
        cancel: &'a Cancel,
        room: &Path,
    ) -> Result<Self> {
        let home = room.join("home");
        crate::engine::make_dir(&home, 0o700).map_err(super::to_build)?;
        let authorization = auth::of_repository(address, fetches.secrets)?;
        let (proxy, agent, room) = (fetches.proxy(), fetches.agent, room.to_owned());
        Ok(Self { address, authorization, proxy, agent, cancel, home, room })
    }

    /// What is given to it as the address: the password is told it otherwise, where other users of this machine do not
    /// see it.
    pub(super) fn url(&self) -> String {
        if self.address.is_web() { self.address.without_user() } else { self.address.reveal().to_owned() }
    }

    /// Runs it; what it said.
    ///
    /// # Errors
    /// With its complaints.
    pub(super) fn run(&self, args: &[&str]) -> Result<String> {
        match self.try_run(args)? {
            Ran::Well(said) => Ok(said),
            Ran::Badly(why) => Err(self.failure(&why)),
        }
    }

    /// Runs it, where it may fail.
    ///
    /// # Errors
    /// When it cannot be run, or was ended.
    pub(super) fn try_run(&self, args: &[&str]) -> Result<Ran> {
        let mut child = self.command(args).spawn().map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => host(
                Kind::Unavailable,
                "git is not installed on the daemon's machine: install it to build from Git repositories",
            ),
            _ => BuildError::io("run git", e),
        })?;
        let (out, err) = (child.stdout.take().map(said), child.stderr.take().map(said));
        let ended = self.watch(&mut child);
        let text = |thread: Option<JoinHandle<Vec<u8>>>| {
            let bytes = thread.and_then(|t| t.join().ok()).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let (out, err) = (text(out), text(err));
        if ended?.success() { Ok(Ran::Well(out)) } else { Ok(Ran::Badly(err)) }
    }

    /// The error that complaints are.
    pub(super) fn failure(&self, why: &str) -> BuildError {
        let lines = why.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with("hint:"));
        let mut text: String = lines.collect::<Vec<_>>().join("; ");
        text.retain(|c| !c.is_control());
        if let Some((cut, _)) = text.char_indices().rev().nth(MAX_TOLD) {
            text = format!("…{}", text.get(cut..).unwrap_or_default());
        }
        let keyless = ["Permission denied (", "Host key verification failed"];
        if keyless.iter().any(|words| text.contains(words)) {
            text.push_str(match self.agent {
                Some(_) => "; the keys of --ssh default do not open it",
                None => "; the build has no SSH key: give it one with --ssh default=KEY, or an agent, or use https",
            });
        }
        host(Kind::Invalid, format!("failed to fetch {}: {text}", self.address))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.env_clear();
        command
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into()));
        command.env("HOME", &self.home).current_dir(&self.home);
        for (name, value) in [
            ("LC_ALL", "C"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_SYSTEM", "/dev/null"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ALLOW_PROTOCOL", PROTOCOLS),
        ] {
            command.env(name, value);
        }
        match self.agent {
            Some(agent) => command.env("GIT_SSH_COMMAND", SSH).env("SSH_AUTH_SOCK", agent),
            None => command.env("GIT_SSH_COMMAND", format!("{SSH} {NO_AGENT}")),
        };
        let proxies = [("http_proxy", &self.proxy.http), ("https_proxy", &self.proxy.https)];
        for (name, value) in proxies.into_iter().filter_map(|(name, v)| Some((name, v.as_ref()?))) {
            command.env(name, value).env("no_proxy", &self.proxy.no_proxy);
        }
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        if let Some(authorization) = &self.authorization {
            // Where it is sent on to nobody may get it.
            command.args(["-c", "http.followRedirects=false"]);
            let header = format!("Authorization: {authorization}");
            command.env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_VALUE_0", header);
            command.env("GIT_CONFIG_KEY_0", format!("http.{}.extraHeader", self.origin()));
        }
        end_with_thread(command.args(args).process_group(0));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// `https://host:port/`
    fn origin(&self) -> String {
        let url = self.address.without_user();
        let end = url.match_indices('/').nth(2).map_or(url.len(), |(at, _)| at);
        format!("{}/", url.get(..end).unwrap_or_default())
    }

    /// Waits until it ends, or ends it with all that it started.
    fn watch(&self, child: &mut Child) -> Result<ExitStatus> {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| BuildError::Internal("a process without a number".into()))?;
        let (begin, mut measured) = (Instant::now(), Instant::now());
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let why = loop {
            // It stays where it is until all of its group are told: nobody else can have their number before.
            if !matches!(rustix::process::waitid(WaitId::Pid(pid), look), Ok(None)) {
                break None;
            }
            if self.cancel.is_off() {
                break Some(BuildError::Cancelled);
            }
            if begin.elapsed() > MAX_TIME {
                let limit = MAX_TIME.as_secs() / 60;
                break Some(self.failure(&format!("not done within {limit} minutes")));
            }
            if measured.elapsed() > MEASURE {
                measured = Instant::now();
                // What changes while it is measured is measured the next time.
                if allocated(&self.room).is_ok_and(|size| size.bytes > MAX_SIZE) {
                    let limit = MAX_SIZE >> 30;
                    break Some(BuildError::TooLarge(format!("{}: more than {limit} GiB", self.address)));
                }
            }
            std::thread::sleep(LOOK);
        };
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        let status = child.wait().map_err(|e| BuildError::io("wait for git", e))?;
        why.map_or(Ok(status), Err)
    }
}

/// Reads what a process says on a thread of its own: all of it, and keeps the beginning.
fn said(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        let _ = from.by_ref().take(MAX_SAID).read_to_end(&mut kept);
        let _ = std::io::copy(&mut from, &mut std::io::sink());
        kept
    })
}
