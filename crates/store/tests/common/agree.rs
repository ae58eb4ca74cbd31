//! What is told of images, and the trees that containers see and directories hold, are the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use longshore_oci::{Digest, Kind};
use longshore_store::inspect::{DiffOptions, DiffRow, Event, FileInfo, FileKind};

use super::Bench;
use super::trees::{Tree, kind, tree};

fn assert_same(path: &[u8], info: &FileInfo, (at, meta): &(PathBuf, Metadata)) {
    let shown = String::from_utf8_lossy(path);
    assert_eq!(info.kind, kind(meta), "{shown}");
    assert_eq!(info.owner, Some((meta.uid(), meta.gid())), "{shown}");
    if info.kind != FileKind::Symlink {
        assert_eq!(info.mode, meta.mode() & 0o7777, "{shown}");
    }
    if info.kind == FileKind::File {
        assert_eq!(info.size, meta.size(), "{shown}");
    }
    if let Some(time) = info.mtime.filter(|_| info.kind != FileKind::Dir) {
        assert_eq!((time.secs, i64::from(time.nanos)), (meta.mtime(), meta.mtime_nsec()), "{shown}");
    }
    let link = fs::read_link(at).map(|l| l.as_os_str().as_bytes().to_vec()).unwrap_or_default();
    assert_eq!(info.link, link, "{shown}");
}

/// Everything that any image ever had is found where it is, and nowhere else.
pub fn which(b: &Bench, images: &[Digest], trees: &[Tree]) {
    let all: BTreeSet<&Vec<u8>> = trees.iter().flat_map(BTreeMap::keys).collect();
    for (image, tree) in images.iter().zip(trees) {
        for path in &all {
            let shown = String::from_utf8_lossy(path);
            let found = b.store.which(image, path, false);
            let there = tree.get(*path);
            match &found {
                Err(e) => assert!(e.kind() == Kind::NotFound && there.is_none(), "{shown}: {e}"),
                Ok(w) => {
                    let last = &w.versions[0];
                    assert_eq!(
                        (w.exists, last.event != Event::Deleted),
                        (there.is_some(), there.is_some()),
                        "{shown} {w:?}"
                    );
                    if let (Some(there), Some(info)) = (there, &last.info) {
                        assert_same(path, info, there);
                    }
                }
            }
            // The bytes, if it is a file; also through every link that leads to one.
            let Some((at, meta)) = there else { continue };
            let got = b.store.open_in_image(image, path, None).map(|mut f| {
                let mut bytes = Vec::new();
                f.file.read_to_end(&mut bytes).unwrap();
                bytes
            });
            match kind(meta) {
                FileKind::File => assert_eq!(got.unwrap(), fs::read(at).unwrap(), "{shown}"),
                // Absolute links lead out of what is mounted here: those are tested by name.
                FileKind::Symlink => {}
                _ => assert_eq!(got.unwrap_err().kind(), Kind::Invalid, "{shown}"),
            }
        }
    }
}

/// Files of `new` that `old` has, too, but not the same; by inode, which overlay shows as it is.
fn added_changed_deleted(old: &Tree, new: &Tree) -> (u64, u64, u64) {
    let files = |t: &Tree| -> BTreeMap<Vec<u8>, u64> {
        t.iter().filter(|(_, (_, m))| !m.is_dir()).map(|(p, (_, m))| (p.clone(), m.ino())).collect()
    };
    let (a, b) = (files(old), files(new));
    let added = b.keys().filter(|p| !old.contains_key(*p)).count();
    let changed = b.iter().filter(|(p, ino)| old.contains_key(*p) && a.get(*p) != Some(ino)).count();
    let deleted = a.keys().filter(|p| !b.contains_key(*p)).count();
    (added as u64, changed as u64, deleted as u64)
}

/// Each layer adds, changes, deletes and wastes what the trees of the images below and with it, and its directory, say.
pub fn tally(b: &Bench, images: &[Digest], trees: &[Tree]) {
    let tally = b.store.tally(images.last().unwrap()).unwrap();
    let seen: BTreeSet<u64> = trees.last().unwrap().values().map(|(_, m)| m.ino()).collect();
    let empty = Tree::new();
    for (i, layer) in tally.layers.iter().enumerate() {
        let old = if i == 0 { &empty } else { &trees[i - 1] };
        let want = added_changed_deleted(old, &trees[i]);
        assert_eq!((layer.added, layer.changed, layer.deleted), want, "layer {}", layer.layer.number);
        let own = tree(&b.store.driver().apply_dir(&layer.layer.record.cache_id));
        let inodes: BTreeMap<u64, u64> =
            own.values().filter(|(_, m)| m.is_file()).map(|(_, m)| (m.ino(), m.size())).collect();
        let lost: u64 = inodes.iter().filter(|(ino, _)| !seen.contains(ino)).map(|(_, size)| size).sum();
        assert_eq!(
            (layer.bytes, layer.wasted),
            (inodes.values().sum(), lost),
            "layer {}",
            layer.layer.number
        );
    }
}

/// What two images differ in.
pub fn rows(b: &Bench, from: &Digest, to: &Digest, content: bool) -> Vec<DiffRow> {
    let mut out = Vec::new();
    b.store
        .diff_images(from, to, DiffOptions { content }, &mut |row| {
            out.extend(row);
            Ok(())
        })
        .unwrap();
    out
}

/// Images differ in what their trees differ in.
pub fn diff(b: &Bench, images: &[Digest], trees: &[Tree]) {
    for (i, from) in images.iter().enumerate() {
        for (k, to) in images.iter().enumerate() {
            let mut want = BTreeMap::new();
            let all: BTreeSet<&Vec<u8>> = trees[i].keys().chain(trees[k].keys()).collect();
            for path in all {
                let (old, new) = (trees[i].get(path), trees[k].get(path));
                let kind = match (old, new) {
                    (Some((a, x)), Some((b, y))) => {
                        let look = |m: &Metadata| {
                            (kind(m), if m.is_symlink() { 0 } else { m.mode() }, m.uid(), m.gid())
                        };
                        let file = |m: &Metadata| m.is_file().then(|| (m.size(), m.mtime(), m.mtime_nsec()));
                        let same = look(x) == look(y)
                            && file(x) == file(y)
                            && fs::read_link(a).ok() == fs::read_link(b).ok();
                        if same {
                            continue;
                        }
                        Event::Changed
                    }
                    (Some(_), None) => Event::Deleted,
                    _ => Event::Added,
                };
                want.insert(path.clone(), kind);
            }
            let got: BTreeMap<Vec<u8>, Event> =
                rows(b, from, to, false).into_iter().map(|r| (r.path, r.event)).collect();
            assert_eq!(got, want, "{i} {k}");
        }
    }
}

/// Entries of layers are new, changed and hidden where the trees say so.
pub fn files(b: &Bench, images: &[Digest], trees: &[Tree]) {
    let (image, last) = (images.last().unwrap(), trees.last().unwrap());
    let empty = Tree::new();
    for (i, layer) in b.store.layers_of(image).unwrap().iter().enumerate() {
        let own = tree(&b.store.driver().apply_dir(&layer.record.cache_id));
        let (old, new) = (if i == 0 { &empty } else { &trees[i - 1] }, &trees[i]);
        b.store
            .list_layer(image, layer.number, None, &mut |f| {
                let shown = format!("layer {} {}: {f:?}", layer.number, String::from_utf8_lossy(&f.path));
                if f.path.is_empty() {
                    return Ok(());
                }
                assert_eq!(new.contains_key(&f.path), f.event != Event::Deleted, "{shown}");
                if f.event == Event::Deleted {
                    return Ok(());
                }
                assert_eq!(old.contains_key(&f.path), f.event != Event::Added, "{shown}");
                let (dir, ino) = (own[&f.path].1.is_dir(), own[&f.path].1.ino());
                let seen =
                    last.get(&f.path).is_some_and(|(_, m)| if dir { m.is_dir() } else { m.ino() == ino });
                // A directory that was removed and made again is there, and is another one.
                assert!(seen == f.hidden_by.is_none() || (dir && f.hidden_by.is_some()), "{shown}");
                Ok(())
            })
            .unwrap();
    }
}
