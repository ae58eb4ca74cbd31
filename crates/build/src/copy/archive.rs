//! Archives that ADD unpacks.

use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _};
use std::path::Path;

use longshore_store::layer::compress::{Compression, decompress};
use longshore_store::layer::{ApplyOptions, WhiteoutFormat, apply};
use longshore_store::tar::{self, Limits, Reader};

use super::place::show;
use crate::context::{Context, Entry, EntryKind};
use crate::error::IoContext as _;
use crate::{Error, Result};

/// Bytes by which a compression is told.
const MAGIC: usize = 6;

/// Opens a file of a context if it is an archive: a tar, plain or compressed.
///
/// # Errors
/// When it cannot be read.
pub(super) fn open(context: &Context, at: usize, entry: &Entry) -> Result<Option<File>> {
    if entry.kind != EntryKind::File {
        return Ok(None);
    }
    let mut file = context.open_file(at)?;
    Ok(is_archive(&mut file)?.then_some(file))
}

/// Whether a file is a tar, plain or compressed. It is read from its beginning, and left there.
///
/// # Errors
/// When it cannot be read.
pub fn is_archive(file: &mut File) -> Result<bool> {
    let failed = || "read an archive".to_owned();
    let mut start = Vec::new();
    file.by_ref().take(MAGIC as u64).read_to_end(&mut start).context(failed)?;
    file.rewind().context(failed)?;
    let copy = file.try_clone().context(failed)?;
    let is_tar = if Compression::detect(&start) == Compression::None {
        begins_a_tar(BufReader::new(copy))
    } else {
        decompress(copy, &Limits::default(), |decoded| Ok(begins_a_tar(decoded))).unwrap_or(false)
    };
    file.rewind().context(failed)?;
    Ok(is_tar)
}

/// Whether there is an entry at its start.
fn begins_a_tar(source: impl std::io::BufRead) -> bool {
    let mut reader = Reader::new(source, Limits::default());
    reader.next_entry(&mut tar::Entry::default(), &mut ()).unwrap_or(false)
}

/// Unpacks an archive below `dest` of the tree that lies at `tree`. What stands in its way gives way.
///
/// # Errors
/// For an archive that is malformed, or leads out of the tree.
pub(super) fn unpack(
    archive: File,
    name: &[u8],
    tree: &Path,
    dest: &[u8],
    owner: Option<(u32, u32)>,
) -> Result<()> {
    let options = ApplyOptions {
        whiteouts: WhiteoutFormat::Literal,
        below: dest.to_vec(),
        open_end: true,
        owner,
        ..ApplyOptions::default()
    };
    let done = apply(tree, archive, &options);
    done.map(drop).map_err(|e| Error::Invalid(format!("ADD: unpack {}: {e}", show(name))))
}
