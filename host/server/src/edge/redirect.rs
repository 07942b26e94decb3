//! The plain listener beside one that speaks TLS: it answers what ACME servers ask for, and sends everybody else to https.

use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Request, Response, StatusCode};

use tovuk_kernel::clock::Clock;
use tovuk_kernel::codes;
use tovuk_runtime::body::Body;
use tovuk_runtime::failure::Failure;
use tovuk_runtime::trace::TraceContext;

use crate::listen::{Answer, Peer};
use crate::tls::acme::HttpChallenges;

use super::request::host_of;
use super::respond::{self, Audience};

/// Where ACME servers look (RFC 8555, 8.3).
const CHALLENGES: &str = "/.well-known/acme-challenge/";
const HTTPS_PORT: u16 = 443;

/// Sends clients to https. Clones are the same.
#[derive(Clone)]
pub struct Redirect {
    clock: Clock,
    challenges: HttpChallenges,
    https_port: u16,
}

impl Redirect {
    /// Sends to this port.
    pub fn new(clock: Clock, challenges: HttpChallenges, https_port: u16) -> Self {
        Self { clock, challenges, https_port }
    }

    fn respond(&self, request: &Request<Body>) -> Result<Response<Body>, Failure> {
        let bad = || Failure::refused(&codes::BAD_REQUEST, "the request's host is not valid");
        let host = host_of(request.uri(), request.headers())?;
        let proof = request.uri().path().strip_prefix(CHALLENGES).and_then(|token| self.challenges.answer(token));
        if let Some(proof) = proof {
            let mut response = Response::new(Body::from(bytes::Bytes::from(proof)));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            return Ok(response);
        }
        let authority: http::uri::Authority = host.to_str().ok().and_then(|host| host.parse().ok()).ok_or_else(bad)?;
        let port = if self.https_port == HTTPS_PORT { String::new() } else { format!(":{}", self.https_port) };
        let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let path = if path.starts_with('/') { path } else { "/" };
        let location = HeaderValue::from_str(&format!("https://{}{port}{path}", authority.host())).map_err(|_| bad())?;
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
        response.headers_mut().insert(LOCATION, location);
        Ok(response)
    }
}

impl Answer for Redirect {
    async fn answer(&self, request: Request<Body>, _: &Peer) -> Response<Body> {
        let trace = TraceContext::of(request.headers()).trace;
        self.respond(&request).unwrap_or_else(|failure| respond::failure(&failure, trace, Audience::Public))
    }

    fn clock(&self) -> &Clock {
        &self.clock
    }
}
