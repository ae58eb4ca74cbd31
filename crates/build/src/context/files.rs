//! What is behind the entries of a context: files of a directory, or of the pool.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use longshore_oci::Digest;
use longshore_store::Pool;
use longshore_store::tar::Xattr;
use longshore_sys::root::Root;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::error::{Error, Result, show};
use super::hash::Framed;
use super::tree::{Entry, EntryKind};
use super::{Context, bytes};

/// Bytes of the names of the attributes of a file, and of the value of one: the kernel has no larger ones.
const MAX_XATTR: usize = 64 << 10;

/// Where the bytes of files are.
#[derive(Debug)]
pub(super) enum Files {
    /// There are none.
    None,
    /// In a directory.
    Disk(Root),
    /// In the pool.
    Pool(Pooled),
}

/// Files of the pool, by their places in the tree.
#[derive(Debug)]
pub(super) struct Pooled {
    pub(super) pool: Pool,
    pub(super) contents: Vec<Content>,
}

/// The digests of what is behind an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content {
    /// Of its attributes, encoded.
    pub(super) xattrs: Digest,
    pub(super) bytes: Digest,
}

/// In place of the digest of what is not there.
pub(super) const NONE: Digest = Digest::from_bytes([0; 32]);

impl Content {
    /// Of links and devices.
    pub(super) const EMPTY: Self = Self { xattrs: NONE, bytes: NONE };
}

impl Context {
    fn entry(&self, at: usize) -> Result<&Entry> {
        self.tree().get(at).ok_or(Error::Internal("an entry that is in no context"))
    }

    /// Opens the regular file at a place of the tree, to read.
    ///
    /// # Errors
    /// When it cannot be opened, or something else stands there now.
    pub fn open_file(&self, at: usize) -> Result<File> {
        let entry = self.entry(at)?;
        match &self.files {
            Files::Disk(root) => open_file(root, entry),
            Files::Pool(Pooled { pool, contents }) => {
                let content = contents.get(at).unwrap_or(&Content::EMPTY);
                let file = pool.open(&content.bytes, entry.size)?;
                file.ok_or_else(|| Error::Gone(show(&entry.path)))
            }
            Files::None => Err(Error::Gone(show(&entry.path))),
        }
    }

    /// The attributes that reach a layer of the file or directory at a place of the tree, by name.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn attributes(&self, at: usize) -> Result<Vec<Xattr>> {
        let entry = self.entry(at)?;
        match &self.files {
            Files::Disk(root) => attributes(open_any(root, entry)?.as_fd(), entry),
            Files::Pool(Pooled { pool, contents }) => match contents.get(at) {
                Some(content) if content.xattrs != NONE => {
                    let encoded = pool.read(&content.xattrs)?;
                    encoded.and_then(|e| decode(&e)).ok_or_else(|| Error::Gone(show(&entry.path)))
                }
                _ => Ok(Vec::new()),
            },
            Files::None => Ok(Vec::new()),
        }
    }
}

/// Opens a file or a directory of a tree.
pub(super) fn open_any(root: &Root, entry: &Entry) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    open(root, entry, if entry.kind == EntryKind::Dir { flags | OFlags::DIRECTORY } else { flags })
}

/// Opens a file of a tree, if it is still one.
pub(super) fn open_file(root: &Root, entry: &Entry) -> Result<File> {
    let fd = open_any(root, entry)?;
    let stat = rustix::fs::fstat(&fd).map_err(|e| Error::io("stat", &entry.path, e))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::Changed(show(&entry.path)));
    }
    Ok(File::from(fd))
}

fn open(root: &Root, entry: &Entry, flags: OFlags) -> Result<OwnedFd> {
    let opened = root.open_file(OsStr::from_bytes(&entry.path), flags, Mode::empty());
    opened.map_err(|e| match e.errno().map(Errno::from_raw_os_error) {
        Some(Errno::LOOP | Errno::NOENT | Errno::NOTDIR | Errno::NXIO) => Error::Changed(show(&entry.path)),
        Some(errno) => Error::io("open", &entry.path, errno),
        None => Error::Sys(e),
    })
}

/// The attributes that reach a layer, by name.
pub(super) fn attributes(fd: BorrowedFd<'_>, entry: &Entry) -> Result<Vec<Xattr>> {
    let failed = |e: Errno| Error::io("read the attributes of", &entry.path, e);
    let mut names = [0u8; 256];
    let mut long;
    let list: &[u8] = match rustix::fs::flistxattr(fd, &mut names[..]) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Ok(n) => names.get(..n).unwrap_or_default(),
        Err(Errno::RANGE) => {
            long = vec![0; MAX_XATTR];
            let n = rustix::fs::flistxattr(fd, &mut long[..]).map_err(failed)?;
            long.get(..n).unwrap_or_default()
        }
        Err(e) => return Err(failed(e)),
    };
    let mut kept: Vec<&[u8]> = list.split(|b| *b == 0).filter(|name| reaches_layers(name)).collect();
    kept.sort_unstable();
    let mut out = Vec::with_capacity(kept.len());
    for name in kept {
        let mut value = vec![0; MAX_XATTR];
        let n = rustix::fs::fgetxattr(fd, name, &mut value[..]).map_err(failed)?;
        value.truncate(n);
        value.shrink_to_fit();
        out.push((name.to_vec(), value));
    }
    Ok(out)
}

/// As layers are written: capabilities, and what users set; not what steers overlayfs.
pub(super) fn reaches_layers(name: &[u8]) -> bool {
    name == b"security.capability" || name.starts_with(b"user.") && !name.starts_with(b"user.overlay.")
}

/// The digest of attributes; [`NONE`] without any.
pub(super) fn digest(attributes: &[Xattr]) -> Digest {
    if attributes.is_empty() {
        return NONE;
    }
    let mut hash = Framed::default();
    for (name, value) in attributes {
        hash.bytes(name);
        hash.bytes(value);
    }
    hash.0.finish()
}

/// Attributes as bytes whose digest is that of [`digest`]: each name and value with its length in eight bytes before it.
pub(super) fn encode(attributes: &[Xattr]) -> Vec<u8> {
    let mut out = Vec::new();
    for field in attributes.iter().flat_map(|(name, value)| [&name[..], value]) {
        out.extend_from_slice(&(field.len() as u64).to_le_bytes());
        out.extend_from_slice(field);
    }
    out
}

/// What [`encode`] made.
pub(super) fn decode(encoded: &[u8]) -> Option<Vec<Xattr>> {
    let mut input = bytes::Input(encoded);
    let mut out = Vec::new();
    while !input.is_empty() {
        let mut field = || {
            let len = usize::try_from(u64::from_le_bytes(input.take()?)).ok()?;
            input.slice(len).map(<[u8]>::to_vec)
        };
        let (name, value) = (field()?, field()?);
        out.push((name, value));
    }
    Some(out)
}
