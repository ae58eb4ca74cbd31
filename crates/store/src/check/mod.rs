//! Whether everything in a store is what its record says, and mending what is not.
//!
//! A check changes nothing and holds no lock while it reads: what is taken away meanwhile is looked for again, and is no
//! fault. A repair takes what is damaged from whatever can give it: the compressed form that is kept, the same layer on
//! another chain, a leftover, the recipe, or a [`Fetch`].

mod blobs;
mod layers;
mod reblob;
mod records;
mod repair;

use std::collections::BTreeSet;
use std::fmt;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use longshore_oci::Digest;

use self::repair::Repair;
use crate::image::BlobRecord;
use crate::meta::Table;
use crate::open::Store;
use crate::usage::Kind;
use crate::{Error, Result};

/// Fetches blobs from where they can be had again.
pub trait Fetch: Sync {
    /// The bytes of a blob; they are checked by who reads them. `sources` are repositories (`registry/repository`) that
    /// had it, the newest first, and may be none.
    ///
    /// # Errors
    /// When nobody gives it; the text says who was asked.
    fn fetch(&self, blob: &BlobRecord, sources: &[String]) -> Result<Box<dyn Read + Send>>;
}

/// Says what is wrong with a record of a table that others than the store write.
pub type Decode<'a> = dyn Fn(Table, &str, &serde_json::Value) -> std::result::Result<(), String> + Sync + 'a;

/// Runs what it is given at a moment of its choice, before it returns.
pub type Alone<'a> = dyn Fn(&mut dyn FnMut()) + Sync + 'a;

/// How a store is checked.
#[derive(Clone, Copy, Default)]
pub struct CheckOptions<'a> {
    /// Do not read contents: only records, sizes, and what stands beside layers.
    pub quick: bool,
    /// Mend what can be mended, and remove leftovers.
    pub repair: bool,
    /// Who gives blobs again.
    pub fetch: Option<&'a dyn Fetch>,
    /// Who understands the other tables' records.
    pub decode: Option<&'a Decode<'a>>,
    /// Runs something while no container is being made: their directories have no record yet. `None`: none is.
    pub alone: Option<&'a Alone<'a>>,
    /// Set from elsewhere, it ends the check before the next object.
    pub stop: Option<&'a AtomicBool>,
}

impl fmt::Debug for CheckOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckOptions")
            .field("quick", &self.quick)
            .field("repair", &self.repair)
            .finish_non_exhaustive()
    }
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// A record cannot be read, contradicts another, or is missing.
    Record,
    /// A blob is missing, or its bytes are others.
    Blob,
    /// What the driver keeps beside a tree (its names, the list of layers below) is wrong.
    Snapshot,
    /// A layer's tree or recipe was altered.
    Layer,
    /// A layer's index was altered.
    Index,
    /// No record names it; it is this program's own.
    Leftover,
    /// No record names it, and it is not this program's.
    Foreign,
}

impl FaultKind {
    /// `record`, `blob`, `snapshot`, `layer`, `index`, `leftover`, `foreign`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Blob => "blob",
            Self::Snapshot => "snapshot",
            Self::Layer => "layer",
            Self::Index => "index",
            Self::Leftover => "leftover",
            Self::Foreign => "foreign",
        }
    }

    /// Whether something is lost or wrong; otherwise something is there that need not be.
    #[must_use]
    pub const fn is_damage(self) -> bool {
        !matches!(self, Self::Leftover | Self::Foreign)
    }
}

/// What became of a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was not to be repaired.
    Found,
    /// It is right again; the text says what was done.
    Repaired(String),
    /// It is still so; the text says why.
    Failed(String),
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    #[allow(missing_docs)]
    pub kind: FaultKind,
    /// What: `layer sha256:…`, `image sha256:…`, `blob sha256:…`, `container …`, `tag …`, a path.
    pub object: String,
    /// What is wrong.
    pub what: String,
    /// How a repair would mend it; `None`: nothing here can.
    pub remedy: Option<String>,
    #[allow(missing_docs)]
    pub outcome: Outcome,
    /// What a repair needs to know.
    pub(crate) fault: Fault,
}

impl Finding {
    fn new(kind: FaultKind, object: impl Into<String>, what: impl Into<String>, fault: Fault) -> Self {
        let (object, what) = (object.into(), what.into());
        Self { kind, object, what, remedy: None, outcome: Outcome::Found, fault }
    }

    /// Whether something is damaged, and still is.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        self.kind.is_damage() && !matches!(self.outcome, Outcome::Repaired(_))
    }
}

/// What exactly is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing that could be mended here.
    Hopeless,
    /// A record of the store that cannot be read: what it is about is not known.
    Unreadable,
    /// A blob that records name.
    Blob(Digest),
    /// A layer's tree or recipe.
    Layer(Digest),
    /// A layer's index.
    Index(Digest),
    /// The driver's files of a layer's snapshot.
    LayerFiles(Digest),
    /// The driver's files of a container's snapshots.
    ContainerFiles(String),
    /// An image's list of layers is not that of its configuration.
    ImageLayers(Digest),
    /// An image needs a layer that has no record: diff id, and chain id of the layer below.
    LostLayer { diff_id: Digest, below: Option<Digest> },
    /// A layer has no record, and something stands on it.
    Needs(Digest),
    /// Something that nothing names.
    Leftover(String),
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    #[allow(missing_docs)]
    pub findings: Vec<Finding>,
    /// How much was looked at.
    pub checked: Checked,
}

impl Report {
    /// How many findings are damage that is still there.
    #[must_use]
    pub fn damaged(&self) -> usize {
        self.findings.iter().filter(|f| f.is_damage()).count()
    }
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Checked {
    pub images: usize,
    pub layers: usize,
    pub blobs: usize,
    pub containers: usize,
    /// Bytes of contents that were read.
    pub bytes: u64,
}

/// What happens during a check.
#[derive(Clone, Debug)]
pub enum CheckEvent<'a> {
    /// What is being read, as a finding would name it, and how far: bytes of all, and how many there are.
    Reading {
        #[allow(missing_docs)]
        object: &'a str,
        #[allow(missing_docs)]
        done: u64,
        #[allow(missing_docs)]
        total: u64,
    },
    /// Something is wrong.
    Found(&'a Finding),
    /// What became of a finding that was to be repaired.
    Repaired(&'a Finding),
}

/// Told during a check.
pub type OnCheck<'a> = dyn Fn(CheckEvent<'_>) + Sync + 'a;

/// Time between two words about progress.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// Tells how far a check is.
pub(crate) struct Progress<'a> {
    tell: &'a OnCheck<'a>,
    stop: Option<&'a AtomicBool>,
    state: Mutex<(u64, u64, Option<Instant>)>,
}

impl<'a> Progress<'a> {
    fn new(tell: &'a OnCheck<'a>, total: u64, stop: Option<&'a AtomicBool>) -> Self {
        Self { tell, stop, state: Mutex::new((0, total, None)) }
    }

    /// Told before each object.
    fn go_on(&self) -> Result<()> {
        match self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
            true => Err(Error::Unavailable("the check was stopped".into())),
            false => Ok(()),
        }
    }

    /// So many bytes more were read.
    pub(crate) fn read(&self, object: &str, bytes: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += bytes;
        let (done, total, last) = *state;
        if last.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            state.2 = Some(Instant::now());
            drop(state);
            (self.tell)(CheckEvent::Reading { object, done, total: total.max(done) });
        }
    }

    /// Everything was read; gives how much that was.
    fn end(&self) -> u64 {
        let (done, ..) = *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if done > 0 {
            (self.tell)(CheckEvent::Reading { object: "everything", done, total: done });
        }
        done
    }
}

/// Tells nobody.
fn silent(_: CheckEvent<'_>) {}

impl Store {
    /// Looks at everything, and mends it if that is asked for.
    ///
    /// # Errors
    /// When the metadata cannot be read, or the system refuses; what is damaged is no error but a finding.
    pub fn check(&self, options: &CheckOptions<'_>, tell: &OnCheck<'_>) -> Result<Report> {
        let mut report = Report::default();
        let mut findings = self.check_records(options, &mut report.checked)?;
        findings.iter().for_each(|f| tell(CheckEvent::Found(f)));
        if findings.iter().any(|f| f.fault == Fault::Unreadable) {
            // What belongs to whom is not known: the rest would be wrong.
            report.findings = findings;
            return Ok(report);
        }
        let total = if options.quick { 0 } else { self.bytes_to_check()? };
        let progress = Progress::new(tell, total, options.stop);
        let mut add = |found: Vec<Finding>| {
            found.iter().for_each(|f| tell(CheckEvent::Found(f)));
            findings.extend(found);
        };
        add(self.check_blobs(options.quick, &mut report.checked, &progress)?);
        add(self.check_layers(options.quick, &mut report.checked, &progress)?);
        report.checked.bytes = progress.end();
        add(self.check_leftovers()?);
        let repair = Repair::new(self, options);
        for finding in &mut findings {
            finding.remedy = repair.remedy(finding)?;
        }
        if options.repair {
            // What others are mended from comes first; layers from the lowest up.
            let mut order: Vec<usize> = (0..findings.len()).collect();
            order.sort_by_key(|i| findings.get(*i).map(|f| repair.rank(f)));
            for i in order {
                if let Some(finding) = findings.get_mut(i) {
                    finding.outcome = repair.mend(finding);
                    tell(CheckEvent::Repaired(finding));
                }
            }
        }
        report.findings = findings;
        Ok(report)
    }

    /// What nothing names.
    fn check_leftovers(&self) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        for row in self.ledger()?.rows.into_iter().filter(|r| r.kind == Kind::Leftover) {
            let own = row.is_own_leftover();
            // What was on its way when it was seen has arrived by now.
            if own && !self.is_leftover(&row.name)? {
                continue;
            }
            let what = match own {
                true => "nothing names it",
                false => "it is not of this program",
            };
            let kind = if own { FaultKind::Leftover } else { FaultKind::Foreign };
            let fault = if own { Fault::Leftover(row.name.clone()) } else { Fault::Hopeless };
            findings.push(Finding::new(kind, row.name, what, fault));
        }
        Ok(findings)
    }

    /// What will be read.
    fn bytes_to_check(&self) -> Result<u64> {
        let mut total = 0;
        for blob in self.content().list()? {
            total += self.content().size(&blob).unwrap_or(0);
        }
        let mut seen = BTreeSet::new();
        for (_, layer) in self.meta().list::<crate::image::LayerRecord>(Table::Layers)? {
            if seen.insert(layer.cache_id.clone()) {
                total += crate::archive::tar_size(self, &layer.cache_id).unwrap_or(0);
            }
        }
        Ok(total)
    }
}
