//! Images that an honest registry delivers to the byte, and that are not what they seem: none gets into the store.

use std::sync::Arc;

use longshore_oci::Kind;
use longshore_registry::{Client, Credentials, ManifestRef, Puller, Repository, Result};
use longshore_store::snapshot::DriverName;
use longshore_store::{Store, StoreOptions};
use longshore_testkit::registry::{Hostile, Image, Layer, Registry};

use crate::harness::config;

/// The kinds of error that an image may end in; none for those that are as good as others.
fn kinds(hostile: Hostile) -> &'static [Kind] {
    use Hostile as H;
    match hostile {
        // The last of the keys counts, or it is refused; both agree with the digest.
        H::DuplicateKeys => &[Kind::Corrupt, Kind::Invalid],
        // Large, but what they say they are.
        H::TenThousandEntries | H::Deep | H::GzipBomb => &[],
        H::WrongSchemaVersion => &[Kind::Unimplemented],
        H::FiveMegabytes | H::TenThousandLayers | H::NestedIndexes | H::ConfigFiveMegabytes => {
            &[Kind::TooLarge]
        }
        H::ZstdBomb | H::ZstdHugeWindow => &[Kind::TooLarge, Kind::Corrupt, Kind::Invalid],
        H::SchemaOne | H::UnknownManifestType | H::UnknownLayerType | H::ForeignLayer | H::Artifact => {
            &[Kind::Unimplemented]
        }
        H::UnknownDigest => &[Kind::Unimplemented, Kind::Corrupt, Kind::Invalid],
        H::NoSuchPlatform | H::LayerMissing | H::UrlsOnly => &[Kind::NotFound],
        _ => &[Kind::Corrupt, Kind::Invalid],
    }
}

async fn pull(repository: &Repository, store: &Store) -> Result<()> {
    let resolved = Puller::resolve(repository, &ManifestRef::Tag("latest".into()), None).await?;
    let name = repository.name().clone();
    Puller::new(store.clone(), 3).pull(&resolved, vec![name], Arc::new(|_, _| {})).await.map(drop)
}

/// What is in the store's folders.
fn left(root: &std::path::Path) -> Vec<String> {
    let mut left = Vec::new();
    for dir in ["overlay2", "overlay2/l", "layers", "content/ingest", "content/blobs/sha256"] {
        for entry in std::fs::read_dir(root.join(dir)).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "l" {
                left.push(format!("{dir}/{name}"));
            }
        }
    }
    left
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_atk_22_images_that_are_not_what_they_seem() {
    let registry = Registry::start();
    let elsewhere = Registry::start();
    let dir = tempfile::Builder::new().prefix("longshore-lies-").tempdir().unwrap();
    let root = dir.path().join("data");
    let options = StoreOptions { driver: Some(DriverName::Overlay2), sync: false };
    let store = Store::open(&root, &options).unwrap();
    let client = Client::new(config()).unwrap();
    let mut wrong = Vec::new();
    for hostile in Hostile::ALL {
        let name = format!("evil/{}", format!("{hostile:?}").to_lowercase());
        hostile.put(&registry, &name, "latest", elsewhere.origin());
        let reference = registry.reference(&name, "latest").parse().unwrap();
        let repository = client.repository(&reference, Credentials::Anonymous);
        match pull(&repository, &store).await {
            Ok(()) if kinds(hostile).is_empty() => {}
            Ok(()) => wrong.push(format!("{hostile:?} went unnoticed")),
            Err(e) if !kinds(hostile).contains(&e.kind()) => {
                wrong.push(format!("{hostile:?}: {:?} instead of {:?}: {e}", e.kind(), kinds(hostile)));
            }
            Err(e) => {
                let text = e.to_string();
                if text.len() > 2000 || text.chars().any(char::is_control) {
                    wrong.push(format!("{hostile:?}: not fit to be shown: {text:?}"));
                }
                if std::env::var_os("LIES_SHOW").is_some() {
                    eprintln!("{hostile:?}: {text}");
                }
            }
        }
        for image in store.images().list().unwrap() {
            store.images().remove(&image.id).unwrap();
        }
        let left = left(&root);
        if !left.is_empty() {
            wrong.push(format!("{hostile:?} left {left:?}"));
        }
        if std::path::Path::new("/tmp/longshore-escaped").exists() {
            wrong.push(format!("{hostile:?} wrote outside"));
        }
    }
    // The same store takes what is right.
    Image::new().layer(Layer::tar(&[("fine", b"fine")]).gzip()).put(&registry, "good/one", "latest");
    let reference = registry.reference("good/one", "latest").parse().unwrap();
    pull(&client.repository(&reference, Credentials::Anonymous), &store).await.unwrap();
    assert_eq!(elsewhere.requests().len(), 0, "an address in an image was followed");
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), Hostile::ALL.len(), wrong.join("\n"));
}
