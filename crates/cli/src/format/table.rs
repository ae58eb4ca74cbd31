//! `--format`: the default table, `table <template>`, `json`, or a template for each row.

use std::io::Write;

use serde_json::{Map, Value};

use crate::error::{Failure, Result};
use crate::template::{self, Style, Template};
use crate::tty;

/// Narrowest column, and space between columns, as docker's tabwriter has them.
const MIN_WIDTH: usize = 10;
const PADDING: usize = 3;

/// What a list can show.
pub(crate) struct Columns {
    /// Docker's name for a row's type, which stands in errors.
    pub(crate) kind: &'static str,
    /// What docker writes before the error of a template that cannot be read, and of one that cannot be carried out.
    pub(crate) errors: (&'static str, &'static str),
    /// Field and header.
    pub(crate) all: &'static [(&'static str, &'static str)],
    /// Fields of the default table.
    pub(crate) default: &'static [&'static str],
    /// The template of the format `raw`, and of the same with `--quiet`.
    pub(crate) raw: (&'static str, &'static str),
}

/// One row: an object whose keys are the fields, and its labels.
pub(crate) struct Row {
    value: Value,
    /// The same where JSON differs from what the cells show.
    json: Option<Value>,
    labels: Value,
}

impl Row {
    /// A row; JSON shows its fields in order of their names.
    pub(crate) fn new(fields: Value, labels: &Value) -> Self {
        Self { value: sorted(fields), json: None, labels: labels.clone() }
    }

    /// Its fields, in order of their names.
    pub(crate) fn into_value(self) -> Value {
        self.value
    }

    /// The same with other values for JSON.
    pub(crate) fn with_json(mut self, fields: Value) -> Self {
        self.json = Some(sorted(fields));
        self
    }

    fn json(&self) -> &Value {
        self.json.as_ref().unwrap_or(&self.value)
    }
}

fn sorted(fields: Value) -> Value {
    let mut pairs: Vec<(String, Value)> = match fields {
        Value::Object(map) => map.into_iter().collect(),
        _ => Vec::new(),
    };
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    Value::Object(pairs.into_iter().collect())
}

/// Prints rows. With `quiet`, the default table is only that field of each.
pub(crate) fn print_rows(
    columns: &Columns,
    rows: &[Row],
    format: Option<&str>,
    quiet: Option<&str>,
) -> Result<()> {
    let mut out = String::new();
    match (quiet, format.filter(|f| !f.is_empty()).unwrap_or("table")) {
        (Some(field), "table") => lines(&format!("{{{{.{field}}}}}"), columns, rows, &mut out)?,
        (None, "table") => {
            let fields: Vec<String> = columns.default.iter().map(|f| format!("{{{{.{f}}}}}")).collect();
            table(&fields.join("\t"), columns, rows, &mut out)?;
        }
        (_, "json") => rows.iter().for_each(|row| {
            out.push_str(&template::escaped_json(row.json()));
            out.push('\n');
        }),
        (quiet, "raw") if !columns.raw.0.is_empty() => {
            let text = if quiet.is_some() { columns.raw.1 } else { columns.raw.0 };
            lines(text, columns, rows, &mut out)?;
        }
        (_, text) => match text.strip_prefix("table") {
            Some(text) => table(&template::unescape(text.trim()), columns, rows, &mut out)?,
            None => lines(&template::unescape(text), columns, rows, &mut out)?,
        },
    }
    print(&out)
}

fn lines(text: &str, columns: &Columns, rows: &[Row], out: &mut String) -> Result<()> {
    let template = parse(text, columns)?;
    for row in rows {
        out.push_str(&line(&template, columns, row)?);
        out.push('\n');
    }
    Ok(())
}

fn table(text: &str, columns: &Columns, rows: &[Row], out: &mut String) -> Result<()> {
    let template = parse(text, columns)?;
    let mut lines = Vec::new();
    for row in rows {
        lines.push(line(&template, columns, row)?);
    }
    let headers: Map<String, Value> =
        columns.all.iter().map(|(field, header)| ((*field).to_owned(), Value::from(*header))).collect();
    let headers = template.render(&Value::Object(headers), Style::Headers { kind: columns.kind });
    lines.insert(0, headers.map_err(|e| failed(columns, &e))?);
    out.push_str(&align(&lines));
    Ok(())
}

fn failed(columns: &Columns, e: &template::Error) -> Failure {
    Failure::new(format!("{}: {e}", columns.errors.1))
}

fn parse(text: &str, columns: &Columns) -> Result<Template> {
    Template::parse(text).map_err(|e| Failure::new(format!("{}: {e}", columns.errors.0)))
}

fn line(template: &Template, columns: &Columns, row: &Row) -> Result<String> {
    let style = Style::Row { labels: &row.labels, json: row.json(), kind: columns.kind };
    template.render(&row.value, style).map_err(|e| failed(columns, &e))
}

/// A template for one object (`inspect -f`).
pub(crate) struct Object(Template);

impl Object {
    /// Reads a template; the error says what is wrong with it.
    pub(crate) fn parse(text: &str) -> std::result::Result<Self, template::Error> {
        Template::parse(text).map(Self)
    }

    /// Carries it out.
    pub(crate) fn render(&self, object: &Value) -> std::result::Result<String, template::Error> {
        self.0.render(object, Style::Object)
    }

    /// The same for an object of a type that errors name, with the template's name. `json` is the object with the names
    /// that JSON has.
    pub(crate) fn render_typed(
        &self,
        object: &Value,
        json: &Value,
        name: &'static str,
        kind: &'static str,
    ) -> std::result::Result<String, template::Error> {
        self.0.render(object, Style::Typed { json, name, kind })
    }
}

/// Aligns cells that tabs separate.
pub(crate) fn align(lines: &[String]) -> String {
    align_from(lines, MIN_WIDTH)
}

/// The same with columns that are at least so wide.
pub(crate) fn align_from(lines: &[String], narrowest: usize) -> String {
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
            widths[i] = widths[i].max((cell.chars().count() + PADDING).max(narrowest));
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
