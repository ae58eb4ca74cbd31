//! Receiving a context as a tar, as `docker build` sends one to the classic endpoint.

use std::io::{Cursor, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use longshore_store::layer::{ApplyOptions, WhiteoutFormat, apply};
use longshore_store::tar::Limits;

use super::error::{Error, Result};

/// How a context is unpacked.
#[derive(Clone, Debug, Default)]
pub struct UnpackOptions {
    /// What is accepted at most.
    pub limits: Limits,
    /// Everything belongs to this user and group, whatever the archive says.
    pub owner: Option<(u32, u32)>,
    /// Leave out devices: a user namespace cannot make them.
    pub skip_devices: bool,
}

/// What was unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// The root of the context, below the directory that was given.
    pub root: PathBuf,
    /// Entries of the archive.
    pub entries: u64,
    /// The bytes of all files.
    pub size: u64,
}

/// Unpacks a tar, plain or compressed with gzip or zstd, below `dir`, which must not be there yet: it is made, and
/// nobody else may look into it. Modes, times, owners, attributes and devices are the archive's; names and links are
/// resolved inside; of two entries of one name the last holds. After a failure `dir` is gone again.
///
/// An archive of less than a block that is no tar, such as a lone Dockerfile, is malformed: whoever may get one looks
/// first.
///
/// # Errors
/// When `dir` cannot be made or written to, the archive is malformed, compressed in another way, has names that lead
/// out of it, or exceeds a limit.
pub fn unpack<R: Read + Send>(source: R, dir: &Path, options: &UnpackOptions) -> Result<Unpacked> {
    let make = |path: &Path| {
        let made = std::fs::DirBuilder::new().mode(0o700).create(path);
        made.map_err(|e| Error::Io { action: format!("make directory {}", path.display()), source: e })
    };
    make(dir)?;
    // The archive may give its root any mode: that of the directory above keeps others out.
    let root = dir.join("context");
    let done = make(&root).and_then(|()| below(source, root, options));
    if done.is_err() {
        // The failure is what counts; a part that stays is found by whoever cleans the parent.
        let _ = longshore_store::remove_tree(dir);
    }
    done
}

fn below<R: Read + Send>(mut source: R, root: PathBuf, options: &UnpackOptions) -> Result<Unpacked> {
    let mut start = [0; 6];
    let mut filled = 0;
    while let Some(room) = start.get_mut(filled..).filter(|room| !room.is_empty()) {
        match source.read(room) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::Io { action: "read the context".into(), source: e }),
        }
    }
    match start {
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => return Err(Error::Compression("bzip2")),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => return Err(Error::Compression("xz")),
        _ => {}
    }
    let options = ApplyOptions {
        whiteouts: WhiteoutFormat::Literal,
        limits: options.limits.clone(),
        owner: options.owner,
        skip_devices: options.skip_devices,
        // As Docker's command line leaves it.
        open_end: true,
        ..ApplyOptions::default()
    };
    let whole = Cursor::new(start).take(filled as u64).chain(source);
    let applied = apply(&root, whole, &options).map_err(Error::Unpack)?;
    Ok(Unpacked { root, entries: applied.entries, size: applied.size })
}
