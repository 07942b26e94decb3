//! Bodies as they pass between sockets, workers and other workers: nothing, bytes that are here, or a stream.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};

use crate::memory::HostMemory;

/// What can go wrong while a body flows, in the words of `wasi:http`.
pub type BodyError = wasmtime_wasi_http::Error;

/// A body.
#[derive(Default)]
pub enum Body {
    /// No bytes.
    #[default]
    Empty,
    /// Bytes that are here.
    Full(Bytes),
    /// Bytes that are still to come.
    Stream(UnsyncBoxBody<Bytes, BodyError>),
}

impl Body {
    /// A body from any stream of frames.
    pub fn stream<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        Self::Stream(body.map_err(Into::into).boxed_unsync())
    }

    /// The whole body, if it has at most `limit_bytes`. What it takes of the host's memory is counted as it comes, and until it is dropped.
    pub async fn collect_within(self, limit_bytes: u64, memory: &HostMemory) -> Result<Bytes, CollectError> {
        let mut stream = match self {
            Self::Empty => return Ok(Bytes::new()),
            Self::Full(bytes) if bytes.len() as u64 <= limit_bytes => return Ok(bytes),
            Self::Full(_) => return Err(CollectError::TooLarge),
            Self::Stream(stream) => stream,
        };
        let reservation = memory.reserve();
        // One buffer: frames kept apart cost many times their bytes when they are small.
        let mut whole = BytesMut::new();
        while let Some(frame) = stream.frame().await {
            let frame = frame.map_err(|error| CollectError::Broken(error.to_string()))?;
            let Some(data) = frame.data_ref() else { continue };
            if (whole.len() + data.len()) as u64 > limit_bytes {
                return Err(CollectError::TooLarge);
            }
            if !reservation.grow(data.len() as u64) {
                return Err(CollectError::Busy);
            }
            whole.extend_from_slice(data);
        }
        Ok(reservation.hold(whole.freeze()))
    }

    /// Waits for the end of the body and keeps nothing of it.
    ///
    /// # Errors
    /// When it broke off.
    pub async fn discard(self) -> Result<(), CollectError> {
        if let Self::Stream(mut stream) = self {
            while let Some(frame) = stream.frame().await {
                frame.map_err(|error| CollectError::Broken(error.to_string()))?;
            }
        }
        Ok(())
    }

    /// The body as `wasi:http` wants it.
    pub fn into_boxed(self) -> UnsyncBoxBody<Bytes, BodyError> {
        match self {
            Self::Stream(stream) => stream,
            other => other.boxed_unsync(),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::Empty } else { Self::Full(bytes) }
    }
}

/// Why a body could not be collected.
#[derive(Debug, PartialEq, Eq)]
pub enum CollectError {
    /// It has more bytes than allowed.
    TooLarge,
    /// The host has no memory for it now.
    Busy,
    /// Its sender went away, or sent what is no HTTP.
    Broken(String),
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Stream(stream) => Pin::new(stream).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(_) => false,
            Self::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(stream) => stream.size_hint(),
        }
    }
}
