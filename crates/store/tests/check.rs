//! Damage of every kind: named by the check, and mended where something can give what was lost. Needs root.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod common;

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use longshore_oci::{Digest, IdMap};
use longshore_store::check::{CheckOptions, FaultKind, Fetch, Finding, Outcome, Report};
use longshore_store::image::{BlobRecord, LayerRecord, Origin};
use longshore_store::layer::Compressor;
use longshore_store::meta::{Batch, Table};
use longshore_store::snapshot::DriverName;
use longshore_store::{DropPolicy, Error, Result, Store, StoreOptions};

use common::audit::audit;
use common::{Bench, bench, docker_archive, layers, load, sh};

const BOTH: [DriverName; 2] = [DriverName::Overlay2, DriverName::Vfs];

/// A store with an image of two layers; compressed ones with `gz`.
struct Ward {
    b: Bench,
    image: Digest,
}

impl Ward {
    fn new(driver: DriverName, gz: bool) -> Self {
        let b = bench(driver);
        let dir = b.dir.path();
        let mut archive = docker_archive(dir, &layers(dir), "a:1", false);
        if gz {
            let work = archive.with_extension("");
            for name in ["0.tar", "1.tar"] {
                let tar = fs::read(work.join(name)).unwrap();
                let write =
                    |out: &mut dyn std::io::Write| out.write_all(&tar).map_err(|e| Error::io("write", e));
                fs::write(work.join(name), Compressor::gzip(6).compress(Vec::new(), write).unwrap()).unwrap();
            }
            sh(&work, "tar -cf ../gz.tar *");
            archive = dir.join("gz.tar");
        }
        let image = load(&b.store, &archive).unwrap()[0].id;
        Self { b, image }
    }

    fn store(&self) -> &Store {
        &self.b.store
    }

    fn layer(&self, n: usize) -> (Digest, LayerRecord) {
        let chain = self.store().images().get(&self.image).unwrap().layers[n];
        (chain, self.store().layer(&chain).unwrap().unwrap())
    }

    /// Where a layer's tree is.
    fn tree(&self, n: usize) -> PathBuf {
        self.store().driver().apply_dir(&self.layer(n).1.cache_id)
    }

    fn beside(&self, n: usize, name: &str) -> PathBuf {
        self.store().root().join("layers").join(self.layer(n).1.cache_id).join(name)
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.store().root().join("content/blobs/sha256").join(digest.hex())
    }

    fn check(&self) -> Report {
        check(self.store(), CheckOptions::default())
    }

    fn repair(&self) -> Report {
        check(self.store(), CheckOptions { repair: true, ..CheckOptions::default() })
    }

    /// The check tells of exactly one thing, of this kind, with these words; the repair mends it and says how.
    #[track_caller]
    fn mends(&self, kind: FaultKind, what: &str, how: &str) {
        let found = self.check();
        // A driver that copies has the same difference one layer up.
        let copies = self.store().driver().name() == DriverName::Vfs;
        assert!(found.findings.len() == 1 || (copies && kind == FaultKind::Layer), "{:#?}", found.findings);
        let fits = |f: &&Finding| f.kind == kind && f.what.contains(what);
        let finding =
            found.findings.iter().find(fits).unwrap_or_else(|| panic!("{what}: {:#?}", found.findings));
        assert!(finding.remedy.is_some() && found.damaged() > 0, "{finding:#?}");
        let report = self.repair();
        assert_eq!(report.damaged(), 0, "{:#?}", report.findings);
        let mended = |f: &Finding| matches!(&f.outcome, Outcome::Repaired(done) if done.contains(how));
        assert!(report.findings.iter().any(mended), "{how}: {:#?}", report.findings);
        self.is_whole();
    }

    #[track_caller]
    fn is_whole(&self) {
        assert_eq!(self.check().findings, []);
        assert_eq!(audit(self.store()), Vec::<String>::new());
    }
}

fn check(store: &Store, options: CheckOptions<'_>) -> Report {
    store.check(&options, &|_| {}).unwrap()
}

/// Gives what it has, and notes what it was asked for.
#[derive(Default)]
struct Registry {
    blobs: Vec<Vec<u8>>,
    asked: Mutex<Vec<(Digest, Vec<String>)>>,
}

impl Fetch for Registry {
    fn fetch(&self, blob: &BlobRecord, sources: &[String]) -> Result<Box<dyn Read + Send>> {
        self.asked.lock().unwrap().push((blob.digest, sources.to_vec()));
        match self.blobs.iter().find(|b| Digest::of(b) == blob.digest) {
            Some(bytes) => Ok(Box::new(std::io::Cursor::new(bytes.clone()))),
            None => Err(Error::NotFound(format!("the registry has no {}", blob.digest))),
        }
    }
}

/// Flips a bit in the middle of a file.
fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = if at == 0 { bytes.len() / 2 } else { at };
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

#[test]
fn privileged_a_whole_store_has_no_findings() {
    for driver in BOTH {
        for gz in [false, true] {
            let w = Ward::new(driver, gz);
            w.store().create_rw("box", Some(&w.image)).unwrap();
            let tree = w.store().mount_rw("box", &IdMap::default()).unwrap();
            fs::write(tree.join("own"), "x").unwrap();
            longshore_store::archive::commit(w.store(), "box", Some(&w.image), None, |_| {
                w.store().images().document(&w.image).unwrap().1
            })
            .unwrap();
            let report = w.check();
            assert_eq!(report.findings, [], "{driver}");
            let seen = report.checked;
            assert_eq!((seen.images, seen.layers, seen.containers), (2, 3, 1));
            assert!(seen.bytes > 100_000 && seen.blobs >= 2);
            let quick = check(w.store(), CheckOptions { quick: true, ..CheckOptions::default() });
            assert_eq!((quick.findings.len(), quick.checked.bytes), (0, 0));
            w.store().drop_compressed(&DropPolicy { prove: true, only: None }).unwrap();
            assert_eq!(w.check().findings, [], "what was dropped is not missed");
            assert_eq!(w.repair().findings, []);
            w.store().unmount_rw("box").unwrap();
            w.store().remove_rw("box").unwrap();
        }
    }
}

#[test]
fn privileged_atk_27_altered_layers_are_unpacked_again() {
    for driver in BOTH {
        let w = Ward::new(driver, true);
        let again = "unpack it again from its compressed form";
        fs::write(w.tree(0).join("etc/file"), "ONE\n").unwrap();
        w.mends(FaultKind::Layer, "etc/file was altered", again);
        fs::remove_file(w.tree(0).join("dir/old")).unwrap();
        w.mends(FaultKind::Layer, "dir/old is gone", again);
        fs::remove_file(w.tree(1).join("dir/new")).unwrap();
        w.mends(FaultKind::Layer, "dir/new is gone", again);
        // What no recipe reads.
        fs::set_permissions(w.tree(0).join("bin/su"), fs::Permissions::from_mode(0o777)).unwrap();
        w.mends(FaultKind::Layer, "bin/su: has mode 777 instead of 4755", again);
        fs::remove_file(w.tree(0).join("dir/link")).unwrap();
        w.mends(FaultKind::Layer, "dir/link: is not there", again);
        flip(&w.beside(1, "recipe"), 20);
        w.mends(FaultKind::Layer, "", again);
        fs::remove_file(w.beside(0, "recipe")).unwrap();
        w.mends(FaultKind::Layer, "recipe", again);
        fs::write(w.beside(0, "recipe"), "nonsense").unwrap();
        w.mends(FaultKind::Layer, "recipe: ", again);
        fs::remove_dir_all(w.tree(1)).unwrap();
        w.mends(FaultKind::Layer, "its directory is not there", again);
        if driver == DriverName::Overlay2 {
            fs::write(w.tree(1).join("etc/more"), "x").unwrap();
            w.mends(FaultKind::Layer, "etc/more: is not of the layer", again);
        }
    }
}

/// With a driver that copies, every layer has all files below it, too.
#[test]
fn privileged_atk_27_copies_are_compared_with_what_they_are_of() {
    let w = Ward::new(DriverName::Vfs, true);
    fs::write(w.tree(1).join("bin/su"), fs::read("/bin/true").unwrap()).unwrap();
    flip(&w.tree(1).join("bin/su"), 0);
    w.mends(FaultKind::Layer, "bin/su: ", "unpack it again");
    fs::remove_file(w.tree(1).join("etc/hard")).unwrap();
    w.mends(FaultKind::Layer, "etc/hard: is not there", "unpack it again");
    fs::write(w.tree(1).join("etc/more"), "x").unwrap();
    w.mends(FaultKind::Layer, "etc/more: is not of the layer, nor below", "unpack it again");
}

#[test]
fn privileged_atk_27_without_a_source_the_damage_stays_and_is_told() {
    for driver in BOTH {
        let w = Ward::new(driver, false);
        let file = w.tree(0).join("etc/file");
        fs::write(&file, "ONE\n").unwrap();
        for report in [w.check(), w.repair()] {
            let damage: Vec<&Finding> =
                report.findings.iter().filter(|f| f.object == format!("layer {}", w.layer(0).0)).collect();
            assert_eq!((damage.len(), &damage[0].remedy), (1, &None), "{:#?}", report.findings);
            assert!(report.damaged() > 0);
        }
        let report = w.repair();
        assert!(matches!(report.findings[0].outcome, Outcome::Failed(_)), "{:#?}", report.findings);
        // Nothing was touched.
        assert_eq!(fs::read_to_string(&file).unwrap(), "ONE\n");
        fs::write(&file, "one\n").unwrap();
        w.is_whole();
    }
}

#[test]
fn privileged_a_layer_is_taken_from_another_chain_or_fetched() {
    for driver in BOTH {
        let w = Ward::new(driver, false);
        let top = w.b.dir.path().join("1.tar");
        let other = load(w.store(), &docker_archive(w.b.dir.path(), &[top], "b:1", false)).unwrap()[0].id;
        fs::write(w.tree(1).join("dir/new"), "NEW\n").unwrap();
        w.mends(FaultKind::Layer, "dir/new was altered", "copy it from layer");
        w.store().images().remove(&other).unwrap();

        // As if it had been pulled, and its compressed form dropped.
        let tar = fs::read(w.b.dir.path().join("1.tar")).unwrap();
        let pack = |out: &mut dyn std::io::Write| out.write_all(&tar).map_err(|e| Error::io("write", e));
        let bytes = Compressor::gzip(3).compress(Vec::new(), pack).unwrap();
        let (chain, mut layer) = w.layer(1);
        let size = bytes.len() as u64;
        let mut blob = BlobRecord::new(Digest::of(&bytes), size, "application/x", Origin::Registry);
        blob.dropped = true;
        layer.blob = Some(blob);
        w.store().meta().commit(Batch::new().put(Table::Layers, &chain.to_string(), &layer)).unwrap();
        w.store().add_source(&Digest::of(&bytes), "registry.example/a/b").unwrap();
        w.is_whole();
        fs::write(w.tree(1).join("dir/new"), "NEW\n").unwrap();
        let with = |registry: &Registry| {
            check(w.store(), CheckOptions { repair: true, fetch: Some(registry), ..CheckOptions::default() })
        };
        let empty = Registry::default();
        let report = with(&empty);
        assert!(report.damaged() == 1, "{:#?}", report.findings);
        let lying = Registry { blobs: vec![b"other bytes".to_vec()], ..Registry::default() };
        assert_eq!(with(&lying).damaged(), 1);
        assert_eq!(fs::read_to_string(w.tree(1).join("dir/new")).unwrap(), "NEW\n", "nothing half done");
        let registry = Registry { blobs: vec![bytes.clone()], ..Registry::default() };
        let report = with(&registry);
        assert_eq!(report.damaged(), 0, "{:#?}", report.findings);
        assert_eq!(
            registry.asked.lock().unwrap().as_slice(),
            [(Digest::of(&bytes), vec!["registry.example/a/b".to_owned()])]
        );
        w.is_whole();
    }
}

#[test]
fn privileged_damaged_indexes_are_made_again() {
    for driver in BOTH {
        let w = Ward::new(driver, false);
        let whole = fs::read(w.beside(0, "index")).unwrap();
        fs::write(w.beside(0, "index"), &whole[..whole.len() - 1]).unwrap();
        w.mends(FaultKind::Index, "layer index: not complete", "made again from the layer");
        assert!(fs::read(w.beside(0, "index")).unwrap() == whole);
        fs::write(w.beside(0, "index"), "").unwrap();
        w.mends(FaultKind::Index, "not an index", "made again from the layer");
        fs::remove_file(w.beside(0, "index")).unwrap();
        w.mends(FaultKind::Index, "index", "made again from the layer");
        // The mode of the first entry: well formed, and wrong.
        flip(&w.beside(0, "index"), 24 + 12);
        w.mends(FaultKind::Index, "its check sum is wrong", "made again from the layer");
        assert!(fs::read(w.beside(0, "index")).unwrap() == whole);
    }
}

#[test]
fn privileged_the_drivers_own_files_are_written_again() {
    let w = Ward::new(DriverName::Overlay2, false);
    w.store().create_rw("box", Some(&w.image)).unwrap();
    let overlay = w.store().root().join("overlay2");
    let rw = w.store().rw("box").unwrap();
    let (bottom, top) = (w.layer(0).1.cache_id, w.layer(1).1.cache_id);
    let file = |id: &str, name: &str| overlay.join(id).join(name);
    let mends = |what: &str| {
        let found = w.check();
        assert!(!found.findings.is_empty(), "{what}");
        // A name that leads elsewhere is nobody's.
        let kinds = [FaultKind::Snapshot, FaultKind::Leftover];
        assert!(found.findings.iter().all(|f| kinds.contains(&f.kind)), "{:#?}", found.findings);
        assert!(found.findings.iter().any(|f| f.what.contains(what)), "{what}: {:#?}", found.findings);
        let quick = check(w.store(), CheckOptions { quick: true, ..CheckOptions::default() });
        assert_eq!(quick.findings, found.findings, "a quick check sees it, too");
        assert_eq!(w.repair().damaged(), 0);
        w.is_whole();
        let tree = w.store().mount_rw("box", &IdMap::default()).unwrap();
        assert_eq!(fs::read_to_string(tree.join("etc/file")).unwrap(), "two\n");
        assert!(tree.join("dir/new").exists() && tree.join("bin/su").exists());
        w.store().unmount_rw("box").unwrap();
    };
    for id in [&top, rw.init_id.as_ref().unwrap(), &rw.mount_id] {
        fs::write(file(id, "lower"), "l/AAAAAAAAAAAAAAAAAAAAAAAAAA").unwrap();
        mends("(lower)");
        fs::remove_file(file(id, "lower")).unwrap();
        mends("(lower)");
        fs::write(file(id, "lower"), "").unwrap();
        mends("(lower)");
        fs::remove_dir_all(file(id, "work")).unwrap();
        mends("work directory");
    }
    for id in [&bottom, &top, rw.init_id.as_ref().unwrap(), &rw.mount_id] {
        let link = fs::read_to_string(file(id, "link")).unwrap();
        fs::write(file(id, "link"), "").unwrap();
        mends("(link, l/)");
        assert_eq!(fs::read_to_string(file(id, "link")).unwrap(), link, "the name that led to it");
        fs::remove_file(overlay.join("l").join(&link)).unwrap();
        mends("(link, l/)");
        fs::remove_file(overlay.join("l").join(&link)).unwrap();
        std::os::unix::fs::symlink("../../etc", overlay.join("l").join(&link)).unwrap();
        mends("(link, l/)");
    }
    fs::remove_file(file(&top, "committed")).unwrap();
    mends("(committed)");
    w.store().remove_rw("box").unwrap();
}

#[test]
fn privileged_the_copying_drivers_own_files_are_written_again() {
    let w = Ward::new(DriverName::Vfs, false);
    let parents = w.store().root().join("vfs/parent");
    fs::write(parents.join(&w.layer(1).1.cache_id), "nonsense").unwrap();
    w.mends(FaultKind::Snapshot, "it is said to stand on nonsense", "written again");
    fs::remove_file(parents.join(&w.layer(1).1.cache_id)).unwrap();
    w.mends(FaultKind::Snapshot, "it is said to stand on nothing", "written again");
}

#[test]
fn privileged_a_layer_that_a_container_runs_on_is_not_changed_below_it() {
    let w = Ward::new(DriverName::Overlay2, true);
    w.store().create_rw("box", Some(&w.image)).unwrap();
    w.store().mount_rw("box", &IdMap::default()).unwrap();
    fs::write(w.tree(0).join("etc/hard"), "ONE\n").unwrap();
    let report = w.repair();
    assert_eq!(report.damaged(), 1);
    let Outcome::Failed(why) = &report.findings[0].outcome else { panic!("{:#?}", report.findings) };
    assert!(why.contains("container box runs on it: stop the container"), "{why}");
    w.store().unmount_rw("box").unwrap();
    // Its own files and those of the layer above stand on the same name as before.
    w.mends(FaultKind::Layer, "was altered", "unpack it again");
    let tree = w.store().mount_rw("box", &IdMap::default()).unwrap();
    assert_eq!(fs::read_to_string(tree.join("etc/hard")).unwrap(), "one\n");
    w.store().unmount_rw("box").unwrap();
    w.store().remove_rw("box").unwrap();
}

#[test]
fn privileged_atk_27_altered_blobs() {
    for driver in BOTH {
        let w = Ward::new(driver, true);
        let form = |n: usize| w.layer(n).1.blob;
        // From a file, and nobody else has it: the layer lives without.
        let lost = form(0).unwrap().digest;
        flip(&w.blob(&lost), 0);
        w.mends(FaultKind::Blob, "its bytes have the digest", "forget it");
        assert_eq!(form(0), None);
        assert!(!w.store().content().exists(&lost).unwrap());
        // Made here.
        let made = w.store().compress_layer(&w.layer(0).0, &Compressor::gzip(6)).unwrap();
        assert_eq!(made.digest, lost, "the same as in the file");
        flip(&w.blob(&made.digest), 0);
        w.mends(FaultKind::Blob, "its bytes have the digest", "make it again from its layer");
        fs::write(w.blob(&made.digest), "short").unwrap();
        w.mends(FaultKind::Blob, "it has 5 bytes instead of", "make it again from its layer");
        fs::remove_file(w.blob(&made.digest)).unwrap();
        w.mends(FaultKind::Blob, "it is not there", "make it again from its layer");
        // A registry has it.
        let had = form(1).unwrap().digest;
        w.store().add_source(&had, "registry.example/a/b").unwrap();
        let bytes = fs::read(w.blob(&had)).unwrap();
        flip(&w.blob(&had), 0);
        let registry = Registry { blobs: vec![bytes], ..Registry::default() };
        let options = CheckOptions { repair: true, fetch: Some(&registry), ..CheckOptions::default() };
        assert_eq!(check(w.store(), options).damaged(), 0);
        w.is_whole();
        flip(&w.blob(&had), 0);
        w.mends(FaultKind::Blob, "its bytes have the digest", "drop it: a registry has it");
        assert!(form(1).unwrap().dropped);
    }
}

#[test]
fn privileged_atk_27_configurations_are_fetched() {
    let w = Ward::new(DriverName::Overlay2, false);
    let bytes = fs::read(w.blob(&w.image)).unwrap();
    for damage in [true, false] {
        match damage {
            true => flip(&w.blob(&w.image), 0),
            false => fs::remove_file(w.blob(&w.image)).unwrap(),
        }
        let report = w.repair();
        assert_eq!((report.damaged(), report.findings.len()), (1, 1), "{:#?}", report.findings);
        assert!(report.findings[0].what.contains("a document of an image"));
        let registry = Registry { blobs: vec![bytes.clone()], ..Registry::default() };
        let options = CheckOptions { repair: true, fetch: Some(&registry), ..CheckOptions::default() };
        assert_eq!(check(w.store(), options).damaged(), 0);
        w.is_whole();
    }
}

#[test]
fn privileged_lost_records_are_found_and_mended_from_what_is_left() {
    for driver in BOTH {
        let w = Ward::new(driver, false);
        let (chain, layer) = w.layer(1);
        w.store().create_rw("box", Some(&w.image)).unwrap();
        let lose =
            || w.store().meta().commit(Batch::new().delete(Table::Layers, &chain.to_string())).unwrap();
        lose();
        let found = w.check();
        let record = |f: &&Finding| f.kind == FaultKind::Record;
        assert!(
            found.findings.iter().filter(record).any(|f| f.what.contains("has no record")),
            "{:#?}",
            found.findings
        );
        let report = w.repair();
        assert_eq!(report.damaged(), 0, "{:#?}", report.findings);
        assert_eq!(w.layer(1).1.diff_id, layer.diff_id);
        w.is_whole();
        let tree = w.store().mount_rw("box", &IdMap::default()).unwrap();
        assert_eq!(fs::read_to_string(tree.join("etc/file")).unwrap(), "two\n");
        w.store().unmount_rw("box").unwrap();
        // Also through a start, which removes what nothing names.
        lose();
        let (root, driver) = (w.store().root().to_owned(), w.store().driver().name());
        let Ward { b: Bench { dir, store }, image } = w;
        drop(store);
        let store = Store::open(&root, &StoreOptions { driver: Some(driver), sync: false }).unwrap();
        let w = Ward { b: Bench { dir, store }, image };
        assert_eq!(w.repair().damaged(), 0);
        w.is_whole();
        w.store().remove_rw("box").unwrap();
    }
}

#[test]
fn privileged_records_that_contradict_each_other() {
    let w = Ward::new(DriverName::Overlay2, false);
    let meta = w.store().meta();
    let row: serde_json::Value = meta.get(Table::Images, &w.image.to_string()).unwrap().unwrap();
    let mut wrong = row.clone();
    wrong["layers"].as_array_mut().unwrap().pop();
    meta.commit(Batch::new().put(Table::Images, &w.image.to_string(), &wrong)).unwrap();
    w.mends(
        FaultKind::Record,
        "its layers are not those of its configuration",
        "taken from the configuration",
    );
    // What nobody can mend is told, and stays.
    let batch = Batch::new()
        .put(Table::Tags, "docker.io/library/gone:1", &Digest::of(b"gone"))
        .put(Table::Containers, "ghost", &1)
        .put(Table::Volumes, "odd", &"x");
    meta.commit(batch).unwrap();
    let decode = |table: Table, key: &str, value: &serde_json::Value| match (table, value.is_string()) {
        (Table::Volumes, true) => Err(format!("{key}: no volume")),
        _ => Ok(()),
    };
    let options = CheckOptions { repair: true, decode: Some(&decode), ..CheckOptions::default() };
    let report = check(w.store(), options);
    let told: Vec<String> = report.findings.iter().map(|f| format!("{}: {}", f.object, f.what)).collect();
    for want in ["tag docker.io/library/gone:1", "container ghost", "volume odd: odd: no volume"] {
        assert!(told.iter().any(|t| t.starts_with(want)), "{want}: {told:?}");
    }
    assert_eq!(report.damaged(), 3);
}

/// A removal is two commits: what a crash between them leaves goes at the next start.
#[test]
fn privileged_layers_that_nothing_uses_go_at_the_next_start() {
    for driver in BOTH {
        let w = Ward::new(driver, true);
        let lease = w.store().lease("somebody").unwrap();
        let chain = w.layer(1).0;
        lease.add_layer(chain).unwrap();
        w.store().images().remove(&w.image).unwrap();
        assert!(w.store().layer(&chain).unwrap().is_some(), "a lease holds it, and all below it");
        drop(lease);
        let w = reboot(w, "second");
        assert_eq!(w.store().meta().keys(Table::Layers).unwrap(), Vec::<String>::new());
        w.is_whole();
    }
}

#[test]
fn privileged_a_record_that_cannot_be_read_is_told() {
    let w = Ward::new(DriverName::Overlay2, false);
    w.store().meta().commit(Batch::new().put(Table::Layers, "sha256:x", &"nonsense")).unwrap();
    let report = w.repair();
    assert_eq!((report.damaged(), report.findings.len()), (1, 1));
    assert!(report.findings[0].object == "layers sha256:x", "{:#?}", report.findings);
}

#[test]
fn privileged_leftovers_go_and_strangers_stay() {
    for driver in BOTH {
        let w = Ward::new(driver, false);
        let root = w.store().root().to_owned();
        let id = |n: u8| Digest::of(&[n]).hex();
        let snapshots = if driver == DriverName::Vfs { "vfs/dir" } else { "overlay2" };
        let dirs = [
            format!("{snapshots}/{}/diff", id(1)),
            format!("{snapshots}/{}-removing/x", id(2)),
            format!("layers/{}", id(3)),
            format!("containers/{}", id(4)),
        ];
        dirs.iter().for_each(|d| fs::create_dir_all(root.join(d)).unwrap());
        for file in
            [format!("content/ingest/{}", id(5)), format!("content/blobs/sha256/{}", id(6)), "note".into()]
        {
            fs::write(root.join(file), "x").unwrap();
        }
        if driver == DriverName::Overlay2 {
            std::os::unix::fs::symlink("../x/diff", root.join("overlay2/l").join("A".repeat(26))).unwrap();
        }
        let report = w.check();
        let of = |report: &Report, kind| report.findings.iter().filter(|f| f.kind == kind).count();
        assert_eq!(of(&report, FaultKind::Leftover), if driver == DriverName::Overlay2 { 7 } else { 6 });
        assert_eq!((of(&report, FaultKind::Foreign), report.damaged()), (1, 0), "{:#?}", report.findings);
        w.repair();
        let left = w.check();
        assert_eq!(left.findings.iter().map(|f| f.object.as_str()).collect::<Vec<_>>(), ["note"]);
        assert_eq!(audit(w.store()), Vec::<String>::new());
    }
}

/// The store again, as if the machine had been started anew.
fn reboot(w: Ward, boot: &str) -> Ward {
    let (root, driver) = (w.store().root().to_owned(), w.store().driver().name());
    let Ward { b: Bench { dir, store }, image } = w;
    drop(store);
    let options = StoreOptions { driver: Some(driver), sync: false };
    let store = Store::open_on_boot(&root, &options, boot).unwrap();
    Ward { b: Bench { dir, store }, image }
}

#[test]
fn privileged_after_an_unclean_stop_layers_are_verified_when_first_used() {
    for driver in BOTH {
        let w = Ward::new(driver, true);
        assert_eq!(w.store().unverified_layers(), 0);
        // The daemon was killed: the machine is the same.
        let own = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let w = reboot(w, own.trim());
        assert_eq!(w.store().unverified_layers(), 0);
        // A clean stop, then a reboot.
        w.store().close().unwrap();
        let w = reboot(w, "second");
        assert_eq!(w.store().unverified_layers(), 0);
        // No clean stop.
        let w = reboot(w, "third");
        assert_eq!(w.store().unverified_layers(), 2);
        fs::write(w.tree(0).join("etc/hard"), "ONE\n").unwrap();
        let said = w.store().create_rw("box", Some(&w.image)).unwrap_err().to_string();
        let chain = w.layer(0).0;
        for part in [
            format!("layer {chain} of image a:1 is damaged"),
            "etc/file was altered".into(),
            "system check --repair".into(),
        ] {
            assert!(said.contains(&part), "{said}");
        }
        assert_eq!(w.store().rw_containers().unwrap(), Vec::<String>::new());
        assert_eq!(w.repair().damaged(), 0);
        assert_eq!(w.store().unverified_layers(), 0);
        w.store().create_rw("box", Some(&w.image)).unwrap();
        // Verified once: what is altered later is the next check's matter.
        let w = reboot(w, "fourth");
        assert_eq!(w.store().unverified_layers(), 2);
        w.store().mount_rw("box", &IdMap::default()).unwrap();
        w.store().unmount_rw("box").unwrap();
        assert_eq!(w.store().unverified_layers(), 0);
        fs::write(w.tree(0).join("etc/hard"), "ONE\n").unwrap();
        w.store().mount_rw("box", &IdMap::default()).unwrap();
        w.store().unmount_rw("box").unwrap();
        // That is remembered through a start.
        let w = reboot(w, "fourth");
        assert_eq!(w.store().unverified_layers(), 0);
        // A container of before is told, too.
        let w = reboot(w, "fifth");
        for said in [
            w.store().mount_rw("box", &IdMap::default()).unwrap_err().to_string(),
            w.store().visit("box").unwrap_err().to_string(),
        ] {
            assert!(said.contains("is damaged"), "{said}");
        }
        w.store().remove_rw("box").unwrap();
    }
}

/// What a power cut leaves of files that were written and not synced.
#[test]
fn privileged_after_a_restart_of_the_machine_containers_are_put_right() {
    let w = Ward::new(DriverName::Overlay2, false);
    let made = w.store().create_rw("box", Some(&w.image)).unwrap();
    let tree = w.store().mount_rw("box", &IdMap::default()).unwrap();
    fs::write(tree.join("own"), "kept").unwrap();
    w.store().unmount_rw("box").unwrap();
    let overlay = w.store().root().join("overlay2");
    for id in [made.init_id.as_ref().unwrap(), &made.mount_id] {
        fs::write(overlay.join(id).join("link"), "").unwrap();
        fs::write(overlay.join(id).join("lower"), "").unwrap();
        fs::remove_dir_all(overlay.join(id).join("work")).unwrap();
    }
    fs::remove_file(overlay.join(made.init_id.as_ref().unwrap()).join("diff/etc/hostname")).unwrap();
    let w = reboot(w, "second");
    let tree = w.store().mount_rw("box", &IdMap::default()).unwrap();
    assert_eq!(fs::read_to_string(tree.join("own")).unwrap(), "kept");
    assert_eq!(fs::read_to_string(tree.join("etc/file")).unwrap(), "two\n");
    assert!(tree.join("etc/hostname").exists());
    w.store().unmount_rw("box").unwrap();
    assert_eq!(w.check().findings, []);
    // All of the init layer is gone; then, as of a container that was just made, all of it is.
    fs::remove_dir_all(overlay.join(made.init_id.as_ref().unwrap())).unwrap();
    let w = reboot(w, "third");
    w.store().mount_rw("box", &IdMap::default()).unwrap();
    w.store().unmount_rw("box").unwrap();
    assert_eq!(w.check().findings, []);
    fs::remove_dir_all(overlay.join(&made.mount_id)).unwrap();
    let w = reboot(w, "fourth");
    let tree = w.store().mount_rw("box", &IdMap::default()).unwrap();
    assert!(!tree.join("own").exists() && tree.join("etc/file").exists());
    w.store().unmount_rw("box").unwrap();
    w.store().remove_rw("box").unwrap();
    w.is_whole();
}
