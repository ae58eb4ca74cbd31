use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{EndpointSettings, HostConfig};
use crate::json::{self, Node};
use crate::{JsonSet, StrSlice, is_default};

/// What a container runs: `Config` of inspect, and the top level of a create body.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct ContainerConfig {
    pub hostname: String,
    pub domainname: String,
    pub user: String,
    pub attach_stdin: bool,
    pub attach_stdout: bool,
    pub attach_stderr: bool,
    #[serde(skip_serializing_if = "no_entries")]
    pub exposed_ports: Option<JsonSet>,
    pub tty: bool,
    pub open_stdin: bool,
    pub stdin_once: bool,
    pub env: Option<Vec<String>>,
    pub cmd: Option<StrSlice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthConfig>,
    #[serde(skip_serializing_if = "is_default")]
    pub args_escaped: bool,
    pub image: String,
    pub volumes: Option<JsonSet>,
    pub working_dir: String,
    pub entrypoint: Option<StrSlice>,
    #[serde(skip_serializing_if = "is_default")]
    pub network_disabled: bool,
    /// Deprecated since 1.44: belongs to an endpoint.
    #[serde(skip_serializing_if = "is_default")]
    pub mac_address: String,
    pub on_build: Option<Vec<String>>,
    pub labels: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "is_default")]
    pub stop_signal: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<StrSlice>,
}

fn no_entries(set: &Option<JsonSet>) -> bool {
    set.as_ref().is_none_or(BTreeMap::is_empty)
}

/// `HEALTHCHECK`; times are nanoseconds, 0: inherit or the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct HealthConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<Vec<String>>,
    #[serde(skip_serializing_if = "is_default")]
    pub interval: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub timeout: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub start_period: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub start_interval: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub retries: i64,
}

/// `NetworkingConfig` of a create body.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkingConfig {
    /// By network name or id.
    pub endpoints_config: BTreeMap<String, EndpointSettings>,
}

/// `POST /containers/create`: the configuration's fields at the top level, and two objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerCreateBody {
    /// `None` when the body named none of its fields, which the API calls an empty config.
    #[serde(flatten)]
    pub config: Option<ContainerConfig>,
    #[allow(missing_docs)]
    pub host_config: Option<HostConfig>,
    #[allow(missing_docs)]
    pub networking_config: Option<NetworkingConfig>,
}

/// The two objects, read apart from the configuration around them.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Objects {
    host_config: Option<HostConfig>,
    networking_config: Option<NetworkingConfig>,
}

impl ContainerCreateBody {
    /// Reads a request's body.
    pub fn from_slice(body: &[u8]) -> Result<Self, json::Error> {
        let node = Node::parse(body)?;
        let (config, known) = json::from_node_counted::<ContainerConfig>(&node)?;
        let objects: Objects = json::from_node(&node)?;
        Ok(Self {
            config: (known > 0).then_some(config),
            host_config: objects.host_config,
            networking_config: objects.networking_config,
        })
    }
}

/// The answer to a create request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct ContainerCreated {
    pub id: String,
    pub warnings: Vec<String>,
}
