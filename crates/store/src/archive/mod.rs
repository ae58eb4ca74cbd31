//! Images as archives: `docker save`'s format and OCI layouts in, one that is both out; root file systems in; images
//! as registries give them.

mod custody;
mod feed;
mod import;
mod layers;
mod load;
mod manifest;
mod receive;
mod save;
mod send;
mod squash;
mod staged;
mod step;

pub use import::{CommitOptions, NewImage, commit, commit_with, import, record};
pub use layers::{Coming, PackedTree};
pub use load::{LoadEvent, Loaded, load};
pub use receive::{ReceiveEvent, Reception, Remote, Source};
pub use save::{SaveItem, Unrecorded, index_of, save, save_unrecorded};
pub use send::{Absent, Dispatch, Part, SentManifest, oci_type};

pub(crate) use custody::Custody;
pub(crate) use staged::{Came, Chain, Staged, check_announced, rebuild, tar_size};
