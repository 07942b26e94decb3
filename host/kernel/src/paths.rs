//! Paths that only the host may use. Deliveries of events reach workers at `/.tovuk/…`, so no request from elsewhere may carry such a path in
//! any spelling that a worker's router could take for it.

use std::fmt::Display;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// No software on the way decodes a path this often. One that still changes was made to confuse, and to keep the host busy decoding it.
const DECODING_ROUNDS_MAX: u32 = 8;

/// What stays as it is in a segment of a path.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A text as one segment of a path, whatever is in it.
pub fn segment(text: &str) -> impl Display + '_ {
    utf8_percent_encode(text, PLAIN)
}

/// Whether a path leads to the host's own, once everything that software on the way may undo has been undone: percent-encoding, also of itself;
/// upper case; backslashes; doubled slashes; parameters after `;`; dot segments.
pub fn is_reserved(path: &str) -> bool {
    let suspicious = |window: &[u8]| window.eq_ignore_ascii_case(b".tovuk");
    if !path.contains('%') && !path.as_bytes().windows(6).any(suspicious) {
        return false;
    }
    let mut bytes = path.as_bytes().to_vec();
    for round in 0.. {
        let decoded = percent_decode(&bytes);
        if decoded.len() == bytes.len() {
            break;
        }
        if round == DECODING_ROUNDS_MAX {
            return true;
        }
        bytes = decoded;
    }
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in bytes.split(|byte| matches!(byte, b'/' | b'\\')) {
        let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
        match name {
            b"" | b"." => {}
            b".." => {
                segments.pop();
            }
            name => segments.push(name),
        }
        // Checked at every step, so that climbing out again does not hide where the path has led.
        if segments.first().is_some_and(|first| trimmed(first).eq_ignore_ascii_case(b".tovuk")) {
            return true;
        }
    }
    false
}

/// Without the spaces and control bytes that some software drops.
fn trimmed(segment: &[u8]) -> &[u8] {
    let blank = |byte: &u8| *byte <= b' ' || *byte == 0x7f;
    let start = segment.iter().position(|byte| !blank(byte)).unwrap_or(segment.len());
    let end = segment.iter().rposition(|byte| !blank(byte)).map_or(start, |at| at + 1);
    segment.get(start..end).unwrap_or_default()
}

fn percent_decode(bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        match rest {
            [b'%', high, low, tail @ ..] => {
                match (hex_digit(*high), hex_digit(*low)) {
                    (Some(high), Some(low)) => {
                        decoded.push(high * 16 + low);
                        rest = tail;
                    }
                    _ => {
                        decoded.push(b'%');
                        rest = rest.get(1..).unwrap_or_default();
                    }
                };
            }
            [byte, tail @ ..] => {
                decoded.push(*byte);
                rest = tail;
            }
            [] => return decoded,
        }
    }
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_recognised() {
        for path in [
            "/.tovuk/queues/jobs",
            "/.tovuk",
            "/.TOVUK/x",
            "//.tovuk/x",
            "/./.tovuk/x",
            "/a/../.tovuk/x",
            "/.tovuk/../x",
            "/%2etovuk/x",
            "/%2Etovu%6b/x",
            "/%252etovuk/x",
            "/%25252etovuk/x",
            "/\\.tovuk/x",
            "\\.tovuk\\x",
            "/.tovuk;v=1/x",
            "/;/.tovuk/x",
            "/%2f.tovuk/x",
            "/%2e%2e/.tovuk/x",
            "/.tovuk%20/x",
            "/%00.tovuk/x",
        ] {
            assert!(is_reserved(path), "{path}");
        }
    }

    #[test]
    fn other_paths_are_left_alone() {
        for path in ["/", "/tovuk", "/a/.tovuk", "/.tovukx", "/x.tovuk", "/%", "/%zz", "/..", "/100%/.tovu", "*"] {
            assert!(!is_reserved(path), "{path}");
        }
    }
}
