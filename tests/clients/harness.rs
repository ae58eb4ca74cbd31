//! A daemon for one test, and the clients that talk to it.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Which command line drives the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// The real `docker`, from PATH.
    Docker,
    /// Ours.
    Longshore,
}

/// A running daemon in a network namespace of its own.
pub(crate) struct Daemon {
    dir: TempDir,
    child: Option<Child>,
    args: Vec<String>,
    path: Option<PathBuf>,
    /// What executes the daemon's command line.
    wrapper: Vec<String>,
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    pub(crate) fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Standard output without the last line feed; the command must have succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout.trim_end_matches('\n').to_owned()
    }

    /// Standard error; the command must have ended with `code`.
    #[track_caller]
    pub(crate) fn fails(self, code: i32) -> String {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stderr
    }
}

/// The folder with the fixture images; `make test` makes them.
pub(crate) fn fixture(name: &str) -> PathBuf {
    let dir = std::env::var_os("LONGSHORE_FIXTURES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fixtures"), PathBuf::from);
    let file = dir.join(format!("{name}.tar"));
    assert!(
        file.exists(),
        "{} is missing: run tests/fixtures/build-images {}",
        file.display(),
        dir.display()
    );
    file
}

impl Daemon {
    /// Starts a daemon on empty roots.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a daemon on empty roots with more flags.
    pub(crate) fn start_with(args: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("longshore-test-").tempdir().expect("temporary folder");
        let mut daemon = Self::at(dir);
        daemon.add_args(args);
        daemon.launch();
        daemon
    }

    fn at(dir: TempDir) -> Self {
        Self { dir, child: None, path: None, args: Vec::new(), wrapper: Vec::new() }
    }

    /// Starts a daemon by way of other programs: `prepare` gets the test's folder and gives their command line.
    pub(crate) fn start_within(prepare: impl FnOnce(&Path) -> Vec<String>) -> Self {
        let dir = tempfile::Builder::new().prefix("longshore-test-").tempdir().expect("temporary folder");
        let mut daemon = Self::at(dir);
        make_netns(&daemon.netns());
        daemon.wrapper = prepare(daemon.dir());
        daemon.launch();
        daemon
    }

    /// Starts a daemon whose data root is a file system of its own: `options` are mount's.
    pub(crate) fn start_on_disk(options: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("longshore-test-").tempdir().expect("temporary folder");
        let mut daemon = Self::at(dir);
        fs::create_dir(daemon.data_root()).expect("data root");
        let status = Command::new("mount").args(options).arg(daemon.data_root()).status().expect("mount");
        assert!(status.success(), "mount {options:?}");
        daemon.launch();
        daemon
    }

    /// Where the daemon finds programs from its next [`Self::launch`] on: here, and nowhere else.
    pub(crate) fn find_only(&mut self, programs: &[&str]) {
        let dir = self.dir.path().join("bin");
        fs::create_dir(&dir).expect("folder");
        // What starts the daemon is looked for there, too.
        for program in programs.iter().chain(&["nsenter"]) {
            let found = Command::new("sh").args(["-c", "command -v \"$0\"", program]).output().expect("sh");
            let found = String::from_utf8_lossy(&found.stdout).trim().to_owned();
            std::os::unix::fs::symlink(found, dir.join(program)).expect("link");
        }
        self.path = Some(dir);
    }

    /// More flags for the next [`Self::launch`].
    pub(crate) fn add_args(&mut self, args: &[&str]) {
        self.args.extend(args.iter().map(|s| (*s).to_owned()));
    }

    /// The test's own folder.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn data_root(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("s.sock")
    }

    /// The daemon's network namespace, as a file.
    pub(crate) fn netns(&self) -> PathBuf {
        self.dir.path().join("netns")
    }

    fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// The daemon's process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("running").id()
    }

    /// How many descriptors the daemon has open.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("the daemon's descriptors").count()
    }

    /// A connection to the daemon.
    pub(crate) fn connect(&self) -> std::os::unix::net::UnixStream {
        let stream = std::os::unix::net::UnixStream::connect(self.socket()).expect("connect");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
        stream
    }

    /// Starts the daemon process (again) and waits until it answers.
    pub(crate) fn launch(&mut self) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.path().join("daemon.log"))
            .expect("log file");
        let netns = self.netns();
        if !netns.exists() {
            make_netns(&netns);
        }
        let child = Command::new("nsenter")
            .arg(format!("--net={}", netns.display()))
            .args(&self.wrapper)
            .arg(env!("CARGO_BIN_EXE_longshore"))
            .args(["daemon", "--debug", "--host"])
            .arg(self.host())
            .arg("--data-root")
            .arg(self.data_root())
            .arg("--exec-root")
            .arg(self.dir.path().join("run"))
            .arg("--pidfile")
            .arg(self.dir.path().join("pid"))
            .args(&self.args)
            .envs(self.path.iter().map(|path| ("PATH", path)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log"))
            .stderr(log)
            .spawn()
            .expect("the daemon");
        self.child = Some(child);
        let socket = self.socket();
        wait_until("the daemon answers", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
        assert_eq!(self.docker(["version", "--format", "{{.Server.APIVersion}}"]).ok(), "1.51");
    }

    /// SIGKILL, and waits for the end.
    pub(crate) fn kill9(&mut self) {
        let mut child = self.child.take().expect("running");
        child.kill().expect("kill");
        child.wait().expect("wait");
    }

    /// Waits for the end of a daemon that somebody else kills.
    pub(crate) fn reap(&mut self) {
        self.child.take().expect("running").wait().expect("wait");
    }

    /// SIGTERM, and waits for the end.
    pub(crate) fn terminate(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        signal(child.id(), "TERM");
        let end = Instant::now() + Duration::from_secs(30);
        while Instant::now() < end {
            if child.try_wait().expect("wait").is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        child.kill().expect("kill");
        child.wait().expect("wait");
        panic!("the daemon did not stop within 30 s of SIGTERM");
    }

    /// A command of one of the clients, not started yet.
    pub(crate) fn command(&self, client: Client) -> Command {
        let mut cmd = match client {
            Client::Docker => Command::new("docker"),
            Client::Longshore => Command::new(env!("CARGO_BIN_EXE_longshore")),
        };
        cmd.env("DOCKER_HOST", self.host())
            .env("DOCKER_CONFIG", self.dir.path())
            // The classic builder, which needs no plugin.
            .env("DOCKER_BUILDKIT", "0")
            .env_remove("DOCKER_CONTEXT");
        cmd
    }

    /// Runs a client to its end with an empty standard input.
    pub(crate) fn run<I: AsRef<std::ffi::OsStr>>(
        &self,
        client: Client,
        args: impl IntoIterator<Item = I>,
    ) -> Done {
        let out = self.command(client).args(args).stdin(Stdio::null()).output();
        Done::from(out.expect("the docker command line: `make test` installs it"))
    }

    /// The real `docker`.
    pub(crate) fn docker<I: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Done {
        self.run(Client::Docker, args)
    }

    /// The real `docker`, given `input`.
    pub(crate) fn docker_with_input(&self, args: &[&str], input: &[u8]) -> Done {
        let mut child = self
            .command(Client::Docker)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker");
        let mut stdin = child.stdin.take().expect("stdin");
        let input = input.to_vec();
        let writer = std::thread::spawn(move || {
            let _ = stdin.write_all(&input);
        });
        let out = child.wait_with_output().expect("docker");
        writer.join().expect("writer");
        Done::from(out)
    }

    /// Loads a fixture image.
    pub(crate) fn load(&self, name: &str) {
        let file = fixture(name);
        self.docker(["load", "-q", "-i", file.to_str().expect("utf-8")]).ok();
    }

    /// A value of `docker inspect`.
    pub(crate) fn inspect(&self, format: &str, object: &str) -> String {
        self.docker(["inspect", "--format", format, object]).ok()
    }

    /// The HTTP answer to a raw request, head and body.
    pub(crate) fn raw(&self, request: &str) -> String {
        let mut stream = self.connect();
        // A daemon that refuses a body answers before it has read all of it.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// What the daemon logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("daemon.log")).unwrap_or_default()
    }

    /// Removes every container, stops the daemon, and fails if anything of it is left.
    pub(crate) fn finish(mut self) {
        let ids = self.docker(["ps", "-aq"]).ok();
        if !ids.is_empty() {
            let mut args = vec!["rm", "-f", "-v"];
            args.extend(ids.split_whitespace());
            self.docker(args).ok();
        }
        self.terminate();
        let root = self.dir.path().to_string_lossy().into_owned();
        let disk = self.data_root().to_string_lossy().into_owned();
        let left: Vec<String> =
            mounts_below(&root).into_iter().filter(|m| !m.ends_with("netns") && *m != disk).collect();
        assert!(left.is_empty(), "mounts are left: {left:#?}");
        let processes = processes_naming(&root);
        assert!(processes.is_empty(), "processes are left: {processes:#?}");
        let interfaces = Command::new("nsenter")
            .arg(format!("--net={}", self.dir.path().join("netns").display()))
            .args(["ip", "-o", "link", "show", "type", "bridge"])
            .output()
            .expect("ip (package iproute2)");
        assert_eq!(String::from_utf8_lossy(&interfaces.stdout), "", "bridges are left");
        let cgroups = cgroups_of(&self.data_root());
        assert!(cgroups.is_empty(), "cgroups are left: {cgroups:?}");
        let containers: Vec<_> =
            fs::read_dir(self.data_root().join("containers")).map(|d| d.collect()).unwrap_or_default();
        assert!(containers.is_empty(), "container folders are left: {containers:?}");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            eprintln!("--- the daemon's log: what matters, and the last lines");
            let first = log.lines().count().saturating_sub(40);
            let told = log.lines().enumerate().filter(|(i, l)| *i >= first || !l.contains(" DEBUG "));
            told.for_each(|(_, l)| eprintln!("{l}"));
            if self.child.is_some() {
                let ids = self.run(Client::Docker, ["ps", "-aq"]).stdout;
                let mut args = vec!["rm".to_owned(), "-f".into(), "-v".into()];
                args.extend(ids.split_whitespace().map(str::to_owned));
                self.run(Client::Docker, args);
            }
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for mount in mounts_below(&self.dir.path().to_string_lossy()).iter().rev() {
            let _ = Command::new("umount").args(["-l", mount]).status();
        }
    }
}

/// Makes a network namespace with its loopback up and keeps it at `path`.
pub(crate) fn make_netns(path: &Path) {
    fs::write(path, "").expect("netns file");
    let status = Command::new("unshare")
        .arg(format!("--net={}", path.display()))
        .args(["ip", "link", "set", "lo", "up"])
        .status()
        .expect("unshare (package util-linux)");
    assert!(status.success(), "cannot make a network namespace: the client tests need root");
}

/// Runs a shell script in a network namespace.
pub(crate) fn in_netns(netns: &Path, script: &str) -> Done {
    let mut nsenter = Command::new("nsenter");
    nsenter.arg(format!("--net={}", netns.display())).args(["sh", "-c", script]).stdin(Stdio::null());
    Done::from(nsenter.output().expect("nsenter (package util-linux)"))
}

/// Sends a signal by name.
pub(crate) fn signal(pid: u32, name: &str) {
    let ok =
        Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().expect("kill").success();
    assert!(ok, "cannot signal {pid}");
}

/// Polls until `done`, for half a minute at most.
#[track_caller]
pub(crate) fn wait_until(what: &str, done: impl FnMut() -> bool) {
    wait_until_with(|| what.to_owned(), done);
}

/// As [`wait_until`], for a failure that tells what was seen.
#[track_caller]
pub(crate) fn wait_until_with(what: impl Fn() -> String, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < end, "timed out: {}", what());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn mounts_below(root: &str) -> Vec<String> {
    fs::read_to_string("/proc/self/mounts")
        .expect("mounts")
        .lines()
        .filter_map(|l| l.split(' ').nth(1))
        .filter(|m| m.starts_with(root))
        .map(str::to_owned)
        .collect()
}

/// Directories of the cgroups that a daemon with this data root makes.
pub(crate) fn cgroups_of(data_root: &Path) -> Vec<PathBuf> {
    use std::os::unix::ffi::OsStrExt as _;
    let hash = longshore_oci::Digest::of(data_root.as_os_str().as_bytes()).hex()[..8].to_owned();
    let mut found = Vec::new();
    let mut todo = vec![(PathBuf::from("/sys/fs/cgroup"), 0)];
    while let Some((dir, depth)) = todo.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|t| t.is_dir()) {
                continue;
            }
            if entry.file_name().to_string_lossy().contains(&hash) {
                found.push(entry.path());
            } else if depth < 3 {
                todo.push((entry.path(), depth + 1));
            }
        }
    }
    found
}

fn processes_naming(root: &str) -> Vec<String> {
    let own = std::process::id().to_string();
    fs::read_dir("/proc")
        .expect("proc")
        .flatten()
        .filter(|e| {
            e.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit())
                && e.file_name().to_string_lossy() != own
        })
        .filter_map(|e| fs::read(e.path().join("cmdline")).ok())
        .map(|c| String::from_utf8_lossy(&c).replace('\0', " "))
        .filter(|c| c.contains(root))
        .collect()
}
