use super::super::*;

fn env() -> Vec<(String, String)> {
    let pairs = [
        ("HOME", "/root"),
        ("EMPTY", ""),
        ("S", "a  b"),
        ("LEAD", "  x y"),
        ("TRAIL", "x y  "),
        ("P", "foobarbaz"),
        ("é", "e"),
    ];
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn text(word: &str) -> Result<String, String> {
    let env = env();
    expand(word, env.as_slice(), Escape::Backslash, Mode::Word)
        .map(|e| e.text)
        .map_err(|e| e.kind.to_string())
}

#[test]
fn words() {
    let check = |word: &str, want: &str| assert_eq!(text(word).as_deref(), Ok(want), "{word}");
    for (word, want) in [
        ("a b", "a b"),
        ("'a b'c\"d e\"", "a bcd e"),
        (r"a\ b\'c\\d\", r"a b'c\d"),
        (r#""a\"b\\c\d\$HOME""#, r#"a"b\c\d$HOME"#),
        (r"'a\b$HOME'", r"a\b$HOME"),
        ("$HOME/x", "/root/x"),
        ("${HOME}x", "/rootx"),
        ("\"$HOME\"'$HOME'", "/root$HOME"),
        (r"\$HOME \${HOME}", "$HOME ${HOME}"),
        ("$NONE.$", ".$"),
        ("$1x$é$?y", "xey"),
        ("a$.b", "a$.b"),
        ("<<EOF < x", "<<EOF < x"),
    ] {
        check(word, want);
    }
}

#[test]
fn defaults_and_alternatives() {
    let check = |word: &str, want: &str| assert_eq!(text(word).as_deref(), Ok(want), "{word}");
    for (word, want) in [
        ("${NONE:-d}", "d"),
        ("${EMPTY:-d}", "d"),
        ("${NONE-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${HOME:-d}", "/root"),
        ("${NONE:+d}", ""),
        ("${EMPTY:+d}", ""),
        ("${EMPTY+d}", "d"),
        ("${HOME:+d}", "d"),
        ("${HOME:?m}", "/root"),
        ("${EMPTY?m}", ""),
        ("${NONE:-${ALSO:-$HOME}}x", "/rootx"),
        ("${NONE:-\"a b\"'}'}", "a b}"),
        (r"${NONE:-\}}", "}"),
        ("${1:-d}${@:-e}${0}", "de"),
        ("${NONE:-{x}", "{x"),
    ] {
        check(word, want);
    }
}

#[test]
fn patterns() {
    let check = |word: &str, want: &str| assert_eq!(text(word).as_deref(), Ok(want), "{word}");
    for (word, want) in [
        ("${P#f*b}", "arbaz"),
        ("${P##f*b}", "az"),
        ("${P%b*}", "foobar"),
        ("${P%%b*}", "foo"),
        ("${P/ba/fo}", "fooforbaz"),
        ("${P//ba/fo}", "fooforfoz"),
        ("${P#x}", "foobarbaz"),
        ("${P%???}", "foobar"),
        ("${HOME/\\//_}", "_root"),
        ("${HOME//o/$EMPTY}", "/rt"),
        ("${NONE#a}${NONE/a/b}", ""),
        ("${P#${NONE:-foo}}", "barbaz"),
    ] {
        check(word, want);
    }
}

#[test]
fn mistakes() {
    let check = |word: &str, want: &str| assert_eq!(text(word).unwrap_err(), want, "{word}");
    for (word, want) in [
        ("'a", "unexpected end of statement while looking for matching single-quote"),
        ("\"a", "unexpected end of statement while looking for matching double-quote"),
        ("${", "syntax error: missing '}'"),
        ("${HOME", "syntax error: missing '}'"),
        ("${NONE:-a", "syntax error: missing '}'"),
        ("${P/a", "syntax error: missing '/' in ${}"),
        ("${P/a/b", "syntax error: missing '}'"),
        ("${}", "syntax error: bad substitution"),
        ("${{a}", "syntax error: bad substitution"),
        ("${:-a}", "syntax error: bad substitution"),
        ("${.}", "unsupported modifier (.) in substitution"),
        ("${HOME:=x}", "unsupported modifier (:=) in substitution"),
        ("${HOME:#x}", "unsupported modifier (:#) in substitution"),
        ("${NONE?}", "NONE: is not allowed to be unset"),
        ("${EMPTY:?}", "EMPTY: is not allowed to be empty"),
        ("${NONE:?set it to $HOME}", "NONE: set it to /root"),
        (r"${P#\a}", r"invalid pattern (\a) in substitution: invalid escape '\a'"),
    ] {
        check(word, want);
    }
    let whole = expand("'a", env().as_slice(), Escape::Backslash, Mode::Word).unwrap_err().to_string();
    assert!(whole.starts_with("failed to process \"'a\": unexpected end"), "{whole}");
}

#[test]
fn several_words() {
    let check = |word: &str, want: &[&str]| {
        let got = expand_words(word, env().as_slice(), Escape::Backslash).unwrap();
        assert_eq!(got.words, want, "{word}");
    };
    check("a b  c", &["a", "b", "c"]);
    check("x${S}y", &["xa", "by"]);
    check("x\"${S}\"y", &["xa  by"]);
    check("x${LEAD}y", &["x", "x", "yy"]);
    check("x${TRAIL}y", &["xx", "y", "y"]);
    check(r"a\ b 'c d'", &["a b", "c d"]);
    check("$NONE \"\" $EMPTY", &[]);
    check("80${NONE:-81}", &["8081"]);
}

#[test]
fn modes_and_names() {
    let env = env();
    let get = |word, escape, mode| expand(word, env.as_slice(), escape, mode).unwrap();
    let kept = get("echo \"$HOME\" '$HOME' $NONE ${NONE:-x} ${HOME:-x}", Escape::Backslash, Mode::KeepQuotes);
    assert_eq!(kept.text, "echo \"/root\" '$HOME' $NONE ${NONE:-x} /root");
    let heredoc = get("it's \"$HOME\" \\$HOME\n", Escape::Backquote, Mode::Heredoc);
    assert_eq!(heredoc.text, "it's \"/root\" $HOME\n");
    assert_eq!(get("a`$b\\c", Escape::Backquote, Mode::Word).text, "a$b\\c");
    let names = get("$HOME ${NONE:-$S} $OTHER '$P'", Escape::Backslash, Mode::Word);
    assert_eq!(names.used, ["HOME".to_owned(), "S".to_owned()].into());
    assert_eq!(names.unset, ["NONE".to_owned(), "OTHER".to_owned()].into());
}

#[test]
fn which_words_are_expanded() {
    let check = |text: &str, want: &[&str]| {
        let i = super::one(text);
        let got: Vec<&str> = i.words().into_iter().map(|(w, _)| w).collect();
        assert_eq!(got, want, "{text}");
    };
    check("COPY --from=x --chown=$u --exclude=$e $a <<b $c\n$d\nb\n", &["$u", "$a", "$c", "$d\n"]);
    check("COPY <<'b' $c\n$d\nb\n", &["$c"]);
    check("ADD --checksum=$s $a $b", &["$a", "$b", "$s"]);
    check("ENV $a=$b", &["$a", "$b"]);
    check("RUN --mount=target=$t $x", &["$t"]);
    check("WORKDIR $a", &["$a"]);
    for none in ["CMD $a", "ARG a=$b", "FROM $a", "ONBUILD USER $a", "HEALTHCHECK CMD $a", "SHELL [\"$a\"]"] {
        check(none, &[]);
    }
}
