//! Several layers as one.

use std::io::{BufReader, BufWriter, Write as _};
use std::path::Path;

use longshore_oci::{Digest, IdMap};

use super::import::chain_of;
use super::staged::rebuild;
use crate::content::random_id;
use crate::layer::{ApplyOptions, WhiteoutFormat, apply};
use crate::lease::Lease;
use crate::open::Store;
use crate::steps::StepRecord;
use crate::{Error, IoContext as _, Result};

/// Bytes on their way from a layer to the tree that it is put over.
const BUFFER: usize = 256 << 10;

impl Store {
    /// Makes one layer on `base` of what the layers of `top` above it come to, and records it as what the step `key` gave,
    /// held by `lease`, which has to hold both. What is not there in the end is in it nowhere.
    ///
    /// # Errors
    /// `Invalid` when `top` does not stand on `base`; when a layer is damaged or the system refuses.
    pub fn squash_step(
        &self,
        key: &Digest,
        (base, top): (Option<Digest>, Option<Digest>),
        what: &str,
        lease: &Lease,
    ) -> Result<StepRecord> {
        let (below, all) = (chain_of(self, base)?, chain_of(self, top)?);
        let above = all.strip_prefix(below.as_slice());
        let above =
            above.ok_or_else(|| Error::Invalid("what is squashed does not stand on its base".into()))?;
        let id = random_id()?;
        self.create_bare_rw(&id, base.as_ref())?;
        let kept = (|| {
            let tree = self.mount_rw(&id, &IdMap::default())?;
            let filled = above.iter().try_for_each(|chain| self.put_over(chain, &tree));
            let unmounted = self.unmount_rw(&id);
            filled.and(unmounted)?;
            self.keep_step(key, &id, what, lease)
        })();
        if kept.is_err()
            && let Err(e) = self.remove_rw(&id)
        {
            tracing::warn!(layer = id, error = %e, "a layer's working files stay until the next start");
        }
        kept
    }

    /// Puts a layer over a tree: its files are added, and what it deletes is deleted.
    fn put_over(&self, chain: &Digest, tree: &Path) -> Result<()> {
        let layer = self.layer(chain)?;
        let layer = layer.ok_or_else(|| Error::Corrupt(format!("layer {chain} has no record")))?;
        let (reader, writer) = std::io::pipe().context(|| "make a pipe")?;
        std::thread::scope(|scope| {
            let feeder = scope.spawn(move || {
                let mut out = BufWriter::with_capacity(BUFFER, writer);
                rebuild(self, &layer.cache_id, layer.diff_id, &mut out)?;
                out.flush().context(|| "read a layer")
            });
            let options = ApplyOptions { whiteouts: WhiteoutFormat::Remove, ..ApplyOptions::default() };
            let applied = apply(tree, BufReader::with_capacity(BUFFER, reader), &options);
            let fed = feeder.join();
            let fed = fed.map_err(|_| Error::Internal("a thread that reads a layer panicked".into()))?;
            // When unpacking fails the feeder only sees a broken pipe.
            applied?;
            fed
        })
    }
}
