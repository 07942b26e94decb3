//! Bodies at the socket: one that arrives has to keep arriving, and one that leaves says whose turn it is.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use tovuk_runtime::body::{Body, BodyError};

use super::progress::Active;

/// What HTTP/2 is given at a time of a body that is here whole: it buffers whatever it is given, whether or not the client takes it.
const SLICE_BYTES: usize = 64 << 10;

/// The body of a request, as a stream only if there is something to wait for.
pub(super) fn arriving(body: Incoming, stall: Duration) -> Body {
    if body.is_end_stream() { Body::Empty } else { Body::stream(Arriving { body, stall, deadline: None, timer: None }) }
}

/// A body that fails when its sender sends nothing for too long. Time counts only while somebody waits for it.
struct Arriving {
    body: Incoming,
    stall: Duration,
    deadline: Option<Instant>,
    /// Armed at the first wait; when it fires it moves to where the deadline is by then.
    timer: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.deadline = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let deadline = *this.deadline.get_or_insert_with(|| Instant::now() + this.stall);
        let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
        loop {
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(Some(Err(BodyError::ConnectionReadTimeout)));
            }
            timer.as_mut().reset(deadline.into());
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a response. The request counts as active until it is dropped.
pub(super) struct Leaving {
    body: Body,
    active: Active,
    slices: bool,
}

impl Leaving {
    /// `slices` is for protocols that buffer what they are given.
    pub fn new(body: Body, mut active: Active, slices: bool) -> Self {
        active.gave();
        Self { body, active, slices }
    }
}

impl http_body::Body for Leaving {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let polled = match &mut this.body {
            Body::Full(bytes) if this.slices && bytes.len() > SLICE_BYTES => Poll::Ready(Some(Ok(Frame::data(bytes.split_to(SLICE_BYTES))))),
            body => Pin::new(body).poll_frame(cx),
        };
        match polled {
            Poll::Ready(_) => this.active.gave(),
            Poll::Pending => this.active.took(),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
