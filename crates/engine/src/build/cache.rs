//! The build cache as people see it: what it holds, what it takes, and letting go of it.

use std::collections::{BTreeMap, BTreeSet};

use longshore_oci::Digest;
use longshore_store::StepRecord;
use longshore_store::usage::Kind;

use super::of_build;
use crate::filters;
use crate::model::{BuildCacheEntry, BuildCacheKind, BuildKeep, BuildPruneRequest, BuildPruned, Filters};
use crate::time::now;
use crate::{Engine, Error, Result};

/// Filters that name a property of an entry.
const FILTERS: [&str; 10] =
    ["id", "parent", "parents", "type", "description", "inuse", "shared", "private", "until", "unused-for"];

/// The tree that a step gave, and what the step was: several keys may lead to one.
type Outcome = (Option<Digest>, String);

/// An entry, and what it is in the store.
struct Found {
    entry: BuildCacheEntry,
    /// Steps, cache mounts or contexts; several keys may name one result of a step.
    keys: Vec<Digest>,
}

impl Engine {
    /// Everything in the build cache, what was used last first.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub async fn build_cache(&self) -> Result<Vec<BuildCacheEntry>> {
        self.blocking(|e| Ok(e.cache_entries()?.into_iter().map(|f| f.entry).collect())).await
    }

    fn cache_entries(&self) -> Result<Vec<Found>> {
        let store = &self.inner.store;
        let ledger = store.ledger()?;
        let sizes: BTreeMap<(Kind, String), u64> =
            ledger.rows.into_iter().map(|row| ((row.kind, row.name), row.size.bytes)).collect();
        let images: BTreeSet<Digest> = store.images().list()?.into_iter().flat_map(|i| i.layers).collect();
        let mut steps: BTreeMap<Outcome, Vec<(Digest, StepRecord)>> = BTreeMap::new();
        for (key, step) in store.steps()? {
            steps.entry((step.chain, step.what.clone())).or_default().push((key, step));
        }
        let by_chain: BTreeMap<Digest, String> =
            steps.iter().filter_map(|((chain, _), keys)| Some(((*chain)?, keys.first()?.0.hex()))).collect();
        let mut found = Vec::new();
        for ((chain, what), keys) in steps {
            let Some((first, step)) = keys.first() else { continue };
            let layer = chain.filter(|_| step.diff_id.is_some());
            let size = layer.and_then(|c| sizes.get(&(Kind::Layer, c.to_string())).copied()).unwrap_or(0);
            found.push(Found {
                entry: BuildCacheEntry {
                    id: first.hex(),
                    kind: BuildCacheKind::Step,
                    description: what,
                    parents: step.below.and_then(|b| by_chain.get(&b).cloned()).into_iter().collect(),
                    in_use: false,
                    shared: layer.is_some_and(|c| images.contains(&c)),
                    size,
                    created: step.made,
                    last_used: keys.iter().map(|(_, s)| s.used).max().unwrap_or(0),
                    uses: keys.iter().map(|(_, s)| s.uses).max().unwrap_or(0),
                },
                keys: keys.iter().map(|(key, _)| *key).collect(),
            });
        }
        for (key, record, size) in store.cache_mounts()? {
            found.push(Found {
                entry: BuildCacheEntry {
                    id: key.hex(),
                    kind: BuildCacheKind::CacheMount,
                    in_use: self.inner.builder.uses_cache(&record.name),
                    description: record.name,
                    parents: Vec::new(),
                    shared: false,
                    size: size.bytes,
                    created: record.created,
                    last_used: record.used,
                    uses: record.uses,
                },
                keys: vec![key],
            });
        }
        for context in self.inner.builder.shared_contexts().map_err(of_build)? {
            found.push(Found {
                entry: BuildCacheEntry {
                    id: context.key.hex(),
                    kind: BuildCacheKind::Context,
                    in_use: context.in_use,
                    description: "files of a build context".to_owned(),
                    parents: Vec::new(),
                    shared: false,
                    size: context.size,
                    created: context.used,
                    last_used: context.used,
                    uses: 0,
                },
                keys: vec![context.key],
            });
        }
        found.sort_by(|a, b| {
            b.entry.last_used.cmp(&a.entry.last_used).then_with(|| a.entry.id.cmp(&b.entry.id))
        });
        Ok(found)
    }

    /// Removes what the request chooses of the build cache. What a build uses at this moment stays; so does, unless all
    /// is to go, what an image has in common with it.
    ///
    /// # Errors
    /// For filters that are wrong; when the database fails.
    pub async fn prune_build_cache(&self, request: BuildPruneRequest) -> Result<BuildPruned> {
        let done = self.blocking(move |e| e.prune_build_cache_blocking(&request)).await?;
        let reclaimed = done.reclaimed.to_string();
        self.event("builder", "prune", "", &[("reclaimed", &reclaimed)]);
        Ok(done)
    }

    /// Bytes that are free on the data root's file system.
    fn free_space(&self) -> Result<u64> {
        let root = self.inner.store.root();
        let stat =
            rustix::fs::statvfs(root).map_err(|e| Error::io(format!("look at {}", root.display()), e))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn prune_build_cache_blocking(&self, request: &BuildPruneRequest) -> Result<BuildPruned> {
        let chosen = Chosen::read(&request.filters)?;
        let mut found = self.cache_entries()?;
        found.retain(|f| !f.entry.in_use && (request.all || !f.entry.shared) && chosen.fits(&f.entry));
        if request.keep != BuildKeep::default() {
            let total = found.iter().map(|f| f.entry.size).sum();
            let keep = request.keep.bytes(total, self.free_space()?);
            // The last used ones stay, as far as they fit.
            let mut kept = 0u64;
            found.retain(|f| {
                kept = kept.saturating_add(f.entry.size);
                kept > keep
            });
        }
        let keys = |kind| {
            let of_kind = found.iter().filter(|f| f.entry.kind == kind);
            of_kind.flat_map(|f| f.keys.clone()).collect::<Vec<Digest>>()
        };
        let mut reclaimed = self.inner.store.drop_steps(&keys(BuildCacheKind::Step))?.bytes;
        reclaimed += self.inner.store.drop_cache_mounts(&keys(BuildCacheKind::CacheMount))?;
        reclaimed += self.inner.builder.drop_contexts(&keys(BuildCacheKind::Context)).map_err(of_build)?;
        Ok(BuildPruned { removed: found.iter().map(|f| f.entry.id.clone()).collect(), reclaimed })
    }
}

/// What filters choose.
struct Chosen<'a> {
    filters: &'a Filters,
    /// Last used before this time.
    before: Option<i64>,
    inuse: Option<bool>,
    shared: Option<bool>,
    private: Option<bool>,
}

impl<'a> Chosen<'a> {
    fn read(filters: &'a Filters) -> Result<Self> {
        // Nothing here has labels; who asks for some gets nothing.
        let known: Vec<&str> = FILTERS.into_iter().chain(["label", "label!"]).collect();
        filters::check_known(filters, &known)?;
        let mut before = filters::until(filters)?;
        if let Some([text, ..]) = filters::values(filters, "unused-for") {
            let span = duration(text).ok_or_else(|| {
                Error::invalid(format!("invalid filter 'unused-for={text}': want a duration such as 24h"))
            })?;
            before = Some(now().saturating_sub(span));
        }
        Ok(Self {
            before,
            inuse: filters::flag(filters, "inuse")?,
            shared: filters::flag(filters, "shared")?,
            private: filters::flag(filters, "private")?,
            filters,
        })
    }

    fn fits(&self, entry: &BuildCacheEntry) -> bool {
        let id = |wanted: &str| !wanted.is_empty() && entry.id.starts_with(wanted);
        let parent = |wanted: &str| entry.parents.iter().any(|p| !wanted.is_empty() && p.starts_with(wanted));
        self.before.is_none_or(|t| entry.last_used < t)
            && self.inuse.is_none_or(|v| v == entry.in_use)
            && self.shared.is_none_or(|v| v == entry.shared)
            && self.private.is_none_or(|v| v != entry.shared)
            && filters::any(self.filters, "id", id)
            && filters::any(self.filters, "parent", parent)
            && filters::any(self.filters, "parents", parent)
            && filters::any(self.filters, "type", |wanted| wanted == entry.kind.as_str())
            && filters::any(self.filters, "description", |wanted| entry.description.contains(wanted))
            && filters::values(self.filters, "label").is_none()
    }
}

/// `24h30m` in nanoseconds.
fn duration(text: &str) -> Option<i64> {
    let span: jiff::SignedDuration = text.parse().ok()?;
    i64::try_from(span.as_nanos()).ok().filter(|n| *n >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_prune_keeps() {
        let keep = |reserved, max_used, min_free| BuildKeep { reserved, max_used, min_free };
        for (keep, free, want) in [
            (keep(30, 0, 0), 0, 30),
            (keep(0, 40, 0), 0, 40),
            (keep(50, 40, 0), 0, 50),
            (keep(0, 0, 20), 5, 85),
            (keep(0, 0, 20), 20, 100),
            (keep(0, 40, 20), 5, 40),
            (keep(0, 90, 20), 5, 85),
            (keep(95, 90, 20), 5, 95),
            (keep(0, 0, 500), 5, 0),
            (keep(10, 0, 500), 5, 10),
        ] {
            assert_eq!(keep.bytes(100, free), want, "{keep:?} with {free} free");
        }
    }
}
