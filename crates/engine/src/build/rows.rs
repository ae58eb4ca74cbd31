//! What happens to the steps of a build, told of the instructions that they are for.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use longshore_build::plan::{Plan, Row, document};
use longshore_build::{Done, Error as BuildError, Event, Outcome, Stream, Watcher};
use longshore_oci::{Digest, Platform};

use crate::model::{BuildDone, BuildEvent, BuildRow};

/// How the kernel refuses what is no program of this machine.
const NO_PROGRAM: &str = "exec format error";

/// Tells what happens.
pub(super) struct Rows<'a> {
    rows: &'a [Row],
    send: &'a (dyn Fn(BuildEvent) + Send + Sync),
    /// Rows by their step: one, unless images for several platforms have it.
    of_step: HashMap<usize, Vec<usize>>,
    state: Mutex<State>,
}

struct State {
    outcomes: Vec<Option<Outcome>>,
    told: Vec<bool>,
    failed: Option<usize>,
    /// Chain ids of the layers that were made.
    made: BTreeSet<Digest>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(plan: &'a Plan, send: &'a (dyn Fn(BuildEvent) + Send + Sync)) -> Self {
        let rows = plan.rows.as_slice();
        let mut of_step: HashMap<usize, Vec<usize>> = HashMap::new();
        for (n, row) in rows.iter().enumerate() {
            row.step.into_iter().for_each(|step| of_step.entry(step.0).or_default().push(n));
        }
        let outcomes = vec![None; plan.graph.steps().len()];
        let state = State { outcomes, told: vec![false; rows.len()], failed: None, made: BTreeSet::new() };
        Self { rows, send, of_step, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the plan, and what is done from the start.
    pub(super) fn begin(&self) {
        let row = |row: &Row| BuildRow {
            text: row.text.clone(),
            stage: row.stage.clone(),
            platform: row.platform.clone(),
            line: row.span.line,
        };
        (self.send)(BuildEvent::Plan(self.rows.iter().map(row).collect()));
        self.note(&mut self.lock());
    }

    /// Chain ids of the layers that were made, rather than found.
    pub(super) fn made(&self) -> BTreeSet<Digest> {
        std::mem::take(&mut self.lock().made)
    }

    /// Tells why the build failed, and where.
    pub(super) fn failed(&self, e: &BuildError) {
        let row = self.lock().failed.filter(|_| !matches!(e, BuildError::Cancelled));
        let mut failed = failure(e, row);
        let platform = row.and_then(|n| self.rows.get(n)).map(|row| &row.after.platform);
        if let (BuildEvent::Failed { message, .. }, Some(platform)) = (&mut failed, platform)
            && message.ends_with(NO_PROGRAM)
            && !platform.runs_on(&Platform::host())
        {
            message.push_str(&format!(
                ": the stage is for {platform}, and this machine ({}) runs no such programs without an emulator that is \
                 registered with binfmt_misc: install qemu-user-static",
                Platform::host()
            ));
        }
        (self.send)(failed);
    }

    /// Tells of the instructions that need no step, once those before them are done.
    fn note(&self, state: &mut State) {
        for (n, row) in self.rows.iter().enumerate() {
            if state.told.get(n) == Some(&false) && row.step.is_none() && state.has_all(row) {
                self.tell(state, n, BuildDone::Noted, 0, Duration::ZERO);
            }
        }
    }

    fn tell(&self, state: &mut State, n: usize, done: BuildDone, size: u64, took: Duration) {
        let Some(row) = self.rows.get(n) else { return };
        if let Some(told) = state.told.get_mut(n) {
            *told = true;
        }
        let image = image_of(row, &state.outcomes);
        (self.send)(BuildEvent::Done { row: n, done, image, size, took });
    }

    fn row(&self, step: usize) -> Option<usize> {
        self.of_step.get(&step)?.first().copied()
    }
}

impl State {
    /// Whether everything is done that an image needs.
    fn has_all(&self, row: &Row) -> bool {
        let done = |step: usize| self.outcomes.get(step).is_some_and(Option::is_some);
        row.after.made.iter().filter_map(|made| made.step).all(|step| done(step.0))
    }
}

/// The id that the image would have after a row; that of its base where nothing was done to it yet.
fn image_of(row: &Row, outcomes: &[Option<Outcome>]) -> Digest {
    if let Some(base) = row.after.base.as_ref().filter(|_| row.after.made.is_empty()) {
        return base.id;
    }
    let document = document(&row.after, outcomes);
    serde_json::to_vec(&document).map_or_else(|_| Digest::of(b""), |raw| Digest::of(&raw))
}

/// The last event of a build that failed.
pub(super) fn failure(e: &BuildError, row: Option<usize>) -> BuildEvent {
    let code = if let BuildError::Command { code, .. } = e { Some(*code) } else { None };
    BuildEvent::Failed { message: e.to_string(), code, row }
}

impl Watcher for Rows<'_> {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::Started { step } => {
                if let Some(row) = self.row(step.0) {
                    (self.send)(BuildEvent::Started(row));
                }
            }
            Event::Running { step, container } => {
                if let Some(row) = self.row(step.0) {
                    (self.send)(BuildEvent::Running { row, container: (*container).to_owned() });
                }
            }
            Event::Output { step, stream, bytes } => {
                if let Some(row) = self.row(step.0) {
                    let stderr = *stream == Stream::Stderr;
                    (self.send)(BuildEvent::Output { row, stderr, bytes: bytes.to_vec() });
                }
            }
            Event::Explained { step, why } => {
                if let Some(row) = self.row(step.0) {
                    (self.send)(BuildEvent::Explained { row, why: why.clone() });
                }
            }
            Event::Done { step, done, outcome, took } => {
                let mut state = self.lock();
                if let Some(slot) = state.outcomes.get_mut(step.0) {
                    *slot = Some((*outcome).clone());
                }
                if *done == Done::Made && outcome.diff_id.is_some() {
                    state.made.extend(outcome.chain);
                }
                let done = match done {
                    Done::Made => BuildDone::Made,
                    Done::Cached => BuildDone::Cached,
                    Done::Shared => BuildDone::Shared,
                };
                for (n, row) in self.of_step.get(&step.0).into_iter().flatten().enumerate() {
                    let (done, took) =
                        if n == 0 { (done, *took) } else { (BuildDone::Cached, Duration::ZERO) };
                    self.tell(&mut state, *row, done, outcome.size, took);
                }
                self.note(&mut state);
            }
            Event::Failed { step, .. } => {
                let row = self.row(step.0);
                let mut state = self.lock();
                state.failed = state.failed.or(row);
            }
        }
    }
}
