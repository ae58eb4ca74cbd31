//! Layers and cache mounts that go to another store without an image. Needs root.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod common;

use std::fs;
use std::io::Read;

use longshore_oci::image::Descriptor;
use longshore_oci::{Digest, IdMap, Kind};
use longshore_store::archive::{Absent, Coming, Dispatch, Part, Source};
use longshore_store::snapshot::DriverName;
use longshore_store::{StepRecord, Store};

use common::audit::audit;
use common::{bench, sh};

const BOTH: [DriverName; 2] = [DriverName::Overlay2, DriverName::Vfs];

/// Two steps, one on the other.
fn two(store: &Store) -> [StepRecord; 2] {
    let lease = store.lease("test").unwrap();
    let step = |name: &str, top: Option<&Digest>, script: &str| {
        store.create_rw_on(name, top).unwrap();
        sh(&store.mount_rw(name, &IdMap::default()).unwrap(), script);
        store.unmount_rw(name).unwrap();
        store.keep_step(&Digest::of(name.as_bytes()), name, name, &lease).unwrap()
    };
    let first = step("first", None, "mkdir d; echo one > d/one; echo gone > gone");
    let second = step("second", first.chain.as_ref(), "rm gone; echo two > d/two");
    [first, second]
}

fn bytes(dispatch: &Dispatch, n: usize) -> (Descriptor, Vec<u8>) {
    let blob = dispatch.blob(n, &mut |_| ()).unwrap();
    let mut bytes = Vec::new();
    dispatch.open(&blob.digest).unwrap().read_to_end(&mut bytes).unwrap();
    (blob, bytes)
}

fn coming(diff_id: Digest, (blob, bytes): &(Descriptor, Vec<u8>)) -> Coming {
    let source = Source::Stream(Box::new(std::io::Cursor::new(bytes.clone())));
    Coming { diff_id, blob: blob.clone(), source }
}

#[test]
fn privileged_steps_go_to_another_store() {
    for driver in BOTH {
        let (from, to) = (bench(driver), bench(driver));
        let steps = two(&from.store);
        let parts = steps.iter().map(|s| Part::Layer(s.chain.unwrap())).collect();
        let dispatch = Dispatch::of_parts(&from.store, b"{}".to_vec(), parts, "test").unwrap();
        let blobs = [bytes(&dispatch, 0), bytes(&dispatch, 1)];
        let diff_ids = steps.clone().map(|s| s.diff_id.unwrap());
        let lease = to.store.lease("test").unwrap();
        let receive = |layers: Vec<Coming>| to.store.receive_layers(None, layers, &lease);

        // In each other's place, and cut short: nothing is left.
        let swapped = vec![coming(diff_ids[0], &blobs[1]), coming(diff_ids[1], &blobs[0])];
        assert_eq!(receive(swapped).unwrap_err().kind(), Kind::Corrupt, "{driver}");
        let (blob, mut short) = blobs[1].clone();
        short.truncate(short.len() - 9);
        let cut = vec![coming(diff_ids[0], &blobs[0]), coming(diff_ids[1], &(blob, short))];
        receive(cut).unwrap_err();
        assert!(to.store.layer(&steps[0].chain.unwrap()).unwrap().is_none(), "{driver}");
        assert_eq!(fs::read_dir(to.store.root().join("layers")).map_or(0, Iterator::count), 0, "{driver}");

        // The second comes on the first, which is there already.
        receive(vec![coming(diff_ids[0], &blobs[0])]).unwrap();
        to.store.receive_layers(steps[0].chain, vec![coming(diff_ids[1], &blobs[1])], &lease).unwrap();
        receive(vec![coming(diff_ids[0], &blobs[0]), coming(diff_ids[1], &blobs[1])]).unwrap();
        let key = Digest::of(b"key");
        to.store.record_steps(&[(key, steps[1].clone())]).unwrap();
        assert_eq!(to.store.step(&key).unwrap().unwrap().chain, steps[1].chain, "{driver}");
        drop(lease);
        to.store.create_bare_rw("look", steps[1].chain.as_ref()).unwrap();
        let root = to.store.mount_rw("look", &IdMap::default()).unwrap();
        assert_eq!(fs::read_to_string(root.join("d/two")).unwrap(), "two\n", "{driver}");
        assert!(root.join("d/one").exists() && !root.join("gone").exists(), "{driver}");
        to.store.unmount_rw("look").unwrap();
        to.store.remove_rw("look").unwrap();
        assert_eq!(audit(&to.store), Vec::<String>::new(), "{driver}");
    }
}

#[test]
fn privileged_what_is_not_here_is_fetched_to_be_sent() {
    let (from, by) = (bench(DriverName::Overlay2), bench(DriverName::Overlay2));
    let steps = two(&from.store);
    let parts = vec![Part::Layer(steps[0].chain.unwrap())];
    let dispatch = Dispatch::of_parts(&from.store, b"{}".to_vec(), parts, "test").unwrap();
    let (blob, whole) = bytes(&dispatch, 0);
    let sent_on = |content: Vec<u8>| {
        let fetch = Box::new(move || {
            let reader: Box<dyn Read + Send> = Box::new(std::io::Cursor::new(content.clone()));
            Ok(reader)
        });
        let absent = Absent { diff_id: steps[0].diff_id.unwrap(), blob: blob.clone(), fetch };
        Dispatch::of_parts(&by.store, b"{}".to_vec(), vec![Part::Elsewhere(absent)], "test").unwrap()
    };
    let good = sent_on(whole.clone());
    assert_eq!(good.known(0), Some(blob.clone()), "known before it is fetched");
    assert_eq!(bytes(&good, 0).1, whole);
    let mut bad = whole;
    bad[20] ^= 1;
    drop(good);
    assert_eq!(sent_on(bad).blob(0, &mut |_| ()).unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(audit(&by.store), Vec::<String>::new(), "nothing of it is left");
}

#[test]
fn privileged_cache_mounts_go_to_another_store() {
    let (from, to) = (bench(DriverName::Overlay2), bench(DriverName::Overlay2));
    assert_eq!(from.store.cache_mount_at("m").unwrap(), None);
    let dir = from.store.cache_mount("m").unwrap().path;
    sh(&dir, "mkdir d; echo x > d/.wh.x; chmod 640 d/.wh.x; chown 7:8 d/.wh.x; mknod null c 1 3");
    assert_eq!(from.store.cache_mount_at("m").unwrap().as_deref(), Some(dir.as_path()));
    let tree = from.store.pack_tree(&dir).unwrap();
    let diff_id = tree.diff_id();
    let dispatch = Dispatch::of_parts(&from.store, b"{}".to_vec(), vec![Part::Tree(tree)], "test").unwrap();
    let (blob, whole) = bytes(&dispatch, 0);
    drop(dispatch);
    assert_eq!(audit(&from.store), Vec::<String>::new(), "the packed form is gone");

    let there = to.store.cache_mount("m").unwrap().path;
    let fill = |diff_id: &Digest, bytes: &[u8]| to.store.fill_cache_mount("m", diff_id, &blob, bytes);
    let mut bad = whole.clone();
    bad[20] ^= 1;
    fill(&diff_id, &bad).unwrap_err();
    fill(&Digest::of(b"other"), &whole).unwrap_err();
    assert_eq!(fs::read_dir(&there).unwrap().count(), 0, "it is empty");
    assert_eq!(fs::read_dir(there.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
    fill(&diff_id, &whole).unwrap();
    let look = "test $(cat d/.wh.x) = x && test $(stat -c %a:%u:%g d/.wh.x) = 640:7:8 && test ! -e null";
    sh(&there, look);
    assert_eq!(audit(&to.store), Vec::<String>::new());
}
