//! Which driver works here, found out by trying.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use longshore_oci::IdMap;

use super::overlay::make_dir;
use super::{DriverName, Overlay, SnapshotDriver, Vfs, in_user_namespace};
use crate::content::random_id;
use crate::{Error, IoContext, Result};

/// The driver that was chosen.
#[derive(Clone, Debug)]
pub struct DriverChoice {
    /// Which.
    pub name: DriverName,
    /// One sentence for people: why this one.
    pub reason: String,
    /// The rows of `docker info` below the storage driver.
    pub status: Vec<(String, String)>,
}

/// Opens the driver asked for, or the one whose layers `data_root` holds, or the best that works there.
///
/// # Errors
/// When the one asked for does not work; the text says why and what to do.
pub fn choose(
    data_root: &Path,
    asked: Option<DriverName>,
    held: Option<DriverName>,
) -> Result<(Box<dyn SnapshotDriver>, DriverChoice)> {
    let backing = backing_filesystem(data_root)?;
    let vfs = |reason: String| -> Result<(Box<dyn SnapshotDriver>, DriverChoice)> {
        let driver = Vfs::open(data_root)?;
        // It is slow and large: whoever wonders is told why.
        let status = vec![
            ("Backing Filesystem".to_owned(), backing.clone()),
            ("Chosen Because".to_owned(), reason.clone()),
        ];
        Ok((Box::new(driver), DriverChoice { name: DriverName::Vfs, reason, status }))
    };
    let wanted = asked.or(held);
    let why = |name: DriverName| match asked {
        Some(_) => format!("{name} was asked for"),
        None => format!("the data root holds layers of {name}"),
    };
    if wanted == Some(DriverName::Vfs) {
        return vfs(why(DriverName::Vfs));
    }
    match Overlay::open(data_root).and_then(|o| try_overlay(&o).map(|()| o)) {
        Ok(driver) => {
            let reason = wanted.map_or_else(|| "overlay works on this file system".to_owned(), why);
            let row = |name: &str, value: &str| (name.to_owned(), value.to_owned());
            let status = vec![
                row("Backing Filesystem", &backing),
                row("Supports d_type", "true"),
                row("Using metacopy", "false"),
                row("Native Overlay Diff", "true"),
                row("userxattr", if in_user_namespace() { "true" } else { "false" }),
            ];
            Ok((Box::new(driver), DriverChoice { name: DriverName::Overlay2, reason, status }))
        }
        Err(e) if wanted.is_some() => Err(Error::Unavailable(format!(
            "the overlay2 driver does not work below {}: {e}; leave --storage-driver out or choose vfs",
            data_root.display()
        ))),
        Err(e) => {
            // Overlay's empty directories would make the next start look as if layers were lost.
            let _ = fs::remove_dir_all(data_root.join("overlay2"));
            vfs(format!("overlay does not work on this file system ({backing}): {e}"))
        }
    }
}

/// Mounts an overlay of two layers, writes, deletes, and looks.
fn try_overlay(driver: &Overlay) -> Result<()> {
    let (lower, upper) = (random_id()?, random_id()?);
    let tried = (|| {
        driver.prepare(&lower, None)?;
        let file = driver.apply_dir(&lower).join("file");
        fs::write(&file, "x").context(|| format!("write {}", file.display()))?;
        driver.prepare(&upper, Some(&lower))?;
        let merged = driver.mount(&upper, &IdMap::default())?;
        make_dir(&merged.join("dir"), 0o755)?;
        fs::remove_file(merged.join("file")).context(|| "delete through the overlay")?;
        driver.unmount(&upper)?;
        let mark = driver.apply_dir(&upper).join("file");
        let meta = fs::symlink_metadata(&mark).context(|| "look at the whiteout")?;
        if meta.file_type().is_char_device() {
            Ok(())
        } else {
            Err(Error::Unavailable("whiteouts are not devices".into()))
        }
    })();
    let cleaned = driver.remove(&upper).and_then(|()| driver.remove(&lower));
    tried.and(cleaned)
}

/// The file system's name as Docker's info names it.
fn backing_filesystem(dir: &Path) -> Result<String> {
    let stat = rustix::fs::statfs(dir).context(|| format!("look at {}", dir.display()))?;
    // linux/magic.h
    Ok(match stat.f_type {
        0xef53 => "extfs",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x0102_1994 => "tmpfs",
        0x794c_7630 => "overlayfs",
        0x2fc1_2fc1 => "zfs",
        0x6969 => "nfs",
        0x6573_5546 => "fuseblk",
        _ => "<unknown>",
    }
    .to_owned())
}
