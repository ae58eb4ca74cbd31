//! Attacks on a whole daemon, through its API. Long ones take more rounds with `LONGSHORE_LONG`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::{Daemon, signal};

/// Rounds of a race.
fn rounds(short: u32, long: u32) -> u32 {
    if std::env::var_os("LONGSHORE_LONG").is_some() { long } else { short }
}

/// A tar archive of what `make` has put into an empty folder. Its bytes are text: names, numbers, NUL.
fn archive(make: impl FnOnce(&Path)) -> String {
    let dir = tempfile::tempdir().expect("folder");
    make(dir.path());
    let out = Command::new("tar").arg("-C").arg(dir.path()).args(["-cf", "-", "."]).output().expect("tar");
    String::from_utf8(out.stdout).expect("text")
}

fn put(d: &Daemon, container: &str, path: &str, body: &str) -> String {
    let len = body.len();
    d.raw(&format!(
        "PUT /containers/{container}/archive?path={path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\
         Content-Type: application/x-tar\r\nContent-Length: {len}\r\n\r\n{body}"
    ))
}

fn get(d: &Daemon, container: &str, path: &str) -> String {
    d.raw(&format!(
        "GET /containers/{container}/archive?path={path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
    ))
}

/// Ends the other thread, also when a step fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A directory and a link to the host change places all the time while files are copied through it, in
/// the container's own layer and in a volume.
#[test]
fn privileged_atk_09_cp_race() {
    let d = Daemon::start();
    d.load("busybox");
    let (canary, volume) = (d.dir().join("canary"), d.dir().join("volume"));
    fs::create_dir(&volume).expect("folder");
    fs::create_dir(&canary).expect("folder");
    fs::write(canary.join("secret"), "of the host").expect("canary");
    let bind = format!("{}:/vol", volume.display());
    d.docker(["run", "-d", "--name", "evil", "-v", &bind, "busybox", "sleep", "1000"]).ok();
    let root = format!("/proc/{}/root", d.inspect("{{.State.Pid}}", "evil"));
    let body = archive(|dir| fs::write(dir.join("secret"), "from the client").expect("write"));
    for place in ["", "/vol"] {
        let dir = format!("{root}{place}/race");
        fs::create_dir_all(format!("{dir}/a")).expect("folder");
        fs::write(format!("{dir}/a/secret"), "of the container").expect("write");
        symlink(&canary, format!("{dir}/b")).expect("link");
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let dir = fs::File::open(&dir).expect("open");
                while !stop.load(Ordering::Relaxed) {
                    let _ =
                        rustix::fs::renameat_with(&dir, "a", &dir, "b", rustix::fs::RenameFlags::EXCHANGE);
                }
            });
            let _stopped = Stop(&stop);
            let mut read = 0;
            for _ in 0..rounds(150, 50_000) {
                put(&d, "evil", &format!("{place}/race/a"), &body);
                let got = get(&d, "evil", &format!("{place}/race/a/secret"));
                assert!(!got.contains("of the host"), "{got}");
                read += u32::from(got.contains("from the client") || got.contains("of the container"));
            }
            assert_ne!(read, 0, "every copy failed: nothing was raced");
        });
    }
    assert_eq!(fs::read_to_string(canary.join("secret")).expect("canary"), "of the host");
    assert_eq!(fs::read_dir(&canary).expect("canary").count(), 1);
    d.finish();
}

/// Programs of the container that a daemon might call to decompress.
#[test]
fn privileged_atk_10_nothing_of_the_container_runs_for_an_archive() {
    let d = Daemon::start();
    d.load("busybox");
    let trap = "for n in gzip gunzip unpigz pigz xz unxz bzip2 zstd tar; do rm -f /bin/$n; \
                printf '#!/bin/sh\\ntouch /pwned\\n' > /bin/$n; chmod 755 /bin/$n; done; echo set; sleep 1000";
    d.docker(["run", "-d", "--name", "trap", "busybox", "sh", "-c", trap]).ok();
    crate::harness::wait_until("the trap is set", || d.docker(["logs", "trap"]).ok() == "set");
    for tool in ["cat", "gzip", "xz", "zstd", "bzip2"] {
        let tar = archive(|dir| fs::write(dir.join(format!("by-{tool}")), "x").expect("write"));
        let file = d.dir().join("archive");
        fs::write(&file, tar).expect("write");
        let Ok(packed) = Command::new(tool).arg("-c").arg(&file).output() else { continue };
        let packed = if tool == "cat" { fs::read(&file).expect("read") } else { packed.stdout };
        let done = d.docker_with_input(&["cp", "-", "trap:/tmp"], &packed);
        let there = d.docker(["exec", "trap", "test", "-e", &format!("/tmp/by-{tool}")]).code == 0;
        assert_eq!(there, done.code == 0, "{tool}: {}", done.stderr);
        assert!(there || !["cat", "gzip"].contains(&tool), "{tool}: {}", done.stderr);
    }
    d.docker(["cp", "trap:/bin", "-"]).ok();
    d.docker(["export", "-o", d.dir().join("out").to_str().expect("utf-8"), "trap"]).ok();
    d.docker(["exec", "trap", "test", "-e", "/pwned"]).fails(1);
    d.finish();
}

/// A container that shares the host's network sees no socket of ours that it could connect to.
#[test]
fn privileged_atk_13_no_abstract_sockets() {
    let d = Daemon::start();
    d.load("busybox");
    d.docker(["run", "-d", "--name", "other", "busybox", "sleep", "1000"]).ok();
    let sockets = d.docker(["run", "--rm", "--net", "host", "busybox", "cat", "/proc/net/unix"]).ok();
    let named: Vec<&str> = sockets.lines().skip(1).filter_map(|l| l.split_whitespace().nth(7)).collect();
    assert!(named.iter().any(|path| path.ends_with("s.sock")), "{sockets}");
    assert!(named.iter().all(|path| path.starts_with('/')), "{sockets}");
    d.finish();
}

/// Another user of the host finds no setuid file that an image or a container has brought.
#[test]
fn privileged_atk_14_others_cannot_walk_the_roots() {
    let d = Daemon::start();
    d.load("busybox");
    let make =
        "cp /bin/busybox /suid; cp /bin/busybox /vol/suid; chmod 4755 /suid /vol/suid; echo ok; sleep 1000";
    d.docker(["run", "-d", "--name", "suid", "-v", "vol:/vol", "busybox", "sh", "-c", make]).ok();
    crate::harness::wait_until("it is made", || d.docker(["logs", "suid"]).ok() == "ok");
    // Only the daemon's own folders are to protect it.
    fs::set_permissions(d.dir(), fs::Permissions::from_mode(0o755)).expect("mode");
    let nobody = |args: &[&str]| {
        let ids = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        let out =
            Command::new("setpriv").args(ids).args(args).output().expect("setpriv (package util-linux)");
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let volume = d.inspect("{{.Mountpoint}}", "vol");
    let merged = d.inspect("{{.GraphDriver.Data.MergedDir}}", "suid");
    for path in [format!("{volume}/suid"), format!("{merged}/suid")] {
        assert!(Path::new(&path).exists(), "{path}");
        assert_eq!(nobody(&["stat", "-c", "%a", &path]), "", "{path}");
    }
    for root in ["data", "run"] {
        let root = d.dir().join(root);
        let seen = nobody(&["find", root.to_str().expect("utf-8")]);
        assert!(seen.lines().count() <= 1, "{seen}");
    }
    d.docker(["rm", "-f", "suid"]).ok();
    d.docker(["volume", "rm", "vol"]).ok();
    d.finish();
}

/// Containers are made from the request alone; there is no archive of one that could be restored.
#[test]
fn privileged_atk_16_checkpoints_are_refused() {
    let d = Daemon::start();
    d.load("busybox");
    d.docker(["create", "--name", "c", "busybox"]).fails(1);
    d.docker(["create", "--name", "cc", "busybox"]).ok();
    for (request, body) in [
        ("/containers/cc/checkpoints", "{\"CheckpointID\":\"../../x\"}"),
        ("/containers/cc/start?checkpoint=x&checkpoint-dir=/etc", ""),
    ] {
        let len = body.len();
        let answer = d.raw(&format!(
            "POST {request} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {len}\r\n\r\n{body}"
        ));
        assert!(answer.starts_with("HTTP/1.1 501"), "{answer}");
    }
    assert_eq!(d.inspect("{{.State.Status}}", "cc"), "created");
    d.finish();
}

/// What init got, an exec gets: all of it, or the exec fails.
#[test]
fn privileged_an_exec_is_confined_as_init_is() {
    let mut d = Daemon::start();
    d.load("busybox");
    let options = [
        "--cap-drop=ALL",
        "--cap-add=CHOWN",
        "--security-opt=no-new-privileges",
        "--ulimit=nofile=64:128",
        "--group-add=77",
        "--oom-score-adj=321",
        "--pids-limit=30",
        "-u=0:5",
    ];
    let mut run = vec!["run", "-d", "--name", "confined"];
    run.extend(options);
    run.extend(["busybox", "sleep", "1000"]);
    d.docker(run).ok();
    let script = |pid: &str| {
        format!(
            "cd /proc/{pid}; grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp):' status; cat oom_score_adj cgroup; \
             grep -E 'open files|processes' limits; for n in mnt pid net ipc uts cgroup user; do readlink ns/$n; done"
        )
    };
    for restarted in [false, true] {
        if restarted {
            d.kill9();
            d.launch();
        }
        // Through the host, since a process without capabilities cannot look at another.
        let exec = d.docker(["exec", "confined", "sh", "-c", &script("self")]).ok();
        let pid = d.inspect("{{.State.Pid}}", "confined");
        let init = Command::new("nsenter")
            .args(["-t", &pid, "-C", "--", "sh", "-c", &script(&pid)])
            .output()
            .expect("nsenter (package util-linux)");
        assert_eq!(exec, String::from_utf8_lossy(&init.stdout).trim_end());
        assert!(exec.contains("Seccomp:\t2") && exec.contains("NoNewPrivs:\t1"), "{exec}");
    }
    let id = d.inspect("{{.Id}}", "confined");
    let filter = d.dir().join("run/containers").join(&id).join("seccomp");
    fs::remove_file(&filter).expect("the filter that is kept");
    let said = d.docker(["exec", "confined", "true"]);
    assert_ne!(said.code, 0);
    let said = format!("{}{}", said.stdout, said.stderr);
    assert!(said.contains("seccomp filter is missing"), "{said}");
    signal(d.inspect("{{.State.Pid}}", "confined").parse().expect("number"), "KILL");
    d.finish();
}

/// A tree that is deeper than the daemon's stack and descriptors, in the container's own layer and in a volume.
#[test]
fn privileged_atk_59_deep_trees_of_a_container_are_read_and_removed() {
    let d = Daemon::start();
    d.load("busybox");
    d.docker(["run", "-d", "--name", "deep", "-v", "deep:/vol", "busybox", "sleep", "1000"]).ok();
    let root = format!("/proc/{}/root", d.inspect("{{.State.Pid}}", "deep"));
    // In the layer as deep as a path can say, in the volume much deeper.
    for (place, depth) in [("/", 2000), ("/vol", 5000)] {
        let mut at = rustix::fs::open(
            format!("{root}{place}"),
            rustix::fs::OFlags::DIRECTORY,
            rustix::fs::Mode::empty(),
        )
        .expect("open");
        for _ in 0..depth {
            rustix::fs::mkdirat(&at, "d", rustix::fs::Mode::RWXU).expect("mkdir");
            at = rustix::fs::openat(&at, "d", rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty())
                .expect("open");
        }
    }
    assert_eq!(d.docker(["diff", "deep"]).ok().lines().count(), 2000 + 1);
    d.docker(["commit", "deep", "deep"]).ok();
    // busybox's find takes a descriptor for each level.
    let many = "nofile=8192:8192";
    let count = d.docker(["run", "--rm", "--ulimit", many, "deep", "sh", "-c", "find /d | wc -l"]).ok();
    assert_eq!(count, "2000");
    let file = d.dir().join("deep.tar");
    let file = file.to_str().expect("utf-8");
    d.docker(["export", "-o", file, "deep"]).ok();
    d.docker(["save", "-o", file, "deep"]).ok();
    d.docker(["rmi", "deep"]).ok();
    d.docker(["load", "-q", "-i", file]).ok();
    d.docker(["rm", "-f", "deep"]).ok();
    d.docker(["volume", "rm", "deep"]).ok();
    d.docker(["rmi", "deep"]).ok();
    d.finish();
}
