//! Memory stays flat, however much a registry sends. One test alone in its program, so that the peak is its own.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use futures_util::StreamExt as _;
use longshore_oci::{Digest, Kind, Reference};
use longshore_registry::{Client, Config, Credentials, ManifestRef, ProxyConfig, Repository, Result};
use longshore_testkit::registry::{Blob, Image, Layer, Lie, Registry, Rule};

/// Bytes that the process had at once at most, since the last [`reset`].
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn reset() -> u64 {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    peak()
}

/// Reads a layer and keeps nothing of it.
async fn drain(repository: &Repository, size: u64, digest: Digest) -> Result<u64> {
    let descriptor = serde_json::json!({
        "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest.to_string(), "size": size,
    });
    let mut stream = repository.blob(&serde_json::from_value(descriptor).unwrap()).await?;
    let mut seen = 0;
    while let Some(piece) = stream.next().await {
        seen += piece?.len() as u64;
    }
    Ok(seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn atk_32_memory_is_flat_whatever_comes() {
    const SIZE: u64 = 1 << 30;
    const FLAT: u64 = 24 << 20;
    let registry = Registry::start();
    let blob = Blob::default().then_repeat(b'x', SIZE);
    let digest = registry.put_blob("zoo/lion", blob);
    Image::new().layer(Layer::tar(&[("a", b"b")])).put(&registry, "zoo/lion", "1");
    let config = Config { proxy: ProxyConfig::default(), ..Config::default() };
    let name: Reference = registry.reference("zoo/lion", "1").parse().unwrap();
    let repository = Client::new(config).unwrap().repository(&name, Credentials::Anonymous);
    let tag = ManifestRef::Tag("1".into());
    repository.manifest(&tag).await.unwrap();

    let mut grew = Vec::new();
    let before = reset();
    assert_eq!(drain(&repository, SIZE, digest).await.unwrap(), SIZE);
    grew.push(("a layer of a gigabyte", peak() - before));

    registry.lie(Rule::blobs(Lie::Endless));
    let before = reset();
    assert_eq!(drain(&repository, SIZE, digest).await.unwrap_err().kind(), Kind::Corrupt);
    grew.push(("a layer without an end", peak() - before));
    registry.be_honest();

    for (what, lie) in [
        ("a manifest without an end", Lie::Endless),
        ("a refusal without an end", Lie::HugeError(403, 1 << 40)),
        ("headers without an end", Lie::HugeHeader(16 << 20)),
    ] {
        registry.lie(Rule::manifests(lie).times(1));
        let before = reset();
        let _ = repository.manifest(&tag).await;
        grew.push((what, peak() - before));
        registry.be_honest();
    }
    repository.manifest(&tag).await.unwrap();
    // The last one is as long on the registry's side of this process.
    let limit = |what: &str| if what.starts_with("headers") { FLAT + (48 << 20) } else { FLAT };
    assert!(grew.iter().all(|(what, n)| *n < limit(what)), "{grew:?}");
}
