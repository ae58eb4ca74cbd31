//! The json-file log: one JSON object a line, Docker's splitting of long lines, rotation.

use crate::fd::{AsFd, OwnedFd};
use crate::prelude::*;
use alloc::ffi::CString;
use core::fmt::Write;

use longshore_monitor::proto::Stream;

use crate::os::{self, Sys};

/// A line longer than this is logged in parts; only the last ends with a newline.
const PART: usize = 16 * 1024;
/// Formatted lines are written when so many bytes have come together.
const BATCH: usize = 16 * 1024;

/// A log file.
#[derive(Debug)]
pub(crate) struct Log {
    dir: OwnedFd,
    name: CString,
    file: OwnedFd,
    size: u64,
    max_size: u64,
    max_files: u32,
    /// A begun line of each stream.
    pending: [Line; 2],
    batch: Vec<u8>,
}

#[derive(Debug, Default)]
struct Line {
    bytes: Vec<u8>,
    /// When the first part was logged, if parts were.
    since: Option<(i64, u32)>,
}

impl Log {
    /// Opens or continues the file.
    pub(crate) fn open(dir: OwnedFd, name: &[u8], max_size: u64, max_files: u32) -> Sys<Self> {
        let name = CString::new(name).map_err(|_| libc::EINVAL)?;
        let file = open(&dir, &name, 0)?;
        let size = u64::try_from(os::stat(&file)?.st_size).unwrap_or(0);
        let pending = [Line::default(), Line::default()];
        Ok(Self { dir, name, file, size, max_size, max_files, pending, batch: Vec::new() })
    }

    /// Logs what a stream wrote.
    pub(crate) fn write(&mut self, stream: Stream, mut bytes: &[u8]) {
        let i = usize::from(stream == Stream::Stderr);
        let mut time = None;
        while !bytes.is_empty() {
            let room = PART - self.pending[i].bytes.len();
            let head = &bytes[..bytes.len().min(room)];
            let now = *time.get_or_insert_with(os::now);
            if let Some(at) = head.iter().position(|b| *b == b'\n') {
                let mut line = core::mem::take(&mut self.pending[i]);
                let since = line.since.unwrap_or(now);
                if line.bytes.is_empty() {
                    self.line(stream, &head[..=at], since);
                } else {
                    line.bytes.extend_from_slice(&head[..=at]);
                    self.line(stream, &line.bytes, since);
                }
                bytes = &bytes[at + 1..];
                continue;
            }
            self.pending[i].bytes.extend_from_slice(head);
            bytes = &bytes[head.len()..];
            if self.pending[i].bytes.len() == PART {
                self.part(stream, now);
            }
        }
        self.flush();
    }

    /// Logs a begun line: nothing more comes.
    pub(crate) fn finish(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if !self.pending[usize::from(stream == Stream::Stderr)].bytes.is_empty() {
                self.part(stream, os::now());
            }
        }
        self.flush();
    }

    fn part(&mut self, stream: Stream, now: (i64, u32)) {
        let i = usize::from(stream == Stream::Stderr);
        let bytes = core::mem::take(&mut self.pending[i].bytes);
        let since = *self.pending[i].since.get_or_insert(now);
        self.line(stream, &bytes, since);
    }

    fn line(&mut self, stream: Stream, text: &[u8], time: (i64, u32)) {
        if self.max_size > 0 && self.size + self.batch.len() as u64 >= self.max_size {
            self.flush();
            self.rotate();
        }
        format_line(&mut self.batch, stream, text, time);
        if self.batch.len() >= BATCH {
            self.flush();
        }
    }

    /// Writes what has come together. A full disk must not stop the container: the lines are lost.
    fn flush(&mut self) {
        if os::write_all(&self.file, &self.batch).is_ok() {
            self.size += self.batch.len() as u64;
        }
        self.batch.clear();
        if self.batch.capacity() > 2 * BATCH {
            self.batch = Vec::new();
        }
    }

    /// name.2 becomes name.3, name.1 name.2, name name.1; the oldest goes.
    fn rotate(&mut self) {
        for n in (1..self.max_files.saturating_sub(1)).rev() {
            let _ = os::rename_at(&self.dir, &self.numbered(n), &self.numbered(n + 1));
        }
        if self.max_files > 1 {
            let _ = os::rename_at(&self.dir, &self.name, &self.numbered(1));
        }
        // Without a new file the old one goes on: better too long than lost.
        if let Ok(file) = open(&self.dir, &self.name, libc::O_TRUNC) {
            self.file = file;
            self.size = 0;
        }
    }

    fn numbered(&self, n: u32) -> CString {
        let suffix = format!(".{n}");
        CString::new([self.name.as_bytes(), suffix.as_bytes()].concat()).unwrap_or_default()
    }
}

fn open(dir: &OwnedFd, name: &CString, more: i32) -> Sys<OwnedFd> {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_NOFOLLOW | more;
    os::open_at(Some(dir.as_fd()), name, flags, 0o640)
}

/// Formats to the end of a buffer.
struct Text<'a>(&'a mut Vec<u8>);

impl Write for Text<'_> {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        self.0.extend_from_slice(s.as_bytes());
        Ok(())
    }
}

/// `{"log":"text\n","stream":"stdout","time":"2006-01-02T15:04:05.999999999Z"}`
fn format_line(out: &mut Vec<u8>, stream: Stream, text: &[u8], time: (i64, u32)) {
    out.extend_from_slice(b"{\"log\":\"");
    escape(out, text);
    out.extend_from_slice(b"\",\"stream\":\"");
    out.extend_from_slice(if stream == Stream::Stdout { b"stdout" } else { b"stderr" });
    out.extend_from_slice(b"\",\"time\":\"");
    timestamp(out, time);
    out.extend_from_slice(b"\"}\n");
}

/// A JSON string as Go writes it: `<`, `>` and `&` escaped, each invalid byte replaced.
fn escape(out: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        let valid = chunk.valid();
        let mut from = 0;
        for (i, c) in valid.char_indices() {
            let plain = c >= ' ' && !matches!(c, '"' | '\\' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}');
            if plain {
                continue;
            }
            out.extend_from_slice(&valid.as_bytes()[from..i]);
            from = i + c.len_utf8();
            match c {
                '"' | '\\' => {
                    out.push(b'\\');
                    out.extend_from_slice(&valid.as_bytes()[i..from]);
                }
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                c => {
                    let _ = write!(Text(out), "\\u{:04x}", u32::from(c));
                }
            }
        }
        out.extend_from_slice(&valid.as_bytes()[from..]);
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

/// RFC 3339 with as many digits of the second as are not zero.
fn timestamp(out: &mut Vec<u8>, (secs, nanos): (i64, u32)) {
    let (days, rest) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (h, m, s) = (rest / 3600, rest / 60 % 60, rest % 60);
    let _ = write!(Text(out), "{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}");
    if nanos != 0 {
        let _ = write!(Text(out), ".{nanos:09}");
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
    out.push(b'Z');
}

/// Year, month and day of a day since 1970 in the Gregorian calendar, counted in eras of 400 years
/// that begin on the 1st of March.
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, day)
}
