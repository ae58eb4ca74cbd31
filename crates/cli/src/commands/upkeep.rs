//! The store's upkeep, which only our own daemon knows: `system gc`.

use hyper::Method;
use serde_json::{Value, json};

use super::lists::{items, text};
use super::say;
use crate::args::system::GcArgs;
use crate::client::{Client, Payload, query};
use crate::error::{Failure, Result};
use crate::format::human::{short_id, total};
use crate::format::{Columns, Row, print_rows};

const ERRORS: (&str, &str) = ("template parsing error", "template parsing error");

const DECISIONS: Columns = Columns {
    kind: "decision",
    errors: ERRORS,
    raw: ("", ""),
    all: &[
        ("Action", "ACTION"),
        ("Kind", "KIND"),
        ("Name", "NAME"),
        ("Called", "CALLED"),
        ("Size", "SIZE"),
        ("Reason", "REASON"),
    ],
    default: &["Action", "Kind", "Called", "Size", "Reason"],
};

/// Another daemon does not know the path.
pub(super) fn only_ours(what: &str, e: Failure) -> Failure {
    match e.is_not_found() {
        true => Failure::new(format!("{what} works with Longshore's daemon only: this one is another")),
        false => e,
    }
}

/// `system gc`.
pub(crate) async fn gc(c: &Client, args: &GcArgs) -> Result<()> {
    let limited = !args.limit.is_empty();
    let path = query(
        "/longshore/gc",
        &[
            ("dryrun", if args.dry_run { "1" } else { "" }),
            ("limit", &args.limit),
            ("keep-last-used", &args.keep_last_used),
            ("keep-tagged", if limited { if args.keep_tagged { "1" } else { "0" } } else { "" }),
        ],
    );
    let answer = c.json::<Value>(Method::POST, &path, Payload::Empty).await;
    let done = answer.map_err(|e| only_ours("system gc", e))?;
    let rows: Vec<Row> = items(&done["Decisions"]).map(decision).collect();
    let format = args.format.as_deref().filter(|f| !f.is_empty());
    print_rows(&DECISIONS, &rows, format, None)?;
    let failed: Vec<&Value> = items(&done["Decisions"]).filter(|d| !text(&d["Error"]).is_empty()).collect();
    for d in &failed {
        eprintln!("{}", crate::tty::printable(&format!("{}: {}", text(&d["Called"]), text(&d["Error"]))));
    }
    if format.is_none() {
        say(&summary(&done))?;
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::exit(1)) }
}

fn decision(d: &Value) -> Row {
    let called = text(&d["Called"]);
    let row = json!({
        "Action": d["Action"], "Kind": d["Kind"], "Name": d["Name"],
        "Called": if called.starts_with("sha256:") { short_id(called) } else { called.to_owned() },
        "Size": total(d["Bytes"].as_i64().unwrap_or(0)), "Reason": d["Reason"],
    });
    Row::new(row, &Value::Null)
}

fn summary(done: &Value) -> String {
    let number = |key: &str| done[key].as_i64().unwrap_or(0);
    let after = number("Before") - number("Freed");
    let dry = done["DryRun"] == true;
    let over = if after > number("Limit") { ": over it, and no more may go" } else { "" };
    format!(
        "\n{} {}; {} on the disk {}, the limit is {}{over}",
        if dry { "Would free" } else { "Freed" },
        total(number("Freed")),
        total(after),
        if dry { "would be left" } else { "are left" },
        total(number("Limit")),
    )
}
