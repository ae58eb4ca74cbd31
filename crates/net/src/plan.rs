//! What a network is to look like, as data: links, addresses, routes and the ruleset. Nothing here touches the
//! system, so every decision can be read and tested without privilege.
//!
//! A ruleset prints itself in `nft`'s own notation, which is what `nft list table` shows once it is installed.

use std::fmt;
use std::net::Ipv4Addr;

use crate::addr::Ipv4Net;
use crate::error::{Error, Result};
use crate::{BridgeConfig, Endpoint, PortMap, Transport};

/// The longest name the kernel gives an interface.
const INTERFACE_NAME_MAX: usize = 15;
/// Published ports whose host address does not matter, by protocol and port.
pub(crate) const MAP_ANY: &str = "publish";
/// Published ports of one host address, by address, protocol and port.
pub(crate) const MAP_ADDRESS: &str = "publish-address";

/// The bridge itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BridgePlan {
    pub(crate) name: String,
    pub(crate) address: Ipv4Net,
    pub(crate) mac: [u8; 6],
    pub(crate) mtu: u32,
}

/// One container's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EndpointPlan {
    pub(crate) host_if: String,
    pub(crate) ifname: String,
    pub(crate) mac: [u8; 6],
    pub(crate) mtu: u32,
    pub(crate) address: Ipv4Net,
    pub(crate) gateway: Option<Ipv4Addr>,
    pub(crate) hairpin: bool,
    /// What other ports of the bridge send does not reach it, nor they what it sends.
    pub(crate) isolated: bool,
    pub(crate) elements: Vec<Element>,
}

/// An element of a publish map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) map: &'static str,
    /// Only in [`MAP_ADDRESS`].
    pub(crate) host_ip: Option<Ipv4Addr>,
    pub(crate) transport: Transport,
    pub(crate) host_port: u16,
    pub(crate) ip: Ipv4Addr,
    pub(crate) port: u16,
    /// The host's side of the endpoint; a detach finds its elements by it.
    pub(crate) comment: String,
}

/// A table with its chains and maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ruleset {
    pub(crate) table: String,
    pub(crate) maps: Vec<Map>,
    pub(crate) chains: Vec<Chain>,
}

/// A map from a published port to where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Map {
    pub(crate) name: &'static str,
    /// Whether the host's address is part of the key.
    pub(crate) by_address: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) name: &'static str,
    pub(crate) kind: ChainKind,
    pub(crate) hook: Hook,
    pub(crate) priority: i32,
    pub(crate) rules: Vec<Rule>,
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

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    Input(String),
    InputNot(String),
    Output(String),
    OutputNot(String),
    Source(Ipv4Net),
    Destination(Ipv4Net),
    /// The destination is an address of this host.
    DestinationLocal,
    /// Established or related.
    Established,
    /// Translated to another destination.
    Dnat,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Accept,
    Drop,
    Masquerade,
    /// To where the map says; no element, no change.
    DnatMap(&'static str),
}

/// The name of the host's side of an endpoint: `veth` and ten hex digits of a hash of its id.
pub(crate) fn host_interface(endpoint_id: &str) -> String {
    // FNV-1a: stable between releases, and nobody gains by a collision: an attach fails if the name is taken.
    let hash = endpoint_id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("veth{:010x}", hash >> 24)
}

/// Whether an interface's name is of the form that [`host_interface`] gives.
pub(crate) fn is_host_interface(name: &str) -> bool {
    name.strip_prefix("veth")
        .is_some_and(|hash| hash.len() == 10 && hash.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Refuses a configuration that cannot work, before anything is touched.
pub(crate) fn check_config(config: &BridgeConfig) -> Result<()> {
    check_interface_name(&config.bridge)?;
    let table_ok = config.table.bytes().enumerate().all(|(i, b)| match b {
        b'a'..=b'z' | b'A'..=b'Z' | b'_' => true,
        b'0'..=b'9' | b'-' | b'.' => i > 0,
        _ => false,
    });
    if config.table.is_empty() || config.table.len() > 64 || !table_ok {
        return Err(Error::Invalid(format!("invalid nftables table name {:?}", config.table)));
    }
    if config.subnet.prefix() > 30 {
        return Err(Error::Invalid(format!("subnet {} is too small for a network", config.subnet)));
    }
    check_host_address(config, config.gateway, "gateway")?;
    // 68 is the least an IPv4 link may have.
    if !(68..=65535).contains(&config.mtu) {
        return Err(Error::Invalid(format!("invalid MTU {}: choose one from 68 to 65535", config.mtu)));
    }
    Ok(())
}

fn check_host_address(config: &BridgeConfig, ip: Ipv4Addr, what: &str) -> Result<()> {
    let net = config.subnet;
    if net.contains(ip) && ip != net.network() && ip != net.broadcast() {
        return Ok(());
    }
    Err(Error::Invalid(format!("{what} {ip} is not an address of subnet {net}")))
}

fn check_interface_name(name: &str) -> Result<()> {
    let bad = name.is_empty()
        || name.len() > INTERFACE_NAME_MAX
        || name == "."
        || name == ".."
        || !name.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'"' | b'%' | b'*'));
    if bad { Err(Error::Invalid(format!("invalid interface name {name:?}"))) } else { Ok(()) }
}

pub(crate) fn bridge(config: &BridgeConfig, mac: [u8; 6]) -> Result<BridgePlan> {
    check_config(config)?;
    let address = Ipv4Net::new(config.gateway, config.subnet.prefix())
        .ok_or_else(|| Error::Invalid(format!("invalid subnet {}", config.subnet)))?;
    Ok(BridgePlan { name: config.bridge.clone(), address, mac, mtu: config.mtu })
}

/// `bridged_filtered`: what one port of the bridge sends to another passes the forward chain, too.
pub(crate) fn endpoint(
    config: &BridgeConfig,
    endpoint: &Endpoint,
    bridged_filtered: bool,
) -> Result<EndpointPlan> {
    check_interface_name(&endpoint.ifname)?;
    check_host_address(config, endpoint.ip, "container address")?;
    if endpoint.ip == config.gateway {
        return Err(Error::AddressInUse(endpoint.ip));
    }
    let host_if = host_interface(&endpoint.id);
    let address = Ipv4Net::new(endpoint.ip, config.subnet.prefix())
        .ok_or_else(|| Error::Invalid(format!("invalid subnet {}", config.subnet)))?;
    let elements =
        endpoint.ports.iter().map(|port| element(port, endpoint.ip, &host_if)).collect::<Result<_>>()?;
    Ok(EndpointPlan {
        ifname: endpoint.ifname.clone(),
        mac: endpoint.mac,
        mtu: config.mtu,
        address,
        gateway: Some(config.gateway),
        // The container's own published port then leads back through the port that it came from.
        hairpin: bridged_filtered,
        // Otherwise the chain would never see what containers say to each other.
        isolated: !config.icc && !bridged_filtered,
        elements,
        host_if,
    })
}

fn element(port: &PortMap, ip: Ipv4Addr, host_if: &str) -> Result<Element> {
    if port.host_port == 0 || port.container_port == 0 {
        return Err(Error::Invalid(format!("port 0 cannot be published: reserve a port first ({port:?})")));
    }
    let any = port.host_ip.is_unspecified();
    Ok(Element {
        map: if any { MAP_ANY } else { MAP_ADDRESS },
        host_ip: (!any).then_some(port.host_ip),
        transport: port.transport,
        host_port: port.host_port,
        ip,
        port: port.container_port,
        comment: host_if.to_owned(),
    })
}

/// The table of a network. It holds no endpoint: those are elements of its maps, added and removed one by one.
pub(crate) fn ruleset(config: &BridgeConfig) -> Ruleset {
    Ruleset {
        table: config.table.clone(),
        maps: vec![Map { name: MAP_ANY, by_address: false }, Map { name: MAP_ADDRESS, by_address: true }],
        chains: vec![
            guard(config),
            publish(Hook::Prerouting),
            publish(Hook::Output),
            source(config),
            forward(config),
        ],
    }
}

const LOOPBACK: Ipv4Net = match Ipv4Net::new(Ipv4Addr::new(127, 0, 0, 0), 8) {
    Some(net) => net,
    None => unreachable!(),
};

/// Before anything is translated: nobody on the wire may speak to the host's loopback addresses (a port published
/// there would be open to the LAN, and the bridge is allowed to route them), nor to a container's own address.
fn guard(config: &BridgeConfig) -> Chain {
    let rules = vec![
        rule([Match::InputNot("lo".to_owned()), Match::Destination(LOOPBACK)], Action::Drop),
        rule(
            [Match::InputNot(config.bridge.clone()), Match::Destination(config.subnet.trunc())],
            Action::Drop,
        ),
    ];
    Chain { name: "guard", kind: ChainKind::Filter, hook: Hook::Prerouting, priority: -300, rules }
}

/// Published ports, for what comes from outside or containers (prerouting) and from this host (output).
fn publish(hook: Hook) -> Chain {
    let name = if hook == Hook::Output { "publish-output" } else { "publish-prerouting" };
    let rules =
        [MAP_ADDRESS, MAP_ANY].map(|map| rule([Match::DestinationLocal], Action::DnatMap(map))).to_vec();
    Chain { name, kind: ChainKind::Nat, hook, priority: -100, rules }
}

fn source(config: &BridgeConfig) -> Chain {
    let subnet = config.subnet.trunc();
    let bridge = || config.bridge.clone();
    let mut rules = Vec::new();
    if config.masquerade {
        rules.push(rule([Match::Source(subnet), Match::OutputNot(bridge())], Action::Masquerade));
    }
    rules.extend([
        // From the host's loopback to a published port: the container must have somewhere to answer to.
        rule([Match::Source(LOOPBACK), Match::Output(bridge())], Action::Masquerade),
        // From a container to a published port: else the answer would come from an address it never asked.
        rule([Match::Source(subnet), Match::Output(bridge()), Match::Dnat], Action::Masquerade),
    ]);
    Chain { name: "source", kind: ChainKind::Nat, hook: Hook::Postrouting, priority: 100, rules }
}

fn forward(config: &BridgeConfig) -> Chain {
    let bridge = || config.bridge.clone();
    let mut rules = vec![
        rule([Match::Output(bridge()), Match::Established], Action::Accept),
        rule([Match::Output(bridge()), Match::Dnat], Action::Accept),
    ];
    if config.icc {
        rules.push(rule([Match::Input(bridge()), Match::Output(bridge())], Action::Accept));
    }
    rules.extend([
        rule([Match::Output(bridge())], Action::Drop),
        rule([Match::Input(bridge())], Action::Accept),
    ]);
    Chain { name: "forward", kind: ChainKind::Filter, hook: Hook::Forward, priority: 0, rules }
}

/// The rules that let a network's packets pass another table's forward chain. That chain drops by default; what
/// may really pass is decided by our own forward chain, which sees the packet as well.
pub(crate) fn exceptions(bridge: &str) -> [Rule; 2] {
    [
        rule([Match::Output(bridge.to_owned())], Action::Accept),
        rule([Match::Input(bridge.to_owned())], Action::Accept),
    ]
}

fn rule(matches: impl Into<Vec<Match>>, action: Action) -> Rule {
    Rule { matches: matches.into(), action }
}

impl Hook {
    fn name(self) -> &'static str {
        match self {
            Hook::Prerouting => "prerouting",
            Hook::Forward => "forward",
            Hook::Output => "output",
            Hook::Postrouting => "postrouting",
        }
    }
}

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table ip {} {{", self.table)?;
        for map in &self.maps {
            let address = if map.by_address { "ipv4_addr . " } else { "" };
            writeln!(f, "\tmap {} {{", map.name)?;
            writeln!(f, "\t\ttype {address}inet_proto . inet_service : ipv4_addr . inet_service")?;
            writeln!(f, "\t}}\n")?;
        }
        for (i, chain) in self.chains.iter().enumerate() {
            let blank = if i == 0 { "" } else { "\n" };
            let kind = match chain.kind {
                ChainKind::Filter => "filter",
                ChainKind::Nat => "nat",
            };
            let priority = match (chain.priority, chain.hook) {
                (-300, _) => "raw",
                // At output nft has no name for this one.
                (-100, Hook::Output) => "-100",
                (-100, _) => "dstnat",
                (100, _) => "srcnat",
                _ => "filter",
            };
            writeln!(f, "{blank}\tchain {} {{", chain.name)?;
            writeln!(f, "\t\ttype {kind} hook {} priority {priority}; policy accept;", chain.hook.name())?;
            for rule in &chain.rules {
                writeln!(f, "\t\t{rule}")?;
            }
            writeln!(f, "\t}}")?;
        }
        writeln!(f, "}}")
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for m in &self.matches {
            match m {
                Match::Input(name) => write!(f, "iifname \"{name}\" "),
                Match::InputNot(name) => write!(f, "iifname != \"{name}\" "),
                Match::Output(name) => write!(f, "oifname \"{name}\" "),
                Match::OutputNot(name) => write!(f, "oifname != \"{name}\" "),
                Match::Source(net) => write!(f, "ip saddr {net} "),
                Match::Destination(net) => write!(f, "ip daddr {net} "),
                Match::DestinationLocal => write!(f, "fib daddr type local "),
                Match::Established => write!(f, "ct state established,related "),
                Match::Dnat => write!(f, "ct status dnat "),
            }?;
        }
        match self.action {
            Action::Accept => write!(f, "accept"),
            Action::Drop => write!(f, "drop"),
            Action::Masquerade => write!(f, "masquerade"),
            Action::DnatMap(map) => {
                let address = if map == MAP_ADDRESS { "ip daddr . " } else { "" };
                write!(f, "dnat ip to {address}meta l4proto . th dport map @{map}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> BridgeConfig {
        BridgeConfig {
            bridge: "longshore0".to_owned(),
            subnet: "172.17.0.0/16".parse().unwrap(),
            gateway: Ipv4Addr::new(172, 17, 0, 1),
            mtu: 1500,
            table: BridgeConfig::table_for("longshore0"),
            masquerade: true,
            icc: true,
        }
    }

    fn container(ports: Vec<PortMap>) -> Endpoint {
        let ip = Ipv4Addr::new(172, 17, 0, 2);
        Endpoint { id: "e".to_owned(), ip, mac: crate::mac_for(ip), ifname: "eth0".to_owned(), ports }
    }

    #[test]
    fn the_ruleset_of_a_network() {
        let expected = r#"table ip longshore-longshore0 {
	map publish {
		type inet_proto . inet_service : ipv4_addr . inet_service
	}

	map publish-address {
		type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
	}

	chain guard {
		type filter hook prerouting priority raw; policy accept;
		iifname != "lo" ip daddr 127.0.0.0/8 drop
		iifname != "longshore0" ip daddr 172.17.0.0/16 drop
	}

	chain publish-prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @publish-address
		fib daddr type local dnat ip to meta l4proto . th dport map @publish
	}

	chain publish-output {
		type nat hook output priority -100; policy accept;
		fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @publish-address
		fib daddr type local dnat ip to meta l4proto . th dport map @publish
	}

	chain source {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 172.17.0.0/16 oifname != "longshore0" masquerade
		ip saddr 127.0.0.0/8 oifname "longshore0" masquerade
		ip saddr 172.17.0.0/16 oifname "longshore0" ct status dnat masquerade
	}

	chain forward {
		type filter hook forward priority filter; policy accept;
		oifname "longshore0" ct state established,related accept
		oifname "longshore0" ct status dnat accept
		iifname "longshore0" oifname "longshore0" accept
		oifname "longshore0" drop
		iifname "longshore0" accept
	}
}
"#;
        assert_eq!(config().ruleset(), expected);
        let closed = BridgeConfig { masquerade: false, icc: false, ..config() }.ruleset();
        let without = expected
            .replace("\t\tip saddr 172.17.0.0/16 oifname != \"longshore0\" masquerade\n", "")
            .replace("\t\tiifname \"longshore0\" oifname \"longshore0\" accept\n", "");
        assert_eq!(closed, without);
    }

    #[test]
    fn an_endpoint_is_named_after_its_id() {
        let name = host_interface("e");
        assert!(is_host_interface(&name) && name.len() <= INTERFACE_NAME_MAX, "{name}");
        assert_eq!(name, host_interface("e"));
        assert_ne!(name, host_interface("f"));
        for other in ["veth0", "vethadmin-one", "longshore0", "veth0123456789a"] {
            assert!(!is_host_interface(other), "{other}");
        }
    }

    #[test]
    fn ports_go_to_the_map_that_fits_their_address() {
        let port = |host_ip: [u8; 4], host_port| PortMap {
            transport: Transport::Tcp,
            host_ip: host_ip.into(),
            host_port,
            container_port: 80,
        };
        let ports = vec![port([0, 0, 0, 0], 8080), port([127, 0, 0, 1], 8081)];
        let plan = endpoint(&config(), &container(ports), false).unwrap();
        assert_eq!(plan.address.to_string(), "172.17.0.2/16");
        assert_eq!(plan.elements[0].map, MAP_ANY);
        assert_eq!(
            (plan.elements[1].map, plan.elements[1].host_ip),
            (MAP_ADDRESS, Some([127, 0, 0, 1].into()))
        );
        assert!(plan.elements.iter().all(|e| e.comment == plan.host_if));
        assert!(endpoint(&config(), &container(vec![port([0, 0, 0, 0], 0)]), false).is_err());
        for (icc, filtered, isolated) in [(true, false, false), (false, true, false), (false, false, true)] {
            let plan = endpoint(&BridgeConfig { icc, ..config() }, &container(Vec::new()), filtered).unwrap();
            assert_eq!((plan.isolated, plan.hairpin), (isolated, filtered));
        }
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        let changes: [fn(&mut BridgeConfig); 9] = [
            |c| c.bridge = String::new(),
            |c| c.bridge = "sixteen-letters-".to_owned(),
            |c| c.bridge = "a/b".to_owned(),
            |c| c.bridge = "a\"b".to_owned(),
            |c| c.table = "1; flush ruleset".to_owned(),
            |c| c.subnet = "10.0.0.0/31".parse().unwrap(),
            |c| c.gateway = Ipv4Addr::new(10, 0, 0, 1),
            |c| c.gateway = Ipv4Addr::new(172, 17, 255, 255),
            |c| c.mtu = 10,
        ];
        assert!(check_config(&config()).is_ok());
        for change in changes {
            let mut wrong = config();
            change(&mut wrong);
            assert!(matches!(check_config(&wrong), Err(Error::Invalid(_))), "{wrong:?}");
        }
        let named = Endpoint { ifname: "../eth0".to_owned(), ..container(Vec::new()) };
        assert!(endpoint(&config(), &named, false).is_err());
        let gateway = Endpoint { ip: config().gateway, ..container(Vec::new()) };
        assert!(matches!(endpoint(&config(), &gateway, false), Err(Error::AddressInUse(_))));
    }
}
