//! Requests to signed URLs: bytes and nothing else. No token is sent and nothing that says who asks, because the URL says all.

use std::error::Error as _;
use std::future::Ready;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, Either};
use futures::{FutureExt, TryStreamExt};
use http::{HeaderValue, Method, Request, Response, header};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Limited, StreamBody};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::rt::TokioExecutor;
use indicatif::ProgressBar;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::io::ReaderStream;
use tovuk_kernel::clock::Clock;

use super::files::{Source, Target};
use crate::failure::Failure;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long no byte may move. A host that has everything still writes it to its disk.
const STALL: Duration = Duration::from_secs(120);
/// What is read of a file at a time.
const CHUNK_BYTES: usize = 256 << 10;
/// How often a part is sent.
const ATTEMPTS_MAX: u32 = 4;
/// How long to wait before a part is sent for the second time; each further wait is twice as long.
const PAUSE: Duration = Duration::from_millis(500);
/// The largest body of an error.
const ERROR_BYTES_MAX: usize = 64 << 10;

type BodyOut = BoxBody<Bytes, std::io::Error>;

/// Bytes of a file, and where they go.
pub struct Piece<'a> {
    /// The signed URL.
    pub url: String,
    /// Where in the file they begin.
    pub offset: u64,
    /// How many they are.
    pub bytes: u64,
    /// Their type, where the URL is for a whole object.
    pub content_type: Option<&'a str>,
}

/// Speaks to the host of objects.
pub struct Transfer {
    http: Client<HttpsConnector<HttpConnector<Resolver>>, BodyOut>,
    clock: Clock,
    /// Bytes that have moved, of all transfers.
    moved: AtomicU64,
}

/// What went wrong with one request, and whether the same can succeed later.
struct Broken {
    failure: Failure,
    again: bool,
}

impl Transfer {
    /// For URLs like this one.
    pub fn new(url: &str) -> Result<Self, Failure> {
        let mut tcp = HttpConnector::new_with_resolver(Resolver(GaiResolver::new()));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let builder = hyper_rustls::HttpsConnectorBuilder::new();
        // Reading the system's certificates takes longer than a request to this machine does.
        let https = if url.starts_with("https:") {
            builder
                .with_native_roots()
                .map_err(|error| Failure::local("api_unreachable", format!("the system's root certificates cannot be read: {error}")))?
        } else {
            builder.with_tls_config(rustls::ClientConfig::builder().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
        };
        let http = Client::builder(TokioExecutor::new()).build(https.https_or_http().enable_http1().wrap_connector(tcp));
        Ok(Self { http, clock: Clock::system(), moved: AtomicU64::new(0) })
    }

    /// Sends a piece. The tag that was answered.
    pub async fn send(&self, source: &Source, piece: &Piece<'_>, bar: &ProgressBar) -> Result<Option<String>, Failure> {
        self.try_send(source, piece, bar).await.map_err(|broken| broken.failure)
    }

    /// The same, a few times over where that can help.
    pub async fn send_again(&self, source: &Source, piece: &Piece<'_>, bar: &ProgressBar) -> Result<Option<String>, Failure> {
        let mut pause = PAUSE;
        for _ in 1..ATTEMPTS_MAX {
            let before = bar.position();
            match self.try_send(source, piece, bar).await {
                Err(Broken { again: true, .. }) => bar.set_position(before.min(bar.position())),
                Err(Broken { failure, .. }) => return Err(failure),
                Ok(etag) => return Ok(etag),
            }
            self.clock.sleep(pause).await;
            pause *= 2;
        }
        self.send(source, piece, bar).await
    }

    async fn try_send(&self, source: &Source, piece: &Piece<'_>, bar: &ProgressBar) -> Result<Option<String>, Broken> {
        let file = source.from(piece.offset).await.map_err(|failure| Broken { failure, again: false })?;
        let (bar, moved) = (bar.clone(), std::sync::Arc::new(AtomicU64::new(0)));
        let counted = moved.clone();
        let frames = ReaderStream::with_capacity(file.take(piece.bytes), CHUNK_BYTES).map_ok(move |chunk| {
            bar.inc(chunk.len() as u64);
            counted.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            Frame::data(chunk)
        });
        let request = Request::put(&piece.url).header(header::ACCEPT, "*/*").header(header::CONTENT_LENGTH, piece.bytes);
        let request = match piece.content_type.map(HeaderValue::from_str) {
            Some(Ok(content_type)) => request.header(header::CONTENT_TYPE, content_type),
            _ => request,
        };
        let sending = self.ask(request.body(BodyExt::boxed(StreamBody::new(frames))), "storage_upload_failed");
        let answer = self.unless_stalled(sending, || moved.load(Ordering::Relaxed)).await;
        let answer = answer.unwrap_or_else(|| Err(stalled("storage_upload_failed")))?;
        Ok(answer.headers().get(header::ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned))
    }

    /// Fetches into a file, which is there once all of it has come. How many bytes it has.
    pub async fn fetch(&self, url: &str, target: &Target, bar: impl FnOnce() -> ProgressBar) -> Result<u64, Failure> {
        const CODE: &str = "storage_download_failed";
        let request = Request::get(url).header(header::ACCEPT, "*/*").body(BodyExt::boxed(Empty::new().map_err(|never| match never {})));
        let asked = self.unless_stalled(self.ask(request, CODE), || 0).await;
        let answer = asked.unwrap_or_else(|| Err(stalled(CODE))).map_err(|broken| broken.failure)?;
        let bar = bar();
        bar.set_length(answer.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(0));
        let file = target.begin()?;
        let writing = self.write(answer.into_body(), &file, target, &bar);
        let written = self.unless_stalled(writing, || self.moved.load(Ordering::Relaxed)).await;
        bar.finish_and_clear();
        let bytes = written.unwrap_or_else(|| Err(stalled(CODE).failure))?;
        target.finish(file)?;
        Ok(bytes)
    }

    async fn write(&self, mut body: Incoming, file: &tempfile::NamedTempFile, target: &Target, bar: &ProgressBar) -> Result<u64, Failure> {
        let mut out = tokio::fs::File::from_std(file.reopen().map_err(|error| target.failed(error))?);
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Failure::local("storage_download_failed", format!("the object did not arrive whole: {error}")))?;
            let Some(data) = frame.data_ref() else { continue };
            out.write_all(data).await.map_err(|error| target.failed(error))?;
            bytes += data.len() as u64;
            self.moved.fetch_add(data.len() as u64, Ordering::Relaxed);
            bar.inc(data.len() as u64);
        }
        // Errors of the last write are told here.
        out.flush().await.map_err(|error| target.failed(error))?;
        Ok(bytes)
    }

    async fn ask(&self, request: http::Result<Request<BodyOut>>, code: &str) -> Result<Response<Incoming>, Broken> {
        let request = request.map_err(|error| Broken { failure: Failure::local(code, format!("the URL cannot be used: {error}")), again: false })?;
        let put = request.method() == Method::PUT;
        let answer = self.http.request(request).await.map_err(|error| {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(cause) = source {
                text = cause.to_string();
                source = cause.source();
            }
            let instruction = "Check that this machine can reach the host of the URL: it is at `storage.` before the public domain.";
            Broken { failure: Failure::local(code, format!("the host of objects cannot be reached: {text}")).instruct(instruction), again: put }
        })?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ERROR_BYTES_MAX).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let told = Failure::of_answer(status.as_u16(), &body);
        let again = status.is_server_error() || told.code == "upload_interrupted";
        let failure = Failure { code: code.to_owned(), message: format!("{}: {}", told.code, told.message), ..told };
        Err(Broken { failure, again })
    }

    /// What comes of this, unless no byte moves for too long.
    async fn unless_stalled<T>(&self, work: impl Future<Output = T>, moved: impl Fn() -> u64) -> Option<T> {
        let mut work = std::pin::pin!(work);
        let mut before = moved();
        loop {
            match futures::future::select(work.as_mut(), std::pin::pin!(self.clock.sleep(STALL))).await {
                Either::Left((done, _)) => return Some(done),
                Either::Right(_) if moved() == before => return None,
                Either::Right(_) => before = moved(),
            }
        }
    }
}

fn stalled(code: &str) -> Broken {
    Broken { failure: Failure::local(code, format!("nothing has moved for {} s", STALL.as_secs())), again: true }
}

/// Resolves names. Those under `localhost` are this machine (RFC 6761, 6.3), which not every system's resolver knows.
#[derive(Clone)]
struct Resolver(GaiResolver);

impl tower_service::Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = std::io::Error;
    type Future = Either<Ready<Result<Self::Response, Self::Error>>, BoxFuture<'static, Result<Self::Response, Self::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        if is_localhost(name.as_str()) {
            let addresses = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), SocketAddr::from((Ipv6Addr::LOCALHOST, 0))];
            return Either::Left(std::future::ready(Ok(addresses.into_iter())));
        }
        Either::Right(self.0.call(name).map(|found| found.map(|addresses| addresses.collect::<Vec<_>>().into_iter())).boxed())
    }
}

fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::is_localhost;

    #[test]
    fn names_under_localhost_are_this_machine() {
        assert!(["localhost", "storage.localhost", "Storage.LOCALHOST."].into_iter().all(is_localhost));
        assert!(!["notlocalhost", "localhost.example.com", ""].into_iter().any(is_localhost));
    }
}
