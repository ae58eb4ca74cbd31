//! Reads the `json-file` logs that monitors write: one JSON object a line, rotated by renaming
//! `x-json.log` to `x-json.log.1` and so on.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::model::{OutputStream, UnixNanos};
use crate::time::parse_rfc3339;
use crate::{Error, Result};

/// Longer lines are not ours: a monitor splits long output.
const MAX_LINE: usize = 1 << 20;
/// Bytes read at a time.
const BLOCK: usize = 64 << 10;
/// More rotated files than this are not looked for.
const MAX_FILES: u32 = 1000;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) stream: OutputStream,
    pub(crate) time: UnixNanos,
    pub(crate) line: Vec<u8>,
}

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    log: String,
    #[serde(default)]
    stream: String,
    #[serde(default)]
    time: String,
}

/// The entry in one line; `None` for what is none (a line cut by a crash).
fn parse(line: &[u8]) -> Option<Entry> {
    let l: Line = serde_json::from_slice(line).ok()?;
    let stream = if l.stream == "stderr" { OutputStream::Stderr } else { OutputStream::Stdout };
    Some(Entry { stream, time: parse_rfc3339(&l.time)?, line: l.log.into_bytes() })
}

/// Reads entries from the oldest wanted one on; can be asked again after the end.
#[derive(Debug)]
pub(crate) struct Reader {
    path: PathBuf,
    /// Rotated files still to be read, the next one last.
    older: Vec<File>,
    file: Option<File>,
    inode: u64,
    pending: Vec<u8>,
    /// The line that is being read is too long and is dropped.
    skipping: bool,
}

impl Reader {
    /// A reader that begins with the first entry, or `tail` entries before the end.
    ///
    /// # Errors
    /// When a file cannot be read; a log that does not exist yet is empty.
    pub(crate) fn open(path: &Path, tail: Option<u64>) -> Result<Self> {
        let mut reader = Self {
            path: path.to_owned(),
            older: Vec::new(),
            file: None,
            inode: 0,
            pending: Vec::new(),
            skipping: false,
        };
        reader.reopen()?;
        let mut left = tail.unwrap_or(u64::MAX);
        if let Some(f) = &mut reader.file {
            left -= seek_back(f, left).map_err(|e| reader_error(path, e))?;
        }
        for n in 1..=MAX_FILES {
            if left == 0 {
                break;
            }
            let name = numbered(path, n);
            match File::open(&name) {
                Ok(mut f) => {
                    left -= seek_back(&mut f, left).map_err(|e| reader_error(&name, e))?;
                    reader.older.push(f);
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => break,
                Err(e) => return Err(reader_error(&name, e)),
            }
        }
        // The current file waits until the older ones are read.
        if let Some(current) = reader.file.take() {
            reader.older.insert(0, current);
        }
        reader.file = reader.older.pop();
        Ok(reader)
    }

    fn reopen(&mut self) -> Result<()> {
        match File::open(&self.path) {
            Ok(f) => {
                self.inode = f.metadata().map_err(|e| reader_error(&self.path, e))?.ino();
                self.file = Some(f);
                Ok(())
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(reader_error(&self.path, e)),
        }
    }

    /// The next entries; none at the end of what has been written.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(crate) fn batch(&mut self) -> Result<Vec<Entry>> {
        let mut out = Vec::new();
        let mut block = vec![0u8; BLOCK];
        while out.is_empty() {
            let n = match &mut self.file {
                Some(f) => f.read(&mut block).map_err(|e| reader_error(&self.path, e))?,
                None => 0,
            };
            if n > 0 {
                self.feed(&block[..n], &mut out);
            } else if !self.next_file()? {
                break;
            }
        }
        Ok(out)
    }

    fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<Entry>) {
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            self.pending.extend_from_slice(&bytes[..end]);
            if !self.skipping {
                out.extend(parse(&self.pending));
            }
            self.pending.clear();
            self.skipping = false;
            bytes = &bytes[end + 1..];
        }
        if self.pending.len() + bytes.len() > MAX_LINE {
            self.skipping = true;
            self.pending.clear();
        } else {
            self.pending.extend_from_slice(bytes);
        }
    }

    /// Goes to the next newer file, if the current one has been rotated away.
    fn next_file(&mut self) -> Result<bool> {
        if let Some(f) = self.older.pop() {
            self.file = Some(f);
            self.pending.clear();
            return Ok(true);
        }
        let now = std::fs::metadata(&self.path).map(|m| m.ino()).unwrap_or(self.inode);
        if self.file.is_some() && now == self.inode {
            return Ok(false);
        }
        let was = self.inode;
        self.reopen()?;
        self.pending.clear();
        Ok(self.file.is_some() && self.inode != was)
    }
}

fn reader_error(path: &Path, e: std::io::Error) -> Error {
    Error::io(format!("read log {}", path.display()), e)
}

/// The name of the n-th rotated file.
pub(crate) fn numbered(path: &Path, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

/// Sets the position before the last `lines` lines and says how many there are from it.
fn seek_back(f: &mut File, lines: u64) -> std::io::Result<u64> {
    let len = f.metadata()?.len();
    if lines == u64::MAX {
        f.seek(SeekFrom::Start(0))?;
        return Ok(0);
    }
    let mut end = len;
    let mut found = 0;
    let mut block = vec![0u8; BLOCK];
    while end > 0 {
        let start = end.saturating_sub(BLOCK as u64);
        f.seek(SeekFrom::Start(start))?;
        let part = &mut block[..usize::try_from(end - start).unwrap_or(BLOCK)];
        f.read_exact(part)?;
        for (i, _) in part.iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
            let at = start + i as u64;
            // The newline of the line before the wanted ones.
            if found == lines {
                f.seek(SeekFrom::Start(at + 1))?;
                return Ok(found);
            }
            found += 1;
        }
        end = start;
    }
    f.seek(SeekFrom::Start(0))?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn line(n: u32, stream: &str) -> String {
        format!("{{\"log\":\"l{n}\\n\",\"stream\":\"{stream}\",\"time\":\"2026-11-23T22:53:41.{n:09}Z\"}}\n")
    }

    fn all(mut r: Reader) -> Vec<String> {
        let mut out = Vec::new();
        loop {
            let b = r.batch().expect("batch");
            if b.is_empty() {
                return out;
            }
            out.extend(b.into_iter().map(|e| String::from_utf8_lossy(&e.line).trim().to_owned()));
        }
    }

    #[test]
    fn reads_across_rotated_files_and_tails() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("x-json.log");
        std::fs::write(numbered(&path, 1), line(1, "stdout") + &line(2, "stderr")).expect("write");
        std::fs::write(&path, line(3, "stdout")).expect("write");
        assert_eq!(all(Reader::open(&path, None).expect("open")), ["l1", "l2", "l3"]);
        assert_eq!(all(Reader::open(&path, Some(2)).expect("open")), ["l2", "l3"]);
        assert_eq!(all(Reader::open(&path, Some(1)).expect("open")), ["l3"]);
        assert_eq!(all(Reader::open(&path, Some(0)).expect("open")), Vec::<String>::new());
        assert!(all(Reader::open(&dir.path().join("none"), None).expect("open")).is_empty());
    }

    #[test]
    fn follows_through_rotation() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("x-json.log");
        std::fs::write(&path, line(1, "stdout")).expect("write");
        let mut r = Reader::open(&path, None).expect("open");
        assert_eq!(r.batch().expect("batch").len(), 1);
        assert!(r.batch().expect("batch").is_empty());
        let mut f = std::fs::OpenOptions::new().append(true).open(&path).expect("open");
        f.write_all(line(2, "stdout").as_bytes()).expect("write");
        std::fs::rename(&path, numbered(&path, 1)).expect("rename");
        std::fs::write(&path, line(3, "stderr")).expect("write");
        assert_eq!(all(r), ["l2", "l3"]);
    }

    #[test]
    fn atk_40_endless_and_broken_lines_are_dropped() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("x-json.log");
        let mut text = "x".repeat(3 << 20);
        text.push('\n');
        text.push_str("{\"log\":\n");
        text.push_str(&line(7, "stdout"));
        std::fs::write(&path, text).expect("write");
        assert_eq!(all(Reader::open(&path, None).expect("open")), ["l7"]);
    }
}
