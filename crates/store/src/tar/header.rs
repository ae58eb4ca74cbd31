//! The 512 byte header block.

use super::BLOCK;
use crate::error::{Error, Result};

pub(super) type Block = [u8; BLOCK];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    V7,
    Ustar,
    Star,
    Gnu,
}

/// A numeric field: its place in the header.
#[derive(Clone, Copy)]
pub(super) struct Field(pub(super) usize, pub(super) usize, pub(super) &'static str);

pub(super) const MODE: Field = Field(100, 8, "mode");
pub(super) const UID: Field = Field(108, 8, "uid");
pub(super) const GID: Field = Field(116, 8, "gid");
pub(super) const SIZE: Field = Field(124, 12, "size");
pub(super) const MTIME: Field = Field(136, 12, "mtime");
pub(super) const CHKSUM: Field = Field(148, 8, "checksum");
pub(super) const DEVMAJOR: Field = Field(329, 8, "devmajor");
pub(super) const DEVMINOR: Field = Field(337, 8, "devminor");

pub(super) fn field(block: &Block, f: Field) -> &[u8] {
    &block[f.0..f.0 + f.1]
}

/// The text of a field up to its first NUL.
pub(super) fn text(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len())]
}

pub(super) fn is_zero(block: &Block) -> bool {
    block.iter().all(|&b| b == 0)
}

/// The dialect, once the checksum was found right.
pub(super) fn dialect(block: &Block) -> Result<Dialect> {
    let want = number(field(block, CHKSUM), CHKSUM.2)?;
    let (unsigned, signed) = checksums(block);
    if want != unsigned && want != signed {
        return Err(Error::Corrupt("tar header: wrong checksum".into()));
    }
    Ok(match &block[257..265] {
        b"ustar  \0" => Dialect::Gnu,
        m if &m[..6] == b"ustar\0" && &block[508..512] == b"tar\0" => Dialect::Star,
        m if &m[..6] == b"ustar\0" => Dialect::Ustar,
        _ => Dialect::V7,
    })
}

/// Sum of the bytes with the checksum field as spaces; old writers added signed bytes.
pub(super) fn checksums(block: &Block) -> (i64, i64) {
    let (mut unsigned, mut signed) = (0i64, 0i64);
    for (i, &b) in block.iter().enumerate() {
        let b = if (CHKSUM.0..CHKSUM.0 + CHKSUM.1).contains(&i) { b' ' } else { b };
        unsigned += i64::from(b);
        signed += i64::from(b.cast_signed());
    }
    (unsigned, signed)
}

/// Octal text, or base-256 when the top bit of the first byte is set. Empty is 0.
pub(super) fn number(bytes: &[u8], name: &str) -> Result<i64> {
    let bad = || Error::Corrupt(format!("tar header: bad {name}"));
    if bytes.first().is_some_and(|b| b & 0x80 != 0) {
        return base256(bytes).ok_or_else(bad);
    }
    let is_pad = |b: &u8| *b == b' ' || *b == 0;
    let Some(start) = bytes.iter().position(|b| !is_pad(b)) else { return Ok(0) };
    let end = bytes.iter().rposition(|b| !is_pad(b)).unwrap_or(start) + 1;
    let mut n: i64 = 0;
    for &b in text(&bytes[start..end]) {
        if !(b'0'..=b'7').contains(&b) {
            return Err(bad());
        }
        n = n.checked_mul(8).and_then(|n| n.checked_add(i64::from(b - b'0'))).ok_or_else(bad)?;
    }
    Ok(n)
}

/// Two's complement, big endian; bit 6 of the first byte is the sign.
fn base256(bytes: &[u8]) -> Option<i64> {
    let negative = bytes[0] & 0x40 != 0;
    let mut n: i128 = if negative { -1 } else { 0 };
    for (i, &b) in bytes.iter().enumerate() {
        let b = match (i, negative) {
            (0, true) => b | 0x80,
            (0, false) => b & 0x7f,
            _ => b,
        };
        if n > i128::from(i64::MAX) || n < i128::from(i64::MIN) {
            return None;
        }
        n = (n << 8) | i128::from(b);
    }
    i64::try_from(n).ok()
}

/// Writes `n` as octal with a final NUL, or as base-256 if it does not fit.
pub(super) fn put_number(block: &mut Block, f: Field, n: u64) {
    let out = &mut block[f.0..f.0 + f.1];
    let digits = f.1 - 1;
    if n < 1u64 << (3 * digits).min(63) {
        let mut rest = n;
        for slot in out[..digits].iter_mut().rev() {
            *slot = b'0' + u8::try_from(rest & 7).unwrap_or(0);
            rest >>= 3;
        }
        out[digits] = 0;
    } else {
        let bytes = n.to_be_bytes();
        let len = out.len();
        out.fill(0);
        let take = len.min(8);
        out[len - take..].copy_from_slice(&bytes[8 - take..]);
        out[0] |= 0x80;
    }
}

/// Writes the checksum: six octal digits, NUL, space.
pub(super) fn put_checksum(block: &mut Block) {
    let (sum, _) = checksums(block);
    let sum = sum.unsigned_abs();
    put_number(block, Field(CHKSUM.0, 7, CHKSUM.2), sum);
    block[CHKSUM.0 + 7] = b' ';
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(number(b"0000644\0", "x").unwrap(), 0o644);
        assert_eq!(number(b"  644 \0\0", "x").unwrap(), 0o644);
        assert_eq!(number(b"\0\0\0\0\0\0\0\0", "x").unwrap(), 0);
        assert_eq!(number(b"\x80\0\0\0\0\0\x01\x00", "x").unwrap(), 256);
        assert_eq!(number(&[0xff; 12], "x").unwrap(), -1);
        assert!(number(b"00006z4\0", "x").is_err());
        assert!(number(b"-0000644", "x").is_err());
        let mut big = [0u8; 12];
        big[0] = 0x80;
        big[1] = 1;
        assert!(number(&big, "x").is_err());
    }

    #[test]
    fn numbers_round_trip() {
        for n in [0, 1, 0o7777777, 0o10000000, u64::from(u32::MAX), 1 << 40] {
            let mut block = [0u8; BLOCK];
            put_number(&mut block, SIZE, n);
            assert_eq!(number(field(&block, SIZE), "x").unwrap(), i64::try_from(n).unwrap());
        }
        let mut block = [0u8; BLOCK];
        put_number(&mut block, UID, u64::from(u32::MAX) - 1);
        assert_eq!(number(field(&block, UID), "x").unwrap(), i64::from(u32::MAX) - 1);
    }
}
