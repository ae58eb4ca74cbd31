//! Sending a context as a tar: the same files always give the same bytes.

use std::io::{ErrorKind, Read, Write};

use longshore_store::tar::{self, Time, Writer};

use super::Context;
use super::error::{Error, Result, show};
use super::tree::{Entry, EntryKind};

/// Bytes that are read at a time.
const CHUNK: usize = 128 << 10;

/// A file that is sent although the context has none of that name, or another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extra {
    /// From the root, clean.
    pub path: Vec<u8>,
    /// Its bytes.
    pub content: Vec<u8>,
}

/// Writes `context` to `out` as a tar: `extra` first, then the rest in the order of the tree. Everything belongs to
/// user and group 0; modes, times and the attributes that reach layers are kept; of a file with several names each
/// is sent as a file of its own. No more than a few chunks are in memory.
///
/// A file that grows meanwhile is sent with the size that it had when it was opened.
///
/// # Errors
/// For a file that cannot be read, became shorter meanwhile or is a pipe or device, each with its path;
/// [`Error::Send`] when `out` fails.
pub fn pack(context: &Context, extra: &[Extra], out: impl Write) -> Result<()> {
    let mut archive = Archive { tar: Writer::new(out), chunk: vec![0; CHUNK] };
    archive.extra(extra)?;
    for (at, entry) in context.tree().entries().iter().enumerate().skip(1) {
        if !extra.iter().any(|e| e.path == entry.path) {
            archive.entry(context, at, entry)?;
        }
    }
    archive.finish()
}

/// Writes a context that is these files only.
///
/// # Errors
/// [`Error::Send`] when `out` fails.
pub fn pack_files(files: &[Extra], out: impl Write) -> Result<()> {
    let mut archive = Archive { tar: Writer::new(out), chunk: Vec::new() };
    archive.extra(files)?;
    archive.finish()
}

struct Archive<W> {
    tar: Writer<W>,
    chunk: Vec<u8>,
}

impl<W: Write> Archive<W> {
    fn extra(&mut self, files: &[Extra]) -> Result<()> {
        for file in files {
            let entry = tar::Entry {
                path: file.path.clone(),
                mode: 0o644,
                size: file.content.len() as u64,
                ..tar::Entry::default()
            };
            self.tar.entry(&entry).map_err(sending)?;
            self.tar.data(&file.content).map_err(sending)?;
        }
        Ok(())
    }

    fn entry(&mut self, context: &Context, at: usize, entry: &Entry) -> Result<()> {
        let cannot = |what| Err(Error::Unsendable { path: show(&entry.path), what });
        match entry.kind {
            EntryKind::File => self.file(context, at, entry),
            EntryKind::Dir => {
                let mut header = header(entry, tar::EntryKind::Dir);
                header.path.push(b'/');
                header.xattrs = context.attributes(at)?;
                self.tar.entry(&header).map_err(sending)
            }
            EntryKind::Symlink => {
                let mut header = header(entry, tar::EntryKind::Symlink);
                header.mode = 0o777;
                self.tar.entry(&header).map_err(sending)
            }
            EntryKind::Fifo => cannot("named pipe"),
            EntryKind::Char(..) => cannot("character device"),
            EntryKind::Block(..) => cannot("block device"),
        }
    }

    fn file(&mut self, context: &Context, at: usize, entry: &Entry) -> Result<()> {
        let file = context.open_file(at)?;
        let mut header = header(entry, tar::EntryKind::File);
        header.size = file.metadata().map_err(|e| Error::io("stat", &entry.path, e))?.len();
        header.xattrs = context.attributes(at)?;
        self.tar.entry(&header).map_err(sending)?;
        let mut rest = file.take(header.size);
        while self.tar.left() > 0 {
            match rest.read(&mut self.chunk) {
                Ok(0) => return Err(Error::Changed(show(&entry.path))),
                Ok(n) => self.tar.data(self.chunk.get(..n).unwrap_or_default()).map_err(sending)?,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io("read", &entry.path, e)),
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<()> {
        self.tar.finish().map(drop).map_err(sending)
    }
}

fn header(entry: &Entry, kind: tar::EntryKind) -> tar::Entry {
    let Time { secs, nanos } = entry.mtime;
    tar::Entry {
        path: entry.path.clone(),
        link: entry.link.clone(),
        kind,
        mode: entry.mode,
        mtime: Time { secs, nanos },
        ..tar::Entry::default()
    }
}

/// The writer of archives fails only when what it writes to does.
fn sending(e: longshore_store::Error) -> Error {
    match e {
        longshore_store::Error::Io { source, .. } => Error::Send(source),
        e => Error::Send(std::io::Error::other(e.to_string())),
    }
}
