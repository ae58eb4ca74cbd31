//! Opening the engine: state on disk is the truth. What ran on is taken up again, what ended is
//! settled, what belongs to nothing is swept.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use longshore_runtime::cgroup::scope;
use longshore_runtime::{Recovered, RuntimeOptions, Runtimes, Task};
use longshore_store::meta::{Batch, Table};
use longshore_store::snapshot::DriverName;
use longshore_store::{Store, StoreOptions};
use longshore_sys::{mount, netns};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::container::{Container, Index, first_delay, wants_restart};
use crate::engine::{Inner, Paths, make_dir, remove_dir};
use crate::model::{RemoveOptions, Status};
use crate::network::{Networks, root_hash};
use crate::record::Record;
use crate::registry::Registry;
use crate::{Engine, EngineOptions, Error, Result, names, notes};

const SYSTEM_ID: &str = "system-id";

/// What has to happen once the engine runs.
struct Found {
    container: Arc<Container>,
    what: What,
}

enum What {
    Nothing,
    /// It runs on: watch it.
    Watch(Arc<Task>),
    /// It ended meanwhile.
    Ended(Option<longshore_runtime::ExitStatus>),
    /// Its policy starts it with the daemon.
    Start,
    /// `--rm`, and it has ended.
    Remove,
}

impl Engine {
    /// Opens everything below the roots, and takes up what is there.
    ///
    /// # Errors
    /// When the roots cannot be used, another daemon uses them, or the state cannot be read.
    pub async fn open(options: EngineOptions) -> Result<Self> {
        let opened = tokio::task::spawn_blocking(move || Self::open_blocking(options)).await;
        let (engine, found) =
            opened.map_err(|_| Error::internal("opening the engine failed; see the log"))??;
        for f in found {
            engine.take_up(f);
        }
        engine.keep_budget();
        Ok(engine)
    }

    fn open_blocking(options: EngineOptions) -> Result<(Self, Vec<Found>)> {
        let driver = match options.storage_driver.as_deref() {
            None | Some("") => None,
            Some("overlay2") => Some(DriverName::Overlay2),
            Some("vfs") => Some(DriverName::Vfs),
            Some(other) => {
                return Err(Error::invalid(format!(
                    "unknown storage driver {other:?}: choose overlay2 or vfs"
                )));
            }
        };
        let store = Store::open(&options.data_root, &StoreOptions { driver, sync: true })?;
        let paths = Paths {
            data: options.data_root.clone(),
            exec: options.exec_root.clone(),
            resolv_conf: options.resolv_conf.clone(),
        };
        make_dir(&paths.exec, 0o700)?;
        let exec_lock = lock_exec_root(&paths.exec)?;
        make_dir(&paths.data.join("containers"), 0o710)?;
        make_dir(&paths.volumes(), 0o701)?;
        let asked = options.cgroup_parent.as_deref();
        let slice = asked.and_then(scope::slice_of).filter(|_| scope::systemd_runs()).map(str::to_owned);
        let cgroup_parent = match asked {
            Some(parent) if slice.is_none() => parent.to_owned(),
            _ => format!("longshore-{}", root_hash(&options.data_root)),
        };
        let launcher = RuntimeOptions { exec_root: paths.exec.clone(), cgroup_parent, slice };
        let runtimes = Runtimes::open(launcher, &options.runtimes, options.default_runtime.as_deref())?;
        let networks = Networks::open(&store, &options, Handle::current())?;
        let system_id = system_id(&store)?;
        let inner = Inner {
            _exec_lock: exec_lock,
            registry: Registry::new(&store, &options)?,
            builder: crate::build::builder(&store),
            layouts: Arc::default(),
            store,
            runtimes,
            networks,
            volumes: Default::default(),
            events: Default::default(),
            execs: Default::default(),
            containers: RwLock::new(Index::default()),
            workings: Default::default(),
            image_use: tokio::sync::RwLock::new(()),
            image_added: tokio::sync::Notify::new(),
            closing: watch::Sender::new(false),
            options,
            paths,
            system_id,
            boot: longshore_sys::boot::boot_id()?,
        };
        let engine = Self { inner: Arc::new(inner) };
        engine.mend_volumes()?;
        let found = engine.read_containers()?;
        engine.read_working()?;
        engine.sweep();
        if let Err(e) = engine.inner.store.tidy() {
            tracing::warn!("removing what is left of snapshots: {e}");
        }
        engine.recover_working();
        engine.sweep_builds();
        Ok((engine, found))
    }

    fn read_containers(&self) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        for (id, record) in self.inner.store.meta().list::<Record>(Table::Containers)? {
            if record.id != id {
                tracing::error!(container = id, "its record names {}: left alone", record.id);
                continue;
            }
            if record.state.status == Status::Removing || record.state.status == Status::Dead {
                self.finish_removal(&record);
                continue;
            }
            // Not synced when it was made: a power cut may have taken it.
            make_dir(&self.inner.paths.container(&id), 0o710)?;
            let record = notes::read(&self.inner.paths, &self.inner.boot, &id).unwrap_or(record);
            let container = Container::new(record);
            self.index(|i| {
                // A name that two records have (a crash in a rename) stays with the first.
                let name = container.read().record.name.clone();
                if i.reserve(&name, &id).is_err()
                    && let Ok(other) = i.reserve_made_up(&id)
                {
                    tracing::warn!(container = id, "name {name} is taken; called {other} now");
                    container.write().record.name = other;
                }
                i.by_id.insert(id.clone(), container.clone());
            });
            let what = self.judge(&container);
            found.push(Found { container, what });
        }
        Ok(found)
    }

    /// A removal that was cut short.
    fn finish_removal(&self, record: &Record) {
        let id = &record.id;
        let steps = [
            self.inner.runtimes.any().delete(id).map_err(Error::from),
            self.inner.store.unmount_rw(id).map_err(Error::from),
            self.inner.store.remove_rw(id).map_err(Error::from),
            self.inner.store.meta().commit(Batch::new().delete(Table::Containers, id)).map_err(Error::from),
            remove_dir(&self.inner.paths.container(id)),
        ];
        for e in steps.into_iter().filter_map(Result::err) {
            tracing::warn!(container = id, "finish its removal: {e}");
        }
    }

    /// What became of a container while nobody looked.
    fn judge(&self, c: &Arc<Container>) -> What {
        let record = c.record();
        let recovered = self.inner.runtimes.any().recover(&c.id);
        match recovered {
            Ok(Recovered::Running(task)) if record.is_running() || record.state.status == Status::Created => {
                self.adopt(c, task)
            }
            Ok(Recovered::Running(_)) => {
                // Its record says that it ended: the process is a leftover.
                tracing::warn!(container = c.id, "a process was left although it had ended");
                self.free_leftovers(c);
                What::Nothing
            }
            Ok(Recovered::Exited(status)) if record.is_active() => What::Ended(Some(status)),
            Ok(_) if record.is_active() => self.gone(c, &record),
            Ok(_) => {
                self.free_leftovers(c);
                after_start(&record)
            }
            Err(e) => {
                tracing::error!(container = c.id, "cannot be recovered: {e}");
                if record.is_active() { What::Ended(None) } else { What::Nothing }
            }
        }
    }

    /// The exit file is older than the runtime's knowledge after a reboot.
    fn gone(&self, c: &Arc<Container>, record: &Record) -> What {
        if record.state.status == Status::Restarting {
            return What::Start;
        }
        let file = self.inner.paths.exit_file(&c.id);
        let left = longshore_runtime::ExitStatus::read(&file).ok().flatten();
        // A word from an earlier run says nothing about this one.
        What::Ended(left.filter(|s| s.finished_ns >= record.state.started))
    }

    /// Takes a running container up again: address, ports, task.
    fn adopt(&self, c: &Arc<Container>, task: Task) -> What {
        let task = Arc::new(task);
        let record = c.record();
        self.adopt_networks(c, &record);
        let mut data = c.write();
        data.task = Some(task.clone());
        // A crash between the start and its record.
        if data.record.state.status == Status::Created {
            data.record.state.status = Status::Running;
        }
        data.record.state.pid = task.pid();
        data.record.has_run = true;
        drop(data);
        c.life.send_modify(|l| l.running = true);
        What::Watch(task)
    }

    /// Mounts and names of a run that is over.
    fn free_leftovers(&self, c: &Container) {
        self.release_runtime(c);
    }

    fn take_up(&self, found: Found) {
        let c = found.container;
        match found.what {
            What::Nothing => {}
            What::Watch(task) => self.supervise(&c, &task, first_delay()),
            What::Ended(status) => {
                let engine = self.clone();
                tokio::spawn(async move { engine.settle(&c, status, first_delay()).await });
            }
            What::Start => {
                c.write().record.state.status = Status::Restarting;
                c.life.send_modify(|l| l.running = true);
                self.restart_after(&c, first_delay());
            }
            What::Remove => {
                let engine = self.clone();
                tokio::spawn(async move {
                    let options = RemoveOptions { volumes: true, ..RemoveOptions::default() };
                    if let Err(e) = engine.remove(&c.id, options).await {
                        tracing::warn!(container = c.id, "could not remove it after its end: {e}");
                    }
                });
            }
        }
    }

    /// Removes what belongs to no container: layers, directories, interfaces, namespaces, processes.
    fn sweep(&self) {
        let all = self.all();
        let ids: BTreeSet<String> = all.iter().map(|c| c.id.clone()).collect();
        let warn = |what: &str, e: &dyn std::fmt::Display| tracing::warn!("sweeping {what}: {e}");
        let working = self.working_ids();
        // First what still runs: it writes into what is removed below.
        for name in entries(self.inner.paths.exec.join("containers")) {
            if !ids.contains(&name)
                && let Err(e) = self.inner.runtimes.any().delete(&name)
            {
                warn("processes", &e);
            }
        }
        match self.inner.store.rw_containers() {
            Ok(list) => {
                for id in list.into_iter().filter(|id| !ids.contains(id) && !working.contains(id)) {
                    tracing::info!(container = id, "a half-made container is removed");
                    if let Err(e) =
                        self.inner.store.unmount_rw(&id).and_then(|()| self.inner.store.remove_rw(&id))
                    {
                        warn("a layer", &e);
                    }
                }
            }
            Err(e) => warn("layers", &e),
        }
        for name in entries(self.inner.paths.data.join("containers")) {
            if ids.contains(&name) {
                continue;
            }
            let dir = self.inner.paths.container(&name);
            for place in [self.inner.paths.shm(&name), dir.join(crate::build::HIDDEN)] {
                if mount::is_mount_point(&place).unwrap_or(false)
                    && let Err(e) = mount::detach(&place)
                {
                    warn("a mount", &e);
                }
            }
            if let Err(e) = remove_dir(&dir) {
                warn("a directory", &e);
            }
        }
        for id in notes::ids(&self.inner.paths).into_iter().filter(|id| !ids.contains(id)) {
            notes::remove(&self.inner.paths, &id);
        }
        let connections = self.connections();
        for (network, endpoints) in &connections {
            if let Err(e) = network.sweep(endpoints) {
                warn("interfaces", &e);
            }
        }
        // The host's firewall may have been reloaded while nobody was there to notice.
        if let Err(e) = self.inner.networks.firewall.settle_endpoints(&connections) {
            tracing::warn!("publishing the ports of running containers again: {e}");
        }
        let pins: BTreeSet<PathBuf> = all
            .iter()
            .map(|c| c.read().record.sandbox.clone())
            .filter(|s| !s.is_empty())
            .map(|s| self.inner.paths.netns(&s))
            .collect();
        let dir = self.inner.paths.exec.join("netns");
        for name in entries(dir.clone()) {
            let path = dir.join(name);
            if !pins.contains(&path)
                && let Err(e) = netns::unpin(&path)
            {
                warn("a network namespace", &e);
            }
        }
    }

    /// Stops the engine, not the containers: monitors keep them, and the next start finds them.
    pub async fn shutdown(&self) {
        self.inner.closing.send_replace(true);
        self.leave_all_health().await;
        self.leave_working_mounted();
        let flushed = self
            .blocking(|e| {
                for c in e.all() {
                    e.save_state(&c.record());
                }
                // A durable commit takes the lazy ones along.
                Ok(e.inner.store.close()?)
            })
            .await;
        if let Err(e) = flushed {
            tracing::error!("storing the last state: {e}");
        }
        if let Err(e) = self.blocking(|e| e.leave_host()).await {
            tracing::warn!("leaving the host as it was: {e}");
        }
    }

    /// Without a container that runs on, the host gets back what was made on it: the bridge with its rules, and the
    /// cgroup of the containers. What a person named in the settings is theirs and stays.
    fn leave_host(&self) -> Result<()> {
        if self.all().iter().any(|c| c.task().is_some()) {
            return Ok(());
        }
        for bridge in self.inner.networks.bridges() {
            let ours = bridge.custom || self.inner.options.bridge.is_none();
            let others = bridge.network().map(|network| network.has_foreign_ports()).transpose()?;
            if ours && others != Some(true) {
                bridge.remove()?;
            }
        }
        if self.inner.options.cgroup_parent.is_none() {
            self.inner.runtimes.leave()?;
        }
        Ok(())
    }
}

/// What a container that does not run is due at the daemon's start.
fn after_start(record: &Record) -> What {
    if !record.has_run {
        return What::Nothing;
    }
    if record.host.auto_remove {
        return What::Remove;
    }
    let always = record.host.restart.name == "always"
        || (record.host.restart.name == "unless-stopped" && !record.stopped_by_hand);
    // `always` starts even what a person stopped: the daemon's start is a new beginning, as with Docker.
    if always || (record.state.status == Status::Restarting && wants_restart(record)) {
        return What::Start;
    }
    What::Nothing
}

fn entries(dir: PathBuf) -> Vec<String> {
    let list = std::fs::read_dir(dir).into_iter().flatten().flatten();
    list.filter_map(|e| e.file_name().into_string().ok()).collect()
}

/// An id of this data root, made once.
fn system_id(store: &Store) -> Result<String> {
    if let Some(id) = store.meta().get::<String>(Table::Kv, SYSTEM_ID)? {
        return Ok(id);
    }
    let h = names::hex(&names::random::<16>()?);
    let id = format!("{}-{}-{}-{}-{}", &h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..]);
    store.meta().commit(Batch::new().put(Table::Kv, SYSTEM_ID, &id))?;
    Ok(id)
}

/// Takes the exec root for this daemon alone: to another one the containers in it would be leftovers, which it removes.
/// The lock ends with the process, however that ends.
fn lock_exec_root(dir: &Path) -> Result<std::fs::File> {
    let path = dir.join("lock");
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(|e| Error::io(format!("open {}", path.display()), e))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::conflict(format!(
            "exec root is in use by another daemon: {} is locked; stop that daemon or choose another --exec-root",
            path.display()
        ))),
        Err(e) => Err(Error::io(format!("lock {}", path.display()), e)),
    }
}
