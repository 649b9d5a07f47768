//! How a worker is brought to its end: asked, then told, then killed. Pure; the present moment is an argument.

use std::time::{Duration, Instant};

/// From SIGTERM to SIGKILL.
pub const TO_KILL: Duration = Duration::from_secs(10);

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// SIGTERM to the process group.
    Terminate,
    /// SIGKILL to the process group.
    Kill,
}

/// The next step towards the end of one worker, if it is on its way there.
#[derive(Debug, Default)]
pub struct Ending {
    next: Option<(Step, Instant)>,
    killed: bool,
}

impl Ending {
    /// It is to end by itself before `deadline`. A later deadline than one already set changes nothing.
    pub fn expect_by(&mut self, deadline: Instant) {
        if !self.killed && self.next.is_none_or(|(step, at)| step == Step::Terminate && deadline < at) {
            self.next = Some((Step::Terminate, deadline));
        }
    }

    /// When [`Ending::due`] has something to say.
    pub fn deadline(&self) -> Option<Instant> {
        self.next.map(|(_, at)| at)
    }

    /// What is due now; each step once.
    pub fn due(&mut self, now: Instant) -> Option<Step> {
        let (step, _) = self.next.filter(|(_, at)| *at <= now)?;
        self.next = match step {
            Step::Terminate => Some((Step::Kill, now + TO_KILL)),
            Step::Kill => None,
        };
        self.killed = step == Step::Kill;
        Some(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asked_told_killed() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut ending = Ending::default();
        assert_eq!(ending.deadline(), None);
        assert_eq!(ending.due(start), None);
        ending.expect_by(start + 90 * second);
        assert_eq!(ending.due(start + 89 * second), None);
        assert_eq!(ending.due(start + 90 * second), Some(Step::Terminate));
        assert_eq!(ending.due(start + 90 * second), None);
        // Whoever asks again does not grant more time.
        ending.expect_by(start + 500 * second);
        assert_eq!(ending.due(start + 100 * second), Some(Step::Kill));
        assert_eq!(ending.deadline(), None);
        ending.expect_by(start);
        assert_eq!(ending.deadline(), None);
    }

    #[test]
    fn the_earliest_deadline_counts() {
        let start = Instant::now();
        let mut ending = Ending::default();
        ending.expect_by(start + Duration::from_secs(90));
        ending.expect_by(start + Duration::from_secs(5));
        ending.expect_by(start + Duration::from_secs(50));
        assert_eq!(ending.deadline(), Some(start + Duration::from_secs(5)));
    }
}
