//! Uploads to registries that take pieces, that do not, and that break off.

use std::io::Write as _;
use std::sync::{Arc, Mutex};

use crate::common::{Reply, Request, Server, bytes, client, me, quick, reply};
use longshore_oci::{Digest, Kind};
use longshore_registry::{Credentials, Error, Repository, Result};

const SIZE: usize = 3_000_000;

fn file(bytes: &[u8]) -> std::fs::File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

async fn upload(repository: &Repository, blob: &[u8]) -> Result<Vec<u64>> {
    let mut told = Vec::new();
    let size = blob.len() as u64;
    repository.upload_blob(Digest::of(blob), size, file(blob), |n| told.push(n)).await?;
    assert_eq!(told.last(), Some(&size));
    Ok(told)
}

/// What an upload is at: the bytes so far.
type Store = Arc<Mutex<Vec<u8>>>;

/// Answers as the distribution project's registry does; `before` may answer in its place.
fn taking(
    store: &Store,
    before: impl Fn(&Request, &mut Vec<u8>) -> Option<Reply> + Send + Sync + 'static,
) -> Server {
    let store = store.clone();
    Server::start(move |r| {
        let mut has = store.lock().unwrap();
        if let Some(reply) = before(r, &mut has) {
            return reply;
        }
        let range = |has: &[u8]| format!("0-{}", has.len().saturating_sub(1));
        match r.method.as_str() {
            "HEAD" => reply(404),
            "POST" => {
                has.clear();
                reply(202).with("Location", "/v2/a/b/blobs/uploads/u?_state=s%2B").with("Range", "0-0")
            }
            "PATCH" => {
                has.extend_from_slice(&r.body);
                reply(202).with("Location", "u2").with("Range", range(&has))
            }
            "PUT" => {
                has.extend_from_slice(&r.body);
                reply(201)
            }
            "GET" => reply(204).with("Range", range(&has)),
            "DELETE" => reply(204),
            _ => reply(405),
        }
    })
}

fn of(server: &Server) -> Repository {
    server.repository(Credentials::Anonymous)
}

/// With pieces of a million bytes.
fn in_pieces(server: &Server) -> Repository {
    let mut config = quick();
    config.limits.upload_chunk = 1_000_000;
    client(config).repository(&server.name(), Credentials::Anonymous)
}

#[tokio::test]
async fn a_small_blob_goes_in_two_requests() {
    let store = Store::default();
    let server = taking(&store, |_, _| None);
    for blob in [b"".as_slice(), b"blob"] {
        upload(&of(&server), blob).await.unwrap();
        assert_eq!(*store.lock().unwrap(), blob);
    }
    let digest = Digest::of(b"blob").to_string().replace(':', "%3A");
    let lines = server.lines();
    assert_eq!(lines[2], "POST /v2/a/b/blobs/uploads/");
    assert_eq!(lines[3], format!("PUT /v2/a/b/blobs/uploads/u?_state=s%2B&digest={digest}"));
}

#[tokio::test]
async fn a_blob_goes_at_once_and_a_long_one_in_pieces() {
    let store = Store::default();
    let server = taking(&store, |_, _| None);
    let blob = bytes(SIZE);
    upload(&of(&server), &blob).await.unwrap();
    assert_eq!(*store.lock().unwrap(), blob);
    let log = server.log();
    assert_eq!(log.iter().map(|r| r.method.as_str()).collect::<Vec<_>>(), ["POST", "PATCH", "PUT"]);
    assert_eq!((log[1].body.len(), log[1].header("content-range")), (SIZE, None));
    assert!(log[2].target.starts_with("/v2/a/b/blobs/uploads/u2?digest="), "{}", log[2].target);

    let told = upload(&in_pieces(&server), &blob).await.unwrap();
    assert_eq!(*store.lock().unwrap(), blob);
    assert!(told.is_sorted() && told.contains(&1_000_000) && told.contains(&2_000_000), "{told:?}");
    let ranges: Vec<_> =
        server.log()[3..].iter().filter_map(|r| r.header("content-range").map(str::to_owned)).collect();
    assert_eq!(ranges, ["0-999999", "1000000-1999999", "2000000-2999999"]);
}

#[tokio::test]
async fn a_broken_upload_goes_on_from_what_the_registry_has() {
    let store = Store::default();
    let server = taking(&store, |r, has| {
        let first = r.header("content-range") == Some("1000000-1999999");
        (first && has.len() == 1_000_000).then(|| {
            // A part of the piece arrived, and then the connection broke.
            has.extend_from_slice(&r.body[..300_000]);
            Reply::Raw(Box::new(|_| {}))
        })
    });
    let blob = bytes(SIZE);
    upload(&in_pieces(&server), &blob).await.unwrap();
    assert_eq!(*store.lock().unwrap(), blob);
    let ranges: Vec<_> =
        server.log().iter().filter_map(|r| r.header("content-range").map(str::to_owned)).collect();
    assert_eq!(ranges, ["0-999999", "1000000-1999999", "1300000-2299999", "2300000-2999999"]);
}

#[tokio::test]
async fn an_upload_that_the_registry_lost_begins_anew() {
    let store = Store::default();
    let server = taking(&store, |r, has| match (r.method.as_str(), r.number) {
        ("PATCH", 2) => Some(Reply::Raw(Box::new(|_| {}))),
        ("GET", _) => {
            has.clear();
            Some(reply(404).body(r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}"#))
        }
        _ => None,
    });
    let blob = bytes(SIZE);
    upload(&in_pieces(&server), &blob).await.unwrap();
    assert_eq!(*store.lock().unwrap(), blob);
}

#[tokio::test]
async fn a_registry_that_takes_no_pieces_gets_all_at_once() {
    let store = Store::default();
    let server = taking(&store, |r, _| {
        let later = r.header("content-range").is_some_and(|c| !c.starts_with("0-"));
        later.then(|| reply(400).body(r#"{"errors":[{"code":"BLOB_UPLOAD_INVALID"}]}"#))
    });
    let blob = bytes(SIZE);
    upload(&in_pieces(&server), &blob).await.unwrap();
    assert_eq!(*store.lock().unwrap(), blob);
}

#[tokio::test]
async fn a_blob_that_arrived_though_the_answer_was_lost_is_there() {
    let store = Store::default();
    let server = taking(&store, |r, has| match r.method.as_str() {
        "PUT" => {
            has.extend_from_slice(&r.body);
            Some(Reply::Raw(Box::new(|_| {})))
        }
        "HEAD" => Some(reply(200).body(&*has)),
        _ => None,
    });
    upload(&of(&server), b"blob").await.unwrap();
    assert_eq!(server.lines().iter().filter(|l| l.starts_with("POST")).count(), 1);
}

#[tokio::test]
async fn an_upload_that_cannot_be_ends_and_is_cancelled() {
    let store = Store::default();
    let server = taking(&store, |r, _| {
        (r.method == "PUT")
            .then(|| reply(400).body(r#"{"errors":[{"code":"DIGEST_INVALID","message":"no"}]}"#))
    });
    let e = upload(&of(&server), b"blob").await.unwrap_err();
    assert_eq!((e.kind(), e.code()), (Kind::Invalid, Some("DIGEST_INVALID")));
    assert!(server.lines().last().unwrap().starts_with("DELETE "));
    let server = Server::start(|_| reply(503));
    let e = upload(&of(&server), b"blob").await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unavailable, "{e}");
    let server = Server::start(|_| reply(403).body(r#"{"errors":[{"code":"DENIED","message":"no"}]}"#));
    let e = upload(&of(&server), b"blob").await.unwrap_err();
    assert_eq!((e.kind(), e.code()), (Kind::Denied, Some("DENIED")));
    assert_eq!(server.log().len(), 1);
}

#[tokio::test]
async fn a_file_that_is_too_short_is_this_machines_fault() {
    let store = Store::default();
    let server = taking(&store, |_, _| None);
    let repository = of(&server);
    let e = repository.upload_blob(Digest::of(b"x"), SIZE as u64, file(b"short"), |_| {}).await.unwrap_err();
    assert!(matches!(e, Error::Internal(_)), "{e}");
    assert!(e.to_string().contains("read the file to upload"), "{e}");
}

#[tokio::test]
async fn a_registry_that_says_it_has_more_than_was_sent_is_refused() {
    for range in ["0-9999999", "0-5"] {
        let store = Store::default();
        let server = taking(&store, move |r, _| {
            (r.method == "PATCH" && r.header("content-range").is_some_and(|c| c.starts_with("1000")))
                .then(|| reply(202).with("Range", range))
        });
        let e = upload(&in_pieces(&server), &bytes(SIZE)).await.unwrap_err();
        assert!(matches!(e, Error::Corrupt(_)), "{e}");
    }
}

#[tokio::test]
async fn atk_30_an_upload_that_is_sent_elsewhere_takes_no_authorization_there() {
    let store = Store::default();
    let other = taking(&store, |_, _| None);
    let place = other.url("/elsewhere");
    let registry = Server::start(move |r| match (r.header("authorization"), r.method.as_str()) {
        (Some(crate::common::ME), "POST") => reply(202).with("Location", place.clone()),
        _ => reply(401).with("WWW-Authenticate", "Basic"),
    });
    let blob = bytes(SIZE);
    upload(&registry.repository(me()), &blob).await.unwrap();
    assert_eq!(*store.lock().unwrap(), blob);
    assert!(other.log().iter().all(|r| r.header("authorization").is_none()));
}

#[tokio::test]
async fn a_server_that_takes_nothing_is_given_up() {
    let server = Server::start(|r| match r.method.as_str() {
        "POST" => reply(202).with("Location", "/u"),
        _ => reply(404),
    });
    // A second listener that accepts and never reads.
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let place = format!("http://{}/u", deaf.local_addr().unwrap());
    drop(server);
    let server = Server::start(move |r| match r.method.as_str() {
        "POST" => reply(202).with("Location", place.clone()),
        _ => reply(404),
    });
    let mut config = quick();
    config.limits.idle = std::time::Duration::from_millis(300);
    config.limits.connect = std::time::Duration::from_millis(300);
    config.limits.header = std::time::Duration::from_millis(300);
    config.limits.attempts = 1;
    let repository = client(config).repository(&server.name(), Credentials::Anonymous);
    let e = upload(&repository, &bytes(20_000_000)).await.unwrap_err();
    assert!(matches!(e, Error::TimedOut { .. }), "{e}");
    assert!(e.to_string().contains("took no byte"), "{e}");
}

#[tokio::test]
async fn a_mount_is_made_or_not() {
    let server = Server::start(|r| {
        let digest = Digest::of(b"blob");
        assert_eq!(r.line(), format!("POST /v2/a/b/blobs/uploads/?mount={digest}&from=c%2Fd"));
        reply(201)
    });
    assert!(of(&server).mount_blob(&Digest::of(b"blob"), "c/d").await.unwrap());
    let server = Server::start(|r| match r.method.as_str() {
        "POST" => reply(202).with("Location", "/v2/a/b/blobs/uploads/u"),
        _ => reply(204),
    });
    assert!(!of(&server).mount_blob(&Digest::of(b"blob"), "c/d").await.unwrap());
    assert_eq!(server.lines()[1], "DELETE /v2/a/b/blobs/uploads/u");

    // The token is for both repositories.
    let realm = Server::start(|_| reply(200).body(r#"{"token":"t"}"#));
    let url = realm.url("/t");
    let server = Server::start(move |r| match r.header("authorization") {
        Some("Bearer t") => reply(201),
        _ => reply(401).with("WWW-Authenticate", format!(r#"Bearer realm="{url}""#)),
    });
    assert!(of(&server).mount_blob(&Digest::of(b"blob"), "c/d").await.unwrap());
    assert_eq!(
        realm.lines(),
        ["GET /t?scope=repository%3Aa%2Fb%3Apull%2Cpush&scope=repository%3Ac%2Fd%3Apull"]
    );
}
