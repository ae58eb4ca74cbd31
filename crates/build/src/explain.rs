//! Why a step was carried out although one like it is in the cache: what it depends on now, beside what that one did.

use std::collections::BTreeMap;

use longshore_oci::Digest;
use longshore_store::{StepInputs, Store};

use crate::Result;

/// Files, or values, that are named each; of more only the number is told.
const NAMED: usize = 10;

/// What is told of a step that the cache has.
pub(crate) fn hit() -> String {
    "cached: what it depends on is what it was".to_owned()
}

/// What is told of one that was to be carried out.
pub(crate) fn fresh() -> String {
    "carried out: the cache was not to be used (--no-cache, --no-cache-filter)".to_owned()
}

/// What is told of one that the cache has not, beside the last one of the same instruction.
///
/// # Errors
/// When the metadata cannot be read.
pub(crate) fn miss(store: &Store, what: &str, now: &StepInputs) -> Result<String> {
    let mut like: Vec<(i64, Digest)> =
        store.steps()?.into_iter().filter(|(_, s)| s.what == what).map(|(key, s)| (s.made, key)).collect();
    like.sort_unstable();
    for (_, key) in like.iter().rev() {
        if let Some(before) = store.inputs(key)? {
            let reasons = reasons(&before, now);
            return Ok(format!("carried out: {}", join(&reasons)));
        }
    }
    Ok("carried out: no step of this instruction is in the cache".to_owned())
}

fn join(reasons: &[String]) -> String {
    if reasons.is_empty() { "its result is no longer there".to_owned() } else { reasons.join("; ") }
}

/// What differs.
fn reasons(before: &StepInputs, now: &StepInputs) -> Vec<String> {
    let mut out = Vec::new();
    let old: BTreeMap<&str, &[String]> = values(before);
    let new = values(now);
    for (tag, new) in &new {
        let old = old.get(tag).copied().unwrap_or_default();
        if old == *new {
            continue;
        }
        match *tag {
            "base" => out.push("the files that it starts from are others".to_owned()),
            "tree" => out.push("the files of the stage or image that it reads are others".to_owned()),
            "files" => out.extend(files(&before.files, &now.files)),
            "env" => out.extend(variables(old, new)),
            "args" => out.push("its command is another".to_owned()),
            tag => out.push(format!("{tag} was {}, and is {}", quoted(old), quoted(new))),
        }
    }
    let gone = old.keys().filter(|tag| !new.contains_key(*tag));
    out.extend(gone.map(|tag| format!("{tag} is not given any more")));
    out
}

fn values(inputs: &StepInputs) -> BTreeMap<&str, &[String]> {
    inputs.parts.iter().map(|(tag, values)| (tag.as_str(), values.as_slice())).collect()
}

fn quoted(values: &[String]) -> String {
    match values {
        [] => "not given".to_owned(),
        values => values.join(" "),
    }
}

/// Which files changed.
fn files(before: &[(String, String)], now: &[(String, String)]) -> Vec<String> {
    let old: BTreeMap<&str, &str> =
        before.iter().map(|(path, digest)| (path.as_str(), digest.as_str())).collect();
    let new: BTreeMap<&str, &str> =
        now.iter().map(|(path, digest)| (path.as_str(), digest.as_str())).collect();
    if old.is_empty() || new.is_empty() {
        return vec!["files that it takes are others".to_owned()];
    }
    let came = new.keys().filter(|path| !old.contains_key(*path)).copied();
    let went = old.keys().filter(|path| !new.contains_key(*path)).copied();
    let changed = new.iter().filter(|(path, digest)| old.get(*path).is_some_and(|d| d != *digest));
    let all = [
        ("changed", changed.map(|(path, _)| *path).collect::<Vec<_>>()),
        ("new", came.collect()),
        ("gone", went.collect()),
    ];
    let told = all.into_iter().filter(|(_, paths)| !paths.is_empty());
    told.map(|(how, paths)| format!("{how}: {}", list(&paths))).collect()
}

/// Which variables changed.
fn variables(old: &[String], new: &[String]) -> Vec<String> {
    let map = |all: &[String]| -> BTreeMap<String, String> {
        all.iter().filter_map(|v| v.split_once('=')).map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
    };
    let (old, new) = (map(old), map(new));
    let mut out = Vec::new();
    for (name, value) in &new {
        match old.get(name) {
            Some(before) if before == value => {}
            Some(before) => out.push(format!("variable {name} was {before:?}, and is {value:?}")),
            None => out.push(format!("variable {name} is new")),
        }
    }
    out.extend(
        old.keys().filter(|name| !new.contains_key(*name)).map(|name| format!("variable {name} is gone")),
    );
    out
}

fn list(paths: &[&str]) -> String {
    let named: Vec<&str> = paths.iter().take(NAMED).copied().collect();
    match paths.len().saturating_sub(NAMED) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(parts: &[(&str, &[&str])], files: &[(&str, &str)]) -> StepInputs {
        let own = |s: &&str| (*s).to_owned();
        StepInputs {
            parts: parts.iter().map(|(tag, v)| (own(tag), v.iter().map(own).collect())).collect(),
            files: files.iter().map(|(path, digest)| (own(path), own(digest))).collect(),
        }
    }

    #[test]
    fn what_differs_is_named() {
        let check = |before: StepInputs, now: StepInputs, want: &[&str]| {
            assert_eq!(reasons(&before, &now), want);
        };
        let env = |values: &[&str]| inputs(&[("env", values)], &[]);
        check(env(&["A=1", "B=2"]), env(&["A=1", "B=2"]), &[]);
        check(
            env(&["A=1", "B=2"]),
            env(&["A=3", "C=4"]),
            &["variable A was \"1\", and is \"3\"", "variable C is new", "variable B is gone"],
        );
        check(
            inputs(&[("base", &["x"]), ("user", &["a"])], &[]),
            inputs(&[("base", &["y"]), ("user", &["b"])], &[]),
            &["the files that it starts from are others", "user was a, and is b"],
        );
        check(inputs(&[("owner", &["a"])], &[]), inputs(&[], &[]), &["owner is not given any more"]);
        let files = |digest: &str, files: &[(&str, &str)]| inputs(&[("files", &[digest])], files);
        check(
            files("1", &[("a", "1"), ("b", "1"), ("c", "1")]),
            files("2", &[("a", "1"), ("b", "2"), ("d", "1")]),
            &["changed: b", "new: d", "gone: c"],
        );
        check(files("1", &[]), files("2", &[("a", "1")]), &["files that it takes are others"]);
        let many: Vec<String> = (0..13).map(|n| format!("f{n:02}")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|path| (path.as_str(), "1")).collect();
        let said = reasons(&files("1", &[("a", "1")]), &files("2", &many));
        assert!(said[0].ends_with("f08, f09 and 3 more"), "{said:?}");
    }
}
