use super::*;
use crate::Transport;

fn config() -> BridgeConfig {
    BridgeConfig {
        bridge: "longshore0".to_owned(),
        subnets: vec![subnet("172.17.0.0/16", "172.17.0.1")],
        mtu: 1500,
        masquerade: true,
        icc: true,
        internal: false,
        modes: [GatewayMode::Nat; 2],
    }
}

fn subnet(net: &str, gateway: &str) -> crate::Subnet {
    crate::Subnet { net: net.parse().unwrap(), gateway: gateway.parse().unwrap() }
}

fn free(ports: Vec<PortMap>) -> Endpoint {
    Endpoint { guarded: false, ..container(ports) }
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
        guarded: true,
    }
}

/// The tables with one network.
fn ruleset(config: &BridgeConfig) -> String {
    let mut all = base("longshore");
    let rules = network_rules(config);
    all.chains.extend(rules.chains);
    all.elements.extend(rules.elements);
    all.to_string()
}

#[test]
fn the_rules_of_a_network() {
    let both = || {
        let subnets = vec![subnet("172.17.0.0/16", "172.17.0.1"), subnet("fd00:17::/64", "fd00:17::1")];
        BridgeConfig { subnets, ..config() }
    };
    let text = ruleset(&both());
    for part in [
        "\tmap home {\n\t\ttype ipv4_addr : verdict\n\t\tflags interval\n\t\telements = { 172.17.0.0/16 : jump home-longshore0 }\n\t}\n",
        "\tmap enter {\n\t\ttype ifname : verdict\n\t\telements = { \"longshore0\" : jump enter-longshore0 }\n\t}\n",
        "\tmap publish-address-range {\n\t\ttype ipv4_addr . inet_proto . inet_service : ipv4_addr\n\t\tflags interval\n\t}\n",
        r#"	chain guard {
		type filter hook prerouting priority raw; policy accept;
		iifname != "lo" ip daddr 127.0.0.0/8 drop
		ip daddr vmap @home
		ip6 daddr vmap @home6
	}
"#,
        r#"	chain publish-output {
		type nat hook output priority -100; policy accept;
		fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @publish-address
		fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @publish-address-range
		meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport map @publish
		meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport map @publish-range
		ip6 daddr != ::1 fib daddr type local dnat ip6 to ip6 daddr . meta l4proto . th dport map @publish6-address
"#,
        r#"	chain source {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 127.0.0.0/8 oifname @enter masquerade
		ip saddr vmap @source
		ip6 saddr vmap @source6
	}
"#,
        r#"	chain forward {
		type filter hook forward priority filter; policy accept;
		iifname @internal oifname != @internal drop
		oifname vmap @enter
	}
"#,
        r#"	chain enter-longshore0 {
		ct state established,related accept
		ct status dnat accept
		iifname "longshore0" accept
		drop
	}

	chain home-longshore0 {
		iifname != "longshore0" drop
	}

	chain source-longshore0 {
		oifname != "longshore0" masquerade
		oifname "longshore0" ct status dnat masquerade
	}
}
"#,
    ] {
        assert!(text.contains(part), "{part}\nin\n{text}");
    }
    let closed = ruleset(&BridgeConfig { masquerade: false, icc: false, ..both() });
    assert!(closed.contains("\t\tiifname \"longshore0\" drop\n"), "{closed}");
    assert!(!closed.contains("\t\toifname != \"longshore0\" masquerade\n"), "{closed}");
    let internal = ruleset(&BridgeConfig { internal: true, ..config() });
    assert!(
        internal.contains("\tchain enter-longshore0 {\n\t\tiifname != \"longshore0\" drop\n"),
        "{internal}"
    );
    assert!(internal.contains("elements = { \"longshore0\" }"), "{internal}");
    assert!(!internal.contains("oifname != \"longshore0\" masquerade"), "{internal}");
    let modes = [GatewayMode::Routed, GatewayMode::NatUnprotected];
    let open = ruleset(&BridgeConfig { modes, ..both() });
    assert!(
        open.contains(
            r#"		iifname "longshore0" accept
		meta l4proto icmp accept
		ip daddr . meta l4proto . th dport @open accept
		meta nfproto ipv6 accept
		drop
"#
        ),
        "{open}"
    );
    assert!(
        !open.contains(" : jump home-longshore0") && open.contains("fd00:17::/64 : jump source-"),
        "{open}"
    );
}

#[test]
fn a_container_is_who_it_is() {
    let plan = endpoint(&config(), &container(Vec::new()), false).unwrap();
    let text: Vec<String> = plan.elements.iter().map(|e| format!("{} {e}", e.set.name)).collect();
    let port = &plan.host_if;
    assert_eq!(
        text,
        [
            format!("guests \"{port}\""),
            format!("guest-ether \"{port}\" . 02:42:ac:11:00:02"),
            format!("guest-ipv4 \"{port}\" . 02:42:ac:11:00:02 . 172.17.0.2"),
        ]
    );
    let free = Endpoint { guarded: false, ..container(Vec::new()) };
    assert!(endpoint(&config(), &free, false).unwrap().elements.is_empty());
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
        count: 1,
    };
    let ports = vec![port("0.0.0.0", 8080), port("127.0.0.1", 8081)];
    let plan = endpoint(&config(), &free(ports), false).unwrap();
    assert_eq!(plan.side.addresses, ["172.17.0.2/16".parse().unwrap()]);
    let places =
        |plan: &EndpointPlan| plan.elements.iter().map(|e| format!("{} {e}", e.set.name)).collect::<Vec<_>>();
    assert_eq!(
        places(&plan),
        ["publish tcp . 8080 : 172.17.0.2 . 80", "publish-address 127.0.0.1 . tcp . 8081 : 172.17.0.2 . 80"]
    );
    assert!(plan.elements.iter().all(|e| e.comment.as_ref() == Some(&plan.host_if)));
    // In a row, to the same numbers: one element. To others: one each.
    let row = |container_port| PortMap { container_port, count: 3, ..port("0.0.0.0", 8000) };
    let plan = endpoint(&config(), &free(vec![row(8000)]), false).unwrap();
    assert_eq!(places(&plan), ["publish-range tcp . 8000-8002 : 172.17.0.2"]);
    let plan = endpoint(&config(), &free(vec![row(80)]), false).unwrap();
    assert_eq!(places(&plan)[2], "publish tcp . 8002 : 172.17.0.2 . 82");
    // Where one routes to containers, the ports are the containers'.
    let routed = BridgeConfig { modes: [GatewayMode::Routed; 2], ..config() };
    let plan = endpoint(&routed, &free(vec![PortMap { host_port: 0, ..row(80) }]), false).unwrap();
    assert_eq!(places(&plan), ["open 172.17.0.2 . tcp . 80-82"]);
    let beyond = PortMap { count: 3, ..port("0.0.0.0", 65534) };
    assert!(endpoint(&config(), &free(vec![beyond]), false).is_err());
    for bad in [port("0.0.0.0", 0), port("::", 80)] {
        assert!(endpoint(&config(), &free(vec![bad]), false).is_err(), "{bad:?}");
    }
    let subnets = vec![subnet("fd00:17::/64", "fd00:17::1")];
    let six = Endpoint {
        addresses: vec!["fd00:17::2".parse().unwrap()],
        ports: vec![port("::", 80), port("::1", 81)],
        ..free(Vec::new())
    };
    let plan = endpoint(&BridgeConfig { subnets, ..config() }, &six, false).unwrap();
    assert_eq!(
        places(&plan),
        ["publish6 tcp . 80 : fd00:17::2 . 80", "publish6-address ::1 . tcp . 81 : fd00:17::2 . 80"]
    );
    assert_eq!(plan.side.routes, [Route::Via("fd00:17::1".parse().unwrap())]);
    for (icc, filtered, isolated) in [(true, false, false), (false, true, false), (false, false, true)] {
        let plan = endpoint(&BridgeConfig { icc, ..config() }, &container(Vec::new()), filtered).unwrap();
        assert_eq!((plan.isolated, plan.hairpin), (isolated, filtered));
    }
}

#[test]
fn who_asks_is_told_the_rule_that_the_plan_has() {
    let port = |host_ip: &str, host_port, container_port, count| PortMap {
        transport: Transport::Tcp,
        host_ip: host_ip.parse().unwrap(),
        host_port,
        container_port,
        count,
    };
    let subnets = vec![subnet("172.17.0.0/16", "172.17.0.1"), subnet("fd00:17::/64", "fd00:17::1")];
    let both = BridgeConfig { subnets, ..config() };
    let mut endpoint = free(Vec::new());
    endpoint.addresses.push("fd00:17::2".parse().unwrap());
    let told = |config: &BridgeConfig, port: PortMap| {
        config.rule_for(&endpoint, &port).map(|rule| format!("{:?} {}", rule.kind, rule.name))
    };
    for (port, rule) in [
        (port("0.0.0.0", 8080, 80, 1), "Map publish"),
        (port("127.0.0.1", 8080, 80, 1), "Map publish-address"),
        (port("192.0.2.1", 8000, 8000, 3), "Map publish-address-range"),
        (port("0.0.0.0", 8000, 80, 3), "Map publish"),
        (port("::", 8000, 8000, 3), "Map publish6-range"),
        (port("2001:db8::1", 8080, 80, 1), "Map publish6-address"),
    ] {
        assert_eq!(told(&both, port).as_deref(), Some(rule), "{port:?}");
    }
    assert_eq!(told(&both, port("::1", 8080, 80, 1)), None);
    assert_eq!(told(&config(), port("0.0.0.0", 0, 80, 1)), None);
    let routed = BridgeConfig { modes: [GatewayMode::Routed; 2], ..both.clone() };
    assert_eq!(told(&routed, port("0.0.0.0", 0, 80, 1)).as_deref(), Some("Set open"));
    assert_eq!(told(&routed, port("::1", 0, 80, 1)).as_deref(), Some("Set open6"));
    let open = BridgeConfig { modes: [GatewayMode::Nat, GatewayMode::NatUnprotected], ..both };
    let chain = |config: &BridgeConfig, ipv6| config.rule_for_routes(ipv6).map(|rule| rule.name);
    assert_eq!((chain(&open, false), chain(&open, true)), (None, Some("enter-longshore0".to_owned())));
    assert_eq!(chain(&BridgeConfig { internal: true, ..open }, true), None);
    assert_eq!(chain(&routed, true), None);
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let changes: [fn(&mut BridgeConfig); 10] = [
        |c| c.bridge = String::new(),
        |c| c.bridge = "sixteen-letters-".to_owned(),
        |c| c.bridge = "a/b".to_owned(),
        |c| c.bridge = "a\"b".to_owned(),
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
