//! `--format`: the default table, `table <template>`, `json`, or a template for each row.

use std::io::Write;

use serde_json::{Map, Value};

use crate::error::{Failure, Result};
use crate::template::{self, Template};
use crate::tty;

/// Narrowest column, and space between columns, as docker's tabwriter has them.
const MIN_WIDTH: usize = 10;
const PADDING: usize = 3;

/// What a list can show.
pub(crate) struct Columns {
    /// Field and header.
    pub(crate) all: &'static [(&'static str, &'static str)],
    /// Fields of the default table.
    pub(crate) default: &'static [&'static str],
}

/// Prints rows (objects whose keys are the fields). With `quiet`, only that field of each.
pub(crate) fn print_rows(
    columns: &Columns,
    rows: &[Value],
    format: Option<&str>,
    quiet: Option<&str>,
) -> Result<()> {
    let mut out = String::new();
    match (quiet, format.unwrap_or("table")) {
        (Some(field), "table") => {
            for row in rows {
                out.push_str(row[field].as_str().unwrap_or_default());
                out.push('\n');
            }
        }
        (_, "json") => {
            for row in rows {
                out.push_str(&row.to_string());
                out.push('\n');
            }
        }
        (_, "table") => {
            let fields: Vec<String> = columns.default.iter().map(|f| format!("{{{{.{f}}}}}")).collect();
            table(&fields.join("\t"), columns, rows, &mut out)?;
        }
        (_, text) => match text.strip_prefix("table ") {
            Some(text) => table(&template::unescape(text), columns, rows, &mut out)?,
            None => {
                let template = parse(&template::unescape(text))?;
                for row in rows {
                    out.push_str(&line(&template, row)?);
                    out.push('\n');
                }
            }
        },
    }
    print(&out)
}

fn table(text: &str, columns: &Columns, rows: &[Value], out: &mut String) -> Result<()> {
    let template = parse(text)?;
    let headers: Map<String, Value> =
        columns.all.iter().map(|(field, header)| ((*field).to_owned(), Value::from(*header))).collect();
    let mut lines = vec![line(&template, &Value::Object(headers))?];
    for row in rows {
        lines.push(line(&template, row)?);
    }
    out.push_str(&align(&lines));
    Ok(())
}

fn parse(text: &str) -> Result<Template> {
    Template::parse(text).map_err(|e| Failure::new(format!("template parsing error: {e}")))
}

fn line(template: &Template, row: &Value) -> Result<String> {
    // Labels are a text for people and a map for `.Label "name"`.
    let methods = |name: &str, args: &[Value]| -> Option<std::result::Result<Value, String>> {
        let ("Label", [Value::String(key)]) = (name, args) else { return None };
        Some(Ok(row.get("label_map").and_then(|m| m.get(key)).cloned().unwrap_or_else(|| Value::from(""))))
    };
    let text = template.render(row, &methods, true);
    text.map_err(|e| Failure::new(format!("failed to execute template: {e}")))
}

/// Renders one object with a template (`inspect -f`).
pub(crate) fn render_object(text: &str, object: &Value) -> Result<String> {
    let template = parse(&template::unescape(text))?;
    let text = template.render(object, &|_, _| None, true);
    text.map_err(|e| Failure::new(format!("template parsing error: {e}")))
}

/// Aligns cells that tabs separate.
pub(crate) fn align(lines: &[String]) -> String {
    let cells: Vec<Vec<String>> = lines
        .iter()
        .map(|l| {
            tty::printable(&l.replace('\t', "\u{1f}"))
                .replace("\\x1f", "\u{1f}")
                .split('\u{1f}')
                .map(str::to_owned)
                .collect()
        })
        .collect();
    let columns = cells.iter().map(Vec::len).max().unwrap_or(0);
    let mut widths = vec![0; columns];
    for row in &cells {
        // The last cell of a line takes no part: nothing stands behind it.
        for (i, cell) in row.iter().enumerate().take(row.len().saturating_sub(1)) {
            widths[i] = widths[i].max((cell.chars().count() + PADDING).max(MIN_WIDTH));
        }
    }
    let mut out = String::new();
    for row in &cells {
        for (i, cell) in row.iter().enumerate() {
            out.push_str(cell);
            if i + 1 < row.len() {
                out.extend(std::iter::repeat_n(' ', widths[i] - cell.chars().count()));
            }
        }
        out.push('\n');
    }
    out
}

/// Prints to standard output; a closed pipe is no error.
fn print(text: &str) -> Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure::exit(141)),
        Err(e) => Err(Failure::new(format!("write output: {e}"))),
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_as_docker_does() {
        let lines = ["ID\tNAME\tX".to_owned(), "0123456789ab\tx\ty".to_owned()];
        assert_eq!(align(&lines), "ID             NAME      X\n0123456789ab   x         y\n");
    }
}
