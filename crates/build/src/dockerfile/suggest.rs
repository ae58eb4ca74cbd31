//! What somebody may have meant.

use super::error::Hint;

/// Names longer than this are not compared.
const MAX_NAME: usize = 40;
/// Nor with more names than these.
const MAX_OPTIONS: usize = 1_000;

/// The first of `options` nearest to `name` with at most two letters changed; nothing where one is equal.
pub(super) fn suggest<'a>(name: &str, options: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > MAX_NAME {
        return None;
    }
    let mut best = (3, None);
    for option in options.into_iter().take(MAX_OPTIONS) {
        if option == name {
            return None;
        }
        if option.len() <= MAX_NAME {
            let d = distance(name, option);
            if d < best.0 {
                best = (d, Some(option));
            }
        }
    }
    best.1
}

/// [`suggest`], to be shown.
pub(super) fn hint<'a>(name: &str, options: impl IntoIterator<Item = &'a str>) -> Hint {
    Hint(suggest(name, options).map(str::to_owned))
}

/// Levenshtein's, two letters that changed places counting once.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, cb) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX - 1);
            let mut least = at(&row, j) + usize::from(ca != cb);
            least = least.min(at(&row, j + 1) + 1).min(at(&next, j) + 1);
            let pair =
                |s: &[char], end: usize| end.checked_sub(1).and_then(|e| Some((*s.get(e)?, *s.get(end)?)));
            if let (Some((a0, a1)), Some((b0, b1))) = (pair(&a, i), pair(&b, j))
                && (a0, a1) == (b1, b0)
            {
                least = least.min(at(&before, j - 1) + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names() {
        let options = ["FROM", "RUN", "COPY", "CMD"];
        assert_eq!(suggest("FRM", options), Some("FROM"));
        assert_eq!(suggest("COPPY", options), Some("COPY"));
        assert_eq!(suggest("RUN", options), None);
        assert_eq!(suggest("BUILD", options), None);
        assert_eq!((distance("kitten", "sitting"), distance("", "ab"), distance("ab", "")), (3, 2, 2));
        assert_eq!((distance("RNU", "RUN"), distance("RNU", "ENV"), distance("abcd", "badc")), (1, 2, 2));
    }
}
