//! On this machine's cgroups, as root, below a parent of the test's own.

use std::io::Read;
use std::process::{Child, Command, Stdio};

use super::tests_support::resources;
use super::*;
use crate::spec_defaults::device_rules;

struct Parent(String);

impl Parent {
    fn new() -> Self {
        Self(format!("longshore-test-{:016x}", getrandom::u64().unwrap()))
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        let _ = Cgroup::remove_parent(&self.0);
    }
}

/// A shell that waits for a line before it runs `script`, so that it can be put into a cgroup.
struct Shell(Child);

impl Shell {
    fn new(script: &str) -> Self {
        let script = format!("read line; {script}");
        let child = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn enter(&self, group: &Cgroup) {
        for dir in group.dirs() {
            fsio::write(&dir.join("cgroup.procs"), &self.0.id().to_string()).unwrap();
        }
    }

    fn go(&mut self) {
        use std::io::Write as _;
        self.0.stdin.take().unwrap().write_all(b"\n").unwrap();
    }

    fn output(mut self) -> String {
        let mut text = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        self.0.wait().unwrap();
        text
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn with_devices(mut r: LinuxResources) -> LinuxResources {
    r.set_devices(Some(device_rules()));
    r
}

#[test]
fn privileged_an_exec_into_what_has_ended_is_told_so() {
    let parent = Parent::new();
    let group = Cgroup::create(&parent.0, "c1", &resources(serde_json::json!({}))).unwrap();
    group.exec_handles(std::process::id()).unwrap();
    group.remove().unwrap();
    assert!(matches!(group.exec_handles(std::process::id()), Err(Error::NotRunning(id)) if id == "c1"));
}

#[test]
fn privileged_a_group_has_its_limits_and_goes_away() {
    let parent = Parent::new();
    let wanted = with_devices(resources(serde_json::json!({
        "memory": {"limit": 33_554_432, "swap": 67_108_864},
        "cpu": {"shares": 512, "quota": 50_000, "period": 100_000},
        "pids": {"limit": 9},
    })));
    let group = Cgroup::create(&parent.0, "c1", &wanted).unwrap();
    let stats = group.stats().unwrap();
    assert_eq!((stats.memory.limit, stats.pids_limit), (Some(33_554_432), Some(9)));
    if group.version() == Version::V2 {
        assert_eq!(group.file("cpu", "cpu.max").unwrap(), "50000 100000\n");
    } else {
        assert_eq!(group.file("cpu", "cpu.cfs_quota_us").unwrap(), "50000\n");
        assert_eq!(group.file("cpu", "cpu.shares").unwrap(), "512\n");
        assert!(!group.file("devices", "devices.list").unwrap().contains("a *:*"));
    }
    // Raised, and lowered again: each in the one order that the kernel takes.
    for (limit, swap) in [(100 << 20, 200 << 20), (8 << 20, 8 << 20), (64 << 20, -1)] {
        group.set(&resources(serde_json::json!({"memory": {"limit": limit, "swap": swap}}))).unwrap();
        assert_eq!(group.stats().unwrap().memory.limit, u64::try_from(limit).ok());
    }
    let handles = group.handles().unwrap();
    assert_eq!(handles.procs.len(), group.hierarchy.v1.len());
    assert_eq!(group.oom_kill_count().unwrap(), 0);
    assert!(Cgroup::open(&parent.0, "c1").is_ok());
    group.remove().unwrap();
    group.remove().unwrap();
    assert!(group.dirs().all(|dir| !dir.exists()));
    assert!(matches!(Cgroup::open(&parent.0, "c1"), Err(Error::NotRunning(_))));
    assert!(group.pids().unwrap().is_empty());
}

#[test]
fn privileged_a_refused_limit_leaves_nothing() {
    let parent = Parent::new();
    let bad = resources(serde_json::json!({"cpu": {"cpus": "4000-5000"}}));
    assert!(Cgroup::create(&parent.0, "c1", &bad).is_err());
    let group = Cgroup::named(Hierarchy::get().unwrap(), &parent.0, "c1").unwrap();
    assert!(group.dirs().all(|dir| !dir.exists()));
    for name in ["..", "a/b", "", "."] {
        assert!(Cgroup::create(&parent.0, name, &LinuxResources::default()).is_err());
        assert!(Cgroup::create(name, "x", &LinuxResources::default()).is_err() || name == "a/b");
    }
    let _ = Cgroup::delete("a/b", "x");
    let _ = Cgroup::remove_parent("a/b");
    let _ = Cgroup::remove_parent("a");
}

#[test]
fn privileged_processes_are_found_frozen_and_killed() {
    let parent = Parent::new();
    let group = Cgroup::create(&parent.0, "c1", &with_devices(LinuxResources::default())).unwrap();
    let mut shell = Shell::new("while :; do sh -c 'sleep 1000' & sleep 0.01; done");
    shell.enter(&group);
    shell.go();
    while group.pids().unwrap().len() < 5 {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(matches!(Cgroup::create(&parent.0, "c1", &LinuxResources::default()), Err(Error::Exists(_))));
    group.freeze().unwrap();
    assert!(group.is_frozen().unwrap());
    let before = group.pids().unwrap();
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(group.pids().unwrap(), before);
    // Killing reaches the frozen ones.
    Cgroup::delete(&parent.0, "c1").unwrap();
    assert!(!group.exists());
    Cgroup::delete(&parent.0, "c1").unwrap();
}

#[test]
fn privileged_groups_that_the_container_made_go_too() {
    let parent = Parent::new();
    let group = Cgroup::create(&parent.0, "c1", &LinuxResources::default()).unwrap();
    let shell = Shell::new("sleep 1000");
    for dir in group.dirs() {
        std::fs::create_dir_all(dir.join("a/b")).unwrap();
    }
    let inner = group.primary().join("a");
    fsio::write(&inner.join("cgroup.procs"), &shell.0.id().to_string()).unwrap();
    assert_eq!(group.pids().unwrap(), [shell.0.id()]);
    group.kill_all().unwrap();
    group.remove().unwrap();
    assert!(group.dirs().all(|dir| !dir.exists()));
}

/// What a shell inside can open of two devices.
const TRY_DEVICES: &str = "head -c1 /dev/zero >/dev/null && echo zero; (: </dev/kmsg) && echo kmsg; \
                           (: >/dev/full) && echo full";

#[test]
fn privileged_devices_are_refused_by_this_machines_controller() {
    let parent = Parent::new();
    let group = Cgroup::create(&parent.0, "c1", &with_devices(LinuxResources::default())).unwrap();
    let mut shell = Shell::new(TRY_DEVICES);
    shell.enter(&group);
    shell.go();
    assert_eq!(shell.output(), "zero\nfull\n");
    group.remove().unwrap();
}

#[test]
fn privileged_devices_are_refused_by_a_program() {
    let Some(unified) = Hierarchy::detect().unwrap().unified else { return };
    let parent = Parent::new();
    let dir = unified.join(&parent.0);
    std::fs::create_dir(&dir).unwrap();
    let group = Cgroup::named(Hierarchy::get().unwrap(), &parent.0, "x").unwrap();
    let policies = [
        (Policy::new(&device_rules()).unwrap(), "zero\nfull\n"),
        // The former program is replaced, not added to.
        (Policy::new(&[crate::spec_defaults::all_devices_rule()]).unwrap(), "zero\nkmsg\nfull\n"),
        (Policy::new(&[]).unwrap(), ""),
    ];
    for (policy, expected) in policies {
        group.attach_program(&dir, &policy).unwrap();
        assert_eq!(bpf::device_programs(fsio::open_dir(&dir).unwrap()).unwrap().len(), 1);
        let mut shell = Shell::new(TRY_DEVICES);
        fsio::write(&dir.join("cgroup.procs"), &shell.0.id().to_string()).unwrap();
        shell.go();
        assert_eq!(shell.output(), expected);
    }
    fsio::remove_tree(&dir).unwrap();
}

#[test]
fn privileged_the_memory_limit_kills_and_is_counted() {
    let parent = Parent::new();
    let limits = resources(serde_json::json!({"memory": {"limit": 8 << 20, "swap": 8 << 20}}));
    let group = Cgroup::create(&parent.0, "c1", &with_devices(limits)).unwrap();
    let mut shell = Shell::new("exec dd if=/dev/zero of=/dev/null bs=64M count=1");
    shell.enter(&group);
    shell.go();
    shell.0.wait().unwrap();
    assert_eq!(group.oom_kill_count().unwrap(), 1);
    assert!(group.oom_file().unwrap().is_some());
    group.remove().unwrap();
}

#[test]
fn privileged_the_hierarchies_can_be_shown_to_the_container() {
    let parent = Parent::new();
    let group = Cgroup::create(&parent.0, "c1", &LinuxResources::default()).unwrap();
    let shown = group.mounts().unwrap();
    assert_eq!(shown.is_empty(), group.version() == Version::V2);
    for h in &shown {
        let path = h.bind.as_ref().unwrap().to_str().unwrap();
        assert!(path.ends_with(&format!("/{}/c1", parent.0)) && Path::new(path).is_dir());
        assert!(h.fstype.as_c_str() == c"cgroup2" || !h.options.is_empty());
    }
    group.remove().unwrap();
}
