//! Looks whether a store holds what its records name, whole, and nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use longshore_oci::Digest;
use longshore_store::archive::{self, SaveItem};
use longshore_store::snapshot::DriverName;
use longshore_store::{Store, meta::Table};

fn listed(dir: &Path) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(dir) else { return BTreeSet::new() };
    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

/// Everything that is wrong, in words; empty when all is well. Nothing else may be using the store.
pub fn audit(store: &Store) -> Vec<String> {
    let mut wrong = Vec::new();
    let (mut blobs, mut chains, mut snapshots) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut layer_files = BTreeSet::new();
    for image in store.images().list().unwrap() {
        blobs.insert(image.id);
        chains.extend(image.layers.iter().copied());
        // Reads the configuration and every layer, and checks their digests.
        let item = SaveItem { id: image.id, tags: image.tags.clone() };
        if let Err(e) = archive::save(store, &[item], std::io::sink()) {
            wrong.push(format!("image {} is not whole: {e}", image.id));
        }
    }
    for container in store.rw_containers().unwrap() {
        let rw = store.rw(&container).unwrap();
        snapshots.extend(rw.init_id.into_iter().chain([rw.mount_id]));
        let mut next = rw.top;
        while let Some(chain) = next {
            chains.insert(chain);
            next = store.layer(&chain).unwrap().and_then(|l| l.parent);
        }
        if let Err(e) = store.changes(&container) {
            wrong.push(format!("container {container} is not whole: {e}"));
        }
    }
    for (_, step) in store.steps().unwrap() {
        let mut next = step.chain;
        while let Some(chain) = next {
            chains.insert(chain);
            next = store.layer(&chain).unwrap().and_then(|l| l.parent);
        }
    }
    for chain in &chains {
        let Some(layer) = store.layer(chain).unwrap() else {
            wrong.push(format!("layer {chain} has no record"));
            continue;
        };
        layer_files.insert(layer.cache_id.clone());
        snapshots.insert(layer.cache_id);
        // One that was dropped may have come back, or not.
        let there = |digest: &Digest| store.content().exists(digest).unwrap();
        blobs.extend(layer.blob.filter(|b| !b.dropped || there(&b.digest)).map(|b| b.digest));
    }
    let mut same = |what: &str, there: BTreeSet<String>, named: BTreeSet<String>| {
        if there != named {
            let (left, gone): (Vec<_>, Vec<_>) =
                there.symmetric_difference(&named).partition(|n| there.contains(*n));
            wrong.push(format!("{what}: not named {left:?}, missing {gone:?}"));
        }
    };
    let root = store.root();
    let recorded: BTreeSet<String> = store.meta().keys(Table::Layers).unwrap().into_iter().collect();
    same("layer records", recorded, chains.iter().map(Digest::to_string).collect());
    same("leases", store.meta().keys(Table::Leases).unwrap().into_iter().collect(), BTreeSet::new());
    same("blobs", listed(&root.join("content/blobs/sha256")), blobs.iter().map(Digest::hex).collect());
    same("ingests", listed(&root.join("content/ingest")), BTreeSet::new());
    same("layers/", listed(&root.join("layers")), layer_files);
    match store.driver().name() {
        DriverName::Overlay2 => {
            let overlay = root.join("overlay2");
            let link = |id: &String| fs::read_to_string(overlay.join(id).join("link")).unwrap_or_default();
            same("overlay2/l", listed(&overlay.join("l")), snapshots.iter().map(link).collect());
            let mut there = listed(&overlay);
            there.remove("l");
            same("overlay2", there, snapshots);
        }
        DriverName::Vfs => same("vfs", listed(&root.join("vfs/dir")), snapshots),
    }
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let below = format!(" {}/", root.display());
    same(
        "mounts",
        table.lines().filter(|l| l.contains(&below)).map(str::to_owned).collect(),
        BTreeSet::new(),
    );
    wrong
}
