//! An HTTP client on one real socket per request, so that nothing that a test sends is tidied up on the way.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Speaks to one address.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    address: SocketAddr,
}

/// A whole response.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    /// The code of the host's error body, or the status where the body is none.
    pub fn code(&self) -> String {
        let code = || serde_json::from_slice::<serde_json::Value>(&self.body).ok()?.get("code")?.as_str().map(str::to_owned);
        code().unwrap_or_else(|| self.status.as_u16().to_string())
    }
}

impl Client {
    /// A client of this address.
    pub fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// Sends a request and returns the response as it begins.
    pub async fn send<B>(&self, request: Request<B>) -> Result<Response<Incoming>, hyper::Error>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        sender.send_request(request).await
    }

    /// Sends a request with a whole body and returns the whole response.
    pub async fn whole(&self, request: Request<Full<Bytes>>) -> Reply {
        self.try_whole(request).await.unwrap_or_else(|error| panic!("no whole response: {error:?}"))
    }

    /// The same, or how the connection broke.
    pub async fn try_whole(&self, request: Request<Full<Bytes>>) -> Result<Reply, hyper::Error> {
        let (parts, body) = self.send(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Reply { status: parts.status, headers: parts.headers, body })
    }
}
