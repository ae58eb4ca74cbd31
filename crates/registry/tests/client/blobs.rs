//! Blobs from servers that break off, lie, dawdle or do not end.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::{Reply, Server, bytes, client, collect, descriptor, quick, raw, reply};
use futures_util::StreamExt as _;
use longshore_oci::Kind;
use longshore_registry::{Credentials, Error, Limits, Mirror, Repository, Result};

const SIZE: usize = 300_000;

async fn get(repository: &Repository, blob: &[u8]) -> Result<Vec<u8>> {
    collect(repository.blob(&descriptor(blob)).await?).await
}

fn of(server: &Server) -> Repository {
    server.repository(Credentials::Anonymous)
}

/// Where a request's range begins.
fn offset(range: Option<&str>) -> usize {
    range.map_or(0, |r| r.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap())
}

fn partial(blob: &[u8], from: usize) -> Reply {
    let range = format!("bytes {from}-{}/{}", blob.len() - 1, blob.len());
    reply(206).with("Content-Range", range).body(&blob[from..])
}

#[tokio::test]
async fn a_broken_connection_is_resumed_where_it_broke() {
    let blob = bytes(SIZE);
    let content = blob.clone();
    let server = Server::start(move |r| match r.number {
        0 => raw("200 OK", SIZE as u64, content[..100_000].to_vec()),
        1 => {
            let from = offset(r.header("range"));
            let head = format!(
                "HTTP/1.1 206 X\r\nContent-Range: bytes {from}-{}/{SIZE}\r\nContent-Length: {}\r\n\r\n",
                SIZE - 1,
                SIZE - from
            );
            let part = content[from..from + 50_000].to_vec();
            Reply::Raw(Box::new(move |out| {
                out.write_all(head.as_bytes()).unwrap();
                out.write_all(&part).unwrap();
            }))
        }
        _ => partial(&content, offset(r.header("range"))),
    });
    assert_eq!(get(&of(&server), &blob).await.unwrap(), blob);
    let ranges: Vec<_> = server.log().iter().map(|r| r.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges, [None, Some("bytes=100000-".into()), Some("bytes=150000-".into())]);
}

#[tokio::test]
async fn a_server_without_ranges_sends_all_again() {
    let blob = bytes(SIZE);
    let content = blob.clone();
    let server = Server::start(move |r| match r.number {
        0 => raw("200 OK", SIZE as u64, content[..100_000].to_vec()),
        _ => reply(200).body(&content),
    });
    assert_eq!(get(&of(&server), &blob).await.unwrap(), blob);
    let content = blob.clone();
    let server = Server::start(move |r| match (r.number, r.header("range")) {
        (0, _) => raw("200 OK", SIZE as u64, content[..100_000].to_vec()),
        (_, Some(_)) => reply(416),
        _ => reply(200).body(&content),
    });
    assert_eq!(get(&of(&server), &blob).await.unwrap(), blob);
}

#[tokio::test]
async fn atk_32_a_range_that_is_another_is_refused() {
    let blob = bytes(SIZE);
    for range in
        ["bytes 0-299999/300000", "bytes 100001-299999/300000", "bytes 100000-299999/999999", "nonsense", ""]
    {
        let content = blob.clone();
        let server = Server::start(move |r| match r.number {
            0 => raw("200 OK", SIZE as u64, content[..100_000].to_vec()),
            _ => reply(206).with("Content-Range", range).body(&content[100_000..]),
        });
        let e = get(&of(&server), &blob).await.unwrap_err();
        assert!(matches!(e, Error::Corrupt(_)), "{range}: {e}");
    }
    let content = blob.clone();
    let server = Server::start(move |_| partial(&content, 0));
    assert!(matches!(get(&of(&server), &blob).await, Err(Error::Corrupt(_))));
}

#[tokio::test]
async fn atk_32_a_range_with_other_bytes_fails_its_digest() {
    let blob = bytes(SIZE);
    let content = blob.clone();
    let server = Server::start(move |r| match r.number {
        0 => raw("200 OK", SIZE as u64, content[..100_000].to_vec()),
        _ => {
            let mut other = content.clone();
            other[200_000] ^= 1;
            partial(&other, offset(r.header("range")))
        }
    });
    let e = get(&of(&server), &blob).await.unwrap_err();
    assert!(matches!(e, Error::DigestMismatch { .. }), "{e}");
    assert_eq!(e.kind(), Kind::Corrupt);
}

#[tokio::test]
async fn atk_32_wrong_bytes_fail_their_digest_unless_the_consumer_checks() {
    let blob = bytes(SIZE);
    let mut other = blob.clone();
    other[7] ^= 1;
    let content = other.clone();
    let server = Server::start(move |_| reply(200).body(&content));
    let repository = of(&server);
    assert!(matches!(get(&repository, &blob).await, Err(Error::DigestMismatch { .. })));
    let stream = repository.blob(&descriptor(&blob)).await.unwrap().unverified();
    assert_eq!(collect(stream).await.unwrap(), other);
    assert!(matches!(
        repository.read_blob(&descriptor(&blob), 1 << 20).await,
        Err(Error::DigestMismatch { .. })
    ));
}

#[tokio::test]
async fn atk_32_wrong_lengths_are_told_before_a_byte_is_taken() {
    let blob = bytes(1000);
    for len in [999, 1001, 0] {
        let server = Server::start(move |_| reply(200).body(vec![0; len]));
        let e = of(&server).blob(&descriptor(&blob)).await.unwrap_err();
        assert!(matches!(e, Error::Corrupt(_)), "{e}");
        assert!(e.to_string().contains(&format!("it has {len} bytes, and 1000 were announced")), "{e}");
    }
}

#[tokio::test]
async fn atk_32_a_short_body_ends_after_all_tries() {
    let blob = bytes(1000);
    let content = blob.clone();
    // Neither the first answer nor any later one gets beyond byte 10.
    let server = Server::start(move |r| {
        let from = offset(r.header("range"));
        let range = format!("bytes {from}-999/1000");
        let head =
            format!("HTTP/1.1 206 X\r\nContent-Range: {range}\r\nContent-Length: {}\r\n\r\n", 1000 - from);
        let head = if from == 0 { "HTTP/1.1 200 X\r\nContent-Length: 1000\r\n\r\n".into() } else { head };
        let part = content[from..10].to_vec();
        Reply::Raw(Box::new(move |out| {
            let _ = out.write_all(head.as_bytes()).and_then(|()| out.write_all(&part));
        }))
    });
    let e = get(&of(&server), &blob).await.unwrap_err();
    let text = e.to_string();
    assert!(matches!(e, Error::Unreachable { attempts: 3, .. }), "{text}");
    assert!(text.contains("after 10 of 1000 bytes") && text.contains("tried 3 times"), "{text}");
    assert_eq!(server.log().len(), 3);
}

#[tokio::test]
async fn a_byte_for_each_connection_is_no_progress() {
    let blob = bytes(1000);
    let content = blob.clone();
    let server = Server::start(move |r| {
        let from = offset(r.header("range"));
        let range = format!("bytes {from}-999/1000");
        let head =
            format!("HTTP/1.1 206 X\r\nContent-Range: {range}\r\nContent-Length: {}\r\n\r\n", 1000 - from);
        let head = if from == 0 { "HTTP/1.1 200 X\r\nContent-Length: 1000\r\n\r\n".into() } else { head };
        let part = content[from..=from].to_vec();
        Reply::Raw(Box::new(move |out| {
            let _ = out.write_all(head.as_bytes()).and_then(|()| out.write_all(&part));
        }))
    });
    let e = get(&of(&server), &blob).await.unwrap_err();
    assert!(matches!(e, Error::Unreachable { .. }), "{e}");
    assert_eq!(server.log().len(), 3);
}

/// Sends without end, in chunks; says how much was taken.
fn endless(piece: usize, wait: Duration) -> (Server, Arc<std::sync::atomic::AtomicUsize>) {
    let taken: Arc<std::sync::atomic::AtomicUsize> = Arc::default();
    let count = taken.clone();
    let server = Server::start(move |_| {
        let count = count.clone();
        Reply::Raw(Box::new(move |out: &mut dyn Write| {
            let _ = out.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            let began = Instant::now();
            // The client hangs up long before.
            while began.elapsed() < Duration::from_secs(15) {
                let head = format!("{piece:x}\r\n");
                let sent = out.write_all(head.as_bytes()).and_then(|()| out.write_all(&vec![b'x'; piece]));
                if sent.and_then(|()| out.write_all(b"\r\n")).and_then(|()| out.flush()).is_err() {
                    return;
                }
                count.fetch_add(piece, std::sync::atomic::Ordering::SeqCst);
                std::thread::sleep(wait);
            }
        }))
    });
    (server, taken)
}

#[tokio::test]
async fn atk_32_an_endless_body_ends_where_the_blob_ends() {
    let (server, taken) = endless(1 << 16, Duration::ZERO);
    let blob = bytes(SIZE);
    let e = get(&of(&server), &blob).await.unwrap_err();
    assert!(e.to_string().contains("longer than the 300000 bytes"), "{e}");
    tokio::time::sleep(Duration::from_millis(200)).await;
    // What lies in the buffers of two sockets, and no more.
    assert!(taken.load(std::sync::atomic::Ordering::SeqCst) < 64 << 20);
}

#[tokio::test]
async fn atk_32_a_slow_body_is_given_up_within_its_limit() {
    let blob = bytes(SIZE);
    let mut config = quick();
    config.limits = Limits {
        idle: Duration::from_secs(10),
        rate_window: Duration::from_millis(500),
        min_rate: 10_000,
        attempts: 2,
        ..config.limits
    };
    let (server, _) = endless(10, Duration::from_millis(20));
    let repository = client(config).repository(&server.name(), Credentials::Anonymous);
    let e = get(&repository, &blob).await.unwrap_err();
    assert!(matches!(e, Error::TimedOut { attempts: 2, .. }), "{e}");
    assert!(e.to_string().contains("fewer than 10000 bytes a second"), "{e}");
}

#[tokio::test]
async fn atk_32_silence_is_given_up_within_its_limit() {
    let blob = bytes(SIZE);
    let mut config = quick();
    config.limits = Limits {
        idle: Duration::from_millis(200),
        header: Duration::from_millis(200),
        attempts: 2,
        ..config.limits
    };
    config.limits.connect = Duration::from_millis(500);
    let content = blob.clone();
    let body = Server::start(move |_| {
        let part = content[..10].to_vec();
        Reply::Raw(Box::new(move |out| {
            let _ = out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n");
            let _ = out.write_all(&part);
            let _ = out.flush();
            std::thread::sleep(Duration::from_secs(3));
        }))
    });
    let e = get(&client(config.clone()).repository(&body.name(), Credentials::Anonymous), &blob)
        .await
        .unwrap_err();
    assert!(matches!(e, Error::TimedOut { .. }), "{e}");
    assert!(e.to_string().contains("no byte came for 0.2 s"), "{e}");
    let head = Server::start(|_| {
        Reply::Raw(Box::new(|out| {
            // A head of which a byte comes now and then.
            for _ in 0..30 {
                if out.write_all(b"H").and_then(|()| out.flush()).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }))
    });
    let e = get(&client(config).repository(&head.name(), Credentials::Anonymous), &blob).await.unwrap_err();
    let slow = matches!(e, Error::TimedOut { .. } | Error::Unreachable { .. });
    assert!(slow, "{e}");
}

#[tokio::test]
async fn a_consumer_may_take_its_time() {
    let blob = bytes(SIZE);
    let content = blob.clone();
    let server = Server::start(move |_| reply(200).body(&content));
    let mut config = quick();
    config.limits =
        Limits { idle: Duration::from_millis(300), rate_window: Duration::from_millis(300), ..config.limits };
    let repository = client(config).repository(&server.name(), Credentials::Anonymous);
    let mut stream = repository.blob(&descriptor(&blob)).await.unwrap();
    let mut all = Vec::new();
    while let Some(piece) = stream.next().await {
        all.extend_from_slice(&piece.unwrap());
        if all.len() < 100_000 {
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    }
    assert_eq!(all, blob);
}

#[tokio::test]
async fn after_an_error_a_stream_has_ended() {
    let server = Server::start(|_| reply(200).body("other"));
    let mut stream = of(&server).blob(&descriptor(b"bytes")).await.unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    assert!(stream.next().await.unwrap().is_err());
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn an_empty_blob_and_a_blob_of_unknown_length() {
    let server = Server::start(|_| reply(200));
    assert_eq!(get(&of(&server), b"").await.unwrap(), b"");
    let server = Server::start(|_| {
        Reply::Raw(Box::new(|out| {
            let _ = out.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nblob");
        }))
    });
    assert_eq!(get(&of(&server), b"blob").await.unwrap(), b"blob");
}

#[tokio::test]
async fn a_blob_that_is_not_there() {
    let server = Server::start(|_| {
        reply(404).body(r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry"}]}"#)
    });
    let e = get(&of(&server), b"blob").await.unwrap_err();
    assert_eq!((e.kind(), e.code()), (Kind::NotFound, Some("BLOB_UNKNOWN")));
    assert_eq!(server.log().len(), 1);
    let e = of(&server).read_blob(&descriptor(b"blob"), 3).await.unwrap_err();
    assert!(matches!(e, Error::TooLarge(_)), "{e}");
    assert_eq!(of(&server).has_blob(&descriptor(b"blob").digest).await.unwrap(), None);
    let server = Server::start(|r| {
        assert_eq!(r.method, "HEAD");
        reply(200).body("blob")
    });
    assert_eq!(of(&server).has_blob(&descriptor(b"blob").digest).await.unwrap(), Some(4));
}

/// Registry and mirror; the mirror is for the registry's name.
fn mirrored(registry: &Server, mirror: &Server) -> Repository {
    let mut config = quick();
    config.mirrors = vec![Mirror::new(&registry.host(), &mirror.url("/cache")).unwrap()];
    client(config).repository(&registry.name(), crate::common::me())
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_gets_no_credentials() {
    let mirror = Server::start(|_| reply(200).body("blob"));
    let registry = Server::start(|_| reply(500));
    let repository = mirrored(&registry, &mirror);
    assert_eq!(get(&repository, b"blob").await.unwrap(), b"blob");
    let asked = mirror.log();
    assert!(asked[0].target.starts_with("/v2/cache/a/b/blobs/sha256:"), "{}", asked[0].target);
    assert_eq!(asked[0].header("authorization"), None);
    assert_eq!(registry.connections(), 0);
}

#[tokio::test]
async fn a_mirror_that_fails_is_passed_over_and_left_alone() {
    let mirror = Server::start(|_| reply(503));
    let registry = Server::start(|_| reply(200).body("blob"));
    let repository = mirrored(&registry, &mirror);
    for _ in 0..3 {
        assert_eq!(get(&repository, b"blob").await.unwrap(), b"blob");
    }
    assert_eq!(mirror.log().len(), 2);
    // One that just has not what is asked for is asked again.
    let mirror = Server::start(|_| reply(404));
    let repository = mirrored(&registry, &mirror);
    for _ in 0..3 {
        assert_eq!(get(&repository, b"blob").await.unwrap(), b"blob");
    }
    assert_eq!(mirror.log().len(), 3);
}

#[tokio::test]
async fn a_mirror_that_breaks_off_is_continued_by_the_registry() {
    let blob = bytes(SIZE);
    let (content, rest) = (blob.clone(), blob.clone());
    let mirror = Server::start(move |r| match r.number {
        0 => raw("200 OK", SIZE as u64, content[..100_000].to_vec()),
        _ => reply(500),
    });
    let registry = Server::start(move |r| partial(&rest, offset(r.header("range"))));
    assert_eq!(get(&mirrored(&registry, &mirror), &blob).await.unwrap(), blob);
}

#[tokio::test]
async fn atk_33_a_mirror_that_lies_is_found_out_and_the_next_try_goes_elsewhere() {
    let mirror = Server::start(|_| reply(200).body("evil"));
    let registry = Server::start(|_| reply(200).body("blob"));
    let repository = mirrored(&registry, &mirror);
    assert!(matches!(get(&repository, b"blob").await, Err(Error::DigestMismatch { .. })));
    assert_eq!(get(&repository, b"blob").await.unwrap(), b"blob");
    let repository = mirrored(&registry, &mirror);
    assert_eq!(repository.read_blob(&descriptor(b"blob"), 10).await.unwrap(), "blob");
}

/// What runs it may run it on any thread.
#[test]
fn streams_and_calls_can_be_sent() {
    fn sent<T: Send>(t: T) -> T {
        t
    }
    let server = Server::start(|_| reply(200));
    let repository = of(&server);
    let descriptor = descriptor(b"");
    drop(sent(repository.blob(&descriptor)));
    drop(sent(repository.tags()));
    let file = tempfile::tempfile().unwrap();
    drop(sent(repository.upload_blob(descriptor.digest, 0, file, |_| {})));
}
