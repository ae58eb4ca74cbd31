//! The task that checks one container: the test is a process in it, of which no client sees more than events.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use longshore_runtime::{Exec, ExecStdio, ExitStatus, Task};
use longshore_sys::pidfd;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::plan::{Plan, since};
use crate::container::{Container, exit_of, from_std};
use crate::exec::async_fd;
use crate::model::{CreateExec, HealthProbe, HealthResult, HealthStatus, UnixNanos};
use crate::time::{go_duration, now};
use crate::{Engine, Error, Result, names, notes};

/// More output of a check is dropped.
const MAX_OUTPUT: usize = 4096;
/// For the process to start: this is not time of the check.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// For the process to end after it was killed, before its check counts as failed all the same.
const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// After its end, for output that others hold open.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(2);

/// Checks one container.
pub(super) struct Prober {
    engine: Engine,
    c: Arc<Container>,
    task: Arc<Task>,
    plan: Plan,
    stopped: watch::Receiver<()>,
    /// A process of an earlier check that has not ended yet; there is never more than one.
    left: Option<JoinHandle<()>>,
}

/// A check that runs.
struct Running {
    pid: u32,
    exit: JoinHandle<Option<ExitStatus>>,
    words: Words,
}

/// What it says.
struct Words {
    reader: JoinHandle<()>,
    output: Arc<Mutex<Output>>,
}

enum Outcome {
    Ended(Option<ExitStatus>),
    TimedOut,
    Stopped,
}

impl Prober {
    pub(super) fn new(
        engine: Engine,
        c: Arc<Container>,
        task: Arc<Task>,
        plan: Plan,
        stopped: watch::Receiver<()>,
    ) -> Self {
        Self { engine, c, task, plan, stopped, left: None }
    }

    /// Checks until it is stopped. `earlier` is a check that a daemon before this one did not end.
    pub(super) async fn run(mut self, earlier: Option<HealthProbe>) {
        if let Some(probe) = earlier {
            self.end_earlier(probe).await;
        }
        loop {
            let pause = self.pause();
            tokio::select! {
                _ = self.stopped.changed() => break,
                () = sleep(pause) => {}
            }
            let Some(result) = self.check().await else { break };
            if !self.keep(result).await {
                break;
            }
        }
        if let Some(left) = self.left.take() {
            let _ = left.await;
        }
    }

    fn pause(&self) -> Duration {
        let data = self.c.read();
        let state = &data.record.state;
        let status = state.health.as_ref().map_or(HealthStatus::Starting, |h| h.status);
        self.plan.pause(status, since(state.started, now()))
    }

    async fn end_earlier(&self, probe: HealthProbe) {
        let task = self.task.clone();
        let ended = self.engine.blocking(move |_| {
            // Only that very process: the number may be another's by now.
            match pidfd::start_time(probe.pid) {
                Ok(start)
                    if start == probe.start_time && pidfd::session(probe.pid).ok() == Some(probe.pid) =>
                {
                    Ok(task.kill_exec(probe.pid)?)
                }
                _ => Ok(()),
            }
        });
        if let Err(e) = ended.await {
            tracing::warn!(container = self.c.id, "ending a health check of an earlier daemon: {e}");
        }
    }

    /// Runs the test once; `None` when it was stopped meanwhile.
    async fn check(&mut self) -> Option<HealthResult> {
        let start = now();
        if let Some(left) = self.left.take_if(|left| !left.is_finished()) {
            self.left = Some(left);
            return failed(start, "the health check before this one has not ended: its process is stuck");
        }
        if self.plan.command.is_empty() {
            return failed(start, format!("healthcheck for container {} has no command", self.c.id));
        }
        let id = match names::new_id() {
            Ok(id) => id,
            Err(e) => return failed(start, e.to_string()),
        };
        let words = self.plan.command.join(" ");
        for action in ["exec_create", "exec_start"] {
            self.engine.container_event(&self.c, format!("{action}: {words}"), &[("execID", id.clone())]);
        }
        let mut starting = self.start(&id);
        let started = tokio::select! {
            started = &mut starting => started.unwrap_or_else(|_| Err(Error::internal("a worker failed; see the daemon's log"))),
            _ = self.stopped.changed() => {
                self.abandon(starting);
                return None;
            }
            () = sleep(START_PATIENCE) => {
                self.abandon(starting);
                return failed(start, format!("timed out starting health check for container {}", self.c.id));
            }
        };
        match started {
            Ok(exec) => self.attend(start, &id, exec).await,
            // As for Docker, what was never there does not die.
            Err(e) => failed(start, e.to_string()),
        }
    }

    fn start(&self, id: &str) -> JoinHandle<Result<Exec>> {
        let (engine, c, task, id) = (self.engine.clone(), self.c.clone(), self.task.clone(), id.to_owned());
        let wanted = CreateExec {
            attach_stdout: true,
            attach_stderr: true,
            cmd: self.plan.command.clone(),
            ..CreateExec::default()
        };
        tokio::spawn(async move {
            let started = engine.blocking(move |e| {
                // Not in what the container became after another start.
                if !c.task().is_some_and(|now| Arc::ptr_eq(&now, &task)) {
                    return Err(Error::conflict(format!("container {} is not running", c.id)));
                }
                e.exec_in(&c, &id, &wanted, None, false)
            });
            started.await
        })
    }

    /// What has not started in time is ended as soon as it has.
    fn abandon(&mut self, starting: JoinHandle<Result<Exec>>) {
        let (engine, task) = (self.engine.clone(), self.task.clone());
        self.left = Some(tokio::spawn(async move {
            if let Ok(Ok(exec)) = starting.await {
                kill(&engine, &task, exec.pid).await;
            }
        }));
    }

    /// Waits for the end of a check, and ends it when it takes too long or nobody wants it any more.
    async fn attend(&mut self, start: UnixNanos, id: &str, exec: Exec) -> Option<HealthResult> {
        let deadline = Instant::now() + self.plan.timeout;
        let pid = exec.pid;
        let mut running = match self.follow(id, exec) {
            Ok(running) => running,
            Err(e) => {
                kill(&self.engine, &self.task, pid).await;
                announce_end(&self.engine, &self.c, id, 137);
                return failed(start, e.to_string());
            }
        };
        self.note(pid).await;
        let outcome = tokio::select! {
            exit = &mut running.exit => Outcome::Ended(exit.ok().flatten()),
            () = sleep_until(deadline) => Outcome::TimedOut,
            _ = self.stopped.changed() => Outcome::Stopped,
        };
        match outcome {
            Outcome::Ended(Some(exit)) => {
                let end = now();
                let output = running.words.all().await;
                Some(HealthResult { start, end, exit_code: exit.code, output })
            }
            Outcome::Ended(None) => {
                failed(start, format!("healthcheck for container {} has no exit code", self.c.id))
            }
            Outcome::TimedOut => {
                let output = self.end(running).await;
                let exceeded = format!("Health check exceeded timeout ({})", go_duration(self.plan.timeout));
                failed(start, if output.is_empty() { exceeded } else { format!("{exceeded}: {output}") })
            }
            Outcome::Stopped => {
                self.end(running).await;
                None
            }
        }
    }

    /// Takes its streams and its end.
    fn follow(&self, id: &str, exec: Exec) -> Result<Running> {
        let Exec { pid, stdio, events, .. } = exec;
        let ExecStdio::Pipes { stdout, stderr, .. } = stdio else {
            return Err(Error::internal("a health check was started with a terminal"));
        };
        let socket = from_std(events)?;
        let (stdout, stderr) = (async_fd(Arc::new(stdout))?, async_fd(Arc::new(stderr))?);
        let output = Arc::<Mutex<Output>>::default();
        let kept = output.clone();
        let reader = tokio::spawn(async move {
            tokio::join!(read_into(&stdout, &kept), read_into(&stderr, &kept));
        });
        let (engine, c, id) = (self.engine.clone(), self.c.clone(), id.to_owned());
        let exit = tokio::spawn(async move {
            let exit = exit_of(socket).await;
            announce_end(&engine, &c, &id, exit.map_or(137, |e| e.code));
            exit
        });
        Ok(Running { pid, exit, words: Words { reader, output } })
    }

    /// Ends a check with all that it started; what it has said.
    async fn end(&mut self, running: Running) -> String {
        let Running { pid, exit, words } = running;
        let (engine, task) = (self.engine.clone(), self.task.clone());
        let mut gone = tokio::spawn(async move {
            kill(&engine, &task, pid).await;
            let _ = exit.await;
        });
        if timeout(KILL_PATIENCE, &mut gone).await.is_err() {
            self.left = Some(gone);
        }
        words.all().await
    }

    /// A daemon that finds the container again is to know which process it must end.
    async fn note(&self, pid: u32) {
        // One that has ended meanwhile needs no note.
        let Ok(start_time) = pidfd::start_time(pid) else { return };
        {
            let mut data = self.c.write();
            if self.is_stopped() {
                return;
            }
            if let Some(health) = &mut data.record.state.health {
                health.probe = Some(HealthProbe { pid, start_time });
            }
        }
        self.save(false).await;
    }

    /// Takes a result into the record, and tells if the status is another one now. False when it was stopped.
    async fn keep(&self, result: HealthResult) -> bool {
        let news = {
            let mut data = self.c.write();
            // Stopped under the lock: a result that comes late says nothing.
            if self.is_stopped() {
                return false;
            }
            let state = &mut data.record.state;
            let health = state.health.get_or_insert_default();
            health.probe = None;
            self.plan.judge(health, result, state.started)
        };
        if let Some(status) = news {
            self.engine.container_event(&self.c, format!("health_status: {}", status.word()), &[]);
        }
        self.save(news.is_some()).await;
        true
    }

    fn is_stopped(&self) -> bool {
        self.stopped.has_changed().is_err()
    }

    /// Stores the record: in the database only what is worth it. Whoever does something to the container stores it, too, and
    /// a later result does again; so this waits for nobody.
    async fn save(&self, in_database: bool) {
        let c = self.c.clone();
        let saved = self.engine.blocking(move |e| {
            let Ok(_op) = c.op.try_lock() else { return Ok(()) };
            if c.life.borrow().removed {
                return Ok(());
            }
            let mut record = c.record();
            loop {
                match in_database {
                    true => e.save_state(&record),
                    false => notes::write(&e.inner.paths, &e.inner.boot, &record)?,
                }
                // The end of the container is stored without the lock: what was stored here may be older.
                let now = c.record();
                if now == record {
                    return Ok(());
                }
                record = now;
            }
        });
        if let Err(e) = saved.await {
            tracing::warn!(container = self.c.id, "storing the result of a health check: {e}");
        }
    }
}

impl Words {
    /// All of it, when the check has ended.
    async fn all(mut self) -> String {
        // Something that it started may keep its streams open.
        let _ = timeout(OUTPUT_PATIENCE, &mut self.reader).await;
        self.reader.abort();
        self.output.lock().unwrap_or_else(PoisonError::into_inner).text()
    }
}

fn failed(start: UnixNanos, why: impl Into<String>) -> Option<HealthResult> {
    Some(HealthResult { start, end: now(), exit_code: -1, output: why.into() })
}

fn announce_end(engine: &Engine, c: &Container, id: &str, code: i32) {
    let more = [("execID", id.to_owned()), ("exitCode", code.to_string())];
    engine.container_event(c, "exec_die", &more);
}

async fn kill(engine: &Engine, task: &Arc<Task>, pid: u32) {
    let t = task.clone();
    if let Err(e) = engine.blocking(move |_| Ok(t.kill_exec(pid)?)).await {
        tracing::debug!(container = task.id(), "ending a health check: {e}");
    }
}

async fn read_into(fd: &AsyncFd<Arc<OwnedFd>>, output: &Mutex<Output>) {
    let mut block = [0u8; 4096];
    loop {
        let Ok(mut ready) = fd.readable().await else { return };
        match ready.try_io(|fd| Ok(rustix::io::read(&**fd.get_ref(), &mut block)?)) {
            Ok(Ok(0) | Err(_)) => return,
            Ok(Ok(n)) => output.lock().unwrap_or_else(PoisonError::into_inner).take(&block[..n]),
            Err(_would_block) => {}
        }
    }
}

/// The beginning of what a check writes.
#[derive(Debug, Default)]
struct Output {
    kept: Vec<u8>,
    more: bool,
}

impl Output {
    fn take(&mut self, bytes: &[u8]) {
        let room = MAX_OUTPUT.saturating_sub(self.kept.len());
        let fits = bytes.get(..room).unwrap_or(bytes);
        self.kept.extend_from_slice(fits);
        self.more |= fits.len() < bytes.len();
    }

    fn text(&self) -> String {
        let mut text = String::from_utf8_lossy(&self.kept).into_owned();
        if self.more {
            text.push_str("...");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_cut() {
        let mut o = Output::default();
        o.take(&[b'a'; MAX_OUTPUT - 1]);
        assert_eq!(o.text().len(), MAX_OUTPUT - 1);
        o.take(b"b");
        assert!(o.text().ends_with("ab"));
        o.take(b"c");
        o.take(b"d");
        assert!(o.text().ends_with("ab..."));
        assert_eq!(o.text().len(), MAX_OUTPUT + 3);
        let mut o = Output::default();
        o.take(b"a\xffb");
        assert_eq!(o.text(), "a\u{fffd}b");
    }
}
