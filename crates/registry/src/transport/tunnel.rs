//! HTTP CONNECT: a way through a proxy.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::connect::{ConnectError, Io, io_words};
use crate::proxy::Proxy;
use crate::url::Origin;

/// Bytes of a proxy's answer.
const MAX_HEAD: usize = 16 << 10;

/// Asks the proxy at the end of `io` for a way to `to`; afterwards `io` leads there.
pub(super) async fn open(
    mut io: Box<dyn Io>,
    proxy: &Proxy,
    to: &Origin,
) -> Result<Box<dyn Io>, ConnectError> {
    let failed =
        |why: &str, passing| ConnectError::new(format!("proxy {}: {why}", proxy.origin.host_port()), passing);
    let target = to.host_port();
    let auth =
        proxy.authorization.as_ref().map_or_else(String::new, |a| format!("Proxy-Authorization: {a}\r\n"));
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{auth}\r\n");
    io.write_all(request.as_bytes()).await.map_err(|e| failed(&io_words(&e), true))?;
    io.flush().await.map_err(|e| failed(&io_words(&e), true))?;

    let mut head = Vec::with_capacity(256);
    // The other side speaks only after us, so nothing of it can be behind the head.
    while !head.ends_with(b"\r\n\r\n") {
        let mut piece = [0u8; 1024];
        let n = io.read(&mut piece).await.map_err(|e| failed(&io_words(&e), true))?;
        if n == 0 {
            return Err(failed("connection closed", true));
        }
        head.extend_from_slice(&piece[..n]);
        if head.len() > MAX_HEAD {
            return Err(failed("the answer is too long", false));
        }
    }
    match status(&head) {
        Some(200..=299) => Ok(io),
        Some(407) => Err(failed("it wants a name and a password (407)", false)),
        Some(code) => Err(failed(&format!("it refuses a way to {target} ({code})"), code >= 500)),
        None => Err(failed("the answer is not HTTP", false)),
    }
}

fn status(head: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(head.split(|b| *b == b'\r').next()?).ok()?;
    let mut words = line.split(' ');
    words.next().filter(|w| w.starts_with("HTTP/1."))?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxys_status() {
        assert_eq!(status(b"HTTP/1.0 200 Connection established\r\n\r\n"), Some(200));
        assert_eq!(status(b"HTTP/1.1 407\r\n\r\n"), Some(407));
        assert_eq!(status(b"SSH-2.0\r\n\r\n"), None);
        assert_eq!(status(b"\r\n\r\n"), None);
    }
}
