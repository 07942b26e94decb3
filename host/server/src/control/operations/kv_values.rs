//! Values of KV and State between JSON and bytes, as requests and answers have them.

use std::sync::Arc;

use base64::Engine as _;
use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use tovuk_kernel::codes;
use tovuk_resources::kv;
use tovuk_runtime::memory::Reservation;

use crate::control::Refusal;
use crate::control::decode::with_strings;

/// How a value is written in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// As it is.
    #[default]
    Text,
    /// In base64.
    Base64,
}

/// A key to write, with its value.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "KvKeyAndValue")]
pub struct EntryToPut {
    /// The key, 1 to 512 bytes.
    pub key: String,
    /// The value: text, or with `encoding` bytes in base64. Any other JSON is stored as its text.
    // It stays as the request wrote it: a tree of it would take many times the memory that was counted.
    #[schemars(with = "serde_json::Value")]
    pub value: Box<RawValue>,
    /// How the value is written; `text` when absent.
    #[serde(default)]
    pub encoding: Encoding,
    /// JSON of at most 1,024 bytes that lists show.
    #[schemars(with = "Option<serde_json::Value>")]
    pub metadata: Option<Box<RawValue>>,
    /// When it expires, in seconds of Unix time, at least 30 s ahead.
    pub expiration: Option<u64>,
    /// In how many seconds it expires, at least 30. It wins over `expiration`.
    pub expiration_ttl_seconds: Option<u64>,
}

impl EntryToPut {
    /// What the store is given.
    pub(super) fn into_put(self) -> Result<kv::Put, Refusal> {
        let value = bytes_of(&self.value, self.encoding)?;
        let metadata = self.metadata.as_deref().map(compact);
        Ok(kv::Put { key: self.key, value, metadata, expiration: self.expiration, ttl_seconds: self.expiration_ttl_seconds })
    }
}

/// The bytes that a value stands for. What is no text is stored as the request wrote it.
pub(super) fn bytes_of(value: &RawValue, encoding: Encoding) -> Result<Bytes, Refusal> {
    match string_of("value", value)? {
        None => Ok(Bytes::copy_from_slice(value.get().as_bytes())),
        Some(text) if encoding == Encoding::Text => Ok(text.into()),
        Some(text) => {
            let invalid = |error| Refusal::new(&codes::INVALID_REQUEST, format!("the value is no base64: {error}"));
            Ok(STANDARD.decode(text).map_err(invalid)?.into())
        }
    }
}

/// The text of a JSON string, or none where the JSON is something else: that is stored or sent as the request wrote it.
pub(super) fn string_of(field: &str, json: &RawValue) -> Result<Option<String>, Refusal> {
    let invalid = |error| Refusal::new(&codes::INVALID_REQUEST, format!("`{field}`: {error}"));
    json.get().starts_with('"').then(|| serde_json::from_str(json.get()).map_err(invalid)).transpose()
}

/// Bytes as an answer has them: as they are, or in base64 where they are no text.
pub(super) fn text_of(value: &[u8]) -> (String, Encoding) {
    match std::str::from_utf8(value) {
        Ok(text) => (text.to_owned(), Encoding::Text),
        Err(_) => (STANDARD.encode(value), Encoding::Base64),
    }
}

/// JSON without the space between its parts, and otherwise as it was given: a tree of it would round long numbers.
fn compact(json: &RawValue) -> String {
    with_strings(json.get()).filter(|(char, in_string)| *in_string || !char.is_ascii_whitespace()).map(|(char, _)| char).collect()
}

/// Metadata as answers have it.
pub(super) fn shown(metadata: Option<&str>) -> Option<Box<RawValue>> {
    RawValue::from_string(metadata?.to_owned()).ok()
}

/// A key with its value.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "KvEntry")]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value.
    #[schemars(with = "String")]
    pub value: Value,
    /// How it is written: `base64` where it is no text.
    pub encoding: Encoding,
    /// Its metadata.
    #[schemars(with = "Option<serde_json::Value>")]
    pub metadata: Option<Box<RawValue>>,
    /// When it expires, in seconds of Unix time.
    pub expiration: Option<u64>,
}

/// A value, which becomes text when the answer is written and not before: a copy of it would not have been counted.
#[derive(Debug)]
pub struct Value {
    bytes: Bytes,
    _memory: Arc<Reservation>,
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.bytes) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.collect_str(&Base64Display::new(&self.bytes, &STANDARD)),
        }
    }
}

impl Entry {
    /// What was read, with the memory that was counted for it.
    pub(super) fn of(key: String, entry: &kv::Entry, memory: &Arc<Reservation>) -> Self {
        let encoding = if std::str::from_utf8(&entry.value).is_ok() { Encoding::Text } else { Encoding::Base64 };
        let value = Value { bytes: entry.value.clone(), _memory: memory.clone() };
        Self { key, value, encoding, metadata: shown(entry.metadata.as_deref()), expiration: entry.expiration }
    }
}
