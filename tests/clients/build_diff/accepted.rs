//! Where our builds may differ from BuildKit's, and why.

/// A difference that is meant.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// Of which case; `*` at its end stands for any rest.
    pub(crate) case: &'static str,
    /// Of the answer; `*` at its end stands for any rest.
    pub(crate) key: &'static str,
    /// Why.
    #[allow(dead_code, reason = "shown when the entry is no longer needed")]
    pub(crate) why: &'static str,
}

impl Accepted {
    pub(crate) fn covers(&self, case: &str, key: &str) -> bool {
        let fits = |pattern: &str, text: &str| match pattern.strip_suffix('*') {
            Some(start) => text.starts_with(start),
            None => text == pattern,
        };
        fits(self.case, case) && fits(self.key, key)
    }
}

const fn accept(case: &'static str, key: &'static str, why: &'static str) -> Accepted {
    Accepted { case, key, why }
}

const CAPABLE: &str = "attributes of a context's files are kept, as Buildah does; BuildKit loses them where it gives the files to root";
const DOCUMENTED: &str = "as the documentation has it; so does Buildah";
const LINKED: &str = "the recorded builder cannot link layers and copies; linked, nothing below is looked at";
const MORE: &str = "a number names a stage here as elsewhere";
const EARLY: &str = "stages that nothing needs are checked, too, as by the classic builder";
const ROOTED: &str = "a link that leads out of a tree leads to its root, and nothing is written elsewhere";

/// All of them.
pub(crate) const ACCEPTED: &[Accepted] = &[
    accept("add-tar-dotdot", "fails", ROOTED),
    accept("copy-capability", "/again/capable", CAPABLE),
    accept("copy-capability", "/chowned", CAPABLE),
    accept("copy-user-attributes", "/to/a", CAPABLE),
    accept("exclude-file", "/to/two.txt", DOCUMENTED),
    accept("link-flag-over-link", "/link*", LINKED),
    accept("link-flag-over-link", "/real/one.txt", LINKED),
    accept("link-flag-workdir", "/w", LINKED),
    accept("stages-target-number", "fails", MORE),
    accept("stages-from-later-unused", "fails", EARLY),
    accept("stages-capability", "/three/moved", CAPABLE),
    accept("stages-capability", "/two", CAPABLE),
];
