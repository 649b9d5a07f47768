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
    /// The connections of running sessions, by job.
    streams: Mutex<HashMap<u64, UnixStream>>,
}

impl Opening {
    /// An opening without sessions.
    pub fn new(id: RepositoryId, key: Key, nonces: Nonces, known: Known) -> Opening {
        Opening { id, key, nonces, known: Mutex::new(known), failure: OnceLock::new(), streams: Mutex::default() }
    }

    /// The objects. Locked before the jobs, if both are needed.
    pub fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why this opening is over, if it is over by a failure.
    pub fn failure(&self) -> Option<Failure> {
        self.failure.get().cloned()
    }

    /// Ends this opening for everybody: sessions read the end of their connections and find the reason here. The first reason counts.
    pub fn fail(&self, failure: Failure) {
        log::warn!("the repository is given up until the next backup: {}", failure.line());
        self.failure.get_or_init(|| failure);
        for stream in self.streams.lock().unwrap_or_else(PoisonError::into_inner).values() {
            end(stream);
        }
    }

    /// A session begins. False if the opening is over already.
    pub fn enter(&self, job: u64, stream: UnixStream) -> bool {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).insert(job, stream);
        // In this order, or a failure in between would miss the new one.
        self.failure.get().is_none()
    }

    /// A session ended.
    pub fn leave(&self, job: u64) {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).remove(&job);
    }

    /// Ends the connection of one job's session.
    pub fn end_session(&self, job: u64) {
        if let Some(stream) = self.streams.lock().unwrap_or_else(PoisonError::into_inner).get(&job) {
            end(stream);
        }
    }
}

/// Its reading thread gets the end; what it still has to say can be written.
fn end(stream: &UnixStream) {
    if let Err(e) = stream.shutdown(Shutdown::Read) {
        log::debug!("a session was gone already: {e}");
    }
}
