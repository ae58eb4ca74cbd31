//! Networks, from inside containers and from a machine beside the daemon's.

use std::path::PathBuf;

use crate::harness::{Client, Daemon, in_netns, make_netns, wait_until};

/// A neighbour of the machine that the daemon runs on: 192.0.2.2 and 2001:db8::2, where the daemon's machine has 1.
pub(crate) fn neighbour(d: &Daemon) -> PathBuf {
    let world = d.dir().join("world.netns");
    make_netns(&world);
    let link = format!("ip link add out0 type veth peer name eth0 netns {}", world.display());
    in_netns(&d.netns(), &link).ok();
    in_netns(&d.netns(), "ip addr add 192.0.2.1/24 dev out0 && ip link set out0 up").ok();
    in_netns(&d.netns(), "ip -6 addr add 2001:db8::1/64 dev out0 nodad").ok();
    in_netns(&world, "ip addr add 192.0.2.2/24 dev eth0 && ip link set eth0 up").ok();
    in_netns(&world, "ip -6 addr add 2001:db8::2/64 dev eth0 nodad").ok();
    world
}

/// Starts a web server that says its container's name.
pub(crate) fn web(d: &Daemon, name: &str, options: &[&str]) {
    let mut args = vec!["run", "-d", "--name", name];
    args.extend(options);
    let serve = format!("mkdir /www; echo {name} > /www/index.html; exec httpd -f -p 80 -h /www");
    args.extend(["busybox", "sh", "-c", serve.as_str()]);
    d.docker(args).ok();
    let ip = address(d, name);
    if !ip.is_empty() {
        wait_until("the web server answers", || get(&d.netns(), &format!("{ip}:80")).is_some());
    }
}

fn address(d: &Daemon, name: &str) -> String {
    d.inspect("{{.NetworkSettings.IPAddress}}", name)
}

/// A shell command that gets a page from within a container.
fn fetch(ip: &str, port: u16) -> String {
    format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {ip} {port} | tail -n 1")
}

/// A page, as seen from a network namespace.
pub(crate) fn get(netns: &std::path::Path, server: &str) -> Option<String> {
    let done = in_netns(netns, &format!("curl -s -m 3 http://{server}/"));
    (done.code == 0).then(|| done.ok())
}

#[test]
fn privileged_containers_reach_each_other_and_the_world() {
    let d = Daemon::start();
    d.load("busybox");
    let world = neighbour(&d);
    web(&d, "web", &[]);
    let ip = address(&d, "web");
    let run = |args: &[&str]| {
        let mut all = vec!["run", "--rm"];
        all.extend_from_slice(args);
        d.docker(all)
    };
    assert_eq!(run(&["busybox", "sh", "-c", &fetch(&ip, 80)]).ok(), "web");
    // Out through NAT: the neighbour, which knows no route to containers, answers, and sees the machine's own address.
    let serve = "exec timeout 20 busybox nc -l -p 7 -e sh -c 'echo hello; cat > /dev/null'";
    let listener = std::thread::spawn(move || in_netns(&world, serve));
    wait_until("the container reaches the neighbour", || {
        run(&["busybox", "sh", "-c", "sleep 1 | nc -w 2 192.0.2.2 7"]).stdout == "hello\n"
    });
    listener.join().expect("listener");
    let gateway = d.inspect("{{.NetworkSettings.Gateway}}", "web");
    let route = run(&["busybox", "ip", "route"]).ok();
    assert!(route.starts_with(&format!("default via {gateway} dev eth0")), "{route}");
    // The daemon knows nothing of it any more, once it has ended.
    d.docker(["stop", "-t", "0", "web"]).ok();
    assert_eq!(address(&d, "web"), "");
    d.finish();
}

#[test]
fn privileged_names_and_resolvers_are_as_asked_for() {
    let d = Daemon::start();
    d.load("busybox");
    for client in [Client::Docker, Client::Longshore] {
        let run = |args: &[&str]| {
            let mut all = vec!["run", "--rm"];
            all.extend_from_slice(args);
            d.run(client, all).ok()
        };
        let hosts = run(&["-h", "box.example", "--add-host", "db:10.0.0.9", "busybox", "cat", "/etc/hosts"]);
        assert!(hosts.contains("10.0.0.9\tdb"), "{hosts}");
        assert!(hosts.lines().any(|l| l.ends_with("\tbox.example box")), "{hosts}");
        assert!(hosts.contains("127.0.0.1\tlocalhost"), "{hosts}");
        let gateway =
            run(&["--add-host", "up:host-gateway", "busybox", "sh", "-c", "grep up /etc/hosts; ip route"]);
        let via = gateway.split_once("default via ").and_then(|(_, r)| r.split(' ').next()).expect("a route");
        assert!(gateway.contains(&format!("{via}\tup")), "{gateway}");
        let resolv = run(&[
            "--dns",
            "9.9.9.9",
            "--dns-search",
            "example.org",
            "--dns-option",
            "ndots:3",
            "busybox",
            "cat",
            "/etc/resolv.conf",
        ]);
        assert!(resolv.contains("nameserver 9.9.9.9"), "{resolv}");
        assert!(resolv.contains("search example.org") && resolv.contains("ndots:3"), "{resolv}");
        // A change made inside is the container's own matter.
        assert_eq!(
            run(&["busybox", "sh", "-c", "echo 10.0.0.1 x >> /etc/hosts && tail -n 1 /etc/hosts"]),
            "10.0.0.1 x"
        );
    }
    d.finish();
}

#[test]
fn privileged_published_ports_answer_where_they_should() {
    let mut d = Daemon::start();
    d.load("busybox");
    let world = neighbour(&d);
    web(&d, "web", &["-p", "8080:80", "-p", "127.0.0.1:8081:80"]);
    let ports = "80/tcp -> 0.0.0.0:8080\n80/tcp -> 127.0.0.1:8081\n80/tcp -> [::]:8080";
    assert_eq!(d.docker(["port", "web"]).ok(), ports);
    let ip = address(&d, "web");
    let gateway = d.inspect("{{.NetworkSettings.Gateway}}", "web");
    let check = |d: &Daemon| {
        assert_eq!(get(&d.netns(), "127.0.0.1:8080").as_deref(), Some("web"));
        assert_eq!(get(&d.netns(), "127.0.0.1:8081").as_deref(), Some("web"));
        assert_eq!(get(&world, "192.0.2.1:8080").as_deref(), Some("web"), "from the neighbour");
        assert_eq!(get(&world, "192.0.2.1:8081"), None, "published on the loopback only");
        // Another container, and the container itself, through the host.
        let other = fetch(&gateway, 8080);
        assert_eq!(d.docker(["run", "--rm", "busybox", "sh", "-c", &other]).ok(), "web");
        assert_eq!(d.docker(["exec", "web", "sh", "-c", &other]).ok(), "web");
    };
    check(&d);
    // A neighbour cannot reach what is not published, even if it sends packets for the bridge's network our way.
    in_netns(&world, "ip route add 172.16.0.0/12 via 192.0.2.1").ok();
    assert_eq!(get(&world, &format!("{ip}:80")), None);
    d.kill9();
    d.launch();
    check(&d);
    let taken = d.docker(["run", "--rm", "-p", "8080:80", "busybox", "true"]).fails(125);
    assert!(taken.contains("port is already allocated"), "{taken}");
    d.docker(["rm", "-f", "web"]).ok();
    assert_eq!(get(&d.netns(), "127.0.0.1:8080"), None);
    // Another hardware address under the same address: nobody holds on to the old one.
    web(&d, "again", &["-p", "8080:80", "--mac-address", "02:42:00:00:00:07"]);
    assert_eq!(address(&d, "again"), ip);
    assert_eq!(get(&world, "192.0.2.1:8080").as_deref(), Some("again"));
    d.finish();
}

/// The host's firewall is reloaded, which starts with taking everything away: while the daemon runs, and while not.
#[test]
fn privileged_atk_42_ports_outlive_a_reload_of_the_firewall() {
    let mut d = Daemon::start();
    d.load("busybox");
    let world = neighbour(&d);
    web(&d, "web", &["-p", "8080:80", "-p", "127.0.0.1:8081:80"]);
    let flush = |d: &Daemon| in_netns(&d.netns(), "nft flush ruleset").ok();
    let check = |d: &Daemon, what: &str| {
        wait_until(what, || get(&world, "192.0.2.1:8080").as_deref() == Some("web"));
        assert_eq!(get(&d.netns(), "127.0.0.1:8081").as_deref(), Some("web"), "{what}");
        let out = fetch("192.0.2.1", 8080);
        assert_eq!(d.docker(["run", "--rm", "busybox", "sh", "-c", &out]).ok(), "web", "{what}");
    };
    check(&d, "at first");
    flush(&d);
    check(&d, "after a reload");
    d.kill9();
    flush(&d);
    d.launch();
    check(&d, "after a reload without a daemon");
    // A firewall that drops what it does not know, switched on later.
    let drop = "nft add table inet fw && nft add chain inet fw through '{ type filter hook forward priority 0; policy drop; }'";
    in_netns(&d.netns(), drop).ok();
    check(&d, "behind a firewall that drops");
    d.finish();
}

#[test]
fn privileged_udp_ranges_and_ports_of_the_engines_choice() {
    let d = Daemon::start();
    d.load("busybox");
    let world = neighbour(&d);
    // Busybox cannot serve UDP; Debian has perl.
    d.load("debian");
    let echo = "$s = IO::Socket::INET->new(Proto => 'udp', LocalPort => 5300) or die; \
                while ($s->recv($m, 99)) { $s->send(\"got $m\") }";
    let perl = ["perl", "-MIO::Socket::INET", "-e", echo];
    d.docker(["run", "-d", "--name", "udp", "-p", "5300:5300/udp", "debian"].into_iter().chain(perl)).ok();
    let ask = "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(1); \
               s.sendto(b'ping', ('192.0.2.1', 5300)); print(s.recv(99).decode())";
    wait_until("the neighbour gets an answer by UDP", || {
        in_netns(&world, &format!("python3 -c \"{ask}\"")).stdout == "got ping\n"
    });
    web(&d, "chosen", &["-p", "80"]);
    let port = d.docker(["port", "chosen", "80"]).ok();
    let port = port.strip_prefix("0.0.0.0:").expect("on all addresses");
    let (port, same) = port.split_once("\n[::]:").expect("of both families");
    assert_eq!(port, same);
    assert_eq!(get(&world, &format!("192.0.2.1:{port}")).as_deref(), Some("chosen"));
    web(&d, "range", &["-p", "9000-9001:80"]);
    let port = d.docker(["port", "range", "80"]).ok();
    assert!(["0.0.0.0:9000\n[::]:9000", "0.0.0.0:9001\n[::]:9001"].contains(&port.as_str()), "{port}");
    d.finish();
}

#[test]
fn privileged_other_kinds_of_network() {
    let d = Daemon::start();
    d.load("busybox");
    web(&d, "web", &[]);
    let ip = address(&d, "web");
    for client in [Client::Docker, Client::Longshore] {
        let run = |args: &[&str]| {
            let mut all = vec!["run", "--rm"];
            all.extend_from_slice(args);
            d.run(client, all)
        };
        let host = run(&["--network", "host", "busybox", "ip", "-o", "link"]).ok();
        assert!(host.contains("ls-"), "the host's bridge is there: {host}");
        assert_eq!(run(&["--network", "none", "busybox", "ls", "/sys/class/net"]).ok(), "lo");
        let joined = run(&["--network", "container:web", "busybox", "ip", "-o", "addr", "show", "eth0"]).ok();
        assert!(joined.contains(&ip), "{joined}");
        assert_eq!(
            run(&["--network", "container:web", "busybox", "wget", "-qO-", "http://127.0.0.1/"]).ok(),
            "web"
        );
        let both = run(&["--network", "container:web", "-p", "1:1", "busybox", "true"]).fails(125);
        assert!(
            both.contains("conflicting options: port publishing and the container type network mode"),
            "{both}"
        );
        let none = run(&["--network", "container:nobody", "busybox", "true"]).fails(125);
        assert!(none.contains("No such container: nobody"), "{none}");
        let unknown = run(&["--network", "elsewhere", "busybox", "true"]).fails(125);
        assert!(unknown.contains("network elsewhere not found"), "{unknown}");
    }
    d.docker(["stop", "-t", "0", "web"]).ok();
    let stopped = d.docker(["run", "--rm", "--network", "container:web", "busybox", "true"]).fails(125);
    assert!(
        stopped.contains("cannot join network namespace of a non running container: container web is exited"),
        "{stopped}"
    );
    d.finish();
}
