//! Lies about what is read: manifests and blobs.

use std::time::Duration;

use longshore_oci::{Digest, Kind};
use longshore_testkit::registry::{Document, Image, Layer, Lie, Rule};

use crate::harness::{Bench, CORRUPT, DENIED, Then, UNAVAILABLE, image, lied_to, run_all};

const GONE: Then = Then::Fails(&[Kind::NotFound]);

/// Pulls while the registry lies about the image's layer.
async fn about_the_layer(cases: Vec<(&str, Vec<Lie>, Then)>) {
    let layer = image().layers[0].blob.digest();
    let rules = |lies: Vec<Lie>| lies.into_iter().map(|lie| Rule::blobs(lie).path(layer)).collect();
    let cases = cases.into_iter();
    let cases = cases.map(|(name, lies, then)| {
        lied_to(name, Bench::basic(), rules(lies), then, |b| async move { b.pull().await })
    });
    run_all(cases.collect()).await;
}

/// Pulls while the registry lies about the manifest.
async fn about_the_manifest(cases: Vec<(&str, Lie, Then)>) {
    let cases = cases.into_iter();
    let cases = cases.map(|(name, lie, then)| {
        let rules = vec![Rule::manifests(lie).method(&["GET"])];
        lied_to(name, Bench::basic(), rules, then, |b| async move { b.pull().await })
    });
    run_all(cases.collect()).await;
}

fn text(s: &str) -> Option<String> {
    Some(s.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn atk_32_bytes_that_are_not_what_they_should_be() {
    about_the_layer(vec![
        ("other bytes", vec![Lie::OtherBytes], CORRUPT),
        ("too few bytes, said so", vec![Lie::Short(1000)], CORRUPT),
        ("no bytes, said so", vec![Lie::Short(0)], CORRUPT),
        ("too many bytes, said so", vec![Lie::Long(1000)], CORRUPT),
        ("endless in chunks", vec![Lie::Endless], CORRUPT),
        ("endless with a length", vec![Lie::EndlessWithLength], CORRUPT),
        ("a length that is too large", vec![Lie::ContentLength("999999".into())], CORRUPT),
        ("a length that is too small", vec![Lie::ContentLength("10".into())], CORRUPT),
        ("a length below zero", vec![Lie::ContentLength("-1".into())], UNAVAILABLE),
        ("a length in words", vec![Lie::ContentLength("many".into())], UNAVAILABLE),
        ("no length", vec![Lie::NoLength], Then::Works),
        ("a chunk without a size", vec![Lie::BadChunk], UNAVAILABLE),
        (
            "another digest in the head",
            vec![Lie::DigestHeader(Some(Digest::of(b"").to_string()))],
            Then::Either,
        ),
        ("compressed, it says", vec![Lie::Header("Content-Encoding".into(), "gzip".into())], Then::Either),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn atk_32_connections_that_break_stall_or_crawl() {
    about_the_layer(vec![
        ("closed without an answer", vec![Lie::Close], UNAVAILABLE),
        ("reset without an answer", vec![Lie::Reset], UNAVAILABLE),
        ("cut at once, always", vec![Lie::CutAfter(0)], UNAVAILABLE),
        ("reset at once, always", vec![Lie::ResetAfter(0)], UNAVAILABLE),
        ("cut after a little, always", vec![Lie::CutAfter(100)], UNAVAILABLE),
        ("no answer", vec![Lie::Stall], UNAVAILABLE),
        ("silent at once, always", vec![Lie::StallAfter(0)], UNAVAILABLE),
        ("silent after a little, always", vec![Lie::StallAfter(100)], UNAVAILABLE),
        ("a byte now and then", vec![Lie::SlowBody(Duration::from_millis(300))], UNAVAILABLE),
        ("a head byte by byte", vec![Lie::SlowHead(Duration::from_millis(100))], UNAVAILABLE),
        ("100 Continue for ever", vec![Lie::Continues], UNAVAILABLE),
        ("mail", vec![Lie::Raw(b"220 mail.example ESMTP\r\n".to_vec())], UNAVAILABLE),
        ("HTTP/2", vec![Lie::Raw(b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64".to_vec())], UNAVAILABLE),
        ("nothing but zeros", vec![Lie::Raw(vec![0; 1 << 20])], UNAVAILABLE),
        ("a head of a megabyte", vec![Lie::HugeHeader(1 << 20)], UNAVAILABLE),
        ("ten thousand headers", vec![Lie::ManyHeaders(10_000)], UNAVAILABLE),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn atk_32_ranges_are_checked() {
    let layer = image().layers[0].blob.digest();
    let resumed = |name: &'static str, lie: Lie, then| {
        let rules = vec![
            Rule::blobs(Lie::CutAfter(70_000)).path(layer).ranged(false).times(1),
            Rule::blobs(lie).path(layer).ranged(true),
        ];
        lied_to(name, Bench::basic(), rules, then, |b| async move { b.pull().await })
    };
    let total = image().layers[0].blob.len();
    let ranges =
        |first: u64, last: u64, total: u64| Lie::ContentRange(Some(format!("bytes {first}-{last}/{total}")));
    run_all(vec![
        resumed("everything again", Lie::RangeIgnored, Then::Works),
        resumed("other bytes", Lie::RangeOtherBytes, CORRUPT),
        resumed("the right range in the head, bytes from the start", Lie::RangeFromStart, CORRUPT),
        resumed("no range in the head", Lie::ContentRange(None), CORRUPT),
        resumed("another range in the head", ranges(0, 5, 6), CORRUPT),
        resumed("a range that begins later", ranges(80_000, total - 1, total), CORRUPT),
        resumed("a range beyond the end", ranges(70_000, total + 9, total + 10), CORRUPT),
        resumed("a range of another total", ranges(70_000, total - 1, total * 2), CORRUPT),
        resumed("a range that is none", Lie::ContentRange(Some("bytes 9-1/-3".into())), CORRUPT),
        resumed("refused", Lie::RangeRefused, Then::Either),
        resumed("cut again and again", Lie::CutAfter(40_000), Then::Works),
        resumed("longer than asked for", Lie::Long(1000), CORRUPT),
    ])
    .await;
}

/// A connection that broke is taken up where it broke, and a registry that is back is used again.
#[tokio::test(flavor = "multi_thread")]
async fn what_passes_is_waited_for() {
    about_the_layer(vec![
        ("cut once", vec![Lie::CutAfter(1000)], Then::Either),
        ("closed after every answer", vec![Lie::CloseAfter], Then::Works),
    ])
    .await;
    let layer = image().layers[0].blob.digest();
    let once = |name: &'static str, lie: Lie| {
        let rules = vec![Rule::blobs(lie).path(layer).times(1)];
        lied_to(name, Bench::basic(), rules, Then::Works, |b| async move {
            b.registry.forget_requests();
            b.pull().await
        })
    };
    let twice = |name: &'static str, lie: Lie| {
        let rules = vec![Rule::manifests(lie).authorized(true).times(2)];
        lied_to(name, Bench::basic(), rules, Then::Works, |b| async move { b.pull().await })
    };
    run_all(vec![
        once("cut", Lie::CutAfter(100_000)),
        once("reset", Lie::ResetAfter(100_000)),
        once("silent", Lie::StallAfter(100_000)),
        once("closed", Lie::Close),
    ])
    .await;
    run_all(vec![
        twice("500", Lie::Status(500, None)),
        twice("503", Lie::Status(503, Some("0".into()))),
        twice("429", Lie::Status(429, None)),
        twice("429 with a time", Lie::Status(429, Some("1".into()))),
        twice("closed", Lie::Close),
        twice("reset", Lie::Reset),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_download_goes_on_where_it_broke() {
    let b = Bench::basic();
    let layer = b.pushed.layers[0];
    b.registry.lie(Rule::blobs(Lie::CutAfter(100_000)).path(layer).times(1));
    b.pull().await.unwrap();
    let requests = b.registry.requests();
    let ranges: Vec<&str> = requests
        .iter()
        .filter(|r| r.target.contains(&layer.hex()))
        .filter_map(|r| r.header("range"))
        .collect();
    assert_eq!(ranges.len(), 1, "{ranges:?}");
    let from: u64 =
        ranges[0].strip_prefix("bytes=").and_then(|r| r.strip_suffix('-')).unwrap().parse().unwrap();
    assert!((1..=100_000).contains(&from), "{from}");
}

#[tokio::test(flavor = "multi_thread")]
async fn atk_32_statuses_that_stay() {
    let status = |code, after: Option<&str>| Lie::Status(code, after.map(str::to_owned));
    about_the_manifest(vec![
        ("500", status(500, None), UNAVAILABLE),
        ("502", status(502, None), UNAVAILABLE),
        ("503 for an hour", status(503, Some("3600")), UNAVAILABLE),
        ("429", status(429, None), UNAVAILABLE),
        ("429 for ages", status(429, Some("99999999999999999999999999")), UNAVAILABLE),
        ("429 until a day that never comes", status(429, Some("Fri, 31 Feb 9999 99:99:99 GMT")), UNAVAILABLE),
        ("429 and nonsense", status(429, Some("-1, \u{e9}")), UNAVAILABLE),
        ("403", status(403, None), DENIED),
        ("404", status(404, None), GONE),
        ("418", status(418, None), Then::Fails(&[Kind::Invalid])),
        ("204", status(204, None), Then::Fails(&[Kind::Internal, Kind::Corrupt])),
        ("206 to no range", status(206, None), Then::Fails(&[Kind::Internal, Kind::Corrupt])),
        ("an error of a gigabyte", Lie::HugeError(500, 1 << 30), UNAVAILABLE),
        ("a refusal of a gigabyte", Lie::HugeError(403, 1 << 30), DENIED),
        ("words that change the terminal", Lie::Says(403, "\u{1b}[2J\u{202e}gone\r\n\0".into()), DENIED),
        ("very many words", Lie::Says(403, "no ".repeat(100_000)), DENIED),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn atk_23_manifests_that_are_not_what_they_should_be() {
    let other = Image::new().layer(Layer::tar(&[("other", b"bytes")]));
    let page = Document::new("text/html", "<html>Welcome to the hotel's network. Please log in</html>");
    about_the_manifest(vec![
        ("other bytes", Lie::OtherBytes, CORRUPT),
        ("another digest in the head", Lie::DigestHeader(Some(Digest::of(b"").to_string())), CORRUPT),
        ("a digest that is a path", Lie::DigestHeader(text("sha256:../../etc/passwd")), CORRUPT),
        ("a digest of a kind that is not known", Lie::DigestHeader(text("md5:d41d8")), Then::Either),
        ("no digest in the head", Lie::DigestHeader(None), Then::Works),
        (
            "said to be a page",
            Lie::ContentType(text("text/html")),
            Then::Fails(&[Kind::Corrupt, Kind::Unimplemented]),
        ),
        (
            "said to be an index",
            Lie::ContentType(text("application/vnd.oci.image.index.v1+json")),
            Then::Fails(&[Kind::Corrupt, Kind::Unimplemented]),
        ),
        ("said to be nothing", Lie::ContentType(None), Then::Works),
        ("a page", Lie::OtherDocument(page), Then::Fails(&[Kind::Corrupt, Kind::Unimplemented])),
        ("short", Lie::Short(100), CORRUPT),
        ("long", Lie::Long(100), CORRUPT),
        ("endless", Lie::Endless, Then::Fails(&[Kind::TooLarge])),
        ("endless with a length", Lie::EndlessWithLength, Then::Fails(&[Kind::TooLarge])),
        ("a length that is too large", Lie::ContentLength("99999".into()), UNAVAILABLE),
        ("a length that is too small", Lie::ContentLength("10".into()), CORRUPT),
        ("cut", Lie::CutAfter(100), UNAVAILABLE),
        ("silent", Lie::StallAfter(100), UNAVAILABLE),
        ("no answer", Lie::Stall, UNAVAILABLE),
        ("a byte now and then", Lie::SlowBody(Duration::from_millis(300)), UNAVAILABLE),
    ])
    .await;
    // A manifest that is right in itself, and another one than was asked for.
    let b = Bench::basic();
    b.registry.lie(Rule::manifests(Lie::OtherDocument(other.document())));
    let asked = longshore_registry::ManifestRef::Digest(b.pushed.manifest);
    let e = b.repository.manifest(&asked).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Corrupt, "{e}");
}

/// What an answer brings too much is not taken for the answer to the next request.
#[tokio::test(flavor = "multi_thread")]
async fn atk_32_an_answer_that_nobody_asked_for() {
    let config = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/octet-stream\r\n\r\n{}";
    let cases = [("behind the manifest", true), ("behind the configuration", false)];
    let cases = cases.into_iter().map(|(name, manifest)| {
        let lie = Lie::Behind(config.to_vec());
        let rules = vec![if manifest { Rule::manifests(lie) } else { Rule::blobs(lie) }];
        lied_to(name, Bench::basic(), rules, Then::Either, |b| async move { b.pull().await })
    });
    run_all(cases.collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn atk_33_a_tag_is_resolved_once() {
    use std::sync::Arc;

    use longshore_registry::Puller;

    let b = Bench::basic();
    // The same, an index of it, and another image: a different one at each look.
    let other = Image::new().layer(Layer::tar(&[("other", b"bytes")]));
    other.put(&b.registry, "zoo/lion", "2");
    b.registry
        .lie(Rule::manifests(Lie::moving(vec![b.image.document(), other.document()])).path("manifests/1"));
    let at = longshore_registry::ManifestRef::Tag("1".into());
    let resolved = Puller::resolve(&b.repository, &at, None).await.unwrap();
    assert_eq!(resolved.digest, b.pushed.manifest);
    let dir = tempfile::tempdir().unwrap();
    let options = longshore_store::StoreOptions {
        driver: Some(longshore_store::snapshot::DriverName::Vfs),
        sync: false,
    };
    let store = longshore_store::Store::open(dir.path(), &options).unwrap();
    let id = Puller::new(store, 3).pull(&resolved, Vec::new(), Arc::new(|_, _| {})).await.unwrap();
    assert_eq!(id, b.pushed.config);
    assert_eq!(
        b.registry.requests().iter().filter(|r| r.target.ends_with("manifests/1") && r.status == 200).count(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_have_an_end() {
    let start = "/v2/zoo/lion/tags/list?n=1&last=0";
    let long = format!("{{\"tags\":[{}\"x\"]}}", "\"tag\",".repeat(200_000));
    let many = format!("{{\"tags\":[{}\"x\"]}}", "\"tag\",".repeat(2000));
    let document = |text: String| Lie::OtherDocument(Document::new("application/json", text));
    let large = Then::Fails(&[Kind::TooLarge]);
    let cases = vec![
        (
            "a page that follows itself",
            Lie::Link(format!("<{start}>; rel=\"next\"")),
            Then::Fails(&[Kind::TooLarge, Kind::Corrupt]),
        ),
        (
            "the next page elsewhere",
            Lie::Link("<http://127.0.0.2:1/v2/x/tags/list>; rel=\"next\"".into()),
            Then::Either,
        ),
        ("a link that is none", Lie::Link("<<<;;;>; rel=next".into()), Then::Either),
        ("a megabyte of tags", document(long), large),
        ("two thousand tags", document(many), large),
        ("tags that are none", document("{\"tags\":[\"../../x\"]}".into()), CORRUPT),
        ("tags that are numbers", document("{\"tags\":[1,2]}".into()), CORRUPT),
        ("no JSON", document("<html>".into()), CORRUPT),
        ("endless", Lie::Endless, large),
    ];
    let cases = cases.into_iter().map(|(name, lie, then)| {
        lied_to(name, Bench::basic(), vec![Rule::tags(lie)], then, |b| async move {
            b.repository.tags().await.map(drop)
        })
    });
    run_all(cases.collect()).await;
}
