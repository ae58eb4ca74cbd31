//! Keys, from the bytes that a terminal sends.

/// A key that was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Ctrl(char),
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Esc,
    Tab,
    Backspace,
}

/// Longest sequence that is waited for.
const LONGEST: usize = 32;

/// Reads keys out of bytes that come in pieces.
#[derive(Debug, Default)]
pub(super) struct Keys {
    rest: Vec<u8>,
}

impl Keys {
    /// The keys that are complete with these bytes.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<Key> {
        self.rest.extend_from_slice(bytes);
        let mut keys = Vec::new();
        let mut at = 0;
        while at < self.rest.len() {
            let Some((key, len)) = read(&self.rest[at..]) else { break };
            keys.extend(key);
            at += len;
        }
        self.rest.drain(..at);
        if self.rest.len() > LONGEST {
            self.rest.clear();
        }
        keys
    }

    /// Whether a sequence has begun: an escape character alone is the key only if nothing follows soon.
    pub(super) fn waits(&self) -> bool {
        !self.rest.is_empty()
    }

    /// What was waited for did not come.
    pub(super) fn give_up(&mut self) -> Vec<Key> {
        let alone = self.rest == [0x1b];
        self.rest.clear();
        if alone { vec![Key::Esc] } else { Vec::new() }
    }
}

/// The first key and how many bytes it has; `None` when more must come. A sequence that means nothing here is no key.
fn read(bytes: &[u8]) -> Option<(Option<Key>, usize)> {
    let key = match bytes[0] {
        0x1b => return escape(bytes),
        b'\r' | b'\n' => Key::Enter,
        b'\t' => Key::Tab,
        0x7f | 0x08 => Key::Backspace,
        0 => Key::Ctrl(' '),
        b @ 1..=26 => Key::Ctrl(char::from(b - 1 + b'a')),
        b if b < 0x20 => return Some((None, 1)),
        b if b < 0x80 => Key::Char(char::from(b)),
        _ => return text(bytes),
    };
    Some((Some(key), 1))
}

fn text(bytes: &[u8]) -> Option<(Option<Key>, usize)> {
    let len = match bytes[0] {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return Some((None, 1)),
    };
    let Some(whole) = bytes.get(..len) else {
        // The rest may still come.
        return if std::str::from_utf8(bytes).is_err_and(|e| e.error_len().is_none()) {
            None
        } else {
            Some((None, 1))
        };
    };
    match std::str::from_utf8(whole).ok().and_then(|s| s.chars().next()) {
        Some(c) if !c.is_control() => Some((Some(Key::Char(c)), len)),
        Some(_) => Some((None, len)),
        None => Some((None, 1)),
    }
}

fn escape(bytes: &[u8]) -> Option<(Option<Key>, usize)> {
    match *bytes.get(1)? {
        b'[' | b'O' => {
            let end = bytes[2..].iter().position(|b| !(0x20..=0x3f).contains(b))?;
            let (numbers, last) = (&bytes[2..2 + end], bytes[2 + end]);
            match last {
                0x40..=0x7e => Some((sequence(numbers, last), end + 3)),
                // It breaks off.
                _ => Some((None, end + 2)),
            }
        }
        // Two escapes: the first one is a key by itself.
        0x1b => Some((Some(Key::Esc), 1)),
        // With Alt: nothing here.
        _ => Some((None, 2)),
    }
}

fn sequence(numbers: &[u8], last: u8) -> Option<Key> {
    let first = numbers.split(|b| *b == b';').next().unwrap_or_default();
    Some(match (last, first) {
        (b'A', _) => Key::Up,
        (b'B', _) => Key::Down,
        (b'C', _) => Key::Right,
        (b'D', _) => Key::Left,
        (b'H', _) | (b'~', b"1" | b"7") => Key::Home,
        (b'F', _) | (b'~', b"4" | b"8") => Key::End,
        (b'~', b"5") => Key::PageUp,
        (b'~', b"6") => Key::PageDown,
        // Shift and Tab: between two panes it is the same.
        (b'Z', _) => Key::Tab,
        (b'M', _) => Key::Enter,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_become_keys_however_they_are_cut() {
        let bytes =
            "jG\x1b[A\x1bOB\x1b[5~\x1b[1;5C\x1b[H\t\x1b[Z\r\x7f\x03\u{e9}\u{20ac}\x1b[200~q".as_bytes();
        let want = vec![
            Key::Char('j'),
            Key::Char('G'),
            Key::Up,
            Key::Down,
            Key::PageUp,
            Key::Right,
            Key::Home,
            Key::Tab,
            Key::Tab,
            Key::Enter,
            Key::Backspace,
            Key::Ctrl('c'),
            Key::Char('\u{e9}'),
            Key::Char('\u{20ac}'),
            Key::Char('q'),
        ];
        assert_eq!(Keys::default().feed(bytes), want);
        for cut in 1..4 {
            let mut keys = Keys::default();
            let got: Vec<Key> = bytes.chunks(cut).flat_map(|piece| keys.feed(piece)).collect();
            assert_eq!((got, keys.waits()), (want.clone(), false), "pieces of {cut}");
        }
    }

    #[test]
    fn an_escape_alone_is_a_key_when_nothing_follows() {
        let mut keys = Keys::default();
        assert!(keys.feed(b"\x1b").is_empty() && keys.waits());
        assert_eq!(keys.give_up(), [Key::Esc]);
        assert_eq!(keys.feed(b"\x1b\x1b[A"), [Key::Esc, Key::Up]);
        assert!(keys.feed(b"\x1b[1;").is_empty() && keys.give_up().is_empty() && !keys.waits());
    }

    #[test]
    fn noise_is_bounded_and_means_nothing() {
        let mut keys = Keys::default();
        for _ in 0..100 {
            assert!(keys.feed(b"\x1b[;;;;;;;;;;;;").len() < 2);
            assert!(keys.rest.len() <= LONGEST);
        }
        let all: Vec<u8> = (0..=255).collect();
        keys.feed(&all);
    }
}
