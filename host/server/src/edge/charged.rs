//! Bodies that leave the host and are charged to a service as they do: static files and objects.

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tovuk_kernel::meters::Meter;
use tovuk_resources::meters::{Bill, Error};
use tovuk_runtime::body::{Body, BodyError};
use tovuk_runtime::failure::Failure;

/// The response, whose bytes are charged: at once where they are here, otherwise as they come. Refused where a cap has no room at all; a body for which
/// there is not enough is cut.
///
/// # Errors
/// When a cap has no room, or the store of meters fails.
pub(super) async fn charged(response: Response<Body>, bill: Bill, meter: Meter) -> Result<Response<Body>, Failure> {
    let (head, body) = response.into_parts();
    let body = match body {
        Body::Empty => Body::Empty,
        Body::Full(bytes) => {
            pay(&bill, meter, bytes.len()).await?;
            Body::Full(bytes)
        }
        Body::Stream(stream) => {
            if let Some((0, exceeded)) = bill.room(meter) {
                return Err(Failure::over_cap(&exceeded));
            }
            // Where a cap applies, the first piece is reserved before the head is sent, so that what is small is whole or refused.
            let mut stream = stream;
            let first = if bill.is_capped(meter) { stream.frame().await } else { None };
            if let Some(Ok(frame)) = &first {
                pay(&bill, meter, frame.data_ref().map_or(0, Bytes::len)).await?;
            }
            let rest = futures::stream::unfold(Some(stream), move |stream| {
                let bill = bill.clone();
                Box::pin(async move {
                    let mut stream = stream?;
                    let frame = match stream.frame().await? {
                        Ok(frame) => frame,
                        Err(error) => return Some((Err(error), None)),
                    };
                    match pay(&bill, meter, frame.data_ref().map_or(0, Bytes::len)).await {
                        Ok(()) => Some((Ok(frame), Some(stream))),
                        // The connection is cut, because the head has said how much there would be.
                        Err(_) => Some((Err(BodyError::HttpResponseIncomplete), None)),
                    }
                }) as BoxFuture<'static, Option<(Result<Frame<Bytes>, BodyError>, _)>>
            });
            Body::stream(StreamBody::new(futures::stream::iter(first).chain(rest)))
        }
    };
    Ok(Response::from_parts(head, body))
}

async fn pay(bill: &Bill, meter: Meter, bytes: usize) -> Result<(), Error> {
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    if bill.is_capped(meter) {
        bill.reserve(meter, bytes).await?.settle(bytes);
    } else {
        bill.charge(meter, bytes);
    }
    Ok(())
}
