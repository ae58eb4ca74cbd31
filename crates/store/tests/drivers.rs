//! The contract of snapshot drivers, for each of them. Needs root.

use longshore_store::snapshot::{MountStyle, Overlay, Vfs};
use longshore_testkit::snapshot::suite;

#[test]
fn privileged_overlay2_keeps_the_contract() {
    suite(&|root| Box::new(Overlay::open(root).expect("overlay2")));
}

#[test]
fn privileged_overlay2_keeps_the_contract_with_the_classic_mount() {
    suite(&|root| Box::new(Overlay::open(root).expect("overlay2").with_style(MountStyle::Classic)));
}

#[test]
fn privileged_vfs_keeps_the_contract() {
    suite(&|root| Box::new(Vfs::open(root).expect("vfs")));
}

/// Longer than one string of fsconfig(2): the short links carry it.
#[test]
fn privileged_overlay2_works_below_a_long_path() {
    suite(&|root| {
        let deep = root.join("d".repeat(120)).join("e".repeat(120));
        std::fs::create_dir_all(&deep).expect("folders");
        Box::new(Overlay::open(&deep).expect("overlay2"))
    });
}
