//! Mounts by descriptor (fsopen, open_tree, move_mount), and overlay on old and new kernels.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Errno;
pub use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};

use crate::error::{Context, Error, Result};

/// A new, detached file system of type `fstype` with `options` (an empty value sets a flag).
///
/// # Errors
/// When the kernel refuses a type, an option or the file system.
pub fn new_fs(fstype: &str, options: &[(&str, &str)], attrs: MountAttrFlags) -> Result<OwnedFd> {
    let action = || format!("mount {fstype}");
    let fs = rustix::mount::fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC).context(action)?;
    for (key, value) in options {
        let set = if value.is_empty() {
            rustix::mount::fsconfig_set_flag(&fs, *key)
        } else {
            rustix::mount::fsconfig_set_string(&fs, *key, *value)
        };
        set.context(|| format!("mount {fstype}: option {key}={value}"))?;
    }
    rustix::mount::fsconfig_create(&fs).context(action)?;
    rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attrs).context(action)
}

/// A detached copy of the mount at `path` below `dir` (an empty path: `dir` itself).
///
/// # Errors
/// As open_tree(2).
pub fn clone_tree(dir: impl AsFd, path: impl AsRef<Path>, recursive: bool) -> Result<OwnedFd> {
    let path = path.as_ref();
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if path.as_os_str().is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(dir, path, flags).context(|| format!("clone mount {}", path.display()))
}

/// Attaches a detached mount to the directory or file that `target` refers to.
///
/// # Errors
/// As move_mount(2).
pub fn attach(mount: impl AsFd, target: impl AsFd) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", target, "", flags).context(|| "attach mount")
}

/// Attaches a detached mount to a path of the host.
///
/// # Errors
/// As move_mount(2).
pub fn attach_at(mount: impl AsFd, target: &Path) -> Result<()> {
    rustix::mount::move_mount(mount, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .context(|| format!("attach mount at {}", target.display()))
}

/// What [`set_attr`] changes.
#[derive(Debug, Default)]
pub struct Attrs<'a> {
    /// Attributes to set.
    pub set: u64,
    /// Attributes to clear.
    pub clear: u64,
    /// Propagation (`MS_PRIVATE`, ...), or 0 for no change.
    pub propagation: u64,
    /// Map ids as this user namespace does (sets `MOUNT_ATTR_IDMAP`).
    pub idmap: Option<BorrowedFd<'a>>,
    /// Apply to the mounts below, too.
    pub recursive: bool,
}

/// Changes attributes of the mount that `mount` refers to.
///
/// # Errors
/// As mount_setattr(2).
#[allow(unsafe_code)]
pub fn set_attr(mount: impl AsFd, attrs: &Attrs<'_>) -> Result<()> {
    let mut raw = libc::mount_attr {
        attr_set: attrs.set,
        attr_clr: attrs.clear,
        propagation: attrs.propagation,
        userns_fd: 0,
    };
    if let Some(ns) = attrs.idmap {
        raw.attr_set |= libc::MOUNT_ATTR_IDMAP;
        raw.userns_fd = u64::from(ns.as_raw_fd().unsigned_abs());
    }
    let flags = libc::AT_EMPTY_PATH | if attrs.recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a static C string, the struct lives across the call and its size is given.
    let r = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const raw,
            size_of::<libc::mount_attr>(),
        )
    };
    if r == 0 { Ok(()) } else { Err(Error::new("set mount attributes", std::io::Error::last_os_error())) }
}

/// An overlay file system to be mounted.
#[derive(Debug)]
pub struct Overlay<'a> {
    /// Lower directories, the topmost first. Relative ones are seen from `cwd`.
    pub lowers: &'a [&'a Path],
    /// Upper and work directory; `None` for a read-only overlay.
    pub upper: Option<(&'a Path, &'a Path)>,
    /// Further options (an empty value sets a flag): `index`, `metacopy`, `userxattr`, `volatile`.
    pub options: &'a [(&'a str, &'a str)],
}

/// A detached overlay. Each lower is added by `lowerdir+` (about 6.7); where that does not exist, one
/// `lowerdir` string is tried, so paths must have no `:`, `,` or `\` in them on those kernels.
///
/// # Errors
/// When the kernel refuses; `EINVAL` may also mean that there are too many lowers.
pub fn overlay(overlay: &Overlay<'_>, attrs: MountAttrFlags) -> Result<OwnedFd> {
    let action = || "mount overlay";
    let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).context(action)?;
    let mut each = true;
    for (i, lower) in overlay.lowers.iter().enumerate() {
        match rustix::mount::fsconfig_set_string(&fs, "lowerdir+", *lower) {
            Err(Errno::INVAL) if i == 0 => {
                each = false;
                break;
            }
            r => r.context(|| format!("mount overlay: lower {}", lower.display()))?,
        }
    }
    if !each {
        let all: Vec<&[u8]> = overlay.lowers.iter().map(|p| p.as_os_str().as_bytes()).collect();
        let joined = CString::new(all.join(&b':')).map_err(|_| Error::new("mount overlay", Errno::INVAL))?;
        rustix::mount::fsconfig_set_string(&fs, "lowerdir", joined).context(|| "mount overlay: lowerdir")?;
    }
    if let Some((upper, work)) = overlay.upper {
        rustix::mount::fsconfig_set_string(&fs, "upperdir", upper).context(|| "mount overlay: upperdir")?;
        rustix::mount::fsconfig_set_string(&fs, "workdir", work).context(|| "mount overlay: workdir")?;
    }
    for (key, value) in overlay.options {
        let set = if value.is_empty() {
            rustix::mount::fsconfig_set_flag(&fs, *key)
        } else {
            rustix::mount::fsconfig_set_string(&fs, *key, *value)
        };
        set.context(|| format!("mount overlay: option {key}={value}"))?;
    }
    rustix::mount::fsconfig_create(&fs).context(action)?;
    rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attrs).context(action)
}

/// Detaches what is mounted at `path`; nothing mounted or no such path is fine.
///
/// # Errors
/// As umount2(2).
pub fn detach(path: &Path) -> Result<()> {
    match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(e) => Err(Error::new(format!("unmount {}", path.display()), e)),
    }
}

/// Whether `path` is itself a mount point.
///
/// # Errors
/// As statx(2); `ENOENT` if it is missing.
pub fn is_mount_point(path: &Path) -> Result<bool> {
    let stat =
        rustix::fs::statx(CWD, path, rustix::fs::AtFlags::SYMLINK_NOFOLLOW, rustix::fs::StatxFlags::TYPE)
            .context(|| format!("stat {}", path.display()))?;
    Ok(stat.stx_attributes.contains(rustix::fs::StatxAttributes::MOUNT_ROOT))
}
