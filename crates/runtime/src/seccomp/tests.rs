//! The compiled filter against a direct reading of the profile.

use super::bpf::{AND, AT_LEAST, EQUAL, GREATER, Insn, JUMP, LOAD, RETURN, assemble};
use super::numbers::{Abi, X32_BIT};
use super::*;
use crate::spec::{LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator};

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;
const KILL: u32 = 0x8000_0000;

/// Runs a filter as the kernel would.
fn run(code: &[Insn], audit: u32, number: u32, args: [u64; 6]) -> u32 {
    let mut data = vec![number, audit, 0, 0];
    data.extend(
        args.iter().flat_map(|a| [a & 0xffff_ffff, a >> 32]).map(|half| u32::try_from(half).unwrap()),
    );
    let (mut at, mut a) = (0usize, 0u32);
    loop {
        let i = code[at];
        at += 1;
        let jump = |holds: bool| usize::from(if holds { i.jt } else { i.jf });
        match i.code {
            LOAD => a = data[i.k as usize / 4],
            AND => a &= i.k,
            JUMP => at += i.k as usize,
            EQUAL => at += jump(a == i.k),
            GREATER => at += jump(a > i.k),
            AT_LEAST => at += jump(a >= i.k),
            RETURN => return i.k,
            other => panic!("code {other:#x}"),
        }
    }
}

fn holds(arg: &LinuxSeccompArg, args: [u64; 6]) -> bool {
    use LinuxSeccompOperator::*;
    let (given, value) = (args[arg.index()], arg.value());
    match arg.op() {
        ScmpCmpNe => given != value,
        ScmpCmpLt => given < value,
        ScmpCmpLe => given <= value,
        ScmpCmpEq => given == value,
        ScmpCmpGe => given >= value,
        ScmpCmpGt => given > value,
        ScmpCmpMaskedEq => given & value == arg.value_two().unwrap_or(0) & value,
    }
}

fn returned(action: LinuxSeccompAction, errno: Option<u32>) -> u32 {
    match (action, errno) {
        (LinuxSeccompAction::ScmpActErrno, Some(errno)) => 0x0005_0000 | errno,
        (LinuxSeccompAction::ScmpActTrace, Some(data)) => 0x7ff0_0000 | data,
        (action, _) => action.into(),
    }
}

/// What the profile says about a call, read rule by rule.
fn read(seccomp: &LinuxSeccomp, abi: Abi, number: u32, args: [u64; 6]) -> u32 {
    let rules = seccomp.syscalls().iter().flatten();
    let about: Vec<_> =
        rules.clone().filter(|r| r.names().iter().any(|name| abi.number(name) == Some(number))).collect();
    if about.is_empty() {
        let named = rules.flat_map(|r| r.names().iter().filter_map(|name| abi.number(name)));
        let refuses = returned(seccomp.default_action(), None) < 0x7000_0000
            || seccomp.default_action() == LinuxSeccompAction::ScmpActKillProcess;
        if refuses && named.max().is_some_and(|most| number > most) {
            return ENOSYS;
        }
        return returned(seccomp.default_action(), seccomp.default_errno_ret());
    }
    let none = |r: &&&crate::spec::LinuxSyscall| r.args().as_ref().is_none_or(Vec::is_empty);
    if let Some(plain) = about.iter().find(none) {
        return returned(plain.action(), plain.errno_ret());
    }
    for rule in about {
        let list = rule.args().clone().unwrap();
        let repeated = (0..6).any(|n| list.iter().filter(|a| a.index() == n).count() > 1);
        let matches =
            if repeated { list.iter().any(|a| holds(a, args)) } else { list.iter().all(|a| holds(a, args)) };
        if matches {
            return returned(rule.action(), rule.errno_ret());
        }
    }
    returned(seccomp.default_action(), seccomp.default_errno_ret())
}

/// Values around everything that the profile compares with.
fn interesting(seccomp: &LinuxSeccomp) -> Vec<u64> {
    let mut values = vec![0, 1, 38, 40, u64::MAX, 1 << 32, u64::from(u32::MAX)];
    for arg in seccomp.syscalls().iter().flatten().flat_map(|r| r.args().iter().flatten()) {
        for v in [arg.value(), arg.value_two().unwrap_or(0)] {
            values.extend([v, v.wrapping_add(1), v.wrapping_sub(1), v ^ (1 << 32), v.wrapping_add(1 << 33)]);
        }
    }
    values.sort_unstable();
    values.dedup();
    values
}

fn compare(seccomp: &LinuxSeccomp) {
    let code = assemble(seccomp).unwrap();
    assert!(code.len() < 4096, "{} instructions", code.len());
    let values = interesting(seccomp);
    let conditional: Vec<(Abi, u32)> = Abi::EVERY
        .into_iter()
        .flat_map(|abi| {
            let rules = seccomp.syscalls().iter().flatten().filter(|r| r.args().is_some());
            rules.flat_map(move |r| r.names().iter().filter_map(move |n| Some((abi, abi.number(n)?))))
        })
        .collect();
    for abi in Abi::EVERY {
        let base = if abi == Abi::X32 { X32_BIT } else { 0 };
        let ends = [0xffff, 0x3fff_fffe, 0x3fff_ffff];
        for number in (0..700).chain(ends).map(|n| base | n) {
            let mut tries = vec![[0; 6], [u64::MAX; 6]];
            if conditional.contains(&(abi, number)) {
                for v in &values {
                    tries.extend([[*v; 6], [*v, 0, 0, 0, 0, 0], [0, *v, 1, 1, 1, 1]]);
                }
            }
            for args in tries {
                let (got, expected) =
                    (run(&code, abi.audit(), number, args), read(seccomp, abi, number, args));
                assert_eq!(got, expected, "{abi:?} {number:#x} {args:x?}");
            }
        }
    }
}

fn settled(add: &[&str]) -> Arc<LinuxSeccomp> {
    let bits = add.iter().fold(CapSet::default_set().bits(), |bits, n| bits | 1 << n.parse::<u32>().unwrap());
    default_filter(CapSet::from_bits(bits))
}

#[test]
fn the_default_filter_says_what_its_profile_says() {
    compare(&settled(&[]));
    // CAP_SYS_ADMIN; all of them.
    compare(&settled(&["21"]));
    compare(&default_filter(CapSet::from_bits(u64::MAX)));
    compare(&default_filter(CapSet::EMPTY));
}

#[test]
fn every_action_and_comparison_is_compiled() {
    let ops = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
    let actions = ["ERRNO", "KILL", "KILL_PROCESS", "KILL_THREAD", "LOG", "TRACE", "TRAP"];
    let names = ["read", "write", "openat", "mmap", "ioctl", "socket", "clone"];
    let mut rules = Vec::new();
    for (at, op) in ops.iter().enumerate() {
        for value in [5u64, 0x1_0000_0000, 0xffff_ffff, 0x8000_0000_0000_0001] {
            let (op, action) = (format!("SCMP_CMP_{op}"), format!("SCMP_ACT_{}", actions[at]));
            let one =
                serde_json::json!({"index": 0, "value": value, "valueTwo": value & 0x1_0000_00ff, "op": op});
            let two = serde_json::json!({"index": 5, "value": 1, "op": "SCMP_CMP_LE"});
            rules.push(serde_json::json!({"names": [names[at]], "action": action, "args": [one, two]}));
        }
    }
    rules
        .push(serde_json::json!({"names": ["close", "nonsense"], "action": "SCMP_ACT_ERRNO", "errnoRet": 7}));
    rules.push(serde_json::json!({"names": ["futex"], "action": "SCMP_ACT_ALLOW", "args": [
        {"index": 1, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 38, "op": "SCMP_CMP_EQ"}]}));
    for default in ["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_LOG"] {
        let json = serde_json::json!({
            "defaultAction": default, "syscalls": rules,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        });
        let profile = Profile::parse(json.to_string().as_bytes()).unwrap();
        compare(&profile.settle(Circumstances::here(CapSet::EMPTY)).unwrap().unwrap());
    }
}

#[test]
fn what_must_be_refused_is_refused_in_every_interface() {
    let code = assemble(&settled(&[])).unwrap();
    let verdict = |abi: Abi, name: &str, args: [u64; 6]| {
        abi.number(name).map(|number| run(&code, abi.audit(), number, args))
    };
    let refused = [
        "mount",
        "umount2",
        "unshare",
        "setns",
        "keyctl",
        "add_key",
        "request_key",
        "bpf",
        "perf_event_open",
        "io_uring_setup",
        "userfaultfd",
        "kexec_load",
        "init_module",
        "finit_module",
        "reboot",
        "swapon",
        "pivot_root",
        "open_by_handle_at",
        "move_mount",
        "fsopen",
        "quotactl",
        "acct",
        "settimeofday",
        "iopl",
        "syslog",
        "move_pages",
        "mbind",
        "kcmp",
        "vhangup",
        "lookup_dcookie",
        "nfsservctl",
        "uselib",
    ];
    for abi in Abi::EVERY {
        for name in refused {
            assert!(verdict(abi, name, [0; 6]).is_none_or(|v| v == EPERM), "{abi:?} {name}");
        }
        for name in
            ["read", "execve", "ptrace", "chroot", "openat2", "futex", "rseq", "landlock_restrict_self"]
        {
            assert_eq!(verdict(abi, name, [0; 6]), Some(ALLOW), "{abi:?} {name}");
        }
        assert_eq!(verdict(abi, "clone3", [0; 6]), Some(ENOSYS));
        assert_eq!(verdict(abi, "clone", [17; 6]), Some(ALLOW));
        for flag in [0x2_0000u64, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000] {
            assert_eq!(verdict(abi, "clone", [flag | 17, 0, 0, 0, 0, 0]), Some(EPERM), "{flag:#x}");
        }
        for family in 0..64 {
            let expected = if [38, 40].contains(&family) { EPERM } else { ALLOW };
            // The kernel does not look at the upper half, and neither may we.
            for upper in [0, 1 << 32, 0xffff_ffff << 32] {
                let args = [family | upper, 0, 0, 0, 0, 0];
                assert_eq!(verdict(abi, "socket", args), Some(expected), "{family}");
            }
        }
    }
    assert_eq!(run(&code, Abi::X86_64.audit(), 5000, [0; 6]), ENOSYS);
    assert_eq!(run(&code, 0x4000_0028, 1, [0; 6]), KILL, "another machine's interface");
}

#[test]
fn interfaces_that_the_profile_does_not_name_are_closed() {
    let profile = Profile::parse(br#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}"#).unwrap();
    let seccomp = profile.settle(Circumstances::here(CapSet::EMPTY)).unwrap().unwrap();
    let code = assemble(&seccomp).unwrap();
    assert_eq!(run(&code, Abi::X86_64.audit(), 0, [0; 6]), ALLOW);
    assert_eq!(run(&code, Abi::X86.audit(), 0, [0; 6]), KILL);
    assert_eq!(run(&code, Abi::X32.audit(), X32_BIT, [0; 6]), KILL);
}

#[test]
fn filters_are_compiled_once() {
    let seccomp = settled(&[]);
    let first = compile(&seccomp).unwrap();
    assert!(Arc::ptr_eq(&first, &compile(&seccomp.as_ref().clone()).unwrap()));
    assert!(Arc::ptr_eq(&seccomp, &settled(&[])));
    assert!(!Arc::ptr_eq(&first, &compile(&settled(&["21"])).unwrap()));
    assert_eq!((first.flags, first.bytes.len() % 8), (4, 0));
}

#[test]
fn a_filter_that_is_too_large_is_refused() {
    let rules: Vec<_> = (0..2000u64)
        .map(|n| {
            serde_json::json!({"names": ["read"], "action": "SCMP_ACT_LOG",
            "args": [{"index": 0, "value": n, "op": "SCMP_CMP_EQ"}]})
        })
        .collect();
    let json = serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}).to_string();
    assert!(Profile::parse(json.as_bytes()).unwrap_err().to_string().contains("the kernel takes 4096"));
}
