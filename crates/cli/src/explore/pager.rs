//! A file of an image, shown: text by lines, other bytes in hexadecimal.

use super::app::Scroll;
use super::input::Key;
use crate::tty::Visible;

/// Bytes that are looked at to see whether it is text.
const PROBE: usize = 8 << 10;
/// Characters of a line that are kept.
const LONGEST: usize = 4096;
/// Columns that a step to the side moves.
const STEP: usize = 8;

/// The pager.
#[derive(Clone, Debug)]
pub(super) struct Pager {
    pub(super) path: Vec<u8>,
    pub(super) lines: Vec<String>,
    /// The first line that is shown, and how many can be.
    pub(super) scroll: Scroll,
    /// The first column that is shown.
    pub(super) left: usize,
    /// Bytes that are shown, and that the file has.
    pub(super) shown: u64,
    pub(super) size: u64,
    widest: usize,
}

impl Pager {
    pub(super) fn new(path: &[u8], bytes: &[u8], size: u64) -> Self {
        let is_text = !bytes[..bytes.len().min(PROBE)].contains(&0);
        let lines = if is_text { text(bytes) } else { hexadecimal(bytes) };
        let widest = lines.iter().map(|l| l.chars().count()).max().unwrap_or(0);
        Self {
            path: path.to_vec(),
            lines,
            scroll: Scroll::default(),
            left: 0,
            shown: bytes.len() as u64,
            size,
            widest,
        }
    }

    /// Lines and columns that can be shown.
    pub(super) fn resize(&mut self, (lines, _): (usize, usize)) {
        self.scroll.height = lines;
        self.scroll.top = self.scroll.top.min(self.lines.len().saturating_sub(lines));
    }

    /// Moves as a key says; false for other keys.
    pub(super) fn key(&mut self, key: Key) -> bool {
        match key {
            Key::Right | Key::Char('l') => self.left = (self.left + STEP).min(self.widest.saturating_sub(1)),
            Key::Left | Key::Char('h') if self.left > 0 => self.left = self.left.saturating_sub(STEP),
            Key::Char(' ') => return self.key(Key::PageDown),
            _ => {
                // There is no selected line: what moves is the first one.
                let ends = self.lines.len().saturating_sub(self.scroll.height);
                let mut first = Scroll { at: self.scroll.top, top: 0, height: self.scroll.height };
                if !first.key(key, ends + 1) {
                    return false;
                }
                self.scroll.top = first.at;
            }
        }
        true
    }
}

fn text(bytes: &[u8]) -> Vec<String> {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let line = |l: &[u8]| {
        let l = l.strip_suffix(b"\r").unwrap_or(l);
        let cut = &l[..l.len().min(LONGEST)];
        expand(&Visible::whole(cut))
    };
    bytes.split(|b| *b == b'\n').map(line).collect()
}

/// Tabs become spaces, up to the next eighth column.
fn expand(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut column = 0;
    for c in line.chars() {
        if c == '\t' {
            let n = 8 - column % 8;
            out.extend(std::iter::repeat_n(' ', n));
            column += n;
        } else {
            out.push(c);
            column += 1;
        }
    }
    out
}

fn hexadecimal(bytes: &[u8]) -> Vec<String> {
    let row = |(i, row): (usize, &[u8])| {
        let mut hex = String::new();
        for (k, b) in row.iter().enumerate() {
            hex.push_str(&format!("{b:02x}{}", if k == 7 { "  " } else { " " }));
        }
        let plain: String =
            row.iter().map(|b| if (0x20..0x7f).contains(b) { char::from(*b) } else { '.' }).collect();
        format!("{:08x}  {hex:<49} {plain}", i * 16)
    };
    bytes.chunks(16).enumerate().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atk_40_text_and_bytes_are_shown_not_obeyed() {
        let pager = Pager::new(b"/x", b"one\r\n\x1b[2J\ttab\n\xff\n", 40);
        assert_eq!(pager.lines, ["one", "\\x1b[2J tab", "\\xff"]);
        let pager = Pager::new(b"/x", b"\x7fELF\0\x01abcdefghijkl", 16);
        assert_eq!(
            pager.lines,
            [
                "00000000  7f 45 4c 46 00 01 61 62  63 64 65 66 67 68 69 6a  .ELF..abcdefghij",
                "00000010  6b 6c                                             kl",
            ]
        );
    }

    #[test]
    fn it_scrolls_to_its_ends_and_no_further() {
        let text: String = (0..100).map(|n| format!("line {n}\n")).collect();
        let mut pager = Pager::new(b"/x", text.as_bytes(), 1);
        pager.resize((20, 80));
        for (key, top) in [
            (Key::Up, 0),
            (Key::Down, 1),
            (Key::Char(' '), 20),
            (Key::End, 80),
            (Key::PageDown, 80),
            (Key::PageUp, 61),
            (Key::Char('g'), 0),
        ] {
            assert!(pager.key(key));
            assert_eq!(pager.scroll.top, top, "{key:?}");
        }
        assert!(!pager.key(Key::Char('q')) && !pager.key(Key::Left));
        assert!(pager.key(Key::Right) && pager.left == 6);
    }
}
