//! `.dockerignore`: which files of a context a build may see. Pure.
//!
//! The meaning is that of Docker's documentation, "Dockerignore files", and of its matcher: comments start with `#`
//! in the first column; the last line that matches a path, or a directory above it, decides; a slash at either end
//! means nothing; nothing takes out the context's root.

#[cfg(test)]
mod tests;

use crate::pattern::{self, MAX_PATTERN, PatternList, Scope, Verdict, clean, clean_in_root, trim};

/// Bytes of an ignore file.
pub const MAX_FILE: usize = 1 << 20;

/// The ignore file of a context, where the Dockerfile has none of its own.
pub const FILE_NAME: &[u8] = b".dockerignore";

/// Why an ignore file is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A line is no pattern.
    #[error("ignore file: line {line}: {source}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong with it.
        source: pattern::Error,
    },
    /// Over [`MAX_FILE`].
    #[error("ignore file of {0} bytes: at most {MAX_FILE} are read")]
    TooLarge(usize),
    /// Too many patterns, counting those added for the builder's own files.
    #[error("ignore file: {0}")]
    Pattern(#[from] pattern::Error),
}

/// The patterns of an ignore file; the default excludes nothing.
#[derive(Clone, Debug, Default)]
pub struct Ignore {
    patterns: PatternList,
}

impl Ignore {
    /// Reads an ignore file.
    ///
    /// # Errors
    /// Naming the line that is malformed or too long.
    pub fn parse(file: &[u8]) -> Result<Self, Error> {
        if file.len() > MAX_FILE {
            return Err(Error::TooLarge(file.len()));
        }
        let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
        let mut ignore = Self::default();
        for (at, line) in file.split(|b| *b == b'\n').enumerate() {
            ignore.line(line).map_err(|source| Error::Line { line: at + 1, source })?;
        }
        Ok(ignore)
    }

    fn line(&mut self, line: &[u8]) -> Result<(), pattern::Error> {
        if line.first() == Some(&b'#') {
            return Ok(());
        }
        if line.len() > MAX_PATTERN {
            return Err(pattern::Error::TooLong(line.len()));
        }
        let line = trim(line);
        let (mark, path) = match line.strip_prefix(b"!") {
            Some(rest) => (&b"!"[..], trim(rest)),
            None => (&b""[..], line),
        };
        if path.is_empty() {
            return self.patterns.push(mark);
        }
        let path = clean(path);
        let path = if path.len() > 1 { path.strip_prefix(b"/").unwrap_or(&path) } else { &path };
        self.patterns.push(&[mark, path].concat())
    }

    /// Whether nothing is excluded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether the file or directory at `path`, relative to the context's root, is excluded. A directory that is
    /// may still hold files that are not: see [`Ignore::may_skip_dir`].
    #[must_use]
    pub fn excludes(&self, path: &[u8]) -> bool {
        self.patterns.verdict(path).matched
    }

    /// Whether a walk need not look into the directory `path`: it is excluded, and no exception can match below it.
    #[must_use]
    pub fn may_skip_dir(&self, path: &[u8]) -> bool {
        let Verdict { matched, open_below } = self.patterns.verdict(path);
        matched && !open_below
    }

    /// For walks: the patterns themselves.
    #[must_use]
    pub fn patterns(&self) -> &PatternList {
        &self.patterns
    }

    /// For walks: what is known at the root.
    #[must_use]
    pub fn scope(&self) -> Scope {
        self.patterns.scope()
    }

    /// The same, with all left out that is neither at nor below one of the paths `leads`, unless an exception of the file
    /// names it.
    ///
    /// # Errors
    /// When there are too many patterns.
    pub fn within(&self, leads: &[Vec<u8>]) -> Result<Self, Error> {
        let mut patterns = PatternList::new([b"**"])?;
        for lead in leads {
            patterns.push_exact_exception(lead)?;
        }
        patterns.extend(&self.patterns)?;
        Ok(Self { patterns })
    }

    /// The same with `paths` let in, which the builder itself reads: when a context is sent elsewhere, the Dockerfile
    /// and the ignore file go along even where they are excluded. Whoever receives it applies the ignore file as it
    /// is, and copies neither.
    ///
    /// # Errors
    /// When there are too many patterns.
    pub fn sending<'a>(&self, paths: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, Error> {
        let mut sent = self.clone();
        for path in paths {
            let path = clean_in_root(path);
            if sent.excludes(&path) {
                sent.patterns.push_exact_exception(&path)?;
            }
        }
        Ok(sent)
    }
}

/// The names of the ignore files that may apply, relative to the directory that the Dockerfile's path is relative to,
/// in their order: the first that is there counts, alone. The first lies beside the Dockerfile and has its name; the
/// second lies at the context's root.
#[must_use]
pub fn candidates(dockerfile: &[u8]) -> [Vec<u8>; 2] {
    [[dockerfile, FILE_NAME].concat(), FILE_NAME.to_vec()]
}
