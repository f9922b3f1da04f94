//! JSON read as it is described: an object is an object, and a word of a closed set is text.
//!
//! Derived readers also take a list in the place of an object, its members by their order, and `{"word": null}` for a word.

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{Deserializer, Error as _, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Value};

/// A JSON value to be read so.
pub(super) struct Plain(pub(super) Value);

impl<'de> IntoDeserializer<'de, Error> for Plain {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Plain {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(items) => visitor.visit_seq(SeqDeserializer::new(items.into_iter().map(Plain))),
            Value::Object(members) => {
                visitor.visit_map(MapDeserializer::new(members.into_iter().map(|(name, value)| (name, Self(value)))))
            }
            other => other.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if self.0.is_array() {
            return Err(Error::invalid_type(Unexpected::Seq, &"an object"));
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        words: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if self.0.is_object() {
            return Err(Error::invalid_type(Unexpected::Map, &"text"));
        }
        self.0.deserialize_enum(name, words, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Word {
        One,
        Two,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Inner {
        #[serde(default)]
        word: Option<Word>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Outer {
        inner: Inner,
        #[serde(default)]
        more: Vec<u8>,
    }

    #[test]
    fn objects_are_objects_and_words_are_text() {
        let read = |value: Value| Outer::deserialize(Plain(value));
        let good = read(json!({ "inner": { "word": "two" }, "more": [1, 2] })).unwrap();
        assert_eq!(good, Outer { inner: Inner { word: Some(Word::Two) }, more: vec![1, 2] });
        assert_eq!(read(json!({ "inner": { "word": null } })).unwrap().inner.word, None);
        for bad in [
            json!([{ "word": "one" }, []]),
            json!({ "inner": ["one"] }),
            json!({ "inner": { "word": { "one": null } } }),
            json!({ "inner": { "word": "three" } }),
            json!({ "inner": {}, "more": {} }),
            json!({ "inner": {}, "more": [256] }),
            json!(null),
        ] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }
}
