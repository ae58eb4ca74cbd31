//! `working ls`.

use longshore_api::working::Working;
use serde_json::{Value, json};

use super::all;
use crate::args::working::LsArgs;
use crate::client::Client;
use crate::commands::lists::{items, text};
use crate::commands::say;
use crate::error::{Failure, Result};
use crate::format::human::short_id;
use crate::format::{Columns, Row, print_rows};

const ERRORS: (&str, &str) = ("template parsing error", "template parsing error");

const COLUMNS: Columns = Columns {
    kind: "working container",
    errors: ERRORS,
    raw: ("", ""),
    all: &[
        ("ContainerID", "CONTAINER ID"),
        ("Builder", "BUILDER"),
        ("ImageID", "IMAGE ID"),
        ("ImageName", "IMAGE NAME"),
        ("ContainerName", "CONTAINER NAME"),
        ("Status", "STATUS"),
    ],
    default: &["ContainerID", "Builder", "ImageID", "ImageName", "ContainerName", "Status"],
};

/// `working ls`.
pub(super) async fn list(c: &Client, args: &LsArgs) -> Result<()> {
    let format = args.format.as_deref().filter(|f| !f.is_empty());
    if args.json && (args.quiet || format.is_some()) {
        return Err(Failure::new("--json goes with neither --quiet nor --format"));
    }
    let mut found: Vec<Value> = all(c).await?.iter().map(shown).collect();
    if args.all {
        let others = c.value("/containers/json?all=1").await?;
        found.extend(items(&others).map(other));
    }
    if args.json {
        return say(&serde_json::to_string_pretty(&found).unwrap_or_default());
    }
    if args.quiet && format.is_none() {
        return found.iter().try_for_each(|v| say(text(&v["id"])));
    }
    let rows: Vec<Row> = found.iter().map(|v| row(v, args.notruncate)).collect();
    let headless: String =
        COLUMNS.default.iter().map(|f| format!("{{{{.{f}}}}}")).collect::<Vec<_>>().join("  ");
    let format = if args.noheading && format.is_none() { Some(headless.as_str()) } else { format };
    print_rows(&COLUMNS, &rows, format, None)
}

fn shown(w: &Working) -> Value {
    let status = match (w.doing.as_str(), w.interrupted.as_str(), w.mount_point.as_str()) {
        ("", "", "") => String::new(),
        ("", "", _) => "mounted".to_owned(),
        ("", cut, _) => format!("interrupted: {cut}"),
        (doing, _, _) => doing.to_owned(),
    };
    json!({
        "id": w.id, "builder": true, "imageid": w.image.trim_start_matches("sha256:"), "imagename": w.image_name,
        "containername": w.name, "status": status,
    })
}

/// A container that is none of ours here.
fn other(v: &Value) -> Value {
    json!({
        "id": v["Id"], "builder": false, "imageid": text(&v["ImageID"]).trim_start_matches("sha256:"),
        "imagename": v["Image"], "containername": text(&v["Names"][0]).trim_start_matches('/'), "status": v["Status"],
    })
}

fn row(v: &Value, whole: bool) -> Row {
    let id = |key: &str| if whole { text(&v[key]).to_owned() } else { short_id(text(&v[key])) };
    let row = json!({
        "ContainerID": id("id"), "Builder": if v["builder"] == true { "*" } else { "" }, "ImageID": id("imageid"),
        "ImageName": v["imagename"], "ContainerName": v["containername"],
        "Status": crate::tty::one_line(text(&v["status"])),
    });
    Row::new(row, &Value::Null)
}
