//! From a request to an operation's typed request: fields of the path and the query as text, those of the body as JSON, read in one pass without a
//! tree in between. A field that comes twice is an error.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

/// Fields that come as text: name and decoded value.
pub(super) type Fields = Vec<(String, String)>;

/// The value that these fields and this body describe. An empty body is an object without fields.
pub(super) fn decode<T: DeserializeOwned>(fields: Fields, body: Option<&[u8]>) -> Result<T, serde_json::Error> {
    let body = body.map_or(&b""[..], <[u8]>::trim_ascii);
    let mut json = serde_json::Deserializer::from_slice(if body.is_empty() { b"{}" } else { body });
    let value = json.deserialize_map(Whole { fields, target: PhantomData })?;
    json.end()?;
    Ok(value)
}

/// A list of which no more is kept than one entry above what is allowed: that many are refused by whoever counts, and none of the rest takes memory.
pub(super) fn bounded<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MAX: usize>(list: D) -> Result<Vec<T>, D::Error> {
    struct Bounded<T, const MAX: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Bounded<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut kept = Vec::new();
            while kept.len() <= MAX {
                match list.next_element()? {
                    Some(entry) => kept.push(entry),
                    None => return Ok(kept),
                }
            }
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(kept)
        }
    }

    list.deserialize_seq(Bounded::<T, MAX>(PhantomData))
}

/// Each character of JSON, and whether it is part of a string.
pub(super) fn with_strings(json: &str) -> impl Iterator<Item = (char, bool)> {
    let (mut in_string, mut escaped) = (false, false);
    json.chars().map(move |char| {
        let is_part = in_string || char == '"';
        in_string ^= char == '"' && !escaped;
        escaped = in_string && char == '\\' && !escaped;
        (char, is_part)
    })
}

struct Whole<T> {
    fields: Fields,
    target: PhantomData<T>,
}

impl<'de, T: DeserializeOwned> Visitor<'de> for Whole<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, body: A) -> Result<T, A::Error> {
        T::deserialize(Merged { fields: self.fields.into_iter(), value: None, body })
    }
}

/// The fields that come as text, then those of the body.
struct Merged<A> {
    fields: std::vec::IntoIter<(String, String)>,
    value: Option<String>,
    body: A,
}

impl<'de, A: MapAccess<'de>> Deserializer<'de> for Merged<A> {
    type Error = A::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, A::Error> {
        visitor.visit_map(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq tuple
        tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Merged<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        match self.fields.next() {
            Some((name, value)) => {
                self.value = Some(value);
                seed.deserialize(StrDeserializer::new(&name)).map(Some)
            }
            None => self.body.next_key_seed(seed),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        match self.value.take() {
            Some(text) => seed.deserialize(Text { text, error: PhantomData }),
            None => self.body.next_value_seed(seed),
        }
    }
}

/// A value that came as text and is read as whatever its field is.
struct Text<E> {
    text: String,
    error: PhantomData<E>,
}

macro_rules! parsed {
    ($($method:ident $visit:ident $type:ty, $what:literal;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
            match self.text.parse::<$type>() {
                Ok(value) => visitor.$visit(value),
                Err(_) => Err(E::custom(format_args!(concat!("`{}` is not ", $what), self.text))),
            }
        })*
    };
}

impl<'de, E: de::Error> Deserializer<'de> for Text<E> {
    type Error = E;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        visitor.visit_string(self.text)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, E> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(self, _name: &'static str, _variants: &'static [&'static str], visitor: V) -> Result<V::Value, E> {
        visitor.visit_enum(self.text.into_deserializer())
    }

    parsed! {
        deserialize_bool visit_bool bool, "true or false";
        deserialize_u8 visit_u8 u8, "a whole number in range";
        deserialize_u16 visit_u16 u16, "a whole number in range";
        deserialize_u32 visit_u32 u32, "a whole number in range";
        deserialize_u64 visit_u64 u64, "a whole number of 0 or more";
        deserialize_i64 visit_i64 i64, "a whole number";
        deserialize_f64 visit_f64 f64, "a number";
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u128 f32 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Put {
        service: String,
        limit: Option<u32>,
        #[serde(default)]
        force: bool,
        value: Option<serde_json::Value>,
    }

    fn fields(fields: &[(&str, &str)]) -> Fields {
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn path_query_and_body_make_one_value() {
        let put: Put = decode(fields(&[("service", "a/b"), ("limit", "7"), ("force", "true")]), Some(br#"{"value":{"x":[1]},"unknown":1}"#)).unwrap();
        assert_eq!(put, Put { service: "a/b".into(), limit: Some(7), force: true, value: Some(serde_json::json!({"x": [1]})) });
    }

    #[test]
    fn an_absent_body_is_an_object_without_fields() {
        for body in [None, Some(&b""[..]), Some(b" \n"), Some(b"{}")] {
            assert_eq!(decode::<Put>(fields(&[("service", "s")]), body).unwrap().service, "s");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = |fields: Fields, body: &[u8]| decode::<Put>(fields, Some(body)).unwrap_err().to_string();
        assert!(error(fields(&[("service", "s"), ("limit", "-1")]), b"{}").contains("`-1` is not a whole number"));
        assert!(error(fields(&[]), b"{}").contains("missing field `service`"));
        assert!(error(fields(&[("service", "s")]), br#"{"service":"t"}"#).contains("duplicate field `service`"));
        assert!(error(fields(&[("service", "s")]), b"[1]").contains("a JSON object"));
        assert!(error(fields(&[("service", "s")]), b"{} x").contains("trailing"));
        assert!(error(fields(&[("service", "s")]), b"{\"value\":").contains("EOF"));
    }
}
