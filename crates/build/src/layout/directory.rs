//! The client's side.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use longshore_oci::{Digest, Sha256};

use super::sweep::unneeded;
use super::{DATA, END, FAILED, HAS, HELLO, INDEX, MAX_INDEX, NO, PUT, READ, WRITE, YES};
use super::{broken, receive, send, send_all};

/// What a layout says of itself.
const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// A directory that is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    #[allow(missing_docs)]
    pub dir: PathBuf,
    /// Blobs and an index may be put into it; it is made if it is not there.
    pub writable: bool,
}

/// Answers an engine until it closes the connection. `hello` is told the name that the directory goes by.
///
/// # Errors
/// When the connection fails, or the engine asks something that is not understood.
pub fn serve(
    place: &Place,
    input: &mut dyn Read,
    output: &mut dyn Write,
    mut hello: impl FnMut(String),
) -> io::Result<()> {
    loop {
        let (kind, payload) = match receive(input) {
            Ok(frame) => frame,
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(e) => return Err(e),
        };
        let text = std::str::from_utf8(&payload).map_err(|_| broken("a name that is none"))?;
        if kind == HELLO {
            hello(text.to_owned());
            continue;
        }
        let answered = match kind {
            INDEX => give(&place.dir.join("index.json"), output),
            READ => give(&place.blob(text)?, output),
            HAS => {
                let there = place.blob(text)?.is_file();
                send(output, if there { YES } else { NO }, b"").map_err(Failure::Connection)
            }
            WRITE => {
                let digest = text.parse().map_err(|_| broken("a digest that is none"))?;
                place.take(Some(digest), input).and_then(|()| yes(output))
            }
            PUT => place.take(None, input).and_then(|()| yes(output)),
            _ => return Err(broken("a request of a newer engine")),
        };
        match answered {
            Ok(()) => {}
            Err(Failure::Connection(e)) => return Err(e),
            Err(Failure::Here(text)) => send(output, FAILED, text.as_bytes())?,
        }
        output.flush()?;
    }
}

/// Why a request was not answered.
enum Failure {
    Connection(io::Error),
    /// The directory; in words for people.
    Here(String),
}

fn yes(output: &mut dyn Write) -> Result<(), Failure> {
    send(output, YES, b"").map_err(Failure::Connection)
}

fn here(action: &str, path: &Path, e: &io::Error) -> Failure {
    Failure::Here(format!("{action} {}: {e}", path.display()))
}

fn give(path: &Path, output: &mut dyn Write) -> Result<(), Failure> {
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?.is_file(), file)));
    let file = match opened {
        Ok((true, file)) => file,
        Ok((false, _)) => return Err(Failure::Here(format!("{} is no file", path.display()))),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return send(output, NO, b"").map_err(Failure::Connection);
        }
        Err(e) => return Err(here("open", path, &e)),
    };
    send_all(output, &mut io::BufReader::with_capacity(super::PIECE, file)).map_err(Failure::Connection)
}

impl Place {
    fn blob(&self, digest: &str) -> io::Result<PathBuf> {
        let digest: Digest = digest.parse().map_err(|_| broken("a digest that is none"))?;
        Ok(self.dir.join("blobs/sha256").join(digest.hex()))
    }

    /// Takes bytes and puts them where they belong, in one step: a blob if its digest is given, else the index.
    fn take(&self, blob: Option<Digest>, input: &mut dyn Read) -> Result<(), Failure> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let path = match &blob {
            Some(digest) => self.dir.join("blobs/sha256").join(digest.hex()),
            None => self.dir.join("index.json"),
        };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let aside = path.with_file_name(format!(".new-{}-{number}", std::process::id()));
        let mut made = self.begin(blob.is_none(), &aside);
        let before = if blob.is_none() { fs::read(&path).unwrap_or_default() } else { Vec::new() };
        // All has to be read, also where nothing can be done with it.
        let (mut hash, mut size) = (Sha256::new(), 0u64);
        loop {
            let (kind, piece) = receive(input).map_err(Failure::Connection)?;
            match kind {
                DATA => {
                    hash.update(&piece);
                    size = size.saturating_add(piece.len() as u64);
                    if blob.is_none() && size > MAX_INDEX {
                        return Err(Failure::Connection(broken("an index that is too large")));
                    }
                    if let Ok(file) = &mut made
                        && let Err(e) = file.write_all(&piece)
                    {
                        made = Err(here("write", &aside, &e));
                    }
                }
                END => break,
                _ => return Err(Failure::Connection(broken("something else than the bytes of a blob"))),
            }
        }
        let digest = hash.finish();
        let placed = made.and_then(|file| {
            drop(file);
            match blob {
                Some(wanted) if wanted != digest => {
                    Err(Failure::Here(format!("blob {wanted} came as {digest}")))
                }
                _ => fs::rename(&aside, &path).map_err(|e| here("write", &path, &e)),
            }
        });
        if placed.is_err() {
            let _ = fs::remove_file(&aside);
        } else if blob.is_none() {
            let after = fs::read(&path).unwrap_or_default();
            // What cannot be removed does no harm.
            unneeded(&self.dir, &before, &after).iter().for_each(|blob| drop(fs::remove_file(blob)));
        }
        placed
    }

    fn begin(&self, index: bool, aside: &Path) -> Result<File, Failure> {
        if !self.writable {
            return Err(Failure::Here(format!("{} is only read", self.dir.display())));
        }
        let blobs = self.dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(|e| here("make", &blobs, &e))?;
        if index {
            let layout = self.dir.join("oci-layout");
            fs::write(&layout, LAYOUT).map_err(|e| here("write", &layout, &e))?;
        }
        File::create(aside).map_err(|e| here("write", aside, &e))
    }
}
