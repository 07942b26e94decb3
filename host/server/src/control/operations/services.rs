//! Services of the account.

use rusqlite::Connection;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tovuk_kernel::codes;
use tovuk_kernel::ids;
use tovuk_kernel::limits::services_max;
use tovuk_kernel::names::{check_service_name, env_suffix};
use tovuk_kernel::operation::{Argument, Command, Form, Method, Operation, Request};
use tovuk_kernel::project::{Capabilities, Kind};
use tovuk_kernel::resource;
use tovuk_resources::bindings::INTERNAL_DOMAIN;

use super::caps::CapEntry;
use super::cron::TriggerEntry;
use super::env::restart_hint;
use super::queue_settings::QueueEntry;
use super::resources::{ResourceEntry, entries};
use super::snapshot::Snapshot;
use super::{Done, note, timestamp};
use crate::control::handler::Handler;
use crate::control::store::services::Service;
use crate::control::store::{accounts, bindings, domains, env, resources, services};
use crate::control::urls::Urls;
use crate::control::{Caller, Control, Refusal, service_of};
use crate::deploy::Removed;

/// How many of each kind of resource a service has.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// SQLite databases.
    pub sqlite_databases: u64,
    /// Stored objects.
    pub storage_objects: u64,
    /// KV namespaces.
    pub kv_namespaces: u64,
    /// Queues.
    pub queues: u64,
    /// Cron triggers.
    pub cron_triggers: u64,
    /// State namespaces.
    pub state_namespaces: u64,
    /// Service bindings.
    pub service_bindings: u64,
    /// Secrets.
    pub secrets: u64,
    /// Custom domains.
    pub custom_domains: u64,
}

/// A service in a list.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceEntry {
    /// Its name.
    pub name: String,
    /// Its id.
    pub service_id: String,
    /// The first label of its host name.
    pub slug: String,
    /// `rust_worker`, `static_frontend` or `fullstack`.
    pub kind: Kind,
    /// `running`, `not_deployed` or `suspended`.
    pub runtime_status: &'static str,
    /// Its public address, which answers when it is public.
    pub url: String,
    /// How many resources it has.
    pub resources: Counts,
    /// What it uses.
    pub capabilities: Capabilities,
    /// When it was made.
    pub created_at: String,
}

impl ServiceEntry {
    pub(super) fn of(conn: &Connection, service: &Service, urls: &Urls, suspended: bool) -> Result<Self, Refusal> {
        Ok(Self {
            name: service.name.clone(),
            service_id: service.service_id().to_string(),
            slug: service.slug.clone(),
            kind: service.kind,
            runtime_status: runtime_status(service, suspended),
            url: urls.service(&service.slug),
            resources: Counts {
                sqlite_databases: resources::count_of(conn, service.id, resource::Kind::Sqlite)?,
                storage_objects: 0,
                kv_namespaces: resources::count_of(conn, service.id, resource::Kind::Kv)?,
                queues: resources::count_of(conn, service.id, resource::Kind::Queue)?,
                cron_triggers: resources::count_of(conn, service.id, resource::Kind::Cron)?,
                state_namespaces: resources::count_of(conn, service.id, resource::Kind::State)?,
                service_bindings: bindings::count(conn, service.id)?,
                secrets: env::list(conn, service.id)?.len() as u64,
                custom_domains: domains::list(conn, service.id)?.len() as u64,
            },
            capabilities: service.capabilities,
            created_at: timestamp(service.created_ms),
        })
    }
}

pub(super) fn runtime_status(service: &Service, suspended: bool) -> &'static str {
    match service.live_deploy_id {
        _ if suspended => "suspended",
        Some(_) => "running",
        None => "not_deployed",
    }
}

/// Lists the services.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct List {}

/// The services of the account.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Services {
    /// The services.
    pub services: Vec<ServiceEntry>,
}

impl Request for List {
    const OPERATION: Operation = Operation::new("service.list", Method::Get, "/v1/services", "List the account's services")
        .commands(&[Command::new("service list").default().examples(&["tovuk service list"])]);
    type Response = Services;
}

impl Handler for List {
    async fn run(self, control: Control, caller: Caller) -> Result<Services, Refusal> {
        let urls = control.urls().clone();
        let account = caller.account_number();
        let suspended = control.tokens().is_suspended(account);
        let services = control.read(move |conn| {
            let services = services::list(conn, account)?;
            services.iter().map(|service| ServiceEntry::of(conn, service, &urls, suspended)).collect::<Result<Vec<_>, _>>()
        });
        let mut services = services.await?;
        for service in &mut services {
            let number = ids::number(&service.service_id, "service").unwrap_or(0);
            service.resources.storage_objects = control.objects().usage(number).await?.objects;
        }
        Ok(Services { services })
    }
}

/// Makes a service without a deploy.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Create {
    /// Its name: lower-case letters, digits and `-`, at most 48.
    pub name: String,
    /// What it is going to be; `rust_worker` when absent.
    pub kind: Option<Kind>,
}

/// A service that was made.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CreatedService {
    /// The service.
    pub service: ServiceEntry,
}

impl Request for Create {
    const OPERATION: Operation = Operation::new("service.create", Method::Post, "/v1/services", "Make a service without a deploy")
        .described("A deploy makes its service by itself. This is for services that others are to be bound to before their first deploy.")
        .status(201)
        .errors(&[&codes::INVALID_NAME, &codes::SERVICE_EXISTS, &codes::SERVICE_LIMIT])
        .commands(&[Command::new("service create")
            .arguments(&[Argument::positional("name", "Its name"), Argument::flag("kind", "kind", "rust_worker, static_frontend or fullstack")])
            .examples(&["tovuk service create auth-service"])]);
    type Response = CreatedService;
}

impl Handler for Create {
    async fn run(self, control: Control, caller: Caller) -> Result<CreatedService, Refusal> {
        let (now, urls) = (control.now_ms(), control.urls().clone());
        let _air = control.air().await;
        let (service, entry) = control
            .write(move |conn| {
                let account = caller.account_number();
                if services::find(conn, account, &self.name)?.is_some() {
                    return Err(Refusal::new(&codes::SERVICE_EXISTS, format!("there is a service `{}` in this account", self.name)));
                }
                let kind = self.kind.unwrap_or(Kind::RustWorker);
                let capabilities = Capabilities::of_kind(kind);
                let service = create(conn, account, &self.name, kind, &capabilities, now)?;
                note(conn, &caller, Self::OPERATION.name, Some(service.id), &service.name, now)?;
                let entry = ServiceEntry::of(conn, &service, &urls, false)?;
                Ok((service, entry))
            })
            .await?;
        control.live().register(&service);
        Ok(CreatedService { service: entry })
    }
}

/// Makes a service, after checking what must hold for any. Its name must be free.
pub(crate) fn create(conn: &Connection, account: i64, name: &str, kind: Kind, capabilities: &Capabilities, now_ms: i64) -> Result<Service, Refusal> {
    check_service_name(name)?;
    // An account can be deleted while a request of its is under way.
    let account_gone = || Refusal::new(&codes::UNAUTHORIZED, "the account was deleted");
    let plan = accounts::get(conn, account)?.ok_or_else(account_gone)?.plan;
    let most = services_max(plan);
    if services::count(conn, account)? >= most {
        return Err(Refusal::new(
            &codes::SERVICE_LIMIT,
            format!("the account has {most} services, which is what the plan `{}` allows", plan.as_str()),
        ));
    }
    Ok(services::create(conn, account, name, kind, capabilities, now_ms)?)
}

/// Shows everything about a service.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Show {
    /// Its id or name.
    pub service: String,
}

impl Request for Show {
    const OPERATION: Operation =
        Operation::new("service.show", Method::Get, "/v1/services/{service}/overview", "Show everything about a service in one answer")
            .described("Status, deploys, builds, logs, names of secrets, domains, resources, capabilities, usage, estimate and what to do next.")
            .commands(&[Command::new("service show")
                .aliases(&["service status"])
                .arguments(&[Argument::either("service", "service", "Its id or name")])
                .examples(&["tovuk service show service_1"])]);
    type Response = Snapshot;
}

impl Handler for Show {
    async fn run(self, control: Control, caller: Caller) -> Result<Snapshot, Refusal> {
        Snapshot::take(&control, &caller, &self.service).await
    }
}

/// A service binding.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BindingEntry {
    /// Its name.
    pub name: String,
    /// The service that it leads to.
    pub target_service_id: String,
    /// That service's name.
    pub target_service_name: String,
    /// The variable that holds the target's id.
    pub env: String,
    /// The private URL of the target.
    pub url: String,
    /// The variable that holds this URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_env: Option<String>,
    /// When it was made.
    pub created_at: String,
}

/// The resources of a service.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// SQLite databases.
    pub sqlite_databases: Vec<ResourceEntry>,
    /// KV namespaces.
    pub kv_namespaces: Vec<ResourceEntry>,
    /// Queues.
    pub queues: Vec<QueueEntry>,
    /// Cron triggers.
    pub cron_triggers: Vec<TriggerEntry>,
    /// State namespaces.
    pub state_namespaces: Vec<ResourceEntry>,
    /// Service bindings.
    pub service_bindings: Vec<BindingEntry>,
    /// The usage caps that apply to it: its own and its account's.
    pub usage_caps: Vec<CapEntry>,
    /// The account and the service.
    #[serde(skip)]
    pub(super) owner: (i64, i64),
}

impl Resources {
    pub(super) fn of(conn: &Connection, service: &Service) -> Result<Self, Refusal> {
        let entry = |binding: bindings::Binding| BindingEntry {
            env: format!("TOVUK_BINDING_{}", env_suffix(&binding.name)),
            url: format!("https://{}.{INTERNAL_DOMAIN}", binding.target_name),
            name: binding.name,
            target_service_id: format!("service_{}", binding.target_id),
            target_service_name: binding.target_name,
            url_env: binding.url_env,
            created_at: timestamp(binding.created_ms),
        };
        Ok(Self {
            sqlite_databases: entries(conn, service.id, resource::Kind::Sqlite)?,
            kv_namespaces: entries(conn, service.id, resource::Kind::Kv)?,
            queues: entries(conn, service.id, resource::Kind::Queue)?.into_iter().map(QueueEntry::from).collect(),
            cron_triggers: entries(conn, service.id, resource::Kind::Cron)?.into_iter().map(TriggerEntry::from).collect(),
            state_namespaces: entries(conn, service.id, resource::Kind::State)?,
            service_bindings: bindings::list(conn, service.id)?.into_iter().map(entry).collect(),
            owner: (service.account_id, service.id),
            ..Self::default()
        })
    }
}

/// The resources of a service, and what to do next.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ResourcesResponse {
    /// The resources.
    #[serde(flatten)]
    pub resources: Resources,
    /// What has to be done for a change to be seen.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub next_actions: Vec<String>,
}

impl ResourcesResponse {
    pub(super) fn of(conn: &Connection, service: &Service) -> Result<Self, Refusal> {
        Ok(Self { resources: Resources::of(conn, service)?, next_actions: Vec::new() })
    }

    /// After a change that a running worker does not see.
    pub(super) fn changed(conn: &Connection, service: &Service) -> Result<Self, Refusal> {
        Ok(Self { next_actions: restart_hint(&service.name, service.live_deploy_id), ..Self::of(conn, service)? })
    }
}

/// Starts a service's live deploy anew, with today's secrets and bindings.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Restart {
    /// Its id or name.
    pub service: String,
}

impl Request for Restart {
    const OPERATION: Operation = Operation::new(
        "service.restart",
        Method::Post,
        "/v1/services/{service}/restart",
        "Start the live deploy anew, with today's secrets and bindings",
    )
    .described("No request is lost: those that run finish with what they began with.")
    .errors(&[&codes::NOT_DEPLOYED])
    .commands(&[Command::new("service restart")
        .arguments(&[Argument::either("service", "service", "Its id or name")])
        .examples(&["tovuk service restart shop"])]);
    type Response = Done;
}

impl Handler for Restart {
    async fn run(self, control: Control, caller: Caller) -> Result<Done, Refusal> {
        let service = control.service(&caller, &self.service).await?;
        let air = control.air().await;
        crate::deploy::restart(&control, &air, service.id).await?;
        Ok(Done { ok: true })
    }
}

/// Deletes a service with all it has.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Delete {
    /// Its id or name.
    pub service: String,
    /// Also when other services are bound to it.
    #[serde(default)]
    pub force: bool,
}

impl Request for Delete {
    const OPERATION: Operation = Operation::new("service.delete", Method::Delete, "/v1/services/{service}", "Delete a service with all it has")
        .errors(&[&codes::SERVICE_IN_USE])
        .commands(&[Command::new("service delete")
            .arguments(&[
                Argument::either("service", "service", "Its id or name"),
                Argument::flag("force", "force", "Also when other services are bound to it").form(Form::True),
            ])
            .examples(&["tovuk service delete shop"])]);
    type Response = Deleted;
}

/// What is left after a service was deleted.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ServiceDeleted")]
pub struct Deleted {
    /// True.
    pub deleted: bool,
    /// What was deleted.
    pub service: DeletedService,
    /// The services that are left.
    pub services: Vec<ServiceEntry>,
}

/// A service that was deleted.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DeletedService {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
}

impl Handler for Delete {
    async fn run(self, control: Control, caller: Caller) -> Result<Deleted, Refusal> {
        let (now, urls) = (control.now_ms(), control.urls().clone());
        let air = control.air().await;
        let (removed, rest) = control
            .write(move |conn| {
                let account = caller.account_number();
                let service = service_of(conn, account, &self.service)?;
                let callers = bindings::callers(conn, service.id)?;
                if !callers.is_empty() && !self.force {
                    let list: Vec<_> = callers.iter().map(|(service, binding)| format!("{service} ({binding})")).collect();
                    let text = format!("other services are bound to `{}`: {}", service.name, list.join(", "));
                    let bindings: Vec<_> =
                        callers.iter().map(|(service, binding)| serde_json::json!({"service": service, "bindingName": binding})).collect();
                    return Err(Refusal::new(&codes::SERVICE_IN_USE, text).detail("bindings", bindings));
                }
                note(conn, &caller, Self::OPERATION.name, Some(service.id), &service.name, now)?;
                let removed = Removed::of(conn, service)?;
                services::delete(conn, removed.service.id)?;
                let rest = services::list(conn, account)?;
                let rest = rest.iter().map(|service| ServiceEntry::of(conn, service, &urls, false)).collect::<Result<Vec<_>, _>>()?;
                Ok((removed, rest))
            })
            .await?;
        let service = DeletedService { id: removed.service.service_id().to_string(), name: removed.service.name.clone() };
        crate::deploy::removed(&control, air, vec![removed]).await;
        Ok(Deleted { deleted: true, service, services: rest })
    }
}
