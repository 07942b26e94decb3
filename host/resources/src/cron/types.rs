//! What the operations on cron triggers take and answer.

use tovuk_kernel::clock::UnixMs;

/// The number that the control database has given to a trigger. It is never given to another: what was dropped stays dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TriggerNumber(pub i64);

/// The number of the service that a trigger belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Service(pub i64);

/// A trigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// Its number.
    pub number: TriggerNumber,
    /// Whose it is.
    pub service: Service,
    /// What it is called, as in the path that it is delivered to.
    pub name: String,
    /// When it ticks.
    pub expression: String,
    /// Whether it ticks.
    pub enabled: bool,
    /// When it ticks next. None if it is disabled.
    pub next_ms: Option<UnixMs>,
}

/// What has become of a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It waits to be delivered, perhaps again.
    Waiting,
    /// It is being delivered.
    Running,
    /// It has succeeded.
    Ok,
    /// It has failed for the last time.
    Failed,
    /// Its trigger was disabled while it waited.
    Canceled,
}

impl Outcome {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }

    pub(super) fn number(self) -> i64 {
        match self {
            Self::Waiting | Self::Running => 0,
            Self::Ok => 1,
            Self::Failed => 2,
            Self::Canceled => 3,
        }
    }

    pub(super) fn stored(number: i64) -> Self {
        match number {
            1 => Self::Ok,
            2 => Self::Failed,
            3 => Self::Canceled,
            _ => Self::Waiting,
        }
    }
}

/// A tick in the history of its trigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Counts up over all triggers.
    pub id: i64,
    /// The time that the expression names, or at which somebody has asked for it.
    pub scheduled_ms: UnixMs,
    /// Whether somebody has asked for it.
    pub manual: bool,
    /// When it is delivered, if it waits.
    pub due_ms: Option<UnixMs>,
    /// Deliveries that have ended.
    pub attempts: u32,
    /// What has become of it.
    pub outcome: Outcome,
    /// When the last delivery that has ended began.
    pub started_ms: Option<UnixMs>,
    /// When it ended, for good.
    pub ended_ms: Option<UnixMs>,
    /// What was said of the last delivery.
    pub detail: Option<String>,
}
