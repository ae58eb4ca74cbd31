//! `inspect`: an object of any kind by its name.

use serde_json::Value;

use super::say;
use crate::args::object::InspectArgs;
use crate::client::{Client, escape, query};
use crate::error::{Failure, Result};
use crate::format::Object;
use crate::tty;

/// Docker's status for a template that cannot be read.
const WRONG_TEMPLATE: i32 = 64;

/// What is inspected.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Container {
        size: bool,
    },
    Image {
        platform: String,
    },
    Network {
        verbose: bool,
    },
    Volume,
    /// A working container.
    Working,
}

/// `inspect`, of the first kind that has the name or of the given one.
pub(crate) async fn any(c: &Client, args: &InspectArgs) -> Result<()> {
    let kinds = match args.kind.as_str() {
        "" => vec![
            Kind::Container { size: args.size },
            Kind::Image { platform: String::new() },
            Kind::Network { verbose: false },
            Kind::Volume,
        ],
        "container" => vec![Kind::Container { size: args.size }],
        "image" => vec![Kind::Image { platform: String::new() }],
        "network" => vec![Kind::Network { verbose: false }],
        "volume" => vec![Kind::Volume],
        kind @ ("config" | "node" | "plugin" | "secret" | "service" | "task") => {
            return Err(Failure::new(format!("inspecting a {kind} is not implemented yet")));
        }
        kind => {
            return Err(Failure::new(format!(
                "unknown type: {kind:?}: must be one of \"container\", \"image\", \"network\", \"volume\""
            )));
        }
    };
    show(c, &args.names, args.format.as_deref(), &kinds).await
}

/// `container inspect` and its like.
pub(crate) async fn inspect(c: &Client, names: &[String], format: Option<&str>, kind: Kind) -> Result<()> {
    if let Kind::Image { platform } = &kind {
        super::image::bare_platform_json(platform)?;
    }
    show(c, names, format, &[kind]).await
}

async fn show(c: &Client, names: &[String], format: Option<&str>, kinds: &[Kind]) -> Result<()> {
    let format = format.filter(|f| !f.is_empty());
    let template =
        match format {
            None | Some("json") => None,
            Some(text) => Some(Object::parse(text).map_err(|e| {
                Failure::new(format!("template parsing error: {e}")).with_code(WRONG_TEMPLATE)
            })?),
        };
    let mut found = Vec::new();
    let mut failed: Vec<String> = Vec::new();
    for name in names {
        let value = match one(c, name, kinds).await {
            Ok(value) => value,
            Err(e) => {
                failed.push(e.message);
                continue;
            }
        };
        let Some(template) = &template else {
            found.push(value);
            continue;
        };
        match template.render(&value) {
            Ok(line) => say(&line)?,
            Err(e) => failed.push(format!("template parsing error: {e}")),
        }
    }
    match format {
        // Docker indents by four.
        None => say(&indent(&serde_json::to_string_pretty(&Value::Array(found)).unwrap_or_default()))?,
        Some("json") => say(&Value::Array(found).to_string())?,
        // An empty line stands where nothing could be shown.
        Some(_) if failed.len() == names.len() => say("")?,
        Some(_) => {}
    }
    for message in &failed {
        eprintln!("{}", tty::printable(message));
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::exit(1)) }
}

fn indent(text: &str) -> String {
    let deeper = |line: &str| {
        let spaces = line.len() - line.trim_start_matches(' ').len();
        format!("{}{}", " ".repeat(spaces), line)
    };
    text.lines().map(deeper).collect::<Vec<_>>().join("\n")
}

fn path(kind: &Kind, name: &str) -> String {
    let name = escape(name);
    match kind {
        Kind::Container { size } => {
            query(&format!("/containers/{name}/json"), &[("size", if *size { "1" } else { "" })])
        }
        Kind::Image { platform } => {
            let platform = super::image::platform_json(platform).unwrap_or_default();
            query(&format!("/images/{name}/json"), &[("platform", &platform)])
        }
        Kind::Network { verbose } => {
            query(&format!("/networks/{name}"), &[("verbose", if *verbose { "true" } else { "" })])
        }
        Kind::Volume => format!("/volumes/{name}"),
        Kind::Working => format!("/longshore/working/{name}"),
    }
}

async fn one(c: &Client, name: &str, kinds: &[Kind]) -> Result<Value> {
    for kind in kinds {
        match c.value(&path(kind, name)).await {
            // A name may be against the rules of one kind and good for another.
            Err(e) if matches!(e.status, Some(404 | 400)) && kinds.len() > 1 => {}
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
