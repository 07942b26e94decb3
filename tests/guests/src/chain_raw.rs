//! The same chain as `chain` with nothing between it and the generated bindings: what a hop costs when the worker itself does next to nothing.

use tovuk::__private::bindings::tovuk::bindings::service;
use tovuk::__private::{Error, Guest, Request, Response};

struct Worker;

impl Guest for Worker {
    fn handle(request: Request) -> Result<Response, Error> {
        let left: u32 = request.uri.trim_start_matches('/').parse().unwrap_or(0);
        let body = if left == 0 {
            b"hello".to_vec()
        } else {
            let next = Request { method: "GET".into(), uri: format!("/{}", left - 1), headers: Vec::new(), body: Vec::new() };
            service::fetch("NEXT", &next)?.body
        };
        Ok(Response { status: 200, headers: b"content-type: text/plain\r\n".to_vec(), body })
    }
}

tovuk::__private::export_worker!(Worker with_types_in tovuk::__private::bindings);
