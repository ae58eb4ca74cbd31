//! Execs: further processes in a running container.

use serde::{Deserialize, Serialize};

use crate::{StrSlice, is_default};

/// `POST /containers/{id}/exec`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct ExecCreate {
    pub user: String,
    pub privileged: bool,
    pub tty: bool,
    /// Rows, columns; since 1.42.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_size: Option<(u32, u32)>,
    pub attach_stdin: bool,
    pub attach_stderr: bool,
    pub attach_stdout: bool,
    pub detach_keys: String,
    pub env: Option<Vec<String>>,
    pub working_dir: String,
    pub cmd: Option<StrSlice>,
}

/// `POST /exec/{id}/start`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct ExecStart {
    pub detach: bool,
    pub tty: bool,
    /// Rows, columns; since 1.42, and only with a terminal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_size: Option<(u32, u32)>,
}

/// `GET /exec/{id}/json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct ExecInspect {
    #[serde(rename = "ID")]
    pub id: String,
    pub running: bool,
    /// `null` until it ended.
    pub exit_code: Option<i32>,
    pub process_config: ProcessConfig,
    pub open_stdin: bool,
    pub open_stderr: bool,
    pub open_stdout: bool,
    pub can_remove: bool,
    #[serde(rename = "ContainerID")]
    pub container_id: String,
    /// The keys' bytes in base64.
    pub detach_keys: String,
    pub pid: u32,
}

impl ExecInspect {
    /// Sets the key sequence.
    pub fn set_detach_keys(&mut self, keys: &[u8]) {
        use base64::Engine as _;
        self.detach_keys = base64::engine::general_purpose::STANDARD.encode(keys);
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct ProcessConfig {
    pub tty: bool,
    pub entrypoint: String,
    pub arguments: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privileged: Option<bool>,
    #[serde(skip_serializing_if = "is_default")]
    pub user: String,
}
