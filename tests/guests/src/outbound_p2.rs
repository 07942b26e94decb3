//! Calls elsewhere through `wasi:http`: `/?url=<url>` once with `GET`, `/many/<n>?url=<url>` n times one after the other,
//! `/at-once/<n>?url=<url>` n times with all calls started first.

use std::collections::BTreeMap;

use serde_json::json;
use tovuk_guests::{code_name, query, read_all, respond_json, segments, start_get, status_and_body, wait};
use wasip2::http::types::{ErrorCode, IncomingRequest, ResponseOutparam};

struct Worker;

fn once(url: &str) -> Result<serde_json::Value, ErrorCode> {
    let response = wait(&start_get(url)?)?;
    let fields = response.headers();
    let headers: Vec<_> = fields.entries().into_iter().map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned())).collect();
    let status = response.status();
    let body = response.consume().map_err(|()| ErrorCode::InternalError(None))?;
    let body = read_all(body).map_err(|text| ErrorCode::InternalError(Some(text)))?;
    Ok(json!({ "status": status, "headers": headers, "body": String::from_utf8_lossy(&body) }))
}

fn tally(answers: impl IntoIterator<Item = Result<(u16, Vec<u8>), ErrorCode>>) -> serde_json::Value {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for answer in answers {
        let key = match answer {
            Ok((status, _)) => status.to_string(),
            Err(code) => code_name(&code),
        };
        *counts.entry(key).or_default() += 1;
    }
    json!(counts)
}

impl wasip2::exports::http::incoming_handler::Guest for Worker {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let Some(url) = query(&path, "url") else {
            return respond_json(out, 400, &json!({ "error": "add ?url=<absolute URL>" }));
        };
        match segments(&path)[..] {
            ["many", n] => {
                let calls = (0..n.parse().unwrap_or(0_u32)).map(|_| start_get(&url).and_then(|future| wait(&future)).and_then(status_and_body));
                respond_json(out, 200, &tally(calls));
            }
            ["at-once", n] => {
                let started: Vec<_> = (0..n.parse().unwrap_or(0_u32)).map(|_| start_get(&url)).collect();
                let answers = started.into_iter().map(|call| call.and_then(|future| wait(&future)).and_then(status_and_body));
                respond_json(out, 200, &tally(answers));
            }
            _ => match once(&url) {
                Ok(answer) => respond_json(out, 200, &answer),
                Err(code) => respond_json(out, 502, &json!({ "error": code_name(&code), "message": format!("{code:?}"), "hops": [] })),
            },
        }
    }
}

wasip2::http::proxy::export!(Worker);
