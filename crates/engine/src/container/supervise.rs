//! After the start: waits for the end, settles what is left, and does what the restart policy says.

use std::sync::Arc;
use std::time::Duration;

use longshore_runtime::{ExitStatus, Task};

use super::{Container, exit_of, from_std};
use crate::model::{RemoveOptions, Status};
use crate::network::Held;
use crate::record::Record;
use crate::time::now;
use crate::{Engine, Result};

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// A container that ran this long was well: the delay starts anew.
const WELL: i64 = 10_000_000_000;

impl Engine {
    /// Watches a running task from now on.
    pub(crate) fn supervise(&self, c: &Arc<Container>, task: &Arc<Task>, delay: Duration) {
        self.watch_health(c);
        let (engine, c, task) = (self.clone(), c.clone(), task.clone());
        tokio::spawn(async move {
            let mut closing = engine.inner.closing.subscribe();
            let status = tokio::select! {
                status = engine.wait_for_exit(&task) => status,
                // The container runs on; the next daemon watches it.
                _ = closing.wait_for(|c| *c) => return,
            };
            engine.settle(&c, status, delay).await;
        });
    }

    async fn wait_for_exit(&self, task: &Arc<Task>) -> Option<ExitStatus> {
        let t = task.clone();
        let id = task.id().to_owned();
        let socket = self.blocking(move |_| Ok(t.wait()?)).await.and_then(from_std);
        let status = match socket {
            Ok(s) => exit_of(s).await,
            Err(e) => {
                tracing::error!(container = id, "cannot wait for it: {e}");
                None
            }
        };
        match status {
            Some(s) => Some(s),
            // The monitor is gone; it may have left its last word.
            None => {
                let file = self.inner.paths.exit_file(&id);
                self.blocking(move |_| Ok(ExitStatus::read(&file)?)).await.ok().flatten()
            }
        }
    }

    /// Settles an end: frees what it held, stores the state, tells everybody, restarts or removes.
    /// `None`: nobody knows how it ended.
    pub(crate) async fn settle(&self, c: &Arc<Container>, status: Option<ExitStatus>, delay: Duration) {
        // A check that ends with the container says nothing about it.
        c.write().probing = None;
        if status.is_some_and(|s| s.oom) {
            self.container_event(c, "oom", &[]);
        }
        let cleaned = c.clone();
        let freed = self.blocking(move |e| {
            e.release_runtime(&cleaned);
            Ok(())
        });
        if let Err(e) = freed.await {
            tracing::error!(container = c.id, "cleaning up after its end: {e}");
        }
        let closing = *self.inner.closing.borrow();
        let (record, restart) = {
            let mut data = c.write();
            data.task = None;
            data.held = Held::default();
            data.pending.clear();
            data.execs.clear();
            data.end_probing();
            let r = &mut data.record;
            r.state.pid = 0;
            match status {
                Some(s) => {
                    r.state.exit_code = s.code;
                    r.state.oom_killed = s.oom;
                    r.state.finished = s.finished_ns;
                }
                None => {
                    r.state.exit_code = 137;
                    r.state.finished = now();
                    r.state.error =
                        "the container's monitor ended without a word, so its processes were killed".into();
                }
            }
            let restart = !closing && wants_restart(r);
            r.state.status = if restart { Status::Restarting } else { Status::Exited };
            if restart {
                r.restart_count += 1;
            }
            (r.clone(), restart)
        };
        // At once: who sees the new state may ask for the events.
        self.announce_end(c, &record);
        self.save_state(&record);
        self.inner.execs.container_ended(&c.id);
        c.life.send_modify(|l| {
            l.running = restart;
            l.exits += 1;
            l.code = record.state.exit_code;
            l.error = Some(record.state.error.clone());
        });
        if restart {
            let ran = record.state.finished.saturating_sub(record.state.started);
            self.restart_after(c, if ran >= WELL { FIRST_DELAY } else { delay });
        } else if record.host.auto_remove && !closing {
            self.remove_ended(c).await;
        }
    }

    fn announce_end(&self, c: &Arc<Container>, record: &Record) {
        let ran = record.state.finished.saturating_sub(record.state.started) / 1_000_000_000;
        let more =
            [("exitCode", record.state.exit_code.to_string()), ("execDuration", ran.max(0).to_string())];
        self.container_event(c, "die", &more);
    }

    /// `--rm`.
    async fn remove_ended(&self, c: &Arc<Container>) {
        // A stop that waits for this end holds the lock until it sees it; then it lets go.
        let _op = c.op.lock().await;
        if c.read().record.is_active() || c.life.borrow().removed || !c.read().record.host.auto_remove {
            return;
        }
        let options = RemoveOptions { volumes: true, ..RemoveOptions::default() };
        if let Err(e) = self.remove_locked(c, options).await {
            tracing::error!(container = c.id, "could not remove it after its end: {e}");
        }
    }

    /// Starts it again after `delay`, unless somebody stops it before.
    pub(crate) fn restart_after(&self, c: &Arc<Container>, delay: Duration) {
        let (engine, c) = (self.clone(), c.clone());
        tokio::spawn(async move {
            let mut closing = engine.inner.closing.subscribe();
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = c.no_restart.notified() => {}
                _ = closing.wait_for(|c| *c) => return,
            }
            let _op = c.op.lock().await;
            if c.read().record.state.status != Status::Restarting {
                return;
            }
            let next = (delay * 2).min(LONGEST_DELAY);
            if let Err(e) = engine.start_with_delay(&c, next).await {
                tracing::warn!(container = c.id, "restart failed: {e}");
                engine.restart_failed(&c, &e.to_string(), next);
            }
        });
    }

    /// A restart that fails counts as an end with an error.
    fn restart_failed(&self, c: &Arc<Container>, error: &str, delay: Duration) {
        let (record, again) = {
            let mut data = c.write();
            let r = &mut data.record;
            r.state.error = error.to_owned();
            if r.state.exit_code == 0 {
                r.state.exit_code = 128;
            }
            let again = wants_restart(r);
            r.state.status = if again { Status::Restarting } else { Status::Exited };
            if again {
                r.restart_count += 1;
            }
            (r.clone(), again)
        };
        self.save_state(&record);
        c.life.send_modify(|l| {
            l.running = again;
            l.exits += 1;
            l.code = record.state.exit_code;
            l.error = Some(error.to_owned());
        });
        if again {
            self.restart_after(c, delay);
        }
    }

    /// Frees what a run held: processes, address, ports, namespace, mounts. Every step is tried.
    pub(crate) fn release_runtime(&self, c: &Container) {
        let warn = |what: &str, result: Result<()>| {
            if let Err(e) = result {
                tracing::warn!(container = c.id, "{what}: {e}");
            }
        };
        warn("end processes", self.inner.runtimes.any().delete(&c.id).map_err(Into::into));
        self.disconnect(c);
        self.unmount_volumes(c);
        warn("unmount root file system", self.inner.store.unmount_rw(&c.id).map_err(Into::into));
    }
}

/// Whether the policy starts a container that ended so.
pub(crate) fn wants_restart(r: &Record) -> bool {
    if r.stopped_by_hand {
        return false;
    }
    match r.host.restart.name.as_str() {
        "always" | "unless-stopped" => true,
        "on-failure" => {
            let most = r.host.restart.max_retries;
            r.state.exit_code != 0 && (most == 0 || i64::from(r.restart_count) < most)
        }
        _ => false,
    }
}

/// The delay before a first restart.
pub(crate) fn first_delay() -> Duration {
    FIRST_DELAY
}
