//! Images of layers that do everything to one another, and their trees as containers see them.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use longshore_oci::{Digest, IdMap};
use longshore_store::inspect::FileKind;
use longshore_store::layer::{ApplyOptions, apply};
use longshore_store::tar::{Entry, EntryKind, Time, Writer};

use super::{Bench, docker_archive, load, sh};

/// Layers with everything that one can do to another.
pub fn awkward(dir: &Path) -> Vec<PathBuf> {
    let scripts = [
        // 1: what the others work on.
        "mkdir -p usr/bin usr/lib/deep/er etc/conf.d var/cache/a var/cache/b tmp srv/twins; chmod 1777 tmp
         ln -s usr/bin bin; ln -s usr/lib lib; ln -s ../usr/lib/deep etc/to-deep; ln -s /etc/conf.d etc/abs
         ln -s ../../../../etc/passwd etc/escape; ln -s loop2 etc/loop1; ln -s loop1 etc/loop2
         echo root > etc/passwd; echo first > etc/file; echo x > etc/conf.d/x; echo y > etc/conf.d/y
         echo one > usr/lib/deep/one; echo two > usr/lib/deep/er/two; echo dash > usr/lib/deep-er
         head -c 5000 /dev/zero > var/cache/a/blob; head -c 7000 /dev/zero > var/cache/b/blob
         mknod srv/null c 1 3; mkfifo srv/pipe; echo twin > srv/twins/a; ln srv/twins/a srv/twins/b
         mkdir was-dir; echo in > was-dir/in; echo file > was-file; ln -s etc was-link
         printf 'x' > \"$(printf 'not\\377utf8')\"; mkdir -p \"$(printf %0200d 7)\"; chown -R 12:34 srv
         printf 'sh\\n' > usr/bin/sh; chmod 4755 usr/bin/sh; touch -d '2001-02-03 04:05:06.789' usr/bin/sh",
        // 2: replaces, deletes a file, a directory, and something that is not there.
        "mkdir -p etc/conf.d usr/bin var/cache; echo second > etc/file; touch etc/conf.d/.wh.x var/cache/.wh.b
         touch .wh.never; printf 'sh2\\n' > usr/bin/sh; mkdir -p srv/twins; echo other > srv/twins/a; chmod 750 etc",
        // 3: types change; a directory is emptied.
        "echo now a file > was-dir; mkdir was-file was-link; echo in > was-file/in; echo in > was-link/in
         mkdir -p etc/conf.d usr/lib/deep; touch etc/conf.d/.wh..wh..opq; echo z > etc/conf.d/z; touch usr/lib/deep/.wh.er",
        // 4: what was deleted comes again; links and hard links of its own.
        "mkdir -p var/cache/b usr/lib/deep/er etc; echo new > var/cache/b/new; echo back > usr/lib/deep/er/two
         echo back > was-dir.tmp; ln was-dir.tmp usr/hard; mkdir -p never; echo now > never/now; ln -s never/now to-now
         touch .wh.was-file .wh.tmp; ln -s ../lib/deep/one etc/through; ln -s /etc/through/not etc/broken; touch srv.wh",
        // 5: nothing but a deletion of a whole tree, and directories that no entry tells of.
        "mkdir -p usr/share/doc/x usr/lib; echo doc > usr/share/doc/x/README; touch usr/lib/.wh.deep; touch .wh.srv",
    ];
    let mut out = Vec::new();
    for (i, script) in scripts.iter().enumerate() {
        let name = format!("l{i}");
        fs::create_dir(dir.join(&name)).unwrap();
        sh(&dir.join(&name), script);
        // The last one without the directories on the way.
        let what =
            if i + 1 == scripts.len() { "--no-recursion $(find . -type f | sed 's,^./,,')" } else { "." };
        sh(&dir.join(&name), &format!("tar --format=pax --numeric-owner -cf ../{name}.tar {what}"));
        out.push(dir.join(format!("{name}.tar")));
    }
    // The same layer once more, and an empty one.
    out.push(out[1].clone());
    sh(dir, "mkdir none && tar -C none -cf none.tar --files-from /dev/null");
    out.push(dir.join("none.tar"));
    out
}

/// Images of the first layer, the first two, and so on.
pub fn images(b: &Bench, layers: &[PathBuf]) -> Vec<Digest> {
    (1..=layers.len())
        .map(|n| {
            let archive = docker_archive(b.dir.path(), &layers[..n], &format!("i:{n}"), false);
            load(&b.store, &archive).unwrap()[0].id
        })
        .collect()
}

pub type Tree = BTreeMap<Vec<u8>, (PathBuf, Metadata)>;

pub fn tree(root: &Path) -> Tree {
    let mut out = BTreeMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(rel) = todo.pop() {
        for entry in fs::read_dir(root.join(&rel)).unwrap() {
            let rel = rel.join(entry.unwrap().file_name());
            let meta = match fs::symlink_metadata(root.join(&rel)) {
                // Where nothing is merged overlay lists a whiteout, too, and then does not find it.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                meta => meta.unwrap(),
            };
            if meta.is_dir() {
                todo.push(rel.clone());
            }
            out.insert(rel.as_os_str().as_bytes().to_vec(), (root.join(&rel), meta));
        }
    }
    out
}

/// The trees of images as containers see them, without what every container has.
pub fn mounted(b: &Bench, images: &[Digest]) -> Vec<Tree> {
    images
        .iter()
        .enumerate()
        .map(|(i, id)| {
            let name = format!("c{i}");
            b.store.create_rw(&name, Some(id)).unwrap();
            let mut tree = tree(&b.store.mount_rw(&name, &IdMap::default()).unwrap());
            let extra = ["dev", "proc", "sys", ".dockerenv"];
            let more = ["etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf"];
            tree.retain(|path, _| {
                let path = String::from_utf8_lossy(path);
                let first = path.split('/').next().unwrap();
                !extra.contains(&first) && !more.contains(&path.as_ref())
            });
            tree
        })
        .collect()
}

pub fn remove(b: &Bench, images: &[Digest]) {
    (0..images.len()).for_each(|i| b.store.remove_rw(&format!("c{i}")).unwrap());
}

pub fn kind(meta: &Metadata) -> FileKind {
    let t = meta.file_type();
    match () {
        () if t.is_dir() => FileKind::Dir,
        () if t.is_symlink() => FileKind::Symlink,
        () if t.is_char_device() => FileKind::Char,
        () if t.is_block_device() => FileKind::Block,
        () if t.is_fifo() => FileKind::Fifo,
        () => FileKind::File,
    }
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
        let (mut path, mut link, mut data, mut kind) =
            (self.path(), String::new(), Vec::new(), EntryKind::File);
        match self.below(12) {
            0..=2 => kind = EntryKind::Dir,
            3 => {
                link = ["", "/", "../"][self.below(3)].to_owned() + &self.path();
                kind = EntryKind::Symlink;
            }
            4 => {
                link = self.path();
                kind = EntryKind::HardLink;
            }
            5 | 6 => {
                let (dir, name) = path.rsplit_once('/').unwrap_or(("", &path));
                path = format!("{dir}/.wh.{name}").trim_start_matches('/').to_owned();
            }
            7 => path.push_str("/.wh..wh..opq"),
            _ => data = vec![b'x'; self.below(9)],
        }
        let mode = [0o644, 0o755][self.below(2)];
        let mtime = Time { secs: i64::try_from(self.below(1000)).unwrap(), nanos: 0 };
        (Entry { path: path.into(), link: link.into(), kind, mode, mtime, ..Entry::default() }, data)
    }
}

/// Layers of entries by chance: each can be unpacked, and that is all that is known of it.
pub fn by_chance(dir: &Path, seed: u64) -> Vec<PathBuf> {
    let mut dice = Dice(seed);
    let layer = |n: usize| {
        let mut entries: Vec<(Entry, Vec<u8>)> = Vec::new();
        let mut tar = Vec::new();
        for _ in 0..12 {
            entries.push(dice.entry());
            let mut writer = Writer::new(Vec::new());
            for (entry, data) in &entries {
                writer.entry(&Entry { size: data.len() as u64, ..entry.clone() }).unwrap();
                writer.data(data).unwrap();
            }
            let bytes = writer.finish().unwrap();
            let probe = tempfile::tempdir().unwrap();
            match apply(probe.path(), &bytes[..], &ApplyOptions::default()) {
                Ok(_) => tar = bytes,
                Err(_) => drop(entries.pop()),
            }
        }
        let file = dir.join(format!("chance-{n}.tar"));
        fs::write(&file, tar).unwrap();
        file
    };
    (0..5).map(layer).collect()
}
