//! Agents of SSH for a build's commands: a socket of the command's own, with the owner that it asks for, from which every
//! connection is passed on to the agent. The command never gets the agent's own socket, nor a key.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use longshore_sys::sockpath;

use crate::{Error, Result};

/// Connections at once.
const MAX_CONNECTIONS: usize = 64;

/// A socket that leads to an agent, until it is dropped.
pub(super) struct Forward {
    path: PathBuf,
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Forward {
    /// Listens at `path`, which is made; `agent` is the socket that is led to.
    pub(super) fn start(path: &Path, agent: &Path, mode: u32, owner: (u32, u32)) -> Result<Self> {
        // Told now rather than as a broken connection in the command.
        sockpath::connect(agent)
            .map_err(|e| Error::invalid(format!("the SSH agent cannot be reached: {e}")))?;
        let listener = sockpath::bind(path, mode)?;
        std::os::unix::fs::chown(path, Some(owner.0), Some(owner.1))
            .map_err(|e| Error::io(format!("chown {}", path.display()), e))?;
        let over = Arc::new(AtomicBool::new(false));
        let (agent, ends) = (agent.to_owned(), over.clone());
        let thread = std::thread::spawn(move || accept(&listener, &agent, &ends));
        Ok(Self { path: path.to_owned(), over, thread: Some(thread) })
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // Wakes the one who waits for connections.
        let woken = sockpath::connect(&self.path).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| woken) {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &UnixListener, agent: &Path, over: &AtomicBool) {
    let open = Arc::new(AtomicUsize::new(0));
    while let Ok((client, _)) = listener.accept() {
        if over.load(Ordering::SeqCst) {
            return;
        }
        if open.load(Ordering::SeqCst) >= MAX_CONNECTIONS {
            continue;
        }
        let Ok(agent) = sockpath::connect(agent) else { continue };
        open.fetch_add(1, Ordering::SeqCst);
        let open = open.clone();
        std::thread::spawn(move || {
            pass(&client, &agent);
            open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

/// Passes bytes on both ways until both sides are done.
fn pass(client: &UnixStream, agent: &UnixStream) {
    let one_way = |mut from: &UnixStream, mut to: &UnixStream| {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| one_way(client, agent));
        one_way(agent, client);
        // An agent that has gone says nothing more to anybody.
        let _ = client.shutdown(Shutdown::Both);
    });
}
