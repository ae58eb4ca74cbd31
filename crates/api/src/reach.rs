//! Who can reach what: an extension of our own, below `/longshore`.
//!
//! ```text
//! GET /longshore/ports?container=&container=      [WayIn]; without containers: those of all that run
//! ```

use serde::{Deserialize, Serialize};

use crate::is_default;

/// A way into a container that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct WayIn {
    /// The container's id.
    pub container: String,
    /// Its name.
    pub name: String,
    /// `tcp`, `udp` or `sctp`; absent with the ports: any port of any protocol.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub transport: String,
    /// The container's ports.
    #[serde(skip_serializing_if = "is_default")]
    pub ports: Option<Span>,
    /// The address that is asked, of the host (0.0.0.0 and :: for all of a family) or of the container; absent for all of
    /// the host's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// The ports there, of which each leads to one of the container's, in their order.
    #[serde(skip_serializing_if = "is_default")]
    pub address_ports: Option<Span>,
    /// Each of these comes in.
    pub who: Vec<Who>,
    /// By this.
    pub through: Through,
    /// Where other programs' firewalls decide, too.
    #[serde(skip_serializing_if = "is_default")]
    pub gates: Vec<Gate>,
}

/// Ports in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct Span {
    pub first: u16,
    pub last: u16,
}

/// Who comes in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Who {
    /// `everybody` (who reaches the host), `address` (who reaches that one of the host's), `host` (its own programs),
    /// `network` (other containers of it), `route` (who has a route to a subnet) or `daemon` (what is in the daemon's network
    /// namespace, where that is not the host's).
    pub scope: String,
    /// Of the scope `address`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// Of the scope `network`: its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub network: String,
    /// Of the scope `route`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subnet: String,
}

/// What lets somebody in: one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Through {
    /// A part of the engine's table in nftables.
    #[serde(skip_serializing_if = "is_default")]
    pub rule: Option<Rule>,
    /// A socket that the daemon listens on.
    #[serde(skip_serializing_if = "is_default")]
    pub listener: bool,
    /// The bridge that the container is connected to.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub bridge: String,
    /// The interface of the host's that the container is on the network of.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub parent: String,
    /// The container has the host's own network.
    #[serde(skip_serializing_if = "is_default")]
    pub host_network: bool,
}

/// A part of a table of nftables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct Rule {
    /// `inet`, `ip` or `ip6`.
    pub family: String,
    pub table: String,
    /// `map`, `set` or `chain`.
    pub kind: String,
    pub name: String,
}

/// A chain of another program's, which drops what it does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct Gate {
    #[serde(flatten)]
    pub chain: Rule,
    /// The engine has put its exception there; else that program's own settings decide.
    pub open: bool,
}
