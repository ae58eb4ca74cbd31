//! Terminals: `-it` through a real one (script(1) makes it).

use std::process::{Command, Stdio};

use crate::harness::{Client, Daemon};

/// Runs a client's command line on a terminal and gives what it showed, and its status.
fn on_a_terminal(d: &Daemon, client: Client, args: &str, typed: &str) -> (String, i32) {
    let plain = d.command(client);
    let program = plain.get_program().to_str().expect("utf-8").to_owned();
    let mut cmd = Command::new("script");
    for (key, value) in plain.get_envs() {
        match value {
            Some(v) => cmd.env(key, v),
            None => cmd.env_remove(key),
        };
    }
    cmd.args(["-qec", &format!("stty rows 33 cols 101; {program} {args}"), "/dev/null"]).env("TERM", "dumb");
    let mut child =
        cmd.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("script(1)");
    let mut stdin = child.stdin.take().expect("stdin");
    let typed = typed.to_owned();
    let typing = std::thread::spawn(move || {
        for line in typed.split_inclusive('\n') {
            std::thread::sleep(std::time::Duration::from_millis(400));
            std::io::Write::write_all(&mut stdin, line.as_bytes()).expect("type");
        }
        std::thread::sleep(std::time::Duration::from_millis(1500));
    });
    let out = child.wait_with_output().expect("script(1)");
    typing.join().expect("typing");
    (String::from_utf8_lossy(&out.stdout).into_owned(), out.status.code().unwrap_or(-1))
}

#[test]
fn privileged_run_it_is_a_real_terminal() {
    let d = Daemon::start();
    d.load("busybox");
    for client in [Client::Docker, Client::Longshore] {
        let (shown, code) = on_a_terminal(&d, client, "run --rm -it busybox sh", "tty; stty size\nexit 5\n");
        assert!(shown.contains("/dev/pts/0") || shown.contains("/dev/console"), "{client:?}: {shown}");
        assert!(shown.contains("33 101"), "{client:?}: {shown}");
        assert_eq!(code, 5, "{client:?}: {shown}");
    }
    d.finish();
}

#[test]
fn privileged_exec_it_and_ctrl_c() {
    let d = Daemon::start();
    d.load("busybox");
    d.docker(["run", "-d", "--name", "box", "busybox", "sleep", "1000"]).ok();
    for client in [Client::Docker, Client::Longshore] {
        let typed = "echo $((40+2)); sleep 100\n\u{3}echo after-$?\nexit 3\n";
        let (shown, code) = on_a_terminal(&d, client, "exec -it box sh", typed);
        assert!(shown.contains("42") && shown.contains("after-130"), "{client:?}: {shown}");
        assert_eq!(code, 3, "{client:?}: {shown}");
    }
    d.finish();
}
