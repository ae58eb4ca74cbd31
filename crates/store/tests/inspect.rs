//! Seeing into layers, compared with what a mounted container shows and with what lies in the layers' directories. Needs
//! root: overlays are mounted.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;

use longshore_oci::{Digest, IdMap, Kind};
use longshore_store::inspect::{Event, FileKind, Place, Which};
use longshore_store::layer::{Index, IndexKind};
use longshore_store::snapshot::DriverName;
use longshore_store::tar::EntryKind;

use common::trees::{awkward, images, mounted, remove};
use common::{Bench, agree, bench, sh};

fn which(b: &Bench, image: &Digest, path: &str) -> Which {
    b.store.which(image, path.as_bytes(), true).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn events(w: &Which) -> Vec<(Place, Event)> {
    w.versions.iter().map(|v| (v.place, v.event)).collect()
}

fn agrees_with_mounts(driver: DriverName) {
    let b = bench(driver);
    let images = images(&b, &awkward(b.dir.path()));
    let trees = mounted(&b, &images);
    agree::which(&b, &images, &trees);
    remove(&b, &images);
}

#[test]
fn privileged_what_is_found_is_what_a_container_sees() {
    agrees_with_mounts(DriverName::Overlay2);
}

#[test]
fn privileged_the_same_with_vfs() {
    agrees_with_mounts(DriverName::Vfs);
}

#[test]
fn privileged_lives_of_files_are_told() {
    for driver in [DriverName::Overlay2, DriverName::Vfs] {
        let b = bench(driver);
        let image = *images(&b, &awkward(b.dir.path())).last().unwrap();
        use Event::{Added, Changed, Deleted, Kept};
        let l = Place::Layer;
        for (path, want) in [
            ("/etc/file", vec![(l(6), Changed), (l(2), Changed), (l(1), Added)]),
            ("etc/conf.d/x", vec![(l(2), Deleted), (l(1), Added)]),
            ("etc/conf.d/y", vec![(l(3), Deleted), (l(1), Added)]),
            ("was-dir", vec![(l(3), Changed), (l(1), Added)]),
            ("was-dir/in", vec![(l(3), Deleted), (l(1), Added)]),
            ("was-file", vec![(l(4), Deleted), (l(3), Changed), (l(1), Added)]),
            ("var/cache/b/blob", vec![(l(2), Deleted), (l(1), Added)]),
            ("never", vec![(l(6), Deleted), (l(4), Added)]),
            ("usr/share/doc/x/README", vec![(l(5), Added)]),
            ("srv/twins/b", vec![(l(5), Deleted), (l(1), Added)]),
            ("srv/twins/a", vec![(l(6), Added), (l(5), Deleted), (l(2), Changed), (l(1), Added)]),
            ("tmp", vec![(l(4), Deleted), (l(1), Added)]),
        ] {
            assert_eq!(events(&which(&b, &image, path)), want, "{driver} {path}");
        }
        // Deleted with a parent, which is named.
        let gone = which(&b, &image, "/usr/lib/deep/er/two");
        let told: Vec<_> = gone.versions.iter().map(|v| (v.place, v.event, v.via.as_slice())).collect();
        let want = [
            (l(5), Deleted, &b"usr/lib/deep"[..]),
            (l(4), Added, b""),
            (l(3), Deleted, b"usr/lib/deep/er"),
            (l(1), Added, b""),
        ];
        assert_eq!((told.as_slice(), gone.exists), (&want[..], false));
        // Directories: who made them, who has something in them, and how much.
        let etc = which(&b, &image, "/etc");
        let told: Vec<_> = etc.versions.iter().map(|v| (v.place, v.event, v.entries)).collect();
        assert_eq!(told.last(), Some(&(l(1), Added, Some(10))));
        assert_eq!(told[0].0, l(6));
        assert!(told.iter().any(|v| v.0 == l(2) && v.1 == Changed), "{told:?}");
        let root = which(&b, &image, "/");
        assert!(root.exists && root.path.is_empty());
        let opaque = which(&b, &image, "/etc/conf.d");
        assert_eq!(opaque.versions.iter().filter(|v| v.opaque).map(|v| v.place).collect::<Vec<_>>(), [l(3)]);
        assert!(opaque.versions.iter().any(|v| v.event == Kept));
    }
}

#[test]
fn privileged_atk_17_links_are_followed_inside_the_image_only() {
    let b = bench(DriverName::Overlay2);
    let images = images(&b, &awkward(b.dir.path()));
    let image = images[3];
    let read = |path: &str| {
        let mut text = String::new();
        b.store.open_in_image(&image, path.as_bytes(), None).map(|mut f| {
            f.file.read_to_string(&mut text).unwrap();
            (text, String::from_utf8(f.path).unwrap(), f.layer)
        })
    };
    let want = |text: &str, path: &str, layer| (text.to_owned(), path.to_owned(), layer);
    assert_eq!(read("/bin/sh").unwrap(), want("sh2\n", "usr/bin/sh", 2));
    assert_eq!(read("/etc/escape").unwrap(), want("root\n", "etc/passwd", 1));
    assert_eq!(read("/etc/abs/z").unwrap(), want("z\n", "etc/conf.d/z", 3));
    assert_eq!(read("/etc/to-deep/../deep/./one").unwrap(), want("one\n", "usr/lib/deep/one", 1));
    assert_eq!(read("/to-now").unwrap(), want("now\n", "never/now", 4));
    assert_eq!(read("/../../etc/through").unwrap(), want("one\n", "usr/lib/deep/one", 1));
    assert_eq!(read("/lib/deep/er/two").unwrap(), want("back\n", "usr/lib/deep/er/two", 4));
    for (path, kind, words) in [
        ("/etc/loop1", Kind::Invalid, "too many symbolic links"),
        ("/etc/broken", Kind::NotFound, "the image has no"),
        ("/etc/passwd/x", Kind::NotFound, "the image has no"),
        ("/nope", Kind::NotFound, "the image has no /nope"),
        ("/etc", Kind::Invalid, "/etc is a directory, not a regular file"),
        ("/srv/null", Kind::Invalid, "a character device"),
        ("/srv/pipe", Kind::Invalid, "a named pipe"),
        ("", Kind::Invalid, "empty"),
        ("a\0b", Kind::Invalid, "NUL"),
    ] {
        let e = read(path).unwrap_err();
        assert!(e.kind() == kind && e.to_string().contains(words), "{path}: {e}");
    }
    assert_eq!(read(&"x/".repeat(3000)).unwrap_err().kind(), Kind::TooLarge);
    // As it was below a layer.
    let below = |top| b.store.open_in_image(&image, b"/bin/sh", Some(top)).map(|f| f.layer);
    assert_eq!((below(1).unwrap(), below(2).unwrap(), below(4).unwrap()), (1, 2, 2));
    assert_eq!(
        (below(0).unwrap_err().kind(), below(5).unwrap_err().kind()),
        (Kind::NotFound, Kind::NotFound)
    );
    // Each link is told; without following, the link itself is asked about.
    let w = which(&b, &image, "/etc/to-deep/one");
    assert_eq!(w.links, [(b"etc/to-deep".to_vec(), b"../usr/lib/deep".to_vec())]);
    assert_eq!(w.path, b"usr/lib/deep/one");
    let link = b.store.which(&image, b"/etc/to-deep", false).unwrap();
    assert_eq!((link.path.as_slice(), link.links.len()), (&b"etc/to-deep"[..], 0));
    assert_eq!(link.versions[0].info.as_ref().unwrap().kind, FileKind::Symlink);
    let missing = b.store.which(&image, b"/etc/to-deep/one", false).unwrap_err();
    assert_eq!(missing.kind(), Kind::NotFound);
    assert_eq!(b.store.which(&Digest::of(b"x"), b"/", true).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn privileged_layers_are_counted_as_their_directories_hold_them() {
    let b = bench(DriverName::Overlay2);
    let images = images(&b, &awkward(b.dir.path()));
    let trees = mounted(&b, &images);
    agree::tally(&b, &images, &trees);
    agree::files(&b, &images, &trees);
    let tally = b.store.tally(images.last().unwrap()).unwrap();
    assert!(tally.wasted() > 0 && tally.wasted() < tally.bytes());
    assert_eq!(tally.layers.iter().map(|l| l.layer.number).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7]);
    remove(&b, &images);
}

#[test]
fn privileged_entries_of_a_layer_say_what_they_do() {
    let b = bench(DriverName::Overlay2);
    let image = *images(&b, &awkward(b.dir.path())).last().unwrap();
    let list = |number, dir: Option<&str>| {
        let mut out = Vec::new();
        let done = b.store.list_layer(&image, number, dir.map(str::as_bytes), &mut |f| {
            out.push((String::from_utf8_lossy(&f.path).into_owned(), f.event, f.hidden_by, f.opaque));
            Ok(())
        });
        done.map(|()| out)
    };
    use Event::{Added, Changed, Deleted, Kept};
    let own = |path: &str, event, hidden, opaque| (path.to_owned(), event, hidden, opaque);
    assert_eq!(
        list(3, None).unwrap(),
        [
            own("", Kept, None, false),
            own("etc", Changed, None, false),
            own("etc/conf.d", Kept, None, true),
            own("etc/conf.d/z", Added, None, false),
            own("usr", Kept, None, false),
            own("usr/lib", Kept, None, false),
            own("usr/lib/deep", Kept, Some(5), false),
            own("usr/lib/deep/er", Deleted, None, false),
            own("was-dir", Changed, None, false),
            own("was-file", Changed, Some(4), false),
            own("was-file/in", Added, Some(4), false),
            own("was-link", Changed, None, false),
            own("was-link/in", Added, None, false),
        ]
    );
    assert_eq!(
        list(2, Some("/etc/")).unwrap(),
        [
            own("etc", Changed, None, false),
            own("etc/conf.d", Kept, None, false),
            own("etc/conf.d/x", Deleted, None, false),
            own("etc/file", Changed, Some(6), false),
        ]
    );
    assert_eq!(list(1, Some("usr/lib/deep-er")).unwrap(), [own("usr/lib/deep-er", Added, None, false)]);
    assert_eq!(list(1, Some("nope")).unwrap(), []);
    assert_eq!(list(7, None).unwrap(), []);
    for none in [0, 8, usize::MAX] {
        assert_eq!(list(none, None).unwrap_err().kind(), Kind::NotFound);
    }
}

#[test]
fn privileged_a_container_is_looked_at_from_its_own_layer_down() {
    for driver in [DriverName::Overlay2, DriverName::Vfs] {
        let b = bench(driver);
        let image = images(&b, &awkward(b.dir.path()))[3];
        b.store.create_rw("box", Some(&image)).unwrap();
        let root = b.store.mount_rw("box", &IdMap::default()).unwrap();
        sh(
            &root,
            "echo mine > etc/file; rm usr/bin/sh; mkdir made; echo x > made/x; rm -r etc/conf.d; mkdir etc/conf.d
             ln -s /made/x etc/mine; rm -r var; ln -s etc var; chmod 711 usr/lib/deep",
        );
        let which = |path: &str| b.store.which_in("box", path.as_bytes(), true).unwrap();
        use Event::{Added, Changed, Deleted};
        let (l, own) = (Place::Layer, Place::Container);
        for (path, want) in [
            ("/etc/file", vec![(own, Changed), (l(2), Changed), (l(1), Added)]),
            ("/bin/sh", vec![(own, Deleted), (l(2), Changed), (l(1), Added)]),
            ("/made/x", vec![(own, Added)]),
            ("/etc/conf.d/z", vec![(own, Deleted), (l(3), Added)]),
            ("/etc/passwd", vec![(l(1), Added)]),
            ("/.dockerenv", vec![(Place::Init, Added)]),
            ("/etc/hosts", vec![(Place::Init, Added)]),
            ("/usr/lib/deep/one", vec![(l(1), Added)]),
        ] {
            assert_eq!(events(&which(path)), want, "{driver} {path}");
        }
        assert_eq!(events(&which("/usr/lib/deep"))[0], (own, Changed), "{driver}");
        assert_eq!(which("/etc/mine").path, b"made/x");
        assert_eq!(which("/var/file").path, b"etc/file");
        let size = which("/made/x").versions[0].info.as_ref().unwrap().size;
        assert_eq!((size, which("/usr/bin/sh").exists), (2, false));
        let e = b.store.which_in("box", b"/nope", true).unwrap_err();
        assert_eq!(e.kind(), Kind::NotFound);
        assert_eq!(b.store.which_in("nobody", b"/", true).unwrap_err().kind(), Kind::NotFound);
        b.store.remove_rw("box").unwrap();
    }
}

#[test]
fn privileged_atk_09_a_containers_links_lead_nowhere_on_the_host() {
    let b = bench(DriverName::Overlay2);
    let image = images(&b, &awkward(b.dir.path()))[0];
    b.store.create_rw("box", Some(&image)).unwrap();
    let root = b.store.mount_rw("box", &IdMap::default()).unwrap();
    let outside = b.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("canary"), "secret").unwrap();
    let up = "../".repeat(40) + outside.to_str().unwrap();
    for (name, target) in
        [("abs", outside.to_str().unwrap()), ("up", up.as_str()), ("self", "/proc/self/root")]
    {
        std::os::unix::fs::symlink(target, root.join(name)).unwrap();
        let e = b.store.which_in("box", format!("/{name}/canary").as_bytes(), true).unwrap_err();
        assert_eq!(e.kind(), Kind::NotFound, "{name}: {e}");
    }
    // Swapped all the while between a directory and a link out.
    let (real, link) = (root.join("real"), root.join("link"));
    fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&outside, &link).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let dir = fs::File::open(&root).unwrap();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let _ =
                    rustix::fs::renameat_with(&dir, "real", &dir, "link", rustix::fs::RenameFlags::EXCHANGE);
            }
        });
        for _ in 0..500 {
            let found = b.store.which_in("box", b"/real/canary", true);
            let found = found.map(|w| w.exists);
            assert!(!found.unwrap_or(false), "seen outside");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    b.store.remove_rw("box").unwrap();
}

#[test]
fn privileged_a_damaged_layer_is_named() {
    let b = bench(DriverName::Overlay2);
    let image = images(&b, &awkward(b.dir.path()))[1];
    let layers = b.store.layers_of(&image).unwrap();
    let dir = b.store.driver().apply_dir(&layers[1].record.cache_id);
    fs::write(dir.join("etc/file"), "of another size").unwrap();
    let e = b.store.open_in_image(&image, b"/etc/file", None).unwrap_err();
    assert!(e.kind() == Kind::Corrupt && e.to_string().contains("layer 2 (sha256:"), "{e}");
    fs::remove_file(dir.join("etc/file")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.join("etc/file")).unwrap();
    assert_eq!(b.store.open_in_image(&image, b"/etc/file", None).unwrap_err().kind(), Kind::Corrupt);
    let index = b.store.root().join("layers").join(&layers[0].record.cache_id).join("index");
    let whole = fs::read(&index).unwrap();
    fs::write(&index, &whole[..whole.len() / 2]).unwrap();
    for e in [
        b.store.which(&image, b"/etc/file", true).unwrap_err(),
        b.store.tally(&image).unwrap_err(),
        b.store.open_in_image(&image, b"/etc/file", None).unwrap_err(),
    ] {
        assert!(e.kind() == Kind::Corrupt && e.to_string().contains("layer 1 (sha256:"), "{e}");
        assert!(e.to_string().contains("longshore system check"), "{e}");
    }
}

#[test]
fn privileged_names_are_bytes() {
    let b = bench(DriverName::Overlay2);
    let image = images(&b, &awkward(b.dir.path()))[0];
    let name = OsStr::from_bytes(b"not\xffutf8");
    let mut text = String::new();
    let mut found = b.store.open_in_image(&image, name.as_bytes(), None).unwrap();
    found.file.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), found.path.as_slice()), ("x", name.as_bytes()));
}

/// Writes an index as the first version had it: no owners, no targets, no directories that the tar did not describe.
fn as_version_1(path: &std::path::Path) {
    let index = Index::open(path).unwrap();
    let mut rows: Vec<_> = index.iter().filter(|e| !e.implied).collect();
    rows.sort_by_key(|e| e.path);
    let mut out = b"LSINDEX\0".to_vec();
    out.extend(1u32.to_le_bytes());
    out.extend(u32::try_from(rows.len()).unwrap().to_le_bytes());
    out.extend(rows.iter().map(|e| e.path.len() as u64).sum::<u64>().to_le_bytes());
    let mut at = 0u64;
    for e in &rows {
        let (kind, size) = match e.kind {
            IndexKind::Entry(EntryKind::File) => (0, e.size),
            IndexKind::Entry(EntryKind::HardLink) => (1, 0),
            IndexKind::Entry(EntryKind::Symlink) => (2, 0),
            IndexKind::Entry(EntryKind::Char) => (3, 0),
            IndexKind::Entry(EntryKind::Block) => (4, 0),
            IndexKind::Entry(EntryKind::Dir) => (5, 0),
            IndexKind::Entry(EntryKind::Fifo) => (6, 0),
            IndexKind::Whiteout => (16, 0),
            IndexKind::Opaque => (17, 0),
        };
        out.extend(at.to_le_bytes());
        out.extend(u16::try_from(e.path.len()).unwrap().to_le_bytes());
        out.extend([kind, 0]);
        out.extend(e.mode.to_le_bytes());
        out.extend(size.to_le_bytes());
        out.extend(e.mtime.secs.to_le_bytes());
        out.extend(e.mtime.nanos.to_le_bytes());
        out.extend([0; 4]);
        at += e.path.len() as u64;
    }
    rows.iter().for_each(|e| out.extend(e.path));
    fs::write(path, out).unwrap();
}

#[test]
fn privileged_indexes_of_the_first_version_serve_as_well() {
    let b = bench(DriverName::Overlay2);
    let image = *images(&b, &awkward(b.dir.path())).last().unwrap();
    let look = || {
        let lives: Vec<_> =
            ["/etc/file", "/lib/deep/one", "/etc/conf.d/y", "/usr/share/doc/x/README", "/was-file"]
                .iter()
                .map(|p| {
                    let w = which(&b, &image, p);
                    (w.path.clone(), w.exists, events(&w))
                })
                .collect();
        let mut text = String::new();
        b.store.open_in_image(&image, b"/bin/sh", None).unwrap().file.read_to_string(&mut text).unwrap();
        let counts: Vec<_> = b
            .store
            .tally(&image)
            .unwrap()
            .layers
            .iter()
            .map(|l| (l.added, l.changed, l.deleted, l.bytes))
            .collect();
        (lives, text, counts)
    };
    let now = look();
    for layer in b.store.layers_of(&image).unwrap() {
        as_version_1(&b.store.root().join("layers").join(&layer.record.cache_id).join("index"));
    }
    assert_eq!(look(), now);
    assert_eq!(which(&b, &image, "/etc/file").versions[0].info.as_ref().unwrap().owner, None);
}
