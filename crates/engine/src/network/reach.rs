//! Who can reach what: the ways into containers that run, as their networks, their ports and the daemon's own listeners
//! make them. Nothing is tried out; which rule leads a port on, the plan of the rules says itself.

use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use longshore_net::{BridgeConfig, Endpoint, GatewayMode, PortMap, Rule, RuleKind, same_family};
use longshore_sys::netns;

use super::wire::Link;
use crate::container::Container;
use crate::model::{Gate, Through, WayIn, WayPorts, Who};
use crate::{Engine, Error, Result};

/// So many containers may share a network namespace one by another.
const MAX_JOINED: usize = 32;

/// A connection to a network.
struct Seen<'a> {
    network: &'a str,
    config: &'a BridgeConfig,
    endpoint: &'a Endpoint,
}

/// What else the ways depend on.
struct Around<'a> {
    /// The container has no network of its own, but the host's.
    of_host: bool,
    /// The engine's table.
    table: &'a str,
    /// The daemon's network namespace is not the host's: only its listeners are there.
    apart: bool,
}

impl Engine {
    /// The ways into these containers, or into all that run.
    ///
    /// # Errors
    /// For a container that is not there or does not run.
    pub async fn ways_in(&self, names: Vec<String>) -> Result<Vec<WayIn>> {
        self.blocking(move |engine| engine.find_ways(&names)).await
    }

    fn find_ways(&self, names: &[String]) -> Result<Vec<WayIn>> {
        let mut wanted: Vec<(String, Arc<Container>)> = Vec::new();
        for name in names {
            let c = self.find(name)?;
            if c.task().is_none() {
                return Err(Error::conflict(format!("container {} is not running", c.id)));
            }
            if !wanted.iter().any(|(_, known)| known.id == c.id) {
                wanted.push((c.record().name, c));
            }
        }
        if names.is_empty() {
            let running = self.all().into_iter().filter(|c| c.task().is_some());
            wanted.extend(running.map(|c| (c.record().name, c)));
            wanted.sort_by(|(a, _), (b, _)| a.cmp(b));
        }
        let mut all = Vec::new();
        for (name, c) in wanted {
            // Whose network it has, as long as that container has it itself.
            let Some(owner) = self.owner_of_network(&c) else { continue };
            let ways = self.ways_of(&owner)?;
            let own = |way: WayIn| WayIn { container: c.id.clone(), name: name.clone(), ..way };
            all.extend(ways.into_iter().map(own));
        }
        Ok(all)
    }

    fn owner_of_network(&self, c: &Arc<Container>) -> Option<Arc<Container>> {
        let mut owner = c.clone();
        for _ in 0..MAX_JOINED {
            let mode = owner.record().host.network_mode;
            match mode.strip_prefix("container:") {
                None => return same_network(c, &owner).then_some(owner),
                Some(id) => owner = self.find(id).ok()?,
            }
        }
        None
    }

    fn ways_of(&self, c: &Container) -> Result<Vec<WayIn>> {
        let (record, listeners) = {
            let data = c.read();
            (data.record.clone(), data.held.listeners())
        };
        let networks = &self.inner.networks;
        let apart = self.inner.options.host_sockets.is_apart();
        let of_host = record.host.network_mode == "host";
        let around = Around { of_host, table: networks.firewall.table(), apart };
        let links = self.links_of(&record);
        let seen: Vec<Seen<'_>> = links
            .iter()
            .filter_map(|link| {
                let config = link.bridge.config()?;
                Some(Seen { network: &link.network.name, config, endpoint: &link.endpoint })
            })
            .collect();
        let mut ways = ways(&seen, &listeners, &around);
        ways.extend(links.iter().flat_map(by_parent));
        for link in &seen {
            let bridge = &link.config.bridge;
            let gates = networks.firewall.gates(bridge)?;
            for way in ways.iter_mut().filter(|way| is_forwarded(way, link)) {
                let fits = |gate: &&longshore_net::Gate| match gate.family {
                    "ip" => way.address.is_some_and(|ip| ip.is_ipv4()),
                    "ip6" => way.address.is_some_and(|ip| ip.is_ipv6()),
                    _ => true,
                };
                let gate = |gate: &longshore_net::Gate| Gate {
                    family: gate.family,
                    table: gate.table.clone(),
                    chain: gate.chain.clone(),
                    open: gate.open,
                };
                way.gates = gates.iter().filter(fits).map(gate).collect();
            }
        }
        Ok(ways)
    }
}

/// Where a container is on the network of the host's interface, nothing of ours is between it and the others there.
fn by_parent(link: &Link) -> Vec<WayIn> {
    let Some(parent) = link.bridge.parent() else { return Vec::new() };
    let way = |ip: &IpAddr| {
        let subnet = link.bridge.subnet(ip.is_ipv6())?;
        let who = vec![Who::Route(subnet.net.trunc().to_string())];
        Some(any_port(Some(*ip), who, Through::Parent(parent.to_owned())))
    };
    link.endpoint.addresses.iter().filter_map(way).collect()
}

/// Whether two containers are in one network namespace: one that was started again has a new one.
fn same_network(a: &Container, b: &Container) -> bool {
    let of = |c: &Container| -> Option<OwnedFd> {
        let task = c.task()?;
        netns::of(task.pid(), task.start_time()).ok()
    };
    if a.id == b.id {
        return true;
    }
    let (Some(a), Some(b)) = (of(a), of(b)) else { return false };
    let stat = |fd: &OwnedFd| rustix::fs::fstat(fd.as_fd()).map(|stat| (stat.st_dev, stat.st_ino)).ok();
    stat(&a).is_some() && stat(&a) == stat(&b)
}

/// Whether what comes this way is forwarded to a connection, and so passes the chains of others.
fn is_forwarded(way: &WayIn, link: &Seen<'_>) -> bool {
    let by_rule = matches!(way.through, Through::Rule { .. }) && way.who != [Who::Host];
    let leads = |ip: IpAddr| match ip {
        IpAddr::V4(_) => link.endpoint.default_route.ipv4,
        IpAddr::V6(_) => link.endpoint.default_route.ipv6,
    };
    let own = |ip: IpAddr| link.endpoint.addresses.contains(&ip);
    let of_host = matches!(way.who.as_slice(), [Who::Everybody | Who::Address(_)]);
    by_rule && way.address.is_some_and(|ip| if of_host { leads(ip) } else { own(ip) })
}

/// The ways into a container, which they do not name yet: those to its ports first.
fn ways(seen: &[Seen<'_>], listeners: &[PortMap], around: &Around<'_>) -> Vec<WayIn> {
    let mut ports = Vec::new();
    for link in seen {
        ports.extend(link.endpoint.ports.iter().filter_map(|port| by_rule(link, port, around)));
    }
    let ruled = |port: &PortMap| {
        let rule = |link: &Seen<'_>| link.config.rule_for(link.endpoint, port);
        seen.iter().any(|link| link.endpoint.ports.contains(port) && rule(link).is_some())
    };
    ports.extend(listeners.iter().filter_map(|port| by_listener(port, ruled(port))));
    let mut all = joined(ports);
    all.extend(seen.iter().flat_map(|link| direct(link, around)));
    if around.of_host {
        let who = if around.apart { Who::Daemon } else { Who::Everybody };
        all.push(any_port(None, vec![who], Through::HostNetwork));
    }
    all
}

fn any_port(address: Option<IpAddr>, who: Vec<Who>, through: Through) -> WayIn {
    let (container, name) = (String::new(), String::new());
    WayIn { container, name, ports: None, address, at: (0, 0), who, through, gates: Vec::new() }
}

fn to_port(port: &PortMap, address: IpAddr, first: u16, who: Who, through: Through) -> WayIn {
    let more = port.count.saturating_sub(1);
    let ports = WayPorts {
        transport: port.transport.to_string(),
        first: port.container_port,
        last: port.container_port.saturating_add(more),
    };
    let at = (first, first.saturating_add(more));
    WayIn { ports: Some(ports), at, ..any_port(Some(address), vec![who], through) }
}

/// Who reaches an address that a port is published at.
fn asking(host_ip: IpAddr) -> Who {
    match host_ip {
        ip if ip.is_unspecified() => Who::Everybody,
        // The guard chain lets nobody else in, and nobody else has a route there.
        ip if ip.is_loopback() => Who::Host,
        ip => Who::Address(ip),
    }
}

fn through(rule: Rule, around: &Around<'_>) -> Through {
    let kind = match rule.kind {
        RuleKind::Map => "map",
        RuleKind::Set => "set",
        RuleKind::Chain => "chain",
    };
    Through::Rule { kind, name: rule.name, table: around.table.to_owned() }
}

/// A port that a rule of the firewall leads on, or that is open where the container is.
fn by_rule(link: &Seen<'_>, port: &PortMap, around: &Around<'_>) -> Option<WayIn> {
    let rule = link.config.rule_for(link.endpoint, port)?;
    let (address, first, who) = match rule.kind {
        RuleKind::Set => {
            let own = link.endpoint.addresses.iter().find(|ip| same_family(ip, &port.host_ip))?;
            let subnet = link.config.subnet(own.is_ipv6())?;
            (*own, port.container_port, Who::Route(subnet.net.trunc().to_string()))
        }
        RuleKind::Map | RuleKind::Chain => (port.host_ip, port.host_port, asking(port.host_ip)),
    };
    Some(to_port(port, address, first, who, through(rule, around)))
}

/// A port that the daemon listens on. Where a rule leads it on as well, the socket sees what the rule does not: what is
/// asked of the host's IPv6 loopback.
fn by_listener(port: &PortMap, ruled: bool) -> Option<WayIn> {
    let address = match port.host_ip {
        IpAddr::V6(ip) if ruled && ip.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        _ if ruled => return None,
        ip => ip,
    };
    Some(to_port(port, address, port.host_port, asking(address), Through::Listener))
}

/// The container's own addresses.
fn direct(link: &Seen<'_>, around: &Around<'_>) -> Vec<WayIn> {
    let config = link.config;
    let mut all = Vec::new();
    for ip in &link.endpoint.addresses {
        let mut who = Vec::new();
        if config.icc {
            who.push(Who::Network(link.network.to_owned()));
        }
        // There the bridge has no address, and the host no route.
        if config.mode(ip.is_ipv6()) != GatewayMode::Isolated {
            who.push(if around.apart { Who::Daemon } else { Who::Host });
        }
        if !who.is_empty() {
            all.push(any_port(Some(*ip), who, Through::Bridge(config.bridge.clone())));
        }
        let routes = config.rule_for_routes(ip.is_ipv6()).zip(config.subnet(ip.is_ipv6()));
        all.extend(routes.map(|(rule, subnet)| {
            let who = Who::Route(subnet.net.trunc().to_string());
            any_port(Some(*ip), vec![who], through(rule, around))
        }));
    }
    all
}

/// Ports in a row that differ in nothing else become one way.
fn joined(mut all: Vec<WayIn>) -> Vec<WayIn> {
    let transport = |way: &WayIn| way.ports.as_ref().map(|ports| ports.transport.clone());
    let first = |way: &WayIn| way.ports.as_ref().map(|ports| ports.first);
    let distance = |way: &WayIn| i32::from(way.at.0) - i32::from(first(way).unwrap_or(0));
    all.sort_by_cached_key(|way| {
        (transport(way), way.address, format!("{:?}", way.through), distance(way), first(way), way.at)
    });
    let mut out: Vec<WayIn> = Vec::new();
    for way in all {
        if let Some(last) = out.last_mut()
            && let (Some(before), Some(ports)) = (&mut last.ports, &way.ports)
            && before.transport == ports.transport
            && (last.address, &last.who, &last.through) == (way.address, &way.who, &way.through)
        {
            if (&*before, last.at) == (ports, way.at) {
                continue;
            }
            let follows = |(end, start): (u16, u16)| end.checked_add(1) == Some(start);
            if follows((before.last, ports.first)) && follows((last.at.1, way.at.0)) {
                (before.last, last.at.1) = (ports.last, way.at.1);
                continue;
            }
        }
        out.push(way);
    }
    out.sort_by_cached_key(|way| (first(way), transport(way), way.address, way.at));
    out
}

#[cfg(test)]
mod tests {
    use longshore_net::{DefaultRoute, Subnet, Transport};

    use super::*;

    fn config(subnets: &[(&str, &str)]) -> BridgeConfig {
        let subnet = |(net, gateway): &(&str, &str)| Subnet {
            net: net.parse().expect("net"),
            gateway: gateway.parse().expect("gateway"),
        };
        BridgeConfig {
            bridge: "br-app".into(),
            subnets: subnets.iter().map(subnet).collect(),
            mtu: 1500,
            masquerade: true,
            icc: true,
            internal: false,
            modes: [GatewayMode::Nat; 2],
        }
    }

    fn port(host_ip: &str, host_port: u16, container_port: u16) -> PortMap {
        let host_ip = host_ip.parse().expect("address");
        PortMap { transport: Transport::Tcp, host_ip, host_port, container_port, count: 1 }
    }

    fn endpoint(addresses: &[&str], ports: Vec<PortMap>) -> Endpoint {
        Endpoint {
            id: "e".into(),
            addresses: addresses.iter().map(|ip| ip.parse().expect("address")).collect(),
            default_route: DefaultRoute::BOTH,
            mac: [2; 6],
            ifname: "eth0".into(),
            sysctls: Vec::new(),
            ports,
            guarded: true,
        }
    }

    fn told(way: &WayIn) -> String {
        let port = way.ports.as_ref().map(|p| format!("{}-{}/{}", p.first, p.last, p.transport));
        let address = way.address.map_or_else(|| "host".to_owned(), |ip| ip.to_string());
        let through = match &way.through {
            Through::Rule { kind, name, table } => format!("{kind} {name} of {table}"),
            other => format!("{other:?}"),
        };
        let port = port.unwrap_or_else(|| "any".into());
        format!("{port} at {address} {}-{} by {:?} through {through}", way.at.0, way.at.1, way.who)
    }

    fn all(config: &BridgeConfig, endpoint: &Endpoint, listeners: &[PortMap]) -> Vec<String> {
        let seen = [Seen { network: "app", config, endpoint }];
        let around = Around { of_host: false, table: "longshore", apart: false };
        ways(&seen, listeners, &around).iter().map(told).collect()
    }

    const V4: (&str, &str) = ("172.18.0.0/16", "172.18.0.1");
    const V6: (&str, &str) = ("fd00:18::/64", "fd00:18::1");
    const BY_BRIDGE: &str = r#"any at 172.18.0.2 0-0 by [Network("app"), Host] through Bridge("br-app")"#;

    #[test]
    fn ports_by_rules_and_by_listeners() {
        let ports = vec![port("0.0.0.0", 8080, 80), port("127.0.0.1", 8081, 80), port("192.0.2.1", 8082, 80)];
        let six = [port("::", 8080, 80), port("::1", 8083, 80)];
        let found = all(&config(&[V4]), &endpoint(&["172.18.0.2"], ports), &six);
        assert_eq!(
            found,
            [
                "80-80/tcp at 0.0.0.0 8080-8080 by [Everybody] through map publish of longshore",
                "80-80/tcp at 127.0.0.1 8081-8081 by [Host] through map publish-address of longshore",
                "80-80/tcp at 192.0.2.1 8082-8082 by [Address(192.0.2.1)] through map publish-address of longshore",
                "80-80/tcp at :: 8080-8080 by [Everybody] through Listener",
                "80-80/tcp at ::1 8083-8083 by [Host] through Listener",
                BY_BRIDGE,
            ]
        );
        // With an address of IPv6 the rules have the rest.
        let mut held = six.to_vec();
        held.push(port("2001:db8::1", 8084, 80));
        let both = endpoint(&["172.18.0.2", "fd00:18::2"], held.clone());
        let found = all(&config(&[V4, V6]), &both, &held);
        assert_eq!(
            found[..4],
            [
                "80-80/tcp at :: 8080-8080 by [Everybody] through map publish6 of longshore",
                "80-80/tcp at ::1 8080-8080 by [Host] through Listener",
                "80-80/tcp at ::1 8083-8083 by [Host] through Listener",
                "80-80/tcp at 2001:db8::1 8084-8084 by [Address(2001:db8::1)] through map publish6-address of longshore",
            ]
        );
        assert_eq!(found.len(), 6);
    }

    #[test]
    fn ports_in_a_row_are_one_way() {
        let mut ports: Vec<PortMap> = (0..5).map(|n| port("0.0.0.0", 8000 + n, 80 + n)).collect();
        ports.extend([port("0.0.0.0", 9000, 80), port("0.0.0.0", 8006, 86)]);
        ports.push(PortMap { count: 1000, ..port("0.0.0.0", 20000, 20000) });
        let found = all(&config(&[V4]), &endpoint(&["172.18.0.2"], ports), &[]);
        assert_eq!(
            found,
            [
                "80-84/tcp at 0.0.0.0 8000-8004 by [Everybody] through map publish of longshore",
                "80-80/tcp at 0.0.0.0 9000-9000 by [Everybody] through map publish of longshore",
                "86-86/tcp at 0.0.0.0 8006-8006 by [Everybody] through map publish of longshore",
                "20000-20999/tcp at 0.0.0.0 20000-20999 by [Everybody] through map publish-range of longshore",
                BY_BRIDGE,
            ]
        );
    }

    #[test]
    fn networks_differ_in_who_comes_to_the_container() {
        let net = || config(&[V4]);
        let one = |config: &BridgeConfig| all(config, &endpoint(&["172.18.0.2"], Vec::new()), &[]);
        assert_eq!(one(&net()), [BY_BRIDGE]);
        assert_eq!(one(&BridgeConfig { internal: true, ..net() }), [BY_BRIDGE]);
        let apart = "any at 172.18.0.2 0-0 by [Host] through Bridge(\"br-app\")";
        assert_eq!(one(&BridgeConfig { icc: false, ..net() }), [apart]);
        let modes = [GatewayMode::Isolated; 2];
        let alone = BridgeConfig { internal: true, modes, ..net() };
        assert_eq!(one(&alone), [BY_BRIDGE.replace(", Host", "")]);
        assert!(one(&BridgeConfig { icc: false, ..alone }).is_empty());
        let seen =
            [Seen { network: "app", config: &net(), endpoint: &endpoint(&["172.18.0.2"], Vec::new()) }];
        let around = Around { of_host: false, table: "longshore", apart: true };
        assert_eq!(told(&ways(&seen, &[], &around)[0]), BY_BRIDGE.replace("Host", "Daemon"));
        let open = BridgeConfig { modes: [GatewayMode::NatUnprotected; 2], ..net() };
        let route =
            r#"any at 172.18.0.2 0-0 by [Route("172.18.0.0/16")] through chain enter-br-app of longshore"#;
        assert_eq!(one(&open), [BY_BRIDGE, route]);
        let routed = BridgeConfig { modes: [GatewayMode::Routed; 2], ..net() };
        // Asked for twice, it is one port of the container's all the same.
        let ports = vec![port("0.0.0.0", 0, 80), port("192.0.2.1", 0, 80)];
        assert_eq!(
            all(&routed, &endpoint(&["172.18.0.2"], ports), &[]),
            [
                r#"80-80/tcp at 172.18.0.2 80-80 by [Route("172.18.0.0/16")] through set open of longshore"#,
                BY_BRIDGE
            ]
        );
    }

    #[test]
    fn without_a_network_of_its_own() {
        let around = |of_host, apart| Around { of_host, table: "longshore", apart };
        assert_eq!(ways(&[], &[], &around(false, false)), []);
        let of = |apart| ways(&[], &[], &around(true, apart)).iter().map(told).collect::<Vec<_>>();
        assert_eq!(of(false), ["any at host 0-0 by [Everybody] through HostNetwork"]);
        assert_eq!(of(true), ["any at host 0-0 by [Daemon] through HostNetwork"]);
    }
}
