//! The engine's side.

use std::io::{self, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use longshore_oci::Digest;
use longshore_oci::image::Descriptor;

use super::{DATA, END, FAILED, HAS, HELLO, INDEX, MAX_INDEX, NO, PUT, READ, WRITE, YES};
use super::{broken, receive, send, send_all};

/// Bytes of a failure's text that are passed on.
const MAX_TEXT: usize = 1024;

/// A client's directory. One request at a time; others wait for their turn.
#[allow(missing_debug_implementations)]
pub struct Peer {
    connection: Mutex<Connection>,
    busy: Mutex<bool>,
    free: Condvar,
}

struct Connection {
    input: Box<dyn Read + Send>,
    output: Box<dyn Write + Send>,
    /// An exchange was left in its middle: nothing more can be asked.
    lost: bool,
}

/// The right to ask; dropped, it is another's turn.
struct Turn {
    peer: Arc<Peer>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        *self.peer.busy.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.peer.free.notify_one();
    }
}

impl Peer {
    /// A directory behind a connection, which is told the name that it goes by.
    ///
    /// # Errors
    /// When the client has gone.
    pub fn new(
        id: &str,
        input: Box<dyn Read + Send>,
        mut output: Box<dyn Write + Send>,
    ) -> io::Result<Arc<Self>> {
        send(&mut *output, HELLO, id.as_bytes())?;
        output.flush()?;
        let connection = Mutex::new(Connection { input, output, lost: false });
        Ok(Arc::new(Self { connection, busy: Mutex::new(false), free: Condvar::new() }))
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(self: &Arc<Self>) -> Turn {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        while *busy {
            busy = self.free.wait(busy).unwrap_or_else(PoisonError::into_inner);
        }
        *busy = true;
        Turn { peer: self.clone() }
    }

    /// `index.json`; `None` where there is none.
    ///
    /// # Errors
    /// When the client cannot read it, has gone, or sends more than [`MAX_INDEX`].
    pub fn index(self: &Arc<Self>) -> io::Result<Option<Vec<u8>>> {
        let Some(reader) = self.read(INDEX, b"")? else { return Ok(None) };
        let mut index = Vec::new();
        reader.take(MAX_INDEX + 1).read_to_end(&mut index)?;
        if index.len() as u64 > MAX_INDEX {
            return Err(broken("its index.json is too large"));
        }
        Ok(Some(index))
    }

    /// A blob as it comes, of which nothing is checked; `None` where there is none.
    ///
    /// # Errors
    /// When the client cannot read it or has gone.
    pub fn blob(self: &Arc<Self>, digest: &Digest) -> io::Result<Option<BlobReader>> {
        self.read(READ, digest.to_string().as_bytes())
    }

    /// A small blob as a whole, its size and digest checked.
    ///
    /// # Errors
    /// When it is not there, has more than `limit` bytes, or is another.
    pub fn read_blob(self: &Arc<Self>, descriptor: &Descriptor, limit: u64) -> io::Result<Vec<u8>> {
        let (digest, size) = (descriptor.digest, descriptor.size);
        if size > limit {
            return Err(broken(&format!("blob {digest} has {size} bytes, at most {limit} are read")));
        }
        let none = || io::Error::new(io::ErrorKind::NotFound, format!("blob {digest} is not there"));
        let mut bytes = Vec::new();
        self.blob(&digest)?.ok_or_else(none)?.take(size + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != size || Digest::of(&bytes) != digest {
            return Err(broken(&format!("blob {digest} is damaged")));
        }
        Ok(bytes)
    }

    fn read(self: &Arc<Self>, kind: u8, payload: &[u8]) -> io::Result<Option<BlobReader>> {
        let turn = self.turn();
        let (kind, payload) = self.exchange(|out| send(out, kind, payload))?;
        match kind {
            NO => Ok(None),
            DATA => Ok(Some(BlobReader { turn, piece: io::Cursor::new(payload), ended: false })),
            END => Ok(Some(BlobReader { turn, piece: io::Cursor::default(), ended: true })),
            kind => Err(unexpected(kind, &payload)),
        }
    }

    /// Whether a blob is there.
    ///
    /// # Errors
    /// When the client cannot tell or has gone.
    pub fn has(self: &Arc<Self>, digest: &Digest) -> io::Result<bool> {
        let _turn = self.turn();
        match self.exchange(|out| send(out, HAS, digest.to_string().as_bytes()))? {
            (YES, _) => Ok(true),
            (NO, _) => Ok(false),
            (kind, payload) => Err(unexpected(kind, &payload)),
        }
    }

    /// Gives it a blob, which it checks.
    ///
    /// # Errors
    /// When the client cannot write it or has gone, or `from` fails.
    pub fn write(self: &Arc<Self>, digest: &Digest, from: &mut dyn Read) -> io::Result<()> {
        self.put(WRITE, digest.to_string().as_bytes(), from)
    }

    /// Gives it another `index.json`.
    ///
    /// # Errors
    /// When the client cannot write it or has gone.
    pub fn put_index(self: &Arc<Self>, mut index: &[u8]) -> io::Result<()> {
        self.put(PUT, b"", &mut index)
    }

    fn put(self: &Arc<Self>, kind: u8, payload: &[u8], from: &mut dyn Read) -> io::Result<()> {
        let _turn = self.turn();
        let answer = self.exchange(|out| {
            send(out, kind, payload)?;
            send_all(out, from)
        })?;
        match answer {
            (YES, _) => Ok(()),
            (kind, payload) => Err(unexpected(kind, &payload)),
        }
    }

    /// Sends a request and takes the first frame of its answer.
    fn exchange(&self, ask: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<(u8, Vec<u8>)> {
        let mut connection = self.connection();
        if connection.lost {
            return Err(broken("the client's directory cannot be used any more"));
        }
        // Until the answer has come.
        connection.lost = true;
        ask(&mut *connection.output)?;
        connection.output.flush()?;
        let (kind, payload) = receive(&mut *connection.input)?;
        connection.lost = false;
        Ok((kind, payload))
    }
}

fn unexpected(kind: u8, payload: &[u8]) -> io::Error {
    match kind {
        FAILED => {
            let text = String::from_utf8_lossy(payload.get(..MAX_TEXT).unwrap_or(payload)).into_owned();
            io::Error::other(text.chars().filter(|c| !c.is_control()).collect::<String>())
        }
        _ => broken("the client answers something else than it was asked"),
    }
}

/// A blob on its way.
#[allow(missing_debug_implementations)]
pub struct BlobReader {
    turn: Turn,
    piece: io::Cursor<Vec<u8>>,
    ended: bool,
}

impl Read for BlobReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.piece.read(buf)?;
            if n > 0 || self.ended || buf.is_empty() {
                return Ok(n);
            }
            let (kind, payload) = receive(&mut *self.turn.peer.connection().input)?;
            match kind {
                DATA => self.piece = io::Cursor::new(payload),
                END => self.ended = true,
                kind => {
                    self.ended = true;
                    return Err(unexpected(kind, &payload));
                }
            }
        }
    }
}

impl Drop for BlobReader {
    fn drop(&mut self) {
        // A blob that nobody read to its end is still coming. One whose reader stopped at its last byte has only its end
        // left, which may not be here yet.
        if !self.ended && !matches!(receive(&mut *self.turn.peer.connection().input), Ok((END, _))) {
            self.turn.peer.connection().lost = true;
        }
    }
}
