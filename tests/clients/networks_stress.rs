//! Networks under load: what comes and goes leaves nothing, what is full says so, and neither garbage nor a race gets
//! through. `LONGSHORE_LONG=1` takes ten times the rounds.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use crate::harness::{Daemon, Done, in_netns, wait_until, wait_until_with};
use crate::network::neighbour;
use crate::networks::{addresses, lookup, sleeper};
use crate::small_server;

fn rounds() -> usize {
    if std::env::var_os("LONGSHORE_LONG").is_some() { 1000 } else { 100 }
}

fn docker(d: &Daemon, line: &str) -> Done {
    d.docker(line.split(' '))
}

/// A request that must succeed.
#[track_caller]
fn post(d: &Daemon, path: &str, body: &str) {
    let length = body.len();
    let answer = d.raw(&format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    ));
    assert!(answer.starts_with("HTTP/1.1 2"), "{path}: {answer}");
}

fn threads(d: &Daemon) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", d.pid())).expect("threads").count()
}

fn resident(d: &Daemon) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", d.pid())).expect("status");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("VmRSS").trim();
    line.trim_end_matches(" kB").parse().expect("number")
}

/// A container's network namespace.
fn netns_of(d: &Daemon, container: &str) -> PathBuf {
    format!("/proc/{}/ns/net", d.inspect("{{.State.Pid}}", container)).into()
}

/// What the kernel has of networks, on the host and in a container.
fn kernel(d: &Daemon, container: &str) -> Vec<String> {
    let all = "ip -o link | sed 's/^[0-9]*: //; s/@if[0-9]*//' | cut -d' ' -f1 | sort; ip -o addr | awk '{ print $2, $4 }' | sort; \
               ip route; ip -6 route; nft list ruleset | sed 's/packets [0-9]* bytes [0-9]*//'";
    let host = in_netns(&d.netns(), all).ok();
    let inside = in_netns(&netns_of(d, container), all).ok();
    host.lines().chain(inside.lines()).map(str::to_owned).collect()
}

#[test]
fn privileged_networks_that_come_and_go_leave_nothing() {
    let d = Daemon::start();
    d.load("busybox");
    docker(&d, "network create --ipv6 stays").ok();
    docker(&d, "network create --ipv6 passes").ok();
    sleeper(&d, "cc", "--network stays -p 8080:80 -p 8081:81/udp");
    sleeper(&d, "other", "--network passes");
    let cycle = |i: usize| {
        let body = format!(r#"{{"Container":"cc","EndpointConfig":{{"Aliases":["alias{i}"]}}}}"#);
        post(&d, "/networks/passes/connect", &body);
        if i.is_multiple_of(25) {
            assert_eq!(lookup(&d, "other", &format!("alias{i}")).len(), 2, "{i}");
        }
        post(&d, "/networks/passes/disconnect", r#"{"Container":"cc"}"#);
    };
    (0..rounds() / 3).for_each(cycle);
    assert!(lookup(&d, "other", "cc").is_empty());
    // Threads of the runtime end when they have had nothing to do for a while.
    let (descriptors, busy, memory, before) = (d.descriptors(), threads(&d), resident(&d), kernel(&d, "cc"));
    (0..rounds()).for_each(cycle);
    wait_until_with(
        || {
            format!(
                "{descriptors} descriptors and {busy} threads again: {} and {}",
                d.descriptors(),
                threads(&d)
            )
        },
        || d.descriptors() <= descriptors && threads(&d) <= busy,
    );
    let more = resident(&d).saturating_sub(memory);
    assert!(more < 4096 + rounds() * 4, "{more} kB more after {} connections", rounds());
    assert_eq!(kernel(&d, "cc"), before);
    assert_eq!(d.docker(["network", "inspect", "-f", "{{len .Containers}}", "passes"]).ok(), "1");
    docker(&d, "rm -f cc other").ok();
    // The kernel takes its time over interfaces of a network namespace that is gone.
    let gone = || !in_netns(&d.netns(), "ip -o link").ok().contains("veth");
    wait_until("the interfaces are gone", gone);
    // Networks themselves, each with a container.
    let links = || {
        in_netns(&d.netns(), "ip -o link | wc -l; nft list ruleset | sed 's/packets [0-9]* bytes [0-9]*//'")
            .ok()
    };
    let (descriptors, before) = (d.descriptors(), links());
    for i in 0..rounds() / 10 {
        docker(&d, &format!("network create --ipv6 net{i}")).ok();
        docker(&d, &format!("run --rm --network net{i} -p 8080:80 busybox true")).ok();
        docker(&d, &format!("network rm net{i}")).ok();
    }
    wait_until("descriptors are closed", || d.descriptors() <= descriptors);
    wait_until("the interfaces are gone", gone);
    assert_eq!(links(), before);
    d.finish();
}

#[test]
fn privileged_a_full_network_says_so_and_has_room_again() {
    let d = Daemon::start();
    d.load("busybox");
    docker(&d, "network create --subnet 10.92.0.0/29 small").ok();
    docker(&d, "network create large").ok();
    // Eight addresses: two that no host may have, and the gateway.
    for i in 1..=5 {
        sleeper(&d, &format!("c{i}"), "--network small");
    }
    let links = in_netns(&d.netns(), "ip -o link | wc -l").ok();
    sleeper(&d, "outside", "--network large");
    for (line, code) in [("run --rm --network small busybox true", 125), ("network connect small outside", 1)]
    {
        let full = docker(&d, line).fails(code);
        assert!(full.contains("10.92.0.0/29") || full.contains("small"), "it names what is full: {full}");
        assert!(full.contains("no available"), "{full}");
    }
    docker(&d, "rm -f outside").ok();
    // The kernel takes its time over interfaces of a network namespace that is gone.
    wait_until("attempts leave nothing", || in_netns(&d.netns(), "ip -o link | wc -l").ok() == links);
    assert_eq!(docker(&d, "ps -aq").ok().lines().count(), 5);
    let freed = addresses(&d, "c3");
    docker(&d, "rm -f c3").ok();
    sleeper(&d, "next", "--network small");
    assert_eq!(addresses(&d, "next"), freed);
    // One that stops has none; one that is kept for it takes up room.
    docker(&d, "stop -t 0 c1").ok();
    sleeper(&d, "more", "--network small");
    let full = docker(&d, "start c1").fails(1);
    assert!(full.contains("no available"), "{full}");
    docker(&d, "rm -f more").ok();
    docker(&d, "start c1").ok();
    docker(&d, "run -d --name fixed --network large busybox sleep 1000").ok();
    for _ in 0..rounds() / 10 {
        docker(&d, "network connect small fixed").fails(1);
    }
    docker(&d, "rm -f c2").ok();
    docker(&d, "network connect small fixed").ok();
    d.finish();
}

/// Numbers that only look random, and are the same in every run.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("small")
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next().to_le_bytes()[3]).collect()
    }
}

/// The question for the address of a name of one label.
fn question(name: &str) -> Vec<u8> {
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.push(u8::try_from(name.len()).expect("short"));
    query.extend(name.as_bytes());
    query.extend([0, 0, 1, 0, 1]);
    query
}

/// Whether an answer has addresses, and says no error.
fn is_good(answer: &[u8]) -> bool {
    answer.len() > 12 && answer[..2] == [0x12, 0x34] && answer[3] & 15 == 0 && answer[6..8] != [0, 0]
}

const SERVER: &str = "127.0.0.11:53";

fn over_udp(name: &str) -> bool {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
    socket.connect(SERVER).expect("connect");
    socket.send(&question(name)).expect("send");
    let mut answer = [0; 4096];
    socket.recv(&mut answer).is_ok_and(|n| is_good(&answer[..n]))
}

/// A message after its length.
fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).expect("short").to_be_bytes()[..], message].concat()
}

fn over_tcp(name: &str) -> bool {
    let mut stream = TcpStream::connect(SERVER).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("timeout");
    stream.write_all(&framed(&question(name))).expect("send");
    let mut length = [0; 2];
    if stream.read_exact(&mut length).is_err() {
        return false;
    }
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer).is_ok() && is_good(&answer)
}

/// Datagrams: noise, and questions of which some bytes are others.
fn datagrams(dice: &mut Dice, count: usize) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
    for i in 0..count {
        let mut message = question("web");
        if i % 2 == 0 {
            let length = dice.below(1500);
            message = dice.bytes(length);
        } else {
            for _ in 0..=dice.below(4) {
                let at = dice.below(message.len());
                message[at] = dice.bytes(1)[0];
            }
            message.truncate(message.len() - dice.below(8));
        }
        // What is refused comes back as an error of the next call.
        let _ = socket.send_to(&message, SERVER);
    }
}

/// Frames that end early, announce too much, or hold noise; and the connections that are still open.
fn frames(dice: &mut Dice, count: usize) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for i in 0..count {
        let Ok(mut stream) = TcpStream::connect(SERVER) else { continue };
        let whole = framed(&question("web"));
        let message = match i % 4 {
            0 => whole[..dice.below(whole.len())].to_vec(),
            1 => [0xff, 0xff].into_iter().chain(dice.bytes(100)).collect(),
            2 => [whole.as_slice(), &framed(&dice.bytes(40)), &whole[..5]].concat(),
            _ => dice.bytes(300),
        };
        let _ = stream.write_all(&message);
        // A few more than are served at once.
        if i % 3 == 0 && i + 200 >= count {
            open.push(stream);
        }
    }
    open
}

#[test]
fn privileged_garbage_does_not_keep_the_name_server_from_its_answers() {
    let d = Daemon::start();
    d.load("busybox");
    // Somewhere to pass questions on to, where nobody answers.
    neighbour(&d);
    docker(&d, "network create one").ok();
    sleeper(&d, "web", "--network one");
    sleeper(&d, "cc", "--network one --dns 192.0.2.77");
    let own = addresses(&d, "web");
    let netns = netns_of(&d, "cc");
    assert!(small_server::in_netns(&netns, || over_udp("web") && over_tcp("web")));
    let descriptors = d.descriptors();
    let open = small_server::in_netns(&netns, || {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        datagrams(&mut dice, rounds() * 20);
        let open = frames(&mut dice, rounds() * 2);
        datagrams(&mut dice, rounds());
        open
    });
    // While unfinished frames hold connections.
    assert!(small_server::in_netns(&netns, || over_udp("web")));
    assert_eq!(lookup(&d, "cc", "web"), [own.trim()]);
    assert!(small_server::in_netns(&netns, || over_tcp("web")), "those that send no more are closed");
    drop(open);
    assert!(small_server::in_netns(&netns, || over_udp("cc") && over_tcp("cc")));
    wait_until("sockets are closed", || d.descriptors() <= descriptors);
    assert_eq!(lookup(&d, "web", "cc").len(), 1, "others have heard nothing of it");
    assert!(!d.log().contains("panicked"));
    d.finish();
}

#[test]
fn privileged_one_of_networks_made_at_once_wins() {
    let d = Daemon::start();
    let links = in_netns(&d.netns(), "ip -o link | wc -l").ok();
    for round in 0..rounds() / 20 {
        // Each lies in the one before; then all of one name.
        let overlapping = (16..24).map(|bits| format!("network create --subnet 10.93.0.0/{bits} net{bits}"));
        let equal = (0..8).map(|i| format!("network create --subnet 10.94.{i}.0/24 net"));
        let cases = [
            (overlapping.collect::<Vec<_>>(), "Pool overlaps with other one on this address space"),
            (equal.collect(), "network with name net already exists"),
        ];
        for (lines, lost) in cases {
            let done: Vec<Done> = std::thread::scope(|s| {
                let all: Vec<_> = lines.iter().map(|line| s.spawn(|| docker(&d, line))).collect();
                all.into_iter().map(|one| one.join().expect("docker")).collect()
            });
            let won: Vec<&Done> = done.iter().filter(|d| d.code == 0).collect();
            assert_eq!(won.len(), 1, "round {round}: {done:#?}");
            assert!(done.iter().all(|d| d.code == 0 || d.stderr.contains(lost)), "{done:#?}");
            let there = docker(&d, "network ls -q --no-trunc --filter type=custom").ok();
            assert_eq!(there, won[0].stdout.trim(), "round {round}");
            docker(&d, &format!("network rm {there}")).ok();
        }
    }
    assert_eq!(in_netns(&d.netns(), "ip -o link | wc -l").ok(), links);
    d.finish();
}
