//! How often triggers may be used, and how often the log tells of those that were refused. Whoever knows an id, or tries some, may be
//! anybody. Pure.

use model::TriggerId;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// So many uses at once, and as many in a minute.
pub const BURST: u32 = 30;

/// One more after so long.
const EVERY: Duration = Duration::from_secs(2);

/// At most so often the log says that something is used too often.
const TELL: Duration = Duration::from_secs(60);

/// Ids that were used long ago are forgotten when there are more.
const KEPT: usize = 64;

/// Whether something goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// It does.
    Within,
    /// It does not, and the log is to have a line: so many were refused without one since the last.
    Told(u64),
    /// It does not, without a word.
    Untold,
}

#[derive(Debug, Default)]
struct Bucket {
    /// When it would be as if it had never been used.
    empty_at: Option<Instant>,
    told_at: Option<Instant>,
    untold: u64,
}

impl Bucket {
    fn take(&mut self, now: Instant) -> Rate {
        let empty_at = self.empty_at.map_or(now, |at| at.max(now));
        if empty_at - now <= EVERY * (BURST - 1) {
            self.empty_at = Some(empty_at + EVERY);
            return Rate::Within;
        }
        if self.told_at.is_some_and(|at| now < at + TELL) {
            self.untold += 1;
            return Rate::Untold;
        }
        self.told_at = Some(now);
        Rate::Told(std::mem::take(&mut self.untold))
    }

    fn is_forgotten(&self, now: Instant) -> bool {
        self.empty_at.is_none_or(|at| at < now) && self.told_at.is_none_or(|at| at + TELL < now)
    }
}

/// What is remembered of triggers. It need not outlive a restart.
#[derive(Debug, Default)]
pub struct Rates {
    triggers: BTreeMap<TriggerId, Bucket>,
    unknown: Bucket,
    wrong_credentials: Bucket,
}

impl Rates {
    /// A trigger that there is, is used.
    pub fn of(&mut self, id: &TriggerId, now: Instant) -> Rate {
        if self.triggers.len() > KEPT {
            self.triggers.retain(|_, bucket| !bucket.is_forgotten(now));
        }
        self.triggers.entry(id.clone()).or_default().take(now)
    }

    /// One that there is not. All of them together, for ids can be made up.
    pub fn of_unknown(&mut self, now: Instant) -> Rate {
        self.unknown.take(now)
    }

    /// A credential that is nobody's. It limits the lines of the log; a token has so many bits that trying more of them leads nowhere.
    pub fn of_wrong_credential(&mut self, now: Instant) -> Rate {
        self.wrong_credentials.take(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_bounded_and_told_once_a_minute() {
        let (mut rates, begin) = (Rates::default(), Instant::now());
        let id = TriggerId::from_random([1; 16]);
        let within = (0..1000).filter(|_| rates.of(&id, begin) == Rate::Within).count();
        assert_eq!(within, BURST as usize);
        // Others are no matter of its.
        assert_eq!(rates.of(&TriggerId::from_random([2; 16]), begin), Rate::Within);
        assert_eq!(rates.of_unknown(begin), Rate::Within);
        // Refused for ten minutes, every half second: so many lines.
        let all: Vec<Rate> = (1..=1200).map(|n| rates.of(&id, begin + Duration::from_millis(500) * n)).collect();
        let count = |wanted: fn(&Rate) -> bool| all.iter().filter(|rate| wanted(rate)).count();
        assert_eq!(count(|rate| *rate == Rate::Within), 300);
        assert!((9..=10).contains(&count(|rate| matches!(rate, Rate::Told(_)))));
        assert!(all.iter().any(|rate| matches!(rate, Rate::Told(untold) if *untold > 80)), "{all:?}");
        // After a rest it is as ever.
        let later = begin + Duration::from_secs(3600);
        assert_eq!((0..1000).filter(|_| rates.of(&id, later) == Rate::Within).count(), BURST as usize);
    }

    #[test]
    fn ids_that_are_used_no_more_are_forgotten() {
        let (mut rates, begin) = (Rates::default(), Instant::now());
        for n in 0..=255 {
            let at = begin + Duration::from_secs(600 * u64::from(n));
            assert_eq!(rates.of(&TriggerId::from_random([n; 16]), at), Rate::Within);
        }
        assert!(rates.triggers.len() <= KEPT + 1);
    }
}
