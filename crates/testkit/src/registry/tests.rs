//! The registry against plain requests: honest where it should be, and a liar where it is told to.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use longshore_oci::Digest;

use super::http::find;
use super::*;

/// An answer as it came.
struct Got {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Everything.
    raw: Vec<u8>,
}

impl Got {
    fn header(&self, name: &str) -> &str {
        find(&self.headers, name).unwrap_or_default()
    }
}

/// One request on a connection of its own, read to the end of it.
fn ask(registry: &Registry, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Got {
    let mut tcp = TcpStream::connect(registry.host()).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut head =
        format!("{method} {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", registry.host());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    tcp.write_all(head.as_bytes()).unwrap();
    let _ = tcp.write_all(body);
    let mut raw = Vec::new();
    let _ = tcp.read_to_end(&mut raw);
    let mut headers = [httparse::EMPTY_HEADER; 2000];
    let mut parsed = httparse::Response::new(&mut headers);
    match parsed.parse(&raw) {
        Ok(httparse::Status::Complete(n)) => Got {
            status: parsed.code.unwrap(),
            headers: parsed
                .headers
                .iter()
                .map(|h| (h.name.to_owned(), String::from_utf8_lossy(h.value).into_owned()))
                .collect(),
            body: raw[n..].to_vec(),
            raw,
        },
        _ => Got { status: 0, headers: Vec::new(), body: Vec::new(), raw },
    }
}

fn get(registry: &Registry, target: &str) -> Got {
    ask(registry, "GET", target, &[], b"")
}

#[test]
fn an_image_is_pulled_piece_by_piece() {
    let registry = Registry::start();
    let image =
        Image::new().layer(Layer::tar(&[("a", b"1")]).gzip()).layer(Layer::tar(&[("b", b"2")]).zstd());
    let pushed = image.put(&registry, "zoo/lion", "1");
    assert_eq!(get(&registry, "/v2/").status, 200);
    let manifest = get(&registry, "/v2/zoo/lion/manifests/1");
    assert_eq!((manifest.status, Digest::of(&manifest.body)), (200, pushed.manifest));
    assert_eq!(manifest.header("docker-content-digest"), pushed.manifest.to_string());
    assert_eq!(manifest.header("content-type"), "application/vnd.oci.image.manifest.v1+json");
    let head = ask(&registry, "HEAD", &format!("/v2/zoo/lion/manifests/{}", pushed.manifest), &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), manifest.body.len().to_string());
    for digest in pushed.layers.iter().chain([&pushed.config]) {
        let path = format!("/v2/zoo/lion/blobs/{digest}");
        let blob = get(&registry, &path);
        assert_eq!((blob.status, Digest::of(&blob.body)), (200, *digest));
        let part = ask(&registry, "GET", &path, &[("Range", "bytes=10-19")], b"");
        assert_eq!((part.status, &part.body[..]), (206, &blob.body[10..20]));
        assert_eq!(part.header("content-range"), format!("bytes 10-19/{}", blob.body.len()));
        let past = ask(&registry, "GET", &path, &[("Range", "bytes=100000-")], b"");
        assert_eq!(past.status, 416);
    }
    assert_eq!(get(&registry, "/v2/zoo/other/manifests/1").status, 404);
    assert_eq!(get(&registry, &format!("/v2/zoo/other/blobs/{}", pushed.layers[0])).status, 404);
    assert_eq!(registry.count("GET", "/manifests/"), 2);
    assert!(registry.requests().iter().all(|r| r.status != 0 && !r.has_credentials()));
}

#[test]
fn a_blob_is_uploaded_in_chunks_at_once_and_mounted() {
    let registry = Registry::start();
    let digest = Digest::of(b"hello");
    let begun = ask(&registry, "POST", "/v2/a/blobs/uploads/", &[], b"");
    assert_eq!(begun.status, 202);
    let chunk = ask(&registry, "PATCH", begun.header("location"), &[("Content-Range", "0-1")], b"he");
    assert_eq!((chunk.status, chunk.header("range")), (202, "0-1"));
    let wrong = ask(&registry, "PATCH", chunk.header("location"), &[("Content-Range", "7-8")], b"xx");
    assert_eq!((wrong.status, wrong.header("range")), (416, "0-1"));
    assert_eq!(ask(&registry, "PATCH", begun.header("location"), &[], b"xx").status, 400, "an old state");
    let status = ask(&registry, "GET", chunk.header("location"), &[], b"");
    assert_eq!((status.status, status.header("range")), (204, "0-1"));
    let end = format!("{}&digest={digest}", status.header("location"));
    let put = ask(&registry, "PUT", &end, &[], b"llo");
    assert_eq!((put.status, put.header("docker-content-digest")), (201, digest.to_string().as_str()));
    assert_eq!(registry.blob("a", &digest).unwrap().to_vec(), b"hello");

    let mounted = ask(&registry, "POST", &format!("/v2/b/blobs/uploads/?mount={digest}&from=a"), &[], b"");
    assert_eq!(mounted.status, 201);
    assert!(registry.blob("b", &digest).is_some());
    let absent = ask(&registry, "POST", &format!("/v2/b/blobs/uploads/?mount={digest}&from=c"), &[], b"");
    assert_eq!(absent.status, 202);
    let whole =
        ask(&registry, "POST", &format!("/v2/b/blobs/uploads/?digest={}", Digest::of(b"x")), &[], b"x");
    assert_eq!(whole.status, 201);
    let wrong = ask(&registry, "POST", &format!("/v2/b/blobs/uploads/?digest={digest}"), &[], b"x");
    assert_eq!(wrong.status, 400);
    assert_eq!(registry.open_uploads(), 1);
}

#[test]
fn manifests_are_put_listed_referred_to_and_deleted() {
    let registry = Registry::start();
    let image = Image::new().layer(Layer::tar(&[("a", b"1")]));
    let document = image.document();
    let headers = [("Content-Type", document.media_type.as_str())];
    let refused = ask(&registry, "PUT", "/v2/r/manifests/1", &headers, &document.bytes);
    assert!(
        refused.status == 404 && String::from_utf8_lossy(&refused.body).contains("MANIFEST_BLOB_UNKNOWN")
    );
    image.put_blobs(&registry, "r");
    for tag in ["1", "2", "3"] {
        assert_eq!(
            ask(&registry, "PUT", &format!("/v2/r/manifests/{tag}"), &headers, &document.bytes).status,
            201
        );
    }
    let page = get(&registry, "/v2/r/tags/list?n=2");
    assert_eq!(page.body, br#"{"tags":["1","2"],"name":"r"}"#);
    assert_eq!(page.header("link"), "</v2/r/tags/list?n=2&last=2>; rel=\"next\"");
    assert_eq!(get(&registry, "/v2/r/tags/list?n=2&last=2").body, br#"{"tags":["3"],"name":"r"}"#);
    assert_eq!(get(&registry, "/v2/_catalog").body, br#"{"repositories":["r"]}"#);

    let digest = Digest::of(&document.bytes);
    let mut about = image.manifest();
    about["subject"] =
        serde_json::json!({"mediaType": document.media_type, "digest": digest.to_string(), "size": 1});
    about["artifactType"] = "application/x-signature".into();
    let put = ask(&registry, "PUT", "/v2/r/manifests/about", &headers, about.to_string().as_bytes());
    assert_eq!((put.status, put.header("oci-subject")), (201, digest.to_string().as_str()));
    let referrers = get(&registry, &format!("/v2/r/referrers/{digest}?artifactType=application/x-signature"));
    assert!(String::from_utf8_lossy(&referrers.body).contains(put.header("docker-content-digest")));
    let none = get(&registry, &format!("/v2/r/referrers/{digest}?artifactType=x"));
    assert!(String::from_utf8_lossy(&none.body).contains("\"manifests\":[]"));

    assert_eq!(ask(&registry, "DELETE", "/v2/r/manifests/1", &[], b"").status, 202);
    assert_eq!(registry.tags("r"), ["2", "3", "about"]);
    assert_eq!(ask(&registry, "DELETE", &format!("/v2/r/manifests/{digest}"), &[], b"").status, 202);
    assert_eq!(get(&registry, "/v2/r/manifests/2").status, 404);
}

#[test]
fn passwords_and_tokens_are_asked_for() {
    let basic = "Basic dXNlcjpwYXNz";
    let registry = Registry::builder().basic("user", "pass").start();
    let refused = get(&registry, "/v2/");
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, "Basic realm=\"test\""));
    assert_eq!(ask(&registry, "GET", "/v2/", &[("Authorization", basic)], b"").status, 200);
    assert_eq!(registry.requests().iter().filter(|r| r.has_credentials()).count(), 1);

    let realm = Registry::builder().token("user", "pass", true).start();
    let registry = Registry::builder().token_from(&realm).start();
    let pushed = Image::new().put(&registry, "a/b", "1");
    let blob = format!("/v2/a/b/blobs/{}", pushed.config);
    let refused = get(&registry, &blob);
    let challenge =
        format!("Bearer realm=\"{}/token\",service=\"test\",scope=\"repository:a/b:pull\"", realm.origin());
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, challenge.as_str()));
    let token = |headers: &[(&str, &str)], scope: &str| {
        let got = ask(&realm, "GET", &format!("/token?service=test&scope={scope}"), headers, b"");
        let value: serde_json::Value = serde_json::from_slice(&got.body).unwrap();
        (got.status, format!("Bearer {}", value["token"].as_str().unwrap_or_default()))
    };
    let (_, anonymous) = token(&[], "repository:a/b:pull,push");
    let try_with = |token: &str| {
        let headers = [("Authorization", token)];
        let pull = ask(&registry, "GET", &blob, &headers, b"").status;
        (pull, ask(&registry, "POST", "/v2/a/b/blobs/uploads/", &headers, b"").status)
    };
    assert_eq!(try_with(&anonymous), (200, 401));
    let (_, known) = token(&[("Authorization", basic)], "repository:a/b:pull,push");
    assert_eq!(try_with(&known), (200, 202));
    assert_eq!(token(&[("Authorization", "Basic eDp5")], "repository:a/b:pull").0, 401);
    let form = b"grant_type=refresh_token&refresh_token=a-refresh-token&scope=repository%3Aa%2Fb%3Apull";
    assert_eq!(ask(&realm, "POST", "/token", &[], form).status, 200);
    registry.expire_tokens();
    assert_eq!(try_with(&known), (401, 401));
}

#[test]
fn it_speaks_tls_with_a_certificate_of_its_own() {
    let registry = Registry::builder().tls().start();
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, registry.ca().unwrap()).unwrap();
    let curl = |args: &[&str]| {
        let url = format!("{}/v2/", registry.origin());
        std::process::Command::new("curl").args(args).args(["-sS", "-m", "20", &url]).output().unwrap()
    };
    let known = curl(&["--cacert", ca.to_str().unwrap()]);
    assert_eq!(known.stdout, b"{}", "{}", String::from_utf8_lossy(&known.stderr));
    assert!(!curl(&[]).status.success(), "nobody else knows its authority");
}

#[test]
fn a_rule_counts_and_chooses() {
    let registry = Registry::start();
    let pushed = Image::new().layer(Layer::tar(&[("a", b"1")])).put(&registry, "r", "1");
    let (config, layer) =
        (format!("/v2/r/blobs/{}", pushed.config), format!("/v2/r/blobs/{}", pushed.layers[0]));
    registry.lie(Rule::blobs(Lie::Status(503, Some("7".into()))).path(pushed.config).skip(1).times(2));
    let statuses: Vec<u16> = (0..5).map(|_| get(&registry, &config).status).collect();
    assert_eq!(statuses, [200, 503, 503, 200, 200]);
    assert_eq!(get(&registry, &layer).status, 200);
    registry.lie(Rule::blobs(Lie::RangeIgnored).ranged(true));
    registry.lie(Rule::any(Lie::Status(418, None)).authorized(true));
    let range = ("Range", "bytes=5-");
    assert_eq!(ask(&registry, "GET", &layer, &[range], b"").status, 200);
    assert_eq!(ask(&registry, "GET", &layer, &[("Authorization", "x")], b"").status, 418);
    registry.be_honest();
    assert_eq!(ask(&registry, "GET", &layer, &[range], b"").status, 206);
    assert_eq!(registry.requests().last().unwrap().status, 206);
}

/// A registry with one blob, `0123456789`, that lies about it.
fn lying(lie: Lie) -> (Registry, String) {
    let registry = Registry::start();
    let digest = registry.put_blob("r", &b"0123456789"[..]);
    registry.lie(Rule::any(lie));
    (registry, format!("/v2/r/blobs/{digest}"))
}

#[test]
fn lies_about_bytes_and_heads() {
    let tell = |lie| {
        let (registry, path) = lying(lie);
        get(&registry, &path)
    };
    assert_eq!(tell(Lie::OtherBytes).body, b"0123456789".map(|b| !b));
    let short = tell(Lie::Short(4));
    assert_eq!((short.header("content-length"), &short.body[..]), ("4", &b"0123"[..]));
    let long = tell(Lie::Long(2));
    assert_eq!((long.header("content-length"), &long.body[..]), ("12", &b"0123456789\0\0"[..]));
    let cut = tell(Lie::CutAfter(3));
    assert_eq!((cut.header("content-length"), &cut.body[..]), ("10", &b"012"[..]));
    assert_eq!(
        tell(Lie::DigestHeader(Some("sha256:beef".into()))).header("docker-content-digest"),
        "sha256:beef"
    );
    assert_eq!(tell(Lie::DigestHeader(None)).header("docker-content-digest"), "");
    assert_eq!(tell(Lie::ContentType(Some("text/html".into()))).header("content-type"), "text/html");
    assert_eq!(tell(Lie::ContentLength("99".into())).header("content-length"), "99");
    let unsaid = tell(Lie::NoLength);
    assert_eq!((unsaid.header("content-length"), &unsaid.body[..]), ("", &b"0123456789"[..]));
    assert!(tell(Lie::BadChunk).body.ends_with(b"what?\r\n"));
    assert_eq!(tell(Lie::HugeHeader(1 << 20)).header("x-huge").len(), 1 << 20);
    assert_eq!(tell(Lie::ManyHeaders(1000)).header("x-header-999"), "x");
    assert_eq!(tell(Lie::Raw(b"220 mail\r\n".to_vec())).raw, b"220 mail\r\n");
    assert!(tell(Lie::Close).raw.is_empty());
    assert!(tell(Lie::Reset).raw.is_empty());
    assert_eq!(tell(Lie::HugeError(500, 1 << 20)).body.len(), (1 << 20) + 44);
    assert_eq!(tell(Lie::SlowBody(Duration::from_millis(1))).body, b"0123456789");
    assert_eq!(tell(Lie::SlowHead(Duration::from_micros(100))).body, b"0123456789");
    assert!(tell(Lie::Behind(b"HTTP/1.1 200 OK\r\n".to_vec())).raw.ends_with(b"9HTTP/1.1 200 OK\r\n"));
}

#[test]
fn lies_about_ranges_and_redirects() {
    let ranged = |lie| {
        let (registry, path) = lying(lie);
        ask(&registry, "GET", &path, &[("Range", "bytes=4-")], b"")
    };
    let other = ranged(Lie::RangeOtherBytes);
    assert_eq!((other.status, other.header("content-range"), other.body.len()), (206, "bytes 4-9/10", 6));
    assert_ne!(other.body, b"456789");
    let start = ranged(Lie::RangeFromStart);
    assert_eq!(
        (start.status, start.header("content-range"), &start.body[..]),
        (206, "bytes 4-9/10", &b"012345"[..])
    );
    let ignored = ranged(Lie::RangeIgnored);
    assert_eq!((ignored.status, &ignored.body[..]), (200, &b"0123456789"[..]));
    assert_eq!(ranged(Lie::ContentRange(Some("bytes 0-5/6".into()))).header("content-range"), "bytes 0-5/6");
    assert_eq!(ranged(Lie::RangeRefused).status, 416);

    let (registry, path) = lying(Lie::RedirectLoop);
    assert_eq!(
        (get(&registry, &path).status, get(&registry, &path).header("location")),
        (307, path.as_str())
    );
    let (registry, path) = lying(Lie::RedirectToHost(302, "http://127.0.0.2:1".into()));
    assert_eq!(get(&registry, &path).header("location"), format!("http://127.0.0.2:1{path}"));
    let (registry, path) = lying(Lie::moving(vec![Document::new("a", "1"), Document::new("b", "2")]));
    let bodies: Vec<Vec<u8>> = (0..3).map(|_| get(&registry, &path).body).collect();
    assert_eq!(bodies, [b"1", b"2", b"1"]);
    let (registry, path) = lying(Lie::Challenge(vec!["Basic".into(), "Bearer".into()]));
    let refused = get(&registry, &path);
    assert_eq!(refused.headers.iter().filter(|(n, _)| n == "WWW-Authenticate").count(), 2);
}

#[test]
fn lies_about_uploads() {
    let registry = Registry::start();
    let start = "/v2/r/blobs/uploads/";
    registry.lie(Rule::upload_starts(Lie::LocationOnHost("http://127.0.0.2:1".into())).times(1));
    assert!(
        ask(&registry, "POST", start, &[], b"").header("location").starts_with("http://127.0.0.2:1/v2/r/")
    );
    let begun = ask(&registry, "POST", start, &[], b"");
    registry.lie(Rule::uploads(Lie::RefuseAfter(3, 500)).times(1));
    assert_eq!(ask(&registry, "PATCH", begun.header("location"), &[], b"0123456789").status, 500);
    registry.lie(Rule::uploads(Lie::UploadRange(Some("0-1".into()))).times(1));
    let chunk = ask(&registry, "PATCH", begun.header("location"), &[], b"0123456789");
    assert_eq!((chunk.status, chunk.header("range")), (202, "0-1"));
    let digest = Digest::of(b"0123456789");
    registry.lie(Rule::uploads(Lie::DigestHeader(Some(Digest::of(b"").to_string()))).times(1));
    let put = ask(&registry, "PUT", &format!("{}&digest={digest}", chunk.header("location")), &[], b"");
    assert_eq!(
        (put.status, put.header("docker-content-digest")),
        (201, Digest::of(b"").to_string().as_str())
    );
    registry.lie(Rule::upload_starts(Lie::Mounted).times(1));
    let mounted = ask(&registry, "POST", &format!("{start}?mount={}&from=x", Digest::of(b"no")), &[], b"");
    assert_eq!(mounted.status, 201);
    assert!(registry.blob("r", &Digest::of(b"no")).is_none());
    registry.lie(Rule::blob_heads(Lie::Has));
    let head = ask(&registry, "HEAD", &format!("/v2/r/blobs/{}", Digest::of(b"no")), &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[test]
fn endless_and_silent_answers_end_with_the_registry() {
    let mut left = Vec::new();
    for lie in [Lie::Stall, Lie::StallAfter(3), Lie::Endless, Lie::EndlessWithLength, Lie::Continues] {
        let (registry, path) = lying(lie);
        let mut tcp = TcpStream::connect(registry.host()).unwrap();
        tcp.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
        tcp.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut buf = vec![0; 1 << 20];
        let mut got = 0;
        while got < 4 << 20
            && let Ok(n) = tcp.read(&mut buf)
            && n > 0
        {
            got += n;
        }
        left.push((tcp, got));
        // Dropped here: it does not wait for its clients.
        drop(registry);
    }
    let got: Vec<bool> = left.iter().map(|(_, got)| *got >= 4 << 20).collect();
    assert_eq!(got, [false, false, true, true, true]);
}

#[test]
fn hostile_images_are_delivered_as_they_are() {
    let registry = Registry::start();
    for hostile in Hostile::ALL {
        if matches!(hostile, Hostile::GzipBomb | Hostile::ZstdBomb) {
            continue;
        }
        let digest = hostile.put(&registry, "evil", "latest", "http://127.0.0.2:1");
        let got = get(&registry, "/v2/evil/manifests/latest");
        assert_eq!((got.status, Digest::of(&got.body)), (200, digest), "{hostile:?}");
    }
}
