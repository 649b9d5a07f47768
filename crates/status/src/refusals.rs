//! Wrong tokens: how many came from where, and what the journal is told of them.
//!
//! Nobody guesses 256 bits. All the same nobody may try it five hundred times a second, and an administrator finds in the journal why somebody
//! gets nothing.

use crate::access::Peer;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Wrong tokens of one address in a minute.
const MOST: u32 = 60;
/// See above.
const MINUTE: Duration = Duration::from_secs(60);
/// The same is said again after so long.
pub const AGAIN: Duration = Duration::from_secs(600);
/// Addresses that are remembered, and good tokens.
const REMEMBERED: usize = 10_000;
/// Sentences in [`AGAIN`].
const SENTENCES: usize = 100;

/// What is remembered.
#[derive(Debug, Default)]
pub struct Refusals {
    /// Since when, and how many.
    of: Mutex<HashMap<Peer, (Instant, u32)>>,
    said: Mutex<HashMap<String, Instant>>,
    /// Digests of tokens that were good.
    familiar: Mutex<HashSet<[u8; 32]>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Refusals {
    /// One more from there.
    pub fn count(&self, from: Peer, now: Instant) {
        let mut all = locked(&self.of);
        if all.len() >= REMEMBERED {
            all.retain(|_, (since, _)| now.duration_since(*since) < MINUTE);
        }
        // So many at once are not one guesser; what is kept has a bound all the same.
        if all.len() >= REMEMBERED {
            all.clear();
        }
        let (since, count) = all.entry(from).or_insert((now, 0));
        if now.duration_since(*since) >= MINUTE {
            (*since, *count) = (now, 0);
        }
        *count += 1;
    }

    /// In how many seconds tokens from there are looked at again; None: now.
    #[must_use]
    pub fn barred(&self, from: Peer, now: Instant) -> Option<u32> {
        let all = locked(&self.of);
        let (since, count) = all.get(&from)?;
        let left = MINUTE.checked_sub(now.duration_since(*since))?;
        (*count >= MOST).then(|| u32::try_from(left.as_secs()).unwrap_or(0) + 1)
    }

    /// Whether this is to be said, because it was not said of late.
    #[must_use]
    pub fn is_news(&self, sentence: &str, now: Instant) -> bool {
        let mut said = locked(&self.said);
        said.retain(|_, when| now.duration_since(*when) < AGAIN);
        if said.len() >= SENTENCES || said.contains_key(sentence) {
            return false;
        }
        said.insert(sentence.to_owned(), now);
        true
    }

    /// A token was good.
    pub fn make_familiar(&self, token: &str) {
        let mut familiar = locked(&self.familiar);
        // Whoever is forgotten is looked up again.
        if familiar.len() >= REMEMBERED {
            familiar.clear();
        }
        familiar.insert(Sha256::digest(token).into());
    }

    /// Whether a token was good once.
    #[must_use]
    pub fn is_familiar(&self, token: &str) -> bool {
        let digest: [u8; 32] = Sha256::digest(token).into();
        locked(&self.familiar).contains(&digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_guesses_waits_and_others_do_not() {
        let (refusals, began) = (Refusals::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        let (bad, good) = (Peer::Address([192, 0, 2, 1].into()), Peer::Address([192, 0, 2, 2].into()));
        refusals.make_familiar("good");
        for second in 0..59 {
            refusals.count(bad, at(second));
        }
        assert_eq!(refusals.barred(bad, at(59)), None);
        refusals.count(bad, at(59));
        assert_eq!((refusals.barred(bad, at(59)), refusals.barred(good, at(59))), (Some(2), None));
        assert!(refusals.is_familiar("good") && !refusals.is_familiar("bad"));
        assert_eq!(refusals.barred(bad, at(61)), None);
        refusals.count(bad, at(61));
        assert_eq!(refusals.barred(bad, at(62)), None, "counted anew");
    }

    #[test]
    fn the_journal_is_told_now_and_then() {
        let (refusals, began) = (Refusals::default(), Instant::now());
        assert!(refusals.is_news("a", began) && !refusals.is_news("a", began) && refusals.is_news("b", began));
        assert!(refusals.is_news("a", began + AGAIN));
        let said = (0..1000).filter(|n| refusals.is_news(&n.to_string(), began + AGAIN)).count();
        assert!(said < SENTENCES, "{said}");
    }
}
