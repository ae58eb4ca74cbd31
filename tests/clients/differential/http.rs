//! A small HTTP client that shows an answer as it is: status, headers and bytes.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) content_type: String,
    pub(crate) body: Vec<u8>,
    /// Asks to take the connection over, and is done with sending at once.
    pub(crate) upgrade: bool,
}

/// One answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}

/// Sends a request on a connection of its own and reads the whole answer.
pub(crate) fn send(socket: &Path, request: &Request) -> Answer {
    let mut stream = UnixStream::connect(socket).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
    let mut head = format!("{} {} HTTP/1.1\r\nHost: docker\r\n", request.method, request.target);
    match request.upgrade {
        true => head.push_str("Connection: Upgrade\r\nUpgrade: tcp\r\n"),
        false => head.push_str("Connection: close\r\n"),
    }
    if !request.content_type.is_empty() {
        head.push_str(&format!("Content-Type: {}\r\n", request.content_type));
    }
    if !request.body.is_empty() || request.method != "GET" {
        head.push_str(&format!("Content-Length: {}\r\n", request.body.len()));
    }
    head.push_str("\r\n");
    // A daemon that refuses a body answers before it has read all of it.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&request.body));
    let (head, early) = read_head(&mut stream, request);
    if request.upgrade {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answer = parse_head(&head);
    let mut body = early;
    let length = answer.header("content-length").and_then(|v| v.parse::<usize>().ok());
    match length {
        // A refused upgrade keeps the connection open.
        Some(n) if request.method != "HEAD" => {
            while body.len() < n && read_more(&mut stream, &mut body, request) > 0 {}
        }
        _ => while read_more(&mut stream, &mut body, request) > 0 {},
    }
    answer.body = match answer.header("transfer-encoding") {
        Some(v) if v.eq_ignore_ascii_case("chunked") => dechunk(&body),
        _ => body,
    };
    answer
}

fn read_more(stream: &mut UnixStream, into: &mut Vec<u8>, request: &Request) -> usize {
    let mut buf = [0; 16384];
    let n = match stream.read(&mut buf) {
        Ok(n) => n,
        // It did not want the rest of the body.
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => 0,
        Err(e) => panic!("{} {}: no answer: {e}", request.method, request.target),
    };
    into.extend_from_slice(&buf[..n]);
    n
}

fn read_head(stream: &mut UnixStream, request: &Request) -> (Vec<u8>, Vec<u8>) {
    let mut got = Vec::new();
    loop {
        if let Some(at) = got.windows(4).position(|w| w == b"\r\n\r\n") {
            let rest = got.split_off(at + 4);
            return (got, rest);
        }
        assert!(read_more(stream, &mut got, request) > 0, "{} {}: no answer", request.method, request.target);
    }
}

fn parse_head(head: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|l| l.split(' ').nth(1)?.parse().ok()).expect("status line");
    let headers =
        lines.filter_map(|l| l.split_once(": ")).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    Answer { status, headers, body: Vec::new() }
}

fn dechunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(at) = bytes.windows(2).position(|w| w == b"\r\n") {
        let line = std::str::from_utf8(&bytes[..at]).expect("chunk size");
        let size = usize::from_str_radix(line, 16).expect("chunk size");
        let chunk = &bytes[at + 2..];
        whole.extend_from_slice(&chunk[..size]);
        if size == 0 {
            return whole;
        }
        bytes = &chunk[size + 2..];
    }
    panic!("a chunked body without an end");
}
