//! Published ports: many in a row, changed while their container runs, and passed on by the daemon instead of by rules.

use crate::harness::{Client, Daemon, in_netns, wait_until};
use crate::network::{get, neighbour, web};

/// A container that answers on one more port; busybox's `nc` serves one connection after the other.
fn serve_also(d: &Daemon, name: &str, port: u16) {
    let serve = format!("while :; do echo {port} | nc -l -p {port}; done");
    d.docker(["exec", "-d", name, "sh", "-c", &serve]).ok();
}

fn answer(netns: &std::path::Path, host: &str, port: u16) -> Option<String> {
    let done = in_netns(netns, &format!("timeout 2 busybox nc {host} {port} < /dev/null"));
    Some(done.stdout.trim().to_owned()).filter(|text| !text.is_empty())
}

#[test]
fn privileged_all_ports_of_a_protocol_are_one_rule() {
    let mut d = Daemon::start();
    d.load("busybox");
    let world = neighbour(&d);
    let rules = |d: &Daemon| in_netns(&d.netns(), "nft list ruleset").ok();
    let descriptors = d.descriptors();
    for (client, name, ports) in
        [(Client::Longshore, "tcp", "1-65535:1-65535/tcp"), (Client::Docker, "udp", "1-65535:1-65535/udp")]
    {
        d.run(client, ["run", "-d", "--name", name, "-p", ports, "busybox", "sleep", "1000"]).ok();
        let shown = d.run(client, ["ps", "--filter", &format!("name={name}"), "--format", "{{.Ports}}"]).ok();
        assert_eq!(shown, format!("0.0.0.0:1-65535->1-65535/{name}"), "{client:?}");
        let one = d.docker(["port", name, &format!("65535/{name}")]).ok();
        assert_eq!(one, "0.0.0.0:65535");
    }
    assert!(d.descriptors() < descriptors + 20, "no sockets of their own");
    assert_eq!(rules(&d).matches("1-65535").count(), 2, "{}", rules(&d));
    serve_also(&d, "tcp", 7);
    serve_also(&d, "tcp", 65535);
    for port in [7, 65535] {
        wait_until("the port answers from outside", || {
            answer(&world, "192.0.2.1", port).as_deref() == Some(&port.to_string())
        });
        wait_until("it answers from the host", || answer(&d.netns(), "127.0.0.1", port).is_some());
    }
    // The rules do not stand in the way of who asks from here.
    let page = std::thread::spawn({
        let world = world.clone();
        move || in_netns(&world, "echo hello | timeout 10 busybox nc -l -p 8 > /dev/null")
    });
    wait_until("the host reaches the neighbour", || {
        in_netns(&d.netns(), "echo x | timeout 2 busybox nc 192.0.2.2 8").code == 0
    });
    page.join().expect("a listener");
    // One of them is nobody else's, and a daemon that comes back knows it.
    let taken = |d: &Daemon| {
        let run = ["run", "--rm", "-p", "8080:80", "busybox", "true"];
        d.docker(run).fails(125)
    };
    let words = "Bind for 0.0.0.0:8080 failed: port is already allocated";
    assert!(taken(&d).contains(words), "{}", taken(&d));
    d.kill9();
    d.launch();
    assert!(taken(&d).contains(words), "{}", taken(&d));
    wait_until("the port answers still", || answer(&world, "192.0.2.1", 7).is_some());
    // Some of them go, the others stay.
    d.run(Client::Longshore, ["update", "-p", "-8000-8099", "tcp"]).ok();
    d.docker(["run", "--rm", "-p", "8080:80", "busybox", "true"]).ok();
    let shown = d.docker(["ps", "--filter", "name=tcp", "--format", "{{.Ports}}"]).ok();
    let still = "0.0.0.0:1-7999->1-7999/tcp, 0.0.0.0:8100-65535->8100-65535/tcp, 8000-8099/tcp";
    assert_eq!(shown, still, "what is exposed stays so");
    wait_until("the port answers still", || answer(&world, "192.0.2.1", 7).is_some());
    // What is committed has them one by one, as images have.
    d.docker(["commit", "udp", "committed"]).ok();
    let exposed = d.docker(["image", "inspect", "-f", "{{len .Config.ExposedPorts}}", "committed"]).ok();
    assert_eq!(exposed, "65535");
    d.docker(["rm", "-f", "tcp", "udp"]).ok();
    assert!(!rules(&d).contains("65535"), "{}", rules(&d));
    d.finish();
}

#[test]
fn privileged_a_program_of_the_host_in_a_row_of_ports_is_named() {
    let d = Daemon::start();
    d.load("busybox");
    let holder = std::thread::spawn({
        let netns = d.netns();
        move || in_netns(&netns, "timeout 15 busybox nc -l -p 20500")
    });
    let words = "failed to bind host port for 0.0.0.0:20500";
    wait_until("the listener is there, and is noticed", || {
        let done = d.docker(["run", "--rm", "-p", "20000-20999:20000-20999", "busybox", "true"]);
        done.code == 125 && done.stderr.contains(words) && done.stderr.contains("address already in use")
    });
    let _ = in_netns(&d.netns(), "echo | timeout 2 busybox nc 127.0.0.1 20500");
    holder.join().expect("a listener");
    d.docker(["run", "--rm", "-p", "20000-20999:20000-20999", "busybox", "true"]).ok();
    d.finish();
}

/// The host's own firewall decides: one that forwards nothing, and lets in what comes to the host.
#[test]
fn privileged_local_ports_are_the_hosts_own() {
    let mut d = Daemon::start();
    d.load("busybox");
    let world = neighbour(&d);
    let local = ["--publish-mode", "local", "-p", "8080:80", "-p", "127.0.0.1:8081:80"];
    let mut run = vec!["run", "-d", "--name", "web"];
    run.extend(local);
    let serve = "mkdir /www; echo web > /www/index.html; exec httpd -f -p 80 -h /www";
    run.extend(["busybox", "sh", "-c", serve]);
    d.run(Client::Longshore, run).ok();
    assert_eq!(d.inspect("{{.HostConfig.PublishMode}}", "web"), "local");
    web(&d, "nat", &["-p", "8090:80"]);
    d.load("debian");
    let echo = "$s = IO::Socket::INET->new(Proto => 'udp', LocalPort => 53) or die; \
                while ($s->recv($m, 99)) { $s->send(\"got $m\") }";
    let mut run =
        vec!["run", "-d", "--name", "udp", "--publish-mode", "local", "-p", "8053:53/udp", "debian"];
    run.extend(["perl", "-MIO::Socket::INET", "-e", echo]);
    d.run(Client::Longshore, run).ok();
    let ask = "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(3); \
               s.sendto(b'ping', ('192.0.2.1', 8053)); print(s.recv(99).decode())";
    let ask = format!("python3 -c \"{ask}\"");
    wait_until("the datagram is answered", || in_netns(&world, &ask).stdout == "got ping\n");
    let check = |d: &Daemon| {
        for server in ["192.0.2.1:8080", "[2001:db8::1]:8080"] {
            assert_eq!(get(&world, server).as_deref(), Some("web"), "{server}");
        }
        for server in ["127.0.0.1:8080", "127.0.0.1:8081", "[::1]:8080"] {
            assert_eq!(get(&d.netns(), server).as_deref(), Some("web"), "{server}");
        }
        assert_eq!(get(&world, "192.0.2.1:8081"), None);
        assert_eq!(in_netns(&world, &ask).stdout, "got ping\n");
    };
    wait_until("the server answers", || get(&world, "192.0.2.1:8080").is_some());
    check(&d);
    let rules = in_netns(&d.netns(), "nft list ruleset").ok();
    assert!(!rules.contains("8080") && rules.contains("8090"), "{rules}");
    // What the host's firewall says of itself holds for it, as it does for any program of the host's.
    in_netns(
        &d.netns(),
        "nft 'add table inet host; add chain inet host in { type filter hook input priority 0; policy accept; }; \
         add rule inet host in tcp dport 8080 iifname out0 reject with tcp reset; \
         add rule inet host in tcp dport 8090 iifname out0 reject with tcp reset'",
    )
    .ok();
    assert_eq!(get(&world, "192.0.2.1:8080"), None);
    assert_eq!(get(&world, "192.0.2.1:8090").as_deref(), Some("nat"), "what is forwarded passes it by");
    in_netns(&d.netns(), "nft delete table inet host").ok();
    d.kill9();
    d.launch();
    check(&d);
    d.run(Client::Longshore, ["update", "-p", "-8080", "-p", "+8082:80", "web"]).ok();
    assert_eq!(get(&world, "192.0.2.1:8080"), None);
    assert_eq!(get(&world, "192.0.2.1:8082").as_deref(), Some("web"));
    let wrong = d.run(Client::Longshore, ["run", "--publish-mode", "magic", "busybox", "true"]).fails(125);
    assert!(wrong.contains("invalid publish mode \"magic\": want nat or local"), "{wrong}");
    d.docker(["rm", "-f", "web", "nat", "udp"]).ok();
    d.finish();
}

/// By its own address a container is reached on the ports that it opens, where the host routes and does not translate.
#[test]
fn privileged_gateway_modes_of_networks() {
    let d = Daemon::start();
    d.load("busybox");
    let world = neighbour(&d);
    let mode = |of: &str| format!("com.docker.network.bridge.gateway_mode_ipv4={of}");
    let create = |name: &str, of: &str, subnet: &str, more: &[&str]| {
        let mut all = vec!["network", "create", "-o", of, "--subnet", subnet];
        all.extend(more);
        all.push(name);
        d.docker(all)
    };
    create("routed", &mode("routed"), "10.88.1.0/24", &[]).ok();
    create("open", &mode("nat-unprotected"), "10.88.2.0/24", &[]).ok();
    create("alone", &mode("isolated"), "10.88.3.0/24", &["--internal"]).ok();
    let wrong = create("wrong", &mode("isolated"), "10.88.4.0/24", &[]).fails(1);
    assert!(wrong.contains("isolated"), "{wrong}");
    in_netns(&world, "ip route add 10.88.0.0/16 via 192.0.2.1").ok();
    let serve = "mkdir /www; echo $0 > /www/index.html; httpd -p 81 -h /www; exec httpd -f -p 80 -h /www";
    for name in ["routed", "open"] {
        d.docker([
            "run",
            "-d",
            "--name",
            name,
            "--network",
            name,
            "-p",
            "8080:80",
            "busybox",
            "sh",
            "-c",
            serve,
            name,
        ])
        .ok();
        if name == "open" {
            wait_until("it answers", || get(&world, "192.0.2.1:8080").as_deref() == Some("open"));
            assert_eq!(get(&world, "10.88.2.2:81").as_deref(), Some("open"));
        } else {
            wait_until("it answers", || get(&world, "10.88.1.2:80").as_deref() == Some("routed"));
            assert_eq!(get(&world, "10.88.1.2:81"), None);
            assert_eq!(get(&world, "192.0.2.1:8080"), None, "the host has no such port");
        }
    }
    assert_eq!(
        d.inspect("{{json .NetworkSettings.Ports}}", "routed"),
        r#"{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":""}]}"#
    );
    d.docker(["run", "-d", "--name", "alone", "--network", "alone", "busybox", "sleep", "1000"]).ok();
    let addresses = in_netns(&d.netns(), "ip -o addr").ok();
    assert!(!addresses.contains("10.88.3.") && addresses.contains("10.88.1.1"), "{addresses}");
    d.docker(["rm", "-f", "routed", "open", "alone"]).ok();
    d.finish();
}
