//! A build on a terminal: its steps, drawn anew as they go on.

use std::time::Duration;

use super::step::Note;
use super::{Build, State, Step, seconds};
use crate::format::progress::{Area, Line, Size, Style};

/// Lines of output, and notes, that a running step shows at most.
const TAIL: usize = 6;
/// Notes that a step shows once it is over.
const NOTES: usize = 16;

/// The part of a terminal that a build has.
#[derive(Debug)]
pub(crate) struct Tty {
    area: Area,
    style: Style,
    shown: Vec<String>,
}

impl Tty {
    /// For a terminal on which nothing is drawn yet.
    pub(crate) fn new(size: Size, style: Style) -> Self {
        Self { area: Area::new(size), style, shown: Vec::new() }
    }

    /// What draws the steps as they are now.
    pub(crate) fn frame(&mut self, build: &Build, now: Duration) -> String {
        let lines = self.lines(build, now, Some(self.area.most()));
        let texts: Vec<String> = lines.iter().map(|line| line.text.clone()).collect();
        if texts == self.shown {
            return String::new();
        }
        self.shown = texts;
        self.area.draw(&lines)
    }

    /// The terminal has another size now.
    pub(crate) fn resize(&mut self, size: Size, build: &Build, now: Duration) -> String {
        self.area.resize(size);
        self.shown.clear();
        self.frame(build, now)
    }

    /// Draws every step for the last time.
    pub(crate) fn close(&mut self, build: &Build, now: Duration) -> String {
        let lines = self.lines(build, now, None);
        let mut out = self.area.last(&lines);
        for text in &build.warnings {
            out.push_str(&format!("WARNING: {text}\n"));
        }
        out
    }

    /// The header and the steps that have room in `most` lines; all of them without such a limit.
    fn lines(&self, build: &Build, now: Duration, most: Option<usize>) -> Vec<Line> {
        let mut out = vec![self.header(build, now, most.is_none())];
        let steps: Vec<&Step> = build.steps().iter().filter(|s| s.state != State::Waiting).collect();
        let room = most.map_or(usize::MAX, |most| most.saturating_sub(1));
        let chosen = choose(&steps, room);
        let running = chosen.iter().filter(|s| s.state == State::Running).count();
        let mut left = room.saturating_sub(chosen.len());
        let tail = if most.is_none() { 0 } else { (left / running.max(1)).min(TAIL) };
        let last = chosen.len().saturating_sub(1);
        for (at, step) in chosen.iter().enumerate() {
            out.push(self.step(step, now));
            let below = match step.state {
                State::Running => self.below(step, tail),
                // Of what is over the notes are shown at the end, and before while there is nothing after it.
                State::Done if most.is_none() || at == last => self.notes(step, NOTES.min(left)),
                _ => Vec::new(),
            };
            left = left.saturating_sub(below.len());
            out.extend(below);
        }
        out
    }

    fn header(&self, build: &Build, now: Duration, finished: bool) -> Line {
        let over = build.steps().iter().filter(|s| s.state.is_over()).count();
        let end = if finished && build.outcome.is_some() { " FINISHED" } else { "" };
        let mut line = Line::default();
        let text = format!("[+] Building {} ({over}/{}){end}", seconds(now), build.steps().len());
        line.push(&text, self.area.width());
        line
    }

    /// ` => NAME     1.2s`.
    fn step(&self, step: &Step, now: Duration) -> Line {
        let (mark, colour) = match step.state {
            State::Cached => ("CACHED ", "34"),
            State::Failed(_) => ("ERROR ", "31"),
            State::Cancelled => ("CANCELED ", "33"),
            State::Done => ("", "34"),
            State::Waiting | State::Running => ("", ""),
        };
        self.line(&format!(" => {mark}{}", step.name), &seconds(step.time(now)), colour)
    }

    /// Text with a time at the right border.
    fn line(&self, text: &str, time: &str, colour: &str) -> Line {
        let width = self.area.width();
        let mut line = Line::default();
        line.push(text, width.saturating_sub(time.len() + 1));
        line.pad(width.saturating_sub(time.len()));
        line.push(time, width);
        self.paint(line, colour)
    }

    fn paint(&self, line: Line, colour: &str) -> Line {
        if self.style.colour && !colour.is_empty() {
            return Line { text: format!("\x1b[{colour}m{}\x1b[0m", line.text), width: line.width };
        }
        line
    }

    /// What a running step does: its notes, or the end of its output.
    fn below(&self, step: &Step, most: usize) -> Vec<Line> {
        let tail = step.tail(most);
        if tail.is_empty() {
            return self.notes(step, most);
        }
        let from = tail.len().saturating_sub(most);
        let line = |text: &String| {
            let mut line = Line::default();
            line.push(&format!(" => => # {text}"), self.area.width());
            self.paint(line, "2")
        };
        tail.iter().skip(from).map(line).collect()
    }

    /// The last notes, those that move first where not all have room.
    fn notes(&self, step: &Step, most: usize) -> Vec<Line> {
        let mut order: Vec<usize> = (0..step.notes.len()).rev().collect();
        order.sort_by_key(|at| step.notes.get(*at).is_some_and(|note| !note.moves));
        order.truncate(most);
        order.sort_unstable();
        let colour = if step.state == State::Running { "" } else { "34" };
        let line = |note: &Note| {
            let mut line = Line::default();
            line.push(&format!(" => => {}", note.text), self.area.width());
            self.paint(line, colour)
        };
        order.iter().filter_map(|at| step.notes.get(*at)).map(line).collect()
    }
}

/// The steps that are shown where not all have room: those that run, then those that ended last, in their order.
fn choose<'a>(steps: &[&'a Step], room: usize) -> Vec<&'a Step> {
    if steps.len() <= room {
        return steps.to_vec();
    }
    let mut order: Vec<usize> = (0..steps.len()).rev().collect();
    order.sort_by_key(|at| steps.get(*at).is_some_and(|s| s.state.is_over()));
    order.truncate(room);
    order.sort_unstable();
    order.iter().filter_map(|at| steps.get(*at).copied()).collect()
}
