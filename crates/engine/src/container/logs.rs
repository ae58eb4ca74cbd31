//! `logs`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use longshore_oci::Kind;
use tokio::sync::{mpsc, watch};

use super::logfile::{Entry, Reader};
use super::logwatch::Changes;
use super::{Container, Life, receiver};
use crate::model::{LogsRequest, OutputChunk, OutputStream};
use crate::stream::{BoxStream, LogStream};
use crate::time::{now, rfc3339_nano9};
use crate::{Engine, Error, Result};

const QUEUE: usize = 16;

impl Engine {
    /// What a container wrote.
    ///
    /// # Errors
    /// When no stream is asked for, or its driver cannot be read.
    pub async fn logs(&self, name: &str, request: LogsRequest) -> Result<LogStream> {
        if !request.stdout && !request.stderr {
            return Err(Error::invalid("Bad parameters: you must choose at least one stream"));
        }
        let c = self.find(name)?;
        let tty = c.read().record.config.tty;
        Ok(LogStream { tty, output: self.logs_of(&c, request).await? })
    }

    /// The log as a stream.
    ///
    /// # Errors
    /// When its driver cannot be read.
    pub(crate) async fn logs_of(
        &self,
        c: &Arc<Container>,
        request: LogsRequest,
    ) -> Result<BoxStream<Result<OutputChunk>>> {
        if c.read().record.host.log.driver == "none" {
            return Err(Error::new(
                Kind::Unimplemented,
                "configured logging driver does not support reading",
            ));
        }
        let path = self.inner.paths.log(&c.id);
        let life = c.life.subscribe();
        let tail = request.tail;
        // With a time in the past to start from, the tail is counted as everywhere: from the end.
        // Watched from before it is read, so that nothing falls between.
        let changes = request.follow.then(|| Changes::of(&self.inner.paths.container(&c.id)));
        let reader = self.blocking(move |_| Reader::open(&path, tail)).await?;
        let (tx, rx) = mpsc::channel(QUEUE);
        let engine = self.clone();
        tokio::spawn(async move {
            if let Err(e) = engine.send_log(reader, changes, life, &request, &tx).await {
                let _ = tx.send(Err(e)).await;
            }
        });
        Ok(receiver(rx))
    }

    async fn send_log(
        &self,
        mut reader: Reader,
        changes: Option<Changes>,
        mut life: watch::Receiver<Life>,
        request: &LogsRequest,
        tx: &mpsc::Sender<Result<OutputChunk>>,
    ) -> Result<()> {
        let exits = life.borrow_and_update().exits;
        loop {
            // Looked at before reading: what was written before the end is read after it.
            let ended = {
                let l = life.borrow();
                !l.running || l.removed || l.exits > exits
            };
            let (back, batch) = self
                .blocking(move |_| {
                    let batch = reader.batch();
                    Ok((reader, batch))
                })
                .await?;
            reader = back;
            let batch = batch?;
            let at_end = batch.is_empty();
            for entry in batch {
                if request.until.is_some_and(|u| entry.time > u) {
                    return Ok(());
                }
                if let Some(chunk) = chunk(entry, request)
                    && tx.send(Ok(chunk)).await.is_err()
                {
                    return Ok(());
                }
            }
            if !at_end {
                continue;
            }
            let Some(changes) = changes.as_ref().filter(|_| !ended) else { return Ok(()) };
            let left = request.until.map(|u| u.saturating_sub(now()));
            if left.is_some_and(|l| l < 0) {
                return Ok(());
            }
            tokio::select! {
                () = changes.next() => {}
                () = until(left) => {}
                () = tx.closed() => return Ok(()),
                // An end is noticed at once.
                _ = life.changed() => {}
            }
        }
    }
}

/// Resolves after so many nanoseconds; never for `None`.
async fn until(left: Option<i64>) {
    match left.and_then(|l| u64::try_from(l).ok()) {
        Some(nanos) => tokio::time::sleep(Duration::from_nanos(nanos)).await,
        None => std::future::pending().await,
    }
}

/// What a client gets of an entry; `None` when it does not want it.
fn chunk(entry: Entry, request: &LogsRequest) -> Option<OutputChunk> {
    let wanted = match entry.stream {
        OutputStream::Stderr => request.stderr,
        _ => request.stdout,
    };
    if !wanted || request.since.is_some_and(|s| entry.time < s) {
        return None;
    }
    if !request.timestamps && !request.details {
        return Some(OutputChunk { stream: entry.stream, data: Bytes::from(entry.line) });
    }
    let mut data = Vec::with_capacity(entry.line.len() + 32);
    if request.timestamps {
        data.extend_from_slice(rfc3339_nano9(entry.time).as_bytes());
        data.push(b' ');
    }
    if request.details {
        // Attributes (from log options, of which none are supported) and a space.
        data.push(b' ');
    }
    data.extend_from_slice(&entry.line);
    Some(OutputChunk { stream: entry.stream, data: Bytes::from(data) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_times_and_stamps() {
        let entry = |stream| Entry { stream, time: 1_000_000_001, line: b"x\n".to_vec() };
        let r = LogsRequest { stdout: true, timestamps: true, ..Default::default() };
        let got = chunk(entry(OutputStream::Stdout), &r).expect("wanted");
        assert_eq!(&got.data[..], b"1970-01-01T00:00:01.000000001Z x\n");
        assert!(chunk(entry(OutputStream::Stderr), &r).is_none());
        let late = LogsRequest { stdout: true, since: Some(2_000_000_000), ..Default::default() };
        assert!(chunk(entry(OutputStream::Stdout), &late).is_none());
    }
}
