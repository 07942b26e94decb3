//! Builds.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tovuk_kernel::codes;
use tovuk_kernel::ids::number;
use tovuk_kernel::limits::BUILD_WAIT_SECONDS_MAX;
use tovuk_kernel::operation::{Method, Operation, Request};

use super::timestamp;
use crate::control::handler::Handler;
use crate::control::store::deploys::{self, BuildStatus};
use crate::control::{Caller, Control, Refusal};

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
pub(super) async fn find(control: &Control, caller: &Caller, id: String) -> Result<deploys::Build, Refusal> {
    let account = caller.account_number();
    control
        .read(move |conn| {
            let unknown = || Refusal::new(&codes::BUILD_NOT_FOUND, format!("there is no build `{id}` in this account"));
            deploys::find_build(conn, account, number(&id, "job").ok_or_else(unknown)?)?.ok_or_else(unknown)
        })
        .await
}
