//! How long a client may take. While its borg runs the session has limits of its own; before and after, and for what only holds its
//! streams open, these are all there are.

use model::JobState;
use std::time::{Duration, Instant};

/// A century.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// What a job allows its client, and since when it is where it is.
pub struct Patience {
    start: Duration,
    /// What commands of the config may take before borg's begin and after its end.
    more: (Duration, Duration),
    total: Duration,
    began: Instant,
    state: (JobState, Instant),
}

impl Patience {
    /// `start`: until borg has begun, and from its end to the client's; `total`: for everything.
    pub fn new(start: u64, total: u64, now: Instant) -> Patience {
        let (start, total) = (Duration::from_secs(start), Duration::from_secs(total));
        Patience { start, more: (Duration::ZERO, Duration::ZERO), total, began: now, state: (JobState::JobCreated, now) }
    }

    /// The client begins anew: each of its spans does as well, and all of it together does not.
    pub fn begin_again(&mut self, now: Instant) {
        self.state = (JobState::JobCreated, now);
    }

    /// When everything is to be over.
    pub fn end(&self) -> Instant {
        // Who asks for more than there can be has no limit.
        self.began.checked_add(self.total).unwrap_or_else(|| self.began + FOREVER)
    }

    /// Commands of the config have limits of their own: so many seconds before borg's begin, and after its end.
    pub fn allow(&mut self, before: u64, after: u64) {
        self.more = (Duration::from_secs(before), Duration::from_secs(after));
    }

    /// What a client that was asked to end needs for its commands.
    pub fn beyond(&self) -> Duration {
        self.more.1
    }

    /// A sentence, when the client has taken too long. To be asked now and then.
    pub fn over(&mut self, state: JobState, now: Instant) -> Option<String> {
        if self.state.0 != state {
            // Everything before borg's begin is one span, and so is everything behind its end.
            let same = phase(self.state.0) == phase(state);
            self.state = (state, if same { self.state.1 } else { now });
        }
        let since = now.saturating_duration_since(self.state.1);
        match phase(state) {
            Phase::Before if since >= self.start.saturating_add(self.more.0) => {
                let hooks = if self.more.0.is_zero() { "" } else { ", besides its hooks" };
                Some(format!("borg has not begun on the client after {} seconds (start-seconds){hooks}", self.start.as_secs()))
            }
            Phase::After if since >= self.start.saturating_add(self.more.1) => {
                Some(format!("the client goes on {} seconds after the end of its borg (start-seconds)", self.start.as_secs()))
            }
            _ if now.saturating_duration_since(self.began) >= self.total.saturating_add(self.start) => {
                Some(format!("the client takes longer than {} seconds in all (total-seconds)", self.total.as_secs()))
            }
            _ => None,
        }
    }
}

#[derive(PartialEq)]
enum Phase {
    Before,
    During,
    After,
}

fn phase(state: JobState) -> Phase {
    if state < JobState::ClientInProgress {
        Phase::Before
    } else if state == JobState::ClientInProgress {
        Phase::During
    } else {
        Phase::After
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_span_has_its_limit() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut patience = Patience::new(10, 100, began);
        assert_eq!(patience.over(JobState::ClientPreparing, at(9)), None);
        // Another state of the same span gives no more time.
        assert!(patience.over(JobState::ClientPrepared, at(10)).unwrap().contains("has not begun"));
        assert_eq!(patience.over(JobState::ClientInProgress, at(11)), None);
        assert_eq!(patience.over(JobState::ClientInProgress, at(99)), None);
        assert_eq!(patience.over(JobState::ClientDone, at(100)), None);
        assert!(patience.over(JobState::ClientDone, at(110)).is_some_and(|why| why.contains("in all") || why.contains("goes on")));

        let mut patience = Patience::new(10, 100, began);
        assert_eq!(patience.over(JobState::ClientInProgress, at(109)), None);
        assert!(patience.over(JobState::ClientInProgress, at(110)).unwrap().contains("in all"));
        // One that begins anew has no more time in all.
        let mut patience = Patience::new(10, 100, began);
        assert_eq!(patience.over(JobState::ClientInProgress, at(90)), None);
        patience.begin_again(at(95));
        assert_eq!(patience.over(JobState::ClientPreparing, at(104)), None);
        assert!(patience.over(JobState::ClientPreparing, at(105)).unwrap().contains("has not begun"));
        assert!(patience.over(JobState::ClientInProgress, at(110)).unwrap().contains("in all"));
        assert_eq!(patience.end(), at(100));
        let mut patience = Patience::new(10, 100, began);
        assert_eq!(patience.over(JobState::ClientDone, at(1)), None);
        assert!(patience.over(JobState::ClientCleanup, at(11)).unwrap().contains("goes on"));
    }
}
