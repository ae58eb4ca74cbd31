//! The builders that ours is compared with.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::answer::{self, Answer, Base};
use super::cases::Case;
use super::context;

/// Names of what is built, for a while.
const TAG: &str = "longshore-build-diff";

/// A builder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Docker's newer one, which is the reference.
    #[default]
    BuildKit,
    /// Docker's older one.
    Classic,
    Buildah,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::BuildKit, Self::Classic, Self::Buildah];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::BuildKit => "buildkit",
            Self::Classic => "classic",
            Self::Buildah => "buildah",
        }
    }

    pub(crate) fn named(name: &str) -> Self {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .unwrap_or_else(|| panic!("there is no builder {name}"))
    }

    /// The variable that says how it is called.
    fn variable(self) -> &'static str {
        match self {
            Self::BuildKit => "PEER_BUILDX",
            Self::Classic => "DOCKER_PEER_HOST",
            Self::Buildah => "PEER_BUILDAH",
        }
    }
}

/// A builder that can be asked.
#[derive(Debug)]
pub(crate) struct Peer {
    kind: Kind,
    /// For the classic builder the daemon, for the others the beginning of the command.
    how: String,
    share: PathBuf,
}

impl Peer {
    /// As the environment says; `None` when it does not name it.
    pub(crate) fn from_env(kind: Kind) -> Option<Self> {
        let how = std::env::var(kind.variable()).ok()?;
        let share = std::env::var_os("PEER_SHARE").map_or_else(std::env::temp_dir, PathBuf::from);
        let peer = Self { kind, how, share: share.join(TAG) };
        std::fs::create_dir_all(&peer.share).expect("PEER_SHARE");
        Some(peer)
    }

    /// Gives it the image that all cases begin with.
    pub(crate) fn load(&self, archive: &Path) {
        let file = self.share.join("base.tar");
        std::fs::copy(archive, &file).expect("copy the fixture");
        let file = file.to_str().expect("utf-8");
        let args = match self.kind {
            Kind::Buildah => vec!["pull".to_owned(), "-q".into(), format!("docker-archive:{file}")],
            _ => vec!["load".to_owned(), "-q".into(), "-i".into(), file.to_owned()],
        };
        let out = if self.kind == Kind::Buildah { self.words() } else { docker() }.args(args).output();
        let out = out.expect("a client");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }

    /// What it makes of a case, and what it said.
    pub(crate) fn build(&self, case: &Case, base: &Base) -> (Answer, String) {
        let dir = self.share.join(format!("{}-{}", self.kind.name(), case.name));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).expect("mkdir");
        context::write(&case.context, &dir);
        let tag = format!("{TAG}/{}:{}", self.kind.name(), case.name.to_lowercase());
        let mut build = match self.kind {
            Kind::Classic => docker(),
            _ => self.words(),
        };
        build.args(["build", "-t", &tag]);
        match self.kind {
            Kind::Buildah => {
                build.args(["--layers=false", "--isolation=chroot", "--format=docker", "--pull=never"])
            }
            Kind::Classic => build.env("DOCKER_BUILDKIT", "0").arg("--no-cache"),
            Kind::BuildKit => build.args(["--no-cache", "--provenance=false", "--progress=plain"]),
        };
        if !case.target.is_empty() {
            build.args(["--target", &case.target]);
        }
        if !case.file.is_empty() {
            build.arg("-f").arg(dir.join(&case.file));
        }
        for (key, value) in &case.args {
            build.args(["--build-arg", &format!("{key}={value}")]);
        }
        for (key, value) in &case.labels {
            build.args(["--label", &format!("{key}={value}")]);
        }
        let out = build.arg(&dir).output().expect("a builder");
        let said = [out.stdout, out.stderr].map(|s| String::from_utf8_lossy(&s).into_owned()).concat();
        let answer = match out.status.success() {
            true => {
                self.export(&tag).map_or_else(answer::empty, |archive| answer::of_archive(&archive, base))
            }
            false => answer::failed(),
        };
        std::fs::remove_dir_all(&dir).expect("remove");
        (answer, said)
    }

    /// The image as an archive; Docker makes none of an image without layers.
    fn export(&self, tag: &str) -> Option<Vec<u8>> {
        let file = self.share.join(format!("{}.tar", self.kind.name()));
        let _ = std::fs::remove_file(&file);
        let name = file.to_str().expect("utf-8");
        let (mut save, mut remove) = match self.kind {
            Kind::Buildah => (self.words(), self.words()),
            _ => (docker(), docker()),
        };
        match self.kind {
            Kind::Buildah => save.args(["push", "-q", tag, &format!("docker-archive:{name}")]),
            _ => save.args(["save", "-o", name, tag]),
        };
        let saved = save.output().expect("a client");
        assert!(remove.args(["rmi", "-f", tag]).output().expect("a client").status.success(), "remove {tag}");
        let said = String::from_utf8_lossy(&saved.stderr);
        if said.contains("empty export") {
            return None;
        }
        assert!(saved.status.success(), "{tag}: {said}");
        Some(std::fs::read(&file).expect("an archive"))
    }

    fn words(&self) -> Command {
        let mut words = self.how.split(' ');
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        command
    }
}

/// The docker command line, for the peer.
fn docker() -> Command {
    let mut command = Command::new("docker");
    command.env("DOCKER_HOST", std::env::var("DOCKER_PEER_HOST").expect("DOCKER_PEER_HOST"));
    command.env_remove("DOCKER_CONTEXT");
    command
}
