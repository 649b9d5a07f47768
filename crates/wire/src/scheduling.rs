//! What the control socket tells about schedules and triggers.

use model::occurrence::{LeftOut, Occurrence};
use model::{Schedule, ScheduleName, Timestamp, Trigger};
use serde::{Deserialize, Serialize};

/// Schedules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Schedules {
    /// By name.
    pub schedules: Vec<ListedSchedule>,
}

/// A schedule in a listing: the record's fields, and beside them what follows from them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListedSchedule {
    /// The record.
    #[serde(flatten)]
    pub schedule: Schedule,
    /// When it is due next; None while it is disabled, and when its recurrence has come to its end.
    #[serde(default)]
    pub next: Option<Timestamp>,
    /// The newest entry of its history.
    #[serde(default)]
    pub last: Option<Occurrence>,
}

/// What is due, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    /// When; a run begins up to the schedule's jitter later.
    pub time: Timestamp,
    /// The schedule.
    pub schedule: ScheduleName,
}

/// What is due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upcoming {
    /// The earliest first.
    pub occurrences: Vec<Due>,
}

/// Which entries of the history.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct OccurrenceFilter {
    /// Of this schedule.
    pub schedule: Option<ScheduleName>,
    /// Due at this moment or later.
    pub from: Option<Timestamp>,
    /// Only numbers below this one: the next page.
    pub before: Option<u64>,
    /// At most so many; 0: 100.
    pub limit: u32,
}

/// What became of occurrences.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Newest first.
    pub occurrences: Vec<Occurrence>,
}

/// What a run by hand or by a trigger has led to.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Ran {
    /// The jobs that were created.
    pub jobs: Vec<u64>,
    /// What else was done, in sentences.
    #[serde(default)]
    pub done: Vec<String>,
    /// What was left out, and why.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
    /// What a person should know about it all the same.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// Triggers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Triggers {
    /// The oldest first.
    pub triggers: Vec<Trigger>,
}

/// One trigger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AddedTrigger {
    /// With the id that was made for it.
    pub trigger: Trigger,
}
