//! When pruning must not go on before somebody has looked.
//!
//! A client has no say about the server's times, but it may make many archives, or worthless ones; and the server's own clock may be wrong.
//! Whatever looks like that stops the pruning of the config: nothing of it is decided and nothing of it is deleted. A confirmation goes by
//! job numbers, which no clock moves.

use super::{Candidate, Policy, Standing};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Seconds by which a clock may be set back (and two readings of it differ) without a doubt.
pub const TOLERANCE: i64 = 3600;

/// Seconds by which a clock may go forward between two jobs without a doubt: servers are off for a while.
const FORWARD: i64 = 40 * 86_400;

/// Seconds by which an earlier job may begin to read later than the one after it: it waited.
const ORDER: i64 = 86_400;

const DAY: i64 = 86_400;

/// The server's clock did not tell the time when a job was made, or the server was off for long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jump {
    /// The first job after it.
    pub job: u64,
    /// What the clock showed before.
    pub from: Timestamp,
    /// What it showed then.
    pub to: Timestamp,
}

/// Whether the clock jumped between one job and the next one, `job`.
#[must_use]
pub fn jump(from: Timestamp, to: Timestamp, job: u64) -> Option<Jump> {
    let seconds = to.0.saturating_sub(from.0) / 1_000_000;
    (!(-TOLERANCE..=FORWARD).contains(&seconds)).then_some(Jump { job, from, to })
}

/// What is known besides the archives.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The present moment.
    pub now: Timestamp,
    /// Where the server's clock jumped.
    pub jumps: &'a [Jump],
    /// Everything up to this job was found right by somebody.
    pub confirmed: u64,
}

/// Why nothing is decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Reason {
    /// The policy has no rule.
    NoRule {},
    /// Too many archives in 24 hours.
    Burst {
        /// So many.
        count: u64,
        /// More than these are a burst.
        most: u32,
        /// The first of them.
        from: Timestamp,
        /// The last of them.
        until: Timestamp,
    },
    /// Archives that nobody has looked at.
    Suspicious {
        /// So many.
        count: u64,
        /// The newest one's name.
        newest: String,
    },
    /// An archive is newer than now: the clock went back, or was ahead when it was made.
    Future {
        /// Its name.
        archive: String,
        /// Its time.
        time: Timestamp,
        /// The present moment.
        now: Timestamp,
    },
    /// A later job's archive is much older than an earlier one's: the clock was ahead, or went back.
    Disorder {
        /// The later job's archive.
        archive: String,
        /// Its time.
        time: Timestamp,
        /// The time of one that was made before it.
        earlier: Timestamp,
    },
    /// The clock jumped since the config's oldest archive.
    Clock {
        /// Where.
        jump: Jump,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NoRule {} => f.write_str("the policy has no rule that keeps anything"),
            Reason::Burst { count, most, from, until } => {
                let (from, until) = (from.to_rfc3339(), until.to_rfc3339());
                write!(f, "{count} archives were made between {from} and {until}, and more than {most} in 24 hours are a burst")
            }
            Reason::Suspicious { count: 1, newest } => write!(f, "archive {newest} is suspicious"),
            Reason::Suspicious { count, newest } => write!(f, "{count} archives are suspicious, the newest one is {newest}"),
            Reason::Future { archive, time, now } => {
                let (time, now) = (time.to_rfc3339(), now.to_rfc3339());
                write!(f, "archive {archive} is of {time}, and the server's clock shows {now}: it went back, or it was ahead")
            }
            Reason::Disorder { archive, time, earlier } => {
                let (time, earlier) = (time.to_rfc3339(), earlier.to_rfc3339());
                write!(f, "archive {archive} is of {time}, but was made after one of {earlier}: the server's clock was wrong")
            }
            Reason::Clock { jump } => {
                let (from, to) = (jump.from.to_rfc3339(), jump.to.to_rfc3339());
                write!(f, "the server's clock went from {from} to {to} before job {}", jump.job)
            }
        }
    }
}

/// Nothing is decided and nothing goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{}", reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Stop {
    /// Why; at least one.
    pub reasons: Vec<Reason>,
}

/// Everything that speaks against deciding about these archives.
pub(super) fn doubts(candidates: &[Candidate<'_>], policy: &Policy, situation: &Situation<'_>) -> Result<(), Stop> {
    let mut reasons = vec![];
    if !policy.has_rules() {
        reasons.push(Reason::NoRule {});
    }
    let complete = || candidates.iter().filter(|candidate| candidate.standing != Standing::Incomplete);
    let mut new: Vec<&Candidate<'_>> = complete().filter(|candidate| candidate.job > situation.confirmed).collect();
    if let Some(oldest) = complete().map(|candidate| candidate.job).min() {
        let counts = |jump: &&Jump| jump.job > situation.confirmed && jump.job > oldest;
        reasons.extend(situation.jumps.iter().rfind(counts).map(|jump| Reason::Clock { jump: *jump }));
    }
    reasons.extend(suspicious(&new));
    new.sort_by_key(|candidate| (candidate.job, candidate.time));
    reasons.extend(disorder(new.iter().filter(|candidate| !candidate.imported)));
    new.sort_by_key(|candidate| candidate.time);
    reasons.extend(future(&new, situation.now));
    reasons.extend(burst(&new, policy.most_per_day));
    if reasons.is_empty() { Ok(()) } else { Err(Stop { reasons }) }
}

fn suspicious(new: &[&Candidate<'_>]) -> Option<Reason> {
    let suspicious = || new.iter().filter(|candidate| candidate.standing == Standing::Suspicious);
    let newest = suspicious().max_by_key(|candidate| candidate.time)?;
    Some(Reason::Suspicious { count: suspicious().count() as u64, newest: newest.name.to_owned() })
}

/// `new` by job, and made here: what was imported is older than the import.
fn disorder<'a>(new: impl Iterator<Item = &'a &'a Candidate<'a>>) -> Option<Reason> {
    let mut latest = Timestamp(i64::MIN);
    for candidate in new {
        if candidate.time.plus_seconds(ORDER) < latest {
            return Some(Reason::Disorder { archive: candidate.name.to_owned(), time: candidate.time, earlier: latest });
        }
        latest = latest.max(candidate.time);
    }
    None
}

/// `new` by time.
fn future(new: &[&Candidate<'_>], now: Timestamp) -> Option<Reason> {
    let last = new.last().filter(|last| last.time > now.plus_seconds(TOLERANCE))?;
    Some(Reason::Future { archive: last.name.to_owned(), time: last.time, now })
}

/// The fullest 24 hours. `new` by time.
fn burst(new: &[&Candidate<'_>], most: u32) -> Option<Reason> {
    let mut first = 0;
    let mut fullest: Option<(usize, usize)> = None;
    for (last, candidate) in new.iter().enumerate() {
        while new[first].time.plus_seconds(DAY) <= candidate.time {
            first += 1;
        }
        let count = last + 1 - first;
        if count > most as usize && fullest.is_none_or(|(first, last)| last + 1 - first < count) {
            fullest = Some((first, last));
        }
    }
    let (first, last) = fullest?;
    Some(Reason::Burst { count: (last + 1 - first) as u64, most, from: new[first].time, until: new[last].time })
}
