//! The alarm of a State object: each has one at most.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tovuk_kernel::codes::{self, Code};
use tovuk_kernel::meters::Meter;
use tovuk_kernel::operation::{Access, Argument, Command, Form, Method, Operation, Request};
use tovuk_resources::state::{self, Schedule};

use super::state::{CLASS, OBJECT, OBJECT_ERRORS, target};
use super::timestamp;
use crate::control::handler::Handler;
use crate::control::{Caller, Control, Refusal};

const ALARM_PATH: &str = "/v1/services/{service}/state/namespaces/{class}/objects/{object}/alarm";

/// Shows the alarm of an object.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Get {
    /// The service.
    pub service: String,
    /// The class, by name or id.
    pub class: String,
    /// The key of the object.
    pub object: String,
}

/// An alarm that is set.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StateAlarmEntry")]
pub struct AlarmEntry {
    /// When it was scheduled for.
    pub scheduled_at: String,
    /// The same in milliseconds of Unix time.
    pub scheduled_at_unix_ms: u64,
    /// When it is delivered next, in milliseconds of Unix time: later than it was scheduled for where a delivery has failed.
    pub next_delivery_at_unix_ms: u64,
    /// Deliveries of it that have failed.
    pub retry_count: u32,
}

/// The alarm of an object.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "StateAlarm")]
pub struct Alarm {
    /// Null when none is set. One that is being delivered is none.
    pub alarm: Option<AlarmEntry>,
}

fn entry(info: state::AlarmInfo) -> AlarmEntry {
    AlarmEntry {
        scheduled_at: timestamp(info.scheduled_at.cast_signed()),
        scheduled_at_unix_ms: info.scheduled_at,
        next_delivery_at_unix_ms: info.next_at,
        retry_count: info.retry_count,
    }
}

impl Request for Get {
    const OPERATION: Operation = Operation::new("state.alarm.get", Method::Get, ALARM_PATH, "Show the alarm of a State object")
        .access(Access::Runtime)
        .errors(OBJECT_ERRORS)
        .meters(&[Meter::StateRequests, Meter::StateSqliteRowsRead])
        .commands(&[Command::new("state alarm get")
            .aliases(&["state alarm"])
            .arguments(&[CLASS, OBJECT])
            .examples(&["tovuk state alarm get --service service_1 Room room-1"])]);
    type Response = Alarm;
}

impl Handler for Get {
    async fn run(self, control: Control, caller: Caller) -> Result<Alarm, Refusal> {
        let (store, target) = target(&control, &caller, (&self.service, self.class, self.object)).await?;
        Ok(Alarm { alarm: store.alarm(&target).await?.value.map(entry) })
    }
}

/// Sets the alarm of an object.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Set {
    /// The service.
    pub service: String,
    /// The class, by name or id.
    pub class: String,
    /// The key of the object, 1 to 512 bytes.
    pub object: String,
    /// In how many seconds it rings.
    pub delay_seconds: Option<u32>,
    /// When it rings, in milliseconds of Unix time. What has passed means now.
    pub scheduled_at_unix_ms: Option<u64>,
}

const SET_ERRORS: &[&Code] = &[
    &codes::RESOURCE_NOT_FOUND,
    &codes::STATE_KEY_INVALID,
    &codes::STATE_ALARM_INVALID,
    &codes::STATE_ALARM_SCHEDULE_REQUIRED,
    &codes::STATE_ALARM_SCHEDULE_CONFLICT,
    &codes::STATE_OBJECT_BUSY,
    &codes::STATE_DEADLOCK,
];

impl Request for Set {
    const OPERATION: Operation = Operation::new("state.alarm.set", Method::Put, ALARM_PATH, "Set the alarm of a State object")
        .described("An object has one alarm: a new one takes the place of the one before. Send either a delay or a time.")
        .access(Access::Runtime)
        .errors(SET_ERRORS)
        .meters(&[Meter::StateRequests, Meter::StateSqliteRowsWritten])
        .commands(&[Command::new("state alarm set")
            .arguments(&[
                CLASS,
                OBJECT,
                Argument::either("scheduledAtUnixMs", "value", "When it rings, in milliseconds of Unix time").form(Form::Integer).optional(),
                Argument::flag("delaySeconds", "delay-seconds", "In how many seconds it rings").form(Form::Integer),
            ])
            .examples(&["tovuk state alarm set --service service_1 Room room-1 --delay-seconds 60"])]);
    type Response = Alarm;
}

impl Handler for Set {
    async fn run(self, control: Control, caller: Caller) -> Result<Alarm, Refusal> {
        let schedule = match (self.delay_seconds, self.scheduled_at_unix_ms) {
            (Some(seconds), None) => Schedule::InSeconds(seconds),
            (None, Some(at)) => Schedule::At(at),
            (None, None) => {
                return Err(Refusal::new(&codes::STATE_ALARM_SCHEDULE_REQUIRED, "neither `delaySeconds` nor `scheduledAtUnixMs` was sent"));
            }
            (Some(_), Some(_)) => {
                return Err(Refusal::new(&codes::STATE_ALARM_SCHEDULE_CONFLICT, "both `delaySeconds` and `scheduledAtUnixMs` were sent"));
            }
        };
        let (store, target) = target(&control, &caller, (&self.service, self.class, self.object)).await?;
        let at = store.set_alarm(&target, schedule).await?.value;
        Ok(Alarm { alarm: Some(entry(state::AlarmInfo { scheduled_at: at, next_at: at, retry_count: 0 })) })
    }
}

/// Removes the alarm of an object.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Delete {
    /// The service.
    pub service: String,
    /// The class, by name or id.
    pub class: String,
    /// The key of the object.
    pub object: String,
}

/// What became of an alarm.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "StateAlarmDeleted")]
pub struct Deleted {
    /// Whether one was set.
    pub deleted: bool,
}

impl Request for Delete {
    const OPERATION: Operation = Operation::new("state.alarm.delete", Method::Delete, ALARM_PATH, "Remove the alarm of a State object")
        .described("One that is being delivered is not tried again. It is no error when none is set.")
        .access(Access::Runtime)
        .errors(OBJECT_ERRORS)
        .meters(&[Meter::StateRequests, Meter::StateSqliteRowsRead, Meter::StateSqliteRowsWritten])
        .commands(&[Command::new("state alarm delete")
            .arguments(&[CLASS, OBJECT])
            .examples(&["tovuk state alarm delete --service service_1 Room room-1"])]);
    type Response = Deleted;
}

impl Handler for Delete {
    async fn run(self, control: Control, caller: Caller) -> Result<Deleted, Refusal> {
        let (store, target) = target(&control, &caller, (&self.service, self.class, self.object)).await?;
        Ok(Deleted { deleted: store.delete_alarm(&target).await?.value })
    }
}
