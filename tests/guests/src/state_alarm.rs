//! Takes the alarms of its State objects without a path. One tells its object what came: `rung` counts, `last` has its figures. It fails while the object
//! has a value `fail`, traps while it has a value `trap`, and sets the next one while it has a value `again`. `POST /` has to be there, and does nothing.

use std::time::Duration;

use serde_json::json;
use tovuk::state::{Object, Ringing};
use tovuk::{Error, Request, Response, Result};

#[tovuk::alarm]
fn ring(object: Object, alarm: Ringing) -> Result<()> {
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

#[tovuk::handler]
fn handle(_: Request) -> Response {
    Response::empty(204)
}
