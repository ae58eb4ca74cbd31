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
/// When it cannot be read; for an archive that is compressed in a way that is not there yet.
pub(super) fn open(context: &Context, at: usize, entry: &Entry) -> Result<Option<File>> {
    if entry.kind != EntryKind::File {
        return Ok(None);
    }
    let mut file = context.open_file(at)?;
    let failed = || format!("read {}", show(&entry.path));
    let mut start = Vec::new();
    file.by_ref().take(MAGIC as u64).read_to_end(&mut start).context(failed)?;
    file.rewind().context(failed)?;
    match start.as_slice() {
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => return Err(later(&entry.path, "bzip2")),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => return Err(later(&entry.path, "xz")),
        _ => {}
    }
    let compressed = !matches!(Compression::detect(&start), Ok(Compression::None) | Err(_));
    let is_tar = if compressed {
        let copy = file.try_clone().context(failed)?;
        decompress(copy, &Limits::default(), |decoded| Ok(begins_a_tar(decoded))).unwrap_or(false)
    } else {
        begins_a_tar(BufReader::new(file.try_clone().context(failed)?))
    };
    file.rewind().context(failed)?;
    Ok(is_tar.then_some(file))
}

fn later(at: &[u8], how: &str) -> Error {
    Error::Unimplemented(format!(
        "ADD: {} is compressed with {how}, which is not supported yet: use gzip or zstd, or --unpack=false",
        show(at)
    ))
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
