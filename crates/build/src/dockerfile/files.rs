//! `COPY` and `ADD`

use super::ast::{AddCmd, CopyCmd, Escape, Heredoc, InlineFile, Paths, Word};
use super::error::ParseErrorKind as E;
use super::expand::{Lookup, Mode, expand};
use super::flags::{Flags, Takes};
use super::heredoc::marker;
use super::instruction::{Given, Parsed, list};
use super::words::Parts;

/// Flags that both have.
const BOTH: [(&str, Takes); 4] =
    [("chown", Takes::One), ("chmod", Takes::One), ("link", Takes::Bool), ("exclude", Takes::Many)];

pub(super) fn copy(mut given: Given<'_>) -> Parsed<CopyCmd> {
    let [a, b, c, d] = BOTH;
    let flags = std::mem::take(&mut given.parts.flags);
    let flags = Flags::parse(flags, &[a, b, c, d, ("from", Takes::One), ("parents", Takes::Bool)])?;
    let from = match flags.one("from") {
        Some((from, at)) if expands(from, given.escape) => return Err((E::FromExpansion, at).into()),
        from => from.map(|(f, _)| f.to_owned()),
    };
    let parents = flags.bool("parents").unwrap_or_default();
    Ok(CopyCmd { paths: paths(&given, &flags, "COPY")?, from, parents })
}

pub(super) fn add(mut given: Given<'_>) -> Parsed<AddCmd> {
    let [a, b, c, d] = BOTH;
    let own = [("keep-git-dir", Takes::Bool), ("checksum", Takes::One), ("unpack", Takes::Bool)];
    let [e, f, g] = own;
    let flags = Flags::parse(std::mem::take(&mut given.parts.flags), &[a, b, c, d, e, f, g])?;
    Ok(AddCmd {
        paths: paths(&given, &flags, "ADD")?,
        keep_git_dir: flags.bool("keep-git-dir"),
        checksum: word(&flags, "checksum"),
        unpack: flags.bool("unpack"),
    })
}

fn word(flags: &Flags, name: &'static str) -> Option<Word> {
    flags.one(name).map(|(v, _)| v.into())
}

/// Whether an expansion would change a text, or fail on it.
fn expands(text: &str, escape: Escape) -> bool {
    !expand(text, &Lookup(|_: &str| None), escape, Mode::Word).is_ok_and(|e| e.text == text)
}

fn paths(given: &Given<'_>, flags: &Flags, name: &'static str) -> Parsed<Paths> {
    let Parts { args, args_at, .. } = given.parts;
    let mut words = list(args).map_err(|kind| (kind, args_at))?;
    let (Some((dest, dest_at)), false) = (words.pop(), words.is_empty()) else {
        return Err(E::NoDestination(name).into());
    };
    if marker(&dest).is_some() {
        return Err((E::HeredocDest(name), args_at + dest_at).into());
    }
    let mut out = Paths {
        dest: Word(dest),
        chown: word(flags, "chown"),
        chmod: word(flags, "chmod"),
        link: flags.bool("link").unwrap_or_default(),
        exclude: flags.many("exclude").map(|(v, _)| v.to_owned()).collect(),
        ..Paths::default()
    };
    // Markers and heredocs come in the same order: one is found among the words, the other among those of the line.
    let mut heredocs = given.heredocs.iter();
    for (source, _) in words {
        match marker(&source).and_then(|m| heredocs.find(|h| h.name == m.name)) {
            Some(heredoc) => out.files.push(file(heredoc)),
            None => out.sources.push(Word(source)),
        }
    }
    if out.files.len() < given.heredocs.len() {
        let unused = given.heredocs.iter().find(|h| !out.files.iter().any(|f| f.name == h.name));
        let name = unused.or(given.heredocs.first()).map(|h| h.name.chars().take(100).collect());
        return Err(E::UnusedHeredoc(name.unwrap_or_default()).into());
    }
    Ok(out)
}

fn file(heredoc: &Heredoc) -> InlineFile {
    InlineFile { name: heredoc.name.clone(), content: heredoc.text().into_owned(), expand: heredoc.expand }
}
