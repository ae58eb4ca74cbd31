//! `RUN --mount`.

use crate::dockerfile::{self, Mode, MountKind, RunCmd, Span};
use crate::graph::{self, AgentUse, Mount, MountOf, SecretUse, Sharing, Source};
use crate::{Error, Result};

use super::Planner;
use super::scope::at;
use super::stage::Stage;

/// Permissions of a new cache (docs.docker.com/reference/dockerfile/#run---mounttypecache).
const CACHE_MODE: u32 = 0o755;
/// Permissions of an agent's socket (#run---mounttypessh).
const AGENT_MODE: u32 = 0o600;
/// Permissions of a secret's file (#run---mounttypesecret).
const SECRET_MODE: u32 = 0o400;

impl Stage {
    /// Adds the mounts of a command, its secrets and its agents.
    pub(super) fn mounts(
        &self,
        planner: &mut Planner<'_>,
        run: &RunCmd,
        op: &mut graph::Run,
        span: Span,
    ) -> Result<()> {
        for spec in &run.mounts {
            let view = self.view();
            let escape = planner.escape;
            let expand = |text: &str| dockerfile::expand(text, &view, escape, Mode::Word).map(|e| e.text);
            let mount = spec.resolve(expand).map_err(|e| at(span, &e))?;
            match mount.kind {
                MountKind::Secret => op.secrets.push(self.secret(&mount, span)?),
                MountKind::Ssh => {
                    op.agents.push(agent_of(&mount, |path| self.absolute(path), op.agents.len()));
                }
                MountKind::Bind | MountKind::Cache | MountKind::Tmpfs => {
                    op.mounts.push(self.mount(planner, &mount, span)?);
                }
            }
        }
        Ok(())
    }

    fn secret(&self, mount: &dockerfile::Mount, span: Span) -> Result<SecretUse> {
        secret_of(mount, |path| self.absolute(path)).map_err(|e| on_line(e, span))
    }

    fn mount(&self, planner: &mut Planner<'_>, mount: &dockerfile::Mount, span: Span) -> Result<Mount> {
        let source = match &mount.from {
            // Checked before an image is looked for.
            Some(name) if !mount.target.is_empty() => {
                Some(planner.source(self.index, name, &self.image.platform, span)?)
            }
            None if mount.kind == MountKind::Bind => Some(Source::Context(0)),
            _ => None,
        };
        mount_of(mount, |path| self.absolute(path), source).map_err(|e| on_line(e, span))
    }
}

fn on_line(e: Error, span: Span) -> Error {
    match e {
        Error::Invalid(text) => at(span, &text),
        Error::Unimplemented(text) => Error::Unimplemented(format!("line {}: {text}", span.line)),
        other => other,
    }
}

/// An agent as `--mount=type=ssh` asks for it, the one of number `n` in its command. Docker's defaults
/// (docs.docker.com/reference/dockerfile/#run---mounttypessh).
pub fn agent_of(mount: &dockerfile::Mount, absolute: impl Fn(&str) -> String, n: usize) -> AgentUse {
    let id = mount.id.clone().or_else(|| Some(mount.source.clone()).filter(|s| !s.is_empty()));
    let target = match mount.target.as_str() {
        "" => format!("/run/buildkit/ssh_agent.{n}"),
        target => absolute(target),
    };
    let look = (mount.mode.unwrap_or(AGENT_MODE), mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
    AgentUse { id: id.unwrap_or_else(|| "default".to_owned()), target, look, required: mount.required }
}

/// A secret as `--mount=type=secret` asks for it. Docker's defaults: named by its file, in a file of `/run/secrets` unless
/// it is a variable only (docs.docker.com/reference/dockerfile/#run---mounttypesecret).
///
/// # Errors
/// When it has no name.
pub fn secret_of(mount: &dockerfile::Mount, absolute: impl Fn(&str) -> String) -> Result<SecretUse> {
    let named = mount.id.clone().or_else(|| Some(mount.source.clone()).filter(|s| !s.is_empty()));
    let of_target = || mount.target.rsplit('/').next().unwrap_or_default().to_owned();
    let id = named.unwrap_or_else(of_target);
    if id.is_empty() {
        return Err(Error::Invalid("a secret needs an id or a target".into()));
    }
    let env = mount.env.clone().map(|name| if name.is_empty() { id.clone() } else { name });
    let target = match mount.target.as_str() {
        "" if env.is_some() => None,
        "" => Some(format!("/run/secrets/{}", id.rsplit('/').next().unwrap_or(&id))),
        target => Some(absolute(target)),
    };
    let look = (mount.mode.unwrap_or(SECRET_MODE), mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
    Ok(SecretUse { id, target, env, look, required: mount.required })
}

/// A mount of files, a cache or memory. `source` is whose files it shows or starts with; a bind mount needs one.
///
/// # Errors
/// When it has no place, or a cache is to start with files of its own.
pub fn mount_of(
    mount: &dockerfile::Mount,
    absolute: impl Fn(&str) -> String,
    source: Option<Source>,
) -> Result<Mount> {
    if mount.target.is_empty() {
        return Err(Error::Invalid("a mount needs a target".into()));
    }
    let target = absolute(&mount.target);
    if target == "/" {
        return Err(Error::Invalid("invalid mount target \"/\": a mount cannot cover the root".into()));
    }
    let path = mount.source.clone().into_bytes();
    let what = match (mount.kind, source) {
        (MountKind::Tmpfs, _) => MountOf::Memory { size: mount.size },
        (MountKind::Cache, None) if !path.is_empty() => {
            return Err(Error::Unimplemented("a source within a cache mount is not supported yet".into()));
        }
        (MountKind::Cache, from) => MountOf::Cache {
            name: mount.id.clone().unwrap_or_else(|| target.clone()),
            sharing: match mount.sharing {
                dockerfile::Sharing::Shared => Sharing::Shared,
                dockerfile::Sharing::Private => Sharing::Private,
                dockerfile::Sharing::Locked => Sharing::Locked,
            },
            from: from.map(|source| (source, path)),
            look: (mount.mode.unwrap_or(CACHE_MODE), mount.uid.unwrap_or(0), mount.gid.unwrap_or(0)),
        },
        (_, Some(from)) => MountOf::Files { from, path },
        (_, None) => return Err(Error::Internal("a mount of nothing".into())),
    };
    Ok(Mount { target, what, read_only: mount.read_only })
}
