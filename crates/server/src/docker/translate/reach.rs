//! Who can reach what.

use longshore_api::reach as api;
use longshore_engine::model;

/// A row of `GET /longshore/ports`.
pub(crate) fn way(way: model::WayIn) -> api::WayIn {
    let span = |first, last| api::Span { first, last };
    let (first, last) = way.at;
    api::WayIn {
        container: way.container,
        name: way.name,
        address_ports: way.ports.as_ref().map(|_| span(first, last)),
        ports: way.ports.as_ref().map(|ports| span(ports.first, ports.last)),
        transport: way.ports.map(|ports| ports.transport).unwrap_or_default(),
        address: way.address.map(|ip| ip.to_string()).unwrap_or_default(),
        who: way.who.into_iter().map(who).collect(),
        through: through(way.through),
        gates: way.gates.into_iter().map(gate).collect(),
    }
}

fn who(who: model::Who) -> api::Who {
    use model::Who;
    let scope = |scope: &str| api::Who { scope: scope.to_owned(), ..api::Who::default() };
    match who {
        Who::Everybody => scope("everybody"),
        Who::Address(ip) => api::Who { address: ip.to_string(), ..scope("address") },
        Who::Host => scope("host"),
        Who::Network(network) => api::Who { network, ..scope("network") },
        Who::Route(subnet) => api::Who { subnet, ..scope("route") },
        Who::Daemon => scope("daemon"),
    }
}

fn through(through: model::Through) -> api::Through {
    use model::Through;
    let nothing = api::Through::default();
    match through {
        Through::Rule { kind, name, table } => {
            let rule = api::Rule { family: "inet".to_owned(), table, kind: kind.to_owned(), name };
            api::Through { rule: Some(rule), ..nothing }
        }
        Through::Listener => api::Through { listener: true, ..nothing },
        Through::Bridge(bridge) => api::Through { bridge, ..nothing },
        Through::Parent(parent) => api::Through { parent, ..nothing },
        Through::HostNetwork => api::Through { host_network: true, ..nothing },
    }
}

fn gate(gate: model::Gate) -> api::Gate {
    let (family, kind) = (gate.family.to_owned(), "chain".to_owned());
    api::Gate { chain: api::Rule { family, table: gate.table, kind, name: gate.chain }, open: gate.open }
}
