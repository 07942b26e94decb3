//! Takes the alarms of its State objects without a path. One tells its object what came: `rung` counts, `last` has its figures. It fails while the object
//! has a value `fail`, traps while it has a value `trap`, and sets the next one while it has a value `again`. Those of the class `Late` are counted in the
//! KV namespace `LATE` by how late they are. Requests are answered with nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use tovuk::state::{Object, Ringing};
use tovuk::{Error, Request, Response, Result};

#[tovuk::alarm]
fn ring(object: Object, alarm: Ringing) -> Result<()> {
    if object.class() == "Late" {
        return late(alarm);
    }
    object.increment("rung", 1)?;
    object.put_json("last", &json!([object.class(), object.key(), alarm.scheduled_ms, alarm.retry_count, alarm.is_retry()]))?;
    if object.get("again")?.is_some() {
        object.set_alarm(Duration::from_secs(60))?;
    }
    if object.get("trap")?.is_some() {
        std::process::abort();
    }
    match object.get("fail")? {
        Some(_) => Err(Error::internal("the alarm fails on purpose")),
        None => Ok(()),
    }
}

/// Counts in KV how late an alarm is, in steps of 50 ms.
fn late(alarm: Ringing) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(Error::internal)?.as_millis();
    let steps = now.saturating_sub(u128::from(alarm.scheduled_ms)) / 50;
    tovuk::kv("LATE").increment(&format!("{steps:06}"), 1)?;
    Ok(())
}

#[tovuk::handler]
fn handle(_: Request) -> Response {
    Response::empty(204)
}
