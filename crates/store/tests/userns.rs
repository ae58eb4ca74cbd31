//! The overlay2 driver inside a user namespace. Needs root, and unshare(1).
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod common;

use std::fs;
use std::process::Command;

use longshore_oci::IdMap;
use longshore_store::snapshot::{ChangeKind, DriverName};
use longshore_store::{Store, StoreOptions};

use common::{docker_archive, load, sh};

const INSIDE: &str = "LONGSHORE_TEST_INSIDE";

#[test]
fn privileged_overlay2_keeps_its_marks_in_user_attributes() {
    if let Some(dir) = std::env::var_os(INSIDE) {
        return inside(dir.as_ref());
    }
    let dir = tempfile::tempdir().unwrap();
    let out = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "privileged_overlay2_keeps_its_marks_in_user_attributes", "--nocapture"])
        .env(INSIDE, dir.path())
        .output()
        .expect("unshare(1) of util-linux");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

fn inside(dir: &std::path::Path) {
    sh(dir, "mount -t tmpfs tmpfs . && mount --make-rprivate .");
    sh(
        dir,
        "mkdir -p a/dir a/gone b/dir; echo 1 > a/dir/old; touch b/.wh.gone b/dir/.wh..wh..opq; echo 2 > b/dir/new
         tar -C a -cf 0.tar .; tar -C b -cf 1.tar .",
    );
    let options = StoreOptions { driver: None, sync: false };
    let store = Store::open(&dir.join("data"), &options).unwrap();
    let choice = store.driver_choice();
    assert_eq!(choice.name, DriverName::Overlay2, "{}", choice.reason);
    assert!(choice.status.contains(&("userxattr".to_owned(), "true".to_owned())), "{:?}", choice.status);
    let archive = docker_archive(dir, &[dir.join("0.tar"), dir.join("1.tar")], "u:1", false);
    let id = load(&store, &archive).unwrap()[0].id;
    store.create_rw("c", Some(&id)).unwrap();
    let root = store.mount_rw("c", &IdMap::default()).unwrap();
    assert!(!root.join("gone").exists() && !root.join("dir/old").exists() && root.join("dir/new").exists());
    fs::remove_dir_all(root.join("dir")).unwrap();
    fs::create_dir(root.join("dir")).unwrap();
    let changes: Vec<_> = store
        .changes("c")
        .unwrap()
        .into_iter()
        .map(|c| (c.path.to_str().unwrap().to_owned(), c.kind))
        .collect();
    assert_eq!(
        changes,
        [("/dir".to_owned(), ChangeKind::Modified), ("/dir/new".to_owned(), ChangeKind::Deleted)]
    );
    store.remove_rw("c").unwrap();
    store.images().remove(&id).unwrap();
    assert_eq!(store.driver().list().unwrap(), Vec::<String>::new());
}
