//! Descriptors over UNIX sockets (unix(7), `SCM_RIGHTS`).

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

use crate::error::{Context, Error, Result};

/// Descriptors in one message, at most; the kernel's own limit is 253.
pub const MAX_FDS: usize = 64;

/// Sends all of `bytes`, with `fds` attached to the first byte.
///
/// # Errors
/// When the peer is gone, or there are too many descriptors.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    let action = || "send descriptors";
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Error::new(action(), rustix::io::Errno::TOOBIG));
    }
    let mut sent = rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
    })
    .context(action)?;
    while sent < bytes.len() {
        sent += rustix::io::retry_on_intr(|| rustix::net::send(&socket, &bytes[sent..], SendFlags::NOSIGNAL))
            .context(action)?;
    }
    Ok(())
}

/// Receives up to `buf.len()` bytes (0: the peer has closed) and the descriptors that came along,
/// which are close-on-exec.
///
/// # Errors
/// As recvmsg(2); `EMSGSIZE` when more descriptors came than fit.
pub fn recv(socket: impl AsFd, buf: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(&socket, &mut [IoSliceMut::new(buf)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })
    .context(|| "receive descriptors")?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    if got.flags.contains(rustix::net::ReturnFlags::CTRUNC) {
        return Err(Error::new("receive descriptors", rustix::io::Errno::MSGSIZE));
    }
    Ok(got.bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn descriptors_arrive_with_their_bytes() {
        let (a, b) = UnixStream::pair().unwrap();
        let (r, w) = rustix::pipe::pipe().unwrap();
        send(&a, b"hello", &[w.as_fd()]).unwrap();
        drop(w);
        let mut fds = Vec::new();
        let mut buf = [0; 16];
        assert_eq!(recv(&b, &mut buf, &mut fds).unwrap(), 5);
        rustix::io::write(fds.remove(0), b"x").unwrap();
        let mut text = String::new();
        std::fs::File::from(r).read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
        drop(a);
        assert_eq!(recv(&b, &mut buf, &mut fds).unwrap(), 0);
    }
}
