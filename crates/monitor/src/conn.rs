//! A connection of the daemon.

use crate::fd::{AsFd, OwnedFd};
use crate::prelude::*;

use longshore_monitor::proto::{Decoder, Frame, MAX_FRAME};

use crate::os;

/// With more than this waiting for an attached client, the container's output is not read.
const HIGH_WATER: usize = 64 * 1024;

/// What a connection has become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Nothing yet.
    New,
    /// Gets output, gives input.
    Attached { stdin: bool, stdout: bool, stderr: bool },
    /// Wants to know when the container ends.
    Waiting,
    /// Wants to know when this process ends; 0 while it is being launched.
    Exec(i32),
    /// Wants to know whether the start succeeded.
    Starting,
}

#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) fd: OwnedFd,
    pub(crate) id: u32,
    pub(crate) decoder: Decoder,
    pub(crate) fds: Vec<OwnedFd>,
    pub(crate) role: Role,
    pub(crate) greeted: bool,
    /// The client will send no more.
    pub(crate) ended: bool,
    /// To be closed when everything has been sent.
    pub(crate) closing: bool,
    /// Cannot be used any more.
    pub(crate) dead: bool,
    out: Vec<u8>,
}

impl Conn {
    pub(crate) fn new(fd: OwnedFd, id: u32) -> Self {
        Self {
            fd,
            id,
            decoder: Decoder::new(),
            fds: Vec::new(),
            role: Role::New,
            greeted: false,
            ended: false,
            closing: false,
            dead: false,
            out: Vec::new(),
        }
    }

    /// Sends a frame, or keeps what the socket does not take.
    pub(crate) fn send(&mut self, frame: &Frame<'_>) {
        if self.dead {
            return;
        }
        frame.encode(&mut self.out);
        self.flush();
    }

    /// Sends a frame together with a descriptor.
    pub(crate) fn send_with(&mut self, frame: &Frame<'_>, fd: &OwnedFd) {
        self.flush();
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        // Nothing else waits on a connection that gets a descriptor: it is the second frame on it.
        match os::send(&self.fd, &bytes, Some(fd.as_fd())) {
            Ok(n) => self.out.extend_from_slice(&bytes[n..]),
            Err(_) => self.dead = true,
        }
    }

    /// Sends what waits.
    pub(crate) fn flush(&mut self) {
        let mut sent = 0;
        while sent < self.out.len() {
            match os::send(&self.fd, &self.out[sent..], None) {
                Ok(n) => sent += n,
                Err(libc::EAGAIN) => break,
                Err(_) => {
                    self.dead = true;
                    self.out = Vec::new();
                    return;
                }
            }
        }
        if sent == self.out.len() {
            // Most of the time nothing waits, and then no memory is held for it.
            self.out = Vec::new();
        } else {
            self.out.drain(..sent);
        }
    }

    pub(crate) fn has_output(&self) -> bool {
        !self.out.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.out.len() > HIGH_WATER
    }

    /// Reads what has come; requests are then in the decoder.
    pub(crate) fn fill(&mut self, buf: &mut [u8]) {
        match os::receive(&self.fd, buf, &mut self.fds) {
            Ok(0) => self.ended = true,
            Ok(n) if self.decoder.pending() + n <= MAX_FRAME + 4 + buf.len() => self.decoder.push(&buf[..n]),
            Err(libc::EAGAIN) => {}
            // Too much at once, or broken.
            Ok(_) | Err(_) => self.dead = true,
        }
    }
}
