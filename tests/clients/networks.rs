//! Networks that people make: names, addresses of both families, what may pass, and what of it lasts.

use std::path::Path;

use crate::harness::{Client, Daemon, Done, in_netns, wait_until};
use crate::network::{get, neighbour, web};

const BOTH: [Client; 2] = [Client::Docker, Client::Longshore];

fn say(d: &Daemon, client: Client, line: &str) -> Done {
    d.run(client, line.split(' '))
}

fn docker(d: &Daemon, line: &str) -> String {
    say(d, Client::Docker, line).ok()
}

/// A page, as a container sees it.
fn page(d: &Daemon, container: &str, server: &str) -> Done {
    d.docker(["exec", container, "timeout", "3", "wget", "-qO-", &format!("http://{server}/")])
}

/// What a name stands for, as a container is told.
pub(crate) fn lookup(d: &Daemon, container: &str, name: &str) -> Vec<String> {
    let answer = d.docker(["exec", container, "nslookup", name]).stdout;
    let (_, answers) = answer.split_once("\n\n").unwrap_or_default();
    answers.lines().filter_map(|l| l.strip_prefix("Address: ")).map(str::to_owned).collect()
}

pub(crate) fn addresses(d: &Daemon, container: &str) -> String {
    d.inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.GlobalIPv6Address}} {{end}}", container)
}

pub(crate) fn sleeper(d: &Daemon, name: &str, options: &str) {
    docker(d, &format!("run -d --name {name} {options} busybox sleep 1000"));
}

#[test]
fn privileged_containers_know_each_other_by_name() {
    let mut d = Daemon::start();
    d.load("busybox");
    docker(&d, "network create --ipv6 one");
    say(&d, Client::Longshore, "network create two").ok();
    web(&d, "web", &["--network", "one", "--network-alias", "www"]);
    sleeper(&d, "near", "--network one --link web:linked");
    sleeper(&d, "far", "--network two");
    let id = d.inspect("{{.Id}}", "web");
    let own = addresses(&d, "web");
    let own: Vec<&str> = own.split_whitespace().collect();
    assert_eq!(own.len(), 2, "one of each family: {own:?}");
    let check = |d: &Daemon, name: &str| {
        for name in [name, "www", "WWW", "linked", &format!("{name}.one"), &id[..12]] {
            assert_eq!(lookup(d, "near", name), own, "{name}");
        }
        wait_until("the web server answers by its name", || page(d, "near", name).stdout == "web\n");
        for name in [name, "www", "near"] {
            assert!(lookup(d, "far", name).is_empty(), "{name} is of another network");
        }
    };
    check(&d, "web");
    let joined = docker(&d, "run --rm --network container:near busybox nslookup web");
    assert!(joined.contains(own[0]), "{joined}");
    // The link is one container's own name, and other containers' pages cannot be had by address.
    assert!(lookup(&d, "web", "linked").is_empty());
    assert_ne!(page(&d, "far", own[0]).code, 0);
    let by_address = d.docker(["exec", "near", "nslookup", own[0]]).stdout;
    assert!(by_address.contains("web.one"), "{by_address}");
    docker(&d, "rename web other");
    assert!(lookup(&d, "near", "web").is_empty());
    docker(&d, "rename other web");
    d.kill9();
    d.launch();
    check(&d, "web");
    // Several of one name are all told.
    sleeper(&d, "more", "--network one --network-alias www");
    assert_eq!(lookup(&d, "near", "www").len(), 4);
    docker(&d, "stop -t 0 web more");
    assert!(lookup(&d, "near", "web").is_empty() && lookup(&d, "near", "www").is_empty());
    d.finish();
}

/// A name server beside the daemon's machine, which knows one address for all names, and says what it was asked.
fn name_server(world: &Path) -> std::process::Child {
    let code = "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('192.0.2.2', 53))\n\
        while True:\n    m, a = s.recvfrom(512); four = m[-4:-2] == b'\\x00\\x01'\n    \
        print(m[13:13 + m[12]].decode(), flush=True)\n    q = m[12:]; n = q.index(b'\\0') + 5\n    four = q[n - 4:n - 2] == b'\\0\\1'\n    \
        r = b'\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x1e\\0\\4\\xc0\\0\\2\\7' if four else b''\n    \
        s.sendto(m[:2] + b'\\x81\\x80\\0\\1\\0' + bytes([1 if four else 0]) + b'\\0\\0\\0\\0' + q[:n] + r, a)";
    let mut command = std::process::Command::new("nsenter");
    command.arg(format!("--net={}", world.display())).args(["python3", "-c", code]);
    command.stdout(std::process::Stdio::piped()).spawn().expect("a name server")
}

#[test]
fn privileged_atk_44_names_are_asked_for_outside_but_not_from_internal_networks() {
    let d = Daemon::start();
    d.load("busybox");
    let world = neighbour(&d);
    let mut server = name_server(&world);
    docker(&d, "network create open");
    docker(&d, "network create --internal shut");
    sleeper(&d, "outward", "--network open --dns 192.0.2.2");
    sleeper(&d, "inward", "--network shut --dns 192.0.2.2");
    wait_until("the name server answers", || lookup(&d, "outward", "first.example") == ["192.0.2.7"]);
    assert!(lookup(&d, "inward", "second.example").is_empty());
    assert_ne!(d.docker(["exec", "inward", "ping", "-c1", "-w1", "192.0.2.2"]).code, 0);
    docker(&d, "exec outward ping -c1 -w2 192.0.2.2");
    let route = docker(&d, "exec inward ip route");
    assert!(!route.contains("default"), "{route}");
    // Nobody comes in, not even through a published port, and the networks do not hear each other.
    web(&d, "inside", &["--network", "shut", "-p", "8080:80"]);
    wait_until("it serves its own network", || page(&d, "inward", "inside").stdout == "inside\n");
    assert_eq!(get(&world, "192.0.2.1:8080"), None);
    let ip = addresses(&d, "inside");
    assert_ne!(page(&d, "outward", ip.trim()).code, 0);
    // On both networks it may ask; the answers of its own networks stay.
    docker(&d, "network connect open inward");
    assert_eq!(lookup(&d, "inward", "third.example"), ["192.0.2.7"]);
    docker(&d, "network disconnect open inward");
    assert!(lookup(&d, "inward", "fourth.example").is_empty());
    server.kill().expect("it runs");
    let asked = server.wait_with_output().expect("its words").stdout;
    let asked = String::from_utf8_lossy(&asked).into_owned();
    assert!(asked.contains("first") && asked.contains("third"), "{asked}");
    assert!(
        !asked.contains("second") && !asked.contains("fourth"),
        "an internal network's question went out: {asked}"
    );
    d.finish();
}

#[test]
fn privileged_containers_change_networks_while_they_run() {
    let d = Daemon::start();
    d.load("busybox");
    for client in BOTH {
        let say = |line: &str| say(&d, client, line);
        say("network create one").ok();
        say("network create --subnet 10.77.0.0/24 --gateway 10.77.0.9 --ip-range 10.77.0.128/25 --aux-address nas=10.77.0.130 two").ok();
        sleeper(&d, "cc", "--network one --network name=two,ip=10.77.0.50");
        let routes = || docker(&d, "exec cc ip route");
        let links = || docker(&d, "exec cc ls /sys/class/net");
        assert!(routes().starts_with("default via 172."), "{}", routes());
        assert_eq!(links().split_whitespace().collect::<Vec<_>>(), ["eth0", "eth1", "lo"]);
        assert!(addresses(&d, "cc").contains("10.77.0.50"));
        say("network disconnect one cc").ok();
        assert!(routes().starts_with("default via 10.77.0.9 dev eth1"), "{}", routes());
        assert_eq!(links().split_whitespace().collect::<Vec<_>>(), ["eth1", "lo"]);
        say("network connect --alias seen one cc").ok();
        assert_eq!(links().split_whitespace().collect::<Vec<_>>(), ["eth0", "eth1", "lo"]);
        assert_eq!(lookup(&d, "cc", "seen").len(), 1);
        say("network disconnect one cc").ok();
        say("network connect --driver-opt com.docker.network.endpoint.ifname=lan0 \
             --driver-opt com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1 one cc")
        .ok();
        assert_eq!(docker(&d, "exec cc cat /proc/sys/net/ipv4/conf/lan0/log_martians"), "1");
        let twice = say("network connect one cc").fails(1);
        assert!(twice.contains("endpoint with name cc already exists in network one"), "{twice}");
        // From the range, and not what others have.
        sleeper(&d, "next", "--network two");
        assert_eq!(addresses(&d, "next").trim(), "10.77.0.128");
        let taken = say("run --rm --network two --ip 10.77.0.50 busybox true").fails(125);
        assert!(taken.contains("10.77.0.50"), "{taken}");
        let used = say("network rm two").fails(1);
        assert!(used.contains("network two has active endpoints"), "{used}");
        // What is asked for outlives a stop; connections of a container that does not run count at its start.
        docker(&d, "stop -t 0 cc");
        say("network disconnect one cc").ok();
        docker(&d, "start cc");
        assert_eq!(addresses(&d, "cc").trim(), "10.77.0.50");
        docker(&d, "rm -f cc next");
        say("network rm one two").ok();
        let gone = say("network rm one").fails(1);
        assert!(gone.contains("network one not found"), "{gone}");
        say("network rm --force one").ok();
    }
    d.finish();
}

#[test]
fn privileged_ports_names_and_files_follow_a_change_of_networks() {
    let mut d = Daemon::start();
    d.load("busybox");
    docker(&d, "network create aaa");
    docker(&d, "network create --internal shut");
    web(&d, "web", &["-p", "8080:80"]);
    let file = |d: &Daemon, path: &str| docker(d, &format!("exec web cat /etc/{path}"));
    let servers = file(&d, "resolv.conf");
    let serves = |d: &Daemon| ["127.0.0.1:8080", "[::1]:8080"].map(|at| get(&d.netns(), at).is_some());
    let check = |d: &Daemon, names: bool, open: bool| {
        wait_until("published ports are right", || serves(d) == [open, open]);
        assert_eq!(!lookup(d, "web", "web").is_empty(), names);
        let conf = file(d, "resolv.conf");
        assert_eq!(conf.contains("127.0.0.11"), names, "{conf}");
        let own = addresses(d, "web");
        let hosts = file(d, "hosts");
        let named: Vec<&str> = hosts.lines().filter(|l| l.starts_with("172.")).collect();
        assert_eq!(named.len(), own.split_whitespace().count(), "{hosts}");
        assert!(own.split_whitespace().all(|ip| hosts.contains(ip)), "{own}: {hosts}");
    };
    check(&d, false, true);
    // The first by name of equal ones has the default route, as with Docker; ports lead over it.
    docker(&d, "network connect aaa web");
    let gateway = d.inspect("{{(index .NetworkSettings.Networks \"aaa\").Gateway}}", "web");
    assert!(docker(&d, "exec web ip route").starts_with(&format!("default via {gateway} ")));
    check(&d, true, true);
    docker(&d, "network disconnect bridge web");
    check(&d, true, true);
    docker(&d, "network connect shut web");
    docker(&d, "network disconnect aaa web");
    check(&d, true, false);
    assert!(!docker(&d, "exec web ip route").contains("default"));
    d.kill9();
    d.launch();
    check(&d, true, false);
    let aliased = say(&d, Client::Docker, "network connect --alias www bridge web").fails(1);
    assert!(
        aliased.contains("network-scoped alias is supported only for containers in user defined networks"),
        "{aliased}"
    );
    docker(&d, "network connect bridge web");
    check(&d, true, true);
    docker(&d, "network disconnect shut web");
    check(&d, false, true);
    assert_eq!(file(&d, "resolv.conf"), servers);
    // What the container has made of a file stays.
    d.docker(["exec", "web", "sh", "-c", "echo nameserver 9.9.9.9 > /etc/resolv.conf"]).ok();
    docker(&d, "network connect aaa web");
    assert_eq!(file(&d, "resolv.conf"), "nameserver 9.9.9.9");
    d.finish();
}

#[test]
fn privileged_ports_are_published_on_both_families() {
    let mut d = Daemon::start();
    d.load("busybox");
    let world = neighbour(&d);
    docker(&d, "network create --ipv6 dual");
    web(&d, "dual", &["--network", "dual", "-p", "8080:80"]);
    web(&d, "four", &["-p", "8081:80", "-p", "[2001:db8::1]:8082:80"]);
    assert_eq!(docker(&d, "port dual"), "80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080");
    let check = |d: &Daemon| {
        wait_until("they answer", || get(&d.netns(), "127.0.0.1:8080").as_deref() == Some("dual"));
        for server in ["192.0.2.1:8080", "[2001:db8::1]:8080"] {
            assert_eq!(get(&world, server).as_deref(), Some("dual"), "{server}");
        }
        // One without an address of IPv6 is served on the host's all the same.
        for server in ["192.0.2.1:8081", "[2001:db8::1]:8081", "[2001:db8::1]:8082"] {
            assert_eq!(get(&world, server).as_deref(), Some("four"), "{server}");
        }
        assert_eq!(get(&world, "192.0.2.1:8082"), None);
        assert_eq!(get(&d.netns(), "[::1]:8080").as_deref(), Some("dual"));
        assert_eq!(get(&d.netns(), "[::1]:8081").as_deref(), Some("four"));
    };
    check(&d);
    // Who asks is known where a rule leads the packets.
    let seen = "while :; do nc -l -p 90 -e sh -c 'netstat -tn | grep :90'; done";
    d.docker([
        "run",
        "-d",
        "--name",
        "who",
        "--network",
        "dual",
        "-p",
        "8090:90",
        "busybox",
        "sh",
        "-c",
        seen,
    ])
    .ok();
    let ask = "curl -s -m 3 --http0.9 http://[2001:db8::1]:8090/";
    wait_until("the caller's address is seen", || in_netns(&world, ask).stdout.contains("2001:db8::2"));
    d.kill9();
    d.launch();
    check(&d);
    let taken = say(&d, Client::Docker, "run --rm -p [::]:8081:80 busybox true").fails(125);
    assert!(taken.contains("port is already allocated"), "{taken}");
    docker(&d, "rm -f dual four who");
    for server in ["[2001:db8::1]:8080", "[2001:db8::1]:8081"] {
        assert_eq!(get(&world, server), None, "{server}");
    }
    d.finish();
}

#[test]
fn privileged_ports_of_a_running_container_change() {
    let mut d = Daemon::start();
    d.load("busybox");
    let world = neighbour(&d);
    let ours = |d: &Daemon, line: &str| say(d, Client::Longshore, line);
    web(&d, "web", &["-p", "8080:80", "-p", "8085:80"]);
    web(&d, "other", &["-p", "8099:80"]);
    let pid = d.inspect("{{.State.Pid}}", "web");
    let answers = |d: &Daemon, port: u16| {
        [get(&d.netns(), &format!("127.0.0.1:{port}")), get(&world, &format!("[2001:db8::1]:{port}"))]
            .map(|page| page.as_deref() == Some("web"))
    };
    // A download over a port that stays is not disturbed.
    let slow = "while :; do (echo HTTP/1.0 200 OK; echo; sleep 2; echo whole) | nc -l -p 81; done";
    d.docker(["exec", "-d", "web", "sh", "-c", slow]).ok();
    ours(&d, "update -p +8081:81 web").ok();
    let ask = "for i in 1 2 3 4 5; do curl -s -m 9 http://192.0.2.1:8081/ && exit; sleep 0.2; done; exit 1";
    std::thread::scope(|s| {
        let page = s.spawn(|| in_netns(&world, ask));
        std::thread::sleep(std::time::Duration::from_millis(700));
        ours(&d, "update -p +9000:80 -p -8080 web").ok();
        assert_eq!(page.join().expect("a page").ok(), "whole");
    });
    assert_eq!([8080, 8085, 9000].map(|port| answers(&d, port)), [[false; 2], [true; 2], [true; 2]]);
    // Over to another port of the container, and the host's port of another container.
    ours(&d, "update -p -8085 -p +8085:81 -p -9000 web").ok();
    assert_eq!([8085, 9000].map(|port| answers(&d, port)), [[false; 2], [false; 2]]);
    let shown = docker(&d, "port web");
    assert_eq!(
        shown,
        "81/tcp -> 0.0.0.0:8081\n81/tcp -> 0.0.0.0:8085\n81/tcp -> [::]:8081\n81/tcp -> [::]:8085"
    );
    for (change, want) in [
        ("+8099:80", "port is already allocated"),
        ("-7777", "port 7777 of the host is not published"),
        ("+99999:80", "invalid"),
    ] {
        let failed = ours(&d, &format!("update -p -8085 -p {change} web")).fails(1);
        assert!(failed.contains(want), "{failed}");
        assert_eq!(docker(&d, "port web"), shown, "nothing has changed");
    }
    // The API has it, too; all that is to be published is said.
    let body = r#"{"PortBindings":{"80/tcp":[{"HostPort":"8080"}]}}"#;
    let request = |body: &str| {
        let length = body.len();
        d.raw(&format!(
            "POST /containers/web/update HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        ))
    };
    assert!(request(body).contains("200 OK"), "{}", request(body));
    assert_eq!([8080, 8085].map(|port| answers(&d, port)), [[true; 2], [false; 2]]);
    let limits = request(r#"{"Memory":134217728}"#);
    assert!(limits.contains("501") && limits.contains("changing Memory of a container"), "{limits}");
    assert_eq!(d.inspect("{{.State.Pid}}", "web"), pid, "it ran on");
    docker(&d, "update --restart unless-stopped web");
    assert_eq!(d.inspect("{{.HostConfig.RestartPolicy.Name}}", "web"), "unless-stopped");
    // It lasts; and one that does not run is changed for its next start.
    d.kill9();
    d.launch();
    assert_eq!(answers(&d, 8080), [true; 2]);
    docker(&d, "stop -t 0 web");
    ours(&d, "update -p +9001:80 web").ok();
    docker(&d, "start web");
    wait_until("it publishes the new port", || answers(&d, 9001) == [true; 2]);
    ours(&d, "update -p -8080 -p -9001 web").ok();
    assert_eq!(docker(&d, "port web"), "");
    assert_eq!([8080, 9001].map(|port| answers(&d, port)), [[false; 2]; 2]);
    d.finish();
}

#[test]
fn privileged_networks_last_and_leave_nothing() {
    let mut d = Daemon::start();
    d.load("busybox");
    docker(&d, "network create --ipv6 --label keep=yes --subnet 10.78.0.0/24 lasting");
    docker(&d, "network create passing");
    web(&d, "web", &["--network", "lasting", "--ip", "10.78.0.7", "--restart", "always", "-p", "8080:80"]);
    let before = docker(&d, "network inspect lasting -f {{.Id}}{{.IPAM.Config}}{{.Labels}}");
    let links = |d: &Daemon| in_netns(&d.netns(), "ip -o link").ok().matches(": br-").count();
    assert_eq!(links(&d), 2);
    // Stopped with all containers, the daemon takes its networks from the host; started, it brings them back.
    docker(&d, "kill web");
    d.terminate();
    assert_eq!(links(&d), 0);
    assert!(!in_netns(&d.netns(), "nft list ruleset").ok().contains("longshore"));
    d.launch();
    assert_eq!(docker(&d, "network inspect lasting -f {{.Id}}{{.IPAM.Config}}{{.Labels}}"), before);
    wait_until("its policy starts the container", || {
        get(&d.netns(), "127.0.0.1:8080").as_deref() == Some("web")
    });
    assert!(addresses(&d, "web").starts_with("10.78.0.7 fd"));
    for client in BOTH {
        let pruned = say(&d, client, "network prune -f").ok();
        assert_eq!(pruned.contains("passing"), matches!(client, Client::Docker), "{pruned}");
    }
    docker(&d, "rm -f web");
    say(&d, Client::Longshore, "network prune -f --filter label=keep=no").ok();
    assert_eq!(links(&d), 1);
    assert!(say(&d, Client::Longshore, "network prune -f").ok().contains("lasting"));
    assert_eq!(links(&d), 0);
    d.finish();
}

#[test]
fn privileged_networks_that_cannot_be_are_refused() {
    let d = Daemon::start();
    d.load("busybox");
    docker(&d, "network create one");
    let links = in_netns(&d.netns(), "ip -o link").ok();
    for client in BOTH {
        for (options, want) in [
            ("one", "network with name one already exists"),
            ("bridge", "operation is not permitted on predefined bridge network"),
            ("-d nosuch x", "plugin \"nosuch\" not found"),
            ("-d overlay x", "the network driver overlay is not supported yet"),
            ("-d macvlan x", "needs an interface of the host's"),
            ("--subnet 172.18.0.0/16 x", "Pool overlaps with other one on this address space"),
            ("--subnet 10.0.0.1/24 x", "it should be 10.0.0.0/24"),
            ("--subnet 10.0.0.0/24 --gateway 10.0.1.1 x", "no matching subnet for gateway"),
            ("--subnet fd00:1::/64 x", "IPv6"),
            ("--opt nosuch=1 x", "network option nosuch=1"),
            ("--opt com.docker.network.driver.mtu=big x", "want a number"),
            ("--opt com.docker.network.bridge.name=lo x", "interface lo exists already"),
            ("--opt com.docker.network.bridge.host_binding_ipv4=::1 x", "want an IPv4 address"),
            ("--ipv4=false x", "IPv4 or IPv6 must be enabled"),
            ("a/b", "slashes and control characters"),
        ] {
            let failed = say(&d, client, &format!("network create {options}")).fails(1);
            assert!(failed.contains(want), "{options}: {failed}");
        }
        for (line, code, want) in [
            ("network rm bridge", 1, "bridge is a pre-defined network and cannot be removed"),
            ("network connect one nobody", 1, "No such container: nobody"),
            ("network connect nosuch nobody", 1, "network nosuch not found"),
            ("run --rm --network one --ip 10.9.9.9 busybox true", 125, "user configured subnets"),
            (
                "run --rm --network-alias x --network one --network host busybox true",
                125,
                "conflicting options",
            ),
        ] {
            let failed = say(&d, client, line).fails(code);
            assert!(failed.contains(want), "{line}: {failed}");
        }
    }
    assert_eq!(in_netns(&d.netns(), "ip -o link").ok(), links, "nothing is left of them");
    d.finish();
}

/// Containers on the network of one of the host's interfaces, under their own addresses.
#[test]
fn privileged_macvlan_networks_are_the_hosts_own() {
    let mut d = Daemon::start();
    d.load("busybox");
    let world = neighbour(&d);
    let create = |d: &Daemon, options: &str| say(d, Client::Docker, &format!("network create {options}"));
    let lan = "-d macvlan --subnet 192.0.2.0/24 --gateway 192.0.2.2 --ip-range 192.0.2.128/25";
    create(&d, &format!("{lan} -o parent=out0 -o macvlan_mode=bridge lan")).ok();
    for (options, words) in [
        (format!("{lan} other"), "needs an interface of the host's: -o parent=eth0"),
        (
            "-d macvlan --subnet 10.77.0.0/24 -o parent=none0 other".to_owned(),
            "the parent interface none0 is not there",
        ),
        (format!("{lan} -o parent=out0 -o macvlan_mode=x other"), "requested macvlan mode 'x' is not valid"),
        (
            "-d macvlan --subnet 10.77.0.0/24 -o parent=out0 other".to_owned(),
            "network lan is already using parent interface out0",
        ),
    ] {
        let error = create(&d, &options).fails(1);
        assert!(error.contains(words), "{options}: {error}");
    }
    sleeper(&d, "client", "--network lan");
    web(&d, "web", &["--network", "lan", "--ip", "192.0.2.200", "--mac-address", "02:00:00:00:00:c8"]);
    wait_until("the neighbour reaches it", || get(&world, "192.0.2.200").as_deref() == Some("web"));
    assert_eq!(page(&d, "client", "web").ok(), "web", "by its name");
    assert!(in_netns(&world, "ip neigh").ok().contains("02:00:00:00:00:c8"));
    assert_eq!(get(&d.netns(), "192.0.2.200"), None, "not from the host: so it is with macvlan");
    // While it runs, on a daemon that has started anew, and gone with it.
    docker(&d, "network create zapp");
    say(&d, Client::Longshore, "network connect --gw-priority 1 zapp web").ok();
    say(&d, Client::Longshore, "update -p +8080:80 web").ok();
    for _ in 0..2 {
        // Ports lead over the bridge, also those that the daemon passes on: by the other network it reaches nobody.
        for server in ["127.0.0.1:8080", "[::1]:8080"] {
            assert_eq!(get(&d.netns(), server).as_deref(), Some("web"), "{server}");
        }
        assert_eq!(page(&d, "client", "web").ok(), "web");
        d.kill9();
        d.launch();
    }
    docker(&d, "network disconnect lan web");
    assert!(!d.docker(["exec", "web", "ip", "-o", "addr"]).ok().contains("192.0.2."));
    docker(&d, "network connect --ip 192.0.2.201 lan web");
    wait_until("the neighbour reaches it", || get(&world, "192.0.2.201").as_deref() == Some("web"));
    docker(&d, "rm -f web client");
    docker(&d, "network rm lan zapp");
    assert!(in_netns(&d.netns(), "ip link show out0").code == 0);
    // What this kernel has not it says.
    create(&d, "-d ipvlan --subnet 192.0.2.0/24 --gateway 192.0.2.2 -o parent=out0 ip").ok();
    let run = d.docker(["run", "--rm", "--network", "ip", "busybox", "ip", "-o", "addr", "show", "eth0"]);
    match run.code {
        0 => assert!(run.stdout.contains("192.0.2.1/24"), "{}", run.stdout),
        _ => assert!(run.stderr.contains("this kernel has no such interfaces"), "{}", run.stderr),
    }
    docker(&d, "network rm ip");
    d.finish();
}

/// `--link` where there is no name server: names in `hosts`, and variables.
#[test]
fn privileged_links_on_the_default_bridge() {
    let d = Daemon::start();
    d.load("busybox");
    web(&d, "db", &["-e", "SECRET=x", "--expose", "5432", "-h", "dbhost"]);
    for client in BOTH {
        let run = |words: &[&str]| {
            let mut all = vec!["run", "--rm", "--name", "app", "--link", "db:my-db", "busybox"];
            all.extend(words);
            d.run(client, all).ok()
        };
        let env = run(&["env"]);
        let ip = d.inspect("{{.NetworkSettings.IPAddress}}", "db");
        for want in [
            format!("MY_DB_PORT=tcp://{ip}:5432"),
            format!("MY_DB_PORT_5432_TCP_ADDR={ip}"),
            "MY_DB_NAME=/app/my-db".to_owned(),
            "MY_DB_ENV_SECRET=x".to_owned(),
        ] {
            assert!(env.lines().any(|line| line == want), "{want}: {env}");
        }
        assert!(run(&["cat", "/etc/hosts"]).contains(&format!("{ip}\tmy-db dbhost db\n")));
        assert_eq!(run(&["wget", "-qO-", "http://my-db/"]), "db");
    }
    sleeper(&d, "app", "--link db");
    assert_eq!(d.inspect("{{.HostConfig.Links}}", "app"), "[/db:/app/db]");
    // It is told when the other one has moved.
    docker(&d, "stop -t 0 db");
    sleeper(&d, "squatter", "--init");
    docker(&d, "start db");
    let ip = d.inspect("{{.NetworkSettings.IPAddress}}", "db");
    wait_until("the new address is known", || page(&d, "app", "db").stdout == "db\n");
    assert!(d.docker(["exec", "app", "cat", "/etc/hosts"]).ok().contains(&format!("{ip}\tdb dbhost\n")));
    // By another name it is the same.
    docker(&d, "rename db data");
    assert_eq!(d.inspect("{{.HostConfig.Links}}", "app"), "[/data:/app/db]");
    docker(&d, "restart -t 0 app");
    assert_eq!(page(&d, "app", "db").ok(), "db");
    docker(&d, "stop -t 0 data");
    let refused = d.docker(["restart", "-t", "0", "app"]).fails(1);
    assert!(refused.contains("Cannot link to a non running container: /data AS /app/db"), "{refused}");
    for (words, want) in [
        ("--link nobody", "could not get container for nobody"),
        ("--link data --network host", "host type networking can't be used with links"),
    ] {
        let failed = d.docker(format!("run --rm {words} busybox true").split(' ')).fails(125);
        assert!(failed.contains(want), "{words}: {failed}");
    }
    d.finish();
}

/// While the daemon was away, the host began to use the subnets that it had chosen.
#[test]
fn privileged_chosen_subnets_give_way_to_the_host() {
    let mut d = Daemon::start();
    d.load("busybox");
    docker(&d, "network create app");
    docker(&d, "network create --subnet 172.30.0.0/16 asked");
    let subnet = |d: &Daemon, name: &str| {
        d.docker(["network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", name]).ok()
    };
    let before: Vec<String> = ["bridge", "app", "asked"].iter().map(|name| subnet(&d, name)).collect();
    d.terminate();
    in_netns(&d.netns(), "ip link add other type veth peer name else0 && ip link set other up").ok();
    for net in &before {
        let address = net.replace(".0.0/16", ".0.9/16");
        in_netns(&d.netns(), &format!("ip addr add {address} dev other")).ok();
    }
    d.launch();
    let after: Vec<String> = ["bridge", "app", "asked"].iter().map(|name| subnet(&d, name)).collect();
    assert!(!before.contains(&after[0]) && !before.contains(&after[1]), "{before:?} {after:?}");
    assert_ne!(after[0], after[1]);
    assert_eq!(before[2], after[2], "what somebody asked for stays");
    web(&d, "web", &["-p", "8080:80"]);
    assert_eq!(get(&d.netns(), "127.0.0.1:8080").as_deref(), Some("web"));
    // With containers on it, it stays as it is.
    d.kill9();
    in_netns(&d.netns(), &format!("ip addr add {} dev other", after[0].replace(".0.0/16", ".0.9/16"))).ok();
    d.launch();
    assert_eq!(subnet(&d, "bridge"), after[0]);
    docker(&d, "rm -f web");
    d.finish();
}
