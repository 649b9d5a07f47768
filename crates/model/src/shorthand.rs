//! The calendar shorthand of recurrences.
//!
//! ```text
//! hourly [MM] | daily TIMES | weekdays TIMES | weekly DAYS TIMES | monthly NUMBERS TIMES | yearly MM-DD TIMES        and then [ZONE]
//! TIMES: HH:MM[,HH:MM..] of one minute    DAYS: mon..sun[,..]    NUMBERS: 1..31[,..] or last
//! ```

use crate::recurrence::RecurrenceError;
use crate::time::Timestamp;

/// Before this program was written.
const ANCHOR: chrono::NaiveDate = chrono::NaiveDate::from_ymd_opt(2026, 1, 1).expect("a day of the calendar");

/// Text with its zone, and the lines of RFC 5545 that it stands for; None if it is no shorthand.
type Expanded = Option<(String, Vec<String>)>;

pub(crate) fn expand(text: &str, zone: &str, now: Timestamp) -> Result<Expanded, RecurrenceError> {
    let words: Vec<String> = text.split(' ').map(str::to_ascii_lowercase).collect();
    let argument = |at: usize| words.get(at).map(String::as_str).unwrap_or_default();
    let (count, rule) = match argument(0) {
        "hourly" => match minute(argument(1)) {
            Some(minute) => (2, Some(format!("FREQ=HOURLY;BYMINUTE={minute};BYSECOND=0"))),
            None => (1, Some("FREQ=HOURLY;BYMINUTE=0;BYSECOND=0".to_owned())),
        },
        "daily" => (2, times(argument(1)).map(|at| format!("FREQ=DAILY;{at}"))),
        "weekdays" => (2, times(argument(1)).map(|at| format!("FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR;{at}"))),
        "weekly" => (3, days(argument(1)).zip(times(argument(2))).map(|(days, at)| format!("FREQ=WEEKLY;BYDAY={days};{at}"))),
        "monthly" => (3, numbers(argument(1)).zip(times(argument(2))).map(|(days, at)| format!("FREQ=MONTHLY;BYMONTHDAY={days};{at}"))),
        "yearly" => (3, date(argument(1)).zip(times(argument(2))).map(|(date, at)| format!("FREQ=YEARLY;{date};{at}"))),
        _ => return Ok(None),
    };
    let unreadable = || RecurrenceError::Unreadable(text.to_owned(), "times are HH:MM, days mon to sun or 1 to 31".to_owned());
    let rule = rule.filter(|_| words.len() == count || words.len() == count + 1).ok_or_else(unreadable)?;
    // Zone names are not all lower case.
    let own = text.split(' ').nth(count);
    let named = own.unwrap_or(zone);
    let parsed: chrono_tz::Tz = named.parse().map_err(|_| RecurrenceError::UnknownZone(named.to_owned()))?;
    let moment = chrono::DateTime::from_timestamp_micros(now.0).ok_or_else(unreadable)?;
    // The day before, so that today's first run counts, at a moment that no zone's clock skips. Not later than a day that has passed for
    // sure: the clock may be ahead now, and the rule would then begin when it is there again.
    let start = moment.with_timezone(&parsed).date_naive().pred_opt().ok_or_else(unreadable)?.min(ANCHOR);
    let start = format!("{}T120000", start.format("%Y%m%d"));
    let start = if parsed == chrono_tz::Tz::UTC { format!("DTSTART:{start}Z") } else { format!("DTSTART;TZID={parsed}:{start}") };
    let text = if own.is_some() { text.to_owned() } else { format!("{text} {parsed}") };
    Ok(Some((text, vec![start, format!("RRULE:{rule}")])))
}

fn two_digits(text: &str, most: u8) -> Option<u8> {
    let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|n| *n <= most)
}

fn minute(text: &str) -> Option<u8> {
    two_digits(text, 59)
}

fn times(text: &str) -> Option<String> {
    let mut hours: Vec<String> = vec![];
    let mut common = None;
    for time in text.split(',') {
        let (hour, minute) = time.split_once(':')?;
        let (hour, minute) = (two_digits(hour, 23)?, two_digits(minute, 59)?);
        if *common.get_or_insert(minute) != minute {
            return None;
        }
        hours.push(hour.to_string());
    }
    Some(format!("BYHOUR={};BYMINUTE={};BYSECOND=0", hours.join(","), common?))
}

fn days(text: &str) -> Option<String> {
    let known = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let day = |day: &str| known.contains(&day).then(|| day[..2].to_ascii_uppercase());
    text.split(',').map(day).collect::<Option<Vec<_>>>().map(|days| days.join(","))
}

fn numbers(text: &str) -> Option<String> {
    let number = |day: &str| match day {
        "last" => Some("-1".to_owned()),
        day => day.parse::<u8>().ok().filter(|n| (1..=31).contains(n)).map(|n| n.to_string()),
    };
    text.split(',').map(number).collect::<Option<Vec<_>>>().map(|days| days.join(","))
}

fn date(text: &str) -> Option<String> {
    let (month, day) = text.split_once('-')?;
    let (month, day) = (two_digits(month, 12).filter(|n| *n > 0)?, two_digits(day, 31).filter(|n| *n > 0)?);
    Some(format!("BYMONTH={month};BYMONTHDAY={day}"))
}
