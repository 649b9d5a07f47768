//! Schedules, what became of their occurrences, and triggers.

use model::{Occurrence, Origin, Schedule, ScheduleName, Timestamp, Trigger, TriggerId};

use super::basics::name;
use super::kind;
use crate::error::Result;
use crate::handle::TableRef;
use crate::key::{Key, KeyBytes, KeyParts};
use crate::page::{Union, intersect_down};
use crate::record::Record;
use crate::table::{Index, Table};

impl Key for ScheduleName {
    fn encode(&self) -> Result<Vec<u8>> {
        Ok(KeyBytes::new().text(self.as_str())?.finish())
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut parts = KeyParts::of(bytes);
        let name = name(&mut parts)?;
        parts.end().map(|()| name)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Key for TriggerId {
    fn encode(&self) -> Result<Vec<u8>> {
        Ok(KeyBytes::new().text(self.as_str())?.finish())
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut parts = KeyParts::of(bytes);
        let id = name(&mut parts)?;
        parts.end().map(|()| id)
    }

    /// Not the whole id: sentences end up in logs.
    fn show(&self) -> String {
        format!("{}…", self.short())
    }
}

impl Record for Schedule {
    const KIND: u16 = kind::SCHEDULE;
    const NAME: &'static str = "schedule";
    const VERSION: u16 = 1;
}

impl Record for Occurrence {
    const KIND: u16 = kind::OCCURRENCE;
    const NAME: &'static str = "occurrence";
    const VERSION: u16 = 1;
}

impl Record for Trigger {
    const KIND: u16 = kind::TRIGGER;
    const NAME: &'static str = "trigger";
    const VERSION: u16 = 1;
}

/// `schedules`: [`Schedule`] by name.
pub struct Schedules;

impl Table for Schedules {
    type Key = ScheduleName;
    type Record = Schedule;
    const NAME: &'static str = "schedules";
    fn key(record: &Schedule) -> ScheduleName {
        record.name.clone()
    }
}

/// `triggers`: [`Trigger`] by id.
pub struct Triggers;

impl Table for Triggers {
    type Key = TriggerId;
    type Record = Trigger;
    const NAME: &'static str = "triggers";
    fn key(record: &Trigger) -> TriggerId {
        record.id.clone()
    }
}

/// `occurrences`: [`Occurrence`] by number.
pub struct Occurrences;

const BY_SCHEDULE: &str = "occurrences-by-schedule";
const BY_TIME: &str = "occurrences-by-time";

fn time_front(schedule: &ScheduleName, time: Timestamp) -> Result<Vec<u8>> {
    Ok(KeyBytes::new().text(schedule.as_str())?.signed(time.0).finish())
}

impl Table for Occurrences {
    type Key = u64;
    type Record = Occurrence;
    const NAME: &'static str = "occurrences";
    const NO_UNDO: Option<&'static str> = Some("a run can't be made not to have happened; cancel its jobs, or change the schedule");
    fn key(record: &Occurrence) -> u64 {
        record.number
    }
    fn indexes() -> &'static [Index<Occurrence>] {
        &[
            Index { name: BY_SCHEDULE, fronts: |occurrence| Ok(vec![occurrence.schedule.encode()?]) },
            Index { name: BY_TIME, fronts: |occurrence| Ok(vec![time_front(&occurrence.schedule, occurrence.time)?]) },
        ]
    }
}

/// Which entries a page of history shows; what is not given does not narrow it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OccurrenceFilter {
    /// Of this schedule.
    pub schedule: Option<ScheduleName>,
    /// Due at this moment or later.
    pub from: Option<Timestamp>,
    /// Older than this number: the last one of the page before.
    pub before: Option<u64>,
}

impl TableRef<'_, Occurrences> {
    /// The entries that `filter` lets through, the newest first, at most `limit`.
    pub fn page(&self, filter: &OccurrenceFilter, limit: usize) -> Result<Vec<Occurrence>> {
        let union = match &filter.schedule {
            Some(schedule) => Union { index: BY_SCHEDULE, fronts: vec![schedule.encode()?] },
            None => Union { index: Occurrences::NAME, fronts: vec![Vec::new()] },
        };
        let mut found = Vec::new();
        let mut below = filter.before.unwrap_or(u64::MAX);
        while found.len() < limit && below > 0 {
            let Some(number) = intersect_down(self.read, std::slice::from_ref(&union), below - 1)? else { break };
            let occurrence = self.indexed(&number.encode()?)?;
            if filter.from.is_none_or(|from| occurrence.time >= from) {
                found.push(occurrence);
            }
            below = number;
        }
        Ok(found)
    }

    /// The newest entry of a schedule.
    pub fn last(&self, schedule: &ScheduleName) -> Result<Option<Occurrence>> {
        let filter = OccurrenceFilter { schedule: Some(schedule.clone()), ..OccurrenceFilter::default() };
        Ok(self.page(&filter, 1)?.pop())
    }

    /// The entries of `schedule` that stand for occurrences at `time` or later.
    pub(crate) fn of_the_rule(&self, schedule: &ScheduleName, time: Timestamp) -> Result<Vec<Occurrence>> {
        let mut found = Vec::new();
        for entry in self.read.scan_back(BY_TIME, &schedule.encode()?)? {
            let occurrence = self.indexed(entry?.1)?;
            if occurrence.time < time {
                break;
            }
            if occurrence.origin == Origin::Schedule && occurrence.count > 0 {
                found.push(occurrence);
            }
        }
        Ok(found)
    }

    /// The numbers of the entries of `schedule` that are older than its newest `keep`, at most `limit` of them, the newest first.
    pub(crate) fn beyond(&self, schedule: &ScheduleName, keep: usize, limit: usize) -> Result<Vec<u64>> {
        let entries = self.read.scan_back(BY_SCHEDULE, &schedule.encode()?)?;
        entries.skip(keep).take(limit).map(|entry| u64::decode(entry?.1)).collect()
    }
}
