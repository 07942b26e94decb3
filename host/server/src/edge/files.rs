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
        return Err(Failure::refused(
            &codes::ROUTE_NOT_FOUND,
            format!("there are only files at {}, and files answer GET and HEAD", request.uri().path()),
        ));
    }
    if is_withheld(request.uri().path()) {
        return Err(Failure::refused(&codes::ROUTE_NOT_FOUND, "hidden files, the project file and folders that builds fill are not served"));
    }
    // A name with an ending is meant as a file; only a route of the application falls back to its page.
    let is_route = request.uri().path().rsplit('/').next().is_some_and(|name| !name.contains('.'));
    let files = ServeDir::new(assets).precompressed_br().precompressed_gzip();
    let request = request.map(|_| ());
    let response =
        if is_route { files.fallback(ServeFile::new(assets.join("index.html"))).oneshot(request).await } else { files.oneshot(request).await };
    let response = response.map_err(|never| match never {})?;
    if response.status() == http::StatusCode::NOT_FOUND {
        return Err(Failure::refused(&codes::ROUTE_NOT_FOUND, "there is no such file"));
    }
    Ok(response.map(|body| {
        Body::stream(http_body_util::BodyExt::map_err(body, |error| tovuk_runtime::body::BodyError::InternalError(Some(error.to_string()))))
    }))
}

/// Whether a path leads to something that lies in a project's folder and is no part of its site. A static project may serve its own root.
fn is_withheld(path: &str) -> bool {
    const FOLDERS: [&str; 2] = ["target", "node_modules"];
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
    let mut segments = decoded.split(['/', '\\']).filter(|segment| !segment.is_empty());
    let first = segments.clone().next().unwrap_or_default();
    FOLDERS.contains(&first) || segments.any(|segment| segment == "tovuk.toml" || (segment.starts_with('.') && segment != ".well-known"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_folder_that_is_served_keeps_what_is_no_part_of_its_site() {
        for path in ["/.env.local", "/a/.git/config", "/%2eenv", "/tovuk.toml", "/target/x", "/node_modules/x", "/a\\.env", "/.tovuk/dev-token"] {
            assert!(is_withheld(path), "{path}");
        }
        for path in ["/", "/index.html", "/.well-known/acme-challenge/x", "/a/target/x", "/a.b/c"] {
            assert!(!is_withheld(path), "{path}");
        }
    }
}
