//! The store's upkeep.

use longshore_api::upkeep;
use longshore_engine::model;

/// Every byte under the data root.
pub(crate) fn ledger(found: model::Ledger) -> upkeep::Ledger {
    let row = |row: model::LedgerRow| upkeep::LedgerRow {
        kind: row.kind.to_owned(),
        name: row.name,
        bytes: row.bytes,
        inodes: row.inodes,
        shared: u64::try_from(row.shared).unwrap_or(u64::MAX),
        of: row.of,
    };
    upkeep::Ledger {
        ledger: found.rows.into_iter().map(row).collect(),
        total: found.total,
        data_root: found.data_root,
    }
}

/// What became of the compressed layers.
pub(crate) fn compressed(done: model::CompressedPruned) -> upkeep::CompressedPruned {
    let form = |digest: longshore_oci::Digest, bytes: u64, reason: String| upkeep::CompressedForm {
        digest: digest.to_string(),
        bytes,
        reason,
    };
    upkeep::CompressedPruned {
        dropped: done.dropped.into_iter().map(|(d, bytes)| form(d, bytes, String::new())).collect(),
        kept: done.kept.into_iter().map(|(d, why)| form(d, 0, why)).collect(),
        space_reclaimed: done.reclaimed,
    }
}

/// What a collection did, or would do.
pub(crate) fn collected(done: model::Collected, dry_run: bool) -> upkeep::Collected {
    let decision = |d: model::Decision| upkeep::Decision {
        action: if d.drop { "drop" } else { "keep" }.to_owned(),
        kind: d.kind.to_owned(),
        name: d.name,
        called: d.called,
        bytes: d.bytes,
        reason: d.reason,
        error: d.error.unwrap_or_default(),
    };
    upkeep::Collected {
        dry_run,
        limit: done.limit,
        before: done.before,
        freed: done.freed,
        decisions: done.decisions.into_iter().map(decision).collect(),
    }
}

/// A line of a check's progress.
pub(crate) fn check(event: model::CheckEvent) -> upkeep::CheckLine {
    use model::CheckEvent as Event;
    let mut line = upkeep::CheckLine::default();
    match event {
        Event::Reading { object, done, total } => {
            line.reading = Some(upkeep::CheckReading { object, done, total });
        }
        Event::Found(f) => line.finding = Some(finding(f)),
        Event::Repaired(f) => line.repaired = Some(finding(f)),
        Event::Failed(why) => line.error = Some(why),
        Event::Done(r) => {
            let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
            line.report = Some(upkeep::CheckReport {
                damaged: count(r.damaged),
                findings: r.findings.into_iter().map(finding).collect(),
                images: count(r.images),
                layers: count(r.layers),
                blobs: count(r.blobs),
                containers: count(r.containers),
                bytes: r.bytes,
            });
        }
    }
    line
}

fn finding(f: model::CheckFinding) -> upkeep::CheckFinding {
    upkeep::CheckFinding {
        kind: f.kind.to_owned(),
        object: f.object,
        what: f.what,
        remedy: f.remedy,
        outcome: f.outcome.to_owned(),
        detail: f.detail,
        damage: f.damage,
    }
}

/// An entry of the build cache.
pub(crate) fn build_cache(e: model::BuildCacheEntry) -> longshore_api::system::BuildCache {
    longshore_api::system::BuildCache {
        id: e.id,
        parents: Some(e.parents).filter(|p| !p.is_empty()),
        kind: e.kind.as_str().to_owned(),
        description: e.description,
        in_use: e.in_use,
        shared: e.shared,
        size: super::container::signed(e.size),
        created_at: longshore_api::time::rfc3339_nano(e.created),
        last_used_at: Some(longshore_api::time::rfc3339_nano(e.last_used)),
        usage_count: i64::try_from(e.uses).unwrap_or(i64::MAX),
    }
}
