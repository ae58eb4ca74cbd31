//! A build as the classic builder tells it: one instruction after the other, in the order of the Dockerfile, although
//! they are carried out side by side.

use std::collections::VecDeque;

use longshore_api::JsonMessage;
use longshore_api::image::ErrorDetail;
use longshore_engine::model::{BuildDone, BuildEvent, BuildRow};

use super::translate::image;

/// Bytes of one instruction's output that are kept until its turn comes; then the oldest go.
const MAX_HELD: usize = 1 << 20;

/// Puts events into the order of the rows, and into words.
#[derive(Default)]
pub(super) struct Ordered {
    rows: Vec<Held>,
    /// The row that is being told.
    at: usize,
    begun: bool,
    text: Text,
    /// What is told at the end, as Docker does.
    warnings: Vec<JsonMessage>,
}

/// What happened to an instruction that was not told yet.
#[derive(Default)]
struct Held {
    text: String,
    events: VecDeque<BuildEvent>,
    bytes: usize,
    container: Option<String>,
    done: bool,
}

impl Ordered {
    /// The lines that can be told once `event` happened.
    pub(super) fn push(&mut self, event: BuildEvent) -> Vec<JsonMessage> {
        let mut out = Vec::new();
        match event {
            BuildEvent::Plan(rows) => {
                let held = |row: BuildRow| Held { text: row.text, ..Held::default() };
                self.rows = rows.into_iter().map(held).collect();
                self.go_on(&mut out);
            }
            BuildEvent::Started(_) => {}
            BuildEvent::Running { row, .. }
            | BuildEvent::Output { row, .. }
            | BuildEvent::Done { row, .. } => {
                if let Some(held) = self.rows.get_mut(row) {
                    held.push(event);
                }
                self.go_on(&mut out);
            }
            // Docker's classic builder has no linter.
            BuildEvent::Lint { .. }
            | BuildEvent::Checked(_)
            | BuildEvent::Ask { .. }
            | BuildEvent::Explained { .. }
            | BuildEvent::Left(_)
            | BuildEvent::Export { .. }
            | BuildEvent::Exported { .. }
            | BuildEvent::Task { .. } => {}
            BuildEvent::Pull(e) => out.push(image::progress(e)),
            BuildEvent::Warning(text) => self.warnings.push(stream(format!("{text}\n"))),
            BuildEvent::Built(id) => {
                let aux = Some(serde_json::json!({ "ID": id.to_string() }));
                out.push(JsonMessage { aux, ..JsonMessage::default() });
                out.append(&mut self.warnings);
                out.push(stream(format!("Successfully built {}\n", id.short())));
            }
            BuildEvent::Tagged(name) => {
                out.push(stream(format!("Successfully tagged {}\n", name.familiar())))
            }
            BuildEvent::Failed { message, code, row } => {
                self.jump(row, &mut out);
                out.append(&mut self.warnings);
                out.push(failed(message, code));
            }
        }
        out
    }

    /// Tells what can be told by now.
    fn go_on(&mut self, out: &mut Vec<JsonMessage>) {
        while self.at < self.rows.len() {
            self.begin(self.at, out);
            self.flush(self.at, out);
            if !self.rows.get(self.at).is_some_and(|held| held.done) {
                return;
            }
            self.at += 1;
            self.begun = false;
        }
    }

    fn begin(&mut self, row: usize, out: &mut Vec<JsonMessage>) {
        if self.begun {
            return;
        }
        self.begun = true;
        let Some(held) = self.rows.get(row) else { return };
        out.push(stream(format!("Step {}/{} : {}", row + 1, self.rows.len(), held.text)));
        out.push(stream("\n"));
    }

    fn flush(&mut self, row: usize, out: &mut Vec<JsonMessage>) {
        let Some(held) = self.rows.get_mut(row) else { return };
        held.bytes = 0;
        for event in std::mem::take(&mut held.events) {
            self.line(row, event, out);
        }
    }

    fn line(&mut self, row: usize, event: BuildEvent, out: &mut Vec<JsonMessage>) {
        if let BuildEvent::Output { bytes, .. } = &event {
            let shown = self.text.push(bytes);
            if !shown.is_empty() {
                out.push(stream(shown));
            }
            return;
        }
        let rest = self.text.end();
        if !rest.is_empty() {
            out.push(stream(rest));
        }
        match event {
            BuildEvent::Running { container, .. } => {
                out.push(stream(format!(" ---> Running in {}\n", short(&container))));
            }
            BuildEvent::Done { done, image, .. } => {
                let ran = self.rows.get_mut(row).and_then(|held| held.container.take());
                match (done, ran) {
                    (BuildDone::Cached | BuildDone::Shared, _) => out.push(stream(" ---> Using cache\n")),
                    (BuildDone::Made, Some(id)) => {
                        out.push(stream(format!(" ---> Removed intermediate container {}\n", short(&id))));
                    }
                    (BuildDone::Made | BuildDone::Noted, _) => {}
                }
                out.push(stream(format!(" ---> {}\n", image.short())));
            }
            _ => {}
        }
    }

    /// A row that failed ahead of its turn is what matters now.
    fn jump(&mut self, row: Option<usize>, out: &mut Vec<JsonMessage>) {
        let Some(row) = row else { return };
        if row != self.at {
            self.begun = false;
            self.begin(row, out);
        }
        self.flush(row, out);
        let rest = self.text.end();
        if !rest.is_empty() {
            out.push(stream(rest));
        }
    }
}

impl Held {
    fn push(&mut self, event: BuildEvent) {
        match &event {
            BuildEvent::Running { container, .. } => self.container = Some(container.clone()),
            BuildEvent::Output { bytes, .. } => self.bytes += bytes.len(),
            BuildEvent::Done { .. } => self.done = true,
            _ => {}
        }
        self.events.push_back(event);
        while self.bytes > MAX_HELD {
            let Some(at) = self.events.iter().position(|e| matches!(e, BuildEvent::Output { .. })) else {
                return;
            };
            if let Some(BuildEvent::Output { bytes, .. }) = self.events.remove(at) {
                self.bytes -= bytes.len();
            }
        }
    }
}

/// Only what was built, or why not.
pub(super) fn quietly(event: BuildEvent) -> Vec<JsonMessage> {
    match event {
        BuildEvent::Built(id) => vec![stream(format!("{id}\n"))],
        BuildEvent::Failed { message, code, .. } => vec![failed(message, code)],
        _ => Vec::new(),
    }
}

fn stream(text: impl Into<String>) -> JsonMessage {
    JsonMessage { stream: Some(text.into()), ..JsonMessage::default() }
}

fn failed(message: String, code: Option<i32>) -> JsonMessage {
    JsonMessage {
        error_detail: Some(ErrorDetail { code: code.map_or(0, i64::from), message: message.clone() }),
        error: Some(message),
        ..JsonMessage::default()
    }
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// Text whose pieces may be cut in the middle of a character.
#[derive(Default)]
pub(super) struct Text {
    rest: Vec<u8>,
}

impl Text {
    /// What can be read by now; what no character is becomes U+FFFD.
    pub(super) fn push(&mut self, bytes: &[u8]) -> String {
        self.rest.extend_from_slice(bytes);
        let whole = self.rest.len();
        // An unfinished character at the end: at most three bytes.
        let unfinished = |at: &usize| matches!(std::str::from_utf8(&self.rest[*at..]), Err(e) if e.valid_up_to() == 0 && e.error_len().is_none());
        let cut = (whole.saturating_sub(3)..whole).find(unfinished).unwrap_or(whole);
        let rest = self.rest.split_off(cut);
        let text = String::from_utf8_lossy(&self.rest).into_owned();
        self.rest = rest;
        text
    }

    pub(super) fn end(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.rest)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use longshore_oci::Digest;

    use super::*;

    fn told(lines: Vec<JsonMessage>) -> String {
        lines.into_iter().map(|l| l.stream.or(l.error).unwrap_or_default()).collect()
    }

    fn row(text: &str) -> BuildRow {
        BuildRow { text: text.into(), stage: "0".into(), platform: None, line: 1 }
    }

    fn done(row: usize, done: BuildDone) -> BuildEvent {
        BuildEvent::Done { row, done, image: Digest::of(b"x"), size: 0, took: Duration::ZERO }
    }

    fn output(row: usize, text: &str) -> BuildEvent {
        BuildEvent::Output { row, stderr: false, bytes: text.into() }
    }

    #[test]
    fn rows_are_told_in_order() {
        let mut ordered = Ordered::default();
        let id = Digest::of(b"x").short();
        let rows = vec![row("FROM a"), row("RUN one"), row("RUN two")];
        assert_eq!(told(ordered.push(BuildEvent::Plan(rows))), "Step 1/3 : FROM a\n");
        // The last one is quicker.
        assert_eq!(told(ordered.push(output(2, "late\n"))), "");
        assert_eq!(told(ordered.push(done(2, BuildDone::Made))), "");
        assert_eq!(
            told(ordered.push(done(0, BuildDone::Noted))),
            format!(" ---> {id}\nStep 2/3 : RUN one\n")
        );
        assert_eq!(told(ordered.push(output(1, "now\n"))), "now\n");
        assert_eq!(
            told(ordered.push(done(1, BuildDone::Cached))),
            format!(" ---> Using cache\n ---> {id}\nStep 3/3 : RUN two\nlate\n ---> {id}\n")
        );
    }

    #[test]
    fn a_failure_is_told_with_its_own_row() {
        let mut ordered = Ordered::default();
        ordered.push(BuildEvent::Plan(vec![row("FROM a"), row("RUN one"), row("RUN two")]));
        ordered.push(done(0, BuildDone::Noted));
        ordered.push(output(2, "why"));
        let failed = BuildEvent::Failed { message: "no".into(), code: Some(3), row: Some(2) };
        assert_eq!(told(ordered.push(failed)), "Step 3/3 : RUN two\nwhyno");
    }

    #[test]
    fn output_that_waits_is_bounded() {
        let mut ordered = Ordered::default();
        ordered.push(BuildEvent::Plan(vec![row("FROM a"), row("RUN one")]));
        for _ in 0..100 {
            ordered.push(output(1, &"x".repeat(100_000)));
        }
        assert!(ordered.rows[1].bytes <= MAX_HELD);
        assert!(ordered.rows[1].events.len() <= 11);
    }

    #[test]
    fn characters_that_were_cut_are_put_together() {
        let mut text = Text::default();
        let bytes = "aä€😀b".as_bytes();
        let whole: String = bytes.iter().map(|b| text.push(&[*b])).collect();
        assert_eq!(whole, "aä€😀b");
        assert_eq!(text.push(b"\xff\xe2\x82"), "\u{fffd}");
        assert_eq!(text.end(), "\u{fffd}");
        assert_eq!(text.end(), "");
    }
}
