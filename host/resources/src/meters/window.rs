//! Days and months in UTC, as numbers.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use tovuk_kernel::clock::UnixMs;
use tovuk_kernel::meters::Period;

const DAY_MS: u64 = 86_400_000;

/// A day or a month: days, or months, since the first of January 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Window(pub u32);

/// The day that it is then.
pub(super) fn day(now: UnixMs) -> u32 {
    u32::try_from(now / DAY_MS).unwrap_or(u32::MAX)
}

/// The month that a day is in.
pub(super) fn month_of(day: u32) -> u32 {
    let date = date(day);
    let years = u32::try_from(i32::from(date.year()) - 1970).unwrap_or_default();
    years * 12 + u32::try_from(date.month() - 1).unwrap_or_default()
}

/// The first day of the month that a day is in.
pub(super) fn first_of_month(day: u32) -> u32 {
    day.saturating_sub(u32::try_from(date(day).day() - 1).unwrap_or_default())
}

impl Window {
    /// The one that it is then.
    pub fn at(period: Period, now: UnixMs) -> Self {
        Self::of_day(period, day(now))
    }

    /// The one that a day is in.
    pub fn of_day(period: Period, day: u32) -> Self {
        match period {
            Period::Day => Self(day),
            Period::Month => Self(month_of(day)),
        }
    }
}

/// When the period ends that it is now.
pub(super) fn ends_ms(period: Period, now: UnixMs) -> UnixMs {
    let today = day(now);
    let next = match period {
        Period::Day => today + 1,
        // The longest month has 31 days, and so the 32nd day of any is in the next.
        Period::Month => first_of_month(first_of_month(today) + 31),
    };
    u64::from(next) * DAY_MS
}

/// Time ends in the year 9999 here; whatever is later is that.
fn date(day: u32) -> Date {
    let first = Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC).date();
    first.checked_add(i64::from(day).days()).unwrap_or(Date::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ms(text: &str) -> UnixMs {
        u64::try_from(text.parse::<Timestamp>().unwrap().as_millisecond()).unwrap()
    }

    #[test]
    fn windows_begin_at_midnight_and_on_the_first() {
        for (now, day_ends, month_ends) in [
            ("2026-11-21T12:00:00Z", "2026-11-22T00:00:00Z", "2026-12-01T00:00:00Z"),
            ("2026-12-31T23:59:59.999Z", "2027-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("2024-02-01T00:00:00Z", "2024-02-02T00:00:00Z", "2024-03-01T00:00:00Z"),
            ("2025-01-31T00:00:00Z", "2025-02-01T00:00:00Z", "2025-02-01T00:00:00Z"),
        ] {
            let now = ms(now);
            for (period, ends) in [(Period::Day, ms(day_ends)), (Period::Month, ms(month_ends))] {
                assert_eq!(ends_ms(period, now), ends);
                assert_eq!(Window::at(period, ends - 1), Window::at(period, now));
                assert_eq!(Window::at(period, ends).0, Window::at(period, now).0 + 1);
            }
        }
        assert_eq!((Window::at(Period::Month, 0), month_of(day(ms("2026-11-21T00:00:00Z")))), (Window(0), 56 * 12 + 10));
    }
}
