//! State of a service: its classes, and which objects and keys there are. The store checks every limit; here names become numbers. Values are in
//! `state_values.rs`, alarms in `state_alarms.rs`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tovuk_kernel::codes::{self, Code};
use tovuk_kernel::limits::STATE_LIST_BYTES_MAX;
use tovuk_kernel::meters::Meter;
use tovuk_kernel::operation::{Access, Argument, Command, Method, Operation, PAGE_ARGUMENTS, Request};
use tovuk_kernel::resource::Kind;
use tovuk_resources::state;
use tovuk_runtime::memory::Reservation;

use super::lists::{Room, page_limit, written_bytes};
use super::resources::{self, ResourceEntry};
use super::services::ResourcesResponse;
use super::state_values::Removed;
use crate::control::handler::Handler;
use crate::control::store::accounts;
use crate::control::{Caller, Control, Refusal, service_for};

/// Makes a class.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Create {
    /// The service.
    pub service: String,
    /// What its worker calls the class. `TOVUK_STATE_<NAME>` receives the id of its namespace.
    pub class_name: String,
}

/// A class that was made.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "StateNamespaceCreated")]
pub struct Created {
    /// Its namespace.
    pub namespace: ResourceEntry,
    /// The resources of the service.
    #[serde(flatten)]
    pub resources: ResourcesResponse,
}

impl Request for Create {
    const OPERATION: Operation = Operation::new("state.create", Method::Post, "/v1/services/{service}/state/namespaces", "Make a State class")
        .described("Its objects need not be made: one is there as long as it has a value or an alarm. The worker finds the class from its next deploy or restart on.")
        .status(201)
        .errors(&[&codes::INVALID_NAME, &codes::RESOURCE_EXISTS, &codes::RESOURCE_LIMIT])
        .commands(&[Command::new("state create")
            .arguments(&[Argument::positional("className", "What the worker calls it, for example Room")])
            .examples(&["tovuk state create --service service_1 Room"])]);
    type Response = Created;
}

impl Handler for Create {
    async fn run(self, control: Control, caller: Caller) -> Result<Created, Refusal> {
        let made = resources::make(&control, caller, Self::OPERATION.name, (self.service, Kind::State, self.class_name)).await?;
        Ok(Created { namespace: made.resource.into(), resources: made.resources.complete(&control).await? })
    }
}

/// Deletes a class with all its objects.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Delete {
    /// The service.
    pub service: String,
    /// The class, by name or id.
    pub class: String,
}

impl Request for Delete {
    const OPERATION: Operation = Operation::new(
        "state.delete",
        Method::Delete,
        "/v1/services/{service}/state/namespaces/{class}",
        "Delete a State class with all its objects",
    )
    .described("Values and alarms go with it. Answers with what the service still has. The space comes back soon after.")
    .errors(&[&codes::RESOURCE_NOT_FOUND])
    .commands(&[Command::new("state delete").arguments(&[CLASS]).examples(&["tovuk state delete --service service_1 Room"])]);
    type Response = ResourcesResponse;
}

impl Handler for Delete {
    async fn run(self, control: Control, caller: Caller) -> Result<ResourcesResponse, Refusal> {
        resources::remove(&control, caller, Self::OPERATION.name, (self.service, Kind::State, self.class)).await
    }
}

/// An object that the caller may use, and the store, which charges its service.
pub(super) async fn target(
    control: &Control,
    caller: &Caller,
    (service, class, object): (&str, String, String),
) -> Result<(state::State, state::Target), Refusal> {
    let (asks, service) = (caller.clone(), service.to_owned());
    let work = control.read(move |conn| {
        let service = service_for(conn, &asks, &service)?;
        let namespace = state::Namespace(resources::find(conn, &service, Kind::State, &class)?.number);
        let account = accounts::get(conn, service.account_id)?.ok_or_else(|| Refusal::no_service(&service.name))?;
        let target = state::Target { namespace, object: object.into(), account: account.id, plan: account.plan, holds: state::Holds::default() };
        Ok((service.id, target))
    });
    let (service, target) = work.await?;
    let state = control.state().billed_to(control.bill(target.account, service));
    Ok((state, state::Target { holds: caller.holds.clone(), ..target }))
}

pub(super) const CLASS: Argument = Argument::positional("class", "The class, by name or id");
pub(super) const OBJECT: Argument = Argument::positional("object", "The key of the object");
/// What every operation on one object can fail with.
pub(super) const OBJECT_ERRORS: &[&Code] =
    &[&codes::RESOURCE_NOT_FOUND, &codes::STATE_KEY_INVALID, &codes::STATE_OBJECT_BUSY, &codes::STATE_DEADLOCK];

/// Lists objects.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Objects {
    /// The service.
    pub service: String,
    /// The class, by name or id.
    pub class: String,
    /// What the objects' keys begin with.
    #[serde(default)]
    pub prefix: String,
    /// Most objects to return, 1 to 1,000. Without it the answer has all objects, up to 100,000 or 32 MiB.
    pub limit: Option<u32>,
    /// Where to go on.
    pub cursor: Option<String>,
}

/// An object in a list.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StateObject")]
pub struct ObjectEntry {
    /// Its key.
    pub name: String,
    /// How many values it has.
    pub values: u64,
    /// How many bytes they have, with their keys.
    pub storage_bytes: u64,
    /// When its alarm is scheduled for, in milliseconds of Unix time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alarm_at_unix_ms: Option<u64>,
}

impl From<state::ListedObject> for ObjectEntry {
    fn from(object: state::ListedObject) -> Self {
        let state::ListedObject { name, counts, alarm } = object;
        Self { name, values: counts.values, storage_bytes: counts.bytes, alarm_at_unix_ms: alarm }
    }
}

/// Objects in the order of the bytes of their keys.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[schemars(rename = "StateObjects")]
pub struct ObjectsPage {
    /// The objects: those that have a value or an alarm.
    pub objects: Vec<ObjectEntry>,
    /// Whether more follow.
    pub has_more: bool,
    /// Where to go on.
    pub next_cursor: Option<String>,
    #[serde(skip)]
    memory: Option<Reservation>,
}

impl Request for Objects {
    const OPERATION: Operation =
        Operation::new("state.objects", Method::Get, "/v1/services/{service}/state/namespaces/{class}/objects", "List the objects of a State class")
            .access(Access::Runtime)
            .errors(&[&codes::RESOURCE_NOT_FOUND, &codes::STATE_KEY_INVALID, &codes::INVALID_CURSOR])
            .meters(&[Meter::StateRequests, Meter::StateSqliteRowsRead])
            .commands(&[Command::new("state objects")
                .arguments(&[CLASS, Argument::flag("prefix", "prefix", "What the objects' keys begin with"), PAGE_ARGUMENTS[0], PAGE_ARGUMENTS[1]])
                .examples(&["tovuk state objects --service service_1 Room"])]);
    type Response = ObjectsPage;
}

impl Handler for Objects {
    const COUNTS_ANSWER: bool = true;

    async fn run(self, control: Control, caller: Caller) -> Result<ObjectsPage, Refusal> {
        let (service, class) = (self.service, self.class);
        let found = control.read(move |conn| {
            let service = service_for(conn, &caller, &service)?;
            Ok((service.account_id, service.id, resources::find(conn, &service, Kind::State, &class)?.number))
        });
        let (account, service, number) = found.await?;
        let (store, namespace) = (control.state().billed_to(control.bill(account, service)), state::Namespace(number));
        let mut answer = ObjectsPage::default();
        if let Some(limit) = self.limit {
            let list = state::List { prefix: self.prefix, limit: page_limit(limit), cursor: self.cursor };
            answer.add(store.objects(namespace, list).await?);
            return Ok(answer);
        }
        let mut room = Room::new(&control, STATE_LIST_BYTES_MAX);
        let mut pages = store.object_pages(namespace, self.prefix, self.cursor);
        while room.is_left()
            && let Some(page) = pages.next().await
        {
            room.take(answer.add(page?))?;
        }
        answer.memory = Some(room.into_memory());
        Ok(answer)
    }
}

impl ObjectsPage {
    /// Adds a page, and says about how many bytes of the answer it is.
    fn add(&mut self, page: state::Page<state::ListedObject>) -> usize {
        let bytes = page.items.iter().map(|object| size_of::<ObjectEntry>() + written_bytes(&object.name)).sum();
        self.objects.extend(page.items.into_iter().map(ObjectEntry::from));
        (self.has_more, self.next_cursor) = (page.has_more, page.next_cursor);
        bytes
    }
}

/// Lists the keys of an object.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Keys {
    /// The service.
    pub service: String,
    /// The class, by name or id.
    pub class: String,
    /// The key of the object.
    pub object: String,
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
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StateKey")]
pub struct KeyEntry {
    /// The key.
    pub name: String,
    /// How many bytes its value has.
    pub value_bytes: u64,
}

impl From<state::Listed> for KeyEntry {
    fn from(key: state::Listed) -> Self {
        Self { name: key.name, value_bytes: key.value_bytes }
    }
}

/// Keys in the order of their bytes.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[schemars(rename = "StateKeys")]
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
    const OPERATION: Operation = Operation::new(
        "state.keys",
        Method::Get,
        "/v1/services/{service}/state/namespaces/{class}/objects/{object}/keys",
        "List the keys of a State object",
    )
    .described("An object that does not exist has no keys.")
    .access(Access::Runtime)
    .errors(&[&codes::RESOURCE_NOT_FOUND, &codes::STATE_KEY_INVALID, &codes::INVALID_CURSOR, &codes::STATE_OBJECT_BUSY, &codes::STATE_DEADLOCK])
    .meters(&[Meter::StateRequests, Meter::StateSqliteRowsRead])
    .commands(&[Command::new("state keys")
        .arguments(&[CLASS, OBJECT, Argument::flag("prefix", "prefix", "What the keys begin with"), PAGE_ARGUMENTS[0], PAGE_ARGUMENTS[1]])
        .examples(&["tovuk state keys --service service_1 Room room-1"])]);
    type Response = KeysPage;
}

impl Handler for Keys {
    const COUNTS_ANSWER: bool = true;

    async fn run(self, control: Control, caller: Caller) -> Result<KeysPage, Refusal> {
        let (store, target) = target(&control, &caller, (&self.service, self.class, self.object)).await?;
        let mut answer = KeysPage::default();
        if let Some(limit) = self.limit {
            let list = state::List { prefix: self.prefix, limit: page_limit(limit), cursor: self.cursor };
            answer.add(store.keys(&target, list).await?.value);
            return Ok(answer);
        }
        let mut room = Room::new(&control, STATE_LIST_BYTES_MAX);
        let mut pages = store.key_pages(&target, self.prefix, self.cursor);
        while room.is_left()
            && let Some(page) = pages.next().await
        {
            room.take(answer.add(page?.value))?;
        }
        answer.memory = Some(room.into_memory());
        Ok(answer)
    }
}

impl KeysPage {
    /// Adds a page, and says about how many bytes of the answer it is.
    fn add(&mut self, page: state::Page<state::Listed>) -> usize {
        let bytes = page.items.iter().map(|key| size_of::<KeyEntry>() + written_bytes(&key.name)).sum();
        self.keys.extend(page.items.into_iter().map(KeyEntry::from));
        (self.has_more, self.next_cursor) = (page.has_more, page.next_cursor);
        bytes
    }
}

/// Deletes an object.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct DeleteObject {
    /// The service.
    pub service: String,
    /// The class, by name or id.
    pub class: String,
    /// The key of the object.
    pub object: String,
}

impl Request for DeleteObject {
    const OPERATION: Operation = Operation::new(
        "state.object.delete",
        Method::Delete,
        "/v1/services/{service}/state/namespaces/{class}/objects/{object}",
        "Delete a State object with its values and its alarm",
    )
    .described("It is no error when there is no such object.")
    .errors(OBJECT_ERRORS)
    .meters(&[Meter::StateRequests, Meter::StateSqliteRowsRead, Meter::StateSqliteRowsWritten])
    .commands(&[Command::new("state delete-object")
        .arguments(&[CLASS, OBJECT])
        .examples(&["tovuk state delete-object --service service_1 Room room-1"])]);
    type Response = Removed;
}

impl Handler for DeleteObject {
    async fn run(self, control: Control, caller: Caller) -> Result<Removed, Refusal> {
        let (store, target) = target(&control, &caller, (&self.service, self.class, self.object)).await?;
        Ok(store.delete_object(&target).await?.into())
    }
}
