//! Other OCI runtimes chosen with `--runtime`, from Debian's packages.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::harness::{Client, Daemon, wait_until};

/// crun refuses hosts that have both cgroup versions; without the unified tree it sees v1.
const CRUN: &str = "#!/bin/sh\n\
    mountpoint -q /sys/fs/cgroup/unified || exec crun \"$@\"\n\
    exec unshare --mount sh -c 'umount /sys/fs/cgroup/unified && exec crun \"$@\"' crun \"$@\"\n";

fn start() -> (tempfile::TempDir, Daemon) {
    let dir = tempfile::tempdir().expect("folder");
    let crun = dir.path().join("crun");
    fs::write(&crun, CRUN).expect("write");
    fs::set_permissions(&crun, fs::Permissions::from_mode(0o755)).expect("mode");
    let flag = format!("--add-runtime=crun={}", crun.display());
    let d = Daemon::start_with(&[&flag, "--add-runtime=other=runc"]);
    d.load("busybox");
    (dir, d)
}

/// A wrapper's path in `ps` is no leftover, but its folder must outlive the daemon.
fn finish((_dir, d): (tempfile::TempDir, Daemon)) {
    d.finish();
}

#[test]
fn privileged_commands_run_by_other_runtimes() {
    let world = start();
    let d = &world.1;
    for runtime in ["crun", "other"] {
        let run = |args: &[&str]| {
            let mut all = vec!["run", "--rm", "--runtime", runtime];
            all.extend_from_slice(args);
            d.docker(all)
        };
        assert_eq!(run(&["busybox", "echo", "hi"]).ok(), "hi", "{runtime}");
        run(&["busybox", "sh", "-c", "exit 3"]).fails(3);
        // The client tells by runc's words; crun's are others.
        let missing = run(&["busybox", "nosuch"]).fails(if runtime == "crun" { 125 } else { 127 });
        assert!(missing.contains("OCI runtime create failed: "), "{missing}");
        assert!(missing.contains("not found in $PATH"), "{missing}");
        assert_eq!(run(&["-t", "busybox", "tty"]).ok().trim(), "/dev/pts/0");
        assert_eq!(
            run(&["-h", "box", "-w", "/var", "busybox", "sh", "-c", "hostname; pwd"]).ok(),
            "box\n/var"
        );
        // The daemon's network, not one of the runtime's.
        assert_eq!(run(&["busybox", "cat", "/sys/class/net/eth0/operstate"]).ok(), "up");
        let status = run(&["busybox", "grep", "-E", "^(CapEff|Seccomp):", "/proc/self/status"]).ok();
        assert_eq!(status, "CapEff:\t00000000a80425fb\nSeccomp:\t2");
        let stdin = ["run", "--rm", "-i", "--runtime", runtime, "busybox", "cat"];
        assert_eq!(d.docker_with_input(&stdin, b"in\n").ok(), "in");
        assert!(run(&["--init", "busybox", "true"]).fails(125).contains("--init with the runtime"));
    }
    finish(world);
}

#[test]
fn privileged_other_runtimes_containers_live_as_ours_do() {
    let mut world = start();
    let d = &mut world.1;
    for runtime in ["crun", "other"] {
        let ticks = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done";
        d.docker(["run", "-d", "--name", runtime, "--runtime", runtime, "busybox", "sh", "-c", ticks]).ok();
        assert_eq!(d.docker(["exec", runtime, "echo", "in"]).ok(), "in");
        assert_eq!(d.docker(["exec", "-t", runtime, "tty"]).ok().trim(), "/dev/pts/0");
        d.docker(["exec", runtime, "sh", "-c", "exit 7"]).fails(7);
        d.docker(["exec", runtime, "nosuch"]).fails(127);
        let filter = d.docker(["exec", runtime, "grep", "^Seccomp:", "/proc/self/status"]).ok();
        assert_eq!(filter, "Seccomp:\t2", "{runtime}");
        let pid = d.inspect("{{.State.Pid}}", runtime);
        d.kill9();
        d.launch();
        assert_eq!(d.inspect("{{.State.Pid}} {{.State.Status}}", runtime), format!("{pid} running"));
        assert_eq!(d.docker(["exec", runtime, "echo", "again"]).ok(), "again");
        d.docker(["pause", runtime]).ok();
        d.docker(["unpause", runtime]).ok();
        d.docker(["stop", "-t", "1", runtime]).ok();
        assert_eq!(
            d.inspect("{{.State.ExitCode}} {{.HostConfig.Runtime}}", runtime),
            format!("137 {runtime}")
        );
        let lines = d.docker(["logs", runtime]).ok();
        assert!(lines.lines().enumerate().all(|(i, line)| line == i.to_string()), "{lines}");
        d.docker(["start", runtime]).ok();
        d.docker(["kill", "-s", "KILL", runtime]).ok();
        wait_until("it has ended", || d.inspect("{{.State.Running}}", runtime) == "false");
        d.docker(["rm", runtime]).ok();
        let state = d.dir().join("run/oci").join(runtime);
        let left = fs::read_dir(state).expect("state of the runtime").flatten().map(|e| e.file_name());
        // Newer versions of crun keep compiled filters beside the containers, in `.cache`.
        let left: Vec<_> = left.filter(|name| !name.as_encoded_bytes().starts_with(b".")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
    finish(world);
}

#[test]
fn privileged_runtimes_are_listed_and_unknown_ones_refused() {
    let dir = tempfile::tempdir().expect("folder");
    let file = dir.path().join("daemon.json");
    let text = r#"{"runtimes": {"other": {"path": "runc", "runtimeArgs": ["--debug"]}, "gone": {"path": "/nosuch"}}, "default-runtime": "other"}"#;
    fs::write(&file, text).expect("write");
    let d = Daemon::start_with(&["--config-file", file.to_str().expect("utf-8")]);
    d.load("busybox");
    assert_eq!(
        d.docker([
            "info",
            "-f",
            "{{.DefaultRuntime}} {{range $k, $v := .Runtimes}}{{$k}}={{$v.Path}} {{end}}"
        ])
        .ok(),
        "other gone=/nosuch longshore=longshore other=runc "
    );
    for client in [Client::Docker, Client::Longshore] {
        let said = d.run(client, ["run", "--rm", "--runtime", "zz", "busybox", "true"]).fails(125);
        assert!(said.contains("unknown or invalid runtime name: zz"), "{said}");
        let said = d.run(client, ["run", "--rm", "--runtime", "gone", "busybox", "true"]).fails(125);
        assert!(said.contains("runtime gone: program /nosuch not found"), "{said}");
    }
    assert_eq!(d.docker(["run", "--rm", "busybox", "echo", "by runc"]).ok(), "by runc");
    d.docker(["run", "--rm", "--runtime", "longshore", "busybox", "true"]).ok();
    d.finish();
}
