//! Copies of contexts into trees, looked at on the disk.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use longshore_sys::root::Root;

use super::*;
use crate::cancel::Cancel;
use crate::context::Options;
use crate::graph::Source;
use crate::ignore::Ignore;

/// Seconds since 1970 of everything in the context.
const TIME: i64 = 1_000_000_000;
/// And of what a copy makes.
const STAMP: i64 = 2_000_000_000;

/// A context and the tree that it is copied into.
struct Case {
    context: tempfile::TempDir,
    tree: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        let (context, tree) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = |path: &str| context.path().join(path);
        fs::create_dir_all(at("dir/sub")).unwrap();
        fs::write(at("one"), "1").unwrap();
        fs::write(at("two"), "2").unwrap();
        fs::write(at("dir/a"), "a").unwrap();
        fs::hard_link(at("dir/a"), at("dir/b")).unwrap();
        fs::set_permissions(at("dir"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(at("dir/sub"), fs::Permissions::from_mode(0o711)).unwrap();
        for path in ["dir/sub", "dir/a", "dir", "one", "two"] {
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(TIME.unsigned_abs());
            fs::File::open(at(path)).unwrap().set_modified(time).unwrap();
        }
        Self { context, tree }
    }

    fn copy(&self, sources: &[&str], dest: &str, mode: Option<&str>) -> Result<()> {
        let owner = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let part = Part {
            from: Source::Context(0),
            sources: sources.iter().map(|s| s.as_bytes().to_vec()).collect(),
            unpack: false,
        };
        let copy = Copy {
            parts: vec![part.clone()],
            dest: dest.into(),
            owner: None,
            mode: mode.map(|m| m.parse().expect("a mode")),
            parents: false,
            exclude: Vec::new(),
            link: false,
        };
        let root = Root::open(self.context.path())?;
        let contexts = [Context::walk(root, &Ignore::default(), &Options::default())?];
        let selection = select_context(&contexts, 0, &copy, &part.sources)?;
        let tree = Root::open(self.tree.path())?;
        let cancel = Cancel::new();
        let look = Look { owner: Some(owner), mode: copy.mode.clone(), stamp: STAMP };
        place(Placer::new(&tree, look, &cancel), &tree, self.tree.path(), &copy, &part, &selection).map(drop)
    }

    fn look(&self, path: &str) -> (u32, i64) {
        let meta =
            fs::symlink_metadata(self.tree.path().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        (meta.mode() & 0o7777, meta.mtime())
    }

    fn same(&self, a: &str, b: &str) -> bool {
        let inode = |path: &str| fs::metadata(self.tree.path().join(path)).expect(path).ino();
        inode(a) == inode(b)
    }
}

#[test]
fn a_directory_that_is_made_looks_like_any_but_for_its_time() {
    let case = Case::new();
    case.copy(&["dir"], "/p/to", None).unwrap();
    assert_eq!(case.look("p"), (0o755, STAMP));
    assert_eq!(case.look("p/to"), (0o755, TIME));
    assert_eq!(case.look("p/to/sub"), (0o711, TIME));
    assert!(case.same("p/to/a", "p/to/b"));
}

#[test]
fn a_directory_that_is_there_keeps_its_permissions() {
    let case = Case::new();
    fs::create_dir(case.tree.path().join("to")).unwrap();
    fs::set_permissions(case.tree.path().join("to"), fs::Permissions::from_mode(0o750)).unwrap();
    case.copy(&["dir"], "/to/", None).unwrap();
    assert_eq!(case.look("to"), (0o750, TIME));
}

#[test]
fn permissions_that_were_asked_for_are_those_of_new_parents_too() {
    let case = Case::new();
    case.copy(&["one"], "/p/q/", Some("700")).unwrap();
    assert_eq!((case.look("p").0, case.look("p/q").0, case.look("p/q/one").0), (0o700, 0o700, 0o700));
    case.copy(&["one"], "/r/", Some("u=rwx,go=")).unwrap();
    assert_eq!((case.look("r").0, case.look("r/one").0), (0o755, 0o700));
}

#[test]
fn several_sources_are_copied_one_after_the_other() {
    let case = Case::new();
    case.copy(&["one", "two"], "/file", None).unwrap();
    assert_eq!(fs::read(case.tree.path().join("file")).unwrap(), b"2");
    case.copy(&["dir", "one"], "/to", None).unwrap();
    assert!(case.tree.path().join("to/one").is_file());
    // Of two names of a file, each is a source of its own.
    case.copy(&["dir/a", "dir/b"], "/flat/", None).unwrap();
    assert!(!case.same("flat/a", "flat/b"));
}

#[test]
fn a_link_at_the_destination_is_followed_inside_the_tree() {
    let case = Case::new();
    fs::create_dir(case.tree.path().join("real")).unwrap();
    symlink("../../../real", case.tree.path().join("link")).unwrap();
    case.copy(&["dir"], "/link", None).unwrap();
    assert_eq!(case.look("real/sub"), (0o711, TIME));
    assert!(case.tree.path().join("link").is_symlink());
}
