//! Connections that carry a process's input and output.
//!
//! After `101 UPGRADED` (or the `200` of clients that do not ask, see [`crate::conn`]) the
//! connection is the client's input one way, and output the other: raw with a terminal, in frames
//! without. Either side may close its direction alone: the client's end of input closes the
//! process's input while output goes on, and the end of the process closes everything.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use hyper::ext::ReasonPhrase;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper::{HeaderMap, StatusCode};
use longshore_api::ApiVersion;
use longshore_api::stream::{Stream, encode};
use longshore_engine::model::{OutputChunk, OutputStream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::keys::DetachKeys;
use super::reply::{self, MULTIPLEXED, RAW_STREAM, Reply};
use crate::conn::{Conn, Sock, TakesOverRaw};
use crate::errors::ApiError;
use crate::server::until_closing;

/// How often a connection whose client is done sending is checked for being there at all.
const CHECK_GONE: Duration = Duration::from_secs(2);
/// How long the rest of a client's input is taken and dropped after the end.
const LINGER: Duration = Duration::from_secs(2);
/// Input is read in pieces of this size.
const INPUT_PIECE: usize = 32 << 10;

/// What handlers know of the connection that a request came on.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) raw: TakesOverRaw,
    pub(crate) over_tcp: bool,
    pub(crate) permit: Arc<OwnedSemaphorePermit>,
    /// Ends when the server shuts down.
    pub(crate) closing: tokio::sync::watch::Receiver<bool>,
}

/// A process's streams, or another exchange of bytes.
pub(crate) struct Session {
    /// Output is raw: that of a terminal, or of no process.
    pub(crate) tty: bool,
    pub(crate) output: BoxStream<'static, OutputChunk>,
    /// Dropping it is the end of input. `None`: input is not wanted.
    pub(crate) input: Option<mpsc::Sender<Bytes>>,
}

/// A request that may take its connection over.
pub(crate) struct Takeover {
    upgrade: Option<OnUpgrade>,
    connection: Connection,
}

impl Takeover {
    /// Whether the request asked for an upgrade itself.
    fn asked(&self) -> bool {
        self.upgrade.is_some() && !self.connection.raw.get()
    }

    /// Takes from the request what is needed; before its body is used up.
    pub(crate) fn from_request<B>(request: &mut hyper::Request<B>) -> Option<Self> {
        let has_upgrade = request.headers().contains_key(UPGRADE);
        let connection = request.extensions().get::<Connection>()?.clone();
        let upgrade = has_upgrade.then(|| hyper::upgrade::on(request));
        Some(Self { upgrade, connection })
    }

    /// Answers and runs the session in a task of its own. `keys`, with which the client leaves, are watched for with a
    /// terminal only.
    pub(crate) fn start(
        self,
        version: ApiVersion,
        session: Session,
        keys: Option<DetachKeys>,
    ) -> Result<Reply, ApiError> {
        let multiplexed = !session.tty && !version.below(42) && self.asked();
        let kind = if multiplexed { MULTIPLEXED } else { RAW_STREAM };
        let Some(upgrade) = self.upgrade else {
            return output_only(kind, session);
        };
        let mut reply = reply::empty(StatusCode::SWITCHING_PROTOCOLS);
        switching_headers(reply.headers_mut(), kind);
        reply.extensions_mut().insert(ReasonPhrase::from_static(b"UPGRADED"));
        let keys = keys.filter(|_| session.tty);
        tokio::spawn(async move {
            let mut closing = self.connection.closing.clone();
            let _permit = self.connection.permit;
            tokio::select! {
                done = take_over(upgrade, session, keys) => if let Err(e) = done {
                    tracing::debug!("a session ended early: {e}");
                },
                () = until_closing(&mut closing) => {}
            }
        });
        Ok(reply)
    }
}

fn switching_headers(headers: &mut HeaderMap, kind: HeaderValue) {
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
}

/// For a request without an upgrade that is not the first on its connection: output as the body.
/// There is no way for input.
fn output_only(kind: HeaderValue, session: Session) -> Result<Reply, ApiError> {
    if session.input.is_some() {
        return Err(ApiError::invalid(
            "sending input needs the headers 'Connection: Upgrade' and 'Upgrade: tcp', or a new connection",
        ));
    }
    Ok(reply::stream(kind, frames(session.tty, session.output).map(Ok::<_, std::convert::Infallible>)))
}

/// Output as it goes over the wire.
fn frames(
    tty: bool,
    output: BoxStream<'static, OutputChunk>,
) -> impl futures_util::Stream<Item = Bytes> + Send + 'static {
    output.map(move |chunk| frame(tty, chunk))
}

/// A piece of output as it goes over the wire.
pub(crate) fn frame(tty: bool, chunk: OutputChunk) -> Bytes {
    if tty {
        return chunk.data;
    }
    let stream = match chunk.stream {
        OutputStream::Stdin => Stream::Stdin,
        OutputStream::Stdout => Stream::Stdout,
        OutputStream::Stderr => Stream::Stderr,
    };
    let mut framed = Vec::with_capacity(chunk.data.len() + 8);
    encode(stream, &chunk.data, &mut framed);
    Bytes::from(framed)
}

async fn take_over(upgrade: OnUpgrade, session: Session, keys: Option<DetachKeys>) -> std::io::Result<()> {
    let upgraded = upgrade.await.map_err(std::io::Error::other)?;
    let parts = upgraded
        .downcast::<Conn>()
        .map_err(|_| std::io::Error::other("the connection is of an unknown type"))?;
    let (sock, more) = parts.io.into_socket().await?;
    let mut early = parts.read_buf.to_vec();
    early.extend_from_slice(&more);
    run(&sock, early, session, keys).await
}

/// How the client's side of a session ended.
enum InputEnd {
    Gone,
    Detached,
}

async fn run(sock: &Sock, early: Vec<u8>, session: Session, keys: Option<DetachKeys>) -> std::io::Result<()> {
    let tty = session.tty;
    let output = async {
        let mut frames = std::pin::pin!(frames(tty, session.output));
        while let Some(bytes) = frames.next().await {
            sock.write_all(&bytes).await?;
        }
        std::io::Result::Ok(())
    };
    tokio::select! {
        done = output => done?,
        end = pump_input(sock, early, session.input, keys) => match end? {
            InputEnd::Gone => return Ok(()),
            InputEnd::Detached => sock.write_all(b"read escape sequence\r\n").await?,
        },
    }
    sock.shutdown_write()?;
    linger(sock).await;
    Ok(())
}

/// Passes input on until the client is gone or detaches. The end of its input is the end of the
/// process's, not of the session.
async fn pump_input(
    sock: &Sock,
    early: Vec<u8>,
    mut input: Option<mpsc::Sender<Bytes>>,
    mut keys: Option<DetachKeys>,
) -> std::io::Result<InputEnd> {
    let mut buf = early;
    let mut n = buf.len();
    buf.resize(buf.len().max(INPUT_PIECE), 0);
    loop {
        if n > 0 {
            let mut data = Vec::new();
            let detach = match &mut keys {
                Some(keys) => keys.feed(&buf[..n], &mut data),
                None => {
                    data.extend_from_slice(&buf[..n]);
                    false
                }
            };
            // A process that no longer takes input does not end the session.
            let closed = match &input {
                Some(sink) if !data.is_empty() => sink.send(Bytes::from(data)).await.is_err(),
                _ => false,
            };
            if closed {
                input = None;
            }
            if detach {
                return Ok(InputEnd::Detached);
            }
        }
        n = sock.read(&mut buf).await?;
        if n == 0 {
            drop(input);
            while !sock.is_gone() {
                tokio::time::sleep(CHECK_GONE).await;
            }
            return Ok(InputEnd::Gone);
        }
    }
}

/// Closing a socket with unread input in it makes the client lose the end of the output.
async fn linger(sock: &Sock) {
    let drain = async {
        let mut buf = [0; 4096];
        while matches!(sock.read(&mut buf).await, Ok(n) if n > 0) {}
    };
    let _ = tokio::time::timeout(LINGER, drain).await;
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;

    /// A session whose output the test sends and whose input it receives.
    struct Rig {
        client: UnixStream,
        output: Option<mpsc::Sender<OutputChunk>>,
        input: mpsc::Receiver<Bytes>,
        run: tokio::task::JoinHandle<std::io::Result<()>>,
    }

    fn rig(tty: bool, keys: Option<&str>) -> Rig {
        let (client, server) = UnixStream::pair().unwrap();
        let (out_tx, mut out_rx) = mpsc::channel(4);
        let (in_tx, in_rx) = mpsc::channel(4);
        let output = futures_util::stream::poll_fn(move |cx| out_rx.poll_recv(cx)).boxed();
        let keys = keys.map(|k| DetachKeys::parse(k).unwrap());
        let session = Session { tty, output, input: Some(in_tx) };
        let run =
            tokio::spawn(async move { run(&Sock::Unix(server), b"early".to_vec(), session, keys).await });
        Rig { client, output: Some(out_tx), input: in_rx, run }
    }

    fn out(text: &'static str) -> OutputChunk {
        OutputChunk { stream: OutputStream::Stdout, data: Bytes::from_static(text.as_bytes()) }
    }

    #[tokio::test]
    async fn the_end_of_input_leaves_output_open() {
        let mut r = rig(false, None);
        r.client.write_all(b" late").await.unwrap();
        r.client.shutdown().await.unwrap();
        let mut input = Vec::new();
        while let Some(piece) = r.input.recv().await {
            input.extend_from_slice(&piece);
        }
        assert_eq!(input, b"early late");
        let output = r.output.take().unwrap();
        output.send(out("after")).await.unwrap();
        drop(output);
        let mut got = Vec::new();
        r.client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"\x01\0\0\0\0\0\0\x05after");
        drop(r.client);
        r.run.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn keys_detach_from_a_terminal() {
        let mut r = rig(true, Some(""));
        r.client.write_all(b"x\x10").await.unwrap();
        assert_eq!(r.input.recv().await.unwrap(), "early");
        assert_eq!(r.input.recv().await.unwrap(), "x");
        r.client.write_all(b"\x11").await.unwrap();
        let mut got = Vec::new();
        r.client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"read escape sequence\r\n");
        assert!(r.input.recv().await.is_none());
        assert!(r.output.unwrap().is_closed());
    }

    #[tokio::test]
    async fn output_survives_input_that_nobody_read() {
        let mut r = rig(false, None);
        r.input.close();
        r.client.write_all(&[b'x'; 100_000]).await.unwrap();
        let output = r.output.take().unwrap();
        output.send(out("done")).await.unwrap();
        drop(output);
        let mut got = Vec::new();
        r.client.read_to_end(&mut got).await.unwrap();
        assert_eq!(&got[8..], b"done");
    }

    #[tokio::test]
    async fn atk_38_a_client_that_vanishes_ends_the_session() {
        // At once, while it could still send; and after it was done with sending.
        for half_closed in [false, true] {
            let mut r = rig(false, None);
            if half_closed {
                r.client.shutdown().await.unwrap();
                assert_eq!(r.input.recv().await.unwrap(), "early");
                assert!(r.input.recv().await.is_none());
                assert!(!r.run.is_finished());
            }
            drop(r.client);
            // Nothing is ever written; the session must notice by itself.
            r.run.await.unwrap().unwrap();
            assert!(r.output.unwrap().is_closed());
        }
    }
}
