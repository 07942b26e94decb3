//! What cron promises: expressions mean what they say, ticks come once and on time, and failing ones end.
#![allow(clippy::unwrap_used)]

mod expressions;
mod killed;
mod measured;
mod model;
mod ticking;

use std::time::Duration;

use tempfile::TempDir;

use super::*;

const SERVICE: Service = Service(3);
const NIGHTLY: TriggerNumber = TriggerNumber(7);
/// The 1st of June 2026, a Monday, 12:00:30 UTC.
const START: UnixMs = 1_780_315_230_000;
const MINUTE: Duration = Duration::from_secs(60);

async fn open(folder: &TempDir, clock: &Clock) -> Crons {
    Crons::open(&folder.path().join("cron.db"), clock.clone()).await.unwrap()
}

async fn fresh() -> (TempDir, Clock, Crons) {
    let (folder, clock) = (TempDir::new().unwrap(), Clock::advanceable_at(START));
    let crons = open(&folder, &clock).await;
    (folder, clock, crons)
}

/// What is due, of which there is one.
async fn one(crons: &Crons) -> Tick {
    let mut ticks = crons.due(10).await.unwrap();
    assert_eq!(ticks.len(), 1);
    ticks.pop().unwrap()
}

async fn none(crons: &Crons) -> bool {
    crons.due(10).await.unwrap().is_empty()
}

/// Moves the clock to a time, or a little past it.
fn advance_to(clock: &Clock, time: UnixMs) {
    clock.advance(Duration::from_millis(time.saturating_sub(clock.now_unix_ms())));
}
