//! What has to be done from time to time: domains are looked up again, and what has ended is forgotten.

use std::time::Duration;

use futures::StreamExt;

use super::JANITOR_INTERVAL;
use crate::control::store::{accounts, activity, domains, logins, services};
use crate::control::{Control, Refusal};
use tovuk_kernel::limits::ACTIVITY_DAYS;

const DAY: Duration = Duration::from_secs(24 * 3_600);
/// Domains that are looked up in one round; the rest are in the next.
const DOMAINS_A_ROUND: u32 = 1_000;
/// Domains that are looked up at a time. A name server that is silent holds up one of them for as long as the resolver waits.
const DOMAINS_AT_A_TIME: usize = 16;

/// Looks after the host for as long as it runs.
pub(super) async fn run(control: Control) {
    sweep_objects(&control).await;
    loop {
        control.clock().sleep(JANITOR_INTERVAL).await;
        if let Err(refusal) = round(&control).await {
            tracing::warn!("the hourly round was not finished: {refusal}");
        }
    }
}

async fn round(control: &Control) -> Result<(), Refusal> {
    let now = control.now_ms();
    let day_ms = i64::try_from(DAY.as_millis()).unwrap_or(i64::MAX);
    let kept_ms = day_ms.saturating_mul(i64::try_from(ACTIVITY_DAYS).unwrap_or(i64::MAX));
    let ended = control
        .write(move |conn| {
            activity::prune(conn, now.saturating_sub(kept_ms))?;
            logins::expire(conn, now)?;
            Ok(accounts::expire_tokens(conn, now)?)
        })
        .await?;
    for digest in ended {
        control.tokens().remove(&digest);
    }
    crate::deploy::uploads::sweep(control).await;
    sweep_objects(control).await;
    let due = control.read(move |conn| Ok(domains::due(conn, now.saturating_sub(day_ms), DOMAINS_A_ROUND)?)).await?;
    let looks = futures::stream::iter(due).for_each_concurrent(DOMAINS_AT_A_TIME, async |domain| {
        let id = domain.id;
        if let Err(refusal) = look_again(control, domain).await {
            tracing::warn!("the domain {id} could not be looked at: {refusal}");
        }
    });
    looks.await;
    Ok(())
}

/// Uploads that were begun and never completed end, and bytes that nothing refers to go.
pub(super) async fn sweep_objects(control: &Control) {
    match control.objects().sweep().await {
        Ok(swept) if swept.uploads > 0 => tracing::info!("{} abandoned uploads of objects were ended", swept.uploads),
        Ok(_) => {}
        Err(error) => tracing::warn!("abandoned uploads of objects are still there: {error}"),
    }
}

/// A verified domain whose record is certainly gone at two looks in a row is given up. That a resolver fails says nothing about the domain.
async fn look_again(control: &Control, domain: domains::Domain) -> Result<(), Refusal> {
    let record = control.records().of(domain.service_id, &domain.hostname);
    let looked = control.resolver().verify(&domain.hostname, &record.dns_record_value).await;
    let (id, now) = (domain.id, control.now_ms());
    let problem = match looked {
        Ok(()) => return control.write(move |conn| Ok(domains::verified(conn, id, now)?)).await,
        Err(error) if error.is_definite() => error.to_string(),
        Err(_) => return control.write(move |conn| Ok(domains::looked(conn, id, None, now)?)).await,
    };
    if domain.problem.is_none() {
        return control.write(move |conn| Ok(domains::looked(conn, id, Some(&problem), now)?)).await;
    }
    let air = control.air().await;
    let lost = control.write(move |conn| {
        if !domains::lost(conn, id, &problem, now)? {
            return Ok(None);
        }
        let Some(service) = services::get(conn, domain.service_id)? else { return Ok(None) };
        let hosts = domains::verified_names(conn, service.id)?;
        Ok(Some((service, hosts)))
    });
    let Some((service, hosts)) = lost.await? else { return Ok(()) };
    tracing::warn!("{} no longer leads to service_{} and is given up", domain.hostname, domain.service_id);
    control.live().set_domains(&air, &service, hosts);
    control.live().forget_domain(&domain.hostname);
    Ok(())
}
