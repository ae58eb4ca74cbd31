//! What the index says and what the directory holds are the same.

use std::collections::BTreeMap;
use std::fs::Metadata;

use super::*;
use crate::layer::{IndexFile, tree_order};

/// A path as index and directory agree on it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    what: &'static str,
    size: u64,
    mode: u32,
    /// Unknown of directories that no entry describes.
    mtime: Option<(i64, i64)>,
    owner: (u32, u32),
    link: Vec<u8>,
    dev: (u32, u32),
    opaque: bool,
}

fn of_directory(root: &Path) -> BTreeMap<Vec<u8>, Node> {
    let mut out = BTreeMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(rel) = todo.pop() {
        for entry in std::fs::read_dir(root.join(&rel)).unwrap() {
            let rel = rel.join(entry.unwrap().file_name());
            let path = root.join(&rel);
            let meta = path.symlink_metadata().unwrap();
            if meta.is_dir() {
                todo.push(rel.clone());
            }
            out.insert(rel.as_os_str().as_bytes().to_vec(), node(&path, &meta));
        }
    }
    out
}

fn node(path: &Path, meta: &Metadata) -> Node {
    let kind = meta.file_type();
    let dev = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    let what = match () {
        () if kind.is_dir() => "dir",
        () if kind.is_symlink() => "link",
        () if kind.is_char_device() && dev == (0, 0) => "whiteout",
        () if kind.is_char_device() => "char",
        () if kind.is_block_device() => "block",
        () if kind.is_fifo() => "pipe",
        () => "file",
    };
    Node {
        what,
        size: if what == "file" { meta.size() } else { 0 },
        // A whiteout says only that.
        mode: if ["link", "whiteout"].contains(&what) { 0 } else { meta.mode() & 0o7777 },
        mtime: Some((meta.mtime(), meta.mtime_nsec())),
        owner: if what == "whiteout" { (0, 0) } else { (meta.uid(), meta.gid()) },
        link: std::fs::read_link(path).map(|l| l.as_os_str().as_bytes().to_vec()).unwrap_or_default(),
        dev,
        opaque: xattr(path, "trusted.overlay.opaque").is_some(),
    }
}

fn of_index(index: &Index) -> BTreeMap<Vec<u8>, Node> {
    let mut out: BTreeMap<Vec<u8>, Node> = BTreeMap::new();
    for e in index.iter().filter(|e| !e.path.is_empty()) {
        let kind = match e.kind {
            IndexKind::Opaque => {
                out.get_mut(e.path).unwrap_or_else(|| panic!("{e:?} without its directory")).opaque = true;
                continue;
            }
            IndexKind::Whiteout => None,
            IndexKind::Entry(kind) => Some(kind),
        };
        let what = match kind {
            None => "whiteout",
            Some(EntryKind::File | EntryKind::HardLink) => "file",
            Some(EntryKind::Symlink) => "link",
            Some(EntryKind::Char) => "char",
            Some(EntryKind::Block) => "block",
            Some(EntryKind::Dir) => "dir",
            Some(EntryKind::Fifo) => "pipe",
        };
        if kind == Some(EntryKind::HardLink) {
            let file = index.get(e.link).next().unwrap();
            assert_eq!(file.kind, IndexKind::Entry(EntryKind::File), "{e:?}");
            assert!(e.shared && file.shared && file.size == e.size, "{e:?} {file:?}");
        }
        let node = Node {
            what,
            size: e.size,
            mode: if ["link", "whiteout"].contains(&what) { 0 } else { e.mode },
            mtime: (!e.implied).then_some((e.mtime.secs, i64::from(e.mtime.nanos))),
            owner: if what == "whiteout" { (0, 0) } else { e.owner.unwrap() },
            link: if what == "link" { e.link.to_vec() } else { Vec::new() },
            dev: if what == "whiteout" { (0, 0) } else { e.dev },
            opaque: false,
        };
        assert_eq!(out.insert(e.path.to_vec(), node), None, "{e:?} twice");
    }
    out
}

/// Fails unless the index says what the directory of an overlay's layer holds, read in either way.
pub(super) fn agrees(index: &Path, root: &Path) {
    let (path, index) = (index, Index::open(index).unwrap());
    let (told, mut held) = (of_index(&index), of_directory(root));
    for (path, node) in &mut held {
        if told.get(path).is_some_and(|t| t.mtime.is_none()) {
            node.mtime = None;
        }
    }
    assert_eq!(told, held);
    for mut file in [IndexFile::open(path).unwrap(), IndexFile::open_to_scan(path).unwrap()] {
        assert_eq!(file.len(), index.len());
        for (i, e) in index.iter().enumerate() {
            assert_eq!(file.entry(i).unwrap(), e.into());
            let said = file.find(e.path).unwrap();
            assert_eq!(said.opaque, index.get(e.path).any(|e| e.kind == IndexKind::Opaque));
            assert_eq!(said.entry.as_ref().map(|e| e.kind), index.get(e.path).next().map(|e| e.kind));
            assert_eq!(said.below, index.iter().any(|o| is_below(o.path, e.path)), "{e:?}");
            let past = file.seek_past(e.path, 0).unwrap();
            let after = |o: &IndexEntry<'_>| tree_order(o.path, e.path).is_gt() && !is_below(o.path, e.path);
            assert_eq!(past, index.iter().position(|o| after(&o)).unwrap_or(index.len()));
        }
        for absent in ["zzz", "a/", "a/b/c/d/e", "-"] {
            assert_eq!(file.find(absent.as_bytes()).unwrap().entry, None);
        }
    }
}

#[test]
fn paths_through_links_are_told_where_they_lie() {
    let tar = Tar::new()
        .dir("usr")
        .dir("usr/lib")
        .link("lib", "usr/lib")
        .file("lib/a", "through a link")
        .hard("lib/b", "lib/a")
        .file("lib/.wh.gone", "")
        .file("lib/sub/.wh..wh..opq", "")
        .link("out", "/nowhere/yet")
        .file("out/deep/file", "made inside")
        .end();
    let lab = Lab::new(WhiteoutFormat::Overlay);
    lab.round_trip(&tar);
    let index = Index::open(&lab.base.join("index")).unwrap();
    let paths: Vec<_> = index.iter().map(|e| String::from_utf8(e.path.to_vec()).unwrap()).collect();
    let want = [
        "lib",
        "nowhere",
        "nowhere/yet",
        "nowhere/yet/deep",
        "nowhere/yet/deep/file",
        "out",
        "usr",
        "usr/lib",
        "usr/lib/a",
        "usr/lib/b",
        "usr/lib/gone",
        "usr/lib/sub",
        "usr/lib/sub",
    ];
    assert_eq!(paths, want);
    let implied: Vec<_> = index.iter().filter(|e| e.implied).map(|e| e.path.to_vec()).collect();
    assert_eq!(implied, [&b"nowhere"[..], b"nowhere/yet", b"nowhere/yet/deep", b"usr/lib/sub"]);
    assert_eq!(index.get(b"usr/lib/b").next().unwrap().link, b"usr/lib/a");
}

#[test]
fn what_a_layer_replaces_itself_is_not_told() {
    let other = |path: &str, mode, kind, link: &str| Entry {
        path: path.into(),
        link: link.into(),
        kind,
        mode,
        mtime: Time { secs: 9, nanos: 3 },
        ..Entry::default()
    };
    let tar = Tar::new()
        // A directory with all that was in it, then a file, then a directory again.
        .file("d/sub/x", "1")
        .file("d-e", "not below d")
        .file("d", "2")
        .dir("d")
        .file("d/y", "3")
        // Whiteouts of what the layer brings, before and after it.
        .file("kept", "4")
        .file(".wh.kept", "")
        .file(".wh.later", "")
        .file("later", "5")
        .dir("full")
        .file("full/of", "6")
        .file(".wh.full", "")
        .file("made/for/this", "7")
        .file("made/.wh.for", "")
        .file(".wh.again", "")
        .dir("again")
        // A file whose first name is taken by another one; its names have the last header's look.
        .file("first", "eight")
        .hard("second", "first")
        .hard("third", "second")
        .file("first", "nine!!")
        .entry(&other("fourth", 0o600, EntryKind::HardLink, "third"), b"")
        // Names of other types show what they are.
        .link("sym", "kept")
        .hard("sym2", "sym")
        .entry(&other("pipe", 0o620, EntryKind::Fifo, ""), b"")
        .hard("pipe2", "pipe")
        // One name only is left.
        .file("alone", "10")
        .hard("gone/twin", "alone")
        .file("gone", "")
        .end();
    let lab = Lab::new(WhiteoutFormat::Overlay);
    lab.round_trip(&tar);
    let index = Index::open(&lab.base.join("index")).unwrap();
    let one = |path: &str| index.get(path.as_bytes()).next().unwrap();
    assert_eq!(index.get(b"d/sub/x").count() + index.get(b"gone/twin").count(), 0);
    assert_eq!((one("fourth").size, one("fourth").mode, one("fourth").link), (5, 0o600, &b""[..]));
    assert_eq!((one("second").link, one("third").link), (&b"fourth"[..], &b"fourth"[..]));
    assert!(!one("alone").shared && !one("first").shared && one("second").shared);
    assert_eq!((one("sym2").kind, one("sym2").link), (IndexKind::Entry(EntryKind::Symlink), &b"kept"[..]));
    let opaque: Vec<_> =
        index.iter().filter(|e| e.kind == IndexKind::Opaque).map(|e| e.path.to_vec()).collect();
    assert_eq!(opaque, [&b"again"[..], b"full", b"made/for"]);
}

#[test]
fn where_layers_share_a_directory_only_the_own_entries_are_told() {
    let lab = Lab::new(WhiteoutFormat::Remove);
    std::fs::create_dir_all(lab.path("old/dir")).unwrap();
    std::fs::write(lab.path("old/file"), "of a lower layer").unwrap();
    let tar = Tar::new()
        .file("old/dir/new", "1")
        .hard("old/name", "old/file")
        .file("fresh/new", "2")
        .file("old/.wh.gone", "")
        .file("old/dir/.wh..wh..opq", "")
        .end();
    lab.apply(&tar).unwrap();
    let index = Index::open(&lab.base.join("index")).unwrap();
    let told: Vec<_> =
        index.iter().map(|e| (String::from_utf8(e.path.to_vec()).unwrap(), e.kind, e.size)).collect();
    let file = IndexKind::Entry(EntryKind::File);
    let want = [
        ("fresh/new", file, 1),
        ("old/dir", IndexKind::Opaque, 0),
        ("old/dir/new", file, 1),
        ("old/gone", IndexKind::Whiteout, 0),
        ("old/name", file, 16),
    ];
    assert_eq!(told, want.map(|(p, k, n)| (p.to_owned(), k, n)));
}

#[test]
fn a_damaged_index_is_an_error_and_no_more() {
    let lab = Lab::new(WhiteoutFormat::Overlay);
    lab.apply(&Tar::new().dir("d").file("d/f", "1").link("l", "d/f").end()).unwrap();
    let whole = std::fs::read(lab.base.join("index")).unwrap();
    let file = lab.base.join("damaged");
    for at in 0..whole.len() {
        let mut data = whole.clone();
        data[at] ^= 0xff;
        std::fs::write(&file, &data).unwrap();
        assert!(Index::open(&file).is_err(), "byte {at}");
        // The check sum is not looked at here; nothing may be read from outside.
        if let Ok(mut index) = IndexFile::open(&file) {
            for path in ["d", "d/f", "l", "x"] {
                let _ = index.find(path.as_bytes());
            }
        }
        std::fs::write(&file, &whole[..at]).unwrap();
        assert!(Index::open(&file).is_err() && IndexFile::open(&file).is_err(), "cut at {at}");
    }
}

#[test]
fn the_first_version_is_searched_too() {
    let file = IndexKind::Entry(EntryKind::File);
    let rows = [
        ("a", IndexKind::Entry(EntryKind::Dir), 0),
        ("a", IndexKind::Opaque, 0),
        ("a-b", file, 1),
        ("a/b", file, 2),
        ("c/d", file, 3),
    ];
    let lab = Lab::new(WhiteoutFormat::Overlay);
    let path = lab.base.join("index");
    std::fs::write(&path, crate::layer::index::tests::version_1(&rows)).unwrap();
    let mut index = IndexFile::open(&path).unwrap();
    let order: Vec<_> = (0..5).map(|i| index.entry(i).unwrap().path).collect();
    assert_eq!(order, [&b"a"[..], b"a", b"a/b", b"a-b", b"c/d"]);
    assert!(!index.knows_links());
    let said = index.find(b"a").unwrap();
    assert!(said.opaque && said.below && said.entry.unwrap().is_dir());
    assert!(index.find(b"c").unwrap().below);
}

/// Numbers that look like chance, the same every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % n
    }

    fn path(&mut self) -> String {
        let names = ["a", "b", "a-b", "c"];
        let depth = 1 + self.below(3);
        (0..depth).map(|_| names[self.below(names.len())]).collect::<Vec<_>>().join("/")
    }

    fn entry(&mut self) -> (Entry, Vec<u8>) {
        use EntryKind::{Char, Dir, Fifo, File, HardLink, Symlink};
        let (mut path, mut link, mut data) = (self.path(), String::new(), Vec::new());
        let kind = match self.below(10) {
            0 | 1 => Dir,
            2 => {
                link = ["", "/", "../"][self.below(3)].to_owned() + &self.path();
                Symlink
            }
            3 | 4 => {
                link = self.path();
                HardLink
            }
            // Numbered 0/0, overlay takes it for a deletion.
            5 => [Fifo, Char][self.below(2)],
            6 => {
                let (dir, name) = path.rsplit_once('/').unwrap_or(("", &path));
                path = format!("{dir}/.wh.{name}").trim_start_matches('/').to_owned();
                File
            }
            7 => {
                path.push_str("/.wh..wh..opq");
                File
            }
            _ => {
                data = vec![b'x'; self.below(9)];
                File
            }
        };
        let mode = [0o644, 0o755, 0o4711][self.below(3)];
        let mtime = Time { secs: i64::try_from(self.below(1000)).unwrap(), nanos: 0 };
        (Entry { path: path.into(), link: link.into(), kind, mode, mtime, ..Entry::default() }, data)
    }
}

#[test]
fn privileged_whatever_a_layer_does_to_itself_the_index_tells_what_is_left() {
    let layers = if std::env::var_os("LONGSHORE_LONG").is_some() { 2000 } else { 60 };
    let mut kept = 0;
    for seed in 0..layers {
        let mut dice = Dice(seed);
        let mut entries: Vec<(Entry, Vec<u8>)> = Vec::new();
        for _ in 0..14 {
            entries.push(dice.entry());
            let tar = entries.iter().fold(Tar::new(), |tar, (e, data)| tar.entry(e, data)).end();
            let lab = Lab::new(WhiteoutFormat::Overlay);
            // Not everything is possible: a link to nothing, a file in a file.
            if lab.apply(&tar).is_err() {
                entries.pop();
                continue;
            }
            let told = std::panic::catch_unwind(|| agrees(&lab.base.join("index"), &lab.out));
            let list =
                || entries.iter().map(|(e, _)| format!("{:?} {}", e.kind, String::from_utf8_lossy(&e.path)));
            assert!(told.is_ok(), "seed {seed}: {:#?}", list().collect::<Vec<_>>());
            kept += 1;
        }
    }
    assert!(kept > layers * 5, "{kept}");
}
