//! What there is to collect.

use std::collections::BTreeMap;

use longshore_oci::{Digest, Reference};

use crate::compressed::Standing;
use crate::image::{ImageRecord, now};
use crate::open::Store;
use crate::usage::{Kind, Ledger, LedgerRow};
use crate::{Result, lease};

/// What may be collected, and what that would free: what a plan is made of.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Bytes that everything takes now.
    pub total: u64,
    /// Nanoseconds since 1970.
    pub now: i64,
    #[allow(missing_docs)]
    pub images: Vec<ImageState>,
    /// By chain id.
    pub layers: BTreeMap<Digest, LayerState>,
    /// Compressed forms of layers that are on the disk, by digest.
    pub forms: BTreeMap<Digest, FormState>,
    /// Paths of leftovers that are this program's own, and their bytes.
    pub leftovers: Vec<(String, u64)>,
}

/// An image.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct ImageState {
    pub id: Digest,
    /// Its first name, or its short id.
    pub called: String,
    /// Whether it has a name.
    pub named: bool,
    /// Nanoseconds since 1970.
    pub last_used: i64,
    /// A container that was made from it.
    pub container: Option<String>,
    /// Whether a lease holds it.
    pub held: bool,
    pub parent: Option<Digest>,
    /// Chain ids.
    pub layers: Vec<Digest>,
    /// Bytes of its documents.
    pub bytes: u64,
}

/// A layer.
#[derive(Clone, Debug, Default)]
pub struct LayerState {
    #[allow(missing_docs)]
    pub bytes: u64,
    /// Whether a container or a lease needs it, whatever becomes of its images.
    pub needed: bool,
    /// Its compressed form.
    pub form: Option<Digest>,
}

/// A compressed form.
#[derive(Clone, Debug)]
pub struct FormState {
    #[allow(missing_docs)]
    pub bytes: u64,
    /// Why it may go, or why it may not.
    pub may_go: std::result::Result<String, String>,
}

impl Store {
    /// What there is to collect. `containers` says which image each container was made from: images by id, with the
    /// container's name.
    ///
    /// # Errors
    /// When files cannot be looked at or the metadata not be read.
    pub fn collectable(&self, containers: &BTreeMap<Digest, String>) -> Result<State> {
        let ledger = self.ledger()?;
        let held = lease::held(self.meta())?;
        let needed = self.needed_layers()?;
        let mut state = State { total: ledger.total.bytes, now: now(), ..State::default() };
        let bytes = by_name(&ledger);
        let of = |kind: Kind, name: String| bytes.get(&(kind, name)).copied().unwrap_or(0);
        for (digest, layers) in self.compressed_forms()? {
            let Some(blob) = layers.first().and_then(|(_, l)| l.blob.as_ref()) else { continue };
            let bytes = of(Kind::Compressed, digest.to_string());
            for (chain, _) in &layers {
                state.layers.entry(*chain).or_default().form = Some(digest);
            }
            if bytes > 0 {
                let may_go = match self.standing_of(blob)? {
                    Standing::Free(why) => Ok(why.to_owned()),
                    Standing::AfterProof(_) => {
                        Ok("it can be made again, which is proven before it goes".into())
                    }
                    Standing::Unknown => Err("it came from a file, and nothing was proven of it".into()),
                    Standing::Kept(why) => Err(why.to_owned()),
                };
                state.forms.insert(digest, FormState { bytes, may_go });
            }
        }
        for image in self.images().list()? {
            for chain in &image.layers {
                let layer = state.layers.entry(*chain).or_default();
                layer.bytes = of(Kind::Layer, chain.to_string());
                layer.needed = needed.contains(chain);
            }
            state.images.push(ImageState {
                called: called(&image),
                named: !image.tags.is_empty() || !image.digests.is_empty(),
                last_used: image.last_used,
                container: containers.get(&image.id).cloned(),
                held: held.blobs.contains(&image.id) || image.layers.iter().any(|l| held.layers.contains(l)),
                parent: image.parent,
                bytes: of(Kind::Document, image.id.to_string()),
                id: image.id,
                layers: image.layers,
            });
        }
        let own = ledger.rows.into_iter().filter(LedgerRow::is_own_leftover);
        state.leftovers = own.map(|row| (row.name, row.size.bytes)).collect();
        Ok(state)
    }
}

fn by_name(ledger: &Ledger) -> BTreeMap<(Kind, String), u64> {
    ledger.rows.iter().map(|row| ((row.kind, row.name.clone()), row.size.bytes)).collect()
}

fn called(image: &ImageRecord) -> String {
    let name = image.tags.first().or(image.digests.first());
    name.map_or_else(|| image.id.short(), Reference::familiar)
}
