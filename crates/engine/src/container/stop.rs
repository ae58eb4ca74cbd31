//! `stop`, `restart`, `kill`, `pause`, `unpause`, `resize`.

use std::sync::Arc;
use std::time::Duration;

use longshore_oci::Kind;
use longshore_runtime::Task;

use super::{Container, Life};
use crate::model::Status;
use crate::{Engine, Error, Result, signals};

/// Seconds before `stop` kills.
const STOP_TIMEOUT: i64 = 10;
/// After a SIGKILL the kernel may still be busy with the process; longer than this is stuck.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

impl Engine {
    /// Stops a container: its stop signal, then SIGKILL after `timeout` seconds (negative: never).
    ///
    /// # Errors
    /// `NotModified` when it does not run.
    pub async fn stop(&self, name: &str, signal: Option<String>, timeout: Option<i64>) -> Result<()> {
        let c = self.find(name)?;
        let signal = given_signal(signal).map_err(|e| e.context(format!("cannot stop container: {name}")))?;
        let engine = self.clone();
        self.to_the_end(async move {
            let _op = c.op.lock().await;
            if !c.read().record.is_active() {
                return Err(Error::new(Kind::NotModified, format!("container {} is already stopped", c.id)));
            }
            engine.stop_locked(&c, signal, timeout).await
        })
        .await
    }

    /// Stops it if it runs, and starts it.
    ///
    /// # Errors
    /// As `stop` and `start`.
    pub async fn restart(&self, name: &str, signal: Option<String>, timeout: Option<i64>) -> Result<()> {
        let c = self.find(name)?;
        let signal =
            given_signal(signal).map_err(|e| e.context(format!("cannot restart container: {name}")))?;
        let engine = self.clone();
        self.to_the_end(async move {
            let _op = c.op.lock().await;
            if c.read().record.is_active() {
                // Not auto-removed in between, and no policy starts it meanwhile.
                let keep = std::mem::replace(&mut c.write().record.host.auto_remove, false);
                let stopped = engine.stop_locked(&c, signal, timeout).await;
                c.write().record.host.auto_remove = keep;
                stopped?;
            }
            engine.start_locked(&c, true).await?;
            engine.container_event(&c, "restart", &[]);
            Ok(())
        })
        .await
    }

    /// Stops what runs or waits for a restart. The caller holds the operation lock.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub(crate) async fn stop_locked(
        &self,
        c: &Arc<Container>,
        signal: Option<i32>,
        timeout: Option<i64>,
    ) -> Result<()> {
        let (task, paused, own_signal, own_timeout) = {
            let mut data = c.write();
            data.record.stopped_by_hand = true;
            let r = &data.record;
            let own = r.config.run.stop_signal.as_deref().and_then(|s| signals::parse(s).ok());
            (data.task.clone(), r.state.status == Status::Paused, own, r.config.stop_timeout)
        };
        c.no_restart.notify_waiters();
        let Some(task) = task else {
            self.give_up_restart(c);
            return Ok(());
        };
        let mut life = c.life.subscribe();
        let exits = life.borrow_and_update().exits;
        let signal = signal.or(own_signal).unwrap_or(signals::TERM);
        self.container_event(c, "kill", &[("signal", signal.to_string())]);
        self.signal(&task, signal).await?;
        if paused {
            // A frozen process gets no signals.
            let t = task.clone();
            self.blocking(move |_| Ok(t.resume()?)).await?;
        }
        let seconds = timeout.or(own_timeout).unwrap_or(STOP_TIMEOUT);
        let ended = life.wait_for(|l| l.exits > exits || !l.running);
        let gone = match u64::try_from(seconds) {
            Err(_) => ended.await.is_ok(),
            Ok(s) => tokio::time::timeout(Duration::from_secs(s), ended).await.is_ok(),
        };
        if !gone {
            self.container_event(c, "kill", &[("signal", signals::KILL.to_string())]);
            self.kill_and_wait(c, &task, exits).await?;
        }
        self.container_event(c, "stop", &[]);
        Ok(())
    }

    /// SIGKILL, and patience until the end is settled.
    ///
    /// # Errors
    /// When the kernel does not end it.
    pub(crate) async fn kill_and_wait(&self, c: &Arc<Container>, task: &Arc<Task>, exits: u64) -> Result<()> {
        let mut life = c.life.subscribe();
        if let Err(e) = self.signal(task, signals::KILL).await {
            // One look: a second borrow inside the first could wait for a writer between them.
            let still = Life::clone(&life.borrow_and_update());
            if still.exits == exits && still.running {
                tracing::warn!(container = c.id, "could not send SIGKILL: {e}");
            }
        }
        let ended = life.wait_for(|l| l.exits > exits || !l.running || l.removed);
        match tokio::time::timeout(KILL_PATIENCE, ended).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::internal(format!(
                "container {} did not exit within {} seconds of SIGKILL: its process is stuck in the kernel",
                c.id,
                KILL_PATIENCE.as_secs()
            ))),
        }
    }

    async fn signal(&self, task: &Arc<Task>, signal: i32) -> Result<()> {
        let task = task.clone();
        self.blocking(move |_| Ok(task.signal(signal, false)?)).await
    }

    /// A container that waits for its restart is stopped by not starting it.
    fn give_up_restart(&self, c: &Arc<Container>) {
        let mut data = c.write();
        if data.record.state.status != Status::Restarting {
            return;
        }
        data.record.state.status = Status::Exited;
        let record = data.record.clone();
        drop(data);
        self.save_state(&record);
        c.life.send_modify(|l| l.running = false);
        self.container_event(c, "stop", &[]);
    }

    /// Sends a signal (default SIGKILL).
    ///
    /// # Errors
    /// `Conflict` when it does not run.
    pub async fn kill(&self, name: &str, signal: Option<String>) -> Result<()> {
        let prefix = |e: Error| e.context(format!("cannot kill container: {name}"));
        let c = self.find(name).map_err(prefix)?;
        let signal = match signal.as_deref().filter(|s| !s.is_empty()) {
            Some(s) => signals::parse(s).map_err(prefix)?,
            None => signals::KILL,
        };
        let task = {
            let mut data = c.write();
            let not_running = || Error::conflict(format!("container {} is not running", c.id));
            if !data.record.is_running() {
                return Err(prefix(not_running()));
            }
            // A person ended it: the restart policy does not start it again.
            if signal == signals::KILL || Some(signal) == stop_signal(&data.record) {
                data.record.stopped_by_hand = true;
            }
            data.task.clone().ok_or_else(|| prefix(not_running()))?
        };
        let exits = c.life.borrow().exits;
        self.signal(&task, signal).await.map_err(prefix)?;
        self.container_event(&c, "kill", &[("signal", signal.to_string())]);
        if signal == signals::KILL {
            let engine = self.clone();
            self.to_the_end(async move {
                if c.read().record.state.status == Status::Paused {
                    let t = task.clone();
                    let _ = engine.blocking(move |_| Ok(t.resume()?)).await;
                }
                engine.kill_and_wait(&c, &task, exits).await
            })
            .await?;
        }
        Ok(())
    }

    /// Freezes all its processes.
    ///
    /// # Errors
    /// `Conflict` when it does not run or is paused.
    pub async fn pause(&self, name: &str) -> Result<()> {
        let c = self.find(name)?;
        let engine = self.clone();
        self.to_the_end(async move {
            let _op = c.op.lock().await;
            engine.pause_locked(&c, true).await
        })
        .await
    }

    /// Freezes; the caller holds the operation lock. `by_hand` and not for a moment only: its health is not known then.
    ///
    /// # Errors
    /// As `pause`.
    pub(crate) async fn pause_locked(&self, c: &Arc<Container>, by_hand: bool) -> Result<()> {
        let (status, task) = {
            let data = c.read();
            (data.record.state.status, data.task.clone())
        };
        let id = c.id.clone();
        let task = match (status, task) {
            (Status::Paused, _) => return Err(Error::conflict(format!("Container {id} is already paused"))),
            (Status::Restarting, _) => {
                return Err(Error::conflict(format!(
                    "Container {id} is restarting, wait until the container is running"
                )));
            }
            (Status::Running, Some(task)) => task,
            _ => return Err(Error::conflict(format!("container {id} is not running"))),
        };
        // Not frozen in the middle of a check.
        self.leave_health(c).await;
        if let Err(e) = self.blocking(move |_| Ok(task.pause()?)).await {
            self.watch_health(c);
            return Err(e.context(format!("cannot pause container {id}")));
        }
        if by_hand {
            c.write().end_probing();
        }
        self.set_status(c, Status::Running, Status::Paused);
        self.container_event(c, "pause", &[]);
        Ok(())
    }

    /// Thaws it.
    ///
    /// # Errors
    /// `Conflict` when it is not paused.
    pub async fn unpause(&self, name: &str) -> Result<()> {
        let c = self.find(name)?;
        let engine = self.clone();
        self.to_the_end(async move {
            let _op = c.op.lock().await;
            engine.unpause_locked(&c).await
        })
        .await
    }

    /// Thaws; the caller holds the operation lock.
    ///
    /// # Errors
    /// As `unpause`.
    pub(crate) async fn unpause_locked(&self, c: &Arc<Container>) -> Result<()> {
        let (status, task) = {
            let data = c.read();
            (data.record.state.status, data.task.clone())
        };
        let Some(task) = task.filter(|_| status == Status::Paused) else {
            return Err(Error::conflict(format!("Container {} is not paused", c.id)));
        };
        self.blocking(move |_| Ok(task.resume()?))
            .await
            .map_err(|e| e.context(format!("cannot resume container {}", c.id)))?;
        self.set_status(c, Status::Paused, Status::Running);
        self.watch_health(c);
        self.container_event(c, "unpause", &[]);
        Ok(())
    }

    /// From one status to another, unless the process ended meanwhile.
    fn set_status(&self, c: &Arc<Container>, from: Status, to: Status) {
        let mut data = c.write();
        if data.record.state.status == from {
            data.record.state.status = to;
            let record = data.record.clone();
            drop(data);
            self.save_state(&record);
        }
    }

    /// Sets the size of its terminal.
    ///
    /// # Errors
    /// `Conflict` when it does not run.
    pub async fn resize(&self, name: &str, rows: u16, cols: u16) -> Result<()> {
        let c = self.find(name)?;
        let task = c.task().ok_or_else(|| Error::conflict(format!("container {} is not running", c.id)))?;
        // Without a terminal there is nothing to set; clients ask all the same.
        let tty = c.read().record.config.tty;
        if tty {
            self.blocking(move |_| Ok(task.resize(cols, rows)?)).await?;
        }
        let size = [("height", rows.to_string()), ("width", cols.to_string())];
        self.container_event(&c, "resize", &size);
        Ok(())
    }
}

/// The signal that a client asks for, if it does.
fn given_signal(text: Option<String>) -> Result<Option<i32>> {
    text.filter(|s| !s.is_empty()).map(|s| signals::parse(&s)).transpose()
}

fn stop_signal(record: &crate::record::Record) -> Option<i32> {
    match record.config.run.stop_signal.as_deref() {
        None | Some("") => Some(signals::TERM),
        Some(s) => signals::parse(s).ok(),
    }
}
