//! The event of a queue as its worker sees it, and what the worker's answer says of the messages.

use base64::display::Base64Display;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde::{Deserialize, Serialize, Serializer};
use tovuk_kernel::limits::{QUEUE_DELAY_SECONDS_MAX, QUEUE_RETRY_SECONDS, QUEUE_RETRY_SECONDS_MAX};
use tovuk_resources::queue::{Message, MessageId, Rest, Retry, Verdict};

/// What the fields of a message take beside its body, about.
const MESSAGE_BYTES: usize = 160;

#[derive(Serialize)]
struct Event<'a> {
    queue: &'a str,
    messages: Vec<Delivered<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Delivered<'a> {
    #[serde(serialize_with = "shown")]
    id: MessageId,
    timestamp_ms: u64,
    attempts: u32,
    encoding: &'static str,
    #[serde(serialize_with = "shown")]
    body: Base64Display<'a, 'static, GeneralPurpose>,
}

fn shown<S: Serializer>(value: &impl std::fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// How long the body of an event with these messages is, about.
pub(super) fn body_bytes(messages: &[Message]) -> usize {
    messages.iter().map(|message| message.body.len() / 3 * 4 + MESSAGE_BYTES).sum()
}

/// The body of an event.
pub(super) fn body(queue: &str, messages: &[Message]) -> Result<Vec<u8>, serde_json::Error> {
    let delivered = |message| {
        let Message { id, sent_ms, attempts, body, .. }: &Message = message;
        let body = Base64Display::new(body, &STANDARD);
        Delivered { id: *id, timestamp_ms: *sent_ms, attempts: *attempts, encoding: "base64", body }
    };
    let mut text = Vec::with_capacity(body_bytes(messages));
    serde_json::to_writer(&mut text, &Event { queue, messages: messages.iter().map(delivered).collect() })?;
    Ok(text)
}

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The worker has seen the messages. What is to become of them.
    Done(Verdict),
    /// The delivery has failed, and why.
    Failed(Verdict, String),
    /// The worker has no handler for the queue.
    Missing,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Said {
    ack: Option<Vec<String>>,
    retry: Option<Vec<Again>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Again {
    id: String,
    delay_seconds: Option<u64>,
}

/// What an answer with this status and body means for these messages.
pub(super) fn answer(status: StatusCode, body: &[u8], messages: &[Message]) -> Answer {
    if matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) {
        return Answer::Missing;
    }
    if !status.is_success() {
        return Answer::Failed(retry_all(messages), format!("the worker answered {}", status.as_u16()));
    }
    // Many handlers answer with something of their own. Only a list that is there and cannot be read could lose what it asks for.
    let value = serde_json::from_slice::<serde_json::Value>(body).ok().filter(serde_json::Value::is_object);
    let Some(value) = value else { return Answer::Done(Verdict::all(Rest::Ack)) };
    match serde_json::from_value::<Said>(value) {
        Ok(said) => Answer::Done(verdict(said, messages)),
        Err(error) => Answer::Failed(retry_all(messages), format!("the answer's `ack` or `retry` cannot be read: {error}")),
    }
}

fn verdict(said: Said, messages: &[Message]) -> Verdict {
    let attempts = |id| messages.iter().find(|message| message.id == id).map_or(1, |message| message.attempts);
    let again = said.retry.unwrap_or_default().into_iter().filter_map(|again| {
        let id: MessageId = again.id.parse().ok()?;
        let asked = again.delay_seconds.map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX).min(QUEUE_DELAY_SECONDS_MAX));
        Some(Retry { what: id, delay_seconds: Some(asked.unwrap_or_else(|| backoff(attempts(id)))) })
    });
    let ack = said.ack.unwrap_or_default().iter().filter_map(|id| id.parse().ok()).collect();
    Verdict { ack, retry: again.collect(), rest: Rest::Ack }
}

/// All of them are delivered again, each after as long as its attempts say.
pub(super) fn retry_all(messages: &[Message]) -> Verdict {
    let retry = |message: &Message| Retry { what: message.id, delay_seconds: Some(backoff(message.attempts)) };
    Verdict { ack: Vec::new(), retry: messages.iter().map(retry).collect(), rest: Rest::Retry(QUEUE_RETRY_SECONDS) }
}

/// How long a message waits after so many deliveries that have failed, in s.
fn backoff(attempts: u32) -> u32 {
    let doubled = 1_u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
    QUEUE_RETRY_SECONDS.saturating_mul(doubled).min(QUEUE_RETRY_SECONDS_MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;
    use tovuk_resources::queue::{Encoding, Queue};

    use super::*;

    fn message(sequence: i64, attempts: u32) -> Message {
        let id = MessageId { queue: Queue(31), sequence };
        Message { id, sent_ms: 1_000, attempts, encoding: Encoding::Text, body: format!("body {sequence}").into() }
    }

    fn said(status: u16, body: &serde_json::Value) -> Answer {
        answer(StatusCode::from_u16(status).unwrap(), body.to_string().as_bytes(), &[message(1, 1), message(2, 3)])
    }

    #[test]
    fn an_event_has_what_the_contract_says() {
        let event: serde_json::Value = serde_json::from_slice(&body("jobs", &[message(10, 2)]).unwrap()).unwrap();
        let message = json!({"id": "1f-a", "timestampMs": 1_000, "attempts": 2, "encoding": "base64", "body": "Ym9keSAxMA=="});
        assert_eq!(event, json!({"queue": "jobs", "messages": [message]}));
    }

    #[test]
    fn every_form_of_answer_is_understood() {
        let id = |sequence| MessageId { queue: Queue(31), sequence };
        let done = |ack: &[i64], retry: &[(i64, u32)]| {
            let retry = retry.iter().map(|(sequence, delay)| Retry { what: id(*sequence), delay_seconds: Some(*delay) });
            Answer::Done(Verdict { ack: ack.iter().copied().map(id).collect(), retry: retry.collect(), rest: Rest::Ack })
        };
        for body in [json!(null), json!([1]), json!("ok"), json!({}), json!({"ok": true}), json!({"ack": null, "retry": []})] {
            assert_eq!(said(200, &body), done(&[], &[]), "{body}");
        }
        assert_eq!(answer(StatusCode::NO_CONTENT, b"", &[message(1, 1)]), done(&[], &[]));
        assert_eq!(said(202, &json!({"ack": ["1f-1"], "retry": [{"id": "1f-2"}]})), done(&[1], &[(2, 4)]), "as its attempts say");
        assert_eq!(said(200, &json!({"retry": [{"id": "1f-1", "delaySeconds": 90_000}, {"id": "x"}]})), done(&[], &[(1, 86_400)]));
        for body in [json!({"retry": ["1f-1"]}), json!({"retry": [{"id": "1f-1", "delaySeconds": "soon"}]}), json!({"ack": 1})] {
            assert!(matches!(said(200, &body), Answer::Failed(..)), "{body}");
        }
        let Answer::Failed(verdict, why) = said(500, &json!({"ack": ["1f-1"]})) else { panic!("a failure is none") };
        let delays: Vec<_> = verdict.retry.iter().map(|retry| retry.delay_seconds).collect();
        assert_eq!((verdict.ack.len(), delays, why.as_str()), (0, vec![Some(1), Some(4)], "the worker answered 500"));
        assert_eq!((said(404, &json!({})), said(405, &json!({}))), (Answer::Missing, Answer::Missing));
    }

    #[test]
    fn failures_wait_longer_and_longer() {
        let waits: Vec<_> = [0, 1, 2, 3, 10, 11, 40, u32::MAX].into_iter().map(backoff).collect();
        assert_eq!(waits, [1, 1, 2, 4, 512, 900, 900, 900]);
    }
}
