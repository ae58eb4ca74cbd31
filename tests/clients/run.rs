//! `docker run` and its family.

use crate::harness::{Client, Daemon, wait_until};

#[test]
fn privileged_run_gives_output_and_status() {
    let d = Daemon::start();
    d.load("busybox");
    for client in [Client::Docker, Client::Longshore] {
        assert_eq!(d.run(client, ["run", "--rm", "busybox", "echo", "hello"]).ok(), "hello", "{client:?}");
        d.run(client, ["run", "--rm", "busybox", "sh", "-c", "echo err >&2; exit 7"]).fails(7);
        let missing = d.run(client, ["run", "--rm", "busybox", "nosuch"]).fails(127);
        assert_eq!(missing.matches("executable file not found in $PATH").count(), 1, "said once: {missing}");
        d.run(client, ["run", "--rm", "busybox", "/etc"]).fails(126);
        let user = d.run(client, ["run", "--rm", "-u", "nobodyknows", "busybox", "true"]);
        assert!(
            user.fails(125).contains("unable to find user nobodyknows: no matching entries in passwd file")
        );
    }
    assert_eq!(d.docker(["ps", "-aq"]).ok(), "");
    d.finish();
}

#[test]
fn privileged_stdin_reaches_the_process_and_ends() {
    let d = Daemon::start();
    d.load("busybox");
    let done = d.docker_with_input(&["run", "--rm", "-i", "busybox", "cat"], b"one\ntwo\n");
    assert_eq!(done.ok(), "one\ntwo");
    d.finish();
}

#[test]
fn privileged_large_output_arrives_whole() {
    let d = Daemon::start();
    d.load("busybox");
    let script =
        "i=0; while [ $i -lt 20000 ]; do echo line-$i-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; i=$((i+1)); done";
    let out = d.docker(["run", "--name", "big", "busybox", "sh", "-c", script]).ok();
    assert_eq!(out.lines().count(), 20000);
    let logged = d.docker(["logs", "big"]).ok();
    assert_eq!(logged, out);
    d.finish();
}

#[test]
fn privileged_options_reach_the_process() {
    let d = Daemon::start();
    d.load("busybox");
    let run = |args: &[&str]| {
        let mut all = vec!["run", "--rm"];
        all.extend_from_slice(args);
        d.docker(all).ok()
    };
    assert_eq!(run(&["-e", "A=1", "busybox", "sh", "-c", "echo $A"]), "1");
    assert_eq!(run(&["-w", "/var", "busybox", "pwd"]), "/var");
    assert_eq!(run(&["-h", "box", "busybox", "hostname"]), "box");
    assert_eq!(run(&["-u", "www-data", "busybox", "id", "-G"]), "33 1234");
    assert_eq!(run(&["-u", "1000:1001", "busybox", "id"]), "uid=1000 gid=1001 groups=1001");
    assert_eq!(run(&["--entrypoint", "echo", "busybox", "x"]), "x");
    assert_eq!(
        run(&["--read-only", "busybox", "sh", "-c", "touch /x 2>/dev/null || echo refused"]),
        "refused"
    );
    assert_eq!(
        run(&["--tmpfs", "/t:size=1m", "busybox", "sh", "-c", "df -k /t | tail -1 | awk '{print $2}'"]),
        "1024"
    );
    assert_eq!(run(&["--network", "none", "busybox", "ls", "/sys/class/net"]), "lo");
    assert_eq!(run(&["--init", "busybox", "sh", "-c", "echo $$"]).parse::<u32>().map(|p| p > 1), Ok(true));
    assert_eq!(
        run(&["--cap-drop", "ALL", "busybox", "grep", "CapEff", "/proc/self/status"]),
        "CapEff:\t0000000000000000"
    );
    assert_eq!(run(&["busybox", "grep", "CapEff", "/proc/self/status"]), "CapEff:\t00000000a80425fb");
    assert_eq!(
        run(&["busybox", "grep", "CapInh", "/proc/self/status"]),
        "CapInh:\t0000000000000000",
        "atk 11"
    );
    assert_eq!(run(&["busybox", "grep", "Seccomp:", "/proc/self/status"]), "Seccomp:\t2");
    assert_eq!(
        run(&["--security-opt", "no-new-privileges", "busybox", "grep", "NoNewPrivs", "/proc/self/status"]),
        "NoNewPrivs:\t1"
    );
    assert_eq!(
        run(&["--ulimit", "nofile=100:200", "busybox", "sh", "-c", "ulimit -n; ulimit -Hn"]),
        "100\n200"
    );
    assert_eq!(
        run(&[
            "--sysctl",
            "net.ipv4.ip_default_ttl=99",
            "busybox",
            "cat",
            "/proc/sys/net/ipv4/ip_default_ttl"
        ]),
        "99"
    );
    d.finish();
}

#[test]
fn privileged_detached_life() {
    let d = Daemon::start();
    d.load("busybox");
    let id = d
        .docker([
            "run",
            "-d",
            "--name",
            "life",
            "busybox",
            "sh",
            "-c",
            "trap 'exit 3' TERM; echo up; while :; do sleep 0.1; done",
        ])
        .ok();
    assert_eq!(id.len(), 64);
    wait_until("it is up", || d.docker(["logs", "life"]).stdout == "up\n");
    assert_eq!(d.inspect("{{.State.Status}}", "life"), "running");
    assert_eq!(d.docker(["exec", "life", "sh", "-c", "echo in; exit 4"]).code, 4);
    assert_eq!(
        d.docker(["exec", "-e", "B=2", "-w", "/tmp", "life", "sh", "-c", "echo $B $PWD"]).ok(),
        "2 /tmp"
    );
    d.docker(["pause", "life"]).ok();
    assert_eq!(d.inspect("{{.State.Paused}}", "life"), "true");
    d.docker(["unpause", "life"]).ok();
    assert!(d.docker(["top", "life"]).ok().contains("trap"));
    d.docker(["rename", "life", "other"]).ok();
    let refused = d.docker(["rm", "other"]).fails(1);
    assert!(
        refused.contains("container is running: stop the container before removing or force remove"),
        "{refused}"
    );
    d.docker(["stop", "other"]).ok();
    assert_eq!(d.inspect("{{.State.ExitCode}} {{.State.Status}}", "other"), "3 exited");
    assert_eq!(d.docker(["wait", "other"]).ok(), "3");
    d.docker(["start", "other"]).ok();
    d.docker(["kill", "other"]).ok();
    wait_until("it is dead", || d.inspect("{{.State.Running}}", "other") == "false");
    assert_eq!(d.inspect("{{.State.ExitCode}}", "other"), "137");
    d.docker(["rm", "other"]).ok();
    d.finish();
}
