//! What other programs do to the host's firewall.

use super::{MSG_DELCHAIN, MSG_DELRULE, MSG_DELTABLE, MSG_NEWCHAIN};
use crate::error::Result;
use crate::netlink::{Protocol, Socket};

/// The group that is told of every change of nf_tables.
const GROUP: u32 = 7;

/// A listener to changes of the ruleset.
#[derive(Debug)]
pub(crate) struct News(Socket);

impl News {
    pub(crate) fn open() -> Result<Self> {
        let mut socket = Socket::open(Protocol::Netfilter)?;
        socket.join(GROUP)?;
        Ok(Self(socket))
    }

    /// Waits, some seconds at most; whether something happened that may have taken rules away, or that has made a
    /// chain in which packets can end. Ports that are published come as elements of a map, and are no news.
    pub(crate) fn wait(&mut self) -> Result<bool> {
        let of_interest = |kind: &u16| [MSG_DELTABLE, MSG_NEWCHAIN, MSG_DELCHAIN, MSG_DELRULE].contains(kind);
        Ok(self.0.hear()?.is_none_or(|kinds| kinds.iter().any(of_interest)))
    }
}
