//! The build cache: layers that steps wrote, kept without a copy. Needs root.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod common;

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use longshore_oci::image::ImageDocument;
use longshore_oci::{Digest, IdMap, Kind};
use longshore_store::archive;
use longshore_store::check::CheckOptions;
use longshore_store::snapshot::DriverName;
use longshore_store::{StepRecord, Store, StoreOptions};

use common::audit::audit;
use common::trees::tree;
use common::{bench, docker_archive, layers, load, sh};

const BOTH: [DriverName; 2] = [DriverName::Overlay2, DriverName::Vfs];

/// Everything that a layer can say about a file.
const SCRIPT: &str = "
    echo new > made; mkdir -p d/e; echo 1 > d/e/f; ln d/e/f d/hard; ln -s e/f d/link; mknod fifo p; mknod null c 1 3
    chmod 4755 made; chown 7:8 d; touch -d '2001-02-03 04:05:06.789' d/e/f; truncate -s 200000 d/sparse
    setfattr -n user.note -v hello d/e/f; rm -rf etc; mkdir etc; echo other > etc/file; rm -f bin/link; true";

fn write(store: &Store, container: &str, top: Option<&Digest>, script: &str) {
    store.create_rw_on(container, top).unwrap();
    let tree = store.mount_rw(container, &IdMap::default()).unwrap();
    sh(&tree, script);
    store.unmount_rw(container).unwrap();
}

fn keep(store: &Store, key: &str, container: &str) -> StepRecord {
    let lease = store.lease("test").unwrap();
    store.keep_step(&Digest::of(key.as_bytes()), container, key, &lease).unwrap()
}

/// What a tree shows: kind, mode, owner, size, time and link of every path.
type Shown = BTreeMap<Vec<u8>, (u32, u32, u32, u64, i64, i64, Option<PathBuf>)>;

fn show(root: &Path) -> Shown {
    let one = |(path, (at, meta)): (Vec<u8>, (PathBuf, Metadata))| {
        let size = if meta.is_dir() { 0 } else { meta.size() };
        let link = fs::read_link(at).ok();
        (path, (meta.mode(), meta.uid(), meta.gid(), size, meta.mtime(), meta.mtime_nsec(), link))
    };
    let mut all: Shown = tree(root).into_iter().map(one).collect();
    // What every container has, and the directory that it has it in.
    let own =
        [".dockerenv", "dev", "proc", "sys", "etc/hosts", "etc/hostname", "etc/mtab", "etc/resolv.conf"];
    all.retain(|path, _| !own.iter().any(|o| path.starts_with(o.as_bytes())));
    if let Some(etc) = all.get_mut(b"etc".as_slice()) {
        (etc.4, etc.5) = (0, 0);
    }
    all
}

fn mounted(store: &Store, container: &str) -> Shown {
    let shown = show(&store.mount_rw(container, &IdMap::default()).unwrap());
    store.unmount_rw(container).unwrap();
    shown
}

fn seen(store: &Store, top: Option<&Digest>) -> Shown {
    store.create_rw_on("look", top).unwrap();
    let shown = mounted(store, "look");
    store.remove_rw("look").unwrap();
    shown
}

fn damage(store: &Store) -> Vec<String> {
    let report = store.check(&CheckOptions::default(), &|_| {}).unwrap();
    report.findings.iter().map(|f| format!("{f:?}")).collect()
}

#[test]
fn privileged_a_step_is_the_layer_that_a_commit_makes() {
    for driver in BOTH {
        let b = bench(driver);
        let archive = docker_archive(b.dir.path(), &layers(b.dir.path()), "z:1", false);
        load(&b.store, &archive).unwrap();
        let image = b.store.images().resolve("z:1").unwrap();
        let top = image.layers.last().copied();
        write(&b.store, "c", top.as_ref(), SCRIPT);
        let committed =
            archive::commit(&b.store, "c", Some(&image.id), None, |_| ImageDocument::default()).unwrap();
        let wanted = b.store.images().get(&committed).unwrap();
        b.store.images().remove(&committed).unwrap();
        let before = mounted(&b.store, "c");

        let step = keep(&b.store, "one", "c");
        assert_eq!(step.chain, wanted.layers.last().copied(), "{driver}");
        assert_eq!((step.below, step.diff_id.is_some()), (top, true), "{driver}");
        assert_eq!(b.store.rw("c").unwrap_err().kind(), Kind::NotFound, "{driver}");
        assert!(seen(&b.store, step.chain.as_ref()) == before, "{driver}: the tree is another one");
        assert_eq!(audit(&b.store), Vec::<String>::new(), "{driver}");
        assert_eq!(damage(&b.store), Vec::<String>::new(), "{driver}");

        // An image of it goes out and comes in again as the same.
        let document =
            ImageDocument { architecture: "amd64".into(), os: "linux".into(), ..ImageDocument::default() };
        let names = ["built:1".parse().unwrap(), "built:2".parse().unwrap()];
        let id = archive::record(&b.store, step.chain, &names, document).unwrap();
        let built = b.store.images().resolve("built:2").unwrap();
        assert_eq!((built.id, built.layers.last().copied()), (id, step.chain), "{driver}");
        assert_eq!(audit(&b.store), Vec::<String>::new(), "{driver}");

        // Steps hold layers, and give them back.
        b.store.images().remove(&id).unwrap();
        assert!(b.store.layer(&step.chain.unwrap()).unwrap().is_some(), "{driver}");
        let dropped = b.store.drop_steps(&[Digest::of(b"one"), Digest::of(b"unknown")]).unwrap();
        assert_eq!(dropped.steps, [Digest::of(b"one")], "{driver}");
        assert!(dropped.bytes > 0, "{driver}");
        assert!(b.store.layer(&step.chain.unwrap()).unwrap().is_none(), "{driver}");
        assert_eq!(audit(&b.store), Vec::<String>::new(), "{driver}");
    }
}

#[test]
fn privileged_a_step_that_changes_nothing_is_no_layer() {
    for driver in BOTH {
        let b = bench(driver);
        write(&b.store, "a", None, "echo x > file");
        let first = keep(&b.store, "first", "a");
        write(&b.store, "b", first.chain.as_ref(), "true");
        let second = keep(&b.store, "second", "b");
        assert_eq!((second.chain, second.diff_id, second.size), (first.chain, None, 0), "{driver}");
        assert_eq!(audit(&b.store), Vec::<String>::new(), "{driver}");
    }
}

#[test]
fn privileged_equal_steps_share_one_layer() {
    for driver in BOTH {
        let b = bench(driver);
        for (container, key) in [("a", "one"), ("b", "two")] {
            write(&b.store, container, None, "echo x > file; touch -d @1000000000 file .");
            keep(&b.store, key, container);
        }
        let steps = b.store.steps().unwrap();
        assert_eq!(steps.len(), 2, "{driver}");
        assert_eq!(steps[0].1.chain, steps[1].1.chain, "{driver}");
        assert_eq!(audit(&b.store), Vec::<String>::new(), "{driver}");
        b.store.drop_steps(&[steps[0].0]).unwrap();
        assert!(b.store.layer(&steps[1].1.chain.unwrap()).unwrap().is_some(), "{driver}");
    }
}

#[test]
fn privileged_sockets_are_left_out_of_a_step() {
    for driver in BOTH {
        let b = bench(driver);
        b.store.create_rw_on("c", None).unwrap();
        let tree_of = b.store.mount_rw("c", &IdMap::default()).unwrap();
        sh(&tree_of, "mkdir run2; echo x > run2/file");
        // A path of this length is none for a socket.
        sh(
            &tree_of.join("run2"),
            "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"socket\")'",
        );
        b.store.unmount_rw("c").unwrap();
        let step = keep(&b.store, "sockets", "c");
        assert_eq!(damage(&b.store), Vec::<String>::new(), "{driver}");
        let found = seen(&b.store, step.chain.as_ref());
        let has = |path: &str| found.contains_key(path.as_bytes());
        assert!(has("run2/file") && !has("run2/socket"), "{driver}");
    }
}

#[test]
fn privileged_steps_outlive_the_daemon_but_not_a_power_cut() {
    for driver in BOTH {
        let dir = tempfile::Builder::new().prefix("longshore-store-").tempdir().unwrap();
        let (root, options) = (dir.path().join("data"), StoreOptions { driver: Some(driver), sync: true });
        let open = |boot: &str| Store::open_on_boot(&root, &options, boot).unwrap();
        let store = open("1");
        write(&store, "a", None, "echo x > file");
        let kept = keep(&store, "kept", "a");
        let document =
            ImageDocument { architecture: "amd64".into(), os: "linux".into(), ..ImageDocument::default() };
        let id = archive::record(&store, kept.chain, &[], document).unwrap();
        write(&store, "b", kept.chain.as_ref(), "echo y > other");
        let lost = keep(&store, "lost", "b");
        assert_eq!(store.step(&Digest::of(b"kept")).unwrap().unwrap().unsynced, None, "{driver}");
        assert_eq!(lost.unsynced.as_deref(), Some("1"), "{driver}");
        drop(store);
        // The daemon was killed and started again: all is there.
        let store = open("1");
        assert_eq!(store.steps().unwrap().len(), 2, "{driver}");
        assert_eq!(audit(&store), Vec::<String>::new(), "{driver}");
        drop(store);
        // The machine was: nobody knows whether what was not synced has reached the disk.
        let store = open("2");
        let left: Vec<Digest> = store.steps().unwrap().into_iter().map(|(key, _)| key).collect();
        assert_eq!(left, [Digest::of(b"kept")], "{driver}");
        assert!(store.layer(&lost.chain.unwrap()).unwrap().is_none(), "{driver}");
        assert_eq!(audit(&store), Vec::<String>::new(), "{driver}");
        store.images().remove(&id).unwrap();
    }
}

#[test]
fn privileged_cache_mounts_have_names_and_sizes() {
    let b = bench(DriverName::Vfs);
    let first = b.store.cache_mount("/root/.cache").unwrap();
    assert!(first.fresh);
    fs::write(first.path.join("file"), vec![1u8; 100_000]).unwrap();
    let again = b.store.cache_mount("/root/.cache").unwrap();
    assert_eq!((again.fresh, &again.path), (false, &first.path));
    b.store.cache_mount("other").unwrap();
    let all = b.store.cache_mounts().unwrap();
    let (key, record, size) = all.iter().find(|(_, r, _)| r.name == "/root/.cache").unwrap();
    assert_eq!((record.uses, size.bytes >= 100_000), (2, true));
    assert!(b.store.drop_cache_mounts(&[*key]).unwrap() >= 100_000);
    assert_eq!(b.store.cache_mounts().unwrap().len(), 1);
    assert!(!first.path.exists());
    // What has no record goes at the next start, what lost its directory is forgotten.
    let root = b.store.root().to_owned();
    fs::create_dir_all(root.join("caches").join(Digest::of(b"x").hex()).join("data")).unwrap();
    fs::remove_dir_all(b.store.cache_mount("other").unwrap().path.parent().unwrap()).unwrap();
    drop(b.store);
    let store = Store::open(&root, &StoreOptions { driver: Some(DriverName::Vfs), sync: false }).unwrap();
    assert_eq!(store.cache_mounts().unwrap(), []);
    assert_eq!(fs::read_dir(root.join("caches")).unwrap().count(), 0);
}

#[test]
fn a_bare_layer_shows_the_layers_alone_and_is_kept() {
    for driver in BOTH {
        let b = bench(driver);
        let names = |container: &str| {
            let root = b.store.mount_rw(container, &IdMap::default()).unwrap();
            let names: Vec<String> = tree(&root).into_keys().map(|n| String::from_utf8(n).unwrap()).collect();
            b.store.unmount_rw(container).unwrap();
            names
        };
        b.store.create_bare_rw("first", None).unwrap();
        assert_eq!(names("first"), Vec::<String>::new());
        sh(&b.store.mount_rw("first", &IdMap::default()).unwrap(), "mkdir etc; echo x > etc/own");
        b.store.unmount_rw("first").unwrap();
        let first = keep(&b.store, "first", "first");

        b.store.create_bare_rw("second", first.chain.as_ref()).unwrap();
        assert_eq!(names("second"), ["etc", "etc/own"]);
        sh(&b.store.mount_rw("second", &IdMap::default()).unwrap(), "rm etc/own; mkdir dev");
        b.store.unmount_rw("second").unwrap();
        let changed: Vec<_> = b.store.changes("second").unwrap().into_iter().map(|c| c.path).collect();
        assert_eq!(changed, [PathBuf::from("/dev"), "/etc".into(), "/etc/own".into()]);
        let second = keep(&b.store, "second", "second");

        b.store.create_bare_rw("third", second.chain.as_ref()).unwrap();
        assert_eq!(names("third"), ["dev", "etc"]);
        let stack = b.store.which_in("third", b"/dev", false).unwrap();
        assert!(!stack.versions.is_empty());
        b.store.remove_rw("third").unwrap();
        assert_eq!(audit(&b.store), Vec::<String>::new());
    }
}
