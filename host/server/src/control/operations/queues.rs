//! Queues of a service: made, set and deleted. The store checks every limit; here names become numbers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tovuk_kernel::codes::{self, Code};
use tovuk_kernel::operation::{Argument, Command, Form, Method, Operation, Request};
use tovuk_kernel::resource::Kind;
use tovuk_resources::queue;

use super::note;
use super::queue_settings::{Changes, QueueEntry, Settings};
use super::resources;
use super::services::ResourcesResponse;
use crate::control::handler::Handler;
use crate::control::store::resources::{self as rows, Resource};
use crate::control::{Caller, Control, Refusal, service_for, service_of};

/// The arguments that set a queue.
macro_rules! with_settings {
    ($first:expr) => {
        &[
            $first,
            Argument::flag("maxRetries", "max-retries", "Deliveries after the first").form(Form::Integer),
            Argument::flag("retentionSeconds", "retention-seconds", "How long a message is kept").form(Form::Integer),
            Argument::flag("maxBatchSize", "max-batch-size", "Most messages of one batch").form(Form::Integer),
            Argument::flag("maxBatchTimeoutSeconds", "max-batch-timeout-seconds", "How long a batch waits to fill").form(Form::Integer),
            Argument::flag("deadLetterQueue", "dead-letter-queue", "The queue that takes what has failed"),
            Argument::flag("deadLetterQueue", "clear-dead-letter-queue", "No queue takes what has failed").form(Form::Null),
            Argument::flag("visibilityTimeoutSeconds", "visibility-timeout-seconds", "How long a pulled message is hidden from others")
                .form(Form::Integer),
            Argument::flag("deliveryDelaySeconds", "delivery-delay-seconds", "How long each message waits before its first delivery")
                .form(Form::Integer),
            Argument::flag("maxConcurrency", "max-concurrency", "Most batches that are delivered at a time").form(Form::Integer),
            Argument::flag("consumer", "consumer", "worker or pull"),
        ]
    };
}

pub(super) const QUEUE: Argument = Argument::positional("queue", "The queue, by name or id");

/// Makes a queue.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Create {
    /// The service.
    pub service: String,
    /// What its worker calls the queue. `TOVUK_QUEUE_<NAME>` receives its id.
    pub name: String,
    /// Its settings.
    #[serde(flatten)]
    pub changes: Changes,
}

/// A queue that was made.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "QueueCreated")]
pub struct Created {
    /// The queue.
    pub queue: QueueEntry,
    /// The resources of the service.
    #[serde(flatten)]
    pub resources: ResourcesResponse,
}

const SETTING_ERRORS: &[&Code] = &[&codes::RESOURCE_NOT_FOUND, &codes::QUEUE_POLICY_INVALID, &codes::QUEUE_DEAD_LETTER_REFUSED];

impl Request for Create {
    const OPERATION: Operation = Operation::new("queue.create", Method::Post, "/v1/services/{service}/queues", "Make a queue")
        .described("The worker finds it from its next deploy or restart on; messages are taken, and delivered to the worker, at once.")
        .status(201)
        .errors(&[
            &codes::INVALID_NAME,
            &codes::RESOURCE_EXISTS,
            &codes::RESOURCE_LIMIT,
            &codes::RESOURCE_NOT_FOUND,
            &codes::QUEUE_POLICY_INVALID,
            &codes::QUEUE_DEAD_LETTER_REFUSED,
        ])
        .commands(&[Command::new("queue create")
            .arguments(with_settings!(Argument::positional("name", "What the worker calls it, for example jobs")))
            .examples(&[
                "tovuk queue create --service service_1 failed_jobs",
                "tovuk queue create --service service_1 jobs --max-batch-size 10 --max-batch-timeout-seconds 5 --dead-letter-queue failed_jobs",
            ])]);
    type Response = Created;
}

impl Handler for Create {
    async fn run(self, control: Control, caller: Caller) -> Result<Created, Refusal> {
        if self.changes.dead_letter_queue.as_ref().and_then(Option::as_ref) == Some(&self.name) {
            let text = format!("the queue `{}` cannot be its own dead-letter queue: name another queue of the service", self.name);
            return Err(Refusal::new(&codes::QUEUE_DEAD_LETTER_REFUSED, text));
        }
        let (asking, of, changes) = (caller.clone(), self.service.clone(), self.changes);
        // Before there is anything to take back.
        let change = control.read(move |conn| changes.resolved(conn, &service_of(conn, asking.account_number(), &of)?)).await?;
        let made = resources::make(&control, caller, Self::OPERATION.name, (self.service, Kind::Queue, self.name)).await?;
        let number = queue::Queue(made.resource.number);
        if let Err(error) = control.queues().create(queue::Service(made.service.id), number, change).await {
            // A host that ends before has a queue with settings that nobody has named; one that cannot make it takes the row back.
            resources::unmake(&control, &made.resource).await?;
            return Err(error.into());
        }
        let resources = made.resources.complete(&control).await?;
        Ok(Created { queue: entry(&control, made.service.id, made.resource).await?, resources })
    }
}

/// A queue with its settings.
async fn entry(control: &Control, service: i64, resource: Resource) -> Result<QueueEntry, Refusal> {
    let policy = control.queues().policy(queue::Queue(resource.number))?;
    let names = control.read(move |conn| Ok(rows::list(conn, service, Kind::Queue)?)).await?;
    let name = |number| names.into_iter().find(|queue| queue.number == number).map(|queue| queue.name);
    Ok(QueueEntry { settings: Some(Settings::of(&policy, name)), entry: resource.into() })
}

/// Changes settings of a queue.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Update {
    /// The service.
    pub service: String,
    /// The queue, by name or id.
    pub queue: String,
    /// What is to change: at least one setting.
    #[serde(flatten)]
    pub changes: Changes,
}

/// A queue after a change.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "QueueUpdated")]
pub struct Updated {
    /// The queue.
    pub queue: QueueEntry,
}

impl Request for Update {
    const OPERATION: Operation = Operation::new("queue.update", Method::Put, "/v1/services/{service}/queues/{queue}", "Change settings of a queue")
        .described("Messages that are being delivered are settled by the new settings. A queue that was paused is tried again.")
        .errors(SETTING_ERRORS)
        .commands(&[Command::new("queue update").arguments(with_settings!(QUEUE)).examples(&[
            "tovuk queue update --service service_1 jobs --max-batch-size 25 --max-batch-timeout-seconds 10",
            "tovuk queue update --service service_1 jobs --clear-dead-letter-queue",
        ])]);
    type Response = Updated;
}

impl Handler for Update {
    async fn run(self, control: Control, caller: Caller) -> Result<Updated, Refusal> {
        let (now, asking) = (control.now_ms(), caller.clone());
        let found = control.read(move |conn| {
            let service = service_of(conn, asking.account_number(), &self.service)?;
            let resource = resources::find(conn, &service, Kind::Queue, &self.queue)?;
            let change = self.changes.resolved(conn, &service)?;
            Ok((service.id, resource, change))
        });
        let (service, resource, change) = found.await?;
        control.queues().update(queue::Queue(resource.number), change).await?;
        let name = resource.name.clone();
        control.write(move |conn| note(conn, &caller, Self::OPERATION.name, Some(service), &name, now)).await?;
        Ok(Updated { queue: entry(&control, service, resource).await? })
    }
}

/// Deletes a queue with all its messages.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Delete {
    /// The service.
    pub service: String,
    /// The queue, by name or id.
    pub queue: String,
}

impl Request for Delete {
    const OPERATION: Operation =
        Operation::new("queue.delete", Method::Delete, "/v1/services/{service}/queues/{queue}", "Delete a queue with all its messages")
            .described("Answers with what the service still has. Queues that sent their dead letters there have no dead-letter queue any more.")
            .errors(&[&codes::RESOURCE_NOT_FOUND])
            .commands(&[Command::new("queue delete").arguments(&[QUEUE]).examples(&["tovuk queue delete --service service_1 jobs"])]);
    type Response = ResourcesResponse;
}

impl Handler for Delete {
    async fn run(self, control: Control, caller: Caller) -> Result<ResourcesResponse, Refusal> {
        resources::remove(&control, caller, Self::OPERATION.name, (self.service, Kind::Queue, self.queue)).await
    }
}

/// A queue that the caller may use.
pub(super) async fn queue_of(control: &Control, caller: &Caller, service: &str, name: String) -> Result<(queue::Queues, queue::Queue), Refusal> {
    let (caller, service) = (caller.clone(), service.to_owned());
    let found = control.read(move |conn| {
        let service = service_for(conn, &caller, &service)?;
        Ok((service.account_id, service.id, resources::find(conn, &service, Kind::Queue, &name)?.number))
    });
    let (account, service, number) = found.await?;
    Ok((control.queues().billed_to(control.bill(account, service)), queue::Queue(number)))
}
