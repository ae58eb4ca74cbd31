//! What is kept and what goes: shared blobs, failed loads, foreign files, mounts with several users. Needs root.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod common;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use longshore_oci::{Digest, IdMap};
use longshore_store::archive;
use longshore_store::snapshot::DriverName;
use longshore_store::{Store, StoreOptions};

use common::{Bench, bench, docker_archive, layers, load, sh};

const BOTH: [DriverName; 2] = [DriverName::Overlay2, DriverName::Vfs];

/// An archive of gzipped layers; with `lie` the lowest is not what the configuration says.
fn gzipped(dir: &Path, tag: &str, lie: bool) -> PathBuf {
    let plain = docker_archive(dir, &layers(dir), tag, lie);
    let work = plain.with_extension("");
    sh(
        &work,
        "for l in *.tar; do gzip -nc $l > g; mv g $l; done; tar -cf ../gz.tar *; rm -r l0 l1 2>/dev/null || true",
    );
    let out = dir.join(format!("gz-{}.tar", tag.replace(':', "-")));
    fs::rename(dir.join("gz.tar"), &out).unwrap();
    sh(dir, "rm -rf l0 l1");
    out
}

/// Every compressed form that a record names is there, and nothing else but configurations.
fn check_content(b: &Bench) {
    let mut wanted = Vec::new();
    for image in b.store.images().list().unwrap() {
        wanted.push(image.id);
        for chain in &image.layers {
            wanted.extend(b.store.layer(chain).unwrap().unwrap().blob.map(|blob| blob.digest));
        }
    }
    wanted.sort();
    wanted.dedup();
    let mut there = b.store.content().list().unwrap();
    there.sort();
    assert_eq!(there, wanted, "{:?}", b.store.driver().name());
}

#[test]
fn privileged_loading_again_keeps_the_blobs_of_what_is_there() {
    for driver in BOTH {
        let b = bench(driver);
        let archive = gzipped(b.dir.path(), "z:1", false);
        let first = load(&b.store, &archive).unwrap()[0].id;
        check_content(&b);
        assert_eq!(load(&b.store, &archive).unwrap()[0].id, first);
        check_content(&b);
        b.store.images().remove(&first).unwrap();
        assert_eq!(b.store.content().list().unwrap(), [], "{driver}");
    }
}

#[test]
fn privileged_a_compressed_form_of_a_plain_layer_is_not_left_over() {
    for driver in BOTH {
        let b = bench(driver);
        let archive = gzipped(b.dir.path(), "z:1", false);
        load(&b.store, &docker_archive(b.dir.path(), &layers(b.dir.path()), "p:1", false)).unwrap();
        load(&b.store, &archive).unwrap();
        check_content(&b);
    }
}

#[test]
fn privileged_atk_22_lying_compressed_layers_leave_nothing() {
    for driver in BOTH {
        let b = bench(driver);
        let archive = gzipped(b.dir.path(), "lie:1", true);
        load(&b.store, &archive).unwrap_err();
        assert_eq!(b.store.content().list().unwrap(), [], "{driver}");
        assert_eq!(b.store.driver().list().unwrap(), Vec::<String>::new(), "{driver}");
        assert_eq!(fs::read_dir(b.store.root().join("layers")).unwrap().count(), 0, "{driver}");
        assert_eq!(fs::read_dir(b.store.root().join("content/ingest")).unwrap().count(), 0, "{driver}");
    }
}

/// Gives all but the last bytes, then waits for leave.
struct Stalling {
    start: std::io::Cursor<Vec<u8>>,
    rest: std::io::Cursor<Vec<u8>>,
    reached: Option<mpsc::Sender<()>>,
    go: mpsc::Receiver<()>,
}

impl Read for Stalling {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.start.read(buf)?;
        if n > 0 {
            return Ok(n);
        }
        if let Some(reached) = self.reached.take() {
            reached.send(()).unwrap();
            self.go.recv().unwrap();
        }
        self.rest.read(buf)
    }
}

#[test]
fn privileged_a_removal_during_a_load_takes_nothing_from_it() {
    for driver in BOTH {
        let b = bench(driver);
        let archive = gzipped(b.dir.path(), "z:1", false);
        let first = load(&b.store, &archive).unwrap()[0].id;
        let mut start = fs::read(&archive).unwrap();
        let end = start.iter().rposition(|b| *b != 0).unwrap();
        let rest = start.split_off(end);
        let ((reached, at), (go, leave)) = (mpsc::channel(), mpsc::channel());
        let source = Stalling {
            start: std::io::Cursor::new(start),
            rest: std::io::Cursor::new(rest),
            reached: Some(reached),
            go: leave,
        };
        std::thread::scope(|scope| {
            let loading = scope.spawn(|| archive::load(&b.store, source, &|_| {}));
            at.recv().unwrap();
            b.store.images().remove(&first).unwrap();
            go.send(()).unwrap();
            assert_eq!(loading.join().unwrap().unwrap()[0].id, first);
        });
        check_content(&b);
    }
}

#[test]
fn privileged_foreign_files_do_not_keep_the_store_from_opening() {
    for driver in BOTH {
        let b = bench(driver);
        let options = StoreOptions { driver: Some(driver), sync: false };
        let root = b.store.root().to_owned();
        let snapshots = if driver == DriverName::Vfs { root.join("vfs/dir") } else { root.join("overlay2") };
        fs::create_dir(snapshots.join("lost+found")).unwrap();
        fs::write(snapshots.join("note.txt"), "x").unwrap();
        fs::write(root.join("layers/note.txt"), "x").unwrap();
        let Bench { dir, store } = b;
        drop(store);
        let store = Store::open(&root, &options).unwrap();
        assert!(snapshots.join("lost+found").exists() && snapshots.join("note.txt").exists());
        assert_eq!(store.driver().list().unwrap(), Vec::<String>::new());
        drop(dir);
    }
}

/// What a kill in the middle of making a snapshot leaves behind.
#[test]
fn privileged_half_made_snapshots_go_with_their_links() {
    let b = bench(DriverName::Overlay2);
    let overlay = b.store.root().join("overlay2");
    let id = Digest::of(b"half").hex();
    fs::create_dir_all(overlay.join(&id).join("diff")).unwrap();
    std::os::unix::fs::symlink(format!("../{id}/diff"), overlay.join("l").join("A".repeat(26))).unwrap();
    let root = b.store.root().to_owned();
    let Bench { dir, store } = b;
    drop(store);
    let store = Store::open(&root, &StoreOptions { driver: None, sync: false }).unwrap();
    assert!(!overlay.join(&id).exists());
    assert_eq!(fs::read_dir(overlay.join("l")).unwrap().count(), 0);
    drop((store, dir));
}

#[test]
fn privileged_a_visitor_does_not_unmount_what_was_started_meanwhile() {
    let b = bench(DriverName::Overlay2);
    let dir = b.dir.path();
    let id = load(&b.store, &docker_archive(dir, &layers(dir), "v:1", false)).unwrap()[0].id;
    b.store.create_rw("c", Some(&id)).unwrap();
    let merged = b
        .store
        .with_mounted("c", |tree| {
            assert!(tree.join("etc/file").exists());
            b.store.mount_rw("c", &IdMap::default())
        })
        .unwrap();
    assert!(merged.join("etc/file").exists(), "the container's mount stays");
    b.store.with_mounted("c", |_| b.store.unmount_rw("c")).unwrap();
    assert!(!merged.exists(), "the last user unmounts");
    b.store.remove_rw("c").unwrap();
}

#[test]
fn privileged_mounting_from_many_threads_mounts_once() {
    let b = bench(DriverName::Overlay2);
    let dir = b.dir.path();
    let id = load(&b.store, &docker_archive(dir, &layers(dir), "m:1", false)).unwrap()[0].id;
    b.store.create_rw("c", Some(&id)).unwrap();
    for _ in 0..20 {
        let merged = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| b.store.mount_rw("c", &IdMap::default()).unwrap())).collect();
            threads.into_iter().map(|t| t.join().unwrap()).next_back().unwrap()
        });
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert_eq!(table.matches(merged.to_str().unwrap()).count(), 1);
        b.store.unmount_rw("c").unwrap();
    }
    b.store.remove_rw("c").unwrap();
}

#[test]
fn privileged_the_driver_of_a_root_with_layers_stays_and_info_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("data");
    let open = |driver| Store::open(&root, &StoreOptions { driver, sync: false });
    let why = |store: &Store| (store.driver_choice().name, store.driver_choice().reason.clone());
    let vfs = open(Some(DriverName::Vfs)).unwrap();
    assert_eq!(why(&vfs), (DriverName::Vfs, "vfs was asked for".to_owned()));
    drop(vfs);
    // Nothing is there that only vfs could read.
    let overlay = open(None).unwrap();
    assert_eq!(why(&overlay), (DriverName::Overlay2, "overlay works on this file system".to_owned()));
    drop(overlay);
    let vfs = open(Some(DriverName::Vfs)).unwrap();
    load(&vfs, &docker_archive(dir.path(), &layers(dir.path()), "x:1", false)).unwrap();
    drop(vfs);
    let vfs = open(None).unwrap();
    assert_eq!(why(&vfs), (DriverName::Vfs, "the data root holds layers of vfs".to_owned()));
    let row = ("Chosen Because".to_owned(), vfs.driver_choice().reason.clone());
    assert!(vfs.driver_choice().status.contains(&row));
    drop(vfs);
    assert!(open(Some(DriverName::Overlay2)).unwrap_err().to_string().contains("holds layers of the vfs"));
}
