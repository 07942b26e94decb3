//! Sends spans to a collector that speaks OTLP over HTTP, in its JSON form, which needs no more than what is here. Spans come in batches, after they were
//! written. What the collector does not take in time is dropped and counted; nobody waits for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tovuk_kernel::clock::Clock;

use super::Row;

/// Batches that may wait for the collector.
const WAITING_MAX: usize = 8;
/// How long the collector may take for one batch.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long the end of the host waits for the last batches.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait before a batch is sent again.
const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];
/// As much of its answer as is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// The status that OTLP has for what failed.
const STATUS_ERROR: u8 = 2;

/// Where spans are sent to.
#[derive(Clone, Debug)]
pub struct Otlp {
    /// The URL that takes traces, for example `http://127.0.0.1:4318/v1/traces`.
    pub endpoint: Uri,
    /// Header fields that say who sends.
    pub headers: HeaderMap,
}

impl Otlp {
    /// The collector at this URL. Where that has no path, traces go to `/v1/traces`, as everywhere.
    ///
    /// # Errors
    /// When it is no URL of http or https.
    pub fn new(url: &str, headers: HeaderMap) -> Result<Self, String> {
        let wrong = || format!("`{url}` is no URL of a collector, such as http://127.0.0.1:4318");
        let endpoint: Uri = url.parse().map_err(|_| wrong())?;
        if !matches!(endpoint.scheme_str(), Some("http" | "https")) || endpoint.host().is_none() {
            return Err(wrong());
        }
        let endpoint = match endpoint.path() {
            "" | "/" => format!("{}/v1/traces", url.trim_end_matches('/')).parse().map_err(|_| wrong())?,
            _ => endpoint,
        };
        Ok(Self { endpoint, headers })
    }
}

/// How many spans the collector has taken, and how many it has not.
#[derive(Debug, Default)]
pub(super) struct Sent {
    pub taken: AtomicU64,
    pub lost: AtomicU64,
}

/// The way to the task that sends.
pub(super) struct Exporter {
    batches: mpsc::Sender<Arc<Vec<Row>>>,
    sent: Arc<Sent>,
    task: JoinHandle<()>,
    clock: Clock,
}

impl Exporter {
    /// Starts the task, which ends when this is gone.
    pub fn start(otlp: Otlp, clock: Clock) -> Result<Self, String> {
        let client = client(&otlp.endpoint)?;
        let (batches, queue) = mpsc::channel(WAITING_MAX);
        let sent = Arc::<Sent>::default();
        let task = tokio::spawn(run(otlp, client, clock.clone(), queue, sent.clone()));
        Ok(Self { batches, sent, task, clock })
    }

    pub fn sent(&self) -> Arc<Sent> {
        self.sent.clone()
    }

    /// Sends these some time, or drops them.
    pub fn send(&self, rows: &Arc<Vec<Row>>) {
        if self.batches.try_send(rows.clone()).is_err() {
            self.sent.lost.fetch_add(rows.len() as u64, Ordering::Relaxed);
        }
    }

    /// Waits for what is still to be sent, for a while: the end of a host must not depend on its collector.
    pub async fn close(self) {
        let Self { batches, mut task, clock, .. } = self;
        drop(batches);
        if clock.timeout(CLOSE_TIMEOUT, &mut task).await.is_none() {
            task.abort();
            tracing::warn!("the collector has not taken the last spans within {} s; they are in the host's own store", CLOSE_TIMEOUT.as_secs());
        }
    }
}

type Http = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

fn client(endpoint: &Uri) -> Result<Http, String> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(TIMEOUT));
    let builder = hyper_rustls::HttpsConnectorBuilder::new();
    let builder = if endpoint.scheme_str() == Some("https") {
        builder.with_native_roots().map_err(|error| format!("the system's root certificates cannot be read: {error}"))?
    } else {
        let none = rustls::ClientConfig::builder().with_root_certificates(rustls::RootCertStore::empty());
        builder.with_tls_config(none.with_no_client_auth())
    };
    Ok(Client::builder(TokioExecutor::new()).build(builder.https_or_http().enable_http1().wrap_connector(tcp)))
}

async fn run(otlp: Otlp, client: Http, clock: Clock, mut queue: mpsc::Receiver<Arc<Vec<Row>>>, sent: Arc<Sent>) {
    let mut is_told = false;
    while let Some(rows) = queue.recv().await {
        let body = Bytes::from(request(&rows).to_string());
        let mut pauses = PAUSES.iter();
        let result = loop {
            match post(&otlp, &client, &clock, body.clone()).await {
                Err((true, why)) => match pauses.next() {
                    Some(pause) => clock.sleep(*pause).await,
                    None => break Err(why),
                },
                Err((false, why)) => break Err(why),
                Ok(()) => break Ok(()),
            }
        };
        let counter = if result.is_ok() { &sent.taken } else { &sent.lost };
        counter.fetch_add(rows.len() as u64, Ordering::Relaxed);
        // Once for each time that it begins to fail.
        if let Err(why) = &result
            && !is_told
        {
            tracing::warn!("the collector at {} takes no spans: {why}", otlp.endpoint);
        }
        is_told = result.is_err();
    }
}

/// Sends a batch. An error says whether it may be sent again.
async fn post(otlp: &Otlp, client: &Http, clock: &Clock, body: Bytes) -> Result<(), (bool, String)> {
    let mut request = Request::post(otlp.endpoint.clone()).body(Full::from(body)).map_err(|error| (false, error.to_string()))?;
    request.headers_mut().extend(otlp.headers.clone());
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let answer = async {
        let (parts, body) = client.request(request).await.map_err(|error| (true, error.to_string()))?.into_parts();
        // Read to its end, so that the connection is used again.
        let text = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        if parts.status.is_success() {
            return Ok(());
        }
        let again = matches!(
            parts.status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
        );
        let said: String = String::from_utf8_lossy(&text).chars().filter(|letter| !letter.is_control()).take(200).collect();
        Err((again, format!("{} {said}", parts.status)))
    };
    clock.timeout(TIMEOUT, answer).await.unwrap_or_else(|| Err((true, format!("no answer within {} s", TIMEOUT.as_secs()))))
}

/// The request, with the spans of each service together.
pub(super) fn request(rows: &[Row]) -> Value {
    let mut services: BTreeMap<(&str, &str), Vec<Value>> = BTreeMap::new();
    let mut accounts = BTreeMap::new();
    for row in rows {
        services.entry((&row.service, &row.name)).or_default().push(span(row));
        accounts.insert(row.service.as_str(), row.account.as_str());
    }
    let scope = json!({"name": "tovuk", "version": env!("CARGO_PKG_VERSION")});
    let of_services = services.into_iter().map(|((service, name), spans)| {
        let account = accounts.get(service).copied().unwrap_or_default();
        let attributes = [text("service.name", name), text("tovuk.service.id", service), text("tovuk.account.id", account)];
        json!({"resource": {"attributes": attributes}, "scopeSpans": [{"scope": scope, "spans": spans}]})
    });
    json!({"resourceSpans": of_services.collect::<Vec<_>>()})
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

/// Integers are text in this form of OTLP.
fn integer(key: &str, value: i64) -> Value {
    json!({"key": key, "value": {"intValue": value.to_string()}})
}

fn span(row: &Row) -> Value {
    // The numbers that OTLP has for internal, server, client and consumer.
    let kind = match row.kind {
        "http" | "binding" | "state" => 2,
        "outbound" => 3,
        "queue" | "cron" | "alarm" => 5,
        _ => 1,
    };
    let name = if row.ran.is_some() { row.what.clone() } else { format!("{} {}", row.kind, row.what).trim_end().to_owned() };
    let mut attributes = vec![text("tovuk.kind", row.kind), text("tovuk.outcome", &row.outcome)];
    if let Some(ran) = &row.ran {
        attributes.extend([integer("tovuk.invocation", ran.number.into()), integer("tovuk.cpu_us", ran.cpu_us)]);
    }
    attributes.extend(row.status.map(|status| integer("http.response.status_code", status.into())));
    attributes.extend(row.did.as_deref().map(|did| text("tovuk.did", did)));
    // What ended well is left unset, as OTLP asks of libraries: whether it was good enough is for whoever looks.
    let status = if row.has_failed() { json!({"code": STATUS_ERROR, "message": row.outcome}) } else { json!({}) };
    let nanoseconds = |us: i64| us.saturating_mul(1_000).to_string();
    let mut span = json!({
        "traceId": row.trace.to_string(),
        "spanId": format!("{:016x}", row.span),
        "name": name,
        "kind": kind,
        "startTimeUnixNano": nanoseconds(row.start_us),
        "endTimeUnixNano": nanoseconds(row.start_us.saturating_add(row.duration_us)),
        "attributes": attributes,
        "status": status,
    });
    if row.parent != 0
        && let Some(span) = span.as_object_mut()
    {
        span.insert("parentSpanId".to_owned(), format!("{:016x}", row.parent).into());
    }
    span
}
