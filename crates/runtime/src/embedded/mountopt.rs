//! Mount options of the specification, in the words of mount(8).

use crate::error::{Error, Result};

/// Options, sorted by what they act on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MountOptions {
    /// `MOUNT_ATTR_*` to set and to clear.
    pub(super) set: u64,
    pub(super) clear: u64,
    /// To set on all mounts below, too.
    pub(super) set_recursive: u64,
    /// `MS_*` propagation.
    pub(super) propagation: u64,
    pub(super) propagation_recursive: bool,
    /// `bind` (false) or `rbind` (true).
    pub(super) bind: Option<bool>,
    /// What is left for the file system: name and value, or a flag.
    pub(super) data: Vec<(String, String)>,
}

const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;
const NOATIME: u64 = libc::MOUNT_ATTR_NOATIME;
const STRICTATIME: u64 = libc::MOUNT_ATTR_STRICTATIME;
const NODIRATIME: u64 = libc::MOUNT_ATTR_NODIRATIME;
const NOSYMFOLLOW: u64 = 0x0020_0000;
/// All values that say how access times are kept; `relatime` is none of the bits.
const ATIME: u64 = 0x70;

impl MountOptions {
    /// Reads a list of options; later ones win.
    pub(super) fn parse(options: &[String]) -> Result<Self> {
        let mut this = Self::default();
        for option in options {
            this.add(option)?;
        }
        Ok(this)
    }

    fn add(&mut self, option: &str) -> Result<()> {
        match option {
            "" | "defaults" | "async" | "loud" | "nomand" | "norelatime" | "nostrictatime" => {}
            "ro" => self.on(RDONLY),
            "rw" => self.off(RDONLY),
            "nosuid" => self.on(NOSUID),
            "suid" => self.off(NOSUID),
            "nodev" => self.on(NODEV),
            "dev" => self.off(NODEV),
            "noexec" => self.on(NOEXEC),
            "exec" => self.off(NOEXEC),
            "nodiratime" => self.on(NODIRATIME),
            "diratime" => self.off(NODIRATIME),
            "nosymfollow" => self.on(NOSYMFOLLOW),
            "symfollow" => self.off(NOSYMFOLLOW),
            "noatime" => self.atime(NOATIME),
            "strictatime" => self.atime(STRICTATIME),
            "relatime" | "atime" => self.atime(0),
            "rro" => self.set_recursive |= RDONLY,
            "rnosuid" => self.set_recursive |= NOSUID,
            "rnodev" => self.set_recursive |= NODEV,
            "rnoexec" => self.set_recursive |= NOEXEC,
            "rnosymfollow" => self.set_recursive |= NOSYMFOLLOW,
            "bind" => self.bind = Some(self.bind.unwrap_or(false)),
            "rbind" => self.bind = Some(true),
            "private" | "rprivate" | "slave" | "rslave" | "shared" | "rshared" | "unbindable"
            | "runbindable" => {
                (self.propagation, self.propagation_recursive) = propagation(option).unwrap_or_default();
            }
            "tmpcopyup" | "idmap" | "ridmap" | "mand" | "remount" => {
                return Err(Error::Unsupported(format!("mount option {option}")));
            }
            data => {
                let (key, value) = data.split_once('=').unwrap_or((data, ""));
                self.data.retain(|(k, _)| k != key);
                self.data.push((key.to_owned(), value.to_owned()));
            }
        }
        Ok(())
    }

    fn on(&mut self, attr: u64) {
        self.set |= attr;
        self.clear &= !attr;
    }

    fn off(&mut self, attr: u64) {
        self.set &= !attr;
        self.clear |= attr;
    }

    fn atime(&mut self, value: u64) {
        self.set = self.set & !ATIME | value;
        self.clear |= ATIME;
    }
}

/// `MS_*` flag of a propagation, and whether it is for the mounts below, too.
pub(super) fn propagation(name: &str) -> Option<(u64, bool)> {
    let (name, recursive) = match name {
        "rprivate" | "rslave" | "rshared" | "runbindable" => (&name[1..], true),
        name => (name, false),
    };
    let flag = match name {
        "private" => libc::MS_PRIVATE,
        "slave" => libc::MS_SLAVE,
        "shared" => libc::MS_SHARED,
        "unbindable" => libc::MS_UNBINDABLE,
        _ => return None,
    };
    Some((flag, recursive))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> MountOptions {
        MountOptions::parse(&text.split(',').map(str::to_owned).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn later_options_win() {
        let o = parse("ro,nosuid,rw,mode=755,size=1k,mode=700");
        assert_eq!((o.set, o.clear), (NOSUID, RDONLY));
        assert_eq!(o.data, [("size".into(), "1k".into()), ("mode".into(), "700".into())]);
        let o = parse("rbind,rslave,rro");
        assert_eq!(o.bind, Some(true));
        assert_eq!((o.propagation, o.propagation_recursive), (libc::MS_SLAVE, true));
        assert_eq!(o.set_recursive, RDONLY);
        assert_eq!(parse("noatime,strictatime").set, STRICTATIME);
        assert!(MountOptions::parse(&["tmpcopyup".to_owned()]).is_err());
    }
}
