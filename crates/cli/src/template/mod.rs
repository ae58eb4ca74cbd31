//! Go's text/template over JSON, as far as `--format` needs it.
//!
//! Fields, pipelines, variables, `if`, `with`, `range`, comparison and docker's functions. Definitions of templates,
//! and escaping for HTML or JavaScript, are refused by name.

mod eval;
mod funcs;
mod lex;
mod parse;
mod types;

use std::fmt;

use serde_json::Value;

/// A template that cannot be read or carried out; worded as Go words it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Error(pub(crate) String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(crate) use funcs::{escape_html, escaped_json};

type Result<T> = std::result::Result<T, Error>;

/// What a template is carried out for. Docker's data is typed where ours is JSON; this makes up the difference.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Style<'a> {
    /// A row of a list, with its labels for `.Label "name"`, and as JSON shows it. The name of docker's type stands in
    /// errors.
    Row { labels: &'a Value, json: &'a Value, kind: &'static str },
    /// The headers of a list: functions leave them alone, and `.Label "name"` is the name.
    Headers { kind: &'static str },
    /// One object; fields that docker's type has, but the JSON left out, have their type's empty value.
    Object,
    /// One object whose type is in errors, and the same with the names that its JSON has.
    Typed { json: &'a Value, name: &'static str, kind: &'static str },
}

/// A parsed template.
#[derive(Clone, Debug)]
pub(crate) struct Template(Vec<parse::Node>);

impl Template {
    /// Parses a template.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        parse::template(lex::tokens(text)?).map(Self)
    }

    /// Carries it out on `data`.
    pub(crate) fn render(&self, data: &Value, style: Style<'_>) -> Result<String> {
        eval::render(&self.0, data, style)
    }
}

/// `\t` and `\n` written out in a format stand for the characters.
pub(crate) fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn data() -> Value {
        json!({
            "Name": "web", "N": 3, "F": 1.5, "Yes": true, "No": false, "Null": null, "Empty": [],
            "State": {"Running": true, "Pid": 42}, "Args": ["a", "b c"], "Labels": {"x": "1", "a.b": "2"},
            "Mounts": [{"Source": "/a", "RW": true}, {"Source": "/b", "RW": false}],
            "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]},
        })
    }

    fn render(text: &str) -> String {
        match Template::parse(text).and_then(|t| t.render(&data(), Style::Object)) {
            Ok(out) => out,
            Err(e) => format!("ERROR {e}"),
        }
    }

    #[test]
    fn what_people_write_works() {
        for (text, want) in [
            ("{{.Name}}-{{.N}}", "web-3"),
            ("{{.State.Running}} {{.State.Pid}}", "true 42"),
            ("{{json .Args}}", r#"["a","b c"]"#),
            ("{{json .}}", &data().to_string()),
            ("{{range .Mounts}}{{.Source}};{{end}}", "/a;/b;"),
            ("{{range $i, $m := .Mounts}}{{$i}}={{$m.Source}} {{end}}", "0=/a 1=/b "),
            ("{{range $k, $v := .Labels}}{{$k}}={{$v}}{{\"\\n\"}}{{end}}", "a.b=2\nx=1\n"),
            ("{{index .Labels \"a.b\"}} {{index .Mounts 1 \"Source\"}}", "2 /b"),
            ("{{(index .Mounts 0).Source}}", "/a"),
            ("{{join .Args \",\"}} {{upper .Name}} {{len .Args}} {{title .Name}}", "a,b c WEB 2 Web"),
            ("{{if .Yes}}y{{else}}n{{end}}{{if .Empty}}y{{else if eq .Name \"x\" \"web\"}}w{{end}}", "yw"),
            ("{{with .State}}{{.Pid}}{{$.Name}}{{end}}{{with .Null}}x{{else}}-{{end}}", "42web-"),
            ("{{ .Name | printf \"%s:%03d\" | upper }}", "WEB:%!D(MISSING)"),
            (
                "{{printf \"%-5s|%5d|%q|%v|%.2f|%%\" .Name .N .Name .Args .F}}",
                "web  |    3|\"web\"|[a b c]|1.50|%",
            ),
            ("{{- /* c */ -}} a {{- .Name -}} b", "awebb"),
            ("{{$x := .Name}}{{$x = \"y\"}}{{$x}}", "y"),
            (
                "{{and .Yes .Name}} {{or .No .Name}} {{not .Yes}} {{gt .N 2}} {{le .F 1.5}}",
                "web web false true true",
            ),
            ("{{.Labels}} {{.Args}} {{.Null}} {{.F}}", "map[a.b:2 x:1] [a b c] <nil> 1.5"),
            (
                "{{index .Labels \"none\"}}|{{.Labels.none}}|{{.Health}}|{{.Tmpfs}}|{{.Shell}}",
                "|<no value>|<nil>|map[]|[]",
            ),
            ("{{.Ports}}", "map[80/tcp:[{0.0.0.0 8080}]]"),
            ("{{if .Health}}y{{else}}n{{end}}", "n"),
            ("{{(index (index .Ports \"80/tcp\") 0).HostIP}}", "0.0.0.0"),
            (
                "{{range .Empty}}x{{else}}none{{end}}{{range .Args}}{{if eq . \"a\"}}{{continue}}{{end}}{{.}}{{break}}{{end}}",
                "noneb c",
            ),
            (
                "{{split .Name \"e\"}} {{truncate .Name 2}} {{pad .Name 1 2}}|{{println 1 \"a\"}}",
                "[w b] we  web  |1 a\n",
            ),
            ("{{slice .Name 1 2}} {{range 3}}{{.}}{{end}}", "e 012"),
        ] {
            assert_eq!(render(text), want, "{text}");
        }
    }

    #[test]
    fn errors_are_worded_as_gos() {
        for (text, word) in [
            ("{{", "unclosed action"),
            ("{{.Name", "unclosed action"),
            ("{{nosuch .Name}}", "function \"nosuch\" not defined"),
            ("{{if .Yes}}", "unexpected EOF"),
            ("{{end}}", "unexpected {{end}}"),
            ("{{.Nope}}", "map has no entry for key \"Nope\""),
            ("{{.State.Nope}}", "executing \"\" at <.State.Nope>: map has no entry for key \"Nope\""),
            ("{{define \"x\"}}{{end}}", "not supported"),
            ("{{index .Args 9}}", "out of range"),
            ("{{.Name.X}}", "can't evaluate field X"),
            ("{{$y}}", "undefined variable \"$y\""),
            ("{{if $y := .N}}{{end}}{{$y}}", "undefined variable \"$y\""),
            ("{{$y = 1}}", "undefined variable \"$y\""),
            ("{{range}}{{end}}", "missing value for range"),
            ("{{\"a}}", "unterminated quoted string"),
        ] {
            let got = render(text);
            assert!(got.contains(word), "{text}: {got}");
        }
    }

    #[test]
    fn no_text_makes_it_panic() {
        let pieces = [
            "{{",
            "}}",
            ".",
            ".Name",
            "$",
            "$x",
            ":=",
            "=",
            "|",
            "(",
            ")",
            "range",
            "if",
            "end",
            "else",
            "with",
            " ",
            "\"",
            "`",
            "json",
            "index",
            "printf",
            "%d",
            "-1",
            "9999999999999999999",
            ",",
            "- ",
            " -",
            "/*",
            "*/",
            "\u{1f}",
            "é",
            "1.5",
            "len",
            "slice",
            "and",
            "break",
        ];
        let mut seed = 42u64;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..12 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                text.push_str(pieces[usize::try_from((seed >> 33) % pieces.len() as u64).unwrap()]);
            }
            let _ = render(&text);
        }
    }
}
