//! Conditional requests and ranges, as RFC 9110 has them in sections 13 and 14: from what a request says and what the object is to what it gets.

use std::ops::Range as Bytes;
use std::time::{SystemTime, UNIX_EPOCH};

use http::header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE};
use http::{HeaderMap, HeaderName};
use tovuk_kernel::clock::UnixMs;

use super::Error;
use crate::conditional::{Part, Range, any_tag};

/// What must hold for a request to get the object. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// `If-Match`: entity tags, or `*`.
    pub if_match: Option<String>,
    /// `If-None-Match`: entity tags, or `*`.
    pub if_none_match: Option<String>,
    /// `If-Modified-Since`.
    pub if_modified_since: Option<UnixMs>,
    /// `If-Unmodified-Since`.
    pub if_unmodified_since: Option<UnixMs>,
    /// `If-Range`: an entity tag. A date would not tell apart two versions of one second, and gets the whole.
    pub if_range: Option<String>,
}

/// What the conditions come to when they do not fail.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Holds,
    /// The client has it.
    NotModified,
}

impl Conditions {
    /// Those of a request, and its range.
    pub fn of_headers(headers: &HeaderMap) -> (Self, Range) {
        let text = |name: HeaderName| {
            let lines: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
            (!lines.is_empty()).then(|| lines.join(", "))
        };
        let date = |name: HeaderName| httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok().map(unix_ms);
        let conditions = Self {
            if_match: text(IF_MATCH),
            if_none_match: text(IF_NONE_MATCH),
            if_modified_since: date(IF_MODIFIED_SINCE),
            if_unmodified_since: date(IF_UNMODIFIED_SINCE),
            if_range: text(IF_RANGE),
        };
        (conditions, text(RANGE).map_or(Range::Whole, |range| Range::parse(&range)))
    }

    /// Decides on the conditions in the order of RFC 9110, section 13.2.2.
    pub(super) fn check(&self, etag: &str, updated_ms: UnixMs) -> Result<Outcome, Error> {
        // Dates in headers have whole seconds.
        let seconds = |ms: UnixMs| ms / 1_000;
        if let Some(tags) = &self.if_match {
            if !any_tag(tags, |tag| tag == "*" || tag == etag) {
                return Err(Error::PreconditionFailed);
            }
        } else if self.if_unmodified_since.is_some_and(|date| seconds(updated_ms) > seconds(date)) {
            return Err(Error::PreconditionFailed);
        }
        if let Some(tags) = &self.if_none_match {
            if any_tag(tags, |tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag) {
                return Ok(Outcome::NotModified);
            }
        } else if self.if_modified_since.is_some_and(|date| seconds(updated_ms) <= seconds(date)) {
            return Ok(Outcome::NotModified);
        }
        Ok(Outcome::Holds)
    }

    /// The range to give, now that the object is known.
    pub(super) fn range(&self, range: Range, etag: &str) -> Range {
        if self.if_range.as_deref().is_some_and(|wanted| wanted != etag) { Range::Whole } else { range }
    }
}

/// The bytes of an object of this size that are meant; nothing for the whole.
pub(super) fn part(range: Range, size: u64) -> Result<Option<Bytes<u64>>, Error> {
    match range.within(size) {
        Part::Whole => Ok(None),
        Part::Range(bytes) => Ok(Some(bytes)),
        Part::Outside => Err(Error::Range { bytes: size }),
    }
}

fn unix_ms(time: SystemTime) -> UnixMs {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: &str = "\"abab\"";
    /// Sun, 06 Nov 1994 08:49:37 GMT, and a fraction.
    const UPDATED: UnixMs = 784_111_777_400;
    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const SAME: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn of(lines: &[(HeaderName, &str)]) -> (Conditions, Range) {
        let headers: HeaderMap = lines.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        Conditions::of_headers(&headers)
    }

    #[test]
    fn conditions_are_decided_in_their_order() {
        let held = |lines: &[(HeaderName, &str)]| of(lines).0.check(TAG, UPDATED).ok();
        let (holds, not_modified, failed) = (Some(Outcome::Holds), Some(Outcome::NotModified), None);
        assert_eq!(held(&[]), holds);
        for tags in [TAG, "*", "W/\"abab\"", "\"a,b\", \"abab\"", "\"x\" , W/\"abab\""] {
            assert_eq!(held(&[(IF_NONE_MATCH, tags)]), not_modified, "{tags}");
        }
        for tags in ["\"aba\"", "abab", "\"a,\"abab", ""] {
            assert_eq!(held(&[(IF_NONE_MATCH, tags)]), holds, "{tags}");
        }
        for (tags, expected) in [(TAG, &holds), ("*", &holds), ("\"x\", \"abab\"", &holds), ("W/\"abab\"", &failed), ("\"x\"", &failed)] {
            assert_eq!(&held(&[(IF_MATCH, tags)]), expected, "{tags}");
        }
        assert_eq!(held(&[(IF_MODIFIED_SINCE, SAME)]), not_modified);
        assert_eq!(held(&[(IF_MODIFIED_SINCE, EARLIER)]), holds);
        assert_eq!(held(&[(IF_MODIFIED_SINCE, "yesterday")]), holds);
        assert_eq!(held(&[(IF_UNMODIFIED_SINCE, SAME)]), holds);
        assert_eq!(held(&[(IF_UNMODIFIED_SINCE, EARLIER)]), failed);
        // Tags come before dates.
        assert_eq!(held(&[(IF_NONE_MATCH, "\"x\""), (IF_MODIFIED_SINCE, SAME)]), holds);
        assert_eq!(held(&[(IF_MATCH, TAG), (IF_UNMODIFIED_SINCE, EARLIER)]), holds);
        assert_eq!(held(&[(IF_MATCH, TAG), (IF_NONE_MATCH, TAG)]), not_modified);
    }

    #[test]
    fn ranges_are_those_of_the_header() {
        for (header, size, expected) in [
            ("bytes=0-9", 100, Some(0..10)),
            ("bytes=90-", 100, Some(90..100)),
            ("bytes=99-500", 100, Some(99..100)),
            ("bytes=-10", 100, Some(90..100)),
            ("bytes=-500", 100, Some(0..100)),
            ("bytes=0-0", 1, Some(0..1)),
            ("bytes=0-1,3-4", 100, None),
            ("bytes=9-3", 100, None),
            ("items=0-1", 100, None),
            ("bytes=", 100, None),
            ("bytes=-0", 100, None),
        ] {
            assert_eq!(part(Range::parse(header), size).unwrap(), expected, "{header}");
        }
        for (header, size) in [("bytes=100-", 100), ("bytes=200-300", 100), ("bytes=0-", 0), ("bytes=-5", 0)] {
            assert!(matches!(part(Range::parse(header), size), Err(Error::Range { bytes }) if bytes == size), "{header}");
        }
        assert_eq!(part(Range::parse("bytes=0-18446744073709551615"), 5).unwrap(), Some(0..5));
    }

    #[test]
    fn a_range_of_another_version_is_the_whole() {
        for (if_range, expected) in [(TAG, Range::From(1)), ("\"x\"", Range::Whole), ("W/\"abab\"", Range::Whole), (SAME, Range::Whole)] {
            let (conditions, range) = of(&[(RANGE, "bytes=1-"), (IF_RANGE, if_range)]);
            assert_eq!(conditions.range(range, TAG), expected, "{if_range}");
        }
    }
}
