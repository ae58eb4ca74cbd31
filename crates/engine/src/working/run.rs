//! `run`: a command in a working container, isolated as those of builds are. It belongs to whoever follows its output:
//! when they leave it is ended.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use longshore_build::dockerfile::MountKind;
use longshore_build::graph::{Limits, Run, Source};
use longshore_build::plan::{agent_of, mount_of, secret_of};
use longshore_build::{Cancel, Error as BuildError, Given, Lasting, Origin, Runner, Secrets, Stream};
use longshore_oci::Kind;
use longshore_oci::image::History;
use longshore_runtime::Task;
use longshore_runtime::monitor::proto::{MAX_CHUNK, Request};
use longshore_store::lease::Lease;
use tokio::sync::mpsc;

use super::asked::{absolute, bind, check, mount};
use super::{Record, Turn, Working};
use crate::build::{finish_step, kill, of_build, to_build};
use crate::changes::set_env;
use crate::container::receiver;
use crate::model::{OutputChunk, OutputStream, WorkingRun, WorkingRunView};
use crate::stream::AttachSession;
use crate::time::{now, rfc3339};
use crate::{Engine, Error, Result, names};

/// How long one that has ended, or was never started, is remembered.
const KEEP: Duration = Duration::from_secs(300);
/// Commands that are known at a time.
const MAX_KNOWN: usize = 4096;
const QUEUE: usize = 16;
/// Exit code for what is not the command's doing.
const OWN: i32 = 125;

/// All commands that are known.
#[derive(Default)]
pub(super) struct Runs {
    by_id: Mutex<HashMap<String, Arc<Known>>>,
}

struct Known {
    working: String,
    request: WorkingRun,
    /// What it may ask for, until it starts.
    secrets: Mutex<Secrets>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    started: bool,
    view: WorkingRunView,
    ended: Option<Instant>,
    /// For resizing.
    task: Option<Arc<Task>>,
    /// Columns and rows.
    size: Option<(u16, u16)>,
}

impl Known {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Runs {
    fn map(&self) -> MutexGuard<'_, HashMap<String, Arc<Known>>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, id: &str) -> Result<Arc<Known>> {
        let known = self.map().get(id).cloned();
        known.ok_or_else(|| Error::not_found(format!("No such command of a working container: {id}")))
    }
}

impl Engine {
    /// Prepares a command; gives its id.
    ///
    /// # Errors
    /// For what is asked wrongly, as far as that can be known before it runs.
    pub async fn create_working_run(&self, name: &str, mut request: WorkingRun) -> Result<String> {
        let working = self.find_working(name)?;
        check(&request)?;
        let id = names::new_id()?;
        {
            let mut map = self.workings().runs.map();
            if map.len() >= MAX_KNOWN && !forget_oldest(&mut map) {
                return Err(Error::new(
                    Kind::TooLarge,
                    format!("more than {MAX_KNOWN} commands of working containers"),
                ));
            }
            let secrets = Mutex::new(std::mem::take(&mut request.secrets));
            let known = Known { working: working.id.clone(), request, secrets, state: Mutex::default() };
            map.insert(id.clone(), Arc::new(known));
        }
        self.forget_run(&id, false);
        Ok(id)
    }

    /// Forgets it after a while, unless it is started by then; or, of one that has `ended`, in any case.
    fn forget_run(&self, id: &str, ended: bool) {
        // Not a reason to keep a closed engine.
        let (inner, id) = (Arc::downgrade(&self.inner), id.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(KEEP).await;
            if let Some(inner) = inner.upgrade() {
                inner.workings.runs.map().retain(|k, known| *k != id || (!ended && known.state().started));
            }
        });
    }

    /// Runs it, with its streams. `size` is that of the terminal: columns and rows. When the output is dropped, the
    /// command is ended.
    ///
    /// # Errors
    /// `Conflict` when it ran before or something else is done in the working container. Why a command cannot be run is
    /// in [`Self::working_run`], once the output has ended.
    pub async fn start_working_run(&self, id: &str, size: Option<(u16, u16)>) -> Result<AttachSession> {
        let known = self.workings().runs.find(id)?;
        let turn = self.turn_in(self.working_of(&known.working)?).await?;
        {
            let mut state = known.state();
            if state.started {
                return Err(Error::conflict(format!(
                    "command {id} of a working container was started before"
                )));
            }
            state.started = true;
            state.view.running = true;
            state.size = size;
        }
        let (out, output) = mpsc::channel(QUEUE);
        let (input, from_client) = mpsc::channel(QUEUE);
        let cancel = Cancel::new();
        let (gone, off) = (out.clone(), cancel.clone());
        let watch = tokio::spawn(async move {
            gone.closed().await;
            off.call_off();
        });
        let (engine, id, tty, stdin) = (self.clone(), id.to_owned(), known.request.tty, known.request.stdin);
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || {
            let shell = Shell { engine: &engine, known: &known, out, input: Mutex::new(Some(from_client)) };
            let done = engine.run_working(&turn, &shell, &cancel, &runtime);
            let mut state = known.state();
            state.task = None;
            state.ended = Some(Instant::now());
            state.view = WorkingRunView {
                running: false,
                code: Some(*done.as_ref().unwrap_or(&state.view.code.unwrap_or(OWN))),
                error: done.err().map(|e| e.to_string()),
            };
            drop(state);
            watch.abort();
            // Whoever has seen the end of the output may go on in the container, and ask how it ended.
            drop(turn);
            let _entered = runtime.enter();
            engine.forget_run(&id, true);
            drop(shell);
        });
        Ok(AttachSession { tty, output: receiver(output), input: stdin.then_some(input) })
    }

    /// How a command fares.
    ///
    /// # Errors
    /// When there is none.
    pub async fn working_run(&self, id: &str) -> Result<WorkingRunView> {
        Ok(self.workings().runs.find(id)?.state().view.clone())
    }

    /// Tells a command's terminal its size.
    ///
    /// # Errors
    /// When there is none, or the monitor does not answer.
    pub async fn resize_working_run(&self, id: &str, rows: u16, columns: u16) -> Result<()> {
        let known = self.workings().runs.find(id)?;
        let task = {
            let mut state = known.state();
            state.size = Some((columns, rows));
            state.task.clone()
        };
        match task {
            Some(task) => self.blocking(move |_| Ok(task.resize(columns, rows)?)).await,
            None => Ok(()),
        }
    }

    fn run_working(
        &self,
        turn: &Turn,
        shell: &Shell<'_>,
        cancel: &Cancel,
        runtime: &tokio::runtime::Handle,
    ) -> Result<i32> {
        let (working, request) = (&turn.working, &shell.known.request);
        let lease = self.inner.store.lease("run in a working container")?;
        let record = working.record();
        let (run, origins) = self.command_of(working, &record, request, &lease, runtime)?;
        let what = format!("run: {}", request.cmd.join(" "));
        let secrets =
            std::mem::take(&mut *shell.known.secrets.lock().unwrap_or_else(PoisonError::into_inner));
        self.work_in(working, what, true, |record| {
            let job = Lasting {
                container: &record.id,
                origins: &origins,
                secrets: &secrets,
                agents: &request.agents,
                runner: shell,
                lease: &lease,
                cancel,
                time: 0,
            };
            let mut noted = record.clone();
            let mut note = |places: Vec<String>| {
                if let Some(busy) = &mut noted.busy {
                    busy.places = places;
                }
                self.store_working(working, noted.clone()).map_err(to_build)
            };
            let builder = &self.inner.builder;
            let code = builder.run_lasting(&job, &run, &mut note, &mut |_, _| ()).map_err(of_build)?;
            if request.add_history && code == 0 {
                record.history.push(History {
                    created: Some(rfc3339(now())),
                    created_by: Some(format!("/bin/sh -c {}", request.cmd.join(" "))),
                    empty_layer: true,
                    ..History::default()
                });
            }
            Ok(code)
        })
    }

    /// What is run, and where its mounts take their files from.
    fn command_of(
        &self,
        working: &Working,
        record: &Record,
        request: &WorkingRun,
        lease: &Lease,
        runtime: &tokio::runtime::Handle,
    ) -> Result<(Run, Vec<Origin>)> {
        let config = &record.config;
        let or = |own: &str, other: &str| if own.is_empty() { other.to_owned() } else { own.to_owned() };
        let mut env = config.env.clone().unwrap_or_default();
        for variable in &request.env {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            set_env(&mut env, name, value);
        }
        let cwd = or(&or(&request.working_dir, &config.working_dir), "/");
        let mut run = Run {
            args: request.cmd.clone(),
            env,
            user: or(&request.user, &config.user),
            network: request.network.clone(),
            hosts: request.hosts.clone(),
            limits: Limits::default(),
            ..Run::default()
        };
        let mut origins = Vec::new();
        for text in &request.binds {
            run.mounts.push(bind(text, origins.len())?);
            origins.push(Origin::Machine);
        }
        for text in &request.mounts {
            let mount = mount(text)?;
            let absolute = |path: &str| absolute(&cwd, path);
            if mount.kind == MountKind::Secret {
                run.secrets.push(secret_of(&mount, absolute).map_err(of_build)?);
                continue;
            }
            if mount.kind == MountKind::Ssh {
                run.agents.push(agent_of(&mount, absolute, run.agents.len()));
                continue;
            }
            let origin = match &mount.from {
                Some(from) => Some(self.working_origin(from, &request.access, working, lease, runtime)?),
                None if mount.kind == MountKind::Bind => Some(Origin::Machine),
                None => None,
            };
            let source = origin.as_ref().map(|_| Source::Context(origins.len()));
            run.mounts.push(mount_of(&mount, absolute, source).map_err(of_build)?);
            origins.extend(origin);
        }
        run.cwd = cwd;
        Ok((run, origins))
    }
}

/// Makes room for another one: the one goes that ended first. False if none has ended.
fn forget_oldest(map: &mut HashMap<String, Arc<Known>>) -> bool {
    let ended = map.iter().filter_map(|(id, known)| Some((known.state().ended?, id.clone())));
    ended.min().is_some_and(|(_, id)| map.remove(&id).is_some())
}

/// Runs a command for somebody who follows it.
struct Shell<'a> {
    engine: &'a Engine,
    known: &'a Known,
    out: mpsc::Sender<Result<OutputChunk>>,
    input: Mutex<Option<mpsc::Receiver<Bytes>>>,
}

impl Runner for Shell<'_> {
    fn run(
        &self,
        container: &str,
        run: &Run,
        given: &Given,
        _output: &mut (dyn FnMut(Stream, &[u8]) + Send),
        cancel: &Cancel,
    ) -> longshore_build::Result<i32> {
        let request = &self.known.request;
        let about = self.engine.working_of(container).map_err(to_build)?.record().about;
        let adjust = |record: &mut crate::record::Record| {
            record.config.tty = request.tty;
            record.config.open_stdin = request.stdin;
            record.config.stdin_once = request.stdin;
            record.host.cap_add.get_or_insert_default().extend(request.cap_add.iter().cloned());
            record.host.cap_drop.get_or_insert_default().extend(request.cap_drop.iter().cloned());
            for (to, from) in [
                (&mut record.config.hostname, [&request.hostname, &about.hostname]),
                (&mut record.config.domainname, [&about.domainname, &about.domainname]),
            ] {
                if let Some(name) = from.into_iter().find(|name| !name.is_empty()) {
                    to.clone_from(name);
                }
            }
            if let Some((columns, rows)) = self.known.state().size.filter(|_| request.tty) {
                record.host.console_size = (rows.into(), columns.into());
            }
        };
        let done = self.engine.with_step(container, run, given, adjust, |c| {
            let wanted =
                longshore_runtime::AttachRequest { stdin: request.stdin, stdout: true, stderr: true };
            let (task, socket) = self.engine.start_attached(c, wanted).map_err(|(code, e)| {
                self.known.state().view.code = Some(if code == 128 { OWN } else { code });
                e
            })?;
            self.known.state().task = Some(task.clone());
            let _armed = cancel.on_call(move || kill(&task));
            let feeder = self.feed(&socket)?;
            let done = finish_step(socket, &mut |stream, bytes| self.show(stream, bytes), cancel);
            drop(feeder);
            done
        });
        done.map_err(|e| match e.kind() {
            Kind::Cancelled => BuildError::Cancelled,
            kind => BuildError::Host { kind, message: e.to_string() },
        })
    }
}

impl Shell<'_> {
    fn show(&self, stream: Stream, bytes: &[u8]) {
        let stream = match stream {
            Stream::Stdout => OutputStream::Stdout,
            Stream::Stderr => OutputStream::Stderr,
        };
        // A client that has gone ends the command by that.
        let _ = self.out.blocking_send(Ok(OutputChunk { stream, data: Bytes::copy_from_slice(bytes) }));
    }

    /// Passes input on, on a thread of its own, which ends with the client's side or with the socket.
    fn feed(&self, socket: &UnixStream) -> Result<Feeding> {
        let failed = |e| Error::io("use monitor's socket", e);
        let own = socket.try_clone().map_err(failed)?;
        let Some(mut input) = self.input.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return Ok(Feeding(own));
        };
        if self.known.request.stdin {
            let mut to = own.try_clone().map_err(failed)?;
            std::thread::Builder::new()
                .name("working-input".into())
                .spawn(move || {
                    let mut frame = Vec::new();
                    while let Some(bytes) = input.blocking_recv() {
                        for piece in bytes.chunks(MAX_CHUNK) {
                            frame.clear();
                            Request::Stdin(piece).encode(&mut frame);
                            if to.write_all(&frame).is_err() {
                                return;
                            }
                        }
                    }
                    frame.clear();
                    Request::StdinEof.encode(&mut frame);
                    // Its end may have come before that of the input.
                    let _ = to.write_all(&frame);
                })
                .map_err(|e| Error::io("start a thread", e))?;
        }
        Ok(Feeding(own))
    }
}

/// Dropped, nothing is passed on any more.
struct Feeding(UnixStream);

impl Drop for Feeding {
    fn drop(&mut self) {
        // It may be closed already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}
