use std::os::unix::fs::PermissionsExt;

use longshore_oci::Digest;
use rustix::fs::{CWD, FileType, Mode};

use super::*;

/// The digest of all of a tree.
fn digest(dir: &Path) -> Digest {
    let context = Context::open(dir, &Ignore::default()).unwrap();
    let selected = select(context.tree(), &["."], &SelectOptions::default()).unwrap();
    context.hash(&selected).unwrap()
}

fn digest_of(files: &[(&str, &str)]) -> Digest {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), files);
    digest(dir.path())
}

#[test]
fn different_trees_have_different_digests() {
    let trees: &[&[(&str, &str)]] = &[
        &[],
        &[("a", "")],
        &[("b", "")],
        &[("a/", "")],
        &[("a->b", "")],
        &[("a->c", "")],
        &[("a", "b")],
        &[("a", "ab"), ("b", "c")],
        &[("a", "a"), ("b", "bc")],
        &[("a", "bc"), ("b", "a")],
        &[("ab", "a"), ("c", "bc")],
        &[("a/b", "c")],
        &[("a/", ""), ("b", "c")],
        &[("a/b/", ""), ("a/c/", "")],
        &[("a/b/c/", "")],
    ];
    let mut digests: Vec<_> = trees.iter().map(|files| digest_of(files)).collect();
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), trees.len());
}

#[test]
fn the_digest_is_of_what_reaches_an_image() {
    let files = &[("a", "one"), ("d/b", "two"), ("l->a", "")];
    let before = digest_of(files);
    let dir = tempfile::tempdir().unwrap();
    // Other inodes, another order of creation, other times.
    let mut reversed = files.to_vec();
    reversed.reverse();
    make(dir.path(), &[("gone", "x")]);
    make(dir.path(), &reversed);
    fs::remove_file(dir.path().join("gone")).unwrap();
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000);
    fs::File::open(dir.path().join("a")).unwrap().set_modified(old).unwrap();
    fs::File::open(dir.path().join("d")).unwrap().set_modified(old).unwrap();
    assert_eq!(digest(dir.path()), before);
    let changed = |change: &dyn Fn(&Path)| {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), files);
        change(dir.path());
        digest(dir.path()) != before
    };
    assert!(!changed(&|_| {}));
    assert!(changed(&|d| fs::set_permissions(d.join("a"), fs::Permissions::from_mode(0o600)).unwrap()));
    assert!(changed(&|d| fs::set_permissions(d.join("d"), fs::Permissions::from_mode(0o1755)).unwrap()));
    assert!(changed(&|d| fs::rename(d.join("a"), d.join("z")).unwrap()));
    assert!(changed(&|d| fs::rename(d.join("d/b"), d.join("b")).unwrap()));
    assert!(changed(&|d| fs::write(d.join("a"), "onE").unwrap()));
    assert!(changed(&|d| fs::create_dir(d.join("e")).unwrap()));
    let flags = rustix::fs::XattrFlags::empty();
    if rustix::fs::setxattr(dir.path().join("a"), "user.x", b"1", flags).is_ok() {
        let set = |name: &'static str, path: &'static str, value: &'static [u8]| {
            changed(&move |d: &Path| rustix::fs::setxattr(d.join(path), name, value, flags).unwrap())
        };
        assert!(set("user.x", "a", b"1"));
        assert!(set("user.x", "d", b""));
        // Steers overlayfs, and never gets into a layer.
        assert!(!set("user.overlay.opaque", "d", b"y"));
    }
    if longshore_sys::is_root() {
        let owner = Some(rustix::fs::Uid::from_raw(12));
        assert!(changed(&|d| rustix::fs::chown(d.join("d/b"), owner, None).unwrap()));
    }
}

#[test]
fn the_digest_knows_how_it_was_asked() {
    let (_dir, context) = tree(FILES);
    let digest = |sources: &[&str]| {
        context.hash(&select(context.tree(), sources, &SelectOptions::default()).unwrap()).unwrap()
    };
    assert_eq!(digest(&["src"]), digest(&["l"]));
    assert_ne!(digest(&["src/m.c"]), digest(&["lf"]), "another name");
    assert_ne!(digest(&["a.c", "b.c"]), digest(&["b.c", "a.c"]));
    assert_eq!(digest(&["a.c", "b.c"]), digest(&["*.c"]));
    assert_ne!(digest(&["*.none"]), digest(&["src"]));
}

#[test]
fn files_that_change_kind_are_refused() {
    let (dir, context) = tree(&["a"]);
    let selected = select(context.tree(), &["a"], &SelectOptions::default()).unwrap();
    fs::remove_file(dir.path().join("a")).unwrap();
    symlink("/etc/passwd", dir.path().join("a")).unwrap();
    assert!(matches!(context.hash(&selected), Err(Error::Changed(path)) if path == "a"));
    fs::remove_file(dir.path().join("a")).unwrap();
    rustix::fs::mknodat(CWD, dir.path().join("a"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let error = context.hash(&selected).unwrap_err();
    assert_eq!(
        error.to_string(),
        "\"a\" changed while the context was read: build again when nothing writes to it"
    );
}
