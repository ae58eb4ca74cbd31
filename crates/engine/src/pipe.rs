//! Between the synchronous store and asynchronous streams: a bounded channel and one thread.

use std::io::{self, Read, Write};

use bytes::{Buf as _, Bytes};
use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;

use crate::stream::{BodyStream, ByteStream};
use crate::{Error, Result};

/// Chunks that may wait.
const QUEUE: usize = 8;
/// Bytes gathered before they are handed over.
const CHUNK: usize = 64 << 10;

/// A stream of what `work` writes, on a thread of its own. When the reader goes away, writing
/// fails with a broken pipe.
pub(crate) fn from_writer(
    work: impl FnOnce(&mut ChannelWriter) -> Result<()> + Send + 'static,
) -> ByteStream {
    let (tx, rx) = mpsc::channel::<Result<Bytes>>(QUEUE);
    tokio::task::spawn_blocking(move || {
        let mut writer = ChannelWriter { tx, buffer: Vec::new() };
        let done = work(&mut writer).and_then(|()| writer.flush().map_err(|e| Error::io("write stream", e)));
        if let Err(e) = done {
            // Nobody reads any more: then nobody wants to know.
            let _ = writer.tx.blocking_send(Err(e));
        }
    });
    Box::pin(stream::unfold(rx, |mut rx| async move { rx.recv().await.map(|item| (item, rx)) }))
}

/// A writer for a thread that may block, and what it writes as a stream. A reader that goes away makes it fail.
pub(crate) fn writer() -> (ChannelWriter, ByteStream) {
    let (tx, rx) = mpsc::channel::<Result<Bytes>>(QUEUE);
    let stream = stream::unfold(rx, |mut rx| async move { rx.recv().await.map(|item| (item, rx)) });
    (ChannelWriter { tx, buffer: Vec::new() }, Box::pin(stream))
}

/// Writes into the channel.
pub(crate) struct ChannelWriter {
    tx: mpsc::Sender<Result<Bytes>>,
    buffer: Vec<u8>,
}

impl Write for ChannelWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = Bytes::from(std::mem::take(&mut self.buffer));
        self.tx.blocking_send(Ok(chunk)).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

/// A synchronous reader of a client's body; a task feeds it.
pub(crate) fn into_reader(mut body: BodyStream) -> BodyReader {
    let (tx, rx) = mpsc::channel::<io::Result<Option<Bytes>>>(QUEUE);
    tokio::spawn(async move {
        while let Some(item) = body.next().await {
            let failed = item.is_err();
            if tx.send(item.map(Some)).await.is_err() || failed {
                return;
            }
        }
        // An end that is marked: a dropped sender alone could be a cancelled task.
        let _ = tx.send(Ok(None)).await;
    });
    BodyReader { rx, current: Bytes::new(), ended: false }
}

pub(crate) struct BodyReader {
    rx: mpsc::Receiver<io::Result<Option<Bytes>>>,
    current: Bytes,
    ended: bool,
}

impl Read for BodyReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            if self.ended {
                return Ok(0);
            }
            match self.rx.blocking_recv() {
                Some(Ok(Some(chunk))) => self.current = chunk,
                Some(Ok(None)) => self.ended = true,
                Some(Err(e)) => {
                    self.ended = true;
                    return Err(e);
                }
                None => {
                    self.ended = true;
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
                }
            }
        }
        let n = out.len().min(self.current.len());
        out[..n].copy_from_slice(&self.current[..n]);
        self.current.advance(n);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_pass_both_ways() {
        let data: Vec<u8> = (0..200_000u32).map(|n| n.to_le_bytes()[0]).collect();
        let body = data.clone();
        let chunks = from_writer(move |w| w.write_all(&body).map_err(|e| Error::io("write", e)));
        let mut reader = into_reader(Box::pin(chunks.map(|c| c.map_err(io::Error::other))));
        let got = tokio::task::spawn_blocking(move || {
            let mut got = Vec::new();
            reader.read_to_end(&mut got).map(|_| got)
        });
        assert_eq!(got.await.expect("thread").expect("read"), data);
    }

    #[tokio::test]
    async fn a_broken_body_is_an_error() {
        let items = vec![Ok(Bytes::from_static(b"a")), Err(io::Error::from(io::ErrorKind::ConnectionReset))];
        let mut reader = into_reader(Box::pin(stream::iter(items)));
        let read = tokio::task::spawn_blocking(move || reader.read_to_end(&mut Vec::new()));
        assert!(read.await.expect("thread").is_err());
    }
}
