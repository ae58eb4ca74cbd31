//! The overlay2 driver: the directory layout of Docker's driver of that name.
//!
//! ```text
//! overlay2/                       0710
//!   l/                            0700   26 characters -> ../<cache id>/diff
//!   <cache id>/                   0710
//!     diff/                              the layer's own entries; deletions as whiteouts
//!     link                               its name in l/
//!     lower                              l/AAA:l/BBB, the topmost first; only on a parent
//!     work/                       0700   overlay's work directory; only on a parent
//!     committed                   0600   present once something was prepared on it
//!     merged/                     0700   exists only while mounted
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use longshore_oci::IdMap;
use longshore_sys::mount;
use rustix::mount::{MountAttrFlags, MountFlags};

use super::tree::{measure, remove_tree};
use super::{Change, DriverName, Mounts, SnapshotDriver, Usage, changes, check_id, in_user_namespace, mend};
use crate::content::random_id;
use crate::layer::WhiteoutFormat;
use crate::{Error, IoContext, Result};

/// Lower layers that one mount may have; Docker's limit, far below the kernel's 500.
pub(super) const MAX_LOWERS: usize = 128;
/// Bytes that one string of fsconfig(2) may have, with its end.
const FSCONFIG_MAX: usize = 256;
/// Bytes that the options of mount(2) may have, with their end: the smallest page that there is.
const CLASSIC_MAX: usize = 4096;
/// Ends the names of snapshots that are being removed.
pub(crate) const REMOVING: &str = "-removing";

/// How overlays are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountStyle {
    /// A lower at a time (`lowerdir+`, about Linux 6.7).
    PerLayer,
    /// mount(2) with one string of short links, from inside `overlay2/`.
    Classic,
}

/// The driver; its state is the directory.
#[derive(Debug)]
pub struct Overlay {
    root: PathBuf,
    style: MountStyle,
    /// Options that this kernel knows.
    options: Vec<(&'static str, &'static str)>,
    /// Held while something is mounted or unmounted: one upper mounted twice would succeed, and go wrong.
    mounting: Mutex<()>,
}

impl Overlay {
    /// Opens (and makes) `<data root>/overlay2`.
    ///
    /// # Errors
    /// When the directories cannot be made.
    pub fn open(data_root: &Path) -> Result<Self> {
        let root = data_root.join("overlay2");
        make_dir(&root, 0o710)?;
        make_dir(&root.join("l"), 0o700)?;
        let style = if per_layer_works() { MountStyle::PerLayer } else { MountStyle::Classic };
        Ok(Self { root, style, options: options(in_user_namespace()), mounting: Mutex::new(()) })
    }

    /// The same with another way of mounting, for tests and for kernels that lie.
    #[must_use]
    pub fn with_style(mut self, style: MountStyle) -> Self {
        self.style = style;
        self
    }

    /// The directory `overlay2`.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn dir(&self, id: &str) -> PathBuf {
        self.root.join(id)
    }

    fn mounting(&self) -> MutexGuard<'_, ()> {
        self.mounting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, id: &str, file: &str) -> Result<String> {
        let path = self.dir(id).join(file);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Err(Error::NotFound(format!("no snapshot {id}")))
            }
            Err(e) => Err(Error::io(format!("read {}", path.display()), e)),
        }
    }

    /// The lower links of a snapshot, the topmost first; none for one without a parent.
    fn lower_links(&self, id: &str) -> Result<Vec<String>> {
        let path = self.dir(id).join("lower");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.split(':').map(str::to_owned).collect()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(Error::io(format!("read {}", path.display()), e)),
        }
    }

    /// The lower directories of a snapshot, links resolved.
    fn lowers(&self, id: &str) -> Result<Vec<PathBuf>> {
        self.lower_links(id)?
            .iter()
            .map(|link| {
                let path = self.root.join(link);
                let target = fs::read_link(&path).context(|| format!("read link {}", path.display()))?;
                // `../<cache id>/diff`, as this driver wrote it.
                let rest = target.strip_prefix("..").ok().filter(|r| r.ends_with("diff"));
                let rest =
                    rest.ok_or_else(|| Error::Corrupt(format!("{} is not a layer's link", path.display())))?;
                Ok(self.root.join(rest))
            })
            .collect()
    }

    /// Makes the directory with `diff` and `link`, and the name in `l/`.
    fn make(&self, id: &str, like: Option<&Path>) -> Result<()> {
        check_id(id)?;
        let dir = self.dir(id);
        match fs::DirBuilder::new().mode(0o710).create(&dir) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Error::Conflict(format!("snapshot {id} exists already")));
            }
            r => r.context(|| format!("make {}", dir.display()))?,
        }
        let made = (|| {
            let diff = dir.join("diff");
            make_dir(&diff, 0o755)?;
            if let Some(parent) = like {
                copy_root(parent, &diff)?;
            }
            // The name first: removal finds the link by it.
            let link = link_name()?;
            let file = dir.join("link");
            fs::write(&file, &link).context(|| format!("write {}", file.display()))?;
            let path = self.root.join("l").join(&link);
            std::os::unix::fs::symlink(format!("../{id}/diff"), &path)
                .context(|| format!("make {}", path.display()))
        })();
        if made.is_err() {
            let _ = self.remove(id);
        }
        made
    }

    /// The lower links of what lies on `parent`.
    fn links_on(&self, parent: &str) -> Result<Vec<String>> {
        check_id(parent)?;
        let mut links = vec![format!("l/{}", self.read(parent, "link")?)];
        links.extend(self.lower_links(parent)?);
        Ok(links)
    }

    /// Writes `lower` and `work` of `id`, and commits its parent.
    fn put_on(&self, id: &str, parent: &str) -> Result<()> {
        let links = self.links_on(parent)?;
        if links.len() > MAX_LOWERS {
            return Err(Error::TooLarge(format!("more than {MAX_LOWERS} layers")));
        }
        let dir = self.dir(id);
        let file = dir.join("lower");
        fs::write(&file, links.join(":")).context(|| format!("write {}", file.display()))?;
        make_dir(&dir.join("work"), 0o700)?;
        let mark = self.dir(parent).join("committed");
        match fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&mark) {
            Ok(_) => Ok(()),
            Err(e) => Err(Error::io(format!("write {}", mark.display()), e)),
        }
    }

    fn mount_overlay(
        &self,
        id: &str,
        lowers: &[PathBuf],
        upper: Option<(&Path, &Path)>,
        target: &Path,
    ) -> Result<()> {
        let longest = lowers.iter().map(|p| p.as_os_str().len()).max().unwrap_or(0) + "/../merged".len();
        if self.style == MountStyle::PerLayer && longest < FSCONFIG_MAX {
            let paths: Vec<&Path> = lowers.iter().map(PathBuf::as_path).collect();
            let plan = mount::Overlay { lowers: &paths, upper, options: &self.options };
            let mounted = mount::overlay(&plan, MountAttrFlags::empty())?;
            return Ok(mount::attach_at(mounted, target)?);
        }
        self.mount_classic(id, upper.is_some(), target)
    }

    /// mount(2) with the short links, from inside the root, so that 128 layers fit into one page.
    fn mount_classic(&self, id: &str, writable: bool, target: &Path) -> Result<()> {
        let mut links = self.lower_links(id)?;
        if !writable {
            links.insert(0, format!("l/{}", self.read(id, "link")?));
        }
        let mut data = format!("lowerdir={}", links.join(":"));
        if writable {
            data.push_str(&format!(",upperdir={id}/diff,workdir={id}/work"));
        }
        for (key, value) in &self.options {
            data.push(',');
            data.push_str(key);
            if !value.is_empty() {
                data.push('=');
                data.push_str(value);
            }
        }
        if data.len() >= CLASSIC_MAX {
            return Err(Error::TooLarge(format!(
                "the layers of {id} do not fit into the options of one mount"
            )));
        }
        let data =
            std::ffi::CString::new(data).map_err(|_| Error::Internal("mount options with a NUL".into()))?;
        let done = longshore_sys::cwd::in_directory(&self.root, || {
            rustix::mount::mount("overlay", target, "overlay", MountFlags::empty(), Some(data.as_c_str()))
        })?;
        done.context(|| format!("mount overlay at {}", target.display()))
    }
}

impl SnapshotDriver for Overlay {
    fn name(&self) -> DriverName {
        DriverName::Overlay2
    }

    fn prepare(&self, id: &str, parent: Option<&str>) -> Result<()> {
        let Some(parent) = parent else { return self.make(id, None) };
        check_id(parent)?;
        let like = self.dir(parent).join("diff");
        if !like.exists() {
            return Err(Error::NotFound(format!("no snapshot {parent}")));
        }
        self.make(id, Some(&like))?;
        self.put_on(id, parent).inspect_err(|_| {
            let _ = self.remove(id);
        })
    }

    fn stages(&self) -> bool {
        true
    }

    fn stage(&self, id: &str) -> Result<()> {
        self.make(id, None)
    }

    fn place(&self, id: &str, parent: Option<&str>, own_root: bool) -> Result<()> {
        self.read(id, "link")?;
        let Some(parent) = parent else { return Ok(()) };
        if !own_root {
            check_id(parent)?;
            copy_root(&self.apply_dir(parent), &self.apply_dir(id))?;
        }
        self.put_on(id, parent)
    }

    fn apply_dir(&self, id: &str) -> PathBuf {
        self.dir(id).join("diff")
    }

    fn whiteouts(&self) -> WhiteoutFormat {
        if in_user_namespace() { WhiteoutFormat::OverlayUser } else { WhiteoutFormat::Overlay }
    }

    fn lower_dirs(&self, id: &str, paths: &[&Path]) -> Result<Vec<Option<OwnedFd>>> {
        self.read(id, "link")?;
        changes::lower_dirs(&self.lowers(id)?, paths)
    }

    fn mounts(&self, id: &str, map: &IdMap) -> Result<Mounts> {
        check_id(id)?;
        if !map.is_identity() {
            return Err(Error::Unimplemented("mapping ids of an overlay is not supported yet".into()));
        }
        let dir = self.dir(id);
        let own = dir.join("diff");
        let mut lowers = self.lowers(id)?;
        if lowers.is_empty() {
            self.read(id, "link")?;
            return Ok(Mounts::Directory(own));
        }
        let target = dir.join("merged");
        if dir.join("committed").exists() {
            lowers.insert(0, own);
            return Ok(Mounts::Overlay { lowers, upper: None, target });
        }
        Ok(Mounts::Overlay { lowers, upper: Some((own, dir.join("work"))), target })
    }

    fn mount(&self, id: &str, map: &IdMap) -> Result<PathBuf> {
        let (lowers, upper, target) = match self.mounts(id, map)? {
            Mounts::Directory(dir) => return Ok(dir),
            Mounts::Overlay { lowers, upper, target } => (lowers, upper, target),
        };
        let _one = self.mounting();
        make_dir(&target, 0o700)?;
        if mount::is_mount_point(&target)? {
            return Ok(target);
        }
        let upper = upper.as_ref().map(|(u, w)| (u.as_path(), w.as_path()));
        match self.mount_overlay(id, &lowers, upper, &target) {
            Ok(()) => Ok(target),
            Err(e) => {
                let _ = fs::remove_dir(&target);
                Err(e)
            }
        }
    }

    fn unmount(&self, id: &str) -> Result<()> {
        check_id(id)?;
        let target = self.dir(id).join("merged");
        let _one = self.mounting();
        mount::detach(&target)?;
        // Removing the mount point also takes copies of the mount in other namespaces away.
        match fs::remove_dir(&target) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(format!("remove {}", target.display()), e))
            }
            _ => Ok(()),
        }
    }

    fn changes(&self, id: &str, _parent: Option<&str>) -> Result<Vec<Change>> {
        self.read(id, "link")?;
        changes::of_overlay(&self.apply_dir(id), &self.lowers(id)?)
    }

    fn usage(&self, id: &str) -> Result<Usage> {
        check_id(id)?;
        measure(&self.apply_dir(id))
    }

    fn graph_data(&self, id: &str) -> Result<BTreeMap<String, String>> {
        let dir = self.dir(id);
        let text = |p: &Path| p.to_string_lossy().into_owned();
        self.read(id, "link")?;
        let mut data = BTreeMap::from([
            ("MergedDir".to_owned(), text(&dir.join("merged"))),
            ("UpperDir".to_owned(), text(&dir.join("diff"))),
            ("WorkDir".to_owned(), text(&dir.join("work"))),
        ]);
        let lowers: Vec<String> = self.lowers(id)?.iter().map(|p| text(p)).collect();
        if !lowers.is_empty() {
            data.insert("LowerDir".to_owned(), lowers.join(":"));
        }
        Ok(data)
    }

    fn paths(&self, id: &str) -> Vec<PathBuf> {
        if check_id(id).is_err() {
            return Vec::new();
        }
        let link = self.read(id, "link").ok().filter(|l| is_link_name(l));
        std::iter::once(self.dir(id)).chain(link.map(|l| self.root.join("l").join(l))).collect()
    }

    fn remove(&self, id: &str) -> Result<()> {
        check_id(id)?;
        let dir = self.dir(id);
        if !dir.exists() {
            return Ok(());
        }
        self.unmount(id)?;
        let link = fs::read_to_string(dir.join("link")).ok().filter(|link| is_link_name(link));
        // After a power cut it may not say its name.
        let links = link.map_or_else(|| self.links_to(id), |link| Ok(vec![link]));
        for link in links.unwrap_or_default() {
            let _ = fs::remove_file(self.root.join("l").join(link));
        }
        remove_aside(&dir, &self.root.join(format!("{id}{REMOVING}")))
    }

    fn list(&self) -> Result<Vec<String>> {
        list_snapshots(&self.root)
    }

    fn tidy(&self) -> Result<()> {
        finish_removals(&self.root)?;
        let links = self.root.join("l");
        let action = || format!("read {}", links.display());
        for entry in fs::read_dir(&links).context(action)? {
            let path = entry.context(action)?.path();
            // `exists` follows the link.
            if path.is_symlink() && !path.exists() {
                fs::remove_file(&path).context(|| format!("remove {}", path.display()))?;
            }
        }
        Ok(())
    }

    fn in_use(&self, id: &str) -> Result<bool> {
        check_id(id)?;
        let target = self.dir(id).join("merged");
        Ok(target.exists() && mount::is_mount_point(&target)?)
    }

    fn inspect(&self, id: &str, parent: Option<&str>, committed: bool) -> Result<Vec<String>> {
        self.faults(id, parent, committed)
    }

    fn mend(&self, id: &str, parent: Option<&str>, committed: bool) -> Result<()> {
        self.put_right(id, parent, committed)
    }

    fn exchange(&self, a: &str, b: &str) -> Result<()> {
        check_id(a).and(check_id(b))?;
        mend::exchange(&self.apply_dir(a), &self.apply_dir(b))
    }

    fn take(&self, from: &str, to: &str) -> Result<()> {
        check_id(from).and(check_id(to))?;
        mend::swap(&self.apply_dir(from), &self.apply_dir(to))
    }

    fn sync(&self) -> Result<()> {
        let dir = fs::File::open(&self.root).context(|| format!("open {}", self.root.display()))?;
        rustix::fs::syncfs(&dir).context(|| format!("sync {}", self.root.display()))
    }
}

/// The snapshots in a driver's directory: what is not named like one is somebody else's and left alone.
pub(super) fn list_snapshots(root: &Path) -> Result<Vec<String>> {
    let action = || format!("read {}", root.display());
    let mut ids = Vec::new();
    for entry in fs::read_dir(root).context(action)? {
        let name = entry.context(action)?.file_name().to_string_lossy().into_owned();
        if check_id(&name).is_ok() {
            ids.push(name);
        }
    }
    Ok(ids)
}

/// Removes a tree that is moved out of the way first, so that a part of it is never taken for the whole.
pub(super) fn remove_aside(dir: &Path, aside: &Path) -> Result<()> {
    match fs::rename(dir, aside) {
        Ok(()) => remove_tree(aside),
        // A longer name may need a block that a full disk does not have; nothing names the tree any more.
        Err(e) if matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            remove_tree(dir)
        }
        // Somebody else removes it, too.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io(format!("rename {}", dir.display()), e)),
    }
}

/// Removes what a crash left half removed.
pub(super) fn finish_removals(root: &Path) -> Result<()> {
    let action = || format!("read {}", root.display());
    for entry in fs::read_dir(root).context(action)? {
        let name = entry.context(action)?.file_name().to_string_lossy().into_owned();
        if name.strip_suffix(REMOVING).is_some_and(|id| check_id(id).is_ok()) {
            let path = root.join(&name);
            mount::detach(&path.join("merged"))?;
            remove_tree(&path)?;
        }
    }
    Ok(())
}

/// The mount options that this kernel knows.
fn options(in_user_namespace: bool) -> Vec<(&'static str, &'static str)> {
    let known = |name: &str| Path::new("/sys/module/overlay/parameters").join(name).exists();
    let mut options: Vec<(&str, &str)> = Vec::new();
    if in_user_namespace {
        // It turns redirect_dir and metacopy off, and refuses to hear of them.
        options.push(("userxattr", ""));
    }
    for (name, value) in [("index", "off"), ("redirect_dir", "off"), ("metacopy", "off")] {
        if known(name) && (name == "index" || !in_user_namespace) {
            options.push((name, value));
        }
    }
    options
}

/// Makes a directory with exactly this mode; one that is there is fine.
pub(crate) fn make_dir(path: &Path, mode: u32) -> Result<()> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {
            // The umask may have taken bits.
            fs::set_permissions(path, fs::Permissions::from_mode(mode))
                .context(|| format!("chmod {}", path.display()))
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(Error::io(format!("make {}", path.display()), e)),
    }
}

/// The root of a tree keeps its parent's mode and owner: in an overlay the upper's are what is seen.
fn copy_root(parent: &Path, diff: &Path) -> Result<()> {
    let action = || format!("copy the mode of {}", parent.display());
    let meta = fs::symlink_metadata(parent).context(action)?;
    if meta.uid() != 0 || meta.gid() != 0 {
        std::os::unix::fs::chown(diff, Some(meta.uid()), Some(meta.gid())).context(action)?;
    }
    if meta.mode() & 0o7777 != 0o755 {
        fs::set_permissions(diff, fs::Permissions::from_mode(meta.mode() & 0o7777)).context(action)?;
    }
    Ok(())
}

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// 26 random characters of base32: 130 bits.
pub(super) fn link_name() -> Result<String> {
    let id = random_id()?;
    // Two hex digits make one character's five bits; 52 of the 64 digits are used.
    Ok(id
        .as_bytes()
        .chunks_exact(2)
        .take(26)
        .map(|pair| {
            let digit = |c: u8| usize::from(if c.is_ascii_digit() { c - b'0' } else { c - b'a' + 10 });
            char::from(BASE32[(digit(pair[0]) * 16 + digit(pair[1])) % 32])
        })
        .collect())
}

/// Whether this is a name in `l/`.
pub(crate) fn is_link_name(text: &str) -> bool {
    text.len() == 26 && text.bytes().all(|b| BASE32.contains(&b))
}

/// Whether the kernel takes lowers one by one.
fn per_layer_works() -> bool {
    use rustix::mount::{FsOpenFlags, fsconfig_set_string, fsopen};

    fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .is_ok_and(|fs| fsconfig_set_string(&fs, "lowerdir+", "/").is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_names_are_as_docker_makes_them() {
        let (a, b) = (link_name().unwrap(), link_name().unwrap());
        assert!(is_link_name(&a) && is_link_name(&b), "{a} {b}");
        assert_ne!(a, b);
        assert!(!is_link_name("../../../../etc/passwd....."));
    }
}
