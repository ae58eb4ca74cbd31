//! Git repositories, and a server of them in a test's network namespace.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::harness::{Daemon, in_netns, wait_until};

/// Seconds since 1970 of every commit.
pub(crate) const TIME: i64 = 1_700_000_000;

/// A server of the repositories in a folder, at `git://127.0.0.1/`.
pub(crate) struct Repositories {
    dir: PathBuf,
    server: Child,
}

impl Repositories {
    pub(crate) fn start(d: &Daemon) -> Self {
        let dir = d.dir().join("repositories");
        fs::create_dir(&dir).expect("folder");
        let mut server = Command::new("nsenter");
        server.arg(format!("--net={}", d.netns().display())).args(["git", "daemon", "--export-all"]);
        server.arg("--listen=127.0.0.1").arg(format!("--base-path={}", dir.display())).stdin(Stdio::null());
        // `git` starts another program: both end with their group.
        server.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let server = server.spawn().expect("git (package git)");
        wait_until("git daemon listens", || {
            in_netns(&d.netns(), "ss -Hltn 'sport = 9418' | grep -q .").code == 0
        });
        Self { dir, server }
    }

    /// An empty repository.
    pub(crate) fn make(&self, name: &str) -> Repository {
        self.make_with(name, &[])
    }

    pub(crate) fn make_with(&self, name: &str, options: &[&str]) -> Repository {
        let dir = self.dir.join(name);
        let repository = Repository { dir };
        fs::create_dir(&repository.dir).expect("folder");
        repository.git(&[&["init", "-q", "-b", "main"], options].concat());
        repository
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Repositories {
    fn drop(&mut self) {
        let group = rustix::process::Pid::from_child(&self.server);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.server.wait();
    }
}

/// A repository with its files.
pub(crate) struct Repository {
    dir: PathBuf,
}

impl Repository {
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Runs git in it; what that said.
    pub(crate) fn git(&self, args: &[&str]) -> String {
        let mut git = Command::new("git");
        git.args(["-c", "protocol.allow=always"]).args(args).current_dir(&self.dir).stdin(Stdio::null());
        git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        for who in ["AUTHOR", "COMMITTER"] {
            git.env(format!("GIT_{who}_NAME"), "me").env(format!("GIT_{who}_EMAIL"), "me@host");
            git.env(format!("GIT_{who}_DATE"), format!("{TIME} +0000"));
        }
        let out = git.output().expect("git (package git)");
        assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    /// Writes files, `-> target` being the content of a link, and commits all; the commit's id.
    pub(crate) fn commit(&self, files: &[(&str, &str)]) -> String {
        for (name, text) in files {
            let path = self.dir.join(name);
            fs::create_dir_all(path.parent().expect("parent")).expect("folder");
            match text.strip_prefix("-> ") {
                Some(target) => symlink(target, &path).expect("link"),
                None => fs::write(&path, text).expect("file"),
            }
            if text.starts_with("#!") {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
            }
        }
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", "x", "--allow-empty"]);
        self.git(&["rev-parse", "HEAD"])
    }
}
