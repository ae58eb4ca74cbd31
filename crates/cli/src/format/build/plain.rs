//! A build as lines that stay, in BuildKit's style: one step at a time, although several may go on at once.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Build, Change, State, seconds, stamp};
use crate::tty::one_line;

/// After so much silence another step gets its turn.
const SILENCE: Duration = Duration::from_secs(5);
/// Bytes that wait for a turn; with more of them it comes at once.
const MAX_HELD: usize = 256 << 10;

/// What was shown so far.
#[derive(Debug, Default)]
pub(crate) struct Plain {
    /// The numbers of steps, given when they are shown first.
    numbers: BTreeMap<usize, usize>,
    current: Option<usize>,
    /// What waits, by step: text without its number in front.
    held: BTreeMap<usize, Held>,
    last: Duration,
}

#[derive(Debug, Default)]
struct Held {
    lines: Vec<String>,
    bytes: usize,
    ended: bool,
}

impl Plain {
    /// The lines to be shown after something happened.
    pub(crate) fn take(&mut self, build: &Build, changes: &[Change], now: Duration) -> String {
        let mut out = String::new();
        for change in changes {
            self.change(build, change, now, &mut out);
        }
        self.turn(build, now, &mut out);
        out
    }

    fn change(&mut self, build: &Build, change: &Change, now: Duration, out: &mut String) {
        let (at, line, ended) = match change {
            Change::Begun(at) => (*at, None, false),
            Change::Line { step, text, .. } => {
                let time = build.steps().get(*step).map(|s| s.last()).unwrap_or_default();
                (*step, Some(format!("{} {text}", stamp(time))), false)
            }
            Change::Note(at, text) => (*at, Some(text.clone()), false),
            Change::Ended(at) => (*at, Some(ending(build, *at)), true),
            Change::Warning(text) => {
                out.push_str(&format!("WARNING: {}\n", one_line(text)));
                return;
            }
        };
        let held = self.held.entry(at).or_default();
        held.bytes += line.as_ref().map_or(0, String::len);
        held.lines.extend(line);
        held.ended |= ended;
        if self.current.is_none() || self.current == Some(at) {
            self.show(build, at, now, out);
            self.ended(build, now, out);
        }
    }

    /// Shows what waits of a step, its name first where it is another than before.
    fn show(&mut self, build: &Build, at: usize, now: Duration, out: &mut String) {
        let Some(held) = self.held.remove(&at) else { return };
        let next = self.numbers.len() + 1;
        let number = *self.numbers.entry(at).or_insert(next);
        if self.current != Some(at) {
            if let Some(before) = self.current.and_then(|before| self.numbers.get(&before)) {
                out.push_str(&format!("#{before} ...\n\n"));
            }
            let name = build.steps().get(at).map_or("", |step| step.name.as_str());
            out.push_str(&format!("#{number} {name}\n"));
        }
        for line in held.lines {
            out.push_str(&format!("#{number} {line}\n"));
        }
        self.current = Some(at);
        self.last = now;
        if held.ended {
            out.push('\n');
            self.current = None;
        }
    }

    /// Once a step has ended, those come that ended meanwhile, and then the first that goes on.
    fn ended(&mut self, build: &Build, now: Duration, out: &mut String) {
        while self.current.is_none() {
            let ended = self.held.iter().find(|(_, held)| held.ended);
            let Some((at, _)) = ended.or_else(|| self.held.iter().next()) else { return };
            self.show(build, *at, now, out);
        }
    }

    /// Gives another step its turn when the current one is silent, or has waited for too long.
    fn turn(&mut self, build: &Build, now: Duration, out: &mut String) {
        let full = self.held.iter().find(|(_, held)| held.bytes > MAX_HELD);
        let silent = now >= self.last + SILENCE;
        let other = full.or_else(|| self.held.iter().find(|(_, held)| silent && !held.lines.is_empty()));
        if let Some(at) = other.map(|(at, _)| *at) {
            self.show(build, at, now, out);
            self.ended(build, now, out);
        }
    }

    /// The same once time has gone by.
    pub(crate) fn tick(&mut self, build: &Build, now: Duration) -> String {
        let mut out = String::new();
        self.turn(build, now, &mut out);
        out
    }
}

fn ending(build: &Build, at: usize) -> String {
    let Some(step) = build.steps().get(at) else { return String::new() };
    match &step.state {
        State::Cached => "CACHED".into(),
        State::Failed(why) => format!("ERROR: {why}"),
        State::Cancelled => "CANCELED".into(),
        _ => format!("DONE {}", seconds(step.took)),
    }
}
