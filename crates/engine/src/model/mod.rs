//! What the engine is asked and what it answers: plain data, persisted inside records where said
//! so, never put on the wire (the doors translate).

mod build;
mod container;
mod event;
mod image;
mod layers;
mod network;
mod reach;
mod system;
mod upkeep;
mod volume;
mod working;

pub use build::*;
pub use container::*;
pub use event::*;
pub use image::*;
pub use layers::*;
pub use network::*;
pub use reach::*;
pub use system::*;
pub use upkeep::*;
pub use volume::*;
pub use working::*;
