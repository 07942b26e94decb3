//! Ticks of the service's cron triggers, as the host delivers them.
//!
//! A trigger `nightly` sends `POST /.tovuk/cron/nightly` at each of its times. [`Router::cron`](crate::Router::cron) answers that:
//!
//! ```
//! use tovuk::cron::Tick;
//! use tovuk::{Request, Response, Result, Router};
//!
//! #[tovuk::handler]
//! fn handle(req: Request) -> Result<Response> {
//!     Router::new().cron("nightly", clean_up).run(req)
//! }
//!
//! fn clean_up(tick: Tick) -> Result<()> {
//!     tovuk::log::info!("cleaning up for {:?}", tick.scheduled());
//!     Ok(())
//! }
//!
//! let env = tovuk::testing::TestEnv::new();
//! let tick = Tick::new("nightly", "0 0 * * *", 1_780_272_000_000);
//! assert_eq!(env.run(handle, tick.to_request()?).status(), 204);
//! # Ok::<(), tovuk::Error>(())
//! ```
//!
//! A worker that does nothing else can have `#[tovuk::cron("nightly")]` on `clean_up`, and no other handler.
//!
//! A tick whose handler fails, or that the worker has no route for, is delivered again after one, two and four minutes. It can also come twice where the host
//! has died in between, so what it does should do no harm when it is done again: [`Tick::scheduled_time_ms`] stays the same.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::{Request, Result};

/// Where ticks are delivered, before the trigger's name.
pub(crate) const PREFIX: &str = "/.tovuk/cron/";

/// One tick of a trigger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tick {
    name: String,
    cron_expression: String,
    scheduled_time_ms: u64,
}

impl Tick {
    /// A tick, for tests.
    pub fn new(name: &str, cron_expression: &str, scheduled_time_ms: u64) -> Self {
        Self { name: name.to_owned(), cron_expression: cron_expression.to_owned(), scheduled_time_ms }
    }

    /// The tick that a request delivers.
    ///
    /// # Errors
    /// When its body is none: status 400.
    pub fn of(request: &Request) -> Result<Self> {
        request.json()
    }

    /// The request that delivers it, for tests.
    ///
    /// # Errors
    /// None in practice: a tick is always JSON.
    pub fn to_request(&self) -> Result<Request> {
        Request::post(format!("{PREFIX}{}", self.name)).with_json(self)
    }

    /// The trigger's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The trigger's expression.
    pub fn cron_expression(&self) -> &str {
        &self.cron_expression
    }

    /// The time that the expression names, or at which somebody has asked for the tick, in ms of Unix time. It is the same each time that the tick is
    /// delivered.
    pub fn scheduled_time_ms(&self) -> u64 {
        self.scheduled_time_ms
    }

    /// The same as a time.
    pub fn scheduled(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.scheduled_time_ms)
    }
}
