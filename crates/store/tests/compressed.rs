//! Compressed layers that are dropped and come back. Needs root.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod common;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use longshore_oci::Digest;
use longshore_store::archive::{self, SaveItem};
use longshore_store::image::{LayerRecord, Origin};
use longshore_store::layer::Compressor;
use longshore_store::meta::{Batch, Table};
use longshore_store::snapshot::DriverName;
use longshore_store::{Compressed, DropPolicy, Error, Store, StoreOptions};

use common::audit::audit;
use common::{Bench, bench, docker_archive, layers, load, sh};

const BOTH: [DriverName; 2] = [DriverName::Overlay2, DriverName::Vfs];

/// An archive whose layers `pack` has made of the tars.
fn packed(dir: &Path, pack: &dyn Fn(usize, &Path) -> Vec<u8>) -> PathBuf {
    let work = docker_archive(dir, &layers(dir), "z:1", false).with_extension("");
    for i in 0..2 {
        let file = work.join(format!("{i}.tar"));
        fs::write(&file, pack(i, &file)).unwrap();
    }
    sh(&work, "tar -cf ../packed.tar *");
    dir.join("packed.tar")
}

fn with(how: &Compressor, file: &Path) -> Vec<u8> {
    let tar = fs::read(file).unwrap();
    how.compress(Vec::new(), |out| out.write_all(&tar).map_err(|e| Error::io("write", e))).unwrap()
}

fn records(store: &Store, image: &Digest) -> Vec<(Digest, LayerRecord)> {
    let image = store.images().get(image).unwrap();
    image.layers.iter().map(|chain| (*chain, store.layer(chain).unwrap().unwrap())).collect()
}

fn bytes(found: Compressed) -> Vec<u8> {
    let Compressed::File(mut file) = found else { panic!("missing") };
    let mut out = Vec::new();
    file.read_to_end(&mut out).unwrap();
    out
}

fn saved(store: &Store, image: Digest) -> Vec<u8> {
    let mut out = Vec::new();
    archive::save(store, &[SaveItem { id: image, tags: Vec::new() }], &mut out).unwrap();
    out
}

fn all() -> DropPolicy {
    DropPolicy { prove: true, only: None }
}

#[test]
fn privileged_what_was_proven_is_dropped_and_comes_back_to_the_byte() {
    for driver in BOTH {
        let b = bench(driver);
        let mut header = vec![0x1f, 0x8b, 8, 8, 1, 2, 3, 4, 2, 3];
        header.extend(b"layer.tar\0");
        let named = Compressor::Gzip { level: 9, header };
        let archive = packed(b.dir.path(), &|i, file| match i {
            0 => with(&named, file),
            _ => with(&Compressor::gzip(6), file),
        });
        let id = load(&b.store, &archive).unwrap()[0].id;
        let before = records(&b.store, &id);
        let whole = saved(&b.store, id);
        let forms: Vec<Vec<u8>> = before.iter().map(|(_, l)| bytes(b.store.compressed(l).unwrap())).collect();

        // Without leave to prove, what came from a file stays.
        let kept = b.store.drop_compressed(&DropPolicy::default()).unwrap();
        assert!(
            kept.dropped.is_empty() && kept.kept.iter().all(|(_, why)| why.contains("from a file")),
            "{kept:?}"
        );

        let on_disk = b.store.ledger().unwrap().total.bytes;
        let done = b.store.drop_compressed(&all()).unwrap();
        assert_eq!(done.dropped.len(), 2, "{driver}: {done:?}");
        assert_eq!(on_disk - done.bytes(), b.store.ledger().unwrap().total.bytes);
        assert_eq!(b.store.content().list().unwrap(), [id]);
        let after = records(&b.store, &id);
        let made = |l: &LayerRecord| l.blob.clone().map(|b| (b.origin, b.dropped)).unwrap();
        assert_eq!(made(&after[0].1), (Origin::Made { compressor: named.to_string() }, true));
        assert!(saved(&b.store, id) == whole, "save needs none of them");
        assert!(b.store.drop_compressed(&all()).unwrap().dropped.is_empty(), "there is nothing more");

        // Through a restart.
        let root = b.store.root().to_owned();
        let Bench { dir, store } = b;
        drop(store);
        let store = Store::open(&root, &StoreOptions { driver: Some(driver), sync: false }).unwrap();
        for ((_, layer), form) in after.iter().zip(&forms) {
            assert!(bytes(store.compressed(layer).unwrap()) == *form, "{driver}");
        }
        assert_eq!(audit(&store), Vec::<String>::new());
        // What was proven once needs no proof.
        assert_eq!(store.drop_compressed(&DropPolicy::default()).unwrap().dropped.len(), 2);
        // Loading it again, and removing it, is as ever.
        assert_eq!(load(&store, &archive).unwrap()[0].id, id);
        store.images().remove(&id).unwrap();
        assert_eq!(store.content().list().unwrap(), []);
        drop((store, dir));
    }
}

#[test]
fn privileged_what_nothing_here_makes_is_kept() {
    let b = bench(DriverName::Overlay2);
    let archive = packed(b.dir.path(), &|i, file| {
        let mut two = with(&Compressor::gzip(6), file);
        if i == 0 {
            // Another member after it.
            two.extend(with(&Compressor::gzip(6), Path::new("/dev/null")));
            return two;
        }
        zstd::encode_all(&fs::read(file).unwrap()[..], 1).unwrap()
    });
    let id = load(&b.store, &archive).unwrap()[0].id;
    let done = b.store.drop_compressed(&all()).unwrap();
    assert!(done.dropped.is_empty() && done.kept.len() == 2, "{done:?}");
    assert!(records(&b.store, &id).iter().all(|(_, l)| l.blob.as_ref().unwrap().origin == Origin::File));
    assert_eq!(audit(&b.store), Vec::<String>::new());
}

#[test]
fn privileged_what_a_registry_has_is_dropped_and_named() {
    let b = bench(DriverName::Overlay2);
    let archive = packed(b.dir.path(), &|_, file| zstd::encode_all(&fs::read(file).unwrap()[..], 1).unwrap());
    let id = load(&b.store, &archive).unwrap()[0].id;
    let mut list = records(&b.store, &id);
    // As if they had been pulled.
    for (chain, layer) in &mut list {
        layer.blob.as_mut().unwrap().origin = Origin::Registry;
        b.store.meta().commit(Batch::new().put(Table::Layers, &chain.to_string(), layer)).unwrap();
    }
    let digest = |i: usize| list[i].1.blob.as_ref().unwrap().digest;
    for n in 0..20 {
        b.store.add_source(&digest(0), &format!("registry-{n}/a/b")).unwrap();
    }
    b.store.add_source(&digest(0), "registry-10/a/b").unwrap();
    for bad in ["", "a b", &"x".repeat(1000)] {
        assert!(b.store.add_source(&digest(0), bad).is_err());
    }
    let sources = b.store.sources(&digest(0)).unwrap();
    assert_eq!(
        (sources.len(), sources[0].as_str(), sources[1].as_str()),
        (16, "registry-10/a/b", "registry-19/a/b")
    );

    // A lease holds it for now.
    let lease = b.store.lease("push").unwrap();
    lease.add_blob(digest(0)).unwrap();
    let done = b.store.drop_compressed(&DropPolicy::default()).unwrap();
    assert_eq!((done.dropped.len(), done.kept.len()), (0, 2), "{done:?}");
    drop(lease);
    let done = b.store.drop_compressed(&DropPolicy::default()).unwrap();
    assert_eq!(done.dropped.len(), 1, "only what somebody has: {done:?}");
    match b.store.compressed(&b.store.layer(&list[0].0).unwrap().unwrap()).unwrap() {
        Compressed::Missing { sources: named } => assert_eq!(named, sources),
        Compressed::File(_) => panic!("it was dropped"),
    }
    b.store.images().remove(&id).unwrap();
    assert_eq!(b.store.meta().keys(Table::Sources).unwrap(), Vec::<String>::new());
}

#[test]
fn privileged_what_was_compressed_here_is_proven_before_it_goes() {
    for driver in BOTH {
        let b = bench(driver);
        let id =
            load(&b.store, &docker_archive(b.dir.path(), &layers(b.dir.path()), "p:1", false)).unwrap()[0].id;
        let chain = b.store.images().get(&id).unwrap().layers[0];
        let layer = || b.store.layer(&chain).unwrap().unwrap();
        assert!(matches!(b.store.compressed(&layer()), Err(Error::NotFound(_))));
        let how = Compressor::zstd(3);
        let blob = b.store.compress_layer(&chain, &how).unwrap();
        assert_eq!(blob.size, b.store.content().size(&blob.digest).unwrap());
        assert!(b.store.compress_layer(&chain, &how).is_err(), "it has one");
        let form = bytes(b.store.compressed(&layer()).unwrap());
        assert_eq!(b.store.drop_compressed(&DropPolicy::default()).unwrap().dropped.len(), 1);
        assert!(bytes(b.store.compressed(&layer()).unwrap()) == form);
        assert_eq!(audit(&b.store), Vec::<String>::new());

        // One that its parameters do not give is kept; once it is gone, that is told.
        let mut lying = layer();
        let digest = lying.blob.as_ref().unwrap().digest;
        let blob = lying.blob.as_mut().unwrap();
        (blob.origin, blob.dropped) = (Origin::Made { compressor: Compressor::zstd(19).to_string() }, false);
        b.store.meta().commit(Batch::new().put(Table::Layers, &chain.to_string(), &lying)).unwrap();
        let kept = b.store.drop_compressed(&all()).unwrap();
        assert!(kept.dropped.is_empty() && kept.kept.len() == 1, "{kept:?}");
        b.store.content().delete(&digest).unwrap();
        let said = b.store.compressed(&layer()).unwrap_err().to_string();
        assert!(said.contains("cannot be made again"), "{said}");
        assert!(!b.store.content().exists(&digest).unwrap());
    }
}

/// A layer that was altered proves nothing.
#[test]
fn privileged_atk_27_an_altered_layer_keeps_its_compressed_form() {
    let b = bench(DriverName::Overlay2);
    let archive = packed(b.dir.path(), &|_, file| with(&Compressor::gzip(6), file));
    let id = load(&b.store, &archive).unwrap()[0].id;
    let bottom = &records(&b.store, &id)[0].1;
    fs::write(b.store.driver().apply_dir(&bottom.cache_id).join("etc/file"), "ONE\n").unwrap();
    let done = b.store.drop_compressed(&all()).unwrap();
    assert_eq!((done.dropped.len(), done.kept.len()), (1, 1), "{done:?}");
    assert!(b.store.content().exists(&bottom.blob.as_ref().unwrap().digest).unwrap());
}
