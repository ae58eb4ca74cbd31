//! Secrets of a build: what only commands that ask for them may see.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::graph::Run;
use crate::host::{RunMount, Shown};
use crate::{Error, Result};

/// Bytes of one secret, as with BuildKit.
pub const MAX_SECRET: usize = 500 << 10;

/// A secret's bytes. They are never shown, nor written anywhere but into the memory that a command sees.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    /// Of these bytes.
    ///
    /// # Errors
    /// For more than [`MAX_SECRET`].
    pub fn new(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_SECRET {
            return Err(Error::TooLarge(format!(
                "a secret of {} bytes: it may have {MAX_SECRET}",
                bytes.len()
            )));
        }
        Ok(Self(bytes.into()))
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Secrets by name.
pub type Secrets = BTreeMap<String, Secret>;

/// The mounts and variables by which a command gets its secrets.
///
/// # Errors
/// For one that is required and was not given, and for one that cannot be a variable.
pub(crate) fn given(run: &Run, secrets: &Secrets) -> Result<(Vec<RunMount>, Vec<String>)> {
    let (mut mounts, mut env) = (Vec::new(), Vec::new());
    for wanted in &run.secrets {
        let Some(secret) = secrets.get(&wanted.id) else {
            if wanted.required {
                return Err(Error::Invalid(format!(
                    "secret {}: not found: give it with --secret",
                    wanted.id
                )));
            }
            continue;
        };
        if let Some(target) = &wanted.target {
            let (mode, uid, gid) = wanted.look;
            let shown = Shown::Secret { secret: secret.clone(), mode, uid, gid };
            mounts.push(RunMount { target: target.clone(), shown, read_only: true });
        }
        if let Some(name) = &wanted.env {
            let value = std::str::from_utf8(secret.bytes()).ok().filter(|v| !v.contains('\0'));
            let value = value.ok_or_else(|| {
                Error::Invalid(format!("secret {} is no text: it cannot be the variable {name}", wanted.id))
            })?;
            env.push(format!("{name}={value}"));
        }
    }
    Ok((mounts, env))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::SecretUse;

    #[test]
    fn secrets_go_to_who_asks_and_are_not_shown() {
        let secrets = Secrets::from([("a".to_owned(), Secret::new(b"hunter2").unwrap())]);
        assert!(!format!("{secrets:?}").contains("hunter2"));
        let one = |id: &str, required| SecretUse {
            id: id.into(),
            target: Some("/run/secrets/x".into()),
            env: Some("X".into()),
            look: (0o400, 0, 0),
            required,
        };
        let run = Run { secrets: vec![one("a", true), one("b", false)], ..Run::default() };
        let (mounts, env) = given(&run, &secrets).unwrap();
        assert_eq!((mounts.len(), env), (1, vec!["X=hunter2".to_owned()]));
        assert!(!format!("{mounts:?}").contains("hunter2"));
        let run = Run { secrets: vec![one("b", true)], ..Run::default() };
        assert!(given(&run, &secrets).unwrap_err().to_string().contains("secret b: not found"));
        assert!(Secret::new(&vec![0; MAX_SECRET + 1]).is_err());
    }
}
