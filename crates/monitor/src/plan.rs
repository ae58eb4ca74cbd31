//! The launch plan: everything that the monitor does to start a container or a process in it,
//! decided beforehand by the daemon. The plan is data; the monitor decides nothing.

use alloc::ffi::CString;
use alloc::vec::Vec;

use crate::wire::{Malformed, Put, Reader, put_cstr};

/// A process: the container's own command, or one that joins it (exec). Both get all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Command and arguments; at least one.
    pub args: Vec<CString>,
    /// `NAME=value` strings.
    pub env: Vec<CString>,
    /// Working directory inside the container.
    pub cwd: CString,
    /// User id inside the container.
    pub uid: u32,
    /// Group id inside the container.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
    /// File mode creation mask; the usual 022 if absent.
    pub umask: Option<u32>,
    /// Capability sets.
    pub caps: Caps,
    /// Resource limits: `RLIMIT_*`, soft, hard.
    pub rlimits: Vec<(u32, u64, u64)>,
    /// Score for the out-of-memory killer.
    pub oom_score_adj: Option<i32>,
    /// Set `no_new_privs`.
    pub no_new_privs: bool,
    /// AppArmor profile to change to at exec.
    pub apparmor: Option<CString>,
    /// Compiled system call filter.
    pub seccomp: Option<Seccomp>,
    /// Give it a terminal of this size (columns, rows; 0 leaves the kernel's default).
    pub terminal: Option<(u16, u16)>,
    /// I/O priority as for ioprio_set(2).
    pub ioprio: Option<u32>,
}

/// Capability sets, bit n is capability n. The inheritable set equals the ambient one, so it is
/// empty unless ambient capabilities were asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// What execve may ever give.
    pub bounding: u64,
    /// What counts.
    pub effective: u64,
    /// What may become effective.
    pub permitted: u64,
    /// What passes execve without file capabilities.
    pub ambient: u64,
}

/// A compiled seccomp filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seccomp {
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
    /// `struct sock_filter` items as bytes.
    pub program: Vec<u8>,
}

/// The container around its first process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Host path of the root file system.
    pub rootfs: CString,
    /// Make the root mount read-only.
    pub readonly: bool,
    /// `MS_*` propagation of the root mount, or 0 for private.
    pub propagation: u64,
    /// Host name; needs a UTS namespace of its own.
    pub hostname: Option<CString>,
    /// NIS domain name.
    pub domainname: Option<CString>,
    /// Mounts in order.
    pub mounts: Vec<Mount>,
    /// Device nodes.
    pub devices: Vec<Device>,
    /// They cannot be made, and are the host's, mounted.
    pub bind_devices: bool,
    /// Fill `/dev` with the usual links (`/dev/fd`, `/dev/ptmx`, ...).
    pub dev_links: bool,
    /// Paths to hide.
    pub masked: Vec<CString>,
    /// Paths to make read-only.
    pub readonly_paths: Vec<CString>,
    /// Kernel settings: path below /proc/sys, value.
    pub sysctl: Vec<(CString, CString)>,
    /// Run our own small init as process 1.
    pub init: bool,
    /// Its first process.
    pub process: Process,
}

/// A mount inside the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where, as seen inside.
    pub target: CString,
    /// What.
    pub what: MountKind,
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub clear: u64,
    /// `MOUNT_ATTR_*` to set on it and all mounts below.
    pub set_recursive: u64,
    /// `MS_*` propagation, or 0.
    pub propagation: u64,
    /// Propagation is for the mounts below, too.
    pub propagation_recursive: bool,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// A new file system: type, source name, options (an empty value is a flag).
    New {
        /// Type.
        fstype: CString,
        /// What /proc/mounts shows as the source.
        source: CString,
        /// Options.
        options: Vec<(CString, CString)>,
    },
    /// A file or directory of the host.
    Bind {
        /// Host path.
        source: CString,
        /// With the mounts below it.
        recursive: bool,
    },
    /// The container's cgroups; each v1 hierarchy in a directory of its own.
    Cgroup {
        /// Hierarchies; empty for pure v2.
        v1: Vec<Hierarchy>,
    },
}

/// A cgroup v1 hierarchy (or the unified one beside them).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Directory name below /sys/fs/cgroup.
    pub dir: CString,
    /// `cgroup` or `cgroup2`.
    pub fstype: CString,
    /// Options that select it (`cpu`, `name=systemd`).
    pub options: Vec<(CString, CString)>,
    /// Names that link to `dir`.
    pub links: Vec<CString>,
    /// Without a cgroup namespace: the container's own cgroup on the host, to be bound.
    pub bind: Option<CString>,
}

/// A device node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Path inside.
    pub path: CString,
    /// `S_IFCHR`, `S_IFBLK` or `S_IFIFO`, with permission bits.
    pub mode: u32,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Process {
    /// Appends the process to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.list(&self.args, |o, s| put_cstr(o, s));
        out.list(&self.env, |o, s| put_cstr(o, s));
        put_cstr(out, &self.cwd);
        out.u32(self.uid);
        out.u32(self.gid);
        out.list(&self.groups, |o, g| o.u32(*g));
        out.option(self.umask.as_ref(), |o, v| o.u32(*v));
        for set in [self.caps.bounding, self.caps.effective, self.caps.permitted, self.caps.ambient] {
            out.u64(set);
        }
        out.list(&self.rlimits, |o, (r, soft, hard)| {
            o.u32(*r);
            o.u64(*soft);
            o.u64(*hard);
        });
        out.option(self.oom_score_adj.as_ref(), |o, v| o.i32(*v));
        out.u8(u8::from(self.no_new_privs));
        out.option(self.apparmor.as_ref(), |o, s| put_cstr(o, s));
        out.option(self.seccomp.as_ref(), |o, s| {
            o.u32(s.flags);
            o.bytes(&s.program);
        });
        out.option(self.terminal.as_ref(), |o, (cols, rows)| {
            o.u16(*cols);
            o.u16(*rows);
        });
        out.option(self.ioprio.as_ref(), |o, v| o.u32(*v));
    }

    /// Reads a process.
    ///
    /// # Errors
    /// When the bytes are malformed or there is no command.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let process = Self {
            args: r.list(Reader::cstring)?,
            env: r.list(Reader::cstring)?,
            cwd: r.cstring()?,
            uid: r.u32()?,
            gid: r.u32()?,
            groups: r.list(Reader::u32)?,
            umask: r.option(Reader::u32)?,
            caps: Caps { bounding: r.u64()?, effective: r.u64()?, permitted: r.u64()?, ambient: r.u64()? },
            rlimits: r.list(|r| Ok((r.u32()?, r.u64()?, r.u64()?)))?,
            oom_score_adj: r.option(Reader::i32)?,
            no_new_privs: r.bool()?,
            apparmor: r.option(Reader::cstring)?,
            seccomp: r.option(|r| Ok(Seccomp { flags: r.u32()?, program: r.bytes()?.to_vec() }))?,
            terminal: r.option(|r| Ok((r.u16()?, r.u16()?)))?,
            ioprio: r.option(Reader::u32)?,
        };
        if process.args.is_empty() { Err(Malformed) } else { Ok(process) }
    }
}

impl Container {
    /// Appends the container to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_cstr(out, &self.rootfs);
        out.u8(u8::from(self.readonly));
        out.u64(self.propagation);
        out.option(self.hostname.as_ref(), |o, s| put_cstr(o, s));
        out.option(self.domainname.as_ref(), |o, s| put_cstr(o, s));
        out.list(&self.mounts, |o, m| m.encode(o));
        out.list(&self.devices, |o, d| {
            put_cstr(o, &d.path);
            for v in [d.mode, d.major, d.minor, d.uid, d.gid] {
                o.u32(v);
            }
        });
        out.u8(u8::from(self.bind_devices));
        out.u8(u8::from(self.dev_links));
        out.list(&self.masked, |o, s| put_cstr(o, s));
        out.list(&self.readonly_paths, |o, s| put_cstr(o, s));
        out.list(&self.sysctl, put_pair);
        out.u8(u8::from(self.init));
        self.process.encode(out);
    }

    /// Reads a container.
    ///
    /// # Errors
    /// When the bytes are malformed.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            rootfs: r.cstring()?,
            readonly: r.bool()?,
            propagation: r.u64()?,
            hostname: r.option(Reader::cstring)?,
            domainname: r.option(Reader::cstring)?,
            mounts: r.list(Mount::decode)?,
            devices: r.list(|r| {
                Ok(Device {
                    path: r.cstring()?,
                    mode: r.u32()?,
                    major: r.u32()?,
                    minor: r.u32()?,
                    uid: r.u32()?,
                    gid: r.u32()?,
                })
            })?,
            bind_devices: r.bool()?,
            dev_links: r.bool()?,
            masked: r.list(Reader::cstring)?,
            readonly_paths: r.list(Reader::cstring)?,
            sysctl: r.list(pair)?,
            init: r.bool()?,
            process: Process::decode(r)?,
        })
    }
}

impl Mount {
    fn encode(&self, out: &mut Vec<u8>) {
        put_cstr(out, &self.target);
        match &self.what {
            MountKind::New { fstype, source, options } => {
                out.u8(0);
                put_cstr(out, fstype);
                put_cstr(out, source);
                out.list(options, put_pair);
            }
            MountKind::Bind { source, recursive } => {
                out.u8(1);
                put_cstr(out, source);
                out.u8(u8::from(*recursive));
            }
            MountKind::Cgroup { v1 } => {
                out.u8(2);
                out.list(v1, |o, h| {
                    put_cstr(o, &h.dir);
                    put_cstr(o, &h.fstype);
                    o.list(&h.options, put_pair);
                    o.list(&h.links, |o, s| put_cstr(o, s));
                    o.option(h.bind.as_ref(), |o, s| put_cstr(o, s));
                });
            }
        }
        for v in [self.set, self.clear, self.set_recursive, self.propagation] {
            out.u64(v);
        }
        out.u8(u8::from(self.propagation_recursive));
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let target = r.cstring()?;
        let what = match r.u8()? {
            0 => MountKind::New { fstype: r.cstring()?, source: r.cstring()?, options: r.list(pair)? },
            1 => MountKind::Bind { source: r.cstring()?, recursive: r.bool()? },
            2 => MountKind::Cgroup {
                v1: r.list(|r| {
                    Ok(Hierarchy {
                        dir: r.cstring()?,
                        fstype: r.cstring()?,
                        options: r.list(pair)?,
                        links: r.list(Reader::cstring)?,
                        bind: r.option(Reader::cstring)?,
                    })
                })?,
            },
            _ => return Err(Malformed),
        };
        Ok(Self {
            target,
            what,
            set: r.u64()?,
            clear: r.u64()?,
            set_recursive: r.u64()?,
            propagation: r.u64()?,
            propagation_recursive: r.bool()?,
        })
    }
}

fn put_pair(out: &mut Vec<u8>, (key, value): &(CString, CString)) {
    put_cstr(out, key);
    put_cstr(out, value);
}

fn pair(r: &mut Reader<'_>) -> Result<(CString, CString), Malformed> {
    Ok((r.cstring()?, r.cstring()?))
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn sample() -> Container {
        let c = |s: &str| CString::new(s).unwrap();
        Container {
            rootfs: c("/merged"),
            readonly: true,
            propagation: 7,
            hostname: Some(c("h")),
            mounts: vec![
                Mount {
                    target: c("/sys/fs/cgroup"),
                    what: MountKind::Cgroup {
                        v1: vec![Hierarchy {
                            dir: c("cpu,cpuacct"),
                            fstype: c("cgroup"),
                            options: vec![(c("cpu"), c("")), (c("cpuacct"), c(""))],
                            links: vec![c("cpu")],
                            bind: None,
                        }],
                    },
                    set: 1,
                    clear: 2,
                    set_recursive: 3,
                    propagation: 4,
                    propagation_recursive: true,
                },
                Mount {
                    target: c("/v"),
                    what: MountKind::Bind { source: c("/src"), recursive: true },
                    set: 0,
                    clear: 0,
                    set_recursive: 0,
                    propagation: 0,
                    propagation_recursive: false,
                },
            ],
            devices: vec![Device { path: c("/dev/x"), mode: 0o20666, major: 1, minor: 3, uid: 0, gid: 5 }],
            sysctl: vec![(c("net/x"), c("1"))],
            process: Process {
                args: vec![c("a")],
                uid: u32::MAX - 1,
                seccomp: Some(Seccomp { flags: 2, program: vec![1, 2, 3] }),
                terminal: Some((80, 24)),
                rlimits: vec![(7, 1, 2)],
                ..Process::default()
            },
            ..Container::default()
        }
    }

    #[test]
    fn survives_the_wire_and_no_prefix_of_it_decodes() {
        let plan = sample();
        let mut bytes = Vec::new();
        plan.encode(&mut bytes);
        let mut r = Reader::new(&bytes);
        assert_eq!(Container::decode(&mut r).unwrap(), plan);
        r.end().unwrap();
        for n in 0..bytes.len() {
            assert!(Container::decode(&mut Reader::new(&bytes[..n])).is_err());
        }
    }

    #[test]
    fn damaged_bytes_never_panic() {
        let mut bytes = Vec::new();
        sample().encode(&mut bytes);
        for i in 0..bytes.len() {
            for v in [0, 1, 0x7f, 0xff] {
                let mut bad = bytes.clone();
                bad[i] = v;
                let _ = Container::decode(&mut Reader::new(&bad));
            }
        }
    }
}
