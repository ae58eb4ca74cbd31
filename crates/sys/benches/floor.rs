//! The floor below every launcher: the bare system calls that a container with Docker's namespaces and mounts costs.
//!
//! `floor ROOTFS [RUNS]` starts `/bin/true` of the tree RUNS times and prints the median time in milliseconds. There is no
//! cgroup, no seccomp, no log, no daemon, no error handling worth the name: nothing to run, only to compare with.
#![expect(unsafe_code, reason = "the system calls themselves are what is measured")]
#![allow(missing_docs, clippy::unwrap_used)]

use std::ffi::{CStr, CString};
use std::mem::size_of;
use std::time::Instant;

/// Special file systems: target, type, flags, data.
const MOUNTS: [(&CStr, &CStr, libc::c_ulong, &CStr); 6] = [
    (c"proc", c"proc", libc::MS_NOSUID | libc::MS_NOEXEC | libc::MS_NODEV, c""),
    (c"dev", c"tmpfs", libc::MS_NOSUID, c"mode=755,size=65536k"),
    (c"dev/pts", c"devpts", libc::MS_NOSUID | libc::MS_NOEXEC, c"newinstance,ptmxmode=0666,mode=0620,gid=5"),
    (c"sys", c"sysfs", libc::MS_NOSUID | libc::MS_NOEXEC | libc::MS_NODEV | libc::MS_RDONLY, c""),
    (c"dev/mqueue", c"mqueue", libc::MS_NOSUID | libc::MS_NOEXEC | libc::MS_NODEV, c""),
    (c"dev/shm", c"tmpfs", libc::MS_NOSUID | libc::MS_NOEXEC | libc::MS_NODEV, c"mode=1777,size=65536k"),
];
const DEVICES: [(&CStr, u32, u32); 6] = [
    (c"dev/null", 1, 3),
    (c"dev/zero", 1, 5),
    (c"dev/full", 1, 7),
    (c"dev/random", 1, 8),
    (c"dev/urandom", 1, 9),
    (c"dev/tty", 5, 0),
];
const MASKED: [&CStr; 5] =
    [c"proc/kcore", c"proc/keys", c"proc/timer_list", c"proc/interrupts", c"proc/sched_debug"];
const READ_ONLY: [&CStr; 5] = [c"proc/bus", c"proc/fs", c"proc/irq", c"proc/sys", c"proc/sysrq-trigger"];

fn main() {
    // `cargo bench` adds --bench.
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let Some(rootfs) = args.first() else {
        eprintln!("usage: floor ROOTFS [RUNS]");
        std::process::exit(2);
    };
    let runs: usize = args.get(1).map_or(30, |n| n.parse().unwrap());
    let rootfs = CString::new(rootfs.as_str()).unwrap();
    let mut times: Vec<f64> = (0..runs.max(1))
        .map(|_| {
            let start = Instant::now();
            once(&rootfs);
            start.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("{:.2}", times[times.len() / 2]);
}

fn once(rootfs: &CStr) {
    let namespaces = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWCGROUP;
    // SAFETY: all zero is a valid value of this plain structure.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = u64::try_from(namespaces).unwrap();
    args.exit_signal = u64::try_from(libc::SIGCHLD).unwrap();
    // SAFETY: without a stack of its own the child continues on a copy of this one, as after fork; this process has one
    // thread.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    if pid == 0 {
        // SAFETY: only system calls follow.
        unsafe { child(rootfs) }
    }
    assert!(pid > 0, "clone3: {}", std::io::Error::last_os_error());
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    let waited = unsafe { libc::waitpid(libc::pid_t::try_from(pid).unwrap(), &raw mut status, 0) };
    assert!(i64::from(waited) == pid && status == 0, "the child ended with {status:#x}");
}

unsafe fn child(rootfs: &CStr) -> ! {
    // SAFETY: plain system calls on strings that end in NUL.
    unsafe {
        let none = std::ptr::null();
        must(libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast()), 1);
        must(
            libc::mount(rootfs.as_ptr(), rootfs.as_ptr(), none, libc::MS_BIND | libc::MS_REC, none.cast()),
            2,
        );
        must(libc::chdir(rootfs.as_ptr()), 3);
        for (target, kind, flags, data) in MOUNTS {
            if target != c"dev" && target.to_bytes().starts_with(b"dev/") {
                libc::mkdir(target.as_ptr(), 0o755);
            }
            must(libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast()), 4);
        }
        for (path, major, minor) in DEVICES {
            must(libc::mknod(path.as_ptr(), libc::S_IFCHR | 0o666, libc::makedev(major, minor)), 5);
        }
        for path in MASKED {
            // Which of them exist depends on the kernel.
            libc::mount(c"dev/null".as_ptr(), path.as_ptr(), none, libc::MS_BIND, none.cast());
        }
        for path in READ_ONLY {
            if libc::mount(path.as_ptr(), path.as_ptr(), none, libc::MS_BIND | libc::MS_REC, none.cast()) == 0
            {
                let flags =
                    libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NOEXEC;
                libc::mount(none, path.as_ptr(), none, flags | libc::MS_NODEV, none.cast());
            }
        }
        must(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()), 6);
        must(libc::umount2(c".".as_ptr(), libc::MNT_DETACH), 7);
        must(libc::sethostname(c"floor".as_ptr(), 5), 8);
        let argv = [c"true".as_ptr(), none];
        libc::execve(c"/bin/true".as_ptr(), argv.as_ptr(), [none].as_ptr());
        libc::_exit(9)
    }
}

/// Ends the child with `step` if a call failed.
fn must(result: impl Into<i64>, step: i32) {
    if result.into() < 0 {
        // SAFETY: ends this process, nothing else.
        unsafe { libc::_exit(step) }
    }
}
