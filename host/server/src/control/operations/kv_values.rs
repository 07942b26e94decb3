//! Values of KV between JSON and bytes, as requests and answers have them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tovuk_kernel::codes;
use tovuk_kernel::limits::KV_METADATA_BYTES_MAX;
use tovuk_resources::kv;

use crate::control::Refusal;

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

/// A value as a request has it. What is no text stays as the request wrote it: a tree of it would take many times the memory that was counted.
pub(super) struct Written<'a> {
    pub value: &'a RawValue,
    pub encoding: Encoding,
    pub metadata: Option<&'a RawValue>,
    pub expiration: Option<u64>,
    pub ttl_seconds: Option<u64>,
}

impl Written<'_> {
    pub(super) fn into_put(self, key: String) -> Result<kv::Put, Refusal> {
        let invalid = |text: String| Refusal::new(&codes::INVALID_REQUEST, text);
        let json = self.value.get();
        let value = match (json.starts_with('"'), self.encoding) {
            (false, _) => Bytes::copy_from_slice(json.as_bytes()),
            (true, encoding) => {
                let text: String = serde_json::from_str(json).map_err(|error| invalid(format!("`value`: {error}")))?;
                match encoding {
                    Encoding::Text => text.into(),
                    Encoding::Base64 => STANDARD.decode(text).map_err(|error| invalid(format!("the value is no base64: {error}")))?.into(),
                }
            }
        };
        Ok(kv::Put { key, value, metadata: self.metadata.map(compact), expiration: self.expiration, ttl_seconds: self.ttl_seconds })
    }
}

/// JSON without the space between its parts. What is too long in any case is left as it is, for the store to refuse.
fn compact(json: &RawValue) -> String {
    let text = json.get();
    let parsed = (text.len() <= 16 * KV_METADATA_BYTES_MAX).then(|| serde_json::from_str::<Value>(text).ok()).flatten();
    parsed.map_or_else(|| text.to_owned(), |value| value.to_string())
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
    pub value: String,
    /// How it is written: `base64` where it is no text.
    pub encoding: Encoding,
    /// Its metadata.
    #[schemars(with = "Option<Value>")]
    pub metadata: Option<Box<RawValue>>,
    /// When it expires, in seconds of Unix time.
    pub expiration: Option<u64>,
}

impl Entry {
    pub(super) fn of(key: String, entry: &kv::Entry) -> Self {
        let (value, encoding) = match std::str::from_utf8(&entry.value) {
            Ok(text) => (text.to_owned(), Encoding::Text),
            Err(_) => (STANDARD.encode(&entry.value), Encoding::Base64),
        };
        Self { key, value, encoding, metadata: shown(entry.metadata.as_deref()), expiration: entry.expiration }
    }
}
