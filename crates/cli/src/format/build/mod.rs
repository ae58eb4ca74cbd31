//! A build as it goes on: what the daemon's lines say of its steps, and how that is shown. Pure; times are those since
//! the build's start.

mod plain;
mod raw;
mod step;
#[cfg(test)]
mod tests;
mod tty;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use longshore_api::build::{BuildDone, BuildExport, BuildLine, BuildRow, BuildTask};
use longshore_build::dockerfile::{Span, parse, render};

pub(crate) use plain::Plain;
pub(crate) use raw::Raw;
pub(crate) use step::{State, Step};
pub(crate) use tty::Tty;

use crate::format::human::total;
use crate::format::progress::Message;
use crate::tty::{one_line, printable};

/// Instructions that are steps of their own; others only change the image's settings.
const STEPS: &[&str] = &["FROM", "RUN", "COPY", "ADD", "WORKDIR"];
/// Steps that are remembered; what comes after them is not shown.
const MAX_STEPS: usize = 100_000;
/// How often the size of a context is told where lines stay.
const TELL: Duration = Duration::from_secs(5);

/// What happened, for a display that only goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Begun(usize),
    /// A line of a command's output.
    Line {
        step: usize,
        stderr: bool,
        text: String,
    },
    /// Something to know about a step.
    Note(usize, String),
    Ended(usize),
    Warning(String),
}

/// How a build came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The id of the image.
    Built(String),
    /// The Dockerfile was only looked at; so many things were found.
    Checked(usize),
    /// No image is kept; what was asked for instead has come.
    Exported,
    /// Why not, and where.
    Failed { message: String, step: Option<usize> },
}

/// A build.
#[derive(Debug, Default)]
pub(crate) struct Build {
    steps: Vec<Step>,
    rows: Vec<BuildRow>,
    /// The steps of rows.
    of_row: HashMap<usize, usize>,
    context: Option<usize>,
    told: Duration,
    /// The step for the image that is being pulled, and what was told of each layer.
    pull: Option<usize>,
    layers: HashMap<String, String>,
    export: Option<usize>,
    /// The step for what comes to this side, and the bytes that came.
    coming: Option<(usize, u64)>,
    /// The steps of what is done besides the instructions, by name.
    tasks: HashMap<String, usize>,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) warnings: Vec<String>,
    /// The image of what a failed command left.
    pub(crate) left: Option<String>,
    /// Why steps were carried out or were not: a line for each.
    pub(crate) explained: Vec<String>,
}

impl Build {
    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }

    fn add(&mut self, name: String) -> usize {
        if self.steps.len() < MAX_STEPS {
            self.steps.push(Step::new(name));
        }
        self.steps.len() - 1
    }

    fn begin(&mut self, at: usize, now: Duration, out: &mut Vec<Change>) {
        let Some(step) = self.steps.get_mut(at) else { return };
        if step.state == State::Waiting {
            step.state = State::Running;
            step.begun = now;
            out.push(Change::Begun(at));
        }
    }

    /// A step that the cache had is carried out after all: the cache has not what it said.
    fn reopen(&mut self, at: usize, now: Duration, out: &mut Vec<Change>) {
        if let Some(step) = self.steps.get_mut(at).filter(|step| step.state == State::Cached) {
            step.state = State::Waiting;
        }
        self.begin(at, now, out);
    }

    fn note(&mut self, at: usize, key: &str, text: String, out: &mut Vec<Change>) {
        if let Some(step) = self.steps.get_mut(at) {
            step.note(key, text.clone(), false);
            out.push(Change::Note(at, text));
        }
    }

    fn end(&mut self, at: usize, state: State, took: Duration, out: &mut Vec<Change>) {
        let Some(step) = self.steps.get_mut(at).filter(|step| !step.state.is_over()) else { return };
        for (stderr, text) in step.rest() {
            out.push(Change::Line { step: at, stderr, text });
        }
        step.end(state, took);
        out.push(Change::Ended(at));
    }

    /// The context is being sent.
    pub(crate) fn sending(&mut self, bytes: u64, done: bool, now: Duration) -> Vec<Change> {
        let mut out = Vec::new();
        let at = match self.context {
            Some(at) => at,
            None => {
                let at = self.add("[internal] load build context".into());
                self.begin(at, now, &mut out);
                self.context = Some(at);
                at
            }
        };
        let Some(step) = self.steps.get_mut(at).filter(|step| !step.state.is_over()) else { return out };
        let size = total(i64::try_from(bytes).unwrap_or(i64::MAX));
        let text = format!("transferring context: {size}");
        if done {
            let took = now.saturating_sub(step.begun);
            self.note(at, "context", format!("{text} {} done", seconds(took)), &mut out);
            self.end(at, State::Done, took, &mut out);
        } else {
            step.note("context", text.clone(), true);
            if now >= self.told + TELL {
                self.told = now;
                out.push(Change::Note(at, text));
            }
        }
        out
    }

    /// Takes a line of the daemon's answer.
    pub(crate) fn take(&mut self, line: BuildLine, now: Duration) -> Vec<Change> {
        let mut out = Vec::new();
        if !matches!(line, BuildLine::Pull { .. }) {
            self.end_pull(now, &mut out);
        }
        match line {
            BuildLine::Pull { progress } => self.pulled(&progress, now, &mut out),
            BuildLine::Plan { rows } => self.planned(rows),
            BuildLine::Started { row } => {
                if let Some(at) = self.step_of(row, false) {
                    self.begin(at, now, &mut out);
                }
            }
            // What is asked for is answered elsewhere.
            BuildLine::Running { .. }
            | BuildLine::Tree { .. }
            | BuildLine::Files { .. }
            | BuildLine::Unknown => {}
            BuildLine::Output { row, stderr, text } => {
                if let Some(at) = self.step_of(row, true) {
                    self.reopen(at, now, &mut out);
                    let lines = self.steps.get_mut(at).map(|step| step.output(&text, stderr, now));
                    let lines = lines.into_iter().flatten();
                    out.extend(lines.map(|text| Change::Line { step: at, stderr, text }));
                }
            }
            BuildLine::Explained { row, why } => {
                if let Some(row) = self.rows.get(row) {
                    self.explained.push(format!("{}  {}", short(&row.text), one_line(&why)));
                }
            }
            BuildLine::Done { row, how, took, .. } => self.done(row, how, took, now, &mut out),
            BuildLine::Warning { text } => {
                let text = printable(text.strip_prefix("[Warning] ").unwrap_or(&text));
                self.warnings.push(text.clone());
                out.push(Change::Warning(text));
            }
            BuildLine::Export { what, data } => self.coming(what, data.len() as u64 / 4 * 3, now, &mut out),
            BuildLine::Exported { what, .. } => {
                self.coming(what, 0, now, &mut out);
                if let Some((at, bytes)) = self.coming.take() {
                    let text = format!("receiving {} done", total(i64::try_from(bytes).unwrap_or(i64::MAX)));
                    self.note(at, "bytes", text, &mut out);
                    let begun = self.steps.get(at).map_or(now, |step| step.begun);
                    self.end(at, State::Done, now.saturating_sub(begun), &mut out);
                }
                self.outcome.get_or_insert(Outcome::Exported);
            }
            BuildLine::Left { id } => self.left = Some(id),
            BuildLine::Task { name, state, text } => self.task(&name, state, &text, now, &mut out),
            BuildLine::Checked { count } => self.outcome = Some(Outcome::Checked(count)),
            BuildLine::Built { id } => {
                let at = self.exporting(now, &mut out);
                self.note(at, "image", format!("writing image {} done", one_line(&id)), &mut out);
                self.outcome = Some(Outcome::Built(id));
            }
            BuildLine::Tagged { name } => {
                let at = self.exporting(now, &mut out);
                let name = one_line(&name);
                self.note(at, &name, format!("naming to {name} done"), &mut out);
            }
            BuildLine::Failed { message, row, .. } => self.failed(message, row, now, &mut out),
        }
        out
    }

    /// Nothing more comes.
    pub(crate) fn close(&mut self, now: Duration) -> Vec<Change> {
        let mut out = Vec::new();
        let built = matches!(self.outcome, Some(Outcome::Built(_) | Outcome::Exported));
        for at in 0..self.steps.len() {
            let running = self.steps.get(at).filter(|step| step.state == State::Running);
            if let Some(took) = running.map(|step| now.saturating_sub(step.begun)) {
                self.end(at, if built { State::Done } else { State::Cancelled }, took, &mut out);
            }
        }
        out
    }

    /// So many bytes more came of what is put on this side.
    fn coming(&mut self, what: BuildExport, bytes: u64, now: Duration, out: &mut Vec<Change>) {
        let (at, before) = match self.coming {
            Some(coming) => coming,
            None => {
                let name = match what {
                    BuildExport::Tree => "exporting to client",
                    BuildExport::Archive => "exporting to an image archive",
                };
                let at = self.add(name.into());
                self.begin(at, now, out);
                (at, 0)
            }
        };
        self.coming = Some((at, before + bytes));
        let text = format!("receiving {}", total(i64::try_from(before + bytes).unwrap_or(i64::MAX)));
        if let Some(step) = self.steps.get_mut(at) {
            step.note("bytes", text, true);
        }
    }

    /// Something besides the instructions; each name is a step.
    fn task(&mut self, name: &str, state: BuildTask, text: &str, now: Duration, out: &mut Vec<Change>) {
        let name = one_line(name);
        let at = match self.tasks.get(&name) {
            Some(at) => *at,
            None => {
                if let Some(image) = self.export {
                    let begun = self.steps.get(image).map_or(now, |step| step.begun);
                    self.end(image, State::Done, now.saturating_sub(begun), out);
                }
                let at = self.add(name.clone());
                self.begin(at, now, out);
                self.tasks.insert(name, at);
                at
            }
        };
        let text = one_line(text);
        if state == BuildTask::Running && !text.is_empty() {
            self.note(at, &text, text.clone(), out);
        }
        let begun = self.steps.get(at).map_or(now, |step| step.begun);
        match state {
            BuildTask::Running => {}
            BuildTask::Done => self.end(at, State::Done, now.saturating_sub(begun), out),
            BuildTask::Failed => self.end(at, State::Failed(text), now.saturating_sub(begun), out),
        }
    }

    fn exporting(&mut self, now: Duration, out: &mut Vec<Change>) -> usize {
        match self.export {
            Some(at) => at,
            None => {
                let at = self.add("exporting to image".into());
                self.export = Some(at);
                self.begin(at, now, out);
                at
            }
        }
    }

    fn planned(&mut self, rows: Vec<BuildRow>) {
        let names = names(&rows);
        self.rows = rows;
        for (row, name) in names {
            let at = self.add(name);
            self.of_row.insert(row, at);
        }
    }

    /// The step of a row. One that is no step becomes one where that is `needed`: something is to be told of it.
    fn step_of(&mut self, row: usize, needed: bool) -> Option<usize> {
        if let Some(at) = self.of_row.get(&row) {
            return Some(*at);
        }
        let name = short(&self.rows.get(row).filter(|_| needed)?.text);
        let at = self.add(name);
        self.of_row.insert(row, at);
        Some(at)
    }

    fn done(&mut self, row: usize, how: BuildDone, took: u64, now: Duration, out: &mut Vec<Change>) {
        let Some(at) = self.step_of(row, false) else { return };
        if how == BuildDone::Cached {
            self.begin(at, now, out)
        } else {
            self.reopen(at, now, out)
        }
        let state = match how {
            BuildDone::Cached => State::Cached,
            BuildDone::Shared => {
                self.note(at, "shared", "made by another build at the same time".into(), out);
                State::Cached
            }
            BuildDone::Noted | BuildDone::Made => State::Done,
        };
        self.end(at, state, Duration::from_micros(took), out);
    }

    fn failed(&mut self, message: String, row: Option<usize>, now: Duration, out: &mut Vec<Change>) {
        let step = row.and_then(|row| self.step_of(row, true));
        if let Some(at) = step {
            self.reopen(at, now, out);
            let begun = self.steps.get(at).map_or(now, |step| step.begun);
            self.end(at, State::Failed(one_line(&message)), now.saturating_sub(begun), out);
        }
        self.outcome = Some(Outcome::Failed { message, step });
        out.extend(self.close(now));
    }

    /// A message about an image that is fetched. Each image is a step.
    fn pulled(&mut self, progress: &longshore_api::JsonMessage, now: Duration, out: &mut Vec<Change>) {
        let message = Message::new(&serde_json::to_value(progress).unwrap_or_default());
        if let Some(name) = message.status.strip_prefix("Pulling from ") {
            self.end_pull(now, out);
            let tag = if message.id.is_empty() { String::new() } else { format!(":{}", message.id) };
            let at = self.add(format!("[internal] pull {}", one_line(&format!("{name}{tag}"))));
            self.begin(at, now, out);
            self.pull = Some(at);
            return;
        }
        let at = match self.pull {
            Some(at) => at,
            None => {
                let at = self.add("[internal] pull".into());
                self.begin(at, now, out);
                self.pull = Some(at);
                at
            }
        };
        if let Some(e) = message.error {
            self.note(at, "error", one_line(&e), out);
            return;
        }
        let moving = message.amount.as_ref().map(crate::format::progress::Amount::numbers);
        let id = if message.id.is_empty() { String::new() } else { format!("{} ", message.id) };
        let text = one_line(format!("{id}{}", message.status).trim());
        if text.is_empty() {
            return;
        }
        match moving.filter(|numbers| !numbers.is_empty()) {
            // On a terminal it moves; elsewhere its end is told.
            Some(numbers) => {
                let step = self.steps.get_mut(at);
                step.into_iter().for_each(|step| step.note(&message.id, format!("{text} {numbers}"), true));
            }
            None if self.layers.get(&message.id) == Some(&text) => {}
            None => {
                let key = if message.id.is_empty() { text.clone() } else { message.id.clone() };
                if self.layers.len() < MAX_STEPS {
                    self.layers.insert(message.id, text.clone());
                }
                self.note(at, &key, text, out);
            }
        }
    }

    fn end_pull(&mut self, now: Duration, out: &mut Vec<Change>) {
        if let Some(at) = self.pull.take() {
            self.layers.clear();
            let begun = self.steps.get(at).map_or(now, |step| step.begun);
            self.end(at, State::Done, now.saturating_sub(begun), out);
        }
    }

    /// What is to be read below everything else when a build failed: the output of its command, the place in its
    /// Dockerfile, if that is known, and why.
    pub(crate) fn failure(&self, dockerfile: Option<(&str, &[u8])>) -> String {
        let Some(Outcome::Failed { message, step, .. }) = &self.outcome else { return String::new() };
        let mut out = String::new();
        if let Some(step) = step.and_then(|at| self.steps.get(at)) {
            out.push_str(&format!("------\n > {}:\n", step.name));
            if step.left_out > 0 {
                out.push_str(&format!("[{} lines before are left out]\n", step.left_out));
            }
            for (at, text) in &step.log {
                out.push_str(&format!("{} {text}\n", stamp(*at)));
            }
            out.push_str("------\n");
        }
        let row = step.and_then(|at| self.of_row.iter().find(|(_, step)| **step == at));
        let line = row.and_then(|(row, _)| self.rows.get(*row)).map(|row| row.line);
        if let (Some(line), Some((name, text))) = (line, dockerfile) {
            out.push_str(&excerpt(name, text, line));
        }
        out + &format!("ERROR: failed to build: {}\n", printable(message))
    }
}

/// The lines around the instruction that begins at `line`.
fn excerpt(name: &str, text: &[u8], line: u32) -> String {
    let file = parse(text).ok();
    let span = file.and_then(|f| f.instructions.iter().map(|i| i.span).find(|span| span.line == line));
    render(name, text, span.unwrap_or(Span { line, end_line: line, column: 1 }))
}

/// The lines around the first mistake of a Dockerfile; nothing where there is none.
pub(crate) fn mistake(name: &str, text: &[u8]) -> String {
    parse(text).err().map(|e| e.render(name, text)).unwrap_or_default()
}

/// The rows that are steps, with BuildKit's names: `[linux/arm64 stage 2/4] RUN ...`. A stage is left out where there is
/// one only.
fn names(rows: &[BuildRow]) -> Vec<(usize, String)> {
    let is_step = |row: &BuildRow| {
        let mut words = row.text.split_whitespace();
        let word = words.next().unwrap_or_default();
        // A stage that goes on where another ended begins with nothing of its own.
        let goes_on = word.eq_ignore_ascii_case("FROM")
            && words
                .find(|word| !word.starts_with("--"))
                .is_some_and(|base| rows.iter().any(|r| r.stage.eq_ignore_ascii_case(base)));
        !goes_on && STEPS.iter().any(|s| s.eq_ignore_ascii_case(word))
    };
    let place = |row: &BuildRow| (row.platform.clone().unwrap_or_default(), row.stage.clone());
    let mut totals: HashMap<(String, String), usize> = HashMap::new();
    for row in rows.iter().filter(|row| is_step(row)) {
        *totals.entry(place(row)).or_default() += 1;
    }
    let several = totals.keys().map(|(_, stage)| stage).collect::<HashSet<_>>().len() > 1;
    let mut counts: HashMap<(String, String), usize> = HashMap::new();
    let mut out = Vec::new();
    for (at, row) in rows.iter().enumerate().filter(|(_, row)| is_step(row)) {
        let count = counts.entry(place(row)).or_default();
        *count += 1;
        let all = totals.get(&place(row)).copied().unwrap_or(1);
        let width = all.to_string().len();
        let stage = match row.stage.as_str() {
            _ if !several => String::new(),
            number if number.bytes().all(|b| b.is_ascii_digit()) => format!("stage-{number} "),
            name => format!("{} ", one_line(name)),
        };
        let platform = row.platform.as_deref().map(|platform| format!("{} ", one_line(platform)));
        let stage = format!("{}{stage}", platform.unwrap_or_default());
        out.push((at, format!("[{stage}{count:>width$}/{all}] {}", short(&row.text))));
    }
    out
}

/// An instruction on one line.
fn short(text: &str) -> String {
    const MAX: usize = 4096;
    let text: String = text.chars().take(MAX).collect();
    one_line(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// `1.2s`.
fn seconds(time: Duration) -> String {
    format!("{:.1}s", time.as_secs_f64())
}

/// The time of a line, from its step's beginning on.
fn stamp(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64())
}
