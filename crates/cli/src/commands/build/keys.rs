//! Agents of SSH for a build: the session's, one of a socket, or one that is started with the keys of files.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use super::source::random;
use crate::args::given::Agent;
use crate::error::{Failure, Result, words};

/// What the shell says once the keys were added. It waits then until its input ends, as it does with this program, and
/// ends the agent.
const READY: &str = "ready";
const SCRIPT: &str = "ssh-add -q -- \"$@\" && echo ready && cat >/dev/null; kill $SSH_AGENT_PID";

/// An agent that lasts as long as this.
pub(in crate::commands) struct KeyAgent {
    child: Child,
    /// Its end is the agent's.
    input: Option<ChildStdin>,
    dir: PathBuf,
}

/// The sockets of agents by name, and the agents that were started for this.
///
/// # Errors
/// When there is none, or a key cannot be added.
pub(in crate::commands) fn sockets(agents: &[Agent]) -> Result<(BTreeMap<String, String>, Vec<KeyAgent>)> {
    let (mut sockets, mut started) = (BTreeMap::new(), Vec::new());
    for agent in agents {
        let (path, own) = socket(agent)?;
        sockets.insert(agent.id.clone(), path);
        started.extend(own);
    }
    Ok((sockets, started))
}

/// The socket of an agent, and the agent where it was started for this.
fn socket(agent: &Agent) -> Result<(String, Option<KeyAgent>)> {
    let own = || std::env::var("SSH_AUTH_SOCK").ok().filter(|path| !path.is_empty());
    let paths = match agent.paths.as_slice() {
        [] => vec![own().ok_or_else(|| {
            Failure::new(
                "invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set, or give --ssh id=socket or id=key",
            )
        })?],
        paths => paths.to_vec(),
    };
    let (mut sockets, mut keys) = (Vec::new(), Vec::new());
    for path in paths {
        let failed = |why: &str| Failure::new(format!("ssh agent {}: {path}: {why}", agent.id));
        let real = fs::canonicalize(&path).map_err(|e| failed(&words(&e)))?;
        let kind = fs::metadata(&real).map_err(|e| failed(&words(&e)))?.file_type();
        let text = real.into_os_string().into_string().map_err(|_| failed("its path is not UTF-8"))?;
        match kind {
            kind if kind.is_socket() => sockets.push(text),
            kind if kind.is_file() => keys.push(text),
            _ => return Err(failed("it is neither the socket of an agent nor the file of a key")),
        }
    }
    match (sockets.as_slice(), keys.as_slice()) {
        ([socket], []) => Ok((socket.clone(), None)),
        ([], keys) => KeyAgent::start(&agent.id, keys).map(|(socket, agent)| (socket, Some(agent))),
        _ => Err(Failure::new(format!("ssh agent {}: give one socket, or keys", agent.id))),
    }
}

impl KeyAgent {
    /// Starts OpenSSH's agent with keys; it asks for their passphrases on the terminal.
    fn start(id: &str, keys: &[String]) -> Result<(String, Self)> {
        let failed = |why: String| Failure::new(format!("ssh agent {id}: {why}"));
        let dir = std::env::temp_dir().join(format!("longshore-ssh-{}", random()));
        let made = DirBuilder::new().mode(0o700).create(&dir);
        made.map_err(|e| failed(format!("make {}: {}", dir.display(), words(&e))))?;
        let socket = dir.join("agent");
        let spawned = command(&socket, keys).spawn();
        let mut child = spawned.map_err(|e| {
            let _ = fs::remove_dir(&dir);
            failed(match e.kind() {
                std::io::ErrorKind::NotFound => {
                    "keys need ssh-agent and ssh-add: install openssh-client, or give the socket of an agent"
                        .into()
                }
                _ => format!("start ssh-agent: {}", words(&e)),
            })
        })?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let agent = Self { child, input, dir };
        let mut said = String::new();
        let read = output.map(|output| BufReader::new(output).read_line(&mut said));
        if !matches!(read, Some(Ok(_))) || said.trim_end() != READY {
            return Err(failed(format!("ssh-add cannot add {}", keys.join(", "))));
        }
        Ok((socket.to_string_lossy().into_owned(), agent))
    }
}

impl Drop for KeyAgent {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn command(socket: &Path, keys: &[String]) -> Command {
    let mut command = Command::new("ssh-agent");
    command.arg("-a").arg(socket).args(["sh", "-c", SCRIPT, "sh"]).args(keys);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}
