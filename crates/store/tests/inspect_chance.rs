//! Images of layers by chance, told as they are mounted. Needs root: overlays are mounted.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use longshore_oci::IdMap;
use longshore_store::snapshot::DriverName;
use longshore_sys::root::Root;

use common::trees::{by_chance, images, mounted, remove};
use common::{agree, bench};

#[test]
fn privileged_layers_by_chance_are_told_as_they_are_mounted() {
    let rounds = if std::env::var_os("LONGSHORE_LONG").is_some() { 150 } else { 5 };
    for seed in 0..rounds {
        let b = bench(DriverName::Overlay2);
        let images = images(&b, &by_chance(b.dir.path(), seed));
        let mut trees = mounted(&b, &images);
        trees.iter_mut().for_each(|t| t.retain(|path, _| !path.starts_with(b"etc")));
        eprintln!("seed {seed}");
        agree::which(&b, &images, &trees);
        agree::tally(&b, &images, &trees);
        agree::files(&b, &images, &trees);
        agree::diff(&b, &images, &trees);
        // The kernel follows links in the mounted tree, as if that were the root.
        let all: BTreeSet<&Vec<u8>> = trees.iter().flat_map(BTreeMap::keys).collect();
        for (i, image) in images.iter().enumerate() {
            let root = Root::open(&b.store.mount_rw(&format!("c{i}"), &IdMap::default()).unwrap()).unwrap();
            for path in &all {
                for asked in [path.to_vec(), [path, &b"/../a/b"[..]].concat(), [path, &b"/"[..]].concat()] {
                    let path = std::path::Path::new(std::ffi::OsStr::from_bytes(&asked));
                    let want = root.resolve(path).map(|fd| rustix::fs::fstat(&fd).unwrap());
                    let got = b.store.which(image, &asked, true);
                    let exists = got.as_ref().is_ok_and(|w| w.exists);
                    assert!(exists == want.is_ok(), "{}: {got:?} {want:?}", path.display());
                    if let (Ok(w), Ok(stat)) = (got, want) {
                        let found = trees[i].get(&w.path).map(|(_, meta)| meta.ino());
                        assert!(w.path.is_empty() || found == Some(stat.st_ino), "{}: {w:?}", path.display());
                    }
                }
            }
        }
        remove(&b, &images);
    }
}
