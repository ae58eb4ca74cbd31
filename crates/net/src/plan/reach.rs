//! Which rule lets somebody in, for people who ask: read off the same plan that the kernel is given.

use super::rules::{Action, Data, Match, rule};
use super::{chain_name, network_rules, published};
use crate::{BridgeConfig, Endpoint, PortMap};

/// A part of the table of an engine that lets somebody in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it is.
    pub kind: RuleKind,
    /// Its name in the table.
    pub name: String,
}

/// What lets somebody in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleKind {
    /// It leads an address of the host's to a container.
    Map,
    /// It has the container's own address, which is open.
    Set,
    /// It accepts, whatever the port.
    Chain,
}

impl BridgeConfig {
    /// What leads a port of an endpoint's to it. None, if no rule does: for one that cannot be published, and for the
    /// host's IPv6 loopback, whose packets are not looked up.
    pub fn rule_for(&self, endpoint: &Endpoint, port: &PortMap) -> Option<Rule> {
        let set = published(self, port, endpoint, "").ok()?.first()?.set;
        let kind = if set.data == Data::Nothing { RuleKind::Set } else { RuleKind::Map };
        let unseen = kind == RuleKind::Map && port.host_ip.is_ipv6() && port.host_ip.is_loopback();
        (!unseen).then(|| Rule { kind, name: set.name.to_owned() })
    }

    /// What lets everybody who has a route to the containers reach all their ports by a family.
    pub fn rule_for_routes(&self, ipv6: bool) -> Option<Rule> {
        let (name, open) =
            (chain_name("enter", &self.bridge), rule([Match::Family { ipv6 }], Action::Accept));
        let chains = network_rules(self).chains;
        let opens = chains.iter().any(|chain| chain.name == name && chain.rules.contains(&open));
        opens.then_some(Rule { kind: RuleKind::Chain, name })
    }
}
