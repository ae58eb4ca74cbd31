use std::collections::BTreeMap;

use longshore_build::graph::Network;
use longshore_build::remote::Remote;
use longshore_build::{Agents, Secrets};
use longshore_oci::image::{History, RunConfig};
use longshore_oci::{Digest, Platform, Reference};

use super::UnixNanos;
use crate::Credentials;

/// When an image is looked for at its registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// When it is not here.
    #[default]
    Missing,
    /// Even if it is here.
    Always,
    /// Never.
    Never,
}

/// Where images that are not here come from.
#[derive(Clone, Debug, Default)]
pub struct ImageAccess {
    #[allow(missing_docs)]
    pub pull: PullPolicy,
    /// What the image is for; `None`: this machine.
    pub platform: Option<Platform>,
    /// What registries are told, by the registry's name.
    pub credentials: BTreeMap<String, Credentials>,
}

/// A working container that is to be made.
#[derive(Clone, Debug, Default)]
pub struct NewWorking {
    /// The image that it starts from; `scratch`: nothing.
    pub image: String,
    /// `None`: one is made of the image's name.
    pub name: Option<String>,
    #[allow(missing_docs)]
    pub access: ImageAccess,
}

/// What happens while one is made.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum WorkingEvent {
    /// Its image is being fetched.
    Pull(super::ProgressEvent),
    /// It is there.
    Made { id: String, name: String },
    /// It could not be made; the last event.
    Failed(String),
}

/// A working container: a writable layer on an image, and the configuration of the image that it is to become.
#[derive(Clone, Debug, Default)]
pub struct WorkingView {
    /// 64 hexadecimal digits.
    pub id: String,
    #[allow(missing_docs)]
    pub name: String,
    #[allow(missing_docs)]
    pub created: UnixNanos,
    /// The image that it stands on; `None`: on nothing.
    pub image: Option<Digest>,
    /// As the image was named.
    pub image_name: String,
    /// The configuration so far.
    pub config: RunConfig,
    /// What is said of it.
    pub about: WorkingAbout,
    /// Lines that a commit puts into the history before its own.
    pub history: Vec<History>,
    /// Where its tree is mounted on this machine, if it was asked to be.
    pub mounted: Option<String>,
    /// What is being done in it.
    pub doing: Option<String>,
    /// What was cut short by an end of the daemon: part of it may have been done.
    pub interrupted: Option<String>,
    /// Bytes that were written into it; `None`: nobody looked.
    pub size: Option<u64>,
}

/// What is said of the image that a working container is to become, besides its configuration. Persisted.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct WorkingAbout {
    pub author: Option<String>,
    pub comment: Option<String>,
    /// What the history says of its layer; `None`: `/bin/sh`.
    pub created_by: Option<String>,
    /// Of commands that run in it.
    pub hostname: String,
    pub domainname: String,
    pub os: String,
    pub architecture: String,
    pub variant: Option<String>,
    pub os_version: Option<String>,
    /// Those of the manifest, under the names that the image gets.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A change of a working container's configuration; what is `None` or empty stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct WorkingChange {
    pub author: Option<String>,
    pub comment: Option<String>,
    pub created_by: Option<String>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub os: Option<String>,
    pub architecture: Option<String>,
    pub variant: Option<String>,
    pub os_version: Option<String>,
    /// Words as a shell parts them, or a JSON list; empty: none.
    pub cmd: Option<String>,
    /// A JSON list, or a line for the shell; empty: none.
    pub entrypoint: Option<String>,
    /// Words as a shell parts them, or a JSON list.
    pub shell: Option<String>,
    pub user: Option<String>,
    pub working_dir: Option<String>,
    pub stop_signal: Option<String>,
    /// `NAME=value` (with variables of the environment so far), `NAME-` takes one away, `-` all.
    pub env: Vec<String>,
    /// `key=value`, `key-`, `-`.
    pub annotations: Vec<String>,
    /// `key=value`, `key-`, `-`.
    pub labels: Vec<String>,
    /// `80/tcp`, `80/tcp-`, `-`.
    pub ports: Vec<String>,
    /// `/path`, `/path-`, `-`.
    pub volumes: Vec<String>,
    /// Instructions; `-` takes all away.
    pub on_build: Vec<String>,
    /// `CMD ...` as in a Dockerfile, `CMD-SHELL ...`, `NONE`; empty: none of its own.
    pub health: Option<String>,
    pub health_interval: Option<String>,
    pub health_timeout: Option<String>,
    pub health_start_period: Option<String>,
    pub health_start_interval: Option<String>,
    pub health_retries: Option<i64>,
    /// Each change becomes a line of the history.
    pub add_history: bool,
}

/// Files that are copied into a working container.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct WorkingCopy {
    /// Archives are unpacked, and history says `ADD`.
    pub add: bool,
    /// Another working container or an image; `None`: what the client sends.
    pub from: Option<String>,
    /// An address of files that are fetched; it goes by itself.
    pub remote: Option<Remote>,
    /// Paths and patterns.
    pub sources: Vec<Vec<u8>>,
    /// Relative to the working directory.
    pub dest: Vec<u8>,
    /// `user[:group]`; empty: as `COPY` has it.
    pub owner: String,
    /// As `COPY --chmod` reads it; empty: as they are.
    pub mode: String,
    pub parents: bool,
    pub exclude: Vec<Vec<u8>>,
    /// It becomes a line of the history.
    pub add_history: bool,
    pub access: ImageAccess,
}

/// A command that is to run in a working container.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct WorkingRun {
    /// The program and its arguments.
    pub cmd: Vec<String>,
    /// Sockets of agents of SSH on this machine, by name.
    pub agents: Agents,
    /// Capabilities more than a container has, and less.
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    /// `NAME=value`, more than its configuration says.
    pub env: Vec<String>,
    /// Empty: that of the configuration.
    pub user: String,
    /// Empty: that of the configuration.
    pub working_dir: String,
    /// Empty: that of the configuration.
    pub hostname: String,
    pub network: Network,
    /// `name:address` lines more in its hosts file.
    pub hosts: Vec<String>,
    /// `source:target[:ro|:rw]`, the source being a path of this machine.
    pub binds: Vec<String>,
    /// As `RUN --mount` has them; a bind mount without `from` is of this machine.
    pub mounts: Vec<String>,
    /// What `mounts` may ask for; never stored, never told.
    pub secrets: Secrets,
    pub tty: bool,
    /// Input is passed to it.
    pub stdin: bool,
    pub add_history: bool,
    pub access: ImageAccess,
}

/// How a command in a working container fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct WorkingRunView {
    pub running: bool,
    /// Its exit code, once it has ended.
    pub code: Option<i32>,
    /// Why it could not be run, or how it was ended.
    pub error: Option<String>,
}

/// An image of a working container.
#[derive(Clone, Debug, Default)]
pub struct WorkingCommit {
    /// The image's name.
    pub reference: Option<Reference>,
    /// The time that the image and the lines of its history say, in seconds since 1970; `None`: now.
    pub created: Option<i64>,
    /// The time that the files of its layer get; `None`: they keep theirs.
    pub mtime: Option<i64>,
    /// One layer of all, the image's below included.
    pub squash: bool,
    /// The working container is removed when the image is there.
    pub remove: bool,
}
