//! AppArmor, where the kernel has it.

use crate::harness::Daemon;

const DEFAULT: &str = "longshore-default (enforce)";
const SHOW: &str = "cat /proc/1/attr/current /proc/self/attr/current";

/// A daemon with busybox loaded, if there is something to test.
fn daemon() -> Option<Daemon> {
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    if !enabled.is_ok_and(|text| text.starts_with('Y')) {
        eprintln!("skipped: the kernel has no AppArmor");
        return None;
    }
    let d = Daemon::start();
    d.load("busybox");
    Some(d)
}

#[test]
fn privileged_every_process_of_a_container_is_confined() {
    let Some(mut d) = daemon() else { return };
    let labels = |d: &Daemon, args: &[&str]| {
        let both = d.docker(args.iter().copied().chain(["sh", "-c", SHOW])).ok();
        both.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    for (options, label) in [
        (&[][..], DEFAULT),
        (&["--init"], DEFAULT),
        (&["--init", "-u", "1000", "--security-opt", "no-new-privileges"], DEFAULT),
        (&["--security-opt", "apparmor=unconfined"], "unconfined"),
        (&["--init", "--security-opt", "apparmor=unconfined"], "unconfined"),
        (&["--privileged"], "unconfined"),
    ] {
        let mut args = vec!["run", "--rm"];
        args.extend(options);
        args.push("busybox");
        assert_eq!(labels(&d, &args), [label, label], "{options:?}");
    }
    d.docker(["run", "-d", "--name", "box", "--init", "busybox", "sleep", "1000"]).ok();
    assert_eq!(d.inspect("{{.AppArmorProfile}}", "box"), "longshore-default");
    for restarted in [false, true] {
        if restarted {
            d.kill9();
            d.launch();
        }
        assert_eq!(labels(&d, &["exec", "box"]), [DEFAULT, DEFAULT]);
        // As with Docker, that gives capabilities and takes no profile away.
        assert_eq!(labels(&d, &["exec", "--privileged", "box"]), [DEFAULT, DEFAULT]);
    }
    let unknown =
        d.docker(["run", "--rm", "--security-opt", "apparmor=nosuch", "busybox", "true"]).fails(125);
    assert!(unknown.contains("apparmor profile nosuch is not loaded"), "{unknown}");
    d.finish();
}

/// With rights for which the filter makes way, the profile is what is left.
#[test]
fn privileged_the_profile_keeps_the_machines_settings() {
    let Some(d) = daemon() else { return };
    let run = |options: &[&str], script: &str| {
        let mut args = vec!["run", "--rm", "--cap-add", "SYS_ADMIN"];
        args.extend(options);
        args.extend(["busybox", "sh", "-c", script]);
        d.docker(args).code
    };
    for script in [
        "mount -t tmpfs x /tmp",
        "mount -o remount,rw /proc/sys",
        "ls /sys/kernel/security/apparmor",
        "echo changeprofile unconfined > /proc/self/attr/current",
    ] {
        assert_ne!(run(&[], script), 0, "{script}");
    }
    assert_eq!(run(&["--security-opt", "apparmor=unconfined"], "mount -t tmpfs x /tmp"), 0);
    d.finish();
}
