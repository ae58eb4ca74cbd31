//! The name server that a container sees at 127.0.0.11: one [`Server`] per container answers for the names of its
//! networks, and passes every other query on to upstream servers.
//!
//! A query is planned purely, from its bytes and [`Names`] to an answer or to whom to ask; a thin shell carries that
//! out over UDP and TCP. Answers of upstreams go to the container unchanged but for their id: nothing is cached.
//!
//! Neither side is trusted: what containers and upstreams send is limited in size, number and time ([`Options`]), and
//! no message makes the server fail.
//!
//! It speaks RFC 1035, with TCP as of RFC 7766, EDNS as of RFC 6891, and letter case kept for resolvers that check it.

mod forward;
mod frame;
mod health;
mod plan;
mod request;
mod server;
mod tcp;
mod udp;
mod upstream;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub use plan::{Plan, plan};
pub use request::Request;
pub use server::Server;
pub use upstream::Reply;

/// Where a container's names are looked up. It is called for each query, on a thread of the runtime: it must not
/// block.
pub trait Names: Send + Sync + 'static {
    /// The addresses, IPv4 and IPv6, that a name stands for. `None`: there is no such name here, and upstreams are
    /// asked. An empty list: the name exists and has no address.
    ///
    /// The ASCII letters of the name are lower case, and it has no final dot.
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>>;

    /// The name of an address of one of its networks.
    fn name_of(&self, address: IpAddr) -> Option<String>;

    /// Whether an address belongs to one of its networks: then nobody else is asked for its name.
    fn is_own(&self, address: IpAddr) -> bool;

    /// Who is asked for what is not known here, in this order. Empty: nobody, as the container is on internal
    /// networks only. An unknown name of one label does not exist then (NXDOMAIN); for one with dots the server has
    /// failed (SERVFAIL, as Docker answers), since it may exist elsewhere. musl takes that for a reason to try
    /// again, until its own time is over.
    fn upstreams(&self) -> Vec<SocketAddr>;
}

/// Times and limits of a [`Server`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many seconds clients may keep answers of the server's own.
    pub ttl: u32,
    /// How long one upstream is waited for.
    pub upstream_timeout: Duration,
    /// How long all upstreams together are waited for; then the answer is SERVFAIL.
    pub total_timeout: Duration,
    /// How many queries may wait for upstreams at once; one more is answered with SERVFAIL.
    pub max_in_flight: usize,
    /// How many TCP connections are served at once; others wait to be accepted. With 0 the listener is closed.
    pub max_connections: usize,
    /// How long a TCP connection may take for the next query, or for taking an answer.
    pub idle_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ttl: 600,
            upstream_timeout: Duration::from_secs(2),
            total_timeout: Duration::from_secs(4),
            max_in_flight: 1000,
            max_connections: 64,
            idle_timeout: Duration::from_secs(10),
        }
    }
}

/// What a query came by, and is passed on by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// A datagram holds one message.
    Udp,
    /// Messages come one after the other, each after its length.
    Tcp,
}

/// The longest message that TCP's length of two bytes, or a datagram, can hold.
pub(crate) const MAX_MESSAGE: u16 = u16::MAX;
