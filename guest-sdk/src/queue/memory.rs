//! Queues in memory, for tests: the same answers and refusals as the host's, without its disk. Nothing is delivered by itself.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::{Body, Metrics, Outgoing, PREFIX};
use crate::{DataError, Request, Response, testing};

/// The queues that a test has made, by name.
#[derive(Debug, Default)]
pub(crate) struct Queues(BTreeMap<String, Vec<Waiting>>);

#[derive(Debug)]
struct Waiting {
    id: String,
    body: Vec<u8>,
    sent: u64,
    /// When it can be delivered, in s of Unix time.
    due: u64,
    attempts: u32,
}

fn error<T>(code: &str, text: impl Into<String>) -> Result<T, DataError> {
    Err(DataError::new(code, text))
}

impl Queues {
    pub(crate) fn make(&mut self, name: &str) {
        self.0.entry(name.to_owned()).or_default();
    }

    fn find(&mut self, name: &str) -> Result<&mut Vec<Waiting>, DataError> {
        let none = || DataError::new("resource_not_found", format!("the test has no queue `{name}`: add `.queue(\"{name}\")` to its TestEnv"));
        self.0.get_mut(name).ok_or_else(none)
    }

    pub(crate) fn send(&mut self, name: &str, messages: Vec<Outgoing>, now: u64) -> Result<Vec<String>, DataError> {
        let waiting = self.find(name)?;
        if !(1..=100).contains(&messages.len()) {
            let code = if messages.is_empty() { "invalid_request" } else { "queue_batch_too_large" };
            return error(code, format!("the batch has {} messages; a batch has 1 to 100", messages.len()));
        }
        for message in &messages {
            if message.body.len() > 127_900 {
                return error("queue_message_too_large", format!("the body has {} bytes; a message has at most 127900", message.body.len()));
            }
            if message.delay.is_some_and(|delay| delay > 86_400) {
                return error("invalid_request", "a delay of more than 86400 s is too long");
            }
        }
        if messages.iter().map(|message| message.body.len()).sum::<usize>() > 256_000 {
            return error("queue_batch_too_large", "the bodies of the batch have more than 256000 bytes together");
        }
        let ids = messages.into_iter().map(|message| {
            let body = match message.body {
                Body::Text(text) => text.into_bytes(),
                Body::Bytes(bytes) => bytes,
            };
            let id = format!("1-{:x}", waiting.iter().filter_map(|waiting| number(&waiting.id)).max().unwrap_or(0) + 1);
            waiting.push(Waiting { id: id.clone(), body, sent: now, due: now + u64::from(message.delay.unwrap_or(0)), attempts: 0 });
            id
        });
        Ok(ids.collect())
    }

    fn count(&mut self, name: &str, now: u64) -> Result<Metrics, DataError> {
        let waiting = self.find(name)?;
        let oldest = waiting.iter().map(|waiting| waiting.sent).min().unwrap_or(now);
        let bytes = waiting.iter().map(|waiting| waiting.body.len() as u64).sum();
        let oldest_message_age_ms = now.saturating_sub(oldest) * 1_000;
        Ok(Metrics { backlog_count: waiting.len() as u64, backlog_bytes: bytes, oldest_message_age_ms, in_flight: 0 })
    }

    pub(crate) fn bodies(&self, name: &str) -> Vec<Vec<u8>> {
        self.0.get(name).into_iter().flatten().map(|waiting| waiting.body.clone()).collect()
    }

    /// The event of all that can be delivered.
    pub(crate) fn event(&mut self, name: &str, now: u64) -> Request {
        let mut messages = Vec::new();
        for waiting in self.0.get_mut(name).into_iter().flatten().filter(|waiting| waiting.due <= now).take(100) {
            waiting.attempts += 1;
            let Waiting { id, body, sent, attempts, .. } = waiting;
            let body = BASE64_STANDARD.encode(body);
            messages.push(json!({"id": id, "timestampMs": *sent * 1_000, "attempts": attempts, "encoding": "base64", "body": body}));
        }
        let event = json!({"queue": name, "messages": messages});
        Request::post(format!("{PREFIX}{name}")).with_header("content-type", "application/json").with_body(event.to_string())
    }

    /// Removes what the answer to an event says is done.
    pub(crate) fn settle(&mut self, name: &str, response: &Response, now: u64) {
        if !(200..300).contains(&response.status()) {
            return;
        }
        let said: Value = serde_json::from_slice(response.body()).unwrap_or_default();
        let again = |id: &str| said.get("retry")?.as_array()?.iter().find(|again| again.get("id").and_then(Value::as_str) == Some(id));
        for waiting in self.0.get_mut(name).into_iter() {
            waiting.retain_mut(|waiting| {
                let Some(again) = again(&waiting.id) else { return waiting.due > now };
                waiting.due = now + again.get("delaySeconds").and_then(Value::as_u64).unwrap_or(0);
                true
            });
        }
    }
}

fn number(id: &str) -> Option<u64> {
    u64::from_str_radix(id.strip_prefix("1-")?, 16).ok()
}

/// Asks the queues that the test has made.
fn queues<T>(ask: impl FnOnce(&mut Queues, u64) -> Result<T, DataError>) -> Result<T, DataError> {
    let no_host = || DataError::new("storage_failed", "a native program has no host that keeps data: run the handler with `tovuk::testing::TestEnv`");
    testing::current().ok_or_else(no_host)?.with_queues(ask)
}

pub fn send(queue: &str, message: Outgoing) -> Result<String, DataError> {
    Ok(send_batch(queue, vec![message])?.pop().unwrap_or_default())
}

pub fn send_batch(queue: &str, messages: Vec<Outgoing>) -> Result<Vec<String>, DataError> {
    queues(|queues, now| queues.send(queue, messages, now))
}

pub fn count(queue: &str) -> Result<Metrics, DataError> {
    queues(|queues, now| queues.count(queue, now))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use crate::queue::Outgoing;
    use crate::testing::TestEnv;
    use crate::{DataError, Error, Request, Response, Result, Router, queue};

    fn handle(req: Request) -> Result<Response> {
        let work = |batch: &queue::Batch| match batch.messages().iter().find(|message| message.body() == b"bad") {
            Some(bad) if batch.messages().len() == 1 => Err(Error::internal(format_args!("message {}", bad.id()))),
            Some(bad) => {
                bad.retry_after(Duration::from_secs(10));
                Ok(())
            }
            None => Ok(()),
        };
        Router::new().queue("jobs", work).run(req)
    }

    #[test]
    fn what_was_sent_is_delivered_until_it_is_done() {
        let env = TestEnv::new().queue("jobs");
        env.within(|| {
            let jobs = queue("jobs");
            assert_eq!(jobs.send("good").unwrap(), "1-1");
            assert_eq!(jobs.send_batch(["bad", "later"].map(Outgoing::text)).unwrap(), ["1-2", "1-3"]);
            jobs.send(Outgoing::bytes_of([0xff]).with_delay(Duration::from_secs(60))).unwrap();
            assert_eq!((jobs.metrics().unwrap().backlog_count, jobs.metrics().unwrap().backlog_bytes), (4, 13));
        });
        assert_eq!(env.deliver(handle, "jobs").status(), 200);
        assert_eq!(env.queued("jobs"), [b"bad".to_vec(), vec![0xff]]);
        env.advance(Duration::from_secs(11));
        assert_eq!(env.deliver(handle, "jobs").status(), 500);
        env.advance(Duration::from_secs(60));
        assert_eq!(env.deliver(handle, "jobs").status(), 200);
        assert_eq!(env.queued("jobs"), [b"bad".to_vec()]);
    }

    #[test]
    fn refusals_are_those_of_the_host() {
        fn code<T: std::fmt::Debug>(result: Result<T, DataError>) -> String {
            result.unwrap_err().code().to_owned()
        }
        TestEnv::new().queue("jobs").within(|| {
            let jobs = queue("jobs");
            assert_eq!(code(queue("other").send("x")), "resource_not_found");
            assert_eq!(code(jobs.send(vec![0; 127_901])), "queue_message_too_large");
            assert_eq!(code(jobs.send(vec![0; 29 << 20])), "queue_message_too_large");
            assert_eq!(code(jobs.send(Outgoing::text("x").with_delay(Duration::from_secs(86_401)))), "invalid_request");
            assert_eq!(code(jobs.send_batch(vec!["x"; 101])), "queue_batch_too_large");
            assert_eq!(code(jobs.send_batch(vec![vec![0; 100_000]; 3])), "queue_batch_too_large");
            assert_eq!(code(jobs.send_batch(Vec::<&str>::new())), "invalid_request");
        });
        assert!(queue("jobs").send("x").unwrap_err().message().contains("TestEnv"));
    }
}
