//! Bringing an earlier deploy back, as a new one that is live at once.

use rusqlite::Connection;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tovuk_kernel::codes;
use tovuk_kernel::operation::{Argument, Command, Method, Operation, Request};

use super::builds::Build;
use super::deploys::{Deploy, DeployResponse, find, with_build};
use super::note;
use super::services::ServiceEntry;
use crate::control::handler::Handler;
use crate::control::store::deploys::{self, NewDeploy, Product};
use crate::control::store::services;
use crate::control::vault::random;
use crate::control::{Caller, Control, Refusal};
use crate::deploy::accept::unbound;
use crate::deploy::live::Version;
use crate::deploy::run::apply_settings;

/// Brings an earlier deploy back.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Rollback {
    /// The deploy to bring back.
    pub deploy: String,
}

/// A deploy that was brought back.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "DeployRolledBack")]
pub struct RolledBack {
    /// The new deploy, which is live.
    pub deploy: Deploy,
    /// Its build, which had nothing to do.
    pub build_job: Option<Build>,
    /// The service.
    pub service: ServiceEntry,
}

impl Request for Rollback {
    const OPERATION: Operation =
        Operation::new("deploy.rollback", Method::Post, "/v1/deploys/{deploy}/rollback", "Bring an earlier deploy back, as a new one")
            .described("Component, static files, routes, limits, settings of queues and expressions of cron triggers are those of that deploy; secrets, bindings and data are today's.")
            .errors(&[&codes::DEPLOY_NOT_FOUND, &codes::ROLLBACK_REFUSED, &codes::BINDING_REFUSED])
            .commands(&[Command::new("deploy rollback")
                .arguments(&[Argument::positional("deploy", "Its id")])
                .examples(&["tovuk deploy rollback deploy_1"])]);
    type Response = RolledBack;
}

impl Handler for Rollback {
    async fn run(self, control: Control, caller: Caller) -> Result<RolledBack, Refusal> {
        if control.is_draining() {
            return Err(Refusal::new(&codes::HOST_DRAINING, "the node takes no new deploys"));
        }
        let (account, id) = (caller.account_number(), self.deploy.clone());
        let version = control.read(move |conn| Version::of(conn, find_promoted(conn, account, &id)?)).await?;
        if let Some(artifact) = version.deploy.artifact.as_deref() {
            // After a change of the engine only what is live was compiled anew.
            control.runtime().artifacts().revive(artifact).await.map_err(Refusal::internal)?;
        }
        // What is brought back must be able to run before anything changes. No sweep comes between: the earlier deploy refers to it until the new one does.
        let _air = control.air().await;
        let (service, kind, capabilities) = (version.service.clone(), version.declared.service.kind(), version.declared.service.capabilities());
        let declared = version.declared.service.clone();
        control.live().ready(&control, version)?;
        apply_settings(&control, &service, &declared).await?;
        let (now, nonce, urls) = (control.now_ms(), random::<16>().map_err(Refusal::internal)?, control.urls().clone());
        let (version, response) = control
            .write(move |conn| {
                let earlier = find_promoted(conn, account, &self.deploy)?;
                if !kind.has_worker() {
                    unbound(conn, &service)?;
                }
                let deploy = bring_back(conn, &earlier, &nonce, now)?;
                services::describe(conn, service.id, kind, &capabilities)?;
                note(conn, &caller, Self::OPERATION.name, Some(service.id), &self.deploy, now)?;
                let version = Version::of(conn, deploy.clone())?;
                let entry = ServiceEntry::of(conn, &version.service, &urls, false)?;
                let DeployResponse { deploy, build_job, .. } = with_build(conn, deploy)?;
                Ok((version, RolledBack { deploy, build_job, service: entry }))
            })
            .await?;
        let ready = control.live().ready(&control, version)?;
        control.live().put(&control, ready);
        Ok(response)
    }
}

/// The account's deploy of this id, if it has ever been live.
fn find_promoted(conn: &Connection, account: i64, id: &str) -> Result<deploys::Deploy, Refusal> {
    let deploy = find(conn, account, id)?;
    match deploy.promoted_ms {
        Some(_) => Ok(deploy),
        None => Err(Refusal::new(&codes::ROLLBACK_REFUSED, format!("{id} was never live; it is `{}`", deploy.status.as_str()))),
    }
}

/// A new deploy that is live with what an earlier one had.
fn bring_back(conn: &Connection, earlier: &deploys::Deploy, nonce: &[u8], now_ms: i64) -> Result<deploys::Deploy, Refusal> {
    let had: Vec<String> = match services::get(conn, earlier.service_id)?.and_then(|service| service.live_deploy_id) {
        Some(live) => deploys::get(conn, live)?.and_then(|live| serde_json::from_str(&live.powers).ok()).unwrap_or_default(),
        None => Vec::new(),
    };
    let has: Vec<String> = serde_json::from_str(&earlier.powers).unwrap_or_default();
    let new_powers: Vec<_> = has.iter().filter(|power| !had.contains(power)).collect();
    let new = NewDeploy {
        service_id: earlier.service_id,
        // Its files are still the author's, wherever they are now.
        source: if earlier.source == deploys::LOCAL { deploys::LOCAL } else { "rollback" },
        upload: None,
        commit_sha: earlier.commit_sha.as_deref(),
        config: &earlier.config,
        rollback_of: Some(earlier.id),
        token_nonce: nonce,
        now_ms,
    };
    let (deploy, _) = deploys::create(conn, &new)?;
    let product = Product {
        artifact: earlier.artifact.clone(),
        assets: earlier.assets.clone(),
        component_bytes: earlier.component_bytes,
        powers: earlier.powers.clone(),
        new_powers: serde_json::to_string(&new_powers).map_err(Refusal::internal)?,
    };
    deploys::promote(conn, &deploy, &product, now_ms)?;
    deploys::get(conn, deploy.id)?.ok_or_else(|| Refusal::internal("a deploy was lost in its own transaction"))
}
