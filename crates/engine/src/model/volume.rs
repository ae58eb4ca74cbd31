use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::UnixNanos;

/// A named volume of the `local` driver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Volume {
    pub name: String,
    pub driver: String,
    pub mountpoint: String,
    pub created: UnixNanos,
    pub labels: Option<BTreeMap<String, String>>,
    pub options: Option<BTreeMap<String, String>>,
    /// Made without a name.
    pub anonymous: bool,
}

/// What a prune freed.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct Pruned {
    pub deleted: Vec<String>,
    /// Bytes of the disk (blocks) that this freed.
    pub reclaimed: u64,
}

/// `POST /volumes/create`.
#[derive(Clone, Debug, Default)]
pub struct CreateVolume {
    /// Empty: a made-up one; the volume is anonymous.
    pub name: String,
    /// Empty or `local`.
    pub driver: String,
    #[allow(missing_docs)]
    pub labels: Option<BTreeMap<String, String>>,
    /// Of the driver; refused when not empty.
    pub options: Option<BTreeMap<String, String>>,
}
