//! What a repository takes up, day by day.

use crate::names::RepositoryName;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// What a repository took up at the end of a day, or takes up now. Measured by its owner, of what was committed; the formulas are those of
/// `repository::Usage`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// The repository.
    pub repository: RepositoryName,
    /// When it was measured.
    pub time: Timestamp,
    /// Bytes of all segment files.
    pub segments: u64,
    /// Of them, bytes that a compaction could free.
    pub freeable: u64,
    /// Bytes of all chunks, compressed and encrypted, each counted once: in unencrypted repositories `unique_csize` of `borg info`, in others a little
    /// more (docs/status.md).
    pub unique: u64,
    /// How many chunks these are.
    pub chunks: u64,
}

impl Space {
    /// So many days each have an entry.
    pub const DAYS: u64 = 1000;

    /// Of older ones one a week stays, for so many days.
    pub const WEEKS: u64 = 3653;

    /// The day it is of: days since 1970 in UTC, which no change of a zone turns back.
    #[must_use]
    pub fn day(&self) -> u64 {
        day(self.time)
    }

    /// Whether two measurements say the same.
    #[must_use]
    pub fn is_as(&self, other: &Space) -> bool {
        Space { time: other.time, ..self.clone() } == *other
    }

    /// With more entries of the future than that, it is the present clock that is wrong.
    const FUTURE: usize = 7;

    /// Which of these days go, sorted as they are, when an entry of `today` comes: see [`Space::DAYS`] and [`Space::WEEKS`]. A few entries of the
    /// future are of a clock that was wrong. None: the clock is wrong now, and nothing is to be kept by it.
    #[must_use]
    pub fn outdated(days: &[u64], today: u64) -> Option<Vec<u64>> {
        if days.iter().filter(|day| **day > today).count() > Space::FUTURE {
            return None;
        }
        // So long without any measurement: nothing is thinned by a clock that may have run ahead.
        if days.last().is_some_and(|last| *last + Space::DAYS < today) {
            return Some(vec![]);
        }
        let age = |day: u64| today.saturating_sub(day);
        let is_last_of_week = |at: usize, day: u64| days.get(at + 1).is_none_or(|next| next / 7 != day / 7);
        let goes = |(at, day): (usize, &u64)| {
            let goes = *day > today || age(*day) > Space::WEEKS || age(*day) > Space::DAYS && !is_last_of_week(at, *day);
            goes.then_some(*day)
        };
        Some(days.iter().enumerate().filter_map(goes).collect())
    }
}

/// Days since 1970 in UTC.
#[must_use]
pub fn day(moment: Timestamp) -> u64 {
    u64::try_from(moment.0).unwrap_or(0) / 86_400_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_each_then_a_week_each_and_never_more() {
        let mut days: Vec<u64> = vec![];
        for today in 20_000..26_000 {
            let outdated = Space::outdated(&days, today).unwrap();
            days.retain(|day| !outdated.contains(day));
            days.push(today);
            assert!(days.len() < 1400, "{}", days.len());
        }
        let today = 25_999;
        for age in 0..=Space::DAYS {
            assert!(days.contains(&(today - age)), "{age}");
        }
        let old: Vec<u64> = days.iter().copied().filter(|day| today - day > Space::DAYS).collect();
        // Its last day stands for a week.
        assert!(old.windows(2).all(|pair| pair[1] - pair[0] == 7), "{old:?}");
        assert!(old.len() > 370 && today - old[0] <= Space::WEEKS + 1, "{old:?}");
        assert_eq!(Space::outdated(&[5, 9, 12], 9), Some(vec![12]));
        // Nobody loses a history to a clock that begins in 1970, or far ahead.
        assert_eq!(Space::outdated(&days, 0), None);
        assert_eq!(Space::outdated(&days, days[days.len() - 31]), None);
        assert_eq!(Space::outdated(&days, today + 5000), Some(vec![]));
        assert_eq!(day(Timestamp(-5)), 0);
        assert_eq!(day(Timestamp(86_400_000_000 * 3)), 3);
    }
}
