//! The store's upkeep: what builds left, compressed forms, the disk budget, the check.

use futures_util::StreamExt as _;
use longshore_engine::model::{BuildKeep, BuildPruneRequest, CheckRequest, CollectRequest, DiskBudget};

use super::translate::upkeep as translate;
use super::{Answer, Call, reply};
use crate::errors::ApiError;

/// `POST /build/prune`.
pub(super) async fn prune_build_cache(call: &Call) -> Answer {
    let query = &call.query;
    // As clients before 1.48 call it.
    let reserved = query.number::<u64>("reserved-space")?.or(query.number::<u64>("keep-storage")?);
    let request = BuildPruneRequest {
        all: query.flag("all"),
        filters: query.filters()?,
        keep: BuildKeep {
            reserved: reserved.unwrap_or(0),
            max_used: query.number::<u64>("max-used-space")?.unwrap_or(0),
            min_free: query.number::<u64>("min-free-space")?.unwrap_or(0),
        },
    };
    let done = call.engine().prune_build_cache(request).await?;
    let removed = Some(done.removed).filter(|l| !l.is_empty());
    Ok(reply::json(&serde_json::json!({"CachesDeleted": removed, "SpaceReclaimed": done.reclaimed})))
}

/// `POST /longshore/compressed/prune`.
pub(super) async fn prune_compressed(call: &Call) -> Answer {
    Ok(reply::json(&translate::compressed(call.engine().prune_compressed().await?)))
}

/// `POST /longshore/gc`: by the daemon's budget, or by one that the query names.
pub(super) async fn collect(call: &Call) -> Answer {
    let query = &call.query;
    let keep_tagged = query.given("keep-tagged").map(|_| query.flag("keep-tagged"));
    let budget = match query.given("limit") {
        Some(limit) => Some(DiskBudget::read(limit, query.given("keep-last-used"), keep_tagged)?),
        None if query.given("keep-last-used").is_some() || keep_tagged.is_some() => {
            return Err(ApiError::invalid("what is kept was named, but no limit"));
        }
        None => None,
    };
    let request = CollectRequest { dry_run: query.flag("dryrun"), budget };
    let done = call.engine().collect(request).await?;
    Ok(reply::json(&translate::collected(done, request.dry_run)))
}

/// `POST /longshore/check`: progress in lines of JSON, then the report.
pub(super) fn check(call: &Call) -> Answer {
    let request = CheckRequest { quick: call.query.flag("quick"), repair: call.query.flag("repair") };
    let lines = call.engine().check(request);
    let lines = lines.map(|e| Ok::<_, std::convert::Infallible>(reply::json_line(&translate::check(e))));
    Ok(reply::stream(reply::JSON, lines))
}
