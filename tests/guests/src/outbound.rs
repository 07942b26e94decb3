//! Calls elsewhere: `/?url=<url>[&method=<m>]` once, `/many/<n>?url=<url>` n times one after the other, `/at-once/<n>?url=<url>` n times at
//! once, `/calls/<n>` n times the binding `NEXT` with `GET /0`, `/own-api?path=<p>` the host's API as the environment says.

use std::collections::BTreeMap;

use serde_json::json;
use tovuk::{CallError, Env, Request, Response, Result, Router};

fn url_of(req: &Request) -> Result<String> {
    req.query_param("url").ok_or_else(|| tovuk::Error::bad_request("add ?url=<absolute URL>"))
}

fn once(req: &Request) -> Result<Response> {
    let method = req.query_param("method").unwrap_or_else(|| "GET".to_owned());
    told(tovuk::fetch(Request::new(&method, url_of(req)?).with_body(req.body())))
}

fn own_api(req: &Request, env: &Env) -> Result<Response> {
    let url = format!("{}{}", env.require("TOVUK_API_BASE_URL")?, req.query_param("path").unwrap_or_default());
    let token = env.require("TOVUK_RUNTIME_TOKEN")?;
    told(tovuk::fetch(Request::get(url).with_bearer_token(&token)))
}

fn told(answer: Result<Response, CallError>) -> Result<Response> {
    match answer {
        Ok(answer) => {
            let headers: Vec<_> = answer.headers().iter().map(|(name, value)| (name, String::from_utf8_lossy(value))).collect();
            Response::json(&json!({ "status": answer.status(), "headers": headers, "body": String::from_utf8_lossy(answer.body()) }))
        }
        Err(error) => {
            let hops = if let CallError::ChainLimit(hops) = &error { hops.as_slice() } else { &[] };
            Ok(Response::json(&json!({ "error": error.code(), "message": error.to_string(), "hops": hops }))?.with_status(502))
        }
    }
}

/// How many answers there were of each status and each error.
fn tally(answers: impl IntoIterator<Item = Result<Response, CallError>>) -> Result<Response> {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for answer in answers {
        let key = match answer {
            Ok(answer) => answer.status().to_string(),
            Err(error) => error.code().to_owned(),
        };
        *counts.entry(key).or_default() += 1;
    }
    Response::json(&counts)
}

#[tovuk::handler]
fn handle(req: Request, env: Env) -> Result<Response> {
    Router::new()
        .any("/", |req| once(&req))
        .get("/own-api", |req| own_api(&req, &env))
        .get("/many/{n}", |req| {
            let url = url_of(&req)?;
            tally((0..req.param("n")?).map(|_: u32| tovuk::fetch(Request::get(url.as_str()))))
        })
        .get("/at-once/{n}", |req| {
            let url = url_of(&req)?;
            tally(tovuk::fetch_all((0..req.param("n")?).map(|_: u32| Request::get(url.as_str()))))
        })
        .get("/calls/{n}", |req| tally((0..req.param("n")?).map(|_: u32| env.service("NEXT").get("/0"))))
        .run(req)
}
