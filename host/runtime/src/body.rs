//! Bodies as they pass between sockets, workers and other workers: nothing, bytes that are here, or a stream.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};

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

    /// The whole body, if it has at most `limit_bytes`.
    pub async fn collect_within(self, limit_bytes: u64) -> Result<Bytes, CollectError> {
        let bytes = match self {
            Self::Empty => Bytes::new(),
            Self::Full(bytes) => bytes,
            Self::Stream(stream) => {
                let limit = usize::try_from(limit_bytes).unwrap_or(usize::MAX);
                match http_body_util::Limited::new(stream, limit).collect().await {
                    Ok(collected) => collected.to_bytes(),
                    Err(error) if error.is::<http_body_util::LengthLimitError>() => return Err(CollectError::TooLarge),
                    Err(error) => return Err(CollectError::Broken(error.to_string())),
                }
            }
        };
        if bytes.len() as u64 > limit_bytes { Err(CollectError::TooLarge) } else { Ok(bytes) }
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
