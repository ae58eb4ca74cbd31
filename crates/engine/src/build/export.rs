//! What becomes of a build besides an image: its files, or an archive of what would be the image, on their way to a client.

use std::io::{self, Write};

use longshore_build::{Cancel, Error as BuildError};
use longshore_store::NamedIndex;
use longshore_store::archive::{self, Unrecorded};

use super::platforms::platforms;
use crate::model::{BuildEvent, BuildExport, BuildRequest};
use crate::{Engine, names};

/// Bytes that are handed over at a time; a multiple of three, which base64 takes.
const PIECE: usize = 192 << 10;

impl Engine {
    /// Sends the exports that a build was asked for, of images whose layers a lease holds.
    pub(super) fn export_build(
        &self,
        request: &BuildRequest,
        images: &[Unrecorded],
        index: &NamedIndex,
        cancel: &Cancel,
        send: &(dyn Fn(BuildEvent) + Send + Sync),
    ) -> Result<(), BuildError> {
        for what in &request.exports {
            let mut out = Pieces { what: *what, buffer: Vec::new(), cancel, send };
            let id = match what {
                BuildExport::Tree => self.export_trees(request, images, &mut out).map(|()| None),
                BuildExport::Archive => {
                    archive::save_unrecorded(&self.inner.store, images, index, &request.tags, &mut out)
                        .map(|()| Some(index.of))
                        .map_err(BuildError::from)
                }
            };
            let id = if cancel.is_off() { return Err(BuildError::Cancelled) } else { id? };
            out.flush().map_err(|e| BuildError::io("export what was built", e))?;
            send(BuildEvent::Exported { what: *what, id });
        }
        Ok(())
    }

    /// Writes the files of images as a tar; of several each in a directory of its platform's name.
    fn export_trees(
        &self,
        request: &BuildRequest,
        images: &[Unrecorded],
        out: &mut Pieces<'_>,
    ) -> Result<(), BuildError> {
        let store = &self.inner.store;
        let mut trees: Vec<(String, String)> = Vec::new();
        let done = (|| {
            for (image, platform) in images.iter().zip(platforms(request)) {
                let id = names::new_id().map_err(|e| BuildError::Internal(e.to_string()))?;
                store.create_bare_rw(&id, image.top.as_ref())?;
                trees.push((platform.to_string().replace('/', "_"), id));
            }
            let written = match trees.as_slice() {
                [(_, only)] => store.export(only, out),
                several => store.export_several(several, out),
            };
            Ok(written?)
        })();
        let removed = trees.iter().map(|(_, id)| store.remove_rw(id)).collect::<Result<Vec<_>, _>>();
        done.and_then(|()| Ok(removed.map(drop)?))
    }
}

/// Hands bytes over as events.
struct Pieces<'a> {
    what: BuildExport,
    buffer: Vec<u8>,
    cancel: &'a Cancel,
    send: &'a (dyn Fn(BuildEvent) + Send + Sync),
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.cancel.is_off() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let room = PIECE - self.buffer.len();
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.buffer.extend_from_slice(taken);
        if self.buffer.len() == PIECE {
            self.flush()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            let bytes = std::mem::take(&mut self.buffer);
            (self.send)(BuildEvent::Export { what: self.what, bytes });
        }
        Ok(())
    }
}
