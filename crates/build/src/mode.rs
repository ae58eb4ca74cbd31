//! Permissions as chmod(1) takes them: `644`, `u=rwX,go=rX`.

use std::str::FromStr;

/// What permissions become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// These, whatever they were.
    Octal(u32),
    /// What the clauses make of them.
    Symbolic(Symbolic),
}

/// Clauses, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbolic {
    text: String,
    clauses: Vec<Clause>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Clause {
    /// Bits of whom: user, group and others, with setuid, setgid and sticky where they are theirs.
    who: u32,
    /// `+`, `-` or `=`.
    how: u8,
    /// Permissions for everybody, `who` not applied.
    what: u32,
    /// `X`: may be searched or run where it is a directory or somebody may run it already.
    search: bool,
    /// `u`, `g` or `o` on the right: those that this one has, by how far they are shifted.
    like: Option<u32>,
}

/// The text is no mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadMode;

const USER: u32 = 0o4700;
const GROUP: u32 = 0o2070;
const OTHERS: u32 = 0o1007;

impl FromStr for Mode {
    type Err = BadMode;

    fn from_str(text: &str) -> Result<Self, BadMode> {
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).map_err(|_| BadMode)?;
            return if mode <= 0o7777 { Ok(Self::Octal(mode)) } else { Err(BadMode) };
        }
        let mut clauses = Vec::new();
        for part in text.split(',') {
            read(part, &mut clauses)?;
        }
        Ok(Self::Symbolic(Symbolic { text: text.to_owned(), clauses }))
    }
}

/// `[ugoa...][[-+=][perms...]...]`, as chmod(1) has it.
fn read(part: &str, clauses: &mut Vec<Clause>) -> Result<(), BadMode> {
    let at = part.find(['+', '-', '=']).ok_or(BadMode)?;
    let (who, mut rest) = part.split_at(at);
    let mut bits = 0;
    for one in who.bytes() {
        bits |= match one {
            b'u' => USER,
            b'g' => GROUP,
            b'o' => OTHERS,
            b'a' => USER | GROUP | OTHERS,
            _ => return Err(BadMode),
        };
    }
    let bits = if bits == 0 { USER | GROUP | OTHERS } else { bits };
    while let Some(how) = rest.bytes().next() {
        let after = rest.get(1..).unwrap_or_default();
        let end = after.find(['+', '-', '=']).unwrap_or(after.len());
        let (what, next) = after.split_at(end);
        clauses.push(clause(bits, how, what)?);
        rest = next;
    }
    Ok(())
}

fn clause(who: u32, how: u8, what: &str) -> Result<Clause, BadMode> {
    let mut clause = Clause { who, how, what: 0, search: false, like: None };
    if let [one @ (b'u' | b'g' | b'o')] = what.as_bytes() {
        clause.like = Some(match one {
            b'u' => 6,
            b'g' => 3,
            _ => 0,
        });
        return Ok(clause);
    }
    for one in what.bytes() {
        clause.what |= match one {
            b'r' => 0o444,
            b'w' => 0o222,
            b'x' => 0o111,
            b's' => 0o6000,
            b't' => 0o1000,
            b'X' => {
                clause.search = true;
                0
            }
            _ => return Err(BadMode),
        };
    }
    Ok(clause)
}

impl Mode {
    /// What becomes of the permissions `mode`.
    #[must_use]
    pub fn apply(&self, mode: u32, directory: bool) -> u32 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Symbolic(symbolic) => {
                symbolic.clauses.iter().fold(mode, |mode, c| c.apply(mode, directory))
            }
        }
    }

    /// As a text that is equal for equal modes.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Octal(mode) => format!("{mode:o}"),
            Self::Symbolic(symbolic) => symbolic.text.clone(),
        }
    }
}

impl Clause {
    fn apply(self, mode: u32, directory: bool) -> u32 {
        let mut what = self.what;
        if self.search && (directory || mode & 0o111 != 0) {
            what |= 0o111;
        }
        if let Some(shift) = self.like {
            let bits = (mode >> shift) & 0o7;
            what = bits << 6 | bits << 3 | bits;
        }
        let bits = what & self.who;
        match self.how {
            b'+' => mode | bits,
            b'-' => mode & !bits,
            // A directory keeps what is not spoken of.
            _ => (mode & !(self.who & if directory { 0o777 } else { 0o7777 })) | bits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_those_of_chmod() {
        for (text, from, directory, want) in [
            ("644", 0o7777, false, 0o644),
            ("04755", 0, false, 0o4755),
            ("u=rwx,go=rx", 0o600, false, 0o755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("a+X", 0o644, false, 0o644),
            ("a+X", 0o744, false, 0o755),
            ("+x", 0o644, false, 0o755),
            ("go-rwx", 0o777, false, 0o700),
            ("u+s", 0o755, false, 0o4755),
            ("g+s", 0o755, false, 0o2755),
            ("+t", 0o777, true, 0o1777),
            ("g=u", 0o740, false, 0o770),
            ("o=", 0o777, false, 0o770),
            ("u+w-x,o=r", 0o111, false, 0o214),
        ] {
            let mode: Mode = text.parse().unwrap();
            assert_eq!(mode.apply(from, directory), want, "{text} of {from:o}");
        }
        for bad in ["", "8", "77777", "u", "u=q", "z+x", "rw", "u=rw,", "0x7"] {
            assert_eq!(bad.parse::<Mode>(), Err(BadMode), "{bad}");
        }
    }
}
