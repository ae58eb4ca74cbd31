//! Health checks: a task beside each running container that has one. It waits, runs the test in the container, and
//! takes the result into the record; it ends when what it hangs from in the container's data is dropped.

mod plan;
mod probe;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(crate) use plan::{check, inherit};

use self::plan::Plan;
use self::probe::Prober;
use super::{Container, Data};
use crate::Engine;
use crate::model::{HealthStatus, Status};
use crate::record::Record;

/// For a check that is cut short to end.
const PATIENCE: Duration = Duration::from_secs(2);

/// A container is probed as long as this is there.
pub(crate) struct Probing {
    /// Dropping it is the sign.
    stop: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl Probing {
    /// Ends it, and the check that may be running; a check that cannot be ended is not waited for.
    async fn end(self) {
        drop(self.stop);
        let _ = tokio::time::timeout(PATIENCE, self.task).await;
    }
}

impl Data {
    /// Nobody checks from now on: as for Docker, the container is not healthy then.
    pub(crate) fn end_probing(&mut self) {
        self.probing = None;
        if let Some(health) = &mut self.record.state.health {
            health.status = HealthStatus::Unhealthy;
            health.probe = None;
        }
    }
}

/// A container begins to run: what its check said before is past, but for the log.
pub(crate) fn begin(record: &mut Record) {
    if record.transient || Plan::of(&record.config.run).is_none() {
        record.state.health = None;
        return;
    }
    let health = record.state.health.get_or_insert_default();
    health.status = HealthStatus::Starting;
    health.failing_streak = 0;
    health.probe = None;
}

impl Engine {
    /// Probes a running container from now on, if its configuration says how. What its check said so far stays: it may
    /// have been another daemon's.
    pub(crate) fn watch_health(&self, c: &Arc<Container>) {
        let mut data = c.write();
        let running = data.record.state.status == Status::Running && !data.record.transient;
        let Some(plan) = running.then(|| Plan::of(&data.record.config.run)).flatten() else { return };
        let Some(task) = data.task.clone() else { return };
        // Looked at under the lock: who closes looks for tasks afterwards.
        if data.probing.is_some() || *self.inner.closing.borrow() {
            return;
        }
        let earlier = data.record.state.health.get_or_insert_default().probe.take();
        let (stop, stopped) = watch::channel(());
        let prober = Prober::new(self.clone(), c.clone(), task, plan, stopped);
        data.probing = Some(Probing { stop, task: tokio::spawn(prober.run(earlier)) });
    }

    /// Ends the probing of a container without a word about its health.
    pub(crate) async fn leave_health(&self, c: &Container) {
        let probing = c.write().probing.take();
        if let Some(probing) = probing {
            probing.end().await;
        }
    }

    /// Ends all checks: the daemon stops. What they said is known to the next one.
    pub(crate) async fn leave_all_health(&self) {
        let probing: Vec<_> = self.all().iter().filter_map(|c| c.write().probing.take()).collect();
        futures_util::future::join_all(probing.into_iter().map(Probing::end)).await;
    }
}
