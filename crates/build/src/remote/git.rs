//! Addresses of Git repositories: `https://host/x.git#ref:subdir`, `git@host:x`, and the form with a query.

use super::address::{Address, authority, decode, scheme};
use crate::pattern::clean_in_root;

/// Bytes of the name of a branch or tag.
const MAX_REFERENCE: usize = 1024;

/// Files of a Git repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// Where it is: without query and fragment.
    pub address: Address,
    /// A branch, a tag or a commit; `None`: what the repository itself points to.
    pub reference: Option<String>,
    /// The directory that is wanted, from the root on; empty: the root.
    pub subdir: String,
    /// What the id of the commit, or of the tag, begins with: hexadecimal digits in lower case.
    pub checksum: Option<String>,
    /// The commit is fetched by its id, whatever the reference is by now.
    pub by_commit: bool,
    /// `.git` is among the files.
    pub keep_git_dir: Option<bool>,
    /// So are the files of submodules.
    pub submodules: bool,
    /// Files are as old as their checkout, not as the commit.
    pub times_of_checkout: bool,
}

/// Whether a text is the whole id of a commit.
#[must_use]
pub fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

impl Repository {
    /// The repository that a text names; `None` for what is none of one.
    ///
    /// # Errors
    /// A reason for people.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, String> {
        if is_scp(text) {
            return Self::of_scp(text).map(Some);
        }
        let Some((scheme, rest)) = scheme(text) else { return Ok(None) };
        match scheme.to_ascii_lowercase().as_str() {
            "git" | "ssh" => Self::of_url(text).map(Some),
            // Any other address of the web is one of a file.
            "http" | "https" if path_of(rest).ends_with(".git") => Self::of_url(text).map(Some),
            _ => Ok(None),
        }
    }

    pub(super) fn of_url(text: &str) -> Result<Self, String> {
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
        let fragment = String::from_utf8_lossy(&decode(fragment)).into_owned();
        Self::new(address, query, &fragment)
    }

    fn of_scp(text: &str) -> Result<Self, String> {
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
        Self::new(address, query, fragment)
    }

    fn new(address: &str, query: &str, fragment: &str) -> Result<Self, String> {
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        let mut repository = Self {
            address: Address::new(address)?,
            reference: Some(reference.to_owned()).filter(|r| !r.is_empty()),
            subdir: clean(subdir),
            checksum: None,
            by_commit: false,
            keep_git_dir: None,
            submodules: true,
            times_of_checkout: false,
        };
        repository.query(query)?;
        if let Some(reference) = &repository.reference {
            check_reference(reference)?;
        }
        Ok(repository)
    }

    /// Whether `.git` is among the files: only the root has one.
    #[must_use]
    pub fn keeps_git_dir(&self) -> bool {
        self.keep_git_dir == Some(true) && self.subdir.is_empty()
    }

    /// Wants a commit whose id begins so.
    ///
    /// # Errors
    /// A reason for people: it is no id, or another than the one that the address has.
    pub fn expect(&mut self, checksum: &str) -> Result<(), String> {
        let checksum = checksum.to_ascii_lowercase();
        if checksum.is_empty() || checksum.len() > 64 || !checksum.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(format!(
                "invalid checksum {checksum:?} for a Git repository: want the id of a commit"
            ));
        }
        match &self.checksum {
            Some(other) if *other != checksum => Err(format!("checksum mismatch {checksum:?} != {other:?}")),
            _ => {
                self.checksum = Some(checksum);
                Ok(())
            }
        }
    }

    /// Keeps `.git`, or does not.
    ///
    /// # Errors
    /// A reason for people: the address says otherwise.
    pub fn keep(&mut self, keep: bool) -> Result<(), String> {
        if self.keep_git_dir.is_some_and(|own| own != keep) {
            return Err("inconsistent keep-git-dir configuration".into());
        }
        self.keep_git_dir = Some(keep);
        Ok(())
    }

    /// `ref`, `tag`, `branch`, `subdir`, `checksum` and `commit`, `keep-git-dir`, `submodules`, `mtime`,
    /// `fetch-by-commit` (docs.docker.com/build/concepts/context/#url-queries).
    fn query(&mut self, query: &str) -> Result<(), String> {
        let mut seen = Vec::new();
        let (mut tag, mut branch) = (None, None);
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let text = |part: &str| String::from_utf8_lossy(&decode(&part.replace('+', " "))).into_owned();
            let (name, value) = (text(name), text(value));
            if seen.contains(&name) {
                return Err(format!("query {name:?} has multiple values"));
            }
            if value.is_empty() && !matches!(name.as_str(), "keep-git-dir" | "submodules" | "fetch-by-commit")
            {
                return Err(format!("query {name:?} has no value"));
            }
            match name.as_str() {
                "ref" => self.refer(value)?,
                "tag" => tag = Some(qualified("refs/tags/", value)),
                "branch" => branch = Some(qualified("refs/heads/", value)),
                "subdir" => self.below(&value)?,
                "checksum" | "commit" => self.expect(&value)?,
                "keep-git-dir" => self.keep_git_dir = Some(flag(&name, &value)?),
                "submodules" => self.submodules = flag(&name, &value)?,
                "fetch-by-commit" => self.by_commit = flag(&name, &value)?,
                "mtime" => {
                    self.times_of_checkout = match value.as_str() {
                        "checkout" => true,
                        "commit" => false,
                        _ => {
                            return Err(format!(
                                "invalid mtime value: {value:?} (must be \"checkout\" or \"commit\")"
                            ));
                        }
                    };
                }
                _ => return Err(format!("unexpected query {name:?}")),
            }
            seen.push(name);
        }
        if tag.is_some() && branch.is_some() {
            return Err("branch conflicts with tag".into());
        }
        tag.or(branch).map_or(Ok(()), |reference| self.refer(reference))
    }

    fn refer(&mut self, reference: String) -> Result<(), String> {
        match &self.reference {
            Some(other) if *other != reference => Err(format!("ref conflicts: {other:?} vs {reference:?}")),
            _ => {
                self.reference = Some(reference);
                Ok(())
            }
        }
    }

    fn below(&mut self, subdir: &str) -> Result<(), String> {
        let cleaned = clean(subdir);
        if !self.subdir.is_empty() && self.subdir != cleaned {
            return Err(format!("subdir conflicts: {:?} vs {subdir:?}", self.subdir));
        }
        self.subdir = cleaned;
        Ok(())
    }
}

/// `user@host:path`
fn is_scp(text: &str) -> bool {
    let Some((user, rest)) = text.split_once('@') else { return false };
    let Some((host, path)) = rest.split_once(':') else { return false };
    let known = |text: &str, more: &[u8]| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
    };
    known(user, b"-_") && known(host, b"-.") && !path.is_empty()
}

fn path_of(rest: &str) -> &str {
    rest.get(authority(rest).len()..).unwrap_or_default().split(['?', '#']).next().unwrap_or_default()
}

fn clean(subdir: &str) -> String {
    String::from_utf8_lossy(&clean_in_root(subdir.as_bytes())).into_owned()
}

fn qualified(prefix: &str, name: String) -> String {
    if name.starts_with(prefix) { name } else { format!("{prefix}{name}") }
}

/// As Go reads it; without a value it is set.
fn flag(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("invalid {name} value: {value:?}")),
    }
}

/// What git takes for the name of a branch, a tag or a commit, and nothing that would be a pattern or an option.
fn check_reference(name: &str) -> Result<(), String> {
    let special = |b: u8| b <= b' ' || b == 0x7f || b"~^:?*[\\".contains(&b);
    let bad = name.len() > MAX_REFERENCE
        || name.starts_with(['-', '/'])
        || name.ends_with(['/', '.'])
        || name.contains("..")
        || name.contains("@{")
        || name.contains("//")
        || name.bytes().any(special);
    if bad { Err(format!("invalid Git reference {:?}", name.get(..200).unwrap_or(name))) } else { Ok(()) }
}
