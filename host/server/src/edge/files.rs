//! Files of a static or full-stack service. A path that names no file gets `index.html`, so that a browser application can have routes of its own.

use std::path::Path;

use http::{Method, Request, Response};
use tower::ServiceExt;
use tower_http::services::{ServeDir, ServeFile};

use tovuk_kernel::codes;
use tovuk_runtime::body::Body;
use tovuk_runtime::failure::Failure;

/// Answers from the folder. Only GET and HEAD have an answer there.
pub(super) async fn serve(assets: &Path, request: Request<Body>) -> Result<Response<Body>, Failure> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(Failure::refused(&codes::ROUTE_NOT_FOUND, format!("there are only files at {}, and files answer GET and HEAD", request.uri().path())));
    }
    // A name with an ending is meant as a file; only a route of the application falls back to its page.
    let is_route = request.uri().path().rsplit('/').next().is_some_and(|name| !name.contains('.'));
    let files = ServeDir::new(assets).precompressed_br().precompressed_gzip();
    let request = request.map(|_| ());
    let response = if is_route {
        files.fallback(ServeFile::new(assets.join("index.html"))).oneshot(request).await
    } else {
        files.oneshot(request).await.map(|response| response.map(|body| body))
    };
    let response = response.map_err(|never| match never {})?;
    if response.status() == http::StatusCode::NOT_FOUND {
        return Err(Failure::refused(&codes::ROUTE_NOT_FOUND, "there is no such file"));
    }
    Ok(response.map(|body| Body::stream(http_body_util::BodyExt::map_err(body, |error| tovuk_runtime::body::BodyError::InternalError(Some(error.to_string()))))))
}
