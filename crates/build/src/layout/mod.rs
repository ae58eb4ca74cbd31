//! A directory in OCI's layout that lies with a client, used over a connection: the engine asks, the client answers. The
//! engine names blobs by their digests and nothing else, and learns no path; the client gives nothing but what a layout
//! has.
//!
//! Both sides send frames: a kind, the length in four bytes, the highest first, and so many bytes. The engine begins with
//! [`HELLO`] and then sends one request after the other; bytes of any length go as [`DATA`] frames with an [`END`].
//!
//! | request | with | answer |
//! | --- | --- | --- |
//! | [`INDEX`] | | bytes of `index.json`, or [`NO`] |
//! | [`READ`] | a digest | bytes of the blob, or [`NO`] |
//! | [`HAS`] | a digest | [`YES`] or [`NO`] |
//! | [`WRITE`] | a digest, then bytes | [`YES`] |
//! | [`PUT`] | then bytes of `index.json` | [`YES`] |
//!
//! Any of them may be answered by [`FAILED`] with a text.

mod directory;
mod peer;
mod sweep;
#[cfg(test)]
mod tests;

use std::io::{self, Read, Write};

pub use directory::{Place, serve};
pub use peer::{BlobReader, Peer};

const HELLO: u8 = b'H';
const INDEX: u8 = b'i';
const READ: u8 = b'r';
const HAS: u8 = b'h';
const WRITE: u8 = b'w';
const PUT: u8 = b'p';
const DATA: u8 = b'D';
const END: u8 = b'E';
const YES: u8 = b'Y';
const NO: u8 = b'N';
const FAILED: u8 = b'X';

/// Bytes that a frame may have.
const MAX_FRAME: usize = 1 << 20;
/// Bytes that an index may have.
pub const MAX_INDEX: u64 = 4 << 20;
/// Bytes of one frame of data.
const PIECE: usize = 256 << 10;

fn send(out: &mut dyn Write, kind: u8, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).map_err(|_| broken("a frame is too long"))?;
    let mut frame = Vec::with_capacity(payload.len() + 5);
    frame.push(kind);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(payload);
    out.write_all(&frame)
}

/// Sends all that `from` has, and an end.
fn send_all(out: &mut dyn Write, from: &mut dyn Read) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        let n = match from.read(&mut buffer) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        if n == 0 {
            return send(out, END, b"");
        }
        send(out, DATA, buffer.get(..n).unwrap_or_default())?;
    }
}

fn receive(from: &mut dyn Read) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    from.read_exact(&mut head)?;
    let [kind, length @ ..] = head;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_FRAME {
        return Err(broken("a frame is too long"));
    }
    let mut payload = vec![0; length];
    from.read_exact(&mut payload)?;
    Ok((kind, payload))
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}
