//! Docker's filters: which names are known, and how values match.

use std::collections::BTreeMap;

use crate::model::Filters;
use crate::time::{now, parse_filter_time};
use crate::{Error, Result};

/// Refuses filters whose name is not among `known`.
///
/// # Errors
/// In Docker's words.
pub(crate) fn check_known(filters: &Filters, known: &[&str]) -> Result<()> {
    match filters.keys().find(|k| !known.contains(&k.as_str())) {
        Some(bad) => Err(Error::invalid(format!("invalid filter '{bad}'"))),
        None => Ok(()),
    }
}

/// The values of one filter; `None` when it was not given.
pub(crate) fn values<'a>(filters: &'a Filters, name: &str) -> Option<&'a [String]> {
    filters.get(name).map(Vec::as_slice).filter(|v| !v.is_empty())
}

/// Whether the filter is absent or one of its values fulfils `test`.
pub(crate) fn any(filters: &Filters, name: &str, test: impl Fn(&str) -> bool) -> bool {
    values(filters, name).is_none_or(|v| v.iter().any(|x| test(x)))
}

/// A filter that is true or false.
///
/// # Errors
/// When its value is neither.
pub(crate) fn flag(filters: &Filters, name: &str) -> Result<Option<bool>> {
    let Some(v) = values(filters, name) else { return Ok(None) };
    let mut seen = None;
    for text in v {
        let value = match text.as_str() {
            "1" | "true" | "True" | "TRUE" | "t" | "T" => true,
            "0" | "false" | "False" | "FALSE" | "f" | "F" => false,
            _ => return Err(Error::invalid(format!("invalid filter '{name}=[{}]'", v.join(" ")))),
        };
        if seen.is_some_and(|s| s != value) {
            return Err(Error::invalid(format!("invalid filter '{name}=[{}]'", v.join(" "))));
        }
        seen = Some(value);
    }
    Ok(seen)
}

/// `until`: objects older than this.
///
/// # Errors
/// When it is no time, or given twice.
pub(crate) fn until(filters: &Filters) -> Result<Option<i64>> {
    match values(filters, "until") {
        None => Ok(None),
        Some([one]) => parse_filter_time(one, now())
            .map(Some)
            .ok_or_else(|| Error::invalid(format!("failed to parse value as time or duration: {one:?}"))),
        Some(_) => Err(Error::invalid("more than one until filter specified")),
    }
}

/// Whether every wanted label (`key` or `key=value`) of filter `name` is among `labels`.
pub(crate) fn labels(filters: &Filters, name: &str, labels: Option<&BTreeMap<String, String>>) -> bool {
    values(filters, name).is_none_or(|wanted| wanted.iter().all(|w| has_label(w, labels)))
}

/// `label!`: whether none of the unwanted labels is among `labels`.
pub(crate) fn not_labels(filters: &Filters, labels: Option<&BTreeMap<String, String>>) -> bool {
    values(filters, "label!").is_none_or(|unwanted| !unwanted.iter().all(|w| has_label(w, labels)))
}

fn has_label(wanted: &str, labels: Option<&BTreeMap<String, String>>) -> bool {
    let Some(labels) = labels else { return false };
    match wanted.split_once('=') {
        Some((k, v)) => labels.get(k).is_some_and(|x| x == v),
        None => labels.contains_key(wanted),
    }
}

/// A name filter: equal, or the value is a pattern found in `name` (bounded size, linear time).
pub(crate) fn pattern(value: &str, name: &str) -> bool {
    value == name
        || (value.len() <= 1024
            && regex_lite::RegexBuilder::new(value)
                .size_limit(1 << 16)
                .build()
                .is_ok_and(|re| re.is_match(name)))
}

/// Shell patterns as in Go's `path.Match`: `*` and `?` stop at slashes; `[a-z]`, `[^a]`.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    // One backtracking point suffices: a later star supersedes an earlier one.
    let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut pi, mut ti) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while ti < t.len() {
        if p.get(pi) == Some(&'*') {
            star = Some((pi, ti));
            pi += 1;
            continue;
        }
        if let Some(next) = one(&p, pi, t[ti]) {
            (pi, ti) = (next, ti + 1);
            continue;
        }
        match star {
            Some((sp, st)) if t[st] != '/' => {
                star = Some((sp, st + 1));
                (pi, ti) = (sp + 1, st + 1);
            }
            _ => return false,
        }
    }
    p[pi..].iter().all(|c| *c == '*')
}

/// Refuses a pattern that [`glob`] could not read to its end.
///
/// # Errors
/// In Go's words.
pub(crate) fn check_glob(pattern: &str) -> Result<()> {
    let bad = || Error::invalid("syntax error in pattern");
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => drop(chars.next().ok_or_else(bad)?),
            '[' => {
                chars.next_if_eq(&'^');
                // The first of a class may be a bracket.
                chars.next().ok_or_else(bad)?;
                chars.by_ref().find(|c| *c == ']').ok_or_else(bad)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// The position after the pattern item at `pi` if it matches `c`.
fn one(p: &[char], pi: usize, c: char) -> Option<usize> {
    match *p.get(pi)? {
        '?' => (c != '/').then_some(pi + 1),
        '\\' => (*p.get(pi + 1)? == c).then_some(pi + 2),
        '[' => {
            let close = pi + 2 + p.get(pi + 2..)?.iter().position(|x| *x == ']')?;
            let (negate, from) = if p[pi + 1] == '^' { (true, pi + 2) } else { (false, pi + 1) };
            let set = &p[from..close];
            let mut hit = false;
            let mut i = 0;
            while i < set.len() {
                if i + 2 < set.len() && set[i + 1] == '-' {
                    hit |= (set[i]..=set[i + 2]).contains(&c);
                    i += 3;
                } else {
                    hit |= set[i] == c;
                    i += 1;
                }
            }
            (hit != negate && c != '/').then_some(close + 1)
        }
        x => (x == c).then_some(pi + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_filters_are_refused_in_dockers_words() {
        let f = Filters::from([("nosuch".to_owned(), vec!["x".to_owned()])]);
        assert_eq!(check_known(&f, &["id"]).unwrap_err().to_string(), "invalid filter 'nosuch'");
    }

    #[test]
    fn labels_must_all_be_there() {
        let have = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        let f =
            |l: &[&str]| Filters::from([("label".to_owned(), l.iter().map(|s| (*s).to_owned()).collect())]);
        assert!(labels(&f(&["a"]), "label", Some(&have)) && labels(&f(&["a=1"]), "label", Some(&have)));
        assert!(
            !labels(&f(&["a=2"]), "label", Some(&have)) && !labels(&f(&["a", "b"]), "label", Some(&have))
        );
    }

    #[test]
    fn patterns() {
        assert!(pattern("^/web$", "/web") && pattern("we", "/web") && !pattern("^web$", "/web2"));
        assert!(!pattern("(", "/web"), "an invalid pattern matches nothing");
        assert!(
            glob("a*/b?", "abc/bd") && !glob("a*", "ab/c") && glob("[a-c]x", "bx") && !glob("[^a]x", "ax")
        );
        assert!(glob("*", "") && !glob("[", "["));
        assert!(check_glob("a[^b-c]?*").is_ok() && check_glob("\\[").is_ok());
        for bad in ["[", "[a", "a\\", "[^"] {
            assert!(check_glob(bad).is_err(), "{bad}");
        }
    }
}
