//! Bytes that a registry keeps: in memory, or repeated as often as it takes, so that a layer of gigabytes costs nothing.

use std::io::{self, Read};
use std::sync::Arc;

use longshore_oci::{Digest, Sha256};

/// A piece of a blob.
#[derive(Clone, Debug)]
enum Part {
    Bytes(Arc<[u8]>),
    Repeat(u8, u64),
}

impl Part {
    fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Repeat(_, n) => *n,
        }
    }
}

/// Bytes, cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Blob {
    parts: Vec<Part>,
}

impl Blob {
    /// `n` times the same byte, after what is there.
    #[must_use]
    pub fn then_repeat(mut self, byte: u8, n: u64) -> Self {
        self.parts.push(Part::Repeat(byte, n));
        self
    }

    /// More bytes, after what is there.
    #[must_use]
    pub fn then(mut self, bytes: &[u8]) -> Self {
        self.parts.push(Part::Bytes(bytes.into()));
        self
    }

    /// How many bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.parts.iter().map(Part::len).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The digest of all bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut hash = Sha256::new();
        let mut buf = vec![0; 64 << 10];
        let mut reader = self.reader(0);
        loop {
            match reader.read(&mut buf) {
                Ok(0) | Err(_) => return hash.finish(),
                Ok(n) => hash.update(&buf[..n]),
            }
        }
    }

    /// Reads from `offset` to the end.
    #[must_use]
    pub fn reader(&self, offset: u64) -> BlobReader<'_> {
        BlobReader { blob: self, offset }
    }

    /// All of it in memory.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for part in &self.parts {
            match part {
                Part::Bytes(bytes) => out.extend_from_slice(bytes),
                Part::Repeat(byte, n) => {
                    out.resize(out.len() + usize::try_from(*n).unwrap_or(usize::MAX), *byte);
                }
            }
        }
        out
    }

    /// From `start` up to, not including, `end`.
    #[must_use]
    pub fn slice(&self, start: u64, end: u64) -> Self {
        let mut parts = Vec::new();
        let mut at = 0;
        for part in &self.parts {
            let (from, to) = (start.max(at), end.min(at + part.len()));
            if from < to {
                parts.push(match part {
                    Part::Bytes(bytes) => Part::Bytes(bytes[index(from - at)..index(to - at)].into()),
                    Part::Repeat(byte, _) => Part::Repeat(*byte, to - from),
                });
            }
            at += part.len();
        }
        Self { parts }
    }

    /// As many bytes, every one of them another.
    #[must_use]
    pub fn inverted(&self) -> Self {
        let parts = self.parts.iter().map(|part| match part {
            Part::Bytes(bytes) => Part::Bytes(bytes.iter().map(|b| !b).collect()),
            Part::Repeat(byte, n) => Part::Repeat(!byte, *n),
        });
        Self { parts: parts.collect() }
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        Self { parts: vec![Part::Bytes(bytes.into())] }
    }
}

impl From<&[u8]> for Blob {
    fn from(bytes: &[u8]) -> Self {
        Self::default().then(bytes)
    }
}

fn index(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// Reads a [`Blob`].
#[derive(Debug)]
pub struct BlobReader<'a> {
    blob: &'a Blob,
    offset: u64,
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut at = 0;
        for part in &self.blob.parts {
            let within = self.offset.saturating_sub(at);
            at += part.len();
            if self.offset >= at {
                continue;
            }
            let n = index((part.len() - within).min(buf.len() as u64));
            match part {
                Part::Bytes(bytes) => buf[..n].copy_from_slice(&bytes[index(within)..index(within) + n]),
                Part::Repeat(byte, _) => buf[..n].fill(*byte),
            }
            self.offset += n as u64;
            return Ok(n);
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_one_blob() {
        let blob = Blob::from(&b"head"[..]).then_repeat(b'z', 5).then(b"tail");
        assert_eq!((blob.len(), blob.to_vec()), (13, b"headzzzzztail".to_vec()));
        assert_eq!(blob.digest(), Digest::of(b"headzzzzztail"));
        assert_eq!(blob.slice(2, 11).to_vec(), b"adzzzzzta");
        assert_eq!(blob.slice(9, 9).to_vec(), b"");
        let mut rest = Vec::new();
        blob.reader(6).read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"zzztail");
        assert_ne!(blob.inverted().digest(), blob.digest());
        assert_eq!(blob.inverted().inverted().digest(), blob.digest());
    }
}
