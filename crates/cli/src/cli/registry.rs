//! The commands about registries, as [`super::tree`] has the others.

use super::Action;
use super::tree::{Command, Names, command};
use crate::args::registry::{
    LoginArgs, LogoutArgs, ManifestInspectArgs, PullArgs, PushArgs, ReferrersArgs, SearchArgs,
};
use crate::flags::Count::{AtMost, Between, Exactly};
use crate::flags::Options;

pub(super) const PULL: Command = command(
    "pull",
    "[OPTIONS] NAME[:TAG|@DIGEST]",
    "Download an image from a registry",
    Exactly(1),
    &[PullArgs::FLAGS],
    |m| Action::Pull(Options::from_matches(m)),
)
.also(&["image pull", "pull"]);

pub(super) const PUSH: Command = command(
    "push",
    "[OPTIONS] NAME[:TAG]",
    "Upload an image to a registry",
    Exactly(1),
    &[PushArgs::FLAGS],
    |m| Action::Push(Options::from_matches(m)),
)
.also(&["image push", "push"])
.names(Names::Images, 1);

pub(super) const LOGIN: Command = command(
    "login",
    "[OPTIONS] [SERVER]",
    "Authenticate to a registry",
    AtMost(1),
    &[LoginArgs::FLAGS],
    |m| Action::Login(Options::from_matches(m)),
)
.long("Authenticate to a registry.\nDefaults to Docker Hub if no server is specified.");

pub(super) const LOGOUT: Command =
    command("logout", "[SERVER]", "Log out from a registry", AtMost(1), &[LogoutArgs::FLAGS], |m| {
        Action::Logout(Options::from_matches(m))
    })
    .names(Names::Registries, 1)
    .long("Log out from a registry.\nIf no server is specified, the default is defined by the daemon.");

pub(super) const SEARCH: Command = command(
    "search",
    "[OPTIONS] TERM",
    "Search Docker Hub for images",
    Exactly(1),
    &[SearchArgs::FLAGS],
    |m| Action::Search(Options::from_matches(m)),
);

pub(super) const MANIFEST_INSPECT: Command = command(
    "inspect",
    "[OPTIONS] [MANIFEST_LIST] MANIFEST",
    "Display an image manifest, or manifest list",
    Between(1, 2),
    &[ManifestInspectArgs::FLAGS],
    |m| Action::ManifestInspect(Options::from_matches(m)),
);

/// Ours: Docker's command line has none.
pub(super) const MANIFEST_REFERRERS: Command = command(
    "referrers",
    "[OPTIONS] MANIFEST",
    "List what refers to a manifest in its registry: signatures, bills of materials, attestations",
    Exactly(1),
    &[ReferrersArgs::FLAGS],
    |m| Action::ManifestReferrers(Options::from_matches(m)),
);
