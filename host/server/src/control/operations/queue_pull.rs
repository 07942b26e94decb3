//! Pulling from a queue whose consumer is `pull`: clients take messages under a lease, and say later what has become of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tovuk_kernel::codes;
use tovuk_kernel::limits::QUEUE_BATCH_MESSAGES_MAX;
use tovuk_kernel::meters::Meter;
use tovuk_kernel::operation::{Argument, Command, Form, Method, Operation, Request};
use tovuk_resources::queue;

use super::queue_messages::Message;
use super::queues::{QUEUE, queue_of};
use crate::control::decode::bounded;
use crate::control::handler::Handler;
use crate::control::{Caller, Control, Refusal};
use crate::deliver::queues::log_failed;

/// Most leases of a list that are read.
const LEASES_MAX: usize = QUEUE_BATCH_MESSAGES_MAX as usize;

/// Pulls messages.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pull {
    /// The service.
    pub service: String,
    /// The queue, by name or id.
    pub queue: String,
    /// Most messages to take, 1 to 100; 5 when absent.
    pub batch_size: Option<u32>,
    /// How long they are hidden from others, in seconds, 1 to 43,200. The queue's own setting counts when absent.
    pub visibility_timeout_seconds: Option<u32>,
}

/// A message that was pulled.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "QueueMessagePulled")]
pub struct Leased {
    /// What settles it.
    pub lease_id: String,
    /// The message.
    #[serde(flatten)]
    pub message: Message,
}

/// Messages that were pulled.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "QueuePulled")]
pub struct Pulled {
    /// The messages, in the order in which they came.
    pub messages: Vec<Leased>,
    /// What was metered as `queue_operations`.
    pub operations: u64,
    /// Messages that wait in the queue, these included.
    pub backlog_count: u64,
    /// Their bodies, in bytes.
    pub backlog_bytes: u64,
}

impl Request for Pull {
    const OPERATION: Operation = Operation::new("queue.pull", Method::Post, "/v1/services/{service}/queues/{queue}/messages/pull", "Pull messages")
        .described(
            "For queues whose consumer is `pull`. The answer may be empty. What is not settled while it is hidden is given out again, and counts as failed after \
             as many deliveries as the queue allows.",
        )
        .meters(&[Meter::QueueOperations])
        .errors(&[&codes::RESOURCE_NOT_FOUND, &codes::QUEUE_CONSUMER_MISMATCH])
        .commands(&[Command::new("queue pull")
            .arguments(&[
                QUEUE,
                Argument::flag("batchSize", "batch-size", "Most messages to take").form(Form::Integer),
                Argument::flag("visibilityTimeoutSeconds", "visibility-timeout-seconds", "How long they are hidden from others").form(Form::Integer),
            ])
            .examples(&["tovuk queue pull --service service_1 failed_jobs --batch-size 10"])]);
    type Response = Pulled;
}

impl Handler for Pull {
    async fn run(self, control: Control, caller: Caller) -> Result<Pulled, Refusal> {
        let (queues, queue) = queue_of(&control, &caller, &self.service, self.queue).await?;
        let messages = self.batch_size.map(|size| usize::try_from(size).unwrap_or(usize::MAX));
        let pulled = queues.pull(queue, queue::Pull { messages, visibility_seconds: self.visibility_timeout_seconds }).await?;
        log_failed(&control, queue, &pulled.settled).await;
        let messages = pulled.messages.iter().map(|(lease, message)| Leased { lease_id: lease.to_string(), message: message.into() });
        Ok(Pulled {
            messages: messages.collect(),
            operations: pulled.operations,
            backlog_count: pulled.backlog.messages,
            backlog_bytes: pulled.backlog.bytes,
        })
    }
}

/// A message that is to be delivered again.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "QueueRetry")]
pub struct Retry {
    /// What its pull answered with.
    pub lease_id: String,
    /// In how many seconds, at most 86,400; at once when absent.
    pub delay_seconds: Option<u32>,
}

/// Settles messages that were pulled.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Settle {
    /// The service.
    pub service: String,
    /// The queue, by name or id.
    pub queue: String,
    /// The leases of messages that are done.
    #[serde(default, deserialize_with = "bounded::<_, _, LEASES_MAX>")]
    pub acks: Vec<String>,
    /// Messages that are to be delivered again. With those that are done they may be 100.
    #[serde(default, deserialize_with = "bounded::<_, _, LEASES_MAX>")]
    pub retries: Vec<Retry>,
}

/// What has become of messages that were settled.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "QueueSettled")]
pub struct Settled {
    /// Messages that are done.
    pub acked: u64,
    /// Messages that will be delivered again.
    pub retried: u64,
    /// Messages that have failed for the last time and went to the dead-letter queue.
    pub dead_lettered: u64,
    /// Messages that have failed for the last time and are gone, because there is no dead-letter queue.
    pub discarded: u64,
    /// Leases that settled nothing: their message is gone, or somebody else has pulled it since.
    pub refused: Vec<String>,
    /// What was metered as `queue_operations`.
    pub operations: u64,
}

impl Request for Settle {
    const OPERATION: Operation =
        Operation::new("queue.ack", Method::Post, "/v1/services/{service}/queues/{queue}/messages/ack", "Settle messages that were pulled")
            .described("A lease that has run out still settles its message until somebody else has pulled it.")
            .meters(&[Meter::QueueOperations])
            .errors(&[&codes::RESOURCE_NOT_FOUND])
            .commands(&[
                Command::new("queue ack")
                    .arguments(&[QUEUE, Argument::either("acks", "value", "The leases of messages that are done").form(Form::Keys)])
                    .examples(&["tovuk queue ack --service service_1 failed_jobs 2-1-0123456789abcdef"]),
                Command::new("queue retry")
                    .arguments(&[QUEUE, Argument::either("retries", "value", "JSON: a list of {leaseId, delaySeconds}").form(Form::Json)])
                    .examples(&["tovuk queue retry --service service_1 failed_jobs '[{\"leaseId\":\"2-1-0123456789abcdef\",\"delaySeconds\":60}]'"]),
            ]);
    type Response = Settled;
}

impl Handler for Settle {
    async fn run(self, control: Control, caller: Caller) -> Result<Settled, Refusal> {
        let (queues, queue) = queue_of(&control, &caller, &self.service, self.queue).await?;
        let acks = self.acks.iter().map(|lease| lease.parse()).collect::<Result<Vec<_>, queue::Error>>()?;
        let retry = |retry: &Retry| Ok(queue::Retry { what: retry.lease_id.parse()?, delay_seconds: retry.delay_seconds });
        let retries = self.retries.iter().map(retry).collect::<Result<Vec<_>, queue::Error>>()?;
        let settled = queues.settle_leases(queue, acks, retries).await?;
        log_failed(&control, queue, &settled.settled).await;
        Ok(Settled {
            acked: settled.settled.acked,
            retried: settled.settled.retried,
            dead_lettered: settled.settled.dead_lettered.len() as u64,
            discarded: settled.settled.discarded.len() as u64,
            refused: settled.refused.iter().map(ToString::to_string).collect(),
            operations: settled.settled.operations,
        })
    }
}
