//! State through the real host and real components: what workers do to objects, their handlers, and alarms.

mod alarms;
mod handlers;
mod worker;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use tovuk_kernel::clock::Clock;
use tovuk_runtime::outbound::{AddressPolicy, OutboundConfig};
use tovuk_server::boot::HostConfig;
use tovuk_tests::{Client, Operator, Reply};

use crate::TOVUK;

const ROOM: &str = "/v1/services/shop/state/namespaces/Room";
const LOG: &str = "/v1/services/shop/state/namespaces/Log";

fn config() -> Value {
    json!({"routes": ["/*"], "state": ["Room", "Log"], "limits": {"cpu_ms": 20_000, "memory_mb": 512}})
}

/// A host whose workers may reach this machine.
fn loopback(config: &mut HostConfig) {
    config.outbound = OutboundConfig { addresses: AddressPolicy { allow: vec!["127.0.0.0/8".parse().unwrap()] }, ..OutboundConfig::default() };
}

/// A host with a service `shop` that has the classes `Room` and `Log` and runs a guest.
async fn with_worker(guest: &str) -> Operator {
    let host = Operator::with(TOVUK, loopback).await;
    host.deploy(&host.token, "shop", guest, config()).await;
    host
}

/// The same at that time.
async fn at(guest: &str, now_unix_ms: u64) -> Operator {
    let host = Operator::with_clock(TOVUK, Clock::advanceable_at(now_unix_ms)).await;
    host.deploy(&host.token, "shop", guest, config()).await;
    host
}

async fn posted(host: &Operator, slug: &str, path: &str, body: Value) -> Reply {
    let address = host.host.public_address();
    let request = Request::post(path).header("host", format!("{slug}.localhost:{}", address.port()));
    Client::new(address).whole(request.body(Full::<Bytes>::new(body.to_string().into())).unwrap()).await
}

/// What the steps answer.
async fn run(host: &Operator, steps: Value) -> Vec<Value> {
    let reply = posted(host, "shop", "/", steps).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json().as_array().unwrap().clone()
}

/// The answer to one step, or the code it was refused with.
async fn one(host: &Operator, step: Value) -> Value {
    let answer = run(host, json!([step])).await.remove(0);
    answer.get("error").cloned().unwrap_or(answer)
}

/// A value of an object of `Room`; null if there is none.
async fn value(host: &Operator, object: &str, key: &str) -> Value {
    let reply = host.ask("GET", &format!("{ROOM}/objects/{object}/values/{key}"), None).await;
    if reply.status == 404 { Value::Null } else { reply.json()["value"].clone() }
}
