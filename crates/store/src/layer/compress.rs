//! Compressed streams: recognised by their first bytes, decompressed on a thread of their own,
//! hashed on both sides as bytes pass.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::GzDecoder;
use longshore_oci::{Digest, Sha256};
use lzma_rust2::XzReader;

use crate::error::{Error, IoContext, Result};
use crate::tar::Limits;

/// Bytes that pass between threads at a time, and how many such pieces wait at most.
const CHUNK: usize = 512 << 10;
const CHUNKS_AHEAD: usize = 4;

/// 128 MiB: what the zstd format asks every decoder to support, and no more.
const ZSTD_WINDOW_LOG: u32 = 27;
/// KiB that unpacking xz may take: a dictionary of 128 MiB, twice that of `xz -9`.
const XZ_MEMORY: u32 = 130 << 10;

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, of one or more members.
    Gzip,
    /// zstd, of one or more frames.
    Zstd,
    /// bzip2, of one or more streams.
    Bzip2,
    /// xz, of one or more streams.
    Xz,
}

impl Compression {
    /// Recognises a stream by its first bytes; six are enough.
    #[must_use]
    pub fn detect(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [n, 0x2a, 0x4d, 0x18, ..] if n & 0xf0 == 0x50 => Self::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::None,
        }
    }
}

/// Both sides of a stream that was read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hashes {
    /// How it was compressed.
    pub compression: Compression,
    /// Digest of the bytes as they came.
    pub compressed: Digest,
    /// Their number.
    pub compressed_size: u64,
    /// Digest of the bytes decompressed; of a layer, its diff id.
    pub uncompressed: Digest,
    /// Their number.
    pub uncompressed_size: u64,
}

/// The decompressed side.
#[derive(Debug)]
pub struct Decoded {
    chunks: Receiver<io::Result<Arc<Vec<u8>>>>,
    used: SyncSender<Arc<Vec<u8>>>,
    current: Option<Arc<Vec<u8>>>,
    pos: usize,
}

impl BufRead for Decoded {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.current.as_ref().is_none_or(|c| self.pos >= c.len()) {
            self.pos = 0;
            if let Some(done) = self.current.take() {
                // When the pool is full or gone the buffer is freed.
                let _ = self.used.try_send(done);
            }
            self.current = self.chunks.recv().ok().transpose()?;
        }
        Ok(self.current.as_ref().map_or(&[], |c| &c[self.pos..]))
    }

    fn consume(&mut self, n: usize) {
        self.pos += n;
    }
}

impl Read for Decoded {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let data = self.fill_buf()?;
        let n = data.len().min(buf.len());
        buf[..n].copy_from_slice(&data[..n]);
        self.consume(n);
        Ok(n)
    }
}

/// Gives `f` the decompressed bytes of `source`; what it leaves unread is read (and hashed) after
/// it. Decompression and hashing run on threads that end before this returns.
///
/// # Errors
/// Those of `f`; `Corrupt` if the stream is malformed, `TooLarge` if over a limit.
pub fn decode<R: Read + Send, T>(
    source: R,
    limits: &Limits,
    f: impl FnOnce(&mut Decoded) -> Result<T>,
) -> Result<(T, Hashes)> {
    std::thread::scope(|scope| {
        let (hash_send, hash_queue) = sync_channel::<Arc<Vec<u8>>>(CHUNKS_AHEAD);
        let hasher = scope.spawn(move || {
            let (mut hash, mut size) = (Sha256::new(), 0u64);
            for chunk in hash_queue {
                hash.update(&chunk);
                size += chunk.len() as u64;
            }
            (hash.finish(), size)
        });
        let outcome = run(source, limits, Some(hash_send), f);
        let (uncompressed, uncompressed_size) =
            hasher.join().map_err(|_| Error::Internal("a hashing thread panicked".into()))?;
        let (value, source) = outcome?;
        Ok((
            value,
            Hashes {
                compression: source.compression,
                // Bytes that are not compressed are hashed once.
                compressed: source.digest.unwrap_or(uncompressed),
                compressed_size: source.size,
                uncompressed,
                uncompressed_size,
            },
        ))
    })
}

/// [`decode`] without digests, for what is checked by its parts.
///
/// # Errors
/// As [`decode`].
pub fn decompress<R: Read + Send, T>(
    source: R,
    limits: &Limits,
    f: impl FnOnce(&mut Decoded) -> Result<T>,
) -> Result<T> {
    run(source, limits, None, f).map(|(value, _)| value)
}

/// What was read.
struct Consumed {
    compression: Compression,
    /// Where it is asked for and not that of the decompressed bytes.
    digest: Option<Digest>,
    size: u64,
}

fn run<R: Read + Send, T>(
    source: R,
    limits: &Limits,
    hash: Option<SyncSender<Arc<Vec<u8>>>>,
    f: impl FnOnce(&mut Decoded) -> Result<T>,
) -> Result<(T, Consumed)> {
    std::thread::scope(|scope| {
        let (send, chunks) = sync_channel(CHUNKS_AHEAD);
        let (used, pool) = sync_channel(CHUNKS_AHEAD);
        let decoder = scope.spawn(move || {
            let outcome = pump(source, limits, &send, hash.as_ref(), &pool);
            // A reader that has gone away has an error of its own.
            outcome.map_err(|e| drop(send.send(Err(e.into()))))
        });
        let mut decoded = Decoded { chunks, used, current: None, pos: 0 };
        let outcome = f(&mut decoded).and_then(|value| {
            io::copy(&mut decoded, &mut io::sink()).context(|| "decompress")?;
            Ok(value)
        });
        drop(decoded);
        let decoder =
            decoder.join().map_err(|_| Error::Internal("a decompression thread panicked".into()))?;
        let value = outcome?;
        Ok((value, decoder.map_err(|()| Error::Internal("decompression stopped early".into()))?))
    })
}

/// Counts what passes, and hashes it where that is asked for.
struct Hashing<R> {
    inner: R,
    hash: Option<Sha256>,
    size: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        if let Some(hash) = &mut self.hash {
            hash.update(&buf[..n]);
        }
        self.size += n as u64;
        Ok(n)
    }
}

type Source<R> = BufReader<Hashing<R>>;

fn pump<R: Read>(
    source: R,
    limits: &Limits,
    send: &SyncSender<io::Result<Arc<Vec<u8>>>>,
    hash: Option<&SyncSender<Arc<Vec<u8>>>>,
    pool: &Receiver<Arc<Vec<u8>>>,
) -> Result<Consumed> {
    let mut source = source;
    let mut start = [0u8; 6];
    let n = fill(&mut source, &mut start)?;
    let compression = Compression::detect(&start[..n]);
    let whole = io::Cursor::new(start).take(n as u64).chain(source);
    let own_hash = (hash.is_some() && compression != Compression::None).then(Sha256::new);
    let source = BufReader::with_capacity(CHUNK, Hashing { inner: whole, hash: own_hash, size: 0 });
    let mut out =
        Output { limits, send, hash, pool, total: 0, ratio_guard: compression != Compression::None };
    let mut source = match compression {
        Compression::None => out.copy(source, |r| r.get_ref().size)?,
        Compression::Gzip => gunzip(source, &mut out)?,
        Compression::Zstd => {
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(source).context(|| "decompress zstd")?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).context(|| "decompress zstd")?;
            out.copy(decoder, |r| r.get_ref().get_ref().size).map_err(malformed)?.finish()
        }
        Compression::Bzip2 => {
            let decoder = MultiBzDecoder::new(source);
            out.copy(decoder, |r| r.get_ref().get_ref().size).map_err(malformed)?.into_inner()
        }
        Compression::Xz => {
            let decoder = XzReader::new_mem_limit(source, true, XZ_MEMORY);
            out.copy(decoder, |r| r.inner().get_ref().size).map_err(malformed)?.into_inner()
        }
    };
    io::copy(&mut source, &mut io::sink()).context(|| "read layer")?;
    let hashing = source.into_inner();
    Ok(Consumed { compression, digest: hashing.hash.map(Sha256::finish), size: hashing.size })
}

fn gunzip<R: Read>(mut source: Source<R>, out: &mut Output<'_>) -> Result<Source<R>> {
    loop {
        let decoder = out.copy(GzDecoder::new(source), |r| r.get_ref().get_ref().size).map_err(malformed)?;
        source = decoder.into_inner();
        // More members may follow; zeros after the last are padding.
        loop {
            let data = source.fill_buf().context(|| "read layer")?;
            let zeros = data.iter().take_while(|b| **b == 0).count();
            match data.get(zeros) {
                None if data.is_empty() => return Ok(source),
                None => source.consume(zeros),
                Some(0x1f) if zeros == 0 => break,
                Some(_) => return Err(Error::Corrupt("gzip: garbage after the end of the stream".into())),
            }
        }
    }
}

/// Decoders report malformed input with several kinds of `io::Error`.
fn malformed(e: Error) -> Error {
    match e {
        Error::Io { source, .. } if source.kind() == io::ErrorKind::OutOfMemory => {
            Error::TooLarge(format!("xz: unpacking it takes more than {} MiB of memory", XZ_MEMORY >> 10))
        }
        Error::Io { source, .. } if source.raw_os_error().is_none() => {
            Error::Corrupt(format!("decompress: {source}"))
        }
        other => other,
    }
}

struct Output<'a> {
    limits: &'a Limits,
    send: &'a SyncSender<io::Result<Arc<Vec<u8>>>>,
    hash: Option<&'a SyncSender<Arc<Vec<u8>>>>,
    pool: &'a Receiver<Arc<Vec<u8>>>,
    total: u64,
    ratio_guard: bool,
}

impl Output<'_> {
    /// Sends all of `reader`; `consumed` tells how many compressed bytes were read so far.
    fn copy<D: Read>(&mut self, mut reader: D, consumed: impl Fn(&D) -> u64) -> Result<D> {
        loop {
            let mut buf = self.buffer();
            let filled = fill(&mut reader, &mut buf)?;
            buf.truncate(filled);
            if filled == 0 {
                return Ok(reader);
            }
            self.total += filled as u64;
            self.check(consumed(&reader))?;
            let chunk = Arc::new(buf);
            let hashed = self.hash.is_none_or(|hash| hash.send(Arc::clone(&chunk)).is_ok());
            if !hashed || self.send.send(Ok(chunk)).is_err() {
                return Err(Error::Internal("the reader of the layer stopped".into()));
            }
        }
    }

    fn buffer(&self) -> Vec<u8> {
        let used = self.pool.try_recv().ok().and_then(|c| Arc::try_unwrap(c).ok());
        let mut buf = used.unwrap_or_default();
        buf.resize(CHUNK, 0);
        buf
    }

    fn check(&self, consumed: u64) -> Result<()> {
        let limits = self.limits;
        if self.total > limits.bytes {
            return Err(Error::TooLarge(format!("layer is larger than {} bytes", limits.bytes)));
        }
        if self.ratio_guard && self.total > limits.ratio_floor && self.total / limits.ratio.max(1) > consumed
        {
            return Err(Error::TooLarge(format!(
                "layer grows more than {} times when decompressed",
                limits.ratio
            )));
        }
        Ok(())
    }
}

fn fill(reader: &mut impl Read, buf: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < buf.len() {
        match reader.read(&mut buf[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io("read layer", e)),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_oci::Kind;
    use lzma_rust2::XzOptions;
    use std::io::Write;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut w = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        w.write_all(data).unwrap();
        w.finish().unwrap()
    }

    fn bzip2(data: &[u8]) -> Vec<u8> {
        let mut w = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        w.write_all(data).unwrap();
        w.finish().unwrap()
    }

    fn xz(data: &[u8], options: XzOptions) -> Vec<u8> {
        let mut w = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
        w.write_all(data).unwrap();
        w.finish().unwrap()
    }

    fn all(source: &[u8], limits: &Limits) -> Result<(Vec<u8>, Hashes)> {
        decode(source, limits, |d| {
            let mut out = Vec::new();
            d.read_to_end(&mut out).context(|| "read")?;
            Ok(out)
        })
    }

    /// Gives one byte at a time.
    struct Dribble<'a>(&'a [u8]);
    impl Read for Dribble<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let n = buf.len().min(1);
            self.0.read(&mut buf[..n])
        }
    }

    #[test]
    fn all_kinds_and_both_hashes() {
        let data: Vec<u8> = (0..2_000_000u32).flat_map(|i| (i / 7).to_le_bytes()).collect();
        let mut members = gzip(&data[..1000]);
        members.extend(gzip(&data[1000..]));
        let mut padded = members.clone();
        padded.extend([0; 700]);
        let frame = zstd::encode_all(&data[..], 1).unwrap();
        let mut skippable = vec![0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        skippable.extend(&frame);
        skippable.extend([0x5f, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9]);
        let two = |pack: &dyn Fn(&[u8]) -> Vec<u8>| [pack(&data[..1000]), pack(&data[1000..])].concat();
        let sources = [
            (Compression::Bzip2, two(&bzip2)),
            (Compression::Xz, two(&|data| xz(data, XzOptions::with_preset(0)))),
            (Compression::Xz, [xz(&data, XzOptions::with_preset(0)), vec![0; 8]].concat()),
            (Compression::None, data.clone()),
            (Compression::Gzip, members),
            (Compression::Gzip, padded),
            (Compression::Zstd, frame),
            (Compression::Zstd, skippable),
        ];
        for (compression, source) in sources {
            let (out, hashes) = all(&source, &Limits::default()).unwrap();
            assert!(out == data);
            let want = Hashes {
                compression,
                compressed: Digest::of(&source),
                compressed_size: source.len() as u64,
                uncompressed: Digest::of(&data),
                uncompressed_size: data.len() as u64,
            };
            assert_eq!(hashes, want);
        }
    }

    #[test]
    fn a_source_of_single_bytes_is_recognised() {
        let source = gzip(b"hello");
        let (n, _) =
            decode(Dribble(&source), &Limits::default(), |d| io::copy(d, &mut io::sink()).context(|| "read"))
                .unwrap();
        assert_eq!(n, 5);
    }

    #[test]
    fn broken_streams_are_corrupt() {
        let whole = gzip(&[7; 100_000]);
        let frame = zstd::encode_all(&[7u8; 100_000][..], 1).unwrap();
        let mut garbage = whole.clone();
        garbage.extend(b"garbage");
        let (bz, xz) = (bzip2(&[7; 100_000]), xz(&[7; 100_000], XzOptions::with_preset(0)));
        let mut flipped = xz.clone();
        flipped[40] ^= 1;
        for source in [
            &whole[..whole.len() - 3],
            &frame[..frame.len() - 3],
            &garbage[..],
            &bz[..bz.len() - 3],
            &xz[..xz.len() - 3],
            &flipped[..],
            b"BZh91AY",
            b"\xfd7zXZ\0..",
        ] {
            assert_eq!(all(source, &Limits::default()).unwrap_err().kind(), Kind::Corrupt);
        }
    }

    #[test]
    fn atk_21_an_xz_dictionary_has_a_limit() {
        let data = vec![7u8; 100_000];
        let packed = |mib: u32| {
            let mut options = XzOptions::with_preset(1);
            options.lzma_options.dict_size = mib << 20;
            xz(&data, options)
        };
        assert_eq!(all(&packed(128), &Limits::default()).unwrap().0, data);
        let e = all(&packed(256), &Limits::default()).unwrap_err();
        assert_eq!(e.kind(), Kind::TooLarge, "{e}");
    }

    #[test]
    fn atk_21_bombs_hit_a_limit() {
        let limits = Limits { ratio: 100, ratio_floor: 1 << 20, ..Limits::default() };
        let bomb = zstd::encode_all(&vec![0u8; 32 << 20][..], 1).unwrap();
        assert_eq!(all(&bomb, &limits).unwrap_err().kind(), Kind::TooLarge);
        let zeros = vec![0u8; 32 << 20];
        for bomb in [gzip(&zeros), bzip2(&zeros), xz(&zeros, XzOptions::with_preset(0))] {
            assert_eq!(all(&bomb, &limits).unwrap_err().kind(), Kind::TooLarge);
        }
        let limits = Limits { bytes: 1 << 20, ..Limits::default() };
        assert_eq!(all(&vec![0u8; 2 << 20], &limits).unwrap_err().kind(), Kind::TooLarge);
    }

    #[test]
    fn atk_21_a_huge_zstd_window_is_refused() {
        // A frame header that asks for a window of 2 GiB (exponent 21, no content size).
        let source = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x01, 0x00, 0x00];
        assert_eq!(all(&source, &Limits::default()).unwrap_err().kind(), Kind::Corrupt);
    }

    #[test]
    fn a_failing_consumer_stops_the_threads() {
        let data = gzip(&vec![1u8; 64 << 20]);
        let e =
            decode(&data[..], &Limits::default(), |_| Err::<(), _>(Error::Invalid("no".into()))).unwrap_err();
        assert_eq!(e.kind(), Kind::Invalid);
    }
}
