//! What addresses mean.

use super::*;

fn git(text: &str) -> Repository {
    match parse(text) {
        Ok(Some(Remote::Git(repository))) => repository,
        other => panic!("{text}: {other:?}"),
    }
}

fn shown(text: &str) -> String {
    let r = git(text);
    format!("{} {} {}", r.address.reveal(), r.reference.as_deref().unwrap_or("-"), r.subdir)
}

#[test]
fn repositories_are_told_from_files() {
    for (text, want) in [
        ("https://host/x.git", "https://host/x.git - "),
        ("https://host/x.git#", "https://host/x.git - "),
        ("https://host/x.git#v1", "https://host/x.git v1 "),
        ("https://host/x.git#:a/../b/", "https://host/x.git - b"),
        ("https://host/x.git#feature/one:../../a", "https://host/x.git feature/one a"),
        ("https://host/x.git#feature%2Fone", "https://host/x.git feature/one "),
        ("https://host/x.git?ref=v1&subdir=%2Fa", "https://host/x.git v1 a"),
        ("https://host/x.git?tag=v1", "https://host/x.git refs/tags/v1 "),
        ("https://host/x.git?branch=refs/heads/b", "https://host/x.git refs/heads/b "),
        ("git://host/x", "git://host/x - "),
        ("ssh://git@host:22/x#y", "ssh://git@host:22/x y "),
        ("git@host:o/x.git#y:z", "git@host:o/x.git y z"),
        ("git@host:o/x?ref=y", "git@host:o/x y "),
    ] {
        assert_eq!(shown(text), want, "{text}");
    }
    for text in ["a", "./a.git", "a/b", "/a:b", "github.com/o/x", "a@b", "x:y"] {
        assert_eq!(parse(text), Ok(None), "{text}");
    }
    for text in ["http://host/x", "https://host/x.git/", "https://host/x.git.tar", "https://host/?a=x.git"] {
        assert!(matches!(parse(text), Ok(Some(Remote::File(_)))), "{text}");
    }
    let context = parse_context("github.com/o/x#y");
    assert!(matches!(context, Ok(Some(Remote::Git(r))) if r.address.reveal() == "https://github.com/o/x"));
}

#[test]
fn what_is_asked_for_in_a_query() {
    let r =
        git("https://h/x.git?keep-git-dir&submodules=0&commit=ABC123&mtime=checkout&fetch-by-commit=true");
    assert_eq!(r.checksum.as_deref(), Some("abc123"));
    assert!(r.keeps_git_dir() && !r.submodules && r.times_of_checkout && r.by_commit);
    assert!(!git("https://h/x.git?keep-git-dir=true&subdir=a").keeps_git_dir());
    for (query, want) in [
        ("?ref=a&ref=b", "query \"ref\" has multiple values"),
        ("?ref=", "query \"ref\" has no value"),
        ("?ref=a#b", "ref conflicts: \"b\" vs \"a\""),
        ("?tag=a&branch=b", "branch conflicts with tag"),
        ("?subdir=a#:b", "subdir conflicts: \"b\" vs \"a\""),
        ("?submodules=maybe", "invalid submodules value: \"maybe\""),
        ("?mtime=now", "invalid mtime value: \"now\" (must be \"checkout\" or \"commit\")"),
        ("?depth=1", "unexpected query \"depth\""),
        ("?commit=xyz", "invalid checksum \"xyz\" for a Git repository: want the id of a commit"),
    ] {
        assert_eq!(parse(&format!("https://h/x.git{query}")), Err(want.to_owned()), "{query}");
    }
    let mut r = git("https://h/x.git?keep-git-dir=false&commit=ab");
    assert_eq!(r.keep(true).unwrap_err(), "inconsistent keep-git-dir configuration");
    assert!(r.expect("AB").is_ok());
    assert_eq!(r.expect("cd").unwrap_err(), "checksum mismatch \"cd\" != \"ab\"");
}

#[test]
fn nothing_becomes_an_option() {
    for text in [
        "https://h/x.git#--upload-pack=touch",
        "https://h/x.git?ref=-x",
        "https://h/x.git#a..b",
        "https://h/x.git#a*",
        "https://h/x.git#a b",
        "https://h/x.git#HEAD~1",
        "ssh://-oProxyCommand=x/y",
        "ssh://me@-oProxyCommand=x/y",
        "git@-oProxyCommand=x:y",
        "https://h/a b.git",
        "https://h/\u{7f}.git",
    ] {
        // What is no address at all is the name of a file.
        assert!(matches!(parse(text), Err(_) | Ok(None)), "{text}: {:?}", parse(text));
    }
    assert!(parse("https://h/x.git#-x").is_err());
    for text in ["file:///etc", "ftp://h/x", "gopher://h"] {
        assert!(parse(text).unwrap_err().contains("is not fetched"), "{text}");
    }
}

#[test]
fn an_address_hides_what_it_holds() {
    let address = Address::new("https://me:hunter2@h:8443/a/b%20c?token=t#f").unwrap();
    assert_eq!(format!("{address} {address:?}"), "https://h:8443/a/b%20c https://h:8443/a/b%20c");
    assert_eq!(address.user(), Some("me:hunter2"));
    assert_eq!(address.without_user(), "https://h:8443/a/b%20c?token=t#f");
    assert_eq!(Address::new("git@h:x").unwrap().to_string(), "git@h:x");
    let error = Address::new("https://me:hunter2@h/ x").unwrap_err();
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn files_are_named_by_their_address() {
    let name = |text: &str| {
        Address::new(text).unwrap().file_name().map(|name| String::from_utf8_lossy(&name).into_owned())
    };
    for (text, want) in [
        ("https://h/a/b.tar.gz?x=/y", Some("b.tar.gz")),
        ("https://h/a/b/", Some("b")),
        ("https://h/a%20b", Some("a b")),
        ("https://h/a%2Fb", Some("b")),
        ("https://h/a/..", None),
        ("https://h/a/%2e%2e", None),
        ("https://h/a%00b", None),
        ("https://h", None),
        ("https://h?x", None),
        ("https://h/", None),
    ] {
        assert_eq!(name(text).as_deref(), want, "{text}");
    }
}
