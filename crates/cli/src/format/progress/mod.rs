//! What goes on while images move: lines that change on a terminal, docker's lines elsewhere.

mod area;
mod live;
#[cfg(test)]
pub(crate) mod screen;

use serde_json::Value;

pub(crate) use area::{Area, Line, Size};
pub(crate) use live::{Live, Style};

use super::human::total;
use crate::tty::printable;

/// How much of something is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    /// Done so far, in bytes unless there is a unit.
    pub(crate) current: i64,
    /// All of it; 0 where that is not known.
    pub(crate) total: i64,
    units: String,
    hide_counts: bool,
}

impl Amount {
    fn of(detail: &Value) -> Self {
        let number = |key: &str| detail[key].as_i64().unwrap_or(0);
        Self {
            current: number("current"),
            total: number("total"),
            units: printable(detail["units"].as_str().unwrap_or_default()).chars().take(16).collect(),
            hide_counts: detail["hidecounts"] == true,
        }
    }

    /// Whether there is nothing to tell.
    pub(crate) fn is_none(&self) -> bool {
        self.current <= 0 && self.total <= 0
    }

    /// The part that is done, of a thousand; unknown without a total.
    fn thousandths(&self) -> Option<usize> {
        if self.total <= 0 {
            return None;
        }
        let part = i128::from(self.current.max(0)) * 1000 / i128::from(self.total);
        Some(usize::try_from(part.min(1000)).unwrap_or(1000))
    }

    /// `12.3MB/45MB`; the total is left out where there is none, or more is done than that.
    pub(crate) fn numbers(&self) -> String {
        let known = self.total > 0 && self.current <= self.total;
        match (self.units.as_str(), known) {
            _ if self.is_none() || (self.hide_counts && self.total > 0) => String::new(),
            ("", true) => format!("{}/{}", total(self.current), total(self.total)),
            ("", false) => total(self.current),
            (units, true) => format!("{}/{} {units}", self.current, self.total),
            (units, false) => format!("{} {units}", self.current),
        }
    }
}

/// One message of a stream, as the API sends them while an image is pulled, pushed, loaded or imported. Text is safe
/// for a terminal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    /// What moves: a layer, mostly.
    pub(crate) id: String,
    pub(crate) status: String,
    /// Text as it is, line feeds included.
    pub(crate) stream: String,
    from: String,
    /// There, perhaps empty, in messages about something that moves.
    pub(crate) amount: Option<Amount>,
    /// The bar of daemons of old, drawn already.
    drawn: String,
    /// Why it all failed.
    pub(crate) error: Option<String>,
    /// Results for programs.
    pub(crate) aux: Option<Value>,
}

impl Message {
    /// From a line of the stream.
    pub(crate) fn new(line: &Value) -> Self {
        let text = |key: &str| printable(line[key].as_str().unwrap_or_default());
        let error = line["errorDetail"]["message"].as_str().or(line["error"].as_str());
        Self {
            id: text("id"),
            status: text("status"),
            stream: text("stream"),
            from: text("from"),
            amount: line["progressDetail"].is_object().then(|| Amount::of(&line["progressDetail"])),
            drawn: text("progress"),
            error: error.map(str::to_owned),
            aux: (!line["aux"].is_null()).then(|| line["aux"].clone()),
        }
    }

    /// A line of its own, as docker writes it where nobody watches; what moves is left out.
    pub(crate) fn plain(&self) -> String {
        if self.amount.as_ref().is_some_and(|a| !a.is_none()) {
            return String::new();
        }
        let id = if self.id.is_empty() { String::new() } else { format!("{}: ", self.id) };
        let from = if self.from.is_empty() { String::new() } else { format!("(from {}) ", self.from) };
        match (self.drawn.as_str(), self.stream.as_str()) {
            ("", "") => format!("{id}{from}{}\n", self.status),
            ("", stream) => format!("{id}{from}{stream}"),
            (drawn, _) => format!("{id}{from}{} {drawn}", self.status),
        }
    }

    /// Whether it is about something that has a line which changes.
    pub(crate) fn moves(&self) -> bool {
        !self.id.is_empty() && self.amount.is_some() && self.stream.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_file_gets_dockers_lines() {
        for (line, want) in [
            (json!({"id": "a", "status": "x", "progressDetail": {"current": 1}}), ""),
            (json!({"id": "a", "status": "x", "progressDetail": {"current": 1, "units": "s"}}), ""),
            (json!({"id": "a", "status": "Pull complete", "progressDetail": {}}), "a: Pull complete\n"),
            (json!({"status": "sha256:1", "progressDetail": {}}), "sha256:1\n"),
            (json!({"status": "Pulling from x", "id": "latest"}), "latest: Pulling from x\n"),
            (json!({"stream": "Loaded \u{1b}[31m\n"}), "Loaded \\x1b[31m\n"),
            (json!({"status": "a", "progress": "[=>]", "id": "i", "from": "f"}), "i: (from f) a [=>]"),
            (json!({}), "\n"),
        ] {
            assert_eq!(Message::new(&line).plain(), want, "{line}");
        }
        let failed = json!({"error": "old", "errorDetail": {"message": "new"}});
        assert_eq!(Message::new(&failed).error.unwrap(), "new");
    }

    #[test]
    fn numbers_are_dockers() {
        for (detail, want) in [
            (json!({"current": 1_500_000, "total": 2_000_000}), "1.5MB/2MB"),
            (json!({"current": 3, "total": 2}), "3B"),
            (json!({"current": 1234}), "1.234kB"),
            (json!({"current": 3, "units": "s"}), "3 s"),
            (json!({"current": 3, "total": 9, "units": "files"}), "3/9 files"),
            (json!({"current": 3, "total": 9, "hidecounts": true}), ""),
            (json!({"current": -5, "total": "x"}), ""),
        ] {
            assert_eq!(Amount::of(&detail).numbers(), want, "{detail}");
        }
        assert_eq!(Amount::of(&json!({"current": i64::MAX, "total": 1})).thousandths(), Some(1000));
    }
}
