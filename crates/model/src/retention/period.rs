//! The units of the rules: periods of a calendar, how many of them, intervals, and the zone whose calendar it is.

use crate::time::Timestamp;
use chrono::{Datelike, NaiveDateTime, TimeZone};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// One archive is kept of each period: the newest. In the order in which Borg applies the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Period {
    /// Seconds: `--keep-secondly`, which Borg also calls `--keep-last`.
    Secondly,
    /// Minutes.
    Minutely,
    /// Hours of the wall clock; the one that comes twice in autumn is one.
    Hourly,
    /// Days.
    Daily,
    /// Weeks of ISO 8601, from Monday on.
    Weekly,
    /// Months.
    Monthly,
    /// Quarters of 13 weeks (Borg 1.4: `--keep-13weekly`).
    #[serde(rename = "13weekly")]
    Quarterly13Weekly,
    /// Quarters of 3 months (Borg 1.4: `--keep-3monthly`).
    #[serde(rename = "3monthly")]
    Quarterly3Monthly,
    /// Years.
    Yearly,
}

impl Period {
    /// All of them, in Borg's order.
    pub const ALL: [Period; 9] = [
        Period::Secondly,
        Period::Minutely,
        Period::Hourly,
        Period::Daily,
        Period::Weekly,
        Period::Monthly,
        Period::Quarterly13Weekly,
        Period::Quarterly3Monthly,
        Period::Yearly,
    ];

    /// As in Borg's option `--keep-…`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        ["secondly", "minutely", "hourly", "daily", "weekly", "monthly", "13weekly", "3monthly", "yearly"][self as usize]
    }

    /// A number that two moments of the same period, and no others, have in common.
    pub(super) fn of(self, local: NaiveDateTime) -> i64 {
        let seconds = local.and_utc().timestamp();
        let date = local.date();
        let (year, month) = (i64::from(date.year()), i64::from(date.month0()));
        let week = date.iso_week();
        match self {
            Period::Secondly => seconds,
            Period::Minutely => seconds.div_euclid(60),
            Period::Hourly => seconds.div_euclid(3600),
            Period::Daily => i64::from(date.num_days_from_ce()),
            Period::Weekly => i64::from(week.year()) * 100 + i64::from(week.week()),
            Period::Monthly => year * 12 + month,
            // Borg 1.4: the fourth quarter takes week 53 as well.
            Period::Quarterly13Weekly => i64::from(week.year()) * 4 + i64::from((week.week() - 1) / 13).min(3),
            Period::Quarterly3Monthly => year * 4 + month / 3,
            Period::Yearly => year,
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How many periods. In records as Borg has it: -1 means all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub enum Count {
    /// So many; 0 keeps none.
    Number(u32),
    /// All there are.
    All,
}

impl TryFrom<i64> for Count {
    type Error = String;
    fn try_from(number: i64) -> Result<Count, String> {
        match number {
            -1 => Ok(Count::All),
            _ => u32::try_from(number).map(Count::Number).map_err(|_| format!("{number} is no number of archives to keep")),
        }
    }
}

impl From<Count> for i64 {
    fn from(count: Count) -> i64 {
        match count {
            Count::Number(number) => number.into(),
            Count::All => -1,
        }
    }
}

impl FromStr for Count {
    type Err = String;
    fn from_str(s: &str) -> Result<Count, String> {
        if s == "all" {
            return Ok(Count::All);
        }
        let number = s.parse::<i64>().ok().and_then(|number| Count::try_from(number).ok());
        number.ok_or_else(|| format!("{s:?} is no number of archives to keep: write 7, or `all`"))
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Count::Number(number) => number.fmt(f),
            Count::All => f.pad("all"),
        }
    }
}

/// A length of time in Borg's notation, as `--keep-within` takes it: `36H`, `14d`, `8w`, `6m` (months of 31 days), `2y` (years of 365 days).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Interval {
    number: u32,
    unit: u8,
}

/// Borg 1.x, `helpers.parseformat.interval`: hours of each unit.
const UNITS: [(u8, i64); 5] = [(b'H', 1), (b'd', 24), (b'w', 24 * 7), (b'm', 24 * 31), (b'y', 24 * 365)];

impl Interval {
    /// Its length.
    #[must_use]
    pub fn seconds(self) -> i64 {
        let hours = UNITS.iter().find(|(unit, _)| *unit == self.unit).map_or(0, |(_, hours)| *hours);
        i64::from(self.number) * hours * 3600
    }
}

impl FromStr for Interval {
    type Err = String;
    fn from_str(s: &str) -> Result<Interval, String> {
        let parts = s.split_at_checked(s.len().saturating_sub(1));
        let interval = parts.and_then(|(number, unit)| {
            let (unit, _) = *UNITS.iter().find(|(known, _)| unit.as_bytes() == [*known])?;
            let number = number.bytes().all(|b| b.is_ascii_digit()).then(|| number.parse().ok())??;
            (number > 0).then_some(Interval { number, unit })
        });
        interval.ok_or_else(|| format!("{s:?} is no interval: write a number and H, d, w, m or y behind it, such as 14d"))
    }
}

impl TryFrom<String> for Interval {
    type Error = String;
    fn try_from(s: String) -> Result<Interval, String> {
        s.parse()
    }
}

impl From<Interval> for String {
    fn from(interval: Interval) -> String {
        interval.to_string()
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}{}", self.number, char::from(self.unit)))
    }
}

/// The time zone in which days, weeks and so on begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone(chrono_tz::Tz);

impl Zone {
    /// What its clocks show at `moment`. Moments that no calendar has are those at its ends.
    pub(super) fn local(self, moment: Timestamp) -> NaiveDateTime {
        let bound = if moment.0 < 0 { chrono::DateTime::UNIX_EPOCH } else { FAR };
        let utc = chrono::DateTime::from_timestamp_micros(moment.0).unwrap_or(bound).min(FAR);
        self.0.from_utc_datetime(&utc.naive_utc()).naive_local()
    }
}

/// Some year far behind all that a server's clock shows.
const FAR: chrono::DateTime<chrono::Utc> = match chrono::DateTime::from_timestamp(253_402_214_400, 0) {
    Some(far) => far,
    None => chrono::DateTime::UNIX_EPOCH,
};

impl FromStr for Zone {
    type Err = String;
    fn from_str(s: &str) -> Result<Zone, String> {
        s.parse().map(Zone).map_err(|_| format!("{s:?} is no time zone: names are like Europe/Berlin or UTC"))
    }
}

impl TryFrom<String> for Zone {
    type Error = String;
    fn try_from(s: String) -> Result<Zone, String> {
        s.parse()
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> String {
        zone.to_string()
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0.name())
    }
}
