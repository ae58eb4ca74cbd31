//! Extended header records: `<length> <key>=<value>\n`.

use super::{Limits, Time, Xattr};
use crate::error::{Error, Result};

/// What the records of one entry say; `None` where they say nothing.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Time>,
    pub(super) xattrs: Vec<Xattr>,
    pub(super) sparse: SparsePax,
}

/// GNU's sparse keys of all three versions.
#[derive(Debug, Default)]
pub(super) struct SparsePax {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    pub(super) blocks: Option<u64>,
    pub(super) map: Vec<(u64, u64)>,
    offset: Option<u64>,
}

impl SparsePax {
    pub(super) fn present(&self) -> bool {
        self.major.is_some() || self.blocks.is_some() || !self.map.is_empty() || self.real_size.is_some()
    }
}

fn bad(what: &str) -> Error {
    Error::Corrupt(format!("tar: bad pax record: {what}"))
}

/// Splits off the next record: key, value, rest.
fn record(data: &[u8]) -> Result<(&[u8], &[u8], &[u8])> {
    let space = data.iter().take(20).position(|&b| b == b' ').ok_or_else(|| bad("no length"))?;
    let len = decimal(&data[..space]).ok_or_else(|| bad("length"))?;
    let len = usize::try_from(len).map_err(|_| bad("length"))?;
    if len <= space + 1 || len > data.len() || data[len - 1] != b'\n' {
        return Err(bad("length"));
    }
    let body = &data[space + 1..len - 1];
    let equals = body.iter().position(|&b| b == b'=').ok_or_else(|| bad("no ="))?;
    if equals == 0 || body[..equals].contains(&0) {
        return Err(bad("key"));
    }
    Ok((&body[..equals], &body[equals + 1..], &data[len..]))
}

/// Calls `f` for each record of `data`; trailing NULs are padding of some writers.
fn records<'a>(mut data: &'a [u8], mut f: impl FnMut(&'a [u8], &'a [u8]) -> Result<()>) -> Result<()> {
    while !data.is_empty() && !data.iter().all(|&b| b == 0) {
        let (key, value, rest) = record(data)?;
        f(key, value)?;
        data = rest;
    }
    Ok(())
}

/// Parses the header of one entry.
pub(super) fn parse(data: &[u8], limits: &Limits) -> Result<Pax> {
    let mut pax = Pax::default();
    records(data, |key, value| set(&mut pax, key, value, limits))?;
    if pax.sparse.offset.is_some() {
        return Err(bad("GNU.sparse.offset without numbytes"));
    }
    Ok(pax)
}

/// Checks a global header. Docker ignores them, GNU tar does not: one that would change where or
/// how much is written is refused, others say nothing that is used.
pub(super) fn check_global(data: &[u8]) -> Result<()> {
    records(data, |key, _| match key {
        b"path" | b"linkpath" | b"size" => {
            Err(bad(&format!("global {} is not supported", String::from_utf8_lossy(key))))
        }
        k if k.starts_with(b"GNU.sparse.") => Err(bad("global sparse map is not supported")),
        _ => Ok(()),
    })
}

fn set(pax: &mut Pax, key: &[u8], value: &[u8], limits: &Limits) -> Result<()> {
    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
        return set_xattr(pax, name, value, limits);
    }
    // An empty value takes back what a global header said; there the header block holds.
    let size = |v: &[u8]| -> Result<Option<u64>> {
        if v.is_empty() { Ok(None) } else { decimal(v).map(Some).ok_or_else(|| bad("number")) }
    };
    match key {
        b"path" => pax.path = name(value, limits)?,
        b"linkpath" => pax.link = name(value, limits)?,
        b"size" => pax.size = size(value)?,
        b"uid" => pax.uid = size(value)?,
        b"gid" => pax.gid = size(value)?,
        b"mtime" if value.is_empty() => pax.mtime = None,
        b"mtime" => pax.mtime = Some(time(value).ok_or_else(|| bad("mtime"))?),
        b"GNU.sparse.major" => pax.sparse.major = size(value)?,
        b"GNU.sparse.minor" => pax.sparse.minor = size(value)?,
        b"GNU.sparse.name" => pax.sparse.name = name(value, limits)?,
        b"GNU.sparse.realsize" | b"GNU.sparse.size" => pax.sparse.real_size = size(value)?,
        b"GNU.sparse.numblocks" => pax.sparse.blocks = size(value)?,
        b"GNU.sparse.offset" => {
            let offset = size(value)?.ok_or_else(|| bad("GNU.sparse.offset"))?;
            if pax.sparse.offset.replace(offset).is_some() {
                return Err(bad("GNU.sparse.offset twice"));
            }
        }
        b"GNU.sparse.numbytes" => {
            let bytes = size(value)?.ok_or_else(|| bad("GNU.sparse.numbytes"))?;
            let offset = pax.sparse.offset.take().ok_or_else(|| bad("GNU.sparse.numbytes without offset"))?;
            pax.sparse.map.push((offset, bytes));
        }
        b"GNU.sparse.map" => pax.sparse.map = map(value).ok_or_else(|| bad("GNU.sparse.map"))?,
        _ => {}
    }
    if pax.sparse.map.len() > limits.sparse_segments {
        return Err(Error::TooLarge("tar: sparse file has too many segments".into()));
    }
    Ok(())
}

fn set_xattr(pax: &mut Pax, name: &[u8], value: &[u8], limits: &Limits) -> Result<()> {
    if name.is_empty() || name.len() > 255 {
        return Err(bad("name of an extended attribute"));
    }
    if value.len() > limits.xattr_value_bytes {
        return Err(Error::TooLarge(format!(
            "tar: extended attribute {} has {} bytes, the limit is {}",
            String::from_utf8_lossy(name),
            value.len(),
            limits.xattr_value_bytes
        )));
    }
    // The last of a name wins.
    pax.xattrs.retain(|(n, _)| n != name);
    if pax.xattrs.len() >= limits.xattrs {
        return Err(Error::TooLarge(format!("tar: more than {} extended attributes", limits.xattrs)));
    }
    pax.xattrs.push((name.to_owned(), value.to_owned()));
    Ok(())
}

fn name(value: &[u8], limits: &Limits) -> Result<Option<Vec<u8>>> {
    if value.contains(&0) {
        return Err(bad("NUL in a path"));
    }
    if value.len() > limits.path_bytes {
        return Err(Error::TooLarge(format!(
            "tar: path of {} bytes, the limit is {}",
            value.len(),
            limits.path_bytes
        )));
    }
    Ok((!value.is_empty()).then(|| value.to_owned()))
}

pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 {
        return None;
    }
    text.iter().try_fold(0u64, |n, b| {
        b.is_ascii_digit().then(|| n.checked_mul(10)?.checked_add(u64::from(b - b'0'))).flatten()
    })
}

fn map(text: &[u8]) -> Option<Vec<(u64, u64)>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    let mut numbers = text.split(|&b| b == b',').map(decimal);
    let mut out = Vec::new();
    while let Some(offset) = numbers.next() {
        out.push((offset?, numbers.next()??));
    }
    Some(out)
}

/// `[-]seconds[.fraction]`; digits after the ninth are cut.
fn time(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |&b| b == b'.');
    let secs = i64::try_from(decimal(parts.next()?)?).ok()?;
    let mut nanos = 0u32;
    if let Some(fraction) = parts.next() {
        if !fraction.iter().all(u8::is_ascii_digit) {
            return None;
        }
        for i in 0..9 {
            nanos = nanos * 10 + u32::from(fraction.get(i).map_or(0, |b| b - b'0'));
        }
    }
    Some(match (negative, nanos) {
        (false, _) => Time { secs, nanos },
        (true, 0) => Time { secs: -secs, nanos },
        (true, _) => Time { secs: -secs - 1, nanos: 1_000_000_000 - nanos },
    })
}

/// Appends a record.
pub(super) fn put(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let body = key.len() + value.len() + 3;
    let mut len = body + 1;
    while len != body + digits(len) {
        len = body + digits(len);
    }
    out.extend_from_slice(len.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn digits(n: usize) -> usize {
    n.checked_ilog10().map_or(1, |d| d as usize + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip() {
        for value_len in [1usize, 80, 90, 91, 92, 93, 94, 95, 96, 990, 991, 992, 993, 2000] {
            let mut out = Vec::new();
            let value = vec![b'a'; value_len];
            put(&mut out, b"path", &value);
            assert_eq!(parse(&out, &Limits::default()).unwrap().path, Some(value), "{value_len}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(time(b"12"), Some(Time { secs: 12, nanos: 0 }));
        assert_eq!(time(b"12.5"), Some(Time { secs: 12, nanos: 500_000_000 }));
        assert_eq!(time(b"-1.25"), Some(Time { secs: -2, nanos: 750_000_000 }));
        assert_eq!(time(b"1.0000000019"), Some(Time { secs: 1, nanos: 1 }));
        assert_eq!(time(b"1.x"), None);
        assert_eq!(time(b""), None);
    }

    #[test]
    fn atk_20_bad_records_are_refused() {
        for bad in
            ["5 a=b\n", "7 a=b\n", "6 a=b", "x a=b\n", "6 =bc\n", "99999999999999999999 a=b\n", "-6 a=b\n"]
        {
            assert!(parse(bad.as_bytes(), &Limits::default()).is_err(), "{bad}");
        }
        let mut nul = Vec::new();
        put(&mut nul, b"path", b"a\0b");
        assert!(parse(&nul, &Limits::default()).is_err());
    }
}
