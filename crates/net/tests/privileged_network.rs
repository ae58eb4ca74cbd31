//! Networks as containers see them. Needs root, `ip` and `nft`; everything happens in namespaces of its own.

mod support;

use std::net::Ipv6Addr;
use std::sync::Arc;

use longshore_net::{
    BridgeConfig, Firewall, GatewayMode, IpNet, Network, Ownership, PortAllocator, PortMap, PortRequest,
    Transport, host_networks, loopback_up, pick_subnet,
};
use support::{LONG, Namespace, SHORT, both, config, endpoint, endpoint_of_both, host_and_neighbour, port};

const ANY: [u8; 4] = [0, 0, 0, 0];
const LOOPBACK: [u8; 4] = [127, 0, 0, 1];

fn open(host: &Namespace, bridge: &str, third: u8) -> Network {
    open_as(host, config(bridge, third)).expect("open a network")
}

/// A network of an engine of its own.
fn open_as(host: &Namespace, config: BridgeConfig) -> longshore_net::Result<Network> {
    open_owned(host, config, Ownership::Shared)
}

fn open_owned(host: &Namespace, config: BridgeConfig, whose: Ownership) -> longshore_net::Result<Network> {
    let table = format!("longshore-{}", config.bridge);
    host.within(|| Network::open(config, &Firewall::open(&table, whose)?))
}

#[test]
fn privileged_containers_reach_each_other_and_the_lan() {
    let (host, lan) = host_and_neighbour();
    let network = open(&host, "ls0", 1);
    let (a, b) = (Namespace::bare(), Namespace::bare());
    let mut first = endpoint("a", 1, 2);
    first.mac = [2, 0, 0, 0, 0, 9];
    let attached = network.attach(a.fd(), &first).unwrap();
    network.attach(b.fd(), &endpoint("b", 1, 3)).unwrap();

    a.serve_tcp("0.0.0.0:80");
    lan.serve_tcp("0.0.0.0:80");
    host.serve_tcp("0.0.0.0:81");
    assert_eq!(b.tcp("172.30.1.2:80").as_deref(), Some("172.30.1.3"));
    assert_eq!(host.tcp("172.30.1.2:80").as_deref(), Some("172.30.1.1"));
    assert_eq!(a.tcp("172.30.1.1:81").as_deref(), Some("172.30.1.2"));
    // Outside, a container appears as the host; the neighbour needs no route to it.
    assert_eq!(a.tcp("10.9.0.2:80").as_deref(), Some("10.9.0.1"));
    // Its own loopback works.
    assert_eq!(a.tcp("127.0.0.1:80").as_deref(), Some("127.0.0.1"));

    let link = a.ip("-o link show eth0");
    assert!(link.contains("02:00:00:00:00:09") && link.contains("mtu 1500"), "{link}");
    assert!(!a.ip("-o addr show eth0").contains("inet6"));
    assert!(host.ip(&format!("-o link show {}", attached.host_interface)).contains("master ls0"));
}

#[test]
fn privileged_published_ports_answer() {
    let (host, lan) = host_and_neighbour();
    let network = open(&host, "ls0", 2);
    let (a, b) = (Namespace::bare(), Namespace::bare());
    let mut published = endpoint("a", 2, 2);
    published.ports = vec![
        port(Transport::Tcp, ANY, 8080, 80),
        port(Transport::Udp, ANY, 8053, 53),
        port(Transport::Tcp, [10, 9, 0, 1], 8081, 80),
    ];
    // As an engine does it: the ports are held by sockets, which must not answer in the container's place.
    let requests: Vec<PortRequest> =
        published.ports.iter().map(|p| PortRequest::again(p, published.addresses[0])).collect();
    let held = host.within(|| PortAllocator::default().reserve(&requests)).unwrap();
    assert_eq!(held.ports(), published.ports);
    network.attach(a.fd(), &published).unwrap();
    network.attach(b.fd(), &endpoint("b", 2, 3)).unwrap();
    a.serve_tcp("0.0.0.0:80");
    a.serve_udp("0.0.0.0:53");

    // The neighbour's address is what the server sees.
    assert_eq!(lan.tcp("10.9.0.1:8080").as_deref(), Some("10.9.0.2"));
    assert_eq!(lan.tcp("10.9.0.1:8081").as_deref(), Some("10.9.0.2"));
    assert_eq!(lan.ask_udp("10.9.0.1:8053", LONG).as_deref(), Some("10.9.0.2"));
    // From the host itself, by each of its addresses.
    assert_eq!(host.tcp("127.0.0.1:8080").as_deref(), Some("172.30.2.1"));
    assert_eq!(host.ask_udp("127.0.0.1:8053", LONG).as_deref(), Some("172.30.2.1"));
    assert!(host.tcp("10.9.0.1:8080").is_some());
    assert!(host.tcp("172.30.2.1:8080").is_some());
    assert!(host.tcp("10.9.0.1:8081").is_some());
    assert_eq!(host.ask_tcp("127.0.0.1:8081", SHORT), None, "published on another address only");
    // From another container, and from the very one, by the host's addresses.
    assert!(b.tcp("10.9.0.1:8080").is_some());
    assert!(b.tcp("172.30.2.1:8080").is_some());
    assert!(a.tcp("172.30.2.1:8080").is_some());
    assert!(b.ask_udp("172.30.2.1:8053", LONG).is_some());

    network.detach("a").unwrap();
    assert_eq!(lan.ask_tcp("10.9.0.1:8080", SHORT), None);
}

#[test]
fn privileged_atk_43_loopback_port_is_closed_to_the_lan() {
    let (host, lan) = host_and_neighbour();
    let network = open(&host, "ls0", 3);
    let container = Namespace::bare();
    let mut published = endpoint("a", 3, 2);
    published.ports =
        vec![port(Transport::Tcp, LOOPBACK, 8080, 80), port(Transport::Udp, LOOPBACK, 8053, 53)];
    network.attach(container.fd(), &published).unwrap();
    container.serve_tcp("0.0.0.0:80");
    container.serve_udp("0.0.0.0:53");
    host.serve_tcp("127.0.0.1:9000");
    assert!(host.tcp("127.0.0.1:8080").is_some());
    assert!(host.ask_udp("127.0.0.1:8053", LONG).is_some());

    // By the host's address on the wire, and by a route to the container.
    lan.ip("route add 172.30.3.0/24 via 10.9.0.1");
    assert_eq!(lan.ask_tcp("10.9.0.1:8080", SHORT), None);
    assert_eq!(lan.ask_tcp("172.30.3.2:80", SHORT), None);
    assert_eq!(lan.ask_udp("172.30.3.2:53", SHORT), None);
    // By sending the loopback address itself on the wire.
    for namespace in [&lan, &container] {
        namespace.sysctl("ipv4/conf/all/route_localnet", "1");
        namespace.ip("addr flush dev lo");
    }
    lan.ip("route add 127.0.0.1/32 via 10.9.0.1 src 10.9.0.2");
    assert_eq!(lan.ask_tcp("127.0.0.1:8080", SHORT), None);
    assert_eq!(lan.ask_udp("127.0.0.1:8053", SHORT), None);
    // A container, on whose bridge such addresses are routed, does not get at the host's loopback either.
    container.ip("route add 127.0.0.1/32 via 172.30.3.1 src 172.30.3.2");
    assert_eq!(container.ask_tcp("127.0.0.1:9000", SHORT), None);

    // That these are real ways in shows when the guard is away.
    host.exec("nft", &["flush", "chain", "inet", "longshore-ls0", "guard"]);
    assert!(lan.tcp("127.0.0.1:8080").is_some());
    assert!(container.tcp("127.0.0.1:9000").is_some());
    // And a new open puts it back, with the ports still there.
    let again = open(&host, "ls0", 3);
    assert_eq!(lan.ask_tcp("127.0.0.1:8080", SHORT), None);
    assert!(host.tcp("127.0.0.1:8080").is_some());
    drop(again);
}

#[test]
fn privileged_detach_sweep_and_remove_leave_nothing() {
    let host = Namespace::new("host");
    let network = open(&host, "ls0", 4);
    let containers: Vec<Namespace> = (0..4).map(|_| Namespace::bare()).collect();
    for (i, container) in (0u8..).zip(&containers) {
        let mut e = endpoint(&format!("e{i}"), 4, i + 2);
        e.ports = vec![
            port(Transport::Tcp, ANY, 8000 + u16::from(i), 80),
            port(Transport::Udp, LOOPBACK, 8000 + u16::from(i), 80),
        ];
        network.attach(container.fd(), &e).unwrap();
    }
    assert!(!network.has_foreign_ports().unwrap());
    host.ip("link add veth-admin type veth peer name other");
    host.ip("link set veth-admin master ls0");
    assert!(network.has_foreign_ports().unwrap());
    let veths = || host.links().matches("master ls0").count();
    assert_eq!(veths(), 5);
    let published = || host.tables().matches("comment").count();
    assert_eq!(published(), 8);

    network.detach("e0").unwrap();
    network.detach("e0").unwrap();
    network.detach("never was").unwrap();
    assert_eq!(veths(), 4);
    assert_eq!(published(), 6);
    assert!(!containers[0].links().contains("eth0"));

    // The container's namespace is gone before the detach.
    drop(containers);
    let live = [endpoint("e1", 4, 3), endpoint("e2", 4, 4)];
    network.sweep(&live).unwrap();
    network.detach("e3").unwrap();
    assert_eq!(published(), 4);
    network.detach("e1").unwrap();
    network.detach("e2").unwrap();
    assert_eq!(published(), 0);
    assert!(!host.tables().contains("veth"), "{}", host.tables());

    network.remove().unwrap();
    let links = host.links();
    assert!(!links.contains("ls0") && links.contains("veth-admin"), "{links}");
    assert_eq!(host.tables(), "");
}

#[test]
fn privileged_sweep_removes_links() {
    let host = Namespace::new("host");
    let network = open(&host, "ls0", 5);
    let (a, b) = (Namespace::bare(), Namespace::bare());
    network.attach(a.fd(), &endpoint("a", 5, 2)).unwrap();
    network.attach(b.fd(), &endpoint("b", 5, 3)).unwrap();
    let live = [endpoint("b", 5, 3)];
    assert_eq!(network.sweep(&live).unwrap(), 1);
    assert!(!a.links().contains("eth0"));
    assert!(b.links().contains("eth0"));
    assert_eq!(network.sweep(&live).unwrap(), 0);
}

#[test]
fn privileged_a_failed_attach_leaves_nothing() {
    let host = Namespace::new("host");
    let network = open(&host, "ls0", 6);
    let container = Namespace::bare();
    container.ip("link add dummy-route type veth peer name x");
    container.ip("link set dummy-route up");
    container.ip("addr add 172.30.9.1/24 dev dummy-route");
    container.ip("link set x up");
    container.ip("route add default via 172.30.9.2");
    // A default route exists already: the last step fails.
    let error = network.attach(container.fd(), &endpoint("a", 6, 2)).unwrap_err();
    assert!(error.to_string().contains("default route"), "{error}");
    assert!(!host.links().contains("veth"), "{}", host.links());
    assert!(!container.links().contains("eth0"));
    // Settings that cannot work are refused before anything is made.
    for bad in ["172.30.6.0", "172.30.6.255", "172.30.6.1", "10.0.0.1", "fd30::2"] {
        let mut e = endpoint("a", 6, 2);
        e.addresses = vec![bad.parse().unwrap()];
        assert!(network.attach(container.fd(), &e).is_err());
    }
    // An interface of that name in the container is in the way.
    container.ip("link set x name eth0");
    assert!(network.attach(container.fd(), &endpoint("a", 6, 2)).is_err());
    assert!(!host.links().contains("veth"));
}

#[test]
fn privileged_attach_again_replaces_a_leftover() {
    let host = Namespace::new("host");
    let network = open(&host, "ls0", 7);
    let (before, after) = (Namespace::bare(), Namespace::bare());
    network.attach(before.fd(), &endpoint("a", 7, 2)).unwrap();
    network.attach(after.fd(), &endpoint("a", 7, 2)).unwrap();
    assert!(after.links().contains("eth0"));
    assert!(!before.links().contains("eth0"));
}

#[test]
fn privileged_open_is_idempotent_and_networks_live_side_by_side() {
    let (host, lan) = host_and_neighbour();
    let first = open(&host, "ls0", 8);
    let second = open(&host, "ls1", 9);
    let (a, b) = (Namespace::bare(), Namespace::bare());
    let mut published = endpoint("a", 8, 2);
    published.ports = vec![port(Transport::Tcp, ANY, 8080, 80)];
    first.attach(a.fd(), &published).unwrap();
    let mut published = endpoint("b", 9, 2);
    published.ports = vec![port(Transport::Tcp, ANY, 8090, 80)];
    second.attach(b.fd(), &published).unwrap();
    a.serve_tcp("0.0.0.0:80");
    b.serve_tcp("0.0.0.0:80");

    let before = host.tables();
    let again = open(&host, "ls0", 8);
    assert_eq!(host.tables(), before);
    assert!(lan.tcp("10.9.0.1:8080").is_some());
    assert!(lan.tcp("10.9.0.1:8090").is_some());
    // Networks are apart, except by published ports.
    assert_eq!(a.ask_tcp("172.30.9.2:80", SHORT), None);
    assert!(a.tcp("10.9.0.1:8090").is_some());

    again.remove().unwrap();
    assert!(lan.tcp("10.9.0.1:8090").is_some());
    assert!(!host.tables().contains("longshore-ls0"));
}

#[test]
fn privileged_a_udp_flow_follows_its_port() {
    let (host, lan) = host_and_neighbour();
    let network = open(&host, "ls0", 20);
    // One socket all along: the same flow as far as the kernel can tell.
    let client = lan.within(|| std::net::UdpSocket::bind("10.9.0.2:5000")).unwrap();
    let ask = |patience| {
        client.set_read_timeout(Some(patience)).unwrap();
        client.send_to(b"?", "10.9.0.1:8053").unwrap();
        client.recv_from(&mut [0; 64]).is_ok()
    };
    assert!(!ask(SHORT), "nobody answers before the port is published");
    let mut alive = Vec::new();
    for last in [2, 3] {
        let container = Namespace::bare();
        container.serve_udp("0.0.0.0:53");
        let mut published = endpoint(&format!("e{last}"), 20, last);
        published.ports = vec![port(Transport::Udp, ANY, 8053, 53)];
        network.attach(container.fd(), &published).unwrap();
        assert!(ask(LONG), "container {last}");
        network.release(&published.id).unwrap();
        alive.push(container);
    }
}

#[test]
fn privileged_many_come_and_go_at_once() {
    let host = Namespace::new("host");
    // Two networks, as of two engines: each changes nftables under the other's hands.
    let networks = [open(&host, "ls0", 21), open(&host, "ls1", 22)];
    let containers: Vec<Namespace> = (0..4).map(|_| Namespace::bare()).collect();
    std::thread::scope(|scope| {
        for (i, container) in (0u8..).zip(&containers) {
            let (network, third) = (&networks[usize::from(i % 2)], 21 + i % 2);
            scope.spawn(move || {
                for round in 0..10 {
                    let mut published = endpoint(&format!("e{i}-{round}"), third, i + 2);
                    published.ports = (0..5)
                        .map(|p| port(Transport::Udp, LOOPBACK, 9000 + u16::from(i) * 10 + p, 53))
                        .collect();
                    network.attach(container.fd(), &published).unwrap();
                    network.detach(&published.id).unwrap();
                }
            });
        }
    });
    assert!(!host.links().contains("veth"));
    for network in networks {
        network.remove().unwrap();
    }
    assert_eq!(host.tables(), "");
}

#[test]
fn privileged_the_first_packet_is_answered() {
    let host = Namespace::new("host");
    let network = open(&host, "ls0", 23);
    host.serve_tcp("172.30.23.1:90");
    // A bridge whose only port comes and goes is what the kernel is slow about: a lost packet costs a second.
    for i in 0..20 {
        let container = Namespace::bare();
        let id = format!("e{i}");
        network.attach(container.fd(), &endpoint(&id, 23, 2)).unwrap();
        let patience = std::time::Duration::from_millis(900);
        assert!(container.ask_tcp("172.30.23.1:90", patience).is_some(), "container {i}");
        network.release(&id).unwrap();
    }
}

/// Whether bridged packets pass netfilter is a setting of the host, once somebody has loaded the module for it.
fn bridge_netfilter() -> &'static [Option<&'static str>] {
    const SETTING: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    if std::path::Path::new(SETTING).exists() { &[Some("0"), Some("1")] } else { &[None] }
}

#[test]
fn privileged_without_icc_containers_are_apart() {
    for setting in bridge_netfilter() {
        let (host, lan) = host_and_neighbour();
        let mut apart = config("ls0", 10);
        apart.icc = false;
        if let Some(setting) = setting {
            host.sysctl("bridge/bridge-nf-call-iptables", setting);
        }
        let network = open_as(&host, apart).unwrap();
        let (a, b) = (Namespace::bare(), Namespace::bare());
        let mut published = endpoint("a", 10, 2);
        published.ports = vec![port(Transport::Tcp, ANY, 8080, 80)];
        network.attach(a.fd(), &published).unwrap();
        network.attach(b.fd(), &endpoint("b", 10, 3)).unwrap();
        a.serve_tcp("0.0.0.0:80");
        lan.serve_tcp("0.0.0.0:80");
        assert_eq!(b.ask_tcp("172.30.10.2:80", SHORT), None, "setting {setting:?}");
        assert!(b.tcp("10.9.0.2:80").is_some(), "setting {setting:?}");
        assert!(b.tcp("10.9.0.1:8080").is_some(), "setting {setting:?}");
    }
}

#[test]
fn privileged_works_with_and_without_bridge_netfilter() {
    for setting in bridge_netfilter() {
        let host = Namespace::new("host");
        if let Some(setting) = setting {
            host.sysctl("bridge/bridge-nf-call-iptables", setting);
        }
        let network = open(&host, "ls0", 11);
        let (a, b) = (Namespace::bare(), Namespace::bare());
        let mut published = endpoint("a", 11, 2);
        published.ports = vec![port(Transport::Tcp, ANY, 8080, 80)];
        network.attach(a.fd(), &published).unwrap();
        network.attach(b.fd(), &endpoint("b", 11, 3)).unwrap();
        a.serve_tcp("0.0.0.0:80");
        assert!(a.tcp("172.30.11.1:8080").is_some(), "own port, setting {setting:?}");
        assert!(b.tcp("172.30.11.1:8080").is_some(), "other's port, setting {setting:?}");
        assert!(b.tcp("172.30.11.2:80").is_some(), "direct, setting {setting:?}");
    }
}

#[test]
fn privileged_other_forward_chains_that_drop_get_an_exception() {
    let (host, lan) = host_and_neighbour();
    for table in ["ip filter", "inet guard"] {
        let mut words = vec!["add", "table"];
        words.extend(table.split(' '));
        host.exec("nft", &words);
        let chain =
            format!("add chain {table} FORWARD {{ type filter hook forward priority 0; policy drop; }}");
        host.exec("nft", &[&chain]);
    }
    host.exec("nft", &["add chain ip filter DOCKER-USER"]);
    host.exec("nft", &["add rule ip filter FORWARD jump DOCKER-USER"]);
    host.exec("nft", &["add table inet firewalld"]);
    host.exec("nft", &["add chain inet firewalld f { type filter hook forward priority 10; }"]);
    host.exec("nft", &["add rule inet firewalld f reject"]);
    let before = host.tables();
    let network = open(&host, "ls0", 12);
    let container = Namespace::bare();
    network.attach(container.fd(), &endpoint("a", 12, 2)).unwrap();
    lan.serve_tcp("0.0.0.0:80");
    assert!(container.tcp("10.9.0.2:80").is_some());

    let once = host.tables();
    drop(open(&host, "ls0", 12));
    assert_eq!(host.tables().matches("counter").count(), once.matches("counter").count());
    assert_eq!(once.matches("comment \"longshore-ls0\"").count(), 6, "{once}");
    network.remove().unwrap();
    assert_eq!(host.tables(), before);
}

#[test]
fn privileged_iptables_still_reads_its_table() {
    let host = Namespace::new("host");
    host.exec("iptables", &["-P", "FORWARD", "DROP"]);
    let network = open(&host, "ls0", 13);
    let rules = host.exec("iptables", &["-S", "FORWARD"]);
    assert!(rules.contains("-A FORWARD -i ls0") && rules.contains("-A FORWARD -o ls0"), "{rules}");
    network.remove().unwrap();
    assert_eq!(host.exec("iptables", &["-S", "FORWARD"]).trim(), "-P FORWARD DROP");
}

#[test]
fn privileged_rules_come_back_after_a_flush() {
    let (host, lan) = host_and_neighbour();
    let network = open(&host, "ls0", 14);
    let container = Namespace::bare();
    let mut published = endpoint("a", 14, 2);
    published.ports = vec![port(Transport::Tcp, ANY, 8080, 80)];
    network.attach(container.fd(), &published).unwrap();
    container.serve_tcp("0.0.0.0:80");
    let before = host.tables();
    host.exec("nft", &["flush", "ruleset"]);
    assert_eq!(lan.ask_tcp("10.9.0.1:8080", SHORT), None);
    let network = Arc::new(network);
    let live = [(Arc::clone(&network), vec![published])];
    network.firewall().settle_endpoints(&live).unwrap();
    network.firewall().settle_endpoints(&live).unwrap();
    assert_eq!(host.tables(), before);
    assert!(lan.tcp("10.9.0.1:8080").is_some());
    // And what is of nobody goes.
    network.firewall().settle_endpoints(&[]).unwrap();
    assert!(!host.tables().contains("comment"));
}

/// `systemctl reload nftables` flushes everything; ufw and others come and go. Nobody has to tell us.
#[test]
fn privileged_atk_42_rules_are_put_back_at_once() {
    let (host, lan) = host_and_neighbour();
    let network = Arc::new(open(&host, "ls0", 15));
    host.within(|| network.firewall().keep()).unwrap();
    let (container, later) = (Namespace::bare(), Namespace::bare());
    let mut published = endpoint("a", 15, 2);
    published.ports = vec![port(Transport::Tcp, ANY, 8080, 80), port(Transport::Tcp, LOOPBACK, 8081, 80)];
    network.attach(container.fd(), &published).unwrap();
    container.serve_tcp("0.0.0.0:80");
    lan.ip("route add 172.30.15.0/24 via 10.9.0.1");
    let before = host.tables();
    let whole = |what: &str| {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while host.tables() != before {
            assert!(std::time::Instant::now() < end, "{what}: {}", host.tables());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    };
    for damage in [
        &["flush", "ruleset"][..],
        &["delete", "table", "inet", "longshore-ls0"],
        &["flush", "chain", "inet", "longshore-ls0", "guard"],
        &["flush", "table", "inet", "longshore-ls0"],
    ] {
        host.exec("nft", damage);
        whole(&damage.join(" "));
        assert_eq!(lan.ask_tcp("172.30.15.2:80", SHORT), None, "the guard stands");
        assert!(lan.tcp("10.9.0.1:8080").is_some(), "{damage:?}");
    }
    // A port that is withdrawn is not put back, and one is published although the table has just gone.
    network.release("a").unwrap();
    host.exec("nft", &["flush", "ruleset"]);
    let mut second = endpoint("b", 15, 3);
    second.ports = vec![port(Transport::Tcp, ANY, 8082, 80)];
    network.attach(later.fd(), &second).unwrap();
    later.serve_tcp("0.0.0.0:80");
    assert!(lan.tcp("10.9.0.1:8082").is_some());
    assert_eq!(lan.ask_tcp("10.9.0.1:8080", SHORT), None);
    // A firewall that somebody switches on later.
    host.exec("iptables", &["-P", "FORWARD", "DROP"]);
    assert!(lan.tcp("10.9.0.1:8082").is_some());
    network.remove().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(!host.tables().contains("longshore"), "what was removed stays so");
}

/// From Linux 6.9 on the rules are ours alone: nobody takes them away, and they stay for the next when we are gone.
#[test]
fn privileged_atk_42_nobody_else_takes_the_rules_away() {
    let (host, lan) = host_and_neighbour();
    let open = || open_owned(&host, config("ls0", 24), Ownership::Ours).expect("open a network");
    let network = open();
    let container = Namespace::bare();
    let mut published = endpoint("a", 24, 2);
    published.ports = vec![port(Transport::Tcp, ANY, 8080, 80), port(Transport::Tcp, LOOPBACK, 8081, 80)];
    network.attach(container.fd(), &published).unwrap();
    container.serve_tcp("0.0.0.0:80");
    lan.ip("route add 172.30.24.0/24 via 10.9.0.1");
    let before = host.tables();
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|n| n.parse::<u32>().unwrap_or(0));
    if (numbers.next(), numbers.next()) < (Some(6), Some(9)) {
        eprintln!("not run: Linux {release} cannot keep others from a table");
        return;
    }
    // While it is flushed and flushed again, nothing that is closed opens for a moment.
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let probe = scope.spawn(|| {
            let (mut probes, patience) = (0, std::time::Duration::from_millis(5));
            while !done.load(std::sync::atomic::Ordering::Relaxed) || probes < 20 {
                assert_eq!(lan.ask_tcp("172.30.24.2:80", patience), None, "the container itself");
                assert_eq!(lan.ask_tcp("10.9.0.1:8081", patience), None, "the loopback's port");
                probes += 1;
            }
        });
        for _ in 0..100 {
            host.exec("nft", &["flush", "ruleset"]);
        }
        assert!(lan.tcp("10.9.0.1:8080").is_some());
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        probe.join().unwrap();
    });
    assert_eq!(host.tables(), before);
    // When the engine is gone, they stay; the next one takes them over, with what it knows.
    drop(network);
    assert!(lan.tcp("10.9.0.1:8080").is_some());
    assert_eq!(lan.ask_tcp("172.30.24.2:80", SHORT), None);
    let network = Arc::new(open());
    assert!(lan.tcp("10.9.0.1:8080").is_some());
    network.firewall().settle_endpoints(&[(Arc::clone(&network), vec![published])]).unwrap();
    assert_eq!(host.tables(), before);
    network.remove().unwrap();
    assert_eq!(host.tables(), "");
}

#[test]
fn privileged_open_refuses_an_interface_that_is_no_bridge() {
    let host = Namespace::new("host");
    host.ip("link add ls0 type veth peer name other");
    let error = open_as(&host, config("ls0", 15)).unwrap_err();
    assert_eq!(error.kind(), longshore_oci::Kind::Conflict);
    assert!(host.links().contains("ls0"));
    assert_eq!(host.tables(), "");
}

#[test]
fn privileged_many_ports_at_once() {
    let host = Namespace::new("host");
    let network = open(&host, "ls0", 16);
    let container = Namespace::bare();
    let mut published = endpoint("a", 16, 2);
    published.ports = (10_000..13_000).map(|p| port(Transport::Tcp, ANY, p, p)).collect();
    network.attach(container.fd(), &published).unwrap();
    container.serve_tcp("0.0.0.0:12999");
    assert!(host.tcp("127.0.0.1:12999").is_some());
    network.detach("a").unwrap();
    assert!(!host.tables().contains("comment"));
}

#[test]
fn privileged_host_networks_are_seen() {
    let (host, _lan) = host_and_neighbour();
    host.ip("route add 172.17.8.0/24 via 10.9.0.2");
    host.ip("route add default via 10.9.0.2");
    let seen = host.within(host_networks).unwrap();
    let lan: IpNet = "10.9.0.1/24".parse().unwrap();
    assert!(seen.iter().any(|n| longshore_net::overlap(n, &lan) && n.prefix_len() == 24));
    let picked = pick_subnet(&longshore_net::default_pools(), &seen).unwrap();
    assert_eq!(picked.to_string(), "172.18.0.0/16");
}

#[test]
fn privileged_loopback_alone() {
    let container = Namespace::bare();
    loopback_up(container.fd()).unwrap();
    loopback_up(container.fd()).unwrap();
    container.serve_tcp("127.0.0.1:80");
    assert!(container.tcp("127.0.0.1:80").is_some());
}

/// What the kernel was given is what was planned: `nft` reads it back in the same words.
#[test]
fn privileged_the_table_is_what_was_planned() {
    let host = Namespace::new("host");
    for variant in 0..4 {
        let mut config = both("ls0", 18);
        // A prefix within a byte takes a mask.
        config.subnets[0].net = "172.30.16.0/21".parse().unwrap();
        config.subnets[1].net = "fd30:18::/61".parse().unwrap();
        config.masquerade = variant == 0;
        config.icc = variant == 0;
        config.internal = variant == 1;
        if variant >= 2 {
            let other = if variant == 2 { GatewayMode::NatUnprotected } else { GatewayMode::Routed };
            config.modes = [GatewayMode::Routed, other];
        }
        let network = open_as(&host, config).unwrap();
        // Versions of `nft` differ in what they have a name for, and in the order of elements.
        let words = |text: &str| -> Vec<String> {
            let text = text.replace("hook output priority dstnat;", "hook output priority -100;");
            let text = text.replace("@th,64,128 ", "icmpv6 taddr ");
            let text = text.replace("@th,64,16 & 0xffc0 == 0xfe80 ", "icmpv6 taddr fe80::/10 ");
            let mut words: Vec<String> =
                text.split_whitespace().map(|word| word.trim_end_matches(',').to_owned()).collect();
            words.sort();
            words
        };
        let same = || {
            let (kernel, planned) = (host.tables(), network.firewall().ruleset());
            // Whose it is stands behind the keys.
            let mut parts = kernel.split(" comment \"");
            let mut bare = parts.next().unwrap_or_default().to_owned();
            parts.for_each(|part| bare.push_str(part.split_once('"').unwrap().1));
            let (mut left, mut right) = (words(&bare), words(&planned));
            right.retain(|word| match left.iter().position(|other| other == word) {
                Some(n) => {
                    left.remove(n);
                    false
                }
                None => true,
            });
            assert_eq!((left, right), (Vec::new(), Vec::new()), "{kernel}\n{planned}");
        };
        same();
        let container = Namespace::bare();
        let mut published = endpoint_of_both("a", 18, 2);
        published.ports = vec![
            port(Transport::Tcp, ANY, 8080, 80),
            port(Transport::Udp, LOOPBACK, 8053, 53),
            port(Transport::Sctp, Ipv6Addr::UNSPECIFIED, 8081, 81),
            port(Transport::Udp, Ipv6Addr::LOCALHOST, 8054, 54),
            PortMap { count: 1000, ..port(Transport::Tcp, ANY, 20000, 20000) },
            PortMap { count: 10, ..port(Transport::Udp, Ipv6Addr::LOCALHOST, 30000, 30000) },
        ];
        if variant >= 2 {
            published.ports.retain(|p| p.host_ip.is_ipv6());
            published.ports.push(PortMap { count: 9, ..port(Transport::Tcp, ANY, 0, 90) });
        }
        network.attach(container.fd(), &published).unwrap();
        same();
        network.detach("a").unwrap();
        same();
        network.remove().unwrap();
    }
}

#[test]
fn privileged_a_released_address_can_be_used_at_once() {
    let host = Namespace::new("host");
    let network = open(&host, "ls0", 19);
    let (old, new, peer) = (Namespace::bare(), Namespace::bare(), Namespace::bare());
    let with_mac = |id: &str, last: u8| {
        let mut e = endpoint(id, 19, last);
        e.mac = longshore_net::mac_for(e.addresses[0]);
        e
    };
    let mut published = with_mac("old", 2);
    published.ports = vec![port(Transport::Tcp, ANY, 8080, 80)];
    network.attach(old.fd(), &published).unwrap();
    network.attach(peer.fd(), &with_mac("peer", 3)).unwrap();
    old.serve_tcp("0.0.0.0:80");
    assert!(host.tcp("172.30.19.2:80").is_some());
    assert!(peer.tcp("172.30.19.2:80").is_some());

    network.release("old").unwrap();
    network.release("old").unwrap();
    network.release("never was").unwrap();
    host.serve_tcp("0.0.0.0:90");
    assert_eq!(old.ask_tcp("172.30.19.1:90", SHORT), None);
    assert!(peer.tcp("172.30.19.1:90").is_some());
    assert!(!host.tables().contains("8080"));
    // The old namespace is alive still, and answers for the address if it is asked.
    published.id = "new".to_owned();
    network.attach(new.fd(), &published).unwrap();
    new.serve_tcp("172.30.19.2:81");
    assert!(host.tcp("172.30.19.2:81").is_some());
    assert!(peer.tcp("172.30.19.2:81").is_some());
    assert_eq!(network.sweep(&[endpoint("new", 19, 2), endpoint("peer", 19, 3)]).unwrap(), 1);
}

#[test]
fn privileged_both_families_work_alike() {
    let (host, lan) = host_and_neighbour();
    let network = open_as(&host, both("ls0", 20)).unwrap();
    let (a, b) = (Namespace::bare(), Namespace::bare());
    let mut published = endpoint_of_both("a", 20, 2);
    published.ports = vec![
        port(Transport::Tcp, ANY, 8080, 80),
        port(Transport::Tcp, Ipv6Addr::UNSPECIFIED, 8080, 80),
        port(Transport::Udp, Ipv6Addr::UNSPECIFIED, 8053, 53),
        port(Transport::Tcp, Ipv6Addr::LOCALHOST, 8081, 80),
    ];
    let requests: Vec<PortRequest> =
        published.ports.iter().map(|p| PortRequest::again(p, published.addresses[0])).collect();
    let held = host.within(|| PortAllocator::default().reserve(&requests)).unwrap();
    network.attach(a.fd(), &published).unwrap();
    network.attach(b.fd(), &endpoint_of_both("b", 20, 3)).unwrap();
    a.serve_tcp("[::]:80");
    a.serve_udp("[::]:53");
    lan.serve_tcp("[::]:80");
    // Containers, the host, and what is outside, in both directions.
    assert_eq!(b.tcp("[fd30:20::2]:80").as_deref(), Some("fd30:20::3"));
    assert_eq!(host.tcp("[fd30:20::2]:80").as_deref(), Some("fd30:20::1"));
    assert_eq!(a.tcp("[fd09::2]:80").as_deref(), Some("fd09::1"));
    assert_eq!(lan.tcp("[fd09::1]:8080").as_deref(), Some("fd09::2"));
    assert_eq!(lan.ask_udp("[fd09::1]:8053", LONG).as_deref(), Some("fd09::2"));
    assert!(lan.tcp("10.9.0.1:8080").is_some());
    // From the host by its own addresses, and from containers by the host's.
    assert!(host.tcp("[fd09::1]:8080").is_some());
    assert!(b.tcp("[fd09::1]:8080").is_some());
    assert!(a.tcp("[fd30:20::1]:8080").is_some());
    // By another's route to the container nobody gets in, nor to what is on the host's loopback.
    lan.ip("-6 route add fd30:20::/64 via fd09::1");
    assert_eq!(lan.ask_tcp("[fd30:20::2]:80", SHORT), None);
    assert_eq!(lan.ask_tcp("[fd09::1]:8081", SHORT), None);
    network.detach("a").unwrap();
    assert_eq!(lan.ask_tcp("[fd09::1]:8080", SHORT), None);
    drop(held);
}

#[test]
fn privileged_a_name_server_is_found_at_its_address() {
    let container = Namespace::bare();
    loopback_up(container.fd()).unwrap();
    let (udp, tcp) = longshore_net::name_server(container.fd()).unwrap();
    container.serve_tcp("0.0.0.0:53");
    std::thread::spawn(move || {
        let mut buffer = [0; 16];
        let (n, peer) = udp.recv_from(&mut buffer).unwrap();
        udp.send_to(&buffer[..n], peer).unwrap();
        let (mut stream, _) = tcp.accept().unwrap();
        std::io::Write::write_all(&mut stream, b"names").unwrap();
    });
    assert_eq!(container.ask_udp("127.0.0.11:53", LONG).as_deref(), Some("?"));
    assert_eq!(container.tcp("127.0.0.11:53").as_deref(), Some("names"));
    // The port itself is the container's.
    assert_eq!(container.tcp("127.0.0.1:53").as_deref(), Some("127.0.0.1"));
    // Another server takes over.
    let (_udp, tcp) = longshore_net::name_server(container.fd()).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = tcp.accept().unwrap();
        std::io::Write::write_all(&mut stream, b"new").unwrap();
    });
    assert_eq!(container.tcp("127.0.0.11:53").as_deref(), Some("new"));
}
