//! How long to wait before something that ended is started again.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(30);
/// What ran this long was healthy; its next start is again the first.
const HEALTHY: Duration = Duration::from_secs(60);

/// Doubles from start to start until one lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// It ended by failure after `ran`: how long to wait.
    pub fn failed(&mut self, ran: Duration) -> Duration {
        if ran >= HEALTHY {
            self.failures = 0;
        }
        let wait = FIRST.saturating_mul(2u32.saturating_pow(self.failures.min(16)));
        self.failures += 1;
        wait.min(LONGEST)
    }

    /// It ended well.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Failures in a row.
    pub fn failures(self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_start_over_after_health() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..10).map(|_| backoff.failed(Duration::ZERO).as_millis()).collect();
        assert_eq!(waits, [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]);
        assert_eq!(backoff.failed(HEALTHY), FIRST);
        assert_eq!(backoff.failures(), 1);
        backoff.succeeded();
        assert_eq!(backoff.failed(Duration::ZERO), FIRST);
    }
}
