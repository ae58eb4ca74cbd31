//! What each layer of an image adds, changes, deletes and wastes.

use std::collections::{HashMap, HashSet};

use longshore_oci::Digest;

use super::Layer;
use super::walk::Walk;
use crate::Result;
use crate::layer::{IndexKind, OwnedEntry};
use crate::open::Store;
use crate::tar::EntryKind;

/// A layer's part in an image. What is no directory counts as a file.
#[derive(Clone, Debug)]
pub struct LayerTally {
    #[allow(missing_docs)]
    pub layer: Layer,
    /// Files that were not there below.
    pub added: u64,
    /// Files that replace one of the layers below.
    pub changed: u64,
    /// Files of the layers below that are gone.
    pub deleted: u64,
    /// Directories that it makes or gives another look.
    pub directories: u64,
    /// Bytes of its regular files, each once however many names it has.
    pub bytes: u64,
    /// Those of them that a layer above replaces or deletes.
    pub wasted: u64,
}

/// An image's layers, the lowest first.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Tally {
    pub layers: Vec<LayerTally>,
}

impl Tally {
    /// Bytes of all regular files of all layers.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.layers.iter().map(|l| l.bytes).sum()
    }

    /// Bytes that no container can see.
    #[must_use]
    pub fn wasted(&self) -> u64 {
        self.layers.iter().map(|l| l.wasted).sum()
    }
}

/// What shows at a path: the layer's position, and its entry (`None`: a directory that is only implied).
type Shown<'a> = Option<(usize, Option<&'a OwnedEntry>)>;

struct Count {
    layers: Vec<LayerTally>,
    /// Of each layer, files with several names of which one is hidden: where the file is, and its bytes.
    hidden: Vec<HashMap<Vec<u8>, u64>>,
    /// The same where one is seen at last.
    seen: Vec<HashSet<Vec<u8>>>,
}

impl Store {
    /// Counts what each layer of an image does.
    ///
    /// # Errors
    /// `NotFound` for the image, `Corrupt` for a damaged index.
    pub fn tally(&self, image: &Digest) -> Result<Tally> {
        let layers = self.layers_of(image)?;
        let n = layers.len();
        let mut walk = Walk::open(self, &layers, |_| true)?;
        let tally = |layer| LayerTally {
            layer,
            added: 0,
            changed: 0,
            deleted: 0,
            directories: 0,
            bytes: 0,
            wasted: 0,
        };
        let mut count = Count {
            layers: layers.into_iter().map(tally).collect(),
            hidden: vec![HashMap::new(); n],
            seen: vec![HashSet::new(); n],
        };
        while walk.advance()? {
            count.path(&walk);
        }
        Ok(count.finish())
    }
}

impl Count {
    fn path(&mut self, walk: &Walk) {
        let cut = walk.cut();
        let mut now: Shown<'_> = None;
        for i in 0..self.layers.len() {
            let said = walk.said(i);
            let Some(entry) = &said.entry else {
                // With an entry of its own it is a change.
                if cut.has(i) {
                    self.gone(i, now.take(), walk.path());
                }
                if (said.below || said.opaque) && now.is_none() {
                    now = Some((i, None));
                }
                continue;
            };
            match entry.kind {
                IndexKind::Whiteout | IndexKind::Opaque => self.gone(i, now.take(), walk.path()),
                IndexKind::Entry(EntryKind::Dir) => {
                    let same = matches!(now, Some((_, Some(old))) if old.is_dir() && same_look(old, entry));
                    self.layers[i].directories += u64::from(!same && !entry.implied);
                    if now.is_some_and(|(_, e)| e.is_some_and(|e| !e.is_dir())) {
                        self.gone(i, now.take(), walk.path());
                    }
                    now = Some((i, Some(entry)));
                }
                IndexKind::Entry(_) => {
                    self.put(i, entry, now.take(), walk.path());
                    now = Some((i, Some(entry)));
                }
            }
        }
        if let Some((i, Some(entry))) = now
            && entry.is_file()
            && entry.shared
        {
            self.seen[i].insert(file_of(entry, walk.path()).to_vec());
        }
    }

    /// Layer `i` brings a file where `old` was.
    fn put(&mut self, i: usize, entry: &OwnedEntry, old: Shown<'_>, path: &[u8]) {
        if entry.kind == IndexKind::Entry(EntryKind::File) {
            self.layers[i].bytes += entry.size;
        }
        match old {
            Some((below, Some(old))) if !old.is_dir() => {
                self.layers[i].changed += 1;
                self.hide(below, old, path);
            }
            Some(_) => self.layers[i].changed += 1,
            None => self.layers[i].added += 1,
        }
    }

    /// Layer `i` deletes what was there.
    fn gone(&mut self, i: usize, old: Shown<'_>, path: &[u8]) {
        if let Some((below, Some(old))) = old
            && !old.is_dir()
        {
            self.layers[i].deleted += 1;
            self.hide(below, old, path);
        }
    }

    fn hide(&mut self, i: usize, old: &OwnedEntry, path: &[u8]) {
        if !old.is_file() {
            return;
        }
        if old.shared {
            self.hidden[i].insert(file_of(old, path).to_vec(), old.size);
        } else {
            self.layers[i].wasted += old.size;
        }
    }

    fn finish(mut self) -> Tally {
        for (i, layer) in self.layers.iter_mut().enumerate() {
            let lost = self.hidden[i].iter().filter(|(file, _)| !self.seen[i].contains(*file));
            layer.wasted += lost.map(|(_, size)| size).sum::<u64>();
        }
        Tally { layers: self.layers }
    }
}

/// Under which path the file stands whose name an entry is.
fn file_of<'a>(entry: &'a OwnedEntry, path: &'a [u8]) -> &'a [u8] {
    if entry.kind == IndexKind::Entry(EntryKind::HardLink) { &entry.link } else { path }
}

/// Whether two directories look the same, as far as is known.
pub(super) fn same_look(a: &OwnedEntry, b: &OwnedEntry) -> bool {
    a.mode == b.mode && (a.owner.is_none() || b.owner.is_none() || a.owner == b.owner)
}
