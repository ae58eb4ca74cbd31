//! A context that a client shares so that only what is used and changed is sent.
//!
//! The builder says which sources its steps name; the client walks its directory for these and sends the list of what
//! is there ([`send_tree`]). The builder knows by that list which files it has ([`receive`]), and asks for the others by
//! their places in the list ([`send_files`]). What the client sends are frames, a byte that tells what it is, the length
//! in four bytes and as many bytes, all numbers in little endian:
//!
//! ```text
//! 1  entries: u16 bytes shared with the path before, u16 bytes that follow, the bytes
//!             u8 kind (f d l p c b), u64 size, i64 + u32 mtime, i64 + u32 ctime, u64 inode, u32 mode
//!             links: u16 and the target; devices: u32 major, u32 minor
//! 2  the end of the entries: u64 how many there were
//! 3  a file: u32 place, u64 size … u32 mode as above, of now; of each attribute u16 and its name, u32 and its value
//! 4  bytes of it, in order
//! 5  its end: u8 1 if a change from now on would be seen, 0 if it was written to so shortly before that it would not
//! 6  the client cannot go on: text
//! ```
//!
//! Owners are not sent: a client's users are nobody's in an image.

mod receive;
mod send;

use std::io::{self, Read, Write};

use longshore_store::tar::Xattr;

pub use self::receive::{Ask, Use, receive};
#[cfg(test)]
pub(super) use self::send::send_files_after;
pub use self::send::{send_failure, send_files, send_tree};
use super::bytes::{Input, put_path};
use super::cache::Stamp;
use super::error::{Error, Result};
use super::tree::{Entry, EntryKind};

const ENTRIES: u8 = 1;
const WALKED: u8 = 2;
const FILE: u8 = 3;
const DATA: u8 = 4;
const END: u8 = 5;
const FAILED: u8 = 6;

/// Bytes of a frame at most.
const MAX_FRAME: usize = 1 << 20;
/// Bytes after which a frame of entries, or one of a file's bytes, is sent.
const CHUNK: usize = 128 << 10;

fn put_frame(out: &mut impl Write, tag: u8, parts: &[&[u8]]) -> Result<()> {
    let len = u32::try_from(parts.iter().map(|part| part.len()).sum::<usize>()).unwrap_or(u32::MAX);
    let [a, b, c, d] = len.to_le_bytes();
    out.write_all(&[tag, a, b, c, d]).map_err(Error::Send)?;
    parts.iter().try_for_each(|part| out.write_all(part)).map_err(Error::Send)
}

/// Reads a frame into `payload`, and gives its tag.
fn get_frame(from: &mut dyn Read, payload: &mut Vec<u8>) -> Result<u8> {
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::UnexpectedEof => Error::Peer("the client went away while it sent its context".into()),
        _ => Error::Peer(format!("read the context: {e}")),
    };
    let mut head = [0; 5];
    from.read_exact(&mut head).map_err(failed)?;
    let [tag, len @ ..] = head;
    let len = u32::from_le_bytes(len) as usize;
    if len > MAX_FRAME {
        return Err(Error::Peer(format!(
            "the context has a frame of {len} bytes: at most {MAX_FRAME} are read"
        )));
    }
    payload.resize(len, 0);
    from.read_exact(payload).map_err(failed)?;
    Ok(tag)
}

fn put_entry(out: &mut Vec<u8>, before: &[u8], entry: &Entry) {
    put_path(out, before, &entry.path);
    out.push(match entry.kind {
        EntryKind::File => b'f',
        EntryKind::Dir => b'd',
        EntryKind::Symlink => b'l',
        EntryKind::Fifo => b'p',
        EntryKind::Char(..) => b'c',
        EntryKind::Block(..) => b'b',
    });
    Stamp::of(entry).put(out);
    match entry.kind {
        EntryKind::Symlink => {
            // The kernel has no longer ones than 4095 bytes.
            out.extend_from_slice(&u16::try_from(entry.link.len()).unwrap_or(u16::MAX).to_le_bytes());
            out.extend_from_slice(&entry.link);
        }
        EntryKind::Char(major, minor) | EntryKind::Block(major, minor) => {
            out.extend_from_slice(&major.to_le_bytes());
            out.extend_from_slice(&minor.to_le_bytes());
        }
        EntryKind::File | EntryKind::Dir | EntryKind::Fifo => {}
    }
}

fn get_entry(input: &mut Input<'_>, path: &mut Vec<u8>) -> Option<Entry> {
    input.path(path)?;
    let [kind] = input.take()?;
    let stamp = Stamp::get(input)?;
    let mut link = Vec::new();
    let mut device = || Some((u32::from_le_bytes(input.take()?), u32::from_le_bytes(input.take()?)));
    let kind = match kind {
        b'f' => EntryKind::File,
        b'd' => EntryKind::Dir,
        b'p' => EntryKind::Fifo,
        b'c' => device().map(|(major, minor)| EntryKind::Char(major, minor))?,
        b'b' => device().map(|(major, minor)| EntryKind::Block(major, minor))?,
        b'l' => {
            let len = u16::from_le_bytes(input.take()?).into();
            link = input.slice(len)?.to_vec();
            EntryKind::Symlink
        }
        _ => return None,
    };
    let mut entry = Entry { link, ..Entry::new(path.clone(), kind) };
    looks(&mut entry, &stamp);
    Some(entry)
}

/// An entry looks like this now.
fn looks(entry: &mut Entry, stamp: &Stamp) {
    entry.mode = stamp.mode & 0o7777;
    entry.size = if entry.kind == EntryKind::File { stamp.size } else { 0 };
    (entry.mtime, entry.ctime, entry.ino) = (stamp.mtime, stamp.ctime, stamp.ino);
}

fn put_attributes(out: &mut Vec<u8>, attributes: &[Xattr]) {
    for (name, value) in attributes {
        // The kernel has no names of more than 255 bytes, and no values of more than 64 KiB.
        out.extend_from_slice(&u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes());
        out.extend_from_slice(name);
        out.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(value);
    }
}

fn get_attributes(input: &mut Input<'_>) -> Option<Vec<Xattr>> {
    let mut out = Vec::new();
    while !input.is_empty() {
        let len = u16::from_le_bytes(input.take()?).into();
        let name = input.slice(len)?.to_vec();
        let len = usize::try_from(u32::from_le_bytes(input.take()?)).ok()?;
        out.push((name, input.slice(len)?.to_vec()));
    }
    Some(out)
}
