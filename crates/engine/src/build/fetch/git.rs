//! Files of Git repositories.

use std::path::{Path, PathBuf};

use longshore_build::remote::{Pin, Repository, is_commit};
use longshore_build::{Cancel, Error as BuildError, Result};
use longshore_oci::Kind;
use longshore_sys::root::Root;

use super::program::{Git, Ran};
use super::{Fetches, Slot, host, tidy};

/// What a branch or tag is at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The commit.
    commit: String,
    /// The same, or the tag that names it.
    object: String,
    /// The whole name.
    reference: String,
}

impl Fetches<'_> {
    /// Which commit is meant. Nobody has to be asked for one that is given by its id.
    pub(super) fn pin_commit(
        &self,
        repository: &Repository,
        cancel: &Cancel,
        slot: &mut Slot,
    ) -> Result<Pin> {
        if let Some(id) = given(repository)? {
            return Ok(Pin::Commit { id, reference: None });
        }
        // What is checked out is the commit; that the reference still leads to it is looked at then.
        if let Some(id) = repository.checksum.as_ref().filter(|id| is_commit(id))
            && !repository.keeps_git_dir()
        {
            return Ok(Pin::Commit { id: id.clone(), reference: None });
        }
        let found = self.found(repository, cancel, slot)?;
        Ok(Pin::Commit { id: found.commit, reference: Some(found.reference) })
    }

    fn found(&self, repository: &Repository, cancel: &Cancel, slot: &mut Slot) -> Result<Found> {
        if let Some(found) = &slot.found {
            return Ok(found.clone());
        }
        let room = self.room()?;
        let git = Git::new(self, &repository.address, cancel, &room)?;
        let url = git.url();
        let name = repository.reference.as_deref();
        let peeled = name.map(|name| format!("{name}^{{}}"));
        let mut args = vec!["ls-remote", "--symref", "--", &url];
        match (name, &peeled) {
            (Some(name), Some(peeled)) => args.extend([name, peeled]),
            _ => args.push("HEAD"),
        }
        let said = git.run(&args)?;
        let found = find(&said, name).ok_or_else(|| {
            let name = name.unwrap_or("HEAD");
            host(Kind::Invalid, format!("{}: repository does not contain ref {name}", repository.address))
        })?;
        if let Some(wanted) = &repository.checksum
            && !found.commit.starts_with(wanted)
            && !found.object.starts_with(wanted)
        {
            return Err(mismatch(repository, wanted, &found));
        }
        slot.found = Some(found.clone());
        Ok(found)
    }

    /// The files of the commit that was pinned.
    pub(super) fn fetch_commit(
        &self,
        repository: &Repository,
        id: &str,
        cancel: &Cancel,
        slot: &mut Slot,
    ) -> Result<Root> {
        let found = match given(repository)? {
            Some(_) => None,
            None => Some(self.found(repository, cancel, slot)?),
        };
        let room = self.room()?;
        let git = Git::new(self, &repository.address, cancel, &room)?;
        let clone = Clone::new(&git, &room, repository)?;
        let commit = clone.fetch(id, found.as_ref())?;
        clone.check_out(&commit)?;
        if repository.submodules {
            clone.submodules()?;
        }
        let root = Root::open(&clone.tree)?;
        let time = if repository.times_of_checkout { None } else { Some(clone.time(&commit)?) };
        tidy::tidy(&root, repository.keeps_git_dir(), time)?;
        if repository.subdir.is_empty() {
            return Ok(root);
        }
        root.subroot(&repository.subdir).map_err(|_| {
            host(
                Kind::Invalid,
                format!("{}: {:?} is no directory of {id}", repository.address, repository.subdir),
            )
        })
    }
}

/// The commit that an address gives by its id.
fn given(repository: &Repository) -> Result<Option<String>> {
    let wrong = |text: String| Err(host(Kind::Invalid, format!("{}: {text}", repository.address)));
    if let Some(id) = repository.reference.as_ref().filter(|r| is_commit(r)) {
        return match &repository.checksum {
            Some(wanted) if !id.starts_with(wanted) => {
                wrong(format!("expected checksum to match {wanted}, got {id}"))
            }
            _ => Ok(Some(id.clone())),
        };
    }
    if !repository.by_commit {
        return Ok(None);
    }
    match repository.checksum.as_ref().filter(|id| is_commit(id)) {
        Some(id) => Ok(Some(id.clone())),
        None => wrong("fetch-by-commit requires the whole id of a commit, as checksum or ref".into()),
    }
}

fn mismatch(repository: &Repository, wanted: &str, found: &Found) -> BuildError {
    let Found { commit, object, .. } = found;
    let got = if commit == object { commit.clone() } else { format!("{object} or {commit}") };
    host(Kind::Invalid, format!("{}: expected checksum to match {wanted}, got {got}", repository.address))
}

/// What a name means among the lines of `ls-remote`: a whole name, a branch, a tag, as BuildKit has it.
fn find(lines: &str, name: Option<&str>) -> Option<Found> {
    let of = |reference: &str| {
        let ids = lines.lines().filter_map(|line| line.split_once('\t'));
        let mut ids = ids.filter(|(id, name)| *name == reference && is_commit(id));
        ids.next().map(|(id, _)| id.to_owned())
    };
    let Some(name) = name else {
        let commit = of("HEAD")?;
        let target = lines.lines().find_map(|l| l.strip_prefix("ref: ")?.strip_suffix("\tHEAD"));
        let reference = target.unwrap_or("HEAD").to_owned();
        return Some(Found { object: commit.clone(), commit, reference });
    };
    let bare = |prefix: &str| format!("{prefix}{}", name.strip_prefix(prefix).unwrap_or(name));
    let [whole, branch, tag] = ["refs/", "refs/heads/", "refs/tags/"].map(bare);
    [whole, branch, tag].into_iter().find_map(|reference| {
        let object = of(&reference)?;
        let commit = of(&format!("{reference}^{{}}")).unwrap_or_else(|| object.clone());
        Some(Found { commit, object, reference })
    })
}

/// A repository on its way to files.
struct Clone<'a> {
    git: &'a Git<'a>,
    repository: &'a Repository,
    dir: String,
    tree: PathBuf,
}

impl<'a> Clone<'a> {
    fn new(git: &'a Git<'a>, room: &Path, repository: &'a Repository) -> Result<Self> {
        let tree = room.join("tree");
        crate::engine::make_dir(&tree, 0o755).map_err(super::to_build)?;
        let dir = if repository.keeps_git_dir() { tree.join(".git") } else { room.join("repository") };
        let dir = dir.to_str().map(str::to_owned);
        let dir =
            dir.ok_or_else(|| BuildError::Invalid("git needs a data root whose path is text".into()))?;
        Ok(Self { git, repository, dir, tree })
    }

    fn run(&self, args: &[&str]) -> Result<String> {
        let (dir, tree) = self.places();
        self.git.run(&[&[dir.as_str(), tree.as_str()], args].concat())
    }

    fn try_run(&self, args: &[&str]) -> Result<Ran> {
        let (dir, tree) = self.places();
        self.git.try_run(&[&[dir.as_str(), tree.as_str()], args].concat())
    }

    fn places(&self) -> (String, String) {
        (format!("--git-dir={}", self.dir), format!("--work-tree={}", self.tree.display()))
    }

    /// Fetches a commit, as little beside it as the server allows; its id.
    fn fetch(&self, id: &str, found: Option<&Found>) -> Result<String> {
        let mut init = vec!["init", "-q", "--template="];
        init.extend((id.len() == 64).then_some("--object-format=sha256"));
        self.run(&init)?;
        let url = self.git.url();
        self.run(&["config", "remote.origin.url", &url])?;
        match found {
            None => self.fetch_id(id)?,
            Some(found) => {
                self.fetch_reference(&found.reference)?;
                // It was pinned before; meanwhile it may lead somewhere else.
                if self.commit(id)?.is_none() {
                    self.fetch_id(id)?;
                }
            }
        }
        let commit = self.commit(id)?.ok_or_else(|| {
            host(Kind::Invalid, format!("{}: there is no commit {id}", self.repository.address))
        })?;
        match found {
            // By its checksum: the reference has to lead to that.
            Some(found) if found.commit != commit => Err(mismatch(self.repository, id, found)),
            _ => Ok(commit),
        }
    }

    fn fetch_reference(&self, reference: &str) -> Result<()> {
        let spec = match reference {
            "HEAD" => reference.to_owned(),
            name => format!("+{name}:{name}"),
        };
        match self.fetch_spec(true, &[&spec])? {
            Ran::Well(_) => Ok(()),
            // A server of plain files gives all or nothing.
            Ran::Badly(why) if why.contains("shallow") || why.contains("--depth") => {
                self.whole(self.fetch_spec(false, &[&spec])?)
            }
            Ran::Badly(why) => Err(self.git.failure(&why)),
        }
    }

    /// A commit by its id; where the server does not give that, with all that there is.
    fn fetch_id(&self, id: &str) -> Result<()> {
        if let Ran::Well(_) = self.fetch_spec(true, &[id])? {
            return Ok(());
        }
        let all = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"];
        self.whole(self.fetch_spec(false, &all)?)
    }

    fn fetch_spec(&self, shallow: bool, specs: &[&str]) -> Result<Ran> {
        let mut args = vec!["fetch", "-q", "--update-head-ok", "--no-tags"];
        args.extend(shallow.then_some("--depth=1"));
        args.extend(["--", "origin"]);
        args.extend(specs);
        self.try_run(&args)
    }

    fn whole(&self, ran: Ran) -> Result<()> {
        match ran {
            Ran::Well(_) => Ok(()),
            Ran::Badly(why) => Err(self.git.failure(&why)),
        }
    }

    /// The commit that an object is, or names; `None` where it is not here.
    fn commit(&self, id: &str) -> Result<Option<String>> {
        match self.try_run(&[
            "rev-parse",
            "-q",
            "--verify",
            "--end-of-options",
            &format!("{id}^{{commit}}"),
        ])? {
            Ran::Well(said) => Ok(Some(said.trim().to_owned()).filter(|c| is_commit(c))),
            Ran::Badly(_) => Ok(None),
        }
    }

    fn check_out(&self, commit: &str) -> Result<()> {
        self.run(&["checkout", "-q", "-f", "--detach", commit])?;
        if !self.repository.keeps_git_dir() {
            return Ok(());
        }
        // What tells nobody anything but where it was made.
        self.run(&["config", "remote.origin.url", &self.repository.address.to_string()])?;
        self.run(&["config", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"])?;
        for name in ["FETCH_HEAD", "ORIG_HEAD"] {
            // Where it is not, all the better.
            let _ = std::fs::remove_file(Path::new(&self.dir).join(name));
        }
        Ok(())
    }

    /// The repositories that the tree names: by the same protocols, and with the settings of this one.
    fn submodules(&self) -> Result<()> {
        if self.tree.join(".gitmodules").symlink_metadata().is_err() {
            return Ok(());
        }
        let update = |depth: &[&str]| {
            let tree = self.tree.display().to_string();
            let args = ["-C", &tree, "submodule", "-q", "update", "--init", "--recursive"];
            self.try_run(&[&args, depth].concat())
        };
        match update(&["--depth=1"])? {
            Ran::Well(_) => Ok(()),
            Ran::Badly(_) => self.whole(update(&[])?),
        }
    }

    /// When a commit was made, in seconds since 1970.
    fn time(&self, commit: &str) -> Result<i64> {
        let said = self.run(&["log", "-1", "--format=%ct", commit])?;
        said.trim().parse().map_err(|_| {
            host(Kind::Invalid, format!("{}: commit {commit} has no time", self.repository.address))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = "ref: refs/heads/main\tHEAD\n\
        1111111111111111111111111111111111111111\tHEAD\n\
        1111111111111111111111111111111111111111\trefs/heads/main\n\
        2222222222222222222222222222222222222222\trefs/heads/x/main\n\
        3333333333333333333333333333333333333333\trefs/tags/v1\n\
        4444444444444444444444444444444444444444\trefs/tags/v1^{}\n\
        5555555555555555555555555555555555555555\trefs/tags/main\n\
        not an id\trefs/heads/bad\n";

    #[test]
    fn names_are_looked_for_as_git_does() {
        let found = |name: Option<&str>| {
            find(LINES, name).map(|f| format!("{} {} {}", &f.commit[..1], &f.object[..1], f.reference))
        };
        for (name, want) in [
            (None, Some("1 1 refs/heads/main")),
            (Some("main"), Some("1 1 refs/heads/main")),
            (Some("refs/tags/main"), Some("5 5 refs/tags/main")),
            (Some("tags/main"), Some("5 5 refs/tags/main")),
            (Some("x/main"), Some("2 2 refs/heads/x/main")),
            (Some("v1"), Some("4 3 refs/tags/v1")),
            (Some("bad"), None),
            (Some("none"), None),
        ] {
            assert_eq!(found(name).as_deref(), want, "{name:?}");
        }
    }
}
