//! Secrets out of log lines. It is a net under mistakes, not a barrier: a worker that wants to print its secret in other words can.
//!
//! Each value of at least four bytes is looked for as it is, without surrounding white space, as it stands in a JSON string, and in base64 of both
//! alphabets. Of a value with several lines, such as a key, each line of at least 16 bytes is looked for as well, because a log is read line
//! by line. Other encodings, and base64 of a text that only contains the value, are not recognised.

use std::borrow::Cow;
use std::collections::BTreeMap;

use aho_corasick::{AhoCorasick, AhoCorasickKind, BuildError, Input, MatchKind};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Shorter values occur by chance.
const VALUE_BYTES_MIN: usize = 4;
/// Shorter lines of a value occur by chance.
const LINE_BYTES_MIN: usize = 16;
/// A longer form is found by its beginning, and then compared: what has to be kept to find forms grows with their length.
const PREFIX_BYTES: usize = 64;
/// What single lines of values may add to that, for each service.
const LINES_BYTES_MAX: usize = 16 << 10;

/// Finds the secrets of one service.
pub(super) struct Redactor {
    finder: AhoCorasick,
    /// The forms that begin with each pattern of the finder.
    forms: Vec<Vec<Form>>,
}

struct Form {
    text: String,
    mark: String,
}

impl Redactor {
    /// Of names and values; `None` when there is nothing to look for.
    pub fn new<'a>(secrets: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Option<Self>, BuildError> {
        let mut by_prefix: BTreeMap<String, Vec<Form>> = BTreeMap::new();
        let mut lines_bytes = 0;
        for (name, value) in secrets {
            let mut add = |text: String| {
                let prefix = text.get(..text.floor_char_boundary(PREFIX_BYTES)).unwrap_or_default().to_owned();
                let forms = by_prefix.entry(prefix).or_default();
                if !forms.iter().any(|form| form.text == text) {
                    forms.push(Form { text, mark: format!("[secret {name}]") });
                }
            };
            if value.len() < VALUE_BYTES_MIN {
                continue;
            }
            whole_forms(value).into_iter().for_each(&mut add);
            for line in value.lines().map(str::trim).filter(|line| line.len() >= LINE_BYTES_MIN && *line != value) {
                lines_bytes += line.len().min(PREFIX_BYTES);
                if lines_bytes <= LINES_BYTES_MAX {
                    add(line.to_owned());
                }
            }
        }
        if by_prefix.is_empty() {
            return Ok(None);
        }
        let finder = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            // The other kinds take many times the memory, and how much is up to tenants.
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(by_prefix.keys())?;
        Ok(Some(Self { finder, forms: by_prefix.into_values().collect() }))
    }

    /// The text with `[secret NAME]` in place of each value.
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut redacted = String::new();
        let mut at = 0;
        while let Some(found) = self.finder.find(Input::new(text).range(at..)) {
            let forms = self.forms.get(found.pattern().as_usize()).map(Vec::as_slice).unwrap_or_default();
            let rest = text.get(found.start()..).unwrap_or_default();
            let Some((length, form)) = forms.iter().map(|form| (common(rest, &form.text), form)).max_by_key(|(length, _)| *length) else { break };
            redacted.push_str(text.get(at..found.start()).unwrap_or_default());
            redacted.push_str(&form.mark);
            at = found.start() + length;
        }
        if at == 0 {
            return Cow::Borrowed(text);
        }
        redacted.push_str(text.get(at..).unwrap_or_default());
        Cow::Owned(redacted)
    }
}

/// The ways in which a value as a whole may stand in a line.
fn whole_forms(value: &str) -> Vec<String> {
    let mut forms = vec![value.to_owned(), STANDARD_NO_PAD.encode(value), URL_SAFE_NO_PAD.encode(value)];
    let trimmed = value.trim();
    if trimmed.len() >= VALUE_BYTES_MIN {
        forms.push(trimmed.to_owned());
    }
    if let Ok(json) = serde_json::to_string(value)
        && let Some(inside) = json.strip_prefix('"').and_then(|json| json.strip_suffix('"'))
    {
        forms.push(inside.to_owned());
    }
    forms
}

/// How many bytes two texts begin with in common, in whole characters.
fn common(text: &str, other: &str) -> usize {
    let length = text.bytes().zip(other.bytes()).take_while(|(left, right)| left == right).count();
    text.floor_char_boundary(length)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn redact(secrets: &[(&str, &str)], text: &str) -> String {
        Redactor::new(secrets.iter().copied()).unwrap().unwrap().redact(text).into_owned()
    }

    #[test]
    fn values_are_replaced_by_their_names() {
        let secrets = [("TOKEN", "hunter2!"), ("SHORT", "abc"), ("LONGER", "hunter2!!more"), ("Ü", "pässwörd")];
        assert_eq!(redact(&secrets, "hunter2! abc xhunter2!hunter2!y"), "[secret TOKEN] abc x[secret TOKEN][secret TOKEN]y");
        assert_eq!(redact(&secrets, "hunter2!!more"), "[secret LONGER]", "of two that match, the longer");
        assert_eq!(redact(&secrets, "ä pässwörd ö"), "ä [secret Ü] ö");
        assert_eq!(redact(&secrets, "nothing"), "nothing");
        assert!(Redactor::new([("A", "abc"), ("B", "")]).unwrap().is_none());
    }

    #[test]
    fn the_usual_encodings_of_a_value_are_replaced_too() {
        let value = "a\"secret\nwith ~~~???>>> signs";
        let secrets = [("KEY", value)];
        assert_eq!(redact(&secrets, &serde_json::to_string(value).unwrap()), "\"[secret KEY]\"");
        assert_eq!(redact(&secrets, &base64::engine::general_purpose::STANDARD.encode(value)).replace('=', ""), "[secret KEY]");
        assert_eq!(redact(&secrets, &format!("x={}.", URL_SAFE_NO_PAD.encode(value))), "x=[secret KEY].");
        assert_eq!(redact(&[("KEY", "  value\n")], "value;"), "[secret KEY];");
    }

    #[test]
    fn a_key_of_several_lines_is_replaced_line_by_line() {
        let key = format!("-----BEGIN PRIVATE KEY-----\n{}\n{}\n-----END PRIVATE KEY-----\n", "A".repeat(64), "B".repeat(30));
        for line in key.lines() {
            assert_eq!(redact(&[("KEY", &key)], line), "[secret KEY]");
        }
    }

    #[test]
    fn long_values_that_begin_alike_are_told_apart_and_cut_ones_are_still_found() {
        let (one, two) = (format!("{}one-{}", "p".repeat(70), "x".repeat(500)), format!("{}two-{}", "p".repeat(70), "y".repeat(500)));
        let secrets = [("ONE", one.as_str()), ("TWO", two.as_str())];
        assert_eq!(redact(&secrets, &format!("{two}, {one}.")), "[secret TWO], [secret ONE].");
        assert_eq!(redact(&secrets, &two[..300]), "[secret TWO]");
    }
}
