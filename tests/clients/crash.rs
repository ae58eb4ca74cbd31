//! The daemon is killed at many moments of a container's life. What it had acknowledged holds afterwards, what it had
//! not is there or not, and nothing is left of either in the end.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::harness::{Daemon, wait_until};

/// The status of an answer; `None` when the daemon died over it.
fn request(socket: &Path, line: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    let len = body.len();
    let head = format!(
        "{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {len}\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer))
}

/// What the daemon said about one container before it was killed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    created: bool,
    started: bool,
    /// A removal was asked for: it may be gone.
    asked_to_go: bool,
    gone: bool,
}

/// One container's life, up to the daemon's death.
fn live(socket: &Path, name: &str) -> Told {
    let mut told = Told::default();
    let mut steps = || {
        let body = r#"{"Image":"busybox","Cmd":["sleep","1000"],"HostConfig":{"Binds":["data:/data"],"PortBindings":{"80/tcp":[{}]}}}"#;
        request(socket, &format!("POST /containers/create?name={name}"), body).filter(|a| a.0 == 201)?;
        told.created = true;
        request(socket, &format!("POST /containers/{name}/start"), "").filter(|a| a.0 == 204)?;
        told.started = true;
        let body = r#"{"Cmd":["true"]}"#;
        let (_, exec) = request(socket, &format!("POST /containers/{name}/exec"), body)?;
        let id = exec.split("\"Id\":\"").nth(1)?.split('"').next()?.to_owned();
        request(socket, &format!("POST /exec/{id}/start"), r#"{"Detach":true}"#)?;
        request(socket, &format!("POST /containers/{name}/stop?t=0"), "")?;
        request(socket, &format!("POST /containers/{name}/start"), "")?;
        request(socket, &format!("POST /containers/{name}/kill"), "")?;
        told.asked_to_go = true;
        request(socket, &format!("DELETE /containers/{name}?force=1&v=1"), "").filter(|a| a.0 == 204)?;
        told.gone = true;
        Some(())
    };
    steps();
    told
}

#[test]
fn privileged_kill_9_at_any_moment_of_a_containers_life() {
    let mut d = Daemon::start();
    d.load("busybox");
    let socket = d.socket();
    // How long a life takes here, so that the moments spread over all of it.
    let begun = std::time::Instant::now();
    let whole = live(&socket, "first");
    assert!(whole.gone, "{whole:?}");
    let span = begun.elapsed();
    let moments: u32 = if std::env::var_os("LONGSHORE_LONG").is_some() { 400 } else { 24 };
    for i in 0..moments {
        let name = format!("box{i}");
        let told = std::thread::scope(|scope| {
            let life = scope.spawn(|| live(&socket, &name));
            std::thread::sleep(span * i / moments);
            d.kill9();
            life.join().expect("life")
        });
        d.launch();
        let there = d.docker(["inspect", "--format", "{{.State.Status}} {{.State.Pid}}", &name]);
        let context = format!("moment {i} of {moments}: {told:?}");
        assert!(!told.gone || there.code != 0, "removed, and there: {context}");
        if told.created && !told.asked_to_go {
            assert_eq!(there.code, 0, "created, and not there: {context}");
        }
        if there.code != 0 {
            continue;
        }
        // A process that was killed together with the daemon may still be seen for a moment.
        let mut shown = String::new();
        wait_until(&context, || {
            shown = d.inspect("{{.State.Status}} {{.State.Pid}}", &name);
            consistent(&shown)
        });
        match shown.split(' ').next().expect("a status") {
            "running" => {
                assert_eq!(d.docker(["exec", &name, "echo", "here"]).ok(), "here", "{context}");
            }
            // Whatever it is, it can be started: nothing of before is in the way.
            status @ ("created" | "exited") => {
                assert!(status == "exited" || !told.started, "{context}: {shown}");
                d.docker(["start", &name]).ok();
            }
            other => panic!("{other}: {context}"),
        }
        d.docker(["rm", "-f", "-v", &name]).ok();
    }
    d.finish();
}

#[test]
fn privileged_kill_9_of_a_monitor_at_any_moment() {
    let d = Daemon::start();
    d.load("busybox");
    for delay in [0, 3, 10, 30] {
        let id = d.docker(["create", "busybox", "sleep", "1000"]).ok();
        std::thread::scope(|scope| {
            let starting = scope.spawn(|| d.docker(["start", &id]));
            std::thread::sleep(Duration::from_millis(20 + delay));
            for monitor in monitors(d.pid()) {
                let _ = std::process::Command::new("kill").args(["-9", &monitor.to_string()]).status();
            }
            starting.join().expect("start");
        });
        wait_until("its end or its start is settled", || {
            consistent(&d.inspect("{{.State.Status}} {{.State.Pid}}", &id))
        });
        d.docker(["rm", "-f", &id]).ok();
    }
    d.finish();
}

/// Whether a status and a process fit together.
fn consistent(shown: &str) -> bool {
    match shown.split_once(' ').expect("two words") {
        ("running", pid) => Path::new(&format!("/proc/{pid}")).exists(),
        (_, pid) => pid == "0",
    }
}

/// The daemon's children.
fn monitors(daemon: u32) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").expect("proc").flatten();
    let numbers = all.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let child = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|l| l.strip_prefix("PPid:\t").is_some_and(|p| p.trim() == daemon.to_string()))
    };
    numbers.filter(child).collect()
}
