//! Places for mounts. What is missing of them is made before a command runs and removed after it, so that nothing of it
//! is in the step's layer.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use longshore_sys::root::Root;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use crate::error::IoContext as _;
use crate::{Error, Result};

/// What was made, the first first.
#[derive(Debug, Default)]
pub(crate) struct Stubs {
    made: Vec<Stub>,
}

#[derive(Debug)]
struct Stub {
    /// Without a leading slash.
    path: Vec<u8>,
    inode: u64,
    kind: Kind,
    /// The time of the directory that it is in, from before it was made and from after.
    before: Timespec,
    after: Timespec,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Directory,
    File,
    Link,
}

impl Stubs {
    /// Makes what is missing of the place `target`: absolute, for a directory or a file.
    ///
    /// # Errors
    /// When something else stands in the way.
    pub(crate) fn make(&mut self, root: &Root, target: &str, directory: bool) -> Result<()> {
        let clean = crate::pattern::clean_in_root(target.as_bytes());
        let parts: Vec<&[u8]> = clean.split(|&b| b == b'/').filter(|p| !p.is_empty()).collect();
        let mut at: Vec<u8> = Vec::new();
        for (n, part) in parts.iter().enumerate() {
            let parent = at.clone();
            if !at.is_empty() {
                at.push(b'/');
            }
            at.extend_from_slice(part);
            match root.resolve(path(&at)) {
                Ok(_) => {}
                Err(e) if e.errno() == Some(Errno::NOENT.raw_os_error()) => {
                    let dir = directory || n + 1 < parts.len();
                    let kind = if dir { Kind::Directory } else { Kind::File };
                    self.one(root, &parent, part, &at, (kind, ""))?;
                }
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Makes a link, unless there is something of its name or nothing that it could be in; `at` is clean and without a
    /// leading slash.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn link(&mut self, root: &Root, at: &str, target: &str) -> Result<()> {
        let (parent, name) = at.rsplit_once('/').unwrap_or(("", at));
        if root.stat(path(at.as_bytes())).is_ok() || root.open_dir(path(parent.as_bytes())).is_err() {
            return Ok(());
        }
        self.one(root, parent.as_bytes(), name.as_bytes(), at.as_bytes(), (Kind::Link, target))
    }

    /// What would have to be made of the places `paths`: clean ones, without a leading slash.
    pub(crate) fn missing<'a>(root: &Root, paths: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
        let mut missing: Vec<String> = Vec::new();
        for whole in paths {
            let ends = whole.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(n, _)| n);
            for at in ends.chain([whole.len()]).filter_map(|end| whole.get(..end)).filter(|at| !at.is_empty())
            {
                let name = show(at);
                if root.stat(path(at)).is_err() && !missing.contains(&name) {
                    missing.push(name);
                }
            }
        }
        missing
    }

    /// What there is of places that were missing once, and could have been made: directories, empty files, links.
    pub(crate) fn found(root: &Root, paths: &[String]) -> Self {
        let one = |name: &String| {
            let stat = root.stat(path(name.as_bytes())).ok()?;
            let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
            let before = rustix::fs::fstat(root.open_dir(path(parent.as_bytes())).ok()?).ok()?;
            let kind = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => Kind::Directory,
                FileType::Symlink => Kind::Link,
                _ => Kind::File,
            };
            let path = name.clone().into_bytes();
            Some(Stub { path, inode: stat.st_ino, kind, before: mtime(&before), after: mtime(&before) })
        };
        Self { made: paths.iter().filter_map(one).collect() }
    }

    fn one(
        &mut self,
        root: &Root,
        parent: &[u8],
        name: &[u8],
        at: &[u8],
        (kind, target): (Kind, &str),
    ) -> Result<()> {
        let dir = root.open_dir(path(parent))?;
        let before = rustix::fs::fstat(&dir).context(|| format!("stat /{}", show(parent)))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = match kind {
            Kind::Directory => rustix::fs::mkdirat(&dir, path(name), Mode::from_raw_mode(0o755)),
            Kind::File => rustix::fs::openat(&dir, path(name), flags, Mode::from_raw_mode(0o644)).map(drop),
            Kind::Link => rustix::fs::symlinkat(target, &dir, path(name)),
        };
        // A link that leads nowhere cannot be mounted on.
        made.context(|| format!("make a place for the mount /{}", show(at)))?;
        let stat = rustix::fs::statat(&dir, path(name), AtFlags::SYMLINK_NOFOLLOW)
            .context(|| format!("stat /{}", show(at)))?;
        let after = rustix::fs::fstat(&dir).context(|| format!("stat /{}", show(parent)))?;
        self.made.push(Stub {
            path: at.to_vec(),
            inode: stat.st_ino,
            kind,
            before: mtime(&before),
            after: mtime(&after),
        });
        Ok(())
    }

    /// Whether nothing had to be made.
    pub(crate) fn is_empty(&self) -> bool {
        self.made.is_empty()
    }

    /// Removes what was made, where it is as it was made: what a command put in its place is the command's.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn remove(&self, root: &Root) -> Result<()> {
        for stub in self.made.iter().rev() {
            // By descriptor and name, inside the tree: whatever a command made of what leads there.
            let Ok((dir, name)) = root.resolve_parent(path(&stub.path)) else { continue };
            let Ok(stat) = rustix::fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if !stub.is(&stat) {
                continue;
            }
            let flags = match stub.kind {
                Kind::Directory => AtFlags::REMOVEDIR,
                Kind::File | Kind::Link => AtFlags::empty(),
            };
            let found = rustix::fs::fstat(&dir).context(|| format!("stat beside /{}", show(&stub.path)))?;
            match rustix::fs::unlinkat(&dir, &name, flags) {
                Ok(()) => {
                    // What a command did in the directory has a time of its own.
                    let found = mtime(&found);
                    let time = if found == stub.after { stub.before } else { found };
                    let times = Timestamps { last_access: time, last_modification: time };
                    rustix::fs::futimens(&dir, &times)
                        .context(|| format!("set times beside /{}", show(&stub.path)))?;
                }
                Err(Errno::NOTEMPTY | Errno::NOENT) => {}
                Err(e) => {
                    return Err(Error::io(format!("remove the mount's place /{}", show(&stub.path)), e));
                }
            }
        }
        Ok(())
    }
}

impl Stub {
    fn is(&self, stat: &Stat) -> bool {
        let kind = FileType::from_raw_mode(stat.st_mode);
        stat.st_ino == self.inode
            && match self.kind {
                Kind::Directory => kind == FileType::Directory,
                Kind::File => kind == FileType::RegularFile && stat.st_size == 0,
                Kind::Link => kind == FileType::Symlink,
            }
    }
}

fn mtime(stat: &Stat) -> Timespec {
    Timespec { tv_sec: stat.st_mtime, tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0) }
}

fn path(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

fn show(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_was_made_goes_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let time = |name: &str| fs::metadata(dir.path().join(name)).unwrap().modified().unwrap();
        let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(86_400);
        for name in ["etc", "usr"] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::File::open(dir.path().join(name)).unwrap().set_modified(old).unwrap();
        }
        let mut stubs = Stubs::default();
        stubs.make(&root, "/usr/a/b", true).unwrap();
        stubs.make(&root, "/usr/c", false).unwrap();
        stubs.make(&root, "/etc/a/b", true).unwrap();
        stubs.make(&root, "/etc/c", false).unwrap();
        stubs.make(&root, "/etc/d", false).unwrap();
        stubs.make(&root, "/etc/e", true).unwrap();
        assert!(dir.path().join("etc/a/b").is_dir() && dir.path().join("etc/c").is_file());
        // A command writes into one and replaces another.
        fs::write(dir.path().join("etc/d"), "mine").unwrap();
        fs::write(dir.path().join("etc/e/mine"), "").unwrap();
        stubs.remove(&root).unwrap();
        assert!(!dir.path().join("etc/a").exists() && !dir.path().join("etc/c").exists());
        assert!(dir.path().join("etc/d").exists() && dir.path().join("etc/e/mine").exists());
        // Where something is left the directory has changed.
        assert!(time("usr") == old && time("etc") > old);
        assert_eq!(fs::read_dir(dir.path().join("usr")).unwrap().count(), 0);
    }

    #[test]
    fn directories_that_a_command_changed_keep_their_time() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        let mut stubs = Stubs::default();
        stubs.make(&root, "/etc/a", false).unwrap();
        stubs.make(&root, "/etc/b", false).unwrap();
        fs::write(dir.path().join("etc/own"), "").unwrap();
        let etc = fs::File::open(dir.path().join("etc")).unwrap();
        let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(86_400);
        etc.set_modified(time).unwrap();
        stubs.remove(&root).unwrap();
        assert_eq!(etc.metadata().unwrap().modified().unwrap(), time);
        assert_eq!(fs::read_dir(dir.path().join("etc")).unwrap().count(), 1);
    }

    #[test]
    fn what_an_end_in_between_left_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let root = Root::open(dir.path()).unwrap();
        fs::create_dir(at("etc")).unwrap();
        symlink("/nowhere", at("etc/own")).unwrap();
        let wanted = ["etc/hosts", "proc", "a/b", "etc/own", "etc/mtab"];
        let missing = Stubs::missing(&root, wanted.iter().map(|w| w.as_bytes()));
        // What is there is not missing, wherever it leads.
        assert_eq!(missing, ["etc/hosts", "proc", "a", "a/b", "etc/mtab"]);
        let mut stubs = Stubs::default();
        stubs.make(&root, "/etc/hosts", false).unwrap();
        stubs.make(&root, "/proc", true).unwrap();
        stubs.make(&root, "/a/b", true).unwrap();
        for name in ["etc/mtab", "etc/own", "nosuch/mtab"] {
            stubs.link(&root, name, "/proc/mounts").unwrap();
        }
        assert_eq!(fs::read_link(at("etc/mtab")).unwrap().to_str(), Some("/proc/mounts"));
        fs::write(at("etc/hosts"), "a command's").unwrap();
        drop(stubs);
        Stubs::found(&root, &missing).remove(&root).unwrap();
        assert!(!at("proc").exists() && !at("a").exists() && at("etc/mtab").symlink_metadata().is_err());
        assert!(at("etc/hosts").exists() && at("etc/own").symlink_metadata().is_ok());
    }

    #[test]
    fn atk_46_places_outside_the_tree_are_left_alone() {
        let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = Root::open(dir.path()).unwrap();
        let mut stubs = Stubs::default();
        stubs.make(&root, "/a/b", true).unwrap();
        fs::create_dir(out.path().join("b")).unwrap();
        fs::remove_dir_all(dir.path().join("a")).unwrap();
        symlink(out.path(), dir.path().join("a")).unwrap();
        stubs.remove(&root).unwrap();
        assert!(out.path().join("b").is_dir());
        let mut stubs = Stubs::default();
        assert!(stubs.make(&root, "/a/x/y", true).is_err());
        assert!(!out.path().join("x").exists());
    }
}
