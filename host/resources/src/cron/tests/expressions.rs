//! Expressions: what each part of them means, and what is refused.

use super::*;

fn next(expression: &str, after: &str) -> Vec<String> {
    let after: jiff::Timestamp = after.parse().unwrap();
    let times = Expression::parse(expression).unwrap().times_after(after.as_millisecond() as u64, 3);
    let text = |time: u64| jiff::Timestamp::from_millisecond(time as i64).unwrap().strftime("%Y-%m-%d %H:%M:%S %a").to_string();
    times.into_iter().map(text).collect()
}

#[test]
fn fields_have_ranges_steps_lists_and_names_in_any_case() {
    let from = "2026-06-01T12:00:30.500Z";
    let cases = [
        ("* * * * *", ["2026-06-01 12:01:00 Mon", "2026-06-01 12:02:00 Mon", "2026-06-01 12:03:00 Mon"]),
        ("*/15 * * * *", ["2026-06-01 12:15:00 Mon", "2026-06-01 12:30:00 Mon", "2026-06-01 12:45:00 Mon"]),
        ("0 0 * * *", ["2026-06-02 00:00:00 Tue", "2026-06-03 00:00:00 Wed", "2026-06-04 00:00:00 Thu"]),
        ("  5,10-11 \t 13   * * * ", ["2026-06-01 13:05:00 Mon", "2026-06-01 13:10:00 Mon", "2026-06-01 13:11:00 Mon"]),
        ("0-20/10 12 * * *", ["2026-06-01 12:10:00 Mon", "2026-06-01 12:20:00 Mon", "2026-06-02 12:00:00 Tue"]),
        ("0 0 * jul-Aug fri", ["2026-07-03 00:00:00 Fri", "2026-07-10 00:00:00 Fri", "2026-07-17 00:00:00 Fri"]),
        ("0 0 1 JAN,mar *", ["2027-01-01 00:00:00 Fri", "2027-03-01 00:00:00 Mon", "2028-01-01 00:00:00 Sat"]),
        ("0 0 29 2 *", ["2028-02-29 00:00:00 Tue", "2032-02-29 00:00:00 Sun", "2036-02-29 00:00:00 Fri"]),
        // Sunday is 0 and 7, also at the end of a range.
        ("0 0 * * 0", ["2026-06-07 00:00:00 Sun", "2026-06-14 00:00:00 Sun", "2026-06-21 00:00:00 Sun"]),
        ("0 0 * * 7", ["2026-06-07 00:00:00 Sun", "2026-06-14 00:00:00 Sun", "2026-06-21 00:00:00 Sun"]),
        ("0 0 * * SUN", ["2026-06-07 00:00:00 Sun", "2026-06-14 00:00:00 Sun", "2026-06-21 00:00:00 Sun"]),
        ("0 0 * * 6-7", ["2026-06-06 00:00:00 Sat", "2026-06-07 00:00:00 Sun", "2026-06-13 00:00:00 Sat"]),
        // Either day, when both are set.
        ("0 0 3 * MON", ["2026-06-03 00:00:00 Wed", "2026-06-08 00:00:00 Mon", "2026-06-15 00:00:00 Mon"]),
        ("0 0 3 * *", ["2026-06-03 00:00:00 Wed", "2026-07-03 00:00:00 Fri", "2026-08-03 00:00:00 Mon"]),
        // The last day, the last workday, the workday nearest to a day.
        ("0 0 L * *", ["2026-06-30 00:00:00 Tue", "2026-07-31 00:00:00 Fri", "2026-08-31 00:00:00 Mon"]),
        ("0 0 LW * *", ["2026-06-30 00:00:00 Tue", "2026-07-31 00:00:00 Fri", "2026-08-31 00:00:00 Mon"]),
        ("0 0 15W 8 *", ["2026-08-14 00:00:00 Fri", "2027-08-16 00:00:00 Mon", "2028-08-15 00:00:00 Tue"]),
        // The second Tuesday, the last Friday.
        ("0 0 * * TUE#2", ["2026-06-09 00:00:00 Tue", "2026-07-14 00:00:00 Tue", "2026-08-11 00:00:00 Tue"]),
        ("0 0 * * 5L", ["2026-06-26 00:00:00 Fri", "2026-07-31 00:00:00 Fri", "2026-08-28 00:00:00 Fri"]),
        ("0 0 * * friL", ["2026-06-26 00:00:00 Fri", "2026-07-31 00:00:00 Fri", "2026-08-28 00:00:00 Fri"]),
        ("0 0 * * 7#1", ["2026-06-07 00:00:00 Sun", "2026-07-05 00:00:00 Sun", "2026-08-02 00:00:00 Sun"]),
    ];
    for (expression, expected) in cases {
        assert_eq!(next(expression, from), expected, "{expression}");
    }
}

#[test]
fn a_time_is_not_after_itself_and_is_the_last_until_itself() {
    let hourly = Expression::parse("0 * * * *").unwrap();
    let noon = START - 30_000;
    assert_eq!(hourly.next_after(noon), Some(noon + 3_600_000));
    assert_eq!(hourly.next_after(noon - 1), Some(noon));
    assert_eq!(hourly.last_until(noon), Some(noon));
    assert_eq!(hourly.last_until(noon - 1), Some(noon - 3_600_000));
    assert_eq!(hourly.last_until(noon + 59_999), Some(noon));
    assert_eq!(Expression::parse(" 0  * * * * ").unwrap().as_str(), "0 * * * *");
}

#[test]
fn anything_else_is_refused_and_says_why() {
    let cases = [
        ("", "it has 0 fields"),
        ("* * * *", "it has 4 fields"),
        ("0 * * * * *", "it has 6 fields"),
        ("0 0 1 1 * * 2026", "it has 7 fields"),
        ("@daily", "nicknames"),
        ("@every 5m", "nicknames"),
        ("60 * * * *", "Minutes are 0-59"),
        ("* 24 * * *", ""),
        ("* * 0 * *", ""),
        ("* * 32 * *", ""),
        ("* * * 13 *", ""),
        ("* * * * 8", ""),
        ("*/0 * * * *", ""),
        ("5-1 * * * *", ""),
        ("1,,2 * * * *", "the minute `1,,2` has a comma with nothing beside it"),
        (", * * * *", "comma"),
        ("1- * * * *", ""),
        ("- * * * *", ""),
        ("/5 * * * *", ""),
        ("0 0 ? * *", "`?`"),
        ("0 0 1 * +MON", "`+`"),
        ("MON * * * *", "the minute `MON` has no meaning for `MON`"),
        ("* * * MON *", "the month"),
        ("* * * * JAN", "the day of week"),
        ("* L * * *", "the hour"),
        ("* * * * W", "the day of week"),
        ("* * 1#2 * *", "the day of month"),
        ("* * * * MONDAY", "MONDAY"),
        ("* * * * 1#6", ""),
        ("* * * * 1#0", ""),
        ("0 0 30 2 *", "no time that there is"),
        ("0 0 31 4,6 *", "no time that there is"),
        ("0 0 ١ * *", ""),
        ("0 0 \u{0} * *", ""),
    ];
    for (expression, reason) in cases {
        let error = Expression::parse(expression).unwrap_err();
        assert_eq!(error.code().code, "cron_expression_invalid");
        assert!(error.to_string().contains(reason), "{expression}: {error}");
    }
    assert!(matches!(Expression::parse(&"*".repeat(257)), Err(Error::ExpressionBytes { bytes: 257 })));
}

proptest::proptest! {
    #[test]
    fn whatever_is_sent_is_refused_or_names_times_in_order(text in "[0-9*,/LW# A-Z?-]{1,40}( [0-9*,/LWa-z#-]{1,6}){0,6}") {
        if let Ok(expression) = Expression::parse(&text) {
            let times = expression.times_after(START, 3);
            assert!(times.iter().all(|time| time.is_multiple_of(60_000)));
            assert!(times.windows(2).all(|pair| pair[0] < pair[1]));
            assert!(times.first().is_none_or(|first| *first > START && expression.last_until(*first) == Some(*first)), "{text}");
            assert!(Expression::parse(expression.as_str()).is_ok());
        }
    }
}
