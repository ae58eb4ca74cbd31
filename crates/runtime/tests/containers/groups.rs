//! Limits, and reaching all processes of a container.

use longshore_runtime::Runtime;
use serde_json::json;

use crate::harness::{World, collect, process, run_exec};

#[test]
fn privileged_processes_are_in_the_cgroup_and_see_only_it() {
    let w = World::new();
    let mut spec = w.spec("cat /proc/self/cgroup | grep -v ':/$'; ls /sys/fs/cgroup | grep -c .; cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; touch /sys/fs/cgroup/x; mkdir /sys/fs/cgroup/pids/x /sys/fs/cgroup/x; echo 1 > /sys/fs/cgroup/pids/pids.max; mount -o remount,rw /sys/fs/cgroup; sleep 1000");
    spec["mounts"].as_array_mut().unwrap().push(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] }));
    spec["linux"]["resources"] = json!({ "pids": { "limit": 77 } });
    let task = w.runtime.create(w.request(spec)).unwrap();
    let mut stream = task.attach(crate::harness::OUTPUT).unwrap();
    task.start().unwrap();
    let text = crate::harness::read_until(&mut stream, "mount: permission denied (are you root?)\n");
    assert!(text.lines().nth(1) == Some("77"), "{text}");
    assert!(text.contains("x: Read-only file system") && !text.contains("/c\n"), "{text}");
    // An exec is in it, too.
    let end = run_exec(
        &task,
        process(&["sh", "-c", "cat /proc/self/cgroup | grep -v ':/$'; mount | grep cgroup | grep -v 'ro,'"]),
    );
    assert_eq!(end.out, "");
    assert!(task.pids().unwrap().contains(&task.pid()));
}

#[test]
fn privileged_atk_15_no_way_out_through_cgroups() {
    let w = World::new();
    let mut spec = w.spec("for f in /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/*/notify_on_release; do (echo 1 > $f) 2>/dev/null && echo bad $f; done; mount -t cgroup none /tmp 2>/dev/null && echo bad mount; true");
    spec["mounts"].as_array_mut().unwrap().push(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "ro"] }));
    assert_eq!(w.run(spec).out, "");
}

#[test]
fn privileged_the_hosts_cgroup_mount_is_seen_and_keeps_its_options() {
    let w = World::new();
    let options = || {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        mounts.lines().filter(|l| l.contains(" /sys/fs/cgroup")).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = options();
    let mut spec =
        w.spec("cat /proc/self/cgroup; ls /sys/fs/cgroup; mkdir /sys/fs/cgroup/x /sys/fs/cgroup/*/x");
    spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|ns| ns["type"] != "cgroup");
    spec["mounts"].as_array_mut().unwrap().push(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] }));
    let end = w.run(spec);
    assert!(end.out.contains(&crate::harness::cgroup_parent()), "{end:?}");
    assert_ne!(end.code, 0, "nothing can be made there: {end:?}");
    assert_eq!(options(), before);
}

#[test]
fn privileged_pause_resume_and_signal_all() {
    let w = World::new();
    let task = w.started(w.request(w.spec("(trap '' HUP; sleep 1000) & sleep 1000 & sleep 1000")));
    task.pause().unwrap();
    assert!(task.cgroup().is_frozen().unwrap());
    task.resume().unwrap();
    assert!(!task.cgroup().is_frozen().unwrap());
    let wait = task.wait().unwrap();
    task.signal(libc::SIGKILL, true).unwrap();
    assert_eq!(collect(wait).code, 137);
    // A paused one can be removed, too.
    w.runtime.delete("c").unwrap();
    let task = w.started(w.request(w.spec("sleep 1000")));
    task.pause().unwrap();
    w.runtime.delete("c").unwrap();
    assert!(!std::path::Path::new(&format!("/proc/{}", task.pid())).exists());
}

#[test]
fn privileged_devices_are_restricted_to_the_list() {
    let w = World::new();
    // Not in the root file system: the host may have mounted its /tmp without devices.
    let mut spec = w.spec("mknod /dev/sda b 8 0; cat /dev/sda 2>&1 | head -1; mknod /dev/n c 1 3 && echo x > /dev/n && echo fine");
    spec["linux"]["resources"] = json!({ "devices": longshore_runtime::spec_defaults::device_rules() });
    let end = w.run(spec);
    assert!(end.out.contains("Operation not permitted") && end.out.ends_with("fine\n"), "{end:?}");
}

#[test]
fn privileged_out_of_memory_is_noticed() {
    let w = World::new();
    let mut spec = w.spec_args(&["sh", "-c", "awk 'BEGIN { x = \"x\"; while (1) x = x x }'; exit 3"]);
    spec["linux"]["resources"] = json!({ "memory": { "limit": 16 << 20, "swap": 16 << 20 } });
    let task = w.started(w.request(spec));
    let end = collect(task.wait().unwrap());
    assert_eq!(end.code, 3);
    assert!(task.oom_killed());
    assert!(longshore_runtime::ExitStatus::read(&w.path("exit")).unwrap().unwrap().oom);
}

#[test]
fn privileged_no_cgroup_is_left() {
    let w = World::new();
    w.run(w.spec("true"));
    let mut spec = w.spec("true");
    spec["linux"]["resources"] = json!({ "pids": { "limit": 5 } });
    spec["mounts"][0]["options"] = json!(["nosuchoption=1"]);
    assert!(w.runtime.create(w.request(spec)).is_err());
    let parent = crate::harness::cgroup_parent();
    let left = std::process::Command::new("find")
        .args(["/sys/fs/cgroup", "-path", &format!("*{parent}/*"), "-type", "d"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&left.stdout), "");
}
