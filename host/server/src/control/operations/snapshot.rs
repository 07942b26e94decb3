//! Everything about a service in one answer: what people and their programs look at first.

use rusqlite::Connection;
use schemars::JsonSchema;
use serde::Serialize;
use tovuk_kernel::project::{Capabilities, Kind};

use super::builds::Build;
use super::deploys::{Deploy, deploys_of};
use super::domains::DomainEntry;
use super::env::Secret;
use super::services::{Resources, runtime_status};
use super::timestamp;
use super::usage::{BillingEstimate, Limits, MeterUsage, Usage, UsageResponse};
use crate::control::store::deploys::{self, BuildStatus};
use crate::control::store::services::Service;
use crate::control::store::{domains, env};
use crate::control::urls::Urls;
use crate::control::{Caller, Control, Records, Refusal, service_of};
use crate::logs::{Page, Query, Subject};

/// Deploys and builds in a snapshot.
const RECENT: u32 = 5;
/// Lines of the log in a snapshot.
const RECENT_LINES: u32 = 20;

/// A service, whole.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Snapshot {
    /// How it is.
    pub status: Status,
    /// Its last deploys, the newest first.
    pub deploys: Vec<Deploy>,
    /// Their builds.
    pub builds: Vec<Build>,
    /// The end of its log.
    pub logs: Page,
    /// Its secrets, without values.
    pub env: Vec<Secret>,
    /// Its custom domains.
    pub domains: Vec<DomainEntry>,
    /// Its resources.
    pub resources: Resources,
    /// What it uses.
    pub capabilities: Capabilities,
    /// What its account uses.
    #[serde(rename = "accountUsage")]
    pub account_usage: Usage,
    /// What it was charged with itself.
    #[serde(rename = "serviceUsage")]
    pub service_usage: MeterUsage,
    /// What its account may use.
    pub limits: Limits,
    /// What this month is going to cost.
    #[serde(rename = "billingEstimate")]
    pub billing_estimate: BillingEstimate,
    /// What to do next, the most urgent first.
    pub next_actions: Vec<String>,
}

/// How a service is.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "SnapshotStatus")]
pub struct Status {
    /// The service.
    pub service: ServiceStatus,
    /// The last deploy.
    pub latest_deploy: Option<Deploy>,
    /// The deploy that serves.
    pub live_deploy: Option<Deploy>,
    /// The build of the last deploy.
    pub latest_build_job: Option<Build>,
}

/// The service of a snapshot.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ServiceStatus {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The first label of its host name.
    pub slug: String,
    /// What it is.
    pub kind: Kind,
    /// Its public address, which answers when it is public.
    pub url: String,
    /// `running`, `not_deployed` or `suspended`.
    pub runtime_status: &'static str,
    /// What it uses.
    pub capabilities: Capabilities,
    /// When it was made.
    pub created_at: String,
}

impl Snapshot {
    /// The account's service of this id or name, now.
    pub(super) async fn take(control: &Control, caller: &Caller, name: &str) -> Result<Self, Refusal> {
        let (account, name, urls) = (caller.account_number(), name.to_owned(), control.urls().clone());
        let suspended = control.tokens().is_suspended(account);
        let records = control.records();
        // The name may be an id, and logs are found by id only.
        let service = control.service(caller, &name).await?;
        let logs = control.logs().read(Subject::Service(service.service_id()), &Query { limit: Some(RECENT_LINES), ..Query::default() }).await?;
        let usage = UsageResponse::of(control, account, None).await?;
        let own = MeterUsage::from(&control.meters().usage(account, Some(service.id)));
        let read = move |conn: &Connection| {
            let service = service_of(conn, account, &name)?;
            let snapshot = Self::of(conn, &service, suspended, &urls, &records, (logs, usage, own))?;
            Ok((service.live_deploy_id, snapshot))
        };
        let (live, mut snapshot) = control.read(read).await?;
        snapshot.resources = snapshot.resources.complete(control).await?;
        if let Some(live) = live {
            control.builds().settled(live).await;
        }
        Ok(snapshot)
    }

    fn of(
        conn: &Connection,
        service: &Service,
        suspended: bool,
        urls: &Urls,
        records: &Records,
        (logs, usage, service_usage): (Page, UsageResponse, MeterUsage),
    ) -> Result<Self, Refusal> {
        let account = service.account_id;
        let deploys = deploys_of(conn, account, Some(service.id), i64::MAX, RECENT)?.deploys;
        let mut builds = Vec::new();
        for deploy in &deploys {
            let number = tovuk_kernel::ids::number(&deploy.id, "deploy").unwrap_or(0);
            builds.extend(deploys::build_of(conn, number)?.map(Build::from));
        }
        let live = match service.live_deploy_id {
            Some(id) => deploys::get(conn, id)?.map(|deploy| Deploy::of(conn, deploy)).transpose()?,
            None => None,
        };
        let latest = deploys::page(conn, account, Some(service.id), i64::MAX, 1)?.pop().map(|deploy| Deploy::of(conn, deploy)).transpose()?;
        let latest_build = match deploys.first().and_then(|deploy| tovuk_kernel::ids::number(&deploy.id, "deploy")) {
            Some(id) => deploys::build_of(conn, id)?.map(Build::from),
            None => None,
        };
        let env: Vec<_> = env::list(conn, service.id)?.into_iter().map(Secret::from).collect();
        let domains = domains::list(conn, service.id)?;
        let domains: Vec<_> = domains.into_iter().map(|domain| DomainEntry::of(records.of(service.id, &domain.hostname), domain)).collect();
        let status = Status {
            service: ServiceStatus {
                id: service.service_id().to_string(),
                name: service.name.clone(),
                slug: service.slug.clone(),
                kind: service.kind,
                url: urls.service(&service.slug),
                runtime_status: runtime_status(service, suspended),
                capabilities: service.capabilities,
                created_at: timestamp(service.created_ms),
            },
            latest_deploy: latest,
            live_deploy: live,
            latest_build_job: latest_build,
        };
        let next_actions = next_actions(&status, &domains);
        Ok(Self {
            status,
            deploys,
            builds,
            logs,
            env,
            domains,
            resources: Resources::of(conn, service)?,
            capabilities: service.capabilities,
            account_usage: usage.usage,
            service_usage,
            limits: usage.limits,
            billing_estimate: usage.billing_estimate,
            next_actions,
        })
    }
}

fn next_actions(status: &Status, domains: &[DomainEntry]) -> Vec<String> {
    let mut actions = Vec::new();
    let name = &status.service.name;
    match &status.latest_build_job {
        Some(build) if build.status == BuildStatus::Failed => {
            actions.push(format!("The last build failed: run `tovuk logs --build {}`, correct what it names, and deploy again.", build.id));
        }
        Some(build) if matches!(build.status, BuildStatus::Queued | BuildStatus::Running) => {
            actions.push(format!("A build runs: `tovuk logs --build {}` shows how far it is.", build.id));
        }
        _ => {}
    }
    if status.live_deploy.is_none() {
        actions.push("Run `tovuk deploy`: the service has no live deploy.".to_owned());
    }
    for domain in domains.iter().filter(|domain| !domain.verified) {
        actions.push(format!("Make the CNAME record of {0}, then run `tovuk domains verify --service {name} {0}`.", domain.domain));
    }
    if actions.is_empty() {
        actions.push(format!("Run `tovuk logs --service {name}` to see what it does."));
    }
    actions
}
