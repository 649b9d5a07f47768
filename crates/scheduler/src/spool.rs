//! The spool: which timers there should be, one file per schedule, written by the scheduler and read by `borgcube-timers`.
//!
//! Nothing in it is text that somebody could put into a unit file: a name that is also the file's, numbers, and the name of a time zone.

use anyhow::{Context, anyhow};
use model::calendar::Calendar;
use model::{Schedule, ScheduleName, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;
use store::Store;
use unix::paths::Layout;

/// The format's number; another one gets another number.
const VERSION: u32 = 1;
/// Moments that a timer gets ahead, if it has no calendar expression.
const AHEAD: usize = 100;
/// A list is renewed when fewer than this many of its moments are to come. `sync` comes daily, and the finest recurrence is hourly.
const FEW: usize = 60;
/// How far ahead moments beside a calendar expression are looked for.
const YEARS_AHEAD: i64 = 3;
/// The same, when a list of them is renewed.
const YEARS_LEFT: i64 = 1;
const YEAR: i64 = 366 * 86_400;
/// The longest file that is read.
pub const MAX_SIZE: u64 = 64 * 1024;
/// Behind this moment (the year 9999) systemd has no dates.
const LAST_MOMENT: i64 = 253_000_000_000;
/// Where systemd looks for time zones.
const ZONES: &str = "/usr/share/zoneinfo";

/// One timer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// [`VERSION`].
    version: u32,
    /// The schedule.
    pub schedule: ScheduleName,
    /// The rule as a calendar expression, if it is one.
    pub calendar: Option<Calendar>,
    /// Moments, in seconds since 1970, the earliest first: the oldest occurrence that was not dealt with, the next ones if there is no
    /// calendar expression, and what such an expression leaves out.
    pub times: Vec<i64>,
    /// The longest random delay, in seconds.
    pub jitter: u32,
}

impl Entry {
    /// The timer that `schedule` needs. None: it needs none, because it is disabled or has come to its end.
    #[must_use]
    pub fn of(schedule: &Schedule, now: Timestamp) -> Option<Entry> {
        Entry::with_zones(schedule, now, Path::new(ZONES))
    }

    fn with_zones(schedule: &Schedule, now: Timestamp, zones: &Path) -> Option<Entry> {
        if !schedule.enabled {
            return None;
        }
        let rule = &schedule.recurrence;
        let later = now.max(schedule.handled);
        // A machine that lacks a zone would take nothing of the expression.
        let calendar = rule.to_calendar(now).filter(|calendar| zones.join(&calendar.zone).is_file());
        let overdue = rule.between(schedule.handled, now, 1);
        let coming = match calendar {
            Some(_) => rule.moved(later, later.plus_seconds(YEARS_AHEAD * YEAR)),
            None => rule.between(later, Timestamp(i64::MAX), AHEAD),
        };
        let times: Vec<i64> =
            overdue.iter().chain(&coming).map(|time| time.0.div_euclid(1_000_000)).filter(|time| possible(*time)).collect();
        if calendar.is_none() && times.is_empty() {
            return None;
        }
        Some(Entry { version: VERSION, schedule: schedule.name.clone(), calendar, times, jitter: schedule.jitter_seconds })
    }

    /// Whether a timer made from `self` does what one made from `wanted` would, for a while: then nothing has to be written, and root
    /// nothing to do.
    fn will_do(&self, wanted: &Entry, now: Timestamp) -> bool {
        if (self.version, &self.calendar, self.jitter) != (wanted.version, &wanted.calendar, wanted.jitter) {
            return false;
        }
        let seconds = now.0.div_euclid(1_000_000);
        let (overdue, coming): (Vec<i64>, Vec<i64>) = wanted.times.iter().partition(|time| **time <= seconds);
        let have: Vec<i64> = self.times.iter().copied().filter(|time| *time > seconds).collect();
        let known = overdue.iter().all(|time| self.times.contains(time)) && coming.starts_with(&have);
        let enough = match self.calendar {
            Some(_) => coming.iter().all(|time| have.contains(time) || *time > seconds + YEARS_LEFT * YEAR),
            None => have.len() >= FEW.min(coming.len()),
        };
        known && enough
    }

    /// Reads the file of the schedule `name`; everything in it is checked.
    pub fn parse(name: &ScheduleName, bytes: &[u8]) -> Result<Entry, String> {
        let entry: Entry = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        if entry.version != VERSION {
            return Err(format!("it has version {}, this program knows {VERSION}", entry.version));
        }
        if entry.schedule != *name {
            return Err(format!("it is about the schedule {}", entry.schedule));
        }
        if entry.times.len() > AHEAD + 1 || entry.times.iter().any(|time| !possible(*time)) || !entry.times.is_sorted() {
            return Err("its times are no list that the scheduler writes".to_owned());
        }
        if entry.jitter > Schedule::MAX_JITTER {
            return Err(format!("its jitter is {} seconds", entry.jitter));
        }
        match &entry.calendar {
            Some(calendar) => calendar.check()?,
            None if entry.times.is_empty() => return Err("it has no time".to_owned()),
            None => {}
        }
        Ok(entry)
    }
}

fn possible(seconds: i64) -> bool {
    (0..LAST_MOMENT).contains(&seconds)
}

/// The schedule that a file of the spool is about, by its name.
#[must_use]
pub fn schedule_of(file: &str) -> Option<ScheduleName> {
    file.strip_suffix(".json")?.parse().ok()
}

/// Makes the spool what it should be: writes what has changed, each file in one step, and removes what is gone. Without the spool's
/// directory (nothing is installed, `borgcube up` runs) there are no timers and nothing to do.
pub fn write_all(store: &Store, layout: &Layout, now: Timestamp) -> anyhow::Result<()> {
    let directory = layout.timers();
    if !directory.is_dir() {
        log::debug!("there is no {}, so no timers are wanted", directory.display());
        return Ok(());
    }
    let schedules = store.read(|r| r.schedules().list())?;
    let entries: Vec<Entry> = schedules.iter().filter_map(|schedule| Entry::of(schedule, now)).collect();
    write(&directory, &entries, now).with_context(|| format!("the timers of systemd are as before: cannot change {}", directory.display()))
}

fn write(directory: &Path, entries: &[Entry], now: Timestamp) -> anyhow::Result<()> {
    for entry in entries {
        let path = directory.join(format!("{}.json", entry.schedule));
        let present = unix::files::read_small(&path, MAX_SIZE).ok().flatten();
        let present = present.and_then(|bytes| Entry::parse(&entry.schedule, &bytes).ok());
        if present.is_none_or(|present| !present.will_do(entry, now)) {
            let mut bytes = serde_json::to_vec(entry)?;
            bytes.push(b'\n');
            unix::files::write_with_mode(&path, &bytes, 0o644)?;
        }
    }
    let wanted: BTreeSet<&ScheduleName> = entries.iter().map(|entry| &entry.schedule).collect();
    let mut removed = false;
    for file in std::fs::read_dir(directory)? {
        let file = file?;
        let gone = file.file_name().to_str().and_then(schedule_of).is_some_and(|name| !wanted.contains(&name));
        if gone {
            std::fs::remove_file(file.path()).map_err(|e| anyhow!("cannot remove {}: {e}", file.path().display()))?;
            removed = true;
        }
    }
    if removed {
        unix::files::fsync_dir(directory)?;
    }
    Ok(())
}
