//! What two images differ in, compared with the trees of two containers. Needs root: overlays are mounted.

mod common;

use longshore_store::inspect::{DiffOptions, Event};
use longshore_store::snapshot::DriverName;

use common::trees::{awkward, images, mounted, remove};
use common::{agree, bench, docker_archive, load, sh};

fn diffs_are_of_trees(driver: DriverName) {
    let b = bench(driver);
    let images = images(&b, &awkward(b.dir.path()));
    let trees = mounted(&b, &images);
    agree::diff(&b, &images, &trees);
    remove(&b, &images);
}

#[test]
fn privileged_images_differ_as_their_trees_do() {
    diffs_are_of_trees(DriverName::Overlay2);
}

#[test]
fn privileged_images_differ_as_their_trees_do_with_vfs() {
    diffs_are_of_trees(DriverName::Vfs);
}

#[test]
fn privileged_contents_are_compared_when_asked_for() {
    let b = bench(DriverName::Overlay2);
    let dir = b.dir.path();
    sh(
        dir,
        "mkdir a b; for d in a b; do echo same > $d/same; echo same > $d/dated; printf 1234 > $d/sly; printf x > $d/mode; done
         printf 4321 > b/sly; printf longer > b/mode; chmod 600 b/mode
         touch -d 2001-01-01 a/* b/*; touch -d 2002-01-01 b/dated; tar -C a -cf a.tar .; tar -C b -cf b.tar .",
    );
    let image = |n: &str| {
        load(&b.store, &docker_archive(dir, &[dir.join(format!("{n}.tar"))], &format!("{n}:1"), false))
            .unwrap()[0]
            .id
    };
    let (a, c) = (image("a"), image("b"));
    let told = |content| -> Vec<_> {
        agree::rows(&b, &a, &c, content)
            .into_iter()
            .map(|r| (String::from_utf8(r.path).unwrap(), r.differs.content, r.differs.mode, r.differs.mtime))
            .collect()
    };
    let row = |path: &str, content, mode, mtime| (path.to_owned(), content, mode, mtime);
    assert_eq!(told(false), [row("dated", false, false, true), row("mode", true, true, false)]);
    assert_eq!(told(true), [row("mode", true, true, false), row("sly", true, false, false)]);
    assert_eq!(agree::rows(&b, &a, &a, true), []);
    // Ended by whoever asked.
    let e = b.store.diff_images(&a, &c, DiffOptions::default(), &mut |_| {
        Err(longshore_store::Error::Unavailable("enough".into()))
    });
    assert_eq!(e.unwrap_err().to_string(), "enough");
}

#[test]
fn privileged_a_mark_at_the_root_does_what_the_driver_does() {
    for driver in [DriverName::Overlay2, DriverName::Vfs] {
        let b = bench(driver);
        let dir = b.dir.path();
        sh(
            dir,
            "mkdir -p l0/d l1; echo a > l0/d/a; echo b > l0/b; touch l1/.wh..wh..opq; echo c > l1/c
             tar -C l0 -cf 0.tar .; tar -C l1 -cf 1.tar .wh..wh..opq c",
        );
        let images = images(&b, &[dir.join("0.tar"), dir.join("1.tar")]);
        let trees = mounted(&b, &images);
        let top = &trees[1];
        for path in ["d", "d/a", "b", "c"] {
            let w = b.store.which(&images[1], path.as_bytes(), true).unwrap();
            assert_eq!(w.exists, top.contains_key(path.as_bytes()), "{driver} {path}");
            let wanted = if w.exists { Event::Added } else { Event::Deleted };
            assert_eq!(w.versions[0].event, wanted, "{driver} {path}");
        }
        let deleted = b.store.tally(&images[1]).unwrap().layers[1].deleted;
        let gone: Vec<_> = agree::rows(&b, &images[0], &images[1], false)
            .into_iter()
            .filter(|r| r.event == Event::Deleted)
            .collect();
        let lost = trees[0].keys().filter(|p| !top.contains_key(*p));
        assert_eq!(gone.iter().map(|r| &r.path).collect::<Vec<_>>(), lost.collect::<Vec<_>>());
        assert_eq!(deleted, gone.iter().filter(|r| r.path != b"d").count() as u64, "{driver}");
        remove(&b, &images);
    }
}
