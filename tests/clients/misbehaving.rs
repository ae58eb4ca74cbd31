//! Clients that vanish, stall, lie about lengths, or speak HTTP in unusual ways.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use crate::harness::{Daemon, fixture, wait_until};

/// Reads until `text` was seen.
#[track_caller]
fn read_until(stream: &mut UnixStream, text: &str) -> String {
    let mut got = Vec::new();
    let mut buf = [0; 4096];
    loop {
        let so_far = String::from_utf8_lossy(&got).into_owned();
        if so_far.contains(text) {
            return so_far;
        }
        match stream.read(&mut buf) {
            Ok(0) | Err(_) => panic!("{text:?} did not come: {so_far:?}"),
            Ok(n) => got.extend_from_slice(&buf[..n]),
        }
    }
}

fn read_all(stream: &mut UnixStream) -> String {
    let mut got = Vec::new();
    let _ = stream.read_to_end(&mut got);
    String::from_utf8_lossy(&got).into_owned()
}

/// Sends a request with a body and gives the connection.
fn send(d: &Daemon, line: &str, headers: &str, body: &str) -> UnixStream {
    let mut stream = d.connect();
    let len = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).expect("send");
    stream
}

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: tcp\r\n";
const CLOSE: &str = "Connection: close\r\n";

/// Makes an exec and gives its id.
fn exec(d: &Daemon, container: &str, body: &str) -> String {
    let answer = read_all(&mut send(d, &format!("POST /containers/{container}/exec"), CLOSE, body));
    let id = answer.split("\"Id\":\"").nth(1).and_then(|r| r.split('"').next());
    id.unwrap_or_else(|| panic!("no exec: {answer}")).to_owned()
}

fn flat(d: &Daemon, before: usize, what: &str) {
    wait_until(&format!("{what}: {before} descriptors again, there are {}", d.descriptors()), || {
        d.descriptors() <= before
    });
}

#[test]
fn privileged_a_client_that_sends_all_before_it_reads_gets_its_answer() {
    let d = Daemon::start();
    let mut stream = d.connect();
    let piece = vec![b'x'; 1 << 20];
    let len = 64 * piece.len();
    let head =
        format!("POST /images/load?quiet=1 HTTP/1.1\r\nHost: x\r\nContent-Length: {len}\r\n{CLOSE}\r\n");
    stream.write_all(head.as_bytes()).expect("send");
    for _ in 0..64 {
        stream.write_all(&piece).expect("it is taken, although the archive is no good");
    }
    let answer = read_all(&mut stream);
    assert!(answer.contains("tar header: bad checksum"), "{answer}");
    d.finish();
}

#[test]
fn privileged_atk_38_clients_that_vanish_leave_no_descriptor() {
    let d = Daemon::start();
    d.load("busybox");
    d.docker(["run", "-d", "-i", "--name", "cat", "busybox", "cat"]).ok();
    d.docker(["create", "-i", "--name", "later", "busybox", "cat"]).ok();
    d.docker([
        "run",
        "-d",
        "-t",
        "--name",
        "talks",
        "busybox",
        "sh",
        "-c",
        "while :; do echo x; sleep 0.01; done",
    ])
    .ok();
    wait_until("nobody is connected", || {
        let now = d.descriptors();
        std::thread::sleep(std::time::Duration::from_millis(100));
        d.descriptors() == now
    });
    let before = d.descriptors();
    let streams = "stream=1&stdin=1&stdout=1&stderr=1";
    for round in 0..5 {
        let open = |line: String, headers: &str, body: &str, wait_for: &str| {
            let mut stream = send(&d, &line, headers, body);
            read_until(&mut stream, wait_for);
            if round % 2 == 1 {
                stream.shutdown(Shutdown::Write).expect("shutdown");
            }
            stream
        };
        let id = exec(&d, "cat", r#"{"Cmd":["sleep","0.2"],"AttachStdin":true,"AttachStdout":true}"#);
        let gone = [
            open(format!("POST /containers/cat/attach?{streams}"), UPGRADE, "", "101"),
            open(format!("POST /containers/later/attach?{streams}"), UPGRADE, "", "101"),
            open(format!("POST /containers/talks/attach?{streams}"), UPGRADE, "", "x\r\n"),
            open("GET /containers/talks/logs?stdout=1&follow=1".into(), "", "", "x\r\n"),
            open("GET /containers/cat/logs?stdout=1&follow=1".into(), "", "", "200"),
            open("POST /containers/cat/wait".into(), "", "", "200"),
            open("GET /events".into(), "", "", "200"),
            open(format!("POST /exec/{id}/start"), UPGRADE, "{}", "101"),
            open("GET /containers/cat/export".into(), "", "", "200"),
            open("GET /images/busybox/get".into(), "", "", "200"),
        ];
        drop(gone);
    }
    flat(&d, before, "sessions");
    d.docker(["rm", "-f", "cat", "talks", "later"]).ok();
    flat(&d, before, "containers");
    d.finish();
}

#[test]
fn privileged_atk_38_uploads_that_break_off_leave_nothing() {
    let d = Daemon::start();
    d.load("busybox");
    let archive = std::fs::read(fixture("busybox")).expect("fixture");
    let layers = || std::fs::read_dir(d.data_root().join("overlay2")).expect("layers").count();
    d.docker(["rmi", "busybox"]).ok();
    let images = d.docker(["images", "-aq"]).ok();
    let (before, had) = (d.descriptors(), layers());
    for line in ["POST /images/load", "POST /images/create?fromSrc=-&repo=x"] {
        for part in [1, 700, archive.len() / 2, archive.len() - 100_000] {
            let mut stream = d.connect();
            let head = format!("{line} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", archive.len());
            stream.write_all(head.as_bytes()).expect("head");
            let _ = stream.write_all(&archive[..part]);
        }
    }
    flat(&d, before, "uploads");
    wait_until("no half layer", || layers() == had);
    assert_eq!(d.docker(["images", "-aq"]).ok(), images);
    // The same archive, whole, is none the worse for it.
    d.load("busybox");
    assert_eq!(d.docker(["run", "--rm", "busybox", "echo", "fine"]).ok(), "fine");
    d.finish();
}

#[test]
fn privileged_stalled_connections_do_not_hold_up_others() {
    let d = Daemon::start();
    let before = d.descriptors();
    let mut stalled = Vec::new();
    for head in ["", "P", "GET /info HTTP/1.1\r\nHost:", "POST /containers/create HTTP/1.1\r\nHost: x\r\n"] {
        for _ in 0..50 {
            let mut stream = d.connect();
            stream.write_all(head.as_bytes()).expect("send");
            stalled.push(stream);
        }
    }
    let begun = "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{";
    for _ in 0..50 {
        let mut stream = d.connect();
        stream.write_all(begun.as_bytes()).expect("send");
        stalled.push(stream);
    }
    assert_eq!(d.docker(["ps", "-q"]).ok(), "");
    drop(stalled);
    flat(&d, before, "stalled connections");
    d.finish();
}

#[test]
fn privileged_unusual_http() {
    let d = Daemon::start();
    let answer = |request: &str| {
        let mut stream = d.connect();
        let _ = stream.write_all(request.as_bytes());
        let _ = stream.shutdown(Shutdown::Write);
        read_all(&mut stream)
    };
    // What is no HTTP, or contradicts itself, is refused or cut off, and never served.
    for bad in [
        "nonsense\r\n\r\n",
        "GET\r\n\r\n",
        "GET /_ping HTTP/3.0\r\n\r\n",
        "GET /_ping HTTP/1.1\r\nHost: x\r\nBad Header: y\r\n\r\n",
        "GET /_ping HTTP/1.1\r\nHost: x\r\nA: \u{0}\r\n\r\n",
        "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
        "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        "POST /containers/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\nzz\r\n",
        "POST /containers/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n{}",
    ] {
        let got = answer(bad);
        assert!(got.is_empty() || got.starts_with("HTTP/1.1 400"), "{bad:?}: {got:?}");
    }
    let long = format!("GET /_ping HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "y".repeat(1 << 20));
    let got = answer(&long);
    assert!(got.is_empty() || got.starts_with("HTTP/1.1 4"), "{}", got.len());
    let many = format!("GET /_ping HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(10_000));
    let got = answer(&many);
    assert!(got.is_empty() || got.starts_with("HTTP/1.1 4"), "{}", got.len());

    // HTTP/1.0, with and without being kept open.
    let old = answer("GET /_ping HTTP/1.0\r\n\r\n");
    assert!(old.starts_with("HTTP/1.0 200 OK") && old.ends_with("OK"), "{old}");
    // Several requests at once on one connection are answered in their order.
    let piped = answer(
        "GET /_ping HTTP/1.1\r\nHost: x\r\n\r\nGET /nosuch HTTP/1.1\r\nHost: x\r\n\r\nHEAD /_ping HTTP/1.1\r\nHost: x\r\n\r\nGET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    let statuses: Vec<&str> = piped.lines().filter(|l| l.contains("HTTP/1.1 ")).collect();
    assert_eq!(statuses.len(), 4, "{piped}");
    assert!(statuses[1].contains("404"), "{piped}");
    // A page's script does not drive the daemon.
    let page = answer(
        "POST /containers/prune HTTP/1.1\r\nHost: x\r\nOrigin: http://evil\r\nContent-Length: 0\r\n\r\n",
    );
    assert!(page.starts_with("HTTP/1.1 403"), "{page}");
    // One that asks first whether it may send.
    let asking = answer(
        "POST /containers/create HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
    );
    assert!(asking.contains("config cannot be empty"), "{asking}");
    assert_eq!(d.docker(["ps", "-aq"]).ok(), "");
    d.finish();
}

#[test]
fn privileged_input_that_comes_with_the_request_reaches_the_process() {
    let d = Daemon::start();
    d.load("busybox");
    for upgrade in [UPGRADE, ""] {
        d.docker(["create", "-i", "--name", "cat", "busybox", "cat"]).ok();
        let mut stream = d.connect();
        // Attached before the start; what is typed early waits for the process.
        let head = format!(
            "POST /containers/cat/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n{upgrade}\r\nearly "
        );
        stream.write_all(head.as_bytes()).expect("send");
        let mut waiting = send(&d, "POST /containers/cat/wait?condition=next-exit", CLOSE, "");
        read_until(&mut waiting, "200 OK");
        d.docker(["start", "cat"]).ok();
        read_until(&mut stream, "early ");
        stream.write_all(b"late\n").expect("send");
        read_until(&mut stream, "late\n");
        stream.shutdown(Shutdown::Write).expect("half-close");
        assert_eq!(read_all(&mut stream), "", "the end of input ends cat, and that the connection");
        assert!(read_all(&mut waiting).contains(r#""StatusCode":0"#));
        d.docker(["rm", "cat"]).ok();
    }
    d.finish();
}

#[test]
fn privileged_many_sessions_cost_nothing_that_stays() {
    let d = Daemon::start();
    d.load("busybox");
    d.docker(["run", "-d", "-i", "-t", "--name", "cat", "busybox", "cat"]).ok();
    let cycles: usize = if std::env::var_os("LONGSHORE_LONG").is_some() { 10_000 } else { 150 };
    let cycle = |i: usize| {
        let mut attached = send(&d, "POST /containers/cat/attach?stream=1&stdin=1&stdout=1", UPGRADE, "");
        read_until(&mut attached, "101");
        let size = format!("POST /containers/cat/resize?h={}&w=80", 10 + i % 50);
        assert!(read_all(&mut send(&d, &size, CLOSE, "")).contains("200"));
        let id = exec(&d, "cat", r#"{"Cmd":["true"],"AttachStdout":true}"#);
        let mut ran = send(&d, &format!("POST /exec/{id}/start"), UPGRADE, "{}");
        assert!(read_all(&mut ran).contains("101"));
    };
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", d.pid())).expect("status");
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("VmRSS").trim();
        line.trim_end_matches(" kB").parse::<usize>().expect("number")
    };
    (0..cycles / 3).for_each(cycle);
    wait_until("all are gone", || d.descriptors() < 60);
    let (descriptors, memory) = (d.descriptors(), resident());
    (0..cycles).for_each(cycle);
    flat(&d, descriptors, "sessions");
    // Execs that ended are known for five minutes: some kilobytes each.
    let more = resident().saturating_sub(memory);
    assert!(more < 4096 + cycles * 4, "{more} kB more after {cycles} sessions");
    d.finish();
}
