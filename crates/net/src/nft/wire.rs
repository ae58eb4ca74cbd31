//! Attributes: type, length, value, padded to four bytes; numbers in network order.

const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

/// A message's payload under construction.
#[derive(Debug)]
pub(super) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Starts with the netfilter header.
    pub(super) fn new(family: u8, resource: u16) -> Self {
        let mut bytes = vec![family, 0];
        bytes.extend_from_slice(&resource.to_be_bytes());
        Writer { bytes }
    }

    pub(super) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.nest_as(kind, |w| w.bytes.extend_from_slice(value))
    }

    /// Attributes that are written already.
    pub(super) fn raw(&mut self, attributes: &[u8]) {
        self.bytes.extend_from_slice(attributes);
    }

    /// Text with its final zero.
    pub(super) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        self.nest_as(kind, |w| {
            w.bytes.extend_from_slice(value.as_bytes());
            w.bytes.push(0);
        })
    }

    pub(super) fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(super) fn u64(&mut self, kind: u16, value: u64) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(super) fn nest(&mut self, kind: u16, inner: impl FnOnce(&mut Writer)) -> &mut Self {
        self.nest_as(kind | NESTED, inner)
    }

    fn nest_as(&mut self, kind: u16, inner: impl FnOnce(&mut Writer)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        inner(self);
        // Callers keep an attribute far below 64 KiB (elements are sent in portions).
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    pub(super) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}

/// The attributes in `bytes`, by type and value; stops at the first that is cut short.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & TYPE_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of this type.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(k, _)| *k == kind).map(|(_, value)| value)
}

/// The attributes of a message after its netfilter header, and its family.
pub(super) fn body(payload: &[u8]) -> (u8, &[u8]) {
    (payload.first().copied().unwrap_or_default(), payload.get(4..).unwrap_or_default())
}

pub(super) fn text(bytes: &[u8], kind: u16) -> Option<String> {
    let value = attribute(bytes, kind)?;
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    std::str::from_utf8(&value[..end]).ok().map(str::to_owned)
}

pub(super) fn u32(bytes: &[u8], kind: u16) -> Option<u32> {
    attribute(bytes, kind)?.try_into().ok().map(u32::from_be_bytes)
}

pub(super) fn u64(bytes: &[u8], kind: u16) -> Option<u64> {
    attribute(bytes, kind)?.try_into().ok().map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let payload = Writer::new(2, 10)
            .text(1, "name")
            .u32(2, 7)
            .nest(3, |w| {
                w.u64(1, 9);
            })
            .finish();
        let (family, bytes) = body(&payload);
        assert_eq!(family, 2);
        assert_eq!(payload[..4], [2, 0, 0, 10]);
        assert_eq!(text(bytes, 1).as_deref(), Some("name"));
        assert_eq!(u32(bytes, 2), Some(7));
        assert_eq!(u64(attribute(bytes, 3).unwrap(), 1), Some(9));
        assert_eq!(payload.len() % 4, 0);
    }

    #[test]
    fn truncated_attributes_end_the_list() {
        let payload = Writer::new(2, 0).text(1, "name").u32(2, 7).finish();
        for end in 0..payload.len() {
            let (_, bytes) = body(&payload[..end]);
            assert!(attributes(bytes).count() <= 2);
        }
        assert_eq!(attributes(&[0, 0, 1, 0]).count(), 0);
        assert_eq!(attributes(&[3, 0, 1, 0, 9]).count(), 0);
    }
}
