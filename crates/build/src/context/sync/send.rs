//! The client's side.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write};
use std::ops::Range;
use std::os::fd::AsFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use longshore_store::tar::Time;

use super::{
    CHUNK, DATA, END, ENTRIES, FAILED, FILE, MAX_FRAME, WALKED, put_attributes, put_entry, put_frame,
};
use crate::context::Context;
use crate::context::cache::Stamp;
use crate::context::error::{Error, Result, show};
use crate::context::files::{attributes, open_any, open_file};
use crate::context::tree::{Entry, EntryKind};
use crate::context::walk::time;

/// How long ago something must have been written to for another write to be seen: file systems count time in steps of up
/// to two seconds.
const SETTLED: Duration = Duration::from_secs(2);

/// Sends the list of what is in a context.
///
/// # Errors
/// [`Error::Send`] when `out` fails.
pub fn send_tree(context: &Context, mut out: impl Write) -> Result<()> {
    let (mut chunk, mut before): (_, &[u8]) = (Vec::with_capacity(CHUNK), b"");
    for entry in context.tree().entries() {
        put_entry(&mut chunk, before, entry);
        before = &entry.path;
        if chunk.len() >= CHUNK {
            put_frame(&mut out, ENTRIES, &[&chunk])?;
            chunk.clear();
        }
    }
    if !chunk.is_empty() {
        put_frame(&mut out, ENTRIES, &[&chunk])?;
    }
    let count = context.tree().entries().len() as u64;
    put_frame(&mut out, WALKED, &[&count.to_le_bytes()])?;
    out.flush().map_err(Error::Send)
}

/// Sends files and directories by their places in the list, as they are now.
///
/// # Errors
/// When one cannot be read, or is something else now, each with its path; [`Error::Send`] when `out` fails.
pub fn send_files(context: &Context, wanted: &[Range<usize>], out: impl Write) -> Result<()> {
    send_files_after(context, wanted, SETTLED, out)
}

/// The same where another time must have passed.
pub(in crate::context) fn send_files_after(
    context: &Context,
    wanted: &[Range<usize>],
    settled: Duration,
    mut out: impl Write,
) -> Result<()> {
    let mut chunk = vec![0; CHUNK];
    for at in wanted.iter().flat_map(Range::clone) {
        let entry = context
            .tree()
            .get(at)
            .ok_or_else(|| Error::Peer("the builder asks for no file of the context".into()))?;
        let kept = send_file(context, at, entry, &mut chunk, &mut out)?;
        let keep = kept.is_some_and(|(stamp, before)| is_settled(&stamp, before, settled));
        put_frame(&mut out, END, &[&[u8::from(keep)]])?;
    }
    out.flush().map_err(Error::Send)
}

/// Says why nothing more comes.
///
/// # Errors
/// [`Error::Send`].
pub fn send_failure(why: &str, mut out: impl Write) -> Result<()> {
    let text = why.as_bytes();
    put_frame(&mut out, FAILED, &[text.get(..MAX_FRAME).unwrap_or(text)])?;
    out.flush().map_err(Error::Send)
}

/// Sends all of a file but its end. Gives how it looks and when it was begun; `None` where it changed meanwhile.
fn send_file(
    context: &Context,
    at: usize,
    entry: &Entry,
    chunk: &mut [u8],
    out: &mut impl Write,
) -> Result<Option<(Stamp, SystemTime)>> {
    let root = context.root().ok_or(Error::Internal("a context that is nowhere on disk is sent"))?;
    let before = SystemTime::now();
    let place = u32::try_from(at).map_err(|_| Error::Internal("more entries than are walked"))?;
    let mut file = match entry.kind {
        EntryKind::File => open_file(root, entry)?,
        EntryKind::Dir => File::from(open_any(root, entry)?),
        _ => return Err(Error::Peer("the builder asks for what is no file".into())),
    };
    let stamp = look(&file, entry)?;
    let mut head = place.to_le_bytes().to_vec();
    stamp.put(&mut head);
    put_attributes(&mut head, &attributes(file.as_fd(), entry)?);
    put_frame(out, FILE, &[&head])?;
    if entry.kind == EntryKind::File {
        send_bytes(&mut file, entry, chunk, out)?;
    }
    let same = look(&file, entry)? == stamp;
    Ok(same.then_some((stamp, before)))
}

fn send_bytes(file: &mut File, entry: &Entry, chunk: &mut [u8], out: &mut impl Write) -> Result<()> {
    loop {
        match file.read(chunk) {
            Ok(0) => return Ok(()),
            Ok(n) => put_frame(out, DATA, &[chunk.get(..n).unwrap_or_default()])?,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io("read", &entry.path, e)),
        }
    }
}

/// How an open file looks.
fn look(file: &File, entry: &Entry) -> Result<Stamp> {
    let stat = rustix::fs::fstat(file).map_err(|e| Error::io("stat", &entry.path, e))?;
    let size = u64::try_from(stat.st_size).map_err(|_| Error::Changed(show(&entry.path)))?;
    Ok(Stamp {
        size: if entry.kind == EntryKind::File { size } else { 0 },
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        ino: stat.st_ino,
        // A context's root has the mode that the walk gave it.
        mode: if entry.path.is_empty() { entry.mode } else { stat.st_mode & 0o7777 },
    })
}

/// Whether something was last written to so long before `now` that a write from then on has another time.
fn is_settled(stamp: &Stamp, now: SystemTime, settled: Duration) -> bool {
    let limit = now.checked_sub(settled).and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let limit =
        limit.and_then(|at| Some(Time { secs: i64::try_from(at.as_secs()).ok()?, nanos: at.subsec_nanos() }));
    limit.is_some_and(|limit| stamp.mtime < limit && stamp.ctime < limit)
}
