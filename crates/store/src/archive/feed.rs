//! One reader, several unpackers: an archive is read on while threads unpack the layers that were read before.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Condvar, Mutex, PoisonError};

/// Bytes that pass at a time.
const CHUNK: usize = 512 << 10;

/// So many of something that threads share: bytes in memory, places to work.
#[derive(Debug)]
pub(super) struct Budget {
    left: Mutex<usize>,
    given: Condvar,
}

impl Budget {
    pub(super) fn new(n: usize) -> Self {
        Self { left: Mutex::new(n), given: Condvar::new() }
    }

    /// Takes `n`, which must not be more than there are at all; waits for others to give them back.
    pub(super) fn take(&self, n: usize) -> Share<'_> {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = self.given.wait_while(left, |left| *left < n).unwrap_or_else(PoisonError::into_inner);
        *left -= n;
        Share { budget: self, n }
    }
}

/// A part of a budget, given back when dropped.
#[derive(Debug)]
pub(super) struct Share<'a> {
    budget: &'a Budget,
    n: usize,
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        *self.budget.left.lock().unwrap_or_else(PoisonError::into_inner) += self.n;
        self.budget.given.notify_all();
    }
}

type Chunk<'a> = (Vec<u8>, Share<'a>);

/// A channel for `size` bytes, of which `memory` bounds those on their way.
pub(super) fn feed(memory: &Budget, size: u64) -> (Feeder<'_>, Fed<'_>) {
    let (send, chunks) = channel();
    (Feeder { send, memory }, Fed { chunks, current: None, pos: 0, left: size })
}

/// The writing end.
#[derive(Debug)]
pub(super) struct Feeder<'a> {
    send: Sender<Chunk<'a>>,
    memory: &'a Budget,
}

impl Feeder<'_> {
    /// Hands on all of `source`; false if the reading end is gone.
    pub(super) fn pour(self, mut source: impl Read) -> io::Result<bool> {
        loop {
            let share = self.memory.take(CHUNK);
            let mut bytes = Vec::with_capacity(CHUNK);
            if source.by_ref().take(CHUNK as u64).read_to_end(&mut bytes)? == 0 {
                return Ok(true);
            }
            if self.send.send((bytes, share)).is_err() {
                return Ok(false);
            }
        }
    }
}

/// The reading end. Fewer bytes than were announced are an error.
#[derive(Debug)]
pub(super) struct Fed<'a> {
    chunks: Receiver<Chunk<'a>>,
    current: Option<Chunk<'a>>,
    pos: usize,
    left: u64,
}

impl Read for Fed<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.current.as_ref().is_none_or(|(bytes, _)| self.pos == bytes.len()) {
            (self.current, self.pos) = (self.chunks.recv().ok(), 0);
        }
        let Some((bytes, _)) = &self.current else {
            return if self.left == 0 {
                Ok(0)
            } else {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends within a layer"))
            };
        };
        let n = buf.len().min(bytes.len() - self.pos);
        buf[..n].copy_from_slice(&bytes[self.pos..self.pos + n]);
        self.pos += n;
        self.left = self.left.saturating_sub(n as u64);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_arrive_through_little_memory() {
        let data: Vec<u8> = (0..5 * CHUNK + 17).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let memory = Budget::new(2 * CHUNK);
        let (feeder, mut fed) = feed(&memory, data.len() as u64);
        let mut got = Vec::new();
        std::thread::scope(|scope| {
            let source = data.as_slice();
            scope.spawn(move || assert!(feeder.pour(source).unwrap()));
            fed.read_to_end(&mut got).unwrap();
        });
        assert!(got == data);
        drop(fed);
        drop(memory.take(2 * CHUNK));
    }

    #[test]
    fn fewer_bytes_than_announced_are_an_error() {
        let memory = Budget::new(2 * CHUNK);
        let (feeder, mut fed) = feed(&memory, 10);
        assert!(feeder.pour(&b"short"[..]).unwrap());
        let error = fed.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_reader_that_leaves_stops_the_feeder_and_frees_its_memory() {
        let memory = Budget::new(CHUNK);
        let (feeder, fed) = feed(&memory, 1 << 40);
        std::thread::scope(|scope| {
            let pouring = scope.spawn(move || feeder.pour(io::repeat(1)));
            drop(fed);
            assert!(!pouring.join().unwrap().unwrap());
        });
        drop(memory.take(CHUNK));
    }
}
