//! Programs that keep credentials: `docker-credential-X get|store|erase`, spoken to over their standard streams.

use std::ffi::OsStr;
use std::io::{self, Read, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;

use super::Credentials;

/// What stands before a program's name in `config.json`.
const PREFIX: &str = "docker-credential-";
/// The name that goes with an identity token.
const TOKEN: &str = "<token>";
/// Longest answer.
const MAX_ANSWER: usize = 1 << 20;
/// How much of what a program complains of is told.
const MAX_COMPLAINT: usize = 4096;
/// How long a program may take. It may ask its user for a passphrase.
const MAX_TIME: Duration = Duration::from_secs(300);
/// How long a program's output is read on when the program has ended: it may have left another behind that holds it.
const MAX_REST: Duration = Duration::from_millis(500);
/// Programs say so with this line that they know nothing of a registry.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// A program's answer to `get`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Answer {
    username: String,
    secret: String,
}

/// One such program.
#[derive(Clone, Debug)]
pub struct Helper {
    name: String,
    limit: Duration,
}

impl Helper {
    /// The program that a `config.json` names: `pass` is `docker-credential-pass`.
    #[must_use]
    pub fn new(suffix: &str) -> Self {
        Self { name: format!("{PREFIX}{suffix}"), limit: MAX_TIME }
    }

    /// What the program knows of a registry; nothing is no error.
    ///
    /// # Errors
    /// When the program fails, answers too much or nothing readable, or takes too long.
    pub fn get(&self, server: &str) -> Result<Option<Credentials>, String> {
        let said = self.run("get", server.as_bytes()).map_err(|e| failed("getting", &e, ""))?;
        if let Some(why) = said.failure() {
            return if said.text() == NOT_FOUND {
                Ok(None)
            } else {
                Err(failed("getting", &why, &said.text()))
            };
        }
        answer(server, &said.output).map(Some).map_err(|e| failed("getting", &e, ""))
    }

    /// Lets the program keep credentials: the token where there is one, else name and password.
    ///
    /// # Errors
    /// As for [`Helper::get`].
    pub fn store(&self, credentials: &Credentials) -> Result<(), String> {
        let (name, secret) = match credentials.identity_token.as_str() {
            "" => (credentials.username.as_str(), credentials.password.as_str()),
            token => (TOKEN, token),
        };
        let told = json!({"ServerURL": credentials.server, "Username": name, "Secret": secret});
        self.command("store", "storing", format!("{told}\n").as_bytes())
    }

    /// Lets the program forget a registry.
    ///
    /// # Errors
    /// As for [`Helper::get`].
    pub fn erase(&self, server: &str) -> Result<(), String> {
        self.command("erase", "erasing", server.as_bytes())
    }

    fn command(&self, action: &str, doing: &str, input: &[u8]) -> Result<(), String> {
        let said = self.run(action, input).map_err(|e| failed(doing, &e, ""))?;
        said.failure().map_or(Ok(()), |why| Err(failed(doing, &why, &said.text())))
    }

    fn run(&self, action: &str, input: &[u8]) -> Result<Said, String> {
        let program = find(&self.name)?;
        let mut child = Command::new(program)
            .arg(action)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("fork/exec {}: {}", self.name, crate::error::words(&e)))?;
        if let Some(mut stdin) = child.stdin.take() {
            let input = input.to_owned();
            // A program that does not read must not hold this one up.
            std::thread::spawn(move || stdin.write_all(&input));
        }
        let chunks = child.stdout.take().map(read_on_a_thread);
        let said = listen(&mut child, chunks, Instant::now() + self.limit);
        if said.is_err() {
            let _ = child.kill();
            let _ = child.wait();
        }
        said.map_err(|e| format!("{} {action}: {e}", self.name))
    }
}

/// What a program said, and how it ended.
struct Said {
    status: ExitStatus,
    output: Vec<u8>,
}

impl Said {
    fn text(&self) -> String {
        let cut = &self.output[..self.output.len().min(MAX_COMPLAINT)];
        String::from_utf8_lossy(cut).trim().to_owned()
    }

    /// Why it failed, if it did, as Go says it; two complaints that every such program may make are told themselves.
    fn failure(&self) -> Option<String> {
        if self.status.success() {
            return None;
        }
        let text = self.text();
        Some(match (self.status.code(), self.status.signal()) {
            _ if ["no credentials server URL", "no credentials username"].contains(&text.as_str()) => text,
            (Some(code), _) => format!("exit status {code}"),
            (None, signal) => format!("signal: {}", signal.unwrap_or_default()),
        })
    }
}

/// Docker's words for a program that does not do what it is asked.
fn failed(doing: &str, why: &str, output: &str) -> String {
    format!("error {doing} credentials - err: {why}, out: `{output}`")
}

/// Reads an answer to `get`. It is not shown in errors: it may hold a secret.
///
/// # Errors
/// When it is not what such programs answer.
pub fn answer(server: &str, output: &[u8]) -> Result<Credentials, String> {
    let mut values = serde_json::Deserializer::from_slice(output).into_iter::<serde_json::Value>();
    let value = match values.next() {
        Some(Ok(value)) => value,
        Some(Err(_)) => return Err("the answer is not JSON".into()),
        None => return Err("there is no answer".into()),
    };
    let answer: Answer = longshore_api::json::from_slice(value.to_string().as_bytes())
        .map_err(|_| "the answer is not understood".to_owned())?;
    let mut out = Credentials { server: server.to_owned(), ..Credentials::default() };
    if answer.username == TOKEN {
        out.identity_token = answer.secret;
    } else {
        (out.username, out.password) = (answer.username, answer.secret);
    }
    Ok(out)
}

/// The program that is looked for where nothing is configured, if it is there: that of `pass` where that is used, else
/// that of the desktop's keyring.
pub(crate) fn default_suffix() -> Option<&'static str> {
    let suffix = if find("pass").is_ok() { "pass" } else { "secretservice" };
    find(&format!("{PREFIX}{suffix}")).is_ok().then_some(suffix)
}

/// A program in `PATH`. Entries that depend on the current folder do not count: whoever filled that folder is not who
/// set `PATH`.
fn find(name: &str) -> Result<PathBuf, String> {
    if name.contains('/') {
        return Err(format!("exec: {name:?}: not the name of a program"));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = path.as_bytes().split(|b| *b == b':').filter(|p| p.starts_with(b"/"));
    folders
        .map(|folder| PathBuf::from(OsStr::from_bytes(folder)).join(name))
        .find(|file| {
            std::fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        })
        .ok_or_else(|| format!("exec: {name:?}: executable file not found in $PATH"))
}

fn read_on_a_thread(mut from: impl Read + Send + 'static) -> Receiver<io::Result<Vec<u8>>> {
    let (send, chunks) = channel();
    std::thread::spawn(move || {
        let mut total = 0;
        while total <= MAX_ANSWER {
            let mut buf = vec![0; 64 << 10];
            let item = match from.read(&mut buf) {
                Ok(0) => return,
                Ok(n) => {
                    buf.truncate(n);
                    total += n;
                    Ok(buf)
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => Err(e),
            };
            let last = item.is_err();
            if send.send(item).is_err() || last {
                return;
            }
        }
    });
    chunks
}

/// Reads what a program says until it ends.
fn listen(
    child: &mut Child,
    chunks: Option<Receiver<io::Result<Vec<u8>>>>,
    mut end: Instant,
) -> Result<Said, String> {
    const TICK: Duration = Duration::from_millis(10);
    let mut output = Vec::new();
    let mut status = None;
    let mut open = chunks.is_some();
    loop {
        if status.is_none() {
            status = child.try_wait().map_err(|e| e.to_string())?;
            if status.is_some() {
                end = end.min(Instant::now() + MAX_REST);
            }
        }
        match (status, open) {
            (Some(status), false) => return Ok(Said { status, output }),
            (Some(status), true) if Instant::now() > end => return Ok(Said { status, output }),
            (None, _) if Instant::now() > end => return Err("takes too long".into()),
            _ => {}
        }
        match chunks.as_ref().filter(|_| open).map(|c| c.recv_timeout(TICK)) {
            Some(Ok(chunk)) => {
                output.extend(chunk.map_err(|e| crate::error::words(&e))?);
                if output.len() > MAX_ANSWER {
                    return Err(format!("answers more than {MAX_ANSWER} bytes"));
                }
            }
            Some(Err(RecvTimeoutError::Disconnected)) => open = false,
            Some(Err(RecvTimeoutError::Timeout)) => {}
            None => std::thread::sleep(TICK),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A helper whose program is this script; its name is its own, as `PATH` belongs to all tests.
    fn scripted(dir: &tempfile::TempDir, script: &str) -> Child {
        let file = dir.path().join("docker-credential-test");
        std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o700)).unwrap();
        Command::new("sh").arg(&file).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
    }

    fn said(script: &str, limit: Duration) -> Result<Said, String> {
        let dir = tempfile::tempdir().unwrap();
        let mut child = scripted(&dir, script);
        let chunks = child.stdout.take().map(read_on_a_thread);
        let said = listen(&mut child, chunks, Instant::now() + limit);
        let _ = child.kill();
        child.wait().unwrap();
        said
    }

    #[test]
    fn answers_are_read() {
        let c = answer("h", br#"{"ServerURL":"x","username":"u","Secret":"p"} rest"#).unwrap();
        assert_eq!((c.server.as_str(), c.username.as_str(), c.password.as_str()), ("h", "u", "p"));
        let c = answer("h", br#"{"Username":"<token>","Secret":"t"}"#).unwrap();
        assert_eq!((c.username.as_str(), c.identity_token.as_str()), ("", "t"));
        for bad in [&b""[..], b"secret", b"{\"Secret\":5}", b"[]", b"\xff"] {
            let e = answer("h", bad).unwrap_err();
            assert!(!e.contains("secret") && e.contains("answer"), "{e}");
        }
    }

    #[test]
    fn programs_are_limited() {
        let long = Duration::from_secs(60);
        let good = said("echo a; echo b >&2", long).unwrap();
        assert_eq!((good.failure(), good.output.as_slice()), (None, &b"a\n"[..]));
        let bad = said("echo why; exit 3", long).unwrap();
        assert_eq!((bad.failure().as_deref(), bad.text().as_str()), (Some("exit status 3"), "why"));
        let bad = said("echo no credentials username; exit 1", long).unwrap();
        assert_eq!(bad.failure().as_deref(), Some("no credentials username"));
        assert_eq!(said("kill -9 $$", long).unwrap().failure().as_deref(), Some("signal: 9"));
        assert!(said("exec cat /dev/zero", long).is_err_and(|e| e.contains("answers more")));
        assert!(said("exec sleep 1000", Duration::from_millis(50)).is_err_and(|e| e.contains("too long")));
        // One that leaves another behind with its output.
        let left = said("sleep 3 & echo done", long).unwrap();
        assert_eq!((left.failure(), left.text().as_str()), (None, "done"));
    }

    #[test]
    fn programs_are_found_in_absolute_folders_only() {
        assert!(find("sh").is_ok());
        assert_eq!(
            find("docker-credential-nosuch").unwrap_err(),
            "exec: \"docker-credential-nosuch\": executable file not found in $PATH"
        );
        assert!(Helper::new("../x").get("h").unwrap_err().contains("not the name of a program"));
    }
}
