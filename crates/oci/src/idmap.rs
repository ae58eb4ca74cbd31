use serde::{Deserialize, Serialize};

/// One run of ids: `size` ids starting at `inner` (in the container) are `outer` on (on the host).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    /// First id as the container sees it.
    pub inner: u32,
    /// First id as the host sees it.
    pub outer: u32,
    /// How many ids.
    pub size: u32,
}

/// The user and group ids of a container with a user namespace (user_namespaces(7)).
///
/// The disk always holds the image's own ids; a map is applied by an idmapped mount when a
/// snapshot is mounted, never by changing owners.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// User ids.
    pub uids: Vec<IdMapping>,
    /// Group ids.
    pub gids: Vec<IdMapping>,
}

impl IdMap {
    /// Whether the map changes nothing because it is empty (no user namespace).
    #[must_use]
    pub fn is_identity(&self) -> bool {
        self.uids.is_empty() && self.gids.is_empty()
    }
}
