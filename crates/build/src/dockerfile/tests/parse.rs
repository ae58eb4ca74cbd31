use super::super::*;
use super::{file, kind, one, strings, wrong};
use std::time::Duration;

/// Instructions as `name: source`.
fn sources(text: &str) -> Vec<String> {
    file(text).instructions.into_iter().map(|i| i.source).collect()
}

#[test]
fn lines_are_joined() {
    let check = |text: &str, want: &[&str]| assert_eq!(sources(text), want, "{text:?}");
    check("FROM a\nRUN b \\\n  c\\\nd\n", &["FROM a", "RUN b   cd"]);
    check("  FROM a  \r\n\tRUN b \\\r\n c\r\n", &["FROM a", "RUN b  c"]);
    check("\u{feff}FROM a", &["FROM a"]);
    check("RUN a \\ \t\n# no\n   # no\nb # yes", &["RUN a b # yes"]);
    check("RUN a \\\n\n   \nb", &["RUN a b"]);
    check("RUN a \\", &["RUN a"]);
    check("RUN a \\\n# no\n", &["RUN a"]);
    check("RUN a\n\\\n", &["RUN a"]);
    check("\\\nRUN a", &["RUN a"]);
    // A doubled escape character does not join.
    check("RUN a \\\\\nRUN b", &["RUN a \\\\", "RUN b"]);
    check("# escape=`\nRUN a `\n b\nRUN c \\\nRUN d", &["RUN a  b", "RUN c \\", "RUN d"]);
}

#[test]
fn empty_continuations_are_remembered() {
    let found = file("FROM a\nRUN b \\\n\n  c\nRUN d \\\n# x\n e\n").empty_continuations;
    assert_eq!(found.iter().map(|s| s.line).collect::<Vec<_>>(), [4]);
}

#[test]
fn comments_belong_to_what_follows() {
    let all = file("# a\n#b\nFROM x\n# c\n\nRUN d\n# e\n#\n# f\nRUN g");
    let comments: Vec<_> = all.instructions.iter().map(|i| i.comments.join(",")).collect();
    assert_eq!(comments, ["a,b", "", "f"]);
    let doc = kind("# a what it is\n# b other\nARG a b=1 c");
    let Kind::Arg(defs) = doc else { panic!() };
    assert_eq!(
        defs.iter().map(|d| d.doc.as_deref()).collect::<Vec<_>>(),
        [Some("what it is"), Some("other"), None]
    );
}

#[test]
fn directives() {
    let d = file("#!/usr/bin/env x\n# Syntax = docker/dockerfile:1.20 \n#escape=`\n# check=skip=A, B;error=true\nFROM a")
        .directives;
    assert_eq!(d.syntax.as_deref(), Some("docker/dockerfile:1.20"));
    assert_eq!(d.escape, Escape::Backquote);
    // What follows a space is a remark.
    assert_eq!(d.check.skip, ["A".to_owned(), String::new()].into());
    let d = file("# check=skip=all;experimental=X;error=1\nFROM a").directives.check;
    assert!(d.skip_all && d.error && d.experimental.contains("X"));
    for not in [
        "# x\n# escape=`\nFROM a",
        "\n# escape=`\nFROM a",
        "# unknown=1\n# escape=`\nFROM a",
        "# escape\nFROM a",
    ] {
        assert_eq!(file(not).directives, Directives::default(), "{not:?}");
    }
    let check =
        |text: &str, want: &str| assert_eq!(wrong(text), format!("dockerfile parse error on line {want}"));
    check("# escape=`\n# escape=`\nFROM a", "2: only one escape parser directive can be used");
    check(
        "# syntax=a\n# check=skip=a\n# SYNTAX=b\nFROM a",
        "3: only one syntax parser directive can be used",
    );
    check("# escape=x\nFROM a", "1: invalid escape token 'x' does not match ` or \\");
    check("# check=skip\nFROM a", "1: invalid check option \"skip\"");
    check("# check=error=maybe\nFROM a", "1: invalid check option \"error=maybe\"");
}

#[test]
fn from() {
    let check = |text: &str, image: &str, platform: Option<&str>, alias: Option<&str>| {
        let Kind::From(f) = kind(text) else { panic!() };
        let got = (f.image.as_str(), f.platform.as_ref().map(Word::as_str), f.alias.as_deref());
        assert_eq!(got, (image, platform, alias), "{text}");
    };
    check("FROM a", "a", None, None);
    check("from a:1@sha256:x as Build-1.x_y", "a:1@sha256:x", None, Some("build-1.x_y"));
    check("FROM --platform=$BUILDPLATFORM a:${V} AS b", "a:${V}", Some("$BUILDPLATFORM"), Some("b"));
    let check =
        |text: &str, want: &str| assert_eq!(wrong(text), format!("dockerfile parse error on line {want}"));
    check("FROM", "1: FROM requires either one or three arguments");
    check("FROM a b", "1: FROM requires either one or three arguments");
    check("FROM a is b", "1: FROM requires either one or three arguments");
    check(
        "FROM a AS 1b",
        "1, column 11: invalid name for build stage: \"1b\", name can't start with a number or contain symbols",
    );
    check("FROM --plaform=x a", "1, column 6: unknown flag: --plaform (did you mean platform?)");
    check("FROM --platform a", "1, column 6: missing a value on flag: --platform");
    check("FROM --platform=a --platform=b a", "1, column 19: duplicate flag specified: --platform");
}

#[test]
fn commands_have_two_forms() {
    let check =
        |args: &str, want: Command| assert_eq!(kind(&format!("CMD {args}")), Kind::Cmd(want), "{args}");
    check("a  b $c", Command::Shell("a  b $c".into()));
    check(r#" [ "a", "b $c" ] "#, Command::Exec(strings(&["a", "b $c"])));
    check("[]", Command::Exec(vec![]));
    check("", Command::Shell(String::new()));
    for broken in [r#"["a",]"#, "['a']", r#"["a"] b"#, "[ -f x ] && y"] {
        check(broken, Command::Shell(broken.into()));
    }
    assert_eq!(kind("ENTRYPOINT [\"a\"]"), Kind::Entrypoint(Command::Exec(strings(&["a"]))));
    assert_eq!(
        wrong("CMD [1]"),
        "dockerfile parse error on line 1, column 5: when using JSON array syntax, arrays must be comprised of strings only"
    );
    assert_eq!(wrong("CMD --x a"), "dockerfile parse error on line 1, column 5: unknown flag: --x");
    assert_eq!(kind(r#"SHELL ["a", "-c"]"#), Kind::Shell(strings(&["a", "-c"])));
    assert!(wrong("SHELL a -c").ends_with("SHELL requires the arguments to be in JSON form"));
    assert!(wrong("SHELL []").ends_with("SHELL requires at least one argument"));
    assert!(wrong("RUN").ends_with("RUN requires at least one argument"));
}

#[test]
fn pairs() {
    let check = |text: &str, want: &[(&str, &str)], legacy: bool| {
        let (Kind::Env(pairs) | Kind::Label(pairs)) = kind(text) else { panic!() };
        let got: Vec<_> = pairs.iter().map(|p| (p.key.as_str(), p.value.as_str())).collect();
        assert_eq!(got, want, "{text}");
        assert!(pairs.iter().all(|p| p.legacy == legacy), "{text}");
    };
    check("ENV a=1", &[("a", "1")], false);
    check(
        r#"ENV a="x y" b='p "q' c=d\ e f="#,
        &[("a", "\"x y\""), ("b", "'p \"q'"), ("c", "d\\ e"), ("f", "")],
        false,
    );
    check("ENV a b c=d ", &[("a", "b c=d")], true);
    check("LABEL \"com.example.x\"=\"y\" z=1=2", &[("\"com.example.x\"", "\"y\""), ("z", "1=2")], false);
    check("ENV a=1 \\\n    b=2", &[("a", "1"), ("b", "2")], false);
    let check =
        |text: &str, want: &str| assert_eq!(wrong(text), format!("dockerfile parse error on line {want}"));
    check("ENV", "1: ENV requires at least one argument");
    check("ENV a", "1: ENV must have two arguments");
    check("ENV =x", "1, column 5: ENV names can not be blank");
    check(
        "ENV a=1 \\\n  b",
        "2, column 3: syntax error - can't find = in \"b\". Must be of the form: name=value",
    );
}

#[test]
fn args() {
    let Kind::Arg(defs) = kind("ARG a b= c=\"x y\" d=$a") else { panic!() };
    let got: Vec<_> = defs.iter().map(|d| (d.name.as_str(), d.default.as_ref().map(Word::as_str))).collect();
    assert_eq!(got, [("a", None), ("b", Some("")), ("c", Some("\"x y\"")), ("d", Some("$a"))]);
    assert!(wrong("ARG").ends_with("ARG requires at least one argument"));
    assert!(wrong("ARG =1").ends_with("ARG names can not be blank"));
}

#[test]
fn copy_and_add() {
    let Kind::Copy(copy) = kind(
        "COPY --from=build --chown=1:$g --chmod=u=rwX,go= --link --parents=false --exclude=*.o --exclude=b a/ 'b' $d/",
    ) else {
        panic!()
    };
    assert_eq!(copy.from.as_deref(), Some("build"));
    assert!(copy.paths.link && !copy.parents);
    assert_eq!(copy.paths.sources, [Word::from("a/"), Word::from("'b'")]);
    assert_eq!((copy.paths.dest.as_str(), copy.paths.exclude.len()), ("$d/", 2));
    assert_eq!(copy.paths.chown, Some("1:$g".into()));
    assert_eq!(copy.paths.chmod, Some("u=rwX,go=".into()));
    let Kind::Copy(copy) = kind(r#"COPY ["a b", "c", "d e/"]"#) else { panic!() };
    assert_eq!((copy.paths.sources, copy.paths.dest), (vec!["a b".into(), "c".into()], "d e/".into()));
    let Kind::Add(add) =
        kind("ADD --keep-git-dir --checksum=sha256:$x --unpack=false https://x.example/a.tar /")
    else {
        panic!()
    };
    assert_eq!(
        (add.keep_git_dir, add.unpack, add.checksum),
        (Some(true), Some(false), Some("sha256:$x".into()))
    );
    let Kind::Add(add) = kind("ADD a b") else { panic!() };
    assert_eq!((add.keep_git_dir, add.unpack, add.checksum), (None, None, None));
    let check =
        |text: &str, want: &str| assert_eq!(wrong(text), format!("dockerfile parse error on line {want}"));
    check(
        "COPY a",
        "1: COPY requires at least two arguments, but only one was provided. Destination could not be determined",
    );
    check("COPY --link=maybe a b", "1, column 6: expecting boolean value for flag --link, not: maybe");
    check("COPY --link= a b", "1, column 6: missing a value on flag: --link");
    check("COPY --chwon=1 a b", "1, column 6: unknown flag: --chwon (did you mean chown?)");
    check("COPY --keep-git-dir a b", "1, column 6: unknown flag: --keep-git-dir");
    check(
        "COPY --from=$x a b",
        "1, column 6: variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround",
    );
}

#[test]
fn heredocs() {
    let run = one("RUN <<EOF cat; cat 3<<-\"X Y\"\na $b\nEOF\n\tc\n\tX Y\n");
    assert_eq!(run.span, Span { line: 1, end_line: 5, column: 1 });
    let got: Vec<_> =
        run.heredocs.iter().map(|h| (h.name.as_str(), h.fd, h.expand, h.content.as_str())).collect();
    assert_eq!(got, [("EOF", 0, true, "a $b\n"), ("X Y", 3, false, "\tc\n")]);
    assert_eq!(run.heredocs[1].text(), "c\n");
    let body = |text: &str| match kind(text) {
        Kind::Run(run) => run.body,
        other => panic!("{other:?}"),
    };
    let shell = |text: &str| RunBody::Shell(text.to_owned());
    assert_eq!(body("RUN <<EOF\na\nb\nEOF\n"), shell("a\nb\n"));
    assert_eq!(body("RUN <<-EOF\n\ta\n\tEOF\n"), shell("a\n"));
    assert_eq!(body("RUN cat <<EOF > /x\na\nEOF\n"), shell("cat <<EOF > /x\na\nEOF"));
    assert_eq!(body("RUN <<A <<B\na\nA\nb\nB\n"), shell("<<A <<B\na\nA\nb\nB"));
    assert_eq!(
        body("RUN <<EOF\n#!/usr/bin/python3\nprint(1)\nEOF\n"),
        RunBody::Script { name: "EOF".into(), content: "#!/usr/bin/python3\nprint(1)\n".into() }
    );
    assert_eq!(body("RUN [\"cat\", \"<<EOF\"]"), RunBody::Exec(strings(&["cat", "<<EOF"])));
    for none in ["RUN echo \"<<EOF\"", "RUN cat <<< x", "RUN a<<EOF", "CMD cat <<EOF"] {
        assert!(one(none).heredocs.is_empty(), "{none}");
    }
    let titled = one("RUN <<EOF\n\n  a\nb\nEOF");
    assert_eq!(titled.title(), "RUN <<EOF (a...)");
}

#[test]
fn heredocs_become_files() {
    let Kind::Copy(copy) = kind("COPY --chmod=755 <<a.sh x <<-'b' /d/\n$x\na.sh\n\t$y\nb\n") else {
        panic!()
    };
    let got: Vec<_> =
        copy.paths.files.iter().map(|f| (f.name.as_str(), f.content.as_str(), f.expand)).collect();
    assert_eq!(got, [("a.sh", "$x\n", true), ("b", "$y\n", false)]);
    assert_eq!(copy.paths.sources, [Word::from("x")]);
    let check =
        |text: &str, want: &str| assert_eq!(wrong(text), format!("dockerfile parse error on line {want}"));
    check("COPY a <<EOF\nEOF\n", "1, column 8: COPY cannot accept a heredoc as a destination");
    check(
        "COPY << EOF /d\nEOF\n",
        "1: heredoc \"EOF\" is not the source of anything: write <<EOF as a word of its own",
    );
    check("FROM a\nRUN <<EOF\nx\n", "2: unterminated heredoc: no line \"EOF\" before the end of the file");
}

#[test]
fn onbuild() {
    let outer = one("ONBUILD  run --network=none <<-EOF\n\ta\n\tEOF\n");
    let Kind::Onbuild(onbuild) = outer.kind else { panic!() };
    assert_eq!(onbuild.expression, "run --network=none <<-EOF\n\ta\nEOF");
    assert_eq!((onbuild.trigger.name.as_str(), onbuild.trigger.span.column), ("run", 10));
    assert_eq!(parse_trigger(&onbuild.expression).unwrap().kind, onbuild.trigger.kind);
    let check =
        |text: &str, want: &str| assert_eq!(wrong(text), format!("dockerfile parse error on line {want}"));
    check("ONBUILD", "1: ONBUILD requires at least one argument");
    check("ONBUILD onbuild RUN a", "1, column 9: chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed");
    check("ONBUILD FROM a", "1, column 9: FROM isn't allowed as an ONBUILD trigger");
    check("ONBUILD MAINTAINER a", "1, column 9: MAINTAINER isn't allowed as an ONBUILD trigger");
    check("ONBUILD RNU a", "1, column 9: unknown instruction: RNU (did you mean RUN?)");
    check("ONBUILD COPY --form=a b \\\n c", "1, column 14: unknown flag: --form (did you mean from?)");
    for bad in ["ONBUILD RUN a", "FROM a", "MAINTAINER a", "RUN a\nRUN b", "", "# x"] {
        assert!(parse_trigger(bad).is_err(), "{bad}");
    }
}

#[test]
fn healthcheck() {
    assert_eq!(kind("HEALTHCHECK none"), Kind::Healthcheck(Healthcheck::None));
    let Kind::Healthcheck(Healthcheck::Check {
        command,
        interval,
        timeout,
        start_period,
        start_interval,
        retries,
    }) = kind("HEALTHCHECK --interval=1m30s --timeout=3s --start-period=.5s --retries=4 CMD  a || exit 1")
    else {
        panic!()
    };
    assert_eq!(command, Command::Shell("a || exit 1".into()));
    assert_eq!(
        [interval, timeout, start_period, start_interval].map(|d| d.as_millis()),
        [90_000, 3_000, 500, 0]
    );
    assert_eq!((retries, Duration::ZERO), (4, start_interval));
    let check = |text: &str, want: &str| {
        assert_eq!(wrong(&format!("HEALTHCHECK {text}")), format!("dockerfile parse error on line 1{want}"));
    };
    check("", ": HEALTHCHECK requires at least one argument");
    check("NONE x", ": HEALTHCHECK NONE takes no arguments");
    check("CMD", ": missing command after HEALTHCHECK CMD");
    check("RUN x", ", column 13: unknown type \"RUN\" in HEALTHCHECK (try CMD)");
    check("--interval=5 CMD x", ", column 13: invalid duration \"5\" of --interval: want for example 1m30s");
    check("--timeout=1us CMD x", ", column 13: interval \"timeout\" cannot be less than 1ms");
    check(
        "--retries=-1 CMD x",
        ", column 13: invalid value \"-1\" of --retries: want a number from 0 to 2147483647",
    );
}

#[test]
fn the_rest() {
    assert_eq!(kind("EXPOSE 80 443/tcp $p"), Kind::Expose(vec!["$p".into(), "443/tcp".into(), "80".into()]));
    assert_eq!(kind("VOLUME /a $b"), Kind::Volume(vec!["/a".into(), "$b".into()]));
    assert_eq!(kind(r#"VOLUME ["/a b"]"#), Kind::Volume(vec!["/a b".into()]));
    assert!(wrong(r#"VOLUME [" "]"#).ends_with("VOLUME specified can not be an empty string"));
    assert_eq!(kind("WORKDIR /a b"), Kind::Workdir("/a b".into()));
    assert_eq!(kind("USER $u:g"), Kind::User("$u:g".into()));
    assert_eq!(kind("STOPSIGNAL SIGTERM"), Kind::Stopsignal("SIGTERM".into()));
    assert_eq!(kind("MAINTAINER a <b@c>"), Kind::Maintainer("a <b@c>".into()));
    for name in ["EXPOSE", "VOLUME", "WORKDIR", "USER", "STOPSIGNAL", "MAINTAINER"] {
        assert!(wrong(name).contains(&format!("{name} requires")), "{name}");
    }
}
