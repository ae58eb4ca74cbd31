//! How the daemon's network reaches the outside: pasta, a program without rights that carries its packets into sockets of
//! the host. It ends with the daemon; where it ends by itself, it is started again.

use std::fmt::Write as _;
use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use longshore_sys::host_sockets::HostSockets;
use longshore_sys::{netns, pidfd};

use super::{facts, guard};

/// The daemon's side of the wire. All of it is answered by pasta, so that nothing of it can collide but with an address
/// that somebody wants to reach: these are for links alone, and no router leads there. The host's own address is not
/// used here, for then it could not be reached.
const ADDRESS: &str = "169.254.1.100";
const PREFIX: &str = "24";
const GATEWAY: &str = "169.254.1.1";
const ADDRESS6: &str = "fd6c:6f6e:6773:686f::100";
const GATEWAY6: &str = "fd6c:6f6e:6773:686f::1";
/// Questions to this address go to the host's name server, also to one on the host's loopback.
const NAME_SERVER: &str = "169.254.1.53";
const INTERFACE: &str = "outside";

/// Files below the exec root.
const NETWORK: &str = "network";
const PID_FILE: &str = "pasta.pid";
const LOG: &str = "pasta.log";
const RESOLV_CONF: &str = "resolv.conf";

const SIGKILL: i32 = 9;

/// How long the first start may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// A run that lasted so long is no failed start.
const LASTED: Duration = Duration::from_secs(60);
/// So many failed starts one after the other are enough.
const TRIES: u32 = 5;

/// What is needed to start pasta, and the files that go with it.
#[derive(Clone, Debug)]
pub(super) struct Outside {
    program: PathBuf,
    /// Where the daemon's network namespace is found: pasta has not the rights to open a process's.
    network: PathBuf,
    pid_file: PathBuf,
    /// What pasta says.
    log: PathBuf,
    /// For the daemon and its containers, in place of `/etc/resolv.conf`.
    pub(super) resolv_conf: PathBuf,
}

/// Pasta and the thread that watches over it.
#[derive(Debug)]
pub(super) struct Running {
    lifeline: Lifeline,
    watcher: JoinHandle<()>,
}

/// What the guard of pasta holds on to: its input.
type Lifeline = Arc<Mutex<Line>>;

#[derive(Debug)]
enum Line {
    Open(Option<ChildStdin>),
    /// Pasta is to end, and not to be started again.
    Cut,
}

impl Default for Line {
    fn default() -> Self {
        Self::Open(None)
    }
}

fn lock(lifeline: &Lifeline) -> MutexGuard<'_, Line> {
    lifeline.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Running {
    /// Ends pasta, and waits until it has ended.
    pub(super) fn end(self) {
        *lock(&self.lifeline) = Line::Cut;
        if self.watcher.join().is_err() {
            tracing::debug!("the thread that watches over pasta has failed");
        }
    }
}

/// Looks whether there can be a way outside.
///
/// # Errors
/// What is missing, and what to do.
pub(super) fn prepare(exec_root: &Path) -> Result<Outside, String> {
    let program = facts::find("pasta").ok_or(
        "the program pasta is not there: install the package passt and start the daemon again (until then, run \
         containers with --network none or --network host)",
    )?;
    if let Err(e) = fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        return Err(format!(
            "/dev/net/tun cannot be used ({e}): as root, modprobe tun and chmod 666 /dev/net/tun, and start the daemon \
             again (until then, run containers with --network none or --network host)"
        ));
    }
    let at = |name: &str| exec_root.join(name);
    Ok(Outside {
        program,
        network: at(NETWORK),
        pid_file: at(PID_FILE),
        log: at(LOG),
        resolv_conf: at(RESOLV_CONF),
    })
}

/// Removes the files below an exec root, and with that of the network pasta; what is not there is fine.
pub(super) fn remove(exec_root: &Path) {
    if let Err(e) = netns::unpin(&exec_root.join(NETWORK)) {
        tracing::debug!("the daemon's network: {e}");
    }
    for name in [PID_FILE, LOG, RESOLV_CONF] {
        // One that stays is written anew by the next daemon.
        let _ = fs::remove_file(exec_root.join(name));
    }
}

impl Outside {
    /// Pins the daemon's network where pasta can find it.
    ///
    /// # Errors
    /// When that cannot be.
    pub(super) fn pinned(self, network: &OwnedFd) -> Result<Self, String> {
        let dir = self.network.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(dir).map_err(|e| format!("cannot make {}: {e}", dir.display()))?;
        let pinned = netns::unpin(&self.network).and_then(|()| netns::pin(network.as_fd(), &self.network));
        pinned.map_err(|e| format!("the daemon's network cannot be handed to pasta: {e}"))?;
        Ok(self)
    }

    /// Writes the resolv.conf, starts pasta and waits until it carries packets. From then on a thread watches over it.
    ///
    /// # Errors
    /// When it does not start; what it says is in the text.
    pub(super) fn open(&self, sockets: &HostSockets) -> Result<Running, String> {
        let own = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        fs::write(&self.resolv_conf, resolv_conf(&own))
            .map_err(|e| format!("cannot write {}: {e}", self.resolv_conf.display()))?;
        let mut pasta = self.start(sockets)?;
        self.wait_ready(&mut pasta)?;
        let (this, sockets) = (self.clone(), sockets.clone());
        let lifeline = Lifeline::default();
        let theirs = Arc::clone(&lifeline);
        let watcher = std::thread::Builder::new().name("pasta".to_owned());
        let watcher = watcher.spawn(move || this.watch(pasta, &sockets, &theirs));
        Ok(Running { lifeline, watcher: watcher.map_err(|e| format!("cannot start a thread: {e}"))? })
    }

    /// In the host's network, by the thread that stays there; below a guard that ends it with the daemon.
    fn start(&self, sockets: &HostSockets) -> Result<Child, String> {
        self.end_former();
        // Also when its file was replaced meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command.arg0(guard::NAME).arg(&self.program);
        command.args(arguments()).arg("--pid").arg(&self.pid_file).arg("--netns").arg(&self.network);
        let log =
            fs::File::create(&self.log).map_err(|e| format!("cannot write {}: {e}", self.log.display()))?;
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).current_dir("/");
        let spawn = move || command.spawn();
        let spawned = sockets.within(spawn).map_err(|e| e.to_string())?;
        spawned.map_err(|e| format!("cannot start {}: {e}", self.program.display()))
    }

    /// One whose guard was killed may be left, and has the interface.
    fn end_former(&self) {
        let text = fs::read_to_string(&self.pid_file).unwrap_or_default();
        if let Ok(pid) = text.trim().parse::<u32>()
            && let Ok(process) = pidfd::open(pid)
            && let Ok(command) = fs::read(format!("/proc/{pid}/cmdline"))
            && command.split(|b| *b == 0).any(|word| word == self.network.as_os_str().as_bytes())
        {
            let ended =
                pidfd::send_signal(&process, SIGKILL).and_then(|()| pidfd::wait_exit(&process, Some(5000)));
            if let Err(e) = ended {
                tracing::debug!("pasta of an earlier daemon: {e}");
            }
        }
        let _ = fs::remove_file(&self.pid_file);
    }

    /// It writes its pid when everything is in place.
    fn wait_ready(&self, pasta: &mut Child) -> Result<(), String> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if fs::read_to_string(&self.pid_file).is_ok_and(|text| !text.trim().is_empty()) {
                return Ok(());
            }
            if let Ok(Some(status)) = pasta.try_wait() {
                return Err(format!("pasta ended at once ({status}): {}", self.last_words()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // This closes its input, and so ends both.
        let _ = pasta.wait();
        Err(format!("pasta does not get ready: {}", self.last_words()))
    }

    /// The end of what it said. Without a system log it complains of that again and again.
    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let said = text.lines().map(str::trim).rfind(|l| !l.is_empty() && !l.ends_with("to syslog"));
        said.unwrap_or("it does not say why").to_owned()
    }

    fn watch(&self, mut pasta: Child, sockets: &HostSockets, lifeline: &Lifeline) {
        let mut failed = 0;
        loop {
            let since = Instant::now();
            // To wait for a child closes its input, which is what it takes for our end.
            if let Line::Open(line) = &mut *lock(lifeline) {
                *line = pasta.stdin.take();
            }
            let status = pasta.wait().map_or_else(|e| e.to_string(), |status| status.to_string());
            if matches!(*lock(lifeline), Line::Cut) {
                return;
            }
            failed = if since.elapsed() < LASTED { failed + 1 } else { 1 };
            if failed > TRIES {
                tracing::error!(
                    "pasta ended {failed} times in a row: nothing outside can be reached any more"
                );
                return;
            }
            tracing::warn!(
                status,
                said = self.last_words(),
                "pasta has ended: connections are lost; starting it again"
            );
            std::thread::sleep(Duration::from_millis(100) * (1 << failed));
            match self.start(sockets) {
                Ok(again) => pasta = again,
                Err(e) => {
                    tracing::error!("nothing outside can be reached any more: {e}");
                    return;
                }
            }
        }
    }
}

/// No port of either side leads to the other by itself, and the host's loopback stays its own.
fn arguments() -> Vec<&'static str> {
    let mut all = vec!["--foreground", "--quiet", "--config-net", "--no-map-gw", "--ns-ifname", INTERFACE];
    for ports in ["-t", "-u", "-T", "-U"] {
        all.extend([ports, "none"]);
    }
    all.extend(["--address", ADDRESS, "--netmask", PREFIX, "--gateway", GATEWAY]);
    all.extend(["--address", ADDRESS6, "--gateway", GATEWAY6, "--dns-forward", NAME_SERVER]);
    all
}

/// The host's, with the one server that can be asked from here.
fn resolv_conf(host: &str) -> String {
    let mut text = format!("nameserver {NAME_SERVER}\n");
    for line in host.lines().map(str::trim) {
        if ["search", "domain", "options"].iter().any(|key| line.split_whitespace().next() == Some(key)) {
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_ask_pasta_in_place_of_the_hosts_servers() {
        let host = "# stub\nnameserver 127.0.0.53\nnameserver ::1\noptions edns0\nsearch lan corp\n";
        assert_eq!(resolv_conf(host), "nameserver 169.254.1.53\noptions edns0\nsearch lan corp\n");
    }
}
