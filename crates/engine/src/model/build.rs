use std::collections::BTreeMap;
use std::time::Duration;

use longshore_build::context::sync::Ask;
use longshore_build::graph::{Limits, Network};
use longshore_build::plan::{Allowed, Named};
use longshore_build::{Agents, Secrets};
use longshore_oci::{Digest, Platform, Reference};

use super::{Filters, UnixNanos};
use crate::Credentials;

/// What stands before the name of a client's directory where an image is named.
pub const LAYOUT: &str = "oci-layout://";

/// `POST /build`, already checked for form at the door.
#[derive(Clone, Debug, Default)]
pub struct BuildRequest {
    /// Path of the Dockerfile in the context; empty: `Dockerfile`.
    pub dockerfile: String,
    /// Names of the image.
    pub tags: Vec<Reference>,
    /// The stage that is wanted; `None`: the last.
    pub target: Option<String>,
    /// Values for `ARG`s.
    pub args: BTreeMap<String, String>,
    #[allow(missing_docs)]
    pub labels: BTreeMap<String, String>,
    /// The Dockerfile is looked at and not built.
    pub check: bool,
    /// It is told why each step is carried out or is not.
    pub explain: bool,
    /// What a failed command leaves becomes an image without a name.
    pub keep_failed: bool,
    /// Every step is carried out.
    pub no_cache: bool,
    /// Stages of which every step is carried out, by name or number.
    pub fresh_stages: Vec<String>,
    /// Images are looked for at their registry although they are here.
    pub pull: bool,
    /// The network of commands.
    pub network: Network,
    /// `name:address` lines more in the hosts file of commands.
    pub hosts: Vec<String>,
    /// What commands may use.
    pub limits: Limits,
    /// What images are made for, each one; none: this machine. Several are one index under the names.
    pub platforms: Vec<Platform>,
    /// What manifests and the index say besides.
    pub annotations: Vec<BuildAnnotation>,
    /// What commands may ask for; never stored, never told.
    pub secrets: Secrets,
    /// Sockets of agents of SSH on this machine, by name.
    pub agents: Agents,
    /// What commands may ask for that weakens their confinement.
    pub allowed: Allowed,
    /// What names stand for besides stages and images.
    pub contexts: BTreeMap<String, Named>,
    /// Directories in OCI's layout whose images [`LAYOUT`] and their names stand for.
    pub layouts: BTreeMap<String, CacheDirectory>,
    /// What else is made of what was built, besides or instead of an image.
    pub exports: Vec<BuildExport>,
    /// What is built becomes one layer on the image that it starts from.
    pub squash: bool,
    /// No image is kept.
    pub unrecorded: bool,
    /// What registries are told, by the registry's name.
    pub credentials: BTreeMap<String, Credentials>,
    /// Caches of elsewhere that are asked for what the own has not, in this order.
    pub cache_from: Vec<CacheFrom>,
    /// Where the cache goes in the end.
    pub cache_to: Vec<CacheTo>,
}

/// What a manifest or an index says besides (OCI image spec, annotations.md).
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct BuildAnnotation {
    pub of: BuildAnnotated,
    /// Of the manifest of this platform only.
    pub platform: Option<Platform>,
    pub key: String,
    pub value: String,
}

/// What is annotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheFrom {
    /// What a registry has under a name: a cache, or an image with one in it.
    Registry(Reference),
    /// What an image has in it: one that is here, else the registry's.
    Image(Reference),
    /// What an image has in it that is here; no registry is asked.
    Here(Reference),
    /// A directory of the client's.
    Directory(CacheDirectory),
}

/// A directory of a client's that [`crate::Engine::open_layout`] made usable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheDirectory {
    /// What it goes by.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What the cache is called in it.
    pub tag: String,
    /// Its manifest, instead of what the tag says.
    pub digest: Option<Digest>,
}

/// Where a cache goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheTo {
    #[allow(missing_docs)]
    pub to: CachePlace,
    /// All steps of the build, not only those whose layers the image has.
    pub max: bool,
    /// Cache mounts go with it.
    pub mounts: bool,
    /// The build goes on when it fails.
    pub ignore_error: bool,
}

/// See [`CacheTo`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CachePlace {
    /// The name gets a tag.
    Registry(Reference),
    #[allow(missing_docs)]
    Directory(CacheDirectory),
    /// Into the image itself; its steps only.
    Inline,
}

/// What may be made of what was built, in the form of a tar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildExport {
    /// The files of the image.
    Tree,
    /// The image as an archive that is Docker's and an OCI layout.
    Archive,
}

/// An instruction of the stages that are built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildRow {
    /// As written.
    pub text: String,
    /// The stage that it is in: its name, or its number.
    pub stage: String,
    /// What that is made for, where images for several platforms are made.
    pub platform: Option<String>,
    /// Its line in the Dockerfile, from 1; of a trigger its line in that.
    pub line: u32,
}

/// How an instruction came to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// What happens in a build, when it happens: instructions are carried out side by side. They are told by their number
/// among the rows of the plan, from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum BuildEvent {
    /// The client that shares its directories is asked for something of the one of this number.
    Ask { context: usize, ask: Ask },
    /// An image is being fetched.
    Pull(super::ProgressEvent),
    /// What will be done.
    Plan(Vec<BuildRow>),
    /// An instruction begins.
    Started(usize),
    /// Its command runs in a container of this id.
    Running { row: usize, container: String },
    /// Its command wrote something.
    Output { row: usize, stderr: bool, bytes: Vec<u8> },
    /// Why it is carried out, or is not.
    Explained { row: usize, why: String },
    /// It is done. `image` is the id of the image as it would be after it, `size` the bytes of its layer.
    Done { row: usize, done: BuildDone, image: Digest, size: u64, took: Duration },
    /// Something that people should know.
    Warning(String),
    /// What the linter found: its rule, what it says, and the line.
    Lint { rule: &'static str, message: String, line: u32 },
    /// The file was only looked at; so many things were found.
    Checked(usize),
    /// The image of what a failed command left: with its variables, directory, user and shell.
    Left(Digest),
    /// Bytes of a tar that was asked for.
    Export { what: BuildExport, bytes: Vec<u8> },
    /// That tar is whole. For an archive, `id` is the image's.
    Exported { what: BuildExport, id: Option<Digest> },
    /// Something besides the instructions, by what people call it.
    Task { name: String, said: BuildTask },
    /// The image is there.
    Built(Digest),
    /// It has a name.
    Tagged(Reference),
    /// The build failed, at an instruction if it is known; `code` is that of a command.
    Failed { message: String, code: Option<i32>, row: Option<usize> },
}

/// What is told of something that is done besides the instructions.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum BuildTask {
    Begun,
    Note(String),
    Done,
    /// The build may go on all the same.
    Failed(String),
}

/// What something in the build cache is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildCacheKind {
    /// What a step gave.
    Step,
    /// A cache mount.
    CacheMount,
    /// The files of a context that a client shared.
    Context,
}

impl BuildCacheKind {
    /// BuildKit's names: `regular`, `exec.cachemount` and `source.local`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Step => "regular",
            Self::CacheMount => "exec.cachemount",
            Self::Context => "source.local",
        }
    }
}

/// Something in the build cache.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct BuildCacheEntry {
    /// 64 hexadecimal digits.
    pub id: String,
    pub kind: BuildCacheKind,
    /// The instruction, or the name of the cache mount.
    pub description: String,
    /// The entries that it was made from.
    pub parents: Vec<String>,
    /// A build uses it now.
    pub in_use: bool,
    /// An image has the same layer.
    pub shared: bool,
    /// Bytes of the disk.
    pub size: u64,
    pub created: UnixNanos,
    pub last_used: UnixNanos,
    pub uses: u64,
}

/// `POST /build/prune`.
#[derive(Clone, Debug, Default)]
pub struct BuildPruneRequest {
    /// Also what images have in common with the cache.
    pub all: bool,
    #[allow(missing_docs)]
    pub filters: Filters,
    /// How much of the cache stays, what was last used first.
    pub keep: BuildKeep,
}

/// How much of the build cache a prune keeps. Where nothing is said, it keeps nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BuildKeep {
    /// Bytes that always stay; 0: none.
    pub reserved: u64,
    /// Bytes that stay at most; 0: no limit of its own.
    pub max_used: u64,
    /// Bytes that are to be free on the file system; 0: any number.
    pub min_free: u64,
}

impl BuildKeep {
    /// The bytes that stay of a cache of `total` bytes, where so many are free on the file system: as BuildKit reckons.
    #[must_use]
    pub fn bytes(self, total: u64, free: u64) -> u64 {
        let mut keep = self.max_used;
        let excess = self.min_free.saturating_sub(free);
        if excess > 0 {
            let left = total.saturating_sub(excess);
            keep = if keep == 0 { left } else { keep.min(left) };
        } else if keep == 0 && self.min_free > 0 {
            // There is enough.
            keep = total;
        }
        keep.max(self.reserved)
    }
}

/// What a prune of the build cache removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildPruned {
    /// Ids of entries.
    pub removed: Vec<String>,
    /// Bytes of the disk.
    pub reclaimed: u64,
}
