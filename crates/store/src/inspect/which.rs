//! Which layer wrote a file, what it hides, and whether it was deleted.

use longshore_oci::Digest;

use super::stack::{Level, Resolved, Seen, Shown, Stack};
use super::{FileInfo, FileKind, clean_path};
use crate::open::Store;
use crate::{Error, Result};

/// Where something was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the layer with this number.
    Layer(usize),
    /// In what every container has before it starts.
    Init,
    /// By the container.
    Container,
}

/// What was done to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// There was nothing.
    Added,
    /// It replaced what was there.
    Changed,
    /// A directory that is as it was; something in it was changed.
    Kept,
    /// It is gone.
    Deleted,
}

/// One thing that happened to a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    #[allow(missing_docs)]
    pub place: Place,
    #[allow(missing_docs)]
    pub event: Event,
    /// Of a deletion: the path that was deleted, replaced or emptied; a parent's, perhaps.
    pub via: Vec<u8>,
    /// What it was from then on; unknown for directories that are only implied, and for what is gone.
    pub info: Option<FileInfo>,
    /// A directory of which nothing older shows.
    pub opaque: bool,
    /// Of a directory, how many entries the layer has in it.
    pub entries: Option<u64>,
}

/// The life of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Which {
    /// The path that was found, clean, after all links.
    pub path: Vec<u8>,
    /// The links that led there: where they lie, and their targets.
    pub links: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether it is there at last.
    pub exists: bool,
    /// What happened to it, the last first.
    pub versions: Vec<Version>,
}

impl Store {
    /// Which layers of an image wrote `path`. With `follow`, links on the way and at the end are followed inside the
    /// image.
    ///
    /// # Errors
    /// `NotFound` for an image or a path that there never was, `Invalid` for a path that is none.
    pub fn which(&self, image: &Digest, path: &[u8], follow: bool) -> Result<Which> {
        let wanted = clean_path(path)?;
        let mut stack = Stack::of_image(self, &self.layers_of(image)?)?;
        stack.which(&wanted, path, follow)
    }

    /// The same of a container: its own layer, then its image's. What is mounted there is not looked at.
    ///
    /// # Errors
    /// As [`Self::which`].
    pub fn which_in(&self, container: &str, path: &[u8], follow: bool) -> Result<Which> {
        let wanted = clean_path(path)?;
        let rw = self.rw(container)?;
        let mut stack = Stack::of_image(self, &self.layers_below(rw.top)?)?;
        if let Some(init) = &rw.init_id {
            stack.levels.push(Level::directory(self, init, Place::Init)?);
        }
        stack.levels.push(Level::directory(self, &rw.mount_id, Place::Container)?);
        stack.which(&wanted, path, follow)
    }
}

impl Stack {
    fn which(&mut self, wanted: &[u8], asked: &[u8], follow: bool) -> Result<Which> {
        let Resolved { path, links, shown } =
            self.resolve(if follow { asked } else { wanted }, follow, true)?;
        let path = if follow { path } else { wanted.to_vec() };
        let versions = self.versions(&path)?;
        if versions.is_empty() && !path.is_empty() {
            return Err(Error::NotFound(format!("no layer has /{}", String::from_utf8_lossy(&path))));
        }
        Ok(Which { exists: !matches!(shown, Shown::Nothing), path, links, versions })
    }

    /// What happened to a clean path, the last first.
    fn versions(&mut self, path: &[u8]) -> Result<Vec<Version>> {
        let mut out: Vec<Version> = Vec::new();
        let mut now: Option<Option<FileInfo>> = None;
        for i in 0..self.levels.len() {
            let place = self.levels[i].place;
            let gone = |via: Vec<u8>| Version {
                place,
                event: Event::Deleted,
                via,
                info: None,
                opaque: false,
                entries: None,
            };
            let seen = self.levels[i].find(path)?;
            if self.levels[i].is_whole() {
                if let Some(version) = compare(place, path, now.as_ref(), seen.info) {
                    now = (version.event != Event::Deleted).then(|| version.info.clone());
                    out.push(version);
                }
                continue;
            }
            if seen.whiteout {
                out.extend(now.take().map(|_| gone(path.to_vec())));
                continue;
            }
            let cut = if now.is_some() { self.cut_above(i, path)? } else { None };
            let opaque = seen.opaque || (cut.is_some() && seen.is_dir());
            if let Some(via) = cut.filter(|_| seen.info.is_none()) {
                // With something in its place it is a change.
                out.push(gone(via));
                now = None;
            }
            if let Some((event, info)) = step(now.as_ref(), &seen) {
                let entries = if seen.is_dir() { self.levels[i].count_below(path)? } else { None };
                now = Some(info.clone());
                out.push(Version { place, event, via: Vec::new(), info, opaque, entries });
            }
        }
        out.reverse();
        Ok(out)
    }

    /// The parent of `path` below which a level hides all that is older.
    fn cut_above(&mut self, i: usize, path: &[u8]) -> Result<Option<Vec<u8>>> {
        if self.cuts_at_root(i)? {
            return Ok(Some(Vec::new()));
        }
        for at in path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at) {
            if self.levels[i].find(&path[..at])?.cuts() {
                return Ok(Some(path[..at].to_vec()));
            }
        }
        Ok(None)
    }
}

/// What a level did, given what was there before.
fn step(now: Option<&Option<FileInfo>>, seen: &Seen) -> Option<(Event, Option<FileInfo>)> {
    let is_dir = |info: &Option<FileInfo>| info.as_ref().is_none_or(|i| i.kind == FileKind::Dir);
    match (&seen.info, now) {
        (Some(info), None) => Some((Event::Added, Some(info.clone()))),
        (Some(info), Some(Some(old))) if info.kind == FileKind::Dir && info.same_look(old) => {
            Some((Event::Kept, Some(info.clone())))
        }
        (Some(info), Some(_)) => Some((Event::Changed, Some(info.clone()))),
        (None, None) if seen.below || seen.opaque => Some((Event::Added, None)),
        (None, Some(old)) if (seen.below || seen.opaque) && is_dir(old) => Some((Event::Kept, old.clone())),
        (None, _) => None,
    }
}

/// What a level that holds the whole tree did.
fn compare(
    place: Place,
    path: &[u8],
    now: Option<&Option<FileInfo>>,
    info: Option<FileInfo>,
) -> Option<Version> {
    let event = match (&info, now) {
        (None, None) => return None,
        (None, Some(_)) => Event::Deleted,
        (Some(_), None) => Event::Added,
        (Some(new), Some(Some(old))) if new.same_look(old) => return None,
        // A directory whose look nothing told.
        (Some(new), Some(None)) if new.kind == FileKind::Dir => return None,
        (Some(_), Some(_)) => Event::Changed,
    };
    let via = if event == Event::Deleted { path.to_vec() } else { Vec::new() };
    Some(Version { place, event, via, info, opaque: false, entries: None })
}
