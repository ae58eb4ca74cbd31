//! The key sequence that detaches a client from a terminal without ending the process.

/// `ctrl-p,ctrl-q`.
const DEFAULT: [u8; 2] = [16, 17];

/// Watches a client's input for the sequence.
#[derive(Clone, Debug)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    /// Reads `ctrl-p,ctrl-q`, `a`, `ctrl-@,x`...; empty text means the default sequence.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self { keys: DEFAULT.to_vec(), matched: 0 });
        }
        let keys = text.split(',').map(key).collect::<Option<Vec<u8>>>();
        match keys {
            Some(keys) => Ok(Self { keys, matched: 0 }),
            None => Err(format!("Invalid detach keys ({text}) provided")),
        }
    }

    /// The sequence.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.keys
    }

    /// Takes input, appends to `out` what the process shall get, and says whether the sequence
    /// is complete. Keys of a sequence that may still become complete are held back.
    pub(crate) fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> bool {
        for &byte in input {
            loop {
                if self.keys.get(self.matched) == Some(&byte) {
                    self.matched += 1;
                    if self.matched == self.keys.len() {
                        return true;
                    }
                    break;
                }
                if self.matched == 0 {
                    out.push(byte);
                    break;
                }
                // What was held back was input after all; a shorter start of the sequence may
                // still be its end.
                let held = self.matched;
                let next =
                    (1..held).rev().find(|n| self.keys[held - n..held] == self.keys[..*n]).unwrap_or(0);
                out.extend_from_slice(&self.keys[..held - next]);
                self.matched = next;
            }
        }
        false
    }
}

fn key(text: &str) -> Option<u8> {
    let control = |c: u8| match c {
        b'a'..=b'z' => Some(c - b'a' + 1),
        b'@' => Some(0),
        b'[' => Some(27),
        b'\\' => Some(28),
        b']' => Some(29),
        b'^' => Some(30),
        b'_' => Some(31),
        _ => None,
    };
    match text.as_bytes() {
        [b] => Some(*b),
        _ => match text.to_ascii_lowercase().strip_prefix("ctrl-")?.as_bytes() {
            [b] => control(*b),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(keys: &str, pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut keys = DetachKeys::parse(keys).unwrap();
        let mut out = Vec::new();
        let done = pieces.iter().any(|p| keys.feed(p, &mut out));
        (out, done)
    }

    #[test]
    fn sequences_are_found_across_pieces() {
        assert_eq!(run("", &[b"ab\x10", b"\x11rest"]), (b"ab".to_vec(), true));
        assert_eq!(run("", &[b"\x10x"]), (b"\x10x".to_vec(), false));
        assert_eq!(run("", &[b"\x10\x10\x11"]), (b"\x10".to_vec(), true));
        assert_eq!(run("ctrl-a,a,a,b", &[b"\x01aac"]), (b"\x01aac".to_vec(), false));
        assert_eq!(run("a,a,b", &[b"aaab"]), (b"a".to_vec(), true));
        assert_eq!(run("a,b,a,c", &[b"ababac"]), (b"ab".to_vec(), true));
    }

    #[test]
    fn names_of_keys() {
        assert_eq!(DetachKeys::parse("ctrl-@,x,CTRL-[,ctrl-_").unwrap().keys, [0, b'x', 27, 31]);
        for bad in ["ctrl-", "ctrl-1", "ab", "a,,b", "shift-a", ","] {
            let message = DetachKeys::parse(bad).unwrap_err();
            assert_eq!(message, format!("Invalid detach keys ({bad}) provided"));
        }
    }
}
