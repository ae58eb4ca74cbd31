//! What the rules of several networks let through. Needs root, `ip` and `nft`; everything happens in namespaces of its
//! own.

mod support;

use std::net::Ipv6Addr;
use std::sync::Arc;

use longshore_net::{
    BridgeConfig, Endpoint, Firewall, GatewayMode, IpvlanFlag, IpvlanMode, MacvlanMode, Network, Ownership,
    ParentConfig, ParentKind, ParentNetwork, PortMap, Transport,
};
use support::{LONG, Namespace, SHORT, both, config, endpoint, endpoint_of_both, host_and_neighbour, port};

const ANY: [u8; 4] = [0, 0, 0, 0];

fn firewall(host: &Namespace) -> Arc<Firewall> {
    host.within(|| Firewall::open("longshore", Ownership::Ours)).expect("open the firewall")
}

fn open(host: &Namespace, firewall: &Arc<Firewall>, config: BridgeConfig) -> Network {
    host.within(|| Network::open(config, firewall)).expect("open a network")
}

#[test]
fn privileged_networks_share_one_table_and_are_apart() {
    let (host, lan) = host_and_neighbour();
    let firewall = firewall(&host);
    let networks: Vec<Network> =
        (1..=3).map(|n| open(&host, &firewall, both(&format!("ls{n}"), n))).collect();
    let closed = open(&host, &firewall, BridgeConfig { internal: true, ..config("ls4", 4) });
    let other = open(&host, &firewall, BridgeConfig { internal: true, ..config("ls5", 5) });
    assert_eq!(host.tables().matches("table inet").count(), 1);
    let containers: Vec<Namespace> = (0..5).map(|_| Namespace::bare()).collect();
    for (n, network) in (1u8..).zip(&networks) {
        let mut e = endpoint_of_both(&format!("e{n}"), n, 2);
        e.ports = vec![port(Transport::Tcp, ANY, 8000 + u16::from(n), 80)];
        let container = &containers[usize::from(n) - 1];
        network.attach(container.fd(), &e).unwrap();
        container.serve_tcp("[::]:80");
        container.serve_tcp("[::]:81");
    }
    for (container, network, third) in [(&containers[3], &closed, 4), (&containers[4], &other, 5)] {
        network.attach(container.fd(), &endpoint(&format!("c{third}"), third, 2)).unwrap();
        container.serve_tcp("0.0.0.0:80");
    }
    lan.serve_tcp("0.0.0.0:80");
    let [a, b, _, inside, inside2] = containers.as_slice() else { panic!("five") };
    // Each reaches the outside and others' published ports, and nothing else of them.
    assert!(
        a.tcp("10.9.0.2:80").is_some()
            && a.tcp("10.9.0.1:8002").is_some()
            && lan.tcp("10.9.0.1:8003").is_some()
    );
    assert_eq!(a.ask_tcp("172.30.2.2:81", SHORT), None);
    assert_eq!(a.ask_tcp("[fd30:2::2]:81", SHORT), None);
    assert!(host.tcp("172.30.2.2:81").is_some());
    // Internal ones reach nobody, and nobody reaches them but the host.
    for target in ["10.9.0.2:80", "172.30.1.2:80", "172.30.5.2:80"] {
        assert_eq!(inside.ask_tcp(target, SHORT), None, "{target}");
    }
    assert_eq!(inside2.ask_tcp("172.30.4.2:80", SHORT), None);
    assert_eq!(b.ask_tcp("172.30.4.2:80", SHORT), None);
    assert!(host.tcp("172.30.4.2:80").is_some());
    // One goes, and takes its own along.
    let mut networks = networks;
    networks.remove(1).remove().unwrap();
    assert!(!host.tables().contains("ls2"), "{}", host.tables());
    assert!(lan.tcp("10.9.0.1:8001").is_some() && a.tcp("10.9.0.1:8003").is_some());
    for network in networks.into_iter().chain([closed, other]) {
        network.remove().unwrap();
    }
    assert_eq!(host.tables(), "");
}

#[test]
fn privileged_ports_in_a_row_lead_to_the_same_numbers() {
    let (host, lan) = host_and_neighbour();
    let network = open(&host, &firewall(&host), both("ls0", 6));
    let container = Namespace::bare();
    let mut e = endpoint_of_both("a", 6, 2);
    let row = |transport, host_port, container_port, count| PortMap {
        count,
        ..port(transport, ANY, host_port, container_port)
    };
    e.ports = vec![
        row(Transport::Tcp, 20000, 20000, 1000),
        row(Transport::Udp, 1, 1, 65535),
        row(Transport::Tcp, 9000, 90, 3),
        PortMap { host_ip: Ipv6Addr::UNSPECIFIED.into(), ..row(Transport::Tcp, 20000, 20000, 1000) },
        PortMap { host_ip: [10, 9, 0, 1].into(), ..row(Transport::Tcp, 30000, 30000, 100) },
    ];
    network.attach(container.fd(), &e).unwrap();
    for listen in ["[::]:20000", "[::]:20999", "[::]:30050", "0.0.0.0:90", "0.0.0.0:92"] {
        container.serve_tcp(listen);
    }
    container.serve_udp("0.0.0.0:53");
    for good in ["10.9.0.1:20000", "10.9.0.1:20999", "[fd09::1]:20999", "10.9.0.1:30050", "10.9.0.1:9002"] {
        assert!(lan.tcp(good).is_some(), "{good}");
    }
    assert!(host.tcp("127.0.0.1:20999").is_some());
    assert_eq!(host.ask_tcp("127.0.0.1:30050", SHORT), None, "published at another address");
    assert_eq!(lan.ask_tcp("10.9.0.1:21000", SHORT), None);
    assert!(lan.ask_udp("10.9.0.1:53", LONG).is_some());
    // Three rows are an element each; one changes its numbers.
    assert_eq!(host.tables().matches("comment").count(), 4 + 3);
    // The host's own connections are not caught: their ports are not its own to lead away.
    lan.serve_udp("0.0.0.0:5353");
    assert!(host.ask_udp("10.9.0.2:5353", LONG).is_some());
    e.ports.truncate(1);
    network.firewall().set_ports([(&network, &e)]).unwrap();
    assert!(lan.tcp("10.9.0.1:20999").is_some());
    assert_eq!(lan.ask_tcp("10.9.0.1:9002", SHORT), None);
}

#[test]
fn privileged_gateway_modes() {
    let (host, lan) = host_and_neighbour();
    let firewall = firewall(&host);
    let routed = open(&host, &firewall, BridgeConfig { modes: [GatewayMode::Routed; 2], ..both("ls7", 7) });
    let unprotected =
        open(&host, &firewall, BridgeConfig { modes: [GatewayMode::NatUnprotected; 2], ..both("ls8", 8) });
    let isolated = open(
        &host,
        &firewall,
        BridgeConfig { modes: [GatewayMode::Isolated; 2], internal: true, ..config("ls9", 9) },
    );
    for net in [7, 8] {
        lan.ip(&format!("route add 172.30.{net}.0/24 via 10.9.0.1"));
        lan.ip(&format!("-6 route add fd30:{net}::/64 via fd09::1"));
    }
    lan.serve_tcp("[::]:80");
    let containers: Vec<Namespace> = (0..4).map(|_| Namespace::bare()).collect();
    let [a, b, c, d] = containers.as_slice() else { panic!("four") };
    let mut e = endpoint_of_both("a", 7, 2);
    let open_port = |host_ip: std::net::IpAddr| port(Transport::Tcp, host_ip, 0, 80);
    e.ports = vec![open_port(ANY.into()), open_port(Ipv6Addr::UNSPECIFIED.into())];
    routed.attach(a.fd(), &e).unwrap();
    unprotected.attach(b.fd(), &endpoint_of_both("b", 8, 2)).unwrap();
    isolated.attach(c.fd(), &endpoint("c", 9, 2)).unwrap();
    isolated.attach(d.fd(), &endpoint("d", 9, 3)).unwrap();
    for container in [a, b, c] {
        container.serve_tcp("[::]:80");
        container.serve_tcp("[::]:81");
    }
    // Who has a route reaches the open port under its own address, and the container appears under its own.
    assert_eq!(lan.tcp("172.30.7.2:80").as_deref(), Some("::ffff:10.9.0.2"));
    assert_eq!(lan.tcp("[fd30:7::2]:80").as_deref(), Some("fd09::2"));
    assert_eq!(lan.ask_tcp("172.30.7.2:81", SHORT), None);
    assert_eq!(a.tcp("10.9.0.2:80").as_deref(), Some("::ffff:172.30.7.2"));
    // Or all of them, where nothing is protected; there the host's address hides it.
    assert!(lan.tcp("172.30.8.2:81").is_some() && lan.tcp("[fd30:8::2]:81").is_some());
    assert_eq!(b.tcp("10.9.0.2:80").as_deref(), Some("::ffff:10.9.0.1"));
    // Not even the host is on an isolated one.
    assert!(d.tcp("172.30.9.2:80").is_some());
    assert!(!host.ip("-o addr show ls9").contains("172.30.9"));
    assert_eq!(host.ask_tcp("172.30.9.2:80", SHORT), None);
}

fn guarded_pair(host: &Namespace, guarded: bool) -> (Network, [Namespace; 2]) {
    let network = open(host, &firewall(host), both("ls0", 40));
    let containers = [Namespace::bare(), Namespace::bare()];
    for (last, container) in (2..).zip(&containers) {
        let e = Endpoint { guarded, ..endpoint_of_both(&format!("e{last}"), 40, last) };
        network.attach(container.fd(), &e).expect("attach");
        container.serve_tcp("[::]:80");
    }
    (network, containers)
}

/// A container that claims another's address, or the gateway's, or another hardware address, or to be a router.
#[test]
fn privileged_atk_45_a_container_speaks_for_itself_alone() {
    for guarded in [false, true] {
        let host = Namespace::new("host");
        let (_network, [liar, victim]) = guarded_pair(&host, guarded);
        host.serve_tcp("[::]:90");
        assert!(victim.tcp("172.30.40.2:80").is_some() && victim.tcp("[fd30:40::2]:80").is_some());
        assert!(liar.tcp("172.30.40.1:90").is_some() && liar.tcp("[fd30:40::1]:90").is_some());
        let lies = !guarded;
        // Another's IPv4 address, by ARP and in packets.
        liar.ip("addr add 172.30.40.99/24 dev eth0");
        victim.ip("neigh flush dev eth0");
        assert_eq!(victim.ask_tcp("172.30.40.99:80", SHORT).is_some(), lies, "ARP, guarded {guarded}");
        // And of IPv6.
        liar.ip("-6 addr add fd30:40::99/64 dev eth0 nodad");
        assert_eq!(victim.ask_tcp("[fd30:40::99]:80", SHORT).is_some(), lies, "ND, guarded {guarded}");
        // Its own still serves.
        assert!(victim.tcp("172.30.40.2:80").is_some() && victim.tcp("[fd30:40::2]:80").is_some());
        // A router advertisement gives nobody a route or an address.
        victim.sysctl("ipv6/conf/eth0/accept_ra", "1");
        send_router_advertisement(&liar);
        std::thread::sleep(SHORT);
        assert_eq!(victim.ip("-6 route show").contains("2001:db8:45::/64"), lies, "RA, guarded {guarded}");
        // Another hardware address.
        liar.ip("link set eth0 address 02:00:00:00:00:45");
        assert_eq!(liar.ask_tcp("172.30.40.1:90", SHORT).is_some(), lies, "hardware, guarded {guarded}");
        assert!(victim.tcp("172.30.40.1:90").is_some());
    }
}

/// As a router does: type 134 with one prefix that is on the link.
fn send_router_advertisement(from: &Namespace) {
    let program = r#"
import socket, struct, time
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
index = socket.if_nametoindex("eth0")
head = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xc0, 3600, 3600, 0) + socket.inet_pton(socket.AF_INET6, "2001:db8:45::")
# Until its own address is known to be free, it is not the source.
for _ in range(12):
    s.sendto(head + prefix, ("ff02::1", 0, 0, index))
    time.sleep(0.25)
"#;
    from.exec("python3", &["-c", program]);
}

/// Containers on the network of one of the host's interfaces.
#[test]
fn privileged_macvlan_containers_are_on_the_lan() {
    let (host, lan) = host_and_neighbour();
    let subnets = vec![support::subnet("10.9.0.0/24", "10.9.0.2"), support::subnet("fd09::/64", "fd09::2")];
    let config = |parent: &str| ParentConfig {
        parent: parent.to_owned(),
        kind: ParentKind::Macvlan(MacvlanMode::Bridge),
        subnets: subnets.clone(),
        mtu: None,
        internal: false,
    };
    let open = |parent: &str| host.within(|| ParentNetwork::open(config(parent)));
    let error = open("nosuch0").expect_err("no such interface").to_string();
    assert!(error.contains("the parent interface nosuch0 is not there"), "{error}");
    let network = open("lan0").expect("open a network");
    // Most hosts have one of the name that containers' interfaces have.
    host.ip("link add eth0 type veth peer name eth1");
    let containers = [Namespace::bare(), Namespace::bare()];
    let at = |last: u8| {
        let mut e = endpoint(&format!("e{last}"), 9, last);
        e.addresses = vec![[10, 9, 0, last].into(), format!("fd09::{last}").parse().unwrap()];
        e
    };
    for (last, container) in (10..).zip(&containers) {
        network.attach(container.fd(), &at(last)).expect("attach");
        container.serve_tcp("[::]:80");
    }
    lan.serve_tcp("[::]:80");
    let [a, b] = &containers;
    // They are who they are there: nothing is translated, and the neighbour reaches them.
    assert_eq!(a.tcp("10.9.0.2:80").as_deref(), Some("::ffff:10.9.0.10"));
    assert_eq!(a.tcp("[fd09::2]:80").as_deref(), Some("fd09::10"));
    assert_eq!(lan.tcp("10.9.0.11:80").as_deref(), Some("::ffff:10.9.0.2"));
    assert!(b.tcp("10.9.0.10:80").is_some());
    assert_eq!(host.ask_tcp("10.9.0.10:80", SHORT), None, "not from the parent interface");
    assert!(a.ip("route").contains("default via 10.9.0.2"));
    network.detach(b.fd(), [10, 9, 0, 11].into()).expect("detach");
    assert!(!b.links().contains("eth0"));
    // Settings that cannot work leave nothing.
    let wrong = Endpoint { addresses: vec![[10, 9, 0, 2].into()], ..at(12) };
    assert!(network.attach(b.fd(), &wrong).is_err() && !b.links().contains("eth0"));
    b.ip("link add eth0 type veth peer name other");
    assert!(network.attach(b.fd(), &at(12)).is_err(), "the name is taken there");
    assert!(!b.links().contains("veth") && b.links().matches("lan0").count() == 0, "{}", b.links());
    b.ip("link delete eth0");
    // A VLAN that its name speaks of is made, and goes again; others' interfaces stay.
    match open("lan0.7") {
        Ok(vlan) => {
            assert!(host.links().contains("lan0.7"));
            let again = open("lan0.7").expect("take it over");
            again.remove().expect("remove");
            vlan.remove().expect("gone already is fine");
            assert!(!host.links().contains("lan0.7"));
        }
        Err(error) => assert!(error.to_string().contains("create VLAN lan0.7"), "{error}"),
    }
    network.remove().expect("remove");
    assert!(host.links().contains("lan0"));
    // Of ipvlan this kernel knows or says that it does not.
    let kind = ParentKind::Ipvlan(IpvlanMode::L2, IpvlanFlag::Bridge);
    drop((containers, lan));
    let (host, lan) = host_and_neighbour();
    host.ip("link add eth0 type veth peer name eth1");
    let network = host.within(|| ParentNetwork::open(ParentConfig { kind, ..config("lan0") })).expect("open");
    let container = Namespace::bare();
    lan.serve_tcp("0.0.0.0:80");
    match network.attach(container.fd(), &at(13)) {
        Ok(()) => assert_eq!(container.tcp("10.9.0.2:80").as_deref(), Some("10.9.0.13")),
        Err(error) => assert!(error.to_string().contains("this kernel has no such interfaces"), "{error}"),
    }
}

/// A program that keeps a table to itself for as long as it runs; what it forwards, nobody else can say.
struct Owner(std::process::Child);

impl Owner {
    fn new(host: &Namespace, table: &str) -> Self {
        let mut command = std::process::Command::new("ip");
        command.args(["netns", "exec", &host.name, "nft", "-i"]).stdin(std::process::Stdio::piped());
        let mut owner = command.stdout(std::process::Stdio::null()).spawn().expect("start nft");
        let lines = format!(
            "add table inet {table} {{ flags owner; }}\n\
             add chain inet {table} way {{ type filter hook forward priority 5; policy drop; }}\n"
        );
        let input = owner.stdin.as_mut().expect("its input");
        std::io::Write::write_all(input, lines.as_bytes()).expect("tell nft");
        while !host.tables().contains("chain way") {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Self(owner)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // What it reads ends, and so does it.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// It cannot be told to let containers through, so that ports of theirs are not published behind its back.
#[test]
fn privileged_a_table_that_nobody_else_may_change_is_in_the_way() {
    let (host, lan) = host_and_neighbour();
    host.exec("nft", &["add table ip other"]);
    host.exec("nft", &["add chain ip other way { type filter hook forward priority 0; policy drop; }"]);
    let owner = Owner::new(&host, "alone");
    let firewall = firewall(&host);
    host.within(|| firewall.keep()).expect("keep");
    let network = open(&host, &firewall, config("ls0", 50));
    // What can be done is done.
    assert_eq!(host.tables().matches("comment \"longshore-ls0\"").count(), 2, "{}", host.tables());
    let container = Namespace::bare();
    let mut e = endpoint("a", 50, 2);
    e.ports = vec![port(Transport::Tcp, ANY, 8080, 80)];
    let error = network.attach(container.fd(), &e).expect_err("nobody would reach it").to_string();
    for part in ["chain way of table inet alone drops forwarded packets", "ls0", "keeps the table to itself"]
    {
        assert!(error.contains(part), "{error}");
    }
    assert!(!container.links().contains("eth0"), "nothing is left");
    // Without ports, or with those of the host alone, there is nothing that would be open in name only.
    network.attach(container.fd(), &endpoint("a", 50, 2)).expect("attach");
    network.detach("a").expect("detach");
    let own = port(Transport::Tcp, [127, 0, 0, 1], 8080, 80);
    network.attach(container.fd(), &Endpoint { ports: vec![own], ..e.clone() }).expect("attach");
    container.serve_tcp("0.0.0.0:80");
    assert!(host.tcp("127.0.0.1:8080").is_some());
    network.detach("a").expect("detach");
    drop(owner);
    network.attach(container.fd(), &e).expect("attach");
    assert!(lan.tcp("10.9.0.1:8080").is_some());
    // One that comes later is in the way of what is published from then on, and the table beside it is no worse for it.
    let owner = Owner::new(&host, "alone");
    let mut second = endpoint("b", 50, 3);
    second.ports = vec![port(Transport::Tcp, ANY, 8081, 80)];
    let other = Namespace::bare();
    let refused = || match network.attach(other.fd(), &second) {
        Ok(_) => {
            network.detach("b").expect("detach");
            false
        }
        Err(_) => true,
    };
    while !refused() {
        std::thread::sleep(SHORT);
    }
    drop(owner);
    network.attach(other.fd(), &second).expect("attach");
    assert_eq!(host.tables().matches("comment \"longshore-ls0\"").count(), 2, "{}", host.tables());
}

/// Where it is firewalld's, it is asked; and who has no bus is told what to say to it.
#[test]
fn privileged_firewalld_that_cannot_be_asked_is_spoken_of() {
    const BUS: &str = "DBUS_SYSTEM_BUS_ADDRESS";
    let nowhere = "unix:path=/nonexistent/bus";
    if std::env::var(BUS).as_deref() != Ok(nowhere) {
        // The bus of the machine has nothing to do with this.
        let own = std::env::current_exe().expect("own program");
        let name = "privileged_firewalld_that_cannot_be_asked_is_spoken_of";
        let done = std::process::Command::new(own).args(["--exact", name]).env(BUS, nowhere).status();
        assert!(done.expect("run").success());
        return;
    }
    let (host, _lan) = host_and_neighbour();
    let _owner = Owner::new(&host, "firewalld");
    let network = open(&host, &firewall(&host), config("ls0", 51));
    let mut e = endpoint("a", 51, 2);
    e.ports = vec![port(Transport::Tcp, ANY, 8080, 80)];
    let container = Namespace::bare();
    let error = network.attach(container.fd(), &e).expect_err("nobody would reach it").to_string();
    for part in [
        "table inet firewalld",
        "/nonexistent/bus",
        "firewall-cmd --permanent --zone=trusted --add-interface=ls0",
    ] {
        assert!(error.contains(part), "{error}");
    }
    network.attach(container.fd(), &endpoint("a", 51, 2)).expect("attach");
    network.remove().expect("remove");
}
