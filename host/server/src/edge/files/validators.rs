//! Conditional requests and ranges, as RFC 9110 has them in sections 13 and 14.
//!
//! A file of a deploy has a strong entity tag, made from its digest; one of an author's folder a weak one, made from its time and size.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use http::header::{ETAG, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue};
use tovuk_resources::conditional::{self, Part, Range};

use super::encoding::Encoding;
use crate::assets::Stat;

/// How much of the digest a tag has. Nobody can gain from two files that share it but whoever made both.
const TAG_DIGEST_BYTES: usize = 16;

/// What identifies a version of a file in one encoding.
pub(super) struct Validators {
    /// With its quotes, and `W/` before them if it is weak.
    tag: String,
    modified: Option<SystemTime>,
}

/// What a request's conditions come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Holds,
    /// The client has it.
    NotModified,
    /// The client wanted another version.
    Failed,
}

impl Validators {
    pub fn of(stat: Stat, encoding: Option<Encoding>) -> Self {
        let mut tag = String::with_capacity(2 * TAG_DIGEST_BYTES + 8);
        // Writing into a string cannot fail.
        match stat.sha256 {
            Some(sha256) => {
                tag.push('"');
                for byte in sha256.iter().take(TAG_DIGEST_BYTES) {
                    let _ = write!(tag, "{byte:02x}");
                }
            }
            None => {
                let modified = stat.modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
                let _ = write!(tag, "W/\"{:x}-{:x}", modified.as_nanos(), stat.bytes);
            }
        }
        if let Some(encoding) = encoding {
            let _ = write!(tag, "-{}", encoding.name());
        }
        tag.push('"');
        Self { tag, modified: stat.modified }
    }

    /// Adds them to a response.
    pub fn write(&self, headers: &mut HeaderMap) {
        if let Ok(tag) = HeaderValue::from_str(&self.tag) {
            headers.insert(ETAG, tag);
        }
        if let Some(modified) = self.modified
            && let Ok(date) = HeaderValue::from_str(&httpdate::fmt_http_date(modified))
        {
            headers.insert(LAST_MODIFIED, date);
        }
    }

    /// Decides on the conditions in the order of RFC 9110, section 13.2.2.
    pub fn check(&self, headers: &HeaderMap) -> Condition {
        if headers.contains_key(IF_MATCH) {
            if !any_tag(headers, IF_MATCH, |tag| tag == "*" || self.is_strongly(tag)) {
                return Condition::Failed;
            }
        } else if self.compare_date(headers, IF_UNMODIFIED_SINCE).is_some_and(|modified| !modified.is_le()) {
            return Condition::Failed;
        }
        if headers.contains_key(IF_NONE_MATCH) {
            if any_tag(headers, IF_NONE_MATCH, |tag| tag == "*" || opaque(tag) == opaque(&self.tag)) {
                return Condition::NotModified;
            }
        } else if self.compare_date(headers, IF_MODIFIED_SINCE).is_some_and(std::cmp::Ordering::is_le) {
            return Condition::NotModified;
        }
        Condition::Holds
    }

    /// The part of a file of this size that a request wants. Several parts at once, and what is no range, get the whole.
    pub fn part(&self, headers: &HeaderMap, head: bool, bytes: u64) -> Part {
        let Some(range) = headers.get(RANGE).and_then(|range| range.to_str().ok()).filter(|_| !head) else { return Part::Whole };
        if headers.get(IF_RANGE).is_some_and(|value| !self.is_version(value, headers)) {
            return Part::Whole;
        }
        Range::parse(range).within(bytes)
    }

    /// Whether `If-Range` names this version. A date does so only beside a strong tag: an author's file may change twice in its second.
    fn is_version(&self, if_range: &HeaderValue, headers: &HeaderMap) -> bool {
        let is_tag = if_range.as_bytes().contains(&b'"');
        if is_tag {
            return if_range.to_str().is_ok_and(|tag| self.is_strongly(tag.trim()));
        }
        !self.tag.starts_with('W') && self.compare_date(headers, IF_RANGE).is_some_and(std::cmp::Ordering::is_eq)
    }

    /// The strong comparison: the same bytes.
    fn is_strongly(&self, tag: &str) -> bool {
        tag.starts_with('"') && tag == self.tag
    }

    /// How the time of the file stands to the date in a header, in whole seconds. None without either.
    fn compare_date(&self, headers: &HeaderMap, name: HeaderName) -> Option<std::cmp::Ordering> {
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs());
        let date = httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()?;
        Some(seconds(self.modified?)?.cmp(&seconds(date)?))
    }
}

/// Whether one of the tags in a header is meant.
fn any_tag(headers: &HeaderMap, name: HeaderName, is_meant: impl Fn(&str) -> bool) -> bool {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).any(|list| conditional::any_tag(list, &is_meant))
}

/// A tag without its mark of weakness.
fn opaque(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// 06 Nov 1994 08:49:37 GMT, and a fraction.
    const MODIFIED: Duration = Duration::from_millis(784_111_777_400);

    fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    fn strong() -> Validators {
        Validators::of(Stat { bytes: 100, modified: Some(UNIX_EPOCH + MODIFIED), sha256: Some([0xab; 32]) }, None)
    }

    fn weak() -> Validators {
        Validators::of(Stat { bytes: 100, modified: Some(UNIX_EPOCH + MODIFIED), sha256: None }, Some(Encoding::Gzip))
    }

    const TAG: &str = "\"abababababababababababababababab\"";
    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const SAME: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    #[test]
    fn each_encoding_has_a_tag_of_its_own() {
        assert_eq!(strong().tag, TAG);
        assert_eq!(weak().tag, "W/\"ae1b981d4208e00-64-gzip\"");
        let stat = Stat { bytes: 1, modified: None, sha256: Some([0xab; 32]) };
        assert_eq!(Validators::of(stat, Some(Encoding::Brotli)).tag, "\"abababababababababababababababab-br\"");
    }

    #[test]
    fn conditions_are_decided_in_their_order() {
        let both = format!("\"a,b\", W/{TAG} ,\"c\"");
        let many = format!("\"x\", {TAG}");
        for (lines, expected) in [
            (vec![], Condition::Holds),
            (vec![(IF_NONE_MATCH, TAG)], Condition::NotModified),
            (vec![(IF_NONE_MATCH, "*")], Condition::NotModified),
            (vec![(IF_NONE_MATCH, &*both)], Condition::NotModified),
            (vec![(IF_NONE_MATCH, "\"other\"")], Condition::Holds),
            (vec![(IF_NONE_MATCH, "abababababababababababababababab")], Condition::Holds),
            (vec![(IF_NONE_MATCH, "\"")], Condition::Holds),
            (vec![(IF_NONE_MATCH, "\"other\""), (IF_MODIFIED_SINCE, LATER)], Condition::Holds),
            (vec![(IF_MODIFIED_SINCE, SAME)], Condition::NotModified),
            (vec![(IF_MODIFIED_SINCE, LATER)], Condition::NotModified),
            (vec![(IF_MODIFIED_SINCE, EARLIER)], Condition::Holds),
            (vec![(IF_MODIFIED_SINCE, "yesterday")], Condition::Holds),
            (vec![(IF_MATCH, "*")], Condition::Holds),
            (vec![(IF_MATCH, &*many)], Condition::Holds),
            (vec![(IF_MATCH, "\"x\"")], Condition::Failed),
            (vec![(IF_MATCH, "")], Condition::Failed),
            (vec![(IF_MATCH, TAG), (IF_UNMODIFIED_SINCE, EARLIER)], Condition::Holds),
            (vec![(IF_UNMODIFIED_SINCE, EARLIER)], Condition::Failed),
            (vec![(IF_UNMODIFIED_SINCE, SAME)], Condition::Holds),
            (vec![(IF_MATCH, TAG), (IF_NONE_MATCH, TAG)], Condition::NotModified),
        ] {
            assert_eq!(strong().check(&headers(&lines)), expected, "{lines:?}");
        }
        let tag = weak().tag;
        assert_eq!(weak().check(&headers(&[(IF_NONE_MATCH, &tag)])), Condition::NotModified);
        assert_eq!(weak().check(&headers(&[(IF_MATCH, &tag)])), Condition::Failed, "a weak tag says nothing about bytes");
    }

    #[test]
    fn a_range_is_given_for_the_version_that_it_was_asked_of() {
        for (range, expected) in [
            ("bytes=0-9", Part::Range(0..10)),
            ("bytes=90-", Part::Range(90..100)),
            ("bytes=90-1000", Part::Range(90..100)),
            ("bytes=-5", Part::Range(95..100)),
            ("bytes=-1000", Part::Range(0..100)),
            ("bytes=100-", Part::Outside),
            ("bytes=0-9,20-29", Part::Whole),
            ("bytes=5-4", Part::Whole),
            ("bytes=99-99", Part::Range(99..100)),
            ("bytes=0-18446744073709551615", Part::Range(0..100)),
            ("bytes=-0", Part::Whole),
            ("bytes=x-y", Part::Whole),
            ("bytes=18446744073709551616-", Part::Whole),
            ("lines=0-9", Part::Whole),
        ] {
            assert_eq!(strong().part(&headers(&[(RANGE, range)]), false, 100), expected, "{range}");
            assert_eq!(strong().part(&headers(&[(RANGE, range)]), true, 100), Part::Whole, "{range}");
        }
        assert_eq!(strong().part(&headers(&[(RANGE, "bytes=0-")]), false, 0), Part::Outside);
        let if_range = |validators: &Validators, value: &str| validators.part(&headers(&[(RANGE, "bytes=0-9"), (IF_RANGE, value)]), false, 100);
        for (value, expected) in
            [(TAG, Part::Range(0..10)), ("\"x\"", Part::Whole), (SAME, Part::Range(0..10)), (LATER, Part::Whole), ("x", Part::Whole)]
        {
            assert_eq!(if_range(&strong(), value), expected, "{value}");
        }
        assert_eq!(if_range(&strong(), &format!("W/{TAG}")), Part::Whole);
        assert_eq!(if_range(&weak(), &weak().tag), Part::Whole);
        assert_eq!(if_range(&weak(), SAME), Part::Whole);
    }
}
