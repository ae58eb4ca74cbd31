use longshore_oci::Kind;
use longshore_store::tar::{Entry as Member, EntryKind as Type, Limits, Time, Writer};

use super::*;

fn member(path: &str, kind: Type, link: &str, size: usize) -> Member {
    Member {
        path: path.into(),
        link: link.into(),
        kind,
        mode: if kind == Type::Dir { 0o755 } else { 0o640 },
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        size: size as u64,
        mtime: Time { secs: 1000, nanos: 0 },
        ..Member::default()
    }
}

/// Files, directories (`/` at the end), links (`->`) and hard links (`=>`).
fn tar(members: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (path, content) in members {
        let entry = if let Some((path, target)) = path.split_once("->") {
            member(path, Type::Symlink, target, 0)
        } else if let Some((path, target)) = path.split_once("=>") {
            member(path, Type::HardLink, target, 0)
        } else if path.ends_with('/') {
            member(path, Type::Dir, "", 0)
        } else {
            member(path, Type::File, "", content.len())
        };
        writer.entry(&entry).unwrap();
        writer.data(content.as_bytes()).unwrap();
    }
    writer.finish().unwrap()
}

/// Unpacks in a folder beside a canary, which must not be touched.
fn unpacked(archive: &[u8], options: &UnpackOptions) -> (tempfile::TempDir, Result<Unpacked>) {
    let top = tempfile::tempdir().unwrap();
    fs::write(top.path().join("canary"), "untouched").unwrap();
    let done = unpack(archive, &top.path().join("c"), options);
    assert_eq!(fs::read(top.path().join("canary")).unwrap(), b"untouched");
    let names = fs::read_dir(top.path()).unwrap().count();
    assert_eq!(names, if done.is_ok() { 2 } else { 1 }, "what failed is removed");
    (top, done)
}

#[track_caller]
fn check(members: &[(&str, &str)], expected: &[&str]) {
    let (_top, done) = unpacked(&tar(members), &UnpackOptions::default());
    let context = Context::open(&done.unwrap().root, &Ignore::default()).unwrap();
    let got: Vec<_> = context
        .entries()
        .iter()
        .map(|e| match e.kind {
            EntryKind::Symlink => format!("{}->{}", text(&e.path), text(&e.link)),
            EntryKind::File => format!("{}:{}", text(&e.path), e.size),
            _ => text(&e.path),
        })
        .collect();
    assert_eq!(got, expected);
}

#[test]
fn what_docker_accepts_is_unpacked() {
    check(&[], &[]);
    check(&[("Dockerfile", "FROM x")], &["Dockerfile:6"]);
    check(&[("./", ""), ("./a/", ""), ("./a/b", "1")], &["a", "a/b:1"]);
    check(&[("a/b/c", "1")], &["a", "a/b", "a/b/c:1"]);
    check(&[("/etc/x", "1")], &["etc", "etc/x:1"]);
    check(&[("a/../b", "1")], &["b:1"]);
    check(&[("a", "1"), ("a", "22")], &["a:2"]);
    check(&[("a/b", "1"), ("a", "22")], &["a:2"]);
    check(&[("a", "1"), ("a/", "")], &["a"]);
    check(&[("a", "1"), ("b=>a", "")], &["a:1", "b:1"]);
    check(&[("a", "1"), ("b=>/a", "")], &["a:1", "b:1"]);
    check(&[(".wh.x", "1"), ("d/.wh..wh..opq", "")], &[".wh.x:1", "d", "d/.wh..wh..opq:0"]);
    check(&[("l->nowhere", "")], &["l->nowhere"]);
}

#[test]
fn modes_times_and_owners_are_the_archives() {
    let mut writer = Writer::new(Vec::new());
    let special = Member { mode: 0o4711, uid: 5, gid: 6, ..member("f", Type::File, "", 0) };
    writer.entry(&special).unwrap();
    let archive = writer.finish().unwrap();
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let options = UnpackOptions { owner: Some(own), ..UnpackOptions::default() };
    let (_top, done) = unpacked(&archive, &options);
    let done = done.unwrap();
    let context = Context::open(&done.root, &Ignore::default()).unwrap();
    let file = &context.entries()[0];
    assert_eq!((file.mode, file.uid, file.gid, file.mtime.secs), (0o4711, own.0, own.1, 1000));
    assert_eq!((done.entries, done.size), (1, 0));
    if longshore_sys::is_root() {
        let (_top, done) = unpacked(&archive, &UnpackOptions::default());
        let context = Context::open(&done.unwrap().root, &Ignore::default()).unwrap();
        assert_eq!((context.entries()[0].uid, context.entries()[0].gid), (5, 6));
    }
}

#[test]
fn nobody_else_sees_what_is_unpacked() {
    use std::os::unix::fs::PermissionsExt;
    let (_top, done) = unpacked(&tar(&[("./", "")]), &UnpackOptions::default());
    let root = done.unwrap().root;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&root), mode(root.parent().unwrap())), (0o755, 0o700));
    let again = unpack(&tar(&[])[..], root.parent().unwrap(), &UnpackOptions::default());
    assert!(matches!(again, Err(Error::Io { .. })), "only a fresh directory");
    assert!(root.exists());
}

#[test]
fn other_compressions_are_read() {
    use std::io::Write as _;
    let plain = tar(&[("a", "some text")]);
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&plain).unwrap();
    let options = lzma_rust2::XzOptions::with_preset(0);
    let mut xz = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    xz.write_all(&plain).unwrap();
    for packed in [bzip2.finish().unwrap(), xz.finish().unwrap()] {
        let (_top, done) = unpacked(&packed, &UnpackOptions::default());
        assert_eq!(fs::read(done.unwrap().root.join("a")).unwrap(), b"some text");
    }
    for start in [&b"BZh91AY&SY"[..], b"\xfd7zXZ\0\0\0"] {
        let (_top, done) = unpacked(start, &UnpackOptions::default());
        assert_eq!(done.unwrap_err().kind(), Kind::Corrupt);
    }
}

#[test]
fn broken_archives_are_refused() {
    let whole = tar(&[("a", "some text"), ("b", "more")]);
    for cut in [100, 512 + 4, 1024 + 7] {
        assert!(unpacked(&whole[..cut], &UnpackOptions::default()).1.is_err(), "{cut}");
    }
    assert!(unpacked(b"FROM busybox\nRUN true\n", &UnpackOptions::default()).1.is_err());
    assert!(unpacked(&[0x1f, 0x8b, 8, 0, 1, 2, 3], &UnpackOptions::default()).1.is_err());
    let limits = Limits { entries: 1, ..Limits::default() };
    let error = unpacked(&whole, &UnpackOptions { limits, ..UnpackOptions::default() }).1.unwrap_err();
    assert_eq!(error.kind(), Kind::TooLarge, "{error}");
    let limits = Limits { file_bytes: 10, ..Limits::default() };
    let error = unpacked(&whole, &UnpackOptions { limits, ..UnpackOptions::default() }).1.unwrap_err();
    assert_eq!(error.kind(), Kind::TooLarge, "{error}");
}

/// Names, links and hard links that lead out either fail or stay inside.
#[test]
fn atk_47_no_archive_writes_outside_its_directory() {
    let refused: &[&[(&str, &str)]] = &[
        &[("../canary", "x")],
        &[("../../c2", "x")],
        &[("a/../../canary", "x")],
        &[("h=>../canary", "")],
        &[("h=>../../etc/passwd", "")],
        &[("h=>/etc/passwd", "")],
        &[("l->../..", ""), ("h=>l/canary", "")],
        &[("l->l", ""), ("l/x", "1")],
    ];
    for members in refused {
        let done = unpacked(&tar(members), &UnpackOptions::default()).1;
        assert!(done.is_err(), "{members:?}");
    }
    check(&[("l->..", ""), ("l/canary", "x")], &["canary:1", "l->.."]);
    check(&[("l->../..", ""), ("l/canary", "x")], &["canary:1", "l->../.."]);
    check(&[("l->/etc", ""), ("l/passwd", "x")], &["etc", "etc/passwd:1", "l->/etc"]);
    check(&[("/../canary", "x")], &["canary:1"]);
    // A link that a file takes the place of is not written through.
    check(&[("l->../canary", ""), ("l", "x")], &["l:1"]);
    // A hard link to a link, which is then written to.
    check(&[("l->../canary", ""), ("h=>l", ""), ("h", "x")], &["h:1", "l->../canary"]);
}
