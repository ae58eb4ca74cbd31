//! The last lines of a terminal, drawn anew in their place.

use std::fmt::Write as _;

/// Rows and columns of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

/// Lines that change, the last ones on the screen; below them the cursor waits.
#[derive(Debug)]
pub(crate) struct Area {
    size: Size,
    /// How wide each line on the screen is.
    drawn: Vec<usize>,
}

impl Area {
    /// For a terminal on which nothing is drawn yet.
    pub(crate) fn new(size: Size) -> Self {
        Self { size, drawn: Vec::new() }
    }

    /// The terminal has another size now.
    pub(crate) fn resize(&mut self, size: Size) {
        self.size = size;
    }

    /// Most lines that have room, the cursor's not counted.
    pub(crate) fn most(&self) -> usize {
        self.size.rows.saturating_sub(1).max(2)
    }

    /// The last column stays free: some terminals begin a new line behind it.
    pub(crate) fn width(&self) -> usize {
        self.size.columns.saturating_sub(1)
    }

    /// What puts `lines` in the place of those that were drawn before.
    pub(crate) fn draw(&mut self, lines: &[Line]) -> String {
        let mut out = String::new();
        // A terminal that became narrower may have broken lines in two.
        let columns = self.size.columns.max(1);
        let up: usize = self.drawn.iter().map(|width| width.div_ceil(columns).max(1)).sum();
        match up {
            0 => {}
            // No further than to the top; what is above has left the screen.
            up => drop(write!(out, "\x1b[{}A", up.min(self.size.rows.saturating_sub(1).max(1)))),
        }
        for line in lines {
            let _ = write!(out, "\r{}\x1b[K\n", line.text);
        }
        if lines.len() < up {
            out.push_str("\x1b[J");
        }
        self.drawn = lines.iter().map(|l| l.width).collect();
        out
    }

    /// The same for the last time: from now on they are the screen's past.
    pub(crate) fn last(&mut self, lines: &[Line]) -> String {
        let out = self.draw(lines);
        self.drawn.clear();
        out
    }
}

/// Text whose width is known.
#[derive(Debug, Default)]
pub(crate) struct Line {
    pub(crate) text: String,
    pub(crate) width: usize,
}

impl Line {
    /// Adds text as far as it fits.
    pub(crate) fn push(&mut self, text: &str, width: usize) {
        for c in text.chars() {
            let c = if ['\n', '\t'].contains(&c) { ' ' } else { c };
            let wide = columns(c);
            if self.width + wide > width {
                return;
            }
            self.width += wide;
            self.text.push(c);
        }
    }

    pub(crate) fn pad(&mut self, width: usize) {
        let missing = width.saturating_sub(self.width);
        self.text.extend(std::iter::repeat_n(' ', missing));
        self.width += missing;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.text.push_str(&other.text);
        self.width += other.width;
    }
}

/// Columns of a letter, rather too many than too few.
fn columns(c: char) -> usize {
    if u32::from(c) < 0x1100 { 1 } else { 2 }
}
