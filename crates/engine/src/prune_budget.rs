//! The disk budget at work: the plan is the store's, a pure function; here it is carried out, by hand or by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use longshore_oci::Digest;
use longshore_store::DropPolicy;
use longshore_store::gc::{self, Candidate};

use crate::image_remove::Removal;
use crate::model::{CollectRequest, Collected, Decision, DiskBudget};
use crate::{Engine, Error, Result};

/// How often it is looked after the budget when no image is added.
const EVERY: Duration = Duration::from_secs(3600);
/// Time between two looks at least, however many images are added.
const REST: Duration = Duration::from_secs(5);

impl Engine {
    /// Brings what the data root takes below the budget, as far as the policy allows.
    ///
    /// # Errors
    /// `Invalid` when there is no budget; when what is there cannot be looked at. What cannot be removed is told in the
    /// answer.
    pub async fn collect(&self, request: CollectRequest) -> Result<Collected> {
        let budget = request.budget.or(self.inner.options.disk_budget).ok_or_else(|| {
            Error::invalid(
                "no disk budget is set: set disk-budget in the daemon's configuration, or name a limit (20GB)",
            )
        })?;
        let mut plan = self.blocking(move |e| e.plan(&budget)).await?;
        if request.dry_run || plan.freed == 0 {
            return Ok(plan);
        }
        let engine = self.clone();
        self.to_the_end(async move {
            plan.freed = 0;
            for i in 0..plan.decisions.len() {
                let Some(decision) = plan.decisions.get(i).filter(|d| d.drop).cloned() else { continue };
                let done = engine.carry_out(decision).await;
                plan.freed += done.bytes;
                plan.decisions[i] = done;
            }
            Ok(plan)
        })
        .await
    }

    fn plan(&self, budget: &DiskBudget) -> Result<Collected> {
        let mut containers: BTreeMap<Digest, String> = BTreeMap::new();
        for c in self.all() {
            let record = &c.read().record;
            containers.insert(record.image, record.name.clone());
        }
        for record in self.all_working().iter().map(|w| w.record()) {
            containers.extend(record.image.map(|image| (image, record.name)));
        }
        let budget = gc::Budget {
            limit: budget.limit,
            keep_last_used: budget.keep_last_used,
            keep_tagged: budget.keep_tagged,
        };
        let plan = gc::plan(&self.inner.store.collectable(&containers)?, &budget);
        let decision = |d: gc::Decision| {
            let (kind, name) = match d.candidate {
                Candidate::Leftover(path) => ("leftover", path),
                Candidate::Compressed(digest) => ("compressed-layer", digest.to_string()),
                Candidate::Image(id) => ("image", id.to_string()),
            };
            let (called, bytes, drop, reason) = (d.called, d.bytes, d.drop, d.reason);
            Decision { kind, name, called, bytes, drop, reason, error: None }
        };
        Ok(Collected {
            limit: budget.limit,
            before: plan.total,
            freed: plan.freed,
            decisions: plan.decisions.into_iter().map(decision).collect(),
        })
    }

    /// Does one thing, and notes what came of it. Between two of them containers can be made.
    async fn carry_out(&self, mut decision: Decision) -> Decision {
        let _alone = self.inner.image_use.write().await;
        let wanted = decision.clone();
        match self.blocking(move |e| e.drop_one(&wanted)).await {
            Ok(bytes) => decision.bytes = bytes,
            Err(e) => (decision.bytes, decision.error) = (0, Some(e.to_string())),
        }
        decision
    }

    /// Drops what the plan names, unless it is needed by now; bytes of the disk that this freed.
    fn drop_one(&self, decision: &Decision) -> Result<u64> {
        let store = &self.inner.store;
        let digest = || decision.name.parse::<Digest>().map_err(|e| Error::internal(e.to_string()));
        match decision.kind {
            "leftover" => {
                let removed = store.remove_leftovers(&BTreeSet::from([decision.name.clone()]))?;
                Ok(removed.iter().map(|(_, bytes)| bytes).sum())
            }
            "compressed-layer" => {
                let only = Some(BTreeSet::from([digest()?]));
                let done = store.drop_compressed(&DropPolicy { prove: false, only })?;
                match done.kept.first() {
                    Some((_, why)) => Err(Error::conflict(format!("it is kept: {why}"))),
                    None => Ok(done.bytes()),
                }
            }
            _ => {
                let record = store.images().get(&digest()?)?;
                let mut out = Removal::measured();
                self.drop_image(&record, &mut out)?;
                Ok(out.freed)
            }
        }
    }

    /// Notes that there is an image more: the budget may be used up.
    pub(crate) fn image_added(&self) {
        self.inner.image_added.notify_one();
    }

    /// Looks after the budget, if there is one, until the engine closes.
    pub(crate) fn keep_budget(&self) {
        if self.inner.options.disk_budget.is_none() {
            return;
        }
        let inner = Arc::downgrade(&self.inner);
        let mut closing = self.inner.closing.subscribe();
        tokio::spawn(async move {
            loop {
                let Some(inner) = inner.upgrade() else { return };
                let engine = Engine { inner };
                match engine.collect(CollectRequest::default()).await {
                    Ok(done) => tell(&done),
                    Err(e) => tracing::warn!("looking after the disk budget: {e}"),
                }
                tokio::select! {
                    _ = closing.wait_for(|c| *c) => return,
                    () = tokio::time::sleep(REST) => {}
                }
                tokio::select! {
                    _ = closing.wait_for(|c| *c) => return,
                    () = engine.inner.image_added.notified() => {}
                    () = tokio::time::sleep(EVERY) => {}
                }
            }
        });
    }
}

/// One line, if there is something to say.
fn tell(done: &Collected) {
    let after = done.before.saturating_sub(done.freed);
    let gone =
        |kind: &str| done.decisions.iter().filter(|d| d.drop && d.error.is_none() && d.kind == kind).count();
    let failed = done.decisions.iter().filter(|d| d.error.is_some()).count();
    if after > done.limit {
        tracing::warn!(
            freed = done.freed,
            taken = after,
            limit = done.limit,
            failed,
            "the disk budget is used up, and no more may go: `longshore system gc --dry-run` says why"
        );
    } else if done.freed > 0 {
        tracing::info!(
            images = gone("image"),
            compressed = gone("compressed-layer"),
            leftovers = gone("leftover"),
            freed = done.freed,
            taken = after,
            limit = done.limit,
            failed,
            "collected for the disk budget"
        );
    }
}
