use std::collections::BTreeMap;

use super::{Filters, UnixNanos};

/// Something that happened, as `docker events` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `container`, `image`, `volume`, `network` or `daemon`.
    pub kind: String,
    /// `create`, `start`, `exec_create: sh -c true`...
    pub action: String,
    /// The id (of a volume: the name; of an image: the id or the reference asked for).
    pub actor: String,
    /// Name, image, labels, exit code...
    pub attributes: BTreeMap<String, String>,
    #[allow(missing_docs)]
    pub time: UnixNanos,
}

/// Which events are wanted.
#[derive(Clone, Debug, Default)]
pub struct EventsRequest {
    /// Also those remembered since then.
    pub since: Option<UnixNanos>,
    /// The stream ends then.
    pub until: Option<UnixNanos>,
    /// container, daemon, event, image, label, network, scope, type, volume; unknown names are refused.
    pub filters: Filters,
}
