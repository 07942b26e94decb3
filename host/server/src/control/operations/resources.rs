//! What is the same for every kind of data that a service has by name: making it, finding it by name or id, listing it, taking it away.

use rusqlite::Connection;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tovuk_kernel::limits::CRON_TRIGGERS_MAX;
use tovuk_kernel::names::check_resource_name;
use tovuk_kernel::operation::{Access, Command, Method, Operation, Request};
use tovuk_kernel::project::BOUND_RESOURCES_MAX;
use tovuk_kernel::resource::Kind;
use tovuk_kernel::{codes, project};

use super::services::{Resources, ResourcesResponse};
use super::{caps, cron, note, queue_settings, timestamp};
use crate::control::data::STILL_REMOVING;
use crate::control::handler::Handler;
use crate::control::store::bindings;
use crate::control::store::resources::{self, Resource};
use crate::control::store::services::Service;
use crate::control::{Caller, Control, Refusal, service_of};

/// A resource as the API shows it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Resource")]
pub struct ResourceEntry {
    /// Its id.
    pub id: String,
    /// What its service calls it.
    pub name: String,
    /// The variable that holds its id.
    pub env: String,
    /// When it was made.
    pub created_at: String,
}

impl From<Resource> for ResourceEntry {
    fn from(resource: Resource) -> Self {
        Self { id: resource.id(), env: resource.kind.variable(&resource.name), created_at: timestamp(resource.created_ms), name: resource.name }
    }
}

impl Resources {
    /// With what only the stores of data know.
    pub(super) async fn complete(mut self, control: &Control) -> Result<Self, Refusal> {
        cron::complete(control, &mut self.cron_triggers).await?;
        queue_settings::complete(control, &mut self.queues);
        self.usage_caps = caps::applying(control, self.owner);
        Ok(self)
    }
}

impl ResourcesResponse {
    /// With what only the stores of data know.
    pub(super) async fn complete(self, control: &Control) -> Result<Self, Refusal> {
        Ok(Self { resources: self.resources.complete(control).await?, ..self })
    }
}

/// Lists the resources of a service.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ResourcesOf {
    /// Its id or name.
    pub service: String,
}

impl Request for ResourcesOf {
    const OPERATION: Operation = Operation::new("service.resources", Method::Get, "/v1/services/{service}/resources", "List a service's resources")
        .access(Access::Runtime)
        .commands(&[
            Command::new("binding list").default().examples(&["tovuk binding list --service shop"]),
            Command::new("cron list").default().examples(&["tovuk cron list --service shop"]),
            Command::new("kv list").default().examples(&["tovuk kv list --service shop"]),
            Command::new("queue list").default().examples(&["tovuk queue list --service shop"]),
            Command::new("sqlite list").default().examples(&["tovuk sqlite list --service shop"]),
            Command::new("state list").default().examples(&["tovuk state list --service shop"]),
        ]);
    type Response = ResourcesResponse;
}

impl Handler for ResourcesOf {
    async fn run(self, control: Control, caller: Caller) -> Result<ResourcesResponse, Refusal> {
        let service = control.service(&caller, &self.service).await?;
        control.read(move |conn| ResourcesResponse::of(conn, &service)).await?.complete(&control).await
    }
}

/// The resources of one kind that a service has.
pub(super) fn entries(conn: &Connection, service: i64, kind: Kind) -> Result<Vec<ResourceEntry>, Refusal> {
    Ok(resources::list(conn, service, kind)?.into_iter().map(ResourceEntry::from).collect())
}

/// Refuses one more where a service has as many as it may, of all kinds together.
pub(super) fn check_room(conn: &Connection, service: &Service) -> Result<(), Refusal> {
    if resources::count(conn, service.id)? + bindings::count(conn, service.id)? < BOUND_RESOURCES_MAX as u64 {
        return Ok(());
    }
    let text = format!("`{}` has {BOUND_RESOURCES_MAX} databases, namespaces, queues, State classes and bindings", service.name);
    Err(Refusal::new(&codes::RESOURCE_LIMIT, text))
}

/// Refuses one more cron trigger where a service has as many as it may.
fn check_room_for_trigger(conn: &Connection, service: &Service) -> Result<(), Refusal> {
    if resources::count_of(conn, service.id, Kind::Cron)? < CRON_TRIGGERS_MAX as u64 {
        return Ok(());
    }
    Err(Refusal::new(&codes::RESOURCE_LIMIT, format!("`{}` has {CRON_TRIGGERS_MAX} cron triggers", service.name)))
}

/// Gives a service a resource.
pub(crate) fn create(conn: &Connection, service: &Service, kind: Kind, name: &str, now_ms: i64) -> Result<Resource, Refusal> {
    check_resource_name(name)?;
    if let Some(other) = resources::clash(conn, service.id, kind, name)? {
        let (noun, variable) = (kind.noun(), kind.variable(name));
        let text = if other == name {
            format!("`{}` has a {noun} `{name}`", service.name)
        } else {
            format!("the {noun} `{other}` and `{name}` would share the variable `{variable}`")
        };
        return Err(Refusal::new(&codes::RESOURCE_EXISTS, text));
    }
    match kind {
        Kind::Cron => check_room_for_trigger(conn, service)?,
        _ => check_room(conn, service)?,
    }
    Ok(resources::create(conn, service.id, kind, name, now_ms)?)
}

/// A resource that a caller has made.
pub(super) struct Made {
    /// Its service.
    pub service: Service,
    /// It.
    pub resource: Resource,
    /// What the service has now, and what to do next.
    pub resources: ResourcesResponse,
}

/// Makes the row of a resource for a caller. `operation` is what the account's activity calls it. What only the stores know is not in the answer yet.
pub(super) async fn make(control: &Control, caller: Caller, operation: &'static str, of: (String, Kind, String)) -> Result<Made, Refusal> {
    let (now, (service, kind, name)) = (control.now_ms(), of);
    let work = control.write(move |conn| {
        let service = service_of(conn, caller.account_number(), &service)?;
        let resource = create(conn, &service, kind, &name, now)?;
        note(conn, &caller, operation, Some(service.id), &name, now)?;
        Ok(Made { resources: now_has(conn, &service, kind)?, resource, service })
    });
    work.await
}

/// What a service has after a change of its resources of a kind. A cron trigger ticks without the worker knowing of it.
fn now_has(conn: &Connection, service: &Service, kind: Kind) -> Result<ResourcesResponse, Refusal> {
    match kind {
        Kind::Cron => ResourcesResponse::of(conn, service),
        _ => ResourcesResponse::changed(conn, service),
    }
}

/// Takes back what was made, because its store would not have it.
pub(super) async fn unmake(control: &Control, resource: &Resource) -> Result<(), Refusal> {
    let (kind, number) = (resource.kind, resource.number);
    control.write(move |conn| Ok(resources::delete(conn, kind, number)?)).await?;
    control.remove_data().await;
    Ok(())
}

/// Deletes a resource, by name or id, with its data; what the service still has, and what to do next.
pub(super) async fn remove(
    control: &Control,
    caller: Caller,
    operation: &'static str,
    of: (String, Kind, String),
) -> Result<ResourcesResponse, Refusal> {
    let (now, (service, kind, name)) = (control.now_ms(), of);
    let work = control.write(move |conn| {
        let service = service_of(conn, caller.account_number(), &service)?;
        let resource = find(conn, &service, kind, &name)?;
        resources::delete(conn, kind, resource.number)?;
        note(conn, &caller, operation, Some(service.id), &resource.name, now)?;
        now_has(conn, &service, kind)
    });
    let mut resources = work.await?;
    if !control.remove_data().await {
        resources.next_actions.push(STILL_REMOVING.to_owned());
    }
    // Last, because settings can name what was deleted.
    resources.complete(control).await
}

/// Gives a service what it declares and lacks; what was made. What it has besides stays.
pub(crate) fn ensure(conn: &Connection, service: &Service, declared: &project::Service, now_ms: i64) -> Result<Vec<Resource>, Refusal> {
    let mut made = Vec::new();
    for (kind, name) in declared.data() {
        let has = resources::list(conn, service.id, kind)?.iter().any(|resource| resource.name == name);
        if !has {
            made.push(create(conn, service, kind, name, now_ms)?);
        }
    }
    Ok(made)
}

/// A resource of a service, by name or id.
pub(crate) fn find(conn: &Connection, service: &Service, kind: Kind, name_or_id: &str) -> Result<Resource, Refusal> {
    if let Some(resource) = resources::find(conn, service.id, kind, name_or_id)? {
        return Ok(resource);
    }
    let names: Vec<_> = resources::list(conn, service.id, kind)?.into_iter().map(|resource| resource.name).collect();
    let known = if names.is_empty() { "it has none".to_owned() } else { format!("it has {}", names.join(", ")) };
    Err(Refusal::new(&codes::RESOURCE_NOT_FOUND, format!("`{}` has no {} `{name_or_id}`; {known}", service.name, kind.noun())))
}
