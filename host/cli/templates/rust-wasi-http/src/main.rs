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
        // Each line is made when the client is ready for it.
        "/count" => Ok(Response::new(Body::from_stream(stream::iter(
            (1..=100_000).map(|number| format!("{number}\n")),
        )))),
        _ => Ok(Response::builder()
            .status(StatusCode::NOT_FOUND)
            .body(Body::from("not found\n"))?),
    }
}
