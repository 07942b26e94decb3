//! Cron triggers of a service. A trigger is a row of the control database, and what it does is in the store of cron: the row comes first, so a host that
//! dies between the two leaves a row without a trigger, which is taken back or given one after its next start.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tovuk_kernel::clock::UnixMs;
use tovuk_kernel::codes;
use tovuk_kernel::operation::{Argument, Command, Form, Method, Operation, Request};
use tovuk_kernel::project;
use tovuk_kernel::resource::Kind;
use tovuk_resources::cron::{self, Expression, TriggerNumber};

use super::resources::{self, ResourceEntry};
use super::services::ResourcesResponse;
use super::{note, timestamp};
use crate::control::handler::Handler;
use crate::control::store::resources::Resource;
use crate::control::store::services::Service;
use crate::control::{Caller, Control, Refusal, service_of, store};

/// Triggers that are written at a time. They are committed together.
const AT_A_TIME: usize = 64;

/// When a trigger ticks.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "CronSchedule")]
pub struct Schedule {
    /// Its expression: minute, hour, day of month, month and day of week, in UTC.
    pub cron_expression: String,
    /// Whether it ticks.
    pub enabled: bool,
    /// When it ticks next, if it is enabled.
    pub next_time: Option<String>,
}

impl From<cron::Trigger> for Schedule {
    fn from(trigger: cron::Trigger) -> Self {
        Self { cron_expression: trigger.expression, enabled: trigger.enabled, next_time: trigger.next_ms.map(time) }
    }
}

/// A cron trigger.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "CronTrigger")]
pub struct TriggerEntry {
    /// Its id and name.
    #[serde(flatten)]
    pub resource: ResourceEntry,
    /// When it ticks.
    #[serde(flatten)]
    pub schedule: Option<Schedule>,
}

impl From<ResourceEntry> for TriggerEntry {
    fn from(resource: ResourceEntry) -> Self {
        Self { resource, schedule: None }
    }
}

fn time(unix_ms: UnixMs) -> String {
    timestamp(unix_ms.cast_signed())
}

/// Says of each trigger in a list when it ticks.
pub(super) async fn complete(control: &Control, entries: &mut [TriggerEntry]) -> Result<(), Refusal> {
    let numbers = entries.iter().filter_map(|entry| Kind::Cron.number(&entry.resource.id)).map(TriggerNumber).collect::<Vec<_>>();
    if numbers.is_empty() {
        return Ok(());
    }
    let mut found = control.crons().several(numbers).await?;
    for entry in entries {
        let trigger = Kind::Cron.number(&entry.resource.id).and_then(|number| found.remove(&TriggerNumber(number)));
        entry.schedule = trigger.map(Schedule::from);
    }
    Ok(())
}

/// Refuses a project file whose triggers name no time.
pub(crate) fn check(declared: &project::Service) -> Result<(), Refusal> {
    for (name, expression) in &declared.crons {
        if let Err(error) = Expression::parse(expression) {
            return Err(Refusal::new(error.code(), format!("crons.{name}: {error}")));
        }
    }
    Ok(())
}

/// Makes the triggers of rows that were just made, as the project file has them.
pub(crate) async fn make(control: &Control, service: i64, made: &[Resource], declared: &project::Service) -> Result<(), Refusal> {
    let triggers = made.iter().filter(|resource| resource.kind == Kind::Cron);
    let triggers = triggers.filter_map(|resource| Some((resource.number, resource.name.clone(), declared.crons.get(&resource.name)?.clone())));
    set(control, service, triggers.collect()).await
}

/// Gives a service the triggers that it declares, and those that it has the declared expressions. What it has besides stays, and what is paused stays so.
pub(crate) async fn apply(control: &Control, service: &Service, declared: &project::Service) -> Result<(), Refusal> {
    if declared.crons.is_empty() {
        return Ok(());
    }
    let (now, row, crons) = (control.now_ms(), service.clone(), declared.crons.clone());
    let triggers = control
        .write(move |conn| {
            let has: BTreeMap<_, _> = store::resources::list(conn, row.id, Kind::Cron)?.into_iter().map(|row| (row.name.clone(), row)).collect();
            let mut triggers = Vec::with_capacity(crons.len());
            for (name, expression) in crons {
                let number = match has.get(&name) {
                    Some(found) => found.number,
                    None => resources::create(conn, &row, Kind::Cron, &name, now)?.number,
                };
                triggers.push((number, name, expression));
            }
            Ok(triggers)
        })
        .await?;
    set(control, service.id, triggers).await
}

/// Makes triggers, or changes their expressions: their numbers, names and expressions.
async fn set(control: &Control, service: i64, triggers: Vec<(i64, String, String)>) -> Result<(), Refusal> {
    let known = control.crons().several(triggers.iter().map(|(number, ..)| TriggerNumber(*number)).collect()).await?;
    let differ = triggers
        .into_iter()
        .filter(|(number, _, expression)| known.get(&TriggerNumber(*number)).is_none_or(|trigger| trigger.expression != *expression));
    let writes = futures::stream::iter(differ).map(async |(number, name, expression)| {
        control.crons().create(cron::Service(service), TriggerNumber(number), &name, &expression).await.map(drop)
    });
    Ok(writes.buffer_unordered(AT_A_TIME).try_collect().await?)
}

/// Makes a trigger.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Create {
    /// The service.
    pub service: String,
    /// What it is called, as in the path that it is delivered to. `TOVUK_CRON_<NAME>` receives its id.
    pub name: String,
    /// When it ticks: minute, hour, day of month, month and day of week, in UTC.
    pub cron_expression: String,
}

/// A trigger that was made or changed.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "CronTriggerChanged")]
pub struct Changed {
    /// The trigger.
    pub trigger: TriggerEntry,
    /// The resources of the service.
    #[serde(flatten)]
    pub resources: ResourcesResponse,
}

const TRIGGER: Argument = Argument::positional("trigger", "The trigger, by name or id");
const EXPRESSION: Argument =
    Argument::either("cronExpression", "value", "Minute, hour, day of month, month and day of week, in UTC, for example \"0 0 * * *\"")
        .form(Form::Words);

impl Request for Create {
    const OPERATION: Operation = Operation::new("cron.create", Method::Post, "/v1/services/{service}/cron", "Make a cron trigger")
        .described(
            "At each of its times the host sends `POST /.tovuk/cron/<name>` with `name`, `cronExpression` and `scheduledTimeMs` to the worker.",
        )
        .status(201)
        .errors(&[&codes::INVALID_NAME, &codes::RESOURCE_EXISTS, &codes::RESOURCE_LIMIT, &codes::CRON_EXPRESSION_INVALID])
        .commands(&[Command::new("cron create")
            .arguments(&[Argument::positional("name", "What it is called, for example nightly"), EXPRESSION])
            .examples(&["tovuk cron create --service service_1 nightly \"0 0 * * *\""])]);
    type Response = Changed;
}

impl Handler for Create {
    async fn run(self, control: Control, caller: Caller) -> Result<Changed, Refusal> {
        let expression = Expression::parse(&self.cron_expression)?;
        let made = resources::make(&control, caller, Self::OPERATION.name, (self.service, Kind::Cron, self.name)).await?;
        let (service, number) = (cron::Service(made.service.id), TriggerNumber(made.resource.number));
        let trigger = match control.crons().create(service, number, &made.resource.name, expression.as_str()).await {
            Ok(trigger) => trigger,
            Err(error) => {
                resources::unmake(&control, &made.resource).await?;
                return Err(error.into());
            }
        };
        let entry = TriggerEntry { resource: made.resource.into(), schedule: Some(trigger.into()) };
        Ok(Changed { trigger: entry, resources: made.resources.complete(&control).await? })
    }
}

/// A trigger of the caller's service.
async fn found(control: &Control, caller: &Caller, service: String, trigger: String) -> Result<Resource, Refusal> {
    let account = caller.account_number();
    control.read(move |conn| resources::find(conn, &service_of(conn, account, &service)?, Kind::Cron, &trigger)).await
}

/// Changes a trigger.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Update {
    /// The service.
    pub service: String,
    /// The trigger, by name or id.
    pub trigger: String,
    /// When it ticks from now on. Either this or `enabled`.
    pub cron_expression: Option<String>,
    /// Whether it ticks. What it misses while it does not is not made up for.
    pub enabled: Option<bool>,
}

impl Request for Update {
    const OPERATION: Operation =
        Operation::new("cron.update", Method::Put, "/v1/services/{service}/cron/{trigger}", "Change, pause or resume a trigger")
            .described("Ticks that run go on. Those of a paused trigger that wait to be tried again are canceled.")
            .errors(&[&codes::RESOURCE_NOT_FOUND, &codes::CRON_EXPRESSION_INVALID])
            .commands(&[
                Command::new("cron update")
                    .arguments(&[TRIGGER, EXPRESSION])
                    .examples(&["tovuk cron update --service service_1 nightly \"*/15 * * * *\""]),
                Command::new("cron enable")
                    .arguments(&[TRIGGER, Argument::constant("enabled", true)])
                    .examples(&["tovuk cron enable --service service_1 nightly"]),
                Command::new("cron disable")
                    .arguments(&[TRIGGER, Argument::constant("enabled", false)])
                    .examples(&["tovuk cron disable --service service_1 nightly"]),
            ]);
    type Response = Changed;
}

impl Handler for Update {
    async fn run(self, control: Control, caller: Caller) -> Result<Changed, Refusal> {
        let resource = found(&control, &caller, self.service.clone(), self.trigger).await?;
        let number = TriggerNumber(resource.number);
        let trigger = match (self.cron_expression, self.enabled) {
            (Some(expression), None) => control.crons().update(number, &expression).await?,
            (None, Some(enabled)) => control.crons().enable(number, enabled).await?,
            _ => return Err(Refusal::new(&codes::INVALID_REQUEST, "give either `cronExpression` or `enabled`")),
        };
        let (now, name) = (control.now_ms(), resource.name.clone());
        let work = control.write(move |conn| {
            let service = service_of(conn, caller.account_number(), &self.service)?;
            note(conn, &caller, Self::OPERATION.name, Some(service.id), &name, now)?;
            ResourcesResponse::of(conn, &service)
        });
        let resources = work.await?.complete(&control).await?;
        Ok(Changed { trigger: TriggerEntry { resource: resource.into(), schedule: Some(trigger.into()) }, resources })
    }
}

/// Deletes a trigger with its history.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Delete {
    /// The service.
    pub service: String,
    /// The trigger, by name or id.
    pub trigger: String,
}

impl Request for Delete {
    const OPERATION: Operation =
        Operation::new("cron.delete", Method::Delete, "/v1/services/{service}/cron/{trigger}", "Delete a trigger with its history")
            .described("Answers with what the service still has. Ticks that run go on, and are not tried again.")
            .errors(&[&codes::RESOURCE_NOT_FOUND])
            .commands(&[Command::new("cron delete").arguments(&[TRIGGER]).examples(&["tovuk cron delete --service service_1 nightly"])]);
    type Response = ResourcesResponse;
}

impl Handler for Delete {
    async fn run(self, control: Control, caller: Caller) -> Result<ResourcesResponse, Refusal> {
        resources::remove(&control, caller, Self::OPERATION.name, (self.service, Kind::Cron, self.trigger)).await
    }
}

/// Shows a trigger.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Show {
    /// The service.
    pub service: String,
    /// The trigger, by name or id.
    pub trigger: String,
}

/// A trigger and its next times.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "CronTriggerShown")]
pub struct Shown {
    /// The trigger.
    pub trigger: TriggerEntry,
    /// The next five times that its expression names, also while it is paused.
    pub next_times: Vec<String>,
}

impl Request for Show {
    const OPERATION: Operation =
        Operation::new("cron.show", Method::Get, "/v1/services/{service}/cron/{trigger}", "Show a trigger and its next five times")
            .errors(&[&codes::RESOURCE_NOT_FOUND])
            .commands(&[Command::new("cron show").arguments(&[TRIGGER]).examples(&["tovuk cron show --service service_1 nightly"])]);
    type Response = Shown;
}

impl Handler for Show {
    async fn run(self, control: Control, caller: Caller) -> Result<Shown, Refusal> {
        let resource = found(&control, &caller, self.service, self.trigger).await?;
        let number = TriggerNumber(resource.number);
        let trigger = control.crons().get(number).await?;
        let next_times = control.crons().next_times(number).await?.into_iter().map(time).collect();
        Ok(Shown { trigger: TriggerEntry { resource: resource.into(), schedule: Some(trigger.into()) }, next_times })
    }
}

/// Lists runs of a trigger.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct History {
    /// The service.
    pub service: String,
    /// The trigger, by name or id.
    pub trigger: String,
}

/// A run of a trigger.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "CronRun")]
pub struct RunEntry {
    /// Its number.
    pub run: i64,
    /// The time that the expression names, or at which somebody has asked for it.
    pub scheduled_time: String,
    /// Whether somebody has asked for it.
    pub manual: bool,
    /// `waiting`, `running`, `ok`, `failed` or `canceled`.
    pub outcome: &'static str,
    /// Deliveries that have ended.
    pub attempts: u32,
    /// When it is delivered, if it waits.
    pub due_at: Option<String>,
    /// When the last delivery that has ended began.
    pub started_at: Option<String>,
    /// When it ended.
    pub ended_at: Option<String>,
    /// What was said of the last delivery.
    pub detail: Option<String>,
}

impl From<cron::Run> for RunEntry {
    fn from(run: cron::Run) -> Self {
        Self {
            run: run.id,
            scheduled_time: time(run.scheduled_ms),
            manual: run.manual,
            outcome: run.outcome.as_str(),
            attempts: run.attempts,
            due_at: run.due_ms.map(time),
            started_at: run.started_ms.map(time),
            ended_at: run.ended_ms.map(time),
            detail: run.detail,
        }
    }
}

/// The latest runs of a trigger.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "CronHistory")]
pub struct Runs {
    /// The runs, newest first.
    pub runs: Vec<RunEntry>,
}

impl Request for History {
    const OPERATION: Operation =
        Operation::new("cron.history", Method::Get, "/v1/services/{service}/cron/{trigger}/history", "List the latest 100 runs of a trigger")
            .errors(&[&codes::RESOURCE_NOT_FOUND])
            .commands(&[Command::new("cron history").arguments(&[TRIGGER]).examples(&["tovuk cron history --service service_1 nightly"])]);
    type Response = Runs;
}

impl Handler for History {
    async fn run(self, control: Control, caller: Caller) -> Result<Runs, Refusal> {
        let resource = found(&control, &caller, self.service, self.trigger).await?;
        let runs = control.crons().history(TriggerNumber(resource.number)).await?;
        Ok(Runs { runs: runs.into_iter().map(RunEntry::from).collect() })
    }
}

/// Makes a trigger tick now.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Run {
    /// The service.
    pub service: String,
    /// The trigger, by name or id.
    pub trigger: String,
}

/// A tick that was asked for.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "CronRunStarted")]
pub struct Started {
    /// The number of the run, as in the history.
    pub run: i64,
}

impl Request for Run {
    const OPERATION: Operation =
        Operation::new("cron.run", Method::Post, "/v1/services/{service}/cron/{trigger}/run", "Make a trigger tick now, also a paused one")
            .described("The tick is stored when this answers, and delivered and tried again like any other. The history shows what becomes of it.")
            .status(202)
            .errors(&[&codes::RESOURCE_NOT_FOUND, &codes::TOO_MANY_REQUESTS])
            .commands(&[Command::new("cron run").arguments(&[TRIGGER]).examples(&["tovuk cron run --service service_1 nightly"])]);
    type Response = Started;
}

impl Handler for Run {
    async fn run(self, control: Control, caller: Caller) -> Result<Started, Refusal> {
        let resource = found(&control, &caller, self.service, self.trigger).await?;
        Ok(Started { run: control.crons().run_now(TriggerNumber(resource.number)).await? })
    }
}
