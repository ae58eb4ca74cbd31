//! Our own tables: changed element by element, or made anew as a whole; each change is one transaction.

use std::collections::BTreeMap;

use rustix::io::Errno;

use super::wire::{self, Writer};
use super::{
    FAMILY_BRIDGE, FAMILY_INET, MSG_BATCH_BEGIN, MSG_BATCH_END, MSG_DELCHAIN, MSG_DELRULE, MSG_DELSETELEM,
    MSG_DELTABLE, MSG_GETRULE, MSG_NEWCHAIN, MSG_NEWRULE, MSG_NEWSET, MSG_NEWSETELEM, MSG_NEWTABLE,
    NLM_F_APPEND, NLM_F_CREATE, SUBSYSTEM, encode,
};
use crate::error::Result;
use crate::netlink::{Protocol, Request, Socket};
use crate::plan::Ruleset;
use crate::plan::rules::{Chain, Element, Set, Table};

/// Flags of a table: nobody but who made it can change it; and it stays when that one is gone, for the next to take over.
const OWNER: u32 = 2;
const PERSIST: u32 = 4;
/// Elements per message; an attribute list ends at 64 KiB, and one element takes some 160 bytes at most.
const ELEMENTS_PER_MESSAGE: usize = 250;

/// A socket to nf_tables.
#[derive(Debug)]
pub(crate) struct Nft {
    pub(super) socket: Socket,
    pub(super) table: String,
    /// Of our tables.
    flags: u32,
}

/// What is to change in one transaction.
#[derive(Debug, Default)]
pub(crate) struct Change<'a> {
    removing: Vec<&'a Element>,
    without: &'a [Chain],
    chains: &'a [Chain],
    adding: Vec<&'a Element>,
}

impl<'a> Change<'a> {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn removing(mut self, elements: &'a [Element]) -> Self {
        self.removing.extend(elements);
        self
    }

    pub(crate) fn adding(mut self, elements: &'a [Element]) -> Self {
        self.adding.extend(elements);
        self
    }

    /// These chains with their rules, in place of those of their names.
    pub(crate) fn with_chains(mut self, chains: &'a [Chain]) -> Self {
        self.chains = chains;
        self
    }

    pub(crate) fn without_chains(mut self, chains: &'a [Chain]) -> Self {
        self.without = chains;
        self
    }
}

impl Nft {
    /// `own`: while this is there, nobody else can change our tables or flush them, where the kernel can see to that.
    pub(crate) fn open(table: &str, own: bool) -> Result<Self> {
        let socket = Socket::open(Protocol::Netfilter)?;
        let flags = if own { OWNER | PERSIST } else { 0 };
        Ok(Nft { socket, table: table.to_owned(), flags })
    }

    /// Makes a table with its sets and chains, or brings the one that exists to the plan; its elements stay. `replace`: the
    /// one that exists goes first.
    pub(crate) fn install(&mut self, ruleset: &Ruleset, replace: bool) -> Result<()> {
        match self.send(table_requests(ruleset, replace, self.flags)) {
            // Before Linux 6.9 a table cannot outlive its owner, and one that does not is of no use.
            Err(error) if self.flags != 0 && error.is_errno(Errno::OPNOTSUPP) => {
                self.flags = 0;
                self.install(ruleset, replace)
            }
            // Another version had other sets.
            Err(_) if !replace => self.send(table_requests(ruleset, true, self.flags)),
            other => other,
        }
    }

    /// Makes tables anew, in one transaction: whatever they were, at no moment are they less than one or the other.
    pub(crate) fn replace(&mut self, rulesets: &[Ruleset]) -> Result<()> {
        let flags = self.flags;
        self.send(rulesets.iter().flat_map(|ruleset| table_requests(ruleset, true, flags)).collect())
    }

    /// Makes a change.
    pub(crate) fn commit(&mut self, change: Change<'_>) -> Result<()> {
        let table = self.table.as_str();
        let mut batch = elements(table, &change.removing, false);
        for chain in change.without {
            let object = format!("nftables chain {table} {}", chain.name);
            batch.push(request(chain.table, MSG_DELRULE, 0, format!("empty {object}"), |w| {
                w.text(1, table).text(2, &chain.name);
            }));
            batch.push(request(chain.table, MSG_DELCHAIN, 0, format!("delete {object}"), |w| {
                w.text(1, table).text(3, &chain.name);
            }));
        }
        batch.extend(chains(table, change.chains));
        batch.extend(elements(table, &change.adding, true));
        self.send(batch)
    }

    /// Whether every chain has as many rules as were planned.
    pub(crate) fn is_whole(&mut self, rulesets: &[Ruleset]) -> Result<bool> {
        for ruleset in rulesets {
            let Some(table) = ruleset.chains.first().map(|chain| chain.table) else { continue };
            let list = request(table, MSG_GETRULE, 0, format!("list rules of {}", ruleset.table), |w| {
                w.text(1, &ruleset.table);
            });
            let answers = match self.socket.dump(&list) {
                Err(error) if error.is_errno(Errno::NOENT) => return Ok(false),
                other => other?,
            };
            let mut missing: BTreeMap<&str, usize> =
                ruleset.chains.iter().map(|chain| (chain.name.as_str(), chain.rules.len())).collect();
            for answer in &answers {
                let (_, bytes) = wire::body(&answer.payload);
                // Old kernels ignore the filter of a dump.
                if wire::text(bytes, 1).as_deref() == Some(&ruleset.table)
                    && let Some(name) = wire::text(bytes, 2)
                    && let Some(left) = missing.get_mut(name.as_str())
                {
                    *left = left.saturating_sub(1);
                }
            }
            if missing.values().any(|left| *left > 0) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes tables; those that are gone already are fine.
    pub(crate) fn uninstall(&mut self, rulesets: &[Ruleset]) -> Result<()> {
        let flags = self.flags;
        self.send(rulesets.iter().flat_map(|ruleset| delete_table(ruleset, flags)).collect())
    }

    /// Applies all the requests or none.
    pub(super) fn send(&mut self, mut requests: Vec<Request>) -> Result<()> {
        if requests.is_empty() {
            return Ok(());
        }
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

fn new_table(ruleset: &Ruleset, flags: u32) -> Option<Request> {
    let table = ruleset.chains.first()?.table;
    let name = ruleset.table.as_str();
    Some(request(table, MSG_NEWTABLE, NLM_F_CREATE, format!("create nftables table {name}"), |w| {
        w.text(1, name).u32(2, flags);
    }))
}

/// A table that is not there cannot be deleted, and would fail the whole: it is made first.
fn delete_table(ruleset: &Ruleset, flags: u32) -> Vec<Request> {
    let (Some(new), Some(chain)) = (new_table(ruleset, flags), ruleset.chains.first()) else {
        return Vec::new();
    };
    let action = format!("delete nftables table {}", ruleset.table);
    let delete = request(chain.table, MSG_DELTABLE, 0, action, |w| {
        w.text(1, &ruleset.table);
    });
    vec![new, delete]
}

fn table_requests(ruleset: &Ruleset, replace: bool, flags: u32) -> Vec<Request> {
    let table = ruleset.table.as_str();
    let mut batch = if replace { delete_table(ruleset, flags) } else { Vec::new() };
    batch.extend(new_table(ruleset, flags));
    for (id, set) in (1u32..).zip(&ruleset.sets) {
        let action = format!("create nftables set {table} {}", set.name);
        batch.push(request(set.table, MSG_NEWSET, NLM_F_CREATE, action, |w| encode::set(w, table, set, id)));
    }
    batch.extend(chains(table, &ruleset.chains));
    batch.extend(elements(table, &ruleset.elements.iter().collect::<Vec<_>>(), true));
    batch
}

/// Chains with their rules, in place of those that they have.
fn chains(table: &str, chains: &[Chain]) -> Vec<Request> {
    let mut batch = Vec::new();
    for chain in chains {
        let object = format!("nftables chain {table} {}", chain.name);
        batch.push(request(chain.table, MSG_NEWCHAIN, NLM_F_CREATE, format!("create {object}"), |w| {
            encode::chain(w, table, chain);
        }));
        batch.push(request(chain.table, MSG_DELRULE, 0, format!("empty {object}"), |w| {
            w.text(1, table).text(2, &chain.name);
        }));
        for rule in &chain.rules {
            let action = format!("add a rule to {object}");
            batch.push(request(chain.table, MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, action, |w| {
                encode::rule(w, table, &chain.name, rule, None, false);
            }));
        }
    }
    batch
}

/// Adds elements to their sets, or removes them.
fn elements(table: &str, elements: &[&Element], add: bool) -> Vec<Request> {
    let mut by_set: BTreeMap<Set, Vec<&Element>> = BTreeMap::new();
    for element in elements {
        by_set.entry(element.set).or_default().push(element);
    }
    let (kind, flags, verb) =
        if add { (MSG_NEWSETELEM, NLM_F_CREATE, "add to") } else { (MSG_DELSETELEM, 0, "remove from") };
    let mut batch = Vec::new();
    for (set, all) in by_set {
        for portion in all.chunks(ELEMENTS_PER_MESSAGE) {
            let action = format!("{verb} nftables set {table} {}", set.name);
            batch.push(request(set.table, kind, flags, action, |w| {
                encode::elements(w, table, &set, portion, add);
            }));
        }
    }
    batch
}

fn request(table: Table, kind: u16, flags: u16, action: String, body: impl FnOnce(&mut Writer)) -> Request {
    let family = match table {
        Table::Inet => FAMILY_INET,
        Table::Bridge => FAMILY_BRIDGE,
    };
    request_in(family, kind, flags, action, body)
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
