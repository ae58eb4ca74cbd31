//! What a daemon was asked for and what it has acknowledged, with the order of it.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What can be made and removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A name of an image; it has the image's id.
    Image,
    Container,
    Volume,
}

/// A moment in the order of things.
pub(super) type Moment = u64;

#[derive(Clone, Debug, Default)]
struct Life {
    id: Option<String>,
    made: Option<Moment>,
    removing: Option<Moment>,
    removed: Option<Moment>,
}

/// What must be so after a cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Must {
    /// It is there, with that id if one is known.
    Be(Option<String>),
    BeGone,
    /// It was being made or removed.
    Either,
}

#[derive(Default)]
struct Inner {
    now: Moment,
    things: BTreeMap<(Kind, String), Life>,
    stop: bool,
}

/// The record; names are never used twice.
#[derive(Default)]
pub(super) struct World {
    inner: Mutex<Inner>,
    acknowledged: Condvar,
}

impl World {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, kind: Kind, name: &str, f: impl FnOnce(&mut Life, Moment)) {
        let mut inner = self.lock();
        inner.now += 1;
        let now = inner.now;
        f(inner.things.entry((kind, name.to_owned())).or_default(), now);
        drop(inner);
        self.acknowledged.notify_all();
    }

    /// It is going to be asked for.
    pub(super) fn asks(&self, kind: Kind, name: &str) {
        self.note(kind, name, |_, _| {});
    }

    /// It was acknowledged.
    pub(super) fn has(&self, kind: Kind, name: &str, id: Option<&str>) {
        self.note(kind, name, |life, now| {
            (life.made, life.id) = (Some(now), id.map(str::to_owned));
        });
    }

    /// Its removal is going to be asked for.
    pub(super) fn removes(&self, kind: Kind, name: &str) {
        self.note(kind, name, |life, now| life.removing = Some(now));
    }

    /// Its removal was acknowledged.
    pub(super) fn lacks(&self, kind: Kind, name: &str) {
        self.note(kind, name, |life, now| life.removed = Some(now));
    }

    /// This moment.
    pub(super) fn now(&self) -> Moment {
        self.lock().now
    }

    /// Waits for the next thing that happens, or so long.
    pub(super) fn wait(&self, how_long: Duration) {
        let inner = self.lock();
        let then = inner.now;
        let waited = self.acknowledged.wait_timeout_while(inner, how_long, |inner| inner.now == then);
        drop(waited);
    }

    pub(super) fn stop(&self) {
        self.lock().stop = true;
    }

    pub(super) fn stopped(&self) -> bool {
        self.lock().stop
    }

    /// What must be so after a cut that began and ended at those moments.
    pub(super) fn after(&self, began: Moment, ended: Moment) -> BTreeMap<(Kind, String), Must> {
        let before = |moment: Option<Moment>, by: Moment| moment.is_some_and(|m| m <= by);
        let must = |life: &Life| {
            if before(life.removed, began) {
                Must::BeGone
            } else if before(life.made, began) && !before(life.removing, ended) {
                Must::Be(life.id.clone())
            } else {
                Must::Either
            }
        };
        self.lock().things.iter().map(|(name, life)| (name.clone(), must(life))).collect()
    }
}
