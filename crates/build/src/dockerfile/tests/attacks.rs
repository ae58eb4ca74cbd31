//! A file from somebody who means harm: an error that says where, quickly, and no memory to speak of.

use super::super::*;
use super::wrong;
use std::time::{Duration, Instant};

/// Fails when `f` takes long; debug builds on a busy machine are slow.
fn quick<T>(f: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let out = f();
    assert!(start.elapsed() < Duration::from_secs(20), "took {:?}", start.elapsed());
    out
}

#[test]
fn atk_49_a_long_line() {
    let mut text = b"FROM a\nRUN echo ".to_vec();
    text.resize(100 << 20, b'x');
    let error = quick(|| parse(&text).unwrap_err());
    assert_eq!((error.kind.clone(), error.span.line), (ParseErrorKind::LineTooLong, 2));
    assert!(error.render("Dockerfile", &text).len() < 1000);
    // Nor by continuation, nor by many lines.
    let line = format!("{}\\\n", "x".repeat(1000));
    let joined = format!("RUN {}", line.repeat(2000));
    assert!(wrong(&joined).contains("the line has more than"));
    let many = format!("RUN {}\n", "x".repeat(1 << 19)).repeat(20);
    assert!(wrong(&many).contains("the instructions have more than"));
    let lines = "RUN x\n".repeat(3 << 20);
    assert!(wrong(&lines).contains("it may have"));
}

#[test]
fn atk_49_a_million_stages() {
    let text = "FROM a\n".repeat(1_000_000);
    assert_eq!(quick(|| wrong(&text)), "dockerfile parse error on line 20001: more than 20000 instructions");
    let file = super::file(&"FROM a\n".repeat(limits::MAX_STAGES + 1));
    let error = stages(&file).unwrap_err();
    assert_eq!(error.to_string(), "line 1001: more than 1000 stages: split the file");
    // Each needs all before it.
    let mut text = "FROM a AS s0\n".to_owned();
    for i in 1..limits::MAX_STAGES {
        text.push_str(&format!("FROM s{} AS s{i}\n", i - 1));
        for _ in 0..10 {
            text.push_str("COPY --from=s0 a b\n");
        }
    }
    let file = super::file(&text);
    let graph = stages(&file).unwrap().resolve(&Lookup(|_: &str| None)).unwrap();
    assert_eq!(graph.needed(limits::MAX_STAGES - 1).len(), limits::MAX_STAGES);
    assert!(quick(|| lint(&file, &graph, &FileOnly, &Check::default())).is_empty());
}

#[test]
fn atk_49_recursive_arguments() {
    let globals = |text: &str| {
        let file = super::file(text);
        let stages = stages(&file).unwrap();
        Globals::new(stages.globals, &[], &Lookup(|_: &str| None), Escape::Backslash)
    };
    let harmless = globals("ARG A=$A\nARG B=$C\nARG C=$B\nFROM a").unwrap();
    assert_eq!(harmless.get("A").as_deref(), Some(""));
    // Each twice as long as the one before.
    let mut text = "ARG A=xx\n".to_owned();
    text.push_str(&"ARG A=$A$A\n".repeat(64));
    text.push_str("FROM a");
    assert!(quick(|| globals(&text)).unwrap_err().to_string().contains("use shorter values"));
    let mut text = format!("ARG A={}\n", "x".repeat(1_000_000));
    for i in 0..1000 {
        text.push_str(&format!("ARG B{i}=$A\n"));
    }
    text.push_str("FROM a");
    assert!(quick(|| globals(&text)).unwrap_err().to_string().contains("use shorter values"));
}

#[test]
fn atk_49_variables_that_grow() {
    let long = [("A".to_owned(), "x".repeat(1 << 20))];
    let get = |word: &str, mode| expand(word, long.as_slice(), Escape::Backslash, mode).map(|e| e.text.len());
    assert_eq!(get("$A", Mode::Word), Ok(1 << 20));
    let kind = |r: Result<usize, ExpandError>| r.unwrap_err().kind;
    assert_eq!(
        kind(quick(|| get(&"$A".repeat(100_000), Mode::Word))),
        ExpandErrorKind::TooLong(limits::MAX_WORD)
    );
    let heredoc = quick(|| get(&"${B:-$A}".repeat(10_000), Mode::Heredoc));
    assert_eq!(kind(heredoc), ExpandErrorKind::TooLong(limits::MAX_EXPANDED));
    let nested = format!("{}x{}", "${B:-".repeat(100_000), "}".repeat(100_000));
    assert_eq!(kind(get(&nested, Mode::Word)), ExpandErrorKind::TooDeep);
    assert_eq!(kind(quick(|| get("${A//*x*x*x*x*y/}", Mode::Word))), ExpandErrorKind::TooSlow);
    let shorter = [("A".to_owned(), "x".repeat(1000))];
    let replaced = expand("${A//x/$A}", shorter.as_slice(), Escape::Backslash, Mode::Word);
    assert_eq!(replaced.unwrap().text.len(), 1_000_000);
    // A stage's variables, too: the linter gives up.
    let mut text = format!("FROM scratch AS s\nENV A={}\n", "x".repeat(1_000_000));
    for i in 0..500 {
        text.push_str(&format!("ENV B{i}=$A\nFROM s\nENV C=1 D=$X{i}\n"));
    }
    let file = super::file(&text);
    let graph = stages(&file).unwrap().resolve(&Lookup(|_: &str| None)).unwrap();
    quick(|| lint(&file, &graph, &FileOnly, &Check::default()));
}

#[test]
fn atk_49_heredocs() {
    let markers: String = (0..200).map(|i| format!(" <<E{i}")).collect();
    assert!(wrong(&format!("RUN{markers}\n")).contains("more than 64 heredocs"));
    // One inside another is text.
    let inner = super::one("RUN <<A\nRUN <<B\nA\n");
    assert_eq!(inner.heredocs[0].content, "RUN <<B\n");
    let nested: String = (0..100_000).map(|i| format!("RUN <<E{i}\n")).collect();
    let error = quick(|| wrong(&nested));
    assert_eq!(
        error,
        "dockerfile parse error on line 1: unterminated heredoc: no line \"E0\" before the end of the file"
    );
    let long = format!("RUN <<{}\n", "E".repeat(10_000));
    assert!(wrong(&long).len() < 300);
}

#[test]
fn atk_49_what_is_not_text() {
    let check = |bytes: &[u8], line: u32, kind: ParseErrorKind| {
        let error = parse(bytes).unwrap_err();
        assert_eq!((error.span.line, error.kind), (line, kind));
    };
    check(b"FROM a\nRUN b\xff\n", 2, ParseErrorKind::NotUtf8);
    check(b"FROM a\nRUN <<E\n\xc3\x28\nE\n", 3, ParseErrorKind::NotUtf8);
    check(b"\xff\xfeF\0R\0", 1, ParseErrorKind::NotUtf8);
    check(b"FROM a\n\n\0\n", 3, ParseErrorKind::Nul);
    check(b"", 0, ParseErrorKind::Empty);
    check(b"\xef\xbb\xbf", 0, ParseErrorKind::NoInstructions);
    check(b"# x\n\n", 0, ParseErrorKind::NoInstructions);
}

#[test]
fn atk_49_onbuild_loops() {
    let chain = "ONBUILD ".repeat(100_000) + "RUN x";
    assert!(quick(|| wrong(&chain)).contains("chaining ONBUILD"));
    assert!(parse_trigger("ONBUILD RUN x").is_err());
    assert!(parse_trigger("RUN x\nFROM y").is_err());
    assert_eq!(parse_triggers(&["RUN x", "USER y"]).unwrap().len(), 2);
    let many = vec!["RUN x"; 5000];
    assert!(parse_triggers(&many).unwrap_err().to_string().contains("5000 ONBUILD triggers"));
    // A trigger that a stage's base leaves is not left again.
    let file = super::file("FROM a AS x\nONBUILD COPY --from=y b c\nFROM x AS y\n");
    assert!(stages(&file).unwrap().resolve(&Lookup(|_: &str| None)).is_err());
}

#[test]
fn atk_49_comments() {
    let text = "# a\n".repeat(3 << 20) + "RUN x";
    let instruction = quick(|| super::one(&text));
    assert!((1000..=2000).contains(&instruction.comments.len()));
    let text = ("# a\n".repeat(900) + "RUN x\n").repeat(200);
    assert!(wrong(&text).contains("the instructions have more than"));
}

#[test]
fn atk_49_names_without_end() {
    let names = |prefix: &str| (0..9_000).map(|i| format!(" {prefix}{i}")).collect::<String>();
    let file = super::file(&format!(
        "# check=skip=UndefinedVar\nARG{}\nFROM x{}\nARG{}\nUSER{}\n",
        names("a"),
        names("$b").replace(' ', ""),
        names("c"),
        names("$d")
    ));
    let graph = stages(&file).unwrap().resolve(&Lookup(|_: &str| None)).unwrap();
    assert_eq!(quick(|| lint(&file, &graph, &FileOnly, &Check::default())).len(), 1000);
}

#[test]
fn atk_49_many_words() {
    for text in
        ["ENV ".to_owned() + &"a=b ".repeat(100_000), "RUN ".to_owned() + &"--mount=x ".repeat(50_000)]
    {
        assert!(quick(|| wrong(&text)).contains("words in one instruction"), "{text:.10}");
    }
    let fields = format!("RUN --mount={} x", "ro,".repeat(10_000));
    assert!(wrong(&fields).contains("fields"));
    let array = format!("COPY [{}\"x\"]", "\"a\",".repeat(20_000));
    assert!(wrong(&array).contains("words in one instruction"));
}
