//! Containers' snapshots are not synced when they are made: a container would be slow to start. What a power cut took of
//! one is made again from its record when the store is opened.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;

use longshore_sys::mount;

use super::{Overlay, check_id, copy_root, is_link_name, link_name};
use crate::snapshot::SnapshotDriver;
use crate::{Error, IoContext, Result};

impl Overlay {
    /// See [`SnapshotDriver::mend`].
    pub(super) fn make_good(&self, id: &str, parent: Option<&str>) -> Result<bool> {
        check_id(id)?;
        let dir = self.dir(id);
        let diff = dir.join("diff");
        if !diff.is_dir() {
            self.remove(id)?;
            self.forget_links(id, None)?;
            self.prepare(id, parent)?;
            return Ok(true);
        }
        let mut lost = !self.has_link(id)?;
        if lost {
            self.link_again(id)?;
        }
        let Some(parent) = parent else { return Ok(lost) };
        let placed = self.lower_links(id)? == self.links_on(parent)?
            && dir.join("work").is_dir()
            && self.dir(parent).join("committed").exists();
        if !placed {
            let empty = fs::read_dir(&diff).context(|| format!("read {}", diff.display()))?.next().is_none();
            if empty {
                copy_root(&self.apply_dir(parent), &diff)?;
            }
            self.put_on(id, parent)?;
            lost = true;
        }
        Ok(lost)
    }

    /// Whether the snapshot has its name in `l/`.
    fn has_link(&self, id: &str) -> Result<bool> {
        let link = match fs::read_to_string(self.dir(id).join("link")) {
            Ok(link) => link,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(Error::io(format!("read the link of {id}"), e)),
        };
        Ok(is_link_name(&link) && self.leads_to(OsStr::new(&link), id))
    }

    fn leads_to(&self, link: &OsStr, id: &str) -> bool {
        fs::read_link(self.root().join("l").join(link))
            .is_ok_and(|to| to == Path::new(&format!("../{id}/diff")))
    }

    /// Removes the names in `l/` that lead to the snapshot, but for one.
    fn forget_links(&self, id: &str, but: Option<&str>) -> Result<()> {
        let links = self.root().join("l");
        let action = || format!("read {}", links.display());
        for entry in fs::read_dir(&links).context(action)? {
            let name = entry.context(action)?.file_name();
            if but.is_none_or(|but| name != but) && self.leads_to(&name, id) {
                let path = links.join(name);
                fs::remove_file(&path).context(|| format!("remove {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// Gives the snapshot a name in `l/`, and no other.
    fn link_again(&self, id: &str) -> Result<()> {
        let (link, file) = (link_name()?, self.dir(id).join("link"));
        fs::write(&file, &link).context(|| format!("write {}", file.display()))?;
        let path = self.root().join("l").join(&link);
        std::os::unix::fs::symlink(format!("../{id}/diff"), &path)
            .context(|| format!("make {}", path.display()))?;
        self.forget_links(id, Some(&link))
    }

    /// Whether somebody uses the snapshot, so that nothing was lost of it.
    pub(super) fn is_used(&self, id: &str) -> Result<bool> {
        check_id(id)?;
        let target = self.dir(id).join("merged");
        Ok(target.exists() && mount::is_mount_point(&target)?)
    }
}
