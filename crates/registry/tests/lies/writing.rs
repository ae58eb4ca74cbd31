//! Lies about what is written: uploads, mounts, manifests.

use std::io::Write as _;
use std::sync::Arc;

use longshore_oci::{Digest, Kind};
use longshore_registry::{ManifestRef, Result};
use longshore_testkit::registry::{Lie, Rule, noise};

use crate::harness::{Bench, CORRUPT, DENIED, Then, UNAVAILABLE, lied_to, run_all};

/// Uploads a blob that takes several pieces, another one each time.
pub(crate) async fn upload(b: &Bench) -> Result<()> {
    let bytes = noise(b.registry.requests().len() as u64 + 77, 200_000);
    let digest = Digest::of(&bytes);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    b.repository.upload_blob(digest, bytes.len() as u64, file, |_| {}).await?;
    // What was acknowledged is there, unless the registry lied about that, which the manifest will show.
    if let Some(blob) = b.registry.blob("zoo/lion", &digest) {
        assert_eq!(blob.digest(), digest);
    }
    Ok(())
}

/// Uploads a blob, mounts one, and puts the manifest of an image.
pub(crate) async fn push(b: &Bench) -> Result<()> {
    let image = longshore_testkit::registry::Image::new().layer(
        longshore_testkit::registry::Layer::tar(&[("new", &noise(b.registry.requests().len() as u64, 5000))])
            .gzip(),
    );
    for bytes in [image.layers[0].blob.to_vec(), image.config_bytes()] {
        let digest = Digest::of(&bytes);
        if b.repository.has_blob(&digest).await?.is_some()
            || b.repository.mount_blob(&digest, "zoo/tiger").await?
        {
            continue;
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        b.repository.upload_blob(digest, bytes.len() as u64, file, |_| {}).await?;
    }
    let document = image.document();
    let digest = b
        .repository
        .put_manifest(&ManifestRef::Tag("new".into()), &document.media_type, document.bytes.into())
        .await?;
    let (there, _) = b.registry.manifest("zoo/lion", "new").expect("an acknowledged manifest");
    assert_eq!(there, digest, "another manifest was put");
    Ok(())
}

async fn uploading(cases: Vec<(&str, Rule, Then)>) {
    let cases = cases.into_iter();
    let cases = cases.map(|(name, rule, then)| {
        lied_to(name, Bench::basic(), vec![rule], then, |b: Arc<Bench>| async move { upload(&b).await })
    });
    run_all(cases.collect()).await;
}

async fn pushing(cases: Vec<(&str, Rule, Then)>) {
    let cases = cases.into_iter();
    let cases = cases.map(|(name, rule, then)| {
        lied_to(name, Bench::token(), vec![rule], then, |b: Arc<Bench>| async move { push(&b).await })
    });
    run_all(cases.collect()).await;
}

fn text(s: &str) -> Option<String> {
    Some(s.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_are_refused_or_break() {
    uploading(vec![
        ("refused in the middle, once", Rule::uploads(Lie::RefuseAfter(1000, 500)).times(1), Then::Works),
        ("refused in the middle, always", Rule::uploads(Lie::RefuseAfter(1000, 500)), UNAVAILABLE),
        ("not allowed in the middle", Rule::uploads(Lie::RefuseAfter(1000, 403)), DENIED),
        ("too large, it says", Rule::uploads(Lie::RefuseAfter(1000, 413)), Then::Fails(&[Kind::TooLarge])),
        ("no room", Rule::uploads(Lie::RefuseAfter(1000, 507)), UNAVAILABLE),
        ("closed, once", Rule::uploads(Lie::Close).times(1), Then::Works),
        ("closed after it was kept, once", Rule::uploads(Lie::CutAfter(0)).times(1), Then::Works),
        ("reset, once", Rule::uploads(Lie::Reset).times(1), Then::Works),
        ("closed, always", Rule::uploads(Lie::Close), UNAVAILABLE),
        ("reset, always", Rule::uploads(Lie::Reset), UNAVAILABLE),
        ("silent", Rule::uploads(Lie::Stall), UNAVAILABLE),
        ("silent at the start", Rule::upload_starts(Lie::Stall), UNAVAILABLE),
        ("silent at the end", Rule::uploads(Lie::Stall).method(&["PUT"]), UNAVAILABLE),
        ("429, twice", Rule::uploads(Lie::Status(429, Some("0".into()))).times(2), Then::Works),
        ("forgotten in the middle", Rule::uploads(Lie::Status(404, None)).skip(1).times(1), Then::Works),
        ("elsewhere in the middle", Rule::uploads(Lie::Status(416, None)).skip(1).times(1), Then::Works),
        (
            "401 in the middle",
            Rule::uploads(Lie::Challenge(vec!["Basic realm=\"x\"".into()])).times(1),
            Then::Either,
        ),
        ("mail", Rule::uploads(Lie::Raw(b"220 mail.example ESMTP\r\n".to_vec())), UNAVAILABLE),
        ("closed after every answer", Rule::any(Lie::CloseAfter), Then::Works),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn atk_32_uploads_that_are_lied_about() {
    let range = |said: &str| Rule::uploads(Lie::UploadRange(text(said))).method(&["PATCH"]);
    uploading(vec![
        ("it has less than it got", range("0-1"), Then::Either),
        ("it has more than it got", range("0-99999999"), Then::Either),
        ("it has more than there is", range("0-18446744073709551615"), Then::Either),
        ("a range that is none", range("x"), Then::Either),
        ("no range", Rule::uploads(Lie::UploadRange(None)), Then::Works),
        (
            "another blob was put, it says",
            Rule::uploads(Lie::DigestHeader(Some(Digest::of(b"another").to_string()))).method(&["PUT"]),
            Then::Either,
        ),
        ("no place", Rule::upload_starts(Lie::Location(None)), CORRUPT),
        ("no place later", Rule::uploads(Lie::Location(None)).method(&["PATCH"]), Then::Either),
        ("a place that is none", Rule::upload_starts(Lie::Location(text("http://[::bad"))), CORRUPT),
        (
            "the keys of a cloud machine",
            Rule::upload_starts(Lie::Location(text("http://169.254.169.254/x"))),
            DENIED,
        ),
        ("a file", Rule::upload_starts(Lie::Location(text("file:///etc/passwd"))), CORRUPT),
        (
            "200 to the start",
            Rule::upload_starts(Lie::Status(200, None)),
            Then::Fails(&[Kind::Corrupt, Kind::Internal]),
        ),
    ])
    .await;
}

/// Where uploads go on at another host, nobody there learns who we are.
#[tokio::test(flavor = "multi_thread")]
async fn atk_30_an_upload_on_another_host() {
    for bench in [Bench::basic(), Bench::token()] {
        bench.registry.lie(Rule::upload_starts(Lie::LocationOnHost(bench.other.origin().to_owned())));
        let _ = upload(&bench).await;
        assert!(bench.other.requests().iter().all(|r| !r.has_credentials()));
        bench.registry.be_honest();
        bench.registry.lie(Rule::uploads(Lie::LocationOnHost(bench.other.origin().to_owned())));
        let _ = upload(&bench).await;
        assert!(bench.other.requests().iter().all(|r| !r.has_credentials()));
        bench.registry.be_honest();
        for code in [301, 302, 307, 308] {
            bench.registry.lie(Rule::uploads(Lie::RedirectToHost(code, bench.other.origin().to_owned())));
            let _ = upload(&bench).await;
            assert!(bench.other.requests().iter().all(|r| !r.has_credentials()), "{code}");
            bench.registry.be_honest();
        }
        upload(&bench).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn atk_32_pushes_that_are_lied_about() {
    let digest = Lie::DigestHeader(Some(Digest::of(b"another").to_string()));
    let missing = Then::Fails(&[Kind::NotFound, Kind::Invalid, Kind::Corrupt]);
    pushing(vec![
        ("another manifest was put, it says", Rule::manifest_puts(digest), CORRUPT),
        ("a digest that is none", Rule::manifest_puts(Lie::DigestHeader(text("sha256:../x"))), Then::Either),
        ("no digest", Rule::manifest_puts(Lie::DigestHeader(None)), Then::Works),
        ("it has what it has not", Rule::blob_heads(Lie::Has), missing),
        ("it took what it has not", Rule::upload_starts(Lie::Mounted), missing),
        ("it kept nothing", Rule::uploads(Lie::Created).method(&["PUT"]), missing),
        (
            "the manifest is refused",
            Rule::manifest_puts(Lie::Status(400, None)),
            Then::Fails(&[Kind::Invalid]),
        ),
        ("the manifest is not allowed", Rule::manifest_puts(Lie::Status(403, None)), DENIED),
        ("500 to the manifest, twice", Rule::manifest_puts(Lie::Status(500, None)).times(2), Then::Works),
        ("closed at the manifest, once", Rule::manifest_puts(Lie::Close).times(1), Then::Works),
        ("silent at the manifest", Rule::manifest_puts(Lie::Stall), UNAVAILABLE),
        ("silent about blobs", Rule::blob_heads(Lie::Stall), UNAVAILABLE),
        ("405 about blobs", Rule::blob_heads(Lie::Status(405, None)), Then::Either),
    ])
    .await;
}
