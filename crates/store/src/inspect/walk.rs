//! Going through several indexes side by side, in the order of a tree.

use super::{Layer, damaged};
use crate::layer::{IndexFile, IndexKind, Said, is_below, tree_order};
use crate::open::Store;
use crate::tar::EntryKind;
use crate::{Error, Result};

/// Indexes that are gone through at once: two images of the greatest depth.
const MAX: usize = 256;

/// A set of indexes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits([u64; MAX / 64]);

impl Bits {
    pub(super) fn has(&self, i: usize) -> bool {
        self.0[i / 64] & (1 << (i % 64)) != 0
    }

    pub(super) fn set(&mut self, i: usize) {
        self.0[i / 64] |= 1 << (i % 64);
    }

    /// Whether none from `i` on is in it.
    pub(super) fn none_from(&self, i: usize) -> bool {
        (i..MAX).all(|k| !self.has(k))
    }
}

struct Cursor {
    file: IndexFile,
    layer: Layer,
    /// Position of its next row.
    at: usize,
    /// That row's path; `None` at the end.
    next: Option<Vec<u8>>,
    /// Its paths are visited; the others only tell of them.
    leads: bool,
}

impl Cursor {
    fn refresh(&mut self) -> Result<()> {
        if self.at >= self.file.len() {
            self.next = None;
            return Ok(());
        }
        let mut path = self.next.take().unwrap_or_default();
        path.clear();
        let read = self.file.with(self.at, |e| path.extend_from_slice(e.path));
        read.map_err(|e| damaged(&self.layer, &e))?;
        self.next = Some(path);
        Ok(())
    }

    fn moved(&mut self, to: Result<usize>) -> Result<()> {
        let to = to.map_err(|e| damaged(&self.layer, &e))?;
        if to != self.at {
            self.at = to;
            self.refresh()?;
        }
        Ok(())
    }

    fn is_before(&self, path: &[u8]) -> bool {
        self.next.as_ref().is_some_and(|n| tree_order(n, path).is_lt())
    }
}

/// A directory on the way to where the walk is.
struct Frame {
    path: Vec<u8>,
    /// Indexes that hide what lower ones have in it.
    cut: Bits,
}

/// The walk. After [`Self::advance`], [`Self::path`] is the next path of the indexes that lead, and [`Self::said`] what
/// each says about it.
pub(super) struct Walk {
    cursors: Vec<Cursor>,
    frames: Vec<Frame>,
    path: Vec<u8>,
    said: Vec<Said>,
    /// Layers were unpacked into directories that hold the whole tree.
    shared: bool,
}

impl Walk {
    /// Over the indexes of these layers; `leads` says whose paths are visited.
    pub(super) fn open(store: &Store, layers: &[Layer], leads: impl Fn(usize) -> bool) -> Result<Self> {
        if layers.len() > MAX {
            return Err(Error::TooLarge(format!("{} layers at once, the limit is {MAX}", layers.len())));
        }
        let cursors = layers.iter().enumerate().map(|(i, layer)| {
            let file = store.index_of(layer, true)?;
            let mut cursor = Cursor { file, layer: layer.clone(), at: 0, next: None, leads: leads(i) };
            cursor.refresh()?;
            Ok(cursor)
        });
        Ok(Self {
            cursors: cursors.collect::<Result<_>>()?,
            frames: vec![Frame { path: Vec::new(), cut: Bits::default() }],
            path: Vec::new(),
            said: vec![Said::default(); layers.len()],
            shared: store.shares_directories(),
        })
    }

    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    pub(super) fn said(&self, i: usize) -> &Said {
        &self.said[i]
    }

    /// Indexes that hide what lower ones have at the path: they deleted, replaced or emptied a parent.
    pub(super) fn cut(&self) -> Bits {
        let above = self.frames.iter().rev().find(|f| is_below(&self.path, &f.path));
        above.map_or_else(Bits::default, |f| f.cut)
    }

    /// The same of what lies below the path.
    pub(super) fn cut_below(&self) -> Bits {
        self.frames.last().map_or_else(Bits::default, |f| f.cut)
    }

    /// Goes to the next path; false at the end.
    pub(super) fn advance(&mut self) -> Result<bool> {
        let leading = self.cursors.iter().filter(|c| c.leads).filter_map(|c| c.next.as_deref());
        let Some(target) = leading.min_by(|a, b| tree_order(a, b)) else { return Ok(false) };
        while self.frames.len() > 1 && self.frames.last().is_some_and(|f| !is_below(target, &f.path)) {
            self.frames.pop();
        }
        let dir = self.frames.last().map_or(0, |f| f.path.len());
        // Parents that the leading indexes do not mention are visited, too: others may say something of them.
        let start = if dir == 0 { 0 } else { dir + 1 };
        let end = target.iter().skip(start).position(|b| *b == b'/').map_or(target.len(), |n| start + n);
        self.path.clear();
        self.path.extend_from_slice(&target[..end]);
        for (cursor, said) in self.cursors.iter_mut().zip(&mut self.said) {
            if !cursor.leads && cursor.is_before(&self.path) {
                let to = cursor.file.seek(&self.path, cursor.at);
                cursor.moved(to)?;
            }
            // Nearly all of them say nothing.
            if said.opaque || said.entry.is_some() {
                *said = Said::default();
            }
            if cursor.next.as_deref() == Some(&self.path[..]) {
                let read = cursor.file.read_at(&self.path, cursor.at);
                let (found, to) = read.map_err(|e| damaged(&cursor.layer, &e))?;
                *said = found;
                cursor.moved(Ok(to))?;
            }
            said.below = cursor.next.as_ref().is_some_and(|n| is_below(n, &self.path));
        }
        self.open_frame();
        Ok(true)
    }

    fn open_frame(&mut self) {
        let mut cut = self.cut();
        for (i, said) in self.said.iter().enumerate() {
            let kind = said.entry.as_ref().map(|e| e.kind);
            let marks = said.opaque && (self.shared || !self.path.is_empty());
            if marks || kind.is_some_and(|k| k != IndexKind::Entry(EntryKind::Dir)) {
                cut.set(i);
            }
        }
        if self.path.is_empty() {
            self.frames[0].cut = cut;
        } else if self.said.iter().any(|s| s.below) {
            self.frames.push(Frame { path: self.path.clone(), cut });
        }
    }

    /// Passes over all below the path.
    pub(super) fn skip_below(&mut self) -> Result<()> {
        for cursor in &mut self.cursors {
            if cursor.next.as_ref().is_some_and(|n| is_below(n, &self.path)) {
                let to = cursor.file.seek_past(&self.path, cursor.at);
                cursor.moved(to)?;
            }
        }
        Ok(())
    }
}
