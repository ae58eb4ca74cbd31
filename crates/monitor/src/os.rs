//! System calls, thinly. Everything returns the error number; descriptors are owned.
#![allow(unsafe_code)]

use crate::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use crate::prelude::*;
use core::ffi::CStr;

use libc::{c_int, c_long};

/// An error number.
pub(crate) type Errno = i32;
/// Result of a system call.
pub(crate) type Sys<T> = Result<T, Errno>;

/// `CLONE_INTO_CGROUP` of clone3(2).
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
pub(crate) const MOUNT_ATTR_RDONLY: u64 = 1;
pub(crate) const MOUNT_ATTR_NOSUID: u64 = 2;
pub(crate) const MOUNT_ATTR_NODEV: u64 = 4;
pub(crate) const MOUNT_ATTR_NOEXEC: u64 = 8;
const RESOLVE_NO_MAGICLINKS: u64 = 2;
const RESOLVE_NO_SYMLINKS: u64 = 4;
const RESOLVE_IN_ROOT: u64 = 0x10;

/// Errors are the negative numbers down to this.
const MAX_ERRNO: c_long = 4095;

fn check(r: c_long) -> Sys<c_long> {
    match Errno::try_from(r) {
        Ok(e) if e < 0 && r >= -MAX_ERRNO => Err(-e),
        _ => Ok(r),
    }
}

/// Takes ownership of a descriptor that a call returned.
#[expect(clippy::cast_possible_truncation, reason = "descriptors are ints")]
fn owned(r: c_long) -> Sys<OwnedFd> {
    let fd = check(r)? as RawFd;
    // SAFETY: the kernel just made this descriptor for us, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What can be handed to the kernel.
trait Word {
    fn word(self) -> c_long;
}

macro_rules! words {
    ($($t:ty),*) => { $(impl Word for $t {
        fn word(self) -> c_long {
            self as c_long
        }
    })* };
}
words!(i32, u32, i64, u64, usize);

impl<T> Word for *const T {
    fn word(self) -> c_long {
        self as c_long
    }
}

impl<T> Word for *mut T {
    fn word(self) -> c_long {
        self as c_long
    }
}

/// A system call with up to six arguments; errors come as negative numbers.
///
/// # Safety
/// That of the call: what pointers point to must be as it says.
#[cfg(target_arch = "x86_64")]
unsafe fn syscall(nr: c_long, args: [c_long; 6]) -> c_long {
    let result;
    // SAFETY: the kernel changes rcx, r11, the result and what the call is about.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") nr => result,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
            in("r10") args[3], in("r8") args[4], in("r9") args[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    result
}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn syscall(nr: c_long, [a, b, c, d, e, f]: [c_long; 6]) -> c_long {
    // SAFETY: the caller's; the error number is always there.
    unsafe {
        match libc::syscall(nr, a, b, c, d, e, f) {
            -1 => -c_long::from(*libc::__errno_location()),
            r => r,
        }
    }
}

/// A system call with the arguments it has.
macro_rules! sys {
    ($nr:expr $(, $arg:expr)*) => {{
        let given = [$(Word::word($arg)),*];
        let mut args: [c_long; 6] = [0; 6];
        args[..given.len()].copy_from_slice(&given);
        // SAFETY: every pointer among the arguments is valid for the call, by each caller below.
        unsafe { syscall($nr, args) }
    }};
}

/// fork(2) into new namespaces and perhaps a v2 cgroup. Returns 0 in the child.
#[expect(clippy::cast_possible_truncation, reason = "process ids are ints")]
pub(crate) fn clone(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Sys<i32> {
    #[repr(C)]
    #[derive(Default)]
    struct CloneArgs {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
        set_tid: u64,
        set_tid_size: u64,
        cgroup: u64,
    }
    let mut args = CloneArgs { flags, exit_signal: 17, ..CloneArgs::default() };
    if let Some(fd) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(fd.as_raw_fd().unsigned_abs());
    }
    // Without CLONE_VM the child has a copy of everything, and there is only one thread.
    let r = sys!(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>());
    Ok(check(r)? as i32)
}

/// A new process that is a plain copy; 0 in the child. Not by clone3, which filters often refuse
/// because they cannot look into its arguments.
#[expect(clippy::cast_possible_truncation, reason = "process ids are ints")]
pub(crate) fn fork() -> Sys<i32> {
    let none = 0usize;
    Ok(check(sys!(libc::SYS_clone, libc::SIGCHLD as u64, none, none, none, none))? as i32)
}

/// How the path of [`open_in`] may contain links.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    /// Resolved inside the root.
    Inside,
    /// `ELOOP`.
    Refuse,
}

/// Opens a path as if `root` were `/`.
pub(crate) fn open_in(root: impl AsFd, path: &CStr, flags: c_int, mode: u32, links: Links) -> Sys<OwnedFd> {
    #[repr(C)]
    struct OpenHow {
        flags: u64,
        mode: u64,
        resolve: u64,
    }
    let path = if path.is_empty() { c"." } else { path };
    let no = if links == Links::Refuse { RESOLVE_NO_SYMLINKS } else { 0 };
    let how = OpenHow {
        flags: u64::from((flags | libc::O_CLOEXEC).unsigned_abs()),
        mode: u64::from(mode),
        resolve: RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | no,
    };
    // EAGAIN: a rename raced with `..`. Somebody may do that on purpose, so not for ever.
    for _ in 0..128 {
        let r = sys!(
            libc::SYS_openat2,
            root.as_fd().as_raw_fd(),
            path.as_ptr(),
            &raw const how,
            size_of::<OpenHow>()
        );
        match owned(r) {
            Err(libc::EAGAIN | libc::EINTR) => {}
            r => return r,
        }
    }
    Err(libc::EAGAIN)
}

/// Opens a path of the host (or a plain name below a directory that nobody else controls).
pub(crate) fn open_at(dir: Option<BorrowedFd<'_>>, path: &CStr, flags: c_int, mode: u32) -> Sys<OwnedFd> {
    let dir = dir.map_or(libc::AT_FDCWD, |d| d.as_raw_fd());
    owned(sys!(libc::SYS_openat, dir, path.as_ptr(), flags | libc::O_CLOEXEC, mode))
}

pub(crate) fn mkdir_at(dir: impl AsFd, name: &CStr, mode: u32) -> Sys<()> {
    check(sys!(libc::SYS_mkdirat, dir.as_fd().as_raw_fd(), name.as_ptr(), mode)).map(drop)
}

pub(crate) fn mknod_at(dir: impl AsFd, name: &CStr, mode: u32, major: u32, minor: u32) -> Sys<()> {
    let dev = libc::makedev(major, minor);
    check(sys!(libc::SYS_mknodat, dir.as_fd().as_raw_fd(), name.as_ptr(), mode, dev)).map(drop)
}

pub(crate) fn symlink_at(target: &CStr, dir: impl AsFd, name: &CStr) -> Sys<()> {
    check(sys!(libc::SYS_symlinkat, target.as_ptr(), dir.as_fd().as_raw_fd(), name.as_ptr())).map(drop)
}

pub(crate) fn unlink_at(dir: impl AsFd, name: &CStr) -> Sys<()> {
    check(sys!(libc::SYS_unlinkat, dir.as_fd().as_raw_fd(), name.as_ptr(), 0)).map(drop)
}

pub(crate) fn rename_at(dir: impl AsFd, from: &CStr, to: &CStr) -> Sys<()> {
    let dir = dir.as_fd().as_raw_fd();
    check(sys!(libc::SYS_renameat, dir, from.as_ptr(), dir, to.as_ptr())).map(drop)
}

/// Owner and mode of what is at a name; links are not followed.
pub(crate) fn chown_at(dir: impl AsFd, name: &CStr, uid: u32, gid: u32) -> Sys<()> {
    let flags = libc::AT_SYMLINK_NOFOLLOW;
    check(sys!(libc::SYS_fchownat, dir.as_fd().as_raw_fd(), name.as_ptr(), uid, gid, flags)).map(drop)
}

pub(crate) fn chown(fd: impl AsFd, uid: u32, gid: u32) -> Sys<()> {
    check(sys!(libc::SYS_fchown, fd.as_fd().as_raw_fd(), uid, gid)).map(drop)
}

pub(crate) fn readlink_at(dir: impl AsFd, name: &CStr) -> Sys<Vec<u8>> {
    let mut buf = vec![0u8; 4096];
    let r = sys!(libc::SYS_readlinkat, dir.as_fd().as_raw_fd(), name.as_ptr(), buf.as_mut_ptr(), buf.len());
    buf.truncate(usize::try_from(check(r)?).unwrap_or(0));
    Ok(buf)
}

pub(crate) fn stat(fd: impl AsFd) -> Sys<libc::stat> {
    // SAFETY: all zeroes is a valid stat.
    let mut st: libc::stat = unsafe { core::mem::zeroed() };
    check(sys!(libc::SYS_fstat, fd.as_fd().as_raw_fd(), &raw mut st))?;
    Ok(st)
}

/// Type number of the file system that the descriptor is on.
pub(crate) fn fs_type(fd: impl AsFd) -> Sys<i64> {
    // SAFETY: all zeroes is a valid statfs.
    let mut st: libc::statfs = unsafe { core::mem::zeroed() };
    check(sys!(libc::SYS_fstatfs, fd.as_fd().as_raw_fd(), &raw mut st))?;
    Ok(st.f_type)
}

pub(crate) fn fsopen(fstype: &CStr) -> Sys<OwnedFd> {
    owned(sys!(libc::SYS_fsopen, fstype.as_ptr(), 1))
}

/// Sets an option (an empty value sets a flag).
pub(crate) fn fsconfig(fs: impl AsFd, key: &CStr, value: &CStr) -> Sys<()> {
    let fd = fs.as_fd().as_raw_fd();
    let r = if value.is_empty() {
        sys!(libc::SYS_fsconfig, fd, 0, key.as_ptr(), 0usize, 0)
    } else {
        sys!(libc::SYS_fsconfig, fd, 1, key.as_ptr(), value.as_ptr(), 0)
    };
    check(r).map(drop)
}

/// Creates the file system and a detached mount of it.
pub(crate) fn fsmount(fs: impl AsFd, attrs: u64) -> Sys<OwnedFd> {
    let fd = fs.as_fd().as_raw_fd();
    check(sys!(libc::SYS_fsconfig, fd, 6, 0usize, 0usize, 0))?;
    owned(sys!(libc::SYS_fsmount, fd, 1, attrs))
}

/// A detached copy of the mount that a descriptor refers to.
pub(crate) fn clone_tree(fd: impl AsFd, recursive: bool) -> Sys<OwnedFd> {
    let recursive = if recursive { libc::AT_RECURSIVE } else { 0 };
    let flags = 1 | libc::O_CLOEXEC | libc::AT_EMPTY_PATH | recursive;
    owned(sys!(libc::SYS_open_tree, fd.as_fd().as_raw_fd(), c"".as_ptr(), flags))
}

/// Puts a detached mount on what `target` refers to.
pub(crate) fn attach(mount: impl AsFd, target: impl AsFd) -> Sys<()> {
    let r = sys!(
        libc::SYS_move_mount,
        mount.as_fd().as_raw_fd(),
        c"".as_ptr(),
        target.as_fd().as_raw_fd(),
        c"".as_ptr(),
        0x04 | 0x40
    );
    check(r).map(drop)
}

pub(crate) fn mount_setattr(
    fd: impl AsFd,
    set: u64,
    clear: u64,
    propagation: u64,
    recursive: bool,
) -> Sys<()> {
    let attr = libc::mount_attr { attr_set: set, attr_clr: clear, propagation, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let r = sys!(
        libc::SYS_mount_setattr,
        fd.as_fd().as_raw_fd(),
        c"".as_ptr(),
        flags,
        &raw const attr,
        size_of::<libc::mount_attr>()
    );
    check(r).map(drop)
}

/// Changes propagation of the mount at a path.
pub(crate) fn mount_propagation(path: &CStr, flags: u64) -> Sys<()> {
    let none = core::ptr::null::<libc::c_char>();
    check(sys!(libc::SYS_mount, none, path.as_ptr(), none, flags, 0usize)).map(drop)
}

pub(crate) fn pivot_root_here() -> Sys<()> {
    check(sys!(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr())).map(drop)
}

pub(crate) fn detach_here() -> Sys<()> {
    check(sys!(libc::SYS_umount2, c".".as_ptr(), libc::MNT_DETACH)).map(drop)
}

pub(crate) fn chdir(path: &CStr) -> Sys<()> {
    check(sys!(libc::SYS_chdir, path.as_ptr())).map(drop)
}

pub(crate) fn fchdir(fd: impl AsFd) -> Sys<()> {
    check(sys!(libc::SYS_fchdir, fd.as_fd().as_raw_fd())).map(drop)
}

/// Whether the working directory can be reached from the root directory.
pub(crate) fn cwd_is_inside() -> Sys<bool> {
    let mut buf = [0u8; 4096];
    match check(sys!(libc::SYS_getcwd, buf.as_mut_ptr(), buf.len())) {
        // The kernel says "(unreachable)/..." for others.
        Ok(_) => Ok(buf[0] == b'/'),
        // A very long path is inside as any other; a removed one (ENOENT) is not.
        Err(libc::ERANGE) => Ok(true),
        Err(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

pub(crate) fn setns(fd: impl AsFd, flags: u64) -> Sys<()> {
    check(sys!(libc::SYS_setns, fd.as_fd().as_raw_fd(), flags)).map(drop)
}

pub(crate) fn unshare(flags: u64) -> Sys<()> {
    check(sys!(libc::SYS_unshare, flags)).map(drop)
}

pub(crate) fn sethostname(name: &CStr) -> Sys<()> {
    check(sys!(libc::SYS_sethostname, name.as_ptr(), name.to_bytes().len())).map(drop)
}

pub(crate) fn setdomainname(name: &CStr) -> Sys<()> {
    check(sys!(libc::SYS_setdomainname, name.as_ptr(), name.to_bytes().len())).map(drop)
}

pub(crate) fn setsid() -> Sys<()> {
    check(sys!(libc::SYS_setsid)).map(drop)
}

pub(crate) fn prctl(option: c_int, arg: u64, arg2: u64) -> Sys<()> {
    check(sys!(libc::SYS_prctl, option, arg, arg2, 0u64, 0u64)).map(drop)
}

/// The name that `ps` and `top` show; 15 bytes at most. Executed from a descriptor, we would be shown as its number.
pub(crate) fn set_name(name: &CStr) {
    let _ = check(sys!(libc::SYS_prctl, libc::PR_SET_NAME, name.as_ptr(), 0u64, 0u64, 0u64));
}

pub(crate) fn rlimit(resource: u32, soft: u64, hard: u64) -> Sys<()> {
    let limit = [soft, hard];
    check(sys!(libc::SYS_prlimit64, 0, resource, limit.as_ptr(), 0usize)).map(drop)
}

pub(crate) fn set_ids(uid: u32, gid: u32, groups: &[u32]) -> Sys<()> {
    // The raw calls: glibc's versions would signal threads, of which there are none.
    set_groups(groups)?;
    check(sys!(libc::SYS_setresgid, gid, gid, gid))?;
    check(sys!(libc::SYS_setresuid, uid, uid, uid)).map(drop)
}

fn set_groups(groups: &[u32]) -> Sys<()> {
    match check(sys!(libc::SYS_setgroups, groups.len(), groups.as_ptr())) {
        // Where an unprivileged user namespace forbids setgroups there is nothing to drop either.
        Err(libc::EPERM) if groups.is_empty() => Ok(()),
        r => r.map(drop),
    }
}

/// Sets the capability sets of this thread.
#[expect(clippy::cast_possible_truncation, reason = "the halves of each set")]
pub(crate) fn capset(effective: u64, permitted: u64, inheritable: u64) -> Sys<()> {
    let header: [u32; 2] = [0x2008_0522, 0];
    let (e, p, i) = (effective, permitted, inheritable);
    let data: [u32; 6] = [e as u32, p as u32, i as u32, (e >> 32) as u32, (p >> 32) as u32, (i >> 32) as u32];
    check(sys!(libc::SYS_capset, header.as_ptr(), data.as_ptr())).map(drop)
}

/// Loads a filter: `struct sock_filter` items as bytes.
pub(crate) fn seccomp(program: &[u8], flags: u32) -> Sys<()> {
    #[repr(C)]
    struct Fprog {
        len: u16,
        filter: *const u8,
    }
    let len = u16::try_from(program.len() / 8).map_err(|_| libc::E2BIG)?;
    let prog = Fprog { len, filter: program.as_ptr() };
    check(sys!(libc::SYS_seccomp, 1, flags, &raw const prog)).map(drop)
}

pub(crate) fn ioprio(value: u32) -> Sys<()> {
    check(sys!(libc::SYS_ioprio_set, 1, 0, value)).map(drop)
}

pub(crate) fn umask(mask: u32) {
    sys!(libc::SYS_umask, mask);
}

/// Marks all descriptors from `first` on to be closed by execve.
pub(crate) fn cloexec_from(first: u32) -> Sys<()> {
    check(sys!(libc::SYS_close_range, first, u32::MAX, 4)).map(drop)
}

/// Closes all descriptors from `first` on.
pub(crate) fn close_from(first: u32) {
    sys!(libc::SYS_close_range, first, u32::MAX, 0);
}

pub(crate) fn dup_to(fd: impl AsFd, to: RawFd) -> Sys<()> {
    let fd = fd.as_fd().as_raw_fd();
    if fd == to {
        // dup3 refuses equal numbers; only the close-on-exec flag must go.
        return check(sys!(libc::SYS_fcntl, fd, libc::F_SETFD, 0)).map(drop);
    }
    check(sys!(libc::SYS_dup3, fd, to, 0)).map(drop)
}

pub(crate) fn pipe() -> Sys<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    check(sys!(libc::SYS_pipe2, fds.as_mut_ptr(), libc::O_CLOEXEC))?;
    // SAFETY: the kernel just made both.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// A pair of connected sockets that keep message boundaries.
pub(crate) fn packet_pair() -> Sys<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    check(sys!(libc::SYS_socketpair, libc::AF_UNIX, kind, 0, fds.as_mut_ptr()))?;
    // SAFETY: the kernel just made both.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

pub(crate) fn nonblocking(fd: impl AsFd) -> Sys<()> {
    let fd = fd.as_fd().as_raw_fd();
    let flags = check(sys!(libc::SYS_fcntl, fd, libc::F_GETFL, 0))?;
    check(sys!(libc::SYS_fcntl, fd, libc::F_SETFL, flags | c_long::from(libc::O_NONBLOCK))).map(drop)
}

pub(crate) fn read(fd: impl AsFd, buf: &mut [u8]) -> Sys<usize> {
    loop {
        match check(sys!(libc::SYS_read, fd.as_fd().as_raw_fd(), buf.as_mut_ptr(), buf.len())) {
            Err(libc::EINTR) => {}
            r => return r.map(|n| usize::try_from(n).unwrap_or(0)),
        }
    }
}

pub(crate) fn write(fd: impl AsFd, buf: &[u8]) -> Sys<usize> {
    loop {
        match check(sys!(libc::SYS_write, fd.as_fd().as_raw_fd(), buf.as_ptr(), buf.len())) {
            Err(libc::EINTR) => {}
            r => return r.map(|n| usize::try_from(n).unwrap_or(0)),
        }
    }
}

/// Writes everything to a file or blocking socket.
pub(crate) fn write_all(fd: impl AsFd, mut buf: &[u8]) -> Sys<()> {
    while !buf.is_empty() {
        let n = write(&fd, buf)?;
        if n == 0 {
            return Err(libc::EIO);
        }
        buf = &buf[n..];
    }
    Ok(())
}

pub(crate) fn pread(fd: impl AsFd, buf: &mut [u8]) -> Sys<usize> {
    let r = sys!(libc::SYS_pread64, fd.as_fd().as_raw_fd(), buf.as_mut_ptr(), buf.len(), 0i64);
    check(r).map(|n| usize::try_from(n).unwrap_or(0))
}

/// Descriptors that one message may carry.
const MAX_FDS: usize = 64;

/// Sends bytes, and perhaps a descriptor.
pub(crate) fn send(fd: impl AsFd, buf: &[u8], pass: Option<BorrowedFd<'_>>) -> Sys<usize> {
    let mut iov = libc::iovec { iov_base: buf.as_ptr().cast_mut().cast(), iov_len: buf.len() };
    let mut control = [0u64; 4];
    // SAFETY: all zeroes is a valid msghdr.
    let mut msg: libc::msghdr = unsafe { core::mem::zeroed() };
    msg.msg_iov = &raw mut iov;
    msg.msg_iovlen = 1;
    if let Some(pass) = pass {
        msg.msg_control = control.as_mut_ptr().cast();
        // SAFETY: the control buffer is aligned and has room for one header with one descriptor.
        unsafe {
            msg.msg_controllen = libc::CMSG_SPACE(4) as usize;
            let header = libc::CMSG_FIRSTHDR(&raw const msg);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(4) as usize;
            libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(pass.as_raw_fd());
        }
    }
    let r = sys!(libc::SYS_sendmsg, fd.as_fd().as_raw_fd(), &raw const msg, libc::MSG_NOSIGNAL);
    check(r).map(|n| usize::try_from(n).unwrap_or(0))
}

/// Receives bytes and descriptors.
pub(crate) fn receive(fd: impl AsFd, buf: &mut [u8], fds: &mut Vec<OwnedFd>) -> Sys<usize> {
    let mut iov = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    let mut control = [0u64; 2 + MAX_FDS / 2 + 1];
    // SAFETY: all zeroes is a valid msghdr.
    let mut msg: libc::msghdr = unsafe { core::mem::zeroed() };
    msg.msg_iov = &raw mut iov;
    msg.msg_iovlen = 1;
    msg.msg_control = control.as_mut_ptr().cast();
    msg.msg_controllen = size_of_val(&control);
    let r = loop {
        let r = sys!(libc::SYS_recvmsg, fd.as_fd().as_raw_fd(), &raw mut msg, libc::MSG_CMSG_CLOEXEC);
        match check(r) {
            Err(libc::EINTR) => {}
            r => break r,
        }
    };
    let n = usize::try_from(r?).unwrap_or(0);
    // SAFETY: the kernel filled the control buffer; the macros stay inside it, and every descriptor
    // found is new and ours.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const msg);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let count = ((*header).cmsg_len - libc::CMSG_LEN(0) as usize) / size_of::<RawFd>();
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                for i in 0..count {
                    fds.push(OwnedFd::from_raw_fd(data.add(i).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(&raw const msg, header);
        }
    }
    if msg.msg_flags & libc::MSG_CTRUNC != 0 { Err(libc::EMSGSIZE) } else { Ok(n) }
}

pub(crate) fn accept(listener: impl AsFd) -> Sys<OwnedFd> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    owned(sys!(libc::SYS_accept4, listener.as_fd().as_raw_fd(), 0usize, 0usize, flags))
}

/// User id of the process at the other end.
pub(crate) fn peer_uid(socket: impl AsFd) -> Sys<u32> {
    let mut cred = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut len = libc::socklen_t::try_from(size_of::<libc::ucred>()).map_err(|_| libc::EINVAL)?;
    let r = sys!(
        libc::SYS_getsockopt,
        socket.as_fd().as_raw_fd(),
        libc::SOL_SOCKET,
        libc::SO_PEERCRED,
        &raw mut cred,
        &raw mut len
    );
    check(r).map(|_| cred.uid)
}

pub(crate) fn euid() -> u32 {
    u32::try_from(sys!(libc::SYS_geteuid)).unwrap_or(u32::MAX)
}

/// poll(2); a negative timeout waits for ever.
pub(crate) fn poll(fds: &mut [libc::pollfd], timeout_ms: i32) -> Sys<usize> {
    let limit = libc::timespec {
        tv_sec: i64::from(timeout_ms / 1000),
        tv_nsec: i64::from(timeout_ms % 1000) * 1_000_000,
    };
    let limit = if timeout_ms < 0 { core::ptr::null() } else { &raw const limit };
    let none = 0usize;
    match check(sys!(libc::SYS_ppoll, fds.as_mut_ptr(), fds.len(), limit, none, 8usize)) {
        Err(libc::EINTR) => Ok(0),
        r => r.map(|n| usize::try_from(n).unwrap_or(0)),
    }
}

/// Blocks all signals and gives a descriptor that reports SIGCHLD.
pub(crate) fn signals_to_fd() -> Sys<OwnedFd> {
    set_mask(u64::MAX)?;
    let chld: u64 = 1 << (libc::SIGCHLD - 1);
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    owned(sys!(libc::SYS_signalfd4, -1, &raw const chld, 8usize, flags))
}

fn set_mask(mask: u64) -> Sys<()> {
    check(sys!(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, 0usize, 8usize)).map(drop)
}

/// All signals back to their defaults and open, as a new program expects it.
pub(crate) fn reset_signals() {
    // `struct sigaction` of the kernel, all zero: the default action.
    let default = [0u64; 4];
    sys!(libc::SYS_rt_sigaction, libc::SIGPIPE, default.as_ptr(), 0usize, 8usize);
    let _ = set_mask(0);
}

/// Waits for any blocked signal; its number.
pub(crate) fn next_signal() -> Sys<i32> {
    let all = u64::MAX;
    let none = 0usize;
    match check(sys!(libc::SYS_rt_sigtimedwait, &raw const all, none, none, 8usize)) {
        Ok(n) => i32::try_from(n).map_err(|_| libc::EINVAL),
        Err(e) => Err(e),
    }
}

/// A child that has ended: its id and wait status. `None` if none has (yet).
pub(crate) fn reap() -> Option<(i32, i32)> {
    let mut status = 0i32;
    let r = sys!(libc::SYS_wait4, -1, &raw mut status, libc::WNOHANG | libc::__WALL, 0usize);
    let pid = i32::try_from(r).ok().filter(|pid| *pid > 0)?;
    Some((pid, status))
}

pub(crate) fn kill(pid: i32, signal: i32) -> Sys<()> {
    check(sys!(libc::SYS_kill, pid, signal)).map(drop)
}

pub(crate) fn pidfd_open(pid: i32) -> Sys<OwnedFd> {
    owned(sys!(libc::SYS_pidfd_open, pid, 0))
}

pub(crate) fn pidfd_signal(pidfd: impl AsFd, signal: i32) -> Sys<()> {
    check(sys!(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), signal, 0usize, 0)).map(drop)
}

/// Code and signal of a wait status, Docker's way: 128 and the signal.
pub(crate) fn exit_code(status: i32) -> (i32, i32) {
    if libc::WIFSIGNALED(status) {
        let signal = libc::WTERMSIG(status);
        (128 + signal, signal)
    } else {
        (libc::WEXITSTATUS(status), 0)
    }
}

/// Time since 1970 as seconds and nanoseconds.
pub(crate) fn now() -> (i64, u32) {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    sys!(libc::SYS_clock_gettime, libc::CLOCK_REALTIME, &raw mut ts);
    (ts.tv_sec, u32::try_from(ts.tv_nsec).unwrap_or(0))
}

/// Milliseconds of a clock that only goes forward.
pub(crate) fn monotonic_ms() -> i64 {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    sys!(libc::SYS_clock_gettime, libc::CLOCK_MONOTONIC, &raw mut ts);
    ts.tv_sec * 1000 + ts.tv_nsec / 1_000_000
}

/// Sets the size of a terminal.
pub(crate) fn set_window(fd: impl AsFd, cols: u16, rows: u16) -> Sys<()> {
    let size = libc::winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    check(sys!(libc::SYS_ioctl, fd.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size)).map(drop)
}

/// Unlocks a terminal's other end.
pub(crate) fn unlock_pty(master: impl AsFd) -> Sys<()> {
    let unlock: c_int = 0;
    check(sys!(libc::SYS_ioctl, master.as_fd().as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock)).map(drop)
}

/// Opens a terminal's other end without any path.
pub(crate) fn open_peer(master: impl AsFd) -> Sys<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    owned(sys!(libc::SYS_ioctl, master.as_fd().as_raw_fd(), libc::TIOCGPTPEER, flags))
}

/// Makes standard input the controlling terminal of this session.
pub(crate) fn take_terminal() -> Sys<()> {
    check(sys!(libc::SYS_ioctl, 0, libc::TIOCSCTTY, 0)).map(drop)
}

/// A process group of its own, in the foreground if there is a terminal.
pub(crate) fn own_group(terminal: bool) {
    sys!(libc::SYS_setpgid, 0, 0);
    if terminal {
        let pid = i32::try_from(sys!(libc::SYS_getpid)).unwrap_or(0);
        sys!(libc::SYS_ioctl, 0, libc::TIOCSPGRP, &raw const pid);
    }
}

/// Whether the process may execute the file, by its effective ids.
pub(crate) fn may_execute(path: &CStr) -> Sys<()> {
    let at = libc::AT_FDCWD;
    check(sys!(libc::SYS_faccessat2, at, path.as_ptr(), libc::X_OK, libc::AT_EACCESS)).map(drop)
}

/// Mode bits of what is at a path.
pub(crate) fn path_mode(path: &CStr) -> Sys<u32> {
    // SAFETY: all zeroes is a valid stat.
    let mut st: libc::stat = unsafe { core::mem::zeroed() };
    check(sys!(libc::SYS_newfstatat, libc::AT_FDCWD, path.as_ptr(), &raw mut st, 0))?;
    Ok(st.st_mode)
}

/// Replaces this program; returns only an error.
pub(crate) fn exec(path: &CStr, args: &[alloc::ffi::CString], env: &[alloc::ffi::CString]) -> Errno {
    let pointers = |list: &[alloc::ffi::CString]| {
        list.iter().map(|s| s.as_ptr()).chain([core::ptr::null()]).collect::<Vec<_>>()
    };
    let (args, env) = (pointers(args), pointers(env));
    match check(sys!(libc::SYS_execve, path.as_ptr(), args.as_ptr(), env.as_ptr())) {
        Err(errno) => errno,
        Ok(_) => libc::ENOEXEC,
    }
}

/// Ends this process without running anything.
pub(crate) fn exit(code: i32) -> ! {
    loop {
        sys!(libc::SYS_exit_group, code);
    }
}

/// Takes a descriptor that was inherited.
pub(crate) fn inherited(fd: RawFd) -> OwnedFd {
    // SAFETY: called once, for standard input, at the start.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Words for the error numbers that running a program can give, as Docker's messages have them.
pub(crate) fn message(errno: Errno) -> String {
    let words = match errno {
        libc::EPERM => "operation not permitted",
        libc::ENOENT => "no such file or directory",
        libc::EIO => "input/output error",
        libc::E2BIG => "argument list too long",
        libc::ENOEXEC => "exec format error",
        libc::EAGAIN => "resource temporarily unavailable",
        libc::ENOMEM => "cannot allocate memory",
        libc::EACCES => "permission denied",
        libc::ENOTDIR => "not a directory",
        // Clients look for the second half: it makes their exit code 126.
        libc::EISDIR => "is a directory: permission denied",
        libc::EINVAL => "invalid argument",
        libc::ENFILE => "too many open files in system",
        libc::EMFILE => "too many open files",
        libc::ETXTBSY => "text file busy",
        libc::ENAMETOOLONG => "file name too long",
        libc::ENOSYS => "function not implemented",
        libc::ELOOP => "too many levels of symbolic links",
        libc::ELIBBAD => "accessing a corrupted shared library",
        _ => return format!("error {errno}"),
    };
    words.to_owned()
}

/// Waits for one child.
pub(crate) fn wait(pid: i32) -> Sys<()> {
    check(sys!(libc::SYS_wait4, pid, 0usize, libc::__WALL, 0usize)).map(drop)
}

/// Waits for one child; its exit code.
pub(crate) fn wait_code(pid: i32) -> Sys<i32> {
    let mut status = 0i32;
    loop {
        match check(sys!(libc::SYS_wait4, pid, &raw mut status, libc::__WALL, 0usize)) {
            Err(libc::EINTR) => {}
            r => return r.map(|_| exit_code(status).0),
        }
    }
}

pub(crate) fn close(fd: RawFd) {
    sys!(libc::SYS_close, fd);
}

/// Another descriptor of the same file.
pub(crate) fn duplicate(fd: impl AsFd) -> Sys<OwnedFd> {
    owned(sys!(libc::SYS_fcntl, fd.as_fd().as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3))
}

/// Fresh memory in whole pages.
#[cfg(feature = "bare")]
pub(crate) fn map(size: usize) -> Sys<*mut u8> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    check(sys!(libc::SYS_mmap, 0usize, size, protection, flags, -1, 0usize)).map(|at| at as *mut u8)
}

#[cfg(feature = "bare")]
pub(crate) fn remap(at: *mut u8, old: usize, new: usize) -> Sys<*mut u8> {
    check(sys!(libc::SYS_mremap, at, old, new, libc::MREMAP_MAYMOVE)).map(|at| at as *mut u8)
}

#[cfg(feature = "bare")]
pub(crate) fn unmap(at: *mut u8, size: usize) {
    sys!(libc::SYS_munmap, at, size);
}
