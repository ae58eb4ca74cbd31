//! The daemon of an ordinary user. It enters a user namespace in which the user is root, a mount namespace and a network
//! namespace, and is from there on a daemon like root's.
//!
//! No process has to stay behind: this one itself changes its namespaces before it has a second thread, a helper that ends
//! at once has the id maps written, and a thread stays in the host's network (`HostSockets`). Containers that outlive their
//! daemon keep these namespaces; the next daemon enters the same ones again, by way of a monitor.

mod facts;
pub(crate) mod guard;
mod outside;
mod plan;

use std::fs::{self, File};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, anyhow, bail};
use longshore_sys::host_sockets::HostSockets;
use longshore_sys::userns;

use outside::{Outside, Running};
use plan::{Line, Maps};

/// What the daemon has got to know and to use on its way in.
#[derive(Debug)]
pub(crate) struct Entered {
    /// The way back into the host's network.
    sockets: HostSockets,
    /// How the outside is reached from the daemon's network; or why it has none.
    outside: Result<Outside, String>,
    /// For the log, which is not there yet.
    warnings: Vec<String>,
    claim: Claim,
}

/// An exec root that is this daemon's alone.
#[derive(Debug)]
struct Claim {
    exec_root: PathBuf,
    _lock: File,
}

/// What the daemon lives in, once everything runs.
#[derive(Debug)]
pub(crate) struct World {
    /// The way back into the host's network.
    pub(crate) sockets: HostSockets,
    /// The resolv.conf of the daemon's network; or why that leads nowhere.
    pub(crate) outside: Result<PathBuf, String>,
    pasta: Option<Running>,
    claim: Claim,
}

impl World {
    /// Removes what was made on the way in, when the engine has stopped and no container is left that needs it.
    pub(crate) fn leave(self) {
        if let Some(pasta) = self.pasta {
            pasta.end();
        }
        let exec_root = &self.claim.exec_root;
        if longshore_runtime::monitors(exec_root).is_empty() {
            outside::remove(exec_root);
        }
    }
}

impl Entered {
    /// Opens the way outside; what is not as it should be goes to the log.
    pub(crate) fn open(self) -> World {
        self.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let opened = self.outside.and_then(|outside| Ok((outside.open(&self.sockets)?, outside.resolv_conf)));
        let (pasta, outside) = match opened {
            Ok((pasta, resolv_conf)) => (Some(pasta), Ok(resolv_conf)),
            Err(why) => {
                tracing::warn!("no network for containers: {why}");
                (None, Err(why))
            }
        };
        World { sockets: self.sockets, outside, pasta, claim: self.claim }
    }
}

/// Namespaces that containers of an earlier daemon live in.
struct Held {
    user: OwnedFd,
    mounts: OwnedFd,
    network: OwnedFd,
}

/// Makes this process root of namespaces of its own, or of those that its containers live in. It must have one thread.
///
/// # Errors
/// When something is missing: all of it is named, with what to do.
pub(crate) fn enter(exec_root: &Path) -> Result<Entered> {
    let claim = claim(exec_root)?;
    let mut warnings = Vec::new();
    let host = own_network().context("cannot look at the host's network")?;
    let held = held(exec_root);
    match &held {
        Some(held) => userns::join(held.user.as_fd(), held.mounts.as_fd()).map_err(|e| {
            anyhow!("cannot join the containers that run: {e}; stop them (kill their monitors) first")
        })?,
        None => {
            let maps = plan::maps(&facts::gather()).map_err(list)?;
            warnings.extend(maps.shortage());
            userns::enter_new(|pid| write_maps(pid, &maps))
                .map_err(|e| anyhow!("cannot enter a user namespace: {e}"))?;
            userns::unshare_mounts()?;
        }
    }
    // The last thing to be done alone: from here on there are threads.
    let sockets = HostSockets::stay()?;
    let network = held.map(|held| held.network).filter(|ns| !same(ns, &host));
    let outside = match outside::prepare(exec_root) {
        Err(why) if network.is_none() => Err(why),
        found => {
            match &network {
                Some(network) => userns::join_network(network.as_fd())?,
                None => userns::unshare_network()?,
            }
            let here = own_network()?;
            longshore_net::loopback_up(here.as_fd()).context("cannot set up the network")?;
            found.and_then(|outside| outside.pinned(&here))
        }
    };
    Ok(Entered { sockets, outside, warnings, claim })
}

/// Two daemons that start at once must not take each other's network away.
fn claim(exec_root: &Path) -> Result<Claim> {
    let mut dir = fs::DirBuilder::new();
    let made = dir.recursive(true).mode(0o700).create(exec_root);
    made.with_context(|| format!("cannot make {}", exec_root.display()))?;
    let path = exec_root.join("rootless.lock");
    let file = fs::OpenOptions::new().create(true).append(true).open(&path);
    let lock = file.with_context(|| format!("cannot open {}", path.display()))?;
    match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Claim { exec_root: exec_root.to_owned(), _lock: lock }),
        Err(rustix::io::Errno::WOULDBLOCK) => bail!(
            "exec root is in use by another daemon: {} is locked; stop that daemon or choose another --exec-root",
            path.display()
        ),
        Err(e) => Err(e).with_context(|| format!("cannot lock {}", path.display())),
    }
}

fn list(missing: Vec<plan::Missing>) -> anyhow::Error {
    let lines: String = missing.iter().map(|m| format!("\n  - {m}")).collect();
    anyhow!("running without root needs what this machine does not have yet:{lines}")
}

fn own_network() -> std::io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

fn same(a: &OwnedFd, b: &OwnedFd) -> bool {
    let id = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|st| (st.st_dev, st.st_ino));
    matches!((id(a), id(b)), (Ok(a), Ok(b)) if a == b)
}

/// The namespaces of a monitor that an earlier daemon has left. All have the same.
fn held(exec_root: &Path) -> Option<Held> {
    let here = File::open("/proc/self/ns/user").ok()?.into();
    longshore_runtime::monitors(exec_root).into_iter().find_map(|(pid, start)| {
        let open = |name: &str| Some(OwnedFd::from(File::open(format!("/proc/{pid}/ns/{name}")).ok()?));
        let held = Held { user: open("user")?, mounts: open("mnt")?, network: open("net")? };
        // Only now is it certain whose they are.
        longshore_sys::pidfd::open_same(pid, start).ok()?;
        (!same(&held.user, &here)).then_some(held)
    })
}

/// Has the maps of a process written by the programs that may.
fn write_maps(pid: u32, maps: &Maps) -> Result<(), String> {
    let run = |name: &str, lines: &[Line]| {
        let program = facts::find(name).ok_or_else(|| format!("no program {name}"))?;
        let mut command = Command::new(program);
        command.args(plan::arguments(pid, lines)).stdin(Stdio::null());
        let out = command.output().map_err(|e| format!("{name}: {e}"))?;
        let said = String::from_utf8_lossy(&out.stderr);
        if out.status.success() { Ok(()) } else { Err(format!("{name}: {} ({})", said.trim(), out.status)) }
    };
    run("newuidmap", &maps.uids)?;
    run("newgidmap", &maps.gids)
}
