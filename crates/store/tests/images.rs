//! Images in and out of a real store, on both drivers. Needs root: overlays are mounted.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod common;

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use longshore_oci::image::{ImageDocument, RootFs};
use longshore_oci::{Digest, IdMap, Kind, Reference};
use longshore_store::archive::{self, SaveItem};
use longshore_store::snapshot::{ChangeKind, DriverName};
use longshore_store::{Error, Store, StoreOptions};

use common::{bench, docker_archive, layers, load, sh};

fn round_trip(driver: DriverName) {
    let b = bench(driver);
    let dir = b.dir.path();
    let archive = docker_archive(dir, &layers(dir), "a/b:1", false);
    let loaded = load(&b.store, &archive).unwrap();
    let id = loaded[0].id;
    assert_eq!(loaded[0].tags[0].familiar(), "a/b:1");
    for name in ["a/b:1", &id.to_string(), &id.hex()[..8]] {
        assert_eq!(b.store.images().resolve(name).unwrap().id, id, "{name}");
    }

    // What a container sees.
    b.store.create_rw("c1", Some(&id)).unwrap();
    let root = b.store.mount_rw("c1", &IdMap::default()).unwrap();
    let stat = |p: &str| fs::symlink_metadata(root.join(p)).unwrap();
    assert_eq!(fs::read_to_string(root.join("etc/file")).unwrap(), "two\n");
    assert_eq!(fs::read_to_string(root.join("etc/hard")).unwrap(), "one\n");
    assert!(!root.join("gone").exists());
    assert_eq!(fs::read_dir(root.join("dir")).unwrap().count(), 1);
    assert_eq!(
        (stat("bin/su").uid(), stat("bin/su").gid(), stat("bin/su").mode() & 0o7777),
        (12, 34, 0o4755)
    );
    let caps = Command::new("getcap").arg(root.join("bin/su")).output().unwrap();
    assert!(String::from_utf8_lossy(&caps.stdout).contains("cap_net_raw=ep"));
    assert_eq!(b.store.changes("c1").unwrap(), []);

    // What it changes.
    fs::write(root.join("made"), "x").unwrap();
    fs::remove_file(root.join("etc/hard")).unwrap();
    fs::set_permissions(root.join("bin"), fs::Permissions::from_mode(0o700)).unwrap();
    let changes: Vec<(String, ChangeKind)> = b
        .store
        .changes("c1")
        .unwrap()
        .into_iter()
        .map(|c| (c.path.to_str().unwrap().to_owned(), c.kind))
        .collect();
    let want = [
        ("/bin", ChangeKind::Modified),
        ("/etc", ChangeKind::Modified),
        ("/etc/hard", ChangeKind::Deleted),
        ("/made", ChangeKind::Added),
    ];
    assert_eq!(changes, want.map(|(p, k)| (p.to_owned(), k)));

    // Committed as one layer of that.
    let document = |new: &archive::NewImage| ImageDocument {
        architecture: "amd64".into(),
        os: "linux".into(),
        rootfs: RootFs { kind: "layers".into(), diff_ids: new.diff_ids.clone() },
        ..ImageDocument::default()
    };
    let reference: Reference = "committed:1".parse().unwrap();
    let committed = archive::commit(&b.store, "c1", Some(&id), Some(&reference), document).unwrap();
    b.store.create_rw("c2", Some(&committed)).unwrap();
    let root2 = b.store.mount_rw("c2", &IdMap::default()).unwrap();
    assert!(root2.join("made").exists() && !root2.join("etc/hard").exists());
    assert_eq!(b.store.images().get(&committed).unwrap().parent, Some(id));

    // Out and in again: the same id, the same bytes of every layer.
    let mut saved = Vec::new();
    archive::save(&b.store, &[SaveItem { id, tags: vec!["a/b:1".parse().unwrap()] }], &mut saved).unwrap();
    let file = dir.join("saved.tar");
    fs::write(&file, &saved).unwrap();
    let out = Command::new("tar")
        .arg("-xOf")
        .arg(&file)
        .arg(format!("blobs/sha256/{}", Digest::of(&fs::read(dir.join("0.tar")).unwrap()).hex()))
        .output()
        .unwrap();
    assert_eq!(Digest::of(&out.stdout), Digest::of(&fs::read(dir.join("0.tar")).unwrap()));
    for c in ["c1", "c2"] {
        b.store.remove_rw(c).unwrap();
        b.store.remove_rw(c).unwrap();
    }
    b.store.images().remove(&committed).unwrap();
    b.store.images().remove(&id).unwrap();
    assert_eq!(b.store.driver().list().unwrap(), Vec::<String>::new());
    assert_eq!(b.store.content().list().unwrap(), []);
    assert_eq!(load(&b.store, &file).unwrap()[0].id, id);
}

#[test]
fn privileged_round_trip_on_overlay() {
    round_trip(DriverName::Overlay2);
}

#[test]
fn privileged_round_trip_on_vfs() {
    round_trip(DriverName::Vfs);
}

#[test]
fn privileged_compressed_layers_and_archives_are_read() {
    let b = bench(DriverName::Overlay2);
    let dir = b.dir.path();
    let plain = layers(dir);
    let archive = docker_archive(dir, &plain, "z:1", false);
    let id = load(&b.store, &archive).unwrap()[0].id;
    b.store.images().remove(&id).unwrap();
    sh(
        dir,
        "cd archive-z-1 && gzip -c 0.tar > g && mv g 0.tar && gzip -c 1.tar > g && cat g > 1.tar && rm g && tar -czf ../z.tgz *",
    );
    assert_eq!(load(&b.store, &dir.join("z.tgz")).unwrap()[0].id, id);
    let top = b.store.images().get(&id).unwrap().layers[1];
    assert!(b.store.layer(&top).unwrap().unwrap().blob.is_some(), "a blob that came from a file is kept");
}

#[test]
fn privileged_the_same_layer_twice() {
    let b = bench(DriverName::Overlay2);
    let dir = b.dir.path();
    let l = layers(dir);
    let archive = docker_archive(dir, &[l[0].clone(), l[1].clone(), l[1].clone()], "twice:1", false);
    let image = load(&b.store, &archive).unwrap()[0].id;
    assert_eq!(b.store.images().get(&image).unwrap().layers.len(), 3);
    b.store.create_rw("c", Some(&image)).unwrap();
    let root = b.store.mount_rw("c", &IdMap::default()).unwrap();
    assert_eq!(fs::read_to_string(root.join("etc/file")).unwrap(), "two\n");
    b.store.remove_rw("c").unwrap();
}

#[test]
fn privileged_atk_22_lying_and_broken_archives_leave_nothing() {
    for driver in [DriverName::Overlay2, DriverName::Vfs] {
        let b = bench(driver);
        let dir = b.dir.path();
        let l = layers(dir);
        let lie = load(&b.store, &docker_archive(dir, &l, "lie:1", true)).unwrap_err();
        assert!(matches!(lie, Error::DigestMismatch { .. }), "{lie}");
        let whole = fs::read(docker_archive(dir, &l, "cut:1", false)).unwrap();
        for cut in [100, 600, whole.len() / 3, whole.len() / 2] {
            let file = dir.join("cut.tar");
            fs::write(&file, &whole[..cut]).unwrap();
            assert!(load(&b.store, &file).is_err(), "cut at {cut}");
        }
        assert_eq!(b.store.images().list().unwrap().len(), 0);
        assert_eq!(b.store.driver().list().unwrap(), Vec::<String>::new(), "{driver}");
        assert_eq!(b.store.content().list().unwrap(), [], "{driver}");
    }
}

#[test]
fn privileged_layout_on_disk_is_dockers() {
    let b = bench(DriverName::Overlay2);
    let dir = b.dir.path();
    let id = load(&b.store, &docker_archive(dir, &layers(dir), "l:1", false)).unwrap()[0].id;
    let rw = b.store.create_rw("c", Some(&id)).unwrap();
    let root = b.store.root().join("overlay2");
    let mode = |p: &Path| fs::symlink_metadata(p).unwrap().mode() & 0o7777;
    assert_eq!((mode(&root), mode(&root.join("l"))), (0o710, 0o700));
    let layer = root.join(&rw.mount_id);
    assert_eq!((mode(&layer), mode(&layer.join("diff")), mode(&layer.join("work"))), (0o710, 0o755, 0o700));
    assert!(!layer.join("merged").exists() && !layer.join("committed").exists());
    let lower = fs::read_to_string(layer.join("lower")).unwrap();
    let targets: Vec<PathBuf> = lower.split(':').map(|l| fs::canonicalize(root.join(l)).unwrap()).collect();
    assert_eq!(targets.len(), 3);
    assert_eq!(targets[0], root.join(rw.init_id.as_ref().unwrap()).join("diff"));
    for target in &targets {
        let committed = target.parent().unwrap().join("committed");
        assert_eq!((mode(&committed), fs::metadata(&committed).unwrap().len()), (0o600, 0));
    }
    let mut names: Vec<String> = fs::read_dir(root.join(rw.init_id.as_ref().unwrap()).join("diff"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, [".dockerenv", "dev", "etc", "proc", "sys"]);
    let merged = b.store.mount_rw("c", &IdMap::default()).unwrap();
    assert_eq!((merged.clone(), mode(&root.join(&rw.mount_id).join("diff"))), (layer.join("merged"), 0o755));
    assert_eq!(b.store.mount_rw("c", &IdMap::default()).unwrap(), merged, "twice is once");
    b.store.unmount_rw("c").unwrap();
    assert!(!merged.exists());
    b.store.remove_rw("c").unwrap();
}

#[test]
fn privileged_records_decide_what_a_start_keeps() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let options = StoreOptions { driver: None, sync: false };
    let store = Store::open(&data, &options).unwrap();
    let id = load(&store, &docker_archive(dir.path(), &layers(dir.path()), "r:1", false)).unwrap()[0].id;
    let before = store.driver().list().unwrap().len();
    store.driver().prepare(&Digest::of(b"half made").hex(), None).unwrap();
    store.content().put(b"nobody's blob").unwrap();
    assert!(Store::open(&data, &options).unwrap_err().to_string().contains("another"));
    drop(store);
    let store = Store::open(&data, &options).unwrap();
    assert_eq!(store.driver().list().unwrap().len(), before);
    assert_eq!(store.content().list().unwrap(), [id]);
    assert_eq!(store.images().resolve("r:1").unwrap().id, id);
}

#[test]
fn privileged_skopeo_and_umoci_read_what_save_writes_and_we_read_theirs() {
    let b = bench(DriverName::Overlay2);
    let dir = b.dir.path();
    let id = load(&b.store, &docker_archive(dir, &layers(dir), "s:1", false)).unwrap()[0].id;
    let file = dir.join("out.tar");
    let item = SaveItem { id, tags: vec!["s:1".parse().unwrap()] };
    archive::save(&b.store, &[item], fs::File::create(&file).unwrap()).unwrap();
    sh(
        dir,
        "skopeo copy -q docker-archive:out.tar oci:layout:s1 && umoci unpack --image layout:s1 bundle && grep -q two bundle/rootfs/etc/file",
    );
    sh(dir, "mkdir direct && tar -C direct -xf out.tar && skopeo inspect oci:direct:1 > /dev/null");
    sh(dir, "tar -C layout -cf theirs.tar .");
    b.store.images().remove(&id).unwrap();
    let mut bytes = Vec::new();
    fs::File::open(dir.join("theirs.tar")).unwrap().read_to_end(&mut bytes).unwrap();
    let theirs = archive::load(&b.store, bytes.as_slice(), &|_| {}).unwrap();
    assert_eq!(b.store.images().document(&theirs[0].id).unwrap().1.rootfs.diff_ids.len(), 2);
}

/// Archives of one file each, for chains of any length.
fn small_layers(dir: &Path, n: usize) -> Vec<PathBuf> {
    (0..n)
        .map(|i| {
            let layer = dir.join(format!("small-{i}.tar"));
            fs::write(dir.join(format!("f{i}")), i.to_string()).unwrap();
            sh(dir, &format!("tar -cf {} f{i}", layer.display()));
            layer
        })
        .collect()
}

#[test]
fn privileged_as_many_layers_as_docker_takes_and_no_more() {
    let b = bench(DriverName::Overlay2);
    let dir = b.dir.path();
    let mut layers = small_layers(dir, 126);
    let e = load(&b.store, &docker_archive(dir, &layers, "deep:126", false)).unwrap_err();
    assert!(e.kind() == Kind::TooLarge && e.to_string().starts_with("max depth exceeded"), "{e}");
    assert_eq!(b.store.driver().list().unwrap(), Vec::<String>::new());
    layers.pop();
    let id = load(&b.store, &docker_archive(dir, &layers, "deep:125", false)).unwrap()[0].id;
    b.store.create_rw("c", Some(&id)).unwrap();
    let root = b.store.mount_rw("c", &IdMap::default()).unwrap();
    assert_eq!(fs::read_to_string(root.join("f0")).unwrap(), "0");
    fs::write(root.join("more"), "x").unwrap();
    let e = archive::commit(&b.store, "c", Some(&id), None, |_| ImageDocument::default()).unwrap_err();
    assert!(e.to_string().starts_with("max depth exceeded"), "{e}");
    b.store.remove_rw("c").unwrap();
}

#[test]
fn privileged_a_commit_of_nothing_adds_no_layer() {
    for driver in [DriverName::Overlay2, DriverName::Vfs] {
        let b = bench(driver);
        let dir = b.dir.path();
        let id = load(&b.store, &docker_archive(dir, &small_layers(dir, 2), "x:1", false)).unwrap()[0].id;
        let before = b.store.driver().list().unwrap().len();
        b.store.create_rw("c", Some(&id)).unwrap();
        let mut said = false;
        let made = archive::commit(&b.store, "c", Some(&id), None, |new| {
            said = new.empty && new.diff_ids.len() == 2;
            ImageDocument::default()
        });
        let made = b.store.images().get(&made.unwrap()).unwrap();
        assert!(said && made.layers == b.store.images().get(&id).unwrap().layers);
        b.store.remove_rw("c").unwrap();
        assert_eq!(b.store.driver().list().unwrap().len(), before);
    }
}

#[test]
fn privileged_a_commit_sets_times_or_flattens() {
    for driver in [DriverName::Overlay2, DriverName::Vfs] {
        let b = bench(driver);
        let dir = b.dir.path();
        let id = load(&b.store, &docker_archive(dir, &small_layers(dir, 2), "x:1", false)).unwrap()[0].id;
        let top = b.store.images().get(&id).unwrap().layers.last().copied();
        // Twice the same, written at different times and without what every container has.
        let trees = ["c", "d"].map(|name| {
            b.store.create_bare_rw(name, top.as_ref()).unwrap();
            let root = b.store.mount_rw(name, &IdMap::default()).unwrap();
            fs::write(root.join("big"), vec![7; 300_000]).unwrap();
            fs::hard_link(root.join("big"), root.join("hard")).unwrap();
            std::os::unix::fs::symlink("big", root.join("link")).unwrap();
            fs::remove_file(root.join("f0")).unwrap();
            b.store.unmount_rw(name).unwrap();
            name
        });
        let commit = |name: &str, options| {
            archive::commit_with(&b.store, name, None, None, options, |_| ImageDocument::default()).unwrap()
        };
        let options = archive::CommitOptions { mtime: Some(86_400), squash: false };
        assert_eq!(commit(trees[0], options), commit(trees[1], options));
        let flat = commit(trees[0], archive::CommitOptions { mtime: None, squash: true });
        let timed = commit(trees[0], options);
        for (image, layers) in [(timed, 3), (flat, 1)] {
            assert_eq!(b.store.images().get(&image).unwrap().layers.len(), layers);
            b.store.create_rw("look", Some(&image)).unwrap();
            let root = b.store.mount_rw("look", &IdMap::default()).unwrap();
            let stat = |name: &str| fs::symlink_metadata(root.join(name)).unwrap();
            assert_eq!((stat("big").size(), stat("hard").ino()), (300_000, stat("big").ino()));
            assert_eq!(stat("big").mtime() == 86_400, image == timed);
            assert!(!root.join("f0").exists() && root.join("f1").exists());
            b.store.unmount_rw("look").unwrap();
            b.store.remove_rw("look").unwrap();
        }
    }
}

#[test]
fn privileged_a_load_says_whose_name_it_takes() {
    let b = bench(DriverName::Overlay2);
    let dir = b.dir.path();
    let layers = small_layers(dir, 2);
    let old = load(&b.store, &docker_archive(dir, &layers[..1], "x:1", false)).unwrap()[0].id;
    let archive = docker_archive(dir, &layers, "x:1", false);
    let said = std::sync::Mutex::new(Vec::new());
    for _ in 0..2 {
        archive::load(&b.store, fs::File::open(&archive).unwrap(), &|event| {
            if let archive::LoadEvent::Renamed(name, from) = event {
                said.lock().unwrap().push((name.familiar(), *from));
            }
        })
        .unwrap();
    }
    assert_eq!(*said.lock().unwrap(), [("x:1".to_owned(), old)], "once, from the other image");
    let old = b.store.images().get(&old).unwrap();
    assert!(old.tags.is_empty() && old.last_tagged == 0, "loading is not tagging");
}

#[test]
fn privileged_a_name_that_could_be_an_id_is_refused() {
    let b = bench(DriverName::Overlay2);
    let archive = docker_archive(b.dir.path(), &small_layers(b.dir.path(), 1), "sha256:1", false);
    let e = load(&b.store, &archive).unwrap_err();
    assert!(e.to_string().contains("ambiguous"), "{e}");
    assert_eq!(b.store.driver().list().unwrap(), Vec::<String>::new());
}
