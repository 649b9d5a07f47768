//! Whether the thread that has the repository lives: it says so at every step. What may take as long as it takes (opening a repository whose index has to be
//! built, maintenance, a repository that is lent) it announces.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Signs of life.
#[derive(Debug)]
pub struct Pulse {
    begin: Instant,
    /// Milliseconds since the beginning.
    last: AtomicU64,
    long: AtomicBool,
}

impl Default for Pulse {
    fn default() -> Pulse {
        Pulse { begin: Instant::now(), last: AtomicU64::new(0), long: AtomicBool::new(false) }
    }
}

impl Pulse {
    fn now(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A step begins; a long one has no time limit.
    pub fn step(&self, long: bool) {
        self.last.store(self.now(), Ordering::SeqCst);
        self.long.store(long, Ordering::SeqCst);
    }

    /// Whether the last sign of life is younger than `limit`, or nothing is to be expected.
    pub fn beats(&self, limit: Duration) -> bool {
        let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        self.long.load(Ordering::SeqCst) || self.now().saturating_sub(self.last.load(Ordering::SeqCst)) < limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_hangs_is_seen_unless_it_has_announced_it() {
        let (short, long) = (Duration::from_millis(50), Duration::from_secs(60));
        let pulse = Pulse::default();
        pulse.step(false);
        assert!(pulse.beats(long));
        std::thread::sleep(Duration::from_millis(60));
        assert!(!pulse.beats(short) && pulse.beats(long));
        pulse.step(true);
        std::thread::sleep(Duration::from_millis(60));
        assert!(pulse.beats(short));
        pulse.step(false);
        assert!(pulse.beats(short));
    }
}
