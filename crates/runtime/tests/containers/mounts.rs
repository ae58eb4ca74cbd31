//! File systems as the container sees them.

use serde_json::{Value, json};

use crate::harness::World;

fn with_mount(w: &World, script: &str, mount: Value) -> Value {
    let mut spec = w.spec(script);
    spec["mounts"].as_array_mut().unwrap().push(mount);
    spec
}

#[test]
fn privileged_standard_file_systems_and_devices() {
    let w = World::new();
    let end = w.run(w.spec(
        "for d in null zero full random urandom tty; do stat -c '%n %t:%T %a' /dev/$d; done; for l in ptmx fd stdin core; do readlink /dev/$l; done; echo x > /dev/null; head -c 3 /dev/zero | wc -c; touch /sys/x 2>/dev/null && echo sysw; cat /proc/1/comm; ls -d /dev/shm /dev/mqueue",
    ));
    let expected = "/dev/null 1:3 666\n/dev/zero 1:5 666\n/dev/full 1:7 666\n/dev/random 1:8 666\n/dev/urandom 1:9 666\n/dev/tty 5:0 666\npts/ptmx\n/proc/self/fd\n/proc/self/fd/0\n/proc/kcore\n";
    assert!(end.out.starts_with(expected), "{end:?}");
    assert!(end.out.ends_with("\n3\nsh\n/dev/mqueue\n/dev/shm\n"), "{end:?}");
}

#[test]
fn privileged_masks_and_read_only_paths_hold() {
    let w = World::new();
    let end = w.run(w.spec(
        "wc -c < /proc/keys; ls /sys/firmware | wc -l; echo 1 > /proc/sys/kernel/core_pattern && echo bad; echo b > /proc/sysrq-trigger && echo bad; touch /sys/x && echo bad; umount /proc/keys && echo bad; mount -o remount,rw /sys && echo bad; true",
    ));
    assert_eq!(end.out, "0\n0\n", "{end:?}");
}

#[test]
fn privileged_binds_of_directories_and_files() {
    let w = World::new();
    std::fs::create_dir(w.path("vol")).unwrap();
    std::fs::write(w.path("vol/f"), "data").unwrap();
    std::fs::write(w.path("hosts"), "hosts file").unwrap();
    let mut spec = with_mount(
        &w,
        "cat /data/deep/f /etc/hosts; echo new > /data/deep/g; echo x > /ro/f && echo bad; touch /ro/h && echo bad; true",
        json!({ "destination": "/data/deep", "type": "bind", "source": w.path("vol"), "options": ["rbind", "rprivate", "rw"] }),
    );
    let mounts = spec["mounts"].as_array_mut().unwrap();
    mounts.push(json!({ "destination": "/etc/hosts", "type": "bind", "source": w.path("hosts"), "options": ["rbind", "rprivate"] }));
    mounts.push(json!({ "destination": "/ro", "source": w.path("vol"), "options": ["rbind", "ro"] }));
    let end = w.run(spec);
    assert_eq!(end.out, "datahosts file");
    assert_eq!(std::fs::read_to_string(w.path("vol/g")).unwrap(), "new\n");
    // Nothing stays mounted in the host's view.
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(w.dir.path().to_str().unwrap()));
}

#[test]
fn privileged_tmpfs_options_and_read_only_tmpfs() {
    let w = World::new();
    let mut spec = with_mount(
        &w,
        "grep ' /scratch ' /proc/mounts; stat -c %a /scratch; touch /ro/x || ls /ro",
        json!({ "destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "noexec", "size=1m", "mode=1770"] }),
    );
    let mounts = spec["mounts"].as_array_mut().unwrap();
    mounts.push(json!({ "destination": "/ro", "type": "tmpfs", "source": "tmpfs", "options": ["ro"] }));
    std::fs::create_dir(w.path("vol")).unwrap();
    mounts.push(json!({ "destination": "/ro/inner", "source": w.path("vol"), "options": ["rbind"] }));
    let end = w.run(spec);
    assert!(end.out.starts_with("tmpfs /scratch tmpfs rw,nosuid,nodev,noexec,"), "{end:?}");
    assert!(end.out.contains("size=1024k") && end.out.ends_with("1770\ninner\n"), "{end:?}");
}

#[test]
fn privileged_read_only_root_leaves_volumes_writable() {
    let w = World::new();
    std::fs::create_dir(w.path("vol")).unwrap();
    let mut spec = with_mount(
        &w,
        "touch /x || touch /data/y && touch /dev/shm/z && echo ok",
        json!({ "destination": "/data", "source": w.path("vol"), "options": ["rbind"] }),
    );
    spec["root"]["readonly"] = json!(true);
    assert_eq!(w.run(spec).out, "ok\n");
    assert!(w.path("vol/y").exists() && !w.rootfs().join("x").exists());
}

/// Unmounts, also when the test fails.
struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = longshore_sys::mount::detach(&self.0);
    }
}

#[test]
fn privileged_propagation_follows_the_options() {
    let w = World::new();
    // A shared mount of this test's own, in a mount namespace that the monitor inherits.
    let src = w.path("src");
    std::fs::create_dir_all(src.join("sub")).unwrap();
    let script =
        format!("mount -t tmpfs t {0}/sub && mount --make-shared {0}/sub 2>/dev/null; true", src.display());
    assert!(std::process::Command::new("sh").args(["-c", &script]).status().unwrap().success());
    let _unmount = Mounted(src.join("sub"));
    let spec = with_mount(
        &w,
        "grep ' /s/sub ' /proc/self/mountinfo; grep ' /p/sub ' /proc/self/mountinfo",
        json!({ "destination": "/s", "source": src, "options": ["rbind", "rslave"] }),
    );
    let mut spec = spec;
    spec["mounts"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "destination": "/p", "source": src, "options": ["rbind", "rprivate"] }));
    let end = w.run(spec);
    let lines: Vec<&str> = end.out.lines().collect();
    assert!(lines[0].contains(" master:"), "{end:?}");
    assert!(!lines[1].contains("master:") && !lines[1].contains("shared:"), "{end:?}");
}

#[test]
fn privileged_extra_devices_and_sysctls() {
    let w = World::new();
    let mut spec = w.spec("stat -c '%t:%T %a %u:%g' /dev/fuse; cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax");
    spec["linux"]["devices"] = json!([{ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o620, "uid": 3, "gid": 4 }]);
    spec["linux"]["sysctl"] = json!({ "net.ipv4.ip_unprivileged_port_start": "7", "kernel.msgmax": "9000" });
    assert_eq!(w.run(spec).out, "a:e5 620 3:4\n7\n9000\n");
}

#[test]
fn privileged_user_namespace_maps_ids() {
    let w = World::new();
    std::os::unix::fs::chown(w.rootfs(), Some(100_000), Some(100_000)).unwrap();
    std::fs::create_dir(w.path("vol")).unwrap();
    std::os::unix::fs::chown(w.path("vol"), Some(100_000), Some(100_000)).unwrap();
    std::fs::set_permissions(w.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    let spec = with_mount(
        &w,
        "id -u; cat /proc/self/uid_map; touch /data/x; stat -c %t:%T /dev/null; echo y > /dev/null; hostname",
        json!({ "destination": "/data", "source": w.path("vol"), "options": ["rbind"] }),
    );
    let mut request = w.request(spec);
    let map = longshore_oci::IdMapping { inner: 0, outer: 100_000, size: 65_536 };
    request.userns = Some(longshore_oci::IdMap { uids: vec![map], gids: vec![map] });
    let end = w.run_request(request);
    assert!(end.out.starts_with("0\n         0     100000      65536\n1:3\nbox\n"), "{end:?}");
    use std::os::unix::fs::MetadataExt;
    assert_eq!(w.path("vol/x").metadata().unwrap().uid(), 100_000);
}

/// systemd makes every mount of the host shared. What a container mounts over one of its own, a cover of a masked path
/// say, must not appear on the host, as it would over `/dev/null` there.
#[test]
fn privileged_no_mount_is_a_peer_of_the_hosts() {
    const INNER: &str = "LONGSHORE_TEST_SHARED_MOUNTS";
    if std::env::var_os(INNER).is_none() {
        let out = std::process::Command::new("unshare")
            .args(["--mount", "--propagation", "shared"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "mounts::privileged_no_mount_is_a_peer_of_the_hosts", "--nocapture"])
            .env(INNER, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let host = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(host.lines().any(|l| l.contains(" /dev ") && l.contains(" shared:")), "{host}");
    let w = World::new();
    let mut spec = w.spec("grep -E ' (shared|master):' /proc/self/mountinfo; grep -c /null /proc/self/mountinfo; grep -c ' /etc/hosts ' /proc/self/mountinfo");
    spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|ns| ns["type"] != "cgroup");
    let mounts = spec["mounts"].as_array_mut().unwrap();
    mounts.push(json!({ "destination": "/etc/hosts", "type": "bind", "source": "/etc/hosts", "options": ["bind", "ro"] }));
    mounts.push(
        json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"] }),
    );
    let end = w.run(spec);
    let mut lines = end.out.lines();
    assert!(lines.next().is_some_and(|covers| covers.parse::<u32>().is_ok_and(|n| n > 0)), "{end:?}");
    assert_eq!((lines.next(), lines.next()), (Some("1"), None), "{end:?}");
}

/// What programs and runtimes trust to be procfs is that (CVE-2019-16884, CVE-2023-28642), by whatever name it is reached.
#[test]
fn privileged_atk_08_nothing_takes_the_place_of_proc() {
    let w = World::new();
    std::os::unix::fs::symlink("/proc", w.rootfs().join("link")).unwrap();
    std::fs::create_dir(w.path("fake")).unwrap();
    let bind = |to: &str| json!({ "destination": to, "type": "bind", "source": w.path("fake"), "options": ["rbind"] });
    let file =
        |to: &str| json!({ "destination": to, "type": "bind", "source": "/etc/hosts", "options": ["rbind"] });
    let tmpfs = |to: &str| json!({ "destination": to, "type": "tmpfs", "source": "tmpfs" });
    let dir = "cannot be mounted because it is not of type proc";
    let inside = "cannot be mounted because it is inside /proc";
    for (mount, why) in [
        (bind("/proc"), dir),
        (tmpfs("/proc/"), dir),
        (bind("/link"), dir),
        (bind("/proc/self"), inside),
        (tmpfs("/proc/self/attr"), inside),
        (file("/proc/self/attr/exec"), inside),
        (bind("/link/sys"), inside),
    ] {
        let error = w.refused(with_mount(&w, "true", mount.clone())).to_string();
        assert!(error.contains(why), "{mount}: {error}");
    }
    // Also where the container has no procfs of its own.
    let mut spec = with_mount(&w, "true", bind("/proc"));
    spec["mounts"].as_array_mut().unwrap().retain(|m| m["type"] != "proc");
    assert!(w.refused(spec).to_string().contains(dir));
    // The host's own is one, and figures may be replaced.
    let proc =
        json!({ "destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind", "ro"] });
    assert_eq!(w.run(with_mount(&w, "test -d /proc/1/ns && echo fine", proc)).out, "fine\n");
    assert_eq!(w.run(with_mount(&w, "grep -c localhost /proc/uptime", file("/proc/uptime"))).code, 0);
}
