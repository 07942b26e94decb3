//! `tovuk:queue/producer`: the queues of the worker's service. The store checks every limit; here names become numbers and bytes change hands. Bodies count as
//! host memory until they are on disk, also when the worker has gone meanwhile.

use tovuk_kernel::resource::Kind;
use tovuk_resources::queue::{self, Encoding, Queue, Queues};
use wasmtime::component::Linker;

use super::Whole;
use super::data::{error, told};
use crate::data_bindings::tovuk::data::types;
use crate::data_bindings::tovuk::queue::producer;
use crate::instance::Data;
use crate::spans;

impl Data {
    /// The store, which charges the service, and the queue that the guest names.
    fn queue(&self, name: &str) -> Result<(Queues, Queue), types::Error> {
        let queues = self.stores()?.queues.billed_to(self.invocation.deployment.bill.clone());
        Ok((queues, self.resource(Kind::Queue, name).map(Queue)?))
    }

    fn send_of(&self, message: producer::Message) -> Result<queue::Send, types::Error> {
        let (bytes, encoding) = match message.body {
            producer::Body::Text(text) => (text.into_bytes(), Encoding::Text),
            producer::Body::Bytes(bytes) => (bytes, Encoding::Base64),
        };
        Ok(queue::Send { body: self.held(bytes)?, encoding, delay_seconds: message.delay })
    }

    async fn send_all(&mut self, queue: &str, messages: Vec<producer::Message>) -> Result<Vec<String>, types::Error> {
        let (queues, queue) = self.queue(queue)?;
        let sends = messages.into_iter().map(|message| self.send_of(message)).collect::<Result<Vec<_>, _>>()?;
        let sent = queues.send(queue, sends).await.map_err(refused)?;
        Ok(sent.ids.iter().map(ToString::to_string).collect())
    }
}

/// What the guest is told.
fn refused(refused: queue::Error) -> types::Error {
    let (code, text) = told("a queue", refused.code(), &refused, matches!(refused, queue::Error::Database(_)));
    error(code, text)
}

impl producer::Host for Data {
    async fn send(&mut self, queue: String, message: producer::Message) -> Result<String, types::Error> {
        self.span("queue.send", &queue).of(async { Ok(self.send_all(&queue, vec![message]).await?.pop().unwrap_or_default()) }).await
    }

    async fn send_batch(&mut self, queue: String, messages: Vec<producer::Message>) -> Result<Vec<String>, types::Error> {
        self.span("queue.send-batch", &queue)
            .telling(|ids: &Vec<String>| spans::counted(ids.len(), "message"), async { self.send_all(&queue, messages).await })
            .await
    }

    async fn count(&mut self, queue: String) -> Result<producer::Metrics, types::Error> {
        self.span("queue.count", &queue)
            .telling(|counted: &producer::Metrics| format!("{} waiting", counted.backlog_count), async move {
                let (queues, queue) = self.queue(&queue)?;
                let counted = queues.metrics(queue).await.map_err(refused)?;
                Ok(producer::Metrics {
                    backlog_count: counted.backlog.messages,
                    backlog_bytes: counted.backlog.bytes,
                    oldest_message_age_ms: counted.oldest_age_ms,
                    in_flight: counted.in_flight,
                })
            })
            .await
    }
}

pub(super) fn add_to_linker(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    producer::add_to_linker::<Data, Whole>(linker, |data| data)
}
