//! Snapshots: directories stacked on one another, one for each layer and one for each container.
//!
//! Words: an *active* snapshot may be written to; it becomes *committed* (read-only for ever) when another snapshot
//! is prepared on top of it. Snapshots are named by their cache id: 64 random hex digits, for a container's init
//! layer followed by `-init`.
//!
//! A layer: `stage` gives a directory to unpack into, `place` puts it on its parent once that is known. A container:
//! `prepare` on the image's top layer, `mount`, run, `unmount`, and `changes` says what it did.

mod changes;
mod mend;
mod overlay;
mod probe;
pub(crate) mod tree;
mod vfs;

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use longshore_oci::IdMap;

use crate::layer::WhiteoutFormat;
use crate::{Error, Result};

pub use changes::{Change, ChangeKind};
pub(crate) use changes::{is_opaque, is_whiteout};
pub(crate) use mend::exchange;
pub use overlay::{MountStyle, Overlay};
pub(crate) use overlay::{REMOVING, is_link_name, make_dir as make_private_dir};
pub use probe::{DriverChoice, choose};
pub use tree::remove_tree;
pub(crate) use tree::{look_beneath, open_root};
pub use vfs::Vfs;
pub(crate) use vfs::copy_look;

/// The drivers that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverName {
    /// Overlay file system; layers share their lower files.
    Overlay2,
    /// Full copies; works everywhere.
    Vfs,
}

impl DriverName {
    /// As in settings and in `docker info`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Overlay2 => "overlay2",
            Self::Vfs => "vfs",
        }
    }
}

impl fmt::Display for DriverName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for DriverName {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "overlay2" => Ok(Self::Overlay2),
            "vfs" => Ok(Self::Vfs),
            _ => Err(Error::Invalid(format!("unknown storage driver {s:?}: choose overlay2 or vfs"))),
        }
    }
}

/// What a snapshot holds of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of its files, each inode once.
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
}

/// How a snapshot comes to be mounted, as data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mounts {
    /// An overlay; `upper` is `None` for a committed snapshot.
    Overlay {
        /// Topmost first.
        lowers: Vec<PathBuf>,
        /// Upper and work directory.
        upper: Option<(PathBuf, PathBuf)>,
        /// Where it is mounted.
        target: PathBuf,
    },
    /// The directory itself is the tree.
    Directory(PathBuf),
}

/// One way of stacking directories. Every implementation passes the suite in `testkit`.
pub trait SnapshotDriver: Send + Sync + fmt::Debug {
    /// Which one this is.
    fn name(&self) -> DriverName;

    /// Makes an active snapshot on `parent` (which becomes committed), or an empty one.
    ///
    /// # Errors
    /// `Conflict` if `id` exists, `NotFound` if the parent does not.
    fn prepare(&self, id: &str, parent: Option<&str>) -> Result<()>;

    /// Whether a layer can be unpacked before its parent is known.
    fn stages(&self) -> bool;

    /// Makes a directory for a layer whose parent is not known yet; only where [`Self::stages`].
    ///
    /// # Errors
    /// `Conflict` if `id` exists.
    fn stage(&self, id: &str) -> Result<()>;

    /// Puts a staged snapshot on its parent. Unless `own_root`, the root of its tree gets the parent's mode and owner:
    /// the layer itself says nothing of it.
    ///
    /// # Errors
    /// `NotFound` if either does not exist.
    fn place(&self, id: &str, parent: Option<&str>, own_root: bool) -> Result<()>;

    /// Where a layer is unpacked, and where what a container wrote lies.
    fn apply_dir(&self, id: &str) -> PathBuf;

    /// What deletions of a layer become in `apply_dir`: with marks it holds only the layer's own entries; with
    /// [`WhiteoutFormat::Remove`] the whole tree, deletions carried out.
    fn whiteouts(&self) -> WhiteoutFormat;

    /// Whether device nodes can be made here.
    fn makes_devices(&self) -> bool {
        !in_user_namespace()
    }

    /// What the parents of an active snapshot show at each of `paths` (relative): the directory, opened; `None` where
    /// there is none.
    ///
    /// # Errors
    /// When the trees cannot be read.
    fn lower_dirs(&self, id: &str, paths: &[&Path]) -> Result<Vec<Option<OwnedFd>>>;

    /// The mount that shows the snapshot with the ids of `map`.
    ///
    /// # Errors
    /// `Unimplemented` where ids cannot be mapped.
    fn mounts(&self, id: &str, map: &IdMap) -> Result<Mounts>;

    /// Mounts the snapshot in this mount namespace and gives the root of its tree. Mounting twice is fine.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn mount(&self, id: &str, map: &IdMap) -> Result<PathBuf>;

    /// Undoes [`Self::mount`]; idempotent.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn unmount(&self, id: &str) -> Result<()>;

    /// What differs from the parent, in order of paths.
    ///
    /// # Errors
    /// When a tree cannot be read.
    fn changes(&self, id: &str, parent: Option<&str>) -> Result<Vec<Change>>;

    /// What the snapshot holds of its own.
    ///
    /// # Errors
    /// When the tree cannot be read.
    fn usage(&self, id: &str) -> Result<Usage>;

    /// Directories as `GraphDriver.Data` of Docker's inspect shows them.
    ///
    /// # Errors
    /// When the snapshot does not exist.
    fn graph_data(&self, id: &str) -> Result<BTreeMap<String, String>>;

    /// Everything that a snapshot has on disk: its directory, and names and files of it elsewhere.
    fn paths(&self, id: &str) -> Vec<PathBuf>;

    /// Removes the snapshot, mounted or not; idempotent.
    ///
    /// # Errors
    /// When files cannot be removed; a later call goes on.
    fn remove(&self, id: &str) -> Result<()>;

    /// All snapshots, in no order.
    ///
    /// # Errors
    /// When the directory cannot be read.
    fn list(&self) -> Result<Vec<String>>;

    /// Removes what a crash left half removed. For a start only: nobody may be at work.
    ///
    /// # Errors
    /// When files cannot be read or removed.
    fn tidy(&self) -> Result<()>;

    /// What is wrong with the files that the driver itself keeps of a snapshot, in words; `parent` is what it stands on,
    /// `committed` whether something stands on it. The tree is not looked at.
    ///
    /// # Errors
    /// When files cannot be read.
    fn inspect(&self, id: &str, parent: Option<&str>, committed: bool) -> Result<Vec<String>>;

    /// Puts right what [`Self::inspect`] tells, and syncs it; parents come before what stands on them. The tree has to
    /// be there.
    ///
    /// # Errors
    /// `Corrupt` when there is no tree; when files cannot be written.
    fn mend(&self, id: &str, parent: Option<&str>, committed: bool) -> Result<()>;

    /// Exchanges the trees of two snapshots, in one step. Nobody may have them mounted.
    ///
    /// # Errors
    /// When the file system cannot.
    fn exchange(&self, a: &str, b: &str) -> Result<()>;

    /// Gives the staged snapshot `to`, which is empty, the tree of `from` and the other way round; durable with the next
    /// sync. Only where the driver [stages](Self::stages). Nobody may have them mounted.
    ///
    /// # Errors
    /// When the file system cannot.
    fn take(&self, _from: &str, to: &str) -> Result<()> {
        Err(Error::Internal(format!("snapshot {to} has no tree of its own")))
    }

    /// Makes all snapshots durable.
    ///
    /// # Errors
    /// When the file system fails.
    fn sync(&self) -> Result<()>;

    /// Whether the snapshot is mounted.
    ///
    /// # Errors
    /// When the system refuses to tell.
    fn in_use(&self, _id: &str) -> Result<bool> {
        Ok(false)
    }
}

/// Refuses anything that is not a cache id, so that no other text becomes a path.
fn check_id(id: &str) -> Result<()> {
    if is_id(id) { Ok(()) } else { Err(Error::Invalid(format!("{id:?} is not a snapshot's id"))) }
}

/// Whether this is a cache id.
pub(crate) fn is_id(id: &str) -> bool {
    let hex = id.strip_suffix("-init").unwrap_or(id);
    hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Whether this process lives in a user namespace of its own: overlay keeps its marks in `user.` attributes there, and
/// devices other than whiteouts cannot be made.
fn in_user_namespace() -> bool {
    static INSIDE: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *INSIDE.get_or_init(longshore_sys::userns::inside)
}
