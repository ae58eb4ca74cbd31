//! What images and containers may do to a tree, and what the store makes of it. Needs root.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod common;

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use longshore_oci::{IdMap, Kind};
use longshore_store::snapshot::DriverName;
use rustix::fs::{Mode, OFlags};

use common::{bench, docker_archive, layers, load, sh};

const BOTH: [DriverName; 2] = [DriverName::Overlay2, DriverName::Vfs];

/// Directories in one another, deeper than any path can say.
fn nest(at: &Path, depth: usize) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut dir: OwnedFd = rustix::fs::open(at, flags, Mode::empty()).unwrap();
    for _ in 0..depth {
        rustix::fs::mkdirat(&dir, "d", Mode::RWXU).unwrap();
        dir = rustix::fs::openat(&dir, "d", flags, Mode::empty()).unwrap();
    }
}

#[test]
fn privileged_atk_59_a_bottomless_tree_neither_crashes_nor_stays() {
    for driver in BOTH {
        let b = bench(driver);
        let dir = b.dir.path();
        let id = load(&b.store, &docker_archive(dir, &layers(dir), "deep:1", false)).unwrap()[0].id;
        b.store.create_rw("c", Some(&id)).unwrap();
        nest(&b.store.mount_rw("c", &IdMap::default()).unwrap(), 5000);
        assert_eq!(b.store.changes("c").unwrap_err().kind(), Kind::TooLarge, "{driver}");
        b.store.rw_size("c").unwrap();
        b.store.remove_rw("c").unwrap();
        b.store.images().remove(&id).unwrap();
        assert_eq!(b.store.driver().list().unwrap(), Vec::<String>::new(), "{driver}");
    }
}

/// Layers unpack side by side, each in a directory of its own: a link of one never leads the files of another.
#[test]
fn privileged_atk_18_links_of_a_layer_do_not_lead_other_layers() {
    for driver in BOTH {
        let b = bench(driver);
        let dir = b.dir.path();
        let canary = dir.join("canary");
        fs::create_dir(&canary).unwrap();
        sh(
            dir,
            "mkdir l0; ln -s $PWD/canary l0/out; ln -s / l0/up; tar -C l0 -cf l0.tar out up
             for i in 1 2 3 4 5 6 7; do
                 mkdir -p l$i/out l$i/up; echo $i > l$i/out/file$i; echo $i > l$i/up/canary$i
                 tar -C l$i -cf l$i.tar out/file$i up/canary$i
             done",
        );
        let tars: Vec<_> = (0..8).map(|i| dir.join(format!("l{i}.tar"))).collect();
        let id = load(&b.store, &docker_archive(dir, &tars, "links:1", false)).unwrap()[0].id;
        assert_eq!(fs::read_dir(&canary).unwrap().count(), 0, "{driver}");
        assert!(!Path::new("/canary1").exists(), "{driver}");
        b.store.create_rw("c", Some(&id)).unwrap();
        let root = b.store.mount_rw("c", &IdMap::default()).unwrap();
        if driver == DriverName::Overlay2 {
            assert_eq!(fs::read_dir(root.join("out")).unwrap().count(), 7);
            assert_eq!(fs::read_to_string(root.join("up/canary7")).unwrap(), "7\n");
        }
        b.store.unmount_rw("c").unwrap();
    }
}

#[test]
fn privileged_changes_and_size_of_a_tree_that_moves() {
    for driver in BOTH {
        let b = bench(driver);
        let dir = b.dir.path();
        let id = load(&b.store, &docker_archive(dir, &layers(dir), "busy:1", false)).unwrap()[0].id;
        b.store.create_rw("c", Some(&id)).unwrap();
        let root = b.store.mount_rw("c", &IdMap::default()).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    fs::create_dir_all(root.join("busy/deep")).unwrap();
                    fs::write(root.join("busy/deep/file"), "x").unwrap();
                    fs::rename(root.join("busy"), root.join("moved")).unwrap();
                    symlink("/etc", root.join("busy")).unwrap();
                    fs::remove_dir_all(root.join("moved")).unwrap();
                    fs::remove_file(root.join("busy")).unwrap();
                }
            });
            for _ in 0..200 {
                let changes = b.store.changes("c");
                let size = b.store.rw_size("c");
                if changes.is_err() || size.is_err() {
                    stop.store(true, Ordering::Relaxed);
                }
                let changes = changes.unwrap();
                assert!(
                    changes.iter().all(|c| !c.path.ends_with("passwd")),
                    "{driver}: links are not followed"
                );
                assert!(size.unwrap() < 10_000, "{driver}");
            }
            stop.store(true, Ordering::Relaxed);
        });
        b.store.remove_rw("c").unwrap();
    }
}

#[test]
fn privileged_atk_07_what_every_container_has_is_made_inside_its_root() {
    for driver in BOTH {
        let b = bench(driver);
        let dir = b.dir.path();
        let outside = dir.join("outside");
        fs::create_dir(&outside).unwrap();
        sh(
            dir,
            "mkdir -p t/real t/proc t/sys; ln -s ../outside t/dev; ln -s /real t/etc; echo own > t/.dockerenv
             chmod 0555 t/proc; chown 7:8 t/sys; tar -C t -cf 0.tar .",
        );
        let id = load(&b.store, &docker_archive(dir, &[dir.join("0.tar")], "links:1", false)).unwrap()[0].id;
        b.store.create_rw("c", Some(&id)).unwrap();
        let root = b.store.mount_rw("c", &IdMap::default()).unwrap();
        let stat = |p: &str| fs::symlink_metadata(root.join(p)).unwrap();
        for d in ["dev", "dev/pts", "dev/shm", "etc", "proc", "sys"] {
            assert!(stat(d).is_dir(), "{driver}: {d}");
        }
        for f in [".dockerenv", "etc/hosts", "etc/hostname", "etc/resolv.conf", "dev/console"] {
            let meta = stat(f);
            assert_eq!((meta.len(), meta.mode()), (0, 0o100_755), "{driver}: {f}");
        }
        assert_eq!(fs::read_link(root.join("etc/mtab")).unwrap(), Path::new("/proc/mounts"));
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{driver}");
        assert_eq!(fs::read_dir(root.join("real")).unwrap().count(), 0, "{driver}");
        assert_eq!((stat("proc").mode() & 0o777, stat("sys").uid(), stat("sys").gid()), (0o555, 7, 8));
        assert_eq!(b.store.changes("c").unwrap(), [], "{driver}");
        b.store.remove_rw("c").unwrap();
    }
}

#[test]
fn privileged_directories_of_the_image_keep_their_look_under_the_init_layer() {
    for driver in BOTH {
        let b = bench(driver);
        let dir = b.dir.path();
        sh(
            dir,
            "mkdir -p t/etc t/dev/shm; chmod 2750 t/etc; chown 12:34 t/etc; chmod 1777 t/dev/shm; setfattr -n user.note -v hi t/etc
             chmod 0711 t; tar --xattrs --format=pax -C t -cf 0.tar .
             mkdir -p u/etc; echo x > u/etc/x; chmod 2750 u/etc; chown 12:34 u/etc; touch u/etc/.wh..wh..opq; tar -C u -cf 1.tar etc",
        );
        let tars = [dir.join("0.tar"), dir.join("1.tar")];
        let id = load(&b.store, &docker_archive(dir, &tars, "look:1", false)).unwrap()[0].id;
        b.store.create_rw("c", Some(&id)).unwrap();
        let root = b.store.mount_rw("c", &IdMap::default()).unwrap();
        let stat = |p: &str| fs::symlink_metadata(root.join(p)).unwrap();
        let etc = stat("etc");
        assert_eq!((etc.mode() & 0o7777, etc.uid(), etc.gid()), (0o2750, 12, 34), "{driver}");
        assert_eq!(stat("dev/shm").mode() & 0o7777, 0o1777, "{driver}");
        assert!(root.join("etc/x").exists(), "{driver}: the marks of the image's layers are not copied");
        assert_eq!(
            fs::symlink_metadata(&root).unwrap().permissions().mode() & 0o7777,
            0o711,
            "{driver}: a layer that does not speak of the root leaves it alone"
        );
        b.store.remove_rw("c").unwrap();
    }
}
