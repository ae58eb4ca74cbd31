//! Images as archives: `docker save`'s format and OCI layouts in, one that is both out; root file systems in.

mod custody;
mod feed;
mod import;
mod load;
mod manifest;
mod save;
mod staged;

pub use import::{NewImage, commit, import};
pub use load::{LoadEvent, Loaded, load};
pub use save::{SaveItem, save};

pub(crate) use custody::Custody;
pub(crate) use staged::{Chain, Staged, rebuild, tar_size};
