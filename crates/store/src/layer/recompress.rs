//! Compressing a layer so that doing it again gives the same bytes, and finding out whether a given stream is one that
//! can be made so.
//!
//! The same parameters give the same bytes as long as the compressing library stays the same, and whatever pieces the
//! tar comes in: it is handed on in pieces of a fixed size. A newer library may compress otherwise; so what is made again
//! is always compared with the digest that it had.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::str::FromStr;

use flate2::bufread::GzDecoder;
use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use longshore_oci::image::media;

use super::gzip::ParallelGzip;
use crate::error::{Error, IoContext, Result};

/// Bytes that are compressed at a time: always so many, but for the last.
const PIECE: usize = 64 << 10;
/// Bytes of a gzip header that is copied, at most; names and comments of strangers may be longer.
const MAX_HEADER: usize = 1024;
/// Bytes of the tar that the levels are tried with, before one is tried with all of it.
const SAMPLE: u64 = 1 << 20;
/// The levels of deflate.
const LEVELS: std::ops::RangeInclusive<u32> = 1..=9;
/// A header without a name or a time; 255: the system is not said.
const PLAIN: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// How a layer is compressed, so that it can be done again. As text: `gzip/zlib-rs 6 1f8b0800000000000000ff` (level and
/// header), `gzip/zlib-rs members 5` (level), `zstd 3` (level).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compressor {
    /// One member, made with zlib-rs' defaults.
    Gzip {
        /// 1 to 9.
        level: u32,
        /// The member's header, as it stands.
        header: Vec<u8>,
    },
    /// Members of 4 MiB each, made with zlib-rs' defaults on all processors: see [`ParallelGzip`].
    Members {
        /// 1 to 9.
        level: u32,
    },
    /// One frame with a checksum.
    Zstd {
        /// 1 to 19.
        level: i32,
    },
}

impl Compressor {
    /// gzip of this level, with a header that says nothing.
    #[must_use]
    pub fn gzip(level: u32) -> Self {
        Self::Gzip { level: level.clamp(*LEVELS.start(), *LEVELS.end()), header: PLAIN.to_vec() }
    }

    /// What layers are compressed with for a registry. zlib's default but one: a tenth of the time for a hundredth of
    /// the size.
    #[must_use]
    pub const fn for_registries() -> Self {
        Self::Members { level: 5 }
    }

    /// zstd of this level.
    #[must_use]
    pub fn zstd(level: i32) -> Self {
        Self::Zstd { level: level.clamp(1, 19) }
    }

    /// The media type of layers that it makes.
    #[must_use]
    pub const fn media_type(&self) -> &'static str {
        match self {
            Self::Gzip { .. } | Self::Members { .. } => media::OCI_LAYER_GZIP,
            Self::Zstd { .. } => media::OCI_LAYER_ZSTD,
        }
    }

    /// Compresses what `tar` writes into `out`.
    ///
    /// # Errors
    /// Those of `tar` and of `out`.
    pub fn compress<W: Write>(&self, out: W, tar: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<W> {
        let words = || "compress a layer";
        match self {
            Self::Gzip { level, header } => {
                let mut out = Pieces::new(Gzip::start(out, *level, header).context(words)?);
                tar(&mut out)?;
                out.finish().and_then(Gzip::finish).context(words)
            }
            Self::Members { level } => {
                let mut out = ParallelGzip::new(out, *level).context(words)?;
                tar(&mut out)?;
                out.finish().context(words)
            }
            Self::Zstd { level } => {
                let mut frame = zstd::stream::write::Encoder::new(out, *level).context(words)?;
                frame.include_checksum(true).context(words)?;
                let mut out = Pieces::new(frame);
                tar(&mut out)?;
                out.finish().and_then(zstd::stream::write::Encoder::finish).context(words)
            }
        }
    }
}

impl fmt::Display for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gzip { level, header } => {
                write!(f, "gzip/zlib-rs {level} ")?;
                header.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
            Self::Members { level } => write!(f, "gzip/zlib-rs members {level}"),
            Self::Zstd { level } => write!(f, "zstd {level}"),
        }
    }
}

impl FromStr for Compressor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::Unimplemented(format!("{text:?} is no compressor that this version knows"));
        let words: Vec<&str> = text.split(' ').collect();
        match words.as_slice() {
            ["gzip/zlib-rs", "members", level] => {
                let level = level.parse().ok().filter(|l| LEVELS.contains(l)).ok_or_else(bad)?;
                Ok(Self::Members { level })
            }
            ["gzip/zlib-rs", level, header] => {
                let level = level.parse().ok().filter(|l| LEVELS.contains(l)).ok_or_else(bad)?;
                let digit = |d: &u8| char::from(*d).to_digit(16).and_then(|d| u8::try_from(d).ok());
                let byte = |pair: &[u8]| Some(digit(pair.first()?)? * 16 + digit(pair.get(1)?)?);
                let header: Option<Vec<u8>> = header.as_bytes().chunks(2).map(byte).collect();
                let header = header.filter(|h| h.len() <= MAX_HEADER).ok_or_else(bad)?;
                Ok(Self::Gzip { level, header })
            }
            ["zstd", level] => {
                let level = level.parse().ok().filter(|l| (1..=19).contains(l)).ok_or_else(bad)?;
                Ok(Self::Zstd { level })
            }
            _ => Err(bad()),
        }
    }
}

/// Hands on what is written in pieces of one size.
struct Pieces<W> {
    out: W,
    waiting: Vec<u8>,
}

impl<W: Write> Pieces<W> {
    fn new(out: W) -> Self {
        Self { out, waiting: Vec::with_capacity(PIECE) }
    }

    fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&self.waiting)?;
        Ok(self.out)
    }
}

impl<W: Write> Write for Pieces<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(PIECE - self.waiting.len());
        self.waiting.extend_from_slice(&bytes[..n]);
        if self.waiting.len() == PIECE {
            self.out.write_all(&self.waiting)?;
            self.waiting.clear();
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One gzip member (RFC 1952).
struct Gzip<W> {
    out: W,
    deflate: Compress,
    crc: Crc,
    buf: Vec<u8>,
}

impl<W: Write> Gzip<W> {
    fn start(mut out: W, level: u32, header: &[u8]) -> io::Result<Self> {
        out.write_all(header)?;
        let deflate = Compress::new(Compression::new(level), false);
        Ok(Self { out, deflate, crc: Crc::new(), buf: vec![0; PIECE] })
    }

    /// Compresses; true once the stream is at its end.
    fn step(&mut self, bytes: &[u8], flush: FlushCompress) -> io::Result<(usize, bool)> {
        let (read, written) = (self.deflate.total_in(), self.deflate.total_out());
        let status = self.deflate.compress(bytes, &mut self.buf, flush).map_err(io::Error::other)?;
        let read = usize::try_from(self.deflate.total_in() - read).map_err(io::Error::other)?;
        let written = usize::try_from(self.deflate.total_out() - written).map_err(io::Error::other)?;
        self.out.write_all(self.buf.get(..written).unwrap_or_default())?;
        if status == Status::BufError && read + written == 0 && flush == FlushCompress::Finish {
            return Err(io::Error::other("deflate makes no progress"));
        }
        Ok((read, status == Status::StreamEnd))
    }

    fn finish(mut self) -> io::Result<W> {
        while !self.step(&[], FlushCompress::Finish)?.1 {}
        self.out.write_all(&self.crc.sum().to_le_bytes())?;
        self.out.write_all(&self.crc.amount().to_le_bytes())?;
        Ok(self.out)
    }
}

impl<W: Write> Write for Gzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.crc.update(bytes);
        let mut rest = bytes;
        while !rest.is_empty() {
            let (read, _) = self.step(rest, FlushCompress::None)?;
            rest = rest.get(read..).unwrap_or_default();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Those of our compressors that may have made a gzip stream: they make its beginning. None for other streams.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn candidates(blob: &File) -> Result<Vec<Compressor>> {
    let whole = || At { file: blob, pos: 0 };
    let Some(header) = header(&mut BufReader::new(whole())).context(|| "read a gzip header")? else {
        return Ok(Vec::new());
    };
    let mut sample = Vec::new();
    let source = BufReader::with_capacity(PIECE, whole());
    if GzDecoder::new(source).take(SAMPLE).read_to_end(&mut sample).is_err() {
        return Ok(Vec::new());
    }
    let all = sample.len() as u64 == SAMPLE;
    let mut found = Vec::new();
    for level in LEVELS {
        let compressor = Compressor::Gzip { level, header: header.clone() };
        let mut same = Same { file: blob, pos: 0, same: true };
        // What is not at its end must not be ended; pieces of a whole tar are as large as these.
        let mut out = Gzip::start(&mut same, level, &header).context(|| "compress")?;
        let pieces = sample.chunks(PIECE);
        let pieces = if all { pieces.len() } else { pieces.len().saturating_sub(1) };
        let written = sample.chunks(PIECE).take(pieces).try_for_each(|piece| out.write_all(piece));
        drop(out);
        if written.is_ok() && same.same {
            found.push(compressor);
        }
    }
    Ok(found)
}

/// The header of the member that a stream starts with; `None` when it is none or a long one.
fn header(source: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut out = Vec::new();
    let mut more = |out: &mut Vec<u8>, n: usize| -> io::Result<bool> {
        let want = out.len() + n;
        source.by_ref().take(n as u64).read_to_end(out)?;
        Ok(out.len() == want && want <= MAX_HEADER)
    };
    if !more(&mut out, PLAIN.len())? || out[..3] != PLAIN[..3] || out[3] & 0xe0 != 0 {
        return Ok(None);
    }
    let flags = out[3];
    if flags & 4 != 0 {
        if !more(&mut out, 2)? {
            return Ok(None);
        }
        let extra = usize::from(u16::from_le_bytes([out[10], out[11]]));
        if extra > MAX_HEADER || !more(&mut out, extra)? {
            return Ok(None);
        }
    }
    for text in [8, 16] {
        if flags & text == 0 {
            continue;
        }
        loop {
            if !more(&mut out, 1)? {
                return Ok(None);
            }
            if out.last() == Some(&0) {
                break;
            }
        }
    }
    if flags & 2 != 0 && !more(&mut out, 2)? {
        return Ok(None);
    }
    Ok(Some(out))
}

/// Reads a file from the start, whatever its position is.
struct At<'a> {
    file: &'a File,
    pos: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buf, self.pos)?;
        self.pos += n as u64;
        Ok(n)
    }
}

/// Takes what is in a file already; anything else fails, so that nobody goes on in vain.
#[derive(Debug)]
pub(crate) struct Same<'a> {
    file: &'a File,
    pos: u64,
    same: bool,
}

impl<'a> Same<'a> {
    pub(crate) fn new(file: &'a File) -> Self {
        Self { file, pos: 0, same: true }
    }

    /// Whether all of the file was written, and nothing else.
    pub(crate) fn is_whole(&self) -> Result<bool> {
        Ok(self.same && self.file.metadata().context(|| "stat blob")?.len() == self.pos)
    }
}

impl Write for Same<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut there = vec![0; bytes.len().min(PIECE)];
        let n = self.file.read_at(&mut there, self.pos)?;
        if n == 0 || there[..n] != bytes[..n] {
            self.same = false;
            return Err(io::Error::other("other bytes"));
        }
        self.pos += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Seek;

    fn data() -> Vec<u8> {
        (0..700_000u32).flat_map(|i| ((i / 9).wrapping_mul(2_654_435_761) % 5000).to_le_bytes()).collect()
    }

    fn compressed(how: &Compressor, data: &[u8], piece: usize) -> Vec<u8> {
        let tar =
            |out: &mut dyn Write| data.chunks(piece).try_for_each(|p| out.write_all(p)).context(|| "write");
        how.compress(Vec::new(), tar).unwrap()
    }

    #[test]
    fn the_same_bytes_whatever_the_pieces() {
        let data = data();
        for how in [
            Compressor::gzip(1),
            Compressor::gzip(6),
            Compressor::gzip(9),
            Compressor::for_registries(),
            Compressor::zstd(3),
        ] {
            let one = compressed(&how, &data, 7919);
            assert!(one == compressed(&how, &data, 1 << 20), "{how}");
            let back = crate::layer::compress::decode(&one[..], &Default::default(), |d| {
                let mut out = Vec::new();
                d.read_to_end(&mut out).context(|| "read")?;
                Ok(out)
            });
            assert!(back.unwrap().0 == data, "{how}");
            assert_eq!(how.to_string().parse::<Compressor>().unwrap(), how);
        }
        assert_eq!(compressed(&Compressor::gzip(6), b"", 1).len(), 20);
        for bad in
            ["", "gzip/zlib-rs 6", "gzip/zlib-rs 0 1f", "gzip/zlib-rs 6 1", "zstd 99", "xz 3", "gzip 6 1f"]
        {
            assert!(bad.parse::<Compressor>().is_err(), "{bad}");
        }
    }

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        file
    }

    #[test]
    fn what_made_a_stream_is_found_out() {
        let data = data();
        let mut named = PLAIN.to_vec();
        (named[3], named[4]) = (4 | 8 | 16 | 2, 9);
        named.extend(b"\x03\x00abclayer.tar\0said\0");
        let mut crc = Crc::new();
        crc.update(&named);
        named.extend_from_slice(&crc.sum().to_le_bytes()[..2]);
        for (level, header) in [(1, PLAIN.to_vec()), (6, named), (9, PLAIN.to_vec())] {
            let how = Compressor::Gzip { level, header };
            for data in [&data[..], b"short"] {
                let blob = file(&compressed(&how, data, 4096));
                let found = candidates(&blob).unwrap();
                assert!(found.contains(&how), "{how}: {found:?}");
                let whole = |how: &Compressor| {
                    let mut same = Same::new(&blob);
                    let done = how.compress(&mut same, |out| out.write_all(data).context(|| "write"));
                    done.is_ok() && same.is_whole().unwrap()
                };
                assert!(whole(&how));
                assert!(data.len() < 100 || !whole(&Compressor::gzip(4)));
            }
        }
    }

    #[test]
    fn atk_21_streams_of_others_and_garbage_are_not_taken() {
        let data = data();
        let zstd = compressed(&Compressor::zstd(3), &data, 4096);
        let mut endless = PLAIN.to_vec();
        endless[3] = 8;
        endless.extend(vec![b'x'; 5000]);
        let mut altered = compressed(&Compressor::gzip(6), &data, 4096);
        altered[5000] ^= 1;
        for bytes in [&b""[..], b"\x1f", b"\x1f\x8b\x08", &PLAIN, &zstd, &endless] {
            assert_eq!(candidates(&file(bytes)).unwrap(), [], "{:?}", &bytes[..bytes.len().min(10)]);
        }
        assert_eq!(candidates(&file(&altered)).unwrap(), []);
        let mut extra = PLAIN.to_vec();
        extra[3] = 4;
        extra.extend([0xff, 0xff, 1]);
        assert_eq!(header(&mut &extra[..]).unwrap(), None);
    }
}
