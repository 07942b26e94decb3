//! The tree of `fan` by URL through `wasi:http`: the base is env `SELF_URL`, else `http://self.tovuk.internal`. All calls are started
//! before any is awaited.

use serde_json::{Value, json};
use tovuk_guests::{respond_json, segments, start_get, status_and_body, wait};
use wasip2::http::types::{ErrorCode, IncomingRequest, ResponseOutparam};

struct Worker;

impl wasip2::exports::http::incoming_handler::Guest for Worker {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let [width, depth] = segments(&path)[..] else {
            return respond_json(out, 404, &json!({ "error": "use /<width>/<depth>" }));
        };
        let (width, depth): (u32, u32) = (width.parse().unwrap_or(0), depth.parse().unwrap_or(0));
        let base = std::env::var("SELF_URL").unwrap_or_else(|_| "http://self.tovuk.internal".to_owned());
        let (mut ok, mut refused, mut failed) = (1, 0, 0);
        if depth > 0 {
            let url = format!("{}/{width}/{}", base.trim_end_matches('/'), depth - 1);
            let started: Vec<_> = (0..width).map(|_| start_get(&url)).collect();
            for call in started {
                match call.and_then(|future| wait(&future)).and_then(status_and_body) {
                    Ok((200, body)) => {
                        let below: Value = serde_json::from_slice(&body).unwrap_or_default();
                        ok += below["ok"].as_u64().unwrap_or(0);
                        refused += below["refused"].as_u64().unwrap_or(0);
                        failed += below["failed"].as_u64().unwrap_or(0);
                    }
                    Err(ErrorCode::LoopDetected) => refused += 1,
                    Ok(_) | Err(_) => failed += 1,
                }
            }
        }
        respond_json(out, 200, &json!({ "ok": ok, "refused": refused, "failed": failed }));
    }
}

wasip2::http::proxy::export!(Worker);
