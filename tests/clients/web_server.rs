//! A web server in a test's network namespace, with files that change and answers that no honest server gives.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::small_server::Server;

/// What is at a path.
#[derive(Clone, Default)]
pub(crate) struct Page {
    /// `200 OK` if empty.
    pub(crate) status: String,
    pub(crate) body: Vec<u8>,
    /// Lines of the head, without their ends.
    pub(crate) head: Vec<String>,
    /// Bytes after which the connection breaks.
    pub(crate) breaks_after: Option<usize>,
    /// Nothing comes after the head until the client has gone.
    pub(crate) stands_still: bool,
}

impl Page {
    pub(crate) fn new(body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..Self::default() }
    }

    pub(crate) fn head(mut self, line: impl Into<String>) -> Self {
        self.head.push(line.into());
        self
    }

    pub(crate) fn status(status: &str) -> Self {
        Self { status: status.into(), ..Self::default() }
    }
}

#[derive(Default)]
struct State {
    pages: HashMap<String, Page>,
    log: Vec<String>,
    /// Paths that begin so are files of a directory, for those who say who they are.
    dirs: Vec<(String, PathBuf, Option<String>)>,
}

/// The server.
pub(crate) struct Web {
    server: Server,
    state: Arc<Mutex<State>>,
}

impl Web {
    pub(crate) fn start(netns: &Path) -> Self {
        let state = Arc::<Mutex<State>>::default();
        let own = state.clone();
        let server = Server::start(netns, move |stream| answer(stream, &own));
        Self { server, state }
    }

    pub(crate) fn put(&self, path: &str, page: Page) {
        self.state.lock().expect("state").pages.insert(path.into(), page);
    }

    /// Serves a directory below a path, for those with this `Authorization` if there is one.
    pub(crate) fn serve(&self, below: &str, dir: &Path, who: Option<&str>) {
        let entry = (below.to_owned(), dir.to_owned(), who.map(str::to_owned));
        self.state.lock().expect("state").dirs.push(entry);
    }

    /// The address of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address)
    }

    pub(crate) fn address(&self) -> &str {
        &self.server.address
    }

    /// What was asked for since the last call: `GET /a -> 200`.
    pub(crate) fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().expect("state").log)
    }

    pub(crate) fn stop(&self, netns: &Path) {
        self.server.stop(netns);
    }
}

impl State {
    /// A file of a directory.
    fn file(&self, path: &str, who: Option<&str>) -> Option<Page> {
        let path = path.split('?').next()?;
        let (below, dir, wanted) = self.dirs.iter().find(|(below, ..)| path.starts_with(below.as_str()))?;
        if wanted.is_some() && wanted.as_deref() != who {
            return Some(Page::status("401 Unauthorized").head("WWW-Authenticate: Basic realm=\"x\""));
        }
        std::fs::read(dir.join(&path[below.len()..])).ok().map(Page::new)
    }
}

fn answer(mut stream: TcpStream, state: &Mutex<State>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 16384 && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        head.push(byte[0]);
        if head[0] == 0x16 {
            // There is no TLS here.
            return;
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let header = |name: &str| {
        let line = head.lines().find(|l| l.to_ascii_lowercase().starts_with(&format!("{name}:")));
        line.and_then(|l| l.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let page = {
        let state = state.lock().expect("state");
        let file = || state.file(&path, header("authorization").as_deref());
        state.pages.get(&path).cloned().or_else(file)
    };
    let mut page = page.unwrap_or_else(|| Page::status("404 Not Found"));
    if page.status.is_empty() {
        page.status = "200 OK".into();
    }
    let same = |own: &str, asked: &str| {
        let own = page.head.iter().find_map(|l| l.strip_prefix(own));
        own.is_some_and(|own| header(asked).as_deref() == Some(own))
    };
    if same("ETag: ", "if-none-match") || same("Last-Modified: ", "if-modified-since") {
        page.status = "304 Not Modified".into();
        page.body.clear();
    }
    let who = header("authorization").map(|a| format!(" as {a}")).unwrap_or_default();
    let status = page.status.get(..3).unwrap_or_default();
    let line = format!("{} {path}{who} -> {status}", head.split(' ').next().unwrap_or_default());
    state.lock().expect("state").log.push(line);
    let mut out = format!("HTTP/1.1 {}\r\nConnection: close\r\n", page.status);
    if !page.head.iter().any(|l| l.starts_with("Content-Length")) {
        out += &format!("Content-Length: {}\r\n", page.body.len());
    }
    for line in &page.head {
        out += line;
        out += "\r\n";
    }
    out += "\r\n";
    if stream.write_all(out.as_bytes()).is_err() {
        return;
    }
    if page.stands_still {
        let _ = stream.set_read_timeout(Some(Duration::from_secs(120)));
        let _ = stream.read(&mut byte);
        return;
    }
    let end = page.breaks_after.unwrap_or(page.body.len());
    let _ = stream.write_all(&page.body[..end]);
}
