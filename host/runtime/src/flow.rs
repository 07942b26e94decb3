//! Bodies on their way into and out of a streaming worker: counted, bounded, and tied to the life of the guest.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body::{Frame, SizeHint};
use tokio::task::JoinHandle;
use tovuk_kernel::clock::Clock;
use tovuk_kernel::meters::Meter;
use tovuk_resources::meters;

use crate::body::{Body, BodyError};
use crate::failure::Failure;
use crate::headers::strip_host_fields;
use crate::invocation::Invocation;
use crate::record::Outcome;
use crate::usage;

/// A guest that goes on after its response head. Dropping this ends it.
pub(crate) struct GuestTask(Option<JoinHandle<()>>);

impl GuestTask {
    pub fn spawn(guest: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Some(tokio::spawn(guest)))
    }

    /// Lets the guest finish by itself, within its limits.
    fn detach(mut self) {
        self.0 = None;
    }
}

impl Drop for GuestTask {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// Trailers are header fields too: what only the host may say is dropped from them.
fn strip_trailers(polled: &mut Poll<Option<Result<Frame<Bytes>, BodyError>>>) {
    if let Poll::Ready(Some(Ok(frame))) = polled
        && let Some(trailers) = frame.trailers_mut()
    {
        strip_host_fields(trailers);
    }
}

/// The request body of a streaming worker.
pub(crate) struct RequestBody {
    inner: Body,
    invocation: Arc<Invocation>,
    limit_bytes: u64,
}

impl RequestBody {
    pub fn new(inner: Body, invocation: Arc<Invocation>) -> Self {
        let limit_bytes = invocation.deployment.limits.stream_body_mb << 20;
        Self { inner, invocation, limit_bytes }
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut polled = Pin::new(&mut self.inner).poll_frame(cx);
        strip_trailers(&mut polled);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            let total = self.invocation.bytes_in.fetch_add(data.len() as u64, Ordering::Relaxed) + data.len() as u64;
            if self.invocation.head_is_out() {
                self.invocation.progress();
            }
            if total > self.limit_bytes {
                self.invocation.request_too_large.store(true, Ordering::Relaxed);
                return Poll::Ready(Some(Err(BodyError::HttpRequestBodySize(Some(self.limit_bytes)))));
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The response body of a streaming worker. Dropped before its end, it cancels the guest.
pub(crate) struct ResponseBody<B> {
    inner: B,
    invocation: Arc<Invocation>,
    guest: Option<GuestTask>,
    limit_bytes: u64,
    /// After so many bytes the response is whole, and nobody reads on to hear that the body has ended.
    due_bytes: Option<u64>,
    /// What has come and may leave once its bytes are reserved.
    held: Option<Held>,
    ended: bool,
}

struct Held {
    frame: Frame<Bytes>,
    reserved: BoxFuture<'static, Result<(), meters::Error>>,
}

impl<B> ResponseBody<B> {
    pub fn new(inner: B, invocation: Arc<Invocation>, guest: Option<GuestTask>, due_bytes: Option<u64>) -> Self {
        let limit_bytes = invocation.deployment.limits.stream_body_mb << 20;
        Self { inner, invocation, guest, limit_bytes, due_bytes, held: None, ended: false }
    }

    /// The guest stopped before its body was whole. Whoever reads it must not take what came for all of it.
    fn cut(&mut self) -> BodyError {
        self.ended = true;
        self.guest = None;
        BodyError::HttpResponseIncomplete
    }

    /// Lets bytes go once they are charged: at once where no cap applies.
    fn charge(&mut self, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
        let bill = &self.invocation.deployment.bill;
        if !bill.is_capped(Meter::WorkerTransferBytes) {
            bill.charge(Meter::WorkerTransferBytes, bytes);
            return Some(frame);
        }
        let bill = bill.clone();
        self.held = Some(Held { frame, reserved: Box::pin(async move { usage::send(&bill, bytes).await }) });
        None
    }

    /// A frame leaves.
    fn passes(&mut self, frame: Frame<Bytes>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(data) = frame.data_ref() {
            let total = self.invocation.bytes_out.fetch_add(data.len() as u64, Ordering::Relaxed) + data.len() as u64;
            if !data.is_empty() {
                self.invocation.progress();
            }
            if total > self.limit_bytes {
                let text = format!("the response body has more than {} bytes; it was cut there", self.limit_bytes);
                self.invocation.end(Outcome::Refused, Some(text));
                return Poll::Ready(Some(Err(self.cut())));
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    /// What was held leaves once its bytes are reserved. The body is cut where they cannot be.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(held) = &mut self.held else { return Poll::Pending };
        let reserved = std::task::ready!(held.reserved.as_mut().poll(cx));
        let frame = self.held.take().map(|held| held.frame);
        match (reserved, frame) {
            (Ok(()), Some(frame)) => self.passes(frame),
            (Ok(()), None) => Poll::Pending,
            (Err(error), _) => {
                let failure = Failure::from(error);
                self.invocation.end(failure.outcome, Some(format!("the response body was cut: {}", failure.for_log())));
                Poll::Ready(Some(Err(self.cut())))
            }
        }
    }

    fn finish(&mut self) {
        if self.ended {
            return;
        }
        self.ended = true;
        self.invocation.end(Outcome::Response, None);
        if let Some(guest) = self.guest.take() {
            guest.detach();
        }
    }
}

impl<B> http_body::Body for ResponseBody<B>
where
    B: http_body::Body<Data = Bytes, Error = BodyError> + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        if this.held.is_some() {
            return this.poll_held(cx);
        }
        let mut polled = Pin::new(&mut this.inner).poll_frame(cx);
        strip_trailers(&mut polled);
        match std::task::ready!(polled) {
            Some(Ok(frame)) => match this.charge(frame) {
                Some(frame) => this.passes(frame),
                None => this.poll_held(cx),
            },
            Some(Err(error)) => {
                this.invocation.end(Outcome::Failed, Some(format!("the response body broke off: {error}")));
                this.cut();
                Poll::Ready(Some(Err(error)))
            }
            // The guest's end of the body vanishes alike when the guest finishes it and when the guest is stopped.
            None if this.invocation.is_broken() => Poll::Ready(Some(Err(this.cut()))),
            None => {
                this.finish();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        // An inner stream that has ended may still have to be cut, so the end is told by `poll_frame` alone.
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A body between whose frames no more than so much time may pass, as its reader has asked.
pub(crate) struct TimedBody {
    inner: Body,
    clock: Clock,
    timeout: Duration,
    timer: Option<BoxFuture<'static, ()>>,
}

impl TimedBody {
    pub fn new(inner: Body, clock: Clock, timeout: Duration) -> Self {
        Self { inner, clock, timeout, timer: None }
    }
}

impl http_body::Body for TimedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) {
            this.timer = None;
            return Poll::Ready(frame);
        }
        let (clock, timeout) = (&this.clock, this.timeout);
        let timer = this.timer.get_or_insert_with(|| {
            let clock = clock.clone();
            Box::pin(async move { clock.sleep(timeout).await })
        });
        std::task::ready!(timer.as_mut().poll(cx));
        this.timer = None;
        Poll::Ready(Some(Err(BodyError::ConnectionReadTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B> Drop for ResponseBody<B> {
    fn drop(&mut self) {
        if self.due_bytes == Some(self.invocation.bytes_out.load(Ordering::Relaxed)) {
            self.finish();
        }
        if !self.ended {
            self.invocation.end(Outcome::Cancelled, Some("whoever asked went away before the response was whole".to_owned()));
        }
    }
}
