//! Processes that join a container.

use std::io::{Read, Write};

use longshore_runtime::{Error, ExecStdio, Runtime};
use serde_json::json;

use crate::harness::{World, collect, finish_exec, process, run_exec, start_exec};

#[test]
fn privileged_exec_joins_everything() {
    let w = World::new();
    let task = w.started(w.request(w.spec("sleep 1000")));
    let ns = |pid: &str| {
        ["mnt", "pid", "net", "ipc", "uts", "cgroup"]
            .map(|n| std::fs::read_link(format!("/proc/{pid}/ns/{n}")).unwrap())
    };
    let end = run_exec(
        &task,
        process(&[
            "sh",
            "-c",
            "for n in mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done; echo err >&2; exit 9",
        ]),
    );
    let inside: Vec<_> = ns(&task.pid().to_string()).iter().map(|p| p.to_str().unwrap().to_owned()).collect();
    assert_eq!(end.out.lines().collect::<Vec<_>>(), inside);
    assert_ne!(ns("self").map(|p| p.to_str().unwrap().to_owned()).to_vec(), inside);
    assert_eq!((end.err.as_str(), end.code), ("err\n", 9));
    let mut p = process(&["sh", "-c", "id -u; pwd; echo $A; hostname"]);
    p["user"] = json!({ "uid": 33, "gid": 33 });
    p["cwd"] = json!("/tmp");
    p["env"] = json!(["PATH=/bin", "A=1"]);
    assert_eq!(run_exec(&task, p).out, "33\n/tmp\n1\nbox\n");
}

#[test]
fn privileged_exec_terminal_input_and_signals() {
    let w = World::new();
    let task = w.started(w.request(w.spec("sleep 1000")));
    let mut p = process(&["sh", "-c", "tty; stty size"]);
    p["terminal"] = json!(true);
    assert_eq!(run_exec(&task, p).out, "/dev/pts/0\r\n37 91\r\n");

    let process = serde_json::from_value(process(&["cat"])).unwrap();
    let exec = task
        .exec(longshore_runtime::ExecRequest {
            process,
            terminal: false,
            console_size: None,
            stdin: true,
            exec_id: "e".into(),
        })
        .unwrap();
    let ExecStdio::Pipes { stdin: Some(stdin), stdout, .. } = exec.stdio else { panic!("pipes") };
    let mut stdin = std::fs::File::from(stdin);
    stdin.write_all(b"through\n").unwrap();
    drop(stdin);
    let mut text = String::new();
    std::fs::File::from(stdout).read_to_string(&mut text).unwrap();
    assert_eq!(text, "through\n");
    assert_eq!(collect(exec.events).code, 0);

    let exec = start_exec(&task, crate::harness::process(&["sleep", "1000"])).unwrap();
    exec.signal(libc::SIGTERM).unwrap();
    let end = finish_exec(exec);
    assert_eq!((end.code, end.signal), (143, 15));
}

#[test]
fn privileged_exec_failures_are_told_and_leave_nothing() {
    let w = World::new();
    let task = w.started(w.request(w.spec("sleep 1000")));
    for (command, code) in [("nosuch", 127), ("/etc/passwd", 126)] {
        match start_exec(&task, process(&[command])).unwrap_err() {
            Error::Launch(e) => assert_eq!(e.exit_code(), code, "{e}"),
            e => panic!("{e:?}"),
        }
    }
    let fds = std::fs::read_dir(format!("/proc/{}/fd", task.monitor_pid())).unwrap().count();
    for _ in 0..20 {
        assert_eq!(run_exec(&task, process(&["true"])).code, 0);
    }
    let left = std::fs::read_dir(format!("/proc/{}/fd", task.monitor_pid())).unwrap().count();
    assert!(left <= fds, "{left} descriptors, {fds} before");
    w.runtime.delete("c").unwrap();
    assert!(matches!(start_exec(&task, process(&["true"])), Err(Error::NotRunning(_))));
}

#[test]
fn privileged_execs_end_with_their_container() {
    let w = World::new();
    let task = w.started(w.request(w.spec("sleep 1000")));
    let exec = start_exec(&task, process(&["sleep", "1000"])).unwrap();
    task.signal(libc::SIGKILL, false).unwrap();
    let end = finish_exec(exec);
    assert_eq!(end.signal, 9);
}
