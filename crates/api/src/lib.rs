//! The Docker Engine API as types: what clients send and what they get, per API version.
//!
//! Nothing here decides or performs anything. [`json`] reads JSON the way the API's clients expect
//! it to be read (keys without regard to case, `null` as "not given", the last of two equal keys
//! wins); the types write exactly what clients parse, with `null`, `[]` and absent kept apart.
//! The newest version served is [`ApiVersion::MAX`]; what older versions show differently is
//! shaped by the server.

pub mod container;
pub mod exec;
pub mod filters;
pub mod image;
pub mod json;
pub mod layers;
pub mod network;
pub mod reach;
pub mod registry;
pub mod stream;
pub mod system;
pub mod time;
pub mod upkeep;
pub mod version;
pub mod volume;
pub mod working;

pub mod build;
mod common;

pub use common::{ErrorBody, IdResponse, JsonSet, StrSlice};
pub use container::{
    Change, ContainerConfig, ContainerCreateBody, ContainerCreated, ContainerInspect, ContainerSummary,
    ContainersPruned, HostConfig, NetworkingConfig, PathStat, Top, WaitResponse,
};
pub use exec::{ExecCreate, ExecInspect, ExecStart};
pub use filters::Filters;
pub use image::{
    HistoryItem, ImageDelete, ImageInspect, ImageSummary, ImagesPruned, JsonMessage, LoadProgress,
};
pub use network::{
    NetworkConnect, NetworkCreate, NetworkCreated, NetworkDisconnect, NetworkInspect, NetworksPruned,
};
pub use system::{DiskUsage, Event, Info, UsageData, Version, VolumeUsage};
pub use version::ApiVersion;
pub use volume::{VolumeCreate, VolumeInfo, VolumeList, VolumesPruned};

/// `true` when a value has Go's zero value, for fields that Go's `omitempty` leaves out.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
