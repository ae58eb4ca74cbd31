//! The default filter in force: installed in a child process, which then tries what it must not.
#![allow(unsafe_code, clippy::unwrap_used)]

use std::io::Read;
use std::os::fd::AsRawFd;

use longshore_runtime::caps::CapSet;
use longshore_runtime::seccomp;

#[repr(C)]
struct FilterProgram {
    len: u16,
    filter: *const u8,
}

/// A system call and its arguments.
type Call = (i64, [u64; 4]);

/// Runs the calls in a child that has the filter of `caps`; gives their error numbers.
fn errors_of(caps: CapSet, calls: &[Call]) -> Vec<i32> {
    let program = seccomp::compile(&seccomp::default_filter(caps)).unwrap();
    let filter = FilterProgram {
        len: u16::try_from(program.bytes.len() / 8).unwrap(),
        filter: program.bytes.as_ptr(),
    };
    let (mut read, write) = std::io::pipe().unwrap();
    let mut errors = vec![0i32; calls.len()];
    // SAFETY: between fork and _exit the child makes system calls only, and allocates nothing.
    unsafe {
        let child = libc::fork();
        assert!(child >= 0);
        if child == 0 {
            let set_mode_filter = 1;
            let installed = libc::syscall(
                libc::SYS_seccomp,
                set_mode_filter,
                u64::from(program.flags),
                &raw const filter,
            );
            for ((number, [a, b, c, d]), error) in calls.iter().zip(&mut errors) {
                let failed = libc::syscall(*number, *a, *b, *c, *d) == -1;
                *error = if installed == -1 {
                    -1
                } else if failed {
                    *libc::__errno_location()
                } else {
                    0
                };
            }
            libc::write(write.as_raw_fd(), errors.as_ptr().cast(), errors.len() * 4);
            libc::_exit(0);
        }
        drop(write);
        let mut bytes = Vec::new();
        read.read_to_end(&mut bytes).unwrap();
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
        assert_eq!(status, 0);
        bytes.chunks_exact(4).map(|b| i32::from_ne_bytes(b.try_into().unwrap())).collect()
    }
}

#[test]
fn privileged_the_kernel_takes_the_filter_and_refuses() {
    let new_mount_namespace = 0x2_0000;
    let refused: &[Call] = &[
        (libc::SYS_mount, [0; 4]),
        (libc::SYS_unshare, [new_mount_namespace, 0, 0, 0]),
        (libc::SYS_keyctl, [0; 4]),
        (libc::SYS_bpf, [0; 4]),
        (libc::SYS_clone, [new_mount_namespace, 0, 0, 0]),
        (libc::SYS_socket, [40, 1, 0, 0]),
        (libc::SYS_socket, [1 << 32 | 40, 1, 0, 0]),
        (libc::SYS_io_uring_setup, [1, 0, 0, 0]),
    ];
    let errors = errors_of(CapSet::default_set(), refused);
    assert_eq!(errors, vec![libc::EPERM; refused.len()]);
    let missing: &[Call] = &[(libc::SYS_clone3, [0; 4]), (1000, [0; 4])];
    assert_eq!(errors_of(CapSet::default_set(), missing), [libc::ENOSYS; 2]);
    let allowed: &[Call] = &[
        (libc::SYS_read, [0; 4]),
        (libc::SYS_getpid, [0; 4]),
        (libc::SYS_socket, [1, 1, 0, 0]),
        (libc::SYS_personality, [0xffff_ffff, 0, 0, 0]),
    ];
    assert_eq!(errors_of(CapSet::default_set(), allowed), [0; 4]);
}

#[test]
fn privileged_capabilities_open_what_the_kernel_checks_itself() {
    let with_admin = CapSet::resolve(false, &["SYS_ADMIN".to_owned()], &[]).unwrap();
    // Through the filter, and then refused by the kernel for what is asked.
    let calls: &[Call] =
        &[(libc::SYS_mount, [0; 4]), (libc::SYS_bpf, [9999, 0, 0, 0]), (libc::SYS_keyctl, [0; 4])];
    let errors = errors_of(with_admin, calls);
    assert!(![0, libc::EPERM].contains(&errors[0]) && ![0, libc::EPERM].contains(&errors[1]), "{errors:?}");
    assert_eq!(errors[2], libc::EPERM);
}
