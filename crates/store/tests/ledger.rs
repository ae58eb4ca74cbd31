//! The ledger beside `du`. Needs root.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use longshore_oci::{Digest, IdMap};
use longshore_store::meta::{Batch, Table};
use longshore_store::snapshot::DriverName;
use longshore_store::usage::{Kind, Ledger};

use common::{Bench, bench, docker_archive, layers, load, sh};

/// What `du` says of one file system, in bytes of blocks.
fn du(path: &Path) -> u64 {
    let out = Command::new("du").args(["-sx", "--block-size=1"]).arg(path).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

/// The ledger, which must agree with `du`.
fn agreed(b: &Bench) -> Ledger {
    // Blocks that wait to be written may still change.
    rustix::fs::sync();
    let ledger = b.store.ledger().unwrap();
    assert_eq!(ledger.total.bytes, du(b.store.root()), "{}: {:#?}", b.store.driver().name(), ledger.rows);
    assert_eq!(ledger.rows.iter().map(|r| r.size.bytes).sum::<u64>(), ledger.total.bytes);
    ledger
}

fn of(ledger: &Ledger, kind: Kind) -> Vec<&str> {
    ledger.rows.iter().filter(|r| r.kind == kind).map(|r| r.name.as_str()).collect()
}

fn everything(driver: DriverName) {
    let b = bench(driver);
    let dir = b.dir.path();
    let empty = agreed(&b);
    assert!(empty.rows.iter().all(|r| r.kind == Kind::Metadata), "{:?}", empty.rows);

    let tars = layers(dir);
    let one = load(&b.store, &docker_archive(dir, &tars, "one:1", false)).unwrap()[0].id;
    sh(dir, "gzip -nk 0.tar");
    let two = load(&b.store, &docker_archive(dir, &tars[..1], "two:1", false)).unwrap()[0].id;
    let gz = docker_archive(dir, &[dir.join("0.tar.gz")], "gz:1", false);
    // Another chain than those: its configuration names the digest of the compressed form, which is refused.
    load(&b.store, &gz).unwrap_err();

    let root = b.store.root().to_owned();
    b.store.create_rw("box", Some(&one)).unwrap();
    fs::write(b.store.mount_rw("box", &IdMap::default()).unwrap().join("own"), vec![7; 300_000]).unwrap();
    for name in ["hosts", "box-json.log", "box-json.log.1"] {
        fs::create_dir_all(root.join("containers/box")).unwrap();
        fs::write(root.join("containers/box").join(name), vec![b'x'; 9000]).unwrap();
    }
    fs::create_dir_all(root.join("volumes/data/_data/deep/er")).unwrap();
    fs::write(root.join("volumes/data/_data/deep/er/file"), vec![1; 50_000]).unwrap();
    let batch = Batch::new().put(Table::Containers, "box", &1).put(Table::Volumes, "data", &1);
    b.store.meta().commit(batch).unwrap();
    let left = Digest::of(b"left").hex();
    let snapshots = if driver == DriverName::Vfs { "vfs/dir" } else { "overlay2" };
    fs::create_dir_all(root.join(snapshots).join(&left)).unwrap();
    fs::write(root.join("note"), "somebody's").unwrap();
    fs::write(root.join("content/ingest").join(&left), vec![1; 8000]).unwrap();
    let mut arriving = b.store.content().ingest().unwrap();
    std::io::Write::write_all(&mut arriving, &[1; 20_000]).unwrap();

    let ledger = agreed(&b);
    let bottom = b.store.images().get(&two).unwrap().layers[0];
    let chains: Vec<String> =
        b.store.images().get(&one).unwrap().layers.iter().map(Digest::to_string).collect();
    let mut named = of(&ledger, Kind::Layer);
    named.sort_unstable();
    let mut want: Vec<&str> = chains.iter().map(String::as_str).collect();
    want.sort_unstable();
    assert_eq!(named, want);
    let shared = ledger.rows.iter().find(|r| r.name == bottom.to_string()).unwrap();
    assert_eq!(shared.images.len(), 2);
    for (kind, bytes) in [(Kind::Writable, 300_000), (Kind::Log, 18_000), (Kind::ContainerFiles, 9_000)] {
        let row = ledger.rows.iter().find(|r| r.kind == kind).unwrap();
        assert!(row.name == "box" && row.size.bytes >= bytes, "{row:?}");
    }
    assert_eq!(of(&ledger, Kind::Volume), ["data"]);
    assert_eq!(of(&ledger, Kind::Document).len(), 2);
    assert_eq!(of(&ledger, Kind::Arriving).len(), 1);
    let mut leftovers = vec![format!("{snapshots}/{left}"), "note".into(), format!("content/ingest/{left}")];
    leftovers.sort_unstable();
    assert_eq!(of(&ledger, Kind::Leftover), leftovers);
    let own: Vec<_> = ledger.rows.iter().filter(|r| r.is_own_leftover()).map(|r| r.name.as_str()).collect();
    assert!(own.len() == 2 && !own.contains(&"note"), "{own:?}");
    drop(arriving);
    b.store.unmount_rw("box").unwrap();
    agreed(&b);
    b.store.remove_rw("box").unwrap();
}

#[test]
fn privileged_the_ledger_is_what_du_says_on_overlay2() {
    everything(DriverName::Overlay2);
}

#[test]
fn privileged_the_ledger_is_what_du_says_on_vfs() {
    everything(DriverName::Vfs);
}

#[test]
fn privileged_compressed_forms_are_rows_of_their_own() {
    for driver in [DriverName::Overlay2, DriverName::Vfs] {
        let b = bench(driver);
        let dir = b.dir.path();
        let plain = docker_archive(dir, &layers(dir), "z:1", false).with_extension("");
        sh(&plain, "for l in [01].tar; do gzip -nc $l > g; mv g $l; done; tar -cf ../gz.tar *");
        let id = load(&b.store, &dir.join("gz.tar")).unwrap()[0].id;
        let ledger = agreed(&b);
        let compressed: Vec<_> = ledger.rows.iter().filter(|r| r.kind == Kind::Compressed).collect();
        assert_eq!(compressed.len(), 2);
        assert!(compressed.iter().all(|r| r.images == [id] && r.size.inodes == 1), "{compressed:?}");
    }
}
