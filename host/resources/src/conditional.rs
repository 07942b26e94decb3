//! What conditional requests and ranges are written in, as RFC 9110 has it in sections 13 and 14: for objects and for static files alike.

use std::ops::Range as Bytes;

use http_range_header::{EndPosition, StartPosition};

/// Which bytes of something were asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Range {
    /// All.
    #[default]
    Whole,
    /// From this offset to the end.
    From(u64),
    /// From the first offset to the second, which is included.
    Between(u64, u64),
    /// The last so many.
    Last(u64),
}

impl Range {
    /// What a `Range` header asks for. Several parts at once, and what is no range, mean the whole.
    pub fn parse(header: &str) -> Self {
        let parsed = http_range_header::parse_range_header(header).map(|parsed| parsed.ranges).unwrap_or_default();
        let [range] = parsed.as_slice() else { return Self::Whole };
        match (range.start, range.end) {
            (StartPosition::FromLast(length), _) => Self::Last(length),
            (StartPosition::Index(start), EndPosition::LastByte) => Self::From(start),
            (StartPosition::Index(start), EndPosition::Index(last)) if last < start => Self::Whole,
            (StartPosition::Index(start), EndPosition::Index(last)) => Self::Between(start, last),
        }
    }

    /// The part of something of this size that is meant.
    pub fn within(self, size: u64) -> Part {
        let (start, end) = match self {
            Self::Whole => return Part::Whole,
            Self::From(start) => (start, size),
            Self::Between(start, last) => (start, last.saturating_add(1).min(size)),
            // More bytes from the end than there are stand for all of them.
            Self::Last(length) => (size.saturating_sub(length), size),
        };
        if start < end { Part::Range(start..end) } else { Part::Outside }
    }
}

/// A range, now that the size is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// All.
    Whole,
    /// These bytes.
    Range(Bytes<u64>),
    /// None that is there.
    Outside,
}

/// Whether one of the tags in a list is meant. A tag may hold commas.
pub fn any_tag(list: &str, is_meant: impl Fn(&str) -> bool) -> bool {
    let mut rest = list.trim_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        // Up to the second quote, or all of it when there are no two.
        let end = rest.match_indices('"').nth(1).map_or(rest.len(), |(at, _)| at + 1);
        let (tag, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
        if is_meant(tag) {
            return true;
        }
        rest = after.trim_start_matches([' ', '\t', ',']);
    }
    false
}
