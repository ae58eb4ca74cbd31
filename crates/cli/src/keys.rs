//! The keys that leave a container running: `ctrl-p,ctrl-q`.

/// Docker's default.
const DEFAULT: &[u8] = &[16, 17];

/// Finds the keys in what is typed. Bytes that may begin the sequence are held back until it is clear.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    sequence: Vec<u8>,
    seen: usize,
}

impl Keys {
    /// From an option's text; the default when it is empty, and (with a warning, as docker does) when it is wrong.
    pub(crate) fn new(text: &str) -> Self {
        let sequence = match parse(text) {
            Ok(keys) if keys.is_empty() => DEFAULT.to_vec(),
            Ok(keys) => keys,
            Err(e) => {
                eprintln!("WARNING: invalid detach escape keys, using default: {e}");
                DEFAULT.to_vec()
            }
        };
        Self { sequence, seen: 0 }
    }

    /// No keys: nothing leaves.
    pub(crate) const fn none() -> Self {
        Self { sequence: Vec::new(), seen: 0 }
    }

    /// What of `typed` goes on to the process, and whether the keys were in it.
    pub(crate) fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        if self.sequence.is_empty() {
            return (typed.to_vec(), false);
        }
        let mut out = Vec::with_capacity(typed.len());
        for byte in typed {
            if *byte == self.sequence[self.seen] {
                self.seen += 1;
                if self.seen == self.sequence.len() {
                    return (out, true);
                }
                continue;
            }
            out.extend_from_slice(&self.sequence[..self.seen]);
            self.seen = usize::from(*byte == self.sequence[0]);
            if self.seen == 0 {
                out.push(*byte);
            }
        }
        (out, false)
    }
}

fn parse(text: &str) -> Result<Vec<u8>, String> {
    let key = |name: &str| match (name.strip_prefix("ctrl-"), name.as_bytes()) {
        (Some(control), _) => match control.as_bytes() {
            [c @ b'a'..=b'z'] => Ok(c - b'a' + 1),
            [b'@'] => Ok(0),
            [c @ (b'[' | b'\\' | b']' | b'^' | b'_')] => Ok(c - b'@'),
            _ => Err(format!("Unknown character: '{name}'")),
        },
        (None, [one]) => Ok(*one),
        _ => Err(format!("Unknown character: '{name}'")),
    };
    if text.is_empty() { Ok(Vec::new()) } else { text.split(',').map(key).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read() {
        assert_eq!(parse("ctrl-p,ctrl-q").unwrap(), DEFAULT);
        assert_eq!(parse("ctrl-@,x,ctrl-]").unwrap(), [0, b'x', 29]);
        assert_eq!(parse("foo").unwrap_err(), "Unknown character: 'foo'");
    }

    #[test]
    fn the_sequence_is_found_and_everything_else_goes_on() {
        let mut keys = Keys::new("");
        assert_eq!(keys.filter(b"ab"), (b"ab".to_vec(), false));
        assert_eq!(keys.filter(b"a\x10"), (b"a".to_vec(), false));
        assert_eq!(keys.filter(b"b"), (b"\x10b".to_vec(), false));
        assert_eq!(keys.filter(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(keys.filter(b"\x11rest"), (Vec::new(), true));
        assert_eq!(Keys::none().filter(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
    }
}
