//! Multiplexed output: frames of an 8-byte header (stream, three zeros, big-endian length) and
//! that many bytes. Pure: bytes in, frames out.

/// Bytes of a frame's header.
pub const HEADER: usize = 8;
/// Longest payload that a decoder takes; Docker writes at most 32 KiB plus a timestamp at a time,
/// but whole log lines may be longer.
pub const MAX_FRAME: usize = 16 << 20;

/// Which stream a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Stream {
    Stdin,
    Stdout,
    Stderr,
    /// An error of the daemon, as text.
    System,
}

impl Stream {
    fn number(self) -> u8 {
        match self {
            Self::Stdin => 0,
            Self::Stdout => 1,
            Self::Stderr => 2,
            Self::System => 3,
        }
    }

    fn from_number(n: u8) -> Option<Self> {
        Some(match n {
            0 => Self::Stdin,
            1 => Self::Stdout,
            2 => Self::Stderr,
            3 => Self::System,
            _ => return None,
        })
    }
}

/// The header of a frame with `len` bytes.
#[must_use]
pub fn header(stream: Stream, len: u32) -> [u8; HEADER] {
    let [a, b, c, d] = len.to_be_bytes();
    [stream.number(), 0, 0, 0, a, b, c, d]
}

/// Appends frames that carry `data`; none for no data.
pub fn encode(stream: Stream, data: &[u8], out: &mut Vec<u8>) {
    for chunk in data.chunks(MAX_FRAME) {
        // A chunk is at most MAX_FRAME long.
        let len = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&header(stream, len));
        out.extend_from_slice(chunk);
    }
}

/// The bytes are not frames.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum FrameError {
    /// No such stream.
    Stream(u8),
    /// Longer than [`MAX_FRAME`].
    Length(u32),
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stream(n) => write!(f, "unrecognized stream: {n}"),
            Self::Length(n) => write!(f, "frame of {n} bytes is longer than {MAX_FRAME}"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Takes bytes in pieces of any size and gives frames' contents as they come, without waiting for
/// the end of a frame: memory does not grow with a frame's length.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    header: Vec<u8>,
    current: Option<(Stream, usize)>,
}

impl Decoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next part of `input` and returns it with its stream; advances `input`. `None`:
    /// all of the input is used up.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<(Stream, &'a [u8])>, FrameError> {
        loop {
            if let Some((stream, left)) = self.current {
                if input.is_empty() && left > 0 {
                    return Ok(None);
                }
                let (part, rest) = input.split_at(left.min(input.len()));
                *input = rest;
                self.current = (part.len() < left).then_some((stream, left - part.len()));
                if part.is_empty() {
                    continue;
                }
                return Ok(Some((stream, part)));
            }
            let (part, rest) = input.split_at((HEADER - self.header.len()).min(input.len()));
            *input = rest;
            self.header.extend_from_slice(part);
            let Ok(header) = <[u8; HEADER]>::try_from(self.header.as_slice()) else {
                return Ok(None);
            };
            self.header.clear();
            let [kind, _, _, _, a, b, c, d] = header;
            let len = u32::from_be_bytes([a, b, c, d]);
            let stream = Stream::from_number(kind).ok_or(FrameError::Stream(kind))?;
            let size = usize::try_from(len).unwrap_or(usize::MAX);
            if size > MAX_FRAME {
                return Err(FrameError::Length(len));
            }
            self.current = Some((stream, size));
        }
    }

    /// Whether the input may end here: not inside a frame.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        self.header.is_empty() && self.current.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(decoder: &mut Decoder, mut input: &[u8]) -> Vec<(Stream, Vec<u8>)> {
        let mut got: Vec<(Stream, Vec<u8>)> = Vec::new();
        while let Some((stream, part)) = decoder.next(&mut input).unwrap() {
            got.push((stream, part.to_vec()));
        }
        got
    }

    #[test]
    fn frames_are_what_docker_writes() {
        let mut out = Vec::new();
        encode(Stream::Stdout, b"out\n", &mut out);
        encode(Stream::Stderr, b"err\n", &mut out);
        assert_eq!(out, b"\x01\0\0\0\0\0\0\x04out\n\x02\0\0\0\0\0\0\x04err\n");
        encode(Stream::Stdout, b"", &mut out);
        assert_eq!(out.len(), 24);
    }

    #[test]
    fn every_split_gives_the_same() {
        let mut bytes = Vec::new();
        encode(Stream::Stdout, b"hello", &mut bytes);
        bytes.extend_from_slice(&header(Stream::Stderr, 0));
        encode(Stream::System, b"x", &mut bytes);
        for split in 0..=bytes.len() {
            let mut d = Decoder::new();
            let mut got = collect(&mut d, &bytes[..split]);
            got.extend(collect(&mut d, &bytes[split..]));
            assert!(d.at_boundary());
            let of = |s| got.iter().filter(|(t, _)| *t == s).flat_map(|(_, b)| b.clone()).collect::<Vec<_>>();
            assert_eq!(of(Stream::Stdout), b"hello", "{split}");
            assert_eq!(of(Stream::System), b"x", "{split}");
        }
    }

    #[test]
    fn atk_38_bad_frames_are_errors() {
        let mut d = Decoder::new();
        assert_eq!(d.next(&mut &b"\x04\0\0\0\0\0\0\0"[..]), Err(FrameError::Stream(4)));
        let mut d = Decoder::new();
        assert_eq!(d.next(&mut &b"\x01\0\0\0\xff\xff\xff\xff"[..]), Err(FrameError::Length(u32::MAX)));
        let mut d = Decoder::new();
        assert_eq!(d.next(&mut &b"\x01\0\0"[..]), Ok(None));
        assert!(!d.at_boundary());
    }
}
