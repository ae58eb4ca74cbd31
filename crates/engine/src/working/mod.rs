//! Working containers: images made step by step. Each is a writable layer on an image and a configuration; a commit makes
//! an image of both and leaves them as they are.
//!
//! A record is durable before anything is done in the layer: one that says that something is being done, in a daemon that
//! starts, was cut short.

mod asked;
mod commit;
mod config;
mod copy;
mod make;
mod mount;
mod recover;
mod run;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use longshore_oci::Digest;
use longshore_oci::image::{History, ImageDocument, RunConfig};
use longshore_store::Visit;
use longshore_store::meta::{Batch, Table};
use serde::{Deserialize, Serialize};

use crate::model::{UnixNanos, WorkingAbout, WorkingView};
use crate::{Engine, Error, Result, names};

pub(crate) use self::recover::decode;

/// How long a command waits for another one in the same working container.
const PATIENCE: Duration = Duration::from_secs(10);

/// Characters of what is being done that are kept.
const MAX_WHAT: usize = 200;

/// What is stored of one. New fields get defaults.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) name: String,
    created: UnixNanos,
    /// The image that it stands on; `None`: on nothing.
    pub(crate) image: Option<Digest>,
    image_name: String,
    /// That image's document: the image itself may be removed by force.
    base: ImageDocument,
    config: RunConfig,
    #[serde(default)]
    about: WorkingAbout,
    /// Lines that a commit puts into the history before its own.
    #[serde(default)]
    history: Vec<History>,
    /// A person asked for its tree to be mounted.
    #[serde(default)]
    mounted: bool,
    #[serde(default)]
    busy: Option<Busy>,
    /// What was cut short.
    #[serde(default)]
    interrupted: Option<String>,
}

/// What is being done in it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Busy {
    what: String,
    /// Places for mounts that go when it ends.
    #[serde(default)]
    places: Vec<String>,
}

/// One in memory.
pub(crate) struct Working {
    pub(crate) id: String,
    /// Held while something is done to it.
    op: Arc<tokio::sync::Mutex<()>>,
    record: RwLock<Record>,
    /// Keeps its tree mounted for whoever asked for that.
    visit: Mutex<Option<Visit>>,
}

impl Working {
    fn new(record: Record) -> Arc<Self> {
        let (op, visit) = (Arc::default(), Mutex::default());
        Arc::new(Self { id: record.id.clone(), op, record: RwLock::new(record), visit })
    }

    pub(crate) fn record(&self) -> Record {
        self.record.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, record: Record) {
        *self.record.write().unwrap_or_else(PoisonError::into_inner) = record;
    }

    /// Where its tree is mounted for whoever asked for that.
    fn tree(&self) -> Option<String> {
        self.visit().as_ref().map(|v| v.tree().to_string_lossy().into_owned())
    }

    fn visit(&self) -> MutexGuard<'_, Option<Visit>> {
        self.visit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All of them.
#[derive(Default)]
pub(crate) struct Workings {
    by_id: RwLock<BTreeMap<String, Arc<Working>>>,
    /// Held while a name is chosen and given.
    naming: Mutex<()>,
    runs: run::Runs,
}

/// The right to do something in one: nobody else does anything meanwhile.
struct Turn {
    working: Arc<Working>,
    _op: tokio::sync::OwnedMutexGuard<()>,
}

impl Engine {
    fn workings(&self) -> &Workings {
        &self.inner.workings
    }

    /// All of them, in the order of their ids.
    pub(crate) fn all_working(&self) -> Vec<Arc<Working>> {
        let all = self.workings().by_id.read().unwrap_or_else(PoisonError::into_inner);
        all.values().cloned().collect()
    }

    /// By name, by id or by a unique beginning of an id.
    fn find_working(&self, text: &str) -> Result<Arc<Working>> {
        let all = self.all_working();
        if let Some(named) = all.iter().find(|w| w.record().name == text) {
            return Ok(named.clone());
        }
        let id = names::by_prefix(text, all.iter().map(|w| w.id.as_str()))?;
        let found = id.and_then(|id| all.iter().find(|w| w.id == id));
        found.cloned().ok_or_else(|| {
            Error::not_found(format!("No such working container: {text} (longshore working ls lists them)"))
        })
    }

    /// By its id alone.
    fn working_of(&self, id: &str) -> Result<Arc<Working>> {
        let all = self.workings().by_id.read().unwrap_or_else(PoisonError::into_inner);
        all.get(id).cloned().ok_or_else(|| Error::not_found(format!("No such working container: {id}")))
    }

    /// Waits for the others in it, but not for ever.
    async fn working_turn(&self, name: &str) -> Result<Turn> {
        let working = self.find_working(name)?;
        self.turn_in(working).await
    }

    async fn turn_in(&self, working: Arc<Working>) -> Result<Turn> {
        let waited = tokio::time::timeout(PATIENCE, working.op.clone().lock_owned()).await;
        let record = working.record();
        let Ok(op) = waited else {
            let what = record.busy.map_or_else(|| "another command".to_owned(), |busy| busy.what);
            return Err(Error::conflict(format!(
                "working container {} is in use ({what}): wait for its end, or end it",
                record.name
            )));
        };
        // It may have been removed meanwhile.
        self.working_of(&working.id)?;
        Ok(Turn { working, _op: op })
    }

    /// Stores a record durably and shows it.
    fn store_working(&self, working: &Working, record: Record) -> Result<()> {
        self.inner.store.meta().commit(Batch::new().put(Table::Working, &record.id, &record))?;
        working.set(record);
        Ok(())
    }

    /// Does `work`, which changes the layer, and stores what it makes of the record. While it is under way, and if it
    /// is cut short, the record says so: durably from the start, unless `work` sees to that itself before it changes
    /// anything (`later`).
    fn work_in<T>(
        &self,
        working: &Working,
        what: String,
        later: bool,
        work: impl FnOnce(&mut Record) -> Result<T>,
    ) -> Result<T> {
        let before = working.record();
        // A command may be a whole script.
        let what = what.chars().take(MAX_WHAT).collect();
        let mut record = Record { busy: Some(Busy { what, places: Vec::new() }), ..before.clone() };
        match later {
            true => working.set(record.clone()),
            false => self.store_working(working, record.clone())?,
        }
        let done = work(&mut record);
        // What failed changed the layer at most.
        let mut after = if done.is_ok() { Record { interrupted: None, ..record } } else { before };
        after.busy = None;
        let stored = self.store_working(working, after);
        let done = done?;
        stored.map(|()| done)
    }

    fn working_event(&self, record: &Record, action: &str, more: &[(&str, &str)]) {
        let mut pairs = vec![("name", record.name.as_str()), ("image", record.image_name.as_str())];
        pairs.extend(more);
        self.event("working", action, &record.id, &pairs);
    }

    /// All working containers, the oldest first, without their sizes.
    #[must_use]
    pub fn list_working(&self) -> Vec<WorkingView> {
        let mut all: Vec<WorkingView> = self.all_working().iter().map(|w| view(w)).collect();
        all.sort_by(|a, b| a.created.cmp(&b.created).then_with(|| a.id.cmp(&b.id)));
        all
    }

    /// One working container.
    ///
    /// # Errors
    /// When there is none.
    pub async fn inspect_working(&self, name: &str) -> Result<WorkingView> {
        let working = self.find_working(name)?;
        self.blocking(move |e| {
            let size = Some(e.inner.store.rw_size(&working.id)?);
            Ok(WorkingView { size, ..view(&working) })
        })
        .await
    }

    /// Gives one another name.
    ///
    /// # Errors
    /// When the name is taken or against the rule.
    pub async fn rename_working(&self, name: &str, new: &str) -> Result<()> {
        let turn = self.working_turn(name).await?;
        let new = check_name(new)?;
        self.blocking(move |e| {
            let _naming = e.workings().naming.lock().unwrap_or_else(PoisonError::into_inner);
            let mut record = turn.working.record();
            if record.name == new {
                return Err(Error::invalid(format!("working container {new} has that name already")));
            }
            e.working_name_is_free(&new)?;
            let old = std::mem::replace(&mut record.name, new);
            e.store_working(&turn.working, record.clone())?;
            e.working_event(&record, "rename", &[("oldName", &old)]);
            Ok(())
        })
        .await
    }

    fn working_name_is_free(&self, name: &str) -> Result<()> {
        match self.all_working().iter().find(|w| w.record().name == name) {
            Some(other) => Err(Error::conflict(format!(
                "the name {name:?} is already in use by working container {}: remove or rename that one",
                other.id.get(..12).unwrap_or(&other.id)
            ))),
            None => Ok(()),
        }
    }

    /// Removes one. What is mounted is unmounted; what runs in it has to end first. Gives its id.
    ///
    /// # Errors
    /// When the kernel refuses to unmount; then it is as before.
    pub async fn remove_working(&self, name: &str) -> Result<String> {
        let turn = self.working_turn(name).await?;
        self.blocking(move |e| {
            let record = turn.working.record();
            e.remove_working_blocking(&turn.working)?;
            Ok(record.id)
        })
        .await
    }

    /// Its turn must be the caller's.
    fn remove_working_blocking(&self, working: &Working) -> Result<()> {
        let record = working.record();
        let held = working.visit().take();
        drop(held);
        let batch = Batch::new().delete(Table::Working, &record.id);
        self.inner.store.remove_rw_with(&record.id, batch)?;
        self.workings().by_id.write().unwrap_or_else(PoisonError::into_inner).remove(&record.id);
        self.working_event(&record, "remove", &[]);
        Ok(())
    }
}

fn view(working: &Working) -> WorkingView {
    let record = working.record();
    WorkingView {
        id: record.id,
        name: record.name,
        created: record.created,
        image: record.image,
        image_name: record.image_name,
        config: record.config,
        about: record.about,
        history: record.history,
        mounted: working.tree(),
        doing: record.busy.map(|busy| busy.what),
        interrupted: record.interrupted,
        size: None,
    }
}

/// A name as a client gave it.
fn check_name(text: &str) -> Result<String> {
    if names::is_name(text) && text.len() <= 255 {
        return Ok(text.to_owned());
    }
    Err(Error::invalid(format!(
        "Invalid working container name ({text}), only {} are allowed",
        names::NAME_RULE
    )))
}
