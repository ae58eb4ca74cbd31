//! Carries out a graph: side by side what does not wait for each other, from the cache what was done before, and once
//! what several builds want at the same time.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use longshore_oci::Digest;
use longshore_store::lease::Lease;
use longshore_store::{StepRecord, Store};

use crate::agents::Agents;
use crate::caches::Caches;
use crate::cancel::Cancel;
use crate::context::Context;
use crate::elsewhere::{Elsewhere, Promises};
use crate::graph::{Graph, Run, StepId, Tree};
use crate::host::{Done, Event, Fetcher, Runner, Watcher};
use crate::secrets::Secrets;
use crate::shared::Shared;
use crate::{Error, Result, carry, explain};

/// How often those who wait for something else look whether they were called off.
const LOOK: Duration = Duration::from_millis(50);

/// How often a build begins anew because a cache of elsewhere has not what it said: each time there is one less.
const ROUNDS: usize = 100;

/// What a step gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Chain id of the tree after the step; `None`: an empty tree.
    pub chain: Option<Digest>,
    /// Digest of the tar of its layer; `None` for a step that changed nothing.
    pub diff_id: Option<Digest>,
    /// Bytes of the files in its layer.
    pub size: u64,
    /// When the newest file of its layer was changed, nanoseconds since 1970; 0 without a layer.
    pub newest: i64,
    /// What it is known by in the cache, the key that covers everything first, if it is known.
    pub keys: Vec<Digest>,
}

impl Outcome {
    fn new(record: &StepRecord, keys: [Option<Digest>; 2]) -> Self {
        Self {
            chain: record.chain,
            diff_id: record.diff_id,
            size: record.size,
            newest: record.newest,
            keys: keys.into_iter().flatten().collect(),
        }
    }
}

/// Carries out builds; one for each store, so that equal steps of builds that run at the same time are one.
#[derive(Debug)]
pub struct Builder {
    store: Store,
    /// Keys of the steps that are being carried out.
    flights: Mutex<BTreeSet<Digest>>,
    landed: Condvar,
    caches: Caches,
    pub(crate) shared: Shared,
}

/// A graph to be carried out, and with what.
#[allow(missing_debug_implementations)]
pub struct Job<'a> {
    /// The steps.
    pub graph: &'a Graph,
    /// The steps whose trees are wanted; others are carried out only if these need them.
    pub wanted: &'a [StepId],
    /// What [`crate::graph::Source::Context`] counts.
    pub contexts: &'a [Context],
    /// What commands may ask for.
    pub secrets: &'a Secrets,
    /// Whom they may ask.
    pub agents: &'a Agents,
    /// Runs commands.
    pub runner: &'a dyn Runner,
    /// Fetches files.
    pub fetcher: &'a dyn Fetcher,
    /// Is told what happens.
    pub watcher: &'a dyn Watcher,
    /// Ends it early.
    pub cancel: &'a Cancel,
    /// The watcher is told why each step is carried out or is not.
    pub explain: bool,
    /// Where what a failed command left is kept, if it is to be.
    pub failed: Option<&'a Mutex<Option<FailedRun>>>,
    /// Steps that run side by side at most; at least 1.
    pub parallel: usize,
    /// Holds what the steps give, until an image names it.
    pub lease: &'a Lease,
    /// Caches that are asked for what the store has not.
    pub elsewhere: Option<&'a dyn Elsewhere>,
    /// Trees whose layers are in the store in the end; of others a cache of elsewhere may have them.
    pub kept: &'a [Tree],
}

/// A command that failed, and what it left.
#[derive(Clone, Debug)]
pub struct FailedRun {
    /// Chain id of the tree as it was when the command ended.
    pub chain: Option<Digest>,
    /// The step under which the store has it; whoever takes this drops it.
    pub key: Digest,
    #[allow(missing_docs)]
    pub run: Run,
}

/// Where a step of a job stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Nothing needs it.
    Idle,
    Waiting,
    Running,
    Done(Outcome),
}

/// A job while it is worked on.
struct Work {
    states: Mutex<States>,
    changed: Condvar,
    /// Calls off what runs of this job when one step fails; the caller's switch is not touched.
    cancel: Cancel,
    promises: Promises,
    /// A promise was not kept.
    broken: AtomicBool,
}

struct States {
    steps: Vec<State>,
    failed: Option<Error>,
}

impl Builder {
    /// For this store.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self {
            store,
            flights: Mutex::default(),
            landed: Condvar::new(),
            caches: Caches::default(),
            shared: Shared::default(),
        }
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn caches(&self) -> &Caches {
        &self.caches
    }

    /// Whether a command uses the cache mount of this name now.
    #[must_use]
    pub fn uses_cache(&self, name: &str) -> bool {
        self.caches.is_used(name)
    }

    /// Gives `work` the directory of a cache mount while no command uses it; `None` where there is none, or it is in use.
    ///
    /// # Errors
    /// When the metadata cannot be read; those of `work`.
    pub fn with_cache<T>(&self, name: &str, work: impl FnOnce(&Path) -> Result<T>) -> Result<Option<T>> {
        let Some(_alone) = self.caches.take_now(name) else { return Ok(None) };
        let Some(dir) = self.store.cache_mount_at(name)? else { return Ok(None) };
        work(&dir).map(Some)
    }

    /// Carries out what is wanted of a graph; gives what each step gave, `None` for those that nothing needed. The first
    /// failure ends the job: what runs is called off, what was done before stays in the cache.
    ///
    /// # Errors
    /// That of the step that failed first; [`Error::Cancelled`].
    pub fn solve(&self, job: &Job<'_>) -> Result<Vec<Option<Outcome>>> {
        for _ in 0..ROUNDS {
            if let Some(outcomes) = self.try_solve(job)? {
                return Ok(outcomes);
            }
        }
        Err(Error::Internal("the caches of a build contradict themselves: build without --cache-from".into()))
    }

    /// The same; `None` where a cache has not what it said, and what stands on it is to be done again.
    fn try_solve(&self, job: &Job<'_>) -> Result<Option<Vec<Option<Outcome>>>> {
        let steps = states(job.graph, job.wanted);
        let count = steps.iter().filter(|s| **s == State::Waiting).count();
        let work = Work {
            states: Mutex::new(States { steps, failed: None }),
            changed: Condvar::new(),
            cancel: Cancel::new(),
            promises: Promises::default(),
            broken: AtomicBool::new(false),
        };
        let both = work.cancel.clone();
        let _armed = job.cancel.on_call(move || both.call_off());
        std::thread::scope(|scope| {
            for _ in 0..job.parallel.clamp(1, count.max(1)) {
                scope.spawn(|| self.work(job, &work));
            }
        });
        let mut result = self.keep(job, &work);
        let states = work.states.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(e) = states.failed {
            result = Err(e);
        }
        match result {
            _ if job.cancel.is_off() => Err(Error::Cancelled),
            Err(_) if work.broken.load(Ordering::Relaxed) => Ok(None),
            Err(e) => Err(e),
            Ok(()) => Ok(Some(states.steps.into_iter().map(State::into_outcome).collect())),
        }
    }

    /// Brings what is to be in the store in the end.
    fn keep(&self, job: &Job<'_>, work: &Work) -> Result<()> {
        if work.lock().failed.is_some() {
            return Ok(());
        }
        let trees: Vec<_> = job.kept.iter().map(|tree| work.lock().tree(*tree)).collect();
        trees.into_iter().try_for_each(|tree| self.bring(job, work, tree))
    }

    /// Makes sure that the layers of a tree are in the store.
    fn bring(&self, job: &Job<'_>, work: &Work, tree: Option<Digest>) -> Result<()> {
        let Some(elsewhere) = job.elsewhere else { return Ok(()) };
        if work.promises.keep(&self.store, tree, elsewhere, job.lease, &work.cancel)? {
            return Ok(());
        }
        work.broken.store(true, Ordering::Relaxed);
        Err(Error::NotFound("a cache has not what it said that it has".into()))
    }

    /// What one thread does: the next step that is ready, until there is none.
    fn work(&self, job: &Job<'_>, work: &Work) {
        while let Some((id, inputs)) = work.next(job.graph) {
            // A defect in one step ends its build, not the others.
            let done =
                catch_unwind(AssertUnwindSafe(|| self.step(job, work, id, &inputs))).unwrap_or_else(|_| {
                    Err(Error::Internal(format!("step {} failed; see the daemon's log", id.0 + 1)))
                });
            let mut states = work.lock();
            match done {
                Ok(outcome) => states.steps[id.0] = State::Done(outcome),
                Err(e) => {
                    // Those that were called off because of it come later.
                    states.failed.get_or_insert(e);
                    work.cancel.call_off();
                }
            }
            work.changed.notify_all();
        }
    }

    /// One step, from the cache or carried out.
    fn step(&self, job: &Job<'_>, work: &Work, id: StepId, inputs: &Inputs) -> Result<Outcome> {
        let begin = Instant::now();
        job.watcher.event(&Event::Started { step: id });
        let result = self.step_result(job, work, id, inputs);
        match &result {
            Ok((outcome, done)) => {
                job.watcher.event(&Event::Done { step: id, done: *done, outcome, took: begin.elapsed() })
            }
            Err(Error::Cancelled) => {}
            // It is done again.
            Err(_) if work.broken.load(Ordering::Relaxed) => {}
            Err(error) => job.watcher.event(&Event::Failed { step: id, error }),
        }
        result.map(|(outcome, _)| outcome)
    }

    fn step_result(
        &self,
        job: &Job<'_>,
        work: &Work,
        id: StepId,
        inputs: &Inputs,
    ) -> Result<(Outcome, Done)> {
        let step = job.graph.step(id).ok_or_else(|| Error::Internal("a step that is none".into()))?;
        let site = carry::Site {
            store: &self.store,
            contexts: job.contexts,
            runner: job.runner,
            fetcher: job.fetcher,
            lease: job.lease,
            cancel: &work.cancel,
            base: inputs.base,
            from: &inputs.from,
            caches: &self.caches,
            secrets: job.secrets,
            agents: job.agents,
            failed: job.failed,
            elsewhere: job.elsewhere,
            step,
        };
        let explain = |why: &dyn Fn() -> Result<String>| -> Result<()> {
            if job.explain {
                job.watcher.event(&Event::Explained { step: id, why: why()? });
            }
            Ok(())
        };
        let quick = site.quick_key();
        if let Some(key) = &quick
            && let Some(found) = self.cached(job, work, step.fresh, key, inputs.base)?
        {
            explain(&|| Ok(explain::hit()))?;
            return Ok((Outcome::new(&found, [found.of, quick]), Done::Cached));
        }
        inputs.from.iter().try_for_each(|tree| self.bring(job, work, *tree))?;
        let prepared = site.prepare()?;
        let key = prepared.key();
        let keys = [Some(*key), quick];
        if let Some(found) = self.cached(job, work, step.fresh, key, inputs.base)? {
            explain(&|| Ok(explain::hit()))?;
            if let Some(quick) = quick {
                work.promises.alias(found.chain, key, quick);
                self.store.alias_step(key, &quick)?;
            }
            return Ok((Outcome::new(&found, keys), Done::Cached));
        }
        self.bring(job, work, inputs.base)?;
        let (_flight, waited) = self.take_off(key, &work.cancel)?;
        // Whoever flew before has left its result.
        if waited && let Some(found) = self.here(job, key)? {
            return Ok((Outcome::new(&found, keys), Done::Shared));
        }
        explain(&|| match step.fresh {
            true => Ok(explain::fresh()),
            false => explain::miss(&self.store, &step.name, prepared.inputs()),
        })?;
        let record = prepared.carry_out(&|event| job.watcher.event(&event.of(id)))?;
        self.store.note_inputs(key, prepared.inputs())?;
        if let Some(quick) = &quick {
            self.store.alias_step(key, quick)?;
        }
        Ok((Outcome::new(&record, keys), Done::Made))
    }

    /// What the store has, or caches of elsewhere say.
    fn cached(
        &self,
        job: &Job<'_>,
        work: &Work,
        fresh: bool,
        key: &Digest,
        below: Option<Digest>,
    ) -> Result<Option<StepRecord>> {
        if fresh {
            return Ok(None);
        }
        if let Some(record) = self.here(job, key)? {
            return Ok(Some(record));
        }
        let Some(claim) = job.elsewhere.and_then(|elsewhere| elsewhere.find(key)) else { return Ok(None) };
        let record = work.promises.take(*key, below, claim);
        // It may be here all the same, as a layer of an image.
        if let Some(chain) = &record.chain {
            job.lease.add_layer(*chain)?;
        }
        Ok(Some(record))
    }

    /// What the store has, held by the job's lease.
    fn here(&self, job: &Job<'_>, key: &Digest) -> Result<Option<StepRecord>> {
        let Some(record) = self.store.step(key)? else { return Ok(None) };
        if let Some(chain) = &record.chain {
            // In this order: from the lease on it stays, and before it may have gone.
            job.lease.add_layer(*chain)?;
            if self.store.layer(chain)?.is_none() {
                return Ok(None);
            }
        }
        self.store.touch_steps(&[*key])?;
        Ok(Some(record))
    }

    /// Waits until nobody else carries out the step with this key; true if somebody did.
    fn take_off(&self, key: &Digest, cancel: &Cancel) -> Result<(Flight<'_>, bool)> {
        let mut flights = self.flights();
        let mut waited = false;
        while flights.contains(key) {
            if cancel.is_off() {
                return Err(Error::Cancelled);
            }
            waited = true;
            flights = self.landed.wait_timeout(flights, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        flights.insert(*key);
        drop(flights);
        Ok((Flight { builder: self, key: *key }, waited))
    }

    fn flights(&self) -> MutexGuard<'_, BTreeSet<Digest>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A step that is being carried out.
struct Flight<'a> {
    builder: &'a Builder,
    key: Digest,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.builder.flights().remove(&self.key);
        self.builder.landed.notify_all();
    }
}

/// The trees that a step stands on and reads.
#[derive(Clone, Debug)]
struct Inputs {
    base: Option<Digest>,
    /// In the order of [`crate::graph::Op::reads`].
    from: Vec<Option<Digest>>,
}

impl Work {
    fn lock(&self) -> MutexGuard<'_, States> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a step that is ready, the first in the graph's order; `None` when there is nothing more to do.
    fn next(&self, graph: &Graph) -> Option<(StepId, Inputs)> {
        let mut states = self.lock();
        loop {
            if states.failed.is_some() || self.cancel.is_off() {
                return None;
            }
            let ready = (0..states.steps.len()).map(StepId).find(|id| states.is_ready(graph, *id));
            if let Some(id) = ready {
                states.steps[id.0] = State::Running;
                return Some((id, states.inputs(graph, id)));
            }
            if !states.steps.contains(&State::Waiting) {
                return None;
            }
            states = self.changed.wait_timeout(states, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl State {
    fn into_outcome(self) -> Option<Outcome> {
        if let Self::Done(outcome) = self { Some(outcome) } else { None }
    }
}

impl States {
    fn is_ready(&self, graph: &Graph, id: StepId) -> bool {
        self.steps[id.0] == State::Waiting
            && graph.needs(id).iter().all(|need| matches!(self.steps.get(need.0), Some(State::Done(_))))
    }

    fn tree(&self, tree: Tree) -> Option<Digest> {
        match tree {
            Tree::Layers(chain) => chain,
            Tree::Step(id) => match self.steps.get(id.0) {
                Some(State::Done(outcome)) => outcome.chain,
                _ => None,
            },
        }
    }

    fn inputs(&self, graph: &Graph, id: StepId) -> Inputs {
        let step = graph.step(id);
        Inputs {
            base: step.and_then(|s| self.tree(s.base)),
            from: step.map(|s| s.op.reads()).unwrap_or_default().into_iter().map(|t| self.tree(t)).collect(),
        }
    }
}

/// Where all steps of a graph stand before anything was done.
fn states(graph: &Graph, wanted: &[StepId]) -> Vec<State> {
    graph.needed(wanted).into_iter().map(|needed| if needed { State::Waiting } else { State::Idle }).collect()
}
