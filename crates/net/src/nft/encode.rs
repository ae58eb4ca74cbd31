//! From planned rules to the kernel's expressions: load something into a register, compare it, act.

use super::wire::Writer;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::plan::rules::{
    Action, Chain, ChainKind, Data, Element, Field, Hook, Load, Match, Part, Rule, Set, Target,
};

// Registers of sixteen bytes; a concatenation goes on in the four-byte ones that alias them.
const REG_VERDICT: u32 = 0;
const REG_1: u32 = 1;
/// The four-byte register at the start of `REG_1`, counted from 8.
const REG32_START: u32 = 8;

const LIST_ELEM: u16 = 1;
const NAME_MAX_PADDED: usize = 16;

const VERDICT_DROP: u32 = 0;
const VERDICT_ACCEPT: u32 = 1;
const VERDICT_JUMP: u32 = (-3_i32).cast_unsigned();

// Types as `nft` numbers them; six bits each in a concatenation.
const TYPE_IPV4_ADDR: u32 = 7;
const TYPE_IPV6_ADDR: u32 = 8;
const TYPE_ETHER_ADDR: u32 = 9;
const TYPE_INET_PROTO: u32 = 12;
const TYPE_INET_SERVICE: u32 = 13;
const TYPE_IFNAME: u32 = 41;
const TYPE_BITS: u32 = 6;

const META_PROTOCOL: u32 = 1;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const CMP_EQ: u32 = 0;
const CMP_NEQ: u32 = 1;
const BASE_LINK: u32 = 0;
const BASE_NETWORK: u32 = 1;
const BASE_TRANSPORT: u32 = 2;
const ETHER_SADDR: u32 = 6;
/// In an ARP packet: the sender's addresses.
const ARP_ETHER: u32 = 8;
const ARP_ADDRESS: u32 = 14;
const ICMPV6: u8 = 58;
const NEIGHBOUR_TARGET: u32 = 8;
const IPV4_SADDR: u32 = 12;
const IPV4_DADDR: u32 = 16;
const IPV6_SADDR: u32 = 8;
const IPV6_DADDR: u32 = 24;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const CT_ESTABLISHED_RELATED: u32 = 2 | 4;
const CT_STATUS_DNAT: u32 = 1 << 5;
const FIB_ADDRTYPE: u32 = 3;
const FIB_DADDR: u32 = 2;
const RTN_LOCAL: u32 = 2;
const NAT_DNAT: u32 = 1;
const SET_INTERVAL: u32 = 4;
const SET_MAP: u32 = 8;
const SET_CONCAT: u32 = 0x80;
const SET_DESC: u16 = 9;
const SET_ID: u16 = 10;
const SET_USERDATA: u16 = 13;
const UDATA_KEY_BYTE_ORDER: u8 = 0;
const HOST_ENDIAN: u32 = 1;
const DESC_CONCAT: u16 = 2;
const ELEM_KEY: u16 = 1;
const ELEM_DATA: u16 = 2;
const ELEM_FLAGS: u16 = 3;
const ELEM_USERDATA: u16 = 6;
const ELEM_KEY_END: u16 = 10;
const ELEM_INTERVAL_END: u32 = 1;
const DATA_VERDICT: u32 = 0xffff_ff00;
const LOOKUP_NOT: u32 = 1;

fn datatype(types: &[u32]) -> u32 {
    types.iter().fold(0, |all, one| (all << TYPE_BITS) | one)
}

pub(super) fn chain(w: &mut Writer, table: &str, chain: &Chain) {
    w.text(1, table).text(3, &chain.name);
    let Some(base) = chain.hook else { return };
    let hook = match base.hook {
        Hook::Prerouting => 0,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    };
    let kind = match base.kind {
        ChainKind::Filter => "filter",
        ChainKind::Nat => "nat",
    };
    w.nest(4, |w| {
        w.u32(1, hook).u32(2, base.priority.cast_unsigned());
    });
    w.u32(5, VERDICT_ACCEPT).text(7, kind);
}

/// The type of a field as `nft` numbers it, and its length in bytes.
fn field(field: Field) -> (u32, u32) {
    match field {
        Field::Ipv4 => (TYPE_IPV4_ADDR, 4),
        Field::Ipv6 => (TYPE_IPV6_ADDR, 16),
        Field::Protocol => (TYPE_INET_PROTO, 1),
        Field::Service => (TYPE_INET_SERVICE, 2),
        Field::Interface => (TYPE_IFNAME, 16),
        Field::Ether => (TYPE_ETHER_ADDR, 6),
    }
}

/// The type and the length of fields one behind the other: of several, each begins at a multiple of four.
fn fields(all: &[Field]) -> (u32, u32) {
    let types: Vec<u32> = all.iter().map(|f| field(*f).0).collect();
    let length = match all {
        [one] => field(*one).1,
        several => several.iter().map(|f| field(*f).1.next_multiple_of(4)).sum(),
    };
    (datatype(&types), length)
}

pub(super) fn set(w: &mut Writer, table: &str, set: &Set, id: u32) {
    let (kind, length) = fields(set.key);
    let mut flags = 0;
    if set.interval {
        flags |= SET_INTERVAL;
        if set.is_concatenation() {
            flags |= SET_CONCAT;
        }
    }
    if set.data != Data::Nothing {
        flags |= SET_MAP;
    }
    w.text(1, table).text(2, set.name).u32(3, flags).u32(4, kind).u32(5, length);
    match set.data {
        Data::Nothing => {}
        Data::Verdict => drop(w.u32(6, DATA_VERDICT)),
        Data::Fields(data) => {
            let (kind, length) = fields(data);
            w.u32(6, kind).u32(7, length);
        }
    }
    if set.interval && set.is_concatenation() {
        w.nest(SET_DESC, |w| {
            w.nest(DESC_CONCAT, |w| {
                for part in set.key {
                    w.nest(LIST_ELEM, |w| {
                        w.u32(1, field(*part).1);
                    });
                }
            });
        });
    }
    if set.key == [Field::Interface] {
        // Else `nft` takes the names for numbers of the network's order.
        let mut order = vec![UDATA_KEY_BYTE_ORDER, 4];
        order.extend(HOST_ENDIAN.to_ne_bytes());
        w.bytes(SET_USERDATA, &order);
    }
    w.u32(SET_ID, id);
}

/// Elements of one set, to add them or, by their keys alone, to remove them.
pub(super) fn elements(w: &mut Writer, table: &str, set: &Set, elements: &[&Element], add: bool) {
    w.text(1, table).text(2, set.name);
    w.nest(3, |w| {
        for element in elements {
            let (first, last) = key(set, &element.key);
            let whole = !set.interval || set.is_concatenation();
            w.nest(LIST_ELEM, |w| {
                data(w, ELEM_KEY, &first);
                if set.interval && whole {
                    data(w, ELEM_KEY_END, &last);
                }
                if add {
                    target(w, &element.target);
                    if let Some(comment) = &element.comment {
                        w.bytes(ELEM_USERDATA, &super::comment(comment));
                    }
                }
            });
            // In a set of plain ranges each ends with an element of its own, unless at the very end.
            if !whole && let Some(end) = following(&last) {
                w.nest(LIST_ELEM, |w| {
                    w.u32(ELEM_FLAGS, ELEM_INTERVAL_END);
                    data(w, ELEM_KEY, &end);
                });
            }
        }
    });
}

fn target(w: &mut Writer, target: &Target) {
    match target {
        Target::Nothing => {}
        Target::Jump(chain) => {
            w.nest(ELEM_DATA, |w| {
                w.nest(2, |w| {
                    w.u32(1, VERDICT_JUMP).text(2, chain);
                });
            });
        }
        Target::Address(ip) => data(w, ELEM_DATA, &octets(ip)),
        Target::Port(ip, port) => {
            let mut bytes = octets(ip);
            bytes.extend(port.to_be_bytes());
            bytes.extend([0, 0]);
            data(w, ELEM_DATA, &bytes);
        }
    }
}

/// The least and the greatest key that are meant.
fn key(set: &Set, parts: &[Part]) -> (Vec<u8>, Vec<u8>) {
    let (mut first, mut last) = (Vec::with_capacity(48), Vec::with_capacity(48));
    for part in parts {
        let (low, high) = match part {
            Part::Address(ip) => (octets(ip), octets(ip)),
            Part::Net(net) => (octets(&net.network()), octets(&net.broadcast())),
            Part::Protocol(transport) => (vec![transport.number()], vec![transport.number()]),
            Part::Ports(low, high) => (low.to_be_bytes().to_vec(), high.to_be_bytes().to_vec()),
            Part::Interface(name) => (padded(name).to_vec(), padded(name).to_vec()),
            Part::Ether(mac) => (mac.to_vec(), mac.to_vec()),
        };
        for (all, bytes) in [(&mut first, low), (&mut last, high)] {
            all.extend(bytes);
            if set.is_concatenation() {
                all.resize(all.len().next_multiple_of(4), 0);
            }
        }
    }
    (first, last)
}

/// The number after this one; none after the last.
fn following(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut next = bytes.to_vec();
    for byte in next.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return Some(next);
        }
    }
    None
}

pub(super) fn rule(
    w: &mut Writer,
    table: &str,
    chain: &str,
    rule: &Rule,
    comment: Option<&str>,
    counted: bool,
) {
    w.text(1, table).text(2, chain);
    w.nest(4, |w| {
        for m in &rule.matches {
            condition(w, m);
        }
        if counted {
            expression(w, "counter", |_| {});
        }
        action(w, &rule.action);
    });
    if let Some(text) = comment {
        w.bytes(7, &super::comment(text));
    }
}

fn condition(w: &mut Writer, m: &Match) {
    match m {
        Match::Input(name) => interface(w, META_IIFNAME, CMP_EQ, name),
        Match::InputNot(name) => interface(w, META_IIFNAME, CMP_NEQ, name),
        Match::Output(name) => interface(w, META_OIFNAME, CMP_EQ, name),
        Match::OutputNot(name) => interface(w, META_OIFNAME, CMP_NEQ, name),
        Match::Source(net) => network(w, if is_ipv6(net) { IPV6_SADDR } else { IPV4_SADDR }, net),
        Match::Destination(net) => network(w, if is_ipv6(net) { IPV6_DADDR } else { IPV4_DADDR }, net),
        Match::Family { ipv6 } => family(w, *ipv6),
        Match::Transport(number) => {
            meta(w, REG_1, META_L4PROTO);
            compare(w, CMP_EQ, &[*number]);
        }
        Match::In(loads, set) => lookup(w, loads, set, 0),
        Match::NotIn(loads, set) => lookup(w, loads, set, LOOKUP_NOT),
        Match::EtherType(number) => ether_type(w, *number),
        Match::Icmpv6(kind) => {
            meta(w, REG_1, META_L4PROTO);
            compare(w, CMP_EQ, &[ICMPV6]);
            payload(w, REG_1, BASE_TRANSPORT, 0, 1);
            compare(w, CMP_EQ, &[*kind]);
        }
        Match::ArpProbe => {
            payload(w, REG_1, BASE_NETWORK, ARP_ADDRESS, 4);
            compare(w, CMP_EQ, &Ipv4Addr::UNSPECIFIED.octets());
        }
        Match::FrameSource(net) => bytes_of(w, BASE_NETWORK, IPV6_SADDR, net),
        Match::NeighbourTarget(net) => bytes_of(w, BASE_TRANSPORT, NEIGHBOUR_TARGET, net),
        Match::DestinationPort(transport, port) => {
            meta(w, REG_1, META_L4PROTO);
            compare(w, CMP_EQ, &[transport.number()]);
            payload(w, REG_1, BASE_TRANSPORT, 2, 2);
            compare(w, CMP_EQ, &port.to_be_bytes());
        }
        Match::NotLoopback6 => {
            family(w, true);
            payload(w, REG_1, BASE_NETWORK, IPV6_DADDR, 16);
            compare(w, CMP_NEQ, &Ipv6Addr::LOCALHOST.octets());
        }
        Match::DestinationLocal => {
            expression(w, "fib", |w| {
                w.u32(1, REG_1).u32(2, FIB_ADDRTYPE).u32(3, FIB_DADDR);
            });
            compare(w, CMP_EQ, &RTN_LOCAL.to_ne_bytes());
        }
        Match::Established => connection(w, CT_STATE, CT_ESTABLISHED_RELATED),
        Match::Dnat => connection(w, CT_STATUS, CT_STATUS_DNAT),
    }
}

fn action(w: &mut Writer, action: &Action) {
    match action {
        Action::Accept => verdict(w, VERDICT_ACCEPT),
        Action::Drop => verdict(w, VERDICT_DROP),
        Action::Masquerade => expression(w, "masq", |_| {}),
        Action::Dnat(ip, port) => {
            immediate(w, REG_1, &ip.octets());
            immediate(w, REG32_START + 1, &port.to_be_bytes());
            expression(w, "nat", |w| {
                w.u32(1, NAT_DNAT)
                    .u32(2, u32::from(super::FAMILY_IPV4))
                    .u32(3, REG_1)
                    .u32(5, REG32_START + 1);
            });
        }
        Action::Jump(load, set) => {
            load_into(w, REG32_START, *load);
            expression(w, "lookup", |w| {
                w.text(1, set.name).u32(2, REG_1).u32(3, REG_VERDICT);
            });
        }
        Action::DnatMap(map) => {
            let ipv6 = map.is_ipv6();
            let mut register = REG32_START;
            if map.by_address() {
                register += load_into(w, register, Load::Destination { ipv6 });
            }
            register += load_into(w, register, Load::Protocol);
            load_into(w, register, Load::DestinationPort);
            expression(w, "lookup", |w| {
                w.text(1, map.name).u32(2, REG_1).u32(3, REG_1);
            });
            let has_port = matches!(map.data, Data::Fields([_, Field::Service]));
            expression(w, "nat", |w| {
                w.u32(1, NAT_DNAT)
                    .u32(2, u32::from(if ipv6 { super::FAMILY_IPV6 } else { super::FAMILY_IPV4 }))
                    .u32(3, REG_1);
                if has_port {
                    w.u32(5, REG32_START + if ipv6 { 4 } else { 1 });
                }
            });
        }
    }
}

/// Looks several parts of the packet up as one key.
fn lookup(w: &mut Writer, loads: &[Load], set: &Set, flags: u32) {
    let mut register = REG32_START;
    for load in loads {
        register += load_into(w, register, *load);
    }
    expression(w, "lookup", |w| {
        w.text(1, set.name).u32(2, REG_1);
        if flags != 0 {
            w.u32(5, flags);
        }
    });
}

/// Loads a part of the packet from a four-byte register on; returns how many it takes.
fn load_into(w: &mut Writer, register: u32, load: Load) -> u32 {
    let (base, offset, length) = match load {
        Load::Input => {
            meta(w, register, META_IIFNAME);
            return 4;
        }
        Load::Output => {
            meta(w, register, META_OIFNAME);
            return 4;
        }
        Load::Protocol => {
            meta(w, register, META_L4PROTO);
            return 1;
        }
        Load::EtherSource => (BASE_LINK, ETHER_SADDR, 6),
        Load::Source { ipv6: false } => (BASE_NETWORK, IPV4_SADDR, 4),
        Load::Source { ipv6: true } => (BASE_NETWORK, IPV6_SADDR, 16),
        Load::Destination { ipv6: false } => (BASE_NETWORK, IPV4_DADDR, 4),
        Load::Destination { ipv6: true } => (BASE_NETWORK, IPV6_DADDR, 16),
        Load::DestinationPort => (BASE_TRANSPORT, 2, 2),
        Load::ArpEther => (BASE_NETWORK, ARP_ETHER, 6),
        Load::ArpAddress => (BASE_NETWORK, ARP_ADDRESS, 4),
        Load::NeighbourTarget => (BASE_TRANSPORT, NEIGHBOUR_TARGET, 16),
    };
    payload(w, register, base, offset, length);
    length.div_ceil(4)
}

fn expression(w: &mut Writer, name: &str, inner: impl FnOnce(&mut Writer)) {
    w.nest(LIST_ELEM, |w| {
        w.text(1, name).nest(2, inner);
    });
}

fn data(w: &mut Writer, kind: u16, value: &[u8]) {
    w.nest(kind, |w| {
        w.bytes(1, value);
    });
}

fn meta(w: &mut Writer, register: u32, key: u32) {
    expression(w, "meta", |w| {
        w.u32(1, register).u32(2, key);
    });
}

fn payload(w: &mut Writer, register: u32, base: u32, offset: u32, length: u32) {
    expression(w, "payload", |w| {
        w.u32(1, register).u32(2, base).u32(3, offset).u32(4, length);
    });
}

fn compare(w: &mut Writer, operation: u32, value: &[u8]) {
    expression(w, "cmp", |w| {
        w.u32(1, REG_1).u32(2, operation);
        data(w, 3, value);
    });
}

/// Keeps the bits of `mask` in the register.
fn mask(w: &mut Writer, mask: &[u8]) {
    expression(w, "bitwise", |w| {
        w.u32(1, REG_1).u32(2, REG_1).u32(3, u32::try_from(mask.len()).unwrap_or_default());
        data(w, 4, mask);
        data(w, 5, &vec![0; mask.len()]);
    });
}

fn is_ipv6(net: &IpNet) -> bool {
    net.addr().is_ipv6()
}

fn octets(ip: &IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// In a table of both families nothing else tells which header a packet has.
fn family(w: &mut Writer, ipv6: bool) {
    meta(w, REG_1, META_NFPROTO);
    compare(w, CMP_EQ, &[if ipv6 { super::FAMILY_IPV6 } else { super::FAMILY_IPV4 }]);
}

fn ether_type(w: &mut Writer, number: u16) {
    meta(w, REG_1, META_PROTOCOL);
    compare(w, CMP_EQ, &number.to_be_bytes());
}

/// The name of an interface as it is compared.
fn padded(name: &str) -> [u8; NAME_MAX_PADDED] {
    let mut padded = [0u8; NAME_MAX_PADDED];
    for (to, from) in padded.iter_mut().zip(name.bytes().take(NAME_MAX_PADDED - 1)) {
        *to = from;
    }
    padded
}

fn interface(w: &mut Writer, key: u32, operation: u32, name: &str) {
    meta(w, REG_1, key);
    compare(w, operation, &padded(name));
}

fn network(w: &mut Writer, offset: u32, net: &IpNet) {
    family(w, is_ipv6(net));
    bytes_of(w, BASE_NETWORK, offset, net);
}

/// An address of the packet is in a net.
fn bytes_of(w: &mut Writer, base: u32, offset: u32, net: &IpNet) {
    let address = octets(&net.network());
    // Whole bytes need no mask: fewer are loaded instead, as nft does.
    let whole = net.prefix_len().is_multiple_of(8) && net.prefix_len() > 0;
    // `nft` 1.0.6 fails on a long part of a header that it has no name for.
    let short = whole || base == BASE_TRANSPORT;
    let length = if short { usize::from(net.prefix_len().div_ceil(8)) } else { address.len() };
    payload(w, REG_1, base, offset, u32::try_from(length).unwrap_or_default());
    if !whole {
        mask(w, octets(&net.netmask()).get(..length).unwrap_or_default());
    }
    compare(w, CMP_EQ, address.get(..length).unwrap_or_default());
}

fn connection(w: &mut Writer, key: u32, bits: u32) {
    expression(w, "ct", |w| {
        w.u32(1, REG_1).u32(2, key);
    });
    mask(w, &bits.to_ne_bytes());
    compare(w, CMP_NEQ, &[0; 4]);
}

fn immediate(w: &mut Writer, register: u32, value: &[u8]) {
    expression(w, "immediate", |w| {
        w.u32(1, register);
        data(w, 2, value);
    });
}

fn verdict(w: &mut Writer, code: u32) {
    expression(w, "immediate", |w| {
        w.u32(1, REG_VERDICT);
        w.nest(2, |w| {
            w.nest(2, |w| {
                w.u32(1, code);
            });
        });
    });
}
