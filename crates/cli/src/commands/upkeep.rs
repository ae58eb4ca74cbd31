//! The store's upkeep, which only our own daemon knows: `system gc`, `system check`.

use hyper::Method;
use serde_json::{Value, json};

use super::lists::{items, text};
use super::say;
use crate::args::system::{CheckArgs, GcArgs};
use crate::client::{Client, Payload, each_line, query};
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

const FINDINGS: Columns = Columns {
    kind: "finding",
    errors: ERRORS,
    raw: ("", ""),
    all: &[
        ("Kind", "KIND"),
        ("Object", "OBJECT"),
        ("What", "WHAT"),
        ("Remedy", "REMEDY"),
        ("Outcome", "OUTCOME"),
        ("Detail", "DETAIL"),
        ("Damage", "DAMAGE"),
        ("Short", "OBJECT"),
        ("Then", "REPAIR"),
    ],
    default: &["Kind", "Short", "What", "Then"],
};

/// `system check`.
pub(crate) async fn check(c: &Client, args: &CheckArgs) -> Result<()> {
    let flag = |on: bool| if on { "1" } else { "" };
    let path = query("/longshore/check", &[("quick", flag(args.quick)), ("repair", flag(args.repair))]);
    let answer = c.call(Method::POST, &path, Payload::Empty).await;
    let answer = answer.map_err(|e| only_ours("system check", e))?;
    let mut progress = Percent::new();
    let mut report = Value::Null;
    each_line(answer, |mut line| {
        if let Some(why) = line["Error"].as_str() {
            progress.end();
            return Err(Failure::new(why));
        }
        if line["Reading"].is_object() {
            progress.show(&line["Reading"]);
        }
        if line["Report"].is_object() {
            report = line["Report"].take();
        }
        Ok(())
    })
    .await?;
    progress.end();
    if !report.is_object() {
        return Err(Failure::new("the daemon ended the check without a report"));
    }
    let format = args.format.as_deref().filter(|f| !f.is_empty());
    if format == Some("json") {
        say(&report.to_string())?;
    } else {
        let rows: Vec<Row> = items(&report["Findings"]).map(finding).collect();
        if format.is_some() || !rows.is_empty() {
            print_rows(&FINDINGS, &rows, format, None)?;
        }
        if format.is_none() {
            say(&checked(&report, !rows.is_empty()))?;
        }
    }
    if report["Damaged"].as_u64() == Some(0) { Ok(()) } else { Err(Failure::exit(1)) }
}

fn finding(f: &Value) -> Row {
    let object = text(&f["Object"]);
    // A digest is known by its beginning.
    let short = match object.split_once("sha256:") {
        Some((kind, digest)) => format!("{kind}{}", short_id(digest)),
        None => object.to_owned(),
    };
    let then = match (text(&f["Outcome"]), text(&f["Remedy"]), text(&f["Detail"])) {
        ("found", "", _) => "nothing here can mend it".to_owned(),
        ("found", remedy, _) => format!("--repair would {remedy}"),
        (_, _, detail) => format!("{}: {detail}", text(&f["Outcome"])),
    };
    let row = json!({
        "Kind": f["Kind"], "Object": object, "What": f["What"], "Remedy": text(&f["Remedy"]), "Outcome": f["Outcome"],
        "Detail": text(&f["Detail"]), "Damage": f["Damage"], "Short": short, "Then": then,
    });
    Row::new(row, &Value::Null)
}

/// What was looked at, and whether all is well.
fn checked(report: &Value, after_rows: bool) -> String {
    let number = |key: &str| report[key].as_i64().unwrap_or(0);
    let count = |key: &str, one: &str| {
        let n = number(key);
        format!("{n} {one}{}", if n == 1 { "" } else { "s" })
    };
    let seen = [
        count("Images", "image"),
        count("Layers", "layer"),
        count("Blobs", "blob"),
        count("Containers", "container"),
    ];
    let verdict = match number("Damaged") {
        0 => "nothing is damaged".to_owned(),
        n => format!("{n} damaged"),
    };
    let gap = if after_rows { "\n" } else { "" };
    format!("{gap}Checked {} ({} read): {verdict}", seen.join(", "), total(number("Bytes")))
}

/// How far it is, on standard error: a line that changes on a terminal, else one for each tenth.
struct Percent {
    terminal: bool,
    shown: u64,
}

impl Percent {
    fn new() -> Self {
        Self { terminal: std::io::IsTerminal::is_terminal(&std::io::stderr()), shown: 0 }
    }

    fn show(&mut self, reading: &Value) {
        let number = |key: &str| reading[key].as_u64().unwrap_or(0);
        let (done, all) = (number("Done"), number("Total").max(1));
        let percent = u64::try_from(u128::from(done) * 100 / u128::from(all)).unwrap_or(100).min(100);
        let bytes = |n: u64| total(i64::try_from(n).unwrap_or(i64::MAX));
        let far = format!("{percent}% ({} of {})", bytes(done), bytes(all));
        if self.terminal {
            let object = crate::tty::printable(text(&reading["Object"]));
            let object = object.replace("sha256:", "");
            let object: String = object.chars().take(30).collect();
            eprint!("\r\x1b[Kchecked {far}  {object}");
            self.shown = 1;
        } else if percent / 10 > self.shown {
            self.shown = percent / 10;
            eprintln!("checked {far}");
        }
    }

    /// Clears the line.
    fn end(&mut self) {
        if self.terminal && self.shown > 0 {
            eprint!("\r\x1b[K");
            self.shown = 0;
        }
    }
}
