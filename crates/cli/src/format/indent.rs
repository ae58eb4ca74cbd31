//! JSON laid out anew, its tokens as they were written: what Go's `json.Indent` does. A document that a digest belongs
//! to must not be read and written again to be shown.

/// Lays a document out with `indent` for each level; it starts in the depth `level`. The text must be JSON: what is
/// not is copied as it is.
pub(crate) fn indent(text: &[u8], indent: &str, level: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() * 2);
    let mut depth = level;
    let (mut inside, mut escaped, mut opened) = (false, false, false);
    for &b in text {
        if inside {
            out.push(b);
            (inside, escaped) = (escaped || b != b'"', !escaped && b == b'\\');
            continue;
        }
        if b.is_ascii_whitespace() {
            continue;
        }
        // An empty object or array stays on its line.
        if opened && !b"}]".contains(&b) {
            depth += 1;
            newline(&mut out, indent, depth);
        }
        match b {
            b'}' | b']' if !opened => {
                depth = depth.saturating_sub(1);
                newline(&mut out, indent, depth);
                out.push(b);
            }
            b',' => {
                out.push(b);
                newline(&mut out, indent, depth);
            }
            b':' => out.extend_from_slice(b": "),
            b => out.push(b),
        }
        opened = b"{[".contains(&b);
        inside = b == b'"';
    }
    out
}

fn newline(out: &mut Vec<u8>, indent: &str, depth: usize) {
    out.push(b'\n');
    out.extend_from_slice(indent.repeat(depth).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, level: usize) -> String {
        String::from_utf8(indent(text.as_bytes(), "\t", level)).unwrap()
    }

    #[test]
    fn tokens_stay_as_they_are() {
        for (text, want) in [
            (
                r#"{"a":1.50e+2,"b":[ ],"c":{ },"d":[1,{"e":null}]}"#,
                "{\n\t\"a\": 1.50e+2,\n\t\"b\": [],\n\t\"c\": {},\n\t\"d\": [\n\t\t1,\n\t\t{\n\t\t\t\"e\": null\n\t\t}\n\t]\n}",
            ),
            (r#""\u00e9\\\"{,}:[]""#, r#""\u00e9\\\"{,}:[]""#),
            (" [ \"a b\" ] \n", "[\n\t\"a b\"\n]"),
            ("5", "5"),
            ("[]", "[]"),
            ("}]}", "\n}\n]\n}"),
        ] {
            assert_eq!(shown(text, 0), want, "{text}");
        }
        assert_eq!(shown("{\"a\":1}", 1), "{\n\t\t\"a\": 1\n\t}");
    }
}
