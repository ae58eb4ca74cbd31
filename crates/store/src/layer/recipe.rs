//! Recipes: how to rebuild a layer's tar, to the byte, from the directory it was unpacked into.
//!
//! The format is described in `docs/ON-DISK.md`.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use flate2::Crc;
use longshore_oci::{Digest, Sha256};
use longshore_sys::root::Root;
use rustix::fs::{FileType, OFlags};

use super::tree::{open_beneath, reopen, show};
use crate::error::{Error, IoContext, Result};
use crate::tar::RawSink;

const MAGIC: &[u8; 8] = b"LSRECIPE";
const END: &[u8; 8] = b"LSRECEND";
const VERSION: u32 = 1;
const HEAD: u64 = 12;
const FOOT: usize = 8 + 8 + 32 + 8 + 8;

const OP_END: u8 = 0;
const OP_RAW: u8 = 1;
const OP_FILE: u8 = 2;

/// Bytes of one raw piece at most.
const RAW_MAX: usize = 64 << 10;

/// Fast, and headers compress well anyhow.
const LEVEL: i32 = 1;

type Encoder = zstd::stream::write::Encoder<'static, BufWriter<File>>;

/// The file operations that an inode serves.
#[derive(Debug)]
struct Uses {
    first: u64,
    segments: Segments,
}

#[derive(Debug)]
enum Segments {
    Whole(u64),
    Sparse(Box<[(u64, u64)]>),
}

/// Writes a recipe while its layer is unpacked.
pub(super) struct RecipeWriter {
    out: Encoder,
    raw: Vec<u8>,
    ops: u64,
    uses: HashMap<u64, Uses>,
    /// Bytes of files that were removed again while unpacking, by operation: where in `spill`.
    saved: BTreeMap<u64, (u64, u64)>,
    spill: Option<(File, u64)>,
    /// Where the spill file lies: beside the recipe, on the disk that the layer is on.
    dir: PathBuf,
}

impl RecipeWriter {
    pub(super) fn create(path: &Path) -> Result<Self> {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .context(|| format!("create {}", path.display()))?;
        file.write_all(MAGIC).context(|| "write recipe")?;
        file.write_all(&VERSION.to_le_bytes()).context(|| "write recipe")?;
        let out = encoder(BufWriter::with_capacity(256 << 10, file))?;
        Ok(Self {
            out,
            raw: Vec::with_capacity(RAW_MAX),
            ops: 0,
            uses: HashMap::new(),
            saved: BTreeMap::new(),
            spill: None,
            dir: path.parent().unwrap_or(Path::new(".")).to_owned(),
        })
    }

    fn flush_raw(&mut self) -> Result<()> {
        if !self.raw.is_empty() {
            let len = u32::try_from(self.raw.len()).map_err(|_| corrupt("raw piece too long"))?;
            put(&mut self.out, &[&[OP_RAW], &len.to_le_bytes(), &self.raw])?;
            self.raw.clear();
        }
        Ok(())
    }

    /// The next payload bytes are `len` bytes at `offset` of the file `path`.
    pub(super) fn segment(&mut self, path: &[u8], offset: u64, len: u64, crc: u32) -> Result<()> {
        self.flush_raw()?;
        let path_len = u16::try_from(path.len()).map_err(|_| corrupt("path too long"))?;
        put(
            &mut self.out,
            &[
                &[OP_FILE],
                &path_len.to_le_bytes(),
                path,
                &offset.to_le_bytes(),
                &len.to_le_bytes(),
                &crc.to_le_bytes(),
            ],
        )?;
        self.ops += 1;
        Ok(())
    }

    /// The last segments written stand in inode `ino`: one of `size` bytes, or those of a map.
    pub(super) fn stands_in(&mut self, ino: u64, size: u64, sparse: Option<&[(u64, u64)]>) {
        let count = sparse.map_or(1, |map| map.len() as u64);
        let segments = match sparse {
            Some(map) => Segments::Sparse(map.into()),
            None => Segments::Whole(size),
        };
        self.uses.insert(ino, Uses { first: self.ops - count, segments });
    }

    /// True if the bytes of `ino` are needed.
    pub(super) fn needs(&self, ino: u64) -> bool {
        self.uses.contains_key(&ino)
    }

    /// Takes the bytes of a file that is about to be removed.
    pub(super) fn save(&mut self, ino: u64, file: &File) -> Result<()> {
        let Some(uses) = self.uses.remove(&ino) else { return Ok(()) };
        let (spill, end) = match &mut self.spill {
            Some(spill) => spill,
            empty => empty.insert((tempfile::tempfile_in(&self.dir).context(|| "create temporary file")?, 0)),
        };
        let whole;
        let segments = match &uses.segments {
            Segments::Whole(size) => {
                whole = [(0, *size)];
                &whole[..]
            }
            Segments::Sparse(map) => map,
        };
        for (op, &(offset, len)) in (uses.first..).zip(segments) {
            let copied = io::copy(&mut At { file, pos: offset, end: offset + len }, spill)
                .context(|| "save overwritten file")?;
            if copied != len {
                return Err(Error::Internal("a file became shorter while its layer was unpacked".into()));
            }
            self.saved.insert(op, (*end, len));
            *end += len;
        }
        Ok(())
    }

    /// Completes the recipe of a layer with this digest and size.
    pub(super) fn finish(mut self, diff_id: &Digest, size: u64, sync: bool) -> Result<()> {
        self.flush_raw()?;
        put(&mut self.out, &[&[OP_END]])?;
        let mut file = self.out.finish().context(|| "write recipe")?;
        let ops_end = file.stream_position().context(|| "write recipe")?;
        let mut out = encoder(file)?;
        if let Some((spill, _)) = &self.spill {
            for (op, &(offset, len)) in &self.saved {
                put(&mut out, &[&op.to_le_bytes(), &len.to_le_bytes()])?;
                io::copy(&mut At { file: spill, pos: offset, end: offset + len }, &mut out)
                    .context(|| "write recipe")?;
            }
        }
        put(&mut out, &[&u64::MAX.to_le_bytes(), &0u64.to_le_bytes()])?;
        file = out.finish().context(|| "write recipe")?;
        let saved_end = file.stream_position().context(|| "write recipe")?;
        put(
            &mut file,
            &[&ops_end.to_le_bytes(), &saved_end.to_le_bytes(), diff_id.as_bytes(), &size.to_le_bytes(), END],
        )?;
        let file = file.into_inner().map_err(|e| Error::io("write recipe", e.into_error()))?;
        if sync {
            file.sync_all().context(|| "sync recipe")?;
        }
        Ok(())
    }
}

impl RawSink for RecipeWriter {
    fn raw(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let take = bytes.len().min(RAW_MAX - self.raw.len());
            self.raw.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            if self.raw.len() == RAW_MAX {
                self.flush_raw()?;
            }
        }
        Ok(())
    }
}

fn encoder(file: BufWriter<File>) -> Result<Encoder> {
    Encoder::new(file, LEVEL).context(|| "write recipe")
}

fn put(out: &mut impl Write, parts: &[&[u8]]) -> Result<()> {
    parts.iter().try_for_each(|part| out.write_all(part)).context(|| "write recipe")
}

fn corrupt(what: &str) -> Error {
    Error::Corrupt(format!("recipe: {what}"))
}

/// Reads a range of a file without moving its position.
struct At<'a> {
    file: &'a File,
    pos: u64,
    end: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let max = usize::try_from(self.end.saturating_sub(self.pos)).unwrap_or(usize::MAX).min(buf.len());
        let n = self.file.read_at(&mut buf[..max], self.pos)?;
        self.pos += n as u64;
        Ok(n)
    }
}

type Decoder<'a> = zstd::stream::read::Decoder<'static, BufReader<At<'a>>>;

/// What stands at the end of a recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Foot {
    ops_end: u64,
    saved_end: u64,
    diff_id: Digest,
    size: u64,
}

impl Foot {
    fn read(file: &File) -> Result<Self> {
        let len = file.metadata().context(|| "stat recipe")?.len();
        let mut head = [0u8; 12];
        let mut foot = [0u8; FOOT];
        let at = len.checked_sub(FOOT as u64).filter(|at| *at >= HEAD).ok_or_else(|| corrupt("too short"))?;
        file.read_exact_at(&mut head, 0).context(|| "read recipe")?;
        file.read_exact_at(&mut foot, at).context(|| "read recipe")?;
        if &head[..8] != MAGIC || &foot[FOOT - 8..] != END {
            return Err(corrupt("not a recipe, or not complete"));
        }
        let version = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
        if version > VERSION {
            return Err(Error::Unimplemented(format!("recipe version {version}: a newer version wrote it")));
        }
        let mut rest = &foot[..];
        let foot = Self {
            ops_end: take_u64(&mut rest)?,
            saved_end: take_u64(&mut rest)?,
            diff_id: Digest::from_bytes(take(&mut rest)?),
            size: take_u64(&mut rest)?,
        };
        if foot.ops_end < HEAD || foot.saved_end < foot.ops_end || foot.saved_end != at {
            return Err(corrupt("bad lengths"));
        }
        Ok(foot)
    }
}

fn take<const N: usize>(from: &mut impl Read) -> Result<[u8; N]> {
    let mut bytes = [0u8; N];
    from.read_exact(&mut bytes).map_err(|e| corrupt(&e.to_string()))?;
    Ok(bytes)
}

fn take_u64(from: &mut impl Read) -> Result<u64> {
    Ok(u64::from_le_bytes(take(from)?))
}

/// Digest and size of the tar that a recipe makes.
///
/// # Errors
/// `Corrupt` if it is no complete recipe.
pub fn describe(recipe: &File) -> Result<(Digest, u64)> {
    let foot = Foot::read(recipe)?;
    Ok((foot.diff_id, foot.size))
}

/// Writes the layer's tar to `out`, from `recipe` and the directory that the layer was unpacked
/// into. The directory need not be trusted: nothing outside of it is read, and the digest of all
/// that was written is checked at the end.
///
/// # Errors
/// `Corrupt` if the directory or the recipe was altered.
pub fn rebuild(recipe: &File, dir: &Root, out: impl Write) -> Result<Digest> {
    let foot = Foot::read(recipe)?;
    let decoder = |pos, end| -> Result<Decoder<'_>> {
        let source = BufReader::with_capacity(128 << 10, At { file: recipe, pos, end });
        zstd::stream::read::Decoder::with_buffer(source).context(|| "read recipe")
    };
    let saved = Saved::open(decoder(foot.ops_end, foot.saved_end)?)?;
    let ops = BufReader::with_capacity(128 << 10, decoder(HEAD, foot.ops_end)?);
    let mut rebuild =
        Rebuild { ops, dir, out, hash: Sha256::new(), written: 0, size: foot.size, buf: vec![0; 256 << 10] };
    rebuild.run(saved)?;
    let actual = rebuild.hash.finish();
    if actual != foot.diff_id {
        return Err(Error::DigestMismatch { what: "rebuilt layer".into(), expected: foot.diff_id, actual });
    }
    rebuild.out.flush().context(|| "write layer")?;
    Ok(actual)
}

/// The saved bytes, in the order of their operations.
struct Saved<'a> {
    source: BufReader<Decoder<'a>>,
    op: u64,
    len: u64,
}

impl<'a> Saved<'a> {
    fn open(decoder: Decoder<'a>) -> Result<Self> {
        let mut saved = Self { source: BufReader::new(decoder), op: 0, len: 0 };
        saved.next()?;
        Ok(saved)
    }

    fn next(&mut self) -> Result<()> {
        self.op = take_u64(&mut self.source)?;
        self.len = take_u64(&mut self.source)?;
        Ok(())
    }
}

struct Rebuild<'a, W> {
    ops: BufReader<Decoder<'a>>,
    dir: &'a Root,
    out: W,
    hash: Sha256,
    written: u64,
    size: u64,
    buf: Vec<u8>,
}

impl<W: Write> Rebuild<'_, W> {
    fn run(&mut self, mut saved: Saved<'_>) -> Result<()> {
        let mut op = 0u64;
        loop {
            let [code] = take(&mut self.ops)?;
            match code {
                OP_END => return Ok(()),
                OP_RAW => self.raw()?,
                OP_FILE => {
                    let path_len = u16::from_le_bytes(take(&mut self.ops)?);
                    let mut path = vec![0u8; usize::from(path_len)];
                    self.ops.read_exact(&mut path).map_err(|e| corrupt(&e.to_string()))?;
                    let (offset, len) = (take_u64(&mut self.ops)?, take_u64(&mut self.ops)?);
                    let crc = u32::from_le_bytes(take(&mut self.ops)?);
                    let found = if saved.op == op {
                        let found = self.copy(&mut (&mut saved.source).take(saved.len), len)?;
                        saved.next()?;
                        found
                    } else {
                        let file = self.open(&path)?;
                        self.copy(&mut At { file: &file, pos: offset, end: offset.saturating_add(len) }, len)?
                    };
                    if found != (len, crc) {
                        return Err(Error::Corrupt(format!(
                            "layer: {} was altered after unpacking",
                            show(&path)
                        )));
                    }
                    op += 1;
                }
                _ => return Err(corrupt("unknown operation")),
            }
        }
    }

    fn raw(&mut self) -> Result<()> {
        let len = u32::from_le_bytes(take(&mut self.ops)?) as usize;
        let mut buf = std::mem::take(&mut self.buf);
        let piece =
            buf.get_mut(..len).filter(|p| p.len() <= RAW_MAX).ok_or_else(|| corrupt("raw piece too long"))?;
        self.ops.read_exact(piece).map_err(|e| corrupt(&e.to_string()))?;
        let outcome = self.put(piece);
        self.buf = buf;
        outcome
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.written += bytes.len() as u64;
        if self.written > self.size {
            return Err(corrupt("makes more bytes than the layer has"));
        }
        self.hash.update(bytes);
        self.out.write_all(bytes).context(|| "write layer")
    }

    /// Copies at most `len` bytes; how many there were and their checksum.
    fn copy(&mut self, source: &mut impl Read, len: u64) -> Result<(u64, u32)> {
        let mut crc = Crc::new();
        let mut done = 0u64;
        let mut buf = std::mem::take(&mut self.buf);
        let outcome = loop {
            let want = usize::try_from(len - done).unwrap_or(usize::MAX).min(buf.len());
            if want == 0 {
                break Ok(());
            }
            let n = match source.read(&mut buf[..want]) {
                Ok(0) => break Ok(()),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => break Err(Error::io("read layer", e)),
            };
            crc.update(&buf[..n]);
            done += n as u64;
            if let Err(e) = self.put(&buf[..n]) {
                break Err(e);
            }
        };
        self.buf = buf;
        outcome.map(|()| (done, crc.sum()))
    }

    fn open(&self, path: &[u8]) -> Result<File> {
        // A hostile tree may have put anything here: no link is followed, no pipe or device opened.
        let altered = || Error::Corrupt(format!("layer: {} is gone or is no file", show(path)));
        let fd = open_beneath(self.dir.fd(), path, OFlags::PATH | OFlags::NOFOLLOW).map_err(|_| altered())?;
        let stat = rustix::fs::fstat(&fd).context(|| format!("stat {}", show(path)))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(altered());
        }
        reopen(fd.as_fd()).context(|| format!("open {}", show(path)))
    }
}
