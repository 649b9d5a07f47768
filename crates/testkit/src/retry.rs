//! Waiting for what happens soon, without sleeping longer than needed.

use std::time::{Duration, Instant};

/// Calls `attempt` until it gives a value or `limit` has passed; `None` is the latter.
///
/// It is called at least once, and once more after the last wait, so that a slow machine gets its fair chance.
pub fn retry_until<T>(limit: Duration, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(5);
    loop {
        let late = Instant::now() >= deadline;
        if let Some(value) = attempt() {
            return Some(value);
        }
        if late {
            return None;
        }
        std::thread::sleep(pause.min(deadline.saturating_duration_since(Instant::now())));
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_first_value() {
        let mut calls = 0;
        let value = retry_until(Duration::from_secs(5), || {
            calls += 1;
            (calls == 3).then_some(calls)
        });
        assert_eq!(value, Some(3));
    }

    #[test]
    fn ends_when_nothing_comes() {
        let begin = Instant::now();
        assert_eq!(retry_until(Duration::from_millis(60), || None::<()>), None);
        assert!(begin.elapsed() >= Duration::from_millis(60));
    }

    #[test]
    fn tries_once_even_without_time() {
        assert_eq!(retry_until(Duration::ZERO, || Some(1)), Some(1));
    }
}
