//! The vocabulary that every part of Longshore shares: digests, references, platforms, image
//! documents, id maps and error kinds. Pure data: nothing here performs I/O.

mod digest;
mod idmap;
pub mod image;
mod kind;
mod platform;
mod reference;

pub use digest::{Digest, ParseDigestError, Sha256};
pub use idmap::{IdMap, IdMapping};
pub use kind::Kind;
pub use platform::{ParsePlatformError, Platform};
pub use reference::{ParseReferenceError, Reference};
