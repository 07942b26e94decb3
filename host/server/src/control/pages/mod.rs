//! What the API's address answers besides operations: probes, the description of the API for programs and for people, and the page where logins are
//! approved. Pages use nothing from elsewhere, work without scripts, and cannot be framed.

mod frame;
mod login;
mod manual;
mod session;

use std::sync::{LazyLock, OnceLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use tovuk_kernel::codes;
use tovuk_runtime::body::Body;
use tovuk_runtime::calls::json;

use super::reference::{openapi, reference};
use super::{Control, Refusal};

/// What is made once for a host.
#[derive(Default)]
pub(super) struct Pages {
    openapi: OnceLock<Kept>,
}

/// A document that stays the same for as long as the host runs.
struct Kept {
    content_type: &'static str,
    bytes: Bytes,
    /// Of the bytes, so that a browser that has them need not get them again.
    etag: Option<HeaderValue>,
}

impl Kept {
    fn new(content_type: &'static str, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
        let etag = HeaderValue::from_str(&format!("\"{}\"", hex::encode(digest.as_ref().iter().take(16).copied().collect::<Vec<_>>()))).ok();
        Self { content_type, bytes, etag }
    }

    fn respond(&self, asked: &HeaderMap) -> Response<Body> {
        let known = self.etag.as_ref().is_some_and(|etag| asked.get(header::IF_NONE_MATCH) == Some(etag));
        let mut response = Response::new(if known { Body::Empty } else { Body::from(self.bytes.clone()) });
        if known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.extend(self.etag.clone().map(|etag| (header::ETAG, etag)));
        frame::protect(headers);
        response
    }
}

static MANUAL: LazyLock<Kept> = LazyLock::new(|| Kept::new(frame::HTML, manual::page(reference()).into_string()));
static STYLE: LazyLock<Kept> = LazyLock::new(|| Kept::new("text/css; charset=utf-8", include_str!("style.css")));
static SCRIPT: LazyLock<Kept> = LazyLock::new(|| Kept::new("text/javascript; charset=utf-8", include_str!("filter.js")));
static ICON: LazyLock<Kept> = LazyLock::new(|| Kept::new("image/svg+xml", include_str!("icon.svg")));

/// Answers a path that is no operation's.
pub(super) async fn respond(control: &Control, request: Request<Body>) -> Result<Response<Body>, Refusal> {
    let path = request.uri().path();
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    match path {
        "/login" | "/logout" => return login::respond(control, request).await,
        _ if !reads => {}
        "/health" | "/healthz" => return Ok(json(200, br#"{"status":"ok"}"#.to_vec())),
        "/readyz" if control.is_draining() => return Err(Refusal::new(&codes::HOST_DRAINING, "the node is draining")),
        "/readyz" => return Ok(json(200, br#"{"status":"ready"}"#.to_vec())),
        "/" => return Ok(frame::redirect("/docs")),
        "/docs" => return Ok(MANUAL.respond(request.headers())),
        frame::STYLE => return Ok(STYLE.respond(request.headers())),
        frame::SCRIPT => return Ok(SCRIPT.respond(request.headers())),
        frame::ICON => return Ok(ICON.respond(request.headers())),
        "/openapi.json" => return Ok(control.pages().openapi.get_or_init(|| openapi_of(control)).respond(request.headers())),
        _ => {}
    }
    Err(Refusal::new(&codes::API_ROUTE_NOT_FOUND, format!("the API has no route {} {path}", request.method())))
}

fn openapi_of(control: &Control) -> Kept {
    let document = openapi::document(reference(), &control.urls().api);
    Kept::new("application/json", serde_json::to_vec_pretty(&document).unwrap_or_default())
}
