//! From an asynchronous download to a synchronous reader: a bounded channel.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use tokio::sync::mpsc;

/// Pieces that may wait; each has some 16 to 64 KiB.
const AHEAD: usize = 32;

/// How often progress is told.
const PACE: Duration = Duration::from_millis(100);

/// A channel for `size` bytes.
pub(crate) fn channel(size: u64) -> (Feeder, Arriving) {
    let (send, receive) = mpsc::channel(AHEAD);
    (Feeder { send }, Arriving { receive, current: Bytes::new(), left: size })
}

/// The writing end. Dropped before its end, it makes the reader fail.
#[derive(Debug)]
pub(crate) struct Feeder {
    send: mpsc::Sender<Bytes>,
}

impl Feeder {
    /// Hands on a piece; false if nobody reads any more.
    pub(crate) async fn feed(&mut self, bytes: Bytes) -> bool {
        self.send.send(bytes).await.is_ok()
    }

    /// Waits until the reader has taken all but the last pieces, or has gone.
    pub(crate) async fn drained(&self) {
        let _ = self.send.reserve_many(AHEAD - 1).await;
    }
}

/// The reading end. Fewer bytes than were announced are an error.
#[derive(Debug)]
pub(crate) struct Arriving {
    receive: mpsc::Receiver<Bytes>,
    current: Bytes,
    left: u64,
}

impl Read for Arriving {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receive.blocking_recv() {
                Some(bytes) => self.current = bytes,
                None if self.left == 0 => return Ok(0),
                None => return Err(given_up()),
            }
        }
        let n = buf.len().min(self.current.len());
        self.current.copy_to_slice(&mut buf[..n]);
        self.left = self.left.saturating_sub(n as u64);
        Ok(n)
    }
}

/// What a reader is told when the download has ended before its end; the download says why.
pub(crate) fn given_up() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the download was given up")
}

/// Keeps progress from being told too often.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    last: Option<Instant>,
}

impl Pace {
    /// Whether it is time again.
    pub(crate) fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let due = self.last.is_none_or(|last| now.duration_since(last) >= PACE);
        if due {
            self.last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_all(mut arriving: Arriving) -> io::Result<Vec<u8>> {
        let read = move || {
            let mut all = Vec::new();
            arriving.read_to_end(&mut all).map(|_| all)
        };
        tokio::task::spawn_blocking(read).await.unwrap()
    }

    #[tokio::test]
    async fn all_pieces_arrive_in_order() {
        let (mut feeder, arriving) = channel(3 * 100);
        let reading = tokio::spawn(read_all(arriving));
        for i in 0..100u8 {
            assert!(feeder.feed(Bytes::from(vec![i; 3])).await);
        }
        feeder.drained().await;
        drop(feeder);
        let all = reading.await.unwrap().unwrap();
        assert_eq!((all.len(), all[0], all[299]), (300, 0, 99));
    }

    #[tokio::test]
    async fn a_feeder_that_leaves_early_is_an_error() {
        let (mut feeder, arriving) = channel(10);
        assert!(feeder.feed(Bytes::from_static(b"short")).await);
        drop(feeder);
        assert_eq!(read_all(arriving).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn a_reader_that_leaves_stops_the_feeder() {
        let (mut feeder, arriving) = channel(10);
        drop(arriving);
        assert!(!feeder.feed(Bytes::from_static(b"x")).await);
        feeder.drained().await;
    }
}
