//! One connection to a monitor, read frame by frame and never further: the socket may then be handed
//! to somebody else.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use longshore_monitor::proto::{Frame, MAX_FRAME, Request, Step, VERSION};
use longshore_sys::{fdpass, sockpath};

use crate::error::{Error, LaunchError, Result};

/// A monitor that does not answer for so long is broken.
const PATIENCE: Duration = Duration::from_secs(120);

/// A connection on which nothing has been asked yet.
#[derive(Debug)]
pub(crate) struct Client<'a> {
    id: &'a str,
    stream: UnixStream,
    body: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl<'a> Client<'a> {
    /// Connects to the socket of container `id`.
    pub(crate) fn connect(id: &'a str, socket: &Path) -> Result<Self> {
        let stream = sockpath::connect(socket)?;
        Ok(Self::over(id, stream))
    }

    /// Uses a socket that is connected already.
    pub(crate) fn over(id: &'a str, stream: UnixStream) -> Self {
        let _ = stream.set_read_timeout(Some(PATIENCE));
        Self { id, stream, body: Vec::new(), fds: Vec::new() }
    }

    fn broken(&self, what: impl Into<String>) -> Error {
        Error::Monitor { id: self.id.to_owned(), what: what.into() }
    }

    /// Greets and asks in one go; the monitor's greeting is taken, its answer not.
    pub(crate) fn ask(&mut self, request: &Request<'_>, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let mut bytes = Vec::new();
        Request::Hello(VERSION).encode(&mut bytes);
        request.encode(&mut bytes);
        if bytes.len() > MAX_FRAME {
            return Err(Error::Invalid(format!(
                "arguments, environment and settings of a process take {} bytes; at most {MAX_FRAME} are possible",
                bytes.len()
            )));
        }
        fdpass::send(&self.stream, &bytes, fds)?;
        match self.frame()? {
            Frame::Hello(version) if version >= 1 => Ok(()),
            _ => Err(self.broken("no greeting")),
        }
    }

    /// The next frame; `Failed` is an error.
    pub(crate) fn answer(&mut self) -> Result<Frame<'_>> {
        match self.frame()? {
            Frame::Failed { step, errno, detail } => Err(Error::Launch(LaunchError {
                step: Step::from_u8(step),
                errno,
                detail: String::from_utf8_lossy(detail).into_owned(),
            })),
            frame => Ok(frame),
        }
    }

    /// Descriptors that came with frames so far.
    pub(crate) fn take_fds(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.fds)
    }

    /// The socket, with everything up to the last answer read.
    pub(crate) fn into_stream(self) -> UnixStream {
        let _ = self.stream.set_read_timeout(None);
        self.stream
    }

    fn frame(&mut self) -> Result<Frame<'_>> {
        let mut len = [0; 4];
        self.exactly(&mut len)?;
        let len = u32::from_le_bytes(len) as usize;
        if len == 0 || len > MAX_FRAME {
            return Err(self.broken("frame of an impossible length"));
        }
        let mut body = std::mem::take(&mut self.body);
        body.resize(len, 0);
        self.exactly(&mut body)?;
        self.body = body;
        Frame::decode((self.body[0], &self.body[1..]))
            .map_err(|e| Error::Monitor { id: self.id.to_owned(), what: e.to_string() })
    }

    fn exactly(&mut self, mut buf: &mut [u8]) -> Result<()> {
        while !buf.is_empty() {
            let n = fdpass::recv(self.stream.as_fd(), buf, &mut self.fds)?;
            if n == 0 {
                return Err(self.broken("closed the connection"));
            }
            buf = &mut buf[n..];
        }
        Ok(())
    }
}
