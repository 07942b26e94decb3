//! Makes the host hold things for it: `/headers/<n>` n fields in one list, `/large/<kib>` one field of that many KiB, `/lists/<n>` n lists,
//! `/pollables/<n>` n timers, `/requests/<n>` n unsent requests. Each answers `{"made", "refused"}`, `refused` being the host's text or
//! null. `/response/<n>` answers with n fields of 100 bytes.

use serde_json::json;
use tovuk_guests::{respond_json, segments};
use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse, ResponseOutparam};

struct Worker;

/// Appends up to `count` fields with values of `value_bytes` and says how many went in and what stopped it.
fn append(fields: &Fields, count: u64, value_bytes: usize) -> (u64, Option<String>) {
    let value = vec![b'v'; value_bytes];
    for made in 0..count {
        if let Err(error) = fields.append(&format!("x-field-{made}"), &value) {
            return (made, Some(format!("{error:?}")));
        }
    }
    (count, None)
}

/// Holds `count` of whatever `make` makes.
fn hold<T>(count: u64, make: impl Fn() -> T) -> (u64, Option<String>) {
    let held: Vec<T> = (0..count).map(|_| make()).collect();
    (held.len() as u64, None)
}

fn answer_with(out: ResponseOutparam, count: u64) {
    let fields = Fields::new();
    let (made, refused) = append(&fields, count, 100);
    eprintln!("made {made}, refused {refused:?}");
    let response = OutgoingResponse::new(fields);
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    OutgoingBody::finish(body, None).unwrap();
}

impl wasip2::exports::http::incoming_handler::Guest for Worker {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let [what, count] = segments(&path)[..] else {
            return respond_json(
                out,
                404,
                &json!({ "error": "use /headers/<n>, /large/<kib>, /lists/<n>, /pollables/<n>, /requests/<n> or /response/<n>" }),
            );
        };
        let count: u64 = count.parse().unwrap_or(0);
        let (made, refused) = match what {
            "headers" => append(&Fields::new(), count, 16),
            "large" => append(&Fields::new(), 1, (count as usize) << 10),
            "lists" => hold(count, Fields::new),
            "pollables" => hold(count, || subscribe_duration(60_000_000_000)),
            "requests" => hold(count, || OutgoingRequest::new(Fields::new())),
            "response" => return answer_with(out, count),
            _ => return respond_json(out, 404, &json!({ "error": "unknown" })),
        };
        respond_json(out, 200, &json!({ "made": made, "refused": refused }));
    }
}

wasip2::http::proxy::export!(Worker);
