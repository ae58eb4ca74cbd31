//! What is stored about a container. The store adds a version to every record.

use std::collections::BTreeMap;

use longshore_net::PortMap;
use longshore_oci::Digest;
use serde::{Deserialize, Serialize};

use crate::model::{ContainerConfig, EndpointSettings, HostConfig, MountPoint, State, Status, UnixNanos};

/// One container. New fields get defaults, so that older records stay readable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) created: UnixNanos,
    pub(crate) image: Digest,
    pub(crate) path: String,
    pub(crate) args: Vec<String>,
    pub(crate) config: ContainerConfig,
    pub(crate) host: HostConfig,
    #[serde(default)]
    pub(crate) mounts: Vec<MountPoint>,
    #[serde(default)]
    pub(crate) networks: BTreeMap<String, EndpointSettings>,
    #[serde(default)]
    pub(crate) state: State,
    #[serde(default)]
    pub(crate) restart_count: u32,
    /// A person stopped it: `unless-stopped` and `on-failure` do not start it again.
    #[serde(default)]
    pub(crate) stopped_by_hand: bool,
    /// It has been started at least once.
    #[serde(default)]
    pub(crate) has_run: bool,
    /// Of its network namespace, while it runs.
    #[serde(default)]
    pub(crate) sandbox: String,
    /// Ports published now.
    #[serde(default)]
    pub(crate) ports: Vec<PortMap>,
    /// AppArmor profile it runs under.
    #[serde(default)]
    pub(crate) apparmor: String,
    /// Boot during which it was started.
    #[serde(default)]
    pub(crate) boot: String,
    /// A build's step: it is in no list, nothing of it is stored and nobody is told of it.
    #[serde(skip)]
    pub(crate) transient: bool,
}

impl Record {
    /// A process exists.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state.status, Status::Running | Status::Paused)
    }

    /// Running, or about to be again.
    pub(crate) fn is_active(&self) -> bool {
        self.is_running() || self.state.status == Status::Restarting
    }

    pub(crate) fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }

    /// Labels, for filters and events.
    pub(crate) fn labels(&self) -> Option<&BTreeMap<String, String>> {
        self.config.run.labels.as_ref()
    }
}
