//! One step of a build, and the end of what its command wrote.

use std::collections::VecDeque;
use std::time::Duration;

use crate::tty::printable;

/// Bytes and lines of output that are kept of a step.
const MAX_LOG: (usize, usize) = (256 << 10, 4096);
/// Bytes of a line that are kept together.
const MAX_LINE: usize = 16 << 10;
/// Notes that are kept of a step.
const MAX_NOTES: usize = 512;

/// How far a step is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Waiting,
    Running,
    Done,
    Cached,
    /// With the reason.
    Failed(String),
    Cancelled,
}

impl State {
    pub(crate) fn is_over(&self) -> bool {
        !matches!(self, Self::Waiting | Self::Running)
    }
}

/// Something to know about a step.
#[derive(Debug)]
pub(crate) struct Note {
    /// What it is about: a later note about that takes its place.
    key: String,
    pub(crate) text: String,
    /// It changes while people watch.
    pub(crate) moves: bool,
}

/// A step.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) state: State,
    pub(crate) begun: Duration,
    pub(crate) took: Duration,
    /// What there is to know of it.
    pub(crate) notes: Vec<Note>,
    /// Lines of output, with their time since its beginning.
    pub(crate) log: VecDeque<(Duration, String)>,
    /// Lines that are no longer there.
    pub(crate) left_out: usize,
    bytes: usize,
    /// Beginnings of lines: of standard output, of standard error.
    parts: [String; 2],
    last: Duration,
}

impl Step {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            state: State::Waiting,
            begun: Duration::ZERO,
            took: Duration::ZERO,
            notes: Vec::new(),
            log: VecDeque::new(),
            left_out: 0,
            bytes: 0,
            parts: Default::default(),
            last: Duration::ZERO,
        }
    }

    pub(super) fn note(&mut self, key: &str, text: String, moves: bool) {
        if let Some(old) = self.notes.iter_mut().find(|note| note.key == key) {
            (old.text, old.moves) = (text, moves);
        } else if self.notes.len() < MAX_NOTES {
            self.notes.push(Note { key: key.to_owned(), text, moves });
        }
    }

    /// Takes output; gives the lines that are whole now.
    pub(super) fn output(&mut self, text: &str, stderr: bool, now: Duration) -> Vec<String> {
        self.last = now.saturating_sub(self.begun);
        let mut out = Vec::new();
        for piece in text.split_inclusive('\n') {
            let part = &mut self.parts[usize::from(stderr)];
            part.push_str(piece);
            if piece.ends_with('\n') || part.len() > MAX_LINE {
                out.push(clean(&std::mem::take(part)));
            }
        }
        out.iter().for_each(|line| self.keep(line.clone()));
        out
    }

    fn keep(&mut self, line: String) {
        self.bytes += line.len();
        self.log.push_back((self.last, line));
        while self.bytes > MAX_LOG.0 || self.log.len() > MAX_LOG.1 {
            let Some((_, gone)) = self.log.pop_front() else { return };
            self.bytes -= gone.len();
            self.left_out += 1;
        }
    }

    /// Lines that no line feed ended.
    pub(super) fn rest(&mut self) -> Vec<(bool, String)> {
        let mut out = Vec::new();
        for stderr in [false, true] {
            let part = std::mem::take(&mut self.parts[usize::from(stderr)]);
            if !part.is_empty() {
                let line = clean(&part);
                self.keep(line.clone());
                out.push((stderr, line));
            }
        }
        out
    }

    /// The last lines, those that are not whole yet included.
    pub(super) fn tail(&self, most: usize) -> Vec<String> {
        let parts: Vec<String> = self.parts.iter().filter(|p| !p.is_empty()).map(|p| clean(p)).collect();
        let whole = most.saturating_sub(parts.len());
        let from = self.log.len().saturating_sub(whole);
        self.log.iter().skip(from).map(|(_, line)| line.clone()).chain(parts).collect()
    }

    pub(super) fn end(&mut self, state: State, took: Duration) {
        self.took = took;
        if !matches!(state, State::Failed(_)) {
            self.log = VecDeque::new();
            self.bytes = 0;
        }
        self.state = state;
    }

    /// How long it takes, or took.
    pub(crate) fn time(&self, now: Duration) -> Duration {
        match self.state {
            State::Waiting => Duration::ZERO,
            State::Running => now.saturating_sub(self.begun),
            _ => self.took,
        }
    }

    /// The time of the last output, from its beginning on.
    pub(crate) fn last(&self) -> Duration {
        self.last
    }
}

/// A line as it may be shown: what steers terminals is taken out, what was overwritten as well.
pub(super) fn clean(line: &str) -> String {
    let line = line.trim_end_matches(['\n', '\r']);
    let line = line.rsplit('\r').next().unwrap_or_default();
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find('\x1b') {
        out.push_str(&rest[..at]);
        rest = after_sequence(&rest[at + 1..]);
    }
    out.push_str(rest);
    printable(&out)
}

/// What follows an escape sequence, its first byte being gone (ECMA-48): parameters and a letter, or text up to a bell.
fn after_sequence(rest: &str) -> &str {
    let mut chars = rest.char_indices();
    let end = match chars.next() {
        Some((_, '[')) => chars.find(|(_, c)| ('\x40'..='\x7e').contains(c)),
        Some((_, ']' | 'P' | '_' | '^' | 'X')) => {
            let bell = chars.find(|(_, c)| ['\x07', '\x1b'].contains(c));
            // A terminator of two characters.
            bell.map(|(at, c)| if c == '\x1b' { (at + 1, '\\') } else { (at, c) })
        }
        Some((_, '(' | ')' | '#' | ' ')) => chars.next(),
        other => other,
    };
    match end {
        Some((at, c)) if rest[at..].starts_with(c) => &rest[at + c.len_utf8()..],
        _ => "",
    }
}
