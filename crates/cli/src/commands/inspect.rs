//! `inspect`: an object of any kind by its name.

use serde_json::Value;

use super::say;
use crate::cli::InspectArgs;
use crate::client::{Client, escape, query};
use crate::error::{Failure, Result};
use crate::format::render_object;

/// `inspect` of one kind, or of the first kind that has the name.
pub(crate) async fn inspect(c: &Client, args: &InspectArgs, kind: &str) -> Result<()> {
    let kind = if args.kind.is_empty() { kind } else { args.kind.as_str() };
    let mut found = Vec::new();
    let mut failed = None;
    for name in &args.names {
        match one(c, name, kind, args.size).await {
            Ok(value) => found.push(value),
            Err(e) => failed = failed.or(Some(e)),
        }
    }
    match args.format.as_deref() {
        None => {
            let text = serde_json::to_string_pretty(&Value::Array(found)).unwrap_or_default();
            // Docker indents by four.
            say(&indent(&text))?;
        }
        Some("json") => found.iter().try_for_each(|v| say(&v.to_string()))?,
        Some(template) => {
            for value in &found {
                say(&render_object(template, value)?)?;
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

fn indent(text: &str) -> String {
    let deeper = |line: &str| {
        let spaces = line.len() - line.trim_start_matches(' ').len();
        format!("{}{}", " ".repeat(spaces), line)
    };
    text.lines().map(deeper).collect::<Vec<_>>().join("\n")
}

async fn one(c: &Client, name: &str, kind: &str, size: bool) -> Result<Value> {
    let escaped = escape(name);
    let size = if size { "1" } else { "" };
    let path = |kind: &str| match kind {
        "container" => Some(query(&format!("/containers/{escaped}/json"), &[("size", size)])),
        "image" => Some(format!("/images/{escaped}/json")),
        "network" => Some(format!("/networks/{escaped}")),
        "volume" => Some(format!("/volumes/{escaped}")),
        _ => None,
    };
    if !kind.is_empty() {
        let path =
            path(kind).ok_or_else(|| Failure::new(format!("{kind:?} is not a valid value for --type")))?;
        return c.value(&path).await;
    }
    for kind in ["container", "image", "network", "volume"] {
        let Some(path) = path(kind) else { continue };
        match c.value(&path).await {
            // A name may be against the rules of one kind and good for another.
            Err(e) if matches!(e.status, Some(404 | 400)) => {}
            other => return other,
        }
    }
    Err(Failure::new(format!("Error: No such object: {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_spaces_a_level() {
        assert_eq!(indent("[\n  {\n    \"a\": 1\n  }\n]"), "[\n    {\n        \"a\": 1\n    }\n]");
    }
}
