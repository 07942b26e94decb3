//! Alarms of State objects: what is due is taken from the store and brought to the workers, many at a time.
//!
//! Alarms that were taken wait in a line for each service (`lines.rs`). A service, and an account with all its services, has so many deliveries at a time
//! that no other waits for it. One that cannot be reached now is tried again with one alarm a little later, or when something is promoted; the others in its
//! line go back to the store. A line has an end: what does not fit goes back as well. So memory is bounded, and whoever lets alarms pile up does not keep
//! the others from ringing. Nothing waits for the store to know how a delivery went, so that a file that fails stops no alarms of others.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, OptionFuture};
use futures::stream::{FuturesUnordered, StreamExt};
use http::StatusCode;
use serde::Serialize;
use tokio::task::JoinSet;
use tovuk_kernel::codes;
use tovuk_kernel::ids::ServiceId;
use tovuk_kernel::resource::Kind;
use tovuk_resources::state::{DueAlarm, Namespace, Outcome, Settled};
use tovuk_runtime::invoke::Event;
use tovuk_runtime::objects::{ObjectName, Ringing};
use tovuk_runtime::service::Service;

use super::Delivered;
use super::lines::{Lines, PUT_OFF_MS};
use crate::control::{Control, Refusal, store};
use crate::logs::{Line, Stream};

/// Alarms that are taken from the store at a time.
const TAKEN_AT_ONCE: usize = 1_000;
/// How long an operation of a store that failed is left alone the first time. Each further pause is twice as long.
const PAUSE: Duration = Duration::from_secs(2);
/// How long it is left alone at most.
const PAUSE_MAX: Duration = Duration::from_secs(64);

/// What a worker lacks that does not know of alarms.
const NO_HANDLER: &str =
    "the worker has no handler of alarms: it needs a function with #[tovuk::alarm], or has to answer POST /.tovuk/state/<class>/<object>/alarm";
/// How long an alarm goes back to the store whose object could not be read or written, in ms.
const FAILED_MS: u64 = 10_000;

/// What the worker is sent.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    retry_count: u32,
    is_retry: bool,
    scheduled_time_ms: u64,
}

/// Whose alarms those of a class are.
#[derive(Clone)]
struct Owner {
    service: i64,
    account: i64,
    class: Arc<str>,
}

/// An alarm on its way.
struct Ring {
    alarm: DueAlarm,
    owner: Owner,
    /// It could not be delivered at once, so it may have been removed or set anew meanwhile.
    waited: bool,
}

/// What became of one.
enum Brought {
    /// It was brought, or is none any more. What the store is to be told of it, if it does not know yet.
    Done(Option<Untold>),
    /// Its service cannot be reached now.
    Held(Box<Ring>),
}

/// A delivery that the store could not be told of.
struct Untold {
    ring: Ring,
    outcome: Outcome,
    /// Where its log goes, and why it has failed.
    failed: Option<(Arc<Service>, String)>,
}

/// The lines, and what runs.
struct Dispatcher {
    control: Control,
    lines: Lines<Ring>,
    running: JoinSet<(i64, Brought)>,
    /// What the store is being told, without anybody waiting for it.
    telling: JoinSet<()>,
    /// Services that are left alone, each until its future says so.
    paused: FuturesUnordered<BoxFuture<'static, i64>>,
    /// Nothing is taken until it ends, because the store has failed.
    rest: Option<BoxFuture<'static, ()>>,
}

/// Brings alarms until the host ends, and returns when the last has been brought.
pub(super) async fn run(control: Control) {
    let mut dispatcher = Dispatcher {
        control: control.clone(),
        lines: Lines::new(),
        running: JoinSet::new(),
        telling: JoinSet::new(),
        paused: FuturesUnordered::new(),
        rest: None,
    };
    let stopping = control.deliveries().stopping();
    tokio::pin!(stopping);
    loop {
        dispatcher.begin();
        let may_take = dispatcher.lines.room() > 0 && dispatcher.rest.is_none();
        let rest = dispatcher.rest.as_mut();
        tokio::select! {
            biased;
            () = &mut stopping => break,
            Some(ended) = dispatcher.running.join_next() => dispatcher.ended(ended),
            Some(_) = dispatcher.telling.join_next() => {}
            Some(service) = dispatcher.paused.next() => dispatcher.lines.resume(service),
            Some(()) = OptionFuture::from(rest) => dispatcher.rest = None,
            () = control.state().wait_due(), if may_take => dispatcher.take().await,
        }
    }
    // What stands in a line is due again after the next start.
    while let Some(ended) = dispatcher.running.join_next().await {
        dispatcher.ended(ended);
    }
    while dispatcher.telling.join_next().await.is_some() {}
}

impl Dispatcher {
    /// Takes what is due.
    async fn take(&mut self) {
        let alarms_max = TAKEN_AT_ONCE.min(self.lines.room());
        let taken = match self.control.state().take_due(alarms_max).await {
            Ok(taken) => taken,
            Err(error) => {
                tracing::error!(%error, "alarms that are due could not be taken");
                let control = self.control.clone();
                self.rest = Some(Box::pin(async move { control.clock().sleep(PAUSE).await }));
                return;
            }
        };
        let owners = match owners(&self.control, &taken).await {
            Ok(owners) => owners,
            Err(refusal) => {
                tracing::error!(%refusal, "it could not be found out whose alarms are due");
                return self.put_back(taken.into_iter().map(|alarm| (alarm, PUT_OFF_MS)).collect());
            }
        };
        let mut put_off = Vec::new();
        for alarm in taken {
            let Some(owner) = owners.get(&alarm.namespace) else {
                // The class is being deleted, and its alarms go with it.
                put_off.push((alarm, 60 * PUT_OFF_MS));
                continue;
            };
            match self.lines.admit(owner.service, owner.account) {
                Ok(waited) => self.lines.push(owner.service, Ring { alarm, owner: owner.clone(), waited }),
                Err(wait_ms) => put_off.push((alarm, wait_ms)),
            }
        }
        self.put_back(put_off);
    }

    /// Begins as many deliveries as may run.
    fn begin(&mut self) {
        while let Some((service, ring)) = self.lines.next() {
            let control = self.control.clone();
            self.running.spawn(async move { (service, bring(&control, ring).await) });
        }
    }

    /// A delivery has ended.
    fn ended(&mut self, ended: Result<(i64, Brought), tokio::task::JoinError>) {
        // It does not panic; and what is cancelled is cancelled with all.
        let Ok((service, brought)) = ended else { return };
        let control = self.control.clone();
        let held = match brought {
            Brought::Held(ring) => Some(Ring { waited: true, ..*ring }),
            Brought::Done(None) => None,
            Brought::Done(Some(untold)) => {
                self.telling.spawn(async move { untold.tell(&control).await });
                None
            }
        };
        let paused = self.lines.ended(service, held);
        self.put_back(paused.put_off.into_iter().map(|(ring, wait_ms)| (ring.alarm, wait_ms)).collect());
        if let Some(resume_in) = paused.resume_in {
            let control = self.control.clone();
            self.paused.push(Box::pin(async move {
                control.clock().timeout(resume_in, control.deliveries().next_promotion()).await;
                service
            }));
        }
    }

    /// Gives alarms back to the store, each for so many ms. It counts as no attempt.
    fn put_back(&mut self, alarms: Vec<(DueAlarm, u64)>) {
        if alarms.is_empty() {
            return;
        }
        let control = self.control.clone();
        self.telling.spawn(async move {
            let now = control.clock().now_unix_ms();
            let each = alarms.into_iter().map(async |(alarm, wait_ms)| {
                settle(&control, &alarm, Outcome::Refused { retry_at: now.saturating_add(wait_ms) }).await;
            });
            futures::future::join_all(each).await;
        });
    }
}

/// Whose alarms these are. What is not in the answer is nobody's any more.
async fn owners(control: &Control, alarms: &[DueAlarm]) -> Result<HashMap<Namespace, Owner>, Refusal> {
    let namespaces: HashSet<Namespace> = alarms.iter().map(|alarm| alarm.namespace).collect();
    let work = control.read(move |conn| {
        let mut owners = HashMap::with_capacity(namespaces.len());
        for namespace in namespaces {
            if let Some((number, row)) = store::resources::by_number(conn, Kind::State, namespace.0)?
                && let Some(service) = store::services::get(conn, number)?
            {
                owners.insert(namespace, Owner { service: number, account: service.account_id, class: row.name.into() });
            }
        }
        Ok(owners)
    });
    work.await
}

/// Tells the store how a delivery went. None when it does not know, which has been logged.
async fn settle_once(control: &Control, alarm: &DueAlarm, outcome: Outcome) -> Option<Settled> {
    let settled = control.state().settle(alarm, outcome).await;
    settled.inspect_err(|error| tracing::error!(%error, "it could not be written down how the delivery of an alarm went")).ok()
}

/// Tells the store how a delivery went, until it knows or the host ends. Then the alarm is delivered again after the next start.
async fn settle(control: &Control, alarm: &DueAlarm, outcome: Outcome) -> Option<Settled> {
    let known = async {
        let mut pause = PAUSE;
        loop {
            if let Some(settled) = settle_once(control, alarm, outcome).await {
                return settled;
            }
            control.clock().sleep(pause).await;
            pause = pause.saturating_mul(2).min(PAUSE_MAX);
        }
    };
    tokio::select! {
        biased;
        settled = known => Some(settled),
        () = control.deliveries().cut() => None,
    }
}

impl Untold {
    /// Tells the store, and the service's log what becomes of the alarm.
    async fn tell(self, control: &Control) {
        let settled = settle(control, &self.ring.alarm, self.outcome).await;
        if let Some((service, why)) = &self.failed {
            told(control, service, &self.ring, settled, why);
        }
    }
}

/// Tells the store how a delivery went, or what it is to be told later.
async fn done(control: &Control, ring: Ring, outcome: Outcome, failed: Option<(Arc<Service>, String)>) -> Brought {
    let Some(settled) = settle_once(control, &ring.alarm, outcome).await else {
        return Brought::Done(Some(Untold { ring, outcome, failed }));
    };
    if let Some((service, why)) = failed {
        told(control, &service, &ring, Some(settled), &why);
    }
    Brought::Done(None)
}

/// Delivers one alarm and tells the store.
async fn bring(control: &Control, ring: Ring) -> Brought {
    let (alarm, id) = (&ring.alarm, ServiceId::from(format!("service_{}", ring.owner.service)));
    if ring.waited && !control.state().stands(alarm).await.unwrap_or(true) {
        return done(control, ring, Outcome::Delivered, None).await;
    }
    let Some(service) = control.runtime().services().get(&id) else { return Brought::Held(Box::new(ring)) };
    let delivered = match event(&service, &ring) {
        Ok(event) => control.deliveries().bring(control.runtime(), &service, event).await,
        Err(why) => Ok(Delivered::Failed(why)),
    };
    let why = match delivered {
        Ok(Delivered::Answered { status, .. }) if status.is_success() => None,
        Ok(Delivered::Answered { status: StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED, .. }) => Some(NO_HANDLER.to_owned()),
        Ok(Delivered::Answered { status, .. }) => Some(format!("the worker answered with {}", status.as_u16())),
        Ok(Delivered::Failed(why)) => Some(why),
        Err(refused) if [codes::STATE_OBJECT_BUSY.code, codes::STORAGE_FAILED.code].contains(&refused.code.code) => {
            // The others of the service need not wait for this object, nor for a file that has failed.
            let wait_ms = if refused.code.code == codes::STORAGE_FAILED.code { FAILED_MS } else { PUT_OFF_MS };
            let retry_at = control.clock().now_unix_ms().saturating_add(wait_ms);
            return done(control, ring, Outcome::Refused { retry_at }, None).await;
        }
        Ok(Delivered::Held(_)) | Err(_) => return Brought::Held(Box::new(ring)),
    };
    let outcome = if why.is_none() { Outcome::Delivered } else { Outcome::Failed };
    done(control, ring, outcome, why.map(|why| (service, why))).await
}

/// What is brought to the worker: to its handler of alarms or, where it has none, as a request.
fn event(service: &Service, ring: &Ring) -> Result<Event, String> {
    let Ring { alarm, owner, .. } = ring;
    let body = Body { retry_count: alarm.retry_count, is_retry: alarm.is_retry, scheduled_time_ms: alarm.scheduled_at };
    let body = serde_json::to_vec(&body).map_err(|error| error.to_string())?;
    let request = super::request(service, &["state", &owner.class, &alarm.object, "alarm"], body.into())?;
    let name = ObjectName { namespace: alarm.namespace, class: owner.class.clone(), object: alarm.object.clone() };
    Ok(Event::Alarm(name, Ringing { scheduled_ms: alarm.scheduled_at, retry_count: alarm.retry_count }, request))
}

/// Writes into the service's log what becomes of an alarm whose delivery has failed.
fn told(control: &Control, service: &Service, ring: &Ring, settled: Option<Settled>, why: &str) {
    let what = format!("the alarm of {} `{}`", ring.owner.class, ring.alarm.object.escape_debug());
    let message = match settled {
        Some(Settled::Retry { at }) => {
            let seconds = at.saturating_sub(control.clock().now_unix_ms()).div_ceil(1_000);
            format!("{what} has failed and is tried again in {seconds} s: {why}")
        }
        Some(Settled::Cleared) => format!("{what} has failed {} times and is cleared: {why}", ring.alarm.retry_count + 1),
        Some(Settled::Superseded) => format!("{what} has failed, and was set anew or removed meanwhile: {why}"),
        Some(Settled::Done) | None => return,
    };
    let identity = &service.identity;
    control.say(Line::new(identity.id.clone(), identity.account.clone(), Stream::System, message));
}
