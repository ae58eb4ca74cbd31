//! Scripts of requests, played against a daemon.
//!
//! A line is `METHOD /path?query body`. After the method stand `!` (without a version in the path), `*` (once for every
//! version) or `@type` (the body's Content-Type). `UPGRADE` is a POST that takes the connection over. `AWAIT name
//! status` waits for a container (`gone`: for its removal; `healthy`, `unhealthy`: for its health). The body `<build TEXT>` is a context of a Dockerfile alone. `{id}` is the last id answered, `{start}` and `{now}` are times, `{registry}` is a
//! registry beside the daemon.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::http::{Answer, Request, send};
use super::normal;
use crate::harness::{fixture, wait_until};
use crate::registry_server::{Door, Registry};

/// Every version in which something changed.
const VERSIONS: &[&str] = &["1.24", "1.40", "1.41", "1.44", "1.47", "1.51"];

/// A daemon that answers scripts.
pub(crate) struct Side {
    pub(crate) socket: PathBuf,
    root: String,
    registry: Option<Registry>,
}

impl Side {
    /// Takes a daemon, with nothing in it but the image `busybox`.
    pub(crate) fn new(socket: &Path) -> Self {
        let mut side = Self { socket: socket.to_owned(), root: String::new(), registry: None };
        side.root = side.json("GET", "/info")["DockerRootDir"].as_str().expect("root").to_owned();
        for c in list(&side.json("GET", "/containers/json?all=1")) {
            side.json("DELETE", &format!("/containers/{}?force=1&v=1", text(c, "Id")));
        }
        for v in list(&side.json("GET", "/volumes")["Volumes"]) {
            side.json("DELETE", &format!("/volumes/{}", text(v, "Name")));
        }
        for i in list(&side.json("GET", "/images/json?all=1")) {
            side.json("DELETE", &format!("/images/{}?force=1", text(i, "Id")));
        }
        let body = std::fs::read(fixture("busybox")).expect("fixture");
        let content_type = "application/x-tar".to_owned();
        let target = "/images/load?quiet=1".to_owned();
        let loaded = send(
            &side.socket,
            &Request { method: "POST".into(), target, content_type, body, upgrade: false },
        );
        assert_eq!(loaded.status, 200);
        side
    }

    /// The same with a registry on the daemon's loopback.
    pub(crate) fn with_registry(socket: &Path) -> Self {
        let stream = std::os::unix::net::UnixStream::connect(socket).expect("the daemon's socket");
        let daemon = rustix::net::sockopt::socket_peercred(&stream).expect("who listens").pid;
        let netns = format!("/proc/{}/ns/net", daemon.as_raw_nonzero());
        Self { registry: Some(Registry::start(Path::new(&netns), Door::Plain)), ..Self::new(socket) }
    }

    fn plain(&self, method: &str, target: &str) -> Answer {
        let request = Request {
            method: method.to_owned(),
            target: target.to_owned(),
            content_type: String::new(),
            body: Vec::new(),
            upgrade: false,
        };
        send(&self.socket, &request)
    }

    fn json(&self, method: &str, target: &str) -> Value {
        serde_json::from_slice(&self.plain(method, target).body).unwrap_or_default()
    }

    /// Plays a script; one element of the result for every request.
    pub(crate) fn play(&self, script: &str) -> Vec<Value> {
        let start = now();
        let mut last_id = String::new();
        let mut played = Vec::new();
        for line in script.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let mut words = line.splitn(3, ' ');
            let (verb, target, body) = (words.next().unwrap_or_default(), words.next(), words.next());
            let target = target.expect("a path");
            if verb == "AWAIT" {
                self.wait(target, body.expect("a status"));
                continue;
            }
            let registry = self.registry.as_ref().map_or("", |r| r.address());
            let fill = |text: &str| text.replace("{id}", &last_id).replace("{registry}", registry);
            let filled = fill(target).replace("{start}", &start).replace("{now}", &now());
            for request in requests(verb, &filled, &fill(body.unwrap_or_default())) {
                let mut answer = send(&self.socket, &request);
                if !registry.is_empty() {
                    let text = String::from_utf8_lossy(&answer.body).replace(registry, "<registry>");
                    answer.body = text.into_bytes();
                }
                if let Some(id) = id_in(&answer) {
                    last_id = id;
                }
                let version = request.target.split('/').nth(1).filter(|_| verb.ends_with('*'));
                let name = match version {
                    Some(v) => format!("{v} {line}"),
                    None => line.to_owned(),
                };
                played.push(json!({ "request": name, "answer": normal::answer(&answer, &self.root) }));
            }
        }
        played
    }

    fn wait(&self, name: &str, status: &str) {
        let path = format!("/containers/{name}/json");
        wait_until(&format!("{name} is {status}"), || {
            let state = &self.json("GET", &path)["State"];
            state["Status"].as_str().unwrap_or("gone") == status || state["Health"]["Status"] == status
        });
    }
}

fn list(v: &Value) -> &[Value] {
    v.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(v: &'a Value, key: &str) -> &'a str {
    v[key].as_str().expect("text")
}

fn now() -> String {
    let t = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("clock");
    format!("{}.{:09}", t.as_secs(), t.subsec_nanos())
}

fn id_in(answer: &Answer) -> Option<String> {
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    Some(body.get("Id")?.as_str()?.to_owned())
}

fn requests(verb: &str, path: &str, body: &str) -> Vec<Request> {
    let (verb, content_type) = verb.split_once('@').unwrap_or((verb, ""));
    let method = verb.trim_end_matches(['!', '*']);
    let path = encode(path);
    let targets: Vec<String> = match verb.as_bytes().last() {
        Some(b'!') => vec![path],
        Some(b'*') => VERSIONS.iter().map(|v| format!("/v{v}{path}")).collect(),
        _ => vec![format!("/v1.51{path}")],
    };
    let (bytes, default_type) = match body {
        "" => (Vec::new(), ""),
        "<tar>" => (small_tar(), "application/x-tar"),
        "<image>" => (std::fs::read(fixture("busybox")).expect("fixture"), "application/x-tar"),
        body if body.starts_with("<build ") => {
            let text = body.trim_start_matches("<build ").trim_end_matches('>').replace("\\n", "\n");
            (context(&text), "application/x-tar")
        }
        json => (json.as_bytes().to_vec(), "application/json"),
    };
    let content_type = match content_type {
        "" => default_type,
        "none" => "",
        given => given,
    };
    let upgrade = method == "UPGRADE";
    let method = if upgrade { "POST" } else { method };
    let made = targets.into_iter().map(|target| Request {
        method: method.to_owned(),
        target,
        content_type: content_type.to_owned(),
        body: bytes.clone(),
        upgrade,
    });
    made.collect()
}

/// What a URL does not carry as it is.
fn encode(path: &str) -> String {
    path.chars()
        .map(|c| match c {
            '"' | '{' | '}' | '[' | ']' | '\\' | '^' => format!("%{:02X}", c as u32),
            '~' => "%20".to_owned(),
            c => c.to_string(),
        })
        .collect()
}

/// A folder with a file and a link in it.
/// A context with nothing but this Dockerfile.
fn context(dockerfile: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(dockerfile.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "Dockerfile", dockerfile.as_bytes()).expect("tar");
    tar.into_inner().expect("tar")
}

fn small_tar() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o755);
    header.set_mtime(1_700_000_000);
    header.set_entry_type(tar::EntryType::Directory);
    tar.append_data(&mut header, "sub/", &[][..]).expect("tar");
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o640);
    header.set_size(5);
    tar.append_data(&mut header, "sub/file", &b"text\n"[..]).expect("tar");
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    tar.append_link(&mut header, "sub/link", "file").expect("tar");
    tar.into_inner().expect("tar")
}
