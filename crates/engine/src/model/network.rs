use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::UnixNanos;

/// A network: `bridge`, `host` and `none` exist always; people make others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct NetworkView {
    pub id: String,
    pub name: String,
    /// `bridge`, `host` or `null`.
    pub driver: String,
    pub created: UnixNanos,
    pub ipv4: bool,
    pub ipv6: bool,
    pub internal: bool,
    pub attachable: bool,
    pub ipam: Vec<NetworkPool>,
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

/// A subnet of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct NetworkPool {
    pub subnet: String,
    /// Where addresses come from that nobody asks for; empty: the subnet.
    pub range: String,
    pub gateway: String,
    /// Addresses that others have, by name.
    pub others: BTreeMap<String, String>,
}

/// A network that is to be made.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct CreateNetwork {
    pub name: String,
    /// Empty: `bridge`.
    pub driver: String,
    pub ipv4: bool,
    pub ipv6: bool,
    pub internal: bool,
    pub attachable: bool,
    /// One of each family at most; what is missing is chosen.
    pub pools: Vec<NewPool>,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

/// A subnet that somebody asks for; see [`NetworkPool`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct NewPool {
    pub subnet: String,
    pub range: String,
    pub gateway: String,
    pub others: BTreeMap<String, String>,
}

impl NewPool {
    /// The family of the subnet; `None` where there is no subnet.
    #[must_use]
    pub fn is_ipv6(&self) -> Option<bool> {
        (!self.subnet.is_empty()).then(|| self.subnet.contains(':'))
    }
}
