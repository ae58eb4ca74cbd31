//! The rules of all networks of an engine: what they are to be, kept in the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::BridgeConfig;
use crate::error::{Error, Result};
use crate::nft::{Change, Gate, News, Nft, firewalld};
use crate::plan::rules::{Element, Table};
use crate::plan::{self, Rules, Ruleset};

/// How many repairs of the ruleset follow each other at once, and the pause between them after that.
const FAST_REPAIRS: u32 = 10;
const SLOW_REPAIR: Duration = Duration::from_secs(1);

/// The tables of an engine: one for what is routed and, where the kernel has nf_tables for bridges, one of the same name for
/// what passes between the ports of a bridge. It knows what they are to hold, so that each change is one small
/// transaction, and a table that somebody has taken away is put back whole in one.
///
/// It belongs to the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Firewall {
    table: String,
    state: Mutex<State>,
}

/// Who may change the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Nobody else, where the kernel can see to that (from Linux 6.9 on): not even `nft flush ruleset`, with which a reload of
    /// the host's firewall often begins, takes them away. When this is gone they stay, for the next to take over.
    Ours,
    /// Everybody, as on older kernels: what is taken away is put back.
    Shared,
}

#[derive(Debug)]
struct State {
    nft: Nft,
    wanted: Wanted,
    /// The tables are there: from the first network to the last.
    installed: bool,
    /// The bridges for which a table of others lets nothing through, and why.
    blocked: BTreeMap<String, String>,
    /// The bridges that firewalld has in its zone of those that it trusts.
    trusted: BTreeSet<String>,
}

/// What is to be there.
#[derive(Clone, Debug)]
struct Wanted {
    base: Vec<Ruleset>,
    /// By bridge.
    networks: BTreeMap<String, Rules>,
    /// What containers add, by the host's side of their endpoint.
    owned: BTreeMap<String, Vec<Element>>,
}

impl Firewall {
    /// With the first network the tables are made, or those of that name taken over; what leads to containers stays in them
    /// until [`Firewall::settle_endpoints`]: at no moment is a published port closed or a rule missing.
    ///
    /// # Errors
    /// If the name is none of a table, or the kernel has no nf_tables.
    pub fn open(table: &str, ownership: Ownership) -> Result<Arc<Self>> {
        check_table_name(table)?;
        let base = vec![plan::base(table), plan::guests(table)];
        let wanted = Wanted { base, networks: BTreeMap::new(), owned: BTreeMap::new() };
        let state = State {
            nft: Nft::open(table, ownership == Ownership::Ours)?,
            wanted,
            installed: false,
            blocked: BTreeMap::new(),
            trusted: BTreeSet::new(),
        };
        Ok(Arc::new(Self { table: table.to_owned(), state: Mutex::new(state) }))
    }

    /// The name of its tables.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// What packets for a bridge's containers have to pass besides these tables: chains of others that drop by default.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn gates(&self, bridge: &str) -> Result<Vec<Gate>> {
        lock(&self.state).nft.gates(bridge)
    }

    /// Everything that is to be there, in `nft`'s notation.
    pub fn ruleset(&self) -> String {
        let state = lock(&self.state);
        state.wanted.rulesets().iter().map(Ruleset::to_string).collect::<Vec<_>>().join("\n")
    }

    /// Keeps the rules in place from now on, as long as this is in use: whatever another program takes away (a
    /// reload of the host's firewall starts with that) is put back at once, and a forward chain that drops gets its
    /// exceptions when it appears.
    ///
    /// # Errors
    /// If the kernel does not tell of changes.
    pub fn keep(self: &Arc<Self>) -> Result<()> {
        let mut news = News::open()?;
        let firewall = Arc::downgrade(self);
        let keep = move || {
            let mut repairs = 0u32;
            loop {
                let heard = news.wait();
                let Some(firewall) = firewall.upgrade() else { return };
                match heard {
                    Ok(true) if firewall.repair() => {
                        repairs += 1;
                        // Against a program that takes them away for ever, there is no hurry.
                        if repairs > FAST_REPAIRS {
                            drop(firewall);
                            std::thread::sleep(SLOW_REPAIR);
                        }
                    }
                    Ok(true) => repairs = 0,
                    Ok(false) => {
                        repairs = 0;
                        firewall.try_again();
                    }
                    Err(error) => {
                        tracing::warn!(%error, "changes of the host's firewall are not noticed any more");
                        return;
                    }
                }
            }
        };
        let spawned = std::thread::Builder::new().name("firewall".to_owned()).spawn(keep);
        spawned.map_err(|e| Error::system("start a thread", e))?;
        Ok(())
    }

    /// Puts back what is missing; whether something was.
    fn repair(&self) -> bool {
        let (repaired, bridges) = {
            let mut state = lock(&self.state);
            (state.repair(), state.bridges())
        };
        self.let_through_all(&bridges);
        match repaired {
            Ok(true) => {
                tracing::info!(table = self.table, "put back rules that had been removed");
                true
            }
            Ok(false) => false,
            Err(error) => {
                tracing::warn!(%error, "could not put the networks' rules back");
                true
            }
        }
    }

    /// Has the tables of others let a bridge through, by an exception in them or by firewalld's own means.
    ///
    /// # Errors
    /// If one does not: why, and what can be done.
    fn let_through(&self, bridge: &str) -> Result<()> {
        let excepted = lock(&self.state).nft.except(bridge);
        let mut trusted = false;
        let done = match excepted {
            // It may take its time over the answer, and others need not wait for that.
            Err(Error::ForeignChain { family, table, chain, bridge, of_firewalld: true, .. }) => {
                firewalld::trust(&bridge).map(|is_trusted| trusted = is_trusted).map_err(|reason| {
                    Error::ForeignChain { family, table, chain, bridge, reason, of_firewalld: true }
                })
            }
            other => other,
        };
        let mut state = lock(&self.state);
        if !state.wanted.networks.contains_key(bridge) {
            drop(state);
            if trusted {
                firewalld::forget(bridge);
            }
            return done;
        }
        if trusted {
            state.trusted.insert(bridge.to_owned());
        }
        let why = done.as_ref().err().map(Error::to_string);
        let before = match &why {
            Some(why) => state.blocked.insert(bridge.to_owned(), why.clone()),
            None => state.blocked.remove(bridge),
        };
        match why {
            Some(why) if before.as_ref() != Some(&why) => {
                tracing::warn!("the host's firewall is in the way: {why}");
            }
            None if before.is_some() => {
                tracing::info!(bridge, "the host's firewall is not in the way any more")
            }
            _ => {}
        }
        done
    }

    /// The same for bridges of which each failure is told of in the log.
    fn let_through_all(&self, bridges: &[String]) {
        for bridge in bridges {
            let _ = self.let_through(bridge);
        }
    }

    /// What was in the way may not be any more, which not everybody tells.
    fn try_again(&self) {
        let blocked: Vec<String> = lock(&self.state).blocked.keys().cloned().collect();
        self.let_through_all(&blocked);
    }

    /// Before ports are published to a container of a bridge; `from_outside`: not only those of the host's loopback.
    ///
    /// # Errors
    /// If another table drops what would come there: which, and what can be done.
    pub(crate) fn check_way(&self, bridge: &str, from_outside: bool) -> Result<()> {
        let blocked = lock(&self.state).blocked.contains_key(bridge);
        match if blocked { self.let_through(bridge) } else { Ok(()) } {
            // What the host alone reaches is not forwarded; but firewalld, when strict, refuses all that is translated.
            Err(Error::ForeignChain { of_firewalld: false, .. }) if !from_outside => Ok(()),
            other => other,
        }
    }

    /// Everything that is not of the networks opened with this and of `owned` goes, and what of it is missing comes back.
    pub(crate) fn settle(&self, owned: BTreeMap<String, Vec<Element>>) -> Result<()> {
        let mut state = lock(&self.state);
        state.wanted.owned = owned;
        if !state.installed {
            return Ok(());
        }
        state.rebuild()?;
        let bridges = state.bridges();
        drop(state);
        self.let_through_all(&bridges);
        Ok(())
    }

    /// A network's rules, and its exceptions in the tables of others. Where there can be none, ports of its containers are
    /// not published ([`Firewall::check_way`]); all else works.
    pub(crate) fn add_network(&self, config: &BridgeConfig) -> Result<()> {
        let new = plan::network_rules(config);
        let mut state = lock(&self.state);
        let known = |(bridge, rules): (&String, &Rules)| {
            *bridge != config.bridge
                && new.chains.iter().any(|c| rules.chains.iter().any(|o| o.name == c.name))
        };
        if state.wanted.networks.iter().any(known) {
            let text = format!("bridge {} is too much like another: choose another name", config.bridge);
            return Err(Error::Conflict(text));
        }
        state.install()?;
        let change = Change::new().with_chains(&new.chains).adding(&new.elements);
        let before = state.wanted.networks.insert(config.bridge.clone(), new.clone());
        if let Err(error) = state.apply(change) {
            match before {
                Some(before) => drop(state.wanted.networks.insert(config.bridge.clone(), before)),
                None => drop(state.remove_network(&config.bridge)),
            }
            return Err(error);
        }
        drop(state);
        let _ = self.let_through(&config.bridge);
        Ok(())
    }

    /// Takes a network's rules away; with the last network, the tables.
    pub(crate) fn remove_network(&self, bridge: &str) -> Result<()> {
        let mut state = lock(&self.state);
        let removed = state.remove_network(bridge);
        let trusted = state.trusted.remove(bridge);
        drop(state);
        if trusted {
            firewalld::forget(bridge);
        }
        removed
    }

    /// Endpoints have these elements from now on, in place of those that they had.
    pub(crate) fn set(&self, owners: Vec<(String, Vec<Element>)>) -> Result<()> {
        let mut state = lock(&self.state);
        let bridged = state.wanted.has_bridge_table();
        let (mut stale, mut new, mut before) = (Vec::new(), Vec::new(), Vec::new());
        for (owner, mut elements) in owners {
            elements.retain(|element| bridged || element.set.table != Table::Bridge);
            let old = state.wanted.owned.get(&owner).cloned().unwrap_or_default();
            let (had, has): (BTreeSet<_>, BTreeSet<_>) = (old.iter().collect(), elements.iter().collect());
            stale.extend(had.difference(&has).map(|element| (*element).clone()));
            new.extend(has.difference(&had).map(|element| (*element).clone()));
            state.wanted.own(&owner, elements);
            before.push((owner, old));
        }
        if stale.is_empty() && new.is_empty() {
            return Ok(());
        }
        if let Err(error) = state.apply(Change::new().removing(&stale).adding(&new)) {
            before.into_iter().for_each(|(owner, old)| state.wanted.own(&owner, old));
            return Err(error);
        }
        let moved: Vec<&Element> = stale.iter().chain(&new).collect();
        if let Err(error) = state.nft.forget_flows(&moved) {
            // Some kernels cannot list flows. New ones are right, old ones end by themselves.
            tracing::debug!(%error, "kept tracked connections of changed ports");
        }
        Ok(())
    }
}

impl State {
    fn install(&mut self) -> Result<()> {
        if self.installed {
            return Ok(());
        }
        for (n, ruleset) in self.wanted.base.clone().iter().enumerate() {
            match self.nft.install(ruleset, false) {
                Ok(()) => {}
                // Not every kernel has tables for bridges.
                Err(error) if n > 0 => {
                    tracing::warn!(%error, "containers may claim each other's addresses on their bridge");
                    self.wanted.base.truncate(n);
                }
                Err(error) => return Err(error),
            }
        }
        self.installed = true;
        Ok(())
    }

    /// Makes a change. Where the tables are not what they are thought to be, they are made anew, change included.
    fn apply(&mut self, change: Change) -> Result<()> {
        match self.nft.commit(change) {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::debug!(%error, "making the tables anew");
                self.rebuild()
            }
        }
    }

    /// The tables become what they are to be, whatever they are now, in one transaction.
    fn rebuild(&mut self) -> Result<()> {
        self.nft.replace(&self.wanted.rulesets())
    }

    fn repair(&mut self) -> Result<bool> {
        if !self.installed {
            return Ok(false);
        }
        let lost = !self.nft.is_whole(&self.wanted.rulesets())?;
        if lost {
            self.rebuild()?;
        }
        Ok(lost)
    }

    fn bridges(&self) -> Vec<String> {
        self.wanted.networks.keys().cloned().collect()
    }

    fn remove_network(&mut self, bridge: &str) -> Result<()> {
        let Some(rules) = self.wanted.networks.remove(bridge) else { return Ok(()) };
        self.blocked.remove(bridge);
        let exceptions = self.nft.unexcept(bridge);
        let gone = match self.wanted.networks.is_empty() {
            true => {
                self.installed = false;
                self.nft.uninstall(&self.wanted.base)
            }
            false => self.apply(Change::new().removing(&rules.elements).without_chains(&rules.chains)),
        };
        exceptions.and(gone)
    }
}

impl Wanted {
    fn own(&mut self, owner: &str, elements: Vec<Element>) {
        match elements.is_empty() {
            true => drop(self.owned.remove(owner)),
            false => drop(self.owned.insert(owner.to_owned(), elements)),
        }
    }

    fn has_bridge_table(&self) -> bool {
        self.base.iter().any(|ruleset| ruleset.chains.iter().any(|chain| chain.table == Table::Bridge))
    }

    /// The tables, whole.
    fn rulesets(&self) -> Vec<Ruleset> {
        let mut all = self.base.clone();
        for ruleset in &mut all {
            let table = ruleset.chains.first().map(|chain| chain.table);
            let of_networks = || self.networks.values();
            let chains = of_networks().flat_map(|rules| &rules.chains);
            ruleset.chains.extend(chains.filter(|chain| Some(chain.table) == table).cloned());
            let elements = of_networks().flat_map(|rules| &rules.elements);
            let elements = elements.chain(self.owned.values().flatten());
            ruleset.elements.extend(elements.filter(|e| Some(e.set.table) == table).cloned());
        }
        all
    }
}

/// # Errors
/// For a name that `nft` could not read.
fn check_table_name(name: &str) -> Result<()> {
    let ok = name.bytes().enumerate().all(|(i, b)| match b {
        b'a'..=b'z' | b'A'..=b'Z' | b'_' => true,
        b'0'..=b'9' | b'-' | b'.' => i > 0,
        _ => false,
    });
    match name.is_empty() || name.len() > 64 || !ok {
        true => Err(Error::Invalid(format!("invalid nftables table name {name:?}"))),
        false => Ok(()),
    }
}

/// A thread that panicked left no half-made message behind: every request is whole before it is sent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tables() {
        assert!(check_table_name("longshore").is_ok() && check_table_name("longshore-0a1b2c3d").is_ok());
        for bad in ["", "1; flush ruleset", "-x", &"x".repeat(65)] {
            assert!(check_table_name(bad).is_err(), "{bad}");
        }
    }
}
