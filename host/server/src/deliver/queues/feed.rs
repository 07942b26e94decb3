//! The task of one queue: it forms batches, has them delivered, and settles them by what their worker has answered. It ends when there is nothing left.
//!
//! How many batches go at a time follows from how they fare: one at first; one more for each that succeeds while as many go as may and full batches are
//! waiting; half as many when one of those that were begun since the last such change has failed or could not be delivered.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tovuk_kernel::meters::Meter;
use tovuk_resources::meters::Charge;
use tovuk_resources::queue::{Batch, Error, Policy, Queue, Verdict};
use tovuk_runtime::record::EventKind;
use tovuk_runtime::service::Deployment;

use super::event::{self, Answer};
use super::form::{Context, Formed, Forming, Next, next};
use super::room::Room;
use super::{Doing, Names, Shown};
use crate::control::Control;
use crate::deliver::Delivered;

/// How long a queue is left alone whose worker could not be called, at first. Each further time doubles it.
const HOLD: Duration = Duration::from_secs(1);
/// How long it is left alone at most.
const HOLD_MAX: Duration = Duration::from_secs(60);

/// How a delivery went.
enum Ended {
    Done,
    Failed,
    Held(String),
    Missing(Asked),
}

/// What a delivery was begun with. What its answer says of the worker holds for that only.
struct Asked {
    version: Weak<Deployment>,
    policy: Option<Arc<Policy>>,
}

impl Asked {
    fn now(context: &Context) -> Self {
        Self { version: context.version(), policy: context.queues().policy(context.queue).ok() }
    }

    fn is_current(&self, context: &Context) -> bool {
        let now = Self::now(context);
        let is_set = match (&self.policy, &now.policy) {
            (Some(before), Some(now)) => !Arc::ptr_eq(before, now),
            (before, now) => before.is_some() != now.is_some(),
        };
        !is_set && Weak::ptr_eq(&self.version, &now.version)
    }
}

/// Why nothing is taken.
struct Hold {
    state: Doing,
    why: String,
    /// What is on the air when it begins. Another version ends it.
    version: Weak<Deployment>,
    /// The settings when it begins. Whoever sets the queue ends a pause.
    policy: Option<Arc<Policy>>,
    /// When it ends by itself. A pause does not.
    until_ms: Option<u64>,
}

/// How many batches go at a time.
struct Pace {
    concurrency: u32,
    /// Counts changes for the worse. What was begun before the last one says nothing new.
    round: u64,
    /// The last batch was full.
    more: bool,
    /// As many went as may, since none did.
    saturated: bool,
    /// How often in a row the worker could not be called.
    holds: u32,
}

impl Pace {
    fn new() -> Self {
        Self { concurrency: 1, round: 0, more: false, saturated: false, holds: 0 }
    }

    fn faster(&mut self, most: u32) {
        self.holds = 0;
        if self.more && self.saturated {
            self.concurrency = self.concurrency.saturating_add(1).min(most);
        }
    }

    fn slower(&mut self, round: u64) {
        if round == self.round {
            self.concurrency = (self.concurrency / 2).max(1);
            self.round += 1;
        }
    }

    /// How long to wait after what could not be delivered.
    fn hold(&mut self) -> Duration {
        let hold = HOLD.saturating_mul(1 << self.holds.min(6)).min(HOLD_MAX);
        self.holds = self.holds.saturating_add(1);
        hold
    }
}

/// Delivers what is in a queue until there is nothing left, the queue is gone, or the host stops.
pub(super) async fn run(control: Control, queue: Queue, room: Arc<Room>) {
    let mut stopping = std::pin::pin!(control.deliveries().stopping());
    let names = loop {
        match Names::of(&control, queue).await {
            Ok(names) => break names,
            Err(refusal) => tracing::error!("queue {queue} cannot be delivered, which is tried again: {refusal}"),
        }
        tokio::select! {
            () = &mut stopping => return,
            () = control.clock().sleep(HOLD) => {}
        }
    };
    // One without a row is being deleted.
    let Some(names) = names else {
        control.deliveries().queues().end(queue);
        return;
    };
    let context = Arc::new(Context { control, queue, names, room });
    let mut feed = Feed { pace: Pace::new(), running: JoinSet::new(), forming: None, hold: None, context: context.clone() };
    loop {
        feed.show();
        let free = feed.is_free();
        let Feed { running, forming, hold, .. } = &mut feed;
        let is_idle = running.is_empty();
        tokio::select! {
            biased;
            () = &mut stopping => break,
            Some(ended) = running.join_next(), if !is_idle => feed.ended(ended.ok()),
            () = over(&context, hold.as_ref()), if hold.is_some() => feed.hold = None,
            next = next(&context, forming, is_idle), if free => match next {
                Ok(Next::Deliver(formed)) => feed.deliver(formed),
                Ok(Next::Hold(why)) => feed.hold(why),
                Ok(Next::Nothing) if context.control.deliveries().queues().end(queue) => return,
                Ok(Next::Nothing) => {}
                // It is pulled, or gone.
                Err(Error::NotPush | Error::Dropped) => {
                    feed.forming = None;
                    feed.drain().await;
                    if context.control.deliveries().queues().end(queue) {
                        return;
                    }
                }
                Err(error) => {
                    tracing::error!("queue {queue} cannot be read, which is tried again: {error}");
                    feed.forming = None;
                    feed.hold("the queue cannot be read now".to_owned());
                }
            },
        }
    }
    feed.forming = None;
    feed.drain().await;
}

struct Feed {
    context: Arc<Context>,
    pace: Pace,
    running: JoinSet<(u64, Ended)>,
    forming: Option<Forming>,
    hold: Option<Hold>,
}

impl Feed {
    /// The most batches that the queue lets go at a time.
    fn most(&self) -> u32 {
        self.context.queues().policy(self.context.queue).map_or(1, |policy| policy.max_concurrency)
    }

    /// Whether another batch may be formed.
    fn is_free(&self) -> bool {
        let most = usize::try_from(self.pace.concurrency.min(self.most())).unwrap_or(usize::MAX);
        self.hold.is_none() && self.running.len() < most
    }

    fn show(&self) {
        let is_idle = self.running.is_empty() && self.forming.is_none();
        let shown = Shown {
            state: self.hold.as_ref().map_or(if is_idle { Doing::Idle } else { Doing::Delivering }, |hold| hold.state),
            detail: self.hold.as_ref().map(|hold| hold.why.clone()),
            running: u32::try_from(self.running.len()).unwrap_or(u32::MAX),
            concurrency: self.pace.concurrency.min(self.most()),
        };
        self.context.control.deliveries().queues().show(self.context.queue, shown);
    }

    fn deliver(&mut self, formed: Formed) {
        self.pace.more = formed.is_full;
        let (context, round) = (self.context.clone(), self.pace.round);
        self.running.spawn(async move { (round, deliver(&context, formed).await) });
        self.pace.saturated |= !self.is_free();
    }

    /// None is a delivery that has panicked, whose messages have come back.
    fn ended(&mut self, ended: Option<(u64, Ended)>) {
        match ended {
            Some((_, Ended::Done)) => self.pace.faster(self.most()),
            Some((round, Ended::Failed)) => self.pace.slower(round),
            Some((round, Ended::Held(why))) => {
                self.pace.slower(round);
                self.hold(why);
            }
            // Another version, or other settings, may do what this one did not: the messages go to it.
            Some((_, Ended::Missing(asked))) if !asked.is_current(&self.context) => {}
            Some((_, Ended::Missing(asked))) => self.pause(asked),
            None => self.hold("the host failed".to_owned()),
        }
        self.pace.saturated &= !self.running.is_empty();
    }

    /// Takes nothing more for a time, unless that is so already.
    fn hold(&mut self, why: String) {
        if self.hold.is_none() {
            if self.pace.holds == 0 {
                let text = format!("nothing is delivered now, and it is tried again less and less often: {why}");
                self.context.names.log(&self.context.control, &text);
            }
            let until_ms = Some(self.context.now_ms().saturating_add(u64::try_from(self.pace.hold().as_millis()).unwrap_or(u64::MAX)));
            self.hold = Some(Hold { state: Doing::Held, why, version: self.context.version(), policy: None, until_ms });
        }
    }

    /// Takes nothing more until there is another version of the service, or the queue is set.
    fn pause(&mut self, asked: Asked) {
        let path = format!("/.tovuk/queues/{}", self.context.names.queue);
        let why = format!("the worker has no handler for POST {path}: it answered 404 or 405");
        if self.hold.as_ref().is_none_or(|hold| hold.state != Doing::ConsumerMissing) {
            let until = "nothing is delivered until the next deploy or restart of the service, or the next `tovuk queue update`";
            self.context.names.log(&self.context.control, &format!("{why}; {until}"));
        }
        self.pace.concurrency = 1;
        let Asked { version, policy } = asked;
        self.hold = Some(Hold { state: Doing::ConsumerMissing, why, version, policy, until_ms: None });
    }

    /// Waits for what runs.
    async fn drain(&mut self) {
        while self.running.join_next().await.is_some() {}
    }
}

/// Returns when a hold is over.
async fn over(context: &Context, hold: Option<&Hold>) {
    let Some(hold) = hold else { return };
    let deliveries = context.control.deliveries();
    loop {
        // Before it is looked whether there was one.
        let mut promoted = std::pin::pin!(deliveries.next_promotion());
        promoted.as_mut().enable();
        let is_set = match (&hold.policy, context.queues().policy(context.queue)) {
            (_, Err(_)) => true,
            (Some(before), Ok(now)) => !Arc::ptr_eq(before, &now),
            (None, Ok(_)) => false,
        };
        if is_set || !Weak::ptr_eq(&hold.version, &context.version()) {
            return;
        }
        match hold.until_ms {
            Some(until) => {
                let rest = Duration::from_millis(until.saturating_sub(context.now_ms()));
                tokio::select! {
                    () = promoted => {}
                    () = context.control.clock().sleep(rest) => return,
                }
            }
            None => tokio::select! {
                () = promoted => {}
                _ = context.queues().changed(context.queue) => {}
            },
        }
    }
}

/// Delivers one batch and settles it.
async fn deliver(context: &Context, formed: Formed) -> Ended {
    // Held until the batch is settled.
    let Formed { batch, memory: _memory, place: _place, .. } = formed;
    let body = match body(context, &batch) {
        Ok(body) => body,
        Err(ended) => return ended,
    };
    // Each message is read, and may be removed and written to the dead-letter queue. What is held reads nothing.
    let (service, read) = (&context.names.service, batch.operations());
    let bill = context.control.bill(service.account_id, service.id);
    let mut charge = match bill.reserve(Meter::QueueOperations, read.saturating_mul(3)).await {
        Ok(charge) => charge,
        Err(error) => return Ended::Held(error.to_string()),
    };
    let asked = Asked::now(context);
    let (deliveries, service) = (context.control.deliveries(), context.names.service.service_id());
    let segments = ["queues", &context.names.queue];
    let delivered = deliveries.deliver(context.control.runtime(), &service, EventKind::Queue, &segments, body).await;
    let answer = match delivered {
        Delivered::Answered { status, body } => event::answer(status, &body, batch.messages()),
        Delivered::Failed(why) => Answer::Failed(event::retry_all(batch.messages()), why),
        // Its messages come back as they were.
        Delivered::Held(why) => return Ended::Held(why),
    };
    charge.spend(read);
    match answer {
        Answer::Missing => Ended::Missing(asked),
        Answer::Done(verdict) => settle(context, batch, verdict, charge).await.unwrap_or(Ended::Done),
        Answer::Failed(verdict, why) => {
            context.names.log(&context.control, &format!("the delivery of {} has failed: {why}", super::counted(batch.messages().len())));
            settle(context, batch, verdict, charge).await.unwrap_or(Ended::Failed)
        }
    }
}

/// The body of the event, which counts as host memory.
fn body(context: &Context, batch: &Batch) -> Result<Bytes, Ended> {
    let memory = context.control.runtime().memory().reserve();
    if !memory.grow(u64::try_from(event::body_bytes(batch.messages())).unwrap_or(u64::MAX)) {
        return Err(Ended::Held("the host has no memory for a batch now".to_owned()));
    }
    let body = event::body(&context.names.queue, batch.messages()).map_err(|error| Ended::Held(error.to_string()))?;
    Ok(memory.hold(body.into()))
}

/// Settles a batch. None is as it should be.
async fn settle(context: &Context, batch: Batch, verdict: Verdict, charge: Charge) -> Option<Ended> {
    match batch.settle(verdict).await {
        Ok(settled) => {
            charge.settle(settled.operations);
            context.names.log_failed(&context.control, &settled);
            None
        }
        Err(error) => {
            tracing::error!("a batch of queue {} was delivered and cannot be settled, so it comes again: {error}", context.queue);
            Some(Ended::Held("the queue cannot be written now".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concurrency_rises_with_a_backlog_and_falls_with_failures() {
        let mut pace = Pace::new();
        pace.faster(250);
        pace.more = true;
        pace.faster(250);
        assert_eq!(pace.concurrency, 1, "no more waits than goes");
        pace.saturated = true;
        (0..300).for_each(|_| pace.faster(250));
        assert_eq!(pace.concurrency, 250);
        // All of these were begun before anybody knew.
        (0..100).for_each(|_| pace.slower(0));
        assert_eq!((pace.concurrency, pace.round), (125, 1));
        (1..10).for_each(|round| pace.slower(round));
        assert_eq!(pace.concurrency, 1);
    }

    #[test]
    fn a_worker_that_cannot_be_called_is_left_alone_longer_and_longer() {
        let mut pace = Pace::new();
        let holds: Vec<_> = (0..8).map(|_| pace.hold().as_secs()).collect();
        assert_eq!(holds, [1, 2, 4, 8, 16, 32, 60, 60]);
        pace.faster(250);
        assert_eq!(pace.hold(), HOLD);
    }
}
