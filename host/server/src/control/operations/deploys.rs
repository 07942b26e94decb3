//! Deploys: asking for one, their history, cancelling and rolling back.

use std::collections::BTreeMap;

use rusqlite::Connection;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tovuk_kernel::codes;
use tovuk_kernel::ids::number;
use tovuk_kernel::limits::{DEPLOY_BODY_BYTES_MAX, DEPLOY_CONFIG_BYTES_MAX};
use tovuk_kernel::operation::{Argument, Command, Method, Operation, PAGE_ARGUMENTS, Request};

use super::builds::Build;
use super::sqlite::MigrationEntry;
use super::{end_page, note, page, timestamp};
use crate::control::base64::Base64;
use crate::control::handler::Handler;
use crate::control::store::deploys::{self, BuildStatus, DeployStatus};
use crate::control::{Caller, Control, Refusal, service_of};
use crate::deploy::accept::{self, Submission};
use crate::deploy::migrations::Migrations;
use crate::deploy::uploads::Upload;

/// A deploy.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Deploy {
    /// Its id.
    pub id: String,
    /// The service.
    pub service_id: String,
    /// Where it stands.
    pub status: DeployStatus,
    /// Its build.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_job_id: Option<String>,
    /// What was uploaded: `component`, `assets` or `source`; `rollback`, or `local` for a build of `tovuk dev`.
    pub source: String,
    /// The commit that the client named.
    pub commit_sha: Option<String>,
    /// Why it failed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The component, by its SHA-256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact: Option<String>,
    /// Bytes of the component.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub component_bytes: Option<i64>,
    /// What it may do.
    pub powers: Vec<String>,
    /// What of this the deploy that was live before could not do.
    pub new_powers: Vec<String>,
    /// The deploy that it brought back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback_of: Option<String>,
    /// When it was asked for.
    pub created_at: String,
    /// When it went live.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promoted_at: Option<String>,
    /// When it stopped being live, failed or was cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
}

impl Deploy {
    pub(super) fn of(conn: &Connection, deploy: deploys::Deploy) -> Result<Self, Refusal> {
        let build = deploys::build_of(conn, deploy.id)?;
        Ok(Self {
            id: format!("deploy_{}", deploy.id),
            service_id: format!("service_{}", deploy.service_id),
            status: deploy.status,
            build_job_id: build.map(|build| format!("job_{}", build.id)),
            source: deploy.source,
            commit_sha: deploy.commit_sha,
            message: deploy.message,
            artifact: deploy.artifact,
            component_bytes: deploy.component_bytes,
            powers: serde_json::from_str(&deploy.powers).unwrap_or_default(),
            new_powers: serde_json::from_str(&deploy.new_powers).unwrap_or_default(),
            rollback_of: deploy.rollback_of.map(|id| format!("deploy_{id}")),
            created_at: timestamp(deploy.created_ms),
            promoted_at: deploy.promoted_ms.map(timestamp),
            ended_at: deploy.ended_ms.map(timestamp),
        })
    }
}

/// Asks for a deploy.
#[derive(Deserialize, JsonSchema)]
pub struct Create {
    /// The service's table of the project file as JSON, or the form of the published client.
    #[schemars(with = "Value")]
    pub config: Box<RawValue>,
    /// The service's name. The form of the published client has it in `config`.
    pub service: Option<String>,
    /// The commit that is deployed.
    pub commit_sha: Option<String>,
    /// The component, as it is or compressed with gzip.
    pub component_base64: Option<Base64>,
    /// The static files, as a tar archive compressed with gzip.
    pub assets_archive_base64: Option<Base64>,
    /// The source, as a tar archive compressed with gzip: where the operator allows builds, and for static files that need none.
    pub source_archive_base64: Option<Base64>,
    /// Scripts for databases that `config` declares, by the database's name: applied once each, in this order, before the deploy is promoted.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Vec<MigrationEntry>>")]
    pub migrations: Migrations,
}

/// A deploy that was accepted and is being built.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "DeployAccepted")]
pub struct Created {
    /// The service, which is made by its first deploy.
    pub service: DeployedService,
    /// The deploy.
    pub deploy: Deploy,
    /// Its build: ask for it until it has ended.
    pub build_job: Build,
    /// What to do next.
    pub next_actions: Vec<String>,
}

/// The service of a deploy.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DeployedService {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its public address.
    pub url: String,
}

impl Request for Create {
    const OPERATION: Operation = Operation::new("deploy.create", Method::Post, "/v1/deploy", "Deploy a service")
        .described(
            "Answers as soon as everything is stored; the build then runs by itself, also if the host is started anew meanwhile. What `config` declares and \
             the service lacks is created first; nothing is ever deleted.",
        )
        .status(202)
        .body_bytes_max(DEPLOY_BODY_BYTES_MAX)
        .errors(&[
            &codes::INVALID_CONFIG,
            &codes::CRON_EXPRESSION_INVALID,
            &codes::INVALID_NAME,
            &codes::SECRET_MISSING,
            &codes::SERVICE_LIMIT,
            &codes::BINDING_REFUSED,
            &codes::BINDING_TARGET_NOT_FOUND,
            &codes::RESOURCE_EXISTS,
            &codes::RESOURCE_LIMIT,
            &codes::SQLITE_MIGRATION_REFUSED,
            &codes::REMOTE_BUILD_DISABLED,
            &codes::TOO_MANY_REQUESTS,
        ]);
    type Response = Created;
}

impl Handler for Create {
    async fn run(self, control: Control, caller: Caller) -> Result<Created, Refusal> {
        let bytes = |field: Option<Base64>| field.map(|Base64(bytes)| bytes);
        // Its length is looked at first: as a tree it takes many times as much.
        let config = self.config.get();
        if config.len() > DEPLOY_CONFIG_BYTES_MAX {
            return Err(Refusal::new(&codes::INVALID_CONFIG, format!("`config` has {} bytes; {DEPLOY_CONFIG_BYTES_MAX} are allowed", config.len())));
        }
        let submission = Submission {
            config: serde_json::from_str(config).map_err(|error| Refusal::new(&codes::INVALID_CONFIG, format!("`config`: {error}")))?,
            service: self.service,
            commit_sha: self.commit_sha,
            migrations: self.migrations,
            upload: Upload {
                component: bytes(self.component_base64),
                assets: bytes(self.assets_archive_base64),
                source: bytes(self.source_archive_base64),
                migrations: None,
            },
        };
        let accepted = accept::accept(&control, caller, submission).await?;
        let url = control.urls().service(&accepted.service.slug);
        let deploy = control.read(move |conn| Deploy::of(conn, accepted.deploy)).await?;
        let build = Build::from(accepted.build);
        Ok(Created {
            service: DeployedService { id: accepted.service.service_id().to_string(), name: accepted.service.name, url },
            next_actions: vec![format!("Run `tovuk logs --build {}` to follow the build.", build.id)],
            deploy,
            build_job: build,
        })
    }
}

/// Lists the deploys of all services.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct List {
    /// Most entries to return, 1 to 1,000.
    pub limit: Option<u32>,
    /// Where to go on.
    pub cursor: Option<String>,
}

/// A page of deploys, the newest first.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Deploys {
    /// The deploys.
    pub deploys: Vec<Deploy>,
    /// Whether there are older ones.
    pub has_more: bool,
    /// Where to go on.
    pub next_cursor: Option<String>,
}

pub(super) fn deploys_of(conn: &Connection, account: i64, service: Option<i64>, before: i64, limit: u32) -> Result<Deploys, Refusal> {
    let mut rows = deploys::page(conn, account, service, before, limit + 1)?;
    let next_cursor = end_page(&mut rows, limit, |deploy| deploy.id);
    let deploys = rows.into_iter().map(|row| Deploy::of(conn, row)).collect::<Result<Vec<_>, _>>()?;
    Ok(Deploys { deploys, has_more: next_cursor.is_some(), next_cursor })
}

impl Request for List {
    const OPERATION: Operation = Operation::new("deploy.list", Method::Get, "/v1/deploys", "List the account's deploys, the newest first")
        .errors(&[&codes::INVALID_CURSOR])
        .commands(&[Command::new("deploy list").arguments(&PAGE_ARGUMENTS).examples(&["tovuk deploy list"])]);
    type Response = Deploys;
}

impl Handler for List {
    async fn run(self, control: Control, caller: Caller) -> Result<Deploys, Refusal> {
        let (before, limit) = page(self.limit, self.cursor.as_deref())?;
        control.read(move |conn| deploys_of(conn, caller.account_number(), None, before, limit)).await
    }
}

/// Lists the deploys of a service.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ListOfService {
    /// The service.
    pub service: String,
    /// Most entries to return, 1 to 1,000.
    pub limit: Option<u32>,
    /// Where to go on.
    pub cursor: Option<String>,
}

impl Request for ListOfService {
    const OPERATION: Operation =
        Operation::new("deploy.list-of-service", Method::Get, "/v1/services/{service}/deploys", "List a service's deploys, the newest first")
            .errors(&[&codes::INVALID_CURSOR])
            .commands(&[Command::new("deploy list").arguments(&PAGE_ARGUMENTS).examples(&["tovuk deploy list --service shop --limit 5"])]);
    type Response = Deploys;
}

impl Handler for ListOfService {
    async fn run(self, control: Control, caller: Caller) -> Result<Deploys, Refusal> {
        let (before, limit) = page(self.limit, self.cursor.as_deref())?;
        control
            .read(move |conn| {
                let service = service_of(conn, caller.account_number(), &self.service)?;
                deploys_of(conn, caller.account_number(), Some(service.id), before, limit)
            })
            .await
    }
}

/// A deploy with its build.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DeployResponse {
    /// The deploy.
    pub deploy: Deploy,
    /// Its build.
    pub build_job: Option<Build>,
    /// What was declared for it, as it was sent.
    pub config: Value,
}

/// The account's deploy of this id.
pub(super) fn find(conn: &Connection, account: i64, id: &str) -> Result<deploys::Deploy, Refusal> {
    let unknown = || Refusal::new(&codes::DEPLOY_NOT_FOUND, format!("there is no deploy `{id}` in this account"));
    deploys::find(conn, account, number(id, "deploy").ok_or_else(unknown)?)?.ok_or_else(unknown)
}

pub(super) fn with_build(conn: &Connection, deploy: deploys::Deploy) -> Result<DeployResponse, Refusal> {
    let build_job = deploys::build_of(conn, deploy.id)?.map(Build::from);
    let config = serde_json::from_str(&deploy.config).map_err(Refusal::internal)?;
    Ok(DeployResponse { deploy: Deploy::of(conn, deploy)?, build_job, config })
}

/// Shows a deploy.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Show {
    /// Its id.
    pub deploy: String,
}

impl Request for Show {
    const OPERATION: Operation = Operation::new("deploy.show", Method::Get, "/v1/deploys/{deploy}", "Show a deploy and its build")
        .errors(&[&codes::DEPLOY_NOT_FOUND])
        .commands(&[Command::new("deploy show").arguments(&[Argument::positional("deploy", "Its id")]).examples(&["tovuk deploy show deploy_1"])]);
    type Response = DeployResponse;
}

impl Handler for Show {
    async fn run(self, control: Control, caller: Caller) -> Result<DeployResponse, Refusal> {
        let read = move |conn: &Connection| {
            let deploy = find(conn, caller.account_number(), &self.deploy)?;
            Ok((deploy.id, with_build(conn, deploy)?))
        };
        let (id, response) = control.read(read).await?;
        if response.deploy.status == DeployStatus::Live {
            control.builds().settled(id).await;
        }
        Ok(response)
    }
}

/// Cancels a deploy.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Cancel {
    /// Its id.
    pub deploy: String,
}

impl Request for Cancel {
    const OPERATION: Operation =
        Operation::new("deploy.cancel", Method::Post, "/v1/deploys/{deploy}/cancel", "Cancel a deploy whose build has not ended")
            .errors(&[&codes::DEPLOY_NOT_FOUND, &codes::DEPLOY_NOT_CANCELABLE])
            .commands(&[Command::new("deploy cancel")
                .arguments(&[Argument::positional("deploy", "Its id")])
                .examples(&["tovuk deploy cancel deploy_1"])]);
    type Response = DeployResponse;
}

impl Handler for Cancel {
    async fn run(self, control: Control, caller: Caller) -> Result<DeployResponse, Refusal> {
        let now = control.now_ms();
        let response = control
            .write(move |conn| {
                let deploy = find(conn, caller.account_number(), &self.deploy)?;
                if !deploys::end_build(conn, deploy.id, BuildStatus::Canceled, "cancelled", now)? {
                    let text = format!("{} is `{}`", self.deploy, deploy.status.as_str());
                    return Err(Refusal::new(&codes::DEPLOY_NOT_CANCELABLE, text));
                }
                note(conn, &caller, Self::OPERATION.name, Some(deploy.service_id), &self.deploy, now)?;
                Ok((deploy.id, with_build(conn, find(conn, caller.account_number(), &self.deploy)?)?))
            })
            .await?;
        let (deploy, response) = response;
        control.builds().cancel(deploy);
        Ok(response)
    }
}
