//! Tar, read strictly and written deterministically.
//!
//! Names and attributes are bytes. Read are ustar, v7, star, GNU (long names, old sparse files,
//! base-256 numbers) and pax (also all of GNU's sparse formats). Where readers in the field would
//! disagree about where an entry ends, the archive is refused.

mod header;
mod pax;
mod reader;
mod sparse;
mod writer;

pub use reader::{RawSink, Reader};
pub use writer::Writer;

/// The size of a tar block.
pub const BLOCK: usize = 512;

/// What is read from an archive at most.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of one pax or GNU long-name header.
    pub header_bytes: u64,
    /// Bytes of a path or a link target.
    pub path_bytes: usize,
    /// Bytes of the value of one extended attribute.
    pub xattr_value_bytes: usize,
    /// Extended attributes of one entry.
    pub xattrs: usize,
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of the archive, uncompressed.
    pub bytes: u64,
    /// Logical bytes of all files together, holes included.
    pub file_bytes: u64,
    /// Segments of one sparse file.
    pub sparse_segments: usize,
    /// How many times larger than its compressed form the archive may be…
    pub ratio: u64,
    /// …once it is larger than this.
    pub ratio_floor: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 1 << 20,
            path_bytes: 4096,
            xattr_value_bytes: 64 << 10,
            xattrs: 256,
            entries: 5_000_000,
            bytes: 256 << 30,
            file_bytes: 1 << 40,
            sparse_segments: 1 << 20,
            // Deflate cannot exceed 1032.
            ratio: 1100,
            ratio_floor: 1 << 30,
        }
    }
}

/// The type of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A regular file.
    #[default]
    File,
    /// A hard link; the target is the path of an entry.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A directory.
    Dir,
    /// A named pipe.
    Fifo,
}

/// A time with nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Seconds since 1970, negative before.
    pub secs: i64,
    /// Nanoseconds after `secs`.
    pub nanos: u32,
}

/// An extended attribute: name and value.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// One member of an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The name as it stands in the archive.
    pub path: Vec<u8>,
    /// The target of a link.
    pub link: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Time,
    /// Bytes of the file, holes included.
    pub size: u64,
    /// Device number, for devices.
    pub dev: (u32, u32),
    /// Extended attributes.
    pub xattrs: Vec<Xattr>,
    /// For a sparse file, where its data lie: offset and length, ascending. The payload is the
    /// data only.
    pub sparse: Option<Vec<(u64, u64)>>,
}
