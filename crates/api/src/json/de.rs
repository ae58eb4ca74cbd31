//! [`Node`] to typed values, through serde.

use std::cell::Cell;

use serde::de::{DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserializer, forward_to_deserialize_any};

use super::{Error, Node};

/// Reads one node.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    node: &'a Node,
    /// Of the outermost object: how many keys the type knows.
    known: Option<&'a Cell<usize>>,
}

impl<'a> Reader<'a> {
    pub(super) fn top(node: &'a Node, known: &'a Cell<usize>) -> Self {
        Self { node, known: Some(known) }
    }

    fn new(node: &'a Node) -> Self {
        Self { node, known: None }
    }
}

/// `null` where a scalar is wanted is its zero value.
macro_rules! scalars {
    ($($method:ident $zero:ident $value:expr;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.node {
                Node::Null => visitor.$zero($value),
                _ => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node {
            Node::Null => visitor.visit_unit(),
            Node::Bool(b) => visitor.visit_bool(*b),
            Node::Signed(n) => match u64::try_from(*n) {
                Ok(n) => visitor.visit_u64(n),
                Err(_) => visitor.visit_i64(*n),
            },
            Node::Unsigned(n) => visitor.visit_u64(*n),
            Node::Float(n) => visitor.visit_f64(*n),
            Node::String(s) => visitor.visit_str(s),
            Node::Array(items) => visitor.visit_seq(Items { items, pad: 0 }),
            Node::Object(entries) => visitor.visit_map(Entries::all(entries)),
        }
    }

    scalars! {
        deserialize_bool visit_bool false;
        deserialize_i8 visit_i64 0;
        deserialize_i16 visit_i64 0;
        deserialize_i32 visit_i64 0;
        deserialize_i64 visit_i64 0;
        deserialize_u8 visit_u64 0;
        deserialize_u16 visit_u64 0;
        deserialize_u32 visit_u64 0;
        deserialize_u64 visit_u64 0;
        deserialize_f32 visit_f64 0.0;
        deserialize_f64 visit_f64 0.0;
        deserialize_str visit_str "";
        deserialize_string visit_str "";
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct identifier ignored_any
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node {
            Node::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node {
            Node::Null => visitor.visit_seq(Items { items: &[], pad: 0 }),
            _ => self.deserialize_any(visitor),
        }
    }

    /// Missing elements are zero, further ones are skipped.
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        let items: &[Node] = match self.node {
            Node::Array(items) => items,
            Node::Null => &[],
            _ => return self.deserialize_any(visitor),
        };
        let items = &items[..items.len().min(len)];
        visitor.visit_seq(Items { items, pad: len - items.len() })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node {
            Node::Null => visitor.visit_map(Entries::all(&[])),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let entries: &[(String, Node)] = match self.node {
            Node::Object(entries) => entries,
            Node::Null => &[],
            // A derived struct would take its fields from a list.
            Node::Array(_) => return Err(Error::new("invalid type: array, expected an object")),
            _ => return self.deserialize_any(visitor),
        };
        let picked = pick(entries, fields);
        if let Some(known) = self.known {
            known.set(picked.len());
        }
        let picked = picked.into_iter().filter(|(_, node)| **node != Node::Null).collect();
        visitor.visit_map(Entries { entries: picked, next: 0 })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.node {
            Node::String(s) => visitor.visit_enum(s.as_str().into_deserializer()),
            _ => Err(Error::new("invalid type: expected a string")),
        }
    }
}

/// For each known field the last entry that names it, in any case.
fn pick<'a>(entries: &'a [(String, Node)], fields: &'static [&'static str]) -> Vec<(&'a str, &'a Node)> {
    let mut picked: Vec<(&str, &Node)> = Vec::new();
    for (key, node) in entries {
        let exact = fields.iter().find(|f| *f == key);
        let field = exact.or_else(|| fields.iter().find(|f| f.eq_ignore_ascii_case(key)));
        let Some(field) = field else { continue };
        match picked.iter_mut().find(|(name, _)| name == field) {
            Some(slot) => slot.1 = node,
            None => picked.push((field, node)),
        }
    }
    picked
}

/// A list, and zero values after it.
struct Items<'a> {
    items: &'a [Node],
    pad: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        if let Some((first, rest)) = self.items.split_first() {
            self.items = rest;
            return seed.deserialize(Reader::new(first)).map(Some);
        }
        if self.pad > 0 {
            self.pad -= 1;
            return seed.deserialize(Reader::new(&Node::Null)).map(Some);
        }
        Ok(None)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len() + self.pad)
    }
}

struct Entries<'a> {
    entries: Vec<(&'a str, &'a Node)>,
    next: usize,
}

impl<'a> Entries<'a> {
    fn all(entries: &'a [(String, Node)]) -> Self {
        Self { entries: entries.iter().map(|(k, v)| (k.as_str(), v)).collect(), next: 0 }
    }
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((key, _)) = self.entries.get(self.next) else { return Ok(None) };
        seed.deserialize((*key).into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some((key, node)) = self.entries.get(self.next) else {
            return Err(Error::new("no value without a key"));
        };
        self.next += 1;
        seed.deserialize(Reader::new(node)).map_err(|e: Error| e.within(key))
    }
}
