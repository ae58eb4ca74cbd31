//! Programs, their environment, and what is said when they cannot run.

use longshore_oci::Kind;
use longshore_runtime::{Error, Runtime};
use serde_json::json;

use crate::harness::{World, collect};

#[test]
fn privileged_exit_codes_and_signals() {
    let w = World::new();
    assert_eq!(w.run(w.spec_args(&["true"])).code, 0);
    assert_eq!(w.run(w.spec_args(&["false"])).code, 1);
    assert_eq!(w.run(w.spec("exit 255")).code, 255);
    let task = w.started(w.request(w.spec("kill -0 1; exec sleep 100")));
    let wait = task.wait().unwrap();
    task.signal(libc::SIGKILL, false).unwrap();
    let end = collect(wait);
    assert_eq!((end.code, end.signal), (137, 9));
}

#[test]
fn privileged_program_sees_its_own_world() {
    let w = World::new();
    let mut spec = w.spec("echo $X; pwd; id -u; id -g; id -G; hostname; echo err >&2; umask; cat /proc/self/oom_score_adj; ls /proc/self/fd | wc -l; ls / ; cat /proc/1/cmdline | head -c 8; ulimit -n");
    spec["process"]["env"] = json!(["PATH=/bin", "X=a b"]);
    spec["process"]["cwd"] = json!("/work/dir");
    spec["process"]["user"] = json!({ "uid": 1000, "gid": 1001, "additionalGids": [7, 8], "umask": 0o27 });
    spec["process"]["oomScoreAdj"] = json!(123);
    spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 88 }]);
    let end = w.run(spec);
    assert_eq!(end.err, "err\n");
    let expected = [
        "a b",
        "/work/dir",
        "1000",
        "1001",
        "1001 7 8",
        "box",
        "0027",
        "123",
        "4",
        "bin",
        "dev",
        "etc",
        "proc",
        "root",
        "sys",
        "tmp",
        "work",
        "/bin/sh",
        "77",
    ];
    assert_eq!(end.out.replace('\0', "\n").lines().collect::<Vec<_>>(), expected);
    assert!(w.rootfs().join("work/dir").is_dir());
}

fn launch_code(error: &Error) -> i32 {
    match error {
        Error::Launch(e) => e.exit_code(),
        e => panic!("{e:?}"),
    }
}

#[test]
fn privileged_unusable_commands_are_reported_in_dockers_words() {
    let w = World::new();
    std::fs::write(w.rootfs().join("bin/text"), "no program").unwrap();
    let cases = [
        ("nosuch", 127, r#"exec: "nosuch": executable file not found in $PATH"#),
        ("/no/such", 127, r#"exec: "/no/such": stat /no/such: no such file or directory"#),
        ("/etc/passwd", 126, r#"exec: "/etc/passwd": permission denied"#),
        ("/etc", 126, r#"exec: "/etc": is a directory: permission denied"#),
    ];
    for (command, code, message) in cases {
        let error = w.refused(w.spec_args(&[command]));
        assert_eq!((launch_code(&error), error.to_string()), (code, message.to_owned()));
        assert_eq!(error.kind(), Kind::Invalid);
    }
    // Only exec itself finds out.
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(w.rootfs().join("bin/text"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let error = w.refused(w.spec_args(&["text"]));
    assert_eq!(
        (launch_code(&error), error.to_string()),
        (126, "exec /bin/text: exec format error".to_owned())
    );
    assert!(!w.path("exit").exists(), "nothing ran");
}

#[test]
fn privileged_failed_setup_leaves_nothing() {
    let w = World::new();
    let mut spec = w.spec("true");
    spec["mounts"][0]["options"] = json!(["nosuchoption=1"]);
    let error = w.runtime.create(w.request(spec)).unwrap_err();
    assert!(error.to_string().contains("/proc"), "{error}");
    assert!(!w.exec_dir().exists());
    let mut spec = w.spec("true");
    spec["mounts"].as_array_mut().unwrap().push(
        json!({ "destination": "/x", "type": "bind", "source": "/no/such/source", "options": ["rbind"] }),
    );
    let error = w.runtime.create(w.request(spec)).unwrap_err();
    assert!(error.to_string().contains("/no/such/source"), "{error}");
    assert!(!w.exec_dir().exists());
}

#[test]
fn privileged_own_init_reaps_and_forwards() {
    let w = World::new();
    let mut request = w.request(w.spec("trap 'echo got; exit 5' TERM; (sleep 0.01 &) ; sleep 0.1; echo $$ ready; while :; do sleep 0.02; done"));
    request.init = true;
    let task = w.runtime.create(request).unwrap();
    let mut stream = task.attach(crate::harness::OUTPUT).unwrap();
    task.start().unwrap();
    let text = crate::harness::read_until(&mut stream, "ready\n");
    assert_ne!(text, "1 ready\n");
    let stat = std::fs::read_to_string(format!("/proc/{}/task/{0}/children", task.pid())).unwrap();
    assert_eq!(stat.split_whitespace().count(), 1, "orphans are reaped");
    task.signal(libc::SIGTERM, false).unwrap();
    let end = collect(stream);
    assert_eq!((end.out.as_str(), end.code), ("got\n", 5));
    // A signal that ends the program ends init with Docker's code.
    w.runtime.delete("c").unwrap();
    let mut request = w.request(w.spec("kill -9 $$"));
    request.init = true;
    assert_eq!(w.run_request(request).code, 137);
    let mut request = w.request(w.spec_args(&["/etc/passwd"]));
    request.init = true;
    assert!(w.runtime.create(request).is_err());
}
