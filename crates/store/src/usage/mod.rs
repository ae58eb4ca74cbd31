//! The ledger: what lies under the data root, whose it is, and what it takes on disk. Every inode stands in one row.

mod leftovers;
mod owners;
mod walk;

use std::collections::{BTreeMap, HashSet};
use std::ffi::CStr;
use std::path::PathBuf;

use longshore_oci::Digest;

use self::owners::Owners;
pub use self::walk::{Allocated, allocated};
use self::walk::{Base, Links, Part, measure_all};
use crate::open::Store;
use crate::{Result, pool};

/// What something on disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An unpacked layer with its recipe and index; named by its chain id.
    Layer,
    /// The compressed form of a layer; named by its digest.
    Compressed,
    /// An image's configuration or manifest; named by its digest.
    Document,
    /// A container's writable layer and the init layer below it; named by the container's id.
    Writable,
    /// A container's own files: hostname, hosts, resolv.conf and the like; named by the container's id.
    ContainerFiles,
    /// A container's log; named by the container's id.
    Log,
    /// A volume; named as it is called.
    Volume,
    /// A cache mount of builds; named as it is called.
    CacheMount,
    /// Files of build contexts; those that layers have, too, count there.
    Context,
    /// The database, and the directories that hold everything else.
    Metadata,
    /// What a load, a pull or a build that is under way has brought; named by its path.
    Arriving,
    /// What no record names; named by its path.
    Leftover,
}

impl Kind {
    /// All kinds, in the order in which they are shown.
    pub const ALL: [Self; 12] = [
        Self::Layer,
        Self::Compressed,
        Self::Document,
        Self::Writable,
        Self::ContainerFiles,
        Self::Log,
        Self::Volume,
        Self::CacheMount,
        Self::Context,
        Self::Metadata,
        Self::Arriving,
        Self::Leftover,
    ];

    /// The kind's name: `layer`, `compressed-layer`, `document`, `writable-layer`, `container-files`, `log`, `volume`, `cache-mount`,
    /// `context`, `metadata`, `arriving`, `leftover`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Layer => "layer",
            Self::Compressed => "compressed-layer",
            Self::Document => "document",
            Self::Writable => "writable-layer",
            Self::ContainerFiles => "container-files",
            Self::Log => "log",
            Self::Volume => "volume",
            Self::CacheMount => "cache-mount",
            Self::Context => "context",
            Self::Metadata => "metadata",
            Self::Arriving => "arriving",
            Self::Leftover => "leftover",
        }
    }
}

/// One object of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerRow {
    #[allow(missing_docs)]
    pub kind: Kind,
    /// As its kind says.
    pub name: String,
    /// What it takes, and how many inodes it has.
    pub size: Allocated,
    /// The images that a layer, its compressed form or a document belongs to.
    pub images: Vec<Digest>,
}

impl LedgerRow {
    /// Whether it is a leftover whose name only this program gives, so that it may be removed; others are somebody
    /// else's.
    #[must_use]
    pub fn is_own_leftover(&self) -> bool {
        self.kind == Kind::Leftover && owners::is_ours(&self.name)
    }
}

/// Everything under a data root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// By kind, then by name.
    pub rows: Vec<LedgerRow>,
    /// Their sum. On an idle engine it is what `du -s --block-size=1` says of the data root; what other file systems
    /// are mounted below is not part of it.
    pub total: Allocated,
    #[allow(missing_docs)]
    pub data_root: PathBuf,
}

/// Directories that hold objects, or further such directories.
const FRAME: [&str; 17] = [
    "",
    "content",
    "content/blobs",
    "content/blobs/sha256",
    "content/ingest",
    "containers",
    "volumes",
    "builds",
    "caches",
    "contexts",
    "contexts/files",
    "layers",
    "overlay2",
    "overlay2/l",
    "vfs",
    "vfs/dir",
    "vfs/parent",
];

/// A directory whose entries may belong to different owners.
struct Dir {
    /// From the data root.
    path: String,
    base: Base,
}

/// All that is to be measured.
struct Plan {
    dirs: Vec<Dir>,
    /// Entries of the directories that are none of them.
    parts: Vec<Part>,
}

impl Plan {
    fn list(store: &Store) -> Result<Self> {
        let root = store.root();
        let Some(top) = Base::open(rustix::fs::CWD, root)? else {
            return Err(crate::Error::NotFound(format!("{} is gone", root.display())));
        };
        let mut paths: Vec<String> = FRAME.iter().skip(1).map(|p| (*p).to_owned()).collect();
        if let Some(all) = Base::open(&top.fd, "containers")? {
            let named = all.names()?.into_iter().filter_map(|name| name.into_string().ok());
            paths.extend(named.map(|name| format!("containers/{name}")));
        }
        let mut dirs = Vec::new();
        for path in paths {
            if let Some(base) = Base::open(&top.fd, &path)? {
                dirs.push(Dir { path, base });
            }
        }
        dirs.push(Dir { path: String::new(), base: top });
        let known: HashSet<&str> = dirs.iter().map(|d| d.path.as_str()).collect();
        let mut parts = Vec::new();
        for (i, dir) in dirs.iter().enumerate() {
            for name in dir.base.names()? {
                if !known.contains(join(&dir.path, &text(&name)).as_str()) {
                    parts.push(Part { base: i, name });
                }
            }
        }
        Ok(Self { dirs, parts })
    }

    /// Path of a part's directory, its name, and where it points to if it is a link.
    fn place(&self, part: &Part) -> (&str, String, Option<String>) {
        let Some(dir) = self.dirs.get(part.base) else { return ("", text(&part.name), None) };
        let link = (dir.path == "overlay2/l")
            .then(|| rustix::fs::readlinkat(&dir.base.fd, &part.name, Vec::new()).ok())
            .flatten();
        (&dir.path, text(&part.name), link.map(|l| text(&l)))
    }
}

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

fn text(name: &CStr) -> String {
    name.to_string_lossy().into_owned()
}

impl Store {
    /// Counts everything under the data root. Costs a status of every file (200,000 take about half a second when the
    /// kernel knows them).
    ///
    /// # Errors
    /// When files cannot be looked at or the metadata not be read.
    pub fn ledger(&self) -> Result<Ledger> {
        let plan = Plan::list(self)?;
        // After the names: what is named by now belongs to somebody.
        let owners = Owners::read(self)?;
        let mut sums: BTreeMap<(Kind, String), Allocated> = BTreeMap::new();
        for dir in &plan.dirs {
            *sums.entry(owners.of_dir(&dir.path)).or_default() += dir.base.own();
        }
        let bases: Vec<&Base> = plan.dirs.iter().map(|d| &d.base).collect();
        let links = Links::default();
        // What layers share with the pool counts as theirs.
        let (pooled, others): (Vec<&Part>, _) =
            plan.parts.iter().partition(|part| plan.place(part).0.starts_with(pool::DIR));
        for parts in [others, pooled] {
            for (part, size) in parts.iter().zip(measure_all(&bases, &parts, &links)?) {
                let (dir, name, link) = plan.place(part);
                *sums.entry(owners.of(dir, &name, link.as_deref())).or_default() += size;
            }
        }
        let mut total = Allocated::default();
        sums.values().for_each(|size| total += *size);
        // What went away meanwhile takes nothing.
        let rows = sums.into_iter().filter(|(_, size)| size.inodes > 0);
        let rows = rows.map(|((kind, name), size)| {
            let images = owners.images(kind, &name);
            LedgerRow { kind, name, size, images }
        });
        Ok(Ledger { rows: rows.collect(), total, data_root: self.root().to_owned() })
    }
}
