//! `build`, and the groups that it is in besides `image`.

use super::Action;
use super::tree::{Command, Group, Names, command};
use crate::args::build::{BUILD_CHECKED, BUILD_LATER, BuildArgs, BuilderDuArgs, BuilderPruneArgs};
use crate::flags::Count::Exactly;
use crate::flags::Options;

pub(super) const BUILD: Command = command(
    "build",
    "[OPTIONS] PATH | URL | -",
    "Build an image from a Dockerfile",
    Exactly(1),
    &[BuildArgs::FLAGS, BUILD_CHECKED, BUILD_LATER],
    |m| Action::Build(Box::new(Options::from_matches(m))),
)
.also(&["image build", "build", "builder build", "buildx build"])
.names(Names::Files, 1)
.long(
    "Build an image from a Dockerfile\n\n\
     PATH is the directory with the files that the Dockerfile may use; what its .dockerignore\n\
     leaves out is not sent. With - the standard input is read: a tar with those files, or the\n\
     Dockerfile itself. --file - reads the Dockerfile from the standard input. A URL is fetched\n\
     by the daemon: a Git repository (https://host/x.git#branch:directory), or of the web a tar\n\
     or the Dockerfile itself.",
);

const PRUNE: Command =
    command("prune", "[OPTIONS]", "Remove build cache", Exactly(0), &[BuilderPruneArgs::FLAGS], |m| {
        Action::BuilderPrune(Options::from_matches(m))
    });

const DU: Command =
    command("du", "[OPTIONS]", "Disk usage of the build cache", Exactly(0), &[BuilderDuArgs::FLAGS], |m| {
        Action::BuilderDu(Options::from_matches(m))
    });

pub(super) const BUILDER: Group = Group {
    name: "builder",
    about: "Manage builds",
    usage: "",
    commands: &[&BUILD, &PRUNE, &DU],
    later: &[],
};

pub(super) const BUILDX: Group = Group {
    name: "buildx",
    about: "Manage builds, under the name of docker's plugin",
    usage: "",
    commands: &[&BUILD.called("build", &["b"])],
    later: &[
        "bake",
        "create",
        "dial-stdio",
        "du",
        "history",
        "imagetools",
        "inspect",
        "ls",
        "prune",
        "rm",
        "stop",
        "use",
        "version",
    ],
};
