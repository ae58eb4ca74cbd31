//! The Docker Engine API over HTTP/1.1: requests, answers, streams and connections that are taken over.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use longshore_api::{ApiVersion, ErrorBody};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;

use crate::credentials::Credentials;
use crate::error::{Context, Failure, Result};

/// Where the daemon is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// A socket file.
    Unix(PathBuf),
    /// Plain TCP.
    Tcp(String),
}

/// Longest answer that is kept in memory.
const MAX_ANSWER: usize = 256 << 20;

/// What is sent.
pub(crate) enum Payload {
    /// Nothing.
    Empty,
    /// One document.
    Json(Value),
    /// Bytes as they come, of this type.
    Stream(&'static str, mpsc::Receiver<io::Result<Bytes>>),
}

/// What a request asks for besides.
enum Extra<'a> {
    None,
    /// The connection itself, for users as with `Registries` if there are any.
    Upgrade(&'a str),
    /// Work at a registry for this user.
    Registry(&'a Credentials),
    /// Work at any registry, for the users of this header.
    Registries(&'a str),
}

/// A body made of chunks.
pub(crate) enum OutBody {
    Whole(Option<Bytes>),
    Chunks(mpsc::Receiver<io::Result<Bytes>>),
}

impl Body for OutBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Self::Chunks(rx) => rx.poll_recv(cx).map(|item| item.map(|r| r.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self {
            Self::Whole(bytes) => {
                hyper::body::SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            Self::Chunks(_) => hyper::body::SizeHint::default(),
        }
    }
}

/// A connection to the daemon that carries raw bytes now.
pub(crate) struct Hijacked {
    pub(crate) stream: TokioIo<Upgraded>,
}

/// Talks to one daemon.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    host: Host,
    version: String,
    /// Every request is told.
    debug: bool,
}

impl Client {
    /// A client of the daemon at `host`; `version` pins the API's version.
    pub(crate) fn new(host: Host, version: Option<String>, debug: bool) -> Self {
        let version = version.unwrap_or_else(|| ApiVersion::MAX.to_string());
        Self { host, version, debug }
    }

    /// The version that requests are made in.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Settles for what an older daemon speaks.
    pub(crate) async fn negotiate(&mut self) -> Result<()> {
        let answer = self.send(Method::HEAD, "/_ping", Payload::Empty, Extra::None).await?;
        let theirs = answer.headers().get("api-version").and_then(|v| v.to_str().ok()).unwrap_or("1.24");
        let number = |v: &str| {
            v.split_once('.').and_then(|(a, b)| Some((a.parse::<u32>().ok()?, b.parse::<u32>().ok()?)))
        };
        if number(theirs) < number(&self.version) {
            theirs.clone_into(&mut self.version);
        }
        Ok(())
    }

    /// Where the daemon is, as options name it.
    pub(crate) fn host(&self) -> String {
        match &self.host {
            Host::Unix(path) => format!("unix://{}", path.display()),
            Host::Tcp(addr) => format!("tcp://{addr}"),
        }
    }

    fn unreachable(&self, e: &impl std::fmt::Display) -> Failure {
        let host = self.host();
        let why = e.to_string();
        if why.contains("Permission denied") {
            return Failure::new(format!(
                "permission denied while trying to connect to the Docker daemon socket at {host}"
            ));
        }
        if self.debug {
            eprintln!("DEBU {why}");
        }
        Failure::new(format!("Cannot connect to the Docker daemon at {host}. Is the docker daemon running?"))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        payload: Payload,
        extra: Extra<'_>,
    ) -> Result<Response<Incoming>> {
        if self.debug {
            eprintln!("DEBU {method} {path}");
        }
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("Host", "longshore")
            .header("User-Agent", "longshore");
        match extra {
            Extra::None => {}
            Extra::Upgrade(users) => {
                request = request.header("Connection", "Upgrade").header("Upgrade", "tcp");
                if !users.is_empty() {
                    request = request.header("X-Registry-Config", users);
                }
            }
            Extra::Registry(credentials) => {
                request = request.header("X-Registry-Auth", credentials.header());
            }
            Extra::Registries(header) => {
                request = request.header("X-Registry-Config", header);
            }
        }
        let body = match payload {
            Payload::Empty => OutBody::Whole(None),
            Payload::Json(value) => {
                request = request.header("Content-Type", "application/json");
                OutBody::Whole(Some(Bytes::from(value.to_string())))
            }
            Payload::Stream(kind, chunks) => {
                request = request.header("Content-Type", kind);
                OutBody::Chunks(chunks)
            }
        };
        let request = request.body(body).context(|| "make a request".into())?;
        match &self.host {
            Host::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|e| self.unreachable(&e))?;
                self.exchange(stream, request).await
            }
            Host::Tcp(addr) => {
                let stream = TcpStream::connect(addr).await.map_err(|e| self.unreachable(&e))?;
                self.exchange(stream, request).await
            }
        }
    }

    async fn exchange<S>(&self, stream: S, request: Request<OutBody>) -> Result<Response<Incoming>>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.unreachable(&e))?;
        tokio::spawn(async move {
            // Its errors reach whoever reads the answer.
            let _ = connection.with_upgrades().await;
        });
        sender.send_request(request).await.map_err(|e| self.unreachable(&e))
    }

    fn versioned(&self, path: &str) -> String {
        format!("/v{}{path}", self.version)
    }

    /// Sends a request and gives the answer with its body unread; an error status becomes a failure.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        payload: Payload,
    ) -> Result<Response<Incoming>> {
        accepted(self.send(method, &self.versioned(path), payload, Extra::None).await?).await
    }

    /// The same for what the daemon does at a registry on behalf of a user.
    pub(crate) async fn call_as(
        &self,
        credentials: &Credentials,
        method: Method,
        path: &str,
    ) -> Result<Response<Incoming>> {
        let extra = Extra::Registry(credentials);
        accepted(self.send(method, &self.versioned(path), Payload::Empty, extra).await?).await
    }

    /// The same for what the daemon does at registries that it finds out itself; `header` is that of
    /// [`crate::credentials::header_of_all`].
    pub(crate) async fn call_as_all(
        &self,
        header: &str,
        method: Method,
        path: &str,
        payload: Payload,
    ) -> Result<Response<Incoming>> {
        let extra = Extra::Registries(header);
        accepted(self.send(method, &self.versioned(path), payload, extra).await?).await
    }

    /// The same, and reads a JSON answer.
    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        payload: Payload,
    ) -> Result<T> {
        let body = read(self.call(method, path, payload).await?).await?;
        longshore_api::json::from_slice(&body)
            .map_err(|e| Failure::new(format!("the daemon's answer is not understood: {e}")))
    }

    /// The same, as it is, without interpretation.
    pub(crate) async fn value(&self, path: &str) -> Result<Value> {
        let body = read(self.call(Method::GET, path, Payload::Empty).await?).await?;
        serde_json::from_slice(&body)
            .map_err(|e| Failure::new(format!("the daemon's answer is not JSON: {e}")))
    }

    /// Sends a request whose answer does not matter.
    pub(crate) async fn post(&self, path: &str) -> Result<()> {
        read(self.call(Method::POST, path, Payload::Empty).await?).await.map(drop)
    }

    /// Takes a connection over.
    pub(crate) async fn hijack(&self, path: &str, payload: Payload) -> Result<Hijacked> {
        self.hijack_as_all("", path, payload).await
    }

    /// The same for what the daemon does at registries, as with [`Self::call_as_all`].
    pub(crate) async fn hijack_as_all(&self, header: &str, path: &str, payload: Payload) -> Result<Hijacked> {
        let answer = self.send(Method::POST, &self.versioned(path), payload, Extra::Upgrade(header)).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(if answer.status().is_success() {
                Failure::new("the daemon did not hand the connection over")
            } else {
                refusal(answer).await
            });
        }
        let upgraded = hyper::upgrade::on(answer).await.context(|| "take the connection over".into())?;
        Ok(Hijacked { stream: TokioIo::new(upgraded) })
    }
}

/// An answer whose status is none of an error.
async fn accepted(answer: Response<Incoming>) -> Result<Response<Incoming>> {
    if answer.status().is_success() || answer.status() == StatusCode::NOT_MODIFIED {
        return Ok(answer);
    }
    Err(refusal(answer).await)
}

/// What the daemon says is wrong.
async fn refusal(answer: Response<Incoming>) -> Failure {
    let status = answer.status();
    let body = read(answer).await.unwrap_or_default();
    match longshore_api::json::from_slice::<ErrorBody>(&body) {
        Ok(e) if !e.message.is_empty() => Failure::daemon(status.as_u16(), &e.message),
        _ => Failure::daemon(status.as_u16(), &format!("{status} {}", String::from_utf8_lossy(&body))),
    }
}

/// Reads a body to its end.
pub(crate) async fn read(answer: Response<Incoming>) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    each_chunk(answer, |chunk| {
        if out.len() + chunk.len() > MAX_ANSWER {
            return Err(Failure::new("the daemon's answer is too large"));
        }
        out.extend_from_slice(chunk);
        Ok(())
    })
    .await?;
    Ok(out)
}

/// Gives every piece of a body to `f` as it arrives.
pub(crate) async fn each_chunk(
    answer: Response<Incoming>,
    mut f: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut body = answer.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.context(|| "read the daemon's answer".into())?;
        if let Some(data) = frame.data_ref() {
            f(data)?;
        }
    }
    Ok(())
}

/// Longest line of a stream of JSON.
const MAX_LINE: usize = 16 << 20;

/// A stream of JSON, one value a line, as it arrives in pieces of any size.
#[derive(Default)]
pub(crate) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Takes a piece and gives every line that is whole now to `f`.
    pub(crate) fn push(&mut self, chunk: &[u8], mut f: impl FnMut(Value) -> Result<()>) -> Result<()> {
        for piece in chunk.split_inclusive(|b| *b == b'\n') {
            self.rest.extend_from_slice(piece);
            if self.rest.len() > MAX_LINE {
                return Err(Failure::new("the daemon's progress has an endless line"));
            }
            if piece.ends_with(b"\n") {
                self.end(&mut f)?;
            }
        }
        Ok(())
    }

    /// Gives what remains.
    pub(crate) fn end(&mut self, mut f: impl FnMut(Value) -> Result<()>) -> Result<()> {
        let line = std::mem::take(&mut self.rest);
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        f(serde_json::from_slice(&line).context(|| "the daemon's progress is not JSON".into())?)
    }
}

/// Gives every JSON line of a body to `f` as it arrives.
pub(crate) async fn each_line(
    answer: Response<Incoming>,
    mut f: impl FnMut(Value) -> Result<()>,
) -> Result<()> {
    let mut lines = Lines::default();
    each_chunk(answer, |chunk| lines.push(chunk, &mut f)).await?;
    lines.end(&mut f)
}

/// Writes `text` so that it can stand in a URL's path or query.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || b"-_.~/:@".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

/// A path with a query; pairs with an empty value are left out.
pub(crate) fn query(path: &str, pairs: &[(&str, &str)]) -> String {
    let given: Vec<String> = pairs
        .iter()
        .filter(|(_, v)| !v.is_empty())
        .map(|(k, v)| {
            format!("{k}={}", escape(v).replace('/', "%2F").replace(':', "%3A").replace('@', "%40"))
        })
        .collect();
    if given.is_empty() { path.to_owned() } else { format!("{path}?{}", given.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_arrive_in_any_pieces() {
        let text = b"{\"a\":1}\r\n\n[2]\n{\"c\":3}";
        for size in 1..=text.len() {
            let (mut lines, mut seen) = (Lines::default(), Vec::new());
            let mut keep = |v: Value| {
                seen.push(v.to_string());
                Ok(())
            };
            text.chunks(size).for_each(|chunk| lines.push(chunk, &mut keep).unwrap());
            lines.end(&mut keep).unwrap();
            assert_eq!(seen, ["{\"a\":1}", "[2]", "{\"c\":3}"], "{size}");
        }
        assert!(Lines::default().push(b"{\"a\":[\n", |_| Ok(())).is_err());
        let mut lines = Lines::default();
        assert!((0..100).any(|_| lines.push(&vec![b'x'; 1 << 20], |_| Ok(())).is_err()), "endless");
    }

    #[test]
    fn urls_are_escaped() {
        assert_eq!(escape("a/b:1@x y%"), "a/b:1@x%20y%25");
        assert_eq!(query("/x", &[("a", ""), ("b", "c&d/e")]), "/x?b=c%26d%2Fe");
        assert_eq!(query("/x", &[("a", "")]), "/x");
    }
}
