//! Full disks, and a daemon that is killed in the middle of its work.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::{Daemon, fixture, wait_until};

fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).filter(|n| n != "l").collect()
}

/// With neither images nor containers, nothing of them is left on disk.
fn assert_nothing_is_left(d: &Daemon) {
    let root = d.data_root();
    for dir in ["overlay2", "overlay2/l", "layers", "containers", "content/ingest", "content/blobs/sha256"] {
        assert_eq!(names(&root.join(dir)), Vec::<String>::new(), "{dir}");
    }
}

/// Takes all space that is left.
fn fill(d: &Daemon) {
    let mut file = fs::File::create(d.data_root().join("filler")).expect("filler");
    let block = [1u8; 1 << 16];
    for size in [1 << 16, 1 << 12, 1] {
        for _ in 0..(1 << 16) {
            if file.write_all(&block[..size]).is_err() {
                break;
            }
        }
    }
    let _ = file.sync_all();
    let e = fs::write(d.data_root().join("one-more"), [1u8; 4096]).expect_err("the disk is full");
    assert_eq!(e.kind(), std::io::ErrorKind::StorageFull);
    let _ = fs::remove_file(d.data_root().join("one-more"));
}

fn unfill(d: &Daemon) {
    fs::remove_file(d.data_root().join("filler")).expect("filler");
}

fn work_on_a_full_disk(d: &Daemon) {
    d.load("busybox");
    let big = fixture("debian");
    let said = d.docker(["load", "-i", big.to_str().expect("utf-8")]).fails(1);
    assert!(said.contains("no space left on device"), "{said}");
    assert_eq!(d.docker(["images", "--format", "{{.Repository}}"]).ok(), "busybox");
    assert_eq!(names(&d.data_root().join("layers")).len(), 1, "the broken load left nothing");

    // A container fills it.
    let said =
        d.docker(["run", "--name", "glutton", "busybox", "sh", "-c", "cat /dev/zero > /fill"]).fails(1);
    assert!(said.contains("No space left on device"), "{said}");
    fill(d);
    for (args, code) in [
        (vec!["create", "--name", "late", "busybox"], 1),
        (vec!["load", "-i", big.to_str().expect("utf-8")], 1),
        (vec!["commit", "glutton", "full:1"], 1),
    ] {
        let said = d.docker(&args).fails(code);
        assert!(said.contains("no space left on device"), "{args:?}: {said}");
    }
    assert_eq!(d.docker(["ps", "-a", "--format", "{{.Names}}"]).ok(), "glutton");
    // What gives space back works on it.
    d.docker(["rm", "glutton"]).ok();
    fs::OpenOptions::new().append(true).open(d.data_root().join("filler")).map(drop).expect("filler");
    fill(d);
    d.docker(["rmi", "busybox"]).ok();
    assert_eq!(d.docker(["images", "-aq"]).ok(), "");
    assert_nothing_is_left(d);
    // And so does all else, without a restart.
    unfill(d);
    d.load("busybox");
    assert_eq!(d.docker(["run", "--rm", "busybox", "echo", "again"]).ok(), "again");
    d.docker(["rmi", "busybox"]).ok();
    assert_nothing_is_left(d);
}

#[test]
fn privileged_atk_54_a_full_disk_in_memory() {
    let d = Daemon::start_on_disk(&["-t", "tmpfs", "-o", "size=24m", "longshore"]);
    work_on_a_full_disk(&d);
    d.finish();
}

#[test]
fn privileged_atk_54_a_full_ext4() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let image = dir.path().join("ext4");
    let file = fs::File::create(&image).expect("image");
    file.set_len(32 << 20).expect("image");
    let made = Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image).status().expect("mkfs.ext4");
    assert!(made.success());
    let d = Daemon::start_on_disk(&["-o", "loop", image.to_str().expect("utf-8")]);
    work_on_a_full_disk(&d);
    d.finish();
}

#[test]
fn privileged_atk_54_a_log_on_a_full_disk_stops_nobody() {
    let d = Daemon::start_on_disk(&["-t", "tmpfs", "-o", "size=24m", "longshore"]);
    d.load("busybox");
    let script = "until [ -e /go ]; do sleep 0.05; done
        for i in $(seq 3000); do echo line $i; done; touch /dev/shm/done
        until [ -e /dev/shm/end ]; do sleep 0.05; done; echo last";
    d.docker(["run", "-d", "--name", "talker", "busybox", "sh", "-c", script]).ok();
    d.docker(["exec", "talker", "touch", "/go"]).ok();
    fill(&d);
    wait_until("all lines were taken", || {
        d.docker(["exec", "talker", "test", "-e", "/dev/shm/done"]).code == 0
    });
    unfill(&d);
    d.docker(["exec", "talker", "touch", "/dev/shm/end"]).ok();
    assert_eq!(d.docker(["wait", "talker"]).ok(), "0");
    let log = d.docker(["logs", "talker"]).ok();
    assert!(log.ends_with("last"), "{}", &log[log.len().saturating_sub(200)..]);
    assert!(log.lines().all(|l| l == "last" || l.starts_with("line ")), "only whole lines");
    d.finish();
}

/// Attaches strace to the daemon: the `n`-th `call` of one of its threads from now on kills it.
fn kill_at(d: &Daemon, call: &str, n: u32) -> std::process::Child {
    let mut strace = Command::new("strace")
        .args(["-f", "-o", "/dev/null", "-e", &format!("trace={call}")])
        .args(["-e", &format!("inject={call}:signal=KILL:when={n}"), "-p", &d.pid().to_string()])
        .stderr(Stdio::piped())
        .spawn()
        .expect("strace: `make test` installs it");
    let mut lines = BufReader::new(strace.stderr.take().expect("stderr")).lines();
    let first = lines.next().expect("a line").expect("a line");
    assert!(first.contains("attached"), "{first}");
    std::thread::spawn(move || lines.for_each(drop));
    strace
}

#[test]
fn privileged_atk_55_the_daemon_is_killed_in_the_middle() {
    let mut d = Daemon::start();
    let busybox = fixture("busybox");
    let busybox = busybox.to_str().expect("utf-8").to_owned();
    let long = std::env::var_os("LONGSHORE_LONG").is_some();
    let points: &[(&str, u32)] = if long {
        &[
            ("openat", 1),
            ("openat", 3),
            ("openat", 5),
            ("openat", 9),
            ("openat", 14),
            ("openat", 20),
            ("mkdir", 1),
            ("mkdir", 2),
            ("mkdir", 3),
            ("mkdir", 5),
            ("symlink", 1),
            ("symlink", 2),
            ("rename", 1),
            ("renameat", 1),
            ("pwrite64", 1),
            ("pwrite64", 4),
            ("pwrite64", 9),
            ("fdatasync", 1),
            ("fsync", 1),
            ("syncfs", 1),
            ("unlinkat", 1),
            ("unlinkat", 4),
            ("write", 2),
            ("write", 6),
        ]
    } else {
        &[("openat", 3), ("mkdir", 2), ("rename", 1), ("pwrite64", 2), ("unlinkat", 2), ("syncfs", 1)]
    };
    let mut killed = 0;
    for (call, n) in points {
        for step in ["load", "create", "commit", "rm"] {
            if step != "load" {
                d.docker(["load", "-q", "-i", &busybox]).ok();
            }
            if step == "commit" || step == "rm" {
                d.docker([
                    "run",
                    "--name",
                    "box",
                    "--network",
                    "none",
                    "busybox",
                    "sh",
                    "-c",
                    "echo x > /made",
                ])
                .ok();
            }
            let args: &[&str] = match step {
                "load" => &["load", "-q", "-i", &busybox],
                "create" => &["create", "--name", "box", "busybox"],
                "commit" => &["commit", "box", "made:1"],
                _ => &["rm", "box"],
            };
            let mut strace = kill_at(&d, call, *n);
            let done = d.docker(args);
            if done.code == 0 {
                d.kill9();
            } else {
                killed += 1;
                d.reap();
            }
            strace.wait().expect("strace");
            d.launch();
            let what = format!("{step} {call} {n}: {}", done.stderr);
            // Whole or absent.
            let there = d.docker(["ps", "-a", "--format", "{{.Names}} {{.State}}"]).ok();
            if there.contains("box") {
                d.docker(["start", "-a", "box"]).ok();
                d.docker(["diff", "box"]).ok();
            }
            if step == "commit" {
                assert!(there.contains("box"), "{what}");
                d.docker(["commit", "box", "made:1"]).ok();
                assert_eq!(
                    d.docker(["run", "--rm", "--network", "none", "made:1", "cat", "/made"]).ok(),
                    "x",
                    "{what}"
                );
            }
            if !there.is_empty() {
                d.docker(["rm", "box"]).ok();
            }
            for image in d.docker(["images", "-q", "--no-trunc"]).ok().lines() {
                d.docker(["rmi", "-f", image]).ok();
            }
            assert_nothing_is_left(&d);
        }
    }
    assert!(killed > points.len(), "it was killed only {killed} times");
    d.finish();
}
