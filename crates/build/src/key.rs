//! Digests of what a step depends on.
//!
//! Every value is framed: a tag says what it is, its length where it ends. So no two different inputs give the same
//! bytes, whatever stands in their fields, and a field that is added later gets a tag of its own.

use longshore_oci::{Digest, Sha256};

/// Changes when a step of the same description would give another tree.
const VERSION: &str = "longshore.build.1";

/// Characters of a value that is shown as it is.
const SHOWN: usize = 300;

/// A key on its way.
#[derive(Debug)]
pub struct KeyWriter {
    hash: Sha256,
    /// What it is made of, for people.
    parts: Vec<(String, Vec<String>)>,
}

impl KeyWriter {
    /// Of one kind of thing; other kinds have other keys.
    #[must_use]
    pub fn new(kind: &str) -> Self {
        let mut key = Self { hash: Sha256::new(), parts: Vec::new() };
        key.put("version", VERSION.as_bytes());
        key.put("kind", kind.as_bytes());
        key
    }

    /// A value of bytes.
    pub fn bytes(&mut self, tag: &str, value: &[u8]) -> &mut Self {
        self.note(tag, vec![shown(value)]);
        self.put(tag, value)
    }

    fn put(&mut self, tag: &str, value: &[u8]) -> &mut Self {
        self.frame(tag, value.len());
        self.hash.update(value);
        self
    }

    fn note(&mut self, tag: &str, values: Vec<String>) {
        self.parts.push((tag.to_owned(), values));
    }

    /// A text.
    pub fn text(&mut self, tag: &str, value: &str) -> &mut Self {
        self.bytes(tag, value.as_bytes())
    }

    /// A number.
    pub fn number(&mut self, tag: &str, value: u64) -> &mut Self {
        self.note(tag, vec![value.to_string()]);
        self.put(tag, &value.to_le_bytes())
    }

    /// Yes or no.
    pub fn flag(&mut self, tag: &str, value: bool) -> &mut Self {
        self.note(tag, vec![value.to_string()]);
        self.put(tag, &[u8::from(value)])
    }

    /// A digest that may not be there.
    pub fn digest(&mut self, tag: &str, value: Option<&Digest>) -> &mut Self {
        self.note(tag, value.map(Digest::short).into_iter().collect());
        match value {
            Some(digest) => self.put(tag, digest.as_bytes()),
            None => self.put(tag, b""),
        }
    }

    /// A list of texts, in its order.
    pub fn list<T: AsRef<[u8]>>(&mut self, tag: &str, values: impl IntoIterator<Item = T>) -> &mut Self {
        let values: Vec<T> = values.into_iter().collect();
        self.note(tag, values.iter().map(|value| shown(value.as_ref())).collect());
        self.put(tag, &(values.len() as u64).to_le_bytes());
        for value in &values {
            self.put("item", value.as_ref());
        }
        self
    }

    fn frame(&mut self, tag: &str, len: usize) {
        self.hash.update(&(tag.len() as u64).to_le_bytes());
        self.hash.update(tag.as_bytes());
        self.hash.update(&(len as u64).to_le_bytes());
    }

    /// The key.
    #[must_use]
    pub fn finish(self) -> Digest {
        self.hash.finish()
    }

    /// The key, and what it is made of, for people: names with their values.
    #[must_use]
    pub fn finish_with_parts(self) -> (Digest, Vec<(String, Vec<String>)>) {
        (self.hash.finish(), self.parts)
    }
}

/// A value as people see it: what is long or no text by its digest.
fn shown(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) if text.len() <= SHOWN => text.to_owned(),
        _ => format!("{} bytes, {}", value.len(), Digest::of(value).short()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(f: impl FnOnce(&mut KeyWriter)) -> Digest {
        let mut writer = KeyWriter::new("test");
        f(&mut writer);
        writer.finish()
    }

    #[test]
    fn fields_cannot_flow_into_each_other() {
        let all = [
            key(|k| {
                k.text("a", "bc");
            }),
            key(|k| {
                k.text("ab", "c");
            }),
            key(|k| {
                k.text("a", "b").text("c", "");
            }),
            key(|k| {
                k.text("a", "b").text("", "c");
            }),
            key(|k| {
                k.list("a", ["b", "c"]);
            }),
            key(|k| {
                k.list("a", ["bc"]);
            }),
            key(|k| {
                k.list("a", ["b"]).list("a", ["c"]);
            }),
            key(|k| {
                k.list::<&str>("a", []).list("a", ["b", "c"]);
            }),
            key(|k| {
                k.digest("a", None);
            }),
            key(|k| {
                k.digest("a", Some(&Digest::of(b"")));
            }),
            key(|k| {
                k.flag("a", true);
            }),
            key(|k| {
                k.number("a", 1);
            }),
            KeyWriter::new("tes").finish(),
            KeyWriter::new("test").finish(),
        ];
        for (i, a) in all.iter().enumerate() {
            for (j, b) in all.iter().enumerate() {
                assert_eq!(i == j, a == b, "{i} and {j}");
            }
        }
    }

    /// A cache is read by the versions that come after: what a key is made of may only change with `VERSION`.
    #[test]
    fn keys_are_stable() {
        let made = key(|k| {
            k.text("a", "b").number("n", 7).flag("f", true).list("l", ["x", "y"]);
        });
        assert_eq!(
            made.to_string(),
            "sha256:bff4a25d71c30651ac481ae08c2c837ab9462e2de67dfd97a3617ef0b2e3bda6"
        );
    }
}
