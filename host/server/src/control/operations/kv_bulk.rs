//! Many keys of a KV namespace in one request: each request happens wholly or not at all.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tovuk_kernel::codes;
use tovuk_kernel::limits::{API_KV_BODY_BYTES_MAX, KV_BULK_WRITE_KEYS_MAX};
use tovuk_kernel::meters::Meter;
use tovuk_kernel::operation::{Access, Argument, Command, Form, Method, Operation, Request};

use super::kv::{NAMESPACE, PUT_ERRORS, Removed, Stored, namespace};
use super::kv_values::{Entry, EntryToPut};
use crate::control::decode::bounded;
use crate::control::handler::Handler;
use crate::control::{Caller, Control, Refusal};

const KEYS: Argument = Argument::either("keys", "value", "The keys").form(Form::Keys);

/// Reads several keys.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct BulkGet {
    /// The service.
    pub service: String,
    /// The namespace, by name or id.
    pub namespace: String,
    /// At most 100 keys, whose values have at most 100 MB together.
    pub keys: Vec<String>,
}

/// What was found.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "KvValues")]
pub struct Values {
    /// The keys that are there, in the order in which they were asked for.
    pub values: Vec<Entry>,
    /// The keys that are not there.
    pub missing: Vec<String>,
}

impl Request for BulkGet {
    const OPERATION: Operation = Operation::new("kv.bulk.get", Method::Post, "/v1/services/{service}/kv/{namespace}/bulk", "Read several keys")
        .access(Access::Runtime)
        .errors(&[&codes::RESOURCE_NOT_FOUND, &codes::KV_KEY_INVALID, &codes::KV_BULK_TOO_LARGE])
        .meters(&[Meter::KvReads])
        .commands(&[Command::new("kv bulk get")
            .arguments(&[NAMESPACE, KEYS])
            .examples(&["tovuk kv bulk get --service service_1 CACHE user:1 user:2"])]);
    type Response = Values;
}

impl Handler for BulkGet {
    const COUNTS_ANSWER: bool = true;

    async fn run(self, control: Control, caller: Caller) -> Result<Values, Refusal> {
        let (kv, namespace) = namespace(&control, &caller, &self.service, self.namespace).await?;
        let memory = Arc::new(control.runtime().memory().reserve());
        let found = kv.counted_in(memory.clone()).bulk_get(namespace, self.keys.clone()).await?;
        let mut answer = Values { values: Vec::new(), missing: Vec::new() };
        for (key, entry) in self.keys.into_iter().zip(found) {
            match entry {
                Some(entry) => answer.values.push(Entry::of(key, &entry, &memory)),
                None => answer.missing.push(key),
            }
        }
        Ok(answer)
    }
}

/// Writes several keys.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct BulkPut {
    /// The service.
    pub service: String,
    /// The namespace, by name or id.
    pub namespace: String,
    /// At most 10,000 keys with their values, 100 MB together. Of entries with one key the last counts.
    #[serde(deserialize_with = "bounded::<_, _, KV_BULK_WRITE_KEYS_MAX>")]
    pub entries: Vec<EntryToPut>,
}

impl Request for BulkPut {
    const OPERATION: Operation = Operation::new("kv.bulk.put", Method::Put, "/v1/services/{service}/kv/{namespace}/bulk", "Write several keys")
        .access(Access::Runtime)
        .body_bytes_max(API_KV_BODY_BYTES_MAX)
        .errors(PUT_ERRORS)
        .meters(&[Meter::KvWrites, Meter::KvStorageBytes])
        .commands(&[Command::new("kv bulk put")
            .arguments(&[
                NAMESPACE,
                Argument::either("entries", "value", "JSON: a list of entries, or an object of keys and values").form(Form::Entries),
            ])
            .examples(&["tovuk kv bulk put --service service_1 CACHE '{\"user:1\":\"Ada\",\"user:2\":\"Grace\"}'"])]);
    type Response = Stored;
}

impl Handler for BulkPut {
    async fn run(self, control: Control, caller: Caller) -> Result<Stored, Refusal> {
        let (kv, namespace) = namespace(&control, &caller, &self.service, self.namespace).await?;
        let puts = self.entries.into_iter().map(EntryToPut::into_put).collect::<Result<Vec<_>, _>>()?;
        Ok(kv.bulk_put(namespace, puts).await?.into())
    }
}

/// Removes several keys.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct BulkDelete {
    /// The service.
    pub service: String,
    /// The namespace, by name or id.
    pub namespace: String,
    /// At most 10,000 keys.
    pub keys: Vec<String>,
}

impl Request for BulkDelete {
    const OPERATION: Operation =
        Operation::new("kv.bulk.delete", Method::Post, "/v1/services/{service}/kv/{namespace}/bulk/removals", "Remove several keys")
            .access(Access::Runtime)
            .body_bytes_max(API_KV_BODY_BYTES_MAX)
            .errors(&[&codes::RESOURCE_NOT_FOUND, &codes::KV_KEY_INVALID, &codes::KV_BULK_TOO_LARGE])
            .meters(&[Meter::KvDeletes])
            .commands(&[Command::new("kv bulk delete")
                .arguments(&[NAMESPACE, KEYS])
                .examples(&["tovuk kv bulk delete --service service_1 CACHE user:1 user:2"])]);
    type Response = Removed;
}

impl Handler for BulkDelete {
    async fn run(self, control: Control, caller: Caller) -> Result<Removed, Refusal> {
        let (kv, namespace) = namespace(&control, &caller, &self.service, self.namespace).await?;
        Ok(kv.bulk_delete(namespace, self.keys).await?.into())
    }
}
