//! The rulesets: what the table of an engine always has, what each network adds, and what each container does.
//!
//! A packet's way through them does not grow longer with the number of networks: base chains look an interface or an
//! address up and jump to the chain of the network that it belongs to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::rules::{
    Action, Base, Chain, ChainKind, Data, Element, Field, Hook, Load, Match, Part, Rule, Set, Table, Target,
    rule,
};
use super::{Rules, Ruleset, same_family};
use crate::{BridgeConfig, Endpoint, GatewayMode, Transport};

const LOOPBACK: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8));
const LINK_LOCAL: IpNet = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10));

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
const ETHER_IPV4: u16 = 0x0800;
const ETHER_ARP: u16 = 0x0806;
const ETHER_IPV6: u16 = 0x86dd;

const fn inet(name: &'static str, key: &'static [Field], interval: bool, data: Data) -> Set {
    Set { table: Table::Inet, name, key, interval, data }
}

const fn bridged(name: &'static str, key: &'static [Field]) -> Set {
    Set { table: Table::Bridge, name, key, interval: false, data: Data::Nothing }
}

/// The subnets that only their own bridge may lead to, and the chains that see to it.
const HOME: Set = inet("home", &[Field::Ipv4], true, Data::Verdict);
const HOME6: Set = inet("home6", &[Field::Ipv6], true, Data::Verdict);
/// The subnets whose packets appear under another address somewhere.
const SOURCE: Set = inet("source", &[Field::Ipv4], true, Data::Verdict);
const SOURCE6: Set = inet("source6", &[Field::Ipv6], true, Data::Verdict);
/// The bridges, and the chains that decide who comes in.
const ENTER: Set = inet("enter", &[Field::Interface], false, Data::Verdict);
/// The bridges of internal networks.
const INTERNAL: Set = inet("internal", &[Field::Interface], false, Data::Nothing);
/// Ports that are reached by the container's own address.
const OPEN: Set = inet("open", &[Field::Ipv4, Field::Protocol, Field::Service], true, Data::Nothing);
const OPEN6: Set = inet("open6", &[Field::Ipv6, Field::Protocol, Field::Service], true, Data::Nothing);

/// The maps of published ports, in the order in which they are asked: those of one host address, then those for which
/// the address does not matter; single ports, then ranges, which lead to the same numbers; of IPv4 and of IPv6.
const PUBLISH: [Set; 8] = {
    use Field::{Ipv4, Ipv6, Protocol, Service};
    const PORT: Data = Data::Fields(&[Ipv4, Service]);
    const PORT6: Data = Data::Fields(&[Ipv6, Service]);
    const RANGE: Data = Data::Fields(&[Ipv4]);
    const RANGE6: Data = Data::Fields(&[Ipv6]);
    [
        inet("publish-address", &[Ipv4, Protocol, Service], false, PORT),
        inet("publish-address-range", &[Ipv4, Protocol, Service], true, RANGE),
        inet("publish", &[Protocol, Service], false, PORT),
        inet("publish-range", &[Protocol, Service], true, RANGE),
        inet("publish6-address", &[Ipv6, Protocol, Service], false, PORT6),
        inet("publish6-address-range", &[Ipv6, Protocol, Service], true, RANGE6),
        inet("publish6", &[Protocol, Service], false, PORT6),
        inet("publish6-range", &[Protocol, Service], true, RANGE6),
    ]
};

/// The ports of bridges whose containers may only be who they are, and who that is.
const GUESTS: Set = bridged("guests", &[Field::Interface]);
const GUEST_ETHER: Set = bridged("guest-ether", &[Field::Interface, Field::Ether]);
const GUEST_IPV4: Set = bridged("guest-ipv4", &[Field::Interface, Field::Ether, Field::Ipv4]);
const GUEST_IPV6: Set = bridged("guest-ipv6", &[Field::Interface, Field::Ether, Field::Ipv6]);

/// What the tables of an engine have before there is any network.
pub(crate) fn base(table: &str) -> Ruleset {
    let mut sets = vec![HOME, HOME6, SOURCE, SOURCE6, ENTER, INTERNAL, OPEN, OPEN6];
    sets.extend(PUBLISH);
    Ruleset {
        table: table.to_owned(),
        sets,
        chains: vec![guard(), publish(Hook::Prerouting), publish(Hook::Output), source(), forward()],
        elements: Vec::new(),
    }
}

/// The second table, in the family of bridges, which not every kernel has.
pub(crate) fn guests(table: &str) -> Ruleset {
    Ruleset {
        table: table.to_owned(),
        sets: vec![GUESTS, GUEST_ETHER, GUEST_IPV4, GUEST_IPV6],
        chains: vec![spoof()],
        elements: Vec::new(),
    }
}

/// What a network adds: its chains, and the elements that lead to them.
pub(crate) fn network(config: &BridgeConfig) -> Rules {
    let bridge = || config.bridge.clone();
    let mut chains = vec![chain("enter", config, enter(config))];
    let mut elements = vec![element(ENTER, [Part::Interface(bridge())], jump("enter", config))];
    if config.internal {
        elements.push(element(INTERNAL, [Part::Interface(bridge())], Target::Nothing));
    }
    let (mut home, mut source) = (false, false);
    for subnet in &config.subnets {
        let (ipv6, net) = (subnet.gateway.is_ipv6(), Part::Net(subnet.net.trunc()));
        // Where one routes to containers, all may come; what they reach is the forward chain's business.
        if config.mode(ipv6).is_nat() {
            home = true;
            let set = if ipv6 { HOME6 } else { HOME };
            elements.push(element(set, [net.clone()], jump("home", config)));
        }
        if config.mode(ipv6).translates() {
            source = true;
            let set = if ipv6 { SOURCE6 } else { SOURCE };
            elements.push(element(set, [net], jump("source", config)));
        }
    }
    if home {
        chains.push(chain("home", config, vec![rule([Match::InputNot(bridge())], Action::Drop)]));
    }
    if source {
        let mut rules = Vec::new();
        if config.masquerade && !config.internal {
            rules.push(rule([Match::OutputNot(bridge())], Action::Masquerade));
        }
        // From a container to a published port: else the answer would come from an address it never asked.
        rules.push(rule([Match::Output(bridge()), Match::Dnat], Action::Masquerade));
        chains.push(chain("source", config, rules));
    }
    Rules { chains, elements }
}

/// The chain of a network for one purpose.
pub(crate) fn chain_name(what: &str, bridge: &str) -> String {
    // Any interface name is turned into one that `nft` reads.
    let mut name = format!("{what}-");
    for c in bridge.chars() {
        match c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') {
            true => name.push(c),
            false => name.push_str(&format!("_{:02x}_", u32::from(c))),
        }
    }
    name
}

fn chain(what: &str, config: &BridgeConfig, rules: Vec<Rule>) -> Chain {
    Chain { table: Table::Inet, name: chain_name(what, &config.bridge), hook: None, rules }
}

fn jump(what: &str, config: &BridgeConfig) -> Target {
    Target::Jump(chain_name(what, &config.bridge))
}

fn element(set: Set, key: impl Into<Vec<Part>>, target: Target) -> Element {
    Element { set, key: key.into(), target, comment: None }
}

fn base_chain(name: &str, kind: ChainKind, hook: Hook, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain { table: Table::Inet, name: name.to_owned(), hook: Some(Base { kind, hook, priority }), rules }
}

/// Before anything is translated: nobody on the wire may speak to the host's loopback addresses (a port published
/// there would be open to the LAN, and bridges are allowed to route them), nor to a container's own address.
fn guard() -> Chain {
    let rules = vec![
        rule([Match::InputNot("lo".to_owned()), Match::Destination(LOOPBACK)], Action::Drop),
        rule([Match::Family { ipv6: false }], Action::Jump(Load::Destination { ipv6: false }, HOME)),
        rule([Match::Family { ipv6: true }], Action::Jump(Load::Destination { ipv6: true }, HOME6)),
    ];
    base_chain("guard", ChainKind::Filter, Hook::Prerouting, -300, rules)
}

/// Published ports, for what comes from outside or containers (prerouting) and from this host (output).
fn publish(hook: Hook) -> Chain {
    let name = if hook == Hook::Output { "publish-output" } else { "publish-prerouting" };
    let lookup = |map: Set| {
        let family = match map.is_ipv6() && hook == Hook::Output {
            true => Match::NotLoopback6,
            false => Match::Family { ipv6: map.is_ipv6() },
        };
        rule([family, Match::DestinationLocal], Action::DnatMap(map))
    };
    base_chain(name, ChainKind::Nat, hook, -100, PUBLISH.map(lookup).to_vec())
}

fn source() -> Chain {
    let rules = vec![
        // From the host's loopback to a published port: the container must have somewhere to answer to.
        rule([Match::Source(LOOPBACK), Match::In(&[Load::Output], ENTER)], Action::Masquerade),
        rule([Match::Family { ipv6: false }], Action::Jump(Load::Source { ipv6: false }, SOURCE)),
        rule([Match::Family { ipv6: true }], Action::Jump(Load::Source { ipv6: true }, SOURCE6)),
    ];
    base_chain("source", ChainKind::Nat, Hook::Postrouting, 100, rules)
}

fn forward() -> Chain {
    let rules = vec![
        // From one internal network to another: the chain of that one refuses it.
        rule([Match::In(&[Load::Input], INTERNAL), Match::NotIn(&[Load::Output], INTERNAL)], Action::Drop),
        rule([], Action::Jump(Load::Output, ENTER)),
    ];
    base_chain("forward", ChainKind::Filter, Hook::Forward, 0, rules)
}

/// Who comes to the containers of a network.
fn enter(config: &BridgeConfig) -> Vec<Rule> {
    let bridge = || config.bridge.clone();
    let mut rules = Vec::new();
    if config.internal {
        rules.push(rule([Match::InputNot(bridge())], Action::Drop));
    }
    rules.push(rule([Match::Established], Action::Accept));
    rules.push(rule([Match::Dnat], Action::Accept));
    let within = if config.icc { Action::Accept } else { Action::Drop };
    rules.push(rule([Match::Input(bridge())], within));
    for subnet in config.subnets.iter().filter(|_| !config.internal) {
        let ipv6 = subnet.gateway.is_ipv6();
        let family = || Match::Family { ipv6 };
        match config.mode(ipv6) {
            GatewayMode::Nat | GatewayMode::Isolated => {}
            GatewayMode::NatUnprotected => rules.push(rule([family()], Action::Accept)),
            GatewayMode::Routed => {
                let icmp = if ipv6 { ICMPV6 } else { ICMP };
                rules.push(rule([family(), Match::Transport(icmp)], Action::Accept));
                let open = match ipv6 {
                    false => Match::In(&OPEN_KEY, OPEN),
                    true => Match::In(&OPEN6_KEY, OPEN6),
                };
                rules.push(rule([family(), open], Action::Accept));
            }
        }
    }
    rules.push(rule([], Action::Drop));
    rules
}

const OPEN_KEY: [Load; 3] = [Load::Destination { ipv6: false }, Load::Protocol, Load::DestinationPort];
const OPEN6_KEY: [Load; 3] = [Load::Destination { ipv6: true }, Load::Protocol, Load::DestinationPort];

/// What containers send to others on their bridge: nobody speaks for another, nor as a router.
fn spoof() -> Chain {
    use Load::{ArpAddress, ArpEther, EtherSource, Input, NeighbourTarget, Source};
    let own6 = Match::In(&[Input, EtherSource, Source { ipv6: true }], GUEST_IPV6);
    let message = |kind| [Match::EtherType(ETHER_IPV6), Match::Icmpv6(kind)];
    let [ipv6, advertisement] = message(NEIGHBOUR_ADVERTISEMENT);
    let rules = vec![
        rule([Match::NotIn(&[Input], GUESTS)], Action::Accept),
        // First what there is most of.
        rule(
            [
                Match::EtherType(ETHER_IPV4),
                Match::In(&[Input, EtherSource, Source { ipv6: false }], GUEST_IPV4),
            ],
            Action::Accept,
        ),
        rule([Match::NotIn(&[Input, EtherSource], GUEST_ETHER)], Action::Drop),
        rule(
            [Match::EtherType(ETHER_ARP), Match::In(&[Input, ArpEther, ArpAddress], GUEST_IPV4)],
            Action::Accept,
        ),
        rule([Match::EtherType(ETHER_ARP), Match::ArpProbe], Action::Accept),
        rule(message(ROUTER_ADVERTISEMENT), Action::Drop),
        rule(message(REDIRECT), Action::Drop),
        rule(
            [
                ipv6.clone(),
                advertisement.clone(),
                Match::In(&[Input, EtherSource, NeighbourTarget], GUEST_IPV6),
            ],
            Action::Accept,
        ),
        rule([ipv6.clone(), advertisement.clone(), Match::NeighbourTarget(LINK_LOCAL)], Action::Accept),
        rule([ipv6.clone(), advertisement], Action::Drop),
        rule([ipv6.clone(), own6], Action::Accept),
        rule([ipv6.clone(), Match::FrameSource(LINK_LOCAL)], Action::Accept),
        // Looking whether an address is free.
        rule(
            [ipv6, Match::FrameSource(IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128)))],
            Action::Accept,
        ),
        rule([], Action::Drop),
    ];
    let base = Base { kind: ChainKind::Filter, hook: Hook::Prerouting, priority: -300 };
    Chain { table: Table::Bridge, name: "spoof".to_owned(), hook: Some(base), rules }
}

/// That a container is who it is.
pub(super) fn guest(endpoint: &Endpoint, host_if: &str) -> Vec<Element> {
    let port = || Part::Interface(host_if.to_owned());
    let ether = || Part::Ether(endpoint.mac);
    let mut elements = vec![
        element(GUESTS, [port()], Target::Nothing),
        element(GUEST_ETHER, [port(), ether()], Target::Nothing),
    ];
    elements.extend(endpoint.addresses.iter().map(|ip| {
        let set = if ip.is_ipv6() { GUEST_IPV6 } else { GUEST_IPV4 };
        element(set, [port(), ether(), Part::Address(*ip)], Target::Nothing)
    }));
    elements
}

/// Published ports, of which one is at a host's address or at all of a family.
pub(super) fn published(port: &crate::PortMap, to: IpAddr, owner: &str) -> Vec<Element> {
    let any = port.host_ip.is_unspecified();
    let find = |interval: bool| {
        let fits =
            |set: &&Set| set.by_address() != any && set.is_ipv6() == to.is_ipv6() && set.interval == interval;
        PUBLISH.into_iter().find(|set| fits(&set))
    };
    let key = |first: u16, last: u16| {
        let mut key = Vec::with_capacity(3);
        if !any {
            key.push(Part::Address(port.host_ip));
        }
        key.extend([Part::Protocol(port.transport), Part::Ports(first, last)]);
        key
    };
    let made = |set: Set, key: Vec<Part>, target: Target| Element {
        set,
        key,
        target,
        comment: Some(owner.to_owned()),
    };
    let (first, last) = (port.host_port, port.last());
    if first != last && first == port.container_port {
        let set = find(true);
        return set.map(|set| made(set, key(first, last), Target::Address(to))).into_iter().collect();
    }
    // The kernel has no arithmetic for ports: each that changes its number needs an element of its own.
    let each = |n: u16| {
        let set = find(false)?;
        Some(made(set, key(first + n, first + n), Target::Port(to, port.container_port + n)))
    };
    (0..=last - first).filter_map(each).collect()
}

/// Ports of a container that others reach by its own address.
pub(super) fn opened(transport: Transport, ip: IpAddr, first: u16, last: u16, owner: &str) -> Element {
    let set = if ip.is_ipv6() { OPEN6 } else { OPEN };
    let key = vec![Part::Address(ip), Part::Protocol(transport), Part::Ports(first, last)];
    Element { set, key, target: Target::Nothing, comment: Some(owner.to_owned()) }
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
    let chain = base_chain("names", ChainKind::Nat, Hook::Output, -100, rules);
    Ruleset {
        table: "longshore-names".to_owned(),
        sets: Vec::new(),
        chains: vec![chain],
        elements: Vec::new(),
    }
}

/// The rules that let a network's packets pass another table's forward chain. That chain drops by default; what
/// may really pass is decided by our own forward chain, which sees the packet as well.
pub(crate) fn exceptions(bridge: &str) -> [Rule; 2] {
    [
        rule([Match::Output(bridge.to_owned())], Action::Accept),
        rule([Match::Input(bridge.to_owned())], Action::Accept),
    ]
}

/// Whether an endpoint's address is of a port's family, and which.
pub(super) fn address_for(endpoint: &Endpoint, host_ip: &IpAddr) -> Option<IpAddr> {
    endpoint.addresses.iter().find(|ip| same_family(ip, host_ip)).copied()
}
