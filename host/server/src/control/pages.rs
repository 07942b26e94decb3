//! What the API's address answers besides operations: probes, and pages for people.

use http::{Method, Request, Response};
use tovuk_kernel::codes;
use tovuk_runtime::body::Body;
use tovuk_runtime::calls::json;

use super::{Control, Refusal};

/// Answers a path that is no operation's.
pub(super) async fn respond(control: &Control, request: Request<Body>) -> Result<Response<Body>, Refusal> {
    let path = request.uri().path();
    match (request.method(), path) {
        (&Method::GET | &Method::HEAD, "/health" | "/healthz") => Ok(json(200, br#"{"status":"ok"}"#.to_vec())),
        (&Method::GET | &Method::HEAD, "/readyz") if control.is_draining() => Err(Refusal::new(&codes::HOST_DRAINING, "the node is draining")),
        (&Method::GET | &Method::HEAD, "/readyz") => Ok(json(200, br#"{"status":"ready"}"#.to_vec())),
        _ => Err(Refusal::new(&codes::API_ROUTE_NOT_FOUND, format!("the API has no route {path}"))),
    }
}
