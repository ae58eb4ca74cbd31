//! A new volume gets what the image holds at its place, with owners, modes, times and attributes.
//! The image's tree is hostile: everything by descriptor, no link followed, below its root.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use longshore_sys::root::Root;
use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps};

use crate::{Error, Result};

/// Deeper trees are not copied.
const MAX_DEPTH: usize = 256;

/// Stands beside a volume's directory while that is being filled.
const FILLING: &str = ".filling";

/// Copies what `root` has at `target` into the empty directory `volume`; one that holds something
/// is left alone, unless a crash cut an earlier copy short: that is done again, over what is there.
///
/// # Errors
/// When something cannot be copied; then the volume is emptied again.
pub(crate) fn copy_up(root: &Root, target: &str, volume: &Path) -> Result<()> {
    let Ok(source) = root.open_dir(target.trim_start_matches('/')) else { return Ok(()) };
    let to = Root::open(volume)?;
    let mark = volume.with_file_name(FILLING);
    let again = mark.exists();
    let bare = is_empty(source.as_fd())?;
    if !again && (!is_empty(to.fd())? || bare && !own_look(source.as_fd())?) {
        return Ok(());
    }
    let failed = |e: rustix::io::Errno| {
        Error::io(format!("failed to copy the image's {target} into the volume {}", volume.display()), e)
    };
    if !bare {
        File::create(&mark).map_err(|e| failed(io_errno(e)))?;
    }
    let mut job = Job { links: HashMap::new(), again };
    let copied = copy_dir(source.as_fd(), to.fd(), &mut job, 0).and_then(|()| {
        let stat = fs::fstat(&source)?;
        finish(to.fd(), &stat, source.as_fd())?;
        // A power cut must not leave files without their bytes, and no mark.
        if bare { Ok(()) } else { fs::syncfs(to.fd()) }
    });
    if copied.is_err() && !again {
        empty(volume);
    }
    if copied.is_ok() || !again {
        // It may not have been there.
        let _ = std::fs::remove_file(&mark);
    }
    copied.map_err(failed)
}

/// An empty directory still gives its owner and mode.
fn own_look(dir: BorrowedFd<'_>) -> Result<bool> {
    let s = fs::fstat(dir).map_err(|e| Error::io("read directory of the image", e))?;
    Ok(s.st_uid != 0 || s.st_gid != 0 || s.st_mode & 0o7777 != 0o755)
}

fn is_empty(dir: BorrowedFd<'_>) -> Result<bool> {
    let failed = |e| Error::io("read directory", e);
    let mut entries = Dir::read_from(dir).map_err(failed)?;
    Ok(!entries.any(|e| e.is_ok_and(|e| ![b".".as_slice(), b".."].contains(&e.file_name().to_bytes()))))
}

/// After a failure: the volume is ours and holds only what was copied.
fn empty(volume: &Path) {
    for entry in std::fs::read_dir(volume).into_iter().flatten().flatten() {
        let path = entry.path();
        let removed = match entry.file_type() {
            Ok(t) if t.is_dir() => std::fs::remove_dir_all(&path),
            _ => std::fs::remove_file(&path),
        };
        if let Err(e) = removed {
            tracing::warn!("empty volume after a failed copy: {}: {e}", path.display());
        }
    }
}

/// What a copy keeps in mind.
struct Job {
    /// The copies of files with several names.
    links: HashMap<(u64, u64), OwnedFd>,
    /// An earlier copy may have left anything.
    again: bool,
}

impl Job {
    /// Removes what an earlier copy left in the place of an entry; false if the place is somebody else's.
    fn clear(&self, to: BorrowedFd<'_>, name: &std::ffi::CStr) -> rustix::io::Result<bool> {
        if !self.again {
            return Ok(true);
        }
        match fs::unlinkat(to, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(true),
            Err(rustix::io::Errno::ISDIR) => Ok(false),
            Err(e) => Err(e),
        }
    }
}

fn copy_dir(from: BorrowedFd<'_>, to: BorrowedFd<'_>, job: &mut Job, depth: usize) -> rustix::io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(rustix::io::Errno::LOOP);
    }
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        copy_entry(from, to, name, job, depth)?;
    }
    Ok(())
}

fn copy_entry(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &std::ffi::CStr,
    job: &mut Job,
    depth: usize,
) -> rustix::io::Result<()> {
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = fs::openat(from, name, OFlags::PATH | flags, Mode::empty())?;
    let stat = fs::fstat(&handle)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind != FileType::Directory && !job.clear(to, name)? {
        return Ok(());
    }
    if kind != FileType::Directory
        && stat.st_nlink > 1
        && let Some(first) = job.links.get(&(stat.st_dev, stat.st_ino))
    {
        return fs::linkat(first, c"", to, name, AtFlags::EMPTY_PATH);
    }
    match kind {
        FileType::Directory => {
            match fs::mkdirat(to, name, Mode::from_raw_mode(0o700)) {
                Err(rustix::io::Errno::EXIST) if job.again => {}
                made => made?,
            }
            let dir_flags = OFlags::RDONLY | OFlags::DIRECTORY | flags;
            let source = fs::openat(from, name, dir_flags, Mode::empty())?;
            let made = fs::openat(to, name, dir_flags, Mode::empty())?;
            copy_dir(source.as_fd(), made.as_fd(), job, depth + 1)?;
            return finish(made.as_fd(), &stat, source.as_fd());
        }
        FileType::RegularFile => {
            let source = fs::openat(from, name, OFlags::RDONLY | OFlags::NONBLOCK | flags, Mode::empty())?;
            // Exchanged for something else in between? Nobody runs yet, but cheap to know.
            let now = fs::fstat(&source)?;
            if (now.st_dev, now.st_ino) != (stat.st_dev, stat.st_ino) {
                return Err(rustix::io::Errno::AGAIN);
            }
            let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | flags;
            let made = fs::openat(to, name, create, Mode::from_raw_mode(0o600))?;
            let (mut r, mut w) = (File::from(source), File::from(made));
            std::io::copy(&mut r, &mut w).map_err(io_errno)?;
            finish(w.as_fd(), &stat, r.as_fd())?;
        }
        FileType::Symlink => {
            let text: CString = fs::readlinkat(&handle, c"", Vec::new())?;
            fs::symlinkat(&text, to, name)?;
            set_owner_and_times(to, name, &stat)?;
        }
        FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo => {
            let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
            fs::mknodat(to, name, kind, mode, stat.st_rdev)?;
            set_owner_and_times(to, name, &stat)?;
            fs::chmodat(to, name, mode, AtFlags::empty())?;
        }
        // A socket file is of no use without its server.
        _ => return Ok(()),
    }
    if stat.st_nlink > 1 {
        let made = fs::openat(to, name, OFlags::PATH | flags, Mode::empty())?;
        job.links.insert((stat.st_dev, stat.st_ino), made);
    }
    Ok(())
}

fn io_errno(e: std::io::Error) -> rustix::io::Errno {
    rustix::io::Errno::from_io_error(&e).unwrap_or(rustix::io::Errno::IO)
}

fn times(stat: &Stat) -> Timestamps {
    let of = |secs: i64, nanos: u64| Timespec { tv_sec: secs, tv_nsec: i64::try_from(nanos).unwrap_or(0) };
    Timestamps {
        last_access: of(stat.st_atime, stat.st_atime_nsec),
        last_modification: of(stat.st_mtime, stat.st_mtime_nsec),
    }
}

fn set_owner_and_times(dir: BorrowedFd<'_>, name: &std::ffi::CStr, stat: &Stat) -> rustix::io::Result<()> {
    let (uid, gid) = (fs::Uid::from_raw(stat.st_uid), fs::Gid::from_raw(stat.st_gid));
    fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    fs::utimensat(dir, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
}

/// Owner, attributes, mode, times: in this order, since a change of owner takes bits and capabilities away.
fn finish(made: BorrowedFd<'_>, stat: &Stat, source: BorrowedFd<'_>) -> rustix::io::Result<()> {
    fs::fchown(made, Some(fs::Uid::from_raw(stat.st_uid)), Some(fs::Gid::from_raw(stat.st_gid)))?;
    copy_attributes(source, made)?;
    fs::fchmod(made, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    fs::futimens(made, &times(stat))
}

/// `user.*`, ACLs and file capabilities; the overlay's own stay behind.
fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let mut names = vec![0u8; 64 << 10];
    let n = match fs::flistxattr(from, &mut names) {
        Ok(n) => n,
        Err(rustix::io::Errno::NOTSUP) => return Ok(()),
        Err(e) => return Err(e),
    };
    for name in names[..n].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let wanted = name.starts_with(b"user.")
            || name == b"security.capability"
            || name.starts_with(b"system.posix_acl");
        if !wanted || name.starts_with(b"user.overlay.") {
            continue;
        }
        let mut value = vec![0u8; 64 << 10];
        let len = fs::fgetxattr(from, name, &mut value)?;
        match fs::fsetxattr(to, name, &value[..len], fs::XattrFlags::empty()) {
            Err(rustix::io::Errno::NOTSUP) | Ok(()) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};

    use super::*;

    #[test]
    fn copies_a_tree_once_and_follows_no_links() {
        let dir = tempfile::tempdir().expect("dir");
        let (image, volume) = (dir.path().join("image"), dir.path().join("volume"));
        std::fs::create_dir_all(image.join("data/sub")).expect("dirs");
        std::fs::create_dir(&volume).expect("volume");
        std::fs::write(image.join("data/sub/f"), "x").expect("file");
        std::fs::hard_link(image.join("data/sub/f"), image.join("data/g")).expect("link");
        std::fs::set_permissions(image.join("data/sub/f"), PermissionsExt::from_mode(0o640)).expect("mode");
        symlink("/etc/passwd", image.join("data/evil")).expect("symlink");
        let root = Root::open(&image).expect("root");
        copy_up(&root, "/data", &volume).expect("copy");
        let copied = std::fs::metadata(volume.join("sub/f")).expect("copied");
        assert_eq!((copied.mode() & 0o7777, copied.nlink()), (0o640, 2));
        assert_eq!(std::fs::read_link(volume.join("evil")).expect("link"), Path::new("/etc/passwd"));
        std::fs::remove_file(volume.join("g")).expect("remove");
        copy_up(&root, "/data", &volume).expect("second");
        assert!(!volume.join("g").exists(), "a volume in use is left alone");
        copy_up(&root, "/nosuch", &volume).expect("nothing there");
    }

    #[test]
    fn atk_55_a_copy_that_was_cut_short_is_done_again() {
        let dir = tempfile::tempdir().expect("dir");
        let (image, volume) = (dir.path().join("image"), dir.path().join("volume"));
        std::fs::create_dir_all(image.join("data/sub")).expect("dirs");
        for (name, text) in [("a", "one"), ("b", "two"), ("sub/c", "three")] {
            std::fs::write(image.join("data").join(name), text).expect("file");
        }
        std::fs::hard_link(image.join("data/a"), image.join("data/sub/link")).expect("link");
        symlink("a", image.join("data/s")).expect("symlink");
        // One file came without its bytes, one is half there, one directory has nothing in it.
        std::fs::create_dir_all(volume.join("sub")).expect("volume");
        std::fs::write(volume.join("a"), "").expect("file");
        std::fs::write(volume.join("b"), "t").expect("file");
        symlink("elsewhere", volume.join("s")).expect("symlink");
        std::fs::write(dir.path().join(FILLING), "").expect("mark");
        let root = Root::open(&image).expect("root");
        copy_up(&root, "/data", &volume).expect("copy");
        for (name, text) in
            [("a", "one"), ("b", "two"), ("sub/c", "three"), ("sub/link", "one"), ("s", "one")]
        {
            assert_eq!(std::fs::read_to_string(volume.join(name)).expect("file"), text, "{name}");
        }
        assert_eq!(std::fs::metadata(volume.join("a")).expect("file").nlink(), 2);
        assert!(!dir.path().join(FILLING).exists());
        std::fs::write(volume.join("a"), "mine").expect("file");
        copy_up(&root, "/data", &volume).expect("second");
        assert_eq!(std::fs::read_to_string(volume.join("a")).expect("file"), "mine");
    }

    #[test]
    fn atk_25_a_volume_path_that_is_a_link_stays_inside() {
        let dir = tempfile::tempdir().expect("dir");
        let (image, volume) = (dir.path().join("image"), dir.path().join("volume"));
        std::fs::create_dir(&image).expect("image");
        std::fs::create_dir(&volume).expect("volume");
        symlink("/etc", image.join("data")).expect("symlink");
        copy_up(&Root::open(&image).expect("root"), "/data", &volume).expect("nothing there");
        assert!(std::fs::read_dir(&volume).expect("volume").next().is_none());
    }
}
