//! What the store takes, what it gives back, and whether it is whole: `system df`, the prunes, `system check`.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::{Client, Daemon, wait_until};

/// What `du` says of one file system, in bytes of blocks.
pub(crate) fn du(path: &Path) -> u64 {
    let out = Command::new("du").args(["-sx", "--block-size=1"]).arg(path).output().expect("du");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).expect("utf-8");
    text.split_whitespace().next().expect("a number").parse().expect("a number")
}

/// An answer of the API.
pub(crate) fn api(d: &Daemon, method: &str, path: &str) -> Value {
    let answer = d.raw(&format!("{method} {path} HTTP/1.0\r\nHost: x\r\nContent-Length: 0\r\n\r\n"));
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    assert!(head.contains(" 200 "), "{answer}");
    serde_json::from_str(body).expect("JSON")
}

/// The ledger, once it agrees with `du`: what was just written may still be on its way to the disk.
fn agreed(d: &Daemon) -> Value {
    let mut ledger = Value::Null;
    wait_until("system df is what du says", || {
        assert!(Command::new("sync").arg("-f").arg(d.data_root()).status().expect("sync").success());
        let before = du(&d.data_root());
        ledger = api(d, "GET", "/system/df")["Longshore"].take();
        ledger["Total"] == before && before == du(&d.data_root())
    });
    let rows = ledger["Ledger"].as_array().expect("rows");
    let sum: u64 = rows.iter().map(|r| r["Bytes"].as_u64().expect("bytes")).sum();
    assert_eq!(ledger["Total"], sum);
    ledger
}

fn named<'a>(ledger: &'a Value, kind: &str) -> Vec<&'a str> {
    let rows = ledger["Ledger"].as_array().expect("rows").iter();
    rows.filter(|r| r["Kind"] == kind).map(|r| r["Name"].as_str().expect("name")).collect()
}

fn accounts(d: &Daemon) {
    d.load("busybox");
    d.docker([
        "run",
        "-d",
        "--name",
        "up",
        "-v",
        "data:/data",
        "busybox",
        "sh",
        "-c",
        "echo logged; head -c 300000 /dev/zero > /data/file; head -c 50000 /dev/zero > /own; exec sleep 1000",
    ])
    .ok();
    d.docker(["run", "--name", "ended", "-v", "/anonymous", "busybox", "true"]).ok();
    d.docker(["commit", "up", "made"]).ok();
    fs::write(d.data_root().join("note"), "not ours").expect("write");
    let ledger = agreed(d);
    assert_eq!(ledger["DataRoot"], d.data_root().to_string_lossy().as_ref());
    for (kind, count) in [
        ("layer", 2),
        ("document", 2),
        ("writable-layer", 2),
        ("log", 2),
        ("container-files", 2),
        ("volume", 2),
    ] {
        assert_eq!(named(&ledger, kind).len(), count, "{kind}: {ledger:#}");
    }
    assert_eq!(named(&ledger, "leftover"), ["note"]);
    let of = |name: &str| {
        let rows = ledger["Ledger"].as_array().expect("rows").iter();
        rows.filter(|r| r["Of"] == name).map(|r| r["Kind"].as_str().expect("kind")).collect::<Vec<_>>()
    };
    assert_eq!(of("up"), ["writable-layer", "container-files", "log"]);
    assert_eq!(of("made:latest"), ["layer", "document"]);

    // Docker's rows are the same in both; ours come below them.
    for line in [
        "system df --format json",
        "system df --format raw",
        "system df -v --format json",
        "system df -v --format raw",
        "system df --format table·{{.Type}}\\t{{.Reclaimable}}",
        "system df -v --format {{range·.Volumes}}{{.Name}}={{.Links}}·{{end}}",
        "system df --format {{",
    ] {
        let words = || line.split(' ').map(|w| w.replace('·', " "));
        let (theirs, ours) = (d.docker(words()), d.run(Client::Longshore, words()));
        assert_eq!(
            (ours.code, &ours.stdout, &ours.stderr),
            (theirs.code, &theirs.stdout, &theirs.stderr),
            "{line}"
        );
    }
    for line in [["system", "df"].as_slice(), &["system", "df", "-v"]] {
        let (theirs, ours) = (d.docker(line).ok(), d.run(Client::Longshore, line).ok());
        let rest = ours.strip_prefix(&theirs).unwrap_or_else(|| panic!("{ours}\n---\n{theirs}"));
        assert!(
            rest.starts_with(&format!("\n\nOn the disk, below {}:\n", d.data_root().display())),
            "{rest}"
        );
        let kinds = ["ayer", "ocument", "og", "olume", "etadata", "eftover", "otal"];
        assert!(kinds.iter().all(|k| rest.contains(k)), "{rest}");
    }
    d.docker(["rm", "-f", "up", "ended"]).ok();
    agreed(d);
}

#[test]
fn privileged_the_ledger_adds_up_on_overlay2() {
    let d = Daemon::start();
    accounts(&d);
    d.finish();
}

#[test]
fn privileged_the_ledger_adds_up_on_vfs() {
    let d = Daemon::start_with(&["--storage-driver", "vfs"]);
    accounts(&d);
    d.finish();
}
