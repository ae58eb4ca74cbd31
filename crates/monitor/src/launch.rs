//! A child on its way from clone to exec.

use crate::fd::{AsFd, OwnedFd};
use crate::prelude::*;

use crate::os;

/// What the child says.
#[derive(Debug)]
pub(crate) enum Said {
    /// Everything up to exec is done.
    Ready,
    /// It runs its program: the socket has closed.
    Running,
    /// Step, error number, text.
    Failed(u8, i32, Vec<u8>),
    /// Nothing to act on (yet).
    Nothing,
}

#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) pid: i32,
    pub(crate) sync: OwnedFd,
    /// The terminal that it made.
    pub(crate) master: Option<OwnedFd>,
    ready: bool,
}

impl Launch {
    pub(crate) fn new(pid: i32, sync: OwnedFd) -> Self {
        Self { pid, sync, master: None, ready: false }
    }

    /// Lets the child pass to its next stage.
    pub(crate) fn go(&self, stage: u8) -> os::Sys<()> {
        os::send(&self.sync, &[stage], None).map(drop)
    }

    /// Hears one message.
    pub(crate) fn hear(&mut self) -> Said {
        let mut buf = [0; 4200];
        let mut fds = Vec::new();
        match os::receive(self.sync.as_fd(), &mut buf, &mut fds) {
            Ok(0) if self.ready => Said::Running,
            Ok(0) => Said::Failed(0, libc::ECHILD, b"ended before it was set up".to_vec()),
            Ok(n) => match (buf[0], n) {
                (b'T', _) => {
                    self.master = fds.pop();
                    Said::Nothing
                }
                (b'R', _) => {
                    self.ready = true;
                    Said::Ready
                }
                (b'E', 6..) => {
                    let errno = i32::from_le_bytes([buf[2], buf[3], buf[4], buf[5]]);
                    Said::Failed(buf[1], errno, buf[6..n].to_vec())
                }
                _ => Said::Nothing,
            },
            Err(libc::EAGAIN) => Said::Nothing,
            Err(errno) => Said::Failed(0, errno, b"lost the process".to_vec()),
        }
    }
}
