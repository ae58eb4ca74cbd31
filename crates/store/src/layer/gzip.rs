//! Layers compressed for registries: gzip on all processors, the same bytes for the same layer whatever their number.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use flate2::Compression;
use flate2::write::GzEncoder;

/// Bytes of the layer in one member of the gzip file (RFC 1952 2.2: members are concatenated).
const BLOCK: usize = 4 << 20;

/// Threads at most: memory is ten times [`BLOCK`] for each.
const MAX_THREADS: usize = 8;

struct Job {
    block: Vec<u8>,
    done: SyncSender<io::Result<Vec<u8>>>,
}

/// A writer that hands on what it gets as gzip. Without [`ParallelGzip::finish`] the end is missing.
pub struct ParallelGzip<W: Write> {
    /// There until the end.
    out: Option<W>,
    block: Vec<u8>,
    jobs: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
    /// Blocks that are being compressed, in order.
    waiting: VecDeque<Receiver<io::Result<Vec<u8>>>>,
    any: bool,
}

impl<W: Write> std::fmt::Debug for ParallelGzip<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParallelGzip").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}

impl<W: Write> ParallelGzip<W> {
    /// Starts its threads. The level is zlib's, 1 to 9.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn new(out: W, level: u32) -> io::Result<Self> {
        let count = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
        let (jobs, queue) = sync_channel::<Job>(count);
        let queue = Arc::new(Mutex::new(queue));
        let mut threads = Vec::new();
        for _ in 0..count {
            let queue = Arc::clone(&queue);
            threads.push(std::thread::Builder::new().name("gzip".into()).spawn(move || {
                loop {
                    let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(job) = job else { return };
                    // Nobody waits for it when the writer was given up.
                    let _ = job.done.send(member(&job.block, level));
                }
            })?);
        }
        let block = Vec::with_capacity(BLOCK);
        Ok(Self { out: Some(out), block, jobs: Some(jobs), threads, waiting: VecDeque::new(), any: false })
    }

    fn submit(&mut self) -> io::Result<()> {
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        let (done, result) = sync_channel(1);
        let jobs = self.jobs.as_ref().ok_or_else(stopped)?;
        jobs.send(Job { block, done }).map_err(|_| stopped())?;
        self.any = true;
        self.waiting.push_back(result);
        while self.waiting.len() > self.threads.len() * 2 {
            self.hand_on()?;
        }
        Ok(())
    }

    fn hand_on(&mut self) -> io::Result<()> {
        match self.waiting.pop_front() {
            Some(result) => {
                let member = result.recv().map_err(|_| stopped())??;
                self.out.as_mut().ok_or_else(stopped)?.write_all(&member)
            }
            None => Ok(()),
        }
    }

    /// Writes the rest and gives the output back.
    ///
    /// # Errors
    /// When the output fails.
    pub fn finish(mut self) -> io::Result<W> {
        if !self.block.is_empty() || !self.any {
            self.submit()?;
        }
        while !self.waiting.is_empty() {
            self.hand_on()?;
        }
        let mut out = self.out.take().ok_or_else(stopped)?;
        out.flush()?;
        Ok(out)
    }
}

impl<W: Write> Write for ParallelGzip<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = buf.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&buf[..n]);
        if self.block.len() == BLOCK {
            self.submit()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write> Drop for ParallelGzip<W> {
    fn drop(&mut self) {
        drop(self.jobs.take());
        self.waiting.clear();
        for thread in self.threads.drain(..) {
            // It cannot panic but for lack of memory, and then its block was missed above.
            let _ = thread.join();
        }
    }
}

fn member(block: &[u8], level: u32) -> io::Result<Vec<u8>> {
    let mut out = GzEncoder::new(Vec::with_capacity(block.len() / 3), Compression::new(level));
    out.write_all(block)?;
    out.finish()
}

fn stopped() -> io::Error {
    io::Error::other("a thread that compresses has stopped")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn compress(data: &[u8], piece: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let mut gzip = ParallelGzip::new(&mut out, 5).unwrap();
        for piece in data.chunks(piece) {
            gzip.write_all(piece).unwrap();
        }
        gzip.finish().unwrap();
        out
    }

    #[test]
    fn the_same_bytes_come_back_and_always_the_same_file() {
        for size in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7] {
            let data: Vec<u8> = (0..size).map(|i| u8::try_from((i / 3) % 251).unwrap()).collect();
            let file = compress(&data, 100_000);
            let mut back = Vec::new();
            flate2::read::MultiGzDecoder::new(&file[..]).read_to_end(&mut back).unwrap();
            assert!(back == data, "{size}");
            assert!(compress(&data, 1_234_567) == file, "{size}");
        }
    }

    #[test]
    fn given_up_half_way_it_ends_its_threads() {
        let mut gzip = ParallelGzip::new(io::sink(), 1).unwrap();
        gzip.write_all(&vec![1; 2 * BLOCK + 1]).unwrap();
        drop(gzip);
    }
}
