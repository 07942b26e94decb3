//! What a start brings back: every live deploy, then the builds that had not ended.

use tovuk_kernel::limits::BUILD_ATTEMPTS_MAX;

use super::live::Version;
use super::uploads;
use crate::control::store::deploys::{self, BuildStatus};
use crate::control::store::services;
use crate::control::{Control, Refusal};

/// Puts on the air what was live, and begins again what was being built.
pub(crate) async fn put_on_air(control: &Control) -> Result<(), Refusal> {
    let all = control.read(|conn| Ok(services::all(conn)?)).await?;
    for service in &all {
        // First all names, so that bindings find their targets whatever the order.
        control.live().register(service);
    }
    for service in all.iter().filter(|service| service.live_deploy_id.is_some()) {
        if let Err(refusal) = bring_back(control, service.id).await {
            // One service that cannot be brought back must not keep the others off the air.
            tracing::error!("service_{} ({}) could not be brought back: {refusal}", service.id, service.name);
        }
    }
    uploads::sweep(control).await;
    resume(control).await
}

async fn bring_back(control: &Control, service: i64) -> Result<(), Refusal> {
    let Some(version) = control.read(move |conn| Version::live(conn, service)).await? else { return Ok(()) };
    if version.deploy.source == deploys::LOCAL {
        // Its secrets and files are its author's to give, which happens with the next build.
        return Ok(());
    }
    if let Some(id) = version.deploy.artifact.as_deref() {
        // After a change of the engine its code is compiled anew, here and not at the first request.
        control.runtime().artifacts().revive(id).await.map_err(Refusal::internal)?;
    }
    let ready = control.live().ready(control, version)?;
    control.live().put(control, ready);
    Ok(())
}

async fn resume(control: &Control) -> Result<(), Refusal> {
    let now = control.now_ms();
    let open = control
        .write(move |conn| {
            let mut open = Vec::new();
            for build in deploys::open_builds(conn)? {
                if build.attempts >= BUILD_ATTEMPTS_MAX {
                    let text = format!("the host ended {BUILD_ATTEMPTS_MAX} times while it built this");
                    deploys::end_build(conn, build.deploy_id, BuildStatus::Failed, &text, now)?;
                } else if let Some(deploy) = deploys::get(conn, build.deploy_id)?
                    && let Some(service) = services::get(conn, deploy.service_id)?
                {
                    open.push((service.account_id, service.id, deploy.id));
                }
            }
            Ok(open)
        })
        .await?;
    for (account, service, deploy) in open {
        control.builds().begin(control, account, service, deploy);
    }
    Ok(())
}
