//! The daemon may be killed at any instant; containers, their logs and exit codes survive.

use std::time::Duration;

use crate::harness::{Daemon, wait_until};

#[test]
fn privileged_containers_survive_kill_9_of_the_daemon() {
    let mut d = Daemon::start();
    d.load("busybox");
    let ticking = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done";
    d.docker(["run", "-d", "--name", "ticks", "busybox", "sh", "-c", ticking]).ok();
    d.docker(["run", "-d", "--name", "ends", "busybox", "sh", "-c", "sleep 0.7; echo bye; exit 42"]).ok();
    d.docker(["run", "-d", "--rm", "--name", "goes", "busybox", "sleep", "0.7"]).ok();
    let pid = d.inspect("{{.State.Pid}}", "ticks");
    d.kill9();
    std::thread::sleep(Duration::from_millis(1200));
    d.launch();
    assert_eq!(d.inspect("{{.State.Pid}} {{.State.Status}}", "ticks"), format!("{pid} running"));
    wait_until("the end is known", || {
        d.inspect("{{.State.Status}} {{.State.ExitCode}}", "ends") == "exited 42"
    });
    assert_eq!(d.docker(["logs", "ends"]).ok(), "bye");
    wait_until("--rm is settled", || d.docker(["inspect", "goes"]).code != 0);
    // Not one line was lost while nobody was there to read.
    let lines = d.docker(["logs", "ticks"]).ok();
    for (i, line) in lines.lines().enumerate() {
        assert_eq!(line, i.to_string());
    }
    assert_eq!(d.docker(["exec", "ticks", "echo", "still here"]).ok(), "still here");
    d.docker(["stop", "-t", "1", "ticks"]).ok();
    d.finish();
}

#[test]
fn privileged_sigterm_leaves_containers_running() {
    let mut d = Daemon::start();
    d.load("busybox");
    d.docker(["run", "-d", "--name", "stays", "busybox", "sleep", "1000"]).ok();
    let pid = d.inspect("{{.State.Pid}}", "stays");
    d.terminate();
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
    d.launch();
    assert_eq!(d.inspect("{{.State.Pid}}", "stays"), pid);
    d.finish();
}

#[test]
fn privileged_a_dead_monitor_ends_its_container_with_a_reason() {
    let d = Daemon::start();
    d.load("busybox");
    d.docker(["run", "-d", "--name", "orphan", "busybox", "sleep", "1000"]).ok();
    let pid = d.inspect("{{.State.Pid}}", "orphan");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let monitor: u32 =
        status.lines().find_map(|l| l.strip_prefix("PPid:\t")).expect("parent").parse().expect("number");
    crate::harness::signal(monitor, "KILL");
    wait_until("it is known", || d.inspect("{{.State.Running}}", "orphan") == "false");
    assert_ne!(d.inspect("{{.State.Error}}", "orphan"), "");
    wait_until("the process is gone", || !std::path::Path::new(&format!("/proc/{pid}")).exists());
    d.finish();
}

#[test]
fn privileged_a_second_daemon_takes_neither_root_of_the_first() {
    let d = Daemon::start();
    d.load("busybox");
    d.docker(["run", "-d", "--name", "stays", "--network", "none", "busybox", "sleep", "1000"]).ok();
    let own = d.dir().join("second");
    let (data, exec) = (d.data_root(), d.dir().join("run"));
    for (data, exec, said) in
        [(&data, &own.join("run"), "data root is in use"), (&own.join("data"), &exec, "exec root is in use")]
    {
        let mut second = std::process::Command::new(env!("CARGO_BIN_EXE_longshore"));
        second.args(["daemon", "--host"]).arg(format!("unix://{}", own.join("s.sock").display()));
        second
            .arg("--data-root")
            .arg(data)
            .arg("--exec-root")
            .arg(exec)
            .arg("--pidfile")
            .arg(own.join("pid"));
        let out = second.output().expect("the second daemon");
        let text = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success(), "{text}");
        assert_eq!(text.matches(said).count(), 1, "said once: {text}");
    }
    assert_eq!(d.inspect("{{.State.Status}}", "stays"), "running");
    d.finish();
}
