//! How queues are set: what requests and project files say, what answers show, and the way into the store.

use rusqlite::Connection;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use tovuk_kernel::resource::Kind;
use tovuk_kernel::{codes, project};
use tovuk_resources::queue::{self, Policy, PolicyChange};

use super::resources::ResourceEntry;
use crate::control::store::resources::{self as rows, Resource};
use crate::control::store::services::Service;
use crate::control::{Control, Refusal};
use crate::deploy::live::Version;

/// Who takes messages out of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "QueueConsumer")]
pub enum Consumer {
    /// The host delivers batches to the service's worker.
    Worker,
    /// Clients pull; nothing is delivered.
    Pull,
}

impl From<queue::Consumer> for Consumer {
    fn from(consumer: queue::Consumer) -> Self {
        match consumer {
            queue::Consumer::Worker => Self::Worker,
            queue::Consumer::Pull => Self::Pull,
        }
    }
}

/// The settings of a queue.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "QueueSettings")]
pub struct Settings {
    /// Most messages of one batch.
    pub max_batch_size: u32,
    /// How long a batch waits to fill.
    pub max_batch_timeout_seconds: u32,
    /// Deliveries after the first before a message has failed.
    pub max_retries: u32,
    /// How long a message is kept.
    pub retention_seconds: u32,
    /// How long a message that was pulled is hidden from others.
    pub visibility_timeout_seconds: u32,
    /// How long each message waits before its first delivery.
    pub delivery_delay_seconds: u32,
    /// Most batches that are delivered at a time.
    pub max_concurrency: u32,
    /// The queue of the same service that takes what has failed.
    pub dead_letter_queue: Option<String>,
    /// Who takes messages out.
    pub consumer: Consumer,
}

impl Settings {
    /// `name` knows what a queue of the same service is called.
    pub(super) fn of(policy: &Policy, name: impl FnOnce(i64) -> Option<String>) -> Self {
        Self {
            max_batch_size: policy.max_batch_size,
            max_batch_timeout_seconds: policy.max_batch_timeout_seconds,
            max_retries: policy.max_retries,
            retention_seconds: policy.retention_seconds,
            visibility_timeout_seconds: policy.visibility_timeout_seconds,
            delivery_delay_seconds: policy.delivery_delay_seconds,
            max_concurrency: policy.max_concurrency,
            dead_letter_queue: policy.dead_letter_queue.map(|queue| name(queue.0).unwrap_or_else(|| Kind::Queue.id(queue.0))),
            consumer: policy.consumer.into(),
        }
    }
}

/// A queue as the API shows it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Queue")]
pub struct QueueEntry {
    /// What it has in common with other resources.
    #[serde(flatten)]
    pub entry: ResourceEntry,
    /// Its settings.
    #[serde(flatten)]
    pub settings: Option<Settings>,
}

impl From<ResourceEntry> for QueueEntry {
    fn from(entry: ResourceEntry) -> Self {
        Self { entry, settings: None }
    }
}

/// Adds what the store knows of the queues of a service.
pub(super) fn complete(control: &Control, queues: &mut [QueueEntry]) {
    let names: Vec<_> = queues.iter().map(|queue| (queue.entry.id.clone(), queue.entry.name.clone())).collect();
    let name = |number| names.iter().find(|(id, _)| *id == Kind::Queue.id(number)).map(|(_, name)| name.clone());
    for queue in queues {
        let number = Kind::Queue.number(&queue.entry.id).unwrap_or(0);
        // One that is being deleted has none.
        queue.settings = control.queues().policy(queue::Queue(number)).ok().map(|policy| Settings::of(&policy, name));
    }
}

/// Settings to be made.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "QueueChange")]
pub struct Changes {
    /// Most messages of one batch, 1 to 100; 10 unless set.
    pub max_batch_size: Option<u32>,
    /// How long a batch waits to fill, in seconds, at most 60; 5 unless set.
    pub max_batch_timeout_seconds: Option<u32>,
    /// Deliveries after the first before a message has failed, at most 100; 3 unless set.
    pub max_retries: Option<u32>,
    /// How long a message is kept, in seconds, 60 to 1,209,600; 345,600 unless set.
    pub retention_seconds: Option<u32>,
    /// How long a message that was pulled is hidden from others, in seconds, 1 to 43,200; 30 unless set.
    pub visibility_timeout_seconds: Option<u32>,
    /// How long each message waits before its first delivery, in seconds, at most 86,400; 0 unless set.
    pub delivery_delay_seconds: Option<u32>,
    /// Most batches that are delivered at a time, 1 to 250; 250 unless set.
    pub max_concurrency: Option<u32>,
    /// The queue of the same service that takes what has failed, by name or id; null for none.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "Option<String>")]
    pub dead_letter_queue: Option<Option<String>>,
    /// Who takes messages out; `worker` unless set.
    pub consumer: Option<Consumer>,
}

/// What is there, also when it is null.
fn given<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(value).map(Some)
}

impl Changes {
    /// What a project file says of a queue, and what it has ceased to say since the deploy that is live, which becomes the default. What neither has said
    /// stays as it is.
    fn declared(now: &project::Queue, before: Option<&project::Queue>) -> Self {
        let default = Policy::default();
        let value = |field: fn(&project::Queue) -> Option<u32>, default| field(now).or(before.and_then(field).and(Some(default)));
        let dead_letters = before.and_then(|before| before.dead_letter_queue.as_ref()).and(Some(None));
        let consumer = before.and_then(|before| before.consumer).and(Some(project::Consumer::Worker));
        Self {
            max_batch_size: value(|queue| queue.max_batch_size, default.max_batch_size),
            max_batch_timeout_seconds: value(|queue| queue.max_batch_timeout_seconds, default.max_batch_timeout_seconds),
            max_retries: value(|queue| queue.max_retries, default.max_retries),
            retention_seconds: value(|queue| queue.retention_seconds, default.retention_seconds),
            visibility_timeout_seconds: value(|queue| queue.visibility_timeout_seconds, default.visibility_timeout_seconds),
            delivery_delay_seconds: value(|queue| queue.delivery_delay_seconds, default.delivery_delay_seconds),
            max_concurrency: value(|queue| queue.max_concurrency, default.max_concurrency),
            dead_letter_queue: now.dead_letter_queue.clone().map(Some).or(dead_letters),
            consumer: now.consumer.or(consumer).map(|consumer| match consumer {
                project::Consumer::Worker => Consumer::Worker,
                project::Consumer::Pull => Consumer::Pull,
            }),
        }
    }

    /// With the number of the dead-letter queue in place of its name.
    pub(super) fn resolved(&self, conn: &Connection, service: &Service) -> Result<PolicyChange, Refusal> {
        let number = |name: &String| match rows::find(conn, service.id, Kind::Queue, name)? {
            Some(found) => Ok(queue::Queue(found.number)),
            None => {
                let text = format!("`{}` has no queue `{name}` that could take dead letters", service.name);
                let command = format!("Run `tovuk queue create --service {} {name}` first.", service.name);
                Err(Refusal::new(&codes::QUEUE_DEAD_LETTER_REFUSED, text).instruct(command))
            }
        };
        Ok(PolicyChange {
            max_batch_size: self.max_batch_size,
            max_batch_timeout_seconds: self.max_batch_timeout_seconds,
            max_retries: self.max_retries,
            retention_seconds: self.retention_seconds,
            visibility_timeout_seconds: self.visibility_timeout_seconds,
            delivery_delay_seconds: self.delivery_delay_seconds,
            max_concurrency: self.max_concurrency,
            dead_letter_queue: self.dead_letter_queue.as_ref().map(|name| name.as_ref().map(number).transpose()).transpose()?,
            consumer: self.consumer.map(|consumer| match consumer {
                Consumer::Worker => queue::Consumer::Worker,
                Consumer::Pull => queue::Consumer::Pull,
            }),
        })
    }
}

/// Makes the queues of a service in the store whose rows are there. Returns the rows of those that were missing. It can be repeated, and does not bring back
/// what was deleted meanwhile.
async fn create(control: &Control, service: &Service) -> Result<Vec<Resource>, Refusal> {
    let id = service.id;
    let mut rows = control.read(move |conn| Ok(rows::list(conn, id, Kind::Queue)?)).await?;
    rows.retain(|row| control.queues().policy(queue::Queue(row.number)).is_err());
    for row in &rows {
        control.queues().create(queue::Service(id), queue::Queue(row.number), PolicyChange::default()).await?;
    }
    Ok(rows)
}

/// The same, and those that were missing get the settings that the project file declares.
pub(crate) async fn make(control: &Control, service: &Service, declared: &project::Service) -> Result<(), Refusal> {
    let made = create(control, service).await?;
    set(control, service, made, declared, None).await
}

/// The same for all queues that the project file declares, after what the live deploy declares.
pub(crate) async fn apply(control: &Control, service: &Service, declared: &project::Service) -> Result<(), Refusal> {
    if declared.queues.is_empty() {
        return Ok(());
    }
    create(control, service).await?;
    let id = service.id;
    let (all, live) = control.read(move |conn| Ok((rows::list(conn, id, Kind::Queue)?, Version::live(conn, id)?))).await?;
    set(control, service, all, declared, live.as_ref().map(|live| &live.declared.service)).await
}

async fn set(
    control: &Control,
    service: &Service,
    queues: Vec<Resource>,
    declared: &project::Service,
    before: Option<&project::Service>,
) -> Result<(), Refusal> {
    let change = |row: Resource| {
        let before = before.and_then(|before| before.queues.get(&row.name));
        Some((row.number, Changes::declared(declared.queues.get(&row.name)?, before)))
    };
    let mut changes: Vec<_> = queues.into_iter().filter_map(change).collect();
    // What clears a dead-letter queue comes first: two that change places would be a circle for a moment.
    changes.sort_by_key(|(_, changes)| changes.dead_letter_queue != Some(None));
    for (number, changes) in changes {
        let (of, queue) = (service.clone(), queue::Queue(number));
        let change = control.read(move |conn| changes.resolved(conn, &of)).await?;
        // One that changes nothing would end the pause of a queue whose worker has no handler for it.
        if !change.is_done(&*control.queues().policy(queue)?) {
            control.queues().update(queue, change).await?;
        }
    }
    Ok(())
}
