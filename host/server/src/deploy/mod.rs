//! From an upload to a version that serves: accepted, built, promoted. `accept` stores what came, `run` builds it, `live` is what is on the air, `boot`
//! brings it back after a start.
//!
//! A deploy is acknowledged when its upload and its row are on disk; whatever the host does afterwards, the build is begun again until it has
//! ended. What serves changes in one place, [`live::Live::put`], after the database has committed it.

pub(crate) mod accept;
pub(crate) mod boot;
pub mod builds;
mod files;
pub(crate) mod live;
mod log;
pub(crate) mod powers;
mod run;
pub(crate) mod uploads;

use tovuk_kernel::codes;

use crate::control::store::services::Service;
use crate::control::{Control, Refusal};
use live::Version;

/// Starts the live deploy of a service anew, with today's secrets, bindings and plan.
pub(crate) async fn restart(control: &Control, service: i64) -> Result<(), Refusal> {
    let _turn = control.builds().turn(service).await;
    let version = control.read(move |conn| Version::live(conn, service)).await?;
    let version = version.ok_or_else(|| Refusal::new(&codes::NOT_DEPLOYED, "the service has no live deploy"))?;
    let ready = control.live().ready(control, version)?;
    control.live().put(control, ready);
    Ok(())
}

/// The same, for a service that may have none.
pub(crate) async fn restart_if_live(control: &Control, service: i64) -> Result<(), Refusal> {
    match restart(control, service).await {
        Err(refusal) if refusal.code == &codes::NOT_DEPLOYED => Ok(()),
        other => other,
    }
}

/// Takes a service that was deleted off the air, and forgets what the database does not know of.
pub(crate) async fn removed(control: &Control, service: &Service) {
    control.live().remove(service);
    control.builds().forget(service.id);
    if let Err(error) = control.logs().delete_service(&service.service_id()).await {
        tracing::warn!("the log of {} could not be deleted: {error}", service.service_id());
    }
    uploads::sweep(control).await;
}
