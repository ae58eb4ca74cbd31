//! Manifests, lists, and tries again.

use std::time::{Duration, Instant};

use crate::common::{Server, client, manifest, manifest_reply, quick, reply};
use bytes::Bytes;
use longshore_oci::image::media;
use longshore_oci::{Digest, Kind};
use longshore_registry::{Credentials, Document, Error, ManifestRef, Mirror, Repository};

fn of(server: &Server) -> Repository {
    server.repository(Credentials::Anonymous)
}

fn tag(t: &str) -> ManifestRef {
    ManifestRef::Tag(t.into())
}

#[tokio::test]
async fn a_manifest_by_tag_and_by_digest() {
    let bytes = manifest();
    let digest = Digest::of(&bytes);
    let server = Server::start(move |r| {
        let accept: Vec<_> =
            r.headers.iter().filter(|(n, _)| n == "accept").map(|(_, v)| v.clone()).collect();
        assert_eq!(
            accept,
            [media::OCI_INDEX, media::DOCKER_LIST, media::OCI_MANIFEST, media::DOCKER_MANIFEST]
        );
        assert!(r.header("user-agent").unwrap().starts_with("longshore/"));
        manifest_reply(&manifest()).with("Docker-Content-Digest", digest.to_string())
    });
    let repository = of(&server);
    for at in [tag("1.0"), ManifestRef::Digest(digest)] {
        let got = repository.manifest(&at).await.unwrap();
        assert_eq!((got.digest, got.media_type.as_str()), (digest, media::OCI_MANIFEST));
        assert_eq!(got.bytes, bytes);
        assert!(matches!(got.document, Document::Manifest(m) if m.layers.len() == 1));
    }
    assert_eq!(
        server.lines(),
        ["GET /v2/a/b/manifests/1.0".to_owned(), format!("GET /v2/a/b/manifests/{digest}")]
    );
    // One connection served all: the first tries whether the server speaks TLS.
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn atk_32_a_manifest_that_is_another_is_refused() {
    let server = Server::start(|_| manifest_reply(&manifest()));
    let other = ManifestRef::Digest(Digest::of(b"other"));
    assert!(matches!(of(&server).manifest(&other).await, Err(Error::DigestMismatch { .. })));
    let server = Server::start(|_| {
        manifest_reply(&manifest()).with("Docker-Content-Digest", Digest::of(b"other").to_string())
    });
    assert!(matches!(of(&server).manifest(&tag("1")).await, Err(Error::DigestMismatch { .. })));
    let server =
        Server::start(|_| manifest_reply(&manifest()).with("Docker-Content-Digest", "sha256:../../etc"));
    assert!(matches!(of(&server).manifest(&tag("1")).await, Err(Error::Corrupt(_))));
    // A digest that is not read here says nothing.
    let server = Server::start(|_| manifest_reply(&manifest()).with("Docker-Content-Digest", "sha512:00"));
    assert!(of(&server).manifest(&tag("1")).await.is_ok());
}

#[tokio::test]
async fn atk_23_a_manifest_of_another_type_is_refused() {
    let server = Server::start(|_| reply(200).with("Content-Type", media::OCI_INDEX).body(manifest()));
    let e = of(&server).manifest(&tag("1")).await.unwrap_err();
    assert!(matches!(e, Error::Corrupt(_)), "{e}");
    assert!(e.to_string().starts_with("a/b:1: "), "{e}");
    let server = Server::start(|_| {
        reply(200)
            .with("Content-Type", "application/vnd.docker.distribution.manifest.v1+prettyjws")
            .body(r#"{"schemaVersion":1,"fsLayers":[]}"#)
    });
    let e = of(&server).manifest(&tag("1")).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unimplemented, "{e}");
}

#[tokio::test]
async fn atk_32_an_endless_manifest_is_cut() {
    let server = Server::start(|_| reply(200).body(vec![b' '; 5 << 20]));
    let e = of(&server).manifest(&tag("1")).await.unwrap_err();
    assert!(matches!(e, Error::TooLarge(_)), "{e}");
}

#[tokio::test]
async fn refusals_keep_their_code_and_are_harmless() {
    let server = Server::start(|_| {
        reply(404).body(
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown\u001b[2J","detail":{"Tag":"x"}}]}"#,
        )
    });
    let e = of(&server).manifest(&tag("x")).await.unwrap_err();
    assert_eq!((e.kind(), e.code()), (Kind::NotFound, Some("MANIFEST_UNKNOWN")));
    assert_eq!(
        e.to_string(),
        format!("get the manifest of a/b:x at {}: manifest unknown: manifest unknown[2J", server.host())
    );
    assert_eq!(server.log().len(), 1);
    assert_eq!(of(&server).head_manifest(&tag("x")).await.unwrap(), None);
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_what_cannot_is_not() {
    for status in [408, 429, 500, 502, 503, 504] {
        let server =
            Server::start(move |r| if r.number < 2 { reply(status) } else { manifest_reply(&manifest()) });
        assert!(of(&server).manifest(&tag("1")).await.is_ok(), "{status}");
        let server = Server::start(move |_| reply(status));
        let e = of(&server).manifest(&tag("1")).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Unavailable);
        assert!(e.to_string().ends_with("(tried 3 times)"), "{e}");
        assert_eq!(server.log().len(), 3);
    }
    for status in [400, 403, 405, 418, 501] {
        let server = Server::start(move |_| reply(status));
        assert!(of(&server).manifest(&tag("1")).await.is_err());
        assert_eq!(server.log().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn retry_after_is_waited_for_within_a_limit() {
    let server = Server::start(|r| match r.number {
        0 => reply(429).with("Retry-After", "1"),
        _ => manifest_reply(&manifest()),
    });
    let began = Instant::now();
    assert!(of(&server).manifest(&tag("1")).await.is_ok());
    assert!(began.elapsed() >= Duration::from_secs(1));
    let server = Server::start(|_| {
        reply(429).with("Retry-After", "3600").body(
            r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit"}]}"#,
        )
    });
    let e = of(&server).manifest(&tag("1")).await.unwrap_err();
    assert_eq!(server.log().len(), 1);
    assert_eq!(e.refusal().unwrap().words(), "toomanyrequests: You have reached your pull rate limit");
    assert!(e.to_string().contains("the server asks to wait 3600 s"), "{e}");
}

#[tokio::test]
async fn a_manifest_that_breaks_off_is_got_again() {
    let server = Server::start(|r| match r.number {
        0 => crate::common::raw("200 OK", 5000, manifest()),
        _ => manifest_reply(&manifest()),
    });
    assert!(of(&server).manifest(&tag("1")).await.is_ok());
}

#[tokio::test]
async fn nobody_there() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let name = format!("{free}/a/b").parse().unwrap();
    let e = client(quick()).repository(&name, Credentials::Anonymous).manifest(&tag("1")).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unavailable);
    assert_eq!(
        e.to_string(),
        format!("get the manifest of a/b:1 at {free}: dial tcp {free}: connect: connection refused")
    );
    let name = "localhost:99999/a/b".parse().unwrap();
    let e = client(quick()).repository(&name, Credentials::Anonymous).manifest(&tag("1")).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Invalid, "{e}");
}

#[tokio::test]
async fn a_mirror_is_asked_for_tags_and_passed_over_when_it_lies() {
    let mirror = Server::start(|_| manifest_reply(&manifest()));
    let registry = Server::start(|_| reply(404));
    let mut config = quick();
    config.mirrors = vec![Mirror::new(&registry.host(), &mirror.url("")).unwrap()];
    let repository = client(config).repository(&registry.name(), Credentials::Anonymous);
    assert!(repository.manifest(&tag("1")).await.is_ok());
    assert_eq!(registry.connections(), 0);
    // By digest it does not have what it is asked for; the registry's own answer is the one that is told.
    let e = repository.manifest(&ManifestRef::Digest(Digest::of(b"x"))).await.unwrap_err();
    assert_eq!(e.kind(), Kind::NotFound, "{e}");
    // Writing and listing go to the registry itself.
    assert!(repository.tags().await.is_err());
    assert_eq!(mirror.log().len(), 2);
}

#[tokio::test]
async fn head() {
    let digest = Digest::of(&manifest());
    let server = Server::start(move |r| {
        assert_eq!(r.method, "HEAD");
        manifest_reply(&manifest()).with("Docker-Content-Digest", digest.to_string())
    });
    let found = of(&server).head_manifest(&tag("1")).await.unwrap().unwrap();
    assert_eq!(
        (found.digest, found.size, found.media_type.as_str()),
        (digest, manifest().len() as u64, media::OCI_MANIFEST)
    );
    // One that does not say enough is asked for the whole.
    let server = Server::start(|_| manifest_reply(&manifest()));
    assert_eq!(of(&server).head_manifest(&tag("1")).await.unwrap().unwrap().digest, digest);
    assert_eq!(server.lines(), ["HEAD /v2/a/b/manifests/1", "GET /v2/a/b/manifests/1"]);
    let server = Server::start(|_| reply(403));
    assert_eq!(of(&server).head_manifest(&tag("1")).await.unwrap_err().kind(), Kind::Denied);
}

#[tokio::test]
async fn tags_are_listed_page_by_page() {
    let server = Server::start(|r| match r.target.as_str() {
        "/v2/a/b/tags/list" => {
            reply(200).with("Link", "</v2/a/b/tags/list?last=b>; rel=\"next\"").body(r#"{"tags":["a","b"]}"#)
        }
        "/v2/a/b/tags/list?last=b" => {
            reply(200).with("Link", "<?last=c>; rel=next").body(r#"{"tags":["c"]}"#)
        }
        _ => reply(200).body(r#"{"name":"a/b","tags":null}"#),
    });
    assert_eq!(of(&server).tags().await.unwrap(), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_list_that_leads_elsewhere_or_nowhere_ends() {
    let strange = Server::start(|_| reply(200).body(r#"{"tags":["evil"]}"#));
    let link = format!("<{}>; rel=next", strange.url("/v2/a/b/tags/list"));
    let server = Server::start(move |_| reply(200).with("Link", link.clone()).body(r#"{"tags":["a"]}"#));
    assert!(matches!(of(&server).tags().await, Err(Error::Corrupt(_))));
    assert_eq!(strange.connections(), 0);

    let mut config = quick();
    config.limits.pages = 5;
    config.limits.entries = 12;
    let turn = Server::start(|r| {
        reply(200).with("Link", format!("<?n={}>; rel=next", r.number)).body(r#"{"tags":["a"]}"#)
    });
    let e = client(config.clone()).repository(&turn.name(), Credentials::Anonymous).tags().await.unwrap_err();
    assert!(e.to_string().contains("too many pages"), "{e}");
    assert_eq!(turn.log().len(), 5);
    let long = Server::start(|r| {
        reply(200)
            .with("Link", format!("<?n={}>; rel=next", r.number))
            .body(r#"{"tags":["a","b","c","d","e"]}"#)
    });
    let e = client(config).repository(&long.name(), Credentials::Anonymous).tags().await.unwrap_err();
    assert!(e.to_string().contains("more than 12 entries"), "{e}");
    let odd = Server::start(|_| reply(200).body(r#"{"tags":["../../x"]}"#));
    assert!(matches!(of(&odd).tags().await, Err(Error::Corrupt(_))));
}

fn index(kinds: &[&str]) -> String {
    let entry = |kind: &&str| serde_json::json!({"mediaType": media::OCI_MANIFEST, "digest": Digest::of(kind.as_bytes()), "size": 1, "artifactType": kind});
    serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media::OCI_INDEX,
        "manifests": kinds.iter().map(entry).collect::<Vec<_>>(),
    })
    .to_string()
}

#[tokio::test]
async fn referrers_by_api_and_by_tag() {
    let subject = Digest::of(b"subject");
    let server = Server::start(move |r| {
        assert_eq!(r.target, format!("/v2/a/b/referrers/{subject}?artifactType=app%2Fsig"));
        reply(200).with("Content-Type", media::OCI_INDEX).body(index(&["app/sig", "app/sbom"]))
    });
    let found = of(&server).referrers(&subject, Some("app/sig")).await.unwrap();
    assert_eq!(found.manifests.len(), 1);
    assert_eq!(found.manifests[0].artifact_type.as_deref(), Some("app/sig"));

    let server = Server::start(move |r| match r.target.as_str() {
        t if t == format!("/v2/a/b/manifests/sha256-{}", subject.hex()) => {
            reply(200).with("Content-Type", media::OCI_INDEX).body(index(&["app/sig", "app/sbom"]))
        }
        _ => reply(404).body("404 page not found"),
    });
    assert_eq!(of(&server).referrers(&subject, None).await.unwrap().manifests.len(), 2);
    let server = Server::start(|_| reply(404));
    assert!(of(&server).referrers(&subject, None).await.unwrap().manifests.is_empty());
    let server = Server::start(|_| reply(403));
    assert!(of(&server).referrers(&subject, None).await.is_err());
}

#[tokio::test]
async fn a_manifest_is_put() {
    let bytes = Bytes::from(manifest());
    let digest = Digest::of(&bytes);
    let sent = bytes.clone();
    let server = Server::start(move |r| {
        assert_eq!(r.header("content-type"), Some(media::OCI_MANIFEST));
        assert_eq!(r.body, sent);
        if r.number == 0 { reply(503) } else { reply(201).with("Docker-Content-Digest", digest.to_string()) }
    });
    let repository = of(&server);
    assert_eq!(repository.put_manifest(&tag("1"), media::OCI_MANIFEST, bytes.clone()).await.unwrap(), digest);
    assert_eq!(server.lines(), ["PUT /v2/a/b/manifests/1", "PUT /v2/a/b/manifests/1"]);
    let other = ManifestRef::Digest(Digest::of(b"x"));
    let e = repository.put_manifest(&other, media::OCI_MANIFEST, bytes.clone()).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Invalid);
    let liar = Server::start(|_| reply(201).with("Docker-Content-Digest", Digest::of(b"x").to_string()));
    assert!(of(&liar).put_manifest(&tag("1"), media::OCI_MANIFEST, bytes).await.is_err());
}
