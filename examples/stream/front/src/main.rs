//! The public service: hands every request to `store` and its response back, body and all, without holding more than a piece of either.

use wstd::http::{Body, Client, Error, Request, Response, StatusCode, Uri};

// What describes the body. `connection` and the like are about one connection and stay behind, and the host sets the rest.
const FORWARDED: [&str; 2] = ["content-type", "content-length"];

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    let Ok(store) = std::env::var("STORE_URL") else {
        eprintln!("STORE_URL is not set: the binding to `store` in tovuk.toml gives it");
        return Ok(status(StatusCode::INTERNAL_SERVER_ERROR));
    };
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let url: Uri = format!("{}{path}", store.trim_end_matches('/')).parse()?;

    let (parts, body) = request.into_parts();
    let mut call = Request::builder().method(parts.method).uri(url);
    for name in FORWARDED {
        if let Some(value) = parts.headers.get(name) {
            call = call.header(name, value);
        }
    }
    // `send` gives the response once the request has been read to its end, which suits a store that answers after the last byte.
    let answer = Client::new().send(call.body(body)?).await?;

    let (parts, body) = answer.into_parts();
    let mut response = Response::builder().status(parts.status);
    for name in FORWARDED {
        if let Some(value) = parts.headers.get(name) {
            response = response.header(name, value);
        }
    }
    Ok(response.body(body)?)
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
