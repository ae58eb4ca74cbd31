use std::os::unix::fs::PermissionsExt;

use rustix::fs::{CWD, FileType, Mode};

use super::*;

#[track_caller]
fn check_walk(files: &[&str], ignore: &str, expected: &[&str]) {
    let (dir, _) = tree(files);
    let context = Context::open(dir.path(), &Ignore::parse(ignore.as_bytes()).unwrap()).unwrap();
    assert_eq!(paths(&context), expected, "{ignore:?}");
}

#[test]
fn a_walk_lists_a_tree_in_its_order() {
    check_walk(&["b", "a/z", "a/b/c", "a.b", "a-b"], "", &["a", "a/b", "a/b/c", "a/z", "a-b", "a.b", "b"]);
    check_walk(&[], "", &[]);
}

#[test]
fn what_is_ignored_is_not_listed() {
    let files = &["docs/README", "docs/img/a", "docs/img/b", "lib/x.o", "lib/sub/y.c", "main.c"];
    check_walk(files, "docs\nlib", &["main.c"]);
    check_walk(files, "**/*.o\nmain.c\ndocs/*", &["docs", "lib", "lib/sub", "lib/sub/y.c"]);
    // Directories are listed where something in them is.
    check_walk(files, "*\n!docs/img/a", &["docs", "docs/img", "docs/img/a"]);
    check_walk(files, "*\n!**/y.c", &["lib", "lib/sub", "lib/sub/y.c"]);
    check_walk(files, "*\n!**/none", &[]);
    check_walk(files, "*\n!lib", &["lib", "lib/sub", "lib/sub/y.c", "lib/x.o"]);
    check_walk(&["a/b/c/d/", "a/b/x"], "*\n!**/d", &["a", "a/b", "a/b/c", "a/b/c/d"]);
}

#[test]
fn entries_say_what_they_are() {
    let (dir, _) = tree(&["file", "dir/", "link->../../etc/passwd"]);
    fs::set_permissions(dir.path().join("file"), fs::Permissions::from_mode(0o4751)).unwrap();
    rustix::fs::mknodat(CWD, dir.path().join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    let options = Options { owner: Some((7, 8)), ..Options::default() };
    let root = Root::open(dir.path()).unwrap();
    let context = Context::walk(root, &Ignore::default(), &options).unwrap();
    let got: Vec<_> = context.entries().iter().map(|e| (text(&e.path), e.kind, e.size)).collect();
    let expected = [
        ("dir", EntryKind::Dir, 0),
        ("file", EntryKind::File, 4),
        ("link", EntryKind::Symlink, 0),
        ("pipe", EntryKind::Fifo, 0),
    ];
    assert_eq!(got, expected.map(|(path, kind, size)| (path.to_owned(), kind, size)));
    let file = &context.entries()[1];
    assert_eq!((file.mode, file.uid, file.gid), (0o4751, 7, 8));
    assert_eq!(context.entries()[2].link, b"../../etc/passwd");
    assert_eq!(context.tree().entries()[0].mode, 0o755);
    assert!(file.mtime.secs > 1_000_000_000);
}

/// More directories than one thread reads.
#[test]
fn a_wide_tree_is_listed_like_a_small_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut files: Vec<String> = (0..400).map(|n| format!("d{}/e{}/f{n}", n % 100, n % 7)).collect();
    files.extend((0..50).map(|n| format!("d{n}.x/keep/g")));
    make(dir.path(), &files.iter().map(|path| (path.as_str(), "")).collect::<Vec<_>>());
    let expected = |kept: &dyn Fn(&str) -> bool| {
        let kept = files.iter().filter(|path| kept(path));
        let all = kept.flat_map(|path| {
            path.match_indices('/').map(|(at, _)| path[..at].to_owned()).chain([path.clone()])
        });
        let mut all: Vec<String> = all.collect();
        all.sort_by(|a, b| longshore_store::layer::tree_order(a.as_bytes(), b.as_bytes()));
        all.dedup();
        all
    };
    let walk = |ignore: &str| Context::open(dir.path(), &Ignore::parse(ignore.as_bytes()).unwrap()).unwrap();
    for _ in 0..20 {
        assert_eq!(paths(&walk("")), expected(&|_| true));
        assert_eq!(paths(&walk("*\n!**/keep")), expected(&|path| path.contains("keep")));
        assert_eq!(paths(&walk("**/e3")), {
            let gone = |path: &str| path.contains("/e3/");
            // Their parents have other directories, or stay empty.
            let mut all = expected(&|_| true);
            all.retain(|path| !gone(path) && !path.ends_with("/e3"));
            all
        });
    }
    let options = Options { entries: 300, ..Options::default() };
    let walked = Context::walk(Root::open(dir.path()).unwrap(), &Ignore::default(), &options);
    assert!(matches!(walked, Err(Error::TooLarge(_))));
}

/// As root nothing is unreadable, except what the kernel itself refuses to list.
#[test]
fn what_cannot_be_read_is_named() {
    if longshore_sys::is_root() {
        return;
    }
    let (dir, _) = tree(&["open", "shut/x"]);
    let mode = |mode| fs::set_permissions(dir.path().join("shut"), fs::Permissions::from_mode(mode)).unwrap();
    mode(0);
    let error = Context::open(dir.path(), &Ignore::default()).unwrap_err();
    assert_eq!(error.to_string(), "open shut: permission denied");
    assert_eq!(error.kind(), longshore_oci::Kind::Denied);
    let ignored = Context::open(dir.path(), &Ignore::parse(b"shut\n!shut/x/y").unwrap());
    assert_eq!(paths(&ignored.unwrap()), ["open"]);
    mode(0o755);
}

#[test]
fn limits_are_told() {
    let (dir, _) = tree(&["a", "b", "c"]);
    let root = || Root::open(dir.path()).unwrap();
    let walk =
        |entries| Context::walk(root(), &Ignore::default(), &Options { entries, ..Options::default() });
    assert!(walk(3).is_ok());
    let message = walk(2).unwrap_err().to_string();
    assert_eq!(message, "the context has more than 2 files: exclude some with a .dockerignore file");
}

#[test]
fn a_tree_deeper_than_a_stack_is_walked_until_its_paths_are_too_long() {
    let dir = tempfile::tempdir().unwrap();
    let mut fd = rustix::fs::open(dir.path(), rustix::fs::OFlags::RDONLY, Mode::empty()).unwrap();
    for _ in 0..2100 {
        rustix::fs::mkdirat(&fd, "d", Mode::from_raw_mode(0o755)).unwrap();
        fd = rustix::fs::openat(&fd, "d", rustix::fs::OFlags::RDONLY, Mode::empty()).unwrap();
    }
    let error = Context::open(dir.path(), &Ignore::default()).unwrap_err();
    assert!(matches!(error, Error::TooLarge(_)), "{error}");
    let context = Context::open(dir.path(), &Ignore::parse(b"d/d/d/d/d").unwrap()).unwrap();
    assert_eq!(context.entries().len(), 4);
    longshore_store::remove_tree(dir.path()).unwrap();
}

/// A context that holds links out of it tells nothing of what is there.
#[test]
fn atk_50_no_link_leads_out_of_a_context() {
    let top = tempfile::tempdir().unwrap();
    make(
        top.path(),
        &[("secret", "s"), ("c/up->../secret", ""), ("c/d->..", ""), ("c/p->/proc/self/root", "")],
    );
    let context = Context::open(&top.path().join("c"), &Ignore::default()).unwrap();
    assert_eq!(paths(&context), ["d", "p", "up"]);
    for source in ["up", "d/secret", "p/etc/passwd", "../secret", "d/../../secret"] {
        let error = select(context.tree(), &[source], &SelectOptions::default()).unwrap_err();
        assert!(matches!(error, Error::NotFound(_)), "{source}: {error}");
    }
    // A directory that becomes a link while it is used.
    make(top.path(), &[("k/sub/f", "1")]);
    let context = Context::open(&top.path().join("k"), &Ignore::default()).unwrap();
    let selected = select(context.tree(), &["."], &SelectOptions::default()).unwrap();
    fs::rename(top.path().join("k/sub"), top.path().join("moved")).unwrap();
    symlink("../moved", top.path().join("k/sub")).unwrap();
    assert!(matches!(context.hash(&selected), Err(Error::Changed(_))));
}
