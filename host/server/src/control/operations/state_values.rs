//! The values of State objects, one at a time.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tovuk_kernel::codes;
use tovuk_kernel::limits::API_STATE_BODY_BYTES_MAX;
use tovuk_kernel::meters::Meter;
use tovuk_kernel::operation::{Access, Argument, Command, Form, Method, Operation, Request};
use tovuk_resources::state;

use super::kv_values::{Encoding, bytes_of, text_of};
use super::state::{CLASS, OBJECT, OBJECT_ERRORS, target};
use crate::control::handler::Handler;
use crate::control::{Caller, Control, Refusal};

const VALUE_PATH: &str = "/v1/services/{service}/state/namespaces/{class}/objects/{object}/values/{key}";
const KEY: Argument = Argument::positional("key", "The key of the value");

/// Reads a value.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Get {
    /// The service.
    pub service: String,
    /// The class, by name or id.
    pub class: String,
    /// The key of the object.
    pub object: String,
    /// The key of the value.
    pub key: String,
}

/// A key with its value.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "StateEntry")]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
    /// How it is written: `base64` where it is no text.
    pub encoding: Encoding,
}

impl Request for Get {
    const OPERATION: Operation = Operation::new("state.get", Method::Get, VALUE_PATH, "Read a value of a State object")
        .access(Access::Runtime)
        .errors(&[
            &codes::RESOURCE_NOT_FOUND,
            &codes::STATE_KEY_INVALID,
            &codes::STATE_KEY_NOT_FOUND,
            &codes::STATE_OBJECT_BUSY,
            &codes::STATE_DEADLOCK,
        ])
        .meters(&[Meter::StateRequests, Meter::StateSqliteRowsRead])
        .commands(&[Command::new("state get")
            .arguments(&[CLASS, OBJECT, KEY])
            .examples(&["tovuk state get --service service_1 Room room-1 counter"])]);
    type Response = Entry;
}

impl Handler for Get {
    const COUNTS_ANSWER: bool = true;

    async fn run(self, control: Control, caller: Caller) -> Result<Entry, Refusal> {
        let (store, target) = target(&control, &caller, (&self.service, self.class, self.object)).await?;
        let Some(value) = store.get(&target, &self.key).await?.value else {
            let text = format!("the object `{}` has no key `{}`", target.object.escape_debug(), self.key.escape_debug());
            return Err(Refusal::new(&codes::STATE_KEY_NOT_FOUND, text));
        };
        let (value, encoding) = text_of(&value);
        Ok(Entry { key: self.key, value, encoding })
    }
}

/// Writes a value.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Put {
    /// The service.
    pub service: String,
    /// The class, by name or id.
    pub class: String,
    /// The key of the object, 1 to 512 bytes.
    pub object: String,
    /// The key of the value, 1 to 512 bytes.
    pub key: String,
    /// The value: text, or with `encoding` bytes in base64. Any other JSON is stored as its text.
    #[schemars(with = "Value")]
    pub value: Box<RawValue>,
    /// How the value is written; `text` when absent.
    #[serde(default)]
    pub encoding: Encoding,
}

/// What an object holds after a write.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StateWritten")]
pub struct Stored {
    /// True: it is on disk.
    pub ok: bool,
    /// How many values the object has.
    pub values: u64,
    /// How many bytes they have, with their keys.
    pub storage_bytes: u64,
}

impl Request for Put {
    const OPERATION: Operation = Operation::new("state.put", Method::Put, VALUE_PATH, "Write a value of a State object")
        .access(Access::Runtime)
        .body_bytes_max(API_STATE_BODY_BYTES_MAX)
        .errors(&[
            &codes::RESOURCE_NOT_FOUND,
            &codes::STATE_KEY_INVALID,
            &codes::STATE_VALUE_TOO_LARGE,
            &codes::STATE_STORAGE_FULL,
            &codes::STATE_OBJECT_BUSY,
            &codes::STATE_DEADLOCK,
        ])
        .meters(&[Meter::StateRequests, Meter::StateSqliteRowsWritten, Meter::StateSqliteStorageBytes])
        .commands(&[Command::new("state put")
            .arguments(&[
                CLASS,
                OBJECT,
                KEY,
                Argument::either("value", "value", "The value").form(Form::Words),
                Argument::flag("encoding", "encoding", "`base64` when the value is given so"),
            ])
            .examples(&["tovuk state put --service service_1 Room room-1 counter 1"])]);
    type Response = Stored;
}

impl Handler for Put {
    async fn run(self, control: Control, caller: Caller) -> Result<Stored, Refusal> {
        let value = bytes_of(&self.value, self.encoding)?;
        let (store, target) = target(&control, &caller, (&self.service, self.class, self.object)).await?;
        let state::Counts { values, bytes } = store.put(&target, &self.key, value).await?.object;
        Ok(Stored { ok: true, values, storage_bytes: bytes })
    }
}

/// Removes a value.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct DeleteValue {
    /// The service.
    pub service: String,
    /// The class, by name or id.
    pub class: String,
    /// The key of the object.
    pub object: String,
    /// The key of the value.
    pub key: String,
}

/// What was removed.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StateRemoved")]
pub struct Removed {
    /// Whether it was there.
    pub deleted: bool,
    /// How many values the object has now.
    pub values: u64,
    /// How many bytes they have, with their keys.
    pub storage_bytes: u64,
}

impl From<state::Answer<bool>> for Removed {
    fn from(answer: state::Answer<bool>) -> Self {
        Self { deleted: answer.value, values: answer.object.values, storage_bytes: answer.object.bytes }
    }
}

impl Request for DeleteValue {
    const OPERATION: Operation = Operation::new("state.value.delete", Method::Delete, VALUE_PATH, "Remove a value of a State object")
        .described("It is no error when the key is not there.")
        .access(Access::Runtime)
        .errors(OBJECT_ERRORS)
        .meters(&[Meter::StateRequests, Meter::StateSqliteRowsWritten])
        .commands(&[Command::new("state delete-value")
            .arguments(&[CLASS, OBJECT, KEY])
            .examples(&["tovuk state delete-value --service service_1 Room room-1 counter"])]);
    type Response = Removed;
}

impl Handler for DeleteValue {
    async fn run(self, control: Control, caller: Caller) -> Result<Removed, Refusal> {
        let (store, target) = target(&control, &caller, (&self.service, self.class, self.object)).await?;
        Ok(store.delete_value(&target, &self.key).await?.into())
    }
}
