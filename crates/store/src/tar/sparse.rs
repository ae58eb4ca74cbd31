//! Maps of sparse files.

use super::header::{Block, Field, number};
use crate::error::{Error, Result};

fn bad() -> Error {
    Error::Corrupt("tar: bad sparse map".into())
}

/// Reads old GNU entries (offset and length, twelve bytes each) until one is empty.
pub(super) fn old_gnu(bytes: &[u8], map: &mut Vec<(u64, u64)>) -> Result<()> {
    for entry in bytes.chunks_exact(24) {
        if entry[0] == 0 {
            break;
        }
        let (offset, len) = entry.split_at(12);
        let value = |b: &[u8]| u64::try_from(number(b, "sparse map")?).map_err(|_| bad());
        map.push((value(offset)?, value(len)?));
    }
    Ok(())
}

/// The file's size with holes, from an old GNU header.
pub(super) fn old_gnu_size(block: &Block) -> Result<u64> {
    const REAL: Field = Field(483, 12, "real size");
    u64::try_from(number(&block[REAL.0..REAL.0 + REAL.1], REAL.2)?).map_err(|_| bad())
}

/// The map of format 1.0: decimal lines in the first blocks of the payload.
#[derive(Debug, Default)]
pub(super) struct Lines {
    number: Option<u64>,
    digits: u32,
    count: Option<usize>,
    offset: Option<u64>,
    map: Vec<(u64, u64)>,
}

impl Lines {
    /// Takes the next block; true once the map is complete (the rest of the block is padding).
    pub(super) fn push(&mut self, block: &[u8], max: usize) -> Result<bool> {
        for &b in block {
            if b == b'\n' {
                let n = self.number.take().ok_or_else(bad)?;
                self.digits = 0;
                self.line(n, max)?;
                if self.count == Some(self.map.len()) && self.offset.is_none() {
                    return Ok(true);
                }
            } else {
                self.digits += 1;
                if !b.is_ascii_digit() || self.digits > 19 {
                    return Err(bad());
                }
                self.number = Some(self.number.unwrap_or(0) * 10 + u64::from(b - b'0'));
            }
        }
        Ok(false)
    }

    fn line(&mut self, n: u64, max: usize) -> Result<()> {
        if self.count.is_none() {
            let count = usize::try_from(n).ok().filter(|c| *c <= max);
            let too_large = || Error::TooLarge("tar: sparse file has too many segments".into());
            self.count = Some(count.ok_or_else(too_large)?);
        } else if let Some(offset) = self.offset.take() {
            self.map.push((offset, n));
        } else {
            self.offset = Some(n);
        }
        Ok(())
    }

    pub(super) fn into_map(self) -> Vec<(u64, u64)> {
        self.map
    }
}

/// Checks that segments ascend, do not overlap, end inside the file and add up to the payload.
/// Empty ones (GNU marks the end of the file so) are dropped.
pub(super) fn check(mut map: Vec<(u64, u64)>, size: u64, stored: u64) -> Result<Vec<(u64, u64)>> {
    let (mut end, mut sum) = (0u64, 0u64);
    for &(offset, len) in &map {
        if offset < end {
            return Err(bad());
        }
        end = offset.checked_add(len).filter(|e| *e <= size).ok_or_else(bad)?;
        sum += len;
    }
    if sum != stored {
        return Err(bad());
    }
    map.retain(|&(_, len)| len > 0);
    Ok(map)
}
