//! Files that are elsewhere: what the address of a web server's file or of a Git repository says, as data. The rules are
//! BuildKit's. Nothing is fetched here.

mod address;
mod git;
#[cfg(test)]
mod tests;

use longshore_oci::Digest;

use crate::key::KeyWriter;

pub use address::Address;
pub use git::{Repository, is_commit};

/// Files that are elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remote {
    /// A file of a web server.
    File(WebFile),
    /// Files of a Git repository.
    Git(Repository),
}

/// A file of a web server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebFile {
    /// `http` or `https`.
    pub address: Address,
    /// What its content must be.
    pub checksum: Option<Digest>,
}

impl WebFile {
    /// Its name, if the address has one.
    #[must_use]
    pub fn name(&self) -> Option<Vec<u8>> {
        self.address.file_name()
    }
}

/// What a source of ADD means.
///
/// # Errors
/// A reason for people: the address is of a kind that is not fetched, or contradicts itself.
pub fn parse(text: &str) -> Result<Option<Remote>, String> {
    if let Some(repository) = Repository::parse(text)? {
        return Ok(Some(Remote::Git(repository)));
    }
    let Some((scheme, _)) = address::scheme(text) else { return Ok(None) };
    match scheme.to_ascii_lowercase().as_str() {
        "http" | "https" => Ok(Some(Remote::File(WebFile { address: Address::new(text)?, checksum: None }))),
        other => Err(format!("{other}:// is not fetched: use http, https, git or ssh")),
    }
}

/// What the name of a context means: as [`parse`], and `github.com/…` is a repository.
///
/// # Errors
/// As [`parse`].
pub fn parse_context(text: &str) -> Result<Option<Remote>, String> {
    if text.starts_with("github.com/") {
        return Repository::of_url(&format!("https://{text}")).map(|r| Some(Remote::Git(r)));
    }
    parse(text)
}

/// What is at an address at a time: enough to tell whether it is still the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    /// A file.
    File {
        /// The name that it has for directories.
        name: Vec<u8>,
        /// Of its content.
        digest: Digest,
    },
    /// A commit.
    Commit {
        /// Its id, or that of a tag of it: 40 or 64 hexadecimal digits.
        id: String,
        /// The whole name of the branch or tag that it was found by.
        reference: Option<String>,
    },
}

impl Remote {
    /// Wants it to be what a checksum says: the digest of a file, or what the id of a commit begins with. Empty: anything.
    ///
    /// # Errors
    /// A reason for people.
    pub fn expect(&mut self, checksum: &str) -> Result<(), String> {
        match self {
            _ if checksum.is_empty() => {}
            Self::File(file) => {
                let digest = checksum.parse().map_err(|e| format!("checksum {checksum:?}: {e}"))?;
                file.checksum = Some(digest);
            }
            Self::Git(repository) => repository.expect(checksum)?,
        }
        Ok(())
    }

    /// Keeps `.git` of a repository; of a file there is none.
    ///
    /// # Errors
    /// A reason for people: the address says otherwise.
    pub fn keep_git_dir(&mut self, keep: bool) -> Result<(), String> {
        match self {
            Self::Git(repository) if keep => repository.keep(true),
            Self::File(_) if keep => Err("keep-git-dir is for repositories".into()),
            _ => Ok(()),
        }
    }

    /// The address, to be shown.
    #[must_use]
    pub fn address(&self) -> &Address {
        match self {
            Self::File(file) => &file.address,
            Self::Git(repository) => &repository.address,
        }
    }

    /// What a result depends on of these files, once it is known what they are. Where they are is none of it.
    pub(crate) fn describe(&self, pin: &Pin, key: &mut KeyWriter) {
        match (self, pin) {
            (_, Pin::File { name, digest }) => {
                key.bytes("file", name).digest("content", Some(digest));
            }
            (Self::Git(repository), Pin::Commit { id, reference }) => {
                key.text("commit", id).text("subdir", &repository.subdir);
                key.flag("submodules", repository.submodules);
                key.flag("times of checkout", repository.times_of_checkout);
                if repository.keeps_git_dir() {
                    key.text("from", &repository.address.to_string());
                    key.text("reference", reference.as_deref().unwrap_or_default());
                }
            }
            (Self::File(_), Pin::Commit { id, .. }) => {
                key.text("commit", id);
            }
        }
    }
}
