//! The queue daemon: always there, and again when it ended.

use super::backoff::Backoff;
use super::programs::Programs;
use crate::error::Result;
use std::os::unix::net::UnixListener;
use std::time::Instant;
use unix::Signal;
use unix::paths::Layout;
use unix::pidfd::ExitStatus;
use unix::spawn::Child;

/// The control socket and the daemon behind it. The socket stays open while the daemon is replaced: callers wait instead of failing.
#[derive(Debug)]
pub struct Borgcubed {
    listener: UnixListener,
    /// The running daemon.
    pub child: Option<Child>,
    started: Instant,
    backoff: Backoff,
    /// When it is to be started again.
    pub start_at: Option<Instant>,
}

impl Borgcubed {
    /// Listens and starts it.
    pub fn start(layout: &Layout, programs: &Programs) -> Result<Borgcubed> {
        let listener = unix::socket::listen(&layout.control_socket(), 0o600)?;
        let child = Some(programs.borgcubed(&listener)?);
        Ok(Borgcubed { listener, child, started: Instant::now(), backoff: Backoff::default(), start_at: None })
    }

    /// Starts it again.
    pub fn restart(&mut self, programs: &Programs) {
        self.started = Instant::now();
        self.start_at = None;
        match programs.borgcubed(&self.listener) {
            Ok(child) => self.child = Some(child),
            Err(error) => {
                log::error!("borgcubed does not start: {}", error.message());
                self.rest();
            }
        }
    }

    /// It has ended although nobody wanted that.
    pub fn ended(&mut self, status: ExitStatus) {
        self.child = None;
        log::error!("borgcubed {status}; it is started again");
        self.rest();
    }

    fn rest(&mut self) {
        self.start_at = Some(Instant::now() + self.backoff.failed(self.started.elapsed()));
    }

    /// Asks it to end; false if it does not run.
    pub fn signal(&self, signal: Signal) -> bool {
        match self.child.as_ref().map(|child| child.pidfd.signal(signal)) {
            Some(Ok(lives)) => lives,
            Some(Err(error)) => {
                log::error!("borgcubed: {error}");
                false
            }
            None => false,
        }
    }
}
