//! The scheduler's loop: the queue daemon's faithful companion, and again when it ended.

use super::backoff::Backoff;
use super::programs::Programs;
use std::time::Instant;
use unix::Signal;
use unix::pidfd::ExitStatus;
use unix::spawn::Child;

/// The running scheduler, or when there is one again.
#[derive(Debug)]
pub struct Scheduler {
    /// The process.
    pub child: Option<Child>,
    started: Instant,
    backoff: Backoff,
    /// When it is to be started.
    pub start_at: Option<Instant>,
}

impl Scheduler {
    /// Not started yet: it needs the database that the queue daemon makes.
    pub fn new() -> Scheduler {
        Scheduler { child: None, started: Instant::now(), backoff: Backoff::default(), start_at: None }
    }

    /// Starts it.
    pub fn start(&mut self, programs: &Programs) {
        self.started = Instant::now();
        self.start_at = None;
        match programs.scheduler() {
            Ok(child) => self.child = Some(child),
            Err(error) => {
                log::error!("schedules do not run: borgcube-scheduler does not start: {}", error.message());
                self.rest();
            }
        }
    }

    /// It has ended although nobody wanted that.
    pub fn ended(&mut self, status: ExitStatus) {
        self.child = None;
        log::error!("borgcube-scheduler {status}; it is started again");
        self.rest();
    }

    fn rest(&mut self) {
        self.start_at = Some(Instant::now() + self.backoff.failed(self.started.elapsed()));
    }

    /// Ends it, by this signal. It has nothing to lose: each of its transactions is whole.
    pub fn signal(&mut self, signal: Signal) {
        self.start_at = None;
        if let Some(Err(error)) = self.child.as_ref().map(|child| child.pidfd.signal(signal)) {
            log::error!("borgcube-scheduler: {error}");
        }
    }
}
