//! A disk whose power can be cut: a file system on a loop device, whose backing file lies on another file system that can
//! clone files. A clone is what the disk holds at that moment, and nothing of what is still in memory.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// The file system that the data root is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ext4,
    Xfs,
    Btrfs,
}

impl Kind {
    fn make(self, device: &Path) {
        let (program, args): (_, &[&str]) = match self {
            Self::Ext4 => ("mkfs.ext4", &["-q", "-F"]),
            Self::Xfs => ("mkfs.xfs", &["-q", "-f"]),
            Self::Btrfs => ("mkfs.btrfs", &["-q", "-f"]),
        };
        let status = Command::new(program).args(args).arg(device).stdout(Stdio::null()).status();
        let status = status.unwrap_or_else(|e| panic!("{program}: {e}: `make test` installs it"));
        assert!(status.success(), "{program}");
    }
}

/// One mount at a time: the search for a free loop device and its use are two steps.
static MOUNTING: Mutex<()> = Mutex::new(());

/// Mounts an image file, unmounted when this is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(image: &Path, at: &Path) -> Self {
        fs::create_dir(at).expect("mount point");
        let _one = MOUNTING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let status = Command::new("mount").args(["-o", "loop"]).arg(image).arg(at).status().expect("mount");
        assert!(status.success(), "cannot mount {}: are there free loop devices?", image.display());
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// The backing files, on a file system of their own.
pub(super) struct Disks {
    // In this order: unmounted first, then removed.
    #[expect(dead_code, reason = "held, not read")]
    outer: Mounted,
    dir: tempfile::TempDir,
    kind: Kind,
}

impl Disks {
    /// An empty disk with that file system.
    pub(super) fn new(kind: Kind) -> Self {
        let dir = tempfile::Builder::new().prefix("longshore-disks-").tempdir().expect("temporary folder");
        let image = dir.path().join("outer.img");
        File::create(&image).and_then(|f| f.set_len(16 << 30)).expect("image");
        Kind::Xfs.make(&image);
        let outer = Mounted::new(&image, &dir.path().join("outer"));
        let disks = Self { outer, dir, kind };
        let disk = disks.live();
        File::create(&disk).and_then(|f| f.set_len(2 << 30)).expect("image");
        kind.make(&disk);
        disks
    }

    /// The disk that works.
    pub(super) fn live(&self) -> PathBuf {
        self.dir.path().join("outer/live.img")
    }

    /// What the disk held when its power was cut.
    pub(super) fn cut(&self, n: usize) -> PathBuf {
        self.dir.path().join(format!("outer/cut-{n}.img"))
    }

    /// Cuts the power, as far as a copy is concerned: FICLONE takes all of the file at one instant. Writes are in the
    /// order in which the kernel made them, and none is lost that reached the device: unlike a disk with a cache of its
    /// own, this one never reorders.
    pub(super) fn cut_power(&self, n: usize) {
        let live = File::open(self.live()).expect("disk");
        let copy = File::create_new(self.cut(n)).expect("copy");
        rustix::fs::ioctl_ficlone(&copy, &live).expect("clone: xfs can");
    }

    /// Makes sure that a copy is not taken for the disk that it is a copy of, which is no longer mounted.
    pub(super) fn forget(&self) {
        if self.kind == Kind::Btrfs {
            let _ = Command::new("btrfs").args(["device", "scan", "--forget"]).status();
        }
    }
}
