//! What became of the occurrences of schedules.

use crate::names::ScheduleName;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// One entry of a schedule's history: an occurrence, or a run by hand or by a trigger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occurrence {
    /// Never repeats; the larger, the later it was recorded.
    pub number: u64,
    /// The schedule.
    pub schedule: ScheduleName,
    /// When it was due. Of a run by hand or by a trigger: when that was asked for. Of several occurrences in one entry: the last one.
    pub time: Timestamp,
    /// The first one of several occurrences in one entry; otherwise the same as `time`.
    pub first: Timestamp,
    /// How many occurrences of the rule the entry stands for: one, none for runs by hand and for notes about the clock, many for the far end
    /// of a long time without the scheduler. Of those many, what has an entry of its own does not count.
    pub count: u64,
    /// What asked for it.
    pub origin: Origin,
    /// What became of it.
    pub outcome: Outcome,
    /// When that was recorded.
    pub recorded: Timestamp,
    /// Who recorded it.
    pub actor: String,
}

/// What asked for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The recurrence.
    Schedule,
    /// A person.
    #[default]
    Manual,
    /// A trigger.
    Trigger,
}

/// What became of an occurrence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Outcome {
    /// It was run.
    Run {
        /// The jobs that were created.
        jobs: Vec<u64>,
        /// What else was done, in sentences, such as `schedule weekend enabled`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        done: Vec<String>,
        /// The parts that were left out.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        left_out: Vec<LeftOut>,
    },
    /// Nothing was done.
    Skip {
        /// Why, in one word.
        reason: SkipReason,
        /// Why each part of it was left out.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        left_out: Vec<LeftOut>,
    },
}

/// A part of a run that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// What, such as `web1/etc`.
    pub what: String,
    /// Why, in one word.
    pub reason: SkipReason,
    /// The job that stands in the way, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<u64>,
}

/// Why an occurrence did not lead to a run. The word is stable: scripts and alerts may compare it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SkipReason {
    /// The machine was off or nothing woke the scheduler, and a later occurrence was run in its place.
    Missed,
    /// The schedule was disabled.
    Disabled,
    /// The client is in one of its blackouts.
    Blackout,
    /// A job of the same config was still queued or running.
    StillRunning,
    /// The recurrence was changed before it was run.
    RuleChanged,
    /// A note, no occurrence: the clock went back, so the schedule goes on from the present moment.
    ClockWentBack,
    /// There is no such config, repository or schedule (any more), or the regular expressions match none.
    NothingToRun,
}

impl SkipReason {
    /// All of them.
    pub const ALL: [SkipReason; 7] = [
        SkipReason::Missed,
        SkipReason::Disabled,
        SkipReason::Blackout,
        SkipReason::StillRunning,
        SkipReason::RuleChanged,
        SkipReason::ClockWentBack,
        SkipReason::NothingToRun,
    ];

    /// The stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            SkipReason::Missed => "missed",
            SkipReason::Disabled => "disabled",
            SkipReason::Blackout => "blackout",
            SkipReason::StillRunning => "still-running",
            SkipReason::RuleChanged => "rule-changed",
            SkipReason::ClockWentBack => "clock-went-back",
            SkipReason::NothingToRun => "nothing-to-run",
        }
    }

    /// What it means, as a sentence for people.
    #[must_use]
    pub fn explanation(self) -> &'static str {
        match self {
            SkipReason::Missed => {
                "The scheduler did not run at that time (was the machine off?); the newest missed occurrence was run instead."
            }
            SkipReason::Disabled => "The schedule was disabled; `borgcube schedule enable` changes that.",
            SkipReason::Blackout => "The client was in one of its blackouts, see `borgcube client show`.",
            SkipReason::StillRunning => "A job of the same config was still queued or running.",
            SkipReason::RuleChanged => "The schedule got another recurrence before the occurrence of the old one was run.",
            SkipReason::ClockWentBack => {
                "The clock was set back by more than an hour; occurrences from then on count again, unless they ran."
            }
            SkipReason::NothingToRun => "What the schedule names does not exist, or its regular expressions match no config.",
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for SkipReason {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|r| r.as_str() == s).ok_or_else(|| {
            let all: Vec<_> = Self::ALL.iter().map(|r| r.as_str()).collect();
            format!("{s:?} is no reason for a skip; choose one of {}", all.join(", "))
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Origin::Schedule => "schedule",
            Origin::Manual => "manual",
            Origin::Trigger => "trigger",
        })
    }
}

impl Occurrence {
    /// The jobs it created.
    #[must_use]
    pub fn jobs(&self) -> &[u64] {
        match &self.outcome {
            Outcome::Run { jobs, .. } => jobs,
            Outcome::Skip { .. } => &[],
        }
    }

    /// Why it was skipped, if it was.
    #[must_use]
    pub fn skipped(&self) -> Option<SkipReason> {
        match &self.outcome {
            Outcome::Run { .. } => None,
            Outcome::Skip { reason, .. } => Some(*reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_in_json_is_the_word() {
        for reason in SkipReason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
            assert_eq!(reason.as_str().parse::<SkipReason>().unwrap(), reason);
            assert!(reason.explanation().ends_with('.'));
        }
        for origin in [Origin::Schedule, Origin::Manual, Origin::Trigger] {
            assert_eq!(serde_json::to_value(origin).unwrap(), origin.to_string());
        }
        assert!("x".parse::<SkipReason>().unwrap_err().contains("still-running"));
    }
}
