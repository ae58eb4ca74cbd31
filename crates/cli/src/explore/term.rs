//! The terminal while the explorer has it: its other screen, raw mode, and everything as it was afterwards.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui_core::backend::{Backend, ClearType, WindowSize};
use ratatui_core::buffer::Cell;
use ratatui_core::layout::{Position, Size};
use ratatui_core::style::{Color, Modifier};

use crate::tty;

/// The other screen, no cursor, and a wheel that sends arrow keys, so that the mouse can still mark text.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l\x1b[?1007h\x1b[2J";
const LEAVE: &[u8] = b"\x1b[0m\x1b[?1007l\x1b[?25h\x1b[?1049l";

/// Whether the other screen is shown.
static SHOWN: AtomicBool = AtomicBool::new(false);

/// Raw mode and the other screen; what was before comes back when this is dropped, and when the program panics.
pub(super) struct Screen {
    raw: tty::Raw,
}

impl Screen {
    /// Takes the terminal; `None` if standard input is none.
    pub(super) fn enter() -> io::Result<Option<Self>> {
        let Some(raw) = tty::Raw::start() else { return Ok(None) };
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            leave();
            hook(info);
        }));
        let screen = Self { raw };
        show()?;
        Ok(Some(screen))
    }

    /// Gives the terminal back until the program is continued.
    pub(super) fn suspend(&self) -> io::Result<()> {
        leave();
        self.raw.pause();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TSTP)?;
        self.raw.again();
        show()
    }
}

fn show() -> io::Result<()> {
    let mut out = io::stdout();
    SHOWN.store(true, Ordering::SeqCst);
    out.write_all(ENTER)?;
    out.flush()
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

fn leave() {
    if SHOWN.swap(false, Ordering::SeqCst) {
        let mut out = io::stdout();
        let _ = out.write_all(LEAVE);
        let _ = out.flush();
    }
}

/// Puts text into the terminal's clipboard, where it has one (OSC 52).
pub(super) fn copy(text: &[u8]) -> io::Result<()> {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(text);
    let mut out = io::stdout();
    out.write_all(format!("\x1b]52;c;{encoded}\x07").as_bytes())?;
    out.flush()
}

/// Draws cells with the sequences that every terminal knows.
#[derive(Debug, Default)]
pub(super) struct Ansi {
    out: Vec<u8>,
}

impl Ansi {
    fn put(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }
}

/// What stands in a sequence for a colour: of the sixteen that a terminal's own palette has.
fn colour(colour: Color, base: u8) -> Option<u8> {
    let (n, bright) = match colour {
        Color::Black => (0, false),
        Color::Red => (1, false),
        Color::Green => (2, false),
        Color::Yellow => (3, false),
        Color::Blue => (4, false),
        Color::Magenta => (5, false),
        Color::Cyan => (6, false),
        Color::Gray => (7, false),
        Color::DarkGray => (0, true),
        Color::LightRed => (1, true),
        Color::LightGreen => (2, true),
        Color::LightYellow => (3, true),
        Color::LightBlue => (4, true),
        Color::LightMagenta => (5, true),
        Color::LightCyan => (6, true),
        Color::White => (7, true),
        _ => return None,
    };
    Some(base + n + if bright { 60 } else { 0 })
}

fn style(fg: Color, bg: Color, modifier: Modifier) -> String {
    let mut out = String::from("\x1b[0");
    let marks = [
        (Modifier::BOLD, 1),
        (Modifier::DIM, 2),
        (Modifier::UNDERLINED, 4),
        (Modifier::REVERSED, 7),
        (Modifier::CROSSED_OUT, 9),
    ];
    for (mark, code) in marks {
        if modifier.contains(mark) {
            out.push_str(&format!(";{code}"));
        }
    }
    for code in [colour(fg, 30), colour(bg, 40)].into_iter().flatten() {
        out.push_str(&format!(";{code}"));
    }
    out.push('m');
    out
}

impl Backend for Ansi {
    type Error = io::Error;

    fn draw<'a, I>(&mut self, content: I) -> io::Result<()>
    where
        I: Iterator<Item = (u16, u16, &'a Cell)>,
    {
        let mut last: Option<(u16, u16)> = None;
        let mut now = None;
        for (x, y, cell) in content {
            if last.is_none_or(|(before, row)| row != y || before + 1 != x) {
                self.put(&format!("\x1b[{};{}H", y + 1, x + 1));
            }
            last = Some((x, y));
            let wanted = (cell.fg, cell.bg, cell.modifier);
            if now != Some(wanted) {
                let text = style(cell.fg, cell.bg, cell.modifier);
                self.put(&text);
                now = Some(wanted);
            }
            self.put(cell.symbol());
        }
        self.put("\x1b[0m");
        Ok(())
    }

    fn hide_cursor(&mut self) -> io::Result<()> {
        self.put("\x1b[?25l");
        Ok(())
    }

    fn show_cursor(&mut self) -> io::Result<()> {
        self.put("\x1b[?25h");
        Ok(())
    }

    fn get_cursor_position(&mut self) -> io::Result<Position> {
        // Nobody sees it.
        Ok(Position::ORIGIN)
    }

    fn set_cursor_position<P: Into<Position>>(&mut self, position: P) -> io::Result<()> {
        let Position { x, y } = position.into();
        self.put(&format!("\x1b[{};{}H", y + 1, x + 1));
        Ok(())
    }

    fn clear(&mut self) -> io::Result<()> {
        self.put("\x1b[0m\x1b[2J");
        Ok(())
    }

    fn clear_region(&mut self, _: ClearType) -> io::Result<()> {
        self.clear()
    }

    fn size(&self) -> io::Result<Size> {
        let (rows, columns) = tty::size().unwrap_or((24, 80));
        Ok(Size::new(columns, rows))
    }

    fn window_size(&mut self) -> io::Result<WindowSize> {
        Ok(WindowSize { columns_rows: self.size()?, pixels: Size::ZERO })
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut out = io::stdout();
        let done = out.write_all(&self.out).and_then(|()| out.flush());
        self.out.clear();
        done
    }
}

#[cfg(test)]
mod tests {
    use ratatui_core::style::Style;

    use super::*;

    #[test]
    fn cells_become_sequences() {
        let mut ansi = Ansi::default();
        let cell = |text: &'static str, style: Style| {
            let mut cell = Cell::new(text);
            cell.set_style(style);
            cell
        };
        let cells = [
            (0, 0, cell("a", Style::new())),
            (1, 0, cell("b", Style::new().fg(Color::Red).add_modifier(Modifier::BOLD))),
            (0, 1, cell("c", Style::new().bg(Color::DarkGray))),
        ];
        ansi.draw(cells.iter().map(|(x, y, c)| (*x, *y, c))).unwrap();
        let want = "\x1b[1;1H\x1b[0ma\x1b[0;1;31mb\x1b[2;1H\x1b[0;100mc\x1b[0m";
        assert_eq!(String::from_utf8(ansi.out).unwrap(), want);
    }
}
