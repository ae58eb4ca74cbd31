use std::time::{Duration, Instant};

use super::*;

fn check_glob(pattern: &str, matching: &[&str], others: &[&str]) {
    let glob = Glob::parse(pattern.as_bytes()).unwrap();
    for path in matching {
        assert!(glob.matches(path.as_bytes()), "{pattern:?} should match {path:?}");
    }
    for path in others {
        assert!(!glob.matches(path.as_bytes()), "{pattern:?} should not match {path:?}");
    }
}

#[test]
fn globs_match_as_go_has_it() {
    check_glob("", &[""], &["a"]);
    check_glob("main.c", &["main.c"], &["main_c", "main.", "main.cc", "x/main.c"]);
    check_glob("*", &["", "main.c", ".hidden"], &["src/main.c", "/"]);
    check_glob("*.c", &["main.c", ".c"], &["main.cc", "src/main.c"]);
    check_glob("src/*", &["src/", "src/main.c"], &["src", "src/a/b"]);
    check_glob("**", &["", "abc"], &["a/b"]);
    check_glob("**/x", &["a/x", "/x"], &["a/b/x", "x"]);
    check_glob("a*b*c", &["abc", "aXbYc", "abcbc", "abbcc"], &["ac", "abcd", "a/bc"]);
    check_glob("*ab*ab", &["abab", "xabxab", "ababab"], &["ab", "aba"]);
    check_glob("?", &["x", "é", "漢"], &["", "/", "xy"]);
    check_glob("a?c", &["abc", "a漢c"], &["a/c", "ac"]);
    check_glob("[b-d]", &["b", "c", "d"], &["a", "e", "", "bb"]);
    check_glob("[^b-d]", &["a", "e", "/", "漢"], &["b", "d", ""]);
    check_glob("[bx-z0]*", &["b", "y9", "0"], &["a", "w"]);
    check_glob("[à-é]", &["é", "à"], &["z", "ê"]);
    check_glob("[z-a]x", &[], &["mx", "zx"]);
    check_glob("[^z-a]x", &["mx", "zx"], &["x"]);
    check_glob("[!a]", &["!", "a"], &["b"]);
    check_glob("[a^]", &["a", "^"], &["b"]);
    check_glob("[\\]]", &["]"], &["\\"]);
    check_glob("[\\--a]", &["-", "0", "a"], &["b"]);
    check_glob("[[]x", &["[x"], &["x"]);
    check_glob("[*]", &["*"], &["a"]);
    check_glob("a]", &["a]"], &["a"]);
    check_glob("\\*", &["*"], &["x", "\\*"]);
    check_glob("\\a\\\\", &["a\\"], &["a"]);
    check_glob("a\\?b", &["a?b"], &["axb"]);
    check_glob("{a,b}", &["{a,b}"], &["a"]);
    check_glob("+(x).$", &["+(x).$"], &["x"]);
}

#[test]
fn bytes_that_are_no_text_stand_for_themselves() {
    let glob = Glob::parse(b"a\xff?").unwrap();
    assert!(glob.matches(b"a\xff\xfe"));
    assert!(!glob.matches(b"a\xfe\xfe"));
    assert!(Glob::parse(b"*").unwrap().matches(b"\xff\x80"));
    assert!(Glob::parse(b"[^a]").unwrap().matches(b"\xff"));
}

#[test]
fn malformed_globs_are_refused() {
    for bad in [
        "[", "[]", "[]a]", "[-]", "[a-]", "[-x]", "[x-", "[x", "[^", "[^]", "[^a", "\\", "a\\", "[\\", "[a\\",
    ] {
        assert!(matches!(Glob::parse(bad.as_bytes()), Err(Error::Syntax(_))), "{bad}");
        assert!(matches!(PatternList::new([format!("x/{bad}")]), Err(Error::Syntax(_))), "{bad}");
    }
    assert!(matches!(Glob::parse(b"[\xff]"), Err(Error::Syntax(_))));
    let message = Glob::parse(b"a[").unwrap_err().to_string();
    assert_eq!(message, "pattern \"a[\": syntax error in pattern");
}

fn check_list(patterns: &[&str], matching: &[&str], others: &[&str]) {
    let list = PatternList::new(patterns).unwrap();
    for path in matching {
        assert!(list.verdict(path.as_bytes()).matched, "{patterns:?} should match {path:?}");
    }
    for path in others {
        assert!(!list.verdict(path.as_bytes()).matched, "{patterns:?} should not match {path:?}");
    }
}

#[test]
fn double_stars_are_any_number_of_directories() {
    check_list(&["**"], &["a", "a/b", ".a"], &["."]);
    check_list(&["**/"], &["a", "a/b"], &[]);
    check_list(&["**/**"], &["a", "a/b/c"], &[]);
    check_list(&["**/x"], &["x", "a/x", "a/b/x", "a/x/below"], &["xx", "ax", "a/xb"]);
    check_list(&["**/a/b"], &["a/b", "x/a/b", "x/y/a/b/c"], &["b", "a/x/b", "xa/b"]);
    check_list(&["**/*.o"], &["x.o", "a/b/x.o"], &["x.oo", "a/o"]);
    check_list(&["a/**"], &["a/b", "a/b/c"], &["a", "ab", "b/a/c"]);
    check_list(&["a/**/z"], &["a/z", "a/b/z", "a/b/c/z"], &["a", "az", "a/bz", "z"]);
    check_list(&["a/**/*"], &["a/z", "a/b/c"], &["a", "b"]);
    check_list(&["*/**/z"], &["a/z", "a/b/z"], &["z"]);
    check_list(&["**/**/z"], &["z", "a/b/z"], &["az"]);
    // What grew by cases.
    check_list(&["**x"], &["x", "ax", "a/bx", "x/y", "ax/y"], &["xa", "a/xy"]);
    check_list(&["**x*"], &["x", "xa", "a/xa"], &["ax"]);
    check_list(&["x**"], &["x", "xa", "xa/b", "x/b"], &["ax", "a/x"]);
    check_list(&["a**b"], &["ab", "a/b", "ac/b", "a/c/b"], &["acb", "a/cb"]);
    check_list(&["a***"], &["a", "ab", "a/b", "ab/c"], &["b"]);
    check_list(&["***"], &["a", "a/b"], &[]);
}

#[test]
fn a_verdict_tells_whether_others_follow_below() {
    let check = |patterns: &[&str], path: &str, matched: bool, open_below: bool| {
        let list = PatternList::new(patterns).unwrap();
        assert_eq!(list.verdict(path.as_bytes()), Verdict { matched, open_below }, "{patterns:?} {path}");
    };
    check(&["a"], "a", true, false);
    check(&["a"], "a/b", true, false);
    check(&["a"], "b", false, false);
    check(&["a/b"], "a", false, true);
    check(&["a", "!a/b/c"], "a", true, true);
    check(&["a", "!a/b/c"], "a/b", true, true);
    check(&["a", "!a/b/c"], "a/x", true, false);
    check(&["a", "!b"], "a", true, false);
    check(&["!a/b", "a"], "a", true, false);
    check(&["a", "!**/x"], "a/b", true, true);
    check(&["a", "!*/x"], "a", true, true);
    check(&["a", "!*/x"], "a/b", true, false);
    check(&["*", "!a"], "a", false, false);
    check(&["*", "!a", "a/b"], "a", false, true);
    check(&["a", "!a/b", "a"], "a/b", true, false);
}

/// A second opinion, slow and by definition.
fn slow(pattern: &[Token], text: &[u32]) -> bool {
    let Some((first, rest)) = pattern.split_first() else { return text.is_empty() };
    let one = |text: &[u32], ok: bool| ok && slow(rest, &text[1..]);
    match first {
        Token::Unit(unit) => text.first().is_some_and(|t| one(text, t == unit)),
        Token::One => text.first().is_some_and(|t| one(text, *t != SLASH)),
        Token::Class(_) => unreachable!(),
        Token::Star => (0..=text.len()).any(|n| !text[..n].contains(&SLASH) && slow(rest, &text[n..])),
        Token::Any => (0..=text.len()).any(|n| slow(rest, &text[n..])),
        Token::Dirs => {
            slow(rest, text) || (0..text.len()).any(|n| text[n] == SLASH && slow(rest, &text[n + 1..]))
        }
    }
}

#[test]
fn automata_agree_with_the_definition() {
    let tokens = [Token::Unit(SLASH), Token::Unit(97), Token::One, Token::Star, Token::Dirs, Token::Any];
    let mut texts: Vec<Vec<u32>> = vec![vec![]];
    for len in 0..5 {
        let longer: Vec<_> = texts.iter().filter(|t| t.len() == len).cloned().collect();
        for text in longer {
            texts.extend([SLASH, 97, 98].map(|unit| [text.as_slice(), &[unit]].concat()));
        }
    }
    let mut patterns: Vec<Vec<Token>> = vec![vec![]];
    for len in 0..4 {
        let longer: Vec<_> = patterns.iter().filter(|p| p.len() == len).cloned().collect();
        for pattern in longer {
            patterns.extend(
                tokens.iter().map(|token| [pattern.as_slice(), std::slice::from_ref(token)].concat()),
            );
        }
    }
    let wild = |t: &Token| matches!(t, Token::Star | Token::Dirs | Token::Any);
    // As patterns are read: never three wildcards in a row, nor the same one twice.
    patterns.retain(|p| {
        !p.windows(3).any(|w| w.iter().all(wild)) && !p.windows(2).any(|w| w[0] == w[1] && wild(&w[0]))
    });
    for pattern in patterns {
        // Far into the words of a state, too.
        for shift in [0, 62].into_iter().take(if pattern.len() < 4 { 2 } else { 1 }) {
            let before = vec![Token::Unit(98); shift];
            let nfa = Nfa::new([before, pattern.clone()].concat());
            for text in &texts {
                let mut state = nfa.start().to_vec();
                let lead = vec![98; shift];
                let alive = lead.iter().chain(text).all(|unit| nfa.step(&mut state, *unit));
                let matched = alive && nfa.accepts(&state);
                assert_eq!(matched, slow(&pattern, text), "{pattern:?} {text:?} {shift}");
            }
        }
    }
}

#[test]
fn hostile_patterns_are_refused_or_fast() {
    let start = Instant::now();
    let path = "a/".repeat(2000);
    let flat = "a".repeat(4000);
    for pattern in [
        "*".repeat(60_000),
        "a*".repeat(30_000),
        "*a".repeat(2_000),
        "*?".repeat(2_000),
        "**/".repeat(20_000),
        "**/a".repeat(1_000) + "b",
        "**/*".repeat(10_000),
        "*[ab]".repeat(200),
        "é*".repeat(2_000),
        "a".repeat(60_000),
    ] {
        let list = PatternList::new([&pattern]).unwrap();
        let glob = Glob::parse(pattern.as_bytes()).unwrap();
        for path in [&path, &flat] {
            let _ = (list.verdict(path.as_bytes()), glob.matches(path.as_bytes()));
        }
    }
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    let long = "*".repeat(100_000);
    assert_eq!(Glob::parse(long.as_bytes()).unwrap_err(), Error::TooLong(100_000));
    assert_eq!(Glob::parse("[a]".repeat(300).as_bytes()).unwrap_err(), Error::TooManyClasses);
    let many = vec!["a"; MAX_PATTERNS + 1];
    assert_eq!(PatternList::new(many).unwrap_err(), Error::TooMany);
}

#[test]
fn paths_are_cleaned_as_go_does() {
    for (path, cleaned, in_root) in [
        ("", ".", ""),
        (".", ".", ""),
        ("/", "/", ""),
        ("a", "a", "a"),
        ("a/", "a", "a"),
        ("./a", "a", "a"),
        ("/a", "/a", "a"),
        ("//a//b//", "/a/b", "a/b"),
        ("a/./b", "a/b", "a/b"),
        ("a/../b", "b", "b"),
        ("a/..", ".", ""),
        ("..", "..", ""),
        ("../a", "../a", "a"),
        ("a/../../b", "../b", "b"),
        ("../../a/../b", "../../b", "b"),
        ("/..", "/", ""),
        ("/../a", "/a", "a"),
        ("...", "...", "..."),
    ] {
        assert_eq!(String::from_utf8_lossy(&clean(path.as_bytes())), cleaned, "{path}");
        assert_eq!(String::from_utf8_lossy(&clean_in_root(path.as_bytes())), in_root, "{path}");
    }
}

#[test]
fn white_space_is_trimmed_as_unicode_has_it() {
    for (text, trimmed) in [
        ("", ""),
        ("  ", ""),
        ("\t a b \r", "a b"),
        ("\u{a0}a\u{2003}", "a"),
        ("\u{3000}\u{85}", ""),
        ("é ", "é"),
    ] {
        assert_eq!(trim(text.as_bytes()), trimmed.as_bytes());
    }
    assert_eq!(trim(b" \x85 "), b"\x85");
    assert_eq!(trim(b" \xc2"), b"\xc2");
}

#[test]
fn wildcards_are_seen_unless_escaped() {
    for (text, has) in [
        ("a", false),
        ("a*", true),
        ("a\\*", false),
        ("?", true),
        ("[", true),
        ("]", false),
        ("\\\\*", true),
        ("\\", false),
    ] {
        assert_eq!(has_wildcards(text.as_bytes()), has, "{text}");
    }
}
