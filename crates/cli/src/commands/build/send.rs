//! Sending a context: on a thread of its own, a few chunks ahead of the daemon.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use longshore_api::build::{BuildHead, WITH_HEAD};
use longshore_build::context::{Error, pack, pack_files};
use tokio::sync::mpsc;

use super::secrets::before_context;
use super::share::Directory;
use super::source::{Files, Shared};
use crate::error::{Failure, words};

const CHUNK: usize = 256 << 10;

/// How many bytes were sent so far.
pub(super) type Sent = Arc<AtomicU64>;

/// Sends files once.
pub(super) struct Sender {
    files: Option<Files>,
    head: BuildHead,
    /// The same as it goes before them.
    before: Vec<u8>,
    sent: Sent,
    /// The daemon fetches the files.
    elsewhere: bool,
    failure: Arc<Mutex<Option<String>>>,
}

impl Sender {
    pub(super) fn new(files: Files, head: BuildHead) -> Result<Self, Failure> {
        let before = before_context(&head)?;
        let elsewhere = matches!(files, Files::Elsewhere(_));
        let (sent, failure) = (Sent::default(), Arc::default());
        Ok(Self { files: Some(files), head, before, sent, elsewhere, failure })
    }

    pub(super) fn sent(&self) -> Sent {
        self.sent.clone()
    }

    /// The same; `None` where the daemon fetches the files.
    pub(super) fn counted(&self) -> Option<Sent> {
        (!self.elsewhere).then(|| self.sent())
    }

    /// Why it could not be sent.
    pub(super) fn failure(&self) -> Option<Failure> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.clone().map(|e| Failure::new(format!("failed to send the context: {e}")))
    }

    /// What is sent.
    pub(super) fn kind(&self) -> &'static str {
        if self.before.is_empty() { "application/x-tar" } else { WITH_HEAD }
    }

    /// The request of a build whose directories are shared instead of being sent, and these.
    pub(super) fn shared(&mut self) -> Option<(BuildHead, Vec<Option<Directory>>)> {
        match self.files.take() {
            Some(Files::Shared(Shared {
                dockerfile,
                directories,
                named_directories,
                named_images,
                named_remotes,
                ..
            })) => {
                let keys = directories.iter().map(|d| d.as_ref().map_or("", Directory::key).to_owned());
                let head = BuildHead {
                    dockerfile: dockerfile.map(|text| STANDARD.encode(text)),
                    contexts: keys.collect(),
                    named_directories,
                    named_images,
                    named_remotes,
                    ..std::mem::take(&mut self.head)
                };
                Some((head, directories))
            }
            other => {
                self.files = other;
                None
            }
        }
    }

    /// Begins to send.
    pub(super) fn start(&mut self) -> mpsc::Receiver<io::Result<Bytes>> {
        let (mut out, chunks) = Chunks::new(self.sent.clone());
        let Some(files) = self.files.take() else { return chunks };
        let failure = self.failure.clone();
        out.buffer = std::mem::take(&mut self.before);
        std::thread::spawn(move || {
            let done = write(files, &mut out).and_then(|()| out.flush().map_err(Error::Send));
            match done {
                // When the daemon has gone nobody takes it.
                Ok(()) | Err(Error::Send(_)) => {}
                Err(e) => {
                    *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(e.to_string());
                    let _ = out.send.blocking_send(Err(io::Error::other("the context cannot be read")));
                }
            }
        });
        chunks
    }
}

fn write(files: Files, out: &mut Chunks) -> Result<(), Error> {
    match files {
        Files::Dir(context, extra) => pack(&context, &extra, out),
        Files::Only(files) => pack_files(&files, out),
        // These the daemon asks for.
        Files::Shared(_) => Ok(()),
        Files::Tar(from) => copy(from, out),
        Files::Elsewhere(_) => Ok(()),
    }
}

fn copy(mut from: Box<dyn Read + Send>, out: &mut Chunks) -> Result<(), Error> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => out.write_all(&buffer[..n]).map_err(Error::Send)?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => {
                let action = "read the context from stdin".to_owned();
                return Err(Error::Io { action, source: io::Error::other(words(&e)) });
            }
        }
    }
}

/// Bytes on their way, in pieces that are worth one.
pub(super) struct Chunks {
    send: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
    sent: Sent,
}

impl Chunks {
    /// Those that are counted by `sent`, and where they come out.
    pub(super) fn new(sent: Sent) -> (Self, mpsc::Receiver<io::Result<Bytes>>) {
        let (send, chunks) = mpsc::channel(4);
        (Self { send, buffer: Vec::new(), sent }, chunks)
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let size = self.buffer.len() as u64;
        let chunk = Bytes::from(std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK)));
        self.send.blocking_send(Ok(chunk)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        self.sent.fetch_add(size, Ordering::Relaxed);
        Ok(())
    }
}
