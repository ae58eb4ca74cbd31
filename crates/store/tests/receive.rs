//! Images from a registry into a real store, on both drivers. Needs root: layers bring owners and devices.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Mutex;

use longshore_oci::image::{Descriptor, Manifest, media};
use longshore_oci::{Digest, Kind, Reference};
use longshore_store::archive::{Dispatch, ReceiveEvent, Reception, Remote, SentManifest, Source};
use longshore_store::snapshot::DriverName;
use longshore_store::{Error, Store};

use common::{Bench, bench, docker_archive, layers, load};

struct Layer {
    diff_id: Digest,
    bytes: Vec<u8>,
    media_type: &'static str,
}

impl Layer {
    fn descriptor(&self) -> Descriptor {
        Descriptor {
            media_type: self.media_type.into(),
            digest: Digest::of(&self.bytes),
            size: self.bytes.len() as u64,
            urls: Vec::new(),
            annotations: Default::default(),
            platform: None,
            artifact_type: None,
        }
    }
}

fn gzip(tar: &[u8]) -> Layer {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(tar).unwrap();
    Layer { diff_id: Digest::of(tar), bytes: out.finish().unwrap(), media_type: media::OCI_LAYER_GZIP }
}

fn zstd(tar: &[u8]) -> Layer {
    let bytes = zstd::encode_all(tar, 1).unwrap();
    Layer { diff_id: Digest::of(tar), bytes, media_type: media::OCI_LAYER_ZSTD }
}

fn plain(tar: &[u8]) -> Layer {
    Layer { diff_id: Digest::of(tar), bytes: tar.to_vec(), media_type: media::OCI_LAYER }
}

fn remote(layers: &[&Layer], name: &str) -> Remote {
    let diff_ids: Vec<Digest> = layers.iter().map(|l| l.diff_id).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
    .to_string()
    .into_bytes();
    let descriptors: Vec<Descriptor> = layers.iter().map(|l| l.descriptor()).collect();
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media::OCI_MANIFEST.into()),
        artifact_type: None,
        config: Descriptor {
            media_type: media::OCI_CONFIG.into(),
            digest: Digest::of(&config),
            size: config.len() as u64,
            ..descriptors[0].clone()
        },
        layers: descriptors.clone(),
        subject: None,
        annotations: Default::default(),
    };
    Remote {
        config,
        manifest: serde_json::to_vec(&manifest).unwrap(),
        media_type: media::OCI_MANIFEST.into(),
        layers: descriptors,
        names: vec![name.parse::<Reference>().unwrap().or_latest()],
        source: "registry.test:5000/a/b".into(),
    }
}

fn stream(bytes: &[u8]) -> Source {
    Source::Stream(Box::new(std::io::Cursor::new(bytes.to_vec())))
}

fn receive(store: &Store, image: &Remote, layers: &[&Layer]) -> Result<Digest, Error> {
    let mut reception = Reception::new(store, "pull test")?;
    let diff_ids: Vec<Digest> = layers.iter().map(|l| l.diff_id).collect();
    let standing = reception.standing(&diff_ids)?;
    let mut sources: Vec<(Descriptor, Source)> = Vec::new();
    for layer in &layers[standing..] {
        let descriptor = layer.descriptor();
        if sources.iter().all(|(d, _)| d.digest != descriptor.digest) {
            sources.push((descriptor, stream(&layer.bytes)));
        }
    }
    reception.finish(image, sources, &|_| {})
}

fn count(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

/// Snapshots, files beside them, blobs, ingests: what a failure must leave as it was.
fn left(b: &Bench) -> (usize, usize, usize, usize) {
    let root = b.store.root();
    let snapshots = b.store.driver().list().unwrap().len();
    let content = root.join("content");
    (
        snapshots,
        count(&root.join("layers")),
        count(&content.join("blobs/sha256")),
        count(&content.join("ingest")),
    )
}

fn tars(b: &Bench) -> Vec<Vec<u8>> {
    layers(b.dir.path()).iter().map(|p| fs::read(p).unwrap()).collect()
}

fn comes_whole(driver: DriverName) {
    let b = bench(driver);
    let tars = tars(&b);
    let (base, top, empty) = (gzip(&tars[0]), zstd(&tars[1]), plain(&[0; 1024]));
    // The empty layer stands twice, and the lowest again on top.
    let all = [&base, &empty, &top, &empty, &base];
    let image = remote(&all, "registry.test:5000/a/b:1");
    let id = receive(&b.store, &image, &all).unwrap();
    let record = b.store.images().resolve("registry.test:5000/a/b:1").unwrap();
    assert_eq!((record.id, record.layers.len()), (id, 5));
    assert_eq!(record.manifests[0].digest, Digest::of(&image.manifest));
    b.store.create_rw("c1", Some(&id)).unwrap();
    let root = b.store.mount_rw("c1", &longshore_oci::IdMap::default()).unwrap();
    assert_eq!(fs::read_to_string(root.join("etc/file")).unwrap(), "one\n");
    assert!(root.join("gone/x").exists());
    b.store.unmount_rw("c1").unwrap();
    b.store.remove_rw("c1").unwrap();
    // The compressed forms are kept as they came; the manifest and the configuration, too.
    for blob in [Digest::of(&base.bytes), Digest::of(&top.bytes), Digest::of(&image.manifest), id] {
        assert!(b.store.content().exists(&blob).unwrap(), "{blob}");
    }
    assert_eq!(left(&b).2, 4);

    // A second image on the same layers asks for what is new alone, and needs no other.
    let more = gzip(&tars[1]);
    let second = [&base, &empty, &more];
    let image = remote(&second, "registry.test:5000/a/b:2");
    let mut reception = Reception::new(&b.store, "pull test").unwrap();
    let diff_ids: Vec<Digest> = second.iter().map(|l| l.diff_id).collect();
    // The same tar in another compression is the same layer.
    assert_eq!(reception.standing(&diff_ids).unwrap(), 3);
    let other = reception.finish(&image, Vec::new(), &|_| {}).unwrap();
    b.store.images().remove(&id).unwrap();
    b.store.create_rw("c2", Some(&other)).unwrap();
    b.store.remove_rw("c2").unwrap();
    b.store.images().remove(&other).unwrap();
    assert_eq!(left(&b), (0, 0, 0, 0));
}

#[test]
fn privileged_images_come_whole_overlay2() {
    comes_whole(DriverName::Overlay2);
}

#[test]
fn privileged_images_come_whole_vfs() {
    comes_whole(DriverName::Vfs);
}

#[test]
fn privileged_a_blob_that_is_kept_is_not_fetched() {
    let b = bench(DriverName::Overlay2);
    let tars = tars(&b);
    let (base, top) = (gzip(&tars[0]), gzip(&tars[1]));
    receive(&b.store, &remote(&[&base, &top], "x.test/a:1"), &[&base, &top]).unwrap();
    // Upside down: no chain is there, both blobs are.
    let image = remote(&[&top, &base], "x.test/a:2");
    let mut reception = Reception::new(&b.store, "pull test").unwrap();
    assert_eq!(reception.standing(&[top.diff_id, base.diff_id]).unwrap(), 0);
    let unpacked = Mutex::new(0);
    let sources: Vec<_> = [&top, &base]
        .map(|l| {
            assert!(reception.keeps(&Digest::of(&l.bytes)).unwrap());
            (l.descriptor(), Source::Kept)
        })
        .into();
    let told = |e| {
        assert!(matches!(e, ReceiveEvent::Unpacked(_)));
        *unpacked.lock().unwrap() += 1;
    };
    let id = reception.finish(&image, sources, &told).unwrap();
    assert_eq!((*unpacked.lock().unwrap(), b.store.images().get(&id).unwrap().layers.len()), (2, 2));
    assert!(!Reception::new(&b.store, "x").unwrap().keeps(&Digest::of(b"nothing")).unwrap());
}

/// Says `n` bytes and then that the connection broke.
struct Breaks(std::io::Take<std::io::Cursor<Vec<u8>>>);

impl Read for Breaks {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        match self.0.read(buf)? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => Ok(n),
        }
    }
}

fn lies_leave_nothing(driver: DriverName) {
    let b = bench(driver);
    let tars = tars(&b);
    let (base, top) = (gzip(&tars[0]), gzip(&tars[1]));
    receive(&b.store, &remote(&[&base], "x.test/a:1"), &[&base]).unwrap();
    let before = left(&b);
    let mut faked = gzip(&tars[1]);
    faked.diff_id = Digest::of(b"something else");
    let mut altered = top.bytes.clone();
    *altered.last_mut().unwrap() ^= 1;
    let mut long = top.bytes.clone();
    long.extend([0; 100]);
    let cases: Vec<(&str, &Layer, Source, &[Kind])> = vec![
        ("atk 22: another diff id", &faked, stream(&faked.bytes), &[Kind::Corrupt]),
        ("another digest", &top, stream(&zstd(&tars[1]).bytes), &[Kind::Corrupt, Kind::TooLarge]),
        ("altered", &top, stream(&altered), &[Kind::Corrupt]),
        ("short", &top, stream(&top.bytes[..top.bytes.len() - 1]), &[Kind::Corrupt]),
        ("long", &top, stream(&long), &[Kind::Corrupt, Kind::TooLarge]),
        ("empty", &top, stream(b""), &[Kind::Corrupt]),
        (
            "broken off",
            &top,
            Source::Stream(Box::new(Breaks(std::io::Cursor::new(top.bytes.clone()).take(100)))),
            &[Kind::Internal, Kind::Corrupt],
        ),
    ];
    for (what, layer, source, kinds) in cases {
        let image = remote(&[&base, layer], "x.test/a:2");
        let mut reception = Reception::new(&b.store, "pull test").unwrap();
        assert_eq!(reception.standing(&[base.diff_id, layer.diff_id]).unwrap(), 1);
        let e = reception.finish(&image, vec![(layer.descriptor(), source)], &|_| {}).unwrap_err();
        assert!(kinds.contains(&e.kind()), "{what}: {e} {:?}", e.kind());
        assert_eq!(left(&b), before, "{what}: {e}");
        assert!(b.store.images().resolve("x.test/a:2").is_err(), "{what}");
    }
    // Manifest and configuration that contradict each other, and a layer that nobody brings.
    let mut image = remote(&[&base, &top], "x.test/a:2");
    image.layers.pop();
    let reception = Reception::new(&b.store, "pull test").unwrap();
    assert_eq!(reception.finish(&image, Vec::new(), &|_| {}).unwrap_err().kind(), Kind::Corrupt);
    let image = remote(&[&base, &top], "x.test/a:2");
    let reception = Reception::new(&b.store, "pull test").unwrap();
    assert_eq!(reception.finish(&image, Vec::new(), &|_| {}).unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(left(&b), before);
    // An honest one after all that.
    receive(&b.store, &remote(&[&base, &top], "x.test/a:2"), &[&base, &top]).unwrap();
}

#[test]
fn privileged_atk_22_atk_32_lies_leave_nothing_overlay2() {
    lies_leave_nothing(DriverName::Overlay2);
}

#[test]
fn privileged_atk_22_atk_32_lies_leave_nothing_vfs() {
    lies_leave_nothing(DriverName::Vfs);
}

#[test]
fn privileged_layers_outlive_their_image_while_they_are_wanted() {
    let b = bench(DriverName::Overlay2);
    let tars = tars(&b);
    let (base, top) = (gzip(&tars[0]), gzip(&tars[1]));
    let old = receive(&b.store, &remote(&[&base], "x.test/a:1"), &[&base]).unwrap();
    let mut reception = Reception::new(&b.store, "pull test").unwrap();
    assert_eq!(reception.standing(&[base.diff_id, top.diff_id]).unwrap(), 1);
    assert_eq!(b.store.images().remove(&old).unwrap(), []);
    let image = remote(&[&base, &top], "x.test/a:2");
    reception.finish(&image, vec![(top.descriptor(), stream(&top.bytes))], &|_| {}).unwrap();
    let id = b.store.images().resolve("x.test/a:2").unwrap().id;
    // Given up half way: they go with the reception.
    let mut reception = Reception::new(&b.store, "pull test").unwrap();
    assert_eq!(reception.standing(&[base.diff_id, top.diff_id]).unwrap(), 2);
    assert_eq!(b.store.images().remove(&id).unwrap(), []);
    drop(reception);
    assert_eq!(left(&b), (0, 0, 0, 0));
}

/// All of an image as a registry would get it.
fn send(store: &Store, id: &Digest) -> (SentManifest, Vec<(Descriptor, Vec<u8>)>) {
    let dispatch = Dispatch::new(store, id).unwrap();
    let mut blobs = Vec::new();
    for i in 0..dispatch.diff_ids().len() {
        let descriptor = dispatch.blob(i, &mut |_| {}).unwrap();
        let mut bytes = Vec::new();
        dispatch.open(&descriptor.digest).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!((Digest::of(&bytes), bytes.len() as u64), (descriptor.digest, descriptor.size));
        blobs.push((descriptor, bytes));
    }
    let layers: Vec<Descriptor> = blobs.iter().map(|(d, _)| d.clone()).collect();
    let manifest = dispatch.manifest(&layers, None).unwrap();
    let name: Reference = "elsewhere.test/x".parse().unwrap();
    dispatch.sent(&manifest, &layers, &name.with_digest(manifest.digest), true).unwrap();
    (manifest, blobs)
}

#[test]
fn privileged_what_came_goes_on_with_the_same_digests() {
    let b = bench(DriverName::Overlay2);
    let tars = tars(&b);
    let (base, top, empty) = (gzip(&tars[0]), zstd(&tars[1]), plain(&[0; 1024]));
    let all = [&base, &empty, &top];
    let image = remote(&all, "x.test/a:1");
    let id = receive(&b.store, &image, &all).unwrap();
    let (manifest, blobs) = send(&b.store, &id);
    assert_eq!((manifest.digest, manifest.bytes), (Digest::of(&image.manifest), image.manifest.clone()));
    assert!(blobs.iter().zip(all).all(|((_, bytes), layer)| *bytes == layer.bytes));
    let record = b.store.images().get(&id).unwrap();
    assert_eq!((record.manifests.len(), record.digests.len()), (1, 1));
    // The plain layer is its own blob, made again for the time of the push.
    assert!(!b.store.content().exists(&empty.diff_id).unwrap());
}

#[test]
fn privileged_what_was_loaded_is_compressed_once_and_always_the_same() {
    let b = bench(DriverName::Overlay2);
    let archive = docker_archive(b.dir.path(), &layers(b.dir.path()), "a/b:1", false);
    let id = load(&b.store, &archive).unwrap()[0].id;
    let (manifest, blobs) = send(&b.store, &id);
    assert_eq!(manifest.media_type, media::DOCKER_MANIFEST);
    for (descriptor, _) in &blobs {
        assert_eq!(descriptor.media_type, media::DOCKER_LAYER_GZIP);
        // It is kept; without it the same comes of compressing again.
        b.store.content().delete(&descriptor.digest).unwrap();
    }
    let (again, same) = send(&b.store, &id);
    assert_eq!((again.digest, same), (manifest.digest, blobs.clone()));
    // Into another store: the same image.
    let other = bench(DriverName::Overlay2);
    let config = b.store.content().read(&id, 1 << 20).unwrap();
    let layers: Vec<Descriptor> = blobs.iter().map(|(d, _)| d.clone()).collect();
    let sources = blobs.iter().map(|(d, bytes)| (d.clone(), stream(bytes))).collect();
    let names = vec!["a/b:1".parse().unwrap()];
    let (media_type, source) = (manifest.media_type, "x.test/a".to_owned());
    let image = Remote { config, manifest: manifest.bytes, media_type, layers, names, source };
    let reception = Reception::new(&other.store, "pull test").unwrap();
    assert_eq!(reception.finish(&image, sources, &|_| {}).unwrap(), id);
}
