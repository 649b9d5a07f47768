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

const CLOCK: &str = "the clock is at no day of the calendar";

/// Text with its zone, and the lines of RFC 5545 that it stands for; None if it is no shorthand.
type Expanded = Option<(String, Vec<String>)>;

pub(crate) fn expand(text: &str, zone: &str, now: Timestamp) -> Result<Expanded, RecurrenceError> {
    let words: Vec<String> = text.split(' ').map(str::to_ascii_lowercase).collect();
    let argument = |at: usize| words.get(at).map(String::as_str).unwrap_or_default();
    let unreadable = |why: &str| RecurrenceError::Unreadable(text.to_owned(), why.to_owned());
    let (count, rule) = match argument(0) {
        // A word of digits is meant for the minute, any other for the zone.
        "hourly" if argument(1).starts_with(|c: char| c.is_ascii_digit()) => {
            (2, minute(argument(1)).map(|minute| format!("FREQ=HOURLY;BYMINUTE={minute};BYSECOND=0")))
        }
        "hourly" => (1, Ok("FREQ=HOURLY;BYMINUTE=0;BYSECOND=0".to_owned())),
        "daily" => (2, times(argument(1)).map(|at| format!("FREQ=DAILY;{at}"))),
        "weekdays" => (2, times(argument(1)).map(|at| format!("FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR;{at}"))),
        "weekly" => (3, both(days(argument(1)), times(argument(2))).map(|(days, at)| format!("FREQ=WEEKLY;BYDAY={days};{at}"))),
        "monthly" => (3, both(numbers(argument(1)), times(argument(2))).map(|(days, at)| format!("FREQ=MONTHLY;BYMONTHDAY={days};{at}"))),
        "yearly" => (3, both(date(argument(1)), times(argument(2))).map(|(date, at)| format!("FREQ=YEARLY;{date};{at}"))),
        _ => return Ok(None),
    };
    let rule = rule.map_err(|why| unreadable(&why))?;
    match words.get(count..).unwrap_or_default() {
        [] | [_] if !argument(count).contains(':') => {}
        [more, ..] if more.contains(':') => return Err(unreadable("several times are separated by commas: 02:30,14:30")),
        _ => return Err(unreadable("there is something behind the time zone")),
    }
    // Zone names are not all lower case.
    let own = text.split(' ').nth(count);
    let named = own.unwrap_or(zone);
    let parsed: chrono_tz::Tz = named.parse().map_err(|_| RecurrenceError::UnknownZone(named.to_owned()))?;
    let moment = chrono::DateTime::from_timestamp_micros(now.0).ok_or_else(|| unreadable(CLOCK))?;
    // The day before, so that today's first run counts, at a moment that no zone's clock skips. Not later than a day that has passed for
    // sure: the clock may be ahead now, and the rule would then begin when it is there again.
    let start = moment.with_timezone(&parsed).date_naive().pred_opt().ok_or_else(|| unreadable(CLOCK))?.min(ANCHOR);
    let start = format!("{}T120000", start.format("%Y%m%d"));
    let start = if parsed == chrono_tz::Tz::UTC { format!("DTSTART:{start}Z") } else { format!("DTSTART;TZID={parsed}:{start}") };
    let text = if own.is_some() { text.to_owned() } else { format!("{text} {parsed}") };
    Ok(Some((text, vec![start, format!("RRULE:{rule}")])))
}

/// What a part is, or the sentence that says what is wrong with it.
type Part<T = String> = Result<T, String>;

fn both(a: Part, b: Part) -> Part<(String, String)> {
    Ok((a?, b?))
}

fn two_digits(text: &str, most: u8) -> Option<u8> {
    let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|n| *n <= most)
}

fn minute(text: &str) -> Part<u8> {
    two_digits(text, 59).ok_or_else(|| format!("{text:?} is no minute: 00 to 59, with two digits"))
}

fn times(text: &str) -> Part {
    if text.is_empty() {
        return Err("a time is missing: write HH:MM, such as daily 02:30".into());
    }
    let mut hours: Vec<String> = vec![];
    let mut common = None;
    for time in text.split(',') {
        let parts = time.split_once(':').and_then(|(hour, minute)| Some((two_digits(hour, 23)?, two_digits(minute, 59)?)));
        let (hour, minute) = parts.ok_or_else(|| format!("{time:?} is no time: HH:MM with two digits each, 00:00 to 23:59"))?;
        if *common.get_or_insert(minute) != minute {
            return Err("several times share their minute, such as 02:30,14:30; for others, add a schedule of its own".into());
        }
        hours.push(hour.to_string());
    }
    Ok(format!("BYHOUR={};BYMINUTE={};BYSECOND=0", hours.join(","), common.unwrap_or_default()))
}

fn days(text: &str) -> Part {
    let known = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let day = |day: &str| match known.contains(&day) {
        true => Ok(day[..2].to_ascii_uppercase()),
        false => Err(format!("{day:?} is no day: mon, tue, wed, thu, fri, sat, sun, several separated by commas")),
    };
    Ok(text.split(',').map(day).collect::<Result<Vec<_>, _>>()?.join(","))
}

fn numbers(text: &str) -> Part {
    let number = |day: &str| match day {
        "last" => Ok("-1".to_owned()),
        day => match day.parse::<u8>().ok().filter(|n| (1..=31).contains(n)) {
            Some(n) => Ok(n.to_string()),
            None => Err(format!("{day:?} is no day of a month: 1 to 31, or last, several separated by commas")),
        },
    };
    Ok(text.split(',').map(number).collect::<Result<Vec<_>, _>>()?.join(","))
}

fn date(text: &str) -> Part {
    let parts = text.split_once('-').and_then(|(month, day)| {
        let (month, day) = (two_digits(month, 12).filter(|n| *n > 0)?, two_digits(day, 31).filter(|n| *n > 0)?);
        Some(format!("BYMONTH={month};BYMONTHDAY={day}"))
    });
    parts.ok_or_else(|| format!("{text:?} is no day of a year: MM-DD, such as 01-02"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What people write first, and what they are told.
    #[test]
    fn what_is_wrong_is_said() {
        for (text, said) in [
            ("daily", "a time is missing"),
            ("weekly sat", "a time is missing"),
            ("daily 2:30", "two digits"),
            ("daily 24:00", "00:00 to 23:59"),
            ("daily 02:30,14:45", "share their minute"),
            ("daily 02:30 14:30", "separated by commas"),
            ("daily 02:30 Europe/Berlin x", "behind the time zone"),
            ("hourly 75", "is no minute"),
            ("weekly so 02:30", "is no day"),
            ("monthly 32 02:30", "1 to 31, or last"),
            ("yearly 13-01 02:30", "MM-DD"),
        ] {
            let error = expand(text, "UTC", Timestamp(1_795_300_000_000_000)).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains(text), "{text}: {error}");
        }
        for text in ["0 2 * * *", "*-*-* 02:30", "dayly 02:30"] {
            let error = crate::Recurrence::parse(text, "UTC", Timestamp(1_795_300_000_000_000)).unwrap_err().to_string();
            assert!(error.contains("daily, weekdays") && error.contains("cron"), "{text}: {error}");
        }
    }
}
