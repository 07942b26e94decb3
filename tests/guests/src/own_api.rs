//! Calls the host's own API with the token that it was given, and shows what it was given: `/call?path=<path>[&method=<m>][&token=<text>]` calls
//! `TOVUK_API_BASE_URL` and answers `{"status", "body"}`; `/gate?url=<url>` gets another URL; `/env/<name>` answers a variable; `/print/<name>` prints one; `/healthz` prints all of them.

use serde_json::json;
use tovuk_guests::{query, request_to, respond, respond_json, segments, start_get, status_and_body, wait};
use wasip2::http::outgoing_handler;
use wasip2::http::types::{ErrorCode, Fields, IncomingRequest, Method, ResponseOutparam};

struct Worker;

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

fn call(method: &str, path: &str, token: &str) -> Result<(u16, Vec<u8>), ErrorCode> {
    let method = match method {
        "GET" => Method::Get,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        other => Method::Other(other.to_owned()),
    };
    let fields = Fields::new();
    fields.append("authorization", format!("Bearer {token}").as_bytes()).map_err(|_| ErrorCode::InternalError(None))?;
    let url = format!("{}{path}", variable("TOVUK_API_BASE_URL"));
    status_and_body(wait(&outgoing_handler::handle(request_to(&method, &url, fields)?, None)?)?)
}

impl wasip2::exports::http::incoming_handler::Guest for Worker {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        match segments(&path)[..] {
            ["call"] => {
                let token = query(&path, "token").unwrap_or_else(|| variable("TOVUK_RUNTIME_TOKEN"));
                let method = query(&path, "method").unwrap_or_else(|| "GET".to_owned());
                match call(&method, &query(&path, "path").unwrap_or_default(), &token) {
                    Ok((status, body)) => respond_json(out, 200, &json!({ "status": status, "body": String::from_utf8_lossy(&body) })),
                    Err(code) => respond_json(out, 502, &json!({ "error": format!("{code:?}") })),
                }
            }
            ["env", name] => respond(out, 200, "text/plain", variable(name).as_bytes()),
            ["gate"] => {
                let called = start_get(&query(&path, "url").unwrap_or_default()).and_then(|future| wait(&future));
                respond(out, if called.is_ok() { 200 } else { 502 }, "text/plain", b"");
            }
            ["print", name] => {
                println!("{name} is {}", variable(name));
                respond(out, 200, "text/plain", b"printed");
            }
            ["healthz"] => {
                for (name, value) in std::env::vars() {
                    println!("{name} is {value}");
                }
                respond(out, 200, "text/plain", b"ok");
            }
            _ => respond(out, 404, "text/plain", b"nothing here"),
        }
    }
}

wasip2::http::proxy::export!(Worker);
