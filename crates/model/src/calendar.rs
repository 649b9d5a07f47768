//! Calendar expressions of systemd.time(7), as numbers: who formats one from these can write nothing else.

use crate::blackout::Weekday;
use crate::recurrence;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One calendar expression. An empty list stands for `*`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calendar {
    /// Days of the week.
    pub weekdays: Vec<Weekday>,
    /// Months, 1 to 12.
    pub months: Vec<u8>,
    /// Days of the month, 1 to 31.
    pub days: Vec<u8>,
    /// Hours, 0 to 23.
    pub hours: Vec<u8>,
    /// The minute, 0 to 59.
    pub minute: u8,
    /// The second, 0 to 59.
    pub second: u8,
    /// The time zone's IANA name.
    pub zone: String,
}

impl Calendar {
    /// Whether every number is one of its kind, and the zone one of the IANA's.
    pub fn check(&self) -> Result<(), String> {
        let within = |what: &str, numbers: &[u8], range: std::ops::RangeInclusive<u8>| match numbers.iter().find(|n| !range.contains(n)) {
            Some(n) => Err(format!("{n} is no {what}")),
            None if numbers.len() > 31 => Err(format!("there are more than 31 numbers of a {what}")),
            None => Ok(()),
        };
        within("month", &self.months, 1..=12)?;
        within("day of the month", &self.days, 1..=31)?;
        within("hour", &self.hours, 0..=23)?;
        within("minute", &[self.minute], 0..=59)?;
        within("second", &[self.second], 0..=59)?;
        if self.weekdays.len() > 7 {
            return Err("there are more than 7 days of the week".into());
        }
        if !recurrence::is_zone(&self.zone) {
            return Err(format!("{:?} is no time zone", self.zone));
        }
        Ok(())
    }
}

impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |numbers: &[u8]| match numbers {
            [] => "*".to_owned(),
            some => some.iter().map(|n| format!("{n:02}")).collect::<Vec<_>>().join(","),
        };
        let days: Vec<&str> = self.weekdays.iter().map(|day| day.as_str()).collect();
        let days = if days.is_empty() { String::new() } else { format!("{} ", days.join(",")) };
        let (months, month_days, hours) = (list(&self.months), list(&self.days), list(&self.hours));
        write!(f, "{days}*-{months}-{month_days} {hours}:{:02}:{:02} {}", self.minute, self.second, self.zone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_of_their_kind_pass() {
        let good = Calendar {
            weekdays: vec![Weekday::Sat],
            months: vec![],
            days: vec![1, 15],
            hours: vec![2],
            minute: 5,
            second: 0,
            zone: "Europe/Berlin".into(),
        };
        assert_eq!(good.check(), Ok(()));
        assert_eq!(good.to_string(), "sat *-*-01,15 02:05:00 Europe/Berlin");
        for bad in [
            Calendar { months: vec![13], ..good.clone() },
            Calendar { days: vec![0], ..good.clone() },
            Calendar { hours: vec![24], ..good.clone() },
            Calendar { hours: vec![1; 32], ..good.clone() },
            Calendar { minute: 60, ..good.clone() },
            Calendar { second: 60, ..good.clone() },
            Calendar { zone: "UTC\nExecStart=/bin/sh".into(), ..good.clone() },
            Calendar { zone: "../../etc/passwd".into(), ..good.clone() },
            Calendar { weekdays: vec![Weekday::Sat; 8], ..good },
        ] {
            assert!(bad.check().is_err(), "{bad}");
        }
    }
}
