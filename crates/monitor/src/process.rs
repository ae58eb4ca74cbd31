//! What a process gets before its program runs; the same for a container's first and for an exec.

use crate::fd::{AsFd, OwnedFd};
use crate::prelude::*;
use alloc::ffi::CString;
use core::ffi::CStr;

use longshore_monitor::plan::Process;
use longshore_monitor::proto::Step;

use crate::os;
use crate::rootfs::{Failure, Named, own_proc, prove_proc, text};

/// Highest capability that a set can hold.
const LAST_CAPABILITY: u64 = 63;

/// Puts three descriptors in place of the standard ones, owned by the process's user, so that it can
/// open /dev/stdout again.
pub(crate) fn set_stdio(stdio: &[OwnedFd; 3], p: &Process) -> Result<(), Failure> {
    for (to, fd) in (0..).zip(stdio) {
        let null = os::stat(fd).is_ok_and(|st| st.st_rdev == libc::makedev(1, 3));
        if !null {
            // Not possible for files on read-only or foreign file systems; nothing rests on it.
            let _ = os::chown(fd, p.uid, p.gid);
        }
        os::dup_to(fd, to).at(Step::Files, || "standard descriptors".into())?;
    }
    Ok(())
}

/// What may need privileges and touches only this process.
pub(crate) fn privileged(p: &Process, proc: Option<&OwnedFd>) -> Result<(), Failure> {
    for (resource, soft, hard) in &p.rlimits {
        os::rlimit(*resource, *soft, *hard).at(Step::Rlimit, || format!("{resource}: {soft}:{hard}"))?;
    }
    if let Some(value) = p.ioprio {
        os::ioprio(value).at(Step::Rlimit, || "I/O priority".into())?;
    }
    if let Some(profile) = &p.apparmor {
        apparmor(profile, proc).at(Step::Apparmor, || text(profile))?;
    }
    Ok(())
}

/// Asks for a profile at the next exec, through a procfs that is one.
fn apparmor(profile: &CStr, proc: Option<&OwnedFd>) -> os::Sys<()> {
    set_label(&label_file(proc, c"attr/apparmor/exec", c"attr/exec")?, b"exec ", profile)
}

/// The way to a profile for a process that executes nothing and yet is the container's: our own init.
/// Opened while there is a procfs to open it in.
pub(crate) fn own_label(p: &Process, proc: Option<&OwnedFd>) -> Result<Option<OwnedFd>, Failure> {
    let profile = p.apparmor.as_ref().filter(|profile| profile.to_bytes() != b"unconfined");
    profile
        .map(|profile| {
            label_file(proc, c"attr/apparmor/current", c"attr/current").at(Step::Apparmor, || text(profile))
        })
        .transpose()
}

/// Goes under the profile at once. What it starts from then on inherits it.
pub(crate) fn take_label(file: &OwnedFd, p: &Process) -> Result<(), Failure> {
    let Some(profile) = &p.apparmor else { return Ok(()) };
    set_label(file, b"changeprofile ", profile).at(Step::Apparmor, || text(profile))
}

/// A file of this process in procfs; the other name is that of kernels with one security module.
fn label_file(proc: Option<&OwnedFd>, name: &CStr, older: &CStr) -> os::Sys<OwnedFd> {
    let own;
    let proc = match proc {
        Some(proc) => proc,
        None => {
            own = own_proc()?;
            &own
        }
    };
    // A link of procfs itself, resolved inside it.
    let me = os::open_in(proc, c"thread-self", libc::O_PATH | libc::O_DIRECTORY, 0, os::Links::Inside)?;
    prove_proc(&me)?;
    let open = |path| os::open_in(&me, path, libc::O_RDWR, 0, os::Links::Refuse);
    let file = match open(name) {
        Err(libc::ENOENT) => open(older),
        r => r,
    }?;
    prove_proc(&file)?;
    Ok(file)
}

fn set_label(file: &OwnedFd, verb: &[u8], profile: &CStr) -> os::Sys<()> {
    let mut line = verb.to_vec();
    line.extend_from_slice(profile.to_bytes());
    os::write_all(file, &line)?;
    // The kernel repeats what it will do: "profile (enforce)".
    let mut buf = [0; 256];
    let n = os::pread(file, &mut buf)?;
    if buf[..n].starts_with(profile.to_bytes()) { Ok(()) } else { Err(libc::EACCES) }
}

/// Working directory, filter, user and capabilities: from here on the process has only what it is
/// meant to have. With no-new-privileges the filter is still missing ([`late_filter`]).
pub(crate) fn confine(p: &Process) -> Result<(), Failure> {
    if p.no_new_privs {
        os::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).at(Step::Seccomp, || "no new privileges".into())?;
    }
    let cwd = os::chdir(&p.cwd);
    if !p.no_new_privs {
        filter(p)?;
    }
    let caps = p.caps;
    for cap in 0..=LAST_CAPABILITY {
        if caps.bounding & (1 << cap) == 0 {
            match os::prctl(libc::PR_CAPBSET_DROP, cap, 0) {
                Ok(()) => {}
                // The kernel knows no more.
                Err(libc::EINVAL) => break,
                r => r.at(Step::Capabilities, || format!("drop {cap}"))?,
            }
        }
    }
    let here = || format!("{}:{}", p.uid, p.gid);
    os::prctl(libc::PR_SET_KEEPCAPS, 1, 0).at(Step::User, here)?;
    os::set_ids(p.uid, p.gid, &p.groups).at(Step::User, here)?;
    os::prctl(libc::PR_SET_KEEPCAPS, 0, 0).at(Step::User, here)?;
    if cwd == Err(libc::EACCES) {
        // Perhaps only the user may enter it (NFS).
        os::chdir(&p.cwd).at(Step::Cwd, || text(&p.cwd))?;
    } else {
        cwd.at(Step::Cwd, || text(&p.cwd))?;
    }
    // A descriptor that leaked in would let the path lead out of the container.
    if !os::cwd_is_inside().at(Step::Cwd, || text(&p.cwd))? {
        let detail = format!("{}: outside of the container's root", text(&p.cwd));
        return Err(Failure { step: Step::Cwd, errno: libc::EXDEV, detail });
    }
    os::capset(caps.effective, caps.permitted, caps.ambient).at(Step::Capabilities, || "capset".into())?;
    let _ = os::prctl(libc::PR_CAP_AMBIENT, 4 /* PR_CAP_AMBIENT_CLEAR_ALL */, 0);
    for cap in (0..=LAST_CAPABILITY).filter(|c| caps.ambient & (1 << c) != 0) {
        os::prctl(libc::PR_CAP_AMBIENT, 2 /* PR_CAP_AMBIENT_RAISE */, cap)
            .at(Step::Capabilities, || format!("ambient {cap}"))?;
    }
    os::umask(p.umask.unwrap_or(0o022));
    os::cloexec_from(3).at(Step::Files, || "close descriptors".into())
}

/// The filter of a process with no-new-privileges: the last thing before exec, so that it need not
/// allow anything that we do.
pub(crate) fn late_filter(p: &Process) -> Result<(), Failure> {
    if p.no_new_privs { filter(p) } else { Ok(()) }
}

fn filter(p: &Process) -> Result<(), Failure> {
    match &p.seccomp {
        Some(s) => os::seccomp(&s.program, s.flags).at(Step::Seccomp, || "load filter".into()),
        None => Ok(()),
    }
}

/// Finds the program as a shell would, with the process's own rights, and the words that clients of
/// Docker know.
pub(crate) fn find(p: &Process) -> Result<CString, Failure> {
    let Some(name) = p.args.first() else {
        return Err(Failure {
            step: Step::Lookup,
            errno: libc::EINVAL,
            detail: "no command specified".into(),
        });
    };
    let fail = |errno: i32, what: &str| Failure {
        step: Step::Lookup,
        errno,
        detail: format!("exec: {}: {what}", quote(name)),
    };
    let bytes = name.to_bytes();
    if bytes.contains(&b'/') {
        return match executable(name) {
            Ok(()) => Ok(name.clone()),
            Err(libc::ENOENT) => {
                Err(fail(libc::ENOENT, &format!("stat {}: no such file or directory", text(name))))
            }
            Err(errno) => Err(fail(errno, &os::message(errno))),
        };
    }
    let path = p.env.iter().find_map(|e| e.to_bytes().strip_prefix(b"PATH=")).unwrap_or(b"");
    if !bytes.is_empty() {
        for dir in path.split(|b| *b == b':').filter(|d| d.first() == Some(&b'/')) {
            let Ok(full) = CString::new([dir, b"/", bytes].concat()) else { continue };
            if executable(&full).is_ok() {
                return Ok(full);
            }
        }
    }
    Err(fail(libc::ENOENT, "executable file not found in $PATH"))
}

fn executable(path: &CStr) -> os::Sys<()> {
    let mode = os::path_mode(path)?;
    if mode & libc::S_IFMT == libc::S_IFDIR {
        return Err(libc::EISDIR);
    }
    match os::may_execute(path) {
        // A filter or an old kernel; the mode must do.
        Err(libc::ENOSYS | libc::EPERM) if mode & 0o111 != 0 => Ok(()),
        Err(libc::ENOSYS | libc::EPERM) => Err(libc::EACCES),
        r => r,
    }
}

/// Runs the program; returns only what went wrong.
pub(crate) fn run(program: &CStr, p: &Process) -> Failure {
    os::reset_signals();
    let errno = os::exec(program, &p.args, &p.env);
    Failure { step: Step::Exec, errno, detail: format!("exec {}: {}", text(program), os::message(errno)) }
}

fn quote(s: &CStr) -> String {
    format!("{:?}", s.to_string_lossy())
}

/// Takes the standard descriptors' terminal as the controlling one.
pub(crate) fn set_terminal(slave: OwnedFd, p: &Process) -> Result<(), Failure> {
    let here = || "standard descriptors".to_owned();
    // As the kernel makes them, but for the user: group tty and mode stay.
    let _ = os::chown(&slave, p.uid, u32::MAX);
    for to in 0..3 {
        os::dup_to(slave.as_fd(), to).at(Step::Terminal, here)?;
    }
    os::take_terminal().at(Step::Terminal, || "controlling terminal".into())
}
