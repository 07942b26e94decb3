//! Downloads: from a path, conditions and a range to the bytes of one version, which stay readable until the last of them was read.

use std::ops::Range as Bytes;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};

use tovuk_kernel::meters::Meter;

use super::conditions::{Conditions, Outcome, part};
use super::pins::Pin;
use super::rows::{self, Segment};
use super::types::{Body, Content, Download, Object, Reader};
use super::{Error, Inner, Objects};
use crate::conditional::Range;

impl Objects {
    /// What is known of an object that can be read.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn head(&self, service: i64, path: &str, reader: Reader) -> Result<Object, Error> {
        let charge = self.1.reserve(Meter::ObjectStorageClassBOperations, 1).await?;
        let key = path.to_owned();
        let read = move |conn: &rusqlite::Connection| {
            let found = rows::find(conn, service, &key)?;
            charge.settle(1);
            Ok::<_, Error>(found)
        };
        let found = self.0.database.read(read).await?;
        readable(found, path, reader).map(|(object, _)| object)
    }

    /// Opens an object. Nothing of it is read before the body is.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::PreconditionFailed`], [`Error::Range`].
    pub async fn open_object(&self, service: i64, path: &str, reader: Reader, conditions: &Conditions, range: Range) -> Result<Download, Error> {
        let charge = self.1.reserve(Meter::ObjectStorageClassBOperations, 1).await?;
        let looking = self.0.pins.look();
        let key = path.to_owned();
        let read = move |conn: &rusqlite::Connection| {
            let found = rows::find(conn, service, &key)?;
            let version = found.as_ref().and_then(|(_, version)| *version);
            let segments = version.map(|version| rows::segments(conn, version)).transpose()?;
            charge.settle(1);
            Ok::<_, Error>((found, segments.unwrap_or_default()))
        };
        let (found, segments) = self.0.database.read(read).await?;
        let (object, version) = readable(found, path, reader)?;
        if conditions.check(&object.etag, object.updated_ms)? == Outcome::NotModified {
            return Ok(Download::NotModified(object));
        }
        let range = part(conditions.range(range, &object.etag), object.size_bytes)?;
        let wanted = range.clone().unwrap_or(0..object.size_bytes);
        let length = wanted.end - wanted.start;
        let body = read_segments(self.0.clone(), looking.pin(version), within(&segments, wanted));
        Ok(Download::Content(Content { object, range, length, body }))
    }
}

fn readable(found: Option<(Object, Option<i64>)>, path: &str, reader: Reader) -> Result<(Object, i64), Error> {
    match found {
        Some((object, Some(version))) if reader == Reader::Granted || object.public_read => Ok((object, version)),
        _ => Err(Error::NotFound(path.to_owned())),
    }
}

/// The parts that have bytes of a range, and which.
fn within(segments: &[Segment], wanted: Bytes<u64>) -> Vec<(Segment, Bytes<u64>)> {
    let mut offset = 0_u64;
    let mut parts = Vec::new();
    for segment in segments {
        let (start, end) = (wanted.start.max(offset), wanted.end.min(offset.saturating_add(segment.size)));
        if start < end {
            parts.push((segment.clone(), start - offset..end - offset));
        }
        offset = offset.saturating_add(segment.size);
    }
    parts
}

/// The bytes of some parts, each opened when the one before has been read.
fn read_segments(inner: Arc<Inner>, pin: Pin, parts: Vec<(Segment, Bytes<u64>)>) -> Body {
    let bodies = stream::iter(parts).then(move |(segment, range)| {
        let inner = inner.clone();
        async move { inner.blobs.read(segment.blob, range).await }
    });
    let mut bytes = bodies.try_flatten().boxed();
    stream::poll_fn(move |context| {
        // The pin lives as long as the stream.
        let _ = &pin;
        bytes.poll_next_unpin(context)
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::super::blobs::Name;
    use super::*;

    #[test]
    fn a_range_is_found_in_the_parts_that_have_it() {
        let segments: Vec<Segment> =
            [10, 0, 10, 5].iter().zip(1..).map(|(size, part)| Segment { part, size: *size, digest: [0; 32], blob: Name([0; 16]) }).collect();
        let found = |wanted| within(&segments, wanted).into_iter().map(|(segment, range)| (segment.part, range)).collect::<Vec<_>>();
        assert_eq!(found(0..25), [(1, 0..10), (3, 0..10), (4, 0..5)]);
        assert_eq!(found(9..11), [(1, 9..10), (3, 0..1)]);
        assert_eq!(found(10..20), [(3, 0..10)]);
        assert_eq!(found(24..25), [(4, 4..5)]);
        assert_eq!(found(0..0), []);
    }
}
