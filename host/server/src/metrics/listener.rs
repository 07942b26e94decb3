//! What the operator's own listener answers: figures, and whether the host is well. It knows no tokens; who reaches it is decided by where it listens.

use http::{HeaderValue, Method, Request, Response, header};
use tovuk_kernel::clock::Clock;
use tovuk_kernel::codes;
use tovuk_kernel::error::ErrorBody;
use tovuk_runtime::body::Body;
use tovuk_runtime::calls::json;
use tovuk_runtime::trace::TraceContext;

use super::exposition;
use crate::control::Control;
use crate::listen::{Answer, Peer};

/// The operator's listener of one host.
#[derive(Clone)]
pub struct Operations(Control);

impl Operations {
    /// That of the host with this API.
    pub fn new(control: Control) -> Self {
        Self(control)
    }
}

impl Answer for Operations {
    async fn answer(&self, request: Request<Body>, _peer: &Peer) -> Response<Body> {
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        let code = match request.uri().path() {
            _ if !reads => &codes::METHOD_NOT_ALLOWED,
            "/metrics" => match exposition::text(&self.0).await {
                Ok(text) => {
                    let mut response = Response::new(Body::from(bytes::Bytes::from(text)));
                    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(exposition::CONTENT_TYPE));
                    return response;
                }
                Err(error) => {
                    tracing::error!("metrics cannot be written: {error}");
                    &codes::INTERNAL_ERROR
                }
            },
            "/health" | "/healthz" => return json(200, br#"{"status":"ok"}"#.to_vec()),
            "/readyz" if self.0.is_draining() => &codes::HOST_DRAINING,
            "/readyz" => return json(200, br#"{"status":"ready"}"#.to_vec()),
            _ => &codes::API_ROUTE_NOT_FOUND,
        };
        let request_id = TraceContext::of(request.headers()).trace.to_string();
        json(code.status, ErrorBody::public(code, &request_id).to_json())
    }

    fn clock(&self) -> &Clock {
        self.0.clock()
    }
}
