//! Agents of SSH that commands may ask.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::graph::Run;
use crate::host::{RunMount, Shown};
use crate::{Error, Result};

/// The sockets of agents on this machine, by name.
pub type Agents = BTreeMap<String, PathBuf>;

/// The mounts and variables by which a command reaches its agents.
///
/// # Errors
/// For one that is required and was not given.
pub(crate) fn given(run: &Run, agents: &Agents) -> Result<(Vec<RunMount>, Vec<String>)> {
    let (mut mounts, mut env) = (Vec::new(), Vec::new());
    for wanted in &run.agents {
        let Some(socket) = agents.get(&wanted.id) else {
            if wanted.required {
                return Err(Error::Invalid(format!(
                    "ssh agent {}: not found: give it with --ssh",
                    wanted.id
                )));
            }
            continue;
        };
        let (mode, uid, gid) = wanted.look;
        let shown = Shown::Agent { socket: socket.clone(), mode, uid, gid };
        mounts.push(RunMount { target: wanted.target.clone(), shown, read_only: false });
        // The first is the one that programs ask.
        if env.is_empty() {
            env.push(format!("SSH_AUTH_SOCK={}", wanted.target));
        }
    }
    Ok((mounts, env))
}
