//! The cases: text files, a topic each, so that a Dockerfile can be read as it is.
//!
//! ```text
//! === @name                                  a context that several cases use
//! === name [fails] [like=ENGINE] [target=T] [file=F] [arg=K=V] [label=K=V] [use=@name]
//! # why
//! --- Dockerfile [as=NAME] [crlf] [bom] [nonl]
//! --- context                                lines of a manifest, see context.rs
//! --- file NAME [mode=M] [nonl] [crlf]       a file of several lines
//! --- archive NAME                           a tar, compressed as its name says, of the manifest that follows
//! ```

use std::collections::BTreeMap;

use super::context::{self, Entry, Kind as What};
use super::peers::Kind;

/// One build.
#[derive(Clone, Debug, Default)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// BuildKit refuses it, too.
    pub(crate) fails: bool,
    /// Whom we shall be like: not BuildKit, where the recorded one is too old for the case.
    pub(crate) like: Kind,
    pub(crate) target: String,
    /// The Dockerfile's path, when it is not `Dockerfile`.
    pub(crate) file: String,
    pub(crate) args: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) context: Vec<Entry>,
}

/// The cases of a topic.
pub(crate) fn parse(text: &str) -> Vec<Case> {
    let mut shared: BTreeMap<&str, Vec<Entry>> = BTreeMap::new();
    let mut cases = Vec::new();
    for part in format!("\n{text}").split("\n=== ").skip(1) {
        let mut sections = part.split("\n--- ");
        let head = sections.next().unwrap_or_default().lines().next().unwrap_or_default();
        let mut entries = Vec::new();
        for section in sections {
            let (head, body) = section.split_once('\n').unwrap_or((section, ""));
            entries.extend(self::section(head, body));
        }
        let mut words = head.split(' ');
        let name = words.next().unwrap_or_default();
        if let Some(name) = name.strip_prefix('@') {
            let name = text.find(&format!("@{name}")).map(|at| &text[at + 1..at + 1 + name.len()]);
            shared.insert(name.expect("it was found before"), entries);
            continue;
        }
        let mut case = Case { name: name.to_owned(), ..Case::default() };
        for word in words {
            option(&mut case, word, &shared);
        }
        case.context.extend(entries);
        context::complete(&mut case.context);
        cases.push(case);
    }
    cases
}

fn option(case: &mut Case, word: &str, shared: &BTreeMap<&str, Vec<Entry>>) {
    let pair = |text: &str| {
        let (k, v) = text.split_once('=').unwrap_or_else(|| panic!("{}: {word}", case.name));
        (k.to_owned(), context::unescape_text(v))
    };
    match word.split_once('=') {
        None if word == "fails" => case.fails = true,
        Some(("like", v)) => case.like = Kind::named(v),
        Some(("target", v)) => case.target = v.to_owned(),
        Some(("file", v)) => case.file = v.to_owned(),
        Some(("arg", v)) => case.args.extend([pair(v)]),
        Some(("label", v)) => case.labels.extend([pair(v)]),
        Some(("use", v)) => {
            let entries = shared.get(v.trim_start_matches('@'));
            case.context.extend(entries.unwrap_or_else(|| panic!("{}: no context {v}", case.name)).clone());
        }
        _ => panic!("{}: what is {word}?", case.name),
    }
}

fn section(head: &str, body: &str) -> Vec<Entry> {
    let mut words = head.split(' ');
    match words.next() {
        Some("Dockerfile") => {
            let words: Vec<&str> = words.collect();
            let name = words.iter().find_map(|w| w.strip_prefix("as=")).unwrap_or("Dockerfile");
            vec![text_file(name, body, &words)]
        }
        Some("file") => {
            let name = words.next().expect("a file's name");
            vec![text_file(name, body, &words.collect::<Vec<_>>())]
        }
        Some("context") => context::manifest(body),
        Some("archive") => {
            let name = words.next().expect("an archive's name");
            let mut inner = context::manifest(body);
            context::complete(&mut inner);
            vec![Entry::new(name.as_bytes(), What::File(context::compress(name, context::tar(&inner))))]
        }
        _ => panic!("what is --- {head}?"),
    }
}

fn text_file(name: &str, body: &str, words: &[&str]) -> Entry {
    let mut text = body.trim_end_matches('\n').to_owned();
    if !words.contains(&"nonl") {
        text.push('\n');
    }
    if words.contains(&"crlf") {
        text = text.replace('\n', "\r\n");
    }
    if words.contains(&"bom") {
        text.insert(0, '\u{feff}');
    }
    let mut entry = Entry::new(&context::unescape(name), What::File(text.into_bytes()));
    for word in words {
        if let Some(mode) = word.strip_prefix("mode=") {
            entry.mode = u32::from_str_radix(mode, 8).expect("mode");
        }
    }
    entry
}
