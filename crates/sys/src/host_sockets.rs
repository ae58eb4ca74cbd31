//! A way back into the host's network: a daemon without root lives in a network namespace of its own, where it may make
//! bridges, and nobody outside could reach a port that it opens there.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Sender, channel};

use rustix::io::Errno;

use crate::error::{Context, Error, Result};

type Job = Box<dyn FnOnce() + Send>;

/// Runs what is to happen in the host's network namespace: on a thread that has stayed there, or, for a daemon that
/// never left it (the default), on the caller's. Clones share the thread; it ends with the last of them.
#[derive(Clone, Default)]
pub struct HostSockets(Option<Sender<Job>>);

impl HostSockets {
    /// Starts the thread, which stays in the network namespace that the calling one is in now.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn stay() -> Result<Self> {
        let (send, jobs) = channel::<Job>();
        std::thread::Builder::new()
            .name("host-sockets".to_owned())
            .stack_size(512 * 1024)
            .spawn(move || jobs.into_iter().for_each(|job| job()))
            .context(|| "start thread")?;
        Ok(Self(Some(send)))
    }

    /// Whether the host's network namespace is another than the daemon's.
    #[must_use]
    pub fn is_apart(&self) -> bool {
        self.0.is_some()
    }

    /// Runs `f` in the host's network namespace, waits for it and gives its answer. A socket that it makes may be used
    /// anywhere. It has to be quick: others wait meanwhile.
    ///
    /// # Errors
    /// `ESRCH` when the thread is gone.
    pub fn within<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let Some(jobs) = &self.0 else { return Ok(f()) };
        let gone = || Error::new("reach the host's network", Errno::SRCH);
        let (send, answer) = channel();
        let job = move || {
            // A panic is the caller's affair; the thread is everybody's. Nobody listens only if the caller is gone.
            let _ = send.send(catch_unwind(AssertUnwindSafe(f)));
        };
        jobs.send(Box::new(job)).map_err(|_| gone())?;
        match answer.recv().map_err(|_| gone())? {
            Ok(value) => Ok(value),
            Err(panic) => resume_unwind(panic),
        }
    }
}

impl fmt::Debug for HostSockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HostSockets").field(&self.is_apart()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn here() -> std::path::PathBuf {
        std::fs::read_link("/proc/thread-self/ns/net").unwrap()
    }

    #[test]
    fn privileged_a_socket_is_the_hosts() {
        let host = here();
        let apart = move || {
            let sockets = HostSockets::stay().unwrap();
            crate::userns::unshare_network().unwrap();
            assert_ne!(here(), host);
            assert_eq!(sockets.within(here).unwrap(), host);
            // Here the loopback is down, so that the address is nobody's; there it is.
            assert!(
                TcpListener::bind("127.0.0.1:0").and_then(|l| TcpStream::connect(l.local_addr()?)).is_err()
            );
            sockets.within(|| TcpListener::bind("127.0.0.1:0")).unwrap().unwrap()
        };
        // On a thread that ends, since it leaves its namespace for good.
        let listener = std::thread::spawn(apart).join().unwrap();
        let address = listener.local_addr().unwrap();
        TcpStream::connect(address).unwrap();
        listener.accept().unwrap();
    }

    #[test]
    fn a_panic_is_the_callers_and_the_thread_stays() {
        let sockets = HostSockets::stay().unwrap();
        let theirs = sockets.clone();
        let panicked = std::thread::spawn(move || theirs.within(|| panic!("no"))).join();
        assert!(panicked.is_err());
        assert_eq!(sockets.within(|| 7).unwrap(), 7);
        assert_eq!(HostSockets::default().within(|| 8).unwrap(), 8);
        let refused: io::Result<()> = sockets.within(|| Err(io::ErrorKind::AddrInUse.into())).unwrap();
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
