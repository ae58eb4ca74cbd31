//! The store's upkeep: what it takes, what it drops, whether it is whole. Extensions of ours, not Docker's.

use serde::{Deserialize, Serialize};

use crate::is_default;

/// Every byte under the data root, in `GET /system/df`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ledger {
    /// By kind, then by name.
    pub ledger: Vec<LedgerRow>,
    /// Allocated bytes of all rows: on an idle engine what `du -s --block-size=1` says of the data root.
    pub total: u64,
    #[allow(missing_docs)]
    pub data_root: String,
}

/// One object of the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LedgerRow {
    /// `layer`, `compressed-layer`, `document`, `writable-layer`, `container-files`, `log`, `volume`, `metadata`,
    /// `arriving`, `leftover`.
    pub kind: String,
    /// A chain id, a digest, a container's id, a volume's name, or a path from the data root.
    pub name: String,
    /// Allocated bytes (blocks of 512).
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
    /// How many images have it; absent where that means nothing.
    #[serde(skip_serializing_if = "is_default")]
    pub shared: u64,
    /// A name of the image or container that it belongs to.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub of: String,
}

/// `POST /longshore/compressed/prune`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CompressedPruned {
    #[allow(missing_docs)]
    pub dropped: Vec<CompressedForm>,
    #[allow(missing_docs)]
    pub kept: Vec<CompressedForm>,
    /// Bytes of the disk (blocks) that this freed.
    pub space_reclaimed: u64,
}

/// A compressed layer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CompressedForm {
    #[allow(missing_docs)]
    pub digest: String,
    /// Bytes of the disk (blocks) that dropping it gave back.
    #[serde(skip_serializing_if = "is_default")]
    pub bytes: u64,
    /// Why it was kept.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// `POST /longshore/gc`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Collected {
    /// Nothing was removed.
    pub dry_run: bool,
    /// Bytes of the disk (blocks) that everything under the data root may take.
    pub limit: u64,
    /// Bytes that it took.
    pub before: u64,
    /// Bytes that this freed, or would free.
    pub freed: u64,
    /// What goes, in order; then what stays.
    pub decisions: Vec<Decision>,
}

/// One thing that could be collected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Decision {
    /// `drop` or `keep`.
    pub action: String,
    /// `leftover`, `compressed-layer` or `image`.
    pub kind: String,
    /// A path from the data root, a digest, or an image's id.
    pub name: String,
    /// What a person calls it.
    pub called: String,
    /// Bytes of the disk (blocks) that this freed, or would free.
    pub bytes: u64,
    #[allow(missing_docs)]
    pub reason: String,
    /// Why it is there even so.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// A line of `POST /longshore/check`: one of these, the last one a report or an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckLine {
    /// What is being read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reading: Option<CheckReading>,
    /// Something is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finding: Option<CheckFinding>,
    /// What became of a finding that was to be repaired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repaired: Option<CheckFinding>,
    /// The check is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<CheckReport>,
    /// The check could not be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How far a check is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct CheckReading {
    pub object: String,
    /// Bytes that were read.
    pub done: u64,
    /// Bytes that there are.
    pub total: u64,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckFinding {
    /// `record`, `blob`, `snapshot`, `layer`, `index`, `leftover` or `foreign`.
    pub kind: String,
    /// What: `layer sha256:…`, `image sha256:…`, `container …`, a path from the data root.
    pub object: String,
    /// What is wrong with it.
    pub what: String,
    /// How a repair mends it; absent when nothing can.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
    /// `found`, `repaired` or `failed`.
    pub outcome: String,
    /// What was done, or why it failed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Whether something is damaged, and still is.
    pub damage: bool,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct CheckReport {
    /// How many findings are damage that is still there.
    pub damaged: u64,
    pub findings: Vec<CheckFinding>,
    pub images: u64,
    pub layers: u64,
    pub blobs: u64,
    pub containers: u64,
    /// Bytes that were read.
    pub bytes: u64,
}
