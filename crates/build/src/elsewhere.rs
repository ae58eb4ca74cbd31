//! Steps that were carried out elsewhere: what caches say is taken at their word for the key that is asked, and their
//! layers are brought when something needs them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use longshore_oci::Digest;
use longshore_store::lease::Lease;
use longshore_store::{StepRecord, Store};

use crate::Result;
use crate::cancel::Cancel;

/// What a cache says that a step gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Digest of the tar of its layer, which the cache has; `None` for a step that changed nothing.
    pub diff_id: Option<Digest>,
    /// Bytes of the files in its layer.
    pub size: u64,
    /// When the newest file of its layer was changed, nanoseconds since 1970.
    pub newest: i64,
    /// What it was, for people.
    pub what: String,
    /// The key that covers everything, where it was asked by its second one.
    pub of: Option<Digest>,
}

/// Caches that others made. Nothing that is wrong with one of them is an error: it is told to people, and nothing more is
/// taken from it.
pub trait Elsewhere: Send + Sync {
    /// What a cache says of a step. It is asked for keys that the store does not know.
    fn find(&self, key: &Digest) -> Option<Claim>;

    /// Brings layers into the store, which are what claims of this build said, the lowest first, on top of `below`. `lease`
    /// holds them then. False if they are not to be had as they were described: then those who said so are not believed
    /// any more.
    ///
    /// # Errors
    /// [`crate::Error::Cancelled`].
    fn bring(&self, below: Option<Digest>, layers: &[Digest], lease: &Lease, cancel: &Cancel)
    -> Result<bool>;

    /// Fills a cache mount that was just made, if a cache has one of its name; whether it did. One that it could not fill is
    /// empty.
    fn fill(&self, name: &str, cancel: &Cancel) -> bool;
}

/// Steps of which caches said what they gave, and that are not in the store, by the tree after them.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    steps: Mutex<BTreeMap<Option<Digest>, Vec<Promise>>>,
    /// Held while layers are brought: what two steps want is brought once.
    bringing: Mutex<()>,
}

#[derive(Clone, Debug)]
struct Promise {
    keys: Vec<Digest>,
    record: StepRecord,
}

impl Promises {
    /// Takes a claim about the step `key` on the tree `below`.
    pub(crate) fn take(&self, key: Digest, below: Option<Digest>, claim: Claim) -> StepRecord {
        let chain = claim.diff_id.map(|diff_id| Digest::chain(below.as_ref(), &diff_id)).or(below);
        let now = now();
        let record = StepRecord {
            chain,
            below,
            diff_id: claim.diff_id,
            size: claim.size,
            newest: claim.newest,
            made: now,
            used: now,
            uses: 1,
            what: claim.what,
            of: claim.of,
            unsynced: None,
        };
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        steps.entry(chain).or_default().push(Promise { keys: vec![key], record: record.clone() });
        record
    }

    /// Notes that a step that was promised is known by a second key, too.
    pub(crate) fn alias(&self, chain: Option<Digest>, key: &Digest, second: Digest) {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let of_chain = steps.get_mut(&chain).into_iter().flatten();
        of_chain.filter(|promise| promise.keys.contains(key)).for_each(|promise| promise.keys.push(second));
    }

    /// Makes sure that the layers of a tree are in the store, and that what gave them is on record. False if a cache that
    /// promised them has not kept its word.
    pub(crate) fn keep(
        &self,
        store: &Store,
        tree: Option<Digest>,
        from: &dyn Elsewhere,
        lease: &Lease,
        cancel: &Cancel,
    ) -> Result<bool> {
        let _alone = self.bringing.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.path(tree);
        let mut missing = Vec::new();
        let mut below = tree;
        for (chain, diff_id, under) in &path {
            if store.layer(chain)?.is_some() {
                break;
            }
            missing.push(*diff_id);
            below = *under;
        }
        missing.reverse();
        if !missing.is_empty() && !from.bring(below, &missing, lease, cancel)? {
            return Ok(false);
        }
        let lowest = path.last().map_or(tree, |(_, _, under)| *under);
        let trees = path.iter().map(|(chain, ..)| Some(*chain)).chain([lowest]);
        let mut kept = Vec::new();
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        for promise in trees.filter_map(|tree| steps.remove(&tree)).flatten() {
            let first = promise.keys.first().copied();
            for key in promise.keys {
                let of = if Some(key) == first { promise.record.of } else { first };
                kept.push((key, StepRecord { of, ..promise.record.clone() }));
            }
        }
        drop(steps);
        if !kept.is_empty() {
            store.record_steps(&kept)?;
        }
        Ok(true)
    }

    /// The layers of a tree that were promised, the topmost first: chain id, diff id, and the tree below.
    fn path(&self, tree: Option<Digest>) -> Vec<(Digest, Digest, Option<Digest>)> {
        let steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut at, mut path) = (tree, Vec::new());
        while let Some(chain) = at {
            let promised = |p: &Promise| Some((p.record.diff_id?, p.record.below));
            let promise = steps.get(&at).and_then(|all| all.iter().find_map(promised));
            // What nobody promised is there, or the store says what is wrong.
            let Some((diff_id, below)) = promise else { break };
            path.push((chain, diff_id, below));
            at = below;
        }
        path
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
