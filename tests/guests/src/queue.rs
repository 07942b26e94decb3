//! Consumes queues as it is told, says what it was given, and sends. `POST /.tovuk/queues/<queue>` writes the event to the KV namespace `SEEN` under
//! `<queue>/<number>`, counting up, and then does what the JSON under `do/<queue>` says: see [`Orders`]. `POST /` with a JSON list of steps runs them one after
//! the other and answers the list of what came: see [`Step`].

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};
use tovuk::queue::{Batch, Outgoing};
use tovuk::{DataError, Request, Response, Result, Router};

/// What to do with events of a queue.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Orders {
    /// The answer's status; 200 if none.
    status: Option<u16>,
    /// The answer's body, unless one is made of what follows.
    answer: Option<Value>,
    /// Bodies of messages that are named in `ack`.
    ack: Vec<String>,
    /// Bodies of messages that are named in `retry`.
    retry: Vec<String>,
    /// The delay of those, in s.
    delay: Option<u64>,
    /// Bodies of messages with which a batch fails.
    poison: Vec<String>,
    /// Whether to trap.
    trap: bool,
    /// For how long to keep the processor busy, in ms.
    spin_ms: u64,
    /// Whether events are not written down.
    quiet: bool,
}

fn consume(req: Request) -> Result<Response> {
    let queue: String = req.param("queue")?;
    let seen = tovuk::kv("SEEN");
    let orders: Orders = seen.get_json(&format!("do/{queue}"))?.unwrap_or_default();
    if !orders.quiet {
        let number = seen.increment(&format!("count/{queue}"), 1)?;
        let kept = json!({"path": req.path(), "method": req.method(), "kind": req.header("x-tovuk-event"), "event": req.json::<Value>()?});
        seen.put_json(format!("{queue}/{number}"), &kept)?;
    }
    let until = Instant::now() + Duration::from_millis(orders.spin_ms);
    while Instant::now() < until {
        std::hint::spin_loop();
    }
    assert!(!orders.trap, "it was told to trap");
    let batch = Batch::of(&req)?;
    let is_one_of = |body: &[u8], bodies: &[String]| bodies.iter().any(|other| other.as_bytes() == body);
    if batch.messages().iter().any(|message| is_one_of(message.body(), &orders.poison)) {
        return Ok(Response::empty(500));
    }
    let ids = |bodies: &[String]| -> Vec<&str> {
        batch.messages().iter().filter(|message| is_one_of(message.body(), bodies)).map(|message| message.id()).collect()
    };
    let retry = |id: &str| match orders.delay {
        Some(delay) => json!({"id": id, "delaySeconds": delay}),
        None => json!({"id": id}),
    };
    let made = json!({"ack": ids(&orders.ack), "retry": ids(&orders.retry).into_iter().map(retry).collect::<Vec<_>>()});
    Ok(Response::json(&orders.answer.unwrap_or(made))?.with_status(orders.status.unwrap_or(200)))
}

/// One step: what to send, or to count where there is nothing.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Step {
    queue: String,
    /// One message.
    body: Option<String>,
    /// Several.
    bodies: Option<Vec<String>>,
    /// So many messages of `bytes` zeros.
    count: Option<usize>,
    bytes: usize,
    /// In s.
    delay: Option<u64>,
}

impl Step {
    fn run(&self) -> Result<Value, DataError> {
        let queue = tovuk::queue(&self.queue);
        let message = |message: Outgoing| self.delay.into_iter().fold(message, |message, delay| message.with_delay(Duration::from_secs(delay)));
        Ok(match (&self.body, &self.bodies, self.count) {
            (Some(body), _, _) => json!(queue.send(message(Outgoing::text(body)))?),
            (_, Some(bodies), _) => json!(queue.send_batch(bodies.iter().map(|body| message(Outgoing::text(body))))?),
            (_, _, Some(count)) => json!(queue.send_batch((0..count).map(|_| message(Outgoing::bytes_of(vec![0; self.bytes]))))?.len()),
            _ => {
                let metrics = queue.metrics()?;
                json!({"count": metrics.backlog_count, "bytes": metrics.backlog_bytes, "inFlight": metrics.in_flight})
            }
        })
    }
}

fn steps(req: Request) -> Result<Response> {
    let run = |step: Step| step.run().unwrap_or_else(|error| json!({"error": error.code(), "retryable": error.is_retryable()}));
    Response::json(&req.json::<Vec<Step>>()?.into_iter().map(run).collect::<Vec<Value>>())
}

/// A batch by way of the SDK's router: bodies are numbers, of which odd ones come again.
fn typed(batch: &Batch) -> Result<()> {
    batch.each(|number: u64| if number.is_multiple_of(2) { Ok(()) } else { Err(tovuk::Error::internal("it is odd")) });
    Ok(())
}

#[tovuk::handler]
fn handle(req: Request) -> Result<Response> {
    if req.path().starts_with("/.tovuk/queues/trivial") {
        return Batch::of(&req)?.answer(Ok(()));
    }
    Router::new().queue("typed", typed).post("/.tovuk/queues/{queue}", consume).post("/", steps).get("/", |_| Ok(Response::text("queues"))).run(req)
}
