//! The `filters` parameter of lists, prunes and events.

use std::collections::BTreeMap;

use crate::json::{self, Node};

/// Name to values. Several values of one name are alternatives (of labels: all must fit).
pub type Filters = BTreeMap<String, Vec<String>>;

/// Reads the parameter: `{"name": ["a", "b"]}`, or as old clients write it
/// `{"name": {"a": true, "b": true}}`. Empty text means no filter.
pub fn parse(text: &str) -> Result<Filters, json::Error> {
    let mut filters = Filters::new();
    if text.is_empty() {
        return Ok(filters);
    }
    let Node::Object(entries) = Node::parse(text.as_bytes())? else {
        return Err(json::Error::new("invalid filter"));
    };
    for (name, node) in entries {
        let values = filters.entry(name).or_default();
        match node {
            Node::Null => {}
            Node::Array(items) => {
                for item in items {
                    match item {
                        Node::String(s) => push(values, s),
                        _ => return Err(json::Error::new("invalid filter")),
                    }
                }
            }
            Node::Object(items) => {
                for (value, wanted) in items {
                    match wanted {
                        Node::Bool(true) => push(values, value),
                        Node::Bool(false) => {}
                        _ => return Err(json::Error::new("invalid filter")),
                    }
                }
            }
            _ => return Err(json::Error::new("invalid filter")),
        }
    }
    filters.retain(|_, values| !values.is_empty());
    Ok(filters)
}

/// Writes the parameter in the form that every version reads.
#[must_use]
pub fn encode(filters: &Filters) -> String {
    let object: BTreeMap<&str, BTreeMap<&str, bool>> = filters
        .iter()
        .map(|(name, values)| (name.as_str(), values.iter().map(|v| (v.as_str(), true)).collect()))
        .collect();
    serde_json::to_string(&object).unwrap_or_default()
}

fn push(values: &mut Vec<String>, value: String) {
    if !values.contains(&value) {
        values.push(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_mean_the_same() {
        let list = parse(r#"{"name":["a","b"],"label":["x=y"],"none":[]}"#).unwrap();
        let map = parse(r#"{"name":{"a":true,"b":true,"c":false},"label":{"x=y":true}}"#).unwrap();
        assert_eq!(list, map);
        assert_eq!(list["name"], ["a", "b"]);
        assert_eq!(parse(&encode(&list)).unwrap(), list);
        assert!(parse("").unwrap().is_empty() && parse("{}").unwrap().is_empty());
    }

    #[test]
    fn other_forms_are_refused() {
        for bad in ["[]", "1", "{", r#"{"a":"b"}"#, r#"{"a":[1]}"#, r#"{"a":{"b":1}}"#, "null"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
