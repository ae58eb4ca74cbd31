//! Levels above one another, and what they show together at one path.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FileType, Stat};

use super::which::Place;
use super::{FileInfo, FileKind, Layer, damaged};
use crate::layer::IndexFile;
use crate::open::Store;
use crate::snapshot::{is_opaque, is_whiteout, look_beneath, open_root};
use crate::tar::Time;
use crate::{Error, IoContext, Result};

/// Symbolic links that are followed in one path, as by the kernel.
const MAX_LINKS: usize = 40;

/// A layer, or a directory that has no index.
pub(super) struct Level {
    pub(super) place: Place,
    source: Source,
}

enum Source {
    Index {
        file: IndexFile,
        layer: Box<Layer>,
        dir: std::path::PathBuf,
    },
    /// Own entries and whiteouts, as overlay has them.
    Upper(OwnedFd),
    /// The whole tree, deletions carried out.
    Whole(OwnedFd),
}

/// What one level says about a path.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) info: Option<FileInfo>,
    /// What lower levels have there is hidden.
    pub(super) whiteout: bool,
    /// What lower levels have in this directory is hidden.
    pub(super) opaque: bool,
    /// There is something in it, whatever the directory is like.
    pub(super) below: bool,
}

impl Seen {
    pub(super) fn is_dir(&self) -> bool {
        self.info.as_ref().is_none_or(|i| i.kind == FileKind::Dir) && !self.whiteout
    }

    /// Whether nothing of lower levels shows below the path.
    pub(super) fn cuts(&self) -> bool {
        self.whiteout || self.opaque || self.info.as_ref().is_some_and(|i| i.kind != FileKind::Dir)
    }

    fn is_nothing(&self) -> bool {
        self.info.is_none() && !self.whiteout && !self.opaque && !self.below
    }
}

impl Level {
    /// Of a layer.
    pub(super) fn layer(store: &Store, layer: &Layer) -> Result<Self> {
        let dir = store.driver().apply_dir(&layer.record.cache_id);
        let file = store.index_of(layer, false)?;
        let source = Source::Index { file, layer: Box::new(layer.clone()), dir };
        Ok(Self { place: Place::Layer(layer.number), source })
    }

    /// Of a snapshot without an index.
    pub(super) fn directory(store: &Store, id: &str, place: Place) -> Result<Self> {
        let root = open_root(&store.driver().apply_dir(id))?;
        let source = if store.shares_directories() { Source::Whole(root) } else { Source::Upper(root) };
        Ok(Self { place, source })
    }

    /// Whether it holds the whole tree, so that what it lacks is not there.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.source, Source::Whole(_))
    }

    /// What it says about a clean path.
    pub(super) fn find(&mut self, path: &[u8]) -> Result<Seen> {
        match &mut self.source {
            Source::Index { file, layer, dir } => {
                let said = file.find(path).map_err(|e| damaged(layer, &e))?;
                let mut info = said.entry.as_ref().and_then(FileInfo::of);
                if let Some(link) = info.as_mut().filter(|i| i.kind == FileKind::Symlink)
                    && !file.knows_links()
                {
                    link.link = read_link(dir, path)?;
                }
                let whiteout = said.entry.is_some() && info.is_none();
                Ok(Seen { info, whiteout, opaque: said.opaque, below: said.below })
            }
            Source::Upper(root) => {
                let Some((fd, stat)) = look_beneath(&*root, os_path(path))? else {
                    return Ok(Seen::default());
                };
                if is_whiteout(&stat) {
                    return Ok(Seen { whiteout: true, ..Seen::default() });
                }
                let info = of_stat(&fd, &stat)?;
                let opaque = !path.is_empty() && info.kind == FileKind::Dir && is_opaque(&fd)?;
                Ok(Seen { info: Some(info), opaque, ..Seen::default() })
            }
            Source::Whole(root) => match look_beneath(&*root, os_path(path))? {
                Some((fd, stat)) => Ok(Seen { info: Some(of_stat(&fd, &stat)?), ..Seen::default() }),
                None => Ok(Seen::default()),
            },
        }
    }

    /// How many entries a layer has below a directory.
    pub(super) fn count_below(&mut self, path: &[u8]) -> Result<Option<u64>> {
        let Source::Index { file, layer, .. } = &mut self.source else { return Ok(None) };
        let count = (|| {
            let start = file.seek(path, 0)?;
            let (_, first) = file.read_at(path, start)?;
            Ok((file.seek_past(path, first)? - first) as u64)
        })();
        count.map(Some).map_err(|e: Error| damaged(layer, &e))
    }
}

pub(super) fn os_path(path: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(path))
}

/// Target of a link of a layer whose index does not tell it.
fn read_link(dir: &Path, path: &[u8]) -> Result<Vec<u8>> {
    match look_beneath(&open_root(dir)?, os_path(path))? {
        Some((fd, stat)) => Ok(of_stat(&fd, &stat)?.link),
        None => Ok(Vec::new()),
    }
}

fn of_stat(fd: &OwnedFd, stat: &Stat) -> Result<FileInfo> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => FileKind::Dir,
        FileType::Symlink => FileKind::Symlink,
        FileType::CharacterDevice => FileKind::Char,
        FileType::BlockDevice => FileKind::Block,
        FileType::Fifo => FileKind::Fifo,
        FileType::Socket => FileKind::Socket,
        _ => FileKind::File,
    };
    let link = if kind == FileKind::Symlink {
        rustix::fs::readlinkat(fd.as_fd(), "", Vec::new()).context(|| "read a link")?.into_bytes()
    } else {
        Vec::new()
    };
    let is_device = matches!(kind, FileKind::Char | FileKind::Block);
    let dev = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    Ok(FileInfo {
        kind,
        mode: stat.st_mode & 0o7777,
        size: if kind == FileKind::File { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 },
        mtime: Some(Time { secs: stat.st_mtime, nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) }),
        owner: Some((stat.st_uid, stat.st_gid)),
        link,
        hard_link: Vec::new(),
        dev: if is_device { dev } else { (0, 0) },
    })
}

/// What all levels show at a path.
#[derive(Debug)]
pub(super) enum Shown {
    Nothing,
    /// Not a directory; by the level with this position.
    Entry(usize, FileInfo),
    /// A directory: positions of the levels that are merged there, the topmost first.
    Dirs(Vec<usize>),
}

/// A path after links were followed.
#[derive(Debug)]
pub(super) struct Resolved {
    /// Clean; where something on the way is missing, the rest as it was asked for.
    pub(super) path: Vec<u8>,
    /// Links that were followed: where they lie, and their targets.
    pub(super) links: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) shown: Shown,
}

/// Levels, the lowest first.
pub(super) struct Stack {
    pub(super) levels: Vec<Level>,
    /// Layers were unpacked into directories that hold the whole tree.
    pub(super) shared: bool,
}

impl Stack {
    /// Of an image's layers.
    pub(super) fn of_image(store: &Store, layers: &[Layer]) -> Result<Self> {
        let levels = layers.iter().map(|l| Level::layer(store, l)).collect::<Result<_>>()?;
        Ok(Self { levels, shared: store.shares_directories() })
    }

    /// Positions of the levels that can be seen at the root, the topmost first.
    fn all(&mut self) -> Result<Vec<usize>> {
        let mut all = Vec::new();
        for i in (0..self.levels.len()).rev() {
            all.push(i);
            if self.levels[i].is_whole() || self.cuts_at_root(i)? {
                break;
            }
        }
        Ok(all)
    }

    /// A layer can empty the root only where deletions are carried out; overlay looks at no mark there.
    pub(super) fn cuts_at_root(&mut self, i: usize) -> Result<bool> {
        Ok(self.shared && self.levels[i].find(b"")?.opaque)
    }

    /// What the levels `among`, the topmost first, show at `path`.
    fn look(&mut self, among: &[usize], path: &[u8]) -> Result<Shown> {
        let mut dirs = Vec::new();
        for &i in among {
            let seen = self.levels[i].find(path)?;
            if seen.is_nothing() {
                if self.levels[i].is_whole() {
                    break;
                }
                continue;
            }
            if !seen.is_dir() {
                return Ok(match seen.info {
                    _ if !dirs.is_empty() => Shown::Dirs(dirs),
                    Some(info) => Shown::Entry(i, info),
                    None => Shown::Nothing,
                });
            }
            dirs.push(i);
            if seen.opaque || self.levels[i].is_whole() {
                break;
            }
        }
        Ok(if dirs.is_empty() { Shown::Nothing } else { Shown::Dirs(dirs) })
    }

    /// Follows a path from the root. Links on the way are followed if `follow`, as if the root were `/`; one at the end
    /// only if `last` says so too.
    ///
    /// # Errors
    /// `Invalid` after too many links.
    pub(super) fn resolve(&mut self, path: &[u8], follow: bool, last: bool) -> Result<Resolved> {
        let mut links = Vec::new();
        let mut todo: Vec<Vec<u8>> = parts(path);
        // Where we are, and the levels merged there; the root first.
        let mut at: Vec<(Vec<u8>, Vec<usize>)> = vec![(Vec::new(), self.all()?)];
        while let Some(name) = todo.pop() {
            if name == b"." {
                continue;
            }
            if name == b".." {
                if at.len() > 1 {
                    at.pop();
                }
                continue;
            }
            let Some((dir, among)) = at.last() else { return Err(Error::Internal("no root".into())) };
            let (here, among) = (join(dir, &name), among.clone());
            let shown = self.look(&among, &here)?;
            match shown {
                Shown::Dirs(dirs) => at.push((here, dirs)),
                Shown::Entry(_, ref info)
                    if info.kind == FileKind::Symlink && follow && (last || !todo.is_empty()) =>
                {
                    if links.len() == MAX_LINKS {
                        return Err(Error::Invalid(format!(
                            "too many symbolic links in /{}",
                            String::from_utf8_lossy(path)
                        )));
                    }
                    if info.link.first() == Some(&b'/') {
                        at.truncate(1);
                    }
                    todo.extend(parts(&info.link));
                    links.push((here, info.link.clone()));
                }
                shown if todo.is_empty() => return Ok(Resolved { path: here, links, shown }),
                // What lies beyond is not there.
                _ => {
                    todo.reverse();
                    let rest = todo.join(&b'/');
                    let path = super::clean_path(&join(&here, &rest))?;
                    return Ok(Resolved { path, links, shown: Shown::Nothing });
                }
            }
        }
        let (path, dirs) = at.pop().unwrap_or_default();
        Ok(Resolved { path, links, shown: Shown::Dirs(dirs) })
    }
}

/// The components of a path, the last one first. A slash at its end asks for a directory, as `.` does.
fn parts(path: &[u8]) -> Vec<Vec<u8>> {
    let names = path.split(|&b| b == b'/').filter(|n| !n.is_empty());
    let mut out: Vec<Vec<u8>> = names.map(<[u8]>::to_vec).collect();
    out.extend(path.ends_with(b"/").then(|| b".".to_vec()));
    out.reverse();
    out
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, name].join(&b'/') }
}
