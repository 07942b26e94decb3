//! Queues: batches are taken from the store and brought to workers. A queue in which there is something has a task of its own (`queues/feed.rs`); one in
//! which there is nothing has none, and nobody polls.
//!
//! - **At least once.** A batch stays in the store until what its worker answered is on disk. Whatever ends a task gives its messages back.
//! - **A queue waits for itself.** Where a worker cannot be called, has no handler, or fails, its own queue is tried later, and other queues go on.
//! - **No more than there is room for.** Bodies that wait or are being delivered count as host memory, and batches of all queues together have half of the
//!   host's instance slots, so that requests have the other half. An account has a share of these places, and of the memory in which batches wait for more
//!   messages: where it is used up, smaller batches go (`queues/room.rs`).

mod event;
mod feed;
mod form;
mod room;

use std::sync::Arc;

use dashmap::{DashMap, Entry};
use tovuk_kernel::resource::Kind;
use tovuk_resources::queue::{MessageId, Queue, Settled};

use crate::control::store::resources as rows;
use crate::control::store::services;
use crate::control::{Control, Refusal};
use crate::logs::{Line, Stream};

/// What is done with a queue, in a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Doing {
    /// There is nothing to deliver.
    #[default]
    Idle,
    /// Batches are formed and delivered.
    Delivering,
    /// The worker cannot be called now.
    Held,
    /// The worker has no handler for the queue.
    ConsumerMissing,
}

impl Doing {
    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Delivering => "delivering",
            Self::Held => "held",
            Self::ConsumerMissing => "consumer_missing",
        }
    }
}

/// What metrics show of the deliveries of a queue.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown {
    /// What is done.
    pub state: Doing,
    /// Why nothing is, if it is held or paused.
    pub detail: Option<String>,
    /// Batches that are being delivered.
    pub running: u32,
    /// How many may be.
    pub concurrency: u32,
}

/// The queues that have a task, and what it does.
#[derive(Default)]
pub(crate) struct Consumers(DashMap<Queue, Fed>);

#[derive(Default)]
struct Fed {
    /// There may be something new since the task last looked.
    again: bool,
    shown: Shown,
}

impl Consumers {
    /// What is done with a queue.
    pub fn shown(&self, queue: Queue) -> Shown {
        self.0.get(&queue).map_or_else(|| Shown { concurrency: 1, ..Shown::default() }, |fed| fed.shown.clone())
    }

    fn show(&self, queue: Queue, shown: Shown) {
        if let Some(mut fed) = self.0.get_mut(&queue) {
            fed.shown = shown;
        }
    }

    /// Whether the queue needs a task. Else the one that it has is told.
    fn begin(&self, queue: Queue) -> bool {
        match self.0.entry(queue) {
            Entry::Vacant(vacant) => drop(vacant.insert(Fed::default())),
            Entry::Occupied(mut fed) => {
                fed.get_mut().again = true;
                return false;
            }
        }
        true
    }

    /// Whether the task of a queue may end, because there has been nothing new.
    fn end(&self, queue: Queue) -> bool {
        let again = self.0.get_mut(&queue).is_some_and(|mut fed| std::mem::take(&mut fed.again));
        !again && self.0.remove_if(&queue, |_, fed| !fed.again).is_some()
    }
}

/// Begins to deliver.
pub(super) fn start(control: &Control) {
    control.deliveries().spawn(dispatch(control.clone()));
}

async fn dispatch(control: Control) {
    let slots = usize::try_from(control.runtime().slots().total() / 2).unwrap_or(1).max(1);
    let room = Arc::new(room::Room::new(slots, control.runtime().memory().budget_bytes()));
    let mut stopping = std::pin::pin!(control.deliveries().stopping());
    loop {
        let queues = tokio::select! {
            biased;
            () = &mut stopping => return,
            queues = control.queues().active() => queues,
        };
        for queue in queues.into_iter().filter(|queue| control.deliveries().queues().begin(*queue)) {
            control.deliveries().spawn(feed::run(control.clone(), queue, room.clone()));
        }
    }
}

/// How a queue and its service are called. Neither changes.
pub(crate) struct Names {
    /// The queue.
    pub queue: String,
    /// The service.
    pub service: services::Service,
}

impl Names {
    /// Those of a queue; none if it has been deleted.
    pub async fn of(control: &Control, queue: Queue) -> Result<Option<Self>, Refusal> {
        let found = control.read(move |conn| {
            let Some((service, row)) = rows::by_number(conn, Kind::Queue, queue.0)? else { return Ok(None) };
            Ok(services::get(conn, service)?.map(|service| Self { queue: row.name, service }))
        });
        found.await
    }

    /// Writes a line into the service's log.
    fn log(&self, control: &Control, text: &str) {
        let line = Line::new(self.service.service_id(), self.service.account(), Stream::System, format!("queue {}: {text}", self.queue));
        control.say(line);
    }

    /// Writes into the service's log which messages have failed for the last time.
    fn log_failed(&self, control: &Control, settled: &Settled) {
        if !settled.dead_lettered.is_empty() {
            let ids = settled.dead_lettered.iter().map(|(before, now)| format!("{before} as {now}"));
            let text = "failed for the last time and went to the dead-letter queue";
            self.log(control, &format!("{} {text}: {}", counted(settled.dead_lettered.len()), ids.collect::<Vec<_>>().join(", ")));
        }
        if !settled.discarded.is_empty() {
            let ids: Vec<_> = settled.discarded.iter().map(MessageId::to_string).collect();
            let text = "failed for the last time and went nowhere, because there is no dead-letter queue";
            self.log(control, &format!("{} {text}: {}", counted(settled.discarded.len()), ids.join(", ")));
        }
    }
}

fn counted(messages: usize) -> String {
    if messages == 1 { "a message".to_owned() } else { format!("{messages} messages") }
}

/// Writes into the log of a queue's service which messages have failed for the last time.
pub(crate) async fn log_failed(control: &Control, queue: Queue, settled: &Settled) {
    if settled.dead_lettered.is_empty() && settled.discarded.is_empty() {
        return;
    }
    match Names::of(control, queue).await {
        Ok(Some(names)) => names.log_failed(control, settled),
        Ok(None) => {}
        Err(refusal) => tracing::warn!("the log of the service of queue {queue} has not been told of failed messages: {refusal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_has_one_task_and_none_is_missed() {
        let consumers = Consumers::default();
        let queue = Queue(7);
        assert!(consumers.begin(queue), "it has none");
        assert!(!consumers.begin(queue), "it has one, which is told");
        assert!(!consumers.end(queue), "there was something new");
        assert!(consumers.end(queue) && consumers.begin(queue), "it may end, and then needs another");
    }
}
