//! Attaching to a container's streams, before or after its start.

use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use longshore_runtime::monitor::proto::{Decoder, Frame, MAX_CHUNK, Request, Stream as Which};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

use super::Container;
use crate::model::{AttachRequest, LogsRequest, OutputChunk, OutputStream, Status};
use crate::stream::{AttachSession, BoxStream};
use crate::{Engine, Error, Result};

/// Chunks that may wait for a slow client; then its container's output waits.
const QUEUE: usize = 16;
/// Clients that may wait for one container's start.
const MAX_PENDING: usize = 64;

/// A client that attached before the start.
pub(crate) struct PendingAttach {
    pub(crate) request: longshore_runtime::AttachRequest,
    pub(crate) connected: oneshot::Sender<Result<StdStream>>,
}

impl Engine {
    /// Attaches to a container's streams. One that does not run yet is attached to before its
    /// command starts, so that nothing is missed.
    ///
    /// # Errors
    /// `Conflict` for a paused container.
    pub async fn attach(&self, name: &str, request: AttachRequest) -> Result<AttachSession> {
        let c = self.find(name)?;
        let (tty, open_stdin) = {
            let data = c.read();
            if data.record.state.status == Status::Paused {
                return Err(Error::conflict(format!(
                    "container {name} is paused, unpause the container before attach"
                )));
            }
            (data.record.config.tty, data.record.config.open_stdin)
        };
        let wants_input = request.stdin && open_stdin && request.stream;
        let mut session = AttachSession { tty, output: Box::pin(stream::empty()), input: None };
        if request.stream {
            let wanted = longshore_runtime::AttachRequest {
                stdin: wants_input,
                stdout: request.stdout,
                stderr: request.stderr,
            };
            let (output, input) = self.attach_streams(&c, wanted).await?;
            session.output = output;
            session.input = wants_input.then_some(input);
            // A client may send although nothing reads it (its terminal is attached all the same).
            if request.stdin && !open_stdin {
                session.input = Some(swallow());
            }
        }
        if request.logs {
            let logs =
                LogsRequest { stdout: request.stdout, stderr: request.stderr, ..LogsRequest::default() };
            let logged = self.logs_of(&c, logs).await?;
            let live = std::mem::replace(&mut session.output, Box::pin(stream::empty()));
            session.output = Box::pin(logged.chain(live));
        }
        self.container_event(&c, "attach", &[]);
        Ok(session)
    }

    async fn attach_streams(
        &self,
        c: &Arc<Container>,
        request: longshore_runtime::AttachRequest,
    ) -> Result<(BoxStream<Result<OutputChunk>>, mpsc::Sender<Bytes>)> {
        let (tx, connected) = oneshot::channel();
        let task = {
            let mut data = c.write();
            let task = data.task.clone();
            if task.is_none() {
                data.pending.retain(|p| !p.connected.is_closed());
                if data.pending.len() >= MAX_PENDING {
                    return Err(Error::conflict(format!(
                        "more than {MAX_PENDING} clients wait for container {}",
                        c.id
                    )));
                }
                data.pending.push(PendingAttach { request, connected: tx });
            }
            task
        };
        let socket = match task {
            Some(task) => Connecting::Now(self.blocking(move |_| Ok(task.attach(request)?)).await?),
            None => Connecting::Later(connected),
        };
        let (out_tx, out_rx) = mpsc::channel(QUEUE);
        let (in_tx, in_rx) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            let socket = match socket {
                Connecting::Now(s) => Ok(s),
                Connecting::Later(wait) => {
                    tokio::select! {
                        got = wait => match got {
                            Ok(s) => s,
                            // The start failed, or the container was removed: nothing will ever come.
                            Err(_) => return,
                        },
                        () = out_tx.closed() => return,
                    }
                }
            };
            let streamed = match socket.and_then(from_std) {
                Ok(s) => {
                    pump(s, in_rx, &out_tx).await;
                    Ok(())
                }
                Err(e) => Err(e),
            };
            if let Err(e) = streamed {
                let _ = out_tx.send(Err(e)).await;
            }
        });
        Ok((receiver(out_rx), in_tx))
    }
}

enum Connecting {
    Now(StdStream),
    Later(oneshot::Receiver<Result<StdStream>>),
}

/// The asynchronous form of a blocking socket.
pub(crate) fn from_std(s: StdStream) -> Result<UnixStream> {
    s.set_nonblocking(true)
        .and_then(|()| UnixStream::from_std(s))
        .map_err(|e| Error::io("use monitor's socket", e))
}

/// A receiver as a stream.
pub(crate) fn receiver<T: Send + 'static>(rx: mpsc::Receiver<T>) -> BoxStream<T> {
    Box::pin(stream::unfold(rx, |mut rx| async move { rx.recv().await.map(|item| (item, rx)) }))
}

/// Takes input that nobody wants.
fn swallow() -> mpsc::Sender<Bytes> {
    let (tx, mut rx) = mpsc::channel::<Bytes>(QUEUE);
    tokio::spawn(async move { while rx.recv().await.is_some() {} });
    tx
}

/// Moves frames between a monitor and a client until the container ends, or the client goes.
async fn pump(socket: UnixStream, input: mpsc::Receiver<Bytes>, output: &mpsc::Sender<Result<OutputChunk>>) {
    let (read, write) = socket.into_split();
    let sender = tokio::spawn(send_input(write, input));
    tokio::select! {
        () = receive_output(read, output) => {}
        () = output.closed() => {}
    }
    sender.abort();
}

async fn send_input(mut write: OwnedWriteHalf, mut input: mpsc::Receiver<Bytes>) {
    let mut frame = Vec::new();
    while let Some(bytes) = input.recv().await {
        for piece in bytes.chunks(MAX_CHUNK) {
            frame.clear();
            Request::Stdin(piece).encode(&mut frame);
            if write.write_all(&frame).await.is_err() {
                return;
            }
        }
    }
    frame.clear();
    Request::StdinEof.encode(&mut frame);
    let _ = write.write_all(&frame).await;
    // The other direction goes on: closing ours would look like leaving.
    std::future::pending::<()>().await;
}

async fn receive_output(mut read: OwnedReadHalf, output: &mpsc::Sender<Result<OutputChunk>>) {
    let mut decoder = Decoder::new();
    let mut block = vec![0u8; MAX_CHUNK];
    loop {
        loop {
            let chunk = match decoder.next() {
                Ok(Some(Frame::Output { stream, bytes })) => {
                    let stream = match stream {
                        Which::Stdout => OutputStream::Stdout,
                        Which::Stderr => OutputStream::Stderr,
                    };
                    OutputChunk { stream, data: Bytes::copy_from_slice(bytes) }
                }
                Ok(Some(Frame::Exit(_))) => return,
                Ok(Some(_)) => continue,
                Ok(None) => break,
                Err(e) => {
                    let _ = output.send(Err(Error::internal(format!("monitor's stream: {e}")))).await;
                    return;
                }
            };
            if output.send(Ok(chunk)).await.is_err() {
                return;
            }
        }
        match read.read(&mut block).await {
            Ok(0) | Err(_) => return,
            Ok(n) => decoder.push(&block[..n]),
        }
    }
}

/// Waits for the one `Exit` frame; `None` when the other side vanished without it.
pub(crate) async fn exit_of(mut socket: UnixStream) -> Option<longshore_runtime::ExitStatus> {
    let mut decoder = Decoder::new();
    let mut block = [0u8; 512];
    loop {
        loop {
            match decoder.next() {
                Ok(Some(Frame::Exit(exit))) => return Some(exit.into()),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return None,
            }
        }
        match socket.read(&mut block).await {
            Ok(0) | Err(_) => return None,
            Ok(n) => decoder.push(&block[..n]),
        }
    }
}
