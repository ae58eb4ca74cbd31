//! Filters as classic BPF. Code is composed of pieces that only jump forward within themselves, so
//! that no labels are needed.

use std::collections::BTreeMap;

use super::numbers::{Abi, X32_BIT};
use crate::error::{Error, Result};
use crate::spec::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};

/// The kernel's limit for one filter.
const MAX_INSTRUCTIONS: usize = 4096;

/// What a call with an interface that the profile does not name gets.
const WRONG_ABI: u32 = 0x8000_0000;

const ENOSYS: u32 = 38;
const EPERM: u32 = 1;

/// `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Insn {
    pub(super) code: u16,
    pub(super) jt: u8,
    pub(super) jf: u8,
    pub(super) k: u32,
}

pub(super) const LOAD: u16 = 0x20;
pub(super) const AND: u16 = 0x54;
pub(super) const JUMP: u16 = 0x05;
pub(super) const EQUAL: u16 = 0x15;
pub(super) const GREATER: u16 = 0x25;
pub(super) const AT_LEAST: u16 = 0x35;
pub(super) const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data`.
pub(super) const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

type Code = Vec<Insn>;

fn op(code: u16, k: u32) -> Insn {
    Insn { code, jt: 0, jf: 0, k }
}

fn test(code: u16, k: u32, jt: u8, jf: u8) -> Insn {
    Insn { code, jt, jf, k }
}

/// What happens to one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Always this.
    Plain(u32),
    /// That of the first case whose conditions all hold, or the default.
    Cases(Vec<(Vec<LinuxSeccompArg>, u32)>),
}

/// The rules of one interface.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) calls: BTreeMap<u32, Verdict>,
    /// For calls that the profile does not name.
    pub(super) default: u32,
    /// For those above all that it names: not known when it was written, so as if the kernel did
    /// not know them either. Programs then use what they used before.
    pub(super) unknown: u32,
}

/// Compiles to the bytes that the kernel takes.
pub(super) fn compile(seccomp: &LinuxSeccomp) -> Result<Vec<u8>> {
    let code = assemble(seccomp)?;
    let mut bytes = Vec::with_capacity(code.len() * 8);
    for i in code {
        bytes.extend(i.code.to_ne_bytes());
        bytes.extend([i.jt, i.jf]);
        bytes.extend(i.k.to_ne_bytes());
    }
    Ok(bytes)
}

pub(super) fn assemble(seccomp: &LinuxSeccomp) -> Result<Code> {
    let abis = interfaces(seccomp);
    let section = |abi: Abi| -> Result<Code> {
        if abis.contains(&abi) { Ok(search(&table(seccomp, abi)?)) } else { Ok(vec![op(RETURN, WRONG_ABI)]) }
    };
    let (native, x32) = (section(Abi::X86_64)?, section(Abi::X32)?);
    let mut sixty_four = vec![op(LOAD, NUMBER)];
    sixty_four.extend(branch(test(AT_LEAST, X32_BIT, 0, 0), native, x32));
    let mut thirty_two = section(Abi::X86)?;
    if thirty_two.len() > 1 {
        thirty_two.insert(0, op(LOAD, NUMBER));
    }
    let other = branch(test(EQUAL, Abi::X86.audit(), 0, 0), vec![op(RETURN, WRONG_ABI)], thirty_two);
    let mut code = vec![op(LOAD, ARCH)];
    code.extend(branch(test(EQUAL, Abi::X86_64.audit(), 0, 0), other, sixty_four));
    if code.len() > MAX_INSTRUCTIONS {
        return Err(Error::Invalid(format!(
            "seccomp profile needs {} instructions, the kernel takes {MAX_INSTRUCTIONS}",
            code.len()
        )));
    }
    Ok(code)
}

/// A test with what follows if it fails and if it holds.
fn branch(mut condition: Insn, no: Code, yes: Code) -> Code {
    let mut code = Vec::with_capacity(no.len() + yes.len() + 2);
    if let Ok(over) = u8::try_from(no.len()) {
        condition.jt = over;
        code.push(condition);
    } else {
        // Too far for a test; a plain jump goes any distance.
        condition.jf = 1;
        code.push(condition);
        code.push(op(JUMP, u32::try_from(no.len()).unwrap_or(u32::MAX)));
    }
    code.extend(no);
    code.extend(yes);
    code
}

/// The interfaces that a profile is about. Other machines' are of no consequence here.
pub(super) fn interfaces(seccomp: &LinuxSeccomp) -> Vec<Abi> {
    let mut abis = vec![Abi::X86_64];
    for arch in seccomp.architectures().iter().flatten() {
        match arch {
            Arch::ScmpArchX86 => abis.push(Abi::X86),
            Arch::ScmpArchX32 => abis.push(Abi::X32),
            _ => {}
        }
    }
    abis
}

/// Settles what every call of an interface gets.
pub(super) fn table(seccomp: &LinuxSeccomp, abi: Abi) -> Result<Table> {
    let default = action(seccomp.default_action(), seccomp.default_errno_ret())?;
    let mut calls: BTreeMap<u32, Verdict> = BTreeMap::new();
    for rule in seccomp.syscalls().iter().flatten() {
        let verdict = action(rule.action(), rule.errno_ret())?;
        let alternatives = alternatives(rule)?;
        for number in rule.names().iter().filter_map(|name| abi.number(name)) {
            add(calls.entry(number).or_insert_with(|| Verdict::Cases(Vec::new())), &alternatives, verdict);
        }
    }
    let refuses = matches!(
        seccomp.default_action(),
        LinuxSeccompAction::ScmpActErrno
            | LinuxSeccompAction::ScmpActKill
            | LinuxSeccompAction::ScmpActKillThread
            | LinuxSeccompAction::ScmpActKillProcess
            | LinuxSeccompAction::ScmpActTrap
    );
    let unknown = if refuses { action(LinuxSeccompAction::ScmpActErrno, Some(ENOSYS))? } else { default };
    Ok(Table { calls, default, unknown })
}

/// A rule without conditions holds whatever others say; the first such one counts.
fn add(entry: &mut Verdict, alternatives: &[Vec<LinuxSeccompArg>], verdict: u32) {
    if let Verdict::Cases(cases) = entry {
        if alternatives.is_empty() {
            *entry = Verdict::Plain(verdict);
        } else {
            cases.extend(alternatives.iter().map(|conditions| (conditions.clone(), verdict)));
        }
    }
}

/// The conditions of a rule: each list holds together, one list suffices. Several conditions about
/// the same argument are alternatives, as other runtimes take them.
fn alternatives(rule: &LinuxSyscall) -> Result<Vec<Vec<LinuxSeccompArg>>> {
    let args = rule.args().as_deref().unwrap_or_default();
    if let Some(bad) = args.iter().find(|a| a.index() > 5) {
        return Err(Error::Invalid(format!("seccomp rule: no argument {}", bad.index())));
    }
    let twice = args.iter().enumerate().any(|(at, a)| args[..at].iter().any(|b| b.index() == a.index()));
    Ok(match (args.is_empty(), twice) {
        (true, _) => Vec::new(),
        (false, true) => args.iter().map(|a| vec![*a]).collect(),
        (false, false) => vec![args.to_vec()],
    })
}

/// What the filter returns for an action.
fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32> {
    use LinuxSeccompAction::*;
    let data = errno.unwrap_or(EPERM);
    match action {
        ScmpActErrno if data > 4095 => {
            Err(Error::Invalid(format!("seccomp rule: {data} is no error number")))
        }
        ScmpActTrace if data > 0xffff => Err(Error::Invalid(format!("seccomp rule: {data} is too large"))),
        ScmpActKill | ScmpActKillThread => Ok(0),
        ScmpActKillProcess => Ok(0x8000_0000),
        ScmpActTrap => Ok(0x0003_0000),
        ScmpActErrno => Ok(0x0005_0000 | data),
        ScmpActTrace => Ok(0x7ff0_0000 | data),
        ScmpActLog => Ok(0x7ffc_0000),
        ScmpActAllow => Ok(0x7fff_0000),
        ScmpActNotify => Err(Error::Unsupported("seccomp action SCMP_ACT_NOTIFY".to_owned())),
    }
}

/// Code that finds the verdict for the number in the accumulator.
fn search(table: &Table) -> Code {
    // Neighbours with the same verdict are one range; each range begins where the one before ends.
    let mut ranges: Vec<(u32, Verdict)> = Vec::new();
    let mut push = |start: u32, verdict: Verdict| {
        if ranges.last().is_none_or(|(_, last)| *last != verdict) {
            ranges.push((start, verdict));
        }
    };
    let mut next = 0;
    for (number, verdict) in &table.calls {
        if *number > next {
            push(next, Verdict::Plain(table.default));
        }
        push(*number, verdict.clone());
        next = number + 1;
    }
    let rest = if table.calls.is_empty() { table.default } else { table.unknown };
    push(next, Verdict::Plain(rest));
    tree(&ranges, table.default)
}

fn tree(ranges: &[(u32, Verdict)], default: u32) -> Code {
    match ranges {
        [] => vec![op(RETURN, default)],
        [(_, verdict)] => leaf(verdict, default),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let middle = high.first().map_or(0, |(start, _)| *start);
            branch(test(AT_LEAST, middle, 0, 0), tree(low, default), tree(high, default))
        }
    }
}

fn leaf(verdict: &Verdict, default: u32) -> Code {
    match verdict {
        Verdict::Plain(value) => vec![op(RETURN, *value)],
        Verdict::Cases(cases) => {
            let mut code: Code =
                cases.iter().flat_map(|(conditions, value)| case(conditions, *value)).collect();
            code.push(op(RETURN, default));
            code
        }
    }
}

/// Returns if all conditions hold, and ends behind itself if not. There are at most six conditions
/// of at most six instructions, so that every jump is short.
fn case(conditions: &[LinuxSeccompArg], value: u32) -> Code {
    let mut code = vec![op(RETURN, value)];
    for c in conditions.iter().rev() {
        let rest = u8::try_from(code.len()).unwrap_or(u8::MAX);
        let mut whole = condition(c, rest);
        whole.append(&mut code);
        code = whole;
    }
    code
}

/// Goes on behind itself if the condition holds, and jumps over `rest` more instructions if not.
fn condition(arg: &LinuxSeccompArg, rest: u8) -> Code {
    use LinuxSeccompOperator::*;
    let at = ARGUMENTS + 8 * u32::try_from(arg.index()).unwrap_or(0);
    let (low, high) = (op(LOAD, at), op(LOAD, at + 4));
    let (value_low, value_high) = halves(arg.value());
    match arg.op() {
        ScmpCmpEq => vec![high, test(EQUAL, value_high, 0, rest + 2), low, test(EQUAL, value_low, 0, rest)],
        ScmpCmpNe => vec![high, test(EQUAL, value_high, 0, 2), low, test(EQUAL, value_low, rest, 0)],
        // Above in the high half decides, and so does below; equal leaves it to the low half.
        ScmpCmpGt | ScmpCmpGe => {
            let last = if arg.op() == ScmpCmpGt { GREATER } else { AT_LEAST };
            vec![
                high,
                test(GREATER, value_high, 3, 0),
                test(EQUAL, value_high, 0, rest + 2),
                low,
                test(last, value_low, 0, rest),
            ]
        }
        ScmpCmpLt | ScmpCmpLe => {
            let last = if arg.op() == ScmpCmpLt { AT_LEAST } else { GREATER };
            vec![
                high,
                test(GREATER, value_high, rest + 3, 0),
                test(EQUAL, value_high, 0, 2),
                low,
                test(last, value_low, rest, 0),
            ]
        }
        ScmpCmpMaskedEq => {
            let wanted = arg.value_two().unwrap_or(0) & arg.value();
            let (wanted_low, wanted_high) = halves(wanted);
            vec![
                high,
                op(AND, value_high),
                test(EQUAL, wanted_high, 0, rest + 3),
                low,
                op(AND, value_low),
                test(EQUAL, wanted_low, 0, rest),
            ]
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the halves are what is wanted")]
fn halves(value: u64) -> (u32, u32) {
    (value as u32, (value >> 32) as u32)
}
