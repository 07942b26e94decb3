//! Builds and logs.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tovuk_kernel::codes;
use tovuk_kernel::ids::number;
use tovuk_kernel::limits::BUILD_WAIT_SECONDS_MAX;
use tovuk_kernel::operation::{Method, Operation, Request};

use super::deploys::find as deploy_of;
use super::timestamp;
use crate::control::handler::Handler;
use crate::control::store::deploys::{self, BuildStatus};
use crate::control::{Caller, Control, Refusal};
use crate::logs::{Page, Query};

/// A build.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Build {
    /// Its id.
    pub id: String,
    /// Its deploy.
    pub deploy_id: String,
    /// Where it stands.
    pub status: BuildStatus,
    /// Why it failed.
    pub message: String,
    /// When it was asked for.
    pub created_at: String,
    /// When it was begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
}

impl From<deploys::Build> for Build {
    fn from(build: deploys::Build) -> Self {
        Self {
            id: format!("job_{}", build.id),
            deploy_id: format!("deploy_{}", build.deploy_id),
            status: build.status,
            message: build.message,
            created_at: timestamp(build.created_ms),
            started_at: build.started_ms.map(timestamp),
            ended_at: build.ended_ms.map(timestamp),
        }
    }
}

/// Shows a build.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Show {
    /// Its id.
    pub build: String,
    /// How long to wait for its end before answering, in s, at most 20; not at all when absent.
    pub wait_seconds: Option<u32>,
}

/// A build.
#[derive(Debug, Serialize, JsonSchema)]
pub struct BuildResponse {
    /// The build.
    pub build: Build,
}

impl Request for Show {
    const OPERATION: Operation = Operation::new("build.show", Method::Get, "/v1/builds/{build}", "Show a build").errors(&[&codes::BUILD_NOT_FOUND]);
    type Response = BuildResponse;
}

impl Handler for Show {
    async fn run(self, control: Control, caller: Caller) -> Result<BuildResponse, Refusal> {
        // Subscribed before the first look, so that an end between the two is not missed.
        let mut ended = control.builds().ended();
        let wait = Duration::from_secs(self.wait_seconds.unwrap_or(0).min(BUILD_WAIT_SECONDS_MAX).into());
        let until_ended = async {
            loop {
                let build = find(&control, &caller, self.build.clone()).await?;
                if !matches!(build.status, BuildStatus::Queued | BuildStatus::Running) || ended.changed().await.is_err() {
                    return Ok::<_, Refusal>(build);
                }
            }
        };
        let build = if wait.is_zero() { None } else { control.clock().timeout(wait, until_ended).await };
        let build = match build {
            Some(build) => build?,
            None => find(&control, &caller, self.build.clone()).await?,
        };
        if build.status == BuildStatus::Succeeded {
            control.builds().settled(build.deploy_id).await;
        }
        Ok(BuildResponse { build: build.into() })
    }
}

/// The account's build of this id.
async fn find(control: &Control, caller: &Caller, id: String) -> Result<deploys::Build, Refusal> {
    let account = caller.account_number();
    control
        .read(move |conn| {
            let unknown = || Refusal::new(&codes::BUILD_NOT_FOUND, format!("there is no build `{id}` in this account"));
            deploys::find_build(conn, account, number(&id, "job").ok_or_else(unknown)?)?.ok_or_else(unknown)
        })
        .await
}

/// Reads the log of a build.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Logs {
    /// The build.
    pub build: String,
    /// Most lines to return, 1 to 1,000.
    pub limit: Option<u32>,
    /// Where to go on.
    pub cursor: Option<String>,
}

impl Request for Logs {
    const OPERATION: Operation = Operation::new("build.logs", Method::Get, "/v1/builds/{build}/logs", "Read the log of a build")
        .errors(&[&codes::BUILD_NOT_FOUND, &codes::INVALID_CURSOR]);
    type Response = Page;
}

impl Handler for Logs {
    async fn run(self, control: Control, caller: Caller) -> Result<Page, Refusal> {
        let build = find(&control, &caller, self.build).await?;
        let account = caller.account_number();
        let (deploy_id, id) = (build.deploy_id, build.id);
        let deploy = control.read(move |conn| deploy_of(conn, account, &format!("deploy_{deploy_id}"))).await?;
        let query = Query { limit: self.limit, cursor: self.cursor };
        Ok(control.logs().of_build(&format!("service_{}", deploy.service_id).into(), &format!("job_{id}").into(), &query).await?)
    }
}

/// Reads the log of a deploy.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct DeployLogs {
    /// The deploy.
    pub deploy: String,
    /// Most lines to return, 1 to 1,000.
    pub limit: Option<u32>,
    /// Where to go on.
    pub cursor: Option<String>,
}

impl Request for DeployLogs {
    const OPERATION: Operation = Operation::new("deploy.logs", Method::Get, "/v1/deploys/{deploy}/logs", "Read the log of a deploy")
        .errors(&[&codes::DEPLOY_NOT_FOUND, &codes::INVALID_CURSOR]);
    type Response = Page;
}

impl Handler for DeployLogs {
    async fn run(self, control: Control, caller: Caller) -> Result<Page, Refusal> {
        let deploy = control.read(move |conn| deploy_of(conn, caller.account_number(), &self.deploy)).await?;
        let query = Query { limit: self.limit, cursor: self.cursor };
        Ok(control.logs().of_deploy(&format!("service_{}", deploy.service_id).into(), &format!("deploy_{}", deploy.id).into(), &query).await?)
    }
}

/// Reads the log of a service.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ServiceLogs {
    /// The service.
    pub service: String,
    /// Most lines to return, 1 to 1,000.
    pub limit: Option<u32>,
    /// Where to go on.
    pub cursor: Option<String>,
}

impl Request for ServiceLogs {
    const OPERATION: Operation = Operation::new("service.logs", Method::Get, "/v1/services/{service}/logs", "Read the log of a service's worker")
        .described("What the worker has written and how its invocations have ended, the latest lines in the order of time.")
        .errors(&[&codes::INVALID_CURSOR]);
    type Response = Page;
}

impl Handler for ServiceLogs {
    async fn run(self, control: Control, caller: Caller) -> Result<Page, Refusal> {
        let service = control.service(&caller, &self.service).await?;
        let query = Query { limit: self.limit, cursor: self.cursor };
        Ok(control.logs().of_service(&service.service_id(), &query).await?)
    }
}
