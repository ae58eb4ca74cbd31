//! Terminals: `-it` through a real one (script(1) makes it).

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use crate::harness::{Client, Daemon};

/// Runs a client's command line on a terminal and gives what it showed, and its status. Each step waits until
/// something is shown, and then types.
fn on_a_terminal(d: &Daemon, client: Client, args: &str, steps: &[(&str, &str)]) -> (String, i32) {
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
    let mut screen = child.stdout.take().expect("stdout");
    let (mut shown, mut seen) = (Vec::new(), 0);
    let mut read = |shown: &mut Vec<u8>| {
        let mut bytes = [0; 4096];
        let n = screen.read(&mut bytes).expect("screen");
        shown.extend_from_slice(&bytes[..n]);
        n > 0
    };
    for (shows, typed) in steps {
        let at = loop {
            let new = String::from_utf8_lossy(&shown[seen..]).into_owned();
            if let Some(at) = new.find(shows) {
                break at;
            }
            assert!(read(&mut shown), "{shows:?} is not shown: {}", String::from_utf8_lossy(&shown));
        };
        seen += at + shows.len();
        stdin.write_all(typed.as_bytes()).expect("type");
    }
    while read(&mut shown) {}
    let status = child.wait().expect("script(1)");
    (String::from_utf8_lossy(&shown).into_owned(), status.code().unwrap_or(-1))
}

#[test]
fn privileged_run_it_is_a_real_terminal() {
    let d = Daemon::start();
    d.load("busybox");
    for client in [Client::Docker, Client::Longshore] {
        let steps = [("# ", "tty; stty size\n"), ("33 101", "exit 5\n")];
        let (shown, code) = on_a_terminal(&d, client, "run --rm -it busybox sh", &steps);
        assert!(shown.contains("/dev/pts/0") || shown.contains("/dev/console"), "{client:?}: {shown}");
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
        let steps = [
            ("# ", "echo $((40+2)); sleep 100\n"),
            ("42\r\n", "\u{3}"),
            ("^C", "echo after-$?\n"),
            ("after-130", "exit 3\n"),
        ];
        let (shown, code) = on_a_terminal(&d, client, "exec -it box sh", &steps);
        assert_eq!(code, 3, "{client:?}: {shown}");
    }
    d.finish();
}
