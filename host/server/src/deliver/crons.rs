//! Ticks of cron triggers, brought to their workers. One task waits for the next time at which anything is due, and takes what is due in batches; each tick
//! is a task of its own from then on.
//!
//! Ticks of one account wait for each other beyond a number that run at a time, so that one account's slow workers do not keep others waiting. What a
//! worker answers decides: 2xx is success, anything else is tried again by the store's rules. What never reached a worker is held, and does not count.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use futures::FutureExt;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tovuk_kernel::clock::UnixMs;
use tovuk_kernel::ids::{AccountId, ServiceId};
use tovuk_kernel::limits::{CRON_ACCOUNT_CONCURRENCY, CRON_ACCOUNT_TICKS_MAX, CRON_TICKS_MAX};
use tovuk_kernel::resource::Kind;
use tovuk_resources::cron::{Error, Tick};
use tovuk_runtime::record::EventKind;

use super::Delivered;
use crate::control::Control;
use crate::control::store::resources as rows;
use crate::logs::{Line, Stream};

/// Ticks that are taken from the store at a time.
const BATCH: usize = 1_024;
/// How long the task sleeps at most: the machine's clock can be set while it does.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// How long it leaves the store alone after it failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// How much of what is said of a delivery the history keeps, in characters.
const DETAIL_CHARS: usize = 300;

/// What a worker is sent.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Payload<'a> {
    name: &'a str,
    cron_expression: &'a str,
    scheduled_time_ms: UnixMs,
}

/// Takes what is due until the host ends.
pub(super) async fn run(control: Control) {
    let (crons, deliveries) = (control.crons(), control.deliveries());
    let (room, lanes) = (Arc::new(Semaphore::new(CRON_TICKS_MAX)), Arc::new(Lanes::default()));
    let stopping = deliveries.stopping();
    tokio::pin!(stopping);
    let promoted = deliveries.next_promotion();
    tokio::pin!(promoted);
    promoted.as_mut().enable();
    loop {
        let taken = tokio::select! {
            biased;
            () = &mut stopping => return,
            taken = take(&control, &room) => taken,
        };
        let pause = match taken {
            Ok(ticks) if !ticks.is_empty() => {
                for (tick, place) in ticks {
                    deliveries.spawn(deliver(control.clone(), lanes.clone(), tick, place));
                }
                continue;
            }
            Ok(_) => pause(&control).await,
            Err(error) => Err(error),
        };
        let pause = pause.unwrap_or_else(|error| {
            tracing::error!("ticks of cron triggers cannot be taken: {error}");
            AFTER_FAILURE
        });
        tokio::select! {
            biased;
            () = &mut stopping => return,
            () = crons.changed() => {}
            () = &mut promoted => {
                promoted.set(deliveries.next_promotion());
                promoted.as_mut().enable();
                retry_held(&control).await;
            }
            () = control.clock().sleep(pause) => {}
        }
    }
}

/// What is due, as far as there is room, which is waited for.
async fn take(control: &Control, room: &Arc<Semaphore>) -> Result<Vec<(Tick, OwnedSemaphorePermit)>, Error> {
    // The semaphore is never closed, and nobody else takes of it.
    let Ok(first) = room.clone().acquire_owned().await else { return Ok(Vec::new()) };
    let more = room.available_permits().min(BATCH - 1);
    let ticks = control.crons().due(more + 1).await?;
    let places = std::iter::once(first).chain(std::iter::from_fn(|| room.clone().try_acquire_owned().ok()));
    Ok(ticks.into_iter().zip(places).collect())
}

/// How long nothing is due.
async fn pause(control: &Control) -> Result<Duration, Error> {
    let next = control.crons().next_due().await?;
    let now = control.clock().now_unix_ms();
    Ok(next.map_or(LONGEST_SLEEP, |next| Duration::from_millis(next.saturating_sub(now)).min(LONGEST_SLEEP)))
}

async fn retry_held(control: &Control) {
    if let Err(error) = control.crons().retry_held().await {
        tracing::warn!("ticks of cron triggers that wait for a worker stay so: {error}");
    }
}

/// Delivers one tick and tells the store how it went.
async fn deliver(control: Control, lanes: Arc<Lanes>, tick: Tick, _place: OwnedSemaphorePermit) {
    // From before it is tried: a version that goes on the air while it is refused has to be noticed.
    let promoted = control.deliveries().next_promotion();
    tokio::pin!(promoted);
    promoted.as_mut().enable();
    let Some(delivered) = brought(&control, &lanes, &tick).await else { return };
    let service = service(&tick);
    let named = format!("cron trigger {}", tick.trigger().name);
    let is_held = matches!(delivered, Delivered::Held(_));
    let settled = match delivered {
        Delivered::Answered { status, .. } if status.is_success() => tick.succeeded(Some(format!("answered {}", status.as_u16()))).await,
        Delivered::Answered { status, body } => {
            let body = String::from_utf8_lossy(&body);
            let text = format!("answered {} {}", status.as_u16(), body.trim());
            failed(&control, &service, &named, tick, text).await
        }
        Delivered::Failed(text) => failed(&control, &service, &named, tick, text).await,
        Delivered::Held(text) => tick.hold(Some(shortened(&text))).await.map(drop),
    };
    if let Err(error) = settled {
        tracing::error!("what became of a tick of a {named} of {service} could not be stored: {error}");
    }
    if is_held && promoted.now_or_never().is_some() {
        retry_held(&control).await;
    }
}

fn service(tick: &Tick) -> ServiceId {
    format!("service_{}", tick.trigger().service.0).into()
}

/// Calls the worker when it is the tick's turn. None when the host ends before: the tick comes again after the next start.
async fn brought(control: &Control, lanes: &Arc<Lanes>, tick: &Tick) -> Option<Delivered> {
    let (id, trigger) = (service(tick), tick.trigger());
    let Some(service) = control.runtime().services().get(&id) else {
        return Some(Delivered::Held(format!("{id} is not on the air")));
    };
    let Some(lane) = Lane::enter(lanes, &service.identity.account) else {
        return Some(Delivered::Held(format!("{CRON_ACCOUNT_TICKS_MAX} ticks of the account wait or run")));
    };
    let _turn = tokio::select! {
        biased;
        () = control.deliveries().stopping() => return None,
        turn = lane.running.acquire() => turn,
    };
    if let Err(why) = check(control, tick).await {
        return Some(Delivered::Held(why));
    }
    let payload = Payload { name: &trigger.name, cron_expression: &trigger.expression, scheduled_time_ms: tick.scheduled_ms() };
    let body = match serde_json::to_vec(&payload) {
        Ok(body) => Bytes::from(body),
        Err(error) => return Some(Delivered::Failed(error.to_string())),
    };
    Some(control.deliveries().deliver(control.runtime(), &id, EventKind::Cron, &["cron", &trigger.name], body).await)
}

/// Refuses a tick whose trigger was dropped or disabled while it waited for its turn, which can take hours, and one whose trigger the control database does
/// not know as one of that service, as after an older one was restored: who has the service's number now need not be who made the trigger.
async fn check(control: &Control, tick: &Tick) -> Result<(), String> {
    match tick.is_wanted().await {
        Ok(true) => {}
        Ok(false) => return Err("the trigger was deleted or disabled before".to_owned()),
        Err(error) => return Err(format!("whether it is still wanted cannot be read now: {error}")),
    }
    let trigger = tick.trigger();
    let (number, service) = (trigger.number.0, trigger.service.0);
    match control.read(move |conn| Ok(rows::by_number(conn, Kind::Cron, number)?)).await {
        Ok(Some((owner, _))) if owner == service => Ok(()),
        Ok(_) => Err(format!("cron_{number} is no trigger of service_{service}")),
        Err(refusal) => Err(format!("whose cron_{number} is cannot be read now: {refusal}")),
    }
}

/// Tells the store and the service's log that a delivery has failed.
async fn failed(control: &Control, service: &ServiceId, named: &str, tick: Tick, text: String) -> Result<(), Error> {
    let (attempt, text) = (tick.attempt(), shortened(&text));
    let again = tick.failed(Some(text.clone())).await?;
    let rest = match again.map(|due| due.saturating_sub(control.clock().now_unix_ms()).div_ceil(1_000)) {
        Some(seconds) => format!("it is delivered again in {seconds} s"),
        None => "it is not delivered again".to_owned(),
    };
    // A service that was deleted meanwhile has no log.
    if let Some(found) = control.runtime().services().get(service) {
        let line = format!("{named}: delivery {attempt} failed: {text}; {rest}");
        control.say(Line::new(service.clone(), found.identity.account.clone(), Stream::System, line));
    }
    Ok(())
}

fn shortened(text: &str) -> String {
    text.trim_end().chars().take(DETAIL_CHARS).collect()
}

/// The ticks of each account that run or wait for their turn.
type Lanes = DashMap<AccountId, (usize, Arc<Semaphore>)>;

/// A place among the ticks of an account.
struct Lane {
    lanes: Arc<Lanes>,
    account: AccountId,
    running: Arc<Semaphore>,
}

impl Lane {
    /// A place, unless the account has as many as it may.
    fn enter(lanes: &Arc<Lanes>, account: &AccountId) -> Option<Self> {
        let mut lane = lanes.entry(account.clone()).or_insert_with(|| (0, Arc::new(Semaphore::new(CRON_ACCOUNT_CONCURRENCY))));
        if lane.0 >= CRON_ACCOUNT_TICKS_MAX {
            return None;
        }
        lane.0 += 1;
        Some(Self { lanes: lanes.clone(), account: account.clone(), running: lane.1.clone() })
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.lanes.remove_if_mut(&self.account, |_, lane| {
            lane.0 = lane.0.saturating_sub(1);
            lane.0 == 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_has_a_number_of_places_and_leaves_nothing_behind() {
        let (lanes, account) = (Arc::new(Lanes::default()), AccountId::from("account_1".to_owned()));
        let mut held: Vec<_> = (0..CRON_ACCOUNT_TICKS_MAX).map_while(|_| Lane::enter(&lanes, &account)).collect();
        assert_eq!(held.len(), CRON_ACCOUNT_TICKS_MAX);
        assert!(Lane::enter(&lanes, &account).is_none() && Lane::enter(&lanes, &AccountId::from("account_2".to_owned())).is_some());
        held.pop();
        assert!(Lane::enter(&lanes, &account).is_some());
        held.clear();
        assert!(lanes.is_empty());
    }
}
