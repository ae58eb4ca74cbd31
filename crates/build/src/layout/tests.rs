//! Both sides, on a pair of sockets.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc;

use longshore_oci::image::Descriptor;

use super::*;
use longshore_oci::Digest;

fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: String::new(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        urls: Vec::new(),
        annotations: Default::default(),
        platform: None,
        artifact_type: None,
    }
}

/// Uses a directory over a connection.
fn with(place: &Place, f: impl FnOnce(&Arc<Peer>)) -> io::Result<()> {
    let (engine, client) = UnixStream::pair().unwrap();
    std::thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        let server = scope.spawn(move || {
            let (mut input, mut output) = (client.try_clone().unwrap(), client);
            serve(place, &mut input, &mut output, |id| tell.send(id).unwrap())
        });
        let output = Box::new(engine.try_clone().unwrap());
        let peer = Peer::new("the-id", Box::new(engine), output).unwrap();
        assert_eq!(told.recv().unwrap(), "the-id");
        f(&peer);
        drop(peer);
        server.join().unwrap()
    })
}

fn place(dir: &tempfile::TempDir, writable: bool) -> Place {
    Place { dir: dir.path().join("cache"), writable }
}

#[test]
fn what_is_put_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let large: Vec<u8> = (0..3_000_000u32).map(|n| n.to_le_bytes()[1]).collect();
    with(&place(&dir, true), |peer| {
        assert_eq!(peer.index().unwrap(), None);
        for bytes in [&b""[..], b"small", &large] {
            let blob = descriptor(bytes);
            assert!(!peer.has(&blob.digest).unwrap() && peer.blob(&blob.digest).unwrap().is_none());
            peer.write(&blob.digest, &mut &bytes[..]).unwrap();
            assert!(peer.has(&blob.digest).unwrap());
            assert_eq!(peer.read_blob(&blob, u64::MAX).unwrap(), bytes);
        }
        peer.put_index(b"{}").unwrap();
        assert_eq!(peer.index().unwrap().as_deref(), Some(&b"{}"[..]));
    })
    .unwrap();
    let names = |path: &str| -> Vec<String> {
        let entries = std::fs::read_dir(dir.path().join(path)).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    };
    assert_eq!((names("cache").len(), names("cache/blobs/sha256").len()), (3, 3), "nothing is left aside");
}

#[test]
fn what_is_wrong_is_told() {
    let dir = tempfile::tempdir().unwrap();
    with(&place(&dir, true), |peer| {
        let blob = descriptor(b"right");
        let error = peer.write(&blob.digest, &mut &b"wrong"[..]).unwrap_err().to_string();
        assert!(error.contains("came as"), "{error}");
        assert!(!peer.has(&blob.digest).unwrap());
        peer.write(&blob.digest, &mut &b"right"[..]).unwrap();
        let file = dir.path().join("cache/blobs/sha256").join(blob.digest.hex());
        std::fs::write(file, "wrong").unwrap();
        assert!(peer.read_blob(&blob, 10).unwrap_err().to_string().contains("damaged"));
        assert!(peer.read_blob(&blob, 2).unwrap_err().to_string().contains("at most 2"));
        assert!(peer.has(&blob.digest).unwrap(), "it can be asked again");
    })
    .unwrap();
    with(&place(&dir, false), |peer| {
        let error = peer.put_index(b"{}").unwrap_err().to_string();
        assert!(error.contains("only read"), "{error}");
    })
    .unwrap();
}

#[test]
fn a_blob_that_is_left_in_its_middle_ends_the_exchange() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = vec![7; 900_000];
    let blob = descriptor(&bytes);
    let served = with(&place(&dir, true), |peer| {
        peer.write(&blob.digest, &mut &bytes[..]).unwrap();
        // Up to its last byte, as who knows the length reads it.
        let mut reader = peer.blob(&blob.digest).unwrap().unwrap();
        reader.read_exact(&mut vec![0; 900_000]).unwrap();
        drop(reader);
        assert!(peer.has(&blob.digest).unwrap());
        drop(peer.blob(&blob.digest).unwrap().unwrap());
        assert!(peer.has(&blob.digest).is_err());
    });
    assert!(served.is_err(), "it had more to send");
}

#[test]
fn an_engine_gets_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    for (kind, payload) in [(READ, "../../etc/passwd"), (HAS, "sha256:.."), (WRITE, "x"), (b'?', "")] {
        let mut input = Vec::new();
        send(&mut input, kind, payload.as_bytes()).unwrap();
        let mut output = Vec::new();
        assert!(serve(&place(&dir, true), &mut &input[..], &mut output, drop).is_err());
        assert!(output.is_empty());
    }
}

#[test]
fn what_only_a_replaced_cache_needed_goes() {
    let dir = tempfile::tempdir().unwrap();
    let there = |bytes: &[u8]| dir.path().join("cache/blobs/sha256").join(Digest::of(bytes).hex()).exists();
    with(&place(&dir, true), |peer| {
        let put = |bytes: &[u8]| {
            peer.write(&Digest::of(bytes), &mut &bytes[..]).unwrap();
            descriptor(bytes)
        };
        let manifest = |document: &[u8], layers: &[&[u8]]| {
            put(document);
            let layers: Vec<_> = layers.iter().map(|layer| put(layer)).collect();
            serde_json::to_vec(&crate::portable::manifest(document, &layers)).unwrap()
        };
        let index = |manifests: &[(&[u8], bool)]| {
            let manifests = manifests.iter().map(|(bytes, ours)| Descriptor {
                media_type: longshore_oci::image::media::OCI_MANIFEST.into(),
                artifact_type: ours.then(|| crate::portable::ARTIFACT.to_owned()),
                ..put(bytes)
            });
            let manifests: Vec<_> = manifests.collect();
            serde_json::to_vec(&serde_json::json!({"schemaVersion": 2, "manifests": manifests})).unwrap()
        };
        let (one, two) = (manifest(b"one", &[b"first", b"both"]), manifest(b"two", &[b"both", b"second"]));
        let image = manifest(b"image", &[b"of the image"]);
        put(b"somebody's");
        peer.put_index(&index(&[(&one, true), (&image, false)])).unwrap();
        peer.put_index(&index(&[(&two, true)])).unwrap();
        let gone = [&b"one"[..], b"first", &one];
        let kept = [&b"two"[..], b"both", b"second", &two, b"image", b"of the image", &image, b"somebody's"];
        assert!(gone.iter().all(|bytes| !there(bytes)) && kept.iter().all(|bytes| there(bytes)));
        // Nothing goes where it cannot be told what is needed.
        put(b"no manifest");
        peer.put_index(&index(&[(b"no manifest", false)])).unwrap();
        assert!(there(b"two") && there(b"second"));
    })
    .unwrap();
}
