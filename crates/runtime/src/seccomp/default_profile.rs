//! The default filter: what ordinary programs need, and more only with the capability that the
//! kernel itself asks for. As strict as what Docker's users are used to.

use std::sync::OnceLock;

use super::profile::{ArchMap, Conditions, Profile, Rule};
use crate::spec::{LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompOperator};

/// Always allowed.
const ALWAYS: &str = "\
    _llseek _newselect accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod \
    chown chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime \
    clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat \
    dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait \
    epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 \
    fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl \
    fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs \
    fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake \
    futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid \
    geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid \
    getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname \
    getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init \
    inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 \
    io_setup io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset \
    landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr listxattrat \
    llistxattr lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier memfd_create \
    memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr \
    mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink \
    mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep \
    newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free \
    pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6 \
    pselect6_time64 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv recvfrom \
    recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2 \
    restart_syscall riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo \
    rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo \
    sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam \
    sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr \
    sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop \
    semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list set_thread_area \
    set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer \
    setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 \
    setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown \
    sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs \
    statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time \
    timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 \
    timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate \
    truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes \
    vfork vmsplice wait4 waitid waitpid write writev";

/// Allowed with a capability.
const WITH_CAPABILITY: [(&str, &str); 14] = [
    ("CAP_BPF", "bpf"),
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    ("CAP_PERFMON", "perf_event_open"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr \
         lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl \
         quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module finit_module init_module"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    ("CAP_SYS_RAWIO", "ioperm iopl"),
    ("CAP_SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYSLOG", "syslog"),
];

/// Allowed on a kind of machine.
const ON_MACHINE: [(&[&str], &str); 3] = [
    (&["amd64", "x32"], "arch_prctl"),
    (&["amd64", "x32", "x86"], "modify_ldt"),
    (
        &["arm", "arm64"],
        "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2",
    ),
];

/// Before this kernel, tracing was a way around the filter.
const TRACING: (&str, &str) = ("4.8", "process_vm_readv process_vm_writev ptrace");

/// Address families as bits that are compared and what they must be: all up to 63 but 38 (crypto
/// interface to the kernel) and 40 (sockets of the hypervisor, which leave every namespace). The kernel
/// looks at 32 bits of the argument only, so a comparison of more could be led around.
const FAMILIES: [(u64, u64); 8] = [
    (0xffff_ffe0, 0),
    (0xffff_fffc, 32),
    (0xffff_fffe, 36),
    (0xffff_ffff, 39),
    (0xffff_ffff, 41),
    (0xffff_fffe, 42),
    (0xffff_fffc, 44),
    (0xffff_fff0, 48),
];

/// Linux, with and without a 32-bit `uname`, the two BSD kinds of it, and "which one is it?".
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// `CLONE_NEW*`: namespaces are made by who has the right to.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

impl Profile {
    /// The profile of containers that ask for no other.
    #[must_use]
    pub fn default_profile() -> &'static Self {
        static PROFILE: OnceLock<Profile> = OnceLock::new();
        PROFILE.get_or_init(build)
    }
}

fn build() -> Profile {
    let mut rules = vec![allow(ALWAYS)];
    let (kernel, names) = TRACING;
    rules.push(Rule {
        includes: Some(Conditions { min_kernel: Some(kernel.to_owned()), ..Conditions::default() }),
        ..allow(names)
    });
    let masked = |mask, wanted| arg(LinuxSeccompOperator::ScmpCmpMaskedEq, mask, Some(wanted));
    rules.extend(
        FAMILIES.map(|(mask, family)| Rule { args: Some(vec![masked(mask, family)]), ..allow("socket") }),
    );
    rules.extend(PERSONALITIES.map(|personality| Rule {
        args: Some(vec![arg(LinuxSeccompOperator::ScmpCmpEq, personality, None)]),
        ..allow("personality")
    }));
    for (machines, names) in ON_MACHINE {
        let arches = machines.iter().map(|m| (*m).to_owned()).collect();
        let includes = Conditions { arches: Some(arches), ..Conditions::default() };
        rules.push(Rule { includes: Some(includes), ..allow(names) });
    }
    rules
        .extend(WITH_CAPABILITY.map(|(cap, names)| Rule { includes: Some(capability(cap)), ..allow(names) }));
    let without = || Some(capability("CAP_SYS_ADMIN"));
    rules.push(Rule { args: Some(vec![masked(NEW_NAMESPACES, 0)]), excludes: without(), ..allow("clone") });
    // Its flags are in memory, where a filter cannot look; told that it does not exist, the C
    // library uses clone.
    rules.push(Rule {
        action: Some(LinuxSeccompAction::ScmpActErrno),
        errno_ret: Some(38),
        excludes: without(),
        ..allow("clone3")
    });
    Profile {
        default_action: Some(LinuxSeccompAction::ScmpActErrno),
        default_errno_ret: Some(1),
        arch_map: Some(vec![
            machine("SCMP_ARCH_X86_64", &["SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
            machine("SCMP_ARCH_AARCH64", &["SCMP_ARCH_ARM"]),
        ]),
        syscalls: Some(rules),
        ..Profile::default()
    }
}

fn allow(names: &str) -> Rule {
    let names = names.split_ascii_whitespace().map(str::to_owned).collect();
    Rule { names: Some(names), action: Some(LinuxSeccompAction::ScmpActAllow), ..Rule::default() }
}

fn capability(name: &str) -> Conditions {
    Conditions { caps: Some(vec![name.to_owned()]), ..Conditions::default() }
}

fn machine(own: &str, others: &[&str]) -> ArchMap {
    let others = others.iter().map(|o| (*o).to_owned()).collect();
    ArchMap { architecture: own.to_owned(), sub_architectures: Some(others) }
}

/// A condition on the first argument.
fn arg(op: LinuxSeccompOperator, value: u64, value_two: Option<u64>) -> LinuxSeccompArg {
    let arg = LinuxSeccompArgBuilder::default().index(0usize).value(value).op(op);
    let arg = if let Some(two) = value_two { arg.value_two(two) } else { arg };
    arg.build().unwrap_or_default()
}
