//! Every command: its words, its options, how many arguments it takes, and what it becomes.

mod layers;

use super::Action;
use super::build::{BUILD, BUILDER, BUILDX};
use super::network::{NETWORK, PORTS};
use super::registry::{LOGIN, LOGOUT, MANIFEST_INSPECT, MANIFEST_REFERRERS, PULL, PUSH, SEARCH};
use super::working::WORKING;
use crate::args::container as c;
use crate::args::create::{self, CreateArgs, RunOptions};
use crate::args::{image as i, object as o, system as s, update as u};
use crate::flags::{Count, Flag, Matches, Options};

/// What a command's arguments are, for shells that complete them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    Nothing,
    /// Files of this machine.
    Files,
    /// Containers in any state.
    Containers,
    /// Containers that run.
    Running,
    /// Containers that do not run.
    Stopped,
    /// Containers that are paused.
    Paused,
    Images,
    Volumes,
    Networks,
    /// Registries whose credentials are kept.
    Registries,
    /// Working containers.
    Working,
    /// Containers, images, volumes and networks.
    Objects,
}

/// One command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Command {
    pub(crate) name: &'static str,
    /// Other names in the same place.
    pub(crate) aliases: &'static [&'static str],
    /// What follows the name in usage.
    pub(crate) usage: &'static str,
    /// One line about it.
    pub(crate) about: &'static str,
    /// More about it, instead of that line.
    pub(crate) long: &'static str,
    /// Every way to call it, where there are several.
    pub(crate) also: &'static [&'static str],
    pub(crate) count: Count,
    /// Options may follow arguments.
    pub(crate) mixed: bool,
    pub(crate) flags: &'static [&'static [Flag]],
    pub(crate) names: Names,
    /// How many arguments are such names.
    pub(crate) named: usize,
    pub(crate) make: fn(&Matches) -> Action,
}

/// Commands with a common first word.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// What follows the name in the usage of a word that it does not know; docker has it at one group only.
    pub(crate) usage: &'static str,
    pub(crate) commands: &'static [&'static Command],
    /// Docker's that are not there yet.
    pub(crate) later: &'static [&'static str],
}

pub(super) const MANY: usize = usize::MAX;

pub(super) const fn command(
    name: &'static str,
    usage: &'static str,
    about: &'static str,
    count: Count,
    flags: &'static [&'static [Flag]],
    make: fn(&Matches) -> Action,
) -> Command {
    Command {
        name,
        aliases: &[],
        usage,
        about,
        long: "",
        also: &[],
        count,
        mixed: true,
        flags,
        names: Names::Nothing,
        named: 0,
        make,
    }
}

impl Command {
    pub(super) const fn also(mut self, also: &'static [&'static str]) -> Self {
        self.also = also;
        self
    }

    pub(super) const fn names(mut self, names: Names, named: usize) -> Self {
        self.names = names;
        self.named = named;
        self
    }

    /// The same command under another name of a group.
    pub(super) const fn called(mut self, name: &'static str, aliases: &'static [&'static str]) -> Self {
        self.name = name;
        self.aliases = aliases;
        self
    }

    /// What follows the first argument is another program's.
    pub(super) const fn foreign_tail(mut self) -> Self {
        self.mixed = false;
        self
    }

    pub(super) const fn long(mut self, long: &'static str) -> Self {
        self.long = long;
        self
    }

    /// Its options, one list.
    pub(crate) fn all_flags(&self) -> Vec<Flag> {
        let mut out: Vec<Flag> = Vec::new();
        for flag in self.flags.iter().copied().flatten() {
            if !out.iter().any(|f| f.long == flag.long) {
                out.push(*flag);
            }
        }
        out
    }
}

use Count::{AtLeast, AtMost, Between, Exactly};

const RUN: Command = command(
    "run",
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    "Create and run a new container from an image",
    AtLeast(1),
    &[create::RUN_PULL, RunOptions::FLAGS, CreateArgs::FLAGS, create::HIDDEN],
    |m| {
        Action::Run(Box::new(super::RunArgs {
            options: RunOptions::from_matches(m),
            create: CreateArgs::from_matches(m),
        }))
    },
)
.also(&["container run", "run"])
.names(Names::Images, 1)
.foreign_tail();

const CREATE: Command = command(
    "create",
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    "Create a new container",
    AtLeast(1),
    &[CreateArgs::FLAGS, create::HIDDEN],
    |m| Action::Create(Box::new(Options::from_matches(m))),
)
.also(&["container create", "create"])
.names(Names::Images, 1)
.foreign_tail();

const EXEC: Command = command(
    "exec",
    "[OPTIONS] CONTAINER COMMAND [ARG...]",
    "Execute a command in a running container",
    AtLeast(2),
    &[c::ExecArgs::FLAGS],
    |m| Action::Exec(Options::from_matches(m)),
)
.also(&["container exec", "exec"])
.names(Names::Running, 1)
.foreign_tail();

const PS: Command = command("ps", "[OPTIONS]", "List containers", Exactly(0), &[c::PsArgs::FLAGS], |m| {
    Action::Ps(Options::from_matches(m))
})
.also(&["container ls", "container list", "container ps", "ps"]);

const ATTACH: Command = command(
    "attach",
    "[OPTIONS] CONTAINER",
    "Attach local standard input, output, and error streams to a running container",
    Exactly(1),
    &[c::AttachArgs::FLAGS],
    |m| Action::Attach(Options::from_matches(m)),
)
.also(&["container attach", "attach"])
.names(Names::Running, 1);

const COMMIT: Command = command(
    "commit",
    "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    "Create a new image from a container's changes",
    Between(1, 2),
    &[c::CommitArgs::FLAGS],
    |m| Action::Commit(Options::from_matches(m)),
)
.also(&["container commit", "commit"])
.names(Names::Containers, 1);

const CP: Command = command(
    "cp",
    "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\tdocker cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    "Copy files/folders between a container and the local filesystem",
    Exactly(2),
    &[c::CpArgs::FLAGS],
    |m| Action::Cp(Options::from_matches(m)),
)
.also(&["container cp", "cp"])
.names(Names::Files, 2)
.long(
    "Copy files/folders between a container and the local filesystem\n\n\
     Use '-' as the source to read a tar archive from stdin\n\
     and extract it to a directory destination in a container.\n\
     Use '-' as the destination to stream a tar archive of a\n\
     container source to stdout.",
);

const DIFF: Command = command(
    "diff",
    "CONTAINER",
    "Inspect changes to files or directories on a container's filesystem",
    Exactly(1),
    &[c::DiffArgs::FLAGS],
    |m| Action::Diff(Options::from_matches(m)),
)
.also(&["container diff", "diff"])
.names(Names::Containers, 1);

const EXPORT: Command = command(
    "export",
    "[OPTIONS] CONTAINER",
    "Export a container's filesystem as a tar archive",
    Exactly(1),
    &[c::ExportArgs::FLAGS],
    |m| Action::Export(Options::from_matches(m)),
)
.also(&["container export", "export"])
.names(Names::Containers, 1);

const KILL: Command = command(
    "kill",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Kill one or more running containers",
    AtLeast(1),
    &[c::KillArgs::FLAGS],
    |m| Action::Kill(Options::from_matches(m)),
)
.also(&["container kill", "kill"])
.names(Names::Running, MANY);

const LOGS: Command = command(
    "logs",
    "[OPTIONS] CONTAINER",
    "Fetch the logs of a container",
    Exactly(1),
    &[c::LogsArgs::FLAGS],
    |m| Action::Logs(Options::from_matches(m)),
)
.also(&["container logs", "logs"])
.names(Names::Containers, 1);

const PAUSE: Command = command(
    "pause",
    "CONTAINER [CONTAINER...]",
    "Pause all processes within one or more containers",
    AtLeast(1),
    &[c::Names::FLAGS],
    |m| Action::Pause(Options::from_matches(m)),
)
.also(&["container pause", "pause"])
.names(Names::Running, MANY);

const UNPAUSE: Command = command(
    "unpause",
    "CONTAINER [CONTAINER...]",
    "Unpause all processes within one or more containers",
    AtLeast(1),
    &[c::Names::FLAGS],
    |m| Action::Unpause(Options::from_matches(m)),
)
.also(&["container unpause", "unpause"])
.names(Names::Paused, MANY);

const PORT: Command = command(
    "port",
    "CONTAINER [PRIVATE_PORT[/PROTO]]",
    "List port mappings or a specific mapping for the container",
    Between(1, 2),
    &[c::PortArgs::FLAGS],
    |m| Action::Port(Options::from_matches(m)),
)
.also(&["container port", "port"])
.names(Names::Running, 1);

const RENAME: Command =
    command("rename", "CONTAINER NEW_NAME", "Rename a container", Exactly(2), &[c::RenameArgs::FLAGS], |m| {
        Action::Rename(Options::from_matches(m))
    })
    .also(&["container rename", "rename"])
    .names(Names::Containers, 1);

const RESTART: Command = command(
    "restart",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Restart one or more containers",
    AtLeast(1),
    &[c::StopArgs::FLAGS, c::STOP_OLD],
    |m| Action::Restart(Options::from_matches(m)),
)
.also(&["container restart", "restart"])
.names(Names::Containers, MANY);

const RM: Command = command(
    "rm",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Remove one or more containers",
    AtLeast(1),
    &[c::RmArgs::FLAGS],
    |m| Action::Rm(Options::from_matches(m)),
)
.also(&["container rm", "container remove", "rm"])
.names(Names::Containers, MANY);

const START: Command = command(
    "start",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Start one or more stopped containers",
    AtLeast(1),
    &[c::StartArgs::FLAGS, c::START_LATER],
    |m| Action::Start(Options::from_matches(m)),
)
.also(&["container start", "start"])
.names(Names::Stopped, MANY);

const STOP: Command = command(
    "stop",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Stop one or more running containers",
    AtLeast(1),
    &[c::StopArgs::FLAGS, c::STOP_OLD],
    |m| Action::Stop(Options::from_matches(m)),
)
.also(&["container stop", "stop"])
.names(Names::Running, MANY);

const TOP: Command = command(
    "top",
    "CONTAINER [ps OPTIONS]",
    "Display the running processes of a container",
    AtLeast(1),
    &[c::TopArgs::FLAGS],
    |m| Action::Top(Options::from_matches(m)),
)
.also(&["container top", "top"])
.names(Names::Running, 1)
.foreign_tail();

const WAIT: Command = command(
    "wait",
    "CONTAINER [CONTAINER...]",
    "Block until one or more containers stop, then print their exit codes",
    AtLeast(1),
    &[c::Names::FLAGS],
    |m| Action::Wait(Options::from_matches(m)),
)
.also(&["container wait", "wait"])
.names(Names::Running, MANY);

const IMAGES: Command = command(
    "images",
    "[OPTIONS] [REPOSITORY[:TAG]]",
    "List images",
    AtMost(1),
    &[i::ImagesArgs::FLAGS],
    |m| Action::Images(Options::from_matches(m)),
)
.also(&["image ls", "image list", "images"])
.names(Names::Images, 1);

const LOAD: Command = command(
    "load",
    "[OPTIONS]",
    "Load an image from a tar archive or STDIN",
    Exactly(0),
    &[i::LoadArgs::FLAGS],
    |m| Action::Load(Options::from_matches(m)),
)
.also(&["image load", "load"]);

const SAVE: Command = command(
    "save",
    "[OPTIONS] IMAGE [IMAGE...]",
    "Save one or more images to a tar archive (streamed to STDOUT by default)",
    AtLeast(1),
    &[i::SaveArgs::FLAGS],
    |m| Action::Save(Options::from_matches(m)),
)
.also(&["image save", "save"])
.names(Names::Images, MANY);

const IMPORT: Command = command(
    "import",
    "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    "Import the contents from a tarball to create a filesystem image",
    AtLeast(1),
    &[i::ImportArgs::FLAGS],
    |m| Action::Import(Options::from_matches(m)),
)
.also(&["image import", "import"])
.names(Names::Files, 1);

const TAG: Command = command(
    "tag",
    "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    Exactly(2),
    &[i::TagArgs::FLAGS],
    |m| Action::Tag(Options::from_matches(m)),
)
.also(&["image tag", "tag"])
.names(Names::Images, 2);

const RMI: Command = command(
    "rmi",
    "[OPTIONS] IMAGE [IMAGE...]",
    "Remove one or more images",
    AtLeast(1),
    &[i::RmiArgs::FLAGS],
    |m| Action::Rmi(Options::from_matches(m)),
)
.also(&["image rm", "image remove", "rmi"])
.names(Names::Images, MANY);

const HISTORY: Command = command(
    "history",
    "[OPTIONS] IMAGE",
    "Show the history of an image",
    Exactly(1),
    &[i::HistoryArgs::FLAGS],
    |m| Action::History(Options::from_matches(m)),
)
.also(&["image history", "history"])
.names(Names::Images, 1);

const EVENTS: Command = command(
    "events",
    "[OPTIONS]",
    "Get real time events from the server",
    Exactly(0),
    &[o::EventsArgs::FLAGS],
    |m| Action::Events(Options::from_matches(m)),
)
.also(&["system events", "events"]);

const INFO: Command = command(
    "info",
    "[OPTIONS]",
    "Display system-wide information",
    Exactly(0),
    &[o::FormatArgs::FLAGS],
    |m| Action::Info(Options::from_matches(m)),
)
.also(&["system info", "info"]);

const INSPECT: Command = command(
    "inspect",
    "[OPTIONS] NAME|ID [NAME|ID...]",
    "Return low-level information on objects",
    AtLeast(1),
    &[o::InspectArgs::FLAGS],
    |m| Action::Inspect(Options::from_matches(m)),
)
.names(Names::Objects, MANY);

const VERSION: Command = command(
    "version",
    "[OPTIONS]",
    "Show the version information",
    Exactly(0),
    &[o::FormatArgs::FLAGS],
    |m| Action::Version(Options::from_matches(m)),
);

const SYSTEM_DF: Command =
    command("df", "[OPTIONS]", "Show docker disk usage", Exactly(0), &[s::DfArgs::FLAGS], |m| {
        Action::SystemDf(Options::from_matches(m))
    });

const SYSTEM_CHECK: Command = command(
    "check",
    "[OPTIONS]",
    "Check that everything on the disk is whole",
    Exactly(0),
    &[s::CheckArgs::FLAGS],
    |m| Action::SystemCheck(Options::from_matches(m)),
)
.long(
    "Check that everything on the disk is what its record says: blobs, layers, records. What is\n\
     damaged is named, and with --repair mended from what can give it again; the status is 1 when\n\
     something is damaged after that. Longshore's daemon only.",
);

const SYSTEM_GC: Command = command(
    "gc",
    "[OPTIONS]",
    "Remove what the disk budget does not allow for",
    Exactly(0),
    &[s::GcArgs::FLAGS],
    |m| Action::SystemGc(Options::from_matches(m)),
)
.long(
    "Remove what the disk budget does not allow for: leftovers, compressed layers that can be\n\
     made or fetched again, and images that nothing uses, those used last going last.\n\
     Longshore's daemon only; it does so by itself when a disk budget is set.",
);

const SYSTEM_PRUNE: Command =
    command("prune", "[OPTIONS]", "Remove unused data", Exactly(0), &[s::SystemPruneArgs::FLAGS], |m| {
        Action::SystemPrune(Options::from_matches(m))
    });

const UPDATE: Command = command(
    "update",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Update configuration of one or more containers",
    AtLeast(1),
    &[u::UpdateArgs::FLAGS, u::UPDATE_LIMITS],
    |m| Action::Update(Options::from_matches(m)),
)
.also(&["container update", "update"])
.names(Names::Containers, MANY);

const CONTAINER_PRUNE: Command = command(
    "prune",
    "[OPTIONS]",
    "Remove all stopped containers",
    Exactly(0),
    &[o::ContainerPruneArgs::FLAGS],
    |m| Action::ContainerPrune(Options::from_matches(m)),
);

const CONTAINER_INSPECT: Command = command(
    "inspect",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Display detailed information on one or more containers",
    AtLeast(1),
    &[o::ContainerInspectArgs::FLAGS],
    |m| Action::ContainerInspect(Options::from_matches(m)),
)
.names(Names::Containers, MANY);

const IMAGE_PRUNE: Command =
    command("prune", "[OPTIONS]", "Remove unused images", Exactly(0), &[i::ImagePruneArgs::FLAGS], |m| {
        Action::ImagePrune(Options::from_matches(m))
    });

const IMAGE_INSPECT: Command = command(
    "inspect",
    "[OPTIONS] IMAGE [IMAGE...]",
    "Display detailed information on one or more images",
    AtLeast(1),
    &[i::ImageInspectArgs::FLAGS],
    |m| Action::ImageInspect(Options::from_matches(m)),
)
.names(Names::Images, MANY);

const VOLUME_CREATE: Command = command(
    "create",
    "[OPTIONS] [VOLUME]",
    "Create a volume",
    AtMost(1),
    &[o::VolumeCreateArgs::FLAGS, o::VOLUME_CLUSTER],
    |m| Action::VolumeCreate(Options::from_matches(m)),
);

const VOLUME_LS: Command = command(
    "ls",
    "[OPTIONS]",
    "List volumes",
    Exactly(0),
    &[o::VolumeLsArgs::FLAGS, o::VOLUME_LS_CLUSTER],
    |m| Action::VolumeLs(Options::from_matches(m)),
)
.called("ls", &["list"])
.also(&["volume ls", "volume list"]);

const VOLUME_INSPECT: Command = command(
    "inspect",
    "[OPTIONS] VOLUME [VOLUME...]",
    "Display detailed information on one or more volumes",
    AtLeast(1),
    &[o::VolumeInspectArgs::FLAGS],
    |m| Action::VolumeInspect(Options::from_matches(m)),
)
.names(Names::Volumes, MANY);

const VOLUME_RM: Command = command(
    "rm",
    "[OPTIONS] VOLUME [VOLUME...]",
    "Remove one or more volumes",
    AtLeast(1),
    &[o::VolumeRmArgs::FLAGS],
    |m| Action::VolumeRm(Options::from_matches(m)),
)
.called("rm", &["remove"])
.also(&["volume rm", "volume remove"])
.names(Names::Volumes, MANY)
.long("Remove one or more volumes. You cannot remove a volume that is in use by a container.");

const VOLUME_PRUNE: Command = command(
    "prune",
    "[OPTIONS]",
    "Remove unused local volumes",
    Exactly(0),
    &[o::VolumePruneArgs::FLAGS],
    |m| Action::VolumePrune(Options::from_matches(m)),
);

/// The commands that people use most.
pub(crate) const COMMON: &[&Command] =
    &[&RUN, &EXEC, &PS, &BUILD, &PULL, &PUSH, &IMAGES, &LOGIN, &LOGOUT, &SEARCH, &VERSION, &INFO];

/// The other commands without a group.
pub(crate) const OTHERS: &[&Command] = &[
    &ATTACH, &COMMIT, &CP, &CREATE, &DIFF, &EVENTS, &EXPORT, &HISTORY, &IMPORT, &INSPECT, &KILL, &LOAD,
    &LOGS, &PAUSE, &PORT, &PORTS, &RENAME, &RESTART, &RM, &RMI, &SAVE, &START, &STOP, &TAG, &TOP, &UNPAUSE,
    &UPDATE, &WAIT,
];

/// Docker's commands that are not there yet.
pub(crate) const LATER: &[&str] = &[
    "bake",
    "checkpoint",
    "compose",
    "config",
    "context",
    "node",
    "plugin",
    "secret",
    "service",
    "stack",
    "stats",
    "swarm",
    "trust",
];

/// The groups.
pub(crate) const GROUPS: &[Group] = &[
    BUILDER,
    BUILDX,
    Group {
        name: "container",
        about: "Manage containers",
        usage: "",
        commands: &[
            &ATTACH,
            &COMMIT,
            &CP,
            &CREATE,
            &DIFF,
            &EXEC,
            &EXPORT,
            &CONTAINER_INSPECT,
            &KILL,
            &LOGS,
            &PS.called("ls", &["list", "ps"]),
            &PAUSE,
            &PORT,
            &CONTAINER_PRUNE,
            &RENAME,
            &RESTART,
            &RM.called("rm", &["remove"]),
            &RUN,
            &START,
            &STOP,
            &TOP,
            &UNPAUSE,
            &UPDATE,
            &WAIT,
        ],
        later: &["stats"],
    },
    Group {
        name: "image",
        about: "Manage images",
        usage: "",
        commands: &[
            &BUILD,
            &layers::CAT,
            &layers::DIFF,
            &layers::EXPLORE,
            &HISTORY,
            &IMPORT,
            &IMAGE_INSPECT,
            &layers::LAYERS,
            &LOAD,
            &IMAGES.called("ls", &["list"]),
            &IMAGE_PRUNE,
            &PULL,
            &PUSH,
            &RMI.called("rm", &["remove"]),
            &SAVE,
            &TAG,
            &layers::WHICH,
        ],
        later: &[],
    },
    Group {
        name: "manifest",
        about: "Manage image manifests and manifest lists",
        usage: " COMMAND",
        commands: &[&MANIFEST_INSPECT, &MANIFEST_REFERRERS],
        later: &["annotate", "create", "push", "rm"],
    },
    NETWORK,
    Group {
        name: "system",
        about: "Manage the engine",
        usage: "",
        commands: &[&SYSTEM_CHECK, &SYSTEM_DF, &EVENTS, &SYSTEM_GC, &INFO, &SYSTEM_PRUNE],
        later: &["dial-stdio"],
    },
    Group {
        name: "volume",
        about: "Manage volumes",
        usage: "",
        commands: &[&VOLUME_CREATE, &VOLUME_INSPECT, &VOLUME_LS, &VOLUME_PRUNE, &VOLUME_RM],
        later: &["update"],
    },
    WORKING,
];

/// A group by its name.
pub(crate) fn group(name: &str) -> Option<&'static Group> {
    GROUPS.iter().find(|g| g.name == name)
}

/// A command without a group by its name.
pub(crate) fn top(name: &str) -> Option<&'static Command> {
    COMMON.iter().chain(OTHERS).find(|c| c.name == name).copied()
}

impl Group {
    /// A command by one of its names.
    pub(crate) fn find(&self, name: &str) -> Option<&'static Command> {
        self.commands.iter().find(|c| c.name == name || c.aliases.contains(&name)).copied()
    }
}
