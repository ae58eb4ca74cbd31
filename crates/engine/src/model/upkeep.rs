use std::time::Duration;

use longshore_oci::Digest;

use crate::time::parse_go_duration;
use crate::{Error, Result};

/// What became of the compressed layers.
#[derive(Clone, Debug, Default)]
pub struct CompressedPruned {
    /// With the bytes of the disk (blocks) that each gave back.
    pub dropped: Vec<(Digest, u64)>,
    /// With the reason.
    pub kept: Vec<(Digest, String)>,
    /// Bytes of the disk (blocks) that this freed.
    pub reclaimed: u64,
}

/// What the data root may take, and what is kept even so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskBudget {
    /// Bytes of the disk (blocks) that everything under the data root may take together.
    pub limit: u64,
    /// Images that were used so recently are kept.
    pub keep_last_used: Duration,
    /// Images with a name are kept.
    pub keep_tagged: bool,
}

impl DiskBudget {
    /// How long an image is kept after it was used, unless another time is named.
    pub const KEEP_LAST_USED: Duration = Duration::from_secs(24 * 3600);

    /// From texts as people write them: `20GB`, `72h`. Without more, images with a name, and those used within a day,
    /// are kept.
    ///
    /// # Errors
    /// For what is no size or no duration.
    pub fn read(limit: &str, keep_last_used: Option<&str>, keep_tagged: Option<bool>) -> Result<Self> {
        let bad_time = |text| Error::invalid(format!("{text:?} is no duration: write 72h or 1h30m"));
        let keep = match keep_last_used {
            Some(text) => {
                let nanos = parse_go_duration(text).ok_or_else(|| bad_time(text))?;
                Duration::from_nanos(u64::try_from(nanos).map_err(|_| bad_time(text))?)
            }
            None => Self::KEEP_LAST_USED,
        };
        let limit = parse_size(limit)
            .filter(|bytes| *bytes > 0)
            .ok_or_else(|| Error::invalid(format!("{limit:?} is no size: write 20GB or 20GiB")))?;
        Ok(Self { limit, keep_last_used: keep, keep_tagged: keep_tagged.unwrap_or(true) })
    }
}

/// Bytes as Docker prints them: `1.5GB` are units of a thousand, `1.5GiB` of 1024.
fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let unit = unit.trim().to_ascii_lowercase();
    let (base, unit) = match unit.strip_suffix("ib") {
        Some(unit) => (1024f64, unit),
        None => (1000f64, unit.strip_suffix('b').unwrap_or(&unit)),
    };
    let power = match unit {
        "" if base < 1024.0 => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * base.powi(power);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the range")]
    (0.0..1e19).contains(&bytes).then_some(bytes as u64)
}

/// What is asked of a collection.
#[derive(Clone, Copy, Debug, Default)]
pub struct CollectRequest {
    /// Only say what would be done.
    pub dry_run: bool,
    /// `None`: that of the daemon's settings.
    pub budget: Option<DiskBudget>,
}

/// What a collection did, or would do.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    /// Bytes that everything may take.
    pub limit: u64,
    /// Bytes that everything took.
    pub before: u64,
    /// Bytes of the disk that this freed, or would free.
    pub freed: u64,
    /// What went, in order; then what stayed.
    pub decisions: Vec<Decision>,
}

/// One thing that could be collected.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    /// `leftover`, `compressed-layer` or `image`.
    pub kind: &'static str,
    /// A path from the data root, a digest, or an image's id.
    pub name: String,
    /// What a person calls it.
    pub called: String,
    /// Bytes of the disk that it freed, or would free.
    pub bytes: u64,
    /// Whether it goes.
    pub drop: bool,
    /// Why it goes or stays.
    pub reason: String,
    /// Why it is there even so.
    pub error: Option<String>,
}

/// How the store is checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckRequest {
    /// Do not read contents.
    pub quick: bool,
    /// Mend what can be mended, and remove leftovers.
    pub repair: bool,
}

/// What happens during a check; the last one is `Done` or `Failed`.
#[derive(Clone, Debug)]
pub enum CheckEvent {
    /// This is being read.
    Reading {
        /// As a finding names it.
        object: String,
        /// Bytes that were read.
        done: u64,
        /// Bytes that there are.
        total: u64,
    },
    /// Something is wrong.
    Found(CheckFinding),
    /// What became of it.
    Repaired(CheckFinding),
    /// It is over.
    Done(CheckReport),
    /// It could not be done.
    Failed(String),
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, Default)]
pub struct CheckFinding {
    /// `record`, `blob`, `snapshot`, `layer`, `index`, `leftover` or `foreign`.
    pub kind: &'static str,
    /// What: `layer sha256:…`, `image sha256:…`, `container …`, a path.
    pub object: String,
    /// What is wrong with it.
    pub what: String,
    /// How a repair mends it; empty when nothing here can.
    pub remedy: String,
    /// `found`, `repaired` or `failed`.
    pub outcome: &'static str,
    /// What was done, or why it failed.
    pub detail: String,
    /// Whether something is damaged, and still is; otherwise something is there that need not be.
    pub damage: bool,
}

/// What a check found.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct CheckReport {
    pub findings: Vec<CheckFinding>,
    /// How many of them are damage that is still there.
    pub damaged: usize,
    pub images: usize,
    pub layers: usize,
    pub blobs: usize,
    pub containers: usize,
    /// Bytes that were read.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("20GB", Some(20_000_000_000)),
            ("20gb", Some(20_000_000_000)),
            ("1.5 GiB", Some(3 << 29)),
            ("500M", Some(500_000_000)),
            ("64k", Some(64_000)),
            ("12", Some(12)),
            ("12B", Some(12)),
            ("", None),
            ("GB", None),
            ("-1GB", None),
            ("1XB", None),
            ("1iB", None),
            ("99999999PB", None),
            ("1e3", None),
        ] {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
        let budget = DiskBudget::read("1GB", Some("72h"), Some(false)).unwrap();
        assert_eq!((budget.keep_last_used.as_secs(), budget.keep_tagged), (72 * 3600, false));
        assert_eq!(DiskBudget::read("1GB", None, None).unwrap().keep_last_used, DiskBudget::KEEP_LAST_USED);
        for (limit, keep) in [("0", None), ("x", None), ("1GB", Some("3 days")), ("1GB", Some(""))] {
            assert!(DiskBudget::read(limit, keep, None).is_err(), "{limit} {keep:?}");
        }
    }
}
