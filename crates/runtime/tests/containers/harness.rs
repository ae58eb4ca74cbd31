//! A place with a busybox root file system, and a reader of monitor streams.

use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use longshore_runtime::monitor::proto::{Decoder, Frame, Stream};
use longshore_runtime::spec::{Process, Spec};
use longshore_runtime::{
    AttachRequest, CreateRequest, Embedded, Error, Exec, ExecRequest, ExecStdio, ExitStatus, LogFile,
    Runtime, RuntimeOptions, Task,
};
use serde_json::{Value, json};

const APPLETS: &[&str] = &[
    "sh", "true", "false", "cat", "echo", "env", "id", "sleep", "ls", "stat", "mount", "hostname", "kill",
    "ps", "touch", "mkdir", "tty", "stty", "readlink", "grep", "head", "wc", "test", "printf", "dd", "seq",
    "umount", "pwd", "awk", "mknod", "unshare",
];

/// One test's world: removed when dropped.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) runtime: Embedded,
}

/// Everything that a container wrote, and how it ended.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: i32,
    pub(crate) signal: i32,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("longshore-test-").tempdir().unwrap();
        let rootfs = dir.path().join("rootfs");
        for sub in ["bin", "etc", "proc", "sys", "dev", "tmp", "root"] {
            std::fs::DirBuilder::new().recursive(true).mode(0o755).create(rootfs.join(sub)).unwrap();
        }
        std::fs::copy("/bin/busybox", rootfs.join("bin/busybox")).unwrap();
        for applet in APPLETS {
            symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
        }
        std::fs::write(rootfs.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
        let runtime = runtime(&dir.path().join("exec"));
        Self { dir, runtime }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.path("rootfs")
    }

    pub(crate) fn exec_dir(&self) -> PathBuf {
        self.path("exec/containers/c")
    }

    /// A specification as Docker's, for a shell script.
    pub(crate) fn spec(&self, script: &str) -> Value {
        self.spec_args(&["/bin/sh", "-c", script])
    }

    pub(crate) fn spec_args(&self, args: &[&str]) -> Value {
        json!({
            "ociVersion": "1.2.0",
            "root": { "path": self.rootfs() },
            "hostname": "box",
            "process": process(args),
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
                { "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
                { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] },
                { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"] },
                { "destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"] },
            ],
            "linux": {
                "namespaces": [{ "type": "mount" }, { "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "network" }, { "type": "cgroup" }],
                "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"],
                "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            },
        })
    }

    pub(crate) fn request(&self, spec: Value) -> CreateRequest {
        let spec: Spec = serde_json::from_value(spec).unwrap();
        let terminal = spec.process().as_ref().unwrap().terminal().unwrap_or(false);
        CreateRequest {
            id: "c".into(),
            spec,
            terminal,
            console_size: None,
            open_stdin: false,
            stdin_once: false,
            log: None,
            netns: None,
            exit_file: self.path("exit"),
            userns: None,
            init: false,
        }
    }

    pub(crate) fn log(&self) -> LogFile {
        LogFile { path: self.path("c-json.log"), max_size: 0, max_files: 0 }
    }

    pub(crate) fn run(&self, spec: Value) -> Outcome {
        self.run_request(self.request(spec))
    }

    /// Creates, attaches, starts, collects, removes.
    pub(crate) fn run_request(&self, request: CreateRequest) -> Outcome {
        let task = self.runtime.create(request).unwrap();
        let stream = task.attach(OUTPUT).unwrap();
        task.start().unwrap();
        let outcome = collect(stream);
        let written = ExitStatus::read(&self.path("exit")).unwrap().unwrap();
        assert_eq!(written.code, outcome.code);
        self.runtime.delete("c").unwrap();
        assert!(!self.exec_dir().exists());
        outcome
    }

    /// Creates and starts.
    pub(crate) fn started(&self, request: CreateRequest) -> Task {
        let task = self.runtime.create(request).unwrap();
        task.start().unwrap();
        task
    }

    /// What create or start says about a container that cannot run.
    pub(crate) fn refused(&self, spec: Value) -> Error {
        let error = match self.runtime.create(self.request(spec)) {
            Err(error) => error,
            Ok(task) => task.start().unwrap_err(),
        };
        self.runtime.delete("c").unwrap();
        assert!(!self.exec_dir().exists());
        error
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.runtime.delete("c");
        let _ = longshore_runtime::cgroup::Cgroup::remove_parent(&cgroup_parent());
    }
}

pub(crate) fn runtime(exec_root: &Path) -> Embedded {
    Embedded::new(RuntimeOptions {
        exec_root: exec_root.to_owned(),
        cgroup_parent: cgroup_parent(),
        slice: None,
    })
    .unwrap()
}

/// A cgroup of this test's own: tests are threads of one process.
pub(crate) fn cgroup_parent() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    thread_local! {
        static OWN: u32 = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    format!("longshore-test-{}-{}", std::process::id(), OWN.with(|n| *n))
}

pub(crate) const OUTPUT: AttachRequest = AttachRequest { stdin: false, stdout: true, stderr: true };
pub(crate) const ALL: AttachRequest = AttachRequest { stdin: true, stdout: true, stderr: true };

/// Docker's default capabilities.
pub(crate) fn process(args: &[&str]) -> Value {
    let caps = [
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FSETID",
        "CAP_FOWNER",
        "CAP_MKNOD",
        "CAP_NET_RAW",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_SETFCAP",
        "CAP_SETPCAP",
        "CAP_NET_BIND_SERVICE",
        "CAP_SYS_CHROOT",
        "CAP_KILL",
        "CAP_AUDIT_WRITE",
    ];
    json!({
        "user": { "uid": 0, "gid": 0 },
        "args": args,
        "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"],
        "cwd": "/",
        "capabilities": { "bounding": caps, "effective": caps, "permitted": caps },
        "oomScoreAdj": 0,
    })
}

/// Reads a monitor's stream to its end.
pub(crate) fn collect(mut stream: UnixStream) -> Outcome {
    let mut decoder = Decoder::new();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut outcome = Outcome { code: -1, ..Outcome::default() };
    let mut buf = vec![0; 64 * 1024];
    loop {
        let n = stream.read(&mut buf).unwrap();
        if n == 0 {
            break;
        }
        decoder.push(&buf[..n]);
        while let Some(frame) = decoder.next().unwrap() {
            match frame {
                Frame::Output { stream: Stream::Stdout, bytes } => out.extend_from_slice(bytes),
                Frame::Output { stream: Stream::Stderr, bytes } => err.extend_from_slice(bytes),
                Frame::Exit(exit) => (outcome.code, outcome.signal) = (exit.code, exit.signal),
                other => panic!("unexpected {other:?}"),
            }
        }
    }
    outcome.out = String::from_utf8_lossy(&out).into_owned();
    outcome.err = String::from_utf8_lossy(&err).into_owned();
    outcome
}

/// Reads output until `text` has come.
pub(crate) fn read_until(stream: &mut UnixStream, text: &str) -> String {
    let mut decoder = Decoder::new();
    let mut all = Vec::new();
    let mut byte = [0; 1];
    while !String::from_utf8_lossy(&all).contains(text) {
        assert_eq!(
            stream.read(&mut byte).unwrap(),
            1,
            "ended before {text:?}: {:?}",
            String::from_utf8_lossy(&all)
        );
        decoder.push(&byte);
        while let Some(frame) = decoder.next().unwrap() {
            match frame {
                Frame::Output { bytes, .. } => all.extend_from_slice(bytes),
                other => panic!("unexpected {other:?} before {text:?}"),
            }
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// Runs an exec to its end.
pub(crate) fn run_exec(task: &Task, process: Value) -> Outcome {
    finish_exec(start_exec(task, process).unwrap())
}

pub(crate) fn start_exec(task: &Task, process: Value) -> Result<Exec, Error> {
    let process: Process = serde_json::from_value(process).unwrap();
    let terminal = process.terminal().unwrap_or(false);
    task.exec(ExecRequest {
        process,
        terminal,
        console_size: terminal.then_some((91, 37)),
        stdin: false,
        exec_id: "e".into(),
    })
}

pub(crate) fn finish_exec(exec: Exec) -> Outcome {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    match exec.stdio {
        ExecStdio::Tty(master) => {
            // EIO when the other side is closed.
            let _ = std::fs::File::from(master).read_to_end(&mut out);
        }
        ExecStdio::Pipes { stdin, stdout, stderr } => {
            drop(stdin);
            std::fs::File::from(stdout).read_to_end(&mut out).unwrap();
            std::fs::File::from(stderr).read_to_end(&mut err).unwrap();
        }
    }
    let end = collect(exec.events);
    Outcome {
        out: String::from_utf8_lossy(&out).into_owned(),
        err: String::from_utf8_lossy(&err).into_owned(),
        ..end
    }
}
