//! Numbers and paths as bytes, for what is kept of a context and what is sent of one.

use longshore_store::tar::Time;

use crate::pattern::MAX_PATH;

/// What is still to be read.
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(super) fn slice(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    /// Makes the path of the entry before that of the next one.
    pub(super) fn path(&mut self, before: &mut Vec<u8>) -> Option<()> {
        let shared = usize::from(u16::from_le_bytes(self.take()?));
        let rest = usize::from(u16::from_le_bytes(self.take()?));
        if shared > before.len() || shared + rest >= MAX_PATH {
            return None;
        }
        let bytes = self.slice(rest)?;
        before.truncate(shared);
        before.extend_from_slice(bytes);
        Some(())
    }

    pub(super) fn time(&mut self) -> Option<Time> {
        Some(Time { secs: i64::from_le_bytes(self.take()?), nanos: u32::from_le_bytes(self.take()?) })
    }
}

/// A path after the one before: the bytes that both share, those that follow (two bytes each), and these.
pub(super) fn put_path(out: &mut Vec<u8>, before: &[u8], path: &[u8]) {
    let shared = path.iter().zip(before).take_while(|(a, b)| a == b).count();
    let rest = path.get(shared..).unwrap_or_default();
    // Paths are shorter than 4096 bytes.
    for len in [shared, rest.len()] {
        out.extend_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_le_bytes());
    }
    out.extend_from_slice(rest);
}

pub(super) fn put_time(out: &mut Vec<u8>, time: Time) {
    out.extend_from_slice(&time.secs.to_le_bytes());
    out.extend_from_slice(&time.nanos.to_le_bytes());
}
