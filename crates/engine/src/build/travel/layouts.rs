//! Directories of clients that builds may use, for as long as the client offers them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures_util::{StreamExt as _, stream};
use longshore_build::layout::Peer;

use crate::stream::{BodyStream, ByteStream};
use crate::{Engine, Error, Result, names, pipe};

/// Directories that may be offered at the same time.
const MAX: usize = 1000;

/// The directories, by the names that they go by.
#[derive(Default)]
pub(crate) struct Layouts {
    peers: Mutex<BTreeMap<String, Arc<Peer>>>,
}

/// While it lives a directory can be found.
struct Offered {
    layouts: Weak<Layouts>,
    id: String,
}

impl Drop for Offered {
    fn drop(&mut self) {
        if let Some(layouts) = self.layouts.upgrade() {
            layouts.peers().remove(&self.id);
        }
    }
}

impl Layouts {
    fn peers(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Peer>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory of this name, which nobody guesses.
    pub(in crate::build) fn find(&self, id: &str) -> Option<Arc<Peer>> {
        self.peers().get(id).cloned()
    }
}

impl Engine {
    /// Makes a directory of a client's usable for builds, as [`longshore_build::layout`] says: gives what the client is asked,
    /// `answers` are its answers. It ends with the connection.
    ///
    /// # Errors
    /// `TooLarge` for too many of them.
    pub async fn open_layout(&self, answers: BodyStream) -> Result<ByteStream> {
        let id = names::new_id()?;
        let (writer, questions) = pipe::writer();
        let reader = pipe::into_reader(answers);
        let layouts = &self.inner.layouts;
        let (name, kept) = (id.clone(), layouts.clone());
        self.blocking(move |_| {
            let peer = Peer::new(&name, Box::new(reader), Box::new(writer));
            let peer = peer.map_err(|e| Error::io("greet a client that offers a directory", e))?;
            let mut peers = kept.peers();
            if peers.len() >= MAX {
                return Err(Error::new(longshore_oci::Kind::TooLarge, "too many clients offer directories"));
            }
            peers.insert(name, peer);
            Ok(())
        })
        .await?;
        let offered = Offered { layouts: Arc::downgrade(layouts), id };
        let questions = stream::unfold((questions, offered), |(mut questions, offered)| async move {
            questions.next().await.map(|item| (item, (questions, offered)))
        });
        Ok(Box::pin(questions))
    }
}
