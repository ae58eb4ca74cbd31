//! The transport under rtnetlink and nf_tables alike: messages out, acknowledgements or a dump back.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::error::{Error, Result};

pub(crate) const NLM_F_REQUEST: u16 = 0x1;
pub(crate) const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSGERR_ATTR_MSG: u16 = 1;
const HEADER: usize = 16;
const RECEIVE_BUFFER: usize = 64 * 1024;
/// A dump that keeps changing under us is read again this often.
const DUMP_ATTEMPTS: u32 = 64;
/// The kernel answers within the call; the limit only keeps a lost answer from blocking for ever.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Which part of the kernel a socket talks to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Protocol {
    Route,
    Netfilter,
}

/// One request: its netlink type and flags, its payload after the header, and what it is for.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) payload: Vec<u8>,
    /// For the error message; names the object.
    pub(crate) action: String,
    /// Whether the kernel acknowledges this one (the marks around an nf_tables batch are not).
    pub(crate) acknowledged: bool,
    /// This error means that there is nothing to do.
    pub(crate) tolerate: Option<Errno>,
}

impl Request {
    pub(crate) fn new(kind: u16, flags: u16, payload: Vec<u8>, action: impl Into<String>) -> Self {
        Request { kind, flags, payload, action: action.into(), acknowledged: true, tolerate: None }
    }

    pub(crate) fn tolerating(mut self, errno: Errno) -> Self {
        self.tolerate = Some(errno);
        self
    }
}

/// One message of a dump.
#[derive(Debug)]
pub(crate) struct Dumped {
    pub(crate) kind: u16,
    pub(crate) payload: Vec<u8>,
}

/// A blocking netlink socket. It stays in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Socket {
    inner: netlink_sys::Socket,
    sequence: u32,
}

impl Socket {
    pub(crate) fn open(protocol: Protocol) -> Result<Self> {
        let open = || -> io::Result<netlink_sys::Socket> {
            let mut socket = netlink_sys::Socket::new(match protocol {
                Protocol::Route => NETLINK_ROUTE,
                Protocol::Netfilter => NETLINK_NETFILTER,
            })?;
            socket.bind_auto()?;
            socket.connect(&netlink_sys::SocketAddr::new(0, 0))?;
            socket.set_cap_ack(true)?;
            socket.set_ext_ack(true)?;
            set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_TIMEOUT))?;
            Ok(socket)
        };
        let inner = open().map_err(|e| Error::system("open a netlink socket", e))?;
        Ok(Socket { inner, sequence: 0 })
    }

    /// Sends the requests in one go and waits for every answer. The first that was refused is the error;
    /// outside an nf_tables batch those after it are carried out all the same.
    pub(crate) fn run(&mut self, requests: &[Request]) -> Result<()> {
        let mut buffer = Vec::with_capacity(4096);
        let first = self.sequence.wrapping_add(1);
        let mut waiting = BTreeSet::new();
        for (offset, request) in (0u32..).zip(requests) {
            let sequence = first.wrapping_add(offset);
            let ack = if request.acknowledged { NLM_F_ACK } else { 0 };
            encode(
                &mut buffer,
                request.kind,
                request.flags | NLM_F_REQUEST | ack,
                sequence,
                &request.payload,
            )?;
            if request.acknowledged {
                waiting.insert(offset);
            }
            self.sequence = sequence;
        }
        if buffer.is_empty() {
            // The kernel refuses an empty datagram.
            return Ok(());
        }
        self.send(&buffer)?;
        let mut failure: Option<(u32, Error)> = None;
        while !waiting.is_empty() {
            let datagram = self.receive()?;
            for message in messages(&datagram) {
                let message = message?;
                let offset = message.sequence.wrapping_sub(first);
                let Some(request) = usize::try_from(offset).ok().and_then(|i| requests.get(i)) else {
                    continue;
                };
                if message.kind != NLMSG_ERROR {
                    continue;
                }
                waiting.remove(&offset);
                let Some(error) = error_of(&message, &request.action)? else { continue };
                if request.tolerate.is_some_and(|errno| error.is_errno(errno)) {
                    continue;
                }
                if !request.acknowledged {
                    // The batch as a whole was refused; nothing else will be answered.
                    return Err(error);
                }
                if failure.as_ref().is_none_or(|(at, _)| offset < *at) {
                    failure = Some((offset, error));
                }
            }
        }
        failure.map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Reads everything that matches `request`.
    pub(crate) fn dump(&mut self, request: &Request) -> Result<Vec<Dumped>> {
        self.read(request, NLM_F_DUMP)
    }

    /// Reads the one object that `request` names.
    pub(crate) fn get(&mut self, request: &Request) -> Result<Option<Dumped>> {
        Ok(self.read(request, NLM_F_ACK)?.into_iter().next())
    }

    fn read(&mut self, request: &Request, flags: u16) -> Result<Vec<Dumped>> {
        for _ in 0..DUMP_ATTEMPTS {
            match self.read_once(request, flags) {
                Err(error) if error.is_errno(Errno::INTR) => {}
                Ok((_, true)) => {}
                Ok((found, false)) => return Ok(found),
                Err(error) => return Err(error),
            }
        }
        Err(Error::system(&*request.action, Errno::INTR))
    }

    fn read_once(&mut self, request: &Request, flags: u16) -> Result<(Vec<Dumped>, bool)> {
        let mut buffer = Vec::new();
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        encode(&mut buffer, request.kind, request.flags | NLM_F_REQUEST | flags, sequence, &request.payload)?;
        self.send(&buffer)?;
        let (mut found, mut interrupted) = (Vec::new(), false);
        loop {
            let datagram = self.receive()?;
            for message in messages(&datagram) {
                let message = message?;
                if message.sequence != sequence {
                    continue;
                }
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.kind {
                    NLMSG_NOOP => {}
                    NLMSG_DONE => match error_of(&message, &request.action)? {
                        Some(error) => return Err(error),
                        None => return Ok((found, interrupted)),
                    },
                    NLMSG_ERROR => match error_of(&message, &request.action)? {
                        Some(error) => return Err(error),
                        None => return Ok((found, interrupted)),
                    },
                    kind => found.push(Dumped { kind, payload: message.payload.to_vec() }),
                }
            }
        }
    }

    /// Joins a group of listeners to what changes.
    pub(crate) fn join(&mut self, group: u32) -> Result<()> {
        self.inner.add_membership(group).map_err(|e| Error::system("listen to the kernel's netlink news", e))
    }

    /// Waits for news, some seconds at most: the types of the messages. `None` if there were more than could be kept.
    pub(crate) fn hear(&self) -> Result<Option<Vec<u16>>> {
        let mut buffer = Vec::with_capacity(RECEIVE_BUFFER);
        match self.inner.recv(&mut buffer, 0) {
            Ok(_) => Ok(Some(messages(&buffer).filter_map(|m| m.ok().map(|m| m.kind)).collect())),
            Err(e) if e.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => Ok(None),
            Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {
                Ok(Some(Vec::new()))
            }
            Err(e) => Err(Error::system("wait for the kernel's netlink news", e)),
        }
    }

    fn send(&self, buffer: &[u8]) -> Result<()> {
        let sent = self.inner.send(buffer, 0).map_err(|e| Error::system("send a netlink request", e))?;
        if sent == buffer.len() {
            Ok(())
        } else {
            Err(Error::system("send a netlink request", Errno::MSGSIZE))
        }
    }

    fn receive(&self) -> Result<Vec<u8>> {
        let mut buffer = Vec::with_capacity(RECEIVE_BUFFER);
        loop {
            match self.inner.recv(&mut buffer, 0) {
                Ok(_) => return Ok(buffer),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::system("wait for the kernel's netlink answer", e)),
            }
        }
    }
}

fn encode(buffer: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Result<()> {
    let length = u32::try_from(HEADER + payload.len())
        .map_err(|_| Error::Invalid("netlink request is too large".to_owned()))?;
    buffer.extend_from_slice(&length.to_ne_bytes());
    buffer.extend_from_slice(&kind.to_ne_bytes());
    buffer.extend_from_slice(&flags.to_ne_bytes());
    buffer.extend_from_slice(&sequence.to_ne_bytes());
    buffer.extend_from_slice(&0u32.to_ne_bytes());
    buffer.extend_from_slice(payload);
    buffer.resize(buffer.len().next_multiple_of(4), 0);
    Ok(())
}

struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// The messages of one datagram; ends after the first that is cut short.
fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Result<Message<'_>>> {
    std::iter::from_fn(move || {
        if datagram.is_empty() {
            return None;
        }
        let parsed = (|| {
            let length = usize::try_from(u32_at(datagram, 0)?).ok()?;
            let payload = datagram.get(HEADER..length)?;
            let message = Message {
                kind: u16_at(datagram, 4)?,
                flags: u16_at(datagram, 6)?,
                sequence: u32_at(datagram, 8)?,
                payload,
            };
            Some((message, length.next_multiple_of(4)))
        })();
        let Some((message, step)) = parsed else {
            datagram = &[];
            return Some(Err(Error::Malformed {
                action: "a request".to_owned(),
                reason: "truncated".to_owned(),
            }));
        };
        datagram = datagram.get(step..).unwrap_or_default();
        Some(Ok(message))
    })
}

fn error_of(message: &Message<'_>, action: &str) -> Result<Option<Error>> {
    let Some(code) = u32_at(message.payload, 0) else {
        // An empty end of a dump is a good one.
        return Ok(None);
    };
    let code = code.cast_signed();
    if code >= 0 {
        return Ok(None);
    }
    // With capped acknowledgements the attributes follow the code and the request's header.
    let detail = (message.kind == NLMSG_ERROR && message.flags & NLM_F_ACK_TLVS != 0)
        .then(|| message.payload.get(4 + HEADER..))
        .flatten()
        .and_then(|bytes| crate::nft::attribute(bytes, NLMSGERR_ATTR_MSG))
        .map(|text| String::from_utf8_lossy(text).trim_end_matches('\0').to_owned());
    Ok(Some(Error::Netlink {
        action: action.to_owned(),
        source: io::Error::from_raw_os_error(code.saturating_neg()),
        detail,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncated_answers_are_errors_not_panics() {
        for length in 0..40usize {
            let mut datagram = vec![0u8; length];
            if let Some(first) = datagram.first_mut() {
                *first = 60;
            }
            let seen: Vec<_> = messages(&datagram).collect();
            assert_eq!(seen.len(), usize::from(length > 0));
            assert!(seen.iter().all(Result::is_err));
        }
        // A length below the header's must not loop for ever.
        assert_eq!(messages(&[4, 0, 0, 0, 0, 0, 0, 0]).count(), 1);
    }
}
