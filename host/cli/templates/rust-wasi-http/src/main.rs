//! A worker on standard `wasi:http`, which streams: neither the request's body nor the response's is ever held whole.

use wstd::http::{Body, Error, Request, Response, StatusCode};

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    match request.uri().path() {
        "/" => Ok(Response::new(Body::from("It works. Try /count, or POST something to /echo\n"))),
        "/healthz" => Ok(Response::new(Body::from("ok\n"))),
        "/echo" => Ok(Response::new(request.into_body())),
        "/count" => Ok(Response::new(Body::from_stream(Count { next: 1, last: 100_000 }))),
        _ => Ok(Response::builder().status(StatusCode::NOT_FOUND).body(Body::from("not found\n"))?),
    }
}

/// The lines of a long answer, each made when the client is ready for it.
struct Count {
    next: u64,
    last: u64,
}

impl futures_core::Stream for Count {
    type Item = String;

    fn poll_next(mut self: std::pin::Pin<&mut Self>, _context: &mut std::task::Context<'_>) -> std::task::Poll<Option<String>> {
        let number = self.next;
        self.next += 1;
        std::task::Poll::Ready((number <= self.last).then(|| format!("{number}\n")))
    }
}
