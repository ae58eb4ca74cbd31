//! What a power cut takes of a container's writable layer is made again when the store is opened. Needs root.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod common;

use std::fs;
use std::path::Path;

use longshore_oci::IdMap;
use longshore_store::snapshot::DriverName;
use longshore_store::{Store, StoreOptions};

use common::audit::audit;
use common::{bench, docker_archive, layers, load, sh};

/// What is taken away, as a script in `overlay2/` with `$rw` and `$init`.
const LOSSES: [&str; 14] = [
    "rm -rf $rw",
    "rm -rf $init",
    "rm -rf $rw $init; find l -xtype l -delete",
    "rm -rf $rw/diff",
    ": > $rw/link",
    ": > $init/link",
    "rm $init/link $rw/link",
    "rm l/$(cat $rw/link)",
    "rm l/$(cat $init/link)",
    ": > $rw/lower",
    "rm $init/lower",
    "rm -r $rw/work $init/work $init/committed",
    "rm -r $init/diff/*",
    "rm $init/diff/etc/mtab",
];

#[test]
fn privileged_atk_53_what_a_power_cut_took_of_a_container_is_made_again() {
    let b = bench(DriverName::Overlay2);
    let archive = docker_archive(b.dir.path(), &layers(b.dir.path()), "m:1", false);
    let image = load(&b.store, &archive).unwrap()[0].id;
    let root = b.dir.path().join("data");
    let mut store = b.store;
    for (loss, written) in LOSSES.iter().flat_map(|loss| [(loss, true), (loss, false)]) {
        let what = format!("{loss}, written {written}");
        let rw = store.create_rw("c", Some(&image)).unwrap();
        let before = look(&store);
        let tree = store.mount_rw("c", &IdMap::default()).unwrap();
        if written {
            sh(&tree, "echo mine > mine; rm etc/file");
        }
        store.unmount_rw("c").unwrap();
        drop(store);
        sh(&root.join("overlay2"), &format!("rw={} init={}; {loss}", rw.mount_id, rw.init_id.unwrap()));
        store = open(&root);
        let kept = written && !loss.contains("rm -rf $rw");
        let tree = store.mount_rw("c", &IdMap::default()).unwrap();
        assert_eq!(tree.join("mine").exists(), kept, "{what}");
        assert_eq!(tree.join("etc/file").exists(), !kept, "{what}");
        assert_eq!(fs::read_link(tree.join("etc/mtab")).unwrap(), Path::new("/proc/mounts"), "{what}");
        sh(&tree, "rm -f mine; test -e etc/file || echo two > etc/file");
        store.unmount_rw("c").unwrap();
        assert_eq!(look(&store), before, "{what}");
        assert_eq!(audit(&store), Vec::<String>::new(), "{what}");
        store.remove_rw("c").unwrap();
        assert_eq!(audit(&store), Vec::<String>::new(), "{what}: removed");
    }
}

/// The same of a layer that lies on the image itself, or on nothing.
#[test]
fn privileged_what_a_power_cut_took_of_a_bare_layer_is_made_again() {
    let b = bench(DriverName::Overlay2);
    let archive = docker_archive(b.dir.path(), &layers(b.dir.path()), "m:1", false);
    let image = load(&b.store, &archive).unwrap()[0].id;
    let root = b.dir.path().join("data");
    let mut store = b.store;
    let image_top = store.create_rw("c", Some(&image)).unwrap().top;
    store.remove_rw("c").unwrap();
    for loss in LOSSES.iter().filter(|loss| !loss.contains("$init")) {
        for top in [None, image_top] {
            // What lies on nothing has none of these.
            if top.is_none() && loss.contains("lower") {
                continue;
            }
            let rw = store.create_bare_rw("c", top.as_ref()).unwrap();
            let before = look(&store);
            drop(store);
            sh(&root.join("overlay2"), &format!("rw={}; {loss}", rw.mount_id));
            store = open(&root);
            assert_eq!(look(&store), before, "{loss} on {top:?}");
            assert_eq!(audit(&store), Vec::<String>::new(), "{loss} on {top:?}");
            store.remove_rw("c").unwrap();
            assert_eq!(audit(&store), Vec::<String>::new(), "{loss} on {top:?}: removed");
        }
    }
}

/// A container that runs on while the daemon is away is left alone.
#[test]
fn privileged_a_mounted_layer_is_not_touched() {
    let b = bench(DriverName::Overlay2);
    let archive = docker_archive(b.dir.path(), &layers(b.dir.path()), "m:1", false);
    let image = load(&b.store, &archive).unwrap()[0].id;
    let root = b.dir.path().join("data");
    let rw = b.store.create_rw("c", Some(&image)).unwrap();
    b.store.mount_rw("c", &IdMap::default()).unwrap();
    drop(b.store);
    fs::write(root.join("overlay2").join(&rw.mount_id).join("lower"), "").unwrap();
    let store = open(&root);
    assert_eq!(fs::read(root.join("overlay2").join(&rw.mount_id).join("lower")).unwrap(), b"");
    store.unmount_rw("c").unwrap();
    drop(store);
    open(&root).remove_rw("c").unwrap();
}

fn open(root: &Path) -> Store {
    Store::open(root, &StoreOptions { driver: None, sync: false }).unwrap()
}

/// All that the container sees, with modes and owners.
fn look(store: &Store) -> String {
    let list = "find . -printf '%p %y %m %U %G %l\\n' | sort";
    store
        .with_mounted("c", |tree| {
            let out =
                std::process::Command::new("sh").arg("-c").arg(list).current_dir(tree).output().unwrap();
            Ok(String::from_utf8(out.stdout).unwrap())
        })
        .unwrap()
}
