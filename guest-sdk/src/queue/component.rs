//! Queues of the host.

use super::{Body, Metrics, Outgoing};
use crate::DataError;
use crate::bindings::tovuk::queue::producer;

fn message(message: Outgoing) -> producer::Message {
    let body = match message.body {
        Body::Text(text) => producer::Body::Text(text),
        Body::Bytes(bytes) => producer::Body::Bytes(bytes),
    };
    producer::Message { body, delay: message.delay }
}

pub fn send(queue: &str, outgoing: Outgoing) -> Result<String, DataError> {
    Ok(producer::send(queue, &message(outgoing))?)
}

pub fn send_batch(queue: &str, messages: Vec<Outgoing>) -> Result<Vec<String>, DataError> {
    Ok(producer::send_batch(queue, &messages.into_iter().map(message).collect::<Vec<_>>())?)
}

pub fn count(queue: &str) -> Result<Metrics, DataError> {
    let producer::Metrics { backlog_count, backlog_bytes, oldest_message_age_ms, in_flight } = producer::count(queue)?;
    Ok(Metrics { backlog_count, backlog_bytes, oldest_message_age_ms, in_flight })
}
