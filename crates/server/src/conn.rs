//! A client's connection below HTTP.
//!
//! HTTP/1.1 hands a connection over with `Upgrade`, and hyper does the rest. Docker's protocol
//! also lets a client take the connection of `attach` and `exec start` over *without* asking for
//! an upgrade: it gets a plain `200`, and both sides speak raw bytes from there on. For that, the
//! first request's head is looked at before hyper sees it. If it is such a request, an `Upgrade`
//! header is added, so that hyper hands the connection over with whatever the client already
//! sent; and the head of the `101` is replaced by the `200` that the client expects.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Sleep;

/// How long a client may go on sending what nobody wants after its answer.
const LINGER: Duration = Duration::from_secs(1);

/// Longest head of a first request.
const MAX_HEAD: usize = 64 << 10;

/// A connected socket.
#[derive(Debug)]
pub(crate) enum Sock {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Sock {
    /// Reads some bytes; 0 at the end of the input.
    pub(crate) async fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let done = match self {
                Self::Unix(s) => {
                    s.readable().await?;
                    s.try_read(buf)
                }
                Self::Tcp(s) => {
                    s.readable().await?;
                    s.try_read(buf)
                }
            };
            match done {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }

    /// Writes all bytes.
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let done = match self {
                Self::Unix(s) => {
                    s.writable().await?;
                    s.try_write(bytes)
                }
                Self::Tcp(s) => {
                    s.writable().await?;
                    s.try_write(bytes)
                }
            };
            match done {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => bytes = &bytes[n..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Tells the client that nothing more comes.
    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        match rustix::net::shutdown(self.fd(), rustix::net::Shutdown::Write) {
            // The client was faster.
            Ok(()) | Err(rustix::io::Errno::NOTCONN) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Whether the client is gone altogether, not only done with sending. TCP cannot tell the two
    /// apart; there, sending something is what finds out.
    pub(crate) fn is_gone(&self) -> bool {
        hung_up(self.fd())
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(s) => s.as_fd(),
            Self::Tcp(s) => s.as_fd(),
        }
    }
}

impl AsyncRead for Sock {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(s) => Pin::new(s).poll_read(cx, buf),
            Self::Tcp(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Sock {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(s) => Pin::new(s).poll_write(cx, buf),
            Self::Tcp(s) => Pin::new(s).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shutdown_write())
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(s) => Pin::new(s).poll_write_vectored(cx, bufs),
            Self::Tcp(s) => Pin::new(s).poll_write_vectored(cx, bufs),
        }
    }
}

/// Tells when a client has closed both directions. One that is only done with sending still reads, and HTTP cannot
/// tell the two apart: hence a second descriptor of the socket, on which nothing but that is waited for.
#[derive(Debug)]
pub(crate) struct HangUp(AsyncFd<OwnedFd>);

impl HangUp {
    /// Watches a socket. `None` over TCP, where the two look alike.
    pub(crate) fn of(sock: &Sock) -> io::Result<Option<Self>> {
        if matches!(sock, Sock::Tcp(_)) {
            return Ok(None);
        }
        let twin = sock.fd().try_clone_to_owned()?;
        #[expect(deprecated, reason = "the descriptor is owned and stays open as long as it is registered")]
        let fd = AsyncFd::with_interest(twin, Interest::WRITABLE)?;
        Ok(Some(Self(fd)))
    }

    /// Resolves when the client is gone; never for `None`.
    pub(crate) async fn wait(this: Option<Self>) {
        let Some(this) = this else { return std::future::pending().await };
        // A hang-up comes with whatever is waited for.
        while let Ok(mut guard) = this.0.ready(Interest::WRITABLE).await {
            if hung_up(this.0.get_ref().as_fd()) {
                return;
            }
            guard.clear_ready_matching(Ready::WRITABLE);
        }
    }
}

fn hung_up(fd: BorrowedFd<'_>) -> bool {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::empty())];
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

/// Whether the request at hand got its `Upgrade` header from us: then the client expects a `200`
/// and raw bytes. One per connection, for its handlers.
#[derive(Clone, Debug, Default)]
pub(crate) struct TakesOverRaw(Arc<AtomicBool>);

impl TakesOverRaw {
    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The connection as hyper uses it.
#[derive(Debug)]
pub(crate) struct Conn {
    io: TokioIo<Sock>,
    raw: TakesOverRaw,
    /// Read from the socket already, not by hyper yet.
    head: Vec<u8>,
    head_at: usize,
    /// The first bytes that hyper writes, while they are a head to be replaced.
    replace: Option<Vec<u8>>,
    /// Written out before anything else.
    pending: Vec<u8>,
    pending_at: usize,
    /// Set when nothing more is written: until then input is thrown away.
    closing: Option<Pin<Box<Sleep>>>,
}

impl Conn {
    /// Takes a new connection and reads the first request's head, at least its start.
    pub(crate) async fn accept(sock: Sock) -> io::Result<Self> {
        let head = read_head(&sock).await?;
        let (head, raw) = match add_upgrade(&head) {
            Some(changed) => (changed, true),
            None => (head, false),
        };
        Ok(Self {
            io: TokioIo::new(sock),
            raw: TakesOverRaw(Arc::new(AtomicBool::new(raw))),
            head,
            head_at: 0,
            replace: raw.then(Vec::new),
            pending: Vec::new(),
            pending_at: 0,
            closing: None,
        })
    }

    pub(crate) fn takes_over_raw(&self) -> TakesOverRaw {
        self.raw.clone()
    }

    /// Gives up HTTP: the socket, and what the client sent beyond what hyper took.
    pub(crate) async fn into_socket(self) -> io::Result<(Sock, Vec<u8>)> {
        let sock = self.io.into_inner();
        sock.write_all(&self.pending[self.pending_at..]).await?;
        Ok((sock, self.head[self.head_at..].to_vec()))
    }

    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.pending_at < self.pending.len() {
            let rest = &self.pending[self.pending_at..];
            match ready!(Write::poll_write(Pin::new(&mut self.io), cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.pending_at += n,
            }
        }
        self.pending.clear();
        self.pending_at = 0;
        Poll::Ready(Ok(()))
    }

    /// Takes bytes that hyper writes while a head may have to be replaced; all of them.
    fn hold(&mut self, bufs: &[io::IoSlice<'_>]) -> usize {
        let mut held = self.replace.take().unwrap_or_default();
        let before = held.len();
        bufs.iter().for_each(|b| held.extend_from_slice(b));
        let taken = held.len() - before;
        let Some(end) = find(&held, b"\r\n\r\n").map(|at| at + 4) else {
            match held.len() > MAX_HEAD {
                true => self.pending = held,
                false => self.replace = Some(held),
            }
            return taken;
        };
        if held.starts_with(b"HTTP/1.1 100") {
            // An interim answer; the one that counts is still to come.
            self.pending = held;
            self.replace = Some(Vec::new());
            return taken;
        }
        // Only the first response is looked at; an error stays what it is.
        self.raw.0.store(false, Ordering::Relaxed);
        match held.starts_with(b"HTTP/1.1 101") {
            true => {
                self.pending = plain_head(&held[..end]);
                self.pending.extend_from_slice(&held[end..]);
            }
            false => self.pending = held,
        }
        taken
    }

    fn write(&mut self, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_pending(cx))?;
        if self.replace.is_some() {
            return Poll::Ready(Ok(self.hold(bufs)));
        }
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}

/// Reads until the end of the head is there, so that adding a header is possible; gives up early
/// where the request is not one that matters.
async fn read_head(sock: &Sock) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut buf = [0; 4096];
    loop {
        let n = sock.read(&mut buf).await?;
        head.extend_from_slice(&buf[..n]);
        let line_end = find(&head, b"\r\n");
        let plain = line_end.is_some_and(|end| !may_hijack(&head[..end]));
        if n == 0 || plain || head.len() > MAX_HEAD || find(&head, b"\r\n\r\n").is_some() {
            return Ok(head);
        }
    }
}

/// Whether a request line is of an operation that takes the connection over.
fn may_hijack(line: &[u8]) -> bool {
    let Ok(line) = std::str::from_utf8(line) else { return false };
    let mut words = line.split(' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let path = target.unwrap_or_default().split('?').next().unwrap_or_default();
    let (_, path) = crate::docker::route::split_version(path);
    let start = path.strip_prefix("/exec/").is_some_and(|p| p.ends_with("/start"));
    let attach = path.strip_prefix("/containers/").is_some_and(|p| p.ends_with("/attach"));
    method == Some("POST") && version == Some("HTTP/1.1") && (start || attach)
}

/// The head with an `Upgrade` header, if it is of a request that takes over without one.
fn add_upgrade(head: &[u8]) -> Option<Vec<u8>> {
    let line_end = find(head, b"\r\n")?;
    let end = find(head, b"\r\n\r\n")?;
    let has_upgrade = head[..end]
        .split(|b| *b == b'\n')
        .any(|line| line.get(..8).is_some_and(|name| name.eq_ignore_ascii_case(b"upgrade:")));
    if has_upgrade || !may_hijack(&head[..line_end]) {
        return None;
    }
    let mut changed = head[..line_end].to_vec();
    changed.extend_from_slice(b"\r\nUpgrade: tcp");
    changed.extend_from_slice(&head[line_end..]);
    Some(changed)
}

/// A `101` head as the `200` of a client that takes over without asking.
fn plain_head(head: &[u8]) -> Vec<u8> {
    let mut plain = b"HTTP/1.1 200 OK\r\n".to_vec();
    for line in String::from_utf8_lossy(head).split("\r\n").skip(1).filter(|l| !l.is_empty()) {
        let name = line.split(':').next().unwrap_or_default();
        if !name.eq_ignore_ascii_case("upgrade") && !name.eq_ignore_ascii_case("connection") {
            plain.extend_from_slice(line.as_bytes());
            plain.extend_from_slice(b"\r\n");
        }
    }
    plain.extend_from_slice(b"\r\n");
    plain
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

impl Read for Conn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.head_at == this.head.len() {
            return Pin::new(&mut this.io).poll_read(cx, cursor);
        }
        let rest = &this.head[this.head_at..];
        let n = rest.len().min(cursor.remaining());
        cursor.put_slice(&rest[..n]);
        this.head_at += n;
        if this.head_at == this.head.len() {
            (this.head, this.head_at) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl Write for Conn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.write(cx, &[io::IoSlice::new(buf)])
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_pending(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pending(cx))?;
        let this = &mut *self;
        let Some(deadline) = &mut this.closing else {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            this.closing = Some(Box::pin(tokio::time::sleep(LINGER)));
            return self.poll_shutdown(cx);
        };
        // A client in the middle of a long body must come to read why it was refused: if the socket were closed now,
        // its next write would fail first.
        let mut space = [0; 8192];
        loop {
            let mut buf = hyper::rt::ReadBuf::new(&mut space);
            match Pin::new(&mut this.io).poll_read(cx, buf.unfilled()) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return deadline.as_mut().poll(cx).map(Ok),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requests_that_take_over_get_a_header() {
        let with = |line: &str, more: &str| {
            add_upgrade(format!("{line} HTTP/1.1\r\nHost: x\r\n{more}\r\nrest").as_bytes())
                .map(|v| String::from_utf8(v).unwrap())
        };
        let changed = with("POST /v1.41/exec/ab/start", "").unwrap();
        assert_eq!(changed, "POST /v1.41/exec/ab/start HTTP/1.1\r\nUpgrade: tcp\r\nHost: x\r\n\r\nrest");
        assert!(with("POST /containers/a/attach?stdin=1", "").is_some());
        assert!(with("POST /containers/a/attach", "uPGRADE: tcp\r\n").is_none());
        assert!(with("GET /containers/a/attach", "").is_none());
        assert!(with("POST /containers/a/start", "").is_none());
        assert!(add_upgrade(b"POST /exec/a/start HTTP/1.1\r\nHost").is_none());
        assert!(add_upgrade(b"\xff\r\n\r\n").is_none());
    }

    #[test]
    fn the_plain_head_keeps_other_headers() {
        let head = b"HTTP/1.1 101 UPGRADED\r\ncontent-type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nupgrade: tcp\r\n\r\n";
        assert_eq!(
            String::from_utf8(plain_head(head)).unwrap(),
            "HTTP/1.1 200 OK\r\ncontent-type: application/vnd.docker.raw-stream\r\n\r\n"
        );
    }

    /// A hyper server on one end that echoes after taking over.
    async fn serve(sock: UnixStream) {
        let conn = Conn::accept(Sock::Unix(sock)).await.unwrap();
        let service =
            hyper::service::service_fn(|mut request: hyper::Request<hyper::body::Incoming>| async move {
                let mut reply = hyper::Response::new(http_body_util::Empty::<bytes::Bytes>::new());
                if request.uri().path() == "/exec/bad/start" {
                    *reply.status_mut() = hyper::StatusCode::CONFLICT;
                    return Ok::<_, std::convert::Infallible>(reply);
                }
                *reply.status_mut() = hyper::StatusCode::SWITCHING_PROTOCOLS;
                let upgrade = hyper::upgrade::on(&mut request);
                tokio::spawn(async move {
                    let parts = upgrade.await.unwrap().downcast::<Conn>().unwrap();
                    let (sock, more) = parts.io.into_socket().await.unwrap();
                    sock.write_all(&parts.read_buf).await.unwrap();
                    sock.write_all(&more).await.unwrap();
                    let mut buf = [0; 100];
                    while let Ok(n @ 1..) = sock.read(&mut buf).await {
                        sock.write_all(&buf[..n]).await.unwrap();
                    }
                    sock.shutdown_write().unwrap();
                });
                Ok(reply)
            });
        let serving = hyper::server::conn::http1::Builder::new().serve_connection(conn, service);
        serving.with_upgrades().await.unwrap();
    }

    async fn exchange(request: &str, more: &str) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut client, server) = UnixStream::pair().unwrap();
        let serving = tokio::spawn(serve(server));
        client.write_all(request.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        client.read_exact(&mut head).await.unwrap();
        client.write_all(more.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut rest = String::new();
        client.read_to_string(&mut rest).await.unwrap();
        serving.await.unwrap();
        String::from_utf8_lossy(&head).into_owned() + &rest
    }

    #[tokio::test]
    async fn a_connection_is_taken_over_with_and_without_asking() {
        let plain = exchange("POST /exec/a/start HTTP/1.1\r\nHost: x\r\n\r\nearly ", "late").await;
        assert!(plain.starts_with("HTTP/1.1 200 OK\r\n"), "{plain}");
        assert!(
            plain.ends_with("\r\n\r\nearly late") && !plain.to_lowercase().contains("upgrade"),
            "{plain}"
        );
        let asked = exchange("POST /exec/a/start HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\n\r\n", "late").await;
        assert!(asked.starts_with("HTTP/1.1 101 ") && asked.ends_with("\r\n\r\nlate"), "{asked}");
    }

    #[tokio::test]
    async fn a_refusal_stays_what_it_is() {
        let refused = exchange("POST /exec/bad/start HTTP/1.1\r\nHost: x\r\n\r\n", "").await;
        assert!(refused.starts_with("HTTP/1.1 409 Conflict\r\n"), "{refused}");
    }
}
