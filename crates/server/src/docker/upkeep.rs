//! The store's upkeep: what builds left, compressed forms, the disk budget, the check.

use super::translate::upkeep as translate;
use super::{Answer, Call, reply};

/// `POST /build/prune`.
pub(super) fn prune_build_cache(call: &Call) -> Answer {
    // Filters are Docker's, and there is nothing that they could choose from; a wrong form is refused all the same.
    call.query.filters()?;
    let reclaimed = call.engine().prune_build_cache();
    Ok(reply::json(&serde_json::json!({"CachesDeleted": null, "SpaceReclaimed": reclaimed})))
}

/// `POST /longshore/compressed/prune`.
pub(super) async fn prune_compressed(call: &Call) -> Answer {
    Ok(reply::json(&translate::compressed(call.engine().prune_compressed().await?)))
}
