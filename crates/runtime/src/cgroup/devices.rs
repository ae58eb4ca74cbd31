//! Which devices a cgroup may use: rules become a policy, the policy becomes writes to the v1
//! devices controller or a program for v2.

use crate::error::{Error, Result};
use crate::spec::{LinuxDeviceCgroup, LinuxDeviceType};

/// The most rules a container may have.
const MAX_RULES: usize = 1024;

const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;

/// What the rules amount to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Policy {
    /// What holds for a device without an exception.
    pub(super) allow: bool,
    /// Allowed although the rest is not, or the reverse.
    exceptions: Vec<Exception>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Exception {
    block: bool,
    /// `None` is any.
    major: Option<u32>,
    minor: Option<u32>,
    access: u8,
}

impl Exception {
    fn same_device(&self, other: &Self) -> bool {
        (self.block, self.major, self.minor) == (other.block, other.major, other.minor)
    }

    fn overlaps(&self, other: &Self) -> bool {
        let meet = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
        self.block == other.block && meet(self.major, other.major) && meet(self.minor, other.minor)
    }

    /// As the control files write it.
    fn line(&self, access: u8) -> String {
        let kind = if self.block { 'b' } else { 'c' };
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        format!("{kind} {}:{} {}", number(self.major), number(self.minor), letters(access))
    }

    /// Reads such a line.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let block = match fields.next()? {
            "b" => true,
            "c" => false,
            _ => return None,
        };
        let (major, minor) = fields.next()?.split_once(':')?;
        let number = |s: &str| if s == "*" { Some(None) } else { s.parse().ok().map(Some) };
        Some(Self { block, major: number(major)?, minor: number(minor)?, access: bits(fields.next()?)? })
    }
}

impl Policy {
    /// Applies rules in order; before the first one everything is refused.
    pub(super) fn new(rules: &[LinuxDeviceCgroup]) -> Result<Self> {
        if rules.len() > MAX_RULES {
            return Err(Error::Invalid(format!("more than {MAX_RULES} device rules")));
        }
        let mut policy = Self::default();
        for rule in rules {
            policy.apply(rule)?;
        }
        Ok(policy)
    }

    fn apply(&mut self, rule: &LinuxDeviceCgroup) -> Result<()> {
        let access = match rule.access().as_deref() {
            None | Some("") => ALL,
            Some(text) => {
                bits(text).ok_or_else(|| Error::Invalid(format!("device rule: bad access {text:?}")))?
            }
        };
        let (major, minor) = (number(rule.major())?, number(rule.minor())?);
        let kinds: &[bool] = match rule.typ().unwrap_or(LinuxDeviceType::A) {
            LinuxDeviceType::A if major.is_none() && minor.is_none() && access == ALL => {
                *self = Self { allow: rule.allow(), exceptions: Vec::new() };
                return Ok(());
            }
            // The v1 controller takes "a" with a number for everything; here it means both kinds.
            LinuxDeviceType::A => &[true, false],
            LinuxDeviceType::B => &[true],
            LinuxDeviceType::C | LinuxDeviceType::U => &[false],
            LinuxDeviceType::P => {
                return Err(Error::Invalid("a device rule cannot be about pipes".to_owned()));
            }
        };
        for block in kinds {
            let exception = Exception { block: *block, major, minor, access };
            if rule.allow() == self.allow { self.retract(exception)? } else { self.except(exception) }
        }
        Ok(())
    }

    fn except(&mut self, new: Exception) {
        match self.exceptions.iter_mut().find(|e| e.same_device(&new)) {
            Some(old) => old.access |= new.access,
            None => self.exceptions.push(new),
        }
    }

    /// Takes back what an earlier rule excepted. A part of a wider exception cannot be taken back:
    /// no controller could express it, so it is refused instead of being ignored.
    fn retract(&mut self, gone: Exception) -> Result<()> {
        for e in &mut self.exceptions {
            let inside = (gone.major.is_none() || gone.major == e.major)
                && (gone.minor.is_none() || gone.minor == e.minor);
            if e.block == gone.block && inside {
                e.access &= !gone.access;
            } else if e.overlaps(&gone) && e.access & gone.access != 0 {
                return Err(Error::Unsupported(format!(
                    "device rule \"{}\" after the wider rule \"{}\"",
                    gone.line(gone.access),
                    e.line(e.access)
                )));
            }
        }
        self.exceptions.retain(|e| e.access != 0);
        Ok(())
    }

    /// What has to be written to a v1 cgroup whose `devices.list` is `list`: file and line. Nothing
    /// that stays allowed is refused in between.
    pub(super) fn v1_writes(&self, list: &str) -> Vec<(&'static str, String)> {
        const ALLOW: &str = "devices.allow";
        const DENY: &str = "devices.deny";
        let all_now = list.lines().any(|l| l.starts_with("a *:* rwm"));
        let mut writes = Vec::new();
        if self.allow {
            writes.push((ALLOW, "a".to_owned()));
            writes.extend(self.exceptions.iter().map(|e| (DENY, e.line(e.access))));
            return writes;
        }
        if all_now {
            writes.push((DENY, "a".to_owned()));
        } else {
            for old in list.lines().filter_map(Exception::parse) {
                let kept = self.exceptions.iter().find(|e| e.same_device(&old)).map_or(0, |e| e.access);
                if old.access & !kept != 0 {
                    writes.push((DENY, old.line(old.access & !kept)));
                }
            }
        }
        writes.extend(self.exceptions.iter().map(|e| (ALLOW, e.line(e.access))));
        writes
    }

    /// The policy as a program for v2.
    pub(super) fn program(&self) -> Vec<[u8; 8]> {
        use insn::*;
        // r2 kind, r3 what is asked for, r4 major, r5 minor.
        let mut p = vec![
            load_word(2, 0),
            mov(3, 2),
            and(2, 0xffff),
            shift_right(3, 16),
            load_word(4, 4),
            load_word(5, 8),
        ];
        for e in &self.exceptions {
            let verdict = if self.allow {
                // Refused as soon as something of it is asked for.
                vec![step_over_if_any(3, e.access), skip(2), set(0, 0), EXIT]
            } else {
                // What it allows is ticked off; allowed when nothing is left.
                vec![and(3, i32::from(!e.access & ALL)), skip_unless(3, 0, 2), set(0, 1), EXIT]
            };
            let mut tests: Vec<(u8, u32)> = vec![(2, if e.block { 1 } else { 2 })];
            tests.extend(e.major.map(|major| (4, major)));
            tests.extend(e.minor.map(|minor| (5, minor)));
            let mut left = tests.len() + verdict.len();
            for (register, value) in tests {
                left -= 1;
                p.push(skip_unless(register, value, left));
            }
            p.extend(verdict);
        }
        p.extend([set(0, i32::from(self.allow)), EXIT]);
        p
    }
}

fn number(n: Option<i64>) -> Result<Option<u32>> {
    match n {
        None | Some(-1) => Ok(None),
        Some(n) => match u32::try_from(n) {
            // Neither the kernel's numbers nor a signed operand go further.
            Ok(small) if small <= i32::MAX.unsigned_abs() => Ok(Some(small)),
            _ => Err(Error::Invalid(format!("device rule: bad device number {n}"))),
        },
    }
}

fn bits(text: &str) -> Option<u8> {
    text.chars().try_fold(0, |bits, c| match c {
        'r' => Some(bits | READ),
        'w' => Some(bits | WRITE),
        'm' => Some(bits | MKNOD),
        _ => None,
    })
}

fn letters(access: u8) -> String {
    let of = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')];
    of.into_iter().filter(|(bit, _)| access & bit != 0).map(|(_, letter)| letter).collect()
}

/// The few instructions that a device program needs.
mod insn {
    pub(super) const EXIT: [u8; 8] = [0x95, 0, 0, 0, 0, 0, 0, 0];

    fn make(code: u8, dst: u8, src: u8, offset: usize, imm: i32) -> [u8; 8] {
        let [o0, o1] = u16::try_from(offset).unwrap_or(0).to_le_bytes();
        let [i0, i1, i2, i3] = imm.to_le_bytes();
        [code, src << 4 | dst, o0, o1, i0, i1, i2, i3]
    }

    /// `dst = *(u32 *)(r1 + offset)`
    pub(super) fn load_word(dst: u8, offset: usize) -> [u8; 8] {
        make(0x61, dst, 1, offset, 0)
    }

    pub(super) fn mov(dst: u8, src: u8) -> [u8; 8] {
        make(0xbf, dst, src, 0, 0)
    }

    pub(super) fn set(dst: u8, imm: i32) -> [u8; 8] {
        make(0xb7, dst, 0, 0, imm)
    }

    pub(super) fn and(dst: u8, imm: i32) -> [u8; 8] {
        make(0x57, dst, 0, 0, imm)
    }

    pub(super) fn shift_right(dst: u8, imm: i32) -> [u8; 8] {
        make(0x77, dst, 0, 0, imm)
    }

    pub(super) fn skip(count: usize) -> [u8; 8] {
        make(0x05, 0, 0, count, 0)
    }

    /// Skips if the register is not `value`.
    pub(super) fn skip_unless(register: u8, value: u32, count: usize) -> [u8; 8] {
        make(0x55, register, 0, count, value.cast_signed())
    }

    /// Goes over the next instruction if the register has one of the bits.
    pub(super) fn step_over_if_any(register: u8, bits: u8) -> [u8; 8] {
        make(0x45, register, 0, 1, i32::from(bits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec_defaults::{all_devices_rule, device_rule, device_rules, parse_device_rule};

    fn policy(rules: &[(bool, &str)]) -> Result<Policy> {
        let rule = |(allow, text): &(bool, &str)| {
            let parsed = parse_device_rule(text).unwrap();
            let access = parsed.access().clone().unwrap();
            device_rule(*allow, parsed.typ().unwrap(), parsed.major(), parsed.minor(), &access)
        };
        Policy::new(&rules.iter().map(rule).collect::<Vec<_>>())
    }

    /// Runs a program as the kernel would.
    fn run(program: &[[u8; 8]], block: bool, access: u8, major: u32, minor: u32) -> bool {
        let mut r = [0u64; 16];
        let context = [u32::from(access) << 16 | if block { 1 } else { 2 }, major, minor];
        let mut at = 0;
        loop {
            let [code, regs, o0, o1, i0, i1, i2, i3] = program[at];
            let (dst, src) = (usize::from(regs & 15), usize::from(regs >> 4));
            let offset = usize::from(u16::from_le_bytes([o0, o1]));
            let imm = i64::from(i32::from_le_bytes([i0, i1, i2, i3])).cast_unsigned();
            at += 1;
            match code {
                0x61 => r[dst] = u64::from(context[offset / 4]),
                0xbf => r[dst] = r[src],
                0xb7 => r[dst] = imm,
                0x57 => r[dst] &= imm,
                0x77 => r[dst] >>= imm,
                0x05 => at += offset,
                0x55 => at += if r[dst] == imm { 0 } else { offset },
                0x45 => at += if r[dst] & imm == 0 { 0 } else { offset },
                0x95 => return r[0] != 0,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn the_default_rules_allow_what_dev_has_and_nothing_else() {
        let program = Policy::new(&device_rules()).unwrap().program();
        let char_dev = |access, major, minor| run(&program, false, access, major, minor);
        assert!(char_dev(READ | WRITE, 1, 3) && char_dev(READ, 136, 42) && char_dev(ALL, 5, 2));
        assert!(char_dev(MKNOD, 10, 200) && run(&program, true, MKNOD, 8, 0), "nodes may be made");
        assert!(!char_dev(READ, 1, 1), "/dev/mem");
        assert!(!char_dev(READ | MKNOD, 10, 200) && !char_dev(READ, 10, 229));
        assert!(!run(&program, true, READ, 8, 0) && !run(&program, true, WRITE, 1, 3));
        let open = Policy::new(&[all_devices_rule()]).unwrap().program();
        assert!(run(&open, true, ALL, 8, 0));
        let closed = Policy::new(&[]).unwrap().program();
        assert!(!run(&closed, false, READ, 1, 3));
    }

    #[test]
    fn rights_of_several_rules_add_up() {
        let p = policy(&[(true, "c 7:* r"), (true, "c 7:1 w"), (true, "c 7:1 m")]).unwrap();
        let program = p.program();
        assert!(run(&program, false, ALL, 7, 1) && run(&program, false, READ, 7, 2));
        assert!(!run(&program, false, READ | WRITE, 7, 2));
    }

    #[test]
    fn later_rules_take_back() {
        let p = policy(&[(true, "c 1:3 rwm"), (false, "c 1:3 w")]).unwrap().program();
        assert!(
            run(&p, false, READ, 1, 3) && !run(&p, false, WRITE, 1, 3) && !run(&p, false, READ | WRITE, 1, 3)
        );
        let p = policy(&[(true, "a *:* rwm"), (false, "b 8:* w")]).unwrap().program();
        assert!(run(&p, true, READ, 8, 1) && !run(&p, true, WRITE, 8, 1) && !run(&p, true, ALL, 8, 1));
        assert!(run(&p, true, ALL, 9, 1) && run(&p, false, ALL, 8, 1));
        let p = policy(&[(true, "a *:* rwm"), (false, "a *:* rwm")]).unwrap();
        assert_eq!(p, Policy::default());
    }

    #[test]
    fn what_cannot_be_expressed_is_refused() {
        let error = policy(&[(true, "c *:* rwm"), (false, "c 1:1 rw")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "device rule \"c 1:1 rw\" after the wider rule \"c *:* rwm\" is not supported"
        );
        assert!(policy(&[(true, "c *:* m"), (false, "c 1:1 rw")]).is_ok());
        assert!(Policy::new(&vec![all_devices_rule(); MAX_RULES + 1]).is_err());
    }

    #[test]
    fn both_kinds_with_a_number_never_mean_everything() {
        let p = policy(&[(true, "a 1:3 r")]).unwrap();
        assert_eq!(
            p.v1_writes("a *:* rwm"),
            [
                ("devices.deny", "a".to_owned()),
                ("devices.allow", "b 1:3 r".to_owned()),
                ("devices.allow", "c 1:3 r".to_owned()),
            ]
        );
    }

    #[test]
    fn a_change_never_refuses_what_stays_allowed() {
        let p = policy(&[(true, "c 1:3 rw"), (true, "c 5:0 r")]).unwrap();
        assert_eq!(
            p.v1_writes("c 1:3 rwm\nc 9:* r\n"),
            [
                ("devices.deny", "c 1:3 m".to_owned()),
                ("devices.deny", "c 9:* r".to_owned()),
                ("devices.allow", "c 1:3 rw".to_owned()),
                ("devices.allow", "c 5:0 r".to_owned()),
            ]
        );
    }
}
