//! Sharing a context: the daemon asks for what it needs of it, and a thread answers.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use longshore_api::build::BuildLine;
use longshore_build::context::sync::{self, Ask};
use longshore_build::context::{Context, Error};
use longshore_build::ignore::Ignore;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::Incoming;
use super::output::Outputs;
use super::send::{Chunks, Sent};
use super::view::View;
use crate::client::Hijacked;
use crate::error::{Failure, Result, words};

/// A directory that is shared.
pub(super) struct Directory {
    dir: PathBuf,
    ignore: Ignore,
    /// What the daemon knows it by.
    key: String,
}

impl Directory {
    /// The directory `dir`, without what `ignore` excludes.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(super) fn open(dir: &Path, ignore: Ignore) -> Result<Self> {
        let meta = std::fs::metadata(dir).map_err(|e| {
            Failure::new(format!("unable to prepare context: {}: {}", dir.display(), words(&e)))
        })?;
        // Another machine, or another directory of that name, has other files.
        let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
        let host = rustix::system::uname();
        let key = [
            machine.trim(),
            &host.nodename().to_string_lossy(),
            &format!("{}:{}", meta.dev(), meta.ino()),
            &dir.to_string_lossy(),
        ]
        .join("\n");
        Ok(Self { dir: dir.to_owned(), ignore, key })
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    pub(super) fn walk(&self, sources: &[Vec<u8>]) -> Result<Context, Error> {
        Context::open_for(&self.dir, &self.ignore, sources)
    }
}

/// Answers the daemon's questions about directories, and reads what else it says to its end.
pub(super) async fn share(
    hijacked: Hijacked,
    sent: Sent,
    directories: Vec<Option<Directory>>,
    view: &mut View,
    outputs: &mut Outputs,
) -> Result<()> {
    let (mut from, mut to) = tokio::io::split(hijacked.stream);
    let (out, mut chunks) = Chunks::new(sent.clone());
    let mut sharing = Sharing { ask: answer(directories, out), sent, asking: false };
    // Dropped, it would close the connection for good.
    let sending = tokio::spawn(async move {
        while let Some(Ok(chunk)) = chunks.recv().await {
            if to.write_all(&chunk).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    });
    let (mut incoming, mut buffer) = (Incoming::default(), vec![0; 256 << 10]);
    let read = loop {
        let sent = sharing.asking.then(|| sharing.sent.clone());
        let lines = match view.watch(from.read(&mut buffer), sent.as_ref()).await? {
            Ok(0) => break incoming.end(),
            Ok(n) => incoming.push(&buffer[..n])?,
            Err(e) => break Err(Failure::new(format!("read the daemon's answer: {}", words(&e)))),
        };
        for line in lines {
            outputs.take(&line).await?;
            sharing.take(line, view)?;
        }
    };
    sending.abort();
    for line in read? {
        sharing.take(line, view)?;
    }
    Ok(())
}

/// Directories while they are shared.
struct Sharing {
    ask: std::sync::mpsc::Sender<Question>,
    sent: Sent,
    /// The daemon waits for answers.
    asking: bool,
}

impl Sharing {
    fn take(&mut self, line: BuildLine, view: &mut View) -> Result<()> {
        if let Some(question) = question(&line) {
            self.asking = true;
            // A thread that has ended told the daemon why.
            let _ = self.ask.send(question);
            return view.sending(&self.sent, false);
        }
        if std::mem::take(&mut self.asking) {
            view.sending(&self.sent, true)?;
        }
        view.take(line)
    }
}

/// What the daemon asks of which directory.
type Question = (usize, Ask);

/// The question in a line of the daemon's answer.
fn question(line: &BuildLine) -> Option<Question> {
    match line {
        BuildLine::Tree { context, sources } => {
            // What cannot be read names nothing: the step that has it says so.
            let sources = sources.iter().filter_map(|source| STANDARD.decode(source).ok());
            Some((*context, Ask::Tree(sources.collect())))
        }
        BuildLine::Files { context, places } => {
            Some((*context, Ask::Files(places.iter().map(|(first, end)| *first..*end).collect())))
        }
        _ => None,
    }
}

/// Answers questions until nobody asks or nobody takes the answers; on a thread of its own.
fn answer(directories: Vec<Option<Directory>>, mut out: Chunks) -> mpsc::Sender<Question> {
    let (ask, questions) = mpsc::channel();
    std::thread::spawn(move || {
        let mut walked: Vec<Option<Context>> = Vec::new();
        walked.resize_with(directories.len(), || None);
        for question in questions {
            let done = reply(&directories, &mut walked, question, &mut out);
            let sent = match done {
                Err(Error::Send(_)) => return,
                Err(e) => sync::send_failure(&format!("failed to send the context: {e}"), &mut out),
                Ok(()) => Ok(()),
            };
            if sent.is_err() || out.flush().is_err() {
                return;
            }
        }
    });
    ask
}

fn reply(
    directories: &[Option<Directory>],
    walked: &mut [Option<Context>],
    (n, ask): Question,
    out: &mut Chunks,
) -> Result<(), Error> {
    let none = || Error::Peer("the daemon asks for a directory that is not shared".into());
    let directory = directories.get(n).and_then(Option::as_ref).ok_or_else(none)?;
    let slot = walked.get_mut(n).ok_or_else(none)?;
    match ask {
        Ask::Tree(sources) => sync::send_tree(slot.insert(directory.walk(&sources)?), out),
        Ask::Files(places) => sync::send_files(slot.as_ref().ok_or_else(none)?, &places, out),
    }
}
