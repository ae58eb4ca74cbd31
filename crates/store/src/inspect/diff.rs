//! What the trees of two images differ in.

use std::fs::File;
use std::io::Read;

use longshore_oci::Digest;

use super::stack::os_path;
use super::walk::{Bits, Walk};
use super::{Event, FileInfo, FileKind, Layer, damaged};
use crate::layer::reopen;
use crate::open::Store;
use crate::snapshot::{look_beneath, open_root};
use crate::{Error, IoContext, Result};

/// Paths after which the caller is asked whether it still listens.
const BREATH: u32 = 4096;
/// Bytes that are compared at once.
const CHUNK: usize = 128 << 10;

/// How images are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiffOptions {
    /// Compare the bytes of files instead of their modification times.
    pub content: bool,
}

/// What is different about a path that both have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Differs {
    pub kind: bool,
    /// Bytes, size, target of a link, numbers of a device.
    pub content: bool,
    pub mode: bool,
    pub owner: bool,
    /// Of a regular file; where the contents were compared it does not count.
    pub mtime: bool,
}

impl Differs {
    fn any(self) -> bool {
        self != Self::default()
    }
}

/// A path that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiffRow {
    /// Clean; the root is empty.
    pub path: Vec<u8>,
    /// Added, changed or deleted.
    pub event: Event,
    /// What it is in the first image; unknown for a directory that is only implied.
    pub from: Option<FileInfo>,
    /// The same in the second.
    pub to: Option<FileInfo>,
    /// What is different, if both have it.
    pub differs: Differs,
}

/// An image's part of the walk.
struct Side {
    /// Positions of its layers, the lowest first.
    layers: Vec<usize>,
}

/// What an image shows at a path: the layer's position, and its look as far as it is told.
type Shown = Option<(usize, Option<FileInfo>)>;

impl Side {
    fn shown(&self, walk: &Walk, cut: &Bits) -> Shown {
        let mut now: Shown = None;
        for &i in &self.layers {
            if cut.has(i) {
                now = None;
            }
            let said = walk.said(i);
            match said.entry.as_ref().map(FileInfo::of) {
                Some(Some(info)) => now = Some((i, Some(info))),
                Some(None) => now = None,
                None if said.below || said.opaque => now = now.or(Some((i, None))),
                None => {}
            }
        }
        now
    }
}

impl Store {
    /// Gives every path in which the trees of two images differ to `each`, in the order of a tree, and now and then
    /// nothing, so that it can end what nobody waits for. Layers that both have at the bottom are looked at only where
    /// others touch them.
    ///
    /// # Errors
    /// `NotFound` for an image, `Corrupt` for damaged indexes or files, and those of `each`.
    pub fn diff_images(
        &self,
        from: &Digest,
        to: &Digest,
        options: DiffOptions,
        each: &mut dyn FnMut(Option<DiffRow>) -> Result<()>,
    ) -> Result<()> {
        let (a, b) = (self.layers_of(from)?, self.layers_of(to)?);
        let common = a.iter().zip(&b).take_while(|(x, y)| x.chain == y.chain).count();
        let all: Vec<Layer> = a.iter().chain(&b[common..]).cloned().collect();
        let sides = [
            Side { layers: (0..a.len()).collect() },
            Side { layers: (0..common).chain(a.len()..all.len()).collect() },
        ];
        let mut walk = Walk::open(self, &all, |_| true)?;
        let mut breath = 0;
        while walk.advance()? {
            breath += 1;
            if breath % BREATH == 0 {
                each(None)?;
            }
            let cut = walk.cut();
            let [old, new] = [sides[0].shown(&walk, &cut), sides[1].shown(&walk, &cut)];
            if untouched(&walk, common, all.len()) {
                walk.skip_below()?;
            }
            if let Some(row) = self.compare(&walk, &all, old, new, options)? {
                each(Some(row))?;
            }
        }
        Ok(())
    }

    fn compare(
        &self,
        walk: &Walk,
        layers: &[Layer],
        old: Shown,
        new: Shown,
        options: DiffOptions,
    ) -> Result<Option<DiffRow>> {
        let path = walk.path().to_vec();
        let row = |event, from, to, differs| Some(DiffRow { path: path.clone(), event, from, to, differs });
        Ok(match (old, new) {
            (None, None) => None,
            (None, Some((_, to))) => row(Event::Added, None, to, Differs::default()),
            (Some((_, from)), None) => row(Event::Deleted, from, None, Differs::default()),
            (Some((i, _)), Some((k, _))) if i == k => None,
            (Some((i, from)), Some((k, to))) => {
                let mut differs = looks(from.as_ref(), to.as_ref());
                if options.content {
                    differs.mtime = false;
                    if let (Some(a), Some(b)) = (&from, &to)
                        && (a.kind, b.kind) == (FileKind::File, FileKind::File)
                        && !differs.content
                    {
                        differs.content = !self.same_bytes(&layers[i], &layers[k], &path)?;
                    }
                }
                if differs.any() { row(Event::Changed, from, to, differs) } else { None }
            }
        })
    }

    fn same_bytes(&self, a: &Layer, b: &Layer, path: &[u8]) -> Result<bool> {
        let (mut a, mut b) = (self.file_of(a, path)?, self.file_of(b, path)?);
        let (mut left, mut right) = (vec![0u8; CHUNK], vec![0u8; CHUNK]);
        loop {
            let n = fill(&mut a, &mut left)?;
            let m = fill(&mut b, &mut right)?;
            if left[..n] != right[..m] {
                return Ok(false);
            }
            if n == 0 {
                return Ok(true);
            }
        }
    }

    fn file_of(&self, layer: &Layer, path: &[u8]) -> Result<File> {
        let root = open_root(&self.driver().apply_dir(&layer.record.cache_id))?;
        let shown = String::from_utf8_lossy(path);
        match look_beneath(&root, os_path(path))? {
            Some((fd, stat)) if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() => {
                reopen(std::os::fd::AsFd::as_fd(&fd)).context(|| format!("open /{shown}"))
            }
            _ => Err(damaged(layer, &format!("/{shown} is not the file that its index tells of"))),
        }
    }
}

/// Whether nothing below the path belongs to one image alone. `common` layers, the first ones, belong to both.
fn untouched(walk: &Walk, common: usize, all: usize) -> bool {
    walk.cut_below().none_from(common) && (common..all).all(|i| !walk.said(i).below)
}

fn looks(a: Option<&FileInfo>, b: Option<&FileInfo>) -> Differs {
    // A directory whose look nobody told.
    let (Some(a), Some(b)) = (a, b) else { return Differs::default() };
    if a.kind != b.kind {
        return Differs { kind: true, ..Differs::default() };
    }
    let known = a.owner.is_some() && b.owner.is_some();
    Differs {
        kind: false,
        content: a.size != b.size || a.link != b.link || a.dev != b.dev,
        mode: a.mode != b.mode && a.kind != FileKind::Symlink,
        owner: known && a.owner != b.owner,
        mtime: a.kind == FileKind::File && a.mtime != b.mtime,
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buf: &mut [u8]) -> Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match file.read(&mut buf[done..]) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io("compare files", e)),
        }
    }
    Ok(done)
}
