//! Writing a file index while a layer is unpacked.
//!
//! Noted is what each entry of the tar did, under the path where it really went; written is what stands in the
//! directory at the end. Entries that later ones of the same layer replaced are gone, and a whiteout means nothing for
//! what the same layer brings.

use std::collections::HashMap;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use flate2::Crc;

use super::index::{IMPLIED, IndexKind, MAGIC, SHARED, VERSION, bad, is_below, tree_order};
use super::tree::split;
use crate::error::{Error, IoContext, Result};
use crate::tar::{Entry, EntryKind, Time};

/// Mode of directories that no entry describes.
pub(super) const IMPLIED_MODE: u32 = 0o755;

/// What was noted of one entry, in the order of the tar.
#[derive(Clone, Copy)]
struct Noted {
    /// Where its path starts among the names; the target of its link follows.
    at: usize,
    path_len: u16,
    link_len: u16,
    kind: IndexKind,
    mode: u32,
    size: u64,
    mtime: Time,
    owner: (u32, u32),
    dev: (u32, u32),
}

/// Collects an index while a layer is unpacked.
#[derive(Default)]
pub(super) struct IndexWriter {
    names: Vec<u8>,
    rows: Vec<Noted>,
    /// Directories that were removed with all that they held, and how many rows there were by then.
    cleared: Vec<(Vec<u8>, usize)>,
}

/// A line that will be written.
struct Line {
    row: Noted,
    /// `None`: the row's own path.
    path: Option<Vec<u8>>,
    /// A hard link: to the path of the line with this number.
    to: Option<usize>,
    flags: u8,
}

impl IndexWriter {
    /// Notes what an entry did at the clean path `path`, where no link leads elsewhere. `link` is the target of a
    /// symbolic link as it is, of a hard link the clean path of the file; `size` the bytes of the file.
    pub(super) fn add(
        &mut self,
        path: &[u8],
        kind: IndexKind,
        entry: &Entry,
        link: &[u8],
        size: u64,
    ) -> Result<()> {
        let short = |len: usize| {
            u16::try_from(len).map_err(|_| Error::TooLarge("layer: path too long for the index".into()))
        };
        self.rows.push(Noted {
            at: self.names.len(),
            path_len: short(path.len())?,
            link_len: short(link.len())?,
            kind,
            mode: entry.mode,
            size,
            mtime: entry.mtime,
            owner: (entry.uid, entry.gid),
            dev: entry.dev,
        });
        self.names.extend_from_slice(path);
        self.names.extend_from_slice(link);
        Ok(())
    }

    /// Notes that the directory `path` was removed with all that it held so far.
    pub(super) fn cleared(&mut self, path: &[u8]) {
        self.cleared.push((path.to_owned(), self.rows.len()));
    }

    fn path(&self, row: &Noted) -> &[u8] {
        &self.names[row.at..row.at + usize::from(row.path_len)]
    }

    fn link(&self, row: &Noted) -> &[u8] {
        let at = row.at + usize::from(row.path_len);
        &self.names[at..at + usize::from(row.link_len)]
    }

    /// Sorts and writes. `implied` is the owner of directories that were made because something lies in them; `None`
    /// where they are those of a lower layer.
    pub(super) fn write(self, path: &Path, implied: Option<(u32, u32)>, sync: bool) -> Result<()> {
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .context(|| format!("create {}", path.display()))?;
        let mut out = BufWriter::with_capacity(256 << 10, file);
        self.encode(&mut out, implied).context(|| format!("write {}", path.display()))?;
        let file = out.into_inner().map_err(|e| Error::io("write index", e.into_error()))?;
        if sync {
            file.sync_all().context(|| format!("sync {}", path.display()))?;
        }
        Ok(())
    }

    /// The same to anywhere.
    pub(super) fn encode(mut self, out: &mut impl Write, implied: Option<(u32, u32)>) -> std::io::Result<()> {
        let lines = self.settle(implied);
        let mut out = Summed { inner: out, sum: Crc::new() };
        self.put(&mut out, &lines)?;
        let sum = out.sum.sum();
        out.write_all(&sum.to_le_bytes())
    }

    /// What stands in the directory at the end, in order.
    fn settle(&mut self, implied: Option<(u32, u32)>) -> Vec<Line> {
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        order.sort_by(|&a, &b| tree_order(self.path(&self.rows[a]), self.path(&self.rows[b])));
        let origins = self.link_up(&order);
        let dead = self.dead(&order);
        let mut lines = Vec::with_capacity(order.len());
        // Directories that lead to where we are.
        let mut open: Vec<Vec<u8>> = Vec::new();
        let mut i = 0;
        while i < order.len() {
            let path = self.path(&self.rows[order[i]]).to_owned();
            let end =
                (i..order.len()).find(|&k| self.path(&self.rows[order[k]]) != path).unwrap_or(order.len());
            let below = order.get(end..).is_some_and(|rest| {
                let held = |k: &&usize| is_below(self.path(&self.rows[**k]), &path);
                rest.iter().take_while(held).any(|k| !dead[*k])
            });
            let last = self.last(order[i..end].iter().copied().filter(|k| !dead[*k]), below);
            i = end;
            if last.is_nothing() {
                continue;
            }
            if let Some(owner) = implied {
                let own = (last.entry.is_none() && last.opaque).then_some(path.as_slice());
                imply(&mut lines, &mut open, &path, own, owner);
            }
            if let Some(k) = last.entry {
                if implied.is_some() && self.rows[k].kind == IndexKind::Entry(EntryKind::Dir) {
                    open.push(path);
                }
                lines.push((k, Line { row: self.rows[k], path: None, to: None, flags: 0 }));
            }
            if let Some(k) = last.mark {
                let row = Noted { link_len: 0, kind: last.mark_kind(), ..self.rows[k] };
                lines.push((usize::MAX, Line { row, path: None, to: None, flags: 0 }));
            }
        }
        self.share(lines, &origins)
    }

    /// The path's state after its rows, in the order of the tar. `below`: something stands in it.
    fn last(&self, rows: impl Iterator<Item = usize>, below: bool) -> Last {
        let mut last = Last::default();
        for k in rows {
            let is_dir = |k: usize| self.rows[k].kind == IndexKind::Entry(EntryKind::Dir);
            match self.rows[k].kind {
                // A whiteout hides lower layers, not what this layer brings.
                IndexKind::Whiteout if last.entry.is_some_and(is_dir) => {
                    (last.mark, last.opaque) = (Some(k), true)
                }
                IndexKind::Whiteout if last.entry.is_none() && !last.opaque => last.mark = Some(k),
                IndexKind::Whiteout => {}
                IndexKind::Opaque => (last.mark, last.opaque) = (Some(k), true),
                IndexKind::Entry(EntryKind::Dir) => {
                    last.opaque |= last.mark.is_some();
                    last.entry = Some(k);
                }
                IndexKind::Entry(_) => last = Last { entry: Some(k), ..Last::default() },
            }
        }
        last.opaque |= last.mark.is_some() && below;
        last
    }

    /// Which rows are gone with a directory that was removed.
    fn dead(&self, order: &[usize]) -> Vec<bool> {
        let mut dead = vec![false; self.rows.len()];
        for (dir, before) in &self.cleared {
            let start = order.partition_point(|&k| tree_order(self.path(&self.rows[k]), dir).is_le());
            for &k in order[start..].iter().take_while(|&&k| is_below(self.path(&self.rows[k]), dir)) {
                dead[k] |= k < *before;
            }
        }
        dead
    }

    /// For each hard link the row of the file that it is a name of. The header of a hard link speaks of that file.
    fn link_up(&mut self, order: &[usize]) -> HashMap<usize, usize> {
        let mut origins = HashMap::new();
        for k in 0..self.rows.len() {
            if self.rows[k].kind != IndexKind::Entry(EntryKind::HardLink) {
                continue;
            }
            let target = self.link(&self.rows[k]);
            let start = order.partition_point(|&r| tree_order(self.path(&self.rows[r]), target).is_lt());
            let named = order[start..].iter().take_while(|&&r| self.path(&self.rows[r]) == target);
            let is_entry = |r: &&usize| matches!(self.rows[**r].kind, IndexKind::Entry(_));
            let Some(&found) = named.take_while(|&&r| r < k).filter(is_entry).last() else { continue };
            let origin = origins.get(&found).copied().unwrap_or(found);
            origins.insert(k, origin);
            let link = self.rows[k];
            let file = &mut self.rows[origin];
            file.owner = link.owner;
            if file.kind != IndexKind::Entry(EntryKind::Symlink) {
                (file.mode, file.mtime) = (link.mode, link.mtime);
            }
        }
        origins
    }

    /// Gives every name of a file the file's attributes: the first name that is still there is the file, the others are
    /// links to it. Names of other types show what they are.
    fn share(&self, mut lines: Vec<(usize, Line)>, origins: &HashMap<usize, usize>) -> Vec<Line> {
        // For each file with several names: the line that is the file, and how many names are left.
        let mut files: HashMap<usize, (Option<usize>, usize)> =
            origins.values().map(|file| (*file, (None, 0))).collect();
        for (at, (k, _)) in lines.iter().enumerate() {
            if let Some((line, names)) = files.get_mut(origins.get(k).unwrap_or(k)) {
                *names += 1;
                // Where the file's own row still stands, that is the file.
                if line.is_none() || !origins.contains_key(k) {
                    *line = Some(at);
                }
            }
        }
        for (at, (k, line)) in lines.iter_mut().enumerate() {
            let origin = *origins.get(k).unwrap_or(k);
            let Some((Some(first), names)) = files.get(&origin) else {
                if line.row.kind == IndexKind::Entry(EntryKind::HardLink) {
                    // A name of a lower layer's file, where layers share a directory.
                    line.row.kind = IndexKind::Entry(EntryKind::File);
                }
                continue;
            };
            let file = self.rows[origin];
            if file.kind == IndexKind::Entry(EntryKind::File) {
                line.row = Noted { at: line.row.at, path_len: line.row.path_len, link_len: 0, ..file };
                if *first != at {
                    line.to = Some(*first);
                    line.row.kind = IndexKind::Entry(EntryKind::HardLink);
                }
                line.flags |= if *names > 1 { SHARED } else { 0 };
            } else {
                line.path = Some(self.path(&line.row).to_owned());
                line.row = file;
            }
        }
        lines.into_iter().map(|(_, line)| line).collect()
    }

    fn line_path<'a>(&'a self, line: &'a Line) -> &'a [u8] {
        line.path.as_deref().unwrap_or_else(|| self.path(&line.row))
    }

    fn line_link<'a>(&'a self, lines: &'a [Line], line: &'a Line) -> &'a [u8] {
        match line.to {
            Some(to) => self.line_path(&lines[to]),
            None if line.row.kind == IndexKind::Entry(EntryKind::Symlink) => self.link(&line.row),
            None => b"",
        }
    }

    fn put(&self, out: &mut impl Write, lines: &[Line]) -> std::io::Result<()> {
        let len = |line: &Line| self.line_path(line).len() + self.line_link(lines, line).len();
        let names: u64 = lines.iter().map(|line| len(line) as u64).sum();
        let count = u32::try_from(lines.len()).map_err(|_| bad("too many entries"))?;
        out.write_all(MAGIC)?;
        out.write_all(&VERSION.to_le_bytes())?;
        out.write_all(&count.to_le_bytes())?;
        out.write_all(&names.to_le_bytes())?;
        let mut at = 0u64;
        for line in lines {
            let (path, link) = (self.line_path(line), self.line_link(lines, line));
            let short = |text: &[u8]| u16::try_from(text.len()).map_err(|_| bad("a path is too long"));
            let row = &line.row;
            let mut buf = [0u8; 56];
            buf[..8].copy_from_slice(&at.to_le_bytes());
            buf[8..10].copy_from_slice(&short(path)?.to_le_bytes());
            buf[10..12].copy_from_slice(&[row.kind.code(), line.flags]);
            buf[12..16].copy_from_slice(&row.mode.to_le_bytes());
            buf[16..24].copy_from_slice(&row.size.to_le_bytes());
            buf[24..32].copy_from_slice(&row.mtime.secs.to_le_bytes());
            buf[32..36].copy_from_slice(&row.mtime.nanos.to_le_bytes());
            buf[36..40].copy_from_slice(&row.owner.0.to_le_bytes());
            buf[40..44].copy_from_slice(&row.owner.1.to_le_bytes());
            buf[44..48].copy_from_slice(&row.dev.0.to_le_bytes());
            buf[48..52].copy_from_slice(&row.dev.1.to_le_bytes());
            buf[52..54].copy_from_slice(&short(link)?.to_le_bytes());
            out.write_all(&buf)?;
            at += (path.len() + link.len()) as u64;
        }
        for line in lines {
            out.write_all(self.line_path(line))?;
            out.write_all(self.line_link(lines, line))?;
        }
        Ok(())
    }
}

/// What became of a path.
#[derive(Default)]
struct Last {
    entry: Option<usize>,
    /// The row of a whiteout or an opaque mark.
    mark: Option<usize>,
    /// The mark is an opaque one: there is a directory.
    opaque: bool,
}

impl Last {
    fn is_nothing(&self) -> bool {
        self.entry.is_none() && self.mark.is_none()
    }

    fn mark_kind(&self) -> IndexKind {
        if self.opaque { IndexKind::Opaque } else { IndexKind::Whiteout }
    }
}

/// Adds the directories that lead to `path` and have no line yet, and `own`, which is that path if it is one itself.
fn imply(
    lines: &mut Vec<(usize, Line)>,
    open: &mut Vec<Vec<u8>>,
    path: &[u8],
    own: Option<&[u8]>,
    owner: (u32, u32),
) {
    while open.last().is_some_and(|dir| !is_below(path, dir)) {
        open.pop();
    }
    let known = open.last().map_or(0, Vec::len);
    let mut missing: Vec<&[u8]> = own.filter(|dir| !dir.is_empty()).into_iter().collect();
    let mut at = split(path).0;
    while at.len() > known {
        missing.push(at);
        at = split(at).0;
    }
    for dir in missing.into_iter().rev() {
        let row = Noted {
            at: 0,
            path_len: 0,
            link_len: 0,
            kind: IndexKind::Entry(EntryKind::Dir),
            mode: IMPLIED_MODE,
            size: 0,
            mtime: Time::default(),
            owner,
            dev: (0, 0),
        };
        open.push(dir.to_owned());
        lines.push((usize::MAX, Line { row, path: Some(dir.to_owned()), to: None, flags: IMPLIED }));
    }
}

/// Sums up what is written.
struct Summed<W> {
    inner: W,
    sum: Crc,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.sum.update(&buf[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}
