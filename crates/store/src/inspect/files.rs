//! The entries of one layer, each with what it does to the layers below and what becomes of it above.

use longshore_oci::Digest;

use super::walk::Walk;
use super::{Event, FileInfo, FileKind, Layer, clean_path, has_layer};
use crate::Result;
use crate::layer::{Said, is_below};
use crate::open::Store;

/// An entry of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerFile {
    /// Clean; the root is empty.
    pub path: Vec<u8>,
    #[allow(missing_docs)]
    pub event: Event,
    /// `None` for a deletion, and for a directory that is only implied where layers share one.
    pub info: Option<FileInfo>,
    /// A directory of which nothing older shows.
    pub opaque: bool,
    /// Number of the first layer above that replaces or deletes it.
    pub hidden_by: Option<usize>,
}

impl Store {
    /// Gives the entries of a layer of an image to `each`, in the order of a tree; with `dir` only that directory and
    /// what is in it. An error of `each` ends it.
    ///
    /// # Errors
    /// `NotFound` for the image or the layer, `Corrupt` for a damaged index, and those of `each`.
    pub fn list_layer(
        &self,
        image: &Digest,
        number: usize,
        dir: Option<&[u8]>,
        each: &mut dyn FnMut(LayerFile) -> Result<()>,
    ) -> Result<()> {
        let layers = self.layers_of(image)?;
        let at = has_layer(&layers, number)?;
        let dir = dir.map(clean_path).transpose()?.unwrap_or_default();
        let mut walk = Walk::open(self, &layers, |i| i == at)?;
        while walk.advance()? {
            let (inside, leads) =
                (walk.path() == dir || is_below(walk.path(), &dir), is_below(&dir, walk.path()));
            if !inside {
                if !leads {
                    walk.skip_below()?;
                }
                continue;
            }
            if let Some(file) = file(&walk, &layers, at) {
                each(file)?;
            }
        }
        Ok(())
    }
}

fn is_dir(said: &Said) -> bool {
    said.entry.as_ref().is_none_or(crate::layer::OwnedEntry::is_dir)
}

fn file(walk: &Walk, layers: &[Layer], at: usize) -> Option<LayerFile> {
    let said = walk.said(at);
    if said.entry.is_none() && !said.opaque {
        return None;
    }
    let info = said.entry.as_ref().and_then(FileInfo::of);
    let deletes = said.entry.is_some() && info.is_none();
    let cut = walk.cut();
    // What lower layers show; of a directory the look, if it is told.
    let mut now: Option<Option<FileInfo>> = None;
    for i in 0..at {
        if cut.has(i) {
            now = None;
        }
        let below = walk.said(i);
        match below.entry.as_ref().map(FileInfo::of) {
            Some(Some(info)) => now = Some(Some(info)),
            Some(None) => now = None,
            None if below.below || below.opaque => now = now.or(Some(None)),
            None => {}
        }
    }
    let event = match (&now, &info) {
        _ if deletes => Event::Deleted,
        (None, _) => Event::Added,
        (Some(Some(old)), Some(new)) if new.kind == FileKind::Dir && old.same_look(new) => Event::Kept,
        (Some(old), None) if old.as_ref().is_none_or(|o| o.kind == FileKind::Dir) => Event::Kept,
        (Some(_), _) => Event::Changed,
    };
    let hidden_by = (at + 1..layers.len()).find(|&i| {
        let above = walk.said(i);
        let replaced = above.entry.is_some() && !(is_dir(above) && is_dir(said) && !deletes);
        cut.has(i) || replaced
    });
    Some(LayerFile {
        path: walk.path().to_vec(),
        event,
        info,
        opaque: said.opaque,
        hidden_by: hidden_by.filter(|_| !deletes).map(|i| layers[i].number),
    })
}
