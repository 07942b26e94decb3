//! The private service: takes a body of any size a piece at a time and answers its length and SHA-256, or makes one of a given size.

use futures_lite::stream::iter;
use http_body_util::BodyExt;
use sha2::{Digest, Sha256};
use wstd::http::body::{Bytes, Frame};
use wstd::http::{Body, Error, Method, Request, Response, StatusCode};

const PIECE_BYTES: usize = 64 << 10;

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    let path = request.uri().path().to_owned();
    match (request.method(), path.strip_prefix("/zeros/")) {
        (&Method::POST | &Method::PUT, None) => measure(request).await,
        (&Method::GET, Some(mib)) => match mib.parse() {
            Ok(mib) => Ok(zeros(mib)),
            Err(_) => text(StatusCode::BAD_REQUEST, "use /zeros/<MiB>\n".to_owned()),
        },
        _ => text(StatusCode::NOT_FOUND, "use POST or PUT on any path, or GET /zeros/<MiB>\n".to_owned()),
    }
}

async fn measure(request: Request<Body>) -> Result<Response<Body>, Error> {
    let mut body = request.into_body().into_boxed_body();
    let (mut bytes, mut sha256) = (0_u64, Sha256::new());
    while let Some(frame) = body.frame().await {
        if let Ok(piece) = frame?.into_data() {
            bytes += piece.len() as u64;
            sha256.update(&piece);
        }
    }
    let digits: String = sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    text(StatusCode::OK, format!("{{\"bytes\":{bytes},\"sha256\":\"{digits}\"}}\n"))
}

fn zeros(mib: usize) -> Response<Body> {
    let piece = Bytes::from(vec![0; PIECE_BYTES]);
    let pieces = (0..mib * 16).map(move |_| Ok::<_, std::convert::Infallible>(Frame::data(piece.clone())));
    Response::new(Body::from_http_body(http_body_util::StreamBody::new(iter(pieces))))
}

fn text(status: StatusCode, text: String) -> Result<Response<Body>, Error> {
    let kind = if status.is_success() { "application/json" } else { "text/plain" };
    Ok(Response::builder().status(status).header("content-type", kind).body(text.into())?)
}
