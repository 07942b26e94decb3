//! A batch as its worker gets it, and the answer that says what is to become of its messages.

use std::cell::Cell;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use super::seconds;
use crate::{Error, Request, Response, Result};

/// Messages of one queue that are delivered together, in the order in which they came.
///
/// Each message has a say of its own: [`Message::ack`], [`Message::retry`]. What is not settled is done when the handler succeeds, and comes again when it fails. A
/// message that comes again too often goes to the dead-letter queue, if there is one. A message can come more than once although it was done, for example
/// when the host ends in between; its [`id`](Message::id) stays.
#[derive(Debug, Deserialize)]
pub struct Batch {
    queue: String,
    messages: Vec<Message>,
}

/// A message that is delivered.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    id: String,
    timestamp_ms: u64,
    attempts: u32,
    #[serde(deserialize_with = "decoded")]
    body: Vec<u8>,
    #[serde(skip)]
    fate: Cell<Option<Fate>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Ack,
    /// Again, after so many seconds or as long as its attempts say.
    Retry(Option<u32>),
}

fn decoded<'de, D: Deserializer<'de>>(text: D) -> Result<Vec<u8>, D::Error> {
    BASE64_STANDARD.decode(<std::borrow::Cow<'de, str>>::deserialize(text)?.as_bytes()).map_err(serde::de::Error::custom)
}

#[derive(Serialize)]
struct Verdict<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    retry: Vec<Again<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Again<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_seconds: Option<u32>,
}

impl Batch {
    /// The batch that a request delivers: one that the host sends to `/.tovuk/queues/<queue>`.
    ///
    /// # Errors
    /// A 400 when it is none.
    pub fn of(request: &Request) -> Result<Self> {
        request.json()
    }

    /// The name of the queue.
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// The messages.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// All of them are done.
    pub fn ack_all(&self) {
        self.messages.iter().for_each(Message::ack);
    }

    /// All of them are to come again.
    pub fn retry_all(&self) {
        self.messages.iter().for_each(Message::retry);
    }

    /// All of them are to come again, not before this time has passed.
    pub fn retry_all_after(&self, delay: Duration) {
        self.messages.iter().for_each(|message| message.retry_after(delay));
    }

    /// The response that says what is to become of the messages, after a handler has returned this. A failure is only passed on when no message was settled before:
    /// then the host counts the whole batch as failed. Else its text goes to the log.
    ///
    /// # Errors
    /// The failure. One with status 404 or 405 is a 500: the host takes those for a worker without a handler for the queue, and delivers nothing more.
    pub fn answer(&self, result: Result<()>) -> Result<Response> {
        let rest = match result {
            Ok(()) => Fate::Ack,
            Err(error) if self.messages.iter().all(|message| message.fate.get().is_none()) => return Err(error.of_event()),
            Err(error) => {
                log::error!("a batch of the queue {} has failed: {error}", self.queue);
                Fate::Retry(None)
            }
        };
        let retry = self.messages.iter().filter_map(|message| match message.fate.get().unwrap_or(rest) {
            Fate::Ack => None,
            Fate::Retry(delay_seconds) => Some(Again { id: &message.id, delay_seconds }),
        });
        Response::json(&Verdict { retry: retry.collect() })
    }
}

impl Message {
    /// Names the message, at each delivery by the same text.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// When it came into the queue, in ms of Unix time.
    pub fn timestamp_ms(&self) -> u64 {
        self.timestamp_ms
    }

    /// Which delivery this is, counted from 1.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body as text.
    ///
    /// # Errors
    /// A 500 when it is not UTF-8.
    pub fn text(&self) -> Result<&str> {
        std::str::from_utf8(&self.body).map_err(|error| Error::internal(format_args!("message {} is no text: {error}", self.id)))
    }

    /// The body, read as JSON. It may borrow from the message.
    ///
    /// # Errors
    /// A 500 when it is not the JSON of a `T`.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| Error::internal(format_args!("message {} cannot be read: {error}", self.id)))
    }

    /// It is done, also when the rest of the batch fails.
    pub fn ack(&self) {
        self.fate.set(Some(Fate::Ack));
    }

    /// It is to come again, after a second that doubles with each attempt.
    pub fn retry(&self) {
        self.fate.set(Some(Fate::Retry(None)));
    }

    /// It is to come again, not before this time has passed: at most a day, in whole seconds, rounded up.
    pub fn retry_after(&self, delay: Duration) {
        self.fate.set(Some(Fate::Retry(Some(seconds(delay)))));
    }
}

/// Bodies of one type, for handlers that treat each message alone.
impl Batch {
    /// Calls `work` with the body of each message, read as JSON. Those for which it fails are to come again, with its text in the log; the others are done.
    pub fn each<T: DeserializeOwned>(&self, work: impl Fn(T) -> Result<()>) {
        for message in &self.messages {
            match message.json().and_then(&work) {
                Ok(()) => message.ack(),
                Err(error) => {
                    log::error!("message {} of the queue {} has failed: {error}", message.id, self.queue);
                    message.retry();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;
    use crate::Router;

    fn event() -> Request {
        let message = |id: &str, body: &str| json!({"id": id, "timestampMs": 5, "attempts": 2, "encoding": "base64", "body": body});
        let event = json!({"queue": "jobs", "messages": [message("1-1", "MQ=="), message("1-2", "Mg=="), message("1-3", "/w==")]});
        Request::post("/.tovuk/queues/jobs").with_json(&event).unwrap()
    }

    fn answer(handler: impl Fn(&Batch) -> Result<()>) -> (u16, Value) {
        match Router::new().queue("jobs", handler).run(event()) {
            Ok(response) => (response.status(), serde_json::from_slice(response.body()).unwrap()),
            Err(error) => (error.status(), Value::Null),
        }
    }

    #[test]
    fn what_is_not_settled_is_done_unless_the_handler_fails() {
        assert_eq!(answer(|_| Ok(())), (200, json!({})));
        assert_eq!(answer(|_| Err(Error::internal("no"))), (500, Value::Null));
        let some = |batch: &Batch| {
            batch.messages()[0].retry_after(Duration::from_millis(1_500));
            batch.messages()[1].retry();
            Ok(())
        };
        assert_eq!(answer(some), (200, json!({"retry": [{"id": "1-1", "delaySeconds": 2}, {"id": "1-2"}]})));
        let halfway = |batch: &Batch| {
            batch.messages()[0].ack();
            batch.messages()[2].text().map(drop)
        };
        assert_eq!(answer(halfway), (200, json!({"retry": [{"id": "1-2"}, {"id": "1-3"}]})), "what was done is not done again");
        assert_eq!(answer(|batch| batch.messages()[2].text().map(drop)), (500, Value::Null));
        let all = |batch: &Batch| {
            batch.retry_all();
            batch.ack_all();
            Ok(())
        };
        assert_eq!(answer(all), (200, json!({})), "the last word counts");
    }

    #[test]
    fn a_batch_has_what_was_sent() {
        let read = |batch: &Batch| {
            let first = &batch.messages()[0];
            assert_eq!((batch.queue(), batch.messages().len()), ("jobs", 3));
            assert_eq!((first.id(), first.timestamp_ms(), first.attempts(), first.text()?, first.json::<u8>()?), ("1-1", 5, 2, "1", 1));
            assert_eq!(batch.messages()[2].body(), [0xff]);
            batch.each(|number: u8| if number == 1 { Ok(()) } else { Err(Error::internal("no")) });
            Ok(())
        };
        assert_eq!(answer(read), (200, json!({"retry": [{"id": "1-2"}, {"id": "1-3"}]})));
    }

    #[test]
    fn a_handler_that_has_not_found_something_is_no_missing_handler() {
        for (status, answered) in [(404, 500), (405, 500), (409, 409)] {
            assert_eq!(answer(|_| Err(Error::new(status, "gone"))), (answered, Value::Null));
        }
    }

    #[test]
    fn what_is_no_event_and_other_queues_are_refused() {
        let status = |request: Request| match Router::new().queue("jobs", |_| Ok(())).run(request) {
            Ok(response) => response.status(),
            Err(error) => error.status(),
        };
        assert_eq!(status(Request::post("/.tovuk/queues/jobs").with_body("{}")), 400);
        assert_eq!((status(Request::post("/.tovuk/queues/other")), status(Request::get("/.tovuk/queues/jobs"))), (404, 405));
        assert_eq!(status(Request::post("/jobs")), 404);
    }
}
