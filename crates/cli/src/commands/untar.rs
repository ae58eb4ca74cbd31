//! Unpacking what a daemon sends. It goes into a fresh folder beside its destination, which nothing else knows, and is
//! moved from there: no link of the archive can lead a later entry elsewhere.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::error::{Context, Failure, Result};
use crate::streams::ChannelReader;

/// A fresh folder, removed with what is left in it.
pub(super) struct Temp(PathBuf);

impl Temp {
    /// In the folder `parent`.
    pub(super) fn beside(parent: &Path) -> Result<Self> {
        let name =
            format!(".longshore-cp-{}-{}", std::process::id(), jiff::Timestamp::now().subsec_nanosecond());
        let path = parent.join(name);
        fs::create_dir(&path).context(|| format!("make a folder in {}", parent.display()))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Unpacks a tar that comes in pieces.
pub(super) struct Untar {
    send: mpsc::Sender<Bytes>,
    unpacking: JoinHandle<io::Result<()>>,
}

impl Untar {
    /// Into an empty folder; users and groups are kept where `owners` says so and this is root.
    pub(super) fn start(into: &Path, owners: bool) -> Self {
        let (send, chunks) = mpsc::channel::<Bytes>(8);
        let into = into.to_owned();
        let unpacking = tokio::task::spawn_blocking(move || unpack(chunks, &into, owners));
        Self { send, unpacking }
    }

    /// Takes a piece; false when nobody takes any more, which [`Untar::finish`] explains.
    pub(super) async fn push(&self, piece: Bytes) -> bool {
        self.send.send(piece).await.is_ok()
    }

    /// The end.
    ///
    /// # Errors
    /// When the archive leads out of its folder, or cannot be unpacked.
    pub(super) async fn finish(self) -> Result<()> {
        drop(self.send);
        self.unpacking.await.context(|| "unpack".into())?.context(|| "unpack".into())
    }
}

fn unpack(chunks: mpsc::Receiver<Bytes>, into: &Path, owners: bool) -> io::Result<()> {
    let mut tar = tar::Archive::new(ChannelReader::new(chunks));
    tar.set_preserve_permissions(true);
    tar.set_preserve_ownerships(owners && rustix::process::geteuid().is_root());
    for entry in tar.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let leads_out = |c| matches!(c, Component::ParentDir | Component::RootDir | Component::Prefix(_));
        if path.components().any(leads_out) {
            return Err(io::Error::other(format!("{} leads out of the archive", path.display())));
        }
        entry.unpack_in(into)?;
    }
    // What follows the end is read, so that the sender is not cut off.
    io::copy(&mut tar.into_inner(), &mut io::sink()).map(drop)
}

/// Moves a file or a tree into place; directories that are there already are filled.
pub(super) fn place(from: &Path, to: &Path) -> Result<()> {
    let is_dir = |p: &Path| fs::symlink_metadata(p).is_ok_and(|m| m.is_dir());
    if is_dir(from) && fs::metadata(to).is_ok_and(|m| m.is_dir()) {
        for entry in fs::read_dir(from).context(|| format!("read {}", from.display()))? {
            let entry = entry.context(|| format!("read {}", from.display()))?;
            place(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    if is_dir(to) != is_dir(from) && fs::symlink_metadata(to).is_ok() {
        return Err(Failure::new(format!(
            "cannot overwrite {} with something of another kind",
            to.display()
        )));
    }
    fs::rename(from, to).context(|| format!("write {}", to.display()))
}
