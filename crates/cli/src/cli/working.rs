//! `working`: images made step by step, in Buildah's words.

use super::Action;
use super::tree::{Command, Group, MANY, Names, command};
use crate::args::working as w;
use crate::args::working::Work;
use crate::flags::Count::{AtLeast, Between, Exactly};
use crate::flags::Options;

const FROM: Command = command(
    "from",
    "[OPTIONS] IMAGE|scratch",
    "Make a working container of an image, or of nothing",
    Exactly(1),
    &[w::FromArgs::FLAGS],
    |m| Action::Work(Work::From(Options::from_matches(m))),
)
.names(Names::Images, 1);

const RUN: Command = command(
    "run",
    "[OPTIONS] CONTAINER [--] COMMAND [ARG...]",
    "Run a command in a working container, as RUN in a build",
    AtLeast(2),
    &[w::RunArgs::FLAGS, w::RUN_LATER],
    |m| Action::Work(Work::Run(Options::from_matches(m))),
)
.names(Names::Working, 1)
.foreign_tail()
.long(
    "Run a command in a working container, as RUN in a build\n\n\
     What it writes stays in the container. Its exit code is that of this command; 125 stands for\n\
     what is not its doing. When this command is ended, so is it.",
);

const COPY: Command = command(
    "copy",
    "[OPTIONS] CONTAINER SRC [[SRC...] DEST]",
    "Copy files into a working container, as COPY in a build",
    AtLeast(2),
    &[w::CopyArgs::FLAGS],
    |m| Action::Work(Work::Copy(Options::from_matches(m))),
)
.names(Names::Working, 1)
.long(
    "Copy files into a working container, as COPY in a build\n\n\
     Of a directory the contents are copied. Without DEST they go into the working directory.\n\
     Sources are paths of this machine; with --contextdir they are in that directory, and its\n\
     ignore file applies; with --from they are in another working container or an image.",
);

const ADD: Command = command(
    "add",
    "[OPTIONS] CONTAINER SRC [[SRC...] DEST]",
    "Copy files into a working container, and unpack archives, as ADD in a build",
    AtLeast(2),
    &[w::CopyArgs::FLAGS],
    |m| Action::Work(Work::Add(Options::from_matches(m))),
)
.names(Names::Working, 1);

const CONFIG: Command = command(
    "config",
    "[OPTIONS] CONTAINER",
    "Change what an image of a working container will say",
    Exactly(1),
    &[w::ConfigArgs::FLAGS, w::CONFIG_LATER],
    |m| Action::Work(Work::Config(Box::new(Options::from_matches(m)))),
)
.names(Names::Working, 1);

const COMMIT: Command = command(
    "commit",
    "[OPTIONS] CONTAINER [IMAGE]",
    "Make an image of a working container, which stays as it is",
    Between(1, 2),
    &[w::CommitArgs::FLAGS, w::COMMIT_CHECKED, w::COMMIT_LATER],
    |m| Action::Work(Work::Commit(Options::from_matches(m))),
)
.names(Names::Working, 1);

const LS: Command =
    command("ls", "[OPTIONS]", "List working containers", Exactly(0), &[w::LsArgs::FLAGS], |m| {
        Action::Work(Work::Ls(Options::from_matches(m)))
    })
    .called("ls", &["list", "ps", "containers"]);

const RM: Command = command(
    "rm",
    "[OPTIONS] [CONTAINER...]",
    "Remove working containers",
    AtLeast(0),
    &[w::AllArgs::FLAGS],
    |m| Action::Work(Work::Rm(Options::from_matches(m))),
)
.called("rm", &["remove", "delete"])
.names(Names::Working, MANY);

const MOUNT: Command = command(
    "mount",
    "[CONTAINER...]",
    "Mount the trees of working containers on this machine, or list those that are",
    AtLeast(0),
    &[w::MountArgs::FLAGS],
    |m| Action::Work(Work::Mount(Options::from_matches(m))),
)
.names(Names::Working, MANY);

const UMOUNT: Command = command(
    "umount",
    "[OPTIONS] [CONTAINER...]",
    "Unmount the trees of working containers",
    AtLeast(0),
    &[w::AllArgs::FLAGS],
    |m| Action::Work(Work::Unmount(Options::from_matches(m))),
)
.called("umount", &["unmount"])
.names(Names::Working, MANY);

const INSPECT: Command = command(
    "inspect",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Show what is known of working containers",
    AtLeast(1),
    &[w::InspectArgs::FLAGS],
    |m| Action::Work(Work::Inspect(Options::from_matches(m))),
)
.names(Names::Working, MANY);

const RENAME: Command = command(
    "rename",
    "CONTAINER NEW_NAME",
    "Give a working container another name",
    Exactly(2),
    &[w::RenameArgs::FLAGS],
    |m| Action::Work(Work::Rename(Options::from_matches(m))),
)
.names(Names::Working, 1);

pub(super) const WORKING: Group = Group {
    name: "working",
    about: "Make images step by step",
    usage: " COMMAND",
    commands: &[&ADD, &COMMIT, &CONFIG, &COPY, &FROM, &INSPECT, &LS, &MOUNT, &RENAME, &RM, &RUN, &UMOUNT],
    later: &[],
};
