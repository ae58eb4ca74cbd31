//! Working containers (`/longshore/working`): images made step by step.
//!
//! | request | what |
//! | --- | --- |
//! | `GET /longshore/working` | all of them, as [`Working`] |
//! | `POST /longshore/working?image=&name=&pull=&platform=` | a new one; answered by [`WorkingLine`]s |
//! | `GET`, `DELETE /longshore/working/{name}` | one, as [`Working`]; removes it |
//! | `POST /longshore/working/{name}/rename?name=` | another name |
//! | `POST /longshore/working/{name}/config` | a [`WorkingChange`]; answers [`Configured`] |
//! | `POST /longshore/working/{name}/copy` | [`CopyHead`], then a tar unless it names another source; answers [`Copied`] |
//! | `POST /longshore/working/{name}/run` | a [`RunCommand`]; answers its id, for the next three |
//! | `POST /longshore/working/run/{id}/start?h=&w=` | runs it: the connection becomes its streams |
//! | `POST /longshore/working/run/{id}/resize?h=&w=` | its terminal has another size |
//! | `GET /longshore/working/run/{id}` | how it fares, as [`RunState`] |
//! | `POST /longshore/working/{name}/mount`, `umount` | its tree on the daemon's machine, as [`Mounted`] |
//! | `POST /longshore/working/{name}/commit?repo=&tag=&created=&mtime=&squash=&rm=` | an image of it; answers its id |

use std::collections::BTreeMap;
use std::fmt;

use longshore_oci::image::{History, RunConfig};
use serde::{Deserialize, Serialize};

use crate::JsonMessage;

/// The content type of a copy: the length of its head in four bytes, the highest first, the head as JSON, a tar.
pub const COPY: &str = "application/vnd.longshore.copy+tar";

/// A working container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct Working {
    pub id: String,
    pub name: String,
    /// RFC 3339.
    pub created: String,
    /// Id of the image that it stands on; empty: it stands on nothing.
    pub image: String,
    /// As the image was named.
    pub image_name: String,
    pub os: String,
    pub architecture: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
    pub author: String,
    pub comment: String,
    pub created_by: String,
    pub hostname: String,
    pub domainname: String,
    /// What a commit puts into the image.
    pub config: RunConfig,
    /// Lines that a commit puts into the history before its own.
    pub history: Vec<History>,
    /// Where its tree is mounted on the daemon's machine; empty: nowhere.
    pub mount_point: String,
    /// What is being done in it now.
    pub doing: String,
    /// What an end of the daemon cut short.
    pub interrupted: String,
    /// Bytes that were written into it; only of one that is asked about alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// A line of the answer to making one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum WorkingLine {
    /// Its image is being fetched.
    Pull { progress: JsonMessage },
    /// It is there; the last line.
    Made { id: String, name: String },
    /// It could not be made; the last line.
    Failed { message: String },
    /// A line of a newer daemon.
    #[serde(other)]
    Unknown,
}

/// A change of the configuration; what is left out stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
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
    /// `NAME=value`; `NAME-` takes one away, `-` all. So are the next three.
    pub env: Vec<String>,
    pub annotations: Vec<String>,
    pub labels: Vec<String>,
    pub ports: Vec<String>,
    pub volumes: Vec<String>,
    /// Instructions; `-` takes all away.
    pub on_build: Vec<String>,
    /// `CMD ...`, `CMD-SHELL ...`, `NONE`; empty: none of its own.
    pub health: Option<String>,
    /// Durations such as `5s`.
    pub health_interval: Option<String>,
    pub health_timeout: Option<String>,
    pub health_start_period: Option<String>,
    pub health_start_interval: Option<String>,
    pub health_retries: Option<i64>,
    /// Each change becomes a line of the history.
    pub add_history: bool,
}

/// The answer to a change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Configured {
    /// What people should know.
    pub warnings: Vec<String>,
}

/// What is copied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct CopyHead {
    /// Archives are unpacked.
    pub add: bool,
    /// Another working container or an image; empty: the tar that follows.
    pub from: String,
    /// The address of a file or a repository that is fetched; it goes by itself.
    pub remote: String,
    /// What the digest of the file, or the id of the commit, has to be.
    pub checksum: String,
    pub keep_git_dir: bool,
    /// Paths and patterns, in base64: they need not be text.
    pub sources: Vec<String>,
    /// In base64.
    pub dest: String,
    pub chown: String,
    pub chmod: String,
    pub parents: bool,
    /// Patterns, in base64.
    pub exclude: Vec<String>,
    pub add_history: bool,
    pub platform: String,
    /// `missing`, `always`, `never`; empty: `missing`.
    pub pull: String,
}

/// The answer to a copy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Copied {
    /// Of what was copied.
    pub digest: String,
}

/// A command that is to run in a working container.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct RunCommand {
    pub cmd: Vec<String>,
    /// Sockets of agents of SSH on the daemon's machine, by name.
    pub agents: BTreeMap<String, String>,
    /// Capabilities more than a container has, and less.
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    pub user: String,
    pub working_dir: String,
    pub hostname: String,
    /// `default`, `none`, `host`, or a network's name.
    pub network: String,
    /// `name:address`.
    pub hosts: Vec<String>,
    /// `source:target[:ro]`, the source on the daemon's machine.
    pub binds: Vec<String>,
    /// As `RUN --mount` has them.
    pub mounts: Vec<String>,
    /// By name, in base64.
    pub secrets: BTreeMap<String, String>,
    pub tty: bool,
    pub attach_stdin: bool,
    pub add_history: bool,
}

impl fmt::Debug for RunCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunCommand").field("cmd", &self.cmd).finish_non_exhaustive()
    }
}

/// How a command fares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct RunState {
    pub running: bool,
    pub exit_code: Option<i32>,
    /// Why it could not be run, or how it was ended; empty: it ended by itself.
    pub error: String,
}

/// Where a tree is mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct Mounted {
    pub id: String,
    /// On the daemon's machine; empty: nowhere any more.
    pub mount_point: String,
}
