//! Forward chains of other tables that drop by default (Docker's, ufw's): a packet must pass every table, so our own
//! accept does not help there. We add two rules at their head, marked by the name of the bridge, and take them back later.

use rustix::io::Errno;

use super::table::{Nft, request_in};
use super::wire;
use super::{
    FAMILY_INET, FAMILY_IPV4, FAMILY_IPV6, MSG_DELRULE, MSG_GETCHAIN, MSG_GETRULE, MSG_NEWRULE, NLM_F_CREATE,
    comment_text, encode,
};
use crate::error::{Error, Result};
use crate::plan::{chain_name, exceptions};

const HOOK_FORWARD: u32 = 2;
const POLICY_DROP: u32 = 0;
/// Its forward chains reject by a last rule, not by policy.
const FIREWALLD: &str = "firewalld";
/// Docker leaves the rules of this chain alone, and rewrites the others.
const DOCKER_USER: &str = "DOCKER-USER";

#[derive(Clone, Debug, PartialEq, Eq)]
struct ForeignChain {
    family: u8,
    table: String,
    name: String,
    /// Hooked at forward.
    forwards: bool,
    /// And nothing passes it that is not allowed there.
    drops: bool,
}

/// A forward chain of another table, which drops what it does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    /// The table's family: `ip`, `ip6`, or `inet` for both.
    pub family: &'static str,
    /// The table.
    pub table: String,
    /// The chain that has our exceptions, or should have them.
    pub chain: String,
    /// They are there.
    pub open: bool,
}

impl ForeignChain {
    fn blocks(&self, bridge: &str, source: Error) -> Error {
        // The table has an owner: what it lets through is that program's business alone.
        let owned = source.is_errno(Errno::PERM);
        let reason = match owned {
            true => "another program keeps the table to itself, and has to be told to forward what comes from the bridge \
                     and what goes there"
                .to_owned(),
            false => source.to_string(),
        };
        Error::ForeignChain {
            family: family_name(self.family),
            table: self.table.clone(),
            chain: self.name.clone(),
            bridge: bridge.to_owned(),
            reason,
            of_firewalld: owned && self.table == FIREWALLD,
        }
    }
}

impl Nft {
    /// What packets for a bridge's containers have to pass besides our own chains.
    pub(crate) fn gates(&mut self, bridge: &str) -> Result<Vec<Gate>> {
        let (wanted, mark) = (exceptions(bridge).len(), mark(bridge));
        let chains = self.chains()?;
        let gate = |chain: &ForeignChain| {
            Ok(Gate {
                family: family_name(chain.family),
                table: chain.table.clone(),
                chain: chain.name.clone(),
                open: self.our_rules(chain, &mark)?.len() == wanted,
            })
        };
        places(&chains).map(gate).collect()
    }

    /// Adds our exceptions wherever another forward chain drops; once only, however often it is called.
    ///
    /// # Errors
    /// The first place where none could be added; those that could be are.
    pub(crate) fn except(&mut self, bridge: &str) -> Result<()> {
        let chains = self.chains()?;
        let mut failure = None;
        for chain in places(&chains) {
            let Err(source) = self.except_in(chain, bridge) else { continue };
            // Gone since it was listed: it is in nobody's way.
            if source.is_errno(Errno::NOENT) {
                continue;
            }
            failure.get_or_insert_with(|| chain.blocks(bridge, source));
        }
        failure.map_or(Ok(()), Err)
    }

    /// Takes back what `except` added, in every table.
    pub(crate) fn unexcept(&mut self, bridge: &str) -> Result<()> {
        let (mut batch, mark) = (Vec::new(), mark(bridge));
        for chain in self.chains()?.iter().filter(|c| c.forwards || c.name == DOCKER_USER) {
            for handle in self.our_rules(chain, &mark)? {
                let action = format!("delete a rule of {} {}", chain.table, chain.name);
                batch.push(request_in(chain.family, MSG_DELRULE, 0, action, |w| {
                    w.text(1, &chain.table).text(2, &chain.name).u64(3, handle);
                }));
            }
        }
        self.send(batch)
    }

    fn except_in(&mut self, chain: &ForeignChain, bridge: &str) -> Result<()> {
        let (rules, mark) = (exceptions(bridge), mark(bridge));
        let present = self.our_rules(chain, &mark)?;
        if present.len() == rules.len() {
            return Ok(());
        }
        let mut batch = Vec::new();
        for handle in present {
            let action = format!("delete a rule of {} {}", chain.table, chain.name);
            batch.push(request_in(chain.family, MSG_DELRULE, 0, action, |w| {
                w.text(1, &chain.table).text(2, &chain.name).u64(3, handle);
            }));
        }
        for rule in &rules {
            let action = format!("add a rule to {} {}", chain.table, chain.name);
            batch.push(request_in(chain.family, MSG_NEWRULE, NLM_F_CREATE, action, |w| {
                // With a counter it is the very shape that iptables gives a rule, and it can still list its table.
                encode::rule(w, &chain.table, &chain.name, rule, Some(&mark), true);
            }));
        }
        self.send(batch)
    }

    /// Every chain that matters here, of other tables than ours.
    fn chains(&mut self) -> Result<Vec<ForeignChain>> {
        let mut found = Vec::new();
        for family in [FAMILY_IPV4, FAMILY_IPV6, FAMILY_INET] {
            let list = request_in(family, MSG_GETCHAIN, 0, "list nftables chains".to_owned(), |_| {});
            let answers = match self.socket.dump(&list) {
                // A kernel without this family has no chains in it.
                Err(error) if error.is_errno(Errno::OPNOTSUPP) || error.is_errno(Errno::AFNOSUPPORT) => {
                    continue;
                }
                other => other?,
            };
            for answer in &answers {
                let (family, bytes) = wire::body(&answer.payload);
                let (Some(table), Some(name)) = (wire::text(bytes, 1), wire::text(bytes, 3)) else {
                    continue;
                };
                let hook = wire::attribute(bytes, 4).and_then(|hook| wire::u32(hook, 1));
                let forwards = hook == Some(HOOK_FORWARD);
                let drops = forwards && (table == FIREWALLD || wire::u32(bytes, 5) == Some(POLICY_DROP));
                if table != self.table {
                    found.push(ForeignChain { family, table, name, forwards, drops });
                }
            }
        }
        Ok(found)
    }

    /// The handles of the rules that carry our mark.
    fn our_rules(&mut self, chain: &ForeignChain, mark: &str) -> Result<Vec<u64>> {
        let action = format!("list rules of {} {}", chain.table, chain.name);
        let list = request_in(chain.family, MSG_GETRULE, 0, action, |w| {
            w.text(1, &chain.table).text(2, &chain.name);
        });
        let mut handles = Vec::new();
        for answer in self.socket.dump(&list)? {
            let (_, bytes) = wire::body(&answer.payload);
            // Old kernels ignore the filter of a dump.
            let here = wire::text(bytes, 1).as_deref() == Some(&chain.table)
                && wire::text(bytes, 2).as_deref() == Some(&chain.name);
            if here && wire::attribute(bytes, 7).and_then(comment_text) == Some(mark) {
                handles.extend(wire::u64(bytes, 3));
            }
        }
        Ok(handles)
    }
}

/// The comment by which our rules in others' chains are found again.
fn mark(bridge: &str) -> String {
    chain_name("longshore", bridge)
}

/// Where an exception goes: the dropping chain itself, or Docker's own place for such rules beside it.
fn places(chains: &[ForeignChain]) -> impl Iterator<Item = &ForeignChain> {
    chains.iter().filter(|c| c.drops).map(|dropping| {
        chains
            .iter()
            .find(|c| c.name == DOCKER_USER && c.table == dropping.table && c.family == dropping.family)
            .unwrap_or(dropping)
    })
}

fn family_name(family: u8) -> &'static str {
    match family {
        FAMILY_INET => "inet",
        FAMILY_IPV6 => "ip6",
        _ => "ip",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(table: &str, name: &str, drops: bool) -> ForeignChain {
        ForeignChain {
            family: FAMILY_IPV4,
            table: table.to_owned(),
            name: name.to_owned(),
            forwards: drops,
            drops,
        }
    }

    #[test]
    fn exceptions_go_where_docker_leaves_them_alone() {
        let chains = [
            chain("filter", "FORWARD", true),
            chain("filter", DOCKER_USER, false),
            chain("other", "fwd", true),
            chain("third", "fwd", false),
        ];
        let found: Vec<_> = places(&chains).map(|c| (c.table.as_str(), c.name.as_str())).collect();
        assert_eq!(found, [("filter", DOCKER_USER), ("other", "fwd")]);
    }
}
