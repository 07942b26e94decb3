//! Values and parameters, as SQLite has them and as JSON writes them: blobs are `{"base64": "..."}`, integers that a double cannot hold exactly
//! `{"integer": "..."}`, infinities `{"real": "inf"}`. Both directions accept what the other produces.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

/// The largest integer up to which a double holds every one.
const EXACT_MAX: i64 = 1 << 53;

/// One value of a row or a parameter.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// NULL.
    #[default]
    Null,
    /// A 64-bit integer.
    Integer(i64),
    /// A double. SQLite has no NaN: it becomes NULL.
    Real(f64),
    /// Text, which may hold NUL.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

impl Value {
    /// The bytes that it counts in a result.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Null | Self::Integer(_) | Self::Real(_) => 8,
            Self::Text(text) => text.len().saturating_add(8),
            Self::Blob(bytes) => bytes.len().saturating_add(8),
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let tagged = |key: &str, value: &str, serializer: S| {
            let mut map = serializer.serialize_map(Some(1))?;
            map.serialize_entry(key, value)?;
            map.end()
        };
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Integer(number) if (-EXACT_MAX..=EXACT_MAX).contains(number) => serializer.serialize_i64(*number),
            Self::Integer(number) => tagged("integer", &number.to_string(), serializer),
            Self::Real(number) if number.is_nan() => serializer.serialize_unit(),
            Self::Real(number) if number.is_finite() => serializer.serialize_f64(*number),
            Self::Real(number) => tagged("real", if *number > 0.0 { "inf" } else { "-inf" }, serializer),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Blob(bytes) => tagged("base64", &STANDARD.encode(bytes), serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(r#"null, true, false, a number, a string, {"base64": "..."}, {"integer": "..."} or {"real": "inf"}"#)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Integer(i64::from(value)))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        i64::try_from(value).map(Value::Integer).map_err(|_| E::custom(format_args!("{value} is beyond 64-bit integers: send it as a string")))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Real(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_bytes<E: de::Error>(self, value: &[u8]) -> Result<Value, E> {
        Ok(Value::Blob(value.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let invalid = |map: &str| de::Error::custom(format_args!("{map}; expected {}", Expected));
        let Some((key, text)) = map.next_entry::<String, String>()? else { return Err(invalid("an empty object")) };
        if map.next_key::<String>()?.is_some() {
            return Err(invalid("an object with more than one key"));
        }
        match key.as_str() {
            "base64" => STANDARD.decode(&text).map(Value::Blob).map_err(|error| de::Error::custom(format_args!("base64: {error}"))),
            "integer" => text.parse().map(Value::Integer).map_err(|error| de::Error::custom(format_args!("integer: {error}"))),
            "real" => text.parse().map(Value::Real).map_err(|error| de::Error::custom(format_args!("real: {error}"))),
            _ => Err(invalid("an object")),
        }
    }
}

/// What a visitor expects, to be shown in its errors.
struct Expected;

impl fmt::Display for Expected {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        ValueVisitor.expecting(formatter)
    }
}

/// The parameters of a statement.
#[derive(Clone, Debug, PartialEq)]
pub enum Params {
    /// For `?`, `?1` and so on, in order.
    Positional(Vec<Value>),
    /// For `:name`, `@name` and `$name`. A name may be given with or without its first character.
    Named(BTreeMap<String, Value>),
}

impl Default for Params {
    fn default() -> Self {
        Self::Positional(Vec::new())
    }
}

impl Serialize for Params {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Positional(values) => values.serialize(serializer),
            Self::Named(values) => values.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Params {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ParamsVisitor;
        impl<'de> Visitor<'de> for ParamsVisitor {
            type Value = Params;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an array of values, or an object of values by name")
            }

            fn visit_unit<E: de::Error>(self) -> Result<Params, E> {
                Ok(Params::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Params, A::Error> {
                let mut params = Vec::new();
                while let Some(value) = values.next_element()? {
                    params.push(value);
                }
                Ok(Params::Positional(params))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut values: A) -> Result<Params, A::Error> {
                let mut params = BTreeMap::new();
                while let Some((name, value)) = values.next_entry()? {
                    params.insert(name, value);
                }
                Ok(Params::Named(params))
            }
        }
        deserializer.deserialize_any(ParamsVisitor)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{from_str, json, to_value};

    use super::*;

    #[test]
    fn json_has_a_form_for_every_value_and_reads_it_back() {
        let cases = [
            (Value::Null, json!(null)),
            (Value::Integer(EXACT_MAX), json!(9_007_199_254_740_992_i64)),
            (Value::Integer(EXACT_MAX + 1), json!({"integer": "9007199254740993"})),
            (Value::Integer(i64::MIN), json!({"integer": "-9223372036854775808"})),
            (Value::Real(1.0), json!(1.0)),
            (Value::Real(f64::NEG_INFINITY), json!({"real": "-inf"})),
            (Value::Text("a\0b".to_owned()), json!("a\0b")),
            (Value::Blob(vec![0, 255]), json!({"base64": "AP8="})),
        ];
        for (value, json) in cases {
            assert_eq!(to_value(&value).unwrap(), json);
            assert_eq!(from_str::<Value>(&json.to_string()).unwrap(), value);
        }
        assert_eq!(from_str::<Value>("true").unwrap(), Value::Integer(1));
        for refused in
            ["[1]", "{}", r#"{"a": "b"}"#, r#"{"base64": "AA==", "x": "y"}"#, r#"{"integer": "9223372036854775808"}"#, "9223372036854775808"]
        {
            from_str::<Value>(refused).unwrap_err();
        }
    }

    #[test]
    fn parameters_are_an_array_or_an_object() {
        assert_eq!(from_str::<Params>("null").unwrap(), Params::default());
        assert_eq!(from_str::<Params>("[1, null]").unwrap(), Params::Positional(vec![Value::Integer(1), Value::Null]));
        let named = from_str::<Params>(r#"{"a": 1, ":b": {"base64": ""}}"#).unwrap();
        let expected = BTreeMap::from([("a".to_owned(), Value::Integer(1)), (":b".to_owned(), Value::Blob(Vec::new()))]);
        assert_eq!(named, Params::Named(expected));
        from_str::<Params>("1").unwrap_err();
    }
}
