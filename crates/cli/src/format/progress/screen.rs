//! For tests: a terminal.

use super::Size;

/// As much of a terminal as is used here.
pub(crate) struct Screen {
    size: Size,
    lines: Vec<Vec<char>>,
    at: (usize, usize),
    /// Lines that left at the top.
    past: Vec<Vec<char>>,
}

impl Screen {
    pub(crate) fn new(size: Size) -> Self {
        Self { size, lines: vec![Vec::new(); size.rows], at: (0, 0), past: Vec::new() }
    }

    pub(crate) fn show(&mut self, text: &str) {
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            if let Some(sequence) = rest.strip_prefix("\x1b[") {
                let end = sequence.find(|c: char| c.is_ascii_alphabetic()).expect("a whole sequence");
                let number = sequence[..end].parse().unwrap_or(0);
                match &sequence[end..=end] {
                    "A" => self.at.0 = self.at.0.saturating_sub(number),
                    "K" => self.lines[self.at.0].truncate(self.at.1),
                    "J" => {
                        self.lines[self.at.0].truncate(self.at.1);
                        self.lines[self.at.0 + 1..].iter_mut().for_each(Vec::clear);
                    }
                    "m" => {}
                    other => panic!("{other}"),
                }
                rest = &sequence[end + 1..];
                continue;
            }
            rest = &rest[c.len_utf8()..];
            match c {
                '\r' => self.at.1 = 0,
                '\n' => self.next(),
                c => {
                    assert!(self.at.1 < self.size.columns, "a line is broken: {:?}", self.lines[self.at.0]);
                    let line = &mut self.lines[self.at.0];
                    line.resize(line.len().max(self.at.1 + 1), ' ');
                    line[self.at.1] = c;
                    self.at.1 += 1;
                }
            }
        }
    }

    fn next(&mut self) {
        self.at = (self.at.0 + 1, 0);
        if self.at.0 == self.size.rows {
            self.past.push(self.lines.remove(0));
            self.lines.push(Vec::new());
            self.at.0 -= 1;
        }
    }

    /// Another size: a terminal that breaks lines in two where they have no room.
    pub(crate) fn resize(&mut self, size: Size) {
        let all: Vec<Vec<char>> = self.past.drain(..).chain(self.lines.drain(..self.at.0)).collect();
        *self = Self::new(size);
        for line in all {
            for part in line.chunks(size.columns).chain(line.is_empty().then_some(&[][..])) {
                self.show(&part.iter().collect::<String>());
                self.next();
            }
        }
    }

    pub(crate) fn text(&self) -> Vec<String> {
        let all = self.past.iter().chain(&self.lines);
        let text = |l: &Vec<char>| l.iter().collect::<String>().trim_end().to_owned();
        all.map(text).filter(|l| !l.is_empty()).collect()
    }
}
