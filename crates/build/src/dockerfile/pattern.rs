//! The patterns of `${name#pattern}`: `?` for one character, `*` for any number, neither for a line's end.

/// A pattern, cut into what it is made of.
#[derive(Debug)]
pub(super) struct Pattern(Vec<Part>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Is(char),
    Any,
    Star,
}

impl Pattern {
    /// `\*`, `\?` and `\\` are the characters; `\}` and `\/` are what `${}` needs.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            parts.push(match c {
                // Two stars are one.
                '*' if parts.last() == Some(&Part::Star) => continue,
                '*' => Part::Star,
                '?' => Part::Any,
                '\\' => match chars.next() {
                    Some(c @ ('*' | '?' | '\\' | '}' | '/')) => Part::Is(c),
                    Some(c) => return Err(format!("invalid escape '\\{c}'")),
                    None => return Err("nothing after '\\'".to_owned()),
                },
                c => Part::Is(c),
            });
        }
        Ok(Self(parts))
    }

    /// Bytes at the start of `value` that match, at least or at most; 0 where nothing does. `None` out of steps.
    pub(super) fn prefix(&self, value: &str, longest: bool, steps: &mut usize) -> Option<usize> {
        run(&self.0, value.chars(), longest, steps).map(Option::unwrap_or_default)
    }

    /// As [`Self::prefix`], at the end.
    pub(super) fn suffix(&self, value: &str, longest: bool, steps: &mut usize) -> Option<usize> {
        let parts: Vec<Part> = self.0.iter().rev().copied().collect();
        run(&parts, value.chars().rev(), longest, steps).map(Option::unwrap_or_default)
    }

    /// With the first match, or every one, replaced; each is as long as it can be.
    ///
    /// # Errors
    /// `true` where the result is longer than `max`, `false` where it takes too many steps.
    pub(super) fn replace(
        &self,
        value: &str,
        with: &str,
        all: bool,
        steps: &mut usize,
        max: usize,
    ) -> Result<String, bool> {
        let mut out = String::new();
        let mut rest = value;
        // An empty match right behind a match is none.
        let mut behind = false;
        loop {
            let found = run(&self.0, rest.chars(), true, steps).ok_or(false)?;
            let taken = match found {
                Some(0) if behind => 0,
                Some(len) => {
                    out.push_str(with);
                    behind = len > 0;
                    if !all {
                        out.push_str(rest.get(len..).unwrap_or_default());
                        return Ok(out);
                    }
                    len
                }
                None => 0,
            };
            if taken == 0 {
                behind = false;
                let Some(c) = rest.chars().next() else { return Ok(out) };
                out.push(c);
                rest = rest.get(c.len_utf8()..).unwrap_or_default();
            } else {
                rest = rest.get(taken..).unwrap_or_default();
            }
            if out.len() > max {
                return Err(true);
            }
        }
    }
}

/// Bytes of the shortest or longest match at the start: all ways through the pattern at once, so that time is bounded by
/// the product of both lengths. `None` when the steps are used up, `Some(None)` for no match.
fn run(
    parts: &[Part],
    chars: impl Iterator<Item = char>,
    longest: bool,
    steps: &mut usize,
) -> Option<Option<usize>> {
    let mut at = vec![false; parts.len() + 1];
    let mut next = at.clone();
    enter(parts, &mut at, 0);
    let mut found = None;
    let mut len = 0;
    for c in chars.map(Some).chain([None]) {
        if at.last() == Some(&true) {
            found = Some(len);
            if !longest {
                break;
            }
        }
        let Some(c) = c else { break };
        *steps = steps.checked_sub(at.len())?;
        next.fill(false);
        let mut alive = false;
        for (i, part) in parts.iter().enumerate() {
            if !at.get(i).copied().unwrap_or_default() {
                continue;
            }
            let to = match part {
                Part::Is(want) if *want == c => i + 1,
                Part::Any if c != '\n' => i + 1,
                Part::Star if c != '\n' => i,
                _ => continue,
            };
            enter(parts, &mut next, to);
            alive = true;
        }
        if !alive {
            break;
        }
        std::mem::swap(&mut at, &mut next);
        len += c.len_utf8();
    }
    Some(found)
}

/// Marks a place in the pattern, and those that a star reaches without a character.
fn enter(parts: &[Part], at: &mut [bool], mut place: usize) {
    loop {
        if let Some(mark) = at.get_mut(place) {
            *mark = true;
        }
        if parts.get(place) != Some(&Part::Star) {
            return;
        }
        place += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: usize = 1_000_000;

    #[test]
    fn trims() {
        let check = |pattern: &str, value: &str, want: [usize; 4]| {
            let p = Pattern::parse(pattern).unwrap();
            let got = [
                p.prefix(value, false, &mut { STEPS }),
                p.prefix(value, true, &mut { STEPS }),
                p.suffix(value, false, &mut { STEPS }),
                p.suffix(value, true, &mut { STEPS }),
            ];
            assert_eq!(got.map(Option::unwrap), want, "{pattern} in {value}");
        };
        check("f*b", "foobarbaz", [4, 7, 0, 0]);
        check("b*", "foobarbaz", [0, 0, 3, 6]);
        check("*", "abc", [0, 3, 0, 3]);
        check("?", "é", [2, 2, 2, 2]);
        check("**a?*", "xayaz", [3, 5, 2, 5]);
        check("\\*\\?\\\\\\}\\/", "*?\\}/", [5, 5, 5, 5]);
        check("a*c", "a\nc", [0, 0, 0, 0]);
        check("", "abc", [0, 0, 0, 0]);
        assert_eq!(Pattern::parse("\\a").unwrap_err(), "invalid escape '\\a'");
        assert!(Pattern::parse("a\\").is_err());
    }

    #[test]
    fn replaces() {
        let check = |pattern: &str, value: &str, all: bool, want: &str| {
            let p = Pattern::parse(pattern).unwrap();
            assert_eq!(
                p.replace(value, "-", all, &mut { STEPS }, 100).unwrap(),
                want,
                "{pattern} in {value}"
            );
        };
        check("ba", "foobarbaz", false, "foo-rbaz");
        check("ba", "foobarbaz", true, "foo-r-z");
        check("*", "abc", true, "-");
        check("", "ab", true, "-a-b-");
        check("", "ab", false, "-ab");
        check("x", "ab", true, "ab");
        check("a*", "bab", false, "b-");
    }

    #[test]
    fn bounded() {
        let p = Pattern::parse(&"*a".repeat(1000)).unwrap();
        assert_eq!(p.prefix(&"a".repeat(100_000), true, &mut { STEPS }), None);
        assert_eq!(p.replace(&"b".repeat(100_000), "", true, &mut { STEPS }, 100), Err(false));
        let p = Pattern::parse("").unwrap();
        assert_eq!(p.replace(&"b".repeat(100), "xx", true, &mut { STEPS }, 100), Err(true));
    }
}
