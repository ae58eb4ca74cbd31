//! What a network is to look like, as data: links, addresses, routes and the ruleset. Nothing here touches the
//! system, so every decision can be read and tested without privilege.
//!
//! A ruleset prints itself in `nft`'s own notation, which is what `nft list table` shows once it is installed.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::addr::same_family;
use crate::error::{Error, Result};
use crate::{BridgeConfig, Endpoint, InterfaceSysctl, PortMap, Transport};

/// The longest name the kernel gives an interface.
const INTERFACE_NAME_MAX: usize = 15;

/// The maps of published ports, in the order in which they are asked: those of one host address, then those for which the
/// address does not matter; of IPv4 and of IPv6.
pub(crate) const MAPS: [Map; 4] = [
    Map { name: "publish-address", by_address: true, ipv6: false },
    Map { name: "publish", by_address: false, ipv6: false },
    Map { name: "publish6-address", by_address: true, ipv6: true },
    Map { name: "publish6", by_address: false, ipv6: true },
];

/// The bridge itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BridgePlan {
    pub(crate) name: String,
    pub(crate) addresses: Vec<IpNet>,
    pub(crate) mac: [u8; 6],
    pub(crate) mtu: u32,
}

/// One container's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EndpointPlan {
    pub(crate) host_if: String,
    pub(crate) ifname: String,
    /// Files below /proc/sys/net, and what is written into them.
    pub(crate) sysctls: Vec<(String, String)>,
    pub(crate) mac: [u8; 6],
    pub(crate) mtu: u32,
    pub(crate) addresses: Vec<IpNet>,
    /// By which it reaches what is elsewhere.
    pub(crate) gateways: Vec<IpAddr>,
    pub(crate) hairpin: bool,
    /// What other ports of the bridge send does not reach it, nor they what it sends.
    pub(crate) isolated: bool,
    pub(crate) elements: Vec<Element>,
}

/// An element of a publish map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) map: Map,
    /// Where the map has host addresses.
    pub(crate) host_ip: Option<IpAddr>,
    pub(crate) transport: Transport,
    pub(crate) host_port: u16,
    pub(crate) ip: IpAddr,
    pub(crate) port: u16,
    /// The host's side of the endpoint; a detach finds its elements by it.
    pub(crate) comment: String,
}

/// A table with its chains and maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ruleset {
    pub(crate) table: String,
    pub(crate) maps: &'static [Map],
    pub(crate) chains: Vec<Chain>,
}

/// A map from a published port to where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Map {
    pub(crate) name: &'static str,
    /// Whether the host's address is part of the key.
    pub(crate) by_address: bool,
    pub(crate) ipv6: bool,
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
    Source(IpNet),
    Destination(IpNet),
    /// A packet of IPv6, or one of IPv4.
    Family {
        ipv6: bool,
    },
    DestinationPort(Transport, u16),
    /// The destination is an address of this host.
    DestinationLocal,
    /// The destination is not the host's IPv6 loopback: from there the kernel lets no packet out.
    NotLoopback6,
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
    DnatMap(Map),
    Dnat(Ipv4Addr, u16),
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
    let families: Vec<bool> = config.subnets.iter().map(|subnet| subnet.gateway.is_ipv6()).collect();
    if !matches!(families.as_slice(), [_] | [true, false] | [false, true]) {
        return Err(Error::Invalid("a network needs a subnet, and one of each family at most".to_owned()));
    }
    for subnet in &config.subnets {
        crate::first_address(&subnet.net)?;
        check_host_address(&subnet.net, subnet.gateway, "gateway")?;
    }
    // The least that a link of IPv4 (RFC 791), and of IPv6 (RFC 8200, 5) may have.
    let least = if config.subnet(true).is_some() { 1280 } else { 68 };
    if !(least..=65535).contains(&config.mtu) {
        return Err(Error::Invalid(format!("invalid MTU {}: choose one from {least} to 65535", config.mtu)));
    }
    Ok(())
}

fn check_host_address(net: &IpNet, ip: IpAddr, what: &str) -> Result<()> {
    let edge = ip == net.network() || (ip.is_ipv4() && ip == net.broadcast());
    if net.contains(&ip) && !edge {
        return Ok(());
    }
    Err(Error::Invalid(format!("{what} {ip} is not an address of subnet {net}")))
}

/// An address with the prefix length of its subnet.
fn within(config: &BridgeConfig, ip: IpAddr, what: &str) -> Result<IpNet> {
    let subnet = config.subnet(ip.is_ipv6());
    let subnet =
        subnet.ok_or_else(|| Error::Invalid(format!("{what} {ip}: the network has no such family")))?;
    check_host_address(&subnet.net, ip, what)?;
    IpNet::new(ip, subnet.net.prefix_len()).map_err(|e| Error::Invalid(format!("{what} {ip}: {e}")))
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
    let addresses = config.subnets.iter().map(|subnet| within(config, subnet.gateway, "gateway"));
    let addresses = addresses.collect::<Result<_>>()?;
    Ok(BridgePlan { name: config.bridge.clone(), addresses, mac, mtu: config.mtu })
}

/// `bridged_filtered`: what one port of the bridge sends to another passes the forward chain, too.
pub(crate) fn endpoint(
    config: &BridgeConfig,
    endpoint: &Endpoint,
    bridged_filtered: bool,
) -> Result<EndpointPlan> {
    check_interface_name(&endpoint.ifname)?;
    let addresses = endpoint.addresses.iter().map(|ip| within(config, *ip, "container address"));
    let addresses: Vec<IpNet> = addresses.collect::<Result<_>>()?;
    if let Some(taken) = endpoint.addresses.iter().find(|ip| config.subnets.iter().any(|s| s.gateway == **ip))
    {
        return Err(Error::AddressInUse(*taken));
    }
    let host_if = host_interface(&endpoint.id);
    let elements =
        endpoint.ports.iter().map(|port| element(port, endpoint, &host_if)).collect::<Result<_>>()?;
    let routed = |gateway: &IpAddr| match gateway {
        IpAddr::V4(_) => endpoint.default_route.ipv4,
        IpAddr::V6(_) => endpoint.default_route.ipv6,
    };
    // Without an address of the family a route says nothing.
    let used = |gateway: &IpAddr| endpoint.addresses.iter().any(|ip| same_family(ip, gateway));
    let gateways = config.subnets.iter().map(|subnet| subnet.gateway).filter(|_| !config.internal);
    let gateways = gateways.filter(|gateway| routed(gateway) && used(gateway)).collect();
    let of_ours = |s: &InterfaceSysctl| (s.path(&endpoint.ifname), s.value().to_owned());
    let sysctls = endpoint.sysctls.iter().map(of_ours);
    Ok(EndpointPlan {
        ifname: endpoint.ifname.clone(),
        sysctls: sysctls.collect(),
        mac: endpoint.mac,
        mtu: config.mtu,
        addresses,
        gateways,
        // The container's own published port then leads back through the port that it came from.
        hairpin: bridged_filtered,
        // Otherwise the chain would never see what containers say to each other.
        isolated: !config.icc && !bridged_filtered,
        elements,
        host_if,
    })
}

fn element(port: &PortMap, endpoint: &Endpoint, host_if: &str) -> Result<Element> {
    let ip = endpoint.addresses.iter().find(|ip| same_family(ip, &port.host_ip));
    let ip = *ip.ok_or_else(|| {
        Error::Invalid(format!("the container has no address to which {} could lead", port.host_ip))
    })?;
    if port.host_port == 0 || port.container_port == 0 {
        return Err(Error::Invalid(format!("port 0 cannot be published: reserve a port first ({port:?})")));
    }
    let any = port.host_ip.is_unspecified();
    let fits = |map: &&Map| map.by_address != any && map.ipv6 == ip.is_ipv6();
    let map = MAPS.iter().find(fits).ok_or_else(|| Error::Invalid(format!("no map for {port:?}")))?;
    Ok(Element {
        map: *map,
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
        maps: &MAPS,
        chains: vec![
            guard(config),
            publish(Hook::Prerouting),
            publish(Hook::Output),
            source(config),
            forward(config),
        ],
    }
}

const LOOPBACK: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8));

/// Before anything is translated: nobody on the wire may speak to the host's loopback addresses (a port published
/// there would be open to the LAN, and the bridge is allowed to route them), nor to a container's own address.
fn guard(config: &BridgeConfig) -> Chain {
    let mut rules =
        vec![rule([Match::InputNot("lo".to_owned()), Match::Destination(LOOPBACK)], Action::Drop)];
    rules
        .extend(nets(config).map(|net| {
            rule([Match::InputNot(config.bridge.clone()), Match::Destination(net)], Action::Drop)
        }));
    Chain { name: "guard", kind: ChainKind::Filter, hook: Hook::Prerouting, priority: -300, rules }
}

/// Published ports, for what comes from outside or containers (prerouting) and from this host (output).
fn publish(hook: Hook) -> Chain {
    let name = if hook == Hook::Output { "publish-output" } else { "publish-prerouting" };
    let lookup = |map: Map| {
        let family = match map.ipv6 && hook == Hook::Output {
            true => Match::NotLoopback6,
            false => Match::Family { ipv6: map.ipv6 },
        };
        let matches = [family, Match::DestinationLocal];
        rule(matches, Action::DnatMap(map))
    };
    let rules = MAPS.map(lookup).to_vec();
    Chain { name, kind: ChainKind::Nat, hook, priority: -100, rules }
}

fn source(config: &BridgeConfig) -> Chain {
    let bridge = || config.bridge.clone();
    let mut rules = Vec::new();
    if config.masquerade && !config.internal {
        rules.extend(
            nets(config)
                .map(|net| rule([Match::Source(net), Match::OutputNot(bridge())], Action::Masquerade)),
        );
    }
    // From the host's loopback to a published port: the container must have somewhere to answer to.
    rules.push(rule([Match::Source(LOOPBACK), Match::Output(bridge())], Action::Masquerade));
    // From a container to a published port: else the answer would come from an address it never asked.
    rules.extend(
        nets(config)
            .map(|net| rule([Match::Source(net), Match::Output(bridge()), Match::Dnat], Action::Masquerade)),
    );
    Chain { name: "source", kind: ChainKind::Nat, hook: Hook::Postrouting, priority: 100, rules }
}

fn forward(config: &BridgeConfig) -> Chain {
    let bridge = || config.bridge.clone();
    let mut rules = Vec::new();
    if config.internal {
        rules.push(rule([Match::Input(bridge()), Match::OutputNot(bridge())], Action::Drop));
        rules.push(rule([Match::Output(bridge()), Match::InputNot(bridge())], Action::Drop));
    }
    rules.push(rule([Match::Output(bridge()), Match::Established], Action::Accept));
    rules.push(rule([Match::Output(bridge()), Match::Dnat], Action::Accept));
    if config.icc {
        rules.push(rule([Match::Input(bridge()), Match::Output(bridge())], Action::Accept));
    }
    rules.extend([
        rule([Match::Output(bridge())], Action::Drop),
        rule([Match::Input(bridge())], Action::Accept),
    ]);
    Chain { name: "forward", kind: ChainKind::Filter, hook: Hook::Forward, priority: 0, rules }
}

/// Where a container asks for names.
pub(crate) const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// The table in a container's network namespace by which what is asked of [`NAME_SERVER`] comes to a server at other
/// ports: port 53 stays the container's own.
pub(crate) fn name_server(udp: u16, tcp: u16) -> Ruleset {
    let to = IpNet::V4(Ipv4Net::new_assert(NAME_SERVER, 32));
    let one = |transport, port| {
        rule([Match::Destination(to), Match::DestinationPort(transport, 53)], Action::Dnat(NAME_SERVER, port))
    };
    let rules = vec![one(Transport::Udp, udp), one(Transport::Tcp, tcp)];
    let chain = Chain { name: "names", kind: ChainKind::Nat, hook: Hook::Output, priority: -100, rules };
    Ruleset { table: "longshore-names".to_owned(), maps: &[], chains: vec![chain] }
}

/// The rules that let a network's packets pass another table's forward chain. That chain drops by default; what
/// may really pass is decided by our own forward chain, which sees the packet as well.
pub(crate) fn exceptions(bridge: &str) -> [Rule; 2] {
    [
        rule([Match::Output(bridge.to_owned())], Action::Accept),
        rule([Match::Input(bridge.to_owned())], Action::Accept),
    ]
}

/// The subnets of a network.
fn nets(config: &BridgeConfig) -> impl Iterator<Item = IpNet> {
    config.subnets.iter().map(|subnet| subnet.net.trunc())
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
        writeln!(f, "table inet {} {{", self.table)?;
        for map in self.maps {
            let family = if map.ipv6 { "ipv6_addr" } else { "ipv4_addr" };
            let address = if map.by_address { format!("{family} . ") } else { String::new() };
            writeln!(f, "\tmap {} {{", map.name)?;
            writeln!(f, "\t\ttype {address}inet_proto . inet_service : {family} . inet_service")?;
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
                Match::Source(net) => write!(f, "{} saddr {net} ", family(net.addr().is_ipv6())),
                Match::Destination(net) => write!(f, "{} daddr {net} ", family(net.addr().is_ipv6())),
                // `nft` leaves it out where an address says it as well.
                Match::Family { .. } if matches!(&self.action, Action::DnatMap(map) if map.by_address) => {
                    Ok(())
                }
                Match::Family { ipv6: false } => write!(f, "meta nfproto ipv4 "),
                Match::Family { ipv6: true } => write!(f, "meta nfproto ipv6 "),
                Match::DestinationPort(transport, port) => write!(f, "{transport} dport {port} "),
                Match::DestinationLocal => write!(f, "fib daddr type local "),
                Match::NotLoopback6 => write!(f, "ip6 daddr != ::1 "),
                Match::Established => write!(f, "ct state established,related "),
                Match::Dnat => write!(f, "ct status dnat "),
            }?;
        }
        match self.action {
            Action::Accept => write!(f, "accept"),
            Action::Drop => write!(f, "drop"),
            Action::Masquerade => write!(f, "masquerade"),
            Action::Dnat(ip, port) => write!(f, "dnat ip to {ip}:{port}"),
            Action::DnatMap(map) => {
                let family = family(map.ipv6);
                let address = if map.by_address { format!("{family} daddr . ") } else { String::new() };
                write!(f, "dnat {family} to {address}meta l4proto . th dport map @{}", map.name)
            }
        }
    }
}

/// A family in `nft`'s notation.
fn family(ipv6: bool) -> &'static str {
    if ipv6 { "ip6" } else { "ip" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> BridgeConfig {
        BridgeConfig {
            bridge: "longshore0".to_owned(),
            subnets: vec![subnet("172.17.0.0/16", "172.17.0.1")],
            mtu: 1500,
            table: BridgeConfig::table_for("longshore0"),
            masquerade: true,
            icc: true,
            internal: false,
        }
    }

    fn subnet(net: &str, gateway: &str) -> crate::Subnet {
        crate::Subnet { net: net.parse().unwrap(), gateway: gateway.parse().unwrap() }
    }

    fn container(ports: Vec<PortMap>) -> Endpoint {
        let ip: IpAddr = "172.17.0.2".parse().unwrap();
        Endpoint {
            id: "e".to_owned(),
            addresses: vec![ip],
            default_route: crate::DefaultRoute::BOTH,
            mac: crate::mac_for(ip),
            ifname: "eth0".to_owned(),
            sysctls: Vec::new(),
            ports,
        }
    }

    #[test]
    fn the_ruleset_of_a_network() {
        let expected = r#"table inet longshore-longshore0 {
	map publish-address {
		type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
	}

	map publish {
		type inet_proto . inet_service : ipv4_addr . inet_service
	}

	map publish6-address {
		type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service
	}

	map publish6 {
		type inet_proto . inet_service : ipv6_addr . inet_service
	}

	chain guard {
		type filter hook prerouting priority raw; policy accept;
		iifname != "lo" ip daddr 127.0.0.0/8 drop
		iifname != "longshore0" ip daddr 172.17.0.0/16 drop
		iifname != "longshore0" ip6 daddr fd00:17::/64 drop
	}

	chain publish-prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @publish-address
		meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport map @publish
		fib daddr type local dnat ip6 to ip6 daddr . meta l4proto . th dport map @publish6-address
		meta nfproto ipv6 fib daddr type local dnat ip6 to meta l4proto . th dport map @publish6
	}

	chain publish-output {
		type nat hook output priority -100; policy accept;
		fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @publish-address
		meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport map @publish
		ip6 daddr != ::1 fib daddr type local dnat ip6 to ip6 daddr . meta l4proto . th dport map @publish6-address
		ip6 daddr != ::1 fib daddr type local dnat ip6 to meta l4proto . th dport map @publish6
	}

	chain source {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 172.17.0.0/16 oifname != "longshore0" masquerade
		ip6 saddr fd00:17::/64 oifname != "longshore0" masquerade
		ip saddr 127.0.0.0/8 oifname "longshore0" masquerade
		ip saddr 172.17.0.0/16 oifname "longshore0" ct status dnat masquerade
		ip6 saddr fd00:17::/64 oifname "longshore0" ct status dnat masquerade
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
        let both = || {
            let subnets = vec![subnet("172.17.0.0/16", "172.17.0.1"), subnet("fd00:17::/64", "fd00:17::1")];
            BridgeConfig { subnets, ..config() }
        };
        assert_eq!(both().ruleset(), expected);
        let closed = BridgeConfig { masquerade: false, icc: false, ..both() }.ruleset();
        let without = expected
            .replace("\t\tip saddr 172.17.0.0/16 oifname != \"longshore0\" masquerade\n", "")
            .replace("\t\tip6 saddr fd00:17::/64 oifname != \"longshore0\" masquerade\n", "")
            .replace("\t\tiifname \"longshore0\" oifname \"longshore0\" accept\n", "");
        assert_eq!(closed, without);
        let internal = BridgeConfig { internal: true, ..config() }.ruleset();
        assert!(
            internal.contains("\t\tiifname \"longshore0\" oifname != \"longshore0\" drop\n"),
            "{internal}"
        );
        assert!(!internal.contains("oifname != \"longshore0\" masquerade"), "{internal}");
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
        let port = |host_ip: &str, host_port| PortMap {
            transport: Transport::Tcp,
            host_ip: host_ip.parse().unwrap(),
            host_port,
            container_port: 80,
        };
        let ports = vec![port("0.0.0.0", 8080), port("127.0.0.1", 8081)];
        let plan = endpoint(&config(), &container(ports), false).unwrap();
        assert_eq!(plan.addresses, ["172.17.0.2/16".parse().unwrap()]);
        let places = |plan: &EndpointPlan| {
            let one = |e: &Element| format!("{} {:?} {}", e.map.name, e.host_ip, e.ip);
            plan.elements.iter().map(one).collect::<Vec<_>>()
        };
        assert_eq!(places(&plan), ["publish None 172.17.0.2", "publish-address Some(127.0.0.1) 172.17.0.2"]);
        assert!(plan.elements.iter().all(|e| e.comment == plan.host_if));
        for bad in [port("0.0.0.0", 0), port("::", 80)] {
            assert!(endpoint(&config(), &container(vec![bad]), false).is_err(), "{bad:?}");
        }
        let subnets = vec![subnet("fd00:17::/64", "fd00:17::1")];
        let six = Endpoint {
            addresses: vec!["fd00:17::2".parse().unwrap()],
            ports: vec![port("::", 80), port("::1", 81)],
            ..container(Vec::new())
        };
        let plan = endpoint(&BridgeConfig { subnets, ..config() }, &six, false).unwrap();
        assert_eq!(places(&plan), ["publish6 None fd00:17::2", "publish6-address Some(::1) fd00:17::2"]);
        assert_eq!(plan.gateways, ["fd00:17::1".parse::<IpAddr>().unwrap()]);
        for (icc, filtered, isolated) in [(true, false, false), (false, true, false), (false, false, true)] {
            let plan = endpoint(&BridgeConfig { icc, ..config() }, &container(Vec::new()), filtered).unwrap();
            assert_eq!((plan.isolated, plan.hairpin), (isolated, filtered));
        }
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        let changes: [fn(&mut BridgeConfig); 11] = [
            |c| c.bridge = String::new(),
            |c| c.bridge = "sixteen-letters-".to_owned(),
            |c| c.bridge = "a/b".to_owned(),
            |c| c.bridge = "a\"b".to_owned(),
            |c| c.table = "1; flush ruleset".to_owned(),
            |c| c.subnets = vec![subnet("10.0.0.0/31", "10.0.0.0")],
            |c| c.subnets[0].gateway = "10.0.0.1".parse().unwrap(),
            |c| c.subnets[0].gateway = "172.17.255.255".parse().unwrap(),
            |c| c.subnets.clear(),
            |c| c.subnets.push(subnet("172.18.0.0/16", "172.18.0.1")),
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
        let gateway = Endpoint { addresses: vec![config().subnets[0].gateway], ..container(Vec::new()) };
        assert!(matches!(endpoint(&config(), &gateway, false), Err(Error::AddressInUse(_))));
    }
}
