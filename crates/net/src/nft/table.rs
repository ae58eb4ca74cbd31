//! Our own table: installed as a whole and atomically, its elements one endpoint at a time.

use std::net::IpAddr;

use rustix::io::Errno;

use super::wire::{self, Writer};
use super::{
    FAMILY_INET, FAMILY_IPV4, MSG_BATCH_BEGIN, MSG_BATCH_END, MSG_DELRULE, MSG_DELSETELEM, MSG_DELTABLE,
    MSG_GETRULE, MSG_GETSETELEM, MSG_NEWCHAIN, MSG_NEWRULE, MSG_NEWSET, MSG_NEWSETELEM, MSG_NEWTABLE,
    NLM_F_APPEND, NLM_F_CREATE, SUBSYSTEM, comment_text, encode,
};
use crate::error::Result;
use crate::netlink::{Protocol, Request, Socket};
use crate::plan::{Element, MAPS, Map, Ruleset};

/// Elements per message; an attribute list ends at 64 KiB and one element takes some 90 bytes.
const ELEMENTS_PER_MESSAGE: usize = 400;

/// A socket to nf_tables.
#[derive(Debug)]
pub(crate) struct Firewall {
    pub(super) socket: Socket,
    /// A table of others that cannot be changed was spoken of once already.
    pub(super) warned: bool,
}

impl Firewall {
    pub(crate) fn open() -> Result<Self> {
        Ok(Firewall { socket: Socket::open(Protocol::Netfilter)?, warned: false })
    }

    /// Installs the table, or brings the one that exists to the plan. One of that name for IPv4 alone, which an earlier
    /// version had, goes; its ports are the caller's to publish again. Elements of its maps stay: at no moment is a
    /// published port closed or a rule missing.
    pub(crate) fn install(&mut self, ruleset: &Ruleset) -> Result<()> {
        let table = ruleset.table.as_str();
        self.uninstall_in(FAMILY_IPV4, table)?;
        let mut batch =
            vec![request(MSG_NEWTABLE, NLM_F_CREATE, format!("create nftables table {table}"), |w| {
                w.text(1, table).u32(2, 0);
            })];
        for (id, map) in (1u32..).zip(ruleset.maps) {
            batch.push(request(
                MSG_NEWSET,
                NLM_F_CREATE,
                format!("create nftables map {table} {}", map.name),
                |w| {
                    encode::map(w, table, map, id);
                },
            ));
        }
        for chain in &ruleset.chains {
            let object = format!("nftables chain {table} {}", chain.name);
            batch.push(request(MSG_NEWCHAIN, NLM_F_CREATE, format!("create {object}"), |w| {
                encode::chain(w, table, chain);
            }));
            batch.push(request(MSG_DELRULE, 0, format!("empty {object}"), |w| {
                w.text(1, table).text(2, chain.name);
            }));
            for rule in &chain.rules {
                let action = format!("add a rule to {object}");
                batch.push(request(MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, action, |w| {
                    encode::rule(w, table, chain.name, rule, None, false);
                }));
            }
        }
        self.commit(batch)
    }

    /// Whether every chain has as many rules as were planned.
    pub(crate) fn is_whole(&mut self, ruleset: &Ruleset) -> Result<bool> {
        let action = format!("list rules of {}", ruleset.table);
        let list = request(MSG_GETRULE, 0, action, |w| {
            w.text(1, &ruleset.table);
        });
        let answers = match self.socket.dump(&list) {
            Err(error) if error.is_errno(Errno::NOENT) => return Ok(false),
            other => other?,
        };
        let mut missing: Vec<(&str, usize)> =
            ruleset.chains.iter().map(|chain| (chain.name, chain.rules.len())).collect();
        for answer in &answers {
            let (_, bytes) = wire::body(&answer.payload);
            // Old kernels ignore the filter of a dump.
            if wire::text(bytes, 1).as_deref() == Some(&ruleset.table)
                && let Some(name) = wire::text(bytes, 2)
                && let Some((_, left)) = missing.iter_mut().find(|(chain, _)| *chain == name)
            {
                *left = left.saturating_sub(1);
            }
        }
        Ok(missing.iter().all(|(_, left)| *left == 0))
    }

    /// Publishes ports.
    pub(crate) fn add(&mut self, table: &str, elements: &[Element]) -> Result<()> {
        self.change(table, elements, MSG_NEWSETELEM, NLM_F_CREATE, "publish ports in")
    }

    /// Takes back every published port for whose comment `gone` says so; returns how many.
    pub(crate) fn remove(&mut self, table: &str, gone: impl Fn(&str) -> bool) -> Result<usize> {
        let mut stale = Vec::new();
        for map in MAPS {
            stale.extend(self.elements(table, map)?.into_iter().filter(|element| gone(&element.comment)));
        }
        self.take(table, &stale)?;
        Ok(stale.len())
    }

    /// Takes back published ports, which are there.
    pub(crate) fn take(&mut self, table: &str, stale: &[Element]) -> Result<()> {
        self.change(table, stale, MSG_DELSETELEM, 0, "withdraw ports from")
    }

    /// Removes the table; one that is gone already is fine.
    pub(crate) fn uninstall(&mut self, table: &str) -> Result<()> {
        self.uninstall_in(FAMILY_INET, table)
    }

    fn uninstall_in(&mut self, family: u8, table: &str) -> Result<()> {
        let delete = request_in(family, MSG_DELTABLE, 0, format!("delete nftables table {table}"), |w| {
            w.text(1, table);
        });
        match self.commit(vec![delete]) {
            Err(error) if error.is_errno(Errno::NOENT) => Ok(()),
            other => other,
        }
    }

    /// The elements of a map; none if the table is gone.
    pub(crate) fn elements(&mut self, table: &str, map: Map) -> Result<Vec<Element>> {
        let action = format!("list published ports in {table} {}", map.name);
        let list = request(MSG_GETSETELEM, 0, action, |w| {
            w.text(1, table).text(2, map.name);
        });
        let answers = match self.socket.dump(&list) {
            Err(error) if error.is_errno(Errno::NOENT) => return Ok(Vec::new()),
            other => other?,
        };
        let mut found = Vec::new();
        for answer in &answers {
            let (_, attributes) = wire::body(&answer.payload);
            for (_, element) in wire::attribute(attributes, 3).into_iter().flat_map(wire::attributes) {
                found.extend(parse_element(map, element));
            }
        }
        Ok(found)
    }

    fn change(&mut self, table: &str, elements: &[Element], kind: u16, flags: u16, verb: &str) -> Result<()> {
        if elements.is_empty() {
            return Ok(());
        }
        let mut batch = Vec::new();
        for map in MAPS {
            let of_map: Vec<&Element> = elements.iter().filter(|e| e.map == map).collect();
            for portion in of_map.chunks(ELEMENTS_PER_MESSAGE) {
                batch.push(request(kind, flags, format!("{verb} nftables map {table} {}", map.name), |w| {
                    encode::elements(w, table, map.name, portion, kind == MSG_DELSETELEM);
                }));
            }
        }
        self.commit(batch)?;
        if let Err(error) = self.forget_flows(elements) {
            // Some kernels cannot list flows. New ones are right, old ones end by themselves.
            tracing::debug!(%error, "kept tracked connections of changed ports");
        }
        Ok(())
    }

    /// Applies all the requests or none.
    pub(super) fn commit(&mut self, mut requests: Vec<Request>) -> Result<()> {
        let mark = |kind| {
            let payload = Writer::new(0, SUBSYSTEM >> 8).finish();
            let mut request = Request::new(kind, 0, payload, "change the nftables ruleset");
            request.acknowledged = false;
            request
        };
        requests.insert(0, mark(MSG_BATCH_BEGIN));
        requests.push(mark(MSG_BATCH_END));
        self.socket.run(&requests)
    }
}

fn request(kind: u16, flags: u16, action: String, body: impl FnOnce(&mut Writer)) -> Request {
    request_in(FAMILY_INET, kind, flags, action, body)
}

pub(super) fn request_in(
    family: u8,
    kind: u16,
    flags: u16,
    action: String,
    body: impl FnOnce(&mut Writer),
) -> Request {
    let mut writer = Writer::new(family, 0);
    body(&mut writer);
    Request::new(kind, flags, writer.finish(), action)
}

fn parse_element(map: Map, bytes: &[u8]) -> Option<Element> {
    let key = wire::attribute(wire::attribute(bytes, 1)?, 1)?;
    let data = wire::attribute(wire::attribute(bytes, 2)?, 1)?;
    let comment = comment_text(wire::attribute(bytes, 6)?)?.to_owned();
    let (host_ip, key) = match map.by_address {
        true => parse_address(map, key).map(|(address, rest)| (Some(address), rest))?,
        false => (None, key),
    };
    let (ip, data) = parse_address(map, data)?;
    let [protocol, _, _, _, high, low, ..] = *key else { return None };
    let [port_high, port_low, ..] = *data else { return None };
    Some(Element {
        map,
        host_ip,
        transport: crate::Transport::from_number(protocol)?,
        host_port: u16::from_be_bytes([high, low]),
        ip,
        port: u16::from_be_bytes([port_high, port_low]),
        comment,
    })
}

/// An address of the map's family, and what follows it.
fn parse_address(map: Map, bytes: &[u8]) -> Option<(IpAddr, &[u8])> {
    Some(match map.ipv6 {
        true => {
            let (address, rest) = bytes.split_first_chunk::<16>()?;
            ((*address).into(), rest)
        }
        false => {
            let (address, rest) = bytes.split_first_chunk::<4>()?;
            ((*address).into(), rest)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Transport;

    #[test]
    fn an_element_is_read_as_it_was_written() {
        for map in MAPS {
            let (own, target) = if map.ipv6 { ("::1", "fd00::2") } else { ("127.0.0.1", "172.17.0.2") };
            let element = Element {
                map,
                host_ip: map.by_address.then(|| own.parse().unwrap()),
                transport: Transport::Udp,
                host_port: 8053,
                ip: target.parse().unwrap(),
                port: 53,
                comment: "veth0123456789".to_owned(),
            };
            let mut w = Writer::new(2, 0);
            encode::elements(&mut w, "t", map.name, &[&element], false);
            let payload = w.finish();
            let list = wire::attribute(wire::body(&payload).1, 3).unwrap();
            let (_, bytes) = wire::attributes(list).next().unwrap();
            assert_eq!(parse_element(map, bytes), Some(element));
            for end in 0..bytes.len() {
                let _ = parse_element(map, &bytes[..end]);
            }
        }
    }
}
