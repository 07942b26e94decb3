//! The clock of a development host, moved ahead instead of waited for. An operator's host has the machine's, which nobody moves.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tovuk_kernel::codes;
use tovuk_kernel::limits::CLOCK_ADVANCE_SECONDS_MAX;
use tovuk_kernel::operation::{Argument, Command, Method, Operation, Request};

use super::timestamp;
use crate::control::handler::Handler;
use crate::control::{Caller, Control, Refusal};

/// The time of a host.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "HostTime")]
pub struct Time {
    /// The time of day by which the host goes.
    pub now: String,
    /// The same in milliseconds of Unix time.
    pub now_unix_ms: i64,
}

impl Time {
    fn of(control: &Control) -> Self {
        let now_unix_ms = control.now_ms();
        Self { now: timestamp(now_unix_ms), now_unix_ms }
    }
}

/// Shows the host's time.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Show {}

impl Request for Show {
    const OPERATION: Operation = Operation::new("clock.show", Method::Get, "/v1/clock", "Show the time by which the host goes")
        .commands(&[Command::new("clock show").default().examples(&["tovuk clock show"])]);
    type Response = Time;
}

impl Handler for Show {
    async fn run(self, control: Control, _caller: Caller) -> Result<Time, Refusal> {
        Ok(Time::of(&control))
    }
}

/// Moves the clock ahead.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Advance {
    /// How far, for example `90s`, `1h 30m` or `2 days`.
    pub by: String,
}

impl Request for Advance {
    const OPERATION: Operation = Operation::new("clock.advance", Method::Post, "/v1/clock/advance", "Move the clock of a development host ahead")
        .described(
            "Only of `tovuk dev`: any other host answers 501. Whatever waits for a time that is now past goes on at once, requests that wait for longer \
             than their limit included. A clock is never moved back; a host that is started anew has the machine's time again.",
        )
        .errors(&[&codes::NOT_ON_THIS_HOST])
        .commands(&[Command::new("clock advance")
            .arguments(&[Argument::positional("by", "How far, for example 90s, 1h30m or 2d")])
            .examples(&["tovuk clock advance 1h"])]);
    type Response = Time;
}

fn duration(text: &str) -> Option<Duration> {
    let span: Span = text.parse().ok()?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    Duration::try_from(duration).ok().filter(|duration| !duration.is_zero() && duration.as_secs() <= CLOCK_ADVANCE_SECONDS_MAX)
}

impl Handler for Advance {
    async fn run(self, control: Control, _caller: Caller) -> Result<Time, Refusal> {
        let by = duration(&self.by).ok_or_else(|| {
            let text = format!("`by` must be a time such as `90s`, `1h 30m` or `2d`, of at most {CLOCK_ADVANCE_SECONDS_MAX} s");
            Refusal::new(&codes::INVALID_REQUEST, text)
        })?;
        if !control.config().is_development || !control.clock().advance(by) {
            return Err(Refusal::new(&codes::NOT_ON_THIS_HOST, "only the clock of `tovuk dev` can be moved")
                .instruct("Run `tovuk dev`, and this command in the folder of its project."));
        }
        Ok(Time::of(&control))
    }
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, seconds) in
            [("90s", 90), ("1h", 3_600), ("1h30m", 5_400), ("1h 30m", 5_400), ("2 days", 172_800), ("2d", 172_800), ("PT1H", 3_600)]
        {
            assert_eq!(duration(text).map(|duration| duration.as_secs()), Some(seconds), "{text}");
        }
        for text in ["", "0s", "-1h", "soon", "1", "1000 years", "1 month"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
