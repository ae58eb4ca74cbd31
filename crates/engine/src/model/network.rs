use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::UnixNanos;

/// A network: `bridge`, `host` and `none` exist always; others come with a later issue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct NetworkView {
    pub id: String,
    pub name: String,
    /// `bridge`, `host` or `null`.
    pub driver: String,
    pub created: UnixNanos,
    /// Subnet and gateway.
    pub ipam: Vec<(String, String)>,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// Running containers on it, by container id.
    pub containers: BTreeMap<String, NetworkMember>,
}

/// A container on a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct NetworkMember {
    pub name: String,
    pub endpoint_id: String,
    pub mac_address: String,
    /// With prefix length.
    pub ipv4_address: String,
    pub ipv6_address: String,
}
