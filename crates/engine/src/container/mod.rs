//! Containers: the record, who waits for it, and one module for each thing that can be done to it.

mod attach;
mod confine;
mod copy;
mod copyup;
mod create;
pub(crate) mod files;
mod health;
mod inspect;
mod lifecycle;
mod limits;
pub(crate) mod links;
mod list;
mod logfile;
mod logs;
mod logwatch;
pub(crate) mod mounts;
pub(crate) mod port_ranges;
pub(crate) mod ports;
mod prune;
mod ps;
mod remove;
pub(crate) mod spec;
mod start;
mod stop;
mod supervise;
mod tree;
mod update;
mod validate;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use longshore_runtime::Task;
use tokio::sync::{Notify, Semaphore, watch};

pub(crate) use attach::PendingAttach;
pub(crate) use attach::{exit_of, from_std, receiver};
pub(crate) use create::merge;
pub(crate) use supervise::{first_delay, wants_restart};
pub(crate) use tree::tree_size;

use crate::events::Attributes;
use crate::network::Held;
use crate::record::Record;
use crate::{Error, Result, names};

/// Long reads (export, copies) of one container at a time.
const READERS: usize = 4;

/// One container in memory.
pub(crate) struct Container {
    pub(crate) id: String,
    /// Held while something is done to it; lookups never take it.
    pub(crate) op: tokio::sync::Mutex<()>,
    /// Limits blocking work per container.
    pub(crate) readers: Arc<Semaphore>,
    data: RwLock<Data>,
    pub(crate) life: watch::Sender<Life>,
    /// Ends the pause before a restart.
    pub(crate) no_restart: Notify,
}

/// What changes.
pub(crate) struct Data {
    pub(crate) record: Record,
    pub(crate) task: Option<Arc<Task>>,
    pub(crate) pending: Vec<PendingAttach>,
    pub(crate) held: Held,
    /// Execs that run.
    pub(crate) execs: BTreeSet<String>,
    /// The health check, while somebody carries it out.
    pub(crate) probing: Option<health::Probing>,
}

/// What waiters look at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Life {
    pub(crate) running: bool,
    /// Counts ends, so that a quick restart is not missed.
    pub(crate) exits: u64,
    pub(crate) code: i32,
    pub(crate) error: Option<String>,
    pub(crate) removed: bool,
}

impl Container {
    pub(crate) fn new(record: Record) -> Arc<Self> {
        let life = Life { running: record.is_active(), code: record.state.exit_code, ..Life::default() };
        Arc::new(Self {
            id: record.id.clone(),
            op: tokio::sync::Mutex::new(()),
            readers: Arc::new(Semaphore::new(READERS)),
            data: RwLock::new(Data {
                record,
                task: None,
                pending: Vec::new(),
                held: Held::default(),
                execs: BTreeSet::new(),
                probing: None,
            }),
            life: watch::Sender::new(life),
            no_restart: Notify::new(),
        })
    }

    /// Never held across anything that waits.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Data> {
        self.data.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never held across anything that waits.
    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Data> {
        self.data.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn record(&self) -> Record {
        self.read().record.clone()
    }

    /// The running task.
    pub(crate) fn task(&self) -> Option<Arc<Task>> {
        self.read().task.clone()
    }

    /// `name`, `image` and labels: what every event of a container carries.
    pub(crate) fn attributes(&self) -> Attributes {
        let data = self.read();
        let mut a: Attributes = data.record.labels().cloned().unwrap_or_default();
        a.insert("name".into(), data.record.name.clone());
        a.insert("image".into(), data.record.config.image.clone());
        a
    }
}

/// All containers. A name is taken from before its container is made until after it is removed.
#[derive(Default)]
pub(crate) struct Index {
    pub(crate) by_id: BTreeMap<String, Arc<Container>>,
    names: HashMap<String, String>,
}

impl Index {
    /// Takes a name.
    ///
    /// # Errors
    /// When it is taken, in Docker's words.
    pub(crate) fn reserve(&mut self, name: &str, id: &str) -> Result<()> {
        match self.names.get(name) {
            Some(owner) => Err(Error::conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You have to \
                 remove (or rename) that container to be able to reuse that name."
            ))),
            None => {
                self.names.insert(name.to_owned(), id.to_owned());
                Ok(())
            }
        }
    }

    /// Takes a made-up name.
    ///
    /// # Errors
    /// When none is free.
    pub(crate) fn reserve_made_up(&mut self, id: &str) -> Result<String> {
        for attempt in 0..32 {
            let name = names::made_up(attempt)?;
            if self.reserve(&name, id).is_ok() {
                return Ok(name);
            }
        }
        // Every name taken: the id is a name, too.
        let name = id.get(..12).unwrap_or(id).to_owned();
        self.reserve(&name, id)?;
        Ok(name)
    }

    /// Gives a name back, if it belongs to `id`.
    pub(crate) fn release(&mut self, name: &str, id: &str) {
        if self.names.get(name).is_some_and(|owner| owner == id) {
            self.names.remove(name);
        }
    }

    /// By id, name (with or without slash), or unique beginning of an id, in this order.
    ///
    /// # Errors
    /// In Docker's words.
    pub(crate) fn find(&self, text: &str) -> Result<Arc<Container>> {
        if text.is_empty() {
            return Err(Error::invalid("invalid name or ID supplied: \"\""));
        }
        let missing = || Error::no_such_container(text);
        if let Some(c) = self.by_id.get(text) {
            return Ok(c.clone());
        }
        let name = text.strip_prefix('/').unwrap_or(text);
        if let Some(c) = self.names.get(name).and_then(|id| self.by_id.get(id)) {
            return Ok(c.clone());
        }
        // Ids are sorted: those with the prefix stand together.
        let near = self.by_id.range(text.to_owned()..).take_while(|(id, _)| id.starts_with(text)).take(2);
        let id = names::by_prefix(text, near.map(|(id, _)| id.as_str()))?.ok_or_else(missing)?;
        self.by_id.get(id).cloned().ok_or_else(missing)
    }
}
