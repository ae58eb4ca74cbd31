//! Contexts: described in lines, made as a tar for one side and on a disk for the other.
//!
//! ```text
//! f PATH [mode=M] [owner=U:G] [cap] [user.NAME=VALUE] [= CONTENT]
//! d PATH [mode=M]...
//! l PATH -> TARGET
//! h PATH -> EARLIER
//! p PATH                                     a named pipe
//! ```
//!
//! In paths and contents `\n`, `\t`, `\\` and `\xNN` stand for bytes. A file without content holds its own path.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};

/// When everything in a context was changed: a time that nothing else has.
pub(crate) const TIME: u64 = 1_000_000_000;

/// `cap_net_bind_service=ep` as the kernel keeps it (struct vfs_cap_data, revision 2).
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// A file of a context.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) xattrs: Vec<(String, Vec<u8>)>,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    File(Vec<u8>),
    Dir,
    Link(Vec<u8>),
    Hard(Vec<u8>),
    Fifo,
}

impl Entry {
    pub(crate) fn new(path: &[u8], kind: Kind) -> Self {
        let mode = if matches!(kind, Kind::Dir) { 0o755 } else { 0o644 };
        Self { path: path.to_vec(), kind, mode, owner: (0, 0), xattrs: Vec::new() }
    }
}

/// Bytes that a text with escapes stands for.
pub(crate) fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.bytes();
    while let Some(b) = rest.next() {
        if b != b'\\' {
            out.push(b);
            continue;
        }
        match rest.next() {
            Some(b'n') => out.push(b'\n'),
            Some(b't') => out.push(b'\t'),
            Some(b'x') => {
                let hex: String = rest.by_ref().take(2).map(char::from).collect();
                out.push(u8::from_str_radix(&hex, 16).expect("two digits after \\x"));
            }
            other => out.extend(other),
        }
    }
    out
}

pub(crate) fn unescape_text(text: &str) -> String {
    String::from_utf8(unescape(text)).expect("text")
}

/// The entries that lines describe.
pub(crate) fn manifest(lines: &str) -> Vec<Entry> {
    lines.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')).map(entry).collect()
}

fn entry(line: &str) -> Entry {
    let (head, content) = match line.split_once(" = ") {
        Some((head, content)) => (head, Some(unescape(content))),
        None => (line.strip_suffix(" =").unwrap_or(line), line.ends_with(" =").then(Vec::new)),
    };
    let (head, target) = head.split_once(" -> ").map_or((head, None), |(h, t)| (h, Some(unescape(t))));
    let mut words = head.split_whitespace();
    let kind = words.next().expect("a kind");
    let path = unescape(words.next().unwrap_or_else(|| panic!("a path in {line}")));
    let target = || target.clone().unwrap_or_else(|| panic!("a target in {line}"));
    let kind = match kind {
        "f" => Kind::File(content.unwrap_or_else(|| path.clone())),
        "d" => Kind::Dir,
        "l" => Kind::Link(target()),
        "h" => Kind::Hard(target()),
        "p" => Kind::Fifo,
        _ => panic!("what is {line}?"),
    };
    let mut entry = Entry::new(&path, kind);
    for word in words {
        match word.split_once('=') {
            None if word == "cap" => entry.xattrs.push(("security.capability".into(), CAPABILITY.to_vec())),
            Some(("mode", mode)) => entry.mode = u32::from_str_radix(mode, 8).expect("mode"),
            Some(("owner", owner)) => {
                let (u, g) = owner.split_once(':').expect("owner");
                entry.owner = (u.parse().expect("uid"), g.parse().expect("gid"));
            }
            Some((name, value)) if name.starts_with("user.") => {
                entry.xattrs.push((name.to_owned(), unescape(value)));
            }
            _ => panic!("what is {word} in {line}?"),
        }
    }
    entry
}

/// Adds the directories that are only implied, each before what it holds.
pub(crate) fn complete(entries: &mut Vec<Entry>) {
    let mut known = BTreeSet::new();
    let mut all = Vec::new();
    for entry in entries.drain(..) {
        let slashes = entry.path.iter().enumerate().filter(|(_, b)| **b == b'/');
        for (at, _) in slashes {
            let dir = &entry.path[..at];
            if known.insert(dir.to_vec()) {
                all.push(Entry::new(dir, Kind::Dir));
            }
        }
        // What a case says again replaces what it shares.
        known.insert(entry.path.clone());
        all.retain(|e| e.path != entry.path);
        all.push(entry);
    }
    *entries = all;
}

/// As an archive.
pub(crate) fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for entry in entries {
        let keys: Vec<String> = entry.xattrs.iter().map(|(k, _)| format!("SCHILY.xattr.{k}")).collect();
        if !keys.is_empty() {
            let pairs = keys.iter().map(String::as_str).zip(entry.xattrs.iter().map(|(_, v)| v.as_slice()));
            tar.append_pax_extensions(pairs).expect("extensions");
        }
        // A further name tells what its file is like.
        let like = match &entry.kind {
            Kind::Hard(to) => entries.iter().find(|e| e.path == *to).expect("an earlier file"),
            _ => entry,
        };
        let mut header = tar::Header::new_gnu();
        header.set_mode(like.mode);
        header.set_uid(like.owner.0.into());
        header.set_gid(like.owner.1.into());
        header.set_mtime(TIME);
        let path = Path::new(std::ffi::OsStr::from_bytes(&entry.path));
        let target = |t: &[u8]| Path::new(std::ffi::OsStr::from_bytes(t)).to_owned();
        let (kind, data, link): (_, &[u8], _) = match &entry.kind {
            Kind::File(content) => (tar::EntryType::Regular, content, None),
            Kind::Dir => (tar::EntryType::Directory, b"", None),
            Kind::Link(to) => (tar::EntryType::Symlink, b"", Some(target(to))),
            Kind::Hard(to) => (tar::EntryType::Link, b"", Some(target(to))),
            Kind::Fifo => (tar::EntryType::Fifo, b"", None),
        };
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        match link {
            Some(to) => tar.append_link(&mut header, path, to).expect("a link in a tar"),
            None => tar.append_data(&mut header, path, data).expect("a file in a tar"),
        }
    }
    tar.into_inner().expect("a tar")
}

/// As the ending of `name` says.
pub(crate) fn compress(name: &str, tar: Vec<u8>) -> Vec<u8> {
    if name.ends_with("gz") {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(&tar).expect("gzip");
        return out.finish().expect("gzip");
    }
    if name.ends_with("zst") {
        return zstd::encode_all(tar.as_slice(), 1).expect("zstd");
    }
    tar
}

/// Makes the files below `root`, which is there and empty.
pub(crate) fn write(entries: &[Entry], root: &Path) {
    let at = |path: &[u8]| root.join(std::ffi::OsStr::from_bytes(path));
    for entry in entries {
        let path = at(&entry.path);
        match &entry.kind {
            Kind::File(content) => std::fs::write(&path, content).expect("write"),
            Kind::Dir => std::fs::create_dir(&path).expect("mkdir"),
            Kind::Link(to) => {
                std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(to), &path).expect("symlink");
            }
            Kind::Hard(to) => std::fs::hard_link(at(to), &path).expect("link"),
            Kind::Fifo => {
                rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("fifo");
            }
        }
    }
    // The deepest first: what happens in a directory changes its time.
    for entry in entries.iter().rev() {
        look(entry, &at(&entry.path));
    }
    let time = Timespec { tv_sec: TIME.cast_signed(), tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, root, &times, AtFlags::empty()).expect("times");
}

fn look(entry: &Entry, path: &Path) {
    let (uid, gid) = (Uid::from_raw(entry.owner.0), Gid::from_raw(entry.owner.1));
    if !matches!(entry.kind, Kind::Hard(_)) {
        rustix::fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).expect("chown");
        if !matches!(entry.kind, Kind::Link(_)) {
            rustix::fs::chmod(path, Mode::from_raw_mode(entry.mode)).expect("chmod");
        }
        for (key, value) in &entry.xattrs {
            rustix::fs::lsetxattr(path, key, value, XattrFlags::empty()).expect("xattr");
        }
    }
    let time = Timespec { tv_sec: TIME.cast_signed(), tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("times");
}
