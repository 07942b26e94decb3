//! Answers what it received, through `wasi:http`.

use serde_json::json;
use tovuk_guests::{read_all, respond_json};
use wasip2::http::types::{IncomingRequest, Method, ResponseOutparam};

struct Worker;

fn method_name(method: Method) -> String {
    match method {
        Method::Other(name) => name,
        known => format!("{known:?}").trim_start_matches("Method::").to_uppercase(),
    }
}

impl wasip2::exports::http::incoming_handler::Guest for Worker {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let fields = request.headers();
        let headers: Vec<_> = fields.entries().into_iter().map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned())).collect();
        drop(fields);
        let body = read_all(request.consume().unwrap());
        let (bytes, error) = match body {
            Ok(bytes) => (bytes, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        respond_json(
            out,
            200,
            &json!({
                "method": method_name(request.method()), "uri": request.path_with_query(), "authority": request.authority(),
                "scheme": request.scheme().map(|scheme| format!("{scheme:?}")), "headers": headers, "body_bytes": bytes.len(),
                "body": String::from_utf8_lossy(&bytes), "body_error": error,
            }),
        );
    }
}

wasip2::http::proxy::export!(Worker);
