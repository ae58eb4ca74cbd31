//! A layer that stands already: its recipe, index and digest from a tree that a container wrote, without a copy of it.

use std::io::{BufReader, BufWriter, PipeReader, Write as _};
use std::path::Path;

use flate2::Crc;
use longshore_oci::Digest;
use rustix::fs::{AtFlags, FileType};

use super::diff::{TreeKind, Written, write_tree};
use super::recipe::RecipeWriter;
use super::reindex::Indexing;
use super::tree::clean;
use crate::snapshot::tree::{Place, is_dir, names, stat_at};
use crate::tar::{Entry, EntryKind, Limits, Reader, Time};
use crate::{Error, IoContext, Result};

/// Bytes on their way from the one who archives the tree to the one who reads the archive.
const BUFFER: usize = 256 << 10;

/// What a tree turned out to be as a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Adopted {
    pub(crate) diff_id: Digest,
    /// Bytes of all regular files and of the targets of all links, as Docker counts the size of a layer.
    pub(crate) size: u64,
    pub(crate) entries: u64,
    /// When the newest of its files was changed.
    pub(crate) newest: Time,
}

/// Describes the upper directory `dir` of an overlay as the layer that it is: the same recipe, index and digest as if
/// its tar were unpacked elsewhere. Sockets, which no layer holds, are removed. Nobody may write to it meanwhile.
///
/// # Errors
/// As [`write_tree`].
pub(crate) fn adopt(dir: &Path, recipe: &Path, index: &Path, implied: (u32, u32)) -> Result<Adopted> {
    let (mut written, mut about) = describe(dir, recipe)?;
    if written.left_out > 0 {
        remove_sockets(dir)?;
        // Directories have other times now.
        (written, about) = describe(dir, recipe)?;
    }
    about.recipe.finish(&written.diff_id, written.tar_size, false)?;
    about.indexing.into_index().write(index, Some(implied), false)?;
    Ok(Adopted { diff_id: written.diff_id, size: about.size, entries: written.entries, newest: about.newest })
}

/// Reads the tar of a tree, while it is made.
fn describe(dir: &Path, recipe: &Path) -> Result<(Written, About)> {
    let (reader, writer) = std::io::pipe().context(|| "make a pipe")?;
    std::thread::scope(|scope| {
        let feeder = scope.spawn(move || {
            let mut out = BufWriter::with_capacity(BUFFER, writer);
            let written = write_tree(dir, TreeKind::OverlayUpper, &mut out)?;
            out.flush().context(|| "archive a layer")?;
            Ok::<_, Error>(written)
        });
        let about = About::read(BufReader::with_capacity(BUFFER, reader), recipe);
        let written = feeder
            .join()
            .unwrap_or_else(|_| Err(Error::Internal("a thread that reads a layer panicked".into())));
        match (written, about) {
            (Ok(written), Ok(about)) => Ok((written, about)),
            // Whoever failed first, the other one only saw a broken pipe.
            (Err(e), Ok(_)) | (Ok(_), Err(e)) => Err(e),
            (Err(Error::Io { source, .. }), Err(e)) if source.kind() == std::io::ErrorKind::BrokenPipe => {
                Err(e)
            }
            (Err(e), Err(_)) => Err(e),
        }
    })
}

/// What a tar says.
struct About {
    recipe: RecipeWriter,
    indexing: Indexing,
    size: u64,
    newest: Time,
}

impl About {
    fn read(tar: BufReader<PipeReader>, recipe: &Path) -> Result<Self> {
        // The limits of layers that come from elsewhere: what is saved has to be loaded again.
        let mut reader = Reader::new(tar, Limits::default());
        let (mut entry, mut path) = (Entry::default(), Vec::new());
        let mut about = Self {
            recipe: RecipeWriter::create(recipe)?,
            indexing: Indexing::default(),
            size: 0,
            newest: Time::default(),
        };
        while reader.next_entry(&mut entry, &mut about.recipe)? {
            clean(&entry.path, &mut path)?;
            about.indexing.entry(&path, &entry)?;
            about.newest = about.newest.max(entry.mtime);
            match entry.kind {
                EntryKind::File => {
                    about.size += entry.size;
                    about.payload(&mut reader, &entry, &path)?;
                }
                EntryKind::Symlink => about.size += entry.link.len() as u64,
                _ => {}
            }
        }
        Ok(about)
    }

    /// Says to the recipe where the payload of a file stands: in the file itself.
    fn payload(
        &mut self,
        reader: &mut Reader<BufReader<PipeReader>>,
        entry: &Entry,
        path: &[u8],
    ) -> Result<()> {
        let whole = [(0, entry.size)];
        let segments = entry.sparse.as_deref().unwrap_or(if entry.size > 0 { &whole } else { &[] });
        for &(offset, len) in segments {
            let (mut crc, mut left) = (Crc::new(), len);
            while left > 0 {
                let data = reader.payload()?;
                let n = usize::try_from(left).unwrap_or(usize::MAX).min(data.len());
                if n == 0 {
                    return Err(Error::Internal("layer: payload ends before its map".into()));
                }
                crc.update(&data[..n]);
                reader.consume(n);
                left -= n as u64;
            }
            self.recipe.segment(path, offset, len, crc.sum())?;
        }
        Ok(())
    }
}

/// Removes what a layer cannot hold.
fn remove_sockets(dir: &Path) -> Result<()> {
    let mut todo = vec![Place::root(dir)?];
    while let Some(place) = todo.pop() {
        let Some(here) = place.open()? else { continue };
        for (name, _) in names(&here)? {
            let Some(stat) = stat_at(&here, &name)? else { continue };
            if is_dir(&stat) {
                todo.push(place.child(&here, &name)?);
            } else if FileType::from_raw_mode(stat.st_mode) == FileType::Socket {
                rustix::fs::unlinkat(&here, &name, AtFlags::empty())
                    .context(|| format!("remove socket {}", name.to_string_lossy()))?;
            }
        }
    }
    Ok(())
}
