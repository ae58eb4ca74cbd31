//! The API's edges: what is unknown, malformed, too large or not there yet.

use crate::harness::Daemon;

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

fn get(d: &Daemon, path: &str) -> String {
    d.raw(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
}

fn post(d: &Daemon, path: &str, body: &str) -> String {
    let len = body.len();
    d.raw(&format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {len}\r\n\r\n{body}"
    ))
}

#[test]
fn privileged_versions_and_routes() {
    let d = Daemon::start();
    let ping = get(&d, "/_ping");
    assert!(ping.ends_with("OK") && ping.contains("Api-Version: 1.51"), "{ping}");
    for version in ["1.24", "1.40", "1.43", "1.51"] {
        assert_eq!(status(&get(&d, &format!("/v{version}/containers/json"))), "200", "{version}");
    }
    let old = get(&d, "/v1.10/info");
    assert!(status(&old) == "400" && old.contains("client version 1.10 is too old"), "{old}");
    let new = get(&d, "/v9.99/info");
    assert!(status(&new) == "400" && new.contains("is too new"), "{new}");
    let unknown = get(&d, "/v1.51/nosuch");
    assert!(status(&unknown) == "404" && unknown.contains("page not found"), "{unknown}");
    let later = post(&d, "/v1.51/build/cancel?id=1", "");
    assert!(status(&later) == "501" && later.contains("build"), "{later}");
    d.finish();
}

#[test]
fn privileged_bad_bodies_are_refused_in_dockers_words() {
    let d = Daemon::start();
    d.load("busybox");
    for (body, code, word) in [
        ("{", "400", "JSON"),
        ("{\"Image\": 7}", "400", ""),
        ("{\"Image\": \"nosuch\"}", "404", "No such image: nosuch:latest"),
        (
            "{\"Image\": \"busybox\", \"HostConfig\": {\"Memory\": 1000}}",
            "400",
            "Minimum memory limit allowed is 6MB",
        ),
        ("{\"Image\": \"busybox\", \"WorkingDir\": \"rel\"}", "400", "needs to be an absolute path"),
        ("{\"Image\": \"busybox\", \"StopSignal\": \"SIGBAD\"}", "400", "invalid signal: SIGBAD"),
        (
            "{\"Image\": \"busybox\", \"HostConfig\": {\"CapAdd\": [\"BAD\"]}}",
            "400",
            "unknown capability: \\\"CAP_BAD\\\"",
        ),
    ] {
        let answer = post(&d, "/v1.51/containers/create", body);
        assert!(status(&answer) == code && answer.contains(word), "{body}: {answer}");
    }
    let huge = format!("{{\"Image\": \"{}\"}}", "x".repeat(5 << 20));
    assert_eq!(status(&post(&d, "/v1.51/containers/create", &huge)), "413");
    assert_eq!(d.docker(["ps", "-aq"]).ok(), "");
    d.finish();
}

#[test]
fn privileged_clients_that_vanish_leave_nothing() {
    let mut d = Daemon::start();
    d.load("busybox");
    d.docker(["run", "-d", "--name", "talks", "busybox", "sh", "-c", "while :; do echo x; sleep 0.01; done"])
        .ok();
    for _ in 0..20 {
        let mut child = d
            .command(crate::harness::Client::Docker)
            .args(["logs", "-f", "talks"])
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("docker");
        std::thread::sleep(std::time::Duration::from_millis(50));
        child.kill().expect("kill");
        child.wait().expect("wait");
    }
    assert_eq!(d.docker(["exec", "talks", "echo", "fine"]).ok(), "fine");
    d.docker(["kill", "talks"]).ok();
    d.terminate();
    d.launch();
    d.finish();
}

/// Another user than root gets one clear answer, from the daemon and from a command that would start one.
#[test]
fn privileged_an_ordinary_user_is_told_what_to_do() {
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::process::Command;

    let dir = tempfile::tempdir().expect("folder");
    // The build's own folder may be closed to others.
    let program = dir.path().join("longshore");
    std::fs::copy(env!("CARGO_BIN_EXE_longshore"), &program).expect("copy");
    let home = dir.path().join("home");
    std::fs::create_dir(&home).expect("folder");
    chown(&home, Some(65534), Some(65534)).expect("owner");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("mode");
    for (args, prefix) in [(&["daemon"][..], "longshore daemon: "), (&["ps"], "cannot start a daemon: ")] {
        let out = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&program)
            .args(args)
            .envs([("HOME", &home), ("XDG_RUNTIME_DIR", &home)])
            .env_remove("DOCKER_HOST")
            .output()
            .expect("setpriv (package util-linux)");
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{said}");
        let words = "running without root needs what this machine does not have yet";
        assert!(said.contains(prefix) && said.contains(words), "{said}");
        assert!(said.contains("/etc/subuid gives nobody no subordinate ids: as root, usermod"), "{said}");
    }
    assert!(!home.join(".local").exists(), "nothing was begun");
}
