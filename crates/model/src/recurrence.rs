//! When something is due: recurrences of RFC 5545, and a calendar shorthand that becomes one.
//!
//! The rule's arithmetic is the `rrule` crate's. Where its answers would surprise, the rule is refused at entry: without a time zone (the
//! crate would take the machine's), finer than hourly, or without any run to come. A moment that a zone's clock skips is moved to the same
//! distance behind the gap, as RFC 5545 section 3.3.10 has it; two occurrences that fall together there are one.

use crate::blackout::Weekday;
use crate::calendar::Calendar;
use crate::shorthand;
use crate::time::Timestamp;
use rrule::{Frequency, NWeekday, RRuleSet};
use serde::{Deserialize, Serialize};
use std::fmt;

/// No schedule is finer than this, in seconds.
const FINEST: i64 = 3600;

/// Occurrences looked at to see how close they come; more than a rule needs to show its pattern in every month.
const PATTERN: usize = 2_000;

/// Occurrences walked through at most. Hourly for more than two centuries.
const WALK: usize = 2_000_000;

/// How far back a rule may begin, in days: each answer walks from there.
const OLDEST: i64 = 3_660;

/// Single dates in all RDATE, and in all EXDATE lines: each occurrence is compared with all of them.
const MOST_DATES: usize = 100;

/// A recurrence that has passed all checks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Recurrence {
    text: String,
    lines: Vec<String>,
    set: RRuleSet,
}

/// Why a recurrence is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecurrenceError {
    /// It is neither shorthand nor RFC 5545.
    #[error(
        "{0:?} is no recurrence: write for instance `daily 02:30`, `weekly sat,sun 03:00`, or DTSTART and RRULE lines of RFC 5545 ({1})"
    )]
    Unreadable(String, String),
    /// A time of it belongs to no time zone.
    #[error("{0} has no time zone: write {1};TZID=Europe/Berlin:20260131T023000, or end the time with Z for UTC")]
    NoZone(String, &'static str),
    /// A named zone does not exist.
    #[error("{0:?} is no time zone: names are like Europe/Berlin or UTC")]
    UnknownZone(String),
    /// Two runs come too close.
    #[error("it would run at {0} and again at {1}: schedules are no finer than hourly")]
    TooFine(String, String),
    /// To find its runs would take too long.
    #[error("{0}")]
    TooLong(String),
    /// It never runs again.
    #[error("it has no next run: {0}")]
    NoNextRun(String),
}

#[derive(Serialize, Deserialize)]
struct Stored {
    text: String,
    lines: Vec<String>,
}

impl From<Recurrence> for Stored {
    fn from(recurrence: Recurrence) -> Stored {
        Stored { text: recurrence.text, lines: recurrence.lines }
    }
}

impl TryFrom<Stored> for Recurrence {
    type Error = RecurrenceError;
    fn try_from(stored: Stored) -> Result<Recurrence, RecurrenceError> {
        let set = read(&stored.text, &stored.lines)?;
        Ok(Recurrence { text: stored.text, lines: stored.lines, set })
    }
}

impl PartialEq for Recurrence {
    fn eq(&self, other: &Recurrence) -> bool {
        self.text == other.text && self.lines == other.lines
    }
}

impl Eq for Recurrence {}

impl fmt::Display for Recurrence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl Recurrence {
    /// Reads what a person wrote. Shorthand without a zone of its own is in `zone`, an IANA name, and begins at `now`.
    pub fn parse(text: &str, zone: &str, now: Timestamp) -> Result<Recurrence, RecurrenceError> {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let (text, lines) = match shorthand::expand(&text, zone, now)? {
            Some(expanded) => expanded,
            None => {
                let lines = text.split(' ').map(str::to_owned).collect();
                (text, lines)
            }
        };
        let set = read(&text, &lines)?;
        let recurrence = Recurrence { text, lines, set };
        recurrence.check_length(now)?;
        recurrence.check_distance()?;
        match recurrence.next_after(now) {
            Some(_) => Ok(recurrence),
            None => Err(RecurrenceError::NoNextRun(match recurrence.last() {
                Some(last) => format!("the last one was at {}", last.to_rfc3339()),
                None => "no day of the calendar fits the rule".to_owned(),
            })),
        }
    }

    /// As the person wrote it, with the zone that was meant.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The lines of RFC 5545 that it consists of.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// The zone's name.
    #[must_use]
    pub fn zone(&self) -> &str {
        self.set.get_dt_start().timezone_name()
    }

    /// The first occurrence after `moment`.
    #[must_use]
    pub fn next_after(&self, moment: Timestamp) -> Option<Timestamp> {
        self.occurrences().find(|occurrence| *occurrence > moment)
    }

    /// Occurrences in `(after, until]`, at most `limit` of them, the earliest first.
    #[must_use]
    pub fn between(&self, after: Timestamp, until: Timestamp, limit: usize) -> Vec<Timestamp> {
        let later = self.occurrences().skip_while(|occurrence| *occurrence <= after);
        later.take_while(|occurrence| *occurrence <= until).take(limit).collect()
    }

    /// The rule as one calendar expression of systemd.time(7), if it is one. Such a timer never runs dry. `now`: a rule that begins later is
    /// none, because calendar expressions have no beginning.
    ///
    /// The two do not agree about moments that the zone's clock skips: see [`Recurrence::moved`].
    #[must_use]
    pub fn to_calendar(&self, now: Timestamp) -> Option<Calendar> {
        let [rule] = self.set.get_rrule().as_slice() else { return None };
        let plain = self.set.get_rdate().is_empty() && self.set.get_exdate().is_empty() && rule.get_interval() == 1;
        let endless = rule.get_count().is_none() && rule.get_until().is_none();
        let simple = rule.get_by_set_pos().is_empty() && rule.get_by_year_day().is_empty() && rule.get_by_week_no().is_empty();
        if !(plain && endless && simple) || stamp(self.set.get_dt_start()) > now {
            return None;
        }
        let mut weekdays = vec![];
        for day in rule.get_by_weekday() {
            let NWeekday::Every(day) = day else { return None };
            weekdays.push(weekday(*day));
        }
        let days = rule.get_by_month_day().iter().map(|day| u8::try_from(*day).ok().filter(|day| *day > 0)).collect::<Option<Vec<u8>>>()?;
        let months: Vec<u8> = rule.get_by_month().to_vec();
        let hours: Vec<u8> = rule.get_by_hour().to_vec();
        let (&[minute], &[second]) = (rule.get_by_minute(), rule.get_by_second()) else { return None };
        let frequency = rule.get_freq();
        // What the expression would leave open although the rule takes it from DTSTART.
        let open = match frequency {
            Frequency::Yearly => months.is_empty() || (days.is_empty() && weekdays.is_empty()),
            Frequency::Monthly => days.is_empty() && weekdays.is_empty(),
            Frequency::Weekly => weekdays.is_empty(),
            _ => false,
        };
        if open || (hours.is_empty() && frequency != Frequency::Hourly) {
            return None;
        }
        Some(Calendar { weekdays, months, days, hours, minute, second, zone: self.zone().to_owned() })
    }

    /// Occurrences in `(after, until]` that lie elsewhere than the rule says, because the zone's clock skips what it says. A timer with
    /// the calendar expression leaves them out, so it needs them as moments of their own.
    #[must_use]
    pub fn moved(&self, after: Timestamp, until: Timestamp) -> Vec<Timestamp> {
        let Some(calendar) = self.to_calendar(until) else { return vec![] };
        let elsewhere = |occurrence: &Timestamp| match wall_clock(&calendar.zone, *occurrence) {
            Some((_, minute)) => {
                let hour = !calendar.hours.is_empty() && !calendar.hours.iter().any(|hour| u16::from(*hour) == minute / 60);
                hour || u16::from(calendar.minute) != minute % 60
            }
            None => true,
        };
        self.between(after, until, usize::MAX).into_iter().filter(elsewhere).collect()
    }

    /// All of them, the earliest first.
    fn occurrences(&self) -> impl Iterator<Item = Timestamp> + '_ {
        let mut previous = None;
        let all = (&self.set).into_iter().take(WALK).map(|occurrence| stamp(&occurrence));
        all.filter(move |occurrence| previous.replace(*occurrence) != Some(*occurrence))
    }

    fn last(&self) -> Option<Timestamp> {
        self.occurrences().last()
    }

    /// The least number of seconds between two occurrences; None if there is one only. Looks at as many occurrences as show the pattern.
    #[must_use]
    pub fn shortest_distance(&self) -> Option<i64> {
        let (first, second) = self.closest()?;
        Some((second.0 - first.0) / 1_000_000)
    }

    fn closest(&self) -> Option<(Timestamp, Timestamp)> {
        let occurrences: Vec<Timestamp> = self.occurrences().take(PATTERN).collect();
        occurrences.iter().copied().zip(occurrences.iter().copied().skip(1)).min_by_key(|(first, second)| second.0 - first.0)
    }

    /// What is cheap to look at first; then that the search for the next run ends by itself.
    fn check_length(&self, now: Timestamp) -> Result<(), RecurrenceError> {
        let refuse = |why: &str| Err(RecurrenceError::TooLong(why.to_owned()));
        if stamp(self.set.get_dt_start()) < now.plus_seconds(-OLDEST * 86_400) {
            return refuse("DTSTART is more than ten years back: write a later one, for instance of this year");
        }
        if self.set.get_rdate().len() > MOST_DATES || self.set.get_exdate().len() > MOST_DATES {
            return refuse("there are more than 100 RDATE or EXDATE dates: write a rule (RRULE) for what they have in common");
        }
        if self.set.get_rrule().iter().any(|rule| rule.get_freq() == Frequency::Hourly && !rule.get_by_set_pos().is_empty()) {
            return refuse("BYSETPOS does not go with FREQ=HOURLY: write FREQ=DAILY and the hours as BYHOUR");
        }
        let Some(from) = chrono::DateTime::from_timestamp_micros(now.0) else { return Ok(()) };
        let found = self.set.clone().after(from.with_timezone(&rrule::Tz::UTC)).all(1);
        if found.dates.is_empty() && found.limited {
            return refuse(
                "no day of the calendar fits the rule, or the next is too far away: write a rule that runs more often, or RDATE",
            );
        }
        Ok(())
    }

    fn check_distance(&self) -> Result<(), RecurrenceError> {
        match self.closest() {
            Some((first, second)) if second < first.plus_seconds(FINEST) => {
                Err(RecurrenceError::TooFine(first.to_rfc3339(), second.to_rfc3339()))
            }
            _ => Ok(()),
        }
    }
}

/// What chrono tells a zone by; only this module and [`shorthand`] know chrono.
trait ZoneName {
    fn timezone_name(&self) -> &str;
}

impl ZoneName for chrono::DateTime<rrule::Tz> {
    fn timezone_name(&self) -> &str {
        match self.timezone() {
            rrule::Tz::Tz(zone) => zone.name(),
            rrule::Tz::Local(_) => "Local",
        }
    }
}

/// Whether `name` is a time zone of the IANA.
pub(crate) fn is_zone(name: &str) -> bool {
    name.parse::<chrono_tz::Tz>().is_ok()
}

/// The day of the week and the minute of the day at `moment` on a wall clock of `zone`. None: there is no such zone.
pub(crate) fn wall_clock(zone: &str, moment: Timestamp) -> Option<(Weekday, u16)> {
    use chrono::{Datelike, Timelike};
    let zone: chrono_tz::Tz = zone.parse().ok()?;
    let local = chrono::DateTime::from_timestamp_micros(moment.0)?.with_timezone(&zone);
    let minute = u16::try_from(local.hour() * 60 + local.minute()).ok()?;
    Some((weekday(local.weekday()), minute))
}

fn weekday(day: chrono::Weekday) -> Weekday {
    Weekday::ALL[day.num_days_from_monday() as usize % 7]
}

fn stamp(moment: &chrono::DateTime<rrule::Tz>) -> Timestamp {
    Timestamp(moment.timestamp_micros())
}

const NEITHER: &str = "it begins neither with hourly, daily, weekdays, weekly, monthly or yearly nor is it made of the lines DTSTART, RRULE, RDATE \
                       and EXDATE (NAME:VALUE); those of cron and systemd's calendar are not understood";

fn read(text: &str, lines: &[String]) -> Result<RRuleSet, RecurrenceError> {
    let unreadable = |why: &str| RecurrenceError::Unreadable(text.to_owned(), why.to_owned());
    let (mut starts, mut dates) = (0, 0);
    for line in lines {
        let (head, value) = line.split_once(':').ok_or_else(|| unreadable(NEITHER))?;
        let name = head.split(';').next().unwrap_or_default().to_ascii_uppercase();
        match name.as_str() {
            "DTSTART" => {
                starts += 1;
                zoned(line, head, value, "DTSTART")?;
            }
            "RDATE" => {
                dates += 1;
                zoned(line, head, value, "RDATE")?;
            }
            "EXDATE" => zoned(line, head, value, "EXDATE")?,
            "RRULE" => {
                dates += 1;
                check_rule(value, &unreadable)?;
            }
            _ => return Err(unreadable(NEITHER)),
        }
    }
    if starts != 1 {
        return Err(unreadable("there is one DTSTART line"));
    }
    if dates == 0 {
        return Err(unreadable("there is an RRULE or an RDATE line"));
    }
    // The crate gives up after so many steps without an occurrence.
    lines.join("\n").parse().map(RRuleSet::limit).map_err(|e: rrule::RRuleError| unreadable(&e.to_string()))
}

fn zoned(line: &str, head: &str, value: &str, name: &'static str) -> Result<(), RecurrenceError> {
    let zone = head.split(';').find_map(|parameter| {
        let (key, zone) = parameter.split_once('=')?;
        key.eq_ignore_ascii_case("TZID").then_some(zone)
    });
    match zone {
        Some(zone) => zone.parse::<chrono_tz::Tz>().map(drop).map_err(|_| RecurrenceError::UnknownZone(zone.to_owned())),
        None if value.split(',').all(|time| time.ends_with(['Z', 'z'])) => Ok(()),
        None => Err(RecurrenceError::NoZone(line.to_owned(), name)),
    }
}

fn check_rule(value: &str, unreadable: &impl Fn(&str) -> RecurrenceError) -> Result<(), RecurrenceError> {
    for part in value.split(';') {
        match part.to_ascii_uppercase().as_str() {
            // The crate is wrong about some of these, and no backup needs them.
            "FREQ=MINUTELY" | "FREQ=SECONDLY" => return Err(unreadable("schedules are no finer than hourly")),
            // To the crate it is a rule without occurrences.
            "INTERVAL=0" => return Err(unreadable("INTERVAL is at least 1")),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_795_300_000_000_000); // 2026-11-21T22:26:40Z

    fn parse(text: &str) -> Result<Recurrence, RecurrenceError> {
        Recurrence::parse(text, "Europe/Berlin", NOW)
    }

    fn next(text: &str, count: usize) -> Vec<String> {
        parse(text).unwrap().between(NOW, Timestamp(i64::MAX), count).iter().map(|t| t.to_rfc3339()).collect()
    }

    fn moment(text: &str) -> Timestamp {
        Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
    }

    #[test]
    fn shorthand_runs_when_it_says() {
        assert_eq!(next("daily 02:30", 2), ["2026-11-22T01:30:00Z", "2026-11-23T01:30:00Z"]);
        assert_eq!(next("daily 02:30 UTC", 1), ["2026-11-22T02:30:00Z"]);
        assert_eq!(next("hourly 15 UTC", 2), ["2026-11-21T23:15:00Z", "2026-11-22T00:15:00Z"]);
        assert_eq!(next("weekly sat,sun 03:00", 3), ["2026-11-22T02:00:00Z", "2026-11-28T02:00:00Z", "2026-11-29T02:00:00Z"]);
        assert_eq!(next("weekdays 22:00", 1), ["2026-11-23T21:00:00Z"]);
        assert_eq!(next("monthly last 04:00", 2), ["2026-11-30T03:00:00Z", "2026-12-31T03:00:00Z"]);
        assert_eq!(next("yearly 02-28 12:00", 1), ["2027-02-28T11:00:00Z"]);
        assert_eq!(next("daily 02:30,14:30", 2), ["2026-11-22T01:30:00Z", "2026-11-22T13:30:00Z"]);
    }

    #[test]
    fn lines_of_the_rfc_are_read() {
        let text = "DTSTART;TZID=America/New_York:20240906T090000 RRULE:FREQ=MONTHLY;BYDAY=1FR";
        assert_eq!(next(text, 2), ["2026-12-04T14:00:00Z", "2027-01-01T14:00:00Z"]);
        let text = "DTSTART:20261101T000000Z RRULE:FREQ=DAILY RDATE:20261125T120000Z EXDATE:20261122T000000Z,20261124T000000Z";
        assert_eq!(next(text, 3), ["2026-11-23T00:00:00Z", "2026-11-25T00:00:00Z", "2026-11-25T12:00:00Z"]);
        assert_eq!(next("DTSTART:20261101T000000Z RDATE:20270101T000000Z", 9), ["2027-01-01T00:00:00Z"]);
    }

    #[test]
    fn what_cannot_be_scheduled_is_refused_with_its_reason() {
        let why = |text: &str| parse(text).unwrap_err().to_string();
        assert!(why("DTSTART:20260101T000000 RRULE:FREQ=DAILY").contains("has no time zone"));
        assert!(why("DTSTART:20260101T000000Z RRULE:FREQ=DAILY EXDATE:20260102T000000").contains("EXDATE;TZID="));
        assert!(why("DTSTART;TZID=Mars/Olympus:20260101T000000 RRULE:FREQ=DAILY").contains("is no time zone"));
        assert!(why("daily 02:30 Mars/Olympus").contains("is no time zone"));
        assert!(why("DTSTART:20260101T000000Z RRULE:FREQ=MINUTELY").contains("no finer than hourly"));
        assert!(why("DTSTART:20260101T000000Z RRULE:FREQ=HOURLY;BYMINUTE=0,30").contains("no finer than hourly"));
        assert!(why("DTSTART:20260101T000000Z RRULE:FREQ=YEARLY;BYMONTH=12;BYHOUR=1;BYMINUTE=0,59").contains("no finer than hourly"));
        assert!(why("DTSTART:20260101T000000Z RRULE:FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30").contains("no day of the calendar"));
        assert!(why("DTSTART:20200101T000000Z RRULE:FREQ=DAILY;COUNT=3").contains("the last one was at 2020-01-03T00:00:00Z"));
        assert!(why("DTSTART:20260101T000000Z RRULE:FREQ=DAILY;INTERVAL=0").contains("at least 1"));
        assert!(why("DTSTART:20260101T000000Z").contains("RRULE or an RDATE"));
        assert!(why("RRULE:FREQ=DAILY").contains("one DTSTART"));
        for nonsense in
            ["", "daily", "daily 25:00", "daily 2:30", "weekly 02:30", "every now and then", "monthly 32 01:00", "yearly 13-01 01:00"]
        {
            assert!(why(nonsense).contains("daily 02:30"), "{nonsense}: {}", why(nonsense));
        }
    }

    #[test]
    fn what_takes_too_long_to_find_is_refused() {
        let why = |text: &str| parse(text).unwrap_err().to_string();
        assert!(why("DTSTART:20160101T000000Z RRULE:FREQ=DAILY").contains("ten years back"));
        assert!(parse("DTSTART:20170101T000000Z RRULE:FREQ=HOURLY").is_ok());
        assert!(why("DTSTART:20260101T000000Z RRULE:FREQ=HOURLY;BYMINUTE=0;BYSETPOS=2").contains("FREQ=DAILY"));
        let dates = |count: usize| vec!["20270101T000000Z"; count].join(",");
        assert!(why(&format!("DTSTART:20260101T000000Z RRULE:FREQ=DAILY EXDATE:{}", dates(101))).contains("RRULE"));
        assert!(parse(&format!("DTSTART:20260101T000000Z RRULE:FREQ=DAILY EXDATE:{}", dates(100))).is_ok());
    }

    #[test]
    fn a_clock_that_is_put_forward_or_back() {
        let daily = Recurrence::parse("daily 02:30", "Europe/Berlin", moment("2026-03-01T00:00:00Z")).unwrap();
        let spring = daily.between(moment("2026-03-28T00:00:00Z"), moment("2026-03-31T00:00:00Z"), 9);
        // 02:30 does not exist on the 29th: the same distance behind the gap.
        assert_eq!(spring, ["2026-03-28T01:30:00Z", "2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"].map(moment));
        let autumn = daily.between(moment("2026-10-24T12:00:00Z"), moment("2026-10-26T12:00:00Z"), 9);
        assert_eq!(autumn, ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"].map(moment), "one of the two 02:30");
        let hourly = Recurrence::parse("hourly", "Europe/Berlin", moment("2026-03-01T00:00:00Z")).unwrap();
        let day = hourly.between(moment("2026-03-29T00:00:00Z"), moment("2026-03-29T03:00:00Z"), 9);
        assert_eq!(day, ["2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z", "2026-03-29T03:00:00Z"].map(moment), "03:00 once");
    }

    #[test]
    fn what_a_clock_skips_is_known() {
        let berlin = Recurrence::parse("daily 02:30", "Europe/Berlin", moment("2026-03-01T00:00:00Z")).unwrap();
        let moved = berlin.moved(moment("2026-03-02T00:00:00Z"), moment("2028-03-01T00:00:00Z"));
        assert_eq!(moved, ["2026-03-29T01:30:00Z", "2027-03-28T01:30:00Z"].map(moment));
        for rule in ["daily 04:30", "daily 02:30 UTC", "hourly 15"] {
            let recurrence = Recurrence::parse(rule, "Europe/Berlin", moment("2026-03-01T00:00:00Z")).unwrap();
            assert_eq!(recurrence.moved(moment("2026-03-02T00:00:00Z"), moment("2028-03-01T00:00:00Z")), [], "{rule}");
        }
    }

    #[test]
    fn stored_is_as_entered() {
        let recurrence = parse("daily 02:30").unwrap();
        assert_eq!(recurrence.text(), "daily 02:30 Europe/Berlin");
        let json = serde_json::to_string(&recurrence).unwrap();
        let back: Recurrence = serde_json::from_str(&json).unwrap();
        assert_eq!(back, recurrence);
        assert_eq!(back.next_after(NOW), recurrence.next_after(NOW));
        assert!(serde_json::from_str::<Recurrence>(r#"{"text":"x","lines":["DTSTART:x"]}"#).is_err());
    }

    #[test]
    fn simple_rules_are_one_calendar_expression() {
        // The first run of each is behind this moment.
        let later = NOW.plus_seconds(400 * 86_400);
        let calendar = |text: &str| parse(text).unwrap().to_calendar(later).map(|c| c.to_string());
        assert_eq!(calendar("daily 02:30").as_deref(), Some("*-*-* 02:30:00 Europe/Berlin"));
        assert_eq!(calendar("hourly 15 UTC").as_deref(), Some("*-*-* *:15:00 UTC"));
        assert_eq!(calendar("weekly sat,sun 03:00").as_deref(), Some("sat,sun *-*-* 03:00:00 Europe/Berlin"));
        assert_eq!(calendar("monthly 1,15 03:00 UTC").as_deref(), Some("*-*-01,15 03:00:00 UTC"));
        assert_eq!(calendar("yearly 02-28 12:00 UTC").as_deref(), Some("*-02-28 12:00:00 UTC"));
        assert_eq!(calendar("monthly last 04:00"), None);
        assert_eq!(calendar("DTSTART:20260101T000000Z RRULE:FREQ=DAILY;INTERVAL=2"), None);
        assert_eq!(calendar("DTSTART:20260101T000000Z RRULE:FREQ=DAILY;UNTIL=20300101T000000Z"), None);
        assert_eq!(calendar("DTSTART:20260101T000000Z RRULE:FREQ=DAILY EXDATE:20270101T000000Z"), None);
        assert_eq!(calendar("DTSTART:20260101T000000Z RRULE:FREQ=YEARLY;BYMONTHDAY=1"), None, "of each month or of one?");
        let future = "DTSTART:20990101T000000Z RRULE:FREQ=DAILY";
        assert_eq!(parse(future).unwrap().to_calendar(NOW), None);
    }
}
