//! What is the same for every kind of data that a service has by name: making it, finding it by name or id, taking it away.

use rusqlite::Connection;
use schemars::JsonSchema;
use serde::Serialize;
use tovuk_kernel::names::check_resource_name;
use tovuk_kernel::project::BOUND_RESOURCES_MAX;
use tovuk_kernel::resource::Kind;
use tovuk_kernel::{codes, project};

use super::timestamp;
use crate::control::Refusal;
use crate::control::store::bindings;
use crate::control::store::resources::{self, Resource};
use crate::control::store::services::Service;

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
    check_room(conn, service)?;
    Ok(resources::create(conn, service.id, kind, name, now_ms)?)
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
