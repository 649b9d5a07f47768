//! One repository: its listening socket, and its owner while there is one. The first connection starts it.

use super::backoff::Backoff;
use super::programs::Programs;
use crate::error::Result;
use model::RepositoryName;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};
use unix::paths::Layout;
use unix::pidfd::ExitStatus;
use unix::poll::{Interest, poll};
use unix::spawn::Child;

/// So often in a row a start may fail before those who wait are sent away; they can tell their person then.
const PATIENT_FOR: u32 = 3;

/// A repository's socket and owner.
#[derive(Debug)]
pub struct Owner {
    name: RepositoryName,
    listener: UnixListener,
    /// The running owner.
    pub child: Option<Child>,
    started: Instant,
    backoff: Backoff,
    /// Not to be started before.
    rest_until: Option<Instant>,
}

impl Owner {
    /// Listens.
    pub fn listen(name: &RepositoryName, layout: &Layout) -> Result<Owner> {
        let listener = unix::socket::listen(&layout.repository_socket(name.as_str()), 0o600)?;
        Ok(Owner { name: name.clone(), listener, child: None, started: Instant::now(), backoff: Backoff::default(), rest_until: None })
    }

    /// The socket, while connections to it are our business.
    pub fn awaits(&self, now: Instant) -> Option<&UnixListener> {
        let rests = self.rest_until.is_some_and(|until| until > now);
        (self.child.is_none() && !rests).then_some(&self.listener)
    }

    /// When a rest ends.
    pub fn rest_ends(&self) -> Option<Instant> {
        self.rest_until.filter(|_| self.child.is_none())
    }

    /// Somebody connected: starts the owner.
    pub fn wanted(&mut self, programs: &Programs, layout: &Layout) {
        self.started = Instant::now();
        self.rest_until = None;
        match programs.owner(self.name.as_str(), &self.listener, layout) {
            Ok(child) => {
                log::debug!("owner of {} started as process {}", self.name, child.pid);
                self.child = Some(child);
            }
            Err(error) => {
                log::error!("the owner of {} does not start: {}", self.name, error.message());
                self.rest();
            }
        }
    }

    /// The owner has ended; the next connection starts another.
    pub fn ended(&mut self, status: ExitStatus) {
        self.child = None;
        if status.success() {
            self.backoff.succeeded();
        } else {
            log::warn!("the owner of {} {status}", self.name);
            self.rest();
        }
    }

    fn rest(&mut self) {
        let wait = self.backoff.failed(self.started.elapsed());
        self.rest_until = Some(Instant::now() + wait);
        if self.backoff.failures() >= PATIENT_FOR {
            self.send_away();
        }
    }

    /// Closes the connections that wait. Nobody else accepts here now.
    fn send_away(&self) {
        while poll(&[(self.listener.as_fd(), Interest::Read)], Some(Duration::ZERO)).is_ok_and(|r| r[0].readable) {
            if self.listener.accept().is_err() {
                return;
            }
        }
    }
}
