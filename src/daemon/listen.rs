//! The daemon's sockets.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::settings::{Host, Settings, is_root};

/// What was bound; the socket files go when this is dropped.
#[derive(Debug)]
pub(super) struct Listeners {
    /// To be served.
    pub(super) sockets: Vec<tokio::net::UnixListener>,
    _files: Vec<SocketFile>,
}

#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Binds every host of the settings.
pub(super) fn bind(settings: &Settings) -> Result<Listeners> {
    let mut sockets = Vec::new();
    let mut files = Vec::new();
    for host in &settings.hosts {
        let Host::Unix(path) = host;
        let listener = bind_unix(path, settings.group.as_deref())?;
        files.push(SocketFile(path.clone()));
        listener.set_nonblocking(true)?;
        sockets.push(tokio::net::UnixListener::from_std(listener)?);
    }
    Ok(Listeners { sockets, _files: files })
}

fn bind_unix(path: &Path, group: Option<&str>) -> Result<UnixListener> {
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("/"));
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    if longshore_sys::sockpath::connect(path).is_ok() {
        bail!("another daemon listens on {}; choose another --host", path.display());
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("cannot replace {}", path.display()));
        }
        _ => {}
    }
    let listener = longshore_sys::sockpath::bind(path, 0o600)
        .with_context(|| format!("cannot listen on {}", path.display()))?;
    // root:docker 0660 where that group exists; a group that was asked for by name must exist.
    let gid = match group {
        Some("") => None,
        Some(name) => Some(gid_of(name).with_context(|| {
            format!("no group named {name:?}: make it (groupadd {name}) or pass --group ''")
        })?),
        None => gid_of("docker"),
    };
    if let Some(gid) = gid.filter(|_| is_root()) {
        std::os::unix::fs::chown(path, None, Some(gid))
            .with_context(|| format!("cannot give {} to its group", path.display()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    }
    Ok(listener)
}

fn gid_of(name: &str) -> Option<u32> {
    if let Ok(gid) = name.parse() {
        return Some(gid);
    }
    fs::read_to_string("/etc/group").ok()?.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}
