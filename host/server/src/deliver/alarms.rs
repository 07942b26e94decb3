//! Alarms of State objects: what is due is taken from the store and brought to the workers, many at a time.
//!
//! Alarms that were taken wait in a line for each service. A service has so many deliveries at a time that no other waits for it, and one that cannot be
//! reached now is tried again a little later, or when something is promoted, with all that stands in its line. A line has an end: what does not fit goes
//! back to the store for a while. So memory is bounded, and whoever lets alarms pile up does not keep the others from ringing.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use serde::Serialize;
use tokio::task::JoinSet;
use tovuk_kernel::codes;
use tovuk_kernel::ids::ServiceId;
use tovuk_kernel::limits::{DELIVERIES_ALARM_MAX, DELIVERIES_ALARM_SERVICE_MAX};
use tovuk_kernel::resource::Kind;
use tovuk_resources::state::{DueAlarm, Namespace, Outcome, Settled};
use tovuk_runtime::invoke::Event;
use tovuk_runtime::objects::{ObjectName, Ringing};
use tovuk_runtime::service::Service;

use super::Delivered;
use crate::control::{Control, Refusal, store};
use crate::logs::{Line, Stream};

/// Alarms that are taken from the store at a time.
const TAKEN_AT_ONCE: usize = 1_000;
/// Alarms that stand in all lines.
const WAITING_MAX: usize = 65_536;
/// Alarms that stand in the line of one service.
const LINE_MAX: usize = 16_384;
/// The same when half of all room is taken.
const CROWDED_LINE_MAX: usize = 1_024;
/// How long a service that could not be reached is left alone, and how long an operation of a store that failed is.
const PAUSE: Duration = Duration::from_secs(2);
/// How long an alarm goes back to the store at least for want of room, in ms. Each further one of the service goes back for 1 ms more.
const PUT_OFF_MS: u64 = 1_000;

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
    /// The store knows.
    Settled,
    /// Its service cannot be reached now.
    Held(Box<Ring>),
}

/// The alarms of one service.
#[derive(Default)]
struct Waiting {
    waiting: VecDeque<Ring>,
    running: usize,
    is_paused: bool,
    /// It stands among those that may be looked at.
    is_ready: bool,
    /// Alarms that went back to the store since the line last had room.
    put_off: u64,
}

impl Waiting {
    fn may_run(&self) -> bool {
        !self.is_paused && self.running < DELIVERIES_ALARM_SERVICE_MAX && !self.waiting.is_empty()
    }
}

/// The lines, and what runs.
struct Dispatcher {
    control: Control,
    lines: HashMap<i64, Waiting>,
    /// Services whose next alarm may be delivered, in turn.
    ready: VecDeque<i64>,
    waiting: usize,
    running: JoinSet<(i64, Brought)>,
    /// Services that are left alone, each until its future says so.
    paused: FuturesUnordered<BoxFuture<'static, i64>>,
}

/// Brings alarms until the host ends, and returns when the last has been brought.
pub(super) async fn run(control: Control) {
    let mut dispatcher = Dispatcher {
        control: control.clone(),
        lines: HashMap::new(),
        ready: VecDeque::new(),
        waiting: 0,
        running: JoinSet::new(),
        paused: FuturesUnordered::new(),
    };
    let stopping = control.deliveries().stopping();
    tokio::pin!(stopping);
    loop {
        dispatcher.begin();
        let is_room = dispatcher.waiting < WAITING_MAX;
        tokio::select! {
            biased;
            () = &mut stopping => break,
            Some(ended) = dispatcher.running.join_next() => dispatcher.ended(ended),
            Some(service) = dispatcher.paused.next() => dispatcher.resume(service),
            () = control.state().wait_due(), if is_room => dispatcher.take().await,
        }
    }
    // What stands in a line is due again after the next start.
    while dispatcher.running.join_next().await.is_some() {}
}

impl Dispatcher {
    /// Takes what is due.
    async fn take(&mut self) {
        let alarms_max = TAKEN_AT_ONCE.min(WAITING_MAX.saturating_sub(self.waiting));
        let taken = match self.control.state().take_due(alarms_max).await {
            Ok(taken) => taken,
            Err(error) => {
                tracing::error!(%error, "alarms that are due could not be taken");
                self.control.clock().timeout(PAUSE, self.control.deliveries().stopping()).await;
                return;
            }
        };
        let owners = match owners(&self.control, &taken).await {
            Ok(owners) => owners,
            Err(refusal) => {
                tracing::error!(%refusal, "it could not be found out whose alarms are due");
                return put_back(&self.control, taken.into_iter().map(|alarm| (alarm, PUT_OFF_MS)).collect()).await;
            }
        };
        let mut put_off = Vec::new();
        for alarm in taken {
            let Some(owner) = owners.get(&alarm.namespace) else {
                // The class is being deleted, and its alarms go with it.
                put_off.push((alarm, 60 * PUT_OFF_MS));
                continue;
            };
            let line_max = if self.waiting > WAITING_MAX / 2 { CROWDED_LINE_MAX } else { LINE_MAX };
            let line = self.lines.entry(owner.service).or_default();
            if line.waiting.len() < line_max {
                line.put_off = 0;
                let waited = !line.may_run();
                line.waiting.push_back(Ring { alarm, owner: owner.clone(), waited });
                self.waiting += 1;
                self.look_at(owner.service);
            } else {
                line.put_off += 1;
                put_off.push((alarm, PUT_OFF_MS + line.put_off));
            }
        }
        put_back(&self.control, put_off).await;
    }

    /// Sees to it that a service has its turn, if it has something to deliver.
    fn look_at(&mut self, service: i64) {
        let Some(line) = self.lines.get_mut(&service) else { return };
        if line.may_run() && !line.is_ready {
            line.is_ready = true;
            self.ready.push_back(service);
        }
        if line.waiting.is_empty() && line.running == 0 && !line.is_paused && !line.is_ready {
            self.lines.remove(&service);
        }
    }

    /// Begins as many deliveries as may run.
    fn begin(&mut self) {
        while self.running.len() < DELIVERIES_ALARM_MAX
            && let Some(service) = self.ready.pop_front()
        {
            let Some(line) = self.lines.get_mut(&service) else { continue };
            line.is_ready = false;
            if line.may_run()
                && let Some(ring) = line.waiting.pop_front()
            {
                line.running += 1;
                self.waiting -= 1;
                let control = self.control.clone();
                self.running.spawn(async move { (service, bring(&control, ring).await) });
            }
            self.look_at(service);
        }
    }

    /// A delivery has ended.
    fn ended(&mut self, ended: Result<(i64, Brought), tokio::task::JoinError>) {
        // It does not panic; and what is cancelled is cancelled with all.
        let Ok((service, brought)) = ended else { return };
        let line = self.lines.entry(service).or_default();
        line.running = line.running.saturating_sub(1);
        if let Brought::Held(ring) = brought {
            line.waiting.push_front(Ring { waited: true, ..*ring });
            self.waiting += 1;
            if !std::mem::replace(&mut line.is_paused, true) {
                let control = self.control.clone();
                self.paused.push(Box::pin(async move {
                    control.clock().timeout(PAUSE, control.deliveries().next_promotion()).await;
                    service
                }));
            }
        }
        self.look_at(service);
    }

    /// A service may be tried again.
    fn resume(&mut self, service: i64) {
        if let Some(line) = self.lines.get_mut(&service) {
            line.is_paused = false;
        }
        self.look_at(service);
    }
}

/// Whose alarms these are. What is not in the answer is nobody's any more.
async fn owners(control: &Control, alarms: &[DueAlarm]) -> Result<HashMap<Namespace, Owner>, Refusal> {
    let namespaces: HashSet<Namespace> = alarms.iter().map(|alarm| alarm.namespace).collect();
    let work = control.read(move |conn| {
        let mut owners = HashMap::with_capacity(namespaces.len());
        for namespace in namespaces {
            if let Some((service, row)) = store::resources::by_number(conn, Kind::State, namespace.0)? {
                owners.insert(namespace, Owner { service, class: row.name.into() });
            }
        }
        Ok(owners)
    });
    work.await
}

/// Gives alarms back to the store, each for so many ms. It counts as no attempt.
async fn put_back(control: &Control, alarms: Vec<(DueAlarm, u64)>) {
    let now = control.clock().now_unix_ms();
    let each = alarms.into_iter().map(async |(alarm, wait_ms)| {
        settle(control, &alarm, Outcome::Refused { retry_at: now.saturating_add(wait_ms) }).await;
    });
    futures::future::join_all(each).await;
}

/// Tells the store how a delivery went, until it knows or the host ends. Then the alarm is delivered again after the next start.
async fn settle(control: &Control, alarm: &DueAlarm, outcome: Outcome) -> Option<Settled> {
    let known = async {
        loop {
            match control.state().settle(alarm, outcome).await {
                Ok(settled) => return settled,
                Err(error) => tracing::error!(%error, "it could not be written down how the delivery of an alarm went"),
            }
            control.clock().sleep(PAUSE).await;
        }
    };
    tokio::select! {
        biased;
        settled = known => Some(settled),
        () = control.deliveries().cut() => None,
    }
}

/// Delivers one alarm and tells the store.
async fn bring(control: &Control, ring: Ring) -> Brought {
    let (alarm, id) = (&ring.alarm, ServiceId::from(format!("service_{}", ring.owner.service)));
    if ring.waited && !control.state().stands(alarm).await.unwrap_or(true) {
        settle(control, alarm, Outcome::Delivered).await;
        return Brought::Settled;
    }
    let Some(service) = control.runtime().services().get(&id) else { return Brought::Held(Box::new(ring)) };
    let delivered = match event(&service, &ring) {
        Ok(event) => control.deliveries().bring(control.runtime(), &service, event).await,
        Err(why) => Ok(Delivered::Failed(why)),
    };
    let why = match delivered {
        Ok(Delivered::Answered { status, .. }) if status.is_success() => None,
        Ok(Delivered::Answered { status, .. }) => Some(format!("the worker answered with {}", status.as_u16())),
        Ok(Delivered::Failed(why)) => Some(why),
        Err(refused) if refused.code.code == codes::STATE_OBJECT_BUSY.code => {
            // The others of the service need not wait for this object.
            let retry_at = control.clock().now_unix_ms().saturating_add(PUT_OFF_MS);
            settle(control, alarm, Outcome::Refused { retry_at }).await;
            return Brought::Settled;
        }
        Ok(Delivered::Held(_)) | Err(_) => return Brought::Held(Box::new(ring)),
    };
    let outcome = if why.is_none() { Outcome::Delivered } else { Outcome::Failed };
    let settled = settle(control, alarm, outcome).await;
    if let Some(why) = why {
        told(control, &service, &ring, settled, &why);
    }
    Brought::Settled
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
    control.logs().sink().line(Line::new(identity.id.clone(), identity.account.clone(), Stream::System, message));
}
