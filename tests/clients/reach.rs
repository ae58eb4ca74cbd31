//! `longshore ports`: what it says is tried out, from the host, from a neighbour of the host, and from other containers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::harness::{Client, Daemon, in_netns, wait_until};
use crate::network::{get, neighbour};

/// A line, of which the container serves its own name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    container: String,
    port: String,
    at: String,
    who: String,
    through: String,
}

fn lines(d: &Daemon, containers: &[&str]) -> Vec<Line> {
    let format = "{{.Container}}|{{.Port}}|{{.ReachedAt}}|{{.Who}}|{{.Through}}";
    let mut args = vec!["ports", "--format", format];
    args.extend(containers);
    let text = d.run(Client::Longshore, args).ok();
    let line = |line: &str| {
        let cells: Vec<String> = line.split('|').map(str::to_owned).collect();
        let [container, port, at, who, through] = <[String; 5]>::try_from(cells).expect("five cells");
        Line { container, port, at, who, through }
    };
    text.lines().map(line).collect()
}

/// Starts a container that serves its name at port 80.
fn serve(d: &Daemon, name: &str, options: &[&str]) {
    let mut args = vec!["run", "-d", "--name", name];
    args.extend(options);
    let script = format!("mkdir /www; echo {name} > /www/index.html; exec httpd -f -p 80 -h /www");
    args.extend(["busybox", "sh", "-c", &script]);
    d.run(Client::Longshore, args).ok();
    let netns = netns_of(d, name);
    wait_until("the server is there", || get(&netns, "127.0.0.1:80").is_some());
}

fn netns_of(d: &Daemon, name: &str) -> PathBuf {
    format!("/proc/{}/ns/net", d.inspect("{{.State.Pid}}", name)).into()
}

/// Where somebody stands, the networks whose containers stand there, and what the host is called from there.
struct Place {
    name: &'static str,
    netns: PathBuf,
    network: &'static str,
    ipv6: bool,
}

impl Place {
    /// Whether the words of a line speak of who stands here.
    fn is_meant(&self, who: &str) -> bool {
        who.split(", ").any(|who| match who {
            "this host" | "this host alone" => self.name == "host",
            "everybody who reaches this host" => true,
            _ if who.starts_with("who reaches ") || who.starts_with("everybody with a route to ") => true,
            _ => {
                let network = who.strip_prefix("containers of network ").expect("known words");
                self.network == network
            }
        })
    }

    /// What is asked from here, to try a line out.
    fn server(&self, line: &Line) -> String {
        let at = match line.port.as_str() {
            "any" if line.at.contains(':') => format!("[{}]:80", line.at),
            "any" => format!("{}:80", line.at),
            _ => line.at.clone(),
        };
        at.replace("0.0.0.0:", "192.0.2.1:").replace("[::]:", "[2001:db8::1]:")
    }
}

/// Tries every line out from every place: who is named by a line gets an answer, and who is named by none gets none.
fn try_out(lines: &[Line], places: &[Place]) {
    let mut asked: BTreeMap<(&str, String), (bool, BTreeSet<&str>)> = BTreeMap::new();
    let netns: BTreeMap<&str, &Path> = places.iter().map(|place| (place.name, &*place.netns)).collect();
    for line in lines {
        for place in places.iter().filter(|place| place.ipv6 || !line.at.contains("::")) {
            let (answered, names) = asked.entry((place.name, place.server(line))).or_default();
            *answered |= place.is_meant(&line.who);
            names.insert(&line.container);
        }
    }
    std::thread::scope(|scope| {
        let tries: Vec<_> = asked
            .iter()
            .map(|((place, server), wanted)| {
                let netns = netns[place];
                (place, server, wanted, scope.spawn(move || get(netns, server)))
            })
            .collect();
        for (place, server, (answered, names), tried) in tries {
            let got = tried.join().expect("a try");
            let right = got.as_deref().is_some_and(|name| names.contains(name));
            assert!(
                right == *answered && (right || got.is_none()),
                "{server} of {names:?} from {place}: {got:?}\n{lines:#?}"
            );
        }
    });
}

#[test]
fn privileged_every_way_in_is_as_it_says() {
    let mut d = Daemon::start();
    d.load("busybox");
    let world = neighbour(&d);
    in_netns(&world, "ip route add 10.88.0.0/16 via 192.0.2.1; ip route add fd00:88::/64 via 2001:db8::1")
        .ok();
    let create = |name: &str, options: &[&str]| {
        let mut args = vec!["network", "create"];
        args.extend(options);
        args.push(name);
        d.docker(args).ok();
    };
    let option = |name: &str, value: &str| format!("com.docker.network.bridge.{name}={value}");
    create("app", &["--subnet", "10.88.1.0/24"]);
    create("shy", &["--subnet", "10.88.2.0/24", "-o", &option("enable_icc", "false")]);
    create("six", &["--subnet", "10.88.3.0/24", "--ipv6", "--subnet", "fd00:88::/64"]);
    create("routed", &["--subnet", "10.88.4.0/24", "-o", &option("gateway_mode_ipv4", "routed")]);
    create("open", &["--subnet", "10.88.5.0/24", "-o", &option("gateway_mode_ipv4", "nat-unprotected")]);
    create("inside", &["--subnet", "10.88.6.0/24", "--internal"]);
    let alone = option("gateway_mode_ipv4", "isolated");
    create("alone", &["--subnet", "10.88.7.0/24", "--internal", "-o", &alone]);
    serve(
        &d,
        "web",
        &["--network", "app", "-p", "8080:80", "-p", "127.0.0.1:8081:80", "-p", "192.0.2.1:8082:80"],
    );
    serve(&d, "shy", &["--network", "shy", "-p", "8083:80"]);
    serve(&d, "six", &["--network", "six", "-p", "8084:80", "-p", "[::1]:8085:80"]);
    serve(&d, "routed", &["--network", "routed", "-p", "80:80"]);
    serve(&d, "open", &["--network", "open"]);
    serve(&d, "inside", &["--network", "inside"]);
    serve(&d, "alone", &["--network", "alone"]);
    serve(&d, "local", &["--publish-mode", "local", "-p", "8086:80", "-p", "127.0.0.1:8087:80"]);
    serve(&d, "none", &["--network", "none"]);
    let peer = |network: &'static str, ipv6: bool| {
        let name = format!("peer-{network}");
        d.docker(["run", "-d", "--name", &name, "--network", network, "busybox", "sleep", "1000"]).ok();
        Place { name: network, netns: netns_of(&d, &name), network, ipv6 }
    };
    let place = |name, netns| Place { name, netns, network: "", ipv6: true };
    let mut places = vec![place("host", d.netns()), place("world", world.clone())];
    places.extend([peer("app", false), peer("shy", false), peer("six", true)]);
    let servers = ["web", "shy", "six", "routed", "open", "inside", "alone", "local", "none"];
    let found = lines(&d, &servers);
    try_out(&found, &places);
    // Those who have no way out: to their own networks alone.
    for network in ["inside", "alone"] {
        let peer = peer(network, false);
        try_out(&found.iter().filter(|line| line.container == network).cloned().collect::<Vec<_>>(), &[peer]);
    }
    // What is at the loopback only is not at another address.
    for server in ["192.0.2.1:8081", "192.0.2.1:8087", "[2001:db8::1]:8085"] {
        assert_eq!(get(&world, server), None, "{server}");
    }
    let table = table(&d);
    let told = |name: &str| -> Vec<String> {
        let of = found.iter().filter(|line| line.container == name);
        of.map(|line| format!("{} {}: {}: {}", line.port, line.at, line.who, line.through)).collect()
    };
    let bridge = |network: &str| {
        format!("bridge br-{}", &d.docker(["network", "inspect", "-f", "{{.Id}}", network]).ok()[..12])
    };
    let everybody = "everybody who reaches this host";
    assert_eq!(
        told("web"),
        [
            format!("80/tcp 0.0.0.0:8080: {everybody}: map publish of table inet {table}"),
            format!("80/tcp 127.0.0.1:8081: this host alone: map publish-address of table inet {table}"),
            format!(
                "80/tcp 192.0.2.1:8082: who reaches 192.0.2.1: map publish-address of table inet {table}"
            ),
            format!("80/tcp [::]:8080: {everybody}: a listener of the daemon"),
            format!("any 10.88.1.2: containers of network app, this host: {}", bridge("app")),
        ]
    );
    assert_eq!(told("shy")[2], format!("any 10.88.2.2: this host alone: {}", bridge("shy")));
    assert_eq!(
        told("six")[1..4],
        [
            format!("80/tcp [::]:8084: {everybody}: map publish6 of table inet {table}"),
            "80/tcp [::1]:8084: this host alone: a listener of the daemon".to_owned(),
            "80/tcp [::1]:8085: this host alone: a listener of the daemon".to_owned(),
        ]
    );
    let route = "everybody with a route to 10.88";
    assert_eq!(
        told("routed")[0],
        format!("80/tcp 10.88.4.2:80: {route}.4.0/24: set open of table inet {table}")
    );
    let chain = bridge("open").replace("bridge br", "chain enter-br");
    assert_eq!(told("open")[1], format!("any 10.88.5.2: {route}.5.0/24: {chain} of table inet {table}"));
    assert_eq!(told("alone"), [format!("any 10.88.7.2: containers of network alone: {}", bridge("alone"))]);
    assert_eq!(told("local")[0], format!("80/tcp 0.0.0.0:8086: {everybody}: a listener of the daemon"));
    assert!(told("none").is_empty());
    // The rules are there, under these names.
    let rules = in_netns(&d.netns(), &format!("nft list table inet {table}")).ok();
    for name in
        ["map publish {", "map publish6 {", "map publish-address {", "set open {", &format!("{chain} {{")]
    {
        assert!(rules.contains(name), "{name}: {rules}");
    }
    // A daemon that comes back tells the same.
    d.kill9();
    d.launch();
    assert_eq!(lines(&d, &servers), found);
    d.finish();
}

fn table(d: &Daemon) -> String {
    let tables = in_netns(&d.netns(), "nft list tables inet").ok();
    let own = tables.lines().find_map(|line| line.strip_prefix("table inet "));
    own.expect("a table").to_owned()
}

#[test]
fn privileged_networks_of_others_and_firewalls_of_others() {
    let d = Daemon::start();
    d.load("busybox");
    let world = neighbour(&d);
    serve(&d, "web", &["-p", "8000-8002:80-82"]);
    let of = |name: &str| -> Vec<String> {
        lines(&d, &[name]).iter().map(|line| format!("{} {} {}", line.port, line.at, line.through)).collect()
    };
    let table = table(&d);
    let published = format!("80-82/tcp 0.0.0.0:8000-8002 map publish of table inet {table}");
    let own = of("web");
    assert_eq!(own[0], published);
    assert_eq!(own[1], "80-82/tcp [::]:8000-8002 a listener of the daemon");
    // Who has another's network has its ways in, until the other has a new one.
    d.docker(["run", "-d", "--name", "joined", "--network", "container:web", "busybox", "sleep", "1000"])
        .ok();
    assert_eq!(of("joined"), own);
    d.docker(["run", "-d", "--name", "host", "--network", "host", "busybox", "sleep", "1000"]).ok();
    assert_eq!(of("host"), ["any every address of this host the host's own network"]);
    d.docker(["exec", "-d", "host", "sh", "-c", "echo host | nc -l -p 8090"]).ok();
    wait_until("the host's network is the container's", || {
        in_netns(&world, "timeout 2 busybox nc 192.0.2.1 8090 < /dev/null").stdout == "host\n"
    });
    let everything = lines(&d, &[]);
    let names: BTreeSet<&str> = everything.iter().map(|line| line.container.as_str()).collect();
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["host", "joined", "web"]);
    assert_eq!(everything.len(), 1 + 2 * own.len());
    // Another's firewall that drops lets pass what has our mark, and is named.
    let drop = "nft add table ip fw && nft add chain ip fw through '{ type filter hook forward priority 0; policy drop; }'";
    in_netns(&d.netns(), drop).ok();
    let passed = format!("{published}; our rules in chain through of table ip fw");
    wait_until("the exception is there", || of("web")[0] == passed);
    assert_eq!(of("web")[1..], own[1..]);
    assert_eq!(get(&world, "192.0.2.1:8000").as_deref(), Some("web"));
    d.docker(["restart", "-t", "0", "web"]).ok();
    assert_eq!((of("web")[0].as_str(), of("joined")), (passed.as_str(), Vec::new()));
    // A table for people, and JSON for programs.
    let shown = d.run(Client::Longshore, ["ports", "host"]).ok();
    let words: Vec<&str> =
        shown.lines().next().unwrap_or_default().split("  ").filter(|w| !w.is_empty()).collect();
    let words: Vec<&str> = words.into_iter().map(str::trim).collect();
    assert_eq!(words, ["CONTAINER", "PORT", "REACHED AT", "BY WHOM", "THROUGH"]);
    let answer = d.raw("GET /longshore/ports?container=web HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    for part in [
        r#""Name":"web","Transport":"tcp","Ports":{"First":80,"Last":82},"Address":"0.0.0.0","AddressPorts":{"First":8000,"Last":8002},"Who":[{"Scope":"everybody"}],"#,
        r#""Gates":[{"Family":"ip","Table":"fw","Kind":"chain","Name":"through","Open":true}]"#,
        r#""Who":[{"Scope":"network","Network":"bridge"},{"Scope":"host"}],"Through":{"Bridge":"#,
    ] {
        assert!(answer.contains(part), "{part} in {answer}");
    }
    // Who is not there, or does not run.
    let wrong = |name: &str| d.run(Client::Longshore, ["ports", name]).fails(1).trim_end().to_owned();
    assert_eq!(wrong("nobody"), "Error response from daemon: No such container: nobody");
    d.docker(["stop", "-t", "0", "joined"]).ok();
    let id = d.inspect("{{.Id}}", "joined");
    assert_eq!(wrong("joined"), format!("Error response from daemon: container {id} is not running"));
    let offered = d.run(Client::Longshore, ["__complete", "ports", "host", ""]).ok();
    assert_eq!(offered, "web\n:4");
    d.finish();
}
