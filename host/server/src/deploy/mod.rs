//! From an upload to a version that serves: accepted, built, promoted. `accept` stores what came, `run` builds it, `live` is what is on the air, `boot`
//! brings it back after a start. `local` is the other way in, for what its author has built on this machine.
//!
//! A deploy is acknowledged when its upload and its row are on disk; whatever the host does afterwards, the build is begun again until it has
//! ended. What serves changes in one place, `live::Live::put`, after the database has committed it.

pub(crate) mod accept;
pub(crate) mod boot;
pub mod builds;
mod files;
mod kept;
pub(crate) mod live;
pub mod local;
mod log;
pub mod migrations;
pub mod powers;
pub(crate) mod run;
pub(crate) mod uploads;

use rusqlite::Connection;
use tokio::sync::MutexGuard;
use tovuk_kernel::codes;

use crate::control::store::services::Service;
use crate::control::store::{deploys, domains};
use crate::control::{Control, Refusal};
use live::Version;

/// The right to change what is on the air: see [`Control::air`].
pub(crate) type Air<'a> = MutexGuard<'a, ()>;

/// Starts the live deploy of a service anew, with today's secrets, bindings, domains and plan.
pub(crate) async fn restart(control: &Control, _air: &Air<'_>, service: i64) -> Result<(), Refusal> {
    let version = control.read(move |conn| Version::live(conn, service)).await?;
    let version = version.ok_or_else(|| Refusal::new(&codes::NOT_DEPLOYED, "the service has no live deploy"))?;
    let ready = control.live().ready(control, version)?;
    control.live().put(control, ready);
    Ok(())
}

/// The same for several, of which some may have none. One that fails does not keep the others from theirs.
pub(crate) async fn restart_all(control: &Control, air: &Air<'_>, services: &[Service]) {
    for service in services {
        match restart(control, air, service.id).await {
            Err(refusal) if refusal.code != &codes::NOT_DEPLOYED => {
                tracing::error!("service_{} ({}) could not be started anew: {refusal}", service.id, service.name);
            }
            _ => {}
        }
    }
}

/// A service that is being deleted, with what its rows will no longer say.
pub(crate) struct Removed {
    /// The service.
    pub service: Service,
    /// Deploys whose builds have not ended.
    building: Vec<i64>,
    /// Its verified host names.
    hostnames: Vec<String>,
}

impl Removed {
    /// Reads it, in the transaction that deletes.
    pub fn of(conn: &Connection, service: Service) -> Result<Self, Refusal> {
        let building = deploys::building(conn, service.id)?;
        let verified = domains::list(conn, service.id)?.into_iter().filter(|domain| domain.verified_ms.is_some());
        Ok(Self { building, hostnames: verified.map(|domain| domain.hostname).collect(), service })
    }
}

/// Takes services that were deleted off the air, and forgets what the database does not know of.
pub(crate) async fn removed(control: &Control, air: Air<'_>, removed: Vec<Removed>) {
    for Removed { service, building, hostnames } in &removed {
        control.live().remove(service);
        building.iter().for_each(|deploy| control.builds().cancel(*deploy));
        control.builds().forget(service.id);
        hostnames.iter().for_each(|hostname| control.live().forget_domain(hostname));
    }
    drop(air);
    for Removed { service, .. } in &removed {
        if let Err(error) = control.meters().delete_caps(service.account_id, Some(service.id)).await {
            tracing::warn!("the caps of {} could not be removed: {error}", service.service_id());
        }
        control.metrics().forget(&service.service_id());
        if let Err(error) = control.traces().delete_service(&service.service_id()).await {
            tracing::warn!("traces of {} are left until they are old: {error}", service.service_id());
        }
        if let Err(error) = control.logs().delete_service(&service.service_id()).await {
            tracing::warn!("the log of {} could not be deleted: {error}", service.service_id());
        }
    }
    control.remove_data().await;
    uploads::sweep(control).await;
}
