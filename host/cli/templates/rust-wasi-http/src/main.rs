//! A worker on standard `wasi:http`, which streams: neither the request's body nor the response's is ever held whole.

use futures_lite::stream;
use wstd::http::{Body, Error, Request, Response, StatusCode};

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    match request.uri().path() {
        "/" => Ok(Response::new(Body::from(
            "It works. Try /count, or POST something to /echo\n",
        ))),
        "/healthz" => Ok(Response::new(Body::from("ok\n"))),
        "/echo" => Ok(Response::new(request.into_body())),
        // A thousand lines are made each time that the client is ready for more.
        "/count" => Ok(Response::new(Body::from_stream(stream::iter(
            (0..100).map(|thousand| lines(thousand * 1000)),
        )))),
        _ => Ok(Response::builder()
            .status(StatusCode::NOT_FOUND)
            .body(Body::from("not found\n"))?),
    }
}

/// The next thousand numbers. A piece of a body costs a call of the host, so pieces of a few bytes would cost more than what is in them.
fn lines(after: u32) -> String {
    (after + 1..=after + 1000)
        .map(|number| format!("{number}\n"))
        .collect()
}
