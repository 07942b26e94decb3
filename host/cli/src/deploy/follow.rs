//! Follows a build to its end: its log as it is written, and how it ended. The build runs by itself; whoever stops following changes nothing.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use tovuk_kernel::clock::Clock;
use tovuk_kernel::codes;

use crate::client::{Call, Client, encoded};
use crate::failure::Failure;
use crate::output::one_line;

/// How often the host is asked.
const POLL: Duration = Duration::from_millis(250);
/// The same once a build has taken longer than `LONG`.
const POLL_LONG: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(10);
/// Questions in a row that may fail: a host that is started anew goes on with its builds.
const FAILURES_MAX: u32 = 20;
/// Lines of the log that a failure repeats for programs.
const TAIL: usize = 20;

/// A build that is followed.
pub struct Follow<'a> {
    /// Asks the host.
    pub client: &'a Client,
    /// Tells time.
    pub clock: &'a Clock,
    /// The service's name.
    pub service: &'a str,
    /// The build.
    pub build: &'a str,
    /// How long to follow.
    pub timeout: Duration,
}

impl Follow<'_> {
    /// Waits for the end of the build. Gives the build when it has succeeded.
    pub async fn to_the_end(&self) -> Result<Value, Failure> {
        let bar = ProgressBar::new_spinner();
        bar.set_style(ProgressStyle::default_spinner());
        bar.enable_steady_tick(Duration::from_millis(100));
        let ended = self.poll(&bar).await;
        bar.finish_and_clear();
        let (build, tail) = ended?;
        let text = |name: &str| build.get(name).and_then(Value::as_str).unwrap_or_default();
        let (code, failed) = match text("status") {
            "succeeded" => return Ok(build),
            "canceled" => ("build_canceled", "was cancelled"),
            _ => (codes::BUILD_FAILED.code, "failed"),
        };
        let failure = Failure::of(&codes::BUILD_FAILED, format!("{} of `{}` {failed}: {}", self.build, self.service, text("message")));
        let failure = failure.instruct(format!(
            "Run `tovuk logs --build {}{}`, correct what it names, and deploy again. What was live before is still live.",
            self.build,
            self.client.flag()
        ));
        Err(Failure {
            code: code.to_owned(),
            details: Box::new(Map::from_iter([("final_build".to_owned(), build), ("log_tail".to_owned(), json!(tail))])),
            ..failure
        })
    }

    async fn poll(&self, bar: &ProgressBar) -> Result<(Value, Vec<String>), Failure> {
        let started = self.clock.monotonic_ms();
        let taken = || Duration::from_millis(self.clock.monotonic_ms().saturating_sub(started));
        let (mut cursor, mut tail, mut failures) = ("after_0".to_owned(), Vec::new(), 0);
        loop {
            match self.look(&mut cursor, &mut tail, bar).await {
                Ok(build) => {
                    failures = 0;
                    let status = build.get("status").and_then(Value::as_str).unwrap_or_default();
                    if matches!(status, "succeeded" | "failed" | "canceled") {
                        self.lines(&mut cursor, &mut tail, bar).await?;
                        return Ok((build, tail));
                    }
                    bar.set_message(format!("{} {} for {} s", self.build, one_line(status), taken().as_secs()));
                }
                Err(failure) if (failure.status == 0 || failure.status >= 500) && failures < FAILURES_MAX => failures += 1,
                Err(failure) => return Err(failure),
            }
            if taken() >= self.timeout {
                let failure = Failure::local(
                    "build_wait_timeout",
                    format!("{} of `{}` has not ended within {} s", self.build, self.service, self.timeout.as_secs()),
                );
                return Err(failure.instruct(format!(
                    "It goes on by itself: `tovuk logs --build {}{}` shows how far it is. `--wait-timeout` waits longer.",
                    self.build,
                    self.client.flag()
                )));
            }
            self.clock.sleep(if taken() < LONG { POLL } else { POLL_LONG }).await;
        }
    }

    async fn look(&self, cursor: &mut String, tail: &mut Vec<String>, bar: &ProgressBar) -> Result<Value, Failure> {
        self.lines(cursor, tail, bar).await?;
        let answer = self.client.call(Call::get(format!("/v1/builds/{}", encoded(self.build)))).await?;
        Ok(answer.get("build").cloned().unwrap_or_default())
    }

    /// Shows what is new in the log.
    async fn lines(&self, cursor: &mut String, tail: &mut Vec<String>, bar: &ProgressBar) -> Result<(), Failure> {
        loop {
            let page = self.client.call(Call::get(format!("/v1/builds/{}/logs?cursor={}", encoded(self.build), encoded(cursor)))).await?;
            for line in page.get("lines").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default() {
                let message = one_line(line.get("message").and_then(Value::as_str).unwrap_or_default());
                bar.suspend(|| eprintln!("{} | {message}", self.service));
                tail.push(message);
            }
            tail.drain(..tail.len().saturating_sub(TAIL));
            if let Some(next) = page.get("follow_cursor").and_then(Value::as_str) {
                *cursor = next.to_owned();
            }
            if page.get("has_more").and_then(Value::as_bool) != Some(true) {
                return Ok(());
            }
        }
    }
}
