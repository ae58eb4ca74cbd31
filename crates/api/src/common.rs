use std::collections::BTreeMap;

use longshore_oci::image::Empty;
use serde::{Deserialize, Deserializer, Serialize};

/// The body of every error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorBody {
    /// What a person reads.
    pub message: String,
}

/// The answer to `POST /containers/{id}/exec`, `POST /commit`, ...
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IdResponse {
    /// Identifier of what was made.
    pub id: String,
}

/// A set written as `{"80/tcp": {}}`.
pub type JsonSet = BTreeMap<String, Empty>;

/// A list of words that may also be written as one string (`"Cmd": "ls"`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct StrSlice(pub Vec<String>);

impl<'de> Deserialize<'de> for StrSlice {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = StrSlice;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<StrSlice, E> {
                Ok(StrSlice(vec![v.to_owned()]))
            }

            fn visit_unit<E: serde::de::Error>(self) -> Result<StrSlice, E> {
                Ok(StrSlice::default())
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<StrSlice, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = seq.next_element()? {
                    words.push(word);
                }
                Ok(StrSlice(words))
            }
        }
        d.deserialize_any(Visitor)
    }
}

impl From<Vec<String>> for StrSlice {
    fn from(words: Vec<String>) -> Self {
        Self(words)
    }
}
