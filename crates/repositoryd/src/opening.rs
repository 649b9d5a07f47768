//! What all threads share while the repository is open, from its opening to its closing.

use crate::known::Known;
use crate::nonces::Nonces;
use borg::{Key, RepositoryId};
use model::Failure;
use std::collections::HashMap;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// One opening. As long as anybody but the writer holds it, the repository is in use.
pub struct Opening {
    /// The repository's id.
    pub id: RepositoryId,
    /// The real key.
    pub key: Key,
    /// Nonces under that key.
    pub nonces: Nonces,
    known: Mutex<Known>,
    failure: OnceLock<Failure>,
    /// How to reach the threads of running sessions, by job.
    lines: Mutex<HashMap<u64, Line>>,
}

/// To one session's thread.
pub struct Line {
    /// The other end of what the thread listens to besides its connection.
    pub bell: UnixStream,
    /// Its connection, for when it does not listen.
    pub connection: UnixStream,
}

impl Opening {
    /// An opening without sessions.
    pub fn new(id: RepositoryId, key: Key, nonces: Nonces, known: Known) -> Opening {
        Opening { id, key, nonces, known: Mutex::new(known), failure: OnceLock::new(), lines: Mutex::default() }
    }

    /// The objects. Locked before the jobs, if both are needed.
    pub fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why this opening is over, if it is over by a failure.
    pub fn failure(&self) -> Option<Failure> {
        self.failure.get().cloned()
    }

    /// Ends this opening for everybody: the threads of its sessions are called, and find the reason here. The first reason counts.
    pub fn fail(&self, failure: Failure) {
        log::warn!("the repository is given up until the next backup: {}", failure.line());
        self.failure.get_or_init(|| failure);
        self.lines().values().for_each(|line| end(&line.bell));
    }

    /// A session begins. False if the opening is over already.
    pub fn enter(&self, job: u64, line: Line) -> bool {
        self.lines().insert(job, line);
        // In this order, or a failure in between would miss the new one.
        self.failure.get().is_none()
    }

    /// A session ended.
    pub fn leave(&self, job: u64) {
        self.lines().remove(&job);
    }

    /// Asks one job's session to end.
    pub fn end_session(&self, job: u64) {
        if let Some(line) = self.lines().get(&job) {
            end(&line.bell);
        }
    }

    /// Ends one job's session, in the middle of a frame if need be.
    pub fn cut_session(&self, job: u64) {
        if let Some(line) = self.lines().get(&job) {
            end(&line.bell);
            end(&line.connection);
        }
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<u64, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn end(stream: &UnixStream) {
    if let Err(e) = stream.shutdown(Shutdown::Both) {
        log::debug!("a session was gone already: {e}");
    }
}
