//! `wasi:http/outgoing-handler`: the same calls as the lean world's, streaming. The stock implementation of the remaining interfaces serves.

use std::task::{Context, Poll, Waker};

use futures::future::BoxFuture;
use http::{Method, Request, Response, Uri, uri};
use http_body_util::BodyExt;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::runtime::{AbortOnDropJoinHandle, spawn};
use wasmtime_wasi_http::p2::bindings::http::types::{self, ErrorCode, Scheme};
use wasmtime_wasi_http::p2::types::{HostFutureIncomingResponse, HostOutgoingRequest};
use wasmtime_wasi_http::{DEFAULT_FORBIDDEN_HEADERS, Error, RequestOptions, WasiBody, WasiHttp, WasiHttpHooks, WasiHttpView};

use super::convert;
use crate::body::Body;
use crate::calls::{self, CallError};
use crate::flow::TimedBody;
use crate::instance::Data;
use crate::invocation::Invocation;
use crate::record::LogStream;

/// What a guest may write at once to a body that it sends, and how many such writes wait for the reader.
const CHUNK_BYTES: usize = 64 << 10;
const CHUNKS_BUFFERED: usize = 1;

const OUTGOING_HANDLER: &str = "wasi:http/outgoing-handler@0.2.12";

/// Settings of the stock implementation.
pub(crate) struct Hooks;

type SendFuture<T> = Box<dyn Future<Output = Result<T, Error>> + Send>;

impl WasiHttpHooks for Hooks {
    /// The default allocates for each header.
    fn is_forbidden_header(&mut self, name: &http::HeaderName) -> bool {
        DEFAULT_FORBIDDEN_HEADERS.contains(name)
    }

    /// Not reached: our `outgoing-handler` stands in front of it.
    fn send_request(
        &mut self,
        _: Request<WasiBody>,
        _: Option<RequestOptions>,
        _: SendFuture<()>,
    ) -> SendFuture<(Response<WasiBody>, SendFuture<()>)> {
        Box::new(async { Err(Error::HttpRequestDenied) })
    }

    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        CHUNKS_BUFFERED
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES
    }
}

type Handled = Result<Resource<HostFutureIncomingResponse>, ErrorCode>;

impl Data {
    fn send(&mut self, request: Resource<HostOutgoingRequest>, options: Option<Resource<RequestOptions>>) -> wasmtime::Result<Handled> {
        let options = options.and_then(|options| self.table.get(&options).ok()).copied().unwrap_or_default();
        let request = match outgoing(self.table.delete(request)?) {
            Ok(request) => request,
            Err(code) => return Ok(Err(code)),
        };
        let caller = self.invocation.clone();
        let mut call: BoxFuture<'static, _> = Box::pin(async move {
            let clock = caller.runtime.clock().clone();
            let answer = calls::by_url(&caller, request);
            let answer = match options.first_byte_timeout {
                Some(timeout) => clock.timeout(timeout, answer).await.unwrap_or(Err(CallError::Timeout)),
                None => answer.await,
            };
            let response = answer.map_err(|error| {
                advise(&caller, &error);
                convert::error_code(error)
            })?;
            let body = |body: Body| match options.between_bytes_timeout {
                Some(timeout) => TimedBody::new(body, clock, timeout).boxed_unsync(),
                None => body.into_boxed(),
            };
            Ok((response.map(body), done()))
        });
        // Most targets answer without waiting for anything, and then need no task. One that waits, or has computed for as long as a guest may
        // before it yields, goes on in a task, so that the caller can start other calls meanwhile. The task ends when the guest drops the
        // future, and with it the whole chain below.
        let call = match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => HostFutureIncomingResponse::Ready(result),
            Poll::Pending => HostFutureIncomingResponse::Pending(spawn(call)),
        };
        Ok(Ok(self.table.push(call)?))
    }
}

/// The stock type wants a task that moves the connection; calls need none, since their bodies move by being read.
fn done() -> AbortOnDropJoinHandle<()> {
    spawn(std::future::ready(()))
}

/// An error of `wasi:http` is a code without text, so the text goes to the service's log.
fn advise(caller: &Invocation, error: &CallError) {
    if let Some(text) = error.advice() {
        caller.log(LogStream::Stderr, format!("tovuk: a call failed: {text}"));
    }
}

fn outgoing(request: HostOutgoingRequest) -> Result<Request<Body>, ErrorCode> {
    let declared = request
        .headers
        .get(http::header::CONTENT_LENGTH)
        .map(|value| value.to_str().ok().and_then(|text| text.parse::<u64>().ok()).ok_or(ErrorCode::HttpProtocolError))
        .transpose()?;
    if request.body.is_none() && declared.is_some_and(|length| length != 0) {
        return Err(ErrorCode::HttpRequestBodySize(Some(0)));
    }
    let method: Method = request.method.try_into().map_err(|_| ErrorCode::HttpRequestMethodInvalid)?;
    let scheme = match request.scheme {
        Some(Scheme::Http) => uri::Scheme::HTTP,
        Some(Scheme::Https) | None => uri::Scheme::HTTPS,
        Some(Scheme::Other(_)) => return Err(ErrorCode::HttpProtocolError),
    };
    let authority = request.authority.unwrap_or_default();
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(authority.as_str())
        .path_and_query(request.path_with_query.as_deref().unwrap_or("/"))
        .build()
        .map_err(|_| ErrorCode::HttpRequestUriInvalid)?;
    let mut built = Request::new(match request.body {
        Some(body) => Body::Stream(body),
        None => Body::Empty,
    });
    *built.method_mut() = method;
    *built.headers_mut() = request.headers.into();
    if let Ok(host) = http::HeaderValue::from_str(&authority) {
        built.headers_mut().insert(http::header::HOST, host);
    }
    *built.uri_mut() = uri;
    Ok(built)
}

pub(super) fn add_to_linker(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    let options = wasmtime_wasi_http::p2::bindings::LinkOptions::default();
    types::add_to_linker::<Data, WasiHttp>(linker, &(&options).into(), WasiHttpView::http)?;
    linker.instance(OUTGOING_HANDLER)?.func_wrap(
        "handle",
        |mut store: StoreContextMut<'_, Data>, (request, options): (Resource<HostOutgoingRequest>, Option<Resource<RequestOptions>>)| {
            Ok((store.data_mut().send(request, options)?,))
        },
    )
}
