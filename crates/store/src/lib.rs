//! Everything Longshore keeps on disk: content, layers, snapshots, images, metadata, leases.
//!
//! Synchronous; knows no tokio. The formats are described in `docs/ON-DISK.md`.

pub mod archive;
mod caches;
pub mod check;
mod compressed;
pub mod content;
mod error;
mod fetched;
pub mod gc;
pub mod image;
pub mod inspect;
pub mod layer;
pub mod lease;
pub mod meta;
mod named_index;
mod open;
mod pool;
mod rw;
pub mod snapshot;
mod steps;
pub mod tar;
mod unclean;
pub mod usage;

pub use caches::{CacheDir, CacheRecord};
pub use compressed::{Compressed, CompressedDropped, DropPolicy};
pub use error::{Error, IoContext, Result, errno_text};
pub use fetched::FetchedRecord;
pub use image::{BlobRecord, ImageRecord, Images, ManifestRecord};
pub use named_index::{IndexForm, IndexedImage, NamedIndex};
pub use open::{Store, StoreOptions};
pub use pool::{Arriving, Lent, Pool};
pub use rw::{GraphOf, RwLayer, Visit};
pub use snapshot::{Change, ChangeKind, remove_tree};
pub use steps::{StepInputs, StepRecord, StepsDropped};
