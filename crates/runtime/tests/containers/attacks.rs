//! Attacks on the launcher that others have suffered.

use std::os::unix::fs::symlink;

use longshore_runtime::Runtime;
use serde_json::json;

use crate::harness::{World, finish_exec, process, run_exec, start_exec};

#[test]
fn privileged_atk_01_runtime_binary_cannot_be_overwritten() {
    let w = World::new();
    // An init of ours stays as process 1: its binary is what the container could reach.
    let mut request = w.request(
        w.spec("readlink /proc/1/exe; (echo x > /proc/1/exe) 2>&1; (echo x >> /proc/1/exe) 2>&1; echo done"),
    );
    request.init = true;
    let end = w.run_request(request);
    assert!(end.out.ends_with("done\n"), "{end:?}");
    // And it still works for the next container.
    assert_eq!(w.run(w.spec("exit 3")).code, 3);
    // A program that is a link to ourselves runs nothing of the host.
    symlink("/proc/self/exe", w.rootfs().join("bin/self")).unwrap();
    let task = w.runtime.create(w.request(w.spec_args(&["/bin/self"])));
    if let Ok(task) = task {
        let _ = task.start();
    }
    w.runtime.delete("c").unwrap();
    assert_eq!(w.run(w.spec("exit 3")).code, 3);
}

#[test]
fn privileged_atk_02_working_directory_cannot_be_a_leaked_descriptor() {
    let w = World::new();
    for n in 3..40 {
        for prefix in ["/proc/self/fd", "/proc/self/fd/../fd"] {
            let mut spec = w.spec("ls -a . | head -3; pwd");
            spec["process"]["cwd"] = json!(format!("{prefix}/{n}"));
            match w.runtime.create(w.request(spec)) {
                Err(_) => {}
                Ok(task) => {
                    task.start().unwrap();
                    let cwd = std::fs::read_link(format!("/proc/{}/cwd", task.pid())).unwrap_or_default();
                    panic!("cwd {n} gives {cwd:?}");
                }
            }
        }
    }
    let task = w.started(w.request(w.spec("sleep 1000")));
    for n in 3..40 {
        let mut p = process(&["pwd"]);
        p["cwd"] = json!(format!("/proc/self/fd/{n}"));
        assert!(start_exec(&task, p).is_err(), "exec in descriptor {n}");
    }
    // No descriptor but the standard ones is there at all.
    let end = run_exec(&task, process(&["sh", "-c", "ls /proc/self/fd | wc -l; ls /proc/1/fd | wc -l"]));
    assert_eq!(end.out, "4\n3\n");
}

#[test]
fn privileged_atk_03_mount_targets_through_links_stay_inside() {
    let w = World::new();
    let outside = w.path("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::create_dir(w.path("vol")).unwrap();
    symlink(&outside, w.rootfs().join("data")).unwrap();
    symlink("../../../../../../../..", w.rootfs().join("up")).unwrap();
    let mut spec = w.spec("touch /data/x /up/y; ls /up");
    let mounts = spec["mounts"].as_array_mut().unwrap();
    mounts.push(json!({ "destination": "/data", "source": w.path("vol"), "options": ["rbind"] }));
    mounts.push(json!({ "destination": "/up/made/here", "source": w.path("vol"), "options": ["rbind"] }));
    let end = w.run(spec);
    assert!(w.path("vol/x").exists(), "{end:?}");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    assert!(w.rootfs().join("made/here").is_dir() && w.rootfs().join("y").exists());
    assert!(!std::path::Path::new("/made").exists() && !std::path::Path::new("/y").exists());
}

/// Ends the other thread, also when a step fails.
struct Stop<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// One thread exchanges a directory of a volume for a link to the host, over and over, while
/// containers mount below it.
#[test]
fn privileged_atk_03_mount_target_race() {
    let w = World::new();
    let (vol, canary) = (w.path("vol"), w.path("canary"));
    for dir in [vol.join("a"), canary.clone(), w.path("src")] {
        std::fs::create_dir_all(dir).unwrap();
    }
    std::fs::write(w.path("src/from-source"), "").unwrap();
    symlink(&canary, vol.join("b")).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let dir = std::fs::File::open(&vol).unwrap();
                let _ = rustix::fs::renameat_with(&dir, "a", &dir, "b", rustix::fs::RenameFlags::EXCHANGE);
            }
        });
        // A failed step must end the other thread, too.
        let _stopped = Stop(&stop);
        for _ in 0..30 {
            let mut spec = w.spec("touch /vol/a/inner/x");
            let mounts = spec["mounts"].as_array_mut().unwrap();
            mounts.push(json!({ "destination": "/vol", "source": vol, "options": ["rbind"] }));
            mounts.push(
                json!({ "destination": "/vol/a/inner", "source": w.path("src"), "options": ["rbind"] }),
            );
            if let Ok(task) = w.runtime.create(w.request(spec)) {
                let wait = task.wait().unwrap();
                task.start().unwrap();
                crate::harness::collect(wait);
            }
            w.runtime.delete("c").unwrap();
        }
    });
    assert_eq!(std::fs::read_dir(&canary).unwrap().count(), 0, "the host was touched");
}

#[test]
fn privileged_atk_04_masks_come_from_the_real_null_device() {
    let w = World::new();
    // The image's own /dev/null is something else; masks must not use it.
    let mut spec = w.spec("stat -c %t:%T /proc/keys; cat /proc/keys; rm -f /dev/null 2>/dev/null; echo ok");
    std::fs::write(w.path("fake"), "fake contents").unwrap();
    spec["mounts"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "destination": "/dev/null", "source": w.path("fake"), "options": ["rbind"] }));
    // A bind over /dev/null stays what the caller asked for, and the default device is refused there.
    let error = w.runtime.create(w.request(spec)).unwrap_err();
    assert!(error.to_string().contains("/dev/null"), "{error}");
    let spec = w.spec("stat -c %t:%T /proc/keys; wc -c < /proc/keys");
    std::fs::create_dir_all(w.rootfs().join("dev")).unwrap();
    std::fs::write(w.rootfs().join("dev/null"), "image's own").unwrap();
    assert_eq!(w.run(spec).out, "1:3\n0\n");
}

#[test]
fn privileged_atk_05_console_is_the_terminal_whatever_the_image_has() {
    let w = World::new();
    symlink("/proc/sysrq-trigger", w.rootfs().join("dev/console")).unwrap();
    let mut spec = w.spec("stat -c %F /dev/console; echo to-console > /dev/console");
    spec["process"]["terminal"] = json!(true);
    let end = w.run(spec);
    assert_eq!(end.out, "character special file\r\nto-console\r\n");
    // A /dev that is the image's own, with a link in place of the console.
    let mut spec = w.spec("true");
    spec["process"]["terminal"] = json!(true);
    std::fs::create_dir_all(w.path("dev/pts")).unwrap();
    symlink("/etc/passwd", w.path("dev/console")).unwrap();
    spec["mounts"][1] = json!({ "destination": "/dev", "source": w.path("dev"), "options": ["rbind"] });
    spec["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|m| !["/dev/shm", "/dev/mqueue"].contains(&m["destination"].as_str().unwrap()));
    let error = w.runtime.create(w.request(spec)).unwrap_err();
    assert!(error.to_string().contains("/dev/console"), "{error}");
}

#[test]
fn privileged_atk_06_sysctl_goes_to_procfs_or_nowhere() {
    let w = World::new();
    // The container's /proc is the image's, with a trap in it.
    let trap = w.rootfs().join("proc");
    std::fs::create_dir_all(trap.join("sys/net/ipv4")).unwrap();
    std::fs::write(trap.join("sys/net/ipv4/ip_unprivileged_port_start"), "untouched").unwrap();
    let mut spec = w.spec("true");
    spec["mounts"].as_array_mut().unwrap().retain(|m| m["type"] != "proc");
    spec["linux"]["sysctl"] = json!({ "net.ipv4.ip_unprivileged_port_start": "7" });
    w.run(spec);
    assert_eq!(
        std::fs::read_to_string(trap.join("sys/net/ipv4/ip_unprivileged_port_start")).unwrap(),
        "untouched"
    );
    // What is not the container's own is refused.
    let mut spec = w.spec("true");
    spec["linux"]["sysctl"] = json!({ "kernel.core_pattern": "|/bin/evil" });
    assert!(w.runtime.create(w.request(spec)).is_err());
    let mut spec = w.spec("true");
    spec["linux"]["sysctl"] = json!({ "net/../kernel/core_pattern": "|/bin/evil" });
    assert!(w.runtime.create(w.request(spec)).is_err());
}

#[test]
fn privileged_atk_07_special_directories_may_not_be_links() {
    for name in ["proc", "sys", "dev"] {
        let w = World::new();
        std::fs::remove_dir(w.rootfs().join(name)).unwrap();
        symlink("tmp", w.rootfs().join(name)).unwrap();
        let error = w.runtime.create(w.request(w.spec("true"))).unwrap_err();
        assert!(error.to_string().contains(&format!("/{name}: must be a directory")), "{error}");
        assert_eq!(std::fs::read_dir(w.rootfs().join("tmp")).unwrap().count(), 0);
    }
}

#[test]
fn privileged_atk_08_profile_that_cannot_be_set_is_an_error() {
    if std::path::Path::new("/sys/kernel/security/apparmor").exists() {
        return;
    }
    let w = World::new();
    let mut spec = w.spec("true");
    spec["process"]["apparmorProfile"] = json!("longshore-default");
    let error = w.runtime.create(w.request(spec)).unwrap_err();
    assert!(error.to_string().contains("AppArmor"), "{error}");
}

#[test]
fn privileged_atk_11_inheritable_capabilities_are_empty() {
    let w = World::new();
    let script = "grep Cap /proc/self/status; grep NoNewPrivs /proc/self/status";
    let expected = "CapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\n";
    let mut spec = w.spec(script);
    spec["process"]["capabilities"]["inheritable"] = spec["process"]["capabilities"]["bounding"].clone();
    assert_eq!(w.run(spec).out, expected);
    let task = w.started(w.request(w.spec("sleep 1000")));
    let mut p = process(&["sh", "-c", script]);
    p["capabilities"]["inheritable"] = p["capabilities"]["bounding"].clone();
    assert_eq!(finish_exec(start_exec(&task, p).unwrap()).out, expected);
    // A user has none; no-new-privileges holds in exec, too.
    let mut p = process(&["sh", "-c", "grep CapEff /proc/self/status; grep NoNewPrivs /proc/self/status"]);
    p["user"] = json!({ "uid": 5, "gid": 5 });
    p["noNewPrivileges"] = json!(true);
    p["capabilities"]["effective"] = json!([]);
    p["capabilities"]["permitted"] = json!([]);
    assert_eq!(run_exec(&task, p).out, "CapEff:\t0000000000000000\nNoNewPrivs:\t1\n");
}

#[test]
fn privileged_atk_12_impossible_ids_are_refused() {
    let w = World::new();
    let mut spec = w.spec("id -u");
    spec["process"]["user"] = json!({ "uid": u32::MAX, "gid": 0 });
    assert!(w.runtime.create(w.request(spec)).is_err());
    let mut spec = w.spec("id -u");
    spec["process"]["user"] = json!({ "uid": u32::MAX - 1, "gid": 0 });
    assert_eq!(w.run(spec).out, "4294967294\n");
}

#[test]
fn privileged_atk_13_control_socket_is_a_private_path() {
    use std::os::unix::fs::PermissionsExt;
    let w = World::new();
    let task = w.started(w.request(w.spec("sleep 1000")));
    let mode = |p: std::path::PathBuf| p.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(w.exec_dir().join("monitor.sock")), 0o600);
    assert_eq!(mode(w.exec_dir()), 0o700);
    let sockets = std::fs::read_to_string(format!("/proc/{}/net/unix", task.monitor_pid())).unwrap();
    assert!(!sockets.lines().any(|l| l.contains(" @") && l.contains("longshore")));
    // Garbage is refused and harms nobody.
    use std::io::{Read, Write};
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], &[255; 64], &[5, 0, 0, 0, 3]] {
        let mut s = longshore_sys::sockpath::connect(&w.exec_dir().join("monitor.sock")).unwrap();
        s.write_all(garbage).unwrap();
        let _ = s.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = s.read_to_end(&mut answer);
    }
    assert_eq!(run_exec(&task, process(&["true"])).code, 0);
}

/// Docker's default of a filter without no-new-privileges, in run, exec and under our own init.
#[test]
fn privileged_filter_holds_in_run_and_exec() {
    let w = World::new();
    let script =
        "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status; unshare -U true; mount -t tmpfs t /tmp; echo $?";
    let spec = |args: &str, nnp: bool| {
        let mut spec = w.spec(args);
        let filter =
            longshore_runtime::seccomp::default_filter(longshore_runtime::caps::CapSet::default_set());
        spec["linux"]["seccomp"] = serde_json::to_value(&*filter).unwrap();
        spec["process"]["noNewPrivileges"] = json!(nnp);
        spec
    };
    for nnp in [false, true] {
        for init in [false, true] {
            let mut request = w.request(spec(script, nnp));
            request.init = init;
            let end = w.run_request(request);
            let expected = format!("NoNewPrivs:\t{}\nSeccomp:\t2\n", u8::from(nnp));
            assert!(end.out.starts_with(&expected) && !end.out.ends_with("\n0\n"), "{end:?}");
            assert!(end.err.contains("unshare"), "{end:?}");
        }
        let task = w.started(w.request(spec("sleep 1000", nnp)));
        let mut p = process(&["sh", "-c", script]);
        p["noNewPrivileges"] = json!(nnp);
        let end = run_exec(&task, p);
        assert!(end.out.contains("Seccomp:\t2\n") && end.err.contains("unshare"), "{end:?}");
        let mut p = process(&["sh", "-c", "id -u"]);
        p["user"] = json!({ "uid": 12, "gid": 12 });
        p["terminal"] = json!(true);
        assert_eq!(run_exec(&task, p).out, "12\r\n");
        w.runtime.delete("c").unwrap();
    }
}
