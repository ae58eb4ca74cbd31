//! Device programs of cgroups: the few commands of bpf(2) that load, attach and replace them.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::error::{Context, Error, Result};

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;

const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// Programs of the cgroups above stay in force, and several may be attached to one.
const ALLOW_MULTI: u32 = 2;

/// The most programs that are looked for on one cgroup.
const MAX_ATTACHED: usize = 64;

#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

#[repr(C)]
struct AttachAttr {
    target_fd: u32,
    prog_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

#[repr(C)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

#[repr(C)]
#[derive(Default)]
struct IdAttr {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// Runs a command.
///
/// # Safety
/// `attr` must be laid out as the command wants it, and the addresses in it must be valid for it.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> std::io::Result<i32> {
    // SAFETY: the caller vouches for the contents; the size is that of the object itself.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    i32::try_from(done).ok().filter(|n| *n >= 0).ok_or_else(std::io::Error::last_os_error)
}

/// Takes a descriptor that the kernel has just given us.
fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: fresh from the kernel, nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

/// Loads a device program: instructions of 8 bytes.
///
/// # Errors
/// When the kernel refuses it; `EPERM` without the right to load programs.
pub fn load_device_program(instructions: &[[u8; 8]]) -> Result<OwnedFd> {
    const NAME: &[u8] = b"ls_devices";
    let insn_cnt = u32::try_from(instructions.len())
        .map_err(|_| Error::new("load device program", rustix::io::Errno::TOOBIG))?;
    let mut prog_name = [0; 16];
    prog_name[..NAME.len()].copy_from_slice(NAME);
    let mut last = None;
    // The verifier gives up with EAGAIN when a signal is pending.
    for _ in 0..5 {
        let mut attr = LoadAttr {
            prog_type: PROG_TYPE_CGROUP_DEVICE,
            insn_cnt,
            insns: instructions.as_ptr().addr() as u64,
            license: c"Apache-2.0".as_ptr().addr() as u64,
            prog_name,
            ..LoadAttr::default()
        };
        // SAFETY: both addresses outlive the call; the kernel copies instructions with any alignment.
        match unsafe { bpf(PROG_LOAD, &mut attr) } {
            Ok(fd) => return Ok(own(fd)),
            Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => last = Some(e),
            Err(e) => return Err(Error::new("load device program", e)),
        }
    }
    Err(Error::new("load device program", last.unwrap_or_else(|| rustix::io::Errno::AGAIN.into())))
}

/// Attaches a loaded program to a cgroup, beside those that are there.
///
/// # Errors
/// As bpf(2).
pub fn attach_device_program(cgroup: impl AsFd, program: impl AsFd) -> Result<()> {
    let mut attr = AttachAttr {
        target_fd: raw(cgroup.as_fd()),
        prog_fd: raw(program.as_fd()),
        attach_type: ATTACH_CGROUP_DEVICE,
        attach_flags: ALLOW_MULTI,
    };
    // SAFETY: the attribute holds no addresses.
    unsafe { bpf(PROG_ATTACH, &mut attr) }.map(drop).context(|| "attach device program")
}

/// Detaches a program from a cgroup.
///
/// # Errors
/// As bpf(2); `ENOENT` if it is not attached.
pub fn detach_device_program(cgroup: impl AsFd, program: impl AsFd) -> Result<()> {
    let mut attr = AttachAttr {
        target_fd: raw(cgroup.as_fd()),
        prog_fd: raw(program.as_fd()),
        attach_type: ATTACH_CGROUP_DEVICE,
        attach_flags: 0,
    };
    // SAFETY: the attribute holds no addresses.
    unsafe { bpf(PROG_DETACH, &mut attr) }.map(drop).context(|| "detach device program")
}

/// The device programs that are attached to a cgroup itself.
///
/// # Errors
/// As bpf(2).
pub fn device_programs(cgroup: impl AsFd) -> Result<Vec<OwnedFd>> {
    let mut ids = [0u32; MAX_ATTACHED];
    let mut attr = QueryAttr {
        target_fd: raw(cgroup.as_fd()),
        attach_type: ATTACH_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr().expose_provenance() as u64,
        prog_cnt: u32::try_from(MAX_ATTACHED).unwrap_or(u32::MAX),
        padding: 0,
    };
    // SAFETY: `prog_ids` points to as many items as `prog_cnt` says.
    unsafe { bpf(PROG_QUERY, &mut attr) }.context(|| "list device programs")?;
    let count = usize::try_from(attr.prog_cnt).unwrap_or(usize::MAX).min(MAX_ATTACHED);
    let open = |id: &u32| {
        let mut attr = IdAttr { id: *id, ..IdAttr::default() };
        // SAFETY: the attribute holds no addresses.
        unsafe { bpf(PROG_GET_FD_BY_ID, &mut attr) }.map(own).context(|| format!("open device program {id}"))
    };
    ids[..count].iter().map(open).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileged_a_program_is_checked_by_the_kernel() {
        // r0 = 1; exit
        let allow = [[0xb7, 0, 0, 0, 1, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
        load_device_program(&allow).unwrap();
        assert!(load_device_program(&allow[..1]).is_err(), "falls off the end");
        assert!(load_device_program(&[]).is_err());
    }
}
