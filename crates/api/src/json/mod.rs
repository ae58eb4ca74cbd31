//! Reading JSON as the API's clients expect it to be read.
//!
//! Field names match without regard to case, `null` means "not given", of equal keys the last one
//! wins, unknown fields are skipped, bad UTF-8 is replaced. There is one reading of a body and it
//! is the typed result: nothing else looks at the bytes. Depth and number of values are limited.
//! Messages about syntax are worded as clients know them.

mod de;
mod parse;

use std::fmt;

use serde::de::DeserializeOwned;

/// Deepest nesting that is read.
pub const MAX_DEPTH: usize = 100;
/// Most values in one document: a container with all ports of two protocols has two thirds of a million.
pub const MAX_VALUES: usize = 800_000;

/// A JSON value, keys in the order they came, duplicates kept.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Node {
    Null,
    Bool(bool),
    Signed(i64),
    /// Above `i64::MAX`.
    Unsigned(u64),
    Float(f64),
    String(String),
    Array(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Node {
    /// Reads one value; anything but white space after it is an error.
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        parse::document(text)
    }
}

/// The text is not JSON, or not of the expected shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    path: String,
    message: String,
    empty: bool,
}

impl Error {
    /// An error with this message.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { path: String::new(), message: message.into(), empty: false }
    }

    fn empty() -> Self {
        Self { empty: true, ..Self::new("EOF") }
    }

    /// There was no text at all, only white space perhaps.
    #[must_use]
    pub fn is_empty_input(&self) -> bool {
        self.empty
    }

    /// The same error, found inside `field`.
    fn within(mut self, field: &str) -> Self {
        self.path = match self.path.is_empty() {
            true => field.to_owned(),
            false => format!("{field}.{}", self.path),
        };
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.is_empty() {
            true => f.write_str(&self.message),
            false => write!(f, "json: cannot unmarshal into field {}: {}", self.path, self.message),
        }
    }
}

impl std::error::Error for Error {}

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }
}

/// Reads a value from text.
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> Result<T, Error> {
    from_node(&Node::parse(text)?)
}

/// Reads a value from a parsed document.
pub fn from_node<T: DeserializeOwned>(node: &Node) -> Result<T, Error> {
    Ok(from_node_counted(node)?.0)
}

/// Reads an object, and says how many of its keys the type knows.
pub fn from_node_counted<T: DeserializeOwned>(node: &Node) -> Result<(T, usize), Error> {
    let known = std::cell::Cell::new(0);
    let value = T::deserialize(de::Reader::top(node, &known))?;
    Ok((value, known.get()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Inner {
        size: (u32, u32),
        on: Option<bool>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Outer {
        name: String,
        count: i64,
        inner: Inner,
        words: Option<Vec<String>>,
        map: BTreeMap<String, String>,
        any: Option<serde_json::Value>,
    }

    fn read(text: &str) -> Result<Outer, Error> {
        from_slice(text.as_bytes())
    }

    #[test]
    fn keys_match_in_any_case_and_the_last_wins() {
        let o =
            read(r#"{"NAME":"a","name":"b","inner":{"SIZE":[1,2],"on":null},"Unknown":{"x":[1]}}"#).unwrap();
        assert_eq!(o.name, "b");
        assert_eq!(o.inner, Inner { size: (1, 2), on: None });
        assert_eq!(read(r#"{"Name":"a","name":"b","Name":"c"}"#).unwrap().name, "c");
    }

    #[test]
    fn null_is_not_given() {
        let o =
            read(r#"{"Name":null,"Count":null,"Inner":null,"Words":[null,"x"],"Map":{"k":null}}"#).unwrap();
        assert_eq!(
            o,
            Outer {
                words: Some(vec![String::new(), "x".into()]),
                map: BTreeMap::from([("k".into(), String::new())]),
                ..Outer::default()
            }
        );
    }

    #[test]
    fn short_and_long_tuples_fit() {
        assert_eq!(read(r#"{"Inner":{"Size":[7]}}"#).unwrap().inner.size, (7, 0));
        assert_eq!(read(r#"{"Inner":{"Size":[7,8,9]}}"#).unwrap().inner.size, (7, 8));
    }

    #[test]
    fn any_value_is_kept() {
        let o = read(r#"{"Any":{"A":[1,-2,1.5,"x",true,null]}}"#).unwrap();
        assert_eq!(o.any, Some(serde_json::json!({"A": [1, -2, 1.5, "x", true, null]})));
    }

    #[test]
    fn wrong_types_name_the_field() {
        let e = read(r#"{"Inner":{"On":"yes"}}"#).unwrap_err().to_string();
        assert!(e.contains("Inner.On"), "{e}");
        assert!(read(r#"{"Count":1.5}"#).is_err() && read(r#"{"Count":18446744073709551615}"#).is_err());
        assert!(read("[]").is_err() && read(r#""x""#).is_err());
    }

    #[test]
    fn syntax_errors_read_as_clients_know_them() {
        let message = |t: &str| Node::parse(t.as_bytes()).unwrap_err().to_string();
        assert_eq!(message("{bad"), "invalid character 'b' looking for beginning of object key string");
        assert_eq!(message("x"), "invalid character 'x' looking for beginning of value");
        assert_eq!(message("{\"a\" 1}"), "invalid character '1' after object key");
        assert_eq!(message("{\"a\":1 2}"), "invalid character '2' after object key:value pair");
        assert_eq!(message("[1 2]"), "invalid character '2' after array element");
        assert_eq!(message("{\"a\":"), "unexpected EOF");
        assert_eq!(message("tru"), "unexpected EOF");
        assert_eq!(message("trux"), "invalid character 'x' in literal true (expecting 'e')");
        assert_eq!(message("\"a\nb\""), "invalid character '\\n' in string literal");
        assert_eq!(message("\"\\q\""), "invalid character 'q' in string escape code");
        assert_eq!(message("[1.]"), "invalid character ']' after decimal point in numeric literal");
        assert_eq!(message("[-]"), "invalid character ']' in numeric literal");
        assert!(message("{} x").contains("unexpected content after JSON"));
        assert!(Node::parse(b"  ").unwrap_err().is_empty_input());
    }

    #[test]
    fn atk_36_hostile_documents_are_bounded() {
        let deep = "[".repeat(1_000_000);
        assert!(Node::parse(deep.as_bytes()).unwrap_err().to_string().contains("max depth"));
        let wide = format!("[{}1]", "1,".repeat(MAX_VALUES + 1));
        assert!(Node::parse(wide.as_bytes()).unwrap_err().to_string().contains("too many values"));
        let text = Node::parse(b"\"a\xff\\ud800\\u00e9\\ud83d\\ude00\"").unwrap();
        assert_eq!(text, Node::String("a\u{fffd}\u{fffd}é😀".into()));
    }

    #[test]
    fn agrees_with_serde_json_on_good_documents() {
        for text in ["0", "-7", "1e3", "-1.25E-2", "[[],{}]", r#"{"a":"\u0041\n\/\"","b":[true,false]}"#] {
            let ours: serde_json::Value = from_slice(text.as_bytes()).unwrap();
            let theirs: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!(ours, theirs, "{text}");
        }
    }

    /// Broken documents: what we take, serde_json takes, and the other way round.
    #[test]
    fn agrees_with_serde_json_on_broken_documents() {
        const SEED: &[u8] =
            br#"{"a":[1,-2,true,false,null,"x\n\"y"],"bc":{"d":{"e":123}},"f":"","g":[[],{}]}"#;
        const BYTES: &[u8] = br#"{}[]":,0123456789.eE+-tfnalsru \x"#;
        let mut state = 1u64;
        let mut random = |n: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(state >> 33).unwrap() % n
        };
        for _ in 0..20_000 {
            let mut text = SEED.to_vec();
            for _ in 0..=random(3) {
                let at = random(text.len());
                match random(3) {
                    0 => text[at] = BYTES[random(BYTES.len())],
                    1 => text.insert(at, BYTES[random(BYTES.len())]),
                    _ => drop(text.remove(at)),
                }
            }
            let shown = String::from_utf8_lossy(&text).into_owned();
            let ours = from_slice::<serde_json::Value>(&text);
            let theirs = serde_json::from_slice::<serde_json::Value>(&text);
            match (ours, theirs) {
                // Numbers that are no whole ones may differ in the last digit.
                (Ok(a), Ok(b)) if !has_float(&b) => assert_eq!(a, b, "{shown}"),
                (Ok(_), Ok(_)) | (Err(_), Err(_)) => {}
                (ours, theirs) => panic!("{shown}: {ours:?}, {theirs:?}"),
            }
        }
    }

    fn has_float(value: &serde_json::Value) -> bool {
        match value {
            serde_json::Value::Number(n) => n.is_f64(),
            serde_json::Value::Array(items) => items.iter().any(has_float),
            serde_json::Value::Object(map) => map.values().any(has_float),
            _ => false,
        }
    }
}
