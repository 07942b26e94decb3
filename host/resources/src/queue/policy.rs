//! How a queue delivers: its settings, their defaults and their ranges.

use tovuk_kernel::limits::{
    QUEUE_BATCH_MESSAGES, QUEUE_BATCH_MESSAGES_MAX, QUEUE_BATCH_WAIT_SECONDS, QUEUE_BATCH_WAIT_SECONDS_MAX, QUEUE_CONCURRENCY_MAX,
    QUEUE_DELAY_SECONDS_MAX, QUEUE_RETENTION_SECONDS, QUEUE_RETENTION_SECONDS_MAX, QUEUE_RETENTION_SECONDS_MIN, QUEUE_RETRIES, QUEUE_RETRIES_MAX,
    QUEUE_VISIBILITY_SECONDS, QUEUE_VISIBILITY_SECONDS_MAX,
};

use super::{Error, Queue};

/// Who takes messages out of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consumer {
    /// The host delivers batches to the service's worker.
    #[default]
    Worker,
    /// Clients ask for batches; nothing is delivered.
    Pull,
}

/// The settings of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Most messages of one batch.
    pub max_batch_size: u32,
    /// How long a batch waits to fill, in s.
    pub max_batch_timeout_seconds: u32,
    /// Deliveries after the first before a message has failed.
    pub max_retries: u32,
    /// How long a message is kept, in s.
    pub retention_seconds: u32,
    /// How long a message that was pulled is hidden from others, in s.
    pub visibility_timeout_seconds: u32,
    /// How long each message waits before its first delivery, in s, unless it says otherwise.
    pub delivery_delay_seconds: u32,
    /// Most batches that are delivered at a time.
    pub max_concurrency: u32,
    /// The queue of the same service that takes what has failed.
    pub dead_letter_queue: Option<Queue>,
    /// Who takes messages out.
    pub consumer: Consumer,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_batch_size: QUEUE_BATCH_MESSAGES,
            max_batch_timeout_seconds: QUEUE_BATCH_WAIT_SECONDS,
            max_retries: QUEUE_RETRIES,
            retention_seconds: QUEUE_RETENTION_SECONDS,
            visibility_timeout_seconds: QUEUE_VISIBILITY_SECONDS,
            delivery_delay_seconds: 0,
            max_concurrency: QUEUE_CONCURRENCY_MAX,
            dead_letter_queue: None,
            consumer: Consumer::Worker,
        }
    }
}

/// Settings to be made. What is none stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyChange {
    /// Most messages of one batch, 1 to 100.
    pub max_batch_size: Option<u32>,
    /// How long a batch waits to fill, at most 60 s.
    pub max_batch_timeout_seconds: Option<u32>,
    /// Deliveries after the first, at most 100.
    pub max_retries: Option<u32>,
    /// How long a message is kept, 60 s to 14 days.
    pub retention_seconds: Option<u32>,
    /// How long a message that was pulled is hidden from others, 1 s to 12 hours.
    pub visibility_timeout_seconds: Option<u32>,
    /// How long each message waits before its first delivery, at most 24 hours.
    pub delivery_delay_seconds: Option<u32>,
    /// Most batches that are delivered at a time, 1 to 250.
    pub max_concurrency: Option<u32>,
    /// The queue that takes what has failed; none inside clears it.
    pub dead_letter_queue: Option<Option<Queue>>,
    /// Who takes messages out.
    pub consumer: Option<Consumer>,
}

impl PolicyChange {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether settings have what it says already.
    pub fn is_done(&self, policy: &Policy) -> bool {
        self.apply(policy).is_ok_and(|changed| changed == *policy)
    }

    /// The settings with this change. Whether the dead-letter queue will do is for the store to say.
    pub(super) fn apply(&self, policy: &Policy) -> Result<Policy, Error> {
        let range = |name, changed: Option<u32>, now: u32, least, most| match changed {
            Some(value) if !(least..=most).contains(&value) => Err(Error::Policy { name, value, least, most }),
            changed => Ok(changed.unwrap_or(now)),
        };
        Ok(Policy {
            max_batch_size: range("maxBatchSize", self.max_batch_size, policy.max_batch_size, 1, QUEUE_BATCH_MESSAGES_MAX)?,
            max_batch_timeout_seconds: range(
                "maxBatchTimeoutSeconds",
                self.max_batch_timeout_seconds,
                policy.max_batch_timeout_seconds,
                0,
                QUEUE_BATCH_WAIT_SECONDS_MAX,
            )?,
            max_retries: range("maxRetries", self.max_retries, policy.max_retries, 0, QUEUE_RETRIES_MAX)?,
            retention_seconds: range(
                "retentionSeconds",
                self.retention_seconds,
                policy.retention_seconds,
                QUEUE_RETENTION_SECONDS_MIN,
                QUEUE_RETENTION_SECONDS_MAX,
            )?,
            visibility_timeout_seconds: range(
                "visibilityTimeoutSeconds",
                self.visibility_timeout_seconds,
                policy.visibility_timeout_seconds,
                1,
                QUEUE_VISIBILITY_SECONDS_MAX,
            )?,
            delivery_delay_seconds: range(
                "deliveryDelaySeconds",
                self.delivery_delay_seconds,
                policy.delivery_delay_seconds,
                0,
                QUEUE_DELAY_SECONDS_MAX,
            )?,
            max_concurrency: range("maxConcurrency", self.max_concurrency, policy.max_concurrency, 1, QUEUE_CONCURRENCY_MAX)?,
            dead_letter_queue: self.dead_letter_queue.unwrap_or(policy.dead_letter_queue),
            consumer: self.consumer.unwrap_or(policy.consumer),
        })
    }
}
