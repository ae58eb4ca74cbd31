//! From planned rules to the kernel's expressions: load something into a register, compare it, act.

use super::wire::Writer;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use crate::plan::{Action, Chain, ChainKind, Element, Hook, Map, Match, Rule};

// Registers of sixteen bytes; a concatenation goes on in the four-byte ones that alias them.
const REG_VERDICT: u32 = 0;
const REG_1: u32 = 1;
/// The four-byte register at the start of `REG_1`, counted from 8.
const REG32_START: u32 = 8;

const LIST_ELEM: u16 = 1;
const NAME_MAX_PADDED: usize = 16;

const VERDICT_DROP: u32 = 0;
const VERDICT_ACCEPT: u32 = 1;

// Types as `nft` numbers them; six bits each in a concatenation.
const TYPE_IPV4_ADDR: u32 = 7;
const TYPE_IPV6_ADDR: u32 = 8;
const TYPE_INET_PROTO: u32 = 12;
const TYPE_INET_SERVICE: u32 = 13;
const TYPE_BITS: u32 = 6;

const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const CMP_EQ: u32 = 0;
const CMP_NEQ: u32 = 1;
const BASE_NETWORK: u32 = 1;
const BASE_TRANSPORT: u32 = 2;
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
const SET_MAP: u32 = 8;
const SET_ID: u16 = 10;

fn datatype(types: &[u32]) -> u32 {
    types.iter().fold(0, |all, one| (all << TYPE_BITS) | one)
}

pub(super) fn chain(w: &mut Writer, table: &str, chain: &Chain) {
    let hook = match chain.hook {
        Hook::Prerouting => 0,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    };
    let kind = match chain.kind {
        ChainKind::Filter => "filter",
        ChainKind::Nat => "nat",
    };
    w.text(1, table).text(3, chain.name);
    w.nest(4, |w| {
        w.u32(1, hook).u32(2, chain.priority.cast_unsigned());
    });
    w.u32(5, VERDICT_ACCEPT).text(7, kind);
}

pub(super) fn map(w: &mut Writer, table: &str, map: &Map, id: u32) {
    let (address, length) = if map.ipv6 { (TYPE_IPV6_ADDR, 16) } else { (TYPE_IPV4_ADDR, 4) };
    let service = [TYPE_INET_PROTO, TYPE_INET_SERVICE];
    let with_address = [address, TYPE_INET_PROTO, TYPE_INET_SERVICE];
    let key: &[u32] = if map.by_address { &with_address } else { &service };
    let key_len = if map.by_address { length + 8 } else { 8 };
    w.text(1, table).text(2, map.name).u32(3, SET_MAP);
    w.u32(4, datatype(key)).u32(5, key_len);
    w.u32(6, datatype(&[address, TYPE_INET_SERVICE])).u32(7, length + 4);
    w.u32(SET_ID, id);
}

/// The elements of one map; `keys_only` to delete them.
pub(super) fn elements(w: &mut Writer, table: &str, map: &str, elements: &[&Element], keys_only: bool) {
    w.text(1, table).text(2, map);
    w.nest(3, |w| {
        for element in elements {
            w.nest(LIST_ELEM, |w| {
                let mut key = Vec::with_capacity(24);
                element.host_ip.iter().for_each(|ip| key.extend(octets(ip)));
                key.extend([element.transport.number(), 0, 0, 0]);
                key.extend(element.host_port.to_be_bytes());
                key.extend([0, 0]);
                data(w, 1, &key);
                if !keys_only {
                    let mut target = octets(&element.ip);
                    target.extend(element.port.to_be_bytes());
                    target.extend([0, 0]);
                    data(w, 2, &target);
                    w.bytes(6, &super::comment(&element.comment));
                }
            });
        }
    });
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
        Action::DnatMap(map) => {
            let mut register = REG32_START;
            let words = if map.ipv6 { 4 } else { 1 };
            if map.by_address {
                let offset = if map.ipv6 { IPV6_DADDR } else { IPV4_DADDR };
                payload(w, register, BASE_NETWORK, offset, words * 4);
                register += words;
            }
            meta(w, register, META_L4PROTO);
            payload(w, register + 1, BASE_TRANSPORT, 2, 2);
            expression(w, "lookup", |w| {
                w.text(1, map.name).u32(2, REG_1).u32(3, REG_1);
            });
            expression(w, "nat", |w| {
                w.u32(1, NAT_DNAT)
                    .u32(2, u32::from(if map.ipv6 { super::FAMILY_IPV6 } else { super::FAMILY_IPV4 }))
                    .u32(3, REG_1)
                    .u32(5, REG32_START + words);
            });
        }
    }
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

fn interface(w: &mut Writer, key: u32, operation: u32, name: &str) {
    let mut padded = [0u8; NAME_MAX_PADDED];
    for (to, from) in padded.iter_mut().zip(name.bytes().take(NAME_MAX_PADDED - 1)) {
        *to = from;
    }
    meta(w, REG_1, key);
    compare(w, operation, &padded);
}

fn network(w: &mut Writer, offset: u32, net: &IpNet) {
    family(w, is_ipv6(net));
    let address = octets(&net.network());
    // Whole bytes need no mask: fewer are loaded instead, as nft does.
    let whole = net.prefix_len().is_multiple_of(8) && net.prefix_len() > 0;
    let length = if whole { usize::from(net.prefix_len() / 8) } else { address.len() };
    payload(w, REG_1, BASE_NETWORK, offset, u32::try_from(length).unwrap_or_default());
    if !whole {
        mask(w, &octets(&net.netmask()));
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
