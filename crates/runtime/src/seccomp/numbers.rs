//! Names of system calls as numbers, for each of the three ways into an x86-64 kernel.

use syscalls::{x86, x86_64};

/// Set in the number of every x32 call.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// An application binary interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Abi {
    X86_64,
    X86,
    X32,
}

impl Abi {
    #[cfg(test)]
    pub(super) const EVERY: [Self; 3] = [Self::X86_64, Self::X86, Self::X32];

    /// `AUDIT_ARCH_*` as the kernel reports it.
    pub(super) fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
        }
    }

    /// Number of a call; `None` if there is none of this name.
    pub(super) fn number(self, name: &str) -> Option<u32> {
        let number = match self {
            Self::X86 => name.parse::<x86::Sysno>().ok()?.id(),
            Self::X86_64 => name.parse::<x86_64::Sysno>().ok()?.id(),
            Self::X32 => {
                if let Some(at) = X32_OWN.iter().position(|own| *own == name) {
                    return Some(X32_BIT | (X32_FIRST + u32::try_from(at).ok()?));
                }
                if NOT_X32.contains(&name) {
                    return None;
                }
                name.parse::<x86_64::Sysno>().ok()?.id()
            }
        };
        let number = u32::try_from(number).ok()?;
        Some(if self == Self::X32 { number | X32_BIT } else { number })
    }
}

const X32_FIRST: u32 = 512;

/// Calls that have a number of their own for x32, counted from [`X32_FIRST`].
const X32_OWN: [&str; 36] = [
    "rt_sigaction",
    "rt_sigreturn",
    "ioctl",
    "readv",
    "writev",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "execve",
    "ptrace",
    "rt_sigpending",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "sigaltstack",
    "timer_create",
    "mq_notify",
    "kexec_load",
    "waitid",
    "set_robust_list",
    "get_robust_list",
    "vmsplice",
    "move_pages",
    "preadv",
    "pwritev",
    "rt_tgsigqueueinfo",
    "recvmmsg",
    "sendmmsg",
    "process_vm_readv",
    "process_vm_writev",
    "setsockopt",
    "getsockopt",
    "io_setup",
    "io_submit",
    "execveat",
    "preadv2",
    "pwritev2",
];

/// Calls of x86-64 that x32 does not have.
const NOT_X32: [&str; 11] = [
    "_sysctl",
    "create_module",
    "epoll_ctl_old",
    "epoll_wait_old",
    "get_kernel_syms",
    "get_thread_area",
    "nfsservctl",
    "query_module",
    "set_thread_area",
    "uselib",
    "vserver",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_kernel() {
        let all = |name| Abi::EVERY.map(|abi| abi.number(name));
        assert_eq!(all("read"), [Some(0), Some(3), Some(X32_BIT)]);
        assert_eq!(all("execve"), [Some(59), Some(11), Some(X32_BIT | 520)]);
        assert_eq!(all("pwritev2"), [Some(328), Some(379), Some(X32_BIT | 547)]);
        assert_eq!(all("socketcall"), [None, Some(102), None]);
        assert_eq!(all("uselib"), [Some(134), Some(86), None]);
        assert_eq!(all("mseal"), [Some(462), Some(462), Some(X32_BIT | 462)]);
        assert_eq!(all("no_such_call"), [None; 3]);
    }
}
