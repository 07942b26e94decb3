//! KV namespaces of a service, and what is in them. The store checks every limit; here names become numbers, and JSON becomes bytes.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tovuk_kernel::codes::{self, Code};
use tovuk_kernel::limits::{API_KV_BODY_BYTES_MAX, KV_LIST_BYTES_MAX, kv_account_bytes};
use tovuk_kernel::meters::Meter;
use tovuk_kernel::operation::{Access, Argument, Command, Form, Method, Operation, PAGE_ARGUMENTS, Request};
use tovuk_kernel::resource::Kind;
use tovuk_resources::kv;
use tovuk_runtime::memory::Reservation;

use super::kv_values::{Encoding, Entry, EntryToPut, shown};
use super::lists::{Room, page_limit, written_bytes};
use super::resources::{self, ResourceEntry};
use super::services::ResourcesResponse;
use crate::control::handler::Handler;
use crate::control::store::accounts;
use crate::control::{Caller, Control, Refusal, service_for};

/// Makes a namespace.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Create {
    /// The service.
    pub service: String,
    /// What its worker calls the namespace. `TOVUK_KV_<NAME>` receives its id.
    pub name: String,
}

/// A namespace that was made.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "KvNamespaceCreated")]
pub struct Created {
    /// The namespace.
    pub namespace: ResourceEntry,
    /// The resources of the service.
    #[serde(flatten)]
    pub resources: ResourcesResponse,
}

impl Request for Create {
    const OPERATION: Operation = Operation::new("kv.create", Method::Post, "/v1/services/{service}/kv/namespaces", "Make a KV namespace")
        .described("The worker finds it from its next deploy or restart on.")
        .status(201)
        .errors(&[&codes::INVALID_NAME, &codes::RESOURCE_EXISTS, &codes::RESOURCE_LIMIT])
        .commands(&[Command::new("kv create")
            .arguments(&[Argument::positional("name", "What the worker calls it, for example CACHE")])
            .examples(&["tovuk kv create --service service_1 CACHE"])]);
    type Response = Created;
}

impl Handler for Create {
    async fn run(self, control: Control, caller: Caller) -> Result<Created, Refusal> {
        let made = resources::make(&control, caller, Self::OPERATION.name, (self.service, Kind::Kv, self.name)).await?;
        Ok(Created { namespace: made.resource.into(), resources: made.resources.complete(&control).await? })
    }
}

/// Deletes a namespace with all its keys.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Delete {
    /// The service.
    pub service: String,
    /// The namespace, by name or id.
    pub namespace: String,
}

impl Request for Delete {
    const OPERATION: Operation = Operation::new(
        "kv.namespace.delete",
        Method::Delete,
        "/v1/services/{service}/kv/namespaces/{namespace}",
        "Delete a KV namespace with all its keys",
    )
    .described("Answers with what the service still has. The space comes back soon after.")
    .errors(&[&codes::RESOURCE_NOT_FOUND])
    .commands(&[Command::new("kv namespace delete")
        .arguments(&[Argument::positional("namespace", "Its name or id")])
        .examples(&["tovuk kv namespace delete --service service_1 CACHE"])]);
    type Response = ResourcesResponse;
}

impl Handler for Delete {
    async fn run(self, control: Control, caller: Caller) -> Result<ResourcesResponse, Refusal> {
        resources::remove(&control, caller, Self::OPERATION.name, (self.service, Kind::Kv, self.namespace)).await
    }
}

/// The store for the service of a namespace that the caller may use, which is charged, and its number.
pub(super) async fn namespace(control: &Control, caller: &Caller, service: &str, name: String) -> Result<(kv::Kv, kv::Namespace), Refusal> {
    let (caller, service) = (caller.clone(), service.to_owned());
    let found = control.read(move |conn| {
        let service = service_for(conn, &caller, &service)?;
        let plan = accounts::get(conn, service.account_id)?.map(|account| account.plan).unwrap_or_default();
        Ok(((service.account_id, service.id), plan, resources::find(conn, &service, Kind::Kv, &name)?.number))
    });
    let ((account, service), plan, number) = found.await?;
    let kv = control.kv().for_service(account, service, kv_account_bytes(plan)).billed_to(control.bill(account, service));
    Ok((kv, kv::Namespace(number)))
}

const KEY_ERRORS: &[&Code] = &[&codes::RESOURCE_NOT_FOUND, &codes::KV_KEY_INVALID, &codes::KV_KEY_NOT_FOUND];
pub(super) const PUT_ERRORS: &[&Code] = &[
    &codes::RESOURCE_NOT_FOUND,
    &codes::KV_KEY_INVALID,
    &codes::KV_VALUE_TOO_LARGE,
    &codes::KV_METADATA_INVALID,
    &codes::KV_EXPIRATION_TOO_SOON,
    &codes::KV_BULK_TOO_LARGE,
    &codes::KV_STORAGE_FULL,
];
pub(super) const NAMESPACE: Argument = Argument::positional("namespace", "The namespace, by name or id");
const KEY: Argument = Argument::positional("key", "The key");

/// Writes a value.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Put {
    /// The service.
    pub service: String,
    /// The namespace, by name or id.
    pub namespace: String,
    /// The key, 1 to 512 bytes.
    pub key: String,
    /// The value: text, or with `encoding` bytes in base64. Any other JSON is stored as its text.
    #[schemars(with = "Value")]
    pub value: Box<RawValue>,
    /// How the value is written; `text` when absent.
    #[serde(default)]
    pub encoding: Encoding,
    /// JSON of at most 1,024 bytes that lists show.
    #[schemars(with = "Option<Value>")]
    pub metadata: Option<Box<RawValue>>,
    /// When it expires, in seconds of Unix time, at least 30 s ahead.
    pub expiration: Option<u64>,
    /// In how many seconds it expires, at least 30. It wins over `expiration`.
    pub expiration_ttl_seconds: Option<u64>,
}

/// What a namespace holds after a write.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "KvWritten")]
pub struct Stored {
    /// True: it is on disk.
    pub ok: bool,
    /// How many keys were written.
    pub written: u64,
    /// How many keys the namespace has.
    pub keys: u64,
    /// How many bytes they have, with values and metadata.
    pub storage_bytes: u64,
}

impl From<kv::Written> for Stored {
    fn from(written: kv::Written) -> Self {
        Self { ok: true, written: written.keys, keys: written.usage.keys, storage_bytes: written.usage.bytes }
    }
}

impl Request for Put {
    const OPERATION: Operation = Operation::new("kv.put", Method::Put, "/v1/services/{service}/kv/{namespace}/values/{key}", "Write a value")
        .access(Access::Runtime)
        .body_bytes_max(API_KV_BODY_BYTES_MAX)
        .errors(PUT_ERRORS)
        .meters(&[Meter::KvWrites, Meter::KvStorageBytes])
        .commands(&[Command::new("kv put")
            .arguments(&[
                NAMESPACE,
                KEY,
                Argument::either("value", "value", "The value").form(Form::Words),
                Argument::flag("metadata", "metadata", "JSON that lists show").form(Form::Json),
                Argument::flag("expirationTtlSeconds", "ttl", "In how many seconds it expires").form(Form::Integer).also(&["expiration-ttl-seconds"]),
                Argument::flag("expiration", "expiration", "When it expires, in seconds of Unix time").form(Form::Integer),
                Argument::flag("encoding", "encoding", "`base64` when the value is given so"),
            ])
            .examples(&["tovuk kv put --service service_1 CACHE user:1 '{\"name\":\"Ada\"}' --metadata '{\"kind\":\"profile\"}' --ttl 3600"])]);
    type Response = Stored;
}

impl Handler for Put {
    async fn run(self, control: Control, caller: Caller) -> Result<Stored, Refusal> {
        let (kv, namespace) = namespace(&control, &caller, &self.service, self.namespace).await?;
        let Self { key, value, encoding, metadata, expiration, expiration_ttl_seconds, .. } = self;
        let entry = EntryToPut { key, value, encoding, metadata, expiration, expiration_ttl_seconds };
        Ok(kv.put(namespace, entry.into_put()?).await?.into())
    }
}

/// Reads a value.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Get {
    /// The service.
    pub service: String,
    /// The namespace, by name or id.
    pub namespace: String,
    /// The key.
    pub key: String,
}

fn no_key(key: &str) -> Refusal {
    Refusal::new(&codes::KV_KEY_NOT_FOUND, format!("there is no key `{}`", key.escape_debug()))
}

impl Request for Get {
    const OPERATION: Operation = Operation::new("kv.get", Method::Get, "/v1/services/{service}/kv/{namespace}/values/{key}", "Read a value")
        .access(Access::Runtime)
        .errors(KEY_ERRORS)
        .meters(&[Meter::KvReads])
        .commands(&[Command::new("kv get").arguments(&[NAMESPACE, KEY]).examples(&["tovuk kv get --service service_1 CACHE user:1"])]);
    type Response = Entry;
}

impl Handler for Get {
    const COUNTS_ANSWER: bool = true;

    async fn run(self, control: Control, caller: Caller) -> Result<Entry, Refusal> {
        let (kv, namespace) = namespace(&control, &caller, &self.service, self.namespace).await?;
        let memory = Arc::new(control.runtime().memory().reserve());
        let entry = kv.counted_in(memory.clone()).get(namespace, &self.key).await?.ok_or_else(|| no_key(&self.key))?;
        Ok(Entry::of(self.key, &entry, &memory))
    }
}

/// Removes a key.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct DeleteKey {
    /// The service.
    pub service: String,
    /// The namespace, by name or id.
    pub namespace: String,
    /// The key.
    pub key: String,
}

/// Keys that were removed.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "KvRemoved")]
pub struct Removed {
    /// Whether anything was there.
    pub deleted: bool,
    /// How many keys were there.
    pub removed: u64,
    /// How many keys the namespace has now.
    pub keys: u64,
    /// How many bytes they have, with values and metadata.
    pub storage_bytes: u64,
}

impl From<kv::Deleted> for Removed {
    fn from(deleted: kv::Deleted) -> Self {
        Self { deleted: deleted.existed > 0, removed: deleted.existed, keys: deleted.usage.keys, storage_bytes: deleted.usage.bytes }
    }
}

impl Request for DeleteKey {
    const OPERATION: Operation = Operation::new("kv.delete", Method::Delete, "/v1/services/{service}/kv/{namespace}/values/{key}", "Remove a key")
        .described("It is no error when the key is not there.")
        .access(Access::Runtime)
        .errors(&[&codes::RESOURCE_NOT_FOUND, &codes::KV_KEY_INVALID])
        .meters(&[Meter::KvDeletes])
        .commands(&[Command::new("kv delete").arguments(&[NAMESPACE, KEY]).examples(&["tovuk kv delete --service service_1 CACHE user:1"])]);
    type Response = Removed;
}

impl Handler for DeleteKey {
    async fn run(self, control: Control, caller: Caller) -> Result<Removed, Refusal> {
        let (kv, namespace) = namespace(&control, &caller, &self.service, self.namespace).await?;
        Ok(kv.delete(namespace, &self.key).await?.into())
    }
}

/// Lists keys.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Keys {
    /// The service.
    pub service: String,
    /// The namespace, by name or id.
    pub namespace: String,
    /// What the keys begin with.
    #[serde(default)]
    pub prefix: String,
    /// Most keys to return, 1 to 1,000. Without it the answer has all keys, up to 100,000 or 32 MiB.
    pub limit: Option<u32>,
    /// Where to go on.
    pub cursor: Option<String>,
}

/// A key in a list.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "KvKey")]
pub struct KeyEntry {
    /// The key.
    pub name: String,
    /// When it expires, in seconds of Unix time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration: Option<u64>,
    /// Its metadata.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Value>")]
    pub metadata: Option<Box<RawValue>>,
}

impl From<kv::Listed> for KeyEntry {
    fn from(key: kv::Listed) -> Self {
        Self { name: key.name, expiration: key.expiration, metadata: shown(key.metadata.as_deref()) }
    }
}

/// Keys in the order of their bytes.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "KvKeys")]
pub struct KeysPage {
    /// The keys.
    pub keys: Vec<KeyEntry>,
    /// Whether more follow.
    pub has_more: bool,
    /// Where to go on.
    pub next_cursor: Option<String>,
    #[serde(skip)]
    memory: Option<Reservation>,
}

impl Request for Keys {
    const OPERATION: Operation = Operation::new("kv.keys", Method::Get, "/v1/services/{service}/kv/{namespace}/keys", "List keys")
        .access(Access::Runtime)
        .errors(&[&codes::RESOURCE_NOT_FOUND, &codes::KV_KEY_INVALID, &codes::INVALID_CURSOR])
        .meters(&[Meter::KvLists])
        .commands(&[Command::new("kv keys")
            .arguments(&[NAMESPACE, Argument::flag("prefix", "prefix", "What the keys begin with"), PAGE_ARGUMENTS[0], PAGE_ARGUMENTS[1]])
            .examples(&["tovuk kv keys --service service_1 CACHE", "tovuk kv keys --service service_1 CACHE --prefix user: --limit 100"])]);
    type Response = KeysPage;
}

impl Handler for Keys {
    const COUNTS_ANSWER: bool = true;

    async fn run(self, control: Control, caller: Caller) -> Result<KeysPage, Refusal> {
        let (kv, namespace) = namespace(&control, &caller, &self.service, self.namespace).await?;
        let mut answer = KeysPage { keys: Vec::new(), has_more: false, next_cursor: None, memory: None };
        if let Some(limit) = self.limit {
            let list = kv::List { prefix: self.prefix, limit: page_limit(limit), cursor: self.cursor };
            answer.add(kv.list(namespace, list).await?);
            return Ok(answer);
        }
        let mut room = Room::new(&control, KV_LIST_BYTES_MAX);
        let mut pages = kv.pages(namespace, self.prefix, self.cursor);
        while room.is_left()
            && let Some(page) = pages.next().await
        {
            room.take(answer.add(page?))?;
        }
        answer.memory = Some(room.into_memory());
        Ok(answer)
    }
}

impl KeysPage {
    /// Adds a page, and says about how many bytes of the answer it is.
    fn add(&mut self, page: kv::Page) -> usize {
        let before = self.keys.len();
        self.keys.extend(page.keys.into_iter().map(KeyEntry::from));
        (self.has_more, self.next_cursor) = (page.has_more, page.next_cursor);
        self.keys.iter().skip(before).map(KeyEntry::bytes).sum()
    }
}

impl KeyEntry {
    /// What it takes in an answer, or in memory if that is more.
    fn bytes(&self) -> usize {
        size_of::<Self>() + written_bytes(&self.name) + self.metadata.as_ref().map_or(0, |metadata| metadata.get().len())
    }
}
