//! Blackouts: the hours in which no scheduled backup of a client begins.
//!
//! A window is read off the wall clock of its zone, so it needs no rule for the days on which that clock is changed: an hour that comes
//! twice belongs to it twice, one that does not come never does.

use crate::recurrence;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Weekday {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Weekday {
    /// All of them, Monday first.
    pub const ALL: [Weekday; 7] = [Weekday::Mon, Weekday::Tue, Weekday::Wed, Weekday::Thu, Weekday::Fri, Weekday::Sat, Weekday::Sun];

    /// `mon` to `sun`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        ["mon", "tue", "wed", "thu", "fri", "sat", "sun"][self as usize]
    }

    fn before(self) -> Weekday {
        Weekday::ALL[(self as usize + 6) % 7]
    }
}

/// A time of the day, `00:00` to `24:00`, in whole minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimeOfDay(u16);

impl TimeOfDay {
    /// Minutes since midnight.
    #[must_use]
    pub fn minutes(self) -> u16 {
        self.0
    }
}

impl FromStr for TimeOfDay {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let number = |text: &str| (text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse::<u16>().ok()).flatten();
        let parts = s.split_once(':').and_then(|(hours, minutes)| number(hours).zip(number(minutes)));
        match parts {
            Some((hours, minutes)) if minutes < 60 && hours * 60 + minutes <= 24 * 60 => Ok(TimeOfDay(hours * 60 + minutes)),
            _ => Err(format!("{s:?} is no time of the day: write HH:MM, 00:00 to 24:00")),
        }
    }
}

impl TryFrom<String> for TimeOfDay {
    type Error = String;
    fn try_from(s: String) -> Result<Self, String> {
        s.parse()
    }
}

impl From<TimeOfDay> for String {
    fn from(time: TimeOfDay) -> String {
        time.to_string()
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:02}:{:02}", self.0 / 60, self.0 % 60))
    }
}

/// A window of the week. Written `mon-fri 08:00-18:00 Europe/Berlin`, or `22:00-06:00 UTC` for every day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blackout {
    /// The days on which it begins; none means every day.
    #[serde(default)]
    pub days: Vec<Weekday>,
    /// The first minute in it.
    pub start: TimeOfDay,
    /// The first minute behind it. Not later than `start`: on the day after.
    pub end: TimeOfDay,
    /// The time zone's IANA name.
    pub zone: String,
}

impl Blackout {
    /// Windows that one client may have.
    pub const MAX: usize = 50;

    /// Says what is wrong with a window before it is stored.
    pub fn check(&self) -> Result<(), String> {
        if self.start == self.end {
            return Err(format!("a blackout from {0} to {0} is empty: a whole day is 00:00-24:00", self.start));
        }
        if self.start.0 == 24 * 60 {
            return Err("a blackout can't begin at 24:00: write 00:00 and the next day".into());
        }
        if !recurrence::is_zone(&self.zone) {
            return Err(format!("{:?} is no time zone: names are like Europe/Berlin or UTC", self.zone));
        }
        Ok(())
    }

    /// Whether `moment` is in it.
    #[must_use]
    pub fn contains(&self, moment: Timestamp) -> bool {
        let Some((day, minute)) = recurrence::wall_clock(&self.zone, moment) else { return false };
        let begins = |day: Weekday| self.days.is_empty() || self.days.contains(&day);
        if self.start < self.end {
            return begins(day) && (self.start.0..self.end.0).contains(&minute);
        }
        (begins(day) && minute >= self.start.0) || (begins(day.before()) && minute < self.end.0)
    }
}

impl fmt::Display for Blackout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days: Vec<_> = self.days.iter().map(|day| day.as_str()).collect();
        let days = if days.is_empty() { String::new() } else { format!("{} ", days.join(",")) };
        f.pad(&format!("{days}{}-{} {}", self.start, self.end, self.zone))
    }
}

/// Reads what a person wrote; the zone may not be left out.
impl FromStr for Blackout {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let unreadable = || format!("{s:?} is no blackout: write for instance `mon-fri 08:00-18:00 Europe/Berlin` or `22:00-06:00 UTC`");
        let words: Vec<&str> = s.split_whitespace().collect();
        let (days, hours, zone) = match words.as_slice() {
            // Of two words the first may be days as well; then it is the zone that is missing.
            [days, hours] if read_days(days).is_ok() && hours.contains('-') => {
                return Err(format!("{s:?} lacks a time zone: write it behind the hours, such as Europe/Berlin or UTC"));
            }
            [hours, zone] => (vec![], hours, zone),
            [days, hours, zone] => (read_days(days)?, hours, zone),
            _ => return Err(unreadable()),
        };
        let (start, end) = hours.split_once('-').ok_or_else(unreadable)?;
        let blackout = Blackout { days, start: start.parse()?, end: end.parse()?, zone: (*zone).to_owned() };
        blackout.check().map(|()| blackout)
    }
}

/// `mon`, `mon,wed`, `mon-fri`, `fri-mon`, `mon-wed,sat`.
fn read_days(text: &str) -> Result<Vec<Weekday>, String> {
    let day = |name: &str| {
        let found = Weekday::ALL.into_iter().find(|day| day.as_str().eq_ignore_ascii_case(name));
        found.ok_or_else(|| format!("{name:?} is no day: mon, tue, wed, thu, fri, sat, sun, such as mon-fri or mon,wed"))
    };
    let mut days = vec![];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)? as usize, day(last)? as usize);
        let length = (last + 7 - first) % 7;
        days.extend((first..=first + length).map(|at| Weekday::ALL[at % 7]));
    }
    days.sort_unstable();
    days.dedup();
    Ok(days)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(text: &str) -> Timestamp {
        Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
    }

    fn inside(blackout: &str, time: &str) -> bool {
        blackout.parse::<Blackout>().unwrap().contains(moment(time))
    }

    #[test]
    fn what_is_wrong_is_said() {
        let said = |text: &str| text.parse::<Blackout>().unwrap_err();
        assert!(said("mon-fri 08:00-18:00").contains("lacks a time zone"), "{}", said("mon-fri 08:00-18:00"));
        assert!(said("mon-fri 8-18 UTC").contains("HH:MM"));
        assert!(said("mo-fr 08:00-18:00 UTC").contains("\"mo\" is no day: mon"));
    }

    #[test]
    fn office_hours() {
        let hours = "mon-fri 08:00-18:00 Europe/Berlin";
        // 2026-11-23 is a Monday; Berlin is an hour ahead.
        assert!(inside(hours, "2026-11-23T07:00:00Z"));
        assert!(!inside(hours, "2026-11-23T06:59:59Z"));
        assert!(inside(hours, "2026-11-23T16:59:59Z"));
        assert!(!inside(hours, "2026-11-23T17:00:00Z"));
        assert!(!inside(hours, "2026-11-22T12:00:00Z"), "a Sunday");
        // In summer two hours.
        assert!(inside(hours, "2026-07-20T06:00:00Z"));
    }

    #[test]
    fn across_midnight_belongs_to_the_day_on_which_it_begins() {
        let night = "fri 22:00-06:00 UTC";
        assert!(inside(night, "2026-11-20T22:00:00Z"));
        assert!(inside(night, "2026-11-21T05:59:00Z"));
        assert!(!inside(night, "2026-11-21T06:00:00Z"));
        assert!(!inside(night, "2026-11-21T22:00:00Z"));
        assert!(!inside(night, "2026-11-20T05:00:00Z"));
        assert!(inside("sun 23:00-01:00 UTC", "2026-11-23T00:30:00Z"), "into Monday");
        assert!(inside("00:00-24:00 UTC", "2026-11-23T23:59:59Z") && inside("00:00-24:00 UTC", "2026-11-23T00:00:00Z"));
    }

    #[test]
    fn the_hour_that_comes_twice_belongs_to_it_twice() {
        let window = "02:00-03:00 Europe/Berlin";
        for (time, expected) in [
            ("2026-10-24T23:59:00Z", false),
            ("2026-10-25T00:30:00Z", true),
            ("2026-10-25T01:30:00Z", true),
            ("2026-10-25T02:00:00Z", false),
            // In spring the hour does not come at all.
            ("2026-03-29T00:59:00Z", false),
            ("2026-03-29T01:00:00Z", false),
        ] {
            assert_eq!(inside(window, time), expected, "{time}");
        }
    }

    #[test]
    fn text_reads_back() {
        for text in ["mon,tue,wed,thu,fri 08:00-18:00 Europe/Berlin", "22:00-06:00 UTC", "00:00-24:00 UTC"] {
            let blackout: Blackout = text.parse().unwrap();
            assert_eq!(blackout.to_string(), text);
            let json = serde_json::to_value(&blackout).unwrap();
            assert_eq!(serde_json::from_value::<Blackout>(json).unwrap(), blackout);
        }
        assert_eq!("fri-mon 01:00-02:00 UTC".parse::<Blackout>().unwrap().to_string(), "mon,fri,sat,sun 01:00-02:00 UTC");
    }

    #[test]
    fn nonsense_is_refused_with_an_example() {
        for bad in [
            "",
            "08:00-18:00",
            "08:00-08:00 UTC",
            "24:00-01:00 UTC",
            "8-18 UTC",
            "mo 08:00-18:00 UTC",
            "08:00-24:01 UTC",
            "08:00-18:00 Mars/Olympus",
        ] {
            assert!(bad.parse::<Blackout>().is_err(), "{bad}");
        }
        assert!("x".parse::<Blackout>().unwrap_err().contains("mon-fri 08:00-18:00 Europe/Berlin"));
    }
}
