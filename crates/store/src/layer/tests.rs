//! Layers from tar to directory and back, with archives of other programs and hostile ones.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use longshore_oci::{Digest, Kind};
use longshore_sys::root::Root;

use super::*;
use crate::error::{Error, Result};
use crate::tar::{Entry, EntryKind, Limits, Reader, Time, Writer};

mod index;

struct Lab {
    _tmp: tempfile::TempDir,
    base: PathBuf,
    out: PathBuf,
    options: ApplyOptions,
}

impl Lab {
    fn new(whiteouts: WhiteoutFormat) -> Self {
        let tmp = tempfile::tempdir().unwrap();
        let base = tmp.path().to_owned();
        let out = base.join("root");
        std::fs::create_dir(&out).unwrap();
        let options = ApplyOptions {
            whiteouts,
            recipe: Some(base.join("recipe")),
            index: Some(base.join("index")),
            ..ApplyOptions::default()
        };
        Self { _tmp: tmp, base, out, options }
    }

    fn apply(&self, tar: &[u8]) -> Result<Applied> {
        apply(&self.out, tar, &self.options)
    }

    fn rebuild(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let recipe = File::open(self.base.join("recipe")).unwrap();
        rebuild(&recipe, &Root::open(&self.out).unwrap(), &mut out)?;
        Ok(out)
    }

    /// Unpacks, and rebuilds the same bytes.
    fn round_trip(&self, tar: &[u8]) -> Applied {
        let applied = self.apply(tar).unwrap();
        assert_eq!(applied.diff_id, Digest::of(tar));
        assert!(self.rebuild().unwrap() == tar, "the rebuilt tar differs");
        if self.options.whiteouts == WhiteoutFormat::Overlay {
            index::agrees(&self.base.join("index"), &self.out);
        }
        self.looks_whole(tar);
        applied
    }

    /// The index is the one that the tar has, and the directory is what it says.
    fn looks_whole(&self, tar: &[u8]) {
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let implied = (self.options.whiteouts != WhiteoutFormat::Remove).then_some(own);
        let again = reindex(tar, implied).unwrap();
        if !again.odd {
            assert!(std::fs::read(self.base.join("index")).unwrap() == again.bytes, "the index differs");
            assert_eq!(self.differences(), Vec::<String>::new());
        }
    }

    fn differences(&self) -> Vec<String> {
        let index = Index::open(&self.base.join("index")).unwrap();
        let alone = !matches!(self.options.whiteouts, WhiteoutFormat::Remove | WhiteoutFormat::Literal);
        let expected = Expected { index: &index, alone, devices: !self.options.skip_devices };
        differences(&self.out, &expected).unwrap()
    }

    fn path(&self, rel: &str) -> PathBuf {
        self.out.join(rel)
    }

    fn read(&self, rel: &str) -> String {
        std::fs::read_to_string(self.path(rel)).unwrap()
    }
}

/// An archive under construction; owners are those of the test.
struct Tar(Writer<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(Writer::new(Vec::new()))
    }

    fn entry(mut self, entry: &Entry, data: &[u8]) -> Self {
        let own = Entry {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            size: data.len() as u64,
            ..entry.clone()
        };
        self.0.entry(&own).unwrap();
        self.0.data(data).unwrap();
        self
    }

    fn node(self, path: &str, kind: EntryKind, link: &str) -> Self {
        let mode = if kind == EntryKind::Dir { 0o755 } else { 0o644 };
        self.entry(&Entry { path: path.into(), link: link.into(), kind, mode, ..Entry::default() }, b"")
    }

    fn file(self, path: &str, data: &str) -> Self {
        self.entry(&Entry { path: path.into(), mode: 0o644, ..Entry::default() }, data.as_bytes())
    }

    fn dir(self, path: &str) -> Self {
        self.node(path, EntryKind::Dir, "")
    }

    fn link(self, path: &str, target: &str) -> Self {
        self.node(path, EntryKind::Symlink, target)
    }

    fn hard(self, path: &str, target: &str) -> Self {
        self.node(path, EntryKind::HardLink, target)
    }

    fn end(self) -> Vec<u8> {
        self.0.finish().unwrap()
    }
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut buf = vec![0u8; 256];
    let n = rustix::fs::lgetxattr(path, name, &mut buf[..]).ok()?;
    buf.truncate(n);
    Some(buf)
}

fn run(program: &str, args: &[&OsStr], dir: &Path) -> Vec<u8> {
    let out = Command::new(program).args(args).current_dir(dir).output().unwrap();
    assert!(out.status.success(), "{program}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

fn sample_tree(dir: &Path) {
    std::fs::create_dir_all(dir.join("a/b")).unwrap();
    std::fs::write(dir.join("a/small"), "small").unwrap();
    std::fs::write(dir.join("a/b/large"), vec![7u8; 700_001]).unwrap();
    std::fs::write(dir.join("empty"), "").unwrap();
    std::fs::write(dir.join(OsStr::from_bytes(b"not \xff utf8")), "x").unwrap();
    std::fs::hard_link(dir.join("a/small"), dir.join("a/twin")).unwrap();
    symlink("../a/small", dir.join("a/link")).unwrap();
    let long = "n".repeat(120);
    std::fs::create_dir_all(dir.join(&long).join(&long)).unwrap();
    std::fs::write(dir.join(&long).join(&long).join("deep"), "deep").unwrap();
    let sparse = File::create(dir.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"begin", 0).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"middle", 3 << 20).unwrap();
    sparse.set_len(8 << 20).unwrap();
}

#[test]
fn gnu_tar_in_every_format_comes_back_to_the_byte() {
    let src = tempfile::tempdir().unwrap();
    sample_tree(src.path());
    for format in [
        &["--format=gnu"][..],
        &["--format=gnu", "--sparse"],
        &["--format=pax"],
        &["--format=pax", "--sparse", "--sparse-version=0.0"],
        &["--format=pax", "--sparse", "--sparse-version=0.1"],
        &["--format=pax", "--sparse", "--sparse-version=1.0"],
    ] {
        let mut args: Vec<&OsStr> = format.iter().map(OsStr::new).collect();
        args.extend(["-cf", "-", "."].map(OsStr::new));
        let tar = run("tar", &args, src.path());
        let lab = Lab::new(WhiteoutFormat::Overlay);
        lab.round_trip(&tar);
        assert_eq!(lab.read("a/twin"), "small", "{format:?}");
        assert_eq!(std::fs::metadata(lab.path("a/twin")).unwrap().nlink(), 2);
        assert_eq!(std::fs::read_link(lab.path("a/link")).unwrap(), Path::new("../a/small"));
        let long = "n".repeat(120);
        assert_eq!(lab.read(&format!("{long}/{long}/deep")), "deep");
        let sparse = std::fs::read(lab.path("sparse")).unwrap();
        assert!(sparse == std::fs::read(src.path().join("sparse")).unwrap(), "{format:?}");
        if format.contains(&"--sparse") {
            let blocks = std::fs::metadata(lab.path("sparse")).unwrap().blocks();
            assert!(blocks * 512 < 1 << 20, "{format:?}: the file is not sparse: {blocks} blocks");
        }
        if format[0] == "--format=pax" {
            for path in ["a", "a/small", "a/link"] {
                let (want, got) = (src.path().join(path), lab.path(path));
                let (want, got) = (want.symlink_metadata().unwrap(), got.symlink_metadata().unwrap());
                assert_eq!((got.mtime(), got.mtime_nsec()), (want.mtime(), want.mtime_nsec()), "{path}");
            }
        }
    }
}

#[test]
fn archives_of_python_come_back_to_the_byte() {
    let src = tempfile::tempdir().unwrap();
    sample_tree(src.path());
    for format in ["USTAR", "GNU", "PAX"] {
        let script = format!(
            "import tarfile,sys\nt=tarfile.open(fileobj=sys.stdout.buffer,mode='w|',format=tarfile.{format}_FORMAT)\n\
             for n in ['a','empty']: t.add(n)\nt.close()"
        );
        let tar = run("python3", &["-c".as_ref(), script.as_ref()], src.path());
        let lab = Lab::new(WhiteoutFormat::Overlay);
        lab.round_trip(&tar);
        assert_eq!(std::fs::read(lab.path("a/b/large")).unwrap().len(), 700_001);
    }
}

#[test]
fn compressed_layers_have_both_digests() {
    let tar = Tar::new().dir("d/").file("d/f", &"text ".repeat(10_000)).end();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gz.write_all(&tar).unwrap();
    for source in [gz.finish().unwrap(), zstd::encode_all(&tar[..], 3).unwrap()] {
        let lab = Lab::new(WhiteoutFormat::Overlay);
        let applied = lab.apply(&source).unwrap();
        assert_eq!((applied.diff_id, applied.compressed), (Digest::of(&tar), Digest::of(&source)));
        assert_eq!((applied.size, applied.entries), (50_000, 2));
        assert!(lab.rebuild().unwrap() == tar);
    }
}

#[test]
fn the_last_entry_of_a_path_wins_and_the_recipe_keeps_the_others() {
    let mut tar = Tar::new()
        .file("f", "first")
        .file("g", "under g")
        .file("f", "second, longer")
        .dir("d")
        .file("d/x", "in a directory")
        .file("d/y", "also")
        .file("d", "now a file")
        .link("g", "f")
        .file("h", "one")
        .hard("i", "h")
        .file("h", "two")
        .end();
    tar.extend(b"trailing bytes after the end marker");
    let lab = Lab::new(WhiteoutFormat::Overlay);
    lab.round_trip(&tar);
    assert_eq!(lab.read("f"), "second, longer");
    assert_eq!(lab.read("d"), "now a file");
    assert_eq!((lab.read("h"), lab.read("i")), ("two".into(), "one".into()));
    let index = Index::open(&lab.base.join("index")).unwrap();
    assert_eq!(index.get(b"f").map(|e| e.size).collect::<Vec<_>>(), [14]);
}

#[test]
fn the_header_of_a_hard_link_speaks_of_the_file() {
    let kind = EntryKind::HardLink;
    let mtime = Time { secs: 77, nanos: 5 };
    let entry =
        Entry { path: b"l".to_vec(), link: b"f".to_vec(), kind, mode: 0o4711, mtime, ..Entry::default() };
    let link = Entry { path: b"m".to_vec(), link: b"s".to_vec(), kind, mode: 0o600, ..Entry::default() };
    let tar = Tar::new().file("f", "text").entry(&entry, b"").link("s", "nowhere").entry(&link, b"").end();
    let lab = Lab::new(WhiteoutFormat::Overlay);
    lab.round_trip(&tar);
    let meta = std::fs::metadata(lab.path("f")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.mtime(), meta.mtime_nsec()), (0o4711, 77, 5));
    assert!(std::fs::symlink_metadata(lab.path("m")).unwrap().is_symlink());
}

#[test]
fn a_layer_has_the_size_that_docker_counts() {
    let tar = Tar::new().file("f", "12345").hard("g", "f").dir("d").link("d/l", "1234567").end();
    let lab = Lab::new(WhiteoutFormat::Overlay);
    assert_eq!(lab.round_trip(&tar).size, 5 + 7);
}

#[test]
fn recipes_survive_links_that_move() {
    let tar = Tar::new()
        .dir("one")
        .dir("two")
        .link("now", "one")
        .file("now/f", "in one")
        .link("now", "two")
        .file("now/f", "in two")
        .end();
    let lab = Lab::new(WhiteoutFormat::Overlay);
    lab.round_trip(&tar);
    assert_eq!((lab.read("one/f"), lab.read("two/f")), ("in one".into(), "in two".into()));
}

#[test]
fn altered_trees_and_recipes_are_noticed() {
    let tar = Tar::new().file("f", "content").end();
    type Damage = fn(&Lab);
    let damages: [Damage; 5] = [
        |lab| std::fs::write(lab.path("f"), "CONTENT").unwrap(),
        |lab| std::fs::write(lab.path("f"), "cont").unwrap(),
        |lab| std::fs::remove_file(lab.path("f")).unwrap(),
        |lab| {
            std::fs::remove_file(lab.path("f")).unwrap();
            std::fs::write(lab.base.join("outside"), "content").unwrap();
            symlink(lab.base.join("outside"), lab.path("f")).unwrap();
        },
        |lab| {
            let recipe = std::fs::read(lab.base.join("recipe")).unwrap();
            std::fs::write(lab.base.join("recipe"), &recipe[..recipe.len() - 1]).unwrap();
        },
    ];
    for damage in damages {
        let lab = Lab::new(WhiteoutFormat::Overlay);
        lab.apply(&tar).unwrap();
        damage(&lab);
        assert_eq!(lab.rebuild().unwrap_err().kind(), Kind::Corrupt);
    }
}

#[test]
fn atk_27_what_a_recipe_does_not_read_is_noticed_too() {
    type Alter<'a> = &'a dyn Fn(&Lab);
    let alter: [(&str, Alter<'_>); 8] = [
        ("dir/link: is not there", &|lab| std::fs::remove_file(lab.path("dir/link")).unwrap()),
        ("dir/link: is another kind of file", &|lab| {
            std::fs::remove_file(lab.path("dir/link")).unwrap();
            std::fs::write(lab.path("dir/link"), "x").unwrap();
        }),
        ("dir/empty: has 1 bytes instead of 0", &|lab| std::fs::write(lab.path("dir/empty"), "x").unwrap()),
        ("dir/empty: has mode 4755 instead of 600", &|lab| {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o4755);
            std::fs::set_permissions(lab.path("dir/empty"), mode).unwrap();
        }),
        ("dir: has mode 777 instead of 750", &|lab| {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
            std::fs::set_permissions(lab.path("dir"), mode).unwrap();
        }),
        ("implied/more: is not of the layer", &|lab| std::fs::write(lab.path("implied/more"), "x").unwrap()),
        ("more: is not of the layer", &|lab| std::fs::create_dir(lab.path("more")).unwrap()),
        ("implied/file: is not there", &|lab| std::fs::remove_dir_all(lab.path("implied")).unwrap()),
    ];
    for (want, alter) in alter {
        let lab = Lab::new(WhiteoutFormat::Overlay);
        let mut w = Writer::new(Vec::new());
        let entry = |path: &str, kind, mode| Entry { path: path.into(), kind, mode, ..Entry::default() };
        w.entry(&entry("dir/", EntryKind::Dir, 0o750)).unwrap();
        w.entry(&entry("dir/empty", EntryKind::File, 0o600)).unwrap();
        w.entry(&Entry { link: b"empty".to_vec(), ..entry("dir/link", EntryKind::Symlink, 0o777) }).unwrap();
        w.entry(&entry("implied/file", EntryKind::File, 0o600)).unwrap();
        lab.round_trip(&w.finish().unwrap());
        alter(&lab);
        lab.rebuild().unwrap();
        let told = lab.differences();
        assert!(told.iter().any(|t| t.starts_with(want)), "{want}: {told:?}");
    }
}

#[test]
fn atk_17_nothing_escapes_by_name() {
    for tar in [
        Tar::new().file("../x", "x").end(),
        Tar::new().file("a/../../x", "x").end(),
        Tar::new().dir("../d").end(),
        Tar::new().file(".wh.../x", "").end(),
        Tar::new().file("f", "").hard("l", "../../etc/passwd").end(),
        Tar::new().hard("l", "etc/passwd").end(),
        Tar::new().link("p", "/etc/passwd").hard("l", "p/x").end(),
    ] {
        let lab = Lab::new(WhiteoutFormat::Overlay);
        let e = lab.apply(&tar).unwrap_err();
        assert_eq!(e.kind(), Kind::Invalid, "{e}");
        assert!(!lab.base.join("x").exists() && !lab.base.join("d").exists());
    }
    let lab = Lab::new(WhiteoutFormat::Overlay);
    lab.round_trip(&Tar::new().file("/abs/x", "absolute").file("/../up", "up").end());
    assert_eq!((lab.read("abs/x"), lab.read("up")), ("absolute".into(), "up".into()));
}

#[test]
fn atk_17_every_kind_through_a_link_stays_inside() {
    for whiteouts in [WhiteoutFormat::Overlay, WhiteoutFormat::Remove] {
        let lab = Lab::new(whiteouts);
        let outside = lab.base.join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("canary"), "alive").unwrap();
        let before = std::fs::metadata(&outside).unwrap();
        let absolute = outside.to_str().unwrap();
        for target in [absolute, "../outside", "../../../../../../outside"] {
            let root = Lab { out: lab.base.join(format!("root-{}", target.len())), ..Lab::new(whiteouts) };
            std::fs::create_dir(&root.out).unwrap();
            let tar = Tar::new()
                .link("evil", target)
                .file("evil/canary", "overwritten")
                .file("evil/new", "new")
                .hard("evil/hard", "evil/new")
                .link("evil/link", "x")
                .node("evil/fifo", EntryKind::Fifo, "")
                .dir("evil/dir")
                .file("evil/.wh.gone", "")
                .end();
            root.round_trip(&tar);
            assert_eq!(std::fs::read_to_string(outside.join("canary")).unwrap(), "alive");
            assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
            // A directory entry replaces the link instead of changing what it points to.
            let tar = Tar::new().link("evil", target).node("evil", EntryKind::Dir, "").end();
            root.apply(&tar).unwrap();
            assert!(root.rebuild().unwrap() == tar);
            let after = std::fs::metadata(&outside).unwrap();
            assert_eq!((after.mode(), after.mtime()), (before.mode(), before.mtime()));
        }
    }
}

#[test]
fn atk_17_deep_links_that_stay_inside_work() {
    let tar = Tar::new()
        .dir("etc/ssl")
        .file("etc/ssl/cacerts", "certificates")
        .link("usr/lib/jvm/java/lib/security", "../../../../../../../etc/ssl")
        .file("usr/lib/jvm/java/lib/security/more", "more")
        .link("loop", "loop")
        .end();
    let lab = Lab::new(WhiteoutFormat::Overlay);
    lab.round_trip(&tar);
    assert_eq!(lab.read("etc/ssl/more"), "more");
    let e = Lab::new(WhiteoutFormat::Overlay).apply(&Tar::new().link("l", "l").file("l/x", "").end());
    assert_eq!(e.unwrap_err().kind(), Kind::Invalid);
    let e = Lab::new(WhiteoutFormat::Overlay).apply(&Tar::new().file("f", "").file("f/x", "").end());
    assert_eq!(e.unwrap_err().kind(), Kind::Invalid);
}

#[test]
fn whiteouts_of_a_shared_directory_remove_only_lower_files() {
    let lab = Lab::new(WhiteoutFormat::Remove);
    let lower = Tar::new().file("a", "1").file("d/x", "1").file("d/sub/y", "1").file("keep", "1").end();
    lab.round_trip(&lower);
    let upper = Tar::new()
        .file("d/new", "2")
        .file("d/.wh..wh..opq", "")
        .file(".wh.a", "")
        .file("b", "2")
        .file(".wh.b", "")
        .file(".wh.absent", "")
        .end();
    lab.round_trip(&upper);
    assert!(!lab.path("a").exists() && !lab.path("d/x").exists() && !lab.path("d/sub").exists());
    assert_eq!((lab.read("d/new"), lab.read("b"), lab.read("keep")), ("2".into(), "2".into(), "1".into()));
}

#[test]
fn privileged_whiteouts_become_overlay_marks() {
    let lab = Lab::new(WhiteoutFormat::Overlay);
    let tar = Tar::new()
        .dir("d")
        .file("d/.wh..wh..opq", "")
        .file("d/.wh.gone", "")
        .file(".wh.both", "")
        .dir("both")
        .file(".wh..wh.plnk", "aufs")
        .end();
    lab.round_trip(&tar);
    let gone = lab.path("d/gone").symlink_metadata().unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    for dir in ["d", "both"] {
        assert_eq!(xattr(&lab.path(dir), "trusted.overlay.opaque").as_deref(), Some(&b"y"[..]), "{dir}");
    }
    assert!(!lab.path(".wh..wh.plnk").exists());
    let index = Index::open(&lab.base.join("index")).unwrap();
    assert!(index.get(b"d/gone").all(|e| e.kind == IndexKind::Whiteout));
    assert!(index.get(b"d").any(|e| e.kind == IndexKind::Opaque));

    // And back: the marks become entries again.
    let mut out = Vec::new();
    let written = write_tree(&lab.out, TreeKind::OverlayUpper, &mut out).unwrap();
    assert_eq!(written.diff_id, Digest::of(&out));
    let names = entries(&out).into_iter().map(|e| String::from_utf8(e.path).unwrap()).collect::<Vec<_>>();
    assert_eq!(names, ["both/", "both/.wh..wh..opq", "d/", "d/.wh..wh..opq", "d/.wh.gone"]);
}

#[test]
fn privileged_owners_modes_devices_and_capabilities() {
    let capability = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let mut w = Writer::new(Vec::new());
    let xattrs = vec![
        (b"security.capability".to_vec(), capability.to_vec()),
        (b"trusted.overlay.redirect".to_vec(), b"/etc".to_vec()),
        (b"user.note".to_vec(), b"a\0\n=b".to_vec()),
    ];
    let base = Entry { uid: 1234, gid: 4_000_000_000, mode: 0o4755, ..Entry::default() };
    let mtime = Time { secs: -3, nanos: 250_000_000 };
    for entry in [
        Entry { path: b"./".to_vec(), kind: EntryKind::Dir, mode: 0o1777, mtime, ..Entry::default() },
        Entry {
            path: b"shared/".to_vec(),
            kind: EntryKind::Dir,
            mode: 0o2775,
            gid: 77,
            mtime,
            ..Entry::default()
        },
        Entry { path: b"shared/mine".to_vec(), mode: 0o644, ..Entry::default() },
        Entry { path: b"ping".to_vec(), size: 1, xattrs: xattrs.clone(), mtime, ..base.clone() },
        Entry { path: b"null".to_vec(), kind: EntryKind::Char, dev: (1, 3), ..base.clone() },
        Entry { path: b"disk".to_vec(), kind: EntryKind::Block, dev: (259, 70000), ..base.clone() },
        Entry { path: b"pipe".to_vec(), kind: EntryKind::Fifo, ..base.clone() },
        Entry { path: b"ln".to_vec(), link: b"x".to_vec(), kind: EntryKind::Symlink, mtime, ..base },
    ] {
        w.entry(&entry).unwrap();
        w.data(&b"x"[..usize::try_from(entry.size).unwrap()]).unwrap();
    }
    let tar = w.finish().unwrap();
    let lab = Lab::new(WhiteoutFormat::Overlay);
    lab.round_trip(&tar);
    let stat = |p: &str| lab.path(p).symlink_metadata().unwrap();
    let root = stat("");
    assert_eq!((root.mode() & 0o7777, root.mtime(), root.mtime_nsec()), (0o1777, -3, 250_000_000));
    let shared = stat("shared");
    assert_eq!((shared.mode() & 0o7777, shared.gid(), shared.mtime()), (0o2775, 77, -3));
    assert_eq!(stat("shared/mine").gid(), 0, "the entry says 0, not the directory's group");
    let ping = stat("ping");
    assert_eq!((ping.uid(), ping.gid(), ping.mode() & 0o7777), (1234, 4_000_000_000, 0o4755));
    assert_eq!(xattr(&lab.path("ping"), "security.capability").as_deref(), Some(&capability[..]));
    assert_eq!(xattr(&lab.path("ping"), "trusted.overlay.redirect"), None);
    assert_eq!(stat("null").rdev(), rustix::fs::makedev(1, 3));
    assert_eq!(stat("disk").rdev(), rustix::fs::makedev(259, 70000));
    assert!(stat("pipe").file_type().is_fifo());
    assert_eq!((stat("ln").uid(), stat("ln").mtime()), (1234, -3));

    // What is written again says the same.
    let mut out = Vec::new();
    write_tree(&lab.out, TreeKind::Plain, &mut out).unwrap();
    let again = entries(&out);
    let ping = again.iter().find(|e| e.path == b"ping").unwrap();
    assert_eq!((ping.uid, ping.gid, ping.mode, ping.mtime), (1234, 4_000_000_000, 0o4755, mtime));
    assert_eq!(ping.xattrs, [xattrs[0].clone(), xattrs[2].clone()]);
    assert_eq!(again.iter().find(|e| e.path == b"disk").unwrap().dev, (259, 70000));
    let listed = Command::new("tar").args(["-tf", "-"]).stdin(std::process::Stdio::piped()).spawn();
    let mut listed = listed.unwrap();
    listed.stdin.take().unwrap().write_all(&out).unwrap();
    assert!(listed.wait().unwrap().success(), "GNU tar reads it");
}

fn entries(tar: &[u8]) -> Vec<Entry> {
    let mut reader = Reader::new(tar, Limits::default());
    let mut entry = Entry::default();
    let mut out = Vec::new();
    while reader.next_entry(&mut entry, &mut ()).unwrap() {
        out.push(entry.clone());
    }
    out
}

#[test]
fn trees_are_written_alike_every_time_and_unpack_to_the_same() {
    let src = tempfile::tempdir().unwrap();
    sample_tree(src.path());
    let _socket = std::os::unix::net::UnixListener::bind(src.path().join("socket")).unwrap();
    let (mut one, mut two) = (Vec::new(), Vec::new());
    write_tree(src.path(), TreeKind::Plain, &mut one).unwrap();
    let lab = Lab::new(WhiteoutFormat::Overlay);
    lab.round_trip(&one);
    write_tree(&lab.out, TreeKind::Plain, &mut two).unwrap();
    assert!(one == two);
    assert!(!lab.path("socket").exists());
    assert_eq!(std::fs::metadata(lab.path("a/twin")).unwrap().nlink(), 2);
}

#[test]
fn changes_are_written_in_order() {
    let src = tempfile::tempdir().unwrap();
    sample_tree(src.path());
    let mut out = Vec::new();
    let changes = [(&b"/empty"[..], false), (b"/a/gone", true), (b"/a", false), (b"/vanished/x", false)];
    write_changes(src.path(), changes, &mut out).unwrap();
    let names: Vec<_> = entries(&out).into_iter().map(|e| String::from_utf8(e.path).unwrap()).collect();
    assert_eq!(names, ["a/", "a/.wh.gone", "empty"]);
}

#[test]
fn atk_28_names_that_would_be_whiteouts_are_not_archived_as_such() {
    let src = tempfile::tempdir().unwrap();
    std::fs::write(src.path().join(".wh..wh..opq"), "").unwrap();
    let e = write_tree(src.path(), TreeKind::OverlayUpper, std::io::sink()).unwrap_err();
    assert_eq!(e.kind(), Kind::Invalid);
}

#[test]
fn atk_28_odd_names_are_defined() {
    let lab = Lab::new(WhiteoutFormat::Overlay);
    lab.round_trip(
        &Tar::new().file("Name", "1").file("name", "2").file("n\u{e9}", "3").file("ne\u{301}", "4").end(),
    );
    assert_eq!(std::fs::read_dir(&lab.out).unwrap().count(), 4);
    for name in [".wh.", ".wh..", ".wh...", ".wh.x/y"] {
        let e = Lab::new(WhiteoutFormat::Overlay).apply(&Tar::new().file(name, "").end()).unwrap_err();
        assert_eq!(e.kind(), Kind::Invalid, "{name}");
    }
    let e = Lab::new(WhiteoutFormat::Overlay).apply(&Tar::new().file(&"d/".repeat(2100), "").end());
    assert_eq!(e.unwrap_err().kind(), Kind::TooLarge);
}

#[test]
fn atk_20_contradictions_are_refused() {
    let octal = |tar: &mut [u8], at: usize, text: &[u8]| {
        tar[at..at + text.len()].copy_from_slice(text);
        tar[148..156].fill(b' ');
        let sum: u32 = tar[..512].iter().map(|b| u32::from(*b)).sum();
        tar[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    };
    let file = Tar::new().file("f", "content").end();
    let mut negative = file.clone();
    octal(&mut negative, 124, &[0xff; 12]);
    let mut directory = file.clone();
    octal(&mut directory, 156, b"5");
    let mut unknown = file.clone();
    octal(&mut unknown, 156, b"V");
    let mut checksum = file.clone();
    checksum[0] = b'g';
    let mut lone_zero = vec![0u8; 512];
    lone_zero.extend(&file);
    let record = |text: &str| {
        let mut w = Writer::new(Vec::new());
        let path = b"x".to_vec();
        w.entry(&Entry { path, size: text.len() as u64, ..Entry::default() }).unwrap();
        w.data(text.as_bytes()).unwrap();
        let mut tar = w.finish().unwrap();
        tar.truncate(1024);
        octal(&mut tar, 156, b"x");
        tar
    };
    let mut sizes = record("10 size=9\n");
    sizes.extend(&file);
    let mut twice = record("10 path=p\n");
    twice.extend(record("10 path=p\n"));
    twice.extend(&file);
    let orphan = record("10 path=p\n");
    let cut = file[..515].to_vec();
    let mut global = record("10 path=p\n");
    octal(&mut global, 156, b"g");
    global.extend(&file);
    for (what, tar) in [
        ("negative size", negative),
        ("directory with data", directory),
        ("unknown type", unknown),
        ("checksum", checksum),
        ("lone zero block", lone_zero),
        ("two sizes", sizes),
        ("two extended headers", twice),
        ("extended header without entry", orphan),
        ("cut", cut),
        ("global path", global),
    ] {
        let e = Lab::new(WhiteoutFormat::Overlay).apply(&tar).expect_err(what);
        assert!(matches!(e.kind(), Kind::Corrupt | Kind::Invalid), "{what}: {e}");
    }
    let mut harmless = record("13 comment=x\n");
    octal(&mut harmless, 156, b"g");
    harmless.extend(&file);
    let lab = Lab::new(WhiteoutFormat::Overlay);
    lab.round_trip(&harmless);
    assert_eq!(lab.read("f"), "content");
}

#[test]
fn atk_21_limits_are_clear_errors() {
    let tar = Tar::new().file("a", "1234").file("b", "1234").end();
    for limits in [
        Limits { entries: 1, ..Limits::default() },
        Limits { file_bytes: 7, ..Limits::default() },
        Limits { bytes: 512, ..Limits::default() },
    ] {
        let mut lab = Lab::new(WhiteoutFormat::Overlay);
        lab.options.limits = limits;
        assert_eq!(lab.apply(&tar).unwrap_err().kind(), Kind::TooLarge);
    }
    let mut lab = Lab::new(WhiteoutFormat::Overlay);
    lab.options.limits.header_bytes = 100;
    let e = lab.apply(&Tar::new().file(&"d/".repeat(200), "").end()).unwrap_err();
    assert_eq!(e.kind(), Kind::TooLarge);
}

#[test]
fn empty_layers_are_layers() {
    for tar in [vec![], vec![0u8; 1024], vec![0u8; 10240], vec![0u8; 512]] {
        let lab = Lab::new(WhiteoutFormat::Overlay);
        assert_eq!(lab.round_trip(&tar).entries, 0);
    }
}

#[test]
fn a_source_that_fails_keeps_its_error() {
    struct Failing;
    impl std::io::Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(Error::Unavailable("registry went away".into()).into())
        }
    }
    let lab = Lab::new(WhiteoutFormat::Overlay);
    let e = apply(&lab.out, Failing, &ApplyOptions::default()).unwrap_err();
    assert_eq!(e.kind(), Kind::Unavailable);
}

/// Neither the stack nor the descriptors may depend on how deep a tree is.
#[test]
fn atk_59_deep_trees_are_unpacked_replaced_and_archived() {
    let small = std::thread::Builder::new().stack_size(256 << 10);
    small.spawn(|| deep_trees(600)).unwrap().join().unwrap();
}

fn deep_trees(depth: usize) {
    let deep = "d/".repeat(depth);
    let tar = Tar::new().file(&format!("{deep}f"), "text").file("e", "after").end();
    let lab = Lab::new(WhiteoutFormat::Overlay);
    lab.round_trip(&tar);
    let before = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mut out = CountFds(before, 0);
    let written = write_tree(&lab.out, TreeKind::Plain, &mut out).unwrap();
    assert_eq!(written.entries, depth as u64 + 2);
    assert!(out.1 < 300, "{} descriptors", out.1);
    clear(&lab);
    // What a link points to is made, too.
    let lab = Lab::new(WhiteoutFormat::Overlay);
    lab.round_trip(&Tar::new().link("l", &deep).file("l/f", "text").end());
    assert_eq!(lab.read(&format!("{deep}f")), "text");
    clear(&lab);
    // All of it gives way to a file.
    let lab = Lab::new(WhiteoutFormat::Overlay);
    lab.round_trip(&Tar::new().file(&format!("{deep}f"), "text").file("d", "now a file").end());
    assert_eq!(lab.read("d"), "now a file");
}

/// The folder's own end is recursive.
fn clear(lab: &Lab) {
    assert!(Command::new("rm").arg("-rf").arg(&lab.out).status().unwrap().success());
}

/// The most descriptors that were open while something was written, beyond those before.
struct CountFds(usize, usize);

impl Write for CountFds {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let now = std::fs::read_dir("/proc/self/fd")?.count();
        self.1 = self.1.max(now.saturating_sub(self.0));
        Ok(buf.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
