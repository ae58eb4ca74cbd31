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
