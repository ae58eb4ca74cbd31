//! What every snapshot driver does, whatever it is made of.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use longshore_oci::{Digest, IdMap};
use longshore_store::snapshot::{ChangeKind, SnapshotDriver};

/// Makes a driver on an empty data root.
pub type Make<'a> = &'a dyn Fn(&Path) -> Box<dyn SnapshotDriver>;

/// Runs every case of the contract, each on a data root of its own. Panics at the first breach.
pub fn suite(make: Make<'_>) {
    for case in [stacking, isolation, changes, change_kinds, removal, refusals, deep] {
        let dir = tempfile::Builder::new().prefix("longshore-suite-").tempdir().expect("temporary folder");
        let driver = make(dir.path());
        case(driver.as_ref());
        assert_eq!(driver.list().expect("list"), Vec::<String>::new(), "a case leaves nothing");
    }
}

fn id(n: usize) -> String {
    Digest::of(n.to_string().as_bytes()).hex()
}

fn map() -> IdMap {
    IdMap::default()
}

/// A committed layer with a few files.
fn layer(driver: &dyn SnapshotDriver, n: usize, parent: Option<&str>, fill: impl FnOnce(&Path)) -> String {
    let id = id(n);
    driver.prepare(&id, parent).expect("prepare");
    let root = driver.mount(&id, &map()).expect("mount");
    fill(&root);
    driver.unmount(&id).expect("unmount");
    id
}

fn write(root: &Path, path: &str, text: &str) {
    fs::write(root.join(path), text).unwrap_or_else(|e| panic!("write {path}: {e}"));
}

fn read(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join(path)).unwrap_or_else(|e| panic!("read {path}: {e}"))
}

fn stacking(driver: &dyn SnapshotDriver) {
    let base = layer(driver, 0, None, |r| {
        fs::create_dir(r.join("dir")).expect("dir");
        write(r, "dir/a", "base");
        write(r, "gone", "base");
        fs::set_permissions(r.join("dir/a"), fs::Permissions::from_mode(0o4711)).expect("chmod");
        symlink("dir/a", r.join("link")).expect("link");
        fs::hard_link(r.join("gone"), r.join("other")).expect("hard link");
    });
    let top = layer(driver, 1, Some(&base), |r| {
        assert_eq!(read(r, "link"), "base");
        write(r, "dir/b", "top");
        fs::remove_file(r.join("gone")).expect("remove");
    });
    driver.prepare(&id(2), Some(&top)).expect("prepare");
    let root = driver.mount(&id(2), &map()).expect("mount");
    assert_eq!((read(&root, "dir/a"), read(&root, "dir/b")), ("base".into(), "top".into()));
    assert_eq!(read(&root, "other"), "base");
    assert!(!root.join("gone").exists());
    assert_eq!(fs::metadata(root.join("dir/a")).expect("stat").mode() & 0o7777, 0o4711);
    assert_eq!(driver.mount(&id(2), &map()).expect("mount again"), root);
    remove(driver, 3);
}

fn isolation(driver: &dyn SnapshotDriver) {
    let base = layer(driver, 0, None, |r| write(r, "file", "base"));
    for n in [1, 2] {
        driver.prepare(&id(n), Some(&base)).expect("prepare");
        driver.mount(&id(n), &map()).expect("mount");
    }
    let (one, two) =
        (driver.mount(&id(1), &map()).expect("mount"), driver.mount(&id(2), &map()).expect("mount"));
    write(&one, "file", "one");
    write(&one, "new", "one");
    assert_eq!(read(&two, "file"), "base");
    assert!(!two.join("new").exists());
    remove(driver, 3);
}

fn changes(driver: &dyn SnapshotDriver) {
    let base = layer(driver, 0, None, |r| {
        fs::create_dir_all(r.join("a/b")).expect("dirs");
        write(r, "a/b/keep", "x");
        write(r, "a/b/edit", "x");
        write(r, "a/gone", "x");
        write(r, "same", "x");
    });
    driver.prepare(&id(1), Some(&base)).expect("prepare");
    assert_eq!(driver.changes(&id(1), Some(&base)).expect("changes"), []);
    let root = driver.mount(&id(1), &map()).expect("mount");
    write(&root, "a/b/edit", "longer");
    fs::remove_file(root.join("a/gone")).expect("remove");
    fs::create_dir_all(root.join("new/sub")).expect("dirs");
    write(&root, "new/sub/file", "x");
    // Written to, but the same as before in all that counts.
    let before = fs::metadata(root.join("same")).expect("stat");
    fs::set_permissions(root.join("same"), fs::Permissions::from_mode(0o600)).expect("chmod");
    fs::set_permissions(root.join("same"), before.permissions()).expect("chmod");
    expect(
        driver,
        &base,
        &[
            ("/a", ChangeKind::Modified),
            ("/a/b", ChangeKind::Modified),
            ("/a/b/edit", ChangeKind::Modified),
            ("/a/gone", ChangeKind::Deleted),
            ("/new", ChangeKind::Added),
            ("/new/sub", ChangeKind::Added),
            ("/new/sub/file", ChangeKind::Added),
        ],
    );
    remove(driver, 2);
}

fn change_kinds(driver: &dyn SnapshotDriver) {
    let base = layer(driver, 0, None, |r| {
        for dir in ["replaced", "to-file", "chmod", "emptied", "anew", "anew/sub"] {
            fs::create_dir(r.join(dir)).expect("dir");
            write(r, &format!("{dir}/x"), "x");
        }
        write(r, "to-dir", "x");
    });
    driver.prepare(&id(1), Some(&base)).expect("prepare");
    let root = driver.mount(&id(1), &map()).expect("mount");
    fs::remove_dir_all(root.join("replaced")).expect("remove");
    fs::create_dir(root.join("replaced")).expect("dir");
    write(&root, "replaced/y", "y");
    // What a directory below one that was made anew lost shows, too.
    fs::remove_dir_all(root.join("anew")).expect("remove");
    fs::create_dir_all(root.join("anew/sub")).expect("dirs");
    write(&root, "anew/x", "x");
    fs::remove_dir_all(root.join("to-file")).expect("remove");
    write(&root, "to-file", "x");
    fs::remove_file(root.join("to-dir")).expect("remove");
    fs::create_dir(root.join("to-dir")).expect("dir");
    fs::set_permissions(root.join("chmod"), fs::Permissions::from_mode(0o700)).expect("chmod");
    fs::remove_dir_all(root.join("emptied")).expect("remove");
    expect(
        driver,
        &base,
        &[
            ("/anew", ChangeKind::Modified),
            ("/anew/sub", ChangeKind::Modified),
            ("/anew/sub/x", ChangeKind::Deleted),
            ("/anew/x", ChangeKind::Modified),
            ("/chmod", ChangeKind::Modified),
            ("/emptied", ChangeKind::Deleted),
            ("/replaced", ChangeKind::Modified),
            ("/replaced/x", ChangeKind::Deleted),
            ("/replaced/y", ChangeKind::Added),
            ("/to-dir", ChangeKind::Modified),
            ("/to-file", ChangeKind::Modified),
        ],
    );
    remove(driver, 2);
}

fn expect(driver: &dyn SnapshotDriver, base: &str, want: &[(&str, ChangeKind)]) {
    let got: Vec<(String, ChangeKind)> = driver
        .changes(&id(1), Some(base))
        .expect("changes")
        .into_iter()
        .map(|c| (c.path.to_string_lossy().into_owned(), c.kind))
        .collect();
    let want: Vec<(String, ChangeKind)> = want.iter().map(|(p, k)| ((*p).to_owned(), *k)).collect();
    assert_eq!(got, want, "{}", driver.name());
}

fn removal(driver: &dyn SnapshotDriver) {
    let base = layer(driver, 0, None, |r| write(r, "file", "x"));
    driver.prepare(&id(1), Some(&base)).expect("prepare");
    driver.mount(&id(1), &map()).expect("mount");
    driver.remove(&id(1)).expect("remove while mounted");
    driver.remove(&id(1)).expect("remove again");
    driver.unmount(&id(1)).expect("unmount what is gone");
    assert_eq!(driver.list().expect("list"), [base]);
    remove(driver, 1);
}

fn refusals(driver: &dyn SnapshotDriver) {
    use longshore_oci::Kind;

    driver.prepare(&id(0), None).expect("prepare");
    assert_eq!(driver.prepare(&id(0), None).expect_err("twice").kind(), Kind::Conflict);
    assert_eq!(driver.prepare(&id(1), Some(&id(9))).expect_err("no parent").kind(), Kind::NotFound);
    for bad in ["", "..", "../x", "x/y", &id(0)[..63], &id(0).to_uppercase()] {
        assert_eq!(driver.prepare(bad, None).expect_err(bad).kind(), Kind::Invalid, "{bad:?}");
        assert!(driver.remove(bad).is_err(), "{bad:?}");
    }
    remove(driver, 1);
}

/// As many layers as Docker's layer store takes.
fn deep(driver: &dyn SnapshotDriver) {
    const DEPTH: usize = 125;
    let mut parent: Option<String> = None;
    for n in 0..DEPTH {
        let id = id(n);
        driver.prepare(&id, parent.as_deref()).expect("prepare");
        write(&driver.apply_dir(&id), &format!("f{n}"), "x");
        parent = Some(id);
    }
    driver.prepare(&id(DEPTH), parent.as_deref()).expect("prepare");
    let root = driver.mount(&id(DEPTH), &map()).expect("mount");
    assert_eq!(fs::read_dir(&root).expect("read").count(), DEPTH);
    remove(driver, DEPTH + 1);
}

fn remove(driver: &dyn SnapshotDriver, count: usize) {
    for n in (0..count).rev() {
        driver.remove(&id(n)).expect("remove");
    }
}
