//! Small servers in a test's network namespace, for what no real program does on demand: to be slow, or to be Docker
//! Hub's search.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Runs something in a network namespace, on a thread of its own.
pub(crate) fn in_netns<T: Send + 'static>(netns: &Path, what: impl FnOnce() -> T + Send + 'static) -> T {
    let netns = fs::File::open(netns).expect("netns");
    let thread = std::thread::spawn(move || {
        let kind = rustix::thread::LinkNameSpaceType::Network;
        rustix::thread::move_into_link_name_space(netns.as_fd(), Some(kind)).expect("setns");
        what()
    });
    thread.join().expect("thread")
}

/// A server whose connections are answered by a function, until it is stopped.
pub(crate) struct Server {
    pub(crate) address: String,
    ended: Arc<AtomicBool>,
}

impl Server {
    pub(crate) fn start(netns: &Path, answer: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let (tell, told) = mpsc::channel();
        let ended = Arc::new(AtomicBool::new(false));
        let ends = ended.clone();
        in_netns(netns, move || {
            let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
            tell.send(listener.local_addr().expect("address")).expect("tell");
            let answer = Arc::new(answer);
            // Threads are born in the namespace of the one that makes them.
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    if ends.load(Ordering::SeqCst) {
                        return;
                    }
                    let answer = answer.clone();
                    std::thread::spawn(move || answer(stream));
                }
            });
        });
        Self { address: told.recv().expect("address").to_string(), ended }
    }

    pub(crate) fn stop(&self, netns: &Path) {
        self.ended.store(true, Ordering::SeqCst);
        let address = self.address.clone();
        let _ = in_netns(netns, move || TcpStream::connect(address));
    }
}

/// Passes a connection on, what comes back at so many bytes a second.
pub(crate) fn slowly(stream: TcpStream, to: &str, rate: u64) {
    let Ok(other) = TcpStream::connect(to) else { return };
    let (mut a, mut b) = (stream.try_clone().expect("clone"), other.try_clone().expect("clone"));
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut a, &mut b);
        let _ = b.shutdown(Shutdown::Both);
    });
    let (mut from, mut to) = (other, stream);
    let mut buf = [0; 8192];
    while let Ok(n @ 1..) = from.read(&mut buf) {
        if to.write_all(&buf[..n]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_micros(1_000_000 * n as u64 / rate));
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

/// An index of old: what Docker Hub answers to a search.
pub(crate) fn index(mut stream: TcpStream) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 8192 && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        head.push(byte[0]);
        if head[0] == 0x16 {
            // Somebody begins with TLS; told that there is none, it goes on without.
            return;
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let (status, body) = match head.split(' ').nth(1).unwrap_or_default() {
        "/v1/_ping" => ("200 OK", "{}".to_owned()),
        path if path.starts_with("/v1/search?") => {
            let long = "An uncommonly long description\\nin two lines, of which not all is shown";
            let results = [("one", 5000, true, "Short"), ("a/two", 7, false, long), ("three", 0, false, "")].map(
                |(name, stars, official, about)| {
                    format!(r#"{{"name":"{name}","star_count":{stars},"is_official":{official},"is_automated":false,"description":"{about}"}}"#)
                },
            );
            ("200 OK", format!(r#"{{"num_results":3,"query":"x","results":[{}]}}"#, results.join(",")))
        }
        _ => ("404 Not Found", String::new()),
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.write_all(answer.as_bytes());
}
