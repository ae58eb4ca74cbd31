//! The words of a ruleset, as data: tables, sets, chains, rules. Nothing here knows netlink.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::Transport;

/// Which of our two tables: they have the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Table {
    /// Of both IP families: what is routed.
    Inet,
    /// What passes from one port of a bridge to another.
    Bridge,
}

/// A set, or a map if its elements have data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Set {
    pub(crate) table: Table,
    pub(crate) name: &'static str,
    pub(crate) key: &'static [Field],
    /// Its keys may be ranges.
    pub(crate) interval: bool,
    pub(crate) data: Data,
}

/// What an element of a set leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Data {
    Nothing,
    Verdict,
    Fields(&'static [Field]),
}

/// A part of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Field {
    Ipv4,
    Ipv6,
    Protocol,
    Service,
    Interface,
    Ether,
}

/// An element of a set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Element {
    pub(crate) set: Set,
    pub(crate) key: Vec<Part>,
    pub(crate) target: Target,
    /// Whose it is, for whoever lists the table.
    pub(crate) comment: Option<String>,
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Address(IpAddr),
    Net(IpNet),
    Protocol(Transport),
    /// The first and the last.
    Ports(u16, u16),
    Interface(String),
    Ether([u8; 6]),
}

/// Where an element leads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    Nothing,
    Jump(String),
    /// To the same port there.
    Address(IpAddr),
    Port(IpAddr, u16),
}

/// A chain; without a hook it is reached by jumps alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) table: Table,
    pub(crate) name: String,
    pub(crate) hook: Option<Base>,
    pub(crate) rules: Vec<Rule>,
}

/// Where a chain begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) kind: ChainKind,
    pub(crate) hook: Hook,
    pub(crate) priority: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChainKind {
    Filter,
    Nat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Prerouting,
    Forward,
    Output,
    Postrouting,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) matches: Vec<Match>,
    pub(crate) action: Action,
}

/// What of a packet is looked up in a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    Input,
    Output,
    EtherSource,
    Source {
        ipv6: bool,
    },
    Destination {
        ipv6: bool,
    },
    Protocol,
    DestinationPort,
    /// The hardware and the IPv4 address that an ARP packet says to be the sender's.
    ArpEther,
    ArpAddress,
    /// The address that a neighbour advertisement speaks of.
    NeighbourTarget,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    Input(String),
    InputNot(String),
    Output(String),
    OutputNot(String),
    Source(IpNet),
    Destination(IpNet),
    /// A packet of IPv6, or one of IPv4.
    Family {
        ipv6: bool,
    },
    /// The transport protocol, by its number.
    Transport(u8),
    DestinationPort(Transport, u16),
    /// The destination is an address of this host.
    DestinationLocal,
    /// The destination is not the host's IPv6 loopback: from there the kernel lets no packet out.
    NotLoopback6,
    /// Established or related.
    Established,
    /// Translated to another destination.
    Dnat,
    /// The set has it, or has not.
    In(&'static [Load], Set),
    NotIn(&'static [Load], Set),
    /// The type of the frame.
    EtherType(u16),
    /// The type of a message of ICMPv6.
    Icmpv6(u8),
    /// The sender's address in an ARP packet is not known yet (RFC 5227).
    ArpProbe,
    /// The address that a neighbour advertisement speaks of.
    NeighbourTarget(IpNet),
    /// Behind the type of the frame.
    FrameSource(IpNet),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Accept,
    Drop,
    Masquerade,
    /// To the chain that the map has for this; no element, no jump.
    Jump(Load, Set),
    /// To where the map says; no element, no change.
    DnatMap(Set),
    Dnat(Ipv4Addr, u16),
}

impl Set {
    /// Of the sets of published ports: whether these are of IPv6.
    pub(crate) fn is_ipv6(&self) -> bool {
        matches!(self.data, Data::Fields([Field::Ipv6, ..]))
    }

    /// Of the sets of published ports: whether the host's address is part of the key.
    pub(crate) fn by_address(&self) -> bool {
        matches!(self.key, [Field::Ipv4 | Field::Ipv6, ..])
    }

    /// Several parts make a key.
    pub(crate) fn is_concatenation(&self) -> bool {
        self.key.len() > 1
    }
}

pub(crate) fn rule(matches: impl Into<Vec<Match>>, action: Action) -> Rule {
    Rule { matches: matches.into(), action }
}
