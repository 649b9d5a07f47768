//! Which occurrences of a schedule are due: each leads to one run or to one recorded skip.

use crate::occurrence::SkipReason;
use crate::retry::mix;
use crate::schedule::Schedule;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Seconds by which a clock may go back without more than this: what was handled stays handled.
pub const CLOCK_TOLERANCE: i64 = 3600;

/// Skips that are recorded one by one; of a longer time without the scheduler the older ones share an entry.
pub const SINGLE_SKIPS: usize = 100;

/// Occurrences that are skipped for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// The first of them.
    pub first: Timestamp,
    /// The last of them; mostly the same.
    pub last: Timestamp,
    /// How many; 0 for a note about the clock.
    pub count: u64,
    /// Why.
    pub reason: SkipReason,
}

/// What to do about a schedule now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    /// The occurrence to run.
    pub run: Option<Timestamp>,
    /// What to record as skipped, the oldest first.
    pub skipped: Vec<Skipped>,
    /// The schedule's new [`Schedule::handled`].
    pub handled: Timestamp,
    /// The schedule's new [`Schedule::ahead`]. While there is one, an occurrence may have its entry already.
    pub ahead: Option<Timestamp>,
}

impl Due {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.run.is_none() && self.skipped.is_empty()
    }
}

/// What is due at `now`, see [`Due`].
///
/// Of several occurrences that were missed the newest is run, once. A schedule that is not enabled runs nothing.
///
/// If what was handled lies ahead of the clock by more than [`CLOCK_TOLERANCE`], then the clock was wrong then, or is now; nobody can know.
/// So the schedule goes on from `now`, or it would not run until the clock is there again, and remembers how far it was. When the clock
/// is past that moment, it goes on from there, so that a clock that was wrong for a while repeats nothing.
#[must_use]
pub fn due(schedule: &Schedule, now: Timestamp) -> Due {
    if schedule.handled > now.plus_seconds(CLOCK_TOLERANCE) {
        let note = Skipped { first: now, last: now, count: 0, reason: SkipReason::ClockWentBack };
        return Due { run: None, skipped: vec![note], handled: now, ahead: schedule.ahead.max(Some(schedule.handled)) };
    }
    let ahead = schedule.ahead.filter(|ahead| *ahead > now);
    // Past that moment, or never behind it.
    let from = schedule.ahead.filter(|ahead| *ahead <= now).map_or(schedule.handled, |ahead| ahead.max(schedule.handled));
    // Nothing was due before there was a schedule, unless it was made by a clock that was ahead.
    let from = if schedule.created <= now { from.max(schedule.created) } else { from };
    let mut occurrences = schedule.recurrence.between(from, now, usize::MAX);
    let handled = occurrences.last().copied().unwrap_or(from);
    let (run, reason) = match schedule.enabled {
        true => (occurrences.pop(), SkipReason::Missed),
        false => (None, SkipReason::Disabled),
    };
    Due { run, skipped: skips(&occurrences, reason), handled, ahead }
}

/// What has to be recorded before a schedule gets another recurrence or is enabled: nothing of it is run.
#[must_use]
pub fn settle(schedule: &Schedule, now: Timestamp) -> Due {
    let mut settled = due(schedule, now);
    let reason = if schedule.enabled { SkipReason::RuleChanged } else { SkipReason::Disabled };
    settled.skipped.extend(settled.run.take().map(|time| Skipped { first: time, last: time, count: 1, reason }));
    settled
}

fn skips(occurrences: &[Timestamp], reason: SkipReason) -> Vec<Skipped> {
    let (older, newer) = occurrences.split_at(occurrences.len().saturating_sub(SINGLE_SKIPS));
    let several = older.first().zip(older.last()).map(|(&first, &last)| Skipped { first, last, count: older.len() as u64, reason });
    let single = newer.iter().map(|&time| Skipped { first: time, last: time, count: 1, reason });
    several.into_iter().chain(single).collect()
}

/// How long behind `occurrence` a run begins, in whole seconds: up to the schedule's jitter, always the same for the same occurrence. For
/// who starts runs without systemd, which has its own `RandomizedDelaySec=`.
#[must_use]
pub fn delay(schedule: &Schedule, occurrence: Timestamp) -> i64 {
    let name = schedule.name.as_str().bytes().fold(0, |hash, byte| mix(hash ^ u64::from(byte)));
    let spread = mix(name ^ occurrence.0.cast_unsigned()) % (u64::from(schedule.jitter_seconds) + 1);
    i64::try_from(spread).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recurrence::Recurrence;
    use crate::schedule::Action;

    fn moment(text: &str) -> Timestamp {
        Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
    }

    fn schedule(rule: &str, from: &str) -> Schedule {
        let created = moment(from);
        Schedule {
            name: "nightly".parse().unwrap(),
            description: String::new(),
            recurrence: Recurrence::parse(rule, "Europe/Berlin", created).unwrap(),
            enabled: true,
            actions: vec![Action::RunConfig { config: "web1/etc".parse().unwrap() }],
            jitter_seconds: 0,
            handled: created,
            ahead: None,
            created,
        }
    }

    fn at(schedule: &mut Schedule, now: &str) -> (Option<String>, Vec<(String, SkipReason)>) {
        let due = due(schedule, moment(now));
        (schedule.handled, schedule.ahead) = (due.handled, due.ahead);
        let skipped = due.skipped.iter().map(|s| (s.last.to_rfc3339(), s.reason)).collect();
        (due.run.map(Timestamp::to_rfc3339), skipped)
    }

    fn ran(time: &str) -> (Option<String>, Vec<(String, SkipReason)>) {
        (Some(time.to_owned()), vec![])
    }

    fn nothing() -> (Option<String>, Vec<(String, SkipReason)>) {
        (None, vec![])
    }

    #[test]
    fn once_at_its_time_and_not_again() {
        let mut s = schedule("daily 02:30", "2026-11-01T12:00:00Z");
        assert_eq!(at(&mut s, "2026-11-02T01:29:59Z"), nothing());
        assert_eq!(at(&mut s, "2026-11-02T01:30:00Z"), ran("2026-11-02T01:30:00Z"));
        assert_eq!(at(&mut s, "2026-11-02T01:30:00Z"), nothing(), "a second timer at the same time");
        assert_eq!(at(&mut s, "2026-11-02T12:00:00Z"), nothing());
    }

    #[test]
    fn what_was_missed_is_caught_up_once() {
        let mut s = schedule("daily 02:30", "2026-11-01T12:00:00Z");
        let (run, skipped) = at(&mut s, "2026-11-05T09:00:00Z");
        assert_eq!(run.as_deref(), Some("2026-11-05T01:30:00Z"));
        let missed = ["2026-11-02T01:30:00Z", "2026-11-03T01:30:00Z", "2026-11-04T01:30:00Z"];
        assert_eq!(skipped, missed.map(|time| (time.to_owned(), SkipReason::Missed)));
        assert_eq!(at(&mut s, "2026-11-05T09:00:01Z"), nothing());
    }

    #[test]
    fn years_without_the_scheduler_are_recorded_in_few_entries() {
        let mut s = schedule("hourly UTC", "2026-01-01T00:30:00Z");
        let due = due(&s, moment("2036-01-01T00:30:00Z"));
        assert_eq!(due.skipped.len(), SINGLE_SKIPS + 1);
        let count: u64 = due.skipped.iter().map(|skip| skip.count).sum();
        assert_eq!(count + 1, 87_648, "hours in ten years of which two are leap years");
        s.handled = due.handled;
        assert_eq!(at(&mut s, "2036-01-01T01:00:00Z"), ran("2036-01-01T01:00:00Z"));
    }

    #[test]
    fn while_disabled_each_is_recorded_and_none_caught_up() {
        let mut s = schedule("daily 02:30", "2026-11-01T12:00:00Z");
        s.enabled = false;
        let (run, skipped) = at(&mut s, "2026-11-03T09:00:00Z");
        assert_eq!(run, None);
        assert_eq!(skipped, ["2026-11-02T01:30:00Z", "2026-11-03T01:30:00Z"].map(|time| (time.to_owned(), SkipReason::Disabled)));
        s.enabled = true;
        assert_eq!(at(&mut s, "2026-11-03T12:00:00Z"), nothing());
        assert_eq!(at(&mut s, "2026-11-04T12:00:00Z"), ran("2026-11-04T01:30:00Z"));
    }

    #[test]
    fn a_clock_that_goes_back_a_little_repeats_nothing() {
        let mut s = schedule("daily 02:30", "2026-11-01T12:00:00Z");
        assert_eq!(at(&mut s, "2026-11-02T01:31:00Z"), ran("2026-11-02T01:30:00Z"));
        assert_eq!(at(&mut s, "2026-11-02T00:45:00Z"), nothing());
        assert_eq!(at(&mut s, "2026-11-02T01:30:00Z"), nothing());
    }

    #[test]
    fn a_clock_that_goes_back_far_begins_anew_with_a_note() {
        let mut s = schedule("daily 02:30", "2026-11-01T12:00:00Z");
        let (run, skipped) = at(&mut s, "2031-11-02T12:00:00Z");
        assert!(run.is_some() && skipped.len() > 100);
        assert_eq!(at(&mut s, "2026-11-01T13:00:00Z"), (None, vec![("2026-11-01T13:00:00Z".to_owned(), SkipReason::ClockWentBack)]));
        assert_eq!(at(&mut s, "2026-11-01T13:00:01Z"), nothing());
        assert_eq!(at(&mut s, "2026-11-02T01:30:00Z"), ran("2026-11-02T01:30:00Z"));
    }

    #[test]
    fn a_clock_that_was_wrong_for_a_while_repeats_nothing() {
        let mut s = schedule("daily 02:30", "2026-11-01T12:00:00Z");
        assert_eq!(at(&mut s, "2026-11-02T01:30:00Z"), ran("2026-11-02T01:30:00Z"));
        // A battery is empty.
        assert_eq!(at(&mut s, "1970-01-01T00:00:09Z").1.len(), 1);
        assert_eq!(s.ahead, Some(moment("2026-11-02T01:30:00Z")));
        assert_eq!(at(&mut s, "1970-01-01T00:00:10Z"), nothing());
        let (run, skipped) = at(&mut s, "2026-11-04T12:00:00Z");
        assert_eq!(run.as_deref(), Some("2026-11-04T01:30:00Z"));
        assert_eq!(skipped, [("2026-11-03T01:30:00Z".to_owned(), SkipReason::Missed)]);
        assert_eq!(s.ahead, None);
    }

    #[test]
    fn clocks_of_the_zone_that_are_put_forward_and_back() {
        let mut s = schedule("daily 02:30", "2026-03-28T12:00:00Z");
        assert_eq!(at(&mut s, "2026-03-29T01:29:59Z"), nothing());
        assert_eq!(at(&mut s, "2026-03-29T01:30:00Z"), ran("2026-03-29T01:30:00Z"), "02:30 does not exist: 03:30");
        assert_eq!(at(&mut s, "2026-03-30T00:30:00Z"), ran("2026-03-30T00:30:00Z"));
        let mut s = schedule("daily 02:30", "2026-10-24T12:00:00Z");
        assert_eq!(at(&mut s, "2026-10-25T00:30:00Z"), ran("2026-10-25T00:30:00Z"), "the first 02:30");
        assert_eq!(at(&mut s, "2026-10-25T01:30:00Z"), nothing(), "the second 02:30");
        assert_eq!(at(&mut s, "2026-10-26T01:30:00Z"), ran("2026-10-26T01:30:00Z"));
    }

    #[test]
    fn delays_are_spread_and_repeatable() {
        let mut s = schedule("daily 02:30", "2026-11-01T12:00:00Z");
        assert_eq!(delay(&s, moment("2026-11-02T01:30:00Z")), 0);
        s.jitter_seconds = 600;
        let delays: Vec<i64> = (0..200).map(|day| delay(&s, s.created.plus_seconds(day * 86_400))).collect();
        assert!(delays.iter().all(|delay| (0..=600).contains(delay)));
        assert!(delays.iter().any(|delay| *delay < 100) && delays.iter().any(|delay| *delay > 500));
        assert_eq!(delay(&s, s.created), delays[0]);
        let other = Schedule { name: "weekly".parse().unwrap(), ..s.clone() };
        assert_ne!(delay(&other, s.created), delays[0]);
    }
}
