//! Messages of a queue: sent, looked at, counted. The store checks every limit; here names become numbers, and JSON becomes bytes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tovuk_kernel::codes::{self, Code};
use tovuk_kernel::limits::{API_QUEUE_BODY_BYTES_MAX, QUEUE_LIST_BYTES_MAX, QUEUE_SEND_MESSAGES_MAX};
use tovuk_kernel::meters::Meter;
use tovuk_kernel::operation::{Access, Argument, Command, Form, Method, Operation, PAGE_ARGUMENTS, Request};
use tovuk_resources::queue;

use super::kv_values::{Encoding, string_of};
use super::queue_settings::Consumer;
use super::queues::{QUEUE, queue_of};
use super::timestamp;
use crate::control::decode::bounded;
use crate::control::handler::Handler;
use crate::control::{Caller, Control, Refusal};

const METERS: &[Meter] = &[Meter::QueueOperations];
const SEND_ERRORS: &[&Code] = &[
    &codes::RESOURCE_NOT_FOUND,
    &codes::QUEUE_MESSAGE_TOO_LARGE,
    &codes::QUEUE_BATCH_TOO_LARGE,
    &codes::QUEUE_RATE_EXCEEDED,
    &codes::QUEUE_BACKLOG_FULL,
];

impl From<Encoding> for queue::Encoding {
    fn from(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Text => Self::Text,
            Encoding::Base64 => Self::Base64,
        }
    }
}

impl From<queue::Encoding> for Encoding {
    fn from(encoding: queue::Encoding) -> Self {
        match encoding {
            queue::Encoding::Text => Self::Text,
            queue::Encoding::Base64 => Self::Base64,
        }
    }
}

/// A message to be sent.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "QueueMessageToSend")]
pub struct MessageToSend {
    /// The body, at most 127,900 bytes: text, or with `encoding` bytes in base64. Any other JSON is sent as its text.
    #[schemars(with = "Value")]
    pub body: Box<RawValue>,
    /// How the body is written; `text` when absent.
    #[serde(default)]
    pub encoding: Encoding,
    /// In how many seconds it may be delivered, at most 86,400. The queue's own delay counts when absent.
    pub delay_seconds: Option<u32>,
}

impl MessageToSend {
    fn into_send(self, delay_seconds: Option<u32>) -> Result<queue::Send, Refusal> {
        let (text, encoding) = match string_of("body", &self.body)? {
            Some(text) => (text, self.encoding.into()),
            None => (self.body.get().to_owned(), queue::Encoding::Text),
        };
        Ok(queue::Send::from_text(text, encoding, self.delay_seconds.or(delay_seconds))?)
    }
}

/// What was written, and what waits now.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "QueueWritten")]
pub struct Written {
    /// Bytes of the bodies.
    pub bytes: u64,
    /// What was metered as `queue_operations`: one for each 64 KB of a body.
    pub operations: u64,
    /// Messages that wait in the queue.
    pub backlog_count: u64,
    /// Their bodies, in bytes.
    pub backlog_bytes: u64,
}

impl From<&queue::Sent> for Written {
    fn from(sent: &queue::Sent) -> Self {
        Self { bytes: sent.bytes, operations: sent.operations, backlog_count: sent.backlog.messages, backlog_bytes: sent.backlog.bytes }
    }
}

/// Sends a message.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Send {
    /// The service.
    pub service: String,
    /// The queue, by name or id.
    pub queue: String,
    /// The body, at most 127,900 bytes: text, or with `encoding` bytes in base64. Any other JSON is sent as its text.
    #[schemars(with = "Value")]
    pub body: Box<RawValue>,
    /// How the body is written; `text` when absent.
    #[serde(default)]
    pub encoding: Encoding,
    /// In how many seconds it may be delivered, at most 86,400. The queue's own delay counts when absent.
    pub delay_seconds: Option<u32>,
}

/// A message that was sent.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "QueueMessageSent")]
pub struct Sent {
    /// True: it is on disk.
    pub ok: bool,
    /// The id of the message.
    pub id: String,
    /// What was written.
    #[serde(flatten)]
    pub written: Written,
}

impl Request for Send {
    const OPERATION: Operation = Operation::new("queue.send", Method::Post, "/v1/services/{service}/queues/{queue}/messages", "Send a message")
        .described("It is delivered at least once. A queue takes 5,000 messages a second.")
        .access(Access::Runtime)
        .meters(METERS)
        .errors(SEND_ERRORS)
        .commands(&[Command::new("queue send")
            .arguments(&[
                QUEUE,
                Argument::either("body", "value", "The body").form(Form::Words),
                Argument::flag("delaySeconds", "delay-seconds", "In how many seconds it may be delivered").form(Form::Integer),
                Argument::flag("encoding", "encoding", "`base64` when the body is given so"),
            ])
            .examples(&["tovuk queue send --service service_1 jobs '{\"report\":7}'"])]);
    type Response = Sent;
}

impl Handler for Send {
    async fn run(self, control: Control, caller: Caller) -> Result<Sent, Refusal> {
        let (queues, queue) = queue_of(&control, &caller, &self.service, self.queue).await?;
        let message = MessageToSend { body: self.body, encoding: self.encoding, delay_seconds: self.delay_seconds };
        let sent = queues.send(queue, vec![message.into_send(None)?]).await?;
        let id = sent.ids.first().map(ToString::to_string).unwrap_or_default();
        Ok(Sent { ok: true, id, written: Written::from(&sent) })
    }
}

/// Sends several messages.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SendBatch {
    /// The service.
    pub service: String,
    /// The queue, by name or id.
    pub queue: String,
    /// At most 100 messages, whose bodies have at most 256,000 bytes together.
    #[serde(deserialize_with = "bounded::<_, _, QUEUE_SEND_MESSAGES_MAX>")]
    pub messages: Vec<MessageToSend>,
    /// In how many seconds those that do not say otherwise may be delivered.
    pub delay_seconds: Option<u32>,
}

/// Messages that were sent.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "QueueMessagesSent")]
pub struct BatchSent {
    /// True: they are on disk.
    pub ok: bool,
    /// The ids of the messages, in the order of the request.
    pub ids: Vec<String>,
    /// What was written.
    #[serde(flatten)]
    pub written: Written,
}

impl Request for SendBatch {
    const OPERATION: Operation =
        Operation::new("queue.send_batch", Method::Post, "/v1/services/{service}/queues/{queue}/messages/batch", "Send several messages")
            .described("All of them, or none.")
            .access(Access::Runtime)
            .body_bytes_max(API_QUEUE_BODY_BYTES_MAX)
            .meters(METERS)
            .errors(SEND_ERRORS)
            .commands(&[Command::new("queue send-batch")
                .arguments(&[
                    QUEUE,
                    Argument::either("messages", "value", "JSON: a list of bodies or messages").form(Form::Messages),
                    Argument::flag("delaySeconds", "delay-seconds", "In how many seconds they may be delivered").form(Form::Integer),
                ])
                .examples(&["tovuk queue send-batch --service service_1 jobs '[\"first\",{\"body\":\"second\",\"delaySeconds\":60}]'"])]);
    type Response = BatchSent;
}

impl Handler for SendBatch {
    async fn run(self, control: Control, caller: Caller) -> Result<BatchSent, Refusal> {
        let (queues, queue) = queue_of(&control, &caller, &self.service, self.queue).await?;
        let sends = self.messages.into_iter().map(|message| message.into_send(self.delay_seconds)).collect::<Result<Vec<_>, _>>()?;
        let sent = queues.send(queue, sends).await?;
        Ok(BatchSent { ok: true, ids: sent.ids.iter().map(ToString::to_string).collect(), written: Written::from(&sent) })
    }
}

/// A message as the API shows it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "QueueMessage")]
pub struct Message {
    /// Its id.
    pub id: String,
    /// When it came into this queue, in ms of Unix time.
    pub timestamp_ms: u64,
    /// How often it was delivered, the delivery that shows it included.
    pub attempts: u32,
    /// How the body is written here: as it was sent.
    pub encoding: Encoding,
    /// The body.
    pub body: String,
}

impl From<&queue::Message> for Message {
    fn from(message: &queue::Message) -> Self {
        Self {
            id: message.id.to_string(),
            timestamp_ms: message.sent_ms,
            attempts: message.attempts,
            encoding: message.encoding.into(),
            body: message.text(),
        }
    }
}

/// Looks at the messages of a queue.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct List {
    /// The service.
    pub service: String,
    /// The queue, by name or id.
    pub queue: String,
    /// Most messages to return, 1 to 1,000. Without it the answer has all, up to 100,000 and about 32 MiB; `next_cursor` says where more begin.
    pub limit: Option<u32>,
    /// Where to go on.
    pub cursor: Option<String>,
}

/// A message that waits.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "QueueMessageListed")]
pub struct Listed {
    /// The message.
    #[serde(flatten)]
    pub message: Message,
    /// `ready`, `delayed` or `in_flight`.
    pub state: &'static str,
    /// When it can be delivered, in ms of Unix time, if it waits for that.
    pub due_ms: Option<u64>,
}

/// Messages in the order in which they came.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "QueueMessages")]
pub struct MessagesPage {
    /// The messages.
    pub messages: Vec<Listed>,
    /// What was metered as `queue_operations`.
    pub operations: u64,
    /// Whether more follow.
    pub has_more: bool,
    /// Where to go on.
    pub next_cursor: Option<String>,
}

impl Request for List {
    const OPERATION: Operation =
        Operation::new("queue.messages", Method::Get, "/v1/services/{service}/queues/{queue}/messages", "Look at the messages of a queue")
            .described("They stay where they are.")
            .meters(METERS)
            .errors(&[&codes::RESOURCE_NOT_FOUND, &codes::INVALID_CURSOR])
            .commands(&[Command::new("queue messages")
                .arguments(&[QUEUE, PAGE_ARGUMENTS[0], PAGE_ARGUMENTS[1]])
                .examples(&["tovuk queue messages --service service_1 jobs"])]);
    type Response = MessagesPage;
}

impl Handler for List {
    async fn run(self, control: Control, caller: Caller) -> Result<MessagesPage, Refusal> {
        let (queues, queue) = queue_of(&control, &caller, &self.service, self.queue).await?;
        let mut answer = MessagesPage { messages: Vec::new(), operations: 0, has_more: false, next_cursor: None };
        let mut bytes = 0;
        let reservation = control.runtime().memory().reserve();
        let mut add = |page: queue::Page| {
            let more: usize = page.messages.iter().map(|listed| listed.message.body.len()).sum();
            bytes += more;
            answer.operations += page.operations();
            (answer.has_more, answer.next_cursor) = (page.has_more, page.next_cursor);
            answer.messages.extend(page.messages.into_iter().map(|listed| Listed {
                state: listed.state.as_str(),
                due_ms: listed.due_ms,
                message: Message::from(&listed.message),
            }));
            let room = reservation.grow(more as u64);
            room.then_some(bytes).ok_or_else(|| Refusal::new(&codes::HOST_BUSY, "the host has no memory for the answer now"))
        };
        if let Some(limit) = self.limit {
            let limit = Some(usize::try_from(limit).unwrap_or(usize::MAX));
            add(queues.list(queue, queue::List { limit, cursor: self.cursor }).await?)?;
        } else {
            let mut pages = queues.pages(queue, self.cursor);
            while let Some(page) = pages.next().await {
                if add(page?)? >= QUEUE_LIST_BYTES_MAX {
                    break;
                }
            }
        }
        Ok(answer)
    }
}

/// Counts what is in a queue and what has become of what was.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct MetricsOf {
    /// The service.
    pub service: String,
    /// The queue, by name or id.
    pub queue: String,
}

/// What is counted of a queue.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "QueueMetrics")]
pub struct Metrics {
    /// Messages that wait, those that are being delivered included.
    pub backlog_count: u64,
    /// Their bodies, in bytes.
    pub backlog_bytes: u64,
    /// When the oldest of them came.
    pub oldest_message_at: Option<String>,
    /// How long ago that is, in ms; 0 when none waits.
    pub oldest_message_age_ms: u64,
    /// Messages that are being delivered, or that clients have pulled and not settled.
    pub in_flight: u64,
    /// Messages whose delivery has ended, and messages that were pulled.
    pub deliveries: u64,
    /// Messages that were put back to be delivered again.
    pub retries: u64,
    /// Messages that failed for the last time.
    pub dead_letters: u64,
    /// How many of those are gone because there was no dead-letter queue.
    pub discarded: u64,
    /// Messages that were kept for as long as they could be.
    pub expired: u64,
    /// Who takes messages out.
    pub consumer: Consumer,
    /// What the host does with the queue: `idle`, `delivering`, `held` where the worker cannot be called now, `consumer_missing` where it has no handler
    /// for the queue, or `pull`.
    pub consumer_state: &'static str,
    /// Why deliveries are held or paused.
    pub consumer_detail: Option<String>,
    /// Batches that are being delivered.
    pub consumer_concurrency: u32,
    /// Batches that may be delivered at a time now. It rises with the backlog and falls with failures.
    pub consumer_concurrency_target: u32,
}

impl Request for MetricsOf {
    const OPERATION: Operation =
        Operation::new("queue.metrics", Method::Get, "/v1/services/{service}/queues/{queue}/metrics", "Count what is in a queue")
            .access(Access::Runtime)
            .errors(&[&codes::RESOURCE_NOT_FOUND])
            .commands(&[Command::new("queue metrics").arguments(&[QUEUE]).examples(&["tovuk queue metrics --service service_1 jobs"])]);
    type Response = Metrics;
}

impl Handler for MetricsOf {
    async fn run(self, control: Control, caller: Caller) -> Result<Metrics, Refusal> {
        let (queues, queue) = queue_of(&control, &caller, &self.service, self.queue).await?;
        let consumer = queues.policy(queue)?.consumer;
        let counted = queues.metrics(queue).await?;
        let shown = control.deliveries().queues().shown(queue);
        Ok(Metrics {
            backlog_count: counted.backlog.messages,
            backlog_bytes: counted.backlog.bytes,
            oldest_message_at: counted.oldest_ms.map(|ms| timestamp(ms.cast_signed())),
            oldest_message_age_ms: counted.oldest_age_ms,
            in_flight: counted.in_flight,
            deliveries: counted.counters.deliveries,
            retries: counted.counters.retries,
            dead_letters: counted.counters.dead_letters,
            discarded: counted.counters.discarded,
            expired: counted.counters.expired,
            consumer: consumer.into(),
            consumer_state: if consumer == queue::Consumer::Pull { "pull" } else { shown.state.as_str() },
            consumer_detail: shown.detail,
            consumer_concurrency: shown.running,
            consumer_concurrency_target: shown.concurrency,
        })
    }
}
