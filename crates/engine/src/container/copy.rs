//! `docker cp`: paths of a container looked at, read as a tar, and written from one.
//!
//! A path is resolved against a root descriptor and nowhere else: that of the running container's own mount namespace,
//! or, of a stopped one, its mounted tree or the source of the mount that the path lies below. Archives are packed and
//! unpacked by descriptor in this process; nothing of the container is executed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use longshore_oci::{IdMap, Kind};
use longshore_runtime::user;
use longshore_store::layer::{ApplyOptions, WhiteoutFormat, apply, write_path};
use longshore_sys::root::Root;
use rustix::fs::{FileType, Stat};

use super::Container;
use crate::model::{ArchivePutFlags, MountPoint, PathStat};
use crate::record::Record;
use crate::stream::{BodyStream, ByteStream};
use crate::{Engine, Error, Result, pipe};

/// A path of a client, taken apart without looking at any file system.
struct Wanted {
    /// Absolute, without `.`, `..` and double slashes.
    path: PathBuf,
    /// It ended in a slash or `/.`: a link there is followed, and it must be a directory.
    follow: bool,
    /// It ended in `/.`: what is in the directory is meant.
    dot: bool,
}

impl Wanted {
    fn parse(text: &str) -> Self {
        let mut parts: Vec<&str> = Vec::new();
        for part in text.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop();
                }
                name => parts.push(name),
            }
        }
        let follow = parts.is_empty() || text.ends_with('/') || text.ends_with("/.");
        let dot = text.ends_with("/.");
        Self { path: PathBuf::from(format!("/{}", parts.join("/"))), follow, dot }
    }

    /// The last name; `/` for the root itself.
    fn name(&self) -> String {
        if self.dot {
            return ".".to_owned();
        }
        self.path.file_name().map_or_else(|| "/".to_owned(), |n| n.to_string_lossy().into_owned())
    }
}

/// A root to resolve in, and the path below it.
struct Place {
    root: Root,
    path: PathBuf,
    /// What lies there may not be written, for this reason.
    read_only: Option<&'static str>,
    /// Keeps the tree of a stopped container mounted.
    _mounted: Option<Mounted>,
}

/// Undoes the mount of a stopped container's tree.
struct Mounted {
    engine: Engine,
    container: Arc<Container>,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Somebody may have started it meanwhile; then the mount is theirs.
        if self.container.task().is_none()
            && let Err(e) = self.engine.inner.store.unmount_rw(&self.container.id)
        {
            tracing::warn!(container = self.container.id, "unmount after a copy: {e}");
        }
    }
}

impl Engine {
    /// What a path of a container is.
    ///
    /// # Errors
    /// `NotFound` for a path that is not there.
    pub async fn archive_stat(&self, name: &str, path: &str) -> Result<PathStat> {
        let c = self.find(name)?;
        let (asked, path, wanted) = (name.to_owned(), path.to_owned(), Wanted::parse(path));
        self.reading(&c, move |engine, c| {
            let place = engine.place(&c, &wanted.path)?;
            stat(&place, &wanted).map(|about| about.stat).map_err(|e| missing(e, &path, &asked))
        })
        .await
    }

    /// A path of a container as a tar.
    ///
    /// # Errors
    /// `NotFound` for a path that is not there.
    pub async fn archive_get(&self, name: &str, path: &str) -> Result<(PathStat, ByteStream)> {
        let c = self.find(name)?;
        let (asked, path, wanted) = (name.to_owned(), path.to_owned(), Wanted::parse(path));
        let dot = wanted.dot;
        let (about, place) = self
            .reading(&c, move |engine, c| {
                let place = engine.place(&c, &wanted.path)?;
                let about = stat(&place, &wanted).map_err(|e| missing(e, &path, &asked))?;
                Ok((about, place))
            })
            .await?;
        self.container_event(&c, "archive-path", &[]);
        let follow = about.follow;
        let about = about.stat;
        let name = if dot { ".".to_owned() } else { about.name.trim_matches('/').to_owned() };
        let permit = c.readers.clone().acquire_owned().await;
        let stream = pipe::from_writer(move |out| {
            let _permit = permit;
            let path = if follow { place.path.join(".") } else { place.path.clone() };
            write_path(
                &place.root,
                &below(&path),
                if name.is_empty() { b"." } else { name.as_bytes() },
                out,
            )?;
            Ok(())
        });
        Ok((about, stream))
    }

    /// Unpacks a tar into a directory of a container.
    ///
    /// # Errors
    /// `NotFound` for a directory that is not there, `Invalid` for one that may not be written.
    pub async fn archive_put(
        &self,
        name: &str,
        path: &str,
        flags: ArchivePutFlags,
        body: BodyStream,
    ) -> Result<()> {
        let c = self.find(name)?;
        let (asked, path, wanted) = (name.to_owned(), path.to_owned(), Wanted::parse(path));
        let source = pipe::into_reader(body);
        self.reading(&c, move |engine, c| {
            let place = engine.place(&c, &wanted.path)?;
            if let Some(reason) = place.read_only {
                return Err(Error::invalid(reason));
            }
            let dir = place.root.open_dir(below(&place.path)).map_err(|e| match e.errno() {
                Some(20) => Error::invalid("extraction point is not a directory"),
                _ => missing(e.into(), &path, &asked),
            })?;
            let options = ApplyOptions {
                whiteouts: WhiteoutFormat::Literal,
                keep_kinds: flags.no_overwrite_dir_non_dir,
                owner: if flags.copy_uid_gid { owner(&place.root, &c.record())? } else { None },
                below: real_path(&place.root, &dir)?,
                ..ApplyOptions::default()
            };
            apply(&longshore_sys::sockpath::fd_path(place.root.fd()), source, &options)?;
            engine.container_event(&c, "extract-to-dir", &[]);
            Ok(())
        })
        .await
    }

    /// Blocking work on a container's files, a few at a time.
    async fn reading<T: Send + 'static>(
        &self,
        c: &Arc<Container>,
        f: impl FnOnce(&Self, Arc<Container>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let permit = c.readers.clone().acquire_owned().await;
        let c = Arc::clone(c);
        self.blocking(move |engine| {
            let _permit = permit;
            f(engine, c)
        })
        .await
    }

    /// Where a path of a container is.
    fn place(&self, c: &Arc<Container>, path: &Path) -> Result<Place> {
        let record = c.record();
        let mount = covering(&record.mounts, path);
        let read_only = match mount {
            Some(m) if !m.rw => Some("mounted volume is marked read-only"),
            None if record.host.readonly_rootfs => Some("container rootfs is marked read-only"),
            _ => None,
        };
        if let Some(task) = c.task() {
            let root = Root::open(Path::new(&format!("/proc/{}/root", task.pid())))?;
            // The process was still this container's when its root was opened.
            if longshore_sys::pidfd::start_time(task.pid())? == task.start_time() {
                return Ok(Place { root, path: path.to_owned(), read_only, _mounted: None });
            }
        }
        if let Some(m) = mount {
            if m.kind == "tmpfs" {
                return Err(Error::not_found(format!(
                    "{} is a tmpfs: it is empty while the container is stopped",
                    m.destination
                )));
            }
            let source = if m.subpath.is_empty() { m.source.clone() } else { m.source.join(&m.subpath) };
            let rest = path.strip_prefix(&m.destination).unwrap_or(Path::new(""));
            return Ok(Place {
                root: Root::open(&source)?,
                path: Path::new("/").join(rest),
                read_only,
                _mounted: None,
            });
        }
        let tree = self.inner.store.mount_rw(&c.id, &IdMap::default())?;
        let mounted = Mounted { engine: self.clone(), container: Arc::clone(c) };
        Ok(Place { root: Root::open(&tree)?, path: path.to_owned(), read_only, _mounted: Some(mounted) })
    }
}

/// The mount that a path lies on or below, the deepest first.
fn covering<'a>(mounts: &'a [MountPoint], path: &Path) -> Option<&'a MountPoint> {
    mounts.iter().filter(|m| path.starts_with(&m.destination)).max_by_key(|m| m.destination.len())
}

struct About {
    stat: PathStat,
    follow: bool,
}

fn stat(place: &Place, wanted: &Wanted) -> Result<About> {
    let path = below(&place.path);
    let raw = if wanted.follow {
        let fd = place.root.resolve(&path)?;
        let raw =
            rustix::fs::fstat(&fd).map_err(|e| Error::io(format!("stat {}", wanted.path.display()), e))?;
        if FileType::from_raw_mode(raw.st_mode) != FileType::Directory {
            return Err(Error::internal(format!("lstat {}/: not a directory", wanted.path.display())));
        }
        raw
    } else {
        place.root.stat(&path)?
    };
    let link_target = if FileType::from_raw_mode(raw.st_mode) == FileType::Symlink {
        let target = place.root.readlink(&path)?;
        let base = wanted.path.parent().unwrap_or(Path::new("/"));
        Wanted::parse(&base.join(target).to_string_lossy()).path.to_string_lossy().into_owned()
    } else {
        String::new()
    };
    let stat = PathStat {
        name: wanted.name(),
        size: raw.st_size,
        mode: go_mode(&raw),
        mtime: raw
            .st_mtime
            .saturating_mul(1_000_000_000)
            .saturating_add(i64::try_from(raw.st_mtime_nsec).unwrap_or(0)),
        link_target,
    };
    Ok(About { stat, follow: wanted.follow })
}

/// Relative to a root descriptor.
fn below(path: &Path) -> PathBuf {
    match path.strip_prefix("/") {
        Ok(rest) if rest.as_os_str().is_empty() => PathBuf::from("."),
        Ok(rest) => rest.to_owned(),
        Err(_) => path.to_owned(),
    }
}

fn missing(e: Error, path: &str, container: &str) -> Error {
    if e.kind() == Kind::NotFound {
        return Error::not_found(format!("Could not find the file {path} in container {container}"));
    }
    e
}

/// The path of a directory below its root, links resolved, as the kernel names both.
fn real_path(root: &Root, dir: &std::os::fd::OwnedFd) -> Result<Vec<u8>> {
    use std::os::fd::AsFd as _;
    use std::os::unix::ffi::OsStrExt as _;

    let named = |fd: std::os::fd::BorrowedFd<'_>| {
        let link = longshore_sys::sockpath::fd_path(fd);
        std::fs::read_link(&link).map_err(|e| Error::io(format!("read link {}", link.display()), e))
    };
    let (top, dir) = (named(root.fd())?, named(dir.as_fd())?);
    // Seen from outside, a foreign mount namespace's root is `/`, and so are paths below it.
    let rest = dir.strip_prefix(&top).or_else(|_| dir.strip_prefix("/"));
    Ok(rest.unwrap_or(Path::new("")).as_os_str().as_bytes().to_vec())
}

/// The container's user, if it has one: what `docker cp -a` gives everything to.
fn owner(root: &Root, record: &Record) -> Result<Option<(u32, u32)>> {
    if record.config.run.user.is_empty() {
        return Ok(None);
    }
    let user = user::resolve(root, &record.config.run.user, &[])?;
    Ok(Some((user.uid, user.gid)))
}

/// `os.FileMode` of Go (io/fs, constants).
fn go_mode(stat: &Stat) -> u32 {
    let mut mode = stat.st_mode & 0o777;
    mode |= match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => 1 << 31,
        FileType::Symlink => 1 << 27,
        FileType::BlockDevice => 1 << 26,
        FileType::CharacterDevice => 1 << 26 | 1 << 21,
        FileType::Fifo => 1 << 25,
        FileType::Socket => 1 << 24,
        _ => 0,
    };
    for (bit, go) in [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)] {
        if stat.st_mode & bit != 0 {
            mode |= go;
        }
    }
    mode
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart() {
        for (text, path, follow, name) in [
            ("/etc/hosts", "/etc/hosts", false, "hosts"),
            ("etc/", "/etc", true, "etc"),
            ("/etc/.", "/etc", true, "."),
            ("/a/../../b", "/b", false, "b"),
            ("/", "/", true, "/"),
            ("", "/", true, "/"),
        ] {
            let w = Wanted::parse(text);
            assert_eq!(
                (w.path.to_str().unwrap(), w.follow, w.name().as_str()),
                (path, follow, name),
                "{text}"
            );
        }
    }

    #[test]
    fn the_deepest_mount_covers_a_path() {
        let mount = |d: &str| MountPoint { destination: d.into(), ..MountPoint::default() };
        let mounts = [mount("/data"), mount("/data/sub")];
        let covers = |p: &str| covering(&mounts, Path::new(p)).map(|m| m.destination.as_str());
        assert_eq!(covers("/data/x"), Some("/data"));
        assert_eq!(covers("/data/sub/y"), Some("/data/sub"));
        assert_eq!(covers("/database"), None);
    }
}
