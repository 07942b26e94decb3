//! From messages to a batch: it goes when it is full, or when it has waited for as long as its queue lets it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tovuk_kernel::limits::{QUEUE_BATCH_MESSAGES_MAX, QUEUE_BODY_BYTES_MAX};
use tovuk_resources::queue::{Batch, Consumer, Error, Queue, Queues, Take};
use tovuk_runtime::memory::Reservation;
use tovuk_runtime::service::Deployment;

use super::Names;
use super::room::{Place, Room, Waiting};
use crate::control::Control;

/// Bodies of one batch, in bytes: there is room for the largest messages.
const BATCH_BYTES_MAX: usize = QUEUE_BODY_BYTES_MAX * QUEUE_BATCH_MESSAGES_MAX as usize;
/// What there may be to take soon is not looked for more often than this.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What a task and its deliveries know.
pub(super) struct Context {
    pub(super) control: Control,
    pub(super) queue: Queue,
    pub(super) names: Names,
    /// For batches of all queues.
    pub(super) room: Arc<Room>,
}

impl Context {
    pub(super) fn queues(&self) -> &Queues {
        self.control.queues()
    }

    /// The version of the service that is on the air.
    pub(super) fn version(&self) -> Weak<Deployment> {
        let service = self.control.runtime().services().get(&self.names.service.service_id());
        service.and_then(|service| service.live()).map(|live| Arc::downgrade(&live)).unwrap_or_default()
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.control.clock().monotonic_ms()
    }
}

/// A batch that is being filled. Its bodies count as host memory.
pub(super) struct Forming {
    batch: Batch,
    memory: Reservation,
    /// What it may have while it waits. Without it, it goes.
    waiting: Option<Waiting>,
    /// When it goes as it is.
    until_ms: u64,
}

/// A batch that can be delivered.
pub(super) struct Formed {
    pub(super) batch: Batch,
    pub(super) memory: Reservation,
    pub(super) place: Place,
    /// Whether it is as large as it may be, so that more messages may be waiting.
    pub(super) is_full: bool,
}

/// What there is to do.
pub(super) enum Next {
    Deliver(Formed),
    /// Nothing can be taken, and nothing waits for a time.
    Nothing,
    /// Not now.
    Hold(String),
}

/// Forms the next batch, or says why there is none. What was taken stays in `forming` when this is dropped. Where nothing can be taken and something still runs,
/// it waits.
pub(super) async fn next(context: &Context, forming: &mut Option<Forming>, is_idle: bool) -> Result<Next, Error> {
    let (queues, queue, clock) = (context.queues(), context.queue, context.control.clock());
    let account = context.names.service.account_id;
    loop {
        let policy = queues.policy(queue)?;
        let Some(live) = context.version().upgrade() else {
            *forming = None;
            let is_empty = policy.consumer == Consumer::Pull || queues.metrics(queue).await?.backlog.messages == 0;
            return Ok(if is_empty && is_idle { Next::Nothing } else { Next::Hold(format!("{} is not on the air", context.names.service.name)) });
        };
        let most = usize::try_from(policy.max_batch_size).unwrap_or(1);
        // A worker that streams is not sent more than it takes.
        let bytes = BATCH_BYTES_MAX.min(usize::try_from(live.limits.stream_body_mb << 19).unwrap_or(usize::MAX));
        drop(live);
        let mut place = None;
        // A batch that may not wait goes as it is.
        let goes = matches!(forming, Some(Forming { waiting: None, .. }));
        let (has, has_bytes, until_ms) = match forming {
            Some(Forming { batch, until_ms, .. }) => (batch.messages().len(), bytes_of(batch), *until_ms),
            None => (0, 0, context.now_ms().saturating_add(u64::from(policy.max_batch_timeout_seconds) * 1_000)),
        };
        let mut is_full = goes || has >= most || has_bytes.saturating_add(QUEUE_BODY_BYTES_MAX) > bytes;
        if !is_full {
            let may_wait = context.room.may_wait(account);
            // What could not wait for a place is not taken before there is one.
            if forming.is_none() && may_wait < QUEUE_BODY_BYTES_MAX {
                place = context.room.place(account).await;
            }
            let taken = queues.take(queue, Take { messages: most - has, bytes: (bytes - has_bytes).min(may_wait) }).await?;
            if !taken.is_empty() {
                if !take_in(context, forming, taken, until_ms) {
                    *forming = None;
                    return Ok(Next::Hold("the host has no memory for a batch now".to_owned()));
                }
                is_full = forming.as_ref().is_some_and(|forming| forming.waiting.is_none() || forming.batch.messages().len() >= most);
            }
        }
        let rest_ms = until_ms.saturating_sub(context.now_ms());
        if forming.is_some() && (is_full || rest_ms == 0) {
            let place = match place.take() {
                Some(place) => Some(place),
                None => context.room.place(account).await,
            };
            let Some(place) = place else { return Ok(Next::Nothing) };
            let Some(Forming { batch, memory, .. }) = forming.take() else { continue };
            return Ok(Next::Deliver(Formed { batch, memory, place, is_full }));
        }
        drop(place);
        let wait = if forming.is_some() {
            Some(Duration::from_millis(rest_ms))
        } else {
            let due = queues.next_due(queue).await?;
            if due.is_none() && is_idle {
                return Ok(Next::Nothing);
            }
            due.map(|due| Duration::from_millis(due.saturating_sub(clock.now_unix_ms())).max(LOOK_AGAIN))
        };
        let wait = async {
            match wait {
                Some(wait) => clock.sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = queues.changed(queue) => changed?,
            () = wait => {}
        }
    }
}

fn bytes_of(batch: &Batch) -> usize {
    batch.messages().iter().map(|message| message.body.len()).sum()
}

/// Adds what was taken to the batch that is being formed. False when the host has no memory for it.
fn take_in(context: &Context, forming: &mut Option<Forming>, taken: Batch, until_ms: u64) -> bool {
    let waits = context.room.wait(context.names.service.account_id, bytes_of(&taken));
    let bytes = u64::try_from(bytes_of(&taken)).unwrap_or(u64::MAX);
    match forming {
        Some(Forming { batch, memory, waiting, .. }) => {
            match (waiting.as_mut(), waits) {
                (Some(waiting), Some(more)) => waiting.merge(more),
                _ => *waiting = None,
            }
            memory.grow(bytes) && batch.merge(taken).is_ok()
        }
        None => {
            let memory = context.control.runtime().memory().reserve();
            let has_room = memory.grow(bytes);
            if has_room {
                *forming = Some(Forming { batch: taken, memory, waiting: waits, until_ms });
            }
            has_room
        }
    }
}
