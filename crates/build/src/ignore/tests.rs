use super::*;

/// What of `paths` is left.
fn left<'a>(file: &str, paths: &[&'a str]) -> Vec<&'a str> {
    let ignore = Ignore::parse(file.as_bytes()).unwrap();
    paths.iter().copied().filter(|path| !ignore.excludes(path.as_bytes())).collect()
}

#[track_caller]
fn check(file: &str, paths: &[&str], expected: &[&str]) {
    assert_eq!(left(file, paths), expected, "{file:?}");
}

const PROJECT: &[&str] = &[
    "Makefile",
    "README.md",
    "docs",
    "docs/README.md",
    "docs/img",
    "docs/img/a.png",
    "lib",
    "lib/core.c",
    "lib/core.o",
    "lib/sub",
    "lib/sub/x.o",
    "main.c",
    "main.o",
];

#[test]
fn files_that_say_nothing_exclude_nothing() {
    for file in [
        "",
        "\n\n",
        "# a comment",
        "#",
        "  \t\n",
        ".",
        "/",
        "./",
        "\u{feff}",
        "\u{feff}# x",
        "..",
        "../main.c",
        "nothing",
    ] {
        check(file, PROJECT, PROJECT);
    }
}

#[test]
fn names_exclude_themselves_and_what_is_below() {
    for file in [
        "docs",
        "docs/",
        "/docs",
        "/docs/",
        "./docs",
        "docs//",
        " docs ",
        "docs\r\n",
        "x/../docs",
        "\u{feff}docs",
        "docs/.",
        "d*",
        "/d*",
        "doc?",
        "[d]ocs",
        "[^lmMR]*",
        "d\\ocs",
    ] {
        let kept: Vec<_> = PROJECT.iter().copied().filter(|p| !p.starts_with("docs")).collect();
        check(file, PROJECT, &kept);
    }
}

#[test]
fn wildcards() {
    check("*.o", &["main.o", "lib/core.o"], &["lib/core.o"]);
    check("*/*.o", &["main.o", "lib/core.o", "lib/sub/x.o"], &["main.o", "lib/sub/x.o"]);
    check("**/*.o", &["main.o", "lib/core.o", "lib/sub/x.o", "main.c"], &["main.c"]);
    check("lib/**", &["lib", "lib/core.c", "lib/sub/x.o", "libx"], &["lib", "libx"]);
    check("lib/*", &["lib", "lib/core.c", "lib/sub/x.o"], &["lib"]);
    check("**/sub", &["lib/sub", "lib/sub/x.o", "sub", "lib/subs"], &["lib/subs"]);
    check("*", PROJECT, &[]);
    check("**", PROJECT, &[]);
    check("*.md", PROJECT, &left("README.md", PROJECT));
    check("lib/*/x.?", &["lib/x.o", "lib/sub/x.o"], &["lib/x.o"]);
    check("a[b-d]", &["ab", "ad", "ae", "ab/x"], &["ae"]);
    check("\\*", &["*", "a"], &["a"]);
    check("\\#a", &["#a", "a"], &["a"]);
    check("\\!a", &["!a", "a"], &["a"]);
    check("a.b", &["a.b", "axb"], &["axb"]);
    check("(x)", &["(x)", "x"], &["x"]);
    check(".*", &[".git", ".git/x", "a", "a/.git"], &["a", "a/.git"]);
    check("a b", &["a b", "a", "b"], &["a", "b"]);
    check("漢*", &["漢字", "字"], &["字"]);
    check(" #a", &["#a", "a"], &["a"]);
}

#[test]
fn exceptions_let_in_again_and_the_last_line_decides() {
    check("*.md\n!README.md", &["README.md", "x.md", "docs/README.md"], &["README.md", "docs/README.md"]);
    check("!README.md\n*.md", &["README.md"], &[]);
    check("*.md\n!README*.md\nREADME-secret.md", &["README.md", "README-secret.md", "x.md"], &["README.md"]);
    check("docs\n!docs/README.md", &["docs", "docs/README.md", "docs/img/a.png"], &["docs/README.md"]);
    check(
        "docs\n!docs/img",
        &["docs/README.md", "docs/img", "docs/img/a.png"],
        &["docs/img", "docs/img/a.png"],
    );
    check("docs/\n! docs/img/", &["docs/img/a.png"], &["docs/img/a.png"]);
    check("docs\n!/docs/img", &["docs/img/a.png"], &["docs/img/a.png"]);
    check("*\n!lib", &["main.c", "lib", "lib/core.c"], &["lib", "lib/core.c"]);
    check("*\n!lib/*.c", &["lib", "lib/core.c", "lib/core.o"], &["lib/core.c"]);
    check("*\n!**/*.c", &["main.c", "lib/core.c", "lib/core.o"], &["main.c", "lib/core.c"]);
    check("**\n!lib\nlib/sub", &["lib/core.c", "lib/sub", "lib/sub/x.o"], &["lib/core.c"]);
    check("**\n!lib\nlib/sub\n!lib/sub/x.o", &["lib/sub", "lib/sub/x.o"], &["lib/sub/x.o"]);
    check("*/**\n!lib", &["main.c", "lib/core.c", "docs/img"], &["main.c", "lib/core.c"]);
    check("lib\n!lib\nlib", &["lib/core.c"], &[]);
    check("lib\n!lib/core.c\nlib", &["lib/core.c"], &[]);
    check("!!a", &["!a", "a"], &["!a", "a"]);
    check("*\n!!a", &["!a", "a"], &["!a"]);
    check("!lib", PROJECT, PROJECT);
    check("*\n!..", PROJECT, &[]);
    check("lib/*\n!lib/core.*\nlib/core.o", &["lib/core.c", "lib/core.o", "lib/sub"], &["lib/core.c"]);
    check("**/*\n!**/*.md", &["README.md", "docs/README.md", "main.c"], &["README.md", "docs/README.md"]);
}

#[test]
fn malformed_lines_are_named() {
    for (file, message) in [
        ("a\n[\n", "ignore file: line 2: pattern \"[\": syntax error in pattern"),
        ("!", "ignore file: line 1: illegal exclusion pattern: \"!\""),
        ("a\n\n ! \n", "ignore file: line 3: illegal exclusion pattern: \"!\""),
        ("!/", "ignore file: line 1: illegal exclusion pattern: \"!\""),
        ("a\\", "ignore file: line 1: pattern \"a\\\\\": syntax error in pattern"),
    ] {
        assert_eq!(Ignore::parse(file.as_bytes()).unwrap_err().to_string(), message);
    }
    let long = "x".repeat(MAX_PATTERN + 1);
    assert!(matches!(Ignore::parse(long.as_bytes()), Err(Error::Line { line: 1, .. })));
    // Comments are not patterns.
    assert!(Ignore::parse(format!("#{long}\n#[").as_bytes()).unwrap().is_empty());
    let large = "#\n".repeat(MAX_FILE / 2 + 1);
    assert_eq!(Ignore::parse(large.as_bytes()).unwrap_err(), Error::TooLarge(large.len()));
    let many = "a\n".repeat(crate::pattern::MAX_PATTERNS + 1);
    assert!(Ignore::parse(many.as_bytes()).is_err());
}

#[test]
fn paths_may_be_written_in_any_way() {
    for path in ["docs/img", "./docs/img", "docs//img/", "docs/x/../img"] {
        check("docs", &[path], &[]);
    }
    // The root itself is never taken out.
    for root in ["", ".", "./"] {
        check("**", &[root], &[root]);
    }
}

#[test]
fn a_walk_may_skip_what_no_exception_can_reach() {
    let check = |file: &str, dir: &str, skip: bool| {
        assert_eq!(
            Ignore::parse(file.as_bytes()).unwrap().may_skip_dir(dir.as_bytes()),
            skip,
            "{file:?} {dir}"
        );
    };
    check("docs", "docs", true);
    check("docs", "lib", false);
    check("*", "docs", true);
    check("*\n!docs/a", "docs", false);
    check("*\n!docs/a", "lib", true);
    check("*\n!**/a", "lib/sub", false);
    check("!docs/a\n*", "docs", true);
    check("*\n!docs/a/b", "docs/a", false);
    check("*\n!docs/a/b", "docs/x", true);
    check("*\n!d*/a", "docs", false);
    check("*\n!d*/a", "lib", true);
    check("*\n!docs", "docs", false);
    check("*\n!a**", "ab", false);
}

#[test]
fn the_builders_own_files_are_sent_even_where_they_are_excluded() {
    let ignore = Ignore::parse(b"*\n!src").unwrap();
    let sent = ignore.sending([&b"./build/Dockerfile"[..], b".dockerignore", b"src"]).unwrap();
    for path in ["build/Dockerfile", ".dockerignore", "src/x"] {
        assert!(!sent.excludes(path.as_bytes()), "{path}");
    }
    assert!(sent.excludes(b"build/other"));
    assert!(!sent.may_skip_dir(b"build"));
    assert!(ignore.excludes(b"build/Dockerfile"));
    // Names are not patterns there.
    let odd = Ignore::parse(b"**").unwrap().sending([&b"!D[o]*  "[..]]).unwrap();
    assert!(!odd.excludes(b"!D[o]*  "));
    assert!(odd.excludes(b"!Do"));
    let names = candidates(b"build/my.Dockerfile");
    assert_eq!(names, [b"build/my.Dockerfile.dockerignore".to_vec(), b".dockerignore".to_vec()]);
}
