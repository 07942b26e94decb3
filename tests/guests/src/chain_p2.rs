//! The chain of `chain`, by URL through `wasi:http`: `GET /<n>` calls `<next>/<n-1>` until 0. `<next>` is `NEXT_URL`, else the header
//! `x-next`, else `http://next.tovuk.internal`.

use serde_json::json;
use tovuk_guests::{code_name, number, query, respond, respond_json, start_get, status_and_body, wait};
use wasip2::http::types::{ErrorCode, IncomingRequest, ResponseOutparam};

struct Worker;

/// Base of the next URL, without a slash at its end.
fn next(request: &IncomingRequest) -> String {
    if let Ok(url) = std::env::var("NEXT_URL") {
        return url.trim_end_matches('/').to_owned();
    }
    let header = request.headers().get("x-next").into_iter().next();
    let authority = header.and_then(|value| String::from_utf8(value).ok()).unwrap_or_else(|| "next.tovuk.internal".to_owned());
    format!("http://{authority}")
}

fn call(url: &str) -> Result<(u16, Vec<u8>), ErrorCode> {
    status_and_body(wait(&start_get(url)?)?)
}

impl wasip2::exports::http::incoming_handler::Guest for Worker {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let left = number(&path, 0);
        if left == 0 {
            return respond(out, 200, "text/plain", b"hello");
        }
        let rest = path.split_once('?').map_or(String::new(), |(_, query)| format!("?{query}"));
        match call(&format!("{}/{}{rest}", next(&request), left - 1)) {
            Ok((status, body)) => respond(out, status, "text/plain", &body),
            Err(code) if query(&path, "unhandled").is_some() => ResponseOutparam::set(out, Err(code)),
            Err(code) => respond_json(out, 502, &json!({ "error": code_name(&code), "message": format!("{code:?}"), "hops": [] })),
        }
    }
}

wasip2::http::proxy::export!(Worker);
