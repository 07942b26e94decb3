//! The frame of every page, and the header fields that keep a page to itself. What stands in a page is not its business.

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use maud::{DOCTYPE, Markup, html};
use tovuk_runtime::body::Body;

/// The type of pages.
pub(super) const HTML: &str = "text/html; charset=utf-8";
/// The path of the style sheet.
pub(super) const STYLE: &str = "/docs/style.css";
/// The path of the script that filters the reference.
pub(super) const SCRIPT: &str = "/docs/filter.js";
/// The path of the icon.
pub(super) const ICON: &str = "/docs/icon.svg";

/// A whole document. Pages with a script say so.
pub(super) fn document(title: &str, script: bool, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="icon" href=(ICON) type="image/svg+xml";
                link rel="stylesheet" href=(STYLE);
                @if script { script src=(SCRIPT) defer {} }
            }
            body { (body) }
        }
    }
}

/// A page that is made for one request.
pub(super) fn page(status: StatusCode, markup: &Markup) -> Response<Body> {
    let mut response = Response::new(Body::from(bytes::Bytes::from(markup.0.clone())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(HTML));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    protect(headers);
    response
}

/// Sends a browser to another page of this host, to be read there.
pub(super) fn redirect(path: &str) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::SEE_OTHER;
    if let Ok(location) = HeaderValue::from_str(path) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    protect(response.headers_mut());
    response
}

/// Nothing from elsewhere, nothing inline, in nobody's frame. Forms say where they come from to this host alone: with `no-referrer` browsers would
/// send them with the origin `null`.
pub(super) fn protect(headers: &mut HeaderMap) {
    const FIELDS: [(HeaderName, &str); 5] = [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in FIELDS {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// Sentences with code in backticks, as they stand in the source.
pub(super) fn prose(text: &str) -> Markup {
    html! {
        @for (at, part) in text.split('`').enumerate() {
            @if at % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}
