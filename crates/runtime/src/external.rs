//! Other OCI runtimes: programs with the commands `create`, `start`, `kill`, `delete` and `exec`.
//!
//! The container's monitor runs those that make processes, so that it becomes their parent and owns
//! their streams and ends as it does for containers of our own. The bundle is the container's exec
//! directory.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use longshore_monitor::proto::{self, Create, Request, Run, Step};
use longshore_sys::{Context, sockpath};
use rustix::fs::Mode;
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::embedded::spawn::{self, Created, Entrance, Files, Order};
use crate::embedded::{Embedded, Home, RuntimeOptions};
use crate::error::{Error, LaunchError, Result};
use crate::spec::{LinuxNamespaceType, LinuxResources, Process};
use crate::task::{CreateRequest, ExecRequest, Recovered, Runtime, Task};

/// Where a program logs what went wrong, in a container's exec directory.
const LOG: &str = "runtime.log";
/// Socket on which it sends the terminal.
const CONSOLE: &str = "console.sock";
/// How much of its log is read.
const MAX_LOG: u64 = 64 * 1024;

/// A runtime as the daemon's settings name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// By which it is chosen.
    pub name: String,
    /// Its program; without a slash it is looked for in PATH.
    pub path: PathBuf,
    /// Arguments before the command.
    pub args: Vec<String>,
}

/// Containers made by another OCI runtime.
#[derive(Debug)]
pub struct External {
    home: Arc<Home>,
    name: String,
    program: Program,
}

impl External {
    pub(crate) fn new(embedded: &Embedded, options: &RuntimeOptions, registered: &Registered) -> Self {
        let program = Program {
            path: registered.path.clone(),
            args: registered.args.clone(),
            root: options.exec_root.join("oci").join(&registered.name),
        };
        Self { home: embedded.home().clone(), name: registered.name.clone(), program }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.program.path
    }
}

impl Runtime for External {
    fn name(&self) -> &str {
        &self.name
    }

    fn create(&self, request: CreateRequest) -> Result<Task> {
        let program = self.program.found(&self.name)?;
        self.home.create(request, Some(program))
    }

    fn recover(&self, id: &str) -> Result<Recovered> {
        self.home.recover(id)
    }

    fn delete(&self, id: &str) -> Result<()> {
        self.home.delete(id)
    }
}

/// A program and how it is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Program {
    path: PathBuf,
    args: Vec<String>,
    /// Where it keeps its own state.
    root: PathBuf,
}

impl Program {
    /// With its path found.
    fn found(&self, name: &str) -> Result<Self> {
        let missing = || Error::Invalid(format!("runtime {name}: program {} not found", self.path.display()));
        let path = if self.path.as_os_str().as_bytes().contains(&b'/') {
            self.path.clone()
        } else {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path)
                .map(|d| d.join(&self.path))
                .find(|p| p.is_file())
                .ok_or_else(missing)?
        };
        if path.is_file() { Ok(Self { path, ..self.clone() }) } else { Err(missing()) }
    }

    /// Path and arguments of a command that logs to `log`.
    fn command(&self, log: Option<&Path>, command: &[&OsStr]) -> Vec<OsString> {
        let mut all: Vec<OsString> = vec![self.path.clone().into()];
        all.extend(self.args.iter().map(OsString::from));
        all.extend(["--root".into(), self.root.clone().into()]);
        if let Some(log) = log {
            all.extend(["--log".into(), log.into(), "--log-format".into(), "json".into()]);
        }
        all.extend(command.iter().map(OsString::from));
        all
    }

    fn run(&self, command: &[&OsStr]) -> Result<()> {
        let words = self.command(None, command);
        let done = Command::new(&self.path)
            .args(&words[1..])
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .output()
            .context(|| format!("run {}", self.path.display()))?;
        if done.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&done.stderr);
        let last = said.lines().last().map(|last| message(last).unwrap_or_else(|| last.to_owned()));
        Err(failed(done.status.code().unwrap_or(-1), last))
    }

    /// Sends a signal to the container's first process.
    pub(crate) fn kill(&self, id: &str, signal: i32) -> Result<()> {
        self.run(&["kill".as_ref(), id.as_ref(), signal.to_string().as_ref()])
    }

    /// Ends the container, if the program knows it, and lets it forget it.
    pub(crate) fn forget(&self, id: &str) {
        if let Err(error) = self.run(&["delete".as_ref(), "--force".as_ref(), id.as_ref()]) {
            tracing::debug!(container = id, %error, "{} delete", self.path.display());
        }
    }

    /// Puts the program's own words in place of its exit code.
    pub(crate) fn explain(&self, error: Error, dir: Option<&Path>) -> Error {
        explain(error, dir.map(|d| d.join(LOG)).as_deref())
    }
}

/// Makes a container by `program`, below a monitor.
pub(crate) fn create(
    monitor: &OwnedFd,
    dir: &Path,
    place: (&str, &str),
    mut request: CreateRequest,
    program: &Program,
) -> Result<Created> {
    if request.init {
        return Err(Error::Unsupported(format!("--init with the runtime {}", program.path.display())));
    }
    if request.userns.as_ref().is_some_and(|m| !m.is_identity()) {
        return Err(Error::Unsupported(format!(
            "a user namespace with the runtime {}",
            program.path.display()
        )));
    }
    crate::embedded::make_private_dir(&program.root)?;
    // Ours, without limits or rules: the program sets those of the specification in it.
    let group = Cgroup::create(place.0, place.1, &everything())?;
    let netns = request.netns.take();
    complete(&mut request, &group, netns.as_ref())?;
    write_json(&dir.join("config.json"), &request.spec)?;
    let log = dir.join(LOG);
    let pid_file = dir.join(OsStr::from_bytes(proto::PID_FILE.to_bytes()));
    let mut create: Vec<&OsStr> = vec!["create".as_ref(), "--bundle".as_ref(), dir.as_os_str()];
    create.extend(["--pid-file".as_ref(), pid_file.as_os_str()]);
    let mut files = Files::default();
    if request.terminal {
        // By a name in the directory in which it runs: the whole path may be too long for a socket.
        create.extend([OsStr::new("--console-socket"), OsStr::new(CONSOLE)]);
        files.console = Some(sockpath::bind(&dir.join(CONSOLE), 0o600)?.into());
    }
    create.push(request.id.as_ref());
    let commands = proto::Program {
        create: words(program.command(Some(&log), &create))?,
        start: words(program.command(Some(&log), &["start".as_ref(), request.id.as_ref()]))?,
        env: words(std::env::var_os("PATH").map(|p| [OsStr::new("PATH="), &p].into_iter().collect()))?,
    };
    let entrance = Entrance { oom: group.oom_file()?, ..Entrance::default() };
    let order = Order {
        create: Create { program: Some(commands), ..Create::default() },
        plan: Vec::new(),
        files,
        entrance,
    };
    let created =
        spawn::watch(monitor, dir, request, order, group).map_err(|e| program.explain(e, Some(dir)));
    // Open until here: the specification names it by its number.
    drop(netns);
    created
}

/// Resources with which a cgroup restricts nothing.
fn everything() -> LinuxResources {
    let rule = crate::spec::LinuxDeviceCgroupBuilder::default().allow(true).access("rwm").build();
    let mut resources = LinuxResources::default();
    resources.set_devices(Some(rule.into_iter().collect()));
    resources
}

/// What our launcher takes beside the specification, put into it.
fn complete(request: &mut CreateRequest, group: &Cgroup, netns: Option<&OwnedFd>) -> Result<()> {
    // Older programs refuse what calls itself newer, though they know all that is used here.
    request.spec.set_version("1.0.2".into());
    let terminal = request.terminal.then(|| request.console_size.unwrap_or((0, 0)));
    if let Some(process) = request.spec.process_mut() {
        set_terminal(process, terminal)?;
    }
    let Some(linux) = request.spec.linux_mut() else {
        return Err(Error::Invalid("a specification for Linux is needed".into()));
    };
    linux.set_cgroups_path(Some(group.path()));
    if let Some(netns) = netns {
        let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd()));
        for ns in linux.namespaces_mut().iter_mut().flatten() {
            if ns.typ() == LinuxNamespaceType::Network {
                ns.set_path(Some(path.clone()));
            }
        }
    }
    Ok(())
}

fn set_terminal(process: &mut Process, size: Option<(u16, u16)>) -> Result<()> {
    process.set_terminal(Some(size.is_some()));
    let size = size.filter(|(cols, rows)| *cols > 0 && *rows > 0);
    let invalid = |e: oci_spec::OciSpecError| Error::Invalid(e.to_string());
    let size = size.map(|(cols, rows)| {
        crate::spec::BoxBuilder::default().width(u64::from(cols)).height(u64::from(rows)).build()
    });
    process.set_console_size(size.transpose().map_err(invalid)?);
    Ok(())
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let bytes =
        serde_json::to_vec(value).map_err(|e| Error::Invalid(format!("write {}: {e}", path.display())))?;
    longshore_sys::atomic::write_atomic_path(path, &bytes, Mode::from_raw_mode(0o600), false)?;
    Ok(())
}

fn words(list: impl IntoIterator<Item = OsString>) -> Result<Vec<CString>> {
    let word = |w: OsString| {
        CString::new(w.into_vec()).map_err(|e| Error::Invalid(format!("argument of a runtime: {e}")))
    };
    list.into_iter().map(word).collect()
}

/// One exec by a program: its files, which are removed at the end.
pub(crate) struct Errand {
    base: PathBuf,
    args: Vec<CString>,
    pid_file: CString,
    terminal: bool,
}

impl Errand {
    pub(crate) fn new(program: &Program, dir: &Path, id: &str, request: &ExecRequest) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("exec-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let base = dir.join(&name);
        let mut process = request.process.clone();
        set_terminal(&mut process, request.terminal.then(|| request.console_size.unwrap_or((0, 0))))?;
        let mut this =
            Self { base, args: Vec::new(), pid_file: CString::default(), terminal: request.terminal };
        write_json(&this.file("json"), &process)?;
        let pid_file = this.file("pid");
        let json = this.file("json");
        let console = format!("{name}.sock");
        let mut command: Vec<&OsStr> = vec!["exec".as_ref(), "--detach".as_ref()];
        command.extend(["--process".as_ref(), json.as_os_str(), "--pid-file".as_ref(), pid_file.as_os_str()]);
        if this.terminal {
            command.extend([OsStr::new("--console-socket"), OsStr::new(&console)]);
        }
        command.push(id.as_ref());
        this.args = words(program.command(Some(&this.file("log")), &command))?;
        this.pid_file = CString::new(format!("{name}.pid")).unwrap_or_default();
        Ok(this)
    }

    fn file(&self, ending: &str) -> PathBuf {
        self.base.with_extension(ending)
    }

    /// The socket for its terminal, if it is to have one.
    pub(crate) fn console(&self) -> Result<Option<OwnedFd>> {
        if !self.terminal {
            return Ok(None);
        }
        Ok(Some(sockpath::bind(&self.file("sock"), 0o600)?.into()))
    }

    pub(crate) fn request(&self) -> Request<'static> {
        Request::Run(Box::new(Run {
            args: self.args.clone(),
            pid_file: self.pid_file.clone(),
            terminal: self.terminal,
        }))
    }

    pub(crate) fn explain(&self, error: Error) -> Error {
        explain(error, Some(&self.file("log")))
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        for ending in ["json", "pid", "sock", "log"] {
            let _ = fs::remove_file(self.file(ending));
        }
    }
}

/// Puts a program's own words in place of its exit code, which is what the monitor knows.
fn explain(error: Error, log: Option<&Path>) -> Error {
    let Error::Launch(LaunchError { step: Some(Step::Program), errno: code, .. }) = error else {
        return error;
    };
    failed(code, log.and_then(|log| last_words(log).ok().flatten()))
}

/// A program's failure. Whether the command was missing or unusable can only be told from its words,
/// as Docker does.
fn failed(code: i32, said: Option<String>) -> Error {
    let message = said.unwrap_or_else(|| format!("ended with exit code {code} and gave no reason"));
    let lower = message.to_lowercase();
    let says = |any: &[&str]| any.iter().any(|words| lower.contains(words));
    let exit_code = if says(&["executable file not found", "no such file or directory", "not found in $path"])
    {
        127
    } else if says(&["permission denied", "exec format error", "is a directory"]) {
        126
    } else {
        128
    };
    Error::Program { message, exit_code }
}

/// The last error that a program has logged.
fn last_words(log: &Path) -> std::io::Result<Option<String>> {
    use std::io::Read;
    let mut text = String::new();
    File::open(log)?.take(MAX_LOG).read_to_string(&mut text)?;
    Ok(text.lines().rev().find_map(message))
}

/// The text of a line of a log in JSON.
fn message(line: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Line {
        msg: String,
        #[serde(default)]
        level: String,
    }
    let line: Line = serde_json::from_str(line).ok()?;
    ["", "error", "fatal", "panic"].contains(&line.level.as_str()).then_some(line.msg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_a_log_is_what_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        fs::write(
            &log,
            "{\"level\":\"error\",\"msg\":\"first\"}\n{\"level\":\"error\",\"msg\":\"exec: \\\"x\\\": executable file not found in $PATH\"}\n{\"level\":\"info\",\"msg\":\"bye\"}\nnoise\n",
        )
        .unwrap();
        let error = LaunchError { step: Some(Step::Program), errno: 1, detail: "create".into() };
        let said = explain(Error::Launch(error.clone()), Some(&log));
        assert_eq!(said.to_string(), "exec: \"x\": executable file not found in $PATH");
        assert!(matches!(said, Error::Program { exit_code: 127, .. }));
        let said = explain(Error::Launch(error), None);
        assert_eq!(said.to_string(), "ended with exit code 1 and gave no reason");
    }
}
