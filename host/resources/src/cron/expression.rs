//! Cron expressions: which are taken, and the times that they name. Five fields, in UTC. The library knows more than is promised here (seconds, years,
//! nicknames, `?`, `+`) and takes names in any field, so what it is given is looked at before.

use croner::Cron as Pattern;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use tovuk_kernel::clock::UnixMs;
use tovuk_kernel::limits::CRON_EXPRESSION_BYTES_MAX;

use super::Error;

const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
/// Each field: what it is called, which signs it may have besides digits and `*,-/`, and which names.
const FIELDS: [(&str, &str, &[&str]); 5] =
    [("minute", "", &[]), ("hour", "", &[]), ("day of month", "LW", &[]), ("month", "", &MONTHS), ("day of week", "L#", &WEEKDAYS)];

/// What the library does not say of a number that is too large.
const RANGES: &str = "Minutes are 0-59, hours 0-23, days of a month 1-31, months 1-12, days of a week 0-7.";

/// An expression that was found good.
#[derive(Clone, Debug)]
pub struct Expression {
    text: String,
    pattern: Pattern,
}

impl Expression {
    /// Reads an expression. One that names no time at all is refused.
    ///
    /// # Errors
    /// [`Error::Expression`], which says what is wrong with which field.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > CRON_EXPRESSION_BYTES_MAX {
            return Err(Error::ExpressionBytes { bytes: text.len() });
        }
        let refused = |reason: String| Error::Expression { expression: super::error::shown(text), reason };
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        if text.contains('@') {
            return Err(refused("nicknames such as @daily are not taken; write five fields, `0 0 * * *`".to_owned()));
        }
        if fields.len() != FIELDS.len() {
            let count = fields.len();
            return Err(refused(format!(
                "it has {count} fields and not five: minute, hour, day of month, month and day of week, without seconds or years"
            )));
        }
        for (field, (name, signs, names)) in fields.iter().zip(FIELDS) {
            check_field(field, signs, names).map_err(|reason| refused(format!("the {name} `{field}` {reason}")))?;
        }
        let text = fields.join(" ");
        let expression = Self::read(text).map_err(&refused)?;
        // The same whenever it is asked: a day that there never is, such as the 30th of February, is no time.
        if expression.next_after(0).is_none() {
            return Err(refused("it names no time that there is".to_owned()));
        }
        Ok(expression)
    }

    /// Reads an expression that was found good before.
    pub(super) fn read(text: String) -> Result<Self, String> {
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Optional).build();
        let pattern = parser.parse(&text).map_err(|error| format!("{error} {RANGES}"))?;
        Ok(Self { text, pattern })
    }

    /// The expression, with one space between its fields.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first time that lies after this one.
    pub fn next_after(&self, time: UnixMs) -> Option<UnixMs> {
        let next = self.pattern.find_next_occurrence(&civil(time)?, false).ok()?;
        unix(next)
    }

    /// The last time that does not lie after this one.
    pub fn last_until(&self, time: UnixMs) -> Option<UnixMs> {
        let last = self.pattern.find_previous_occurrence(&civil(time)?, true).ok()?;
        unix(last)
    }

    /// The next times after this one.
    pub fn times_after(&self, time: UnixMs, count: usize) -> Vec<UnixMs> {
        std::iter::successors(self.next_after(time), |last| self.next_after(*last)).take(count).collect()
    }
}

/// The second in UTC.
fn civil(time: UnixMs) -> Option<DateTime> {
    let second = i64::try_from(time / 1_000).ok()?;
    Some(TimeZone::UTC.to_datetime(Timestamp::from_second(second).ok()?))
}

fn unix(time: DateTime) -> Option<UnixMs> {
    let timestamp = TimeZone::UTC.to_timestamp(time).ok()?;
    u64::try_from(timestamp.as_millisecond()).ok()
}

/// Refuses signs and names that belong in no field, or in another one.
fn check_field(field: &str, signs: &str, names: &[&str]) -> Result<(), String> {
    for item in field.split(',') {
        if item.is_empty() {
            return Err("has a comma with nothing beside it".to_owned());
        }
        // Words are names, or one of the signs that are letters, which come alone, after a number, or together.
        for word in item.split(|char: char| !char.is_alphabetic()).filter(|word| !word.is_empty()) {
            let word = word.to_uppercase();
            let sign = word.chars().all(|char| signs.contains(char));
            // The last Friday: a sign after a name.
            let name = word.strip_suffix('L').filter(|_| signs.contains('L')).unwrap_or(&word);
            if !sign && !names.contains(&name) {
                return Err(format!("has no meaning for `{word}`"));
            }
        }
        if let Some(char) = item.chars().find(|char| !char.is_alphanumeric() && !"*-/".contains(*char) && !signs.contains(*char)) {
            return Err(format!("has no meaning for `{char}`"));
        }
    }
    Ok(())
}
