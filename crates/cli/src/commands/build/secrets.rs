//! The secrets and agents that a build is given.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use longshore_api::build::BuildHead;

use super::keys::{self, KeyAgent};
use crate::args::build::BuildArgs;
use crate::args::given::{Secret, SecretFrom};
use crate::error::{Failure, Result, words};

/// Bytes of one secret, as with BuildKit.
const MAX: usize = 500 << 10;

/// Secrets by name, in base64.
///
/// # Errors
/// For a secret that is not there, or too large.
pub(in crate::commands) fn encoded(secrets: &[Secret]) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for secret in secrets {
        let bytes = read(secret)?;
        if bytes.len() > MAX {
            return Err(Failure::new(format!(
                "secret {}: {} bytes, it may have {MAX}",
                secret.id,
                bytes.len()
            )));
        }
        all.insert(secret.id.clone(), STANDARD.encode(bytes));
    }
    Ok(all)
}

/// What a build is given besides its files, and the agents that were started for it.
///
/// # Errors
/// As [`encoded`], and for an agent that is not there.
pub(super) fn head(args: &BuildArgs) -> Result<(BuildHead, Vec<KeyAgent>)> {
    let mut head = BuildHead::default();
    let (agents, started) = keys::sockets(&args.agents())?;
    head.agents = agents;
    head.secrets = encoded(&args.secrets())?;
    head.annotations = args.annotations();
    Ok((head, started))
}

/// The same as it goes before a context; empty without anything in it.
///
/// # Errors
/// When it is too large.
pub(super) fn before_context(head: &BuildHead) -> Result<Vec<u8>> {
    if *head == BuildHead::default() {
        return Ok(Vec::new());
    }
    let text = serde_json::to_vec(head).map_err(|e| Failure::new(format!("write the secrets: {e}")))?;
    let length = u32::try_from(text.len()).map_err(|_| Failure::new("the secrets are too large together"))?;
    Ok([length.to_be_bytes().as_slice(), &text].concat())
}

fn read(secret: &Secret) -> Result<Vec<u8>> {
    let failed = |why: String| Failure::new(format!("secret {}: {why}", secret.id));
    match &secret.from {
        SecretFrom::File(file) => {
            std::fs::read(file).map_err(|e| failed(format!("read {file}: {}", words(&e))))
        }
        SecretFrom::Variable(name) => std::env::var(name)
            .map(String::into_bytes)
            .map_err(|_| failed(format!("the variable {name} is not set"))),
    }
}
