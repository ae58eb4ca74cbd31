//! The part of a terminal that changes while images move: a line for each layer, drawn anew in its place.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::area::{Area, Line, Size};
use super::{Amount, Message};

/// Most lines that are remembered; a stream with more starts over.
const MAX_ROWS: usize = 2048;
/// Most letters of a name or status that are remembered: no terminal is wider.
const MAX_TEXT: usize = 512;
/// Columns that every status gets, so that the bars are below each other.
const STATUS: usize = 11;
/// Columns that every number gets: `123.4MB/567.8MB`.
const NUMBERS: usize = 15;
/// Narrowest and widest bar.
const BAR: (usize, usize) = (8, 40);

/// What a terminal can show.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Style {
    /// Lines and other signs outside ASCII.
    pub(crate) unicode: bool,
    pub(crate) colour: bool,
}

impl Style {
    /// From the environment.
    pub(crate) fn detect() -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|n| set(n)).unwrap_or_default();
        let locale = locale.to_ascii_lowercase();
        Self {
            unicode: locale.contains("utf-8") || locale.contains("utf8"),
            colour: set("NO_COLOR").is_none(),
        }
    }
}

#[derive(Debug)]
struct Row {
    id: String,
    status: String,
    amount: Amount,
}

impl Row {
    /// Nothing more will come of it.
    fn is_done(&self) -> bool {
        const DONE: &[&str] =
            &["Pull complete", "Already exists", "Pushed", "Layer already exists", "Mounted"];
        DONE.iter().any(|d| self.status.starts_with(d))
    }
}

/// Lines that change, the last ones on the screen; below them the cursor waits.
#[derive(Debug)]
pub(crate) struct Live {
    area: Area,
    style: Style,
    rows: Vec<Row>,
    places: HashMap<String, usize>,
    changed: bool,
}

impl Live {
    /// For a terminal on which nothing is drawn yet.
    pub(crate) fn new(size: Size, style: Style) -> Self {
        Self { area: Area::new(size), style, rows: Vec::new(), places: HashMap::new(), changed: false }
    }

    /// Takes a message; gives what is to be written at once. What moves waits for the next [`Live::frame`].
    pub(crate) fn take(&mut self, message: &Message) -> String {
        if !message.moves() {
            let before = self.close();
            // A bar without a name has no place to change in.
            let bar = message.amount.as_ref().is_some_and(|a| !a.is_none());
            return if bar { before } else { before + &message.plain() };
        }
        let cut = |text: &str| text.chars().take(MAX_TEXT).collect::<String>();
        let id = cut(&message.id);
        let full = self.rows.len() >= MAX_ROWS && !self.places.contains_key(&id);
        let before = if full { self.close() } else { String::new() };
        let at = *self.places.entry(id.clone()).or_insert_with(|| {
            self.rows.push(Row { id, status: String::new(), amount: Amount::default() });
            self.rows.len() - 1
        });
        let row = &mut self.rows[at];
        row.status = cut(&message.status);
        row.amount = message.amount.clone().unwrap_or_default();
        self.changed = true;
        before
    }

    /// Whether a frame would differ from what is on the screen.
    pub(crate) fn is_changed(&self) -> bool {
        self.changed
    }

    /// The terminal has another size now; gives what draws the lines for it.
    pub(crate) fn resize(&mut self, size: Size) -> String {
        self.area.resize(size);
        self.frame()
    }

    /// Draws the lines in their place.
    pub(crate) fn frame(&mut self) -> String {
        let most = self.area.most();
        let lines = if self.rows.len() <= most { self.all() } else { self.some(most) };
        self.changed = false;
        self.area.draw(&lines)
    }

    /// Draws every line for the last time: from now on they are the screen's past.
    pub(crate) fn close(&mut self) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let lines = self.all();
        self.rows.clear();
        self.places.clear();
        self.changed = false;
        self.area.last(&lines)
    }

    fn all(&self) -> Vec<Line> {
        self.rows.iter().map(|row| self.line(row)).collect()
    }

    /// Those lines that say most, where not all have room, and a count of the others.
    fn some(&self, most: usize) -> Vec<Line> {
        let rank = |row: &Row| match row.amount.is_none() {
            false => 0,
            true => 1 + u8::from(row.is_done()),
        };
        let mut chosen: Vec<usize> = (0..self.rows.len()).collect();
        chosen.sort_by_key(|at| rank(&self.rows[*at]));
        chosen.truncate(most - 1);
        chosen.sort_unstable();
        let mut lines: Vec<Line> = chosen.into_iter().map(|at| self.line(&self.rows[at])).collect();
        let done = self.rows.iter().filter(|r| r.is_done()).count();
        let mut count = Line::default();
        count.push(&format!("{done} of {} done", self.rows.len()), self.width());
        lines.push(count);
        lines
    }

    fn width(&self) -> usize {
        self.area.width()
    }

    /// `id: status  bar  numbers`, with less of it the narrower the terminal is.
    fn line(&self, row: &Row) -> Line {
        let width = self.width();
        let mut out = Line::default();
        out.push(&format!("{}: ", row.id), width);
        if row.amount.is_none() {
            out.push(&row.status, width);
            return out;
        }
        let numbers = row.amount.numbers();
        let mut status = Line::default();
        status.push(&row.status, width);
        status.pad(STATUS);
        let needed = out.width + status.width + 2 + numbers.chars().count().max(NUMBERS);
        match (row.amount.thousandths(), width.saturating_sub(needed)) {
            (Some(part), room) if room >= BAR.0 => {
                out.add(&status);
                out.text.push(' ');
                out.width += 1;
                self.bar(part, room.min(BAR.1), &mut out);
                let before = NUMBERS.saturating_sub(numbers.chars().count());
                out.push(&format!(" {:before$}{numbers}", ""), width);
            }
            (Some(part), _) if out.width + status.width + 1 + numbers.chars().count() > width => {
                out.push(&format!("{} {}%", row.status, part / 10), width);
            }
            _ => {
                out.add(&status);
                out.push(&format!(" {numbers}"), width);
            }
        }
        out
    }

    fn bar(&self, thousandths: usize, width: usize, out: &mut Line) {
        out.width += width;
        if !self.style.unicode {
            let inner = width - 2;
            let done = (inner * thousandths / 1000).min(inner);
            let head = if done < inner { ">" } else { "" };
            let rest = inner - done - head.len();
            let _ = write!(out.text, "[{}{head}{}]", "=".repeat(done), " ".repeat(rest));
            return;
        }
        // Each column has a left and a right half.
        let halves = (2 * width * thousandths / 1000).min(2 * width);
        let half = if halves % 2 == 1 { "╸" } else { "" };
        let (done, rest) = (halves / 2, width - halves.div_ceil(2));
        let (on, dim, off) =
            if self.style.colour { ("\x1b[36m", "\x1b[90m", "\x1b[0m") } else { ("", "", "") };
        let empty = if self.style.colour { "━" } else { "─" };
        let _ = write!(out.text, "{on}{}{half}{dim}{}{off}", "━".repeat(done), empty.repeat(rest));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::screen::Screen;
    use super::*;

    const PLAIN: Style = Style { unicode: false, colour: false };

    fn moving(id: &str, status: &str, current: i64, total: i64) -> Message {
        let detail = json!({"current": current, "total": total});
        Message::new(&json!({"id": id, "status": status, "progressDetail": detail}))
    }

    fn still(id: &str, status: &str) -> Message {
        Message::new(&json!({"id": id, "status": status, "progressDetail": {}}))
    }

    fn size(rows: usize, columns: usize) -> Size {
        Size { rows, columns }
    }

    #[test]
    fn lines_change_in_their_place() {
        let mut screen = Screen::new(size(24, 80));
        let mut live = Live::new(size(24, 80), PLAIN);
        screen.show(&live.take(&Message::new(&json!({"id": "latest", "status": "Pulling from x"}))));
        for n in [1_000_000, 20_000_000, 31_200_000] {
            live.take(&moving("8d83596e28d3", "Downloading", n, 120_400_000));
            live.take(&still("4f4fb700ef54", "Waiting"));
            screen.show(&live.frame());
        }
        assert_eq!(
            screen.text(),
            [
                "latest: Pulling from x",
                "8d83596e28d3: Downloading [=========>                         ]  31.2MB/120.4MB",
                "4f4fb700ef54: Waiting",
            ]
        );
        live.take(&still("8d83596e28d3", "Pull complete"));
        assert!(live.is_changed());
        screen.show(&live.take(&Message::new(&json!({"status": "Digest: sha256:1"}))));
        // The same name again, for another tag.
        live.take(&still("8d83596e28d3", "Already exists"));
        screen.show(&live.close());
        assert_eq!(
            screen.text()[1..],
            [
                "8d83596e28d3: Pull complete",
                "4f4fb700ef54: Waiting",
                "Digest: sha256:1",
                "8d83596e28d3: Already exists",
            ]
        );
    }

    #[test]
    fn narrow_terminals_get_less() {
        let shown = |columns: usize, style: Style, message: &Message| {
            let mut live = Live::new(size(24, columns), style);
            live.take(message);
            let mut screen = Screen::new(size(24, columns));
            screen.show(&live.frame());
            screen.text().pop().unwrap_or_default()
        };
        let half = moving("8d83596e28d3", "Downloading", 50_500_000, 101_000_000);
        for (columns, want) in [
            (200, "8d83596e28d3: Downloading [===================>                  ]    50.5MB/101MB"),
            (60, "8d83596e28d3: Downloading [=======>       ]    50.5MB/101MB"),
            (45, "8d83596e28d3: Downloading 50.5MB/101MB"),
            (36, "8d83596e28d3: Downloading 50%"),
            (20, "8d83596e28d3: Downl"),
            (5, "8d83"),
            (1, ""),
        ] {
            assert_eq!(shown(columns, PLAIN, &half), want, "{columns}");
        }
        let style = Style { unicode: true, colour: false };
        assert_eq!(shown(60, style, &half), "8d83596e28d3: Downloading ━━━━━━━━╸────────    50.5MB/101MB");
        let style = Style { unicode: true, colour: true };
        assert_eq!(
            shown(60, style, &moving("a", "Extracting", 101, 100)),
            "a: Extracting  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━            101B"
        );
        let seconds =
            json!({"id": "a", "status": "Extracting", "progressDetail": {"current": 7, "units": "s"}});
        assert_eq!(shown(60, style, &Message::new(&seconds)), "a: Extracting  7 s");
    }

    #[test]
    fn a_terminal_may_change_its_size() {
        let mut screen = Screen::new(size(24, 80));
        let mut live = Live::new(size(24, 80), PLAIN);
        screen.show("before\n");
        for to in [80, 40, 100, 20, 80] {
            screen.resize(size(24, to));
            screen.show(&live.resize(size(24, to)));
            for id in ["a", "b", "c"] {
                live.take(&moving(id, "Downloading", 50, 100));
            }
            screen.show(&live.frame());
        }
        screen.show(&live.close());
        assert_eq!(
            screen.text(),
            [
                "before",
                "a: Downloading [===================>                  ]        50B/100B",
                "b: Downloading [===================>                  ]        50B/100B",
                "c: Downloading [===================>                  ]        50B/100B",
            ]
        );
    }

    #[test]
    fn more_layers_than_lines() {
        let mut screen = Screen::new(size(6, 60));
        let mut live = Live::new(size(6, 60), PLAIN);
        screen.show("before\n");
        for n in 0..40 {
            live.take(&still(&format!("layer{n:02}"), "Waiting"));
            screen.show(&live.frame());
        }
        for n in 0..20 {
            live.take(&still(&format!("layer{n:02}"), "Pull complete"));
        }
        live.take(&moving("layer39", "Downloading", 5, 10));
        screen.show(&live.frame());
        let shown = screen.text();
        assert_eq!(shown.len(), 6, "{shown:#?}");
        assert_eq!((shown[0].as_str(), shown[1].as_str()), ("before", "layer20: Waiting"));
        assert!(shown[4].starts_with("layer39: Downloading ["), "{shown:#?}");
        assert_eq!(shown[5], "20 of 40 done");
        for n in 0..40 {
            live.take(&still(&format!("layer{n:02}"), "Pull complete"));
        }
        screen.show(&live.close());
        let want: Vec<String> = (0..40).map(|n| format!("layer{n:02}: Pull complete")).collect();
        assert_eq!(screen.text()[1..], want);
    }

    #[test]
    fn no_stream_fills_the_memory() {
        let mut live = Live::new(size(24, 80), PLAIN);
        for n in 0..3 * MAX_ROWS {
            live.take(&still(&n.to_string(), &"x".repeat(2 * MAX_TEXT)));
            assert!(live.rows.len() <= MAX_ROWS && live.places.len() <= MAX_ROWS);
            assert!(live.rows.last().unwrap().status.len() <= MAX_TEXT);
        }
    }
}
