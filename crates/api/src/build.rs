//! `POST /longshore/build`: the parameters of `POST /build`, answered by lines that tell of instructions side by side.
//!
//! The body is a context as a tar. With `Upgrade: tcp` it is a [`BuildHead`] as JSON: the daemon then asks for the files
//! that it has not, by [`BuildLine::Tree`] and [`BuildLine::Files`], and the client answers in frames on the connection
//! that it took over, as `longshore_build::context::sync` describes them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::JsonMessage;

/// The content type of a body with a [`BuildHead`] before the context: its length in four bytes, the highest first, then
/// the head as JSON, then the tar.
pub const WITH_HEAD: &str = "application/vnd.longshore.build+tar";
/// Bytes that a head may have.
pub const MAX_HEAD: usize = 32 << 20;

/// What a build is given besides its context, and is not to be in an address.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildHead {
    /// Secrets by name, in base64.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, String>,
    /// Sockets of agents of SSH on the daemon's machine, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub agents: BTreeMap<String, String>,
    /// The Dockerfile in base64, for a build whose files are shared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dockerfile: Option<String>,
    /// What the directories that are shared are known by, the context first, which is empty where there is none: the same
    /// text, the same directory.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub contexts: Vec<String>,
    /// Names for directories, by their number among those that are shared.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub named_directories: BTreeMap<String, usize>,
    /// Names for images that stand for them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub named_images: BTreeMap<String, String>,
    /// Names for images in directories of the client's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub named_layouts: BTreeMap<String, BuildDirectory>,
    /// Names for addresses of files that the daemon fetches.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub named_remotes: BTreeMap<String, String>,
    /// Caches that are asked for what the daemon's own has not, in this order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cache_from: Vec<BuildCacheFrom>,
    /// Where the cache goes in the end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cache_to: Vec<BuildCacheTo>,
    /// What manifests and the index say besides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub annotations: Vec<BuildAnnotation>,
}

/// What a manifest or an index says besides (OCI image spec, annotations.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct BuildAnnotation {
    pub of: BuildAnnotated,
    /// Of this platform's manifest only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    pub key: String,
    pub value: String,
}

/// What is annotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BuildAnnotated {
    /// The manifest of each image.
    Manifest,
    /// What names that in the index.
    ManifestDescriptor,
    /// The index over several.
    Index,
    /// What names that in a layout.
    IndexDescriptor,
}

/// A cache of elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum BuildCacheFrom {
    /// What a registry has under a name: a cache, or an image with one in it.
    Registry {
        #[serde(rename = "ref")]
        reference: String,
    },
    /// What an image has in it: one that the daemon has, else the registry's.
    Image {
        #[serde(rename = "ref")]
        reference: String,
    },
    Local(BuildDirectory),
}

/// A directory of the client's, offered by `POST /longshore/build/directory` for as long as that connection lasts:
/// `longshore_build::layout` describes what goes over it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildDirectory {
    /// What the daemon said that it goes by.
    pub id: String,
    /// What messages call it.
    pub name: String,
    /// What the cache is called in it.
    pub tag: String,
    /// Its manifest, instead of what the tag says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// Where a cache goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildCacheTo {
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub to: BuildCachePlace,
    /// All steps of the build, not only those whose layers the image has.
    #[serde(default)]
    pub max: bool,
    /// Cache mounts go with it.
    #[serde(default)]
    pub mounts: bool,
    /// The build goes on when it fails.
    #[serde(default)]
    pub ignore_error: bool,
}

/// See [`BuildCacheTo`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum BuildCachePlace {
    Registry {
        #[serde(rename = "ref")]
        reference: String,
    },
    Local(BuildDirectory),
    /// Into the image itself.
    Inline,
}

impl fmt::Debug for BuildHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuildHead")
            .field("secrets", &self.secrets.keys())
            .field("contexts", &self.contexts)
            .finish_non_exhaustive()
    }
}

/// An instruction of the stages that are built.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRow {
    /// As written, continuation lines joined.
    pub text: String,
    /// The stage that it is in: its name, or its number.
    pub stage: String,
    /// What that is made for, where images for several platforms are made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Its line in the Dockerfile, from 1.
    pub line: u32,
}

/// A line of the answer. Rows are told by their number in the plan, from 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum BuildLine {
    /// The list of what these sources, each in base64, name in the directory of this number is asked for.
    Tree { context: usize, sources: Vec<String> },
    /// Files of that list are asked for: ranges of their places in it, each the first and the one after the last.
    Files { context: usize, places: Vec<(usize, usize)> },
    /// An image is being fetched.
    Pull { progress: JsonMessage },
    /// What will be done; once.
    Plan { rows: Vec<BuildRow> },
    /// An instruction begins.
    Started { row: usize },
    /// Its command runs, in a container of this id.
    Running { row: usize, container: String },
    /// Its command wrote something.
    Output {
        row: usize,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        stderr: bool,
        text: String,
    },
    /// Why it is carried out, or is not; only where the parameter `explain` asked for it.
    Explained { row: usize, why: String },
    /// It is done.
    Done {
        row: usize,
        how: BuildDone,
        /// Id of the image as it would be after it.
        image: String,
        /// Bytes of its layer.
        size: u64,
        /// Microseconds that it took.
        took: u64,
    },
    /// Something that people should know.
    Warning { text: String },
    /// The Dockerfile was looked at and not built; so many warnings came before.
    Checked { count: usize },
    /// The image of what a failed command left, where the parameter `keepfailed` asked for it; whoever did removes it.
    Left { id: String },
    /// Bytes, in base64, of a tar that was asked for.
    Export { what: BuildExport, data: String },
    /// That tar is whole; for an archive, with the image's id.
    Exported {
        what: BuildExport,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
    },
    /// Something besides the instructions goes on, by its name.
    Task {
        name: String,
        state: BuildTask,
        /// What is to be said of it; why it failed.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        text: String,
    },
    /// The image is there; its id.
    Built { id: String },
    /// It has a name.
    Tagged { name: String },
    /// The build failed; the last line. `code` is that of a command.
    Failed {
        message: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<i32>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        row: Option<usize>,
    },
    /// A line of a newer daemon.
    #[serde(other)]
    Unknown,
}

/// What may be made of what was built, in the form of a tar: the parameter `export` asks for it, several times for
/// several; with `norecord=1` no image is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BuildExport {
    /// The files of the image.
    Tree,
    /// The image as an archive that is Docker's and an OCI layout.
    Archive,
}

/// How far something besides the instructions is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum BuildTask {
    Running,
    Done,
    /// The build may go on all the same.
    Failed,
}

/// How an instruction came to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BuildDone {
    /// It changes the configuration only, or is a `FROM`.
    Noted,
    /// It was carried out.
    Made,
    /// The cache had its result.
    Cached,
    /// Another build that ran at the same time made it.
    Shared,
}
