//! Timestamps as Borg writes them: `YYYY-MM-DDTHH:MM:SS.ffffff`, UTC, always six digits of fraction.

/// Text that is not a timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a timestamp is written as YYYY-MM-DDTHH:MM:SS.ffffff")]
pub struct TimeError;

const DAY: i64 = 86_400;
const MICROS: i64 = 1_000_000;

/// Formats microseconds since 1970 (UTC). Years outside 0000 to 9999 are clamped to that range.
#[must_use]
pub fn format(micros: i64) -> String {
    // 0000-01-01 and 9999-12-31T23:59:59.999999
    let micros = micros.clamp(-62_167_219_200 * MICROS, 253_402_300_800 * MICROS - 1);
    let (seconds, fraction) = (micros.div_euclid(MICROS), micros.rem_euclid(MICROS));
    let (days, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let (year, month, day) = date_of(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}")
}

/// Parses to microseconds since 1970 (UTC). A fraction may be absent or shorter (very old archives), never longer.
pub fn parse(text: &str) -> Result<i64, TimeError> {
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| -> Result<i64, TimeError> {
        let digits = bytes.get(from..to).ok_or(TimeError)?;
        digits.iter().try_fold(0i64, |value, digit| match digit {
            b'0'..=b'9' => Ok(value * 10 + i64::from(digit - b'0')),
            _ => Err(TimeError),
        })
    };
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separators.iter().any(|&(at, byte)| bytes.get(at) != Some(&byte)) {
        return Err(TimeError);
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let fraction = match bytes.get(19..).unwrap_or_default() {
        [] => 0,
        [b'.', digits @ ..] if (1..=6).contains(&digits.len()) => number(20, 20 + digits.len())? * 10i64.pow(6 - digits.len() as u32),
        _ => return Err(TimeError),
    };
    if !(1..=12).contains(&month) || hour > 23 || minute > 59 || second > 59 {
        return Err(TimeError);
    }
    let days = days_of(year, month, day);
    if date_of(days) != (year, month, day) {
        return Err(TimeError);
    }
    Ok((days * DAY + hour * 3600 + minute * 60 + second) * MICROS + fraction)
}

/// Days since 1970-01-01 of a proleptic Gregorian date. Counts years from March, so that a leap day ends its year.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // 153 days in each five months from March on; 719468 days from 0000-03-01 to 1970-01-01.
    year * 365 + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

/// The date of a day: the inverse of [`days_of`].
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let cycle = days.div_euclid(146_097);
    let in_cycle = days.rem_euclid(146_097);
    let year = (in_cycle - in_cycle / 1460 + in_cycle / 36_524 - in_cycle / 146_096) / 365;
    let in_year = in_cycle - (365 * year + year / 4 - year / 100);
    let month = (5 * in_year + 2) / 153;
    let day = in_year - (153 * month + 2) / 5 + 1;
    let year = year + cycle * 400;
    if month < 10 { (year, month + 3, day) } else { (year + 1, month - 9, day) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        assert_eq!(format(0), "1970-01-01T00:00:00.000000");
        assert_eq!(format(-1), "1969-12-31T23:59:59.999999");
        assert_eq!(format(1_767_323_045_000_006), "2026-01-02T03:04:05.000006");
        assert_eq!(parse("2026-01-02T03:04:05.000006"), Ok(1_767_323_045_000_006));
        assert_eq!(parse("2000-02-29T00:00:00"), Ok(951_782_400_000_000));
        assert_eq!(parse("2000-02-29T00:00:00.5"), Ok(951_782_400_500_000));
        assert_eq!(format(i64::MAX), "9999-12-31T23:59:59.999999");
        assert_eq!(format(i64::MIN), "0000-01-01T00:00:00.000000");
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2026-01-02",
            "2026-01-02 03:04:05.000006",
            "2026-02-29T00:00:00.000000",
            "2026-13-01T00:00:00.000000",
            "2026-00-01T00:00:00.000000",
            "2026-01-00T00:00:00.000000",
            "2026-01-01T24:00:00.000000",
            "2026-01-01T00:00:60.000000",
            "2026-01-01T00:00:00.",
            "2026-01-01T00:00:00.0000000",
            "2026-01-01T00:00:00.000000Z",
            "+026-01-01T00:00:00.000000",
            "2026-01-01T00:00:00.00é",
        ] {
            assert_eq!(parse(text), Err(TimeError), "{text}");
        }
    }

    #[test]
    fn every_day_of_eight_centuries_goes_both_ways() {
        let mut previous = None;
        for day in -200_000..100_000 {
            let text = format(day * DAY * MICROS);
            assert_eq!(parse(&text), Ok(day * DAY * MICROS), "{text}");
            assert!(previous < Some(text.clone()), "{text} is not later than the day before");
            previous = Some(text);
        }
    }
}
