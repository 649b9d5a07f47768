//! What all threads share while the repository is open, from its opening to its closing.

use crate::failures::{of_repository, of_state};
use crate::known::{Known, Seen};
use crate::nonces::Nonces;
use borg::{Id, Key, RepositoryId};
use model::Failure;
use repository::{Entry, Reader};
use std::collections::HashMap;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

/// One opening. As long as anybody but the writer holds it, the repository is in use.
pub struct Opening {
    /// The repository's id.
    pub id: RepositoryId,
    /// The real key.
    pub key: Key,
    /// Nonces under that key.
    pub nonces: Nonces,
    known: Mutex<Known>,
    epoch: Arc<AtomicU64>,
    reader: RwLock<Option<Reader>>,
    failure: OnceLock<Failure>,
    /// How to reach the threads of running sessions, by job.
    lines: Mutex<HashMap<u64, Line>>,
    /// Who writes down what is damaged.
    saving: Mutex<()>,
}

/// How many entries of an index are read in order in the time that one is looked up.
const WORTH_READING_ALL: u64 = 16;

/// Goes through the index once, beside those who are asked for in its order.
pub struct Sweep {
    epoch: u64,
    ids: Box<dyn Iterator<Item = repository::Result<(Id, Entry)>>>,
    next: Option<Id>,
}

impl Sweep {
    fn new(epoch: u64, reader: &Reader) -> repository::Result<Sweep> {
        let mut sweep = Sweep { epoch, ids: Box::new(reader.ids()?), next: None };
        sweep.step()?;
        Ok(sweep)
    }

    fn step(&mut self) -> repository::Result<()> {
        self.next = self.ids.next().transpose()?.map(|(id, _)| id);
        Ok(())
    }

    /// Whether the index has it. No id is smaller than the one before.
    pub fn has(&mut self, id: &Id) -> repository::Result<bool> {
        while self.next.as_ref().is_some_and(|next| next < id) {
            self.step()?;
        }
        Ok(self.next.as_ref() == Some(id))
    }

    /// The same, as of when this began.
    pub fn see(&mut self, id: &Id) -> repository::Result<Seen> {
        Ok(Known::seen(self.epoch, self.has(id)?))
    }
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
    pub fn new(id: RepositoryId, key: Key, nonces: Nonces, known: Known, reader: Option<Reader>) -> Opening {
        let epoch = known.epoch();
        let (known, reader) = (Mutex::new(known), RwLock::new(reader));
        Opening { id, key, nonces, known, epoch, reader, failure: OnceLock::new(), lines: Mutex::default(), saving: Mutex::default() }
    }

    /// The repository was closed, and is open again.
    pub fn reopened(&self, known: Known, reader: Option<Reader>) {
        *self.reader.write().unwrap_or_else(PoisonError::into_inner) = reader;
        self.known().reopened(known);
    }

    /// What reads beside the writer, if the repository has that.
    pub fn reader(&self) -> Option<Reader> {
        self.reader.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks the index, while nobody waits for it: the slow part of [`Known::claim`].
    pub fn see(&self, id: &Id) -> Result<Option<Seen>, Failure> {
        match &*self.reader.read().unwrap_or_else(PoisonError::into_inner) {
            Some(reader) => Known::see(&self.epoch, reader, id).map(Some).map_err(|e| of_repository(&e)),
            None => Ok(None),
        }
    }

    /// For looking at so many objects in the order of their ids; None where they are too few for that, or there is no index.
    pub fn sweep(&self, objects: usize) -> Result<Option<Sweep>, Failure> {
        let epoch = self.epoch.load(Ordering::Acquire);
        let Some(reader) = self.reader() else { return Ok(None) };
        if (objects as u64).saturating_mul(WORTH_READING_ALL) <= reader.count() {
            return Ok(None);
        }
        Sweep::new(epoch, &reader).map(Some).map_err(|e| of_repository(&e))
    }

    /// Whether it is there, and belongs to archives.
    pub fn stays(&self, id: &Id) -> Result<bool, Failure> {
        let seen = self.see(id)?;
        let known = self.known();
        Ok(!known.is_fresh(id) && known.contains_seen(id, seen).map_err(|e| of_repository(&e))?)
    }

    /// What reads this object beside the writer. None if only the writer can tell: what was damaged is sent again, and as long as that is queued
    /// there is nothing but the damaged copy to be read; or the repository is served.
    pub fn reader_of(&self, id: &Id) -> Option<Reader> {
        if self.known().is_sent_again(id) { None } else { self.reader() }
    }

    /// An envelope, beside the writer. None if only the writer can tell: it is still on its way, or see [`Opening::reader_of`].
    pub fn read(&self, id: &Id) -> Result<Option<Vec<u8>>, Failure> {
        match self.reader_of(id) {
            Some(reader) => reader.get(id).map_err(|e| of_repository(&e)),
            None => Ok(None),
        }
    }

    /// The objects. Locked before the jobs, if both are needed.
    pub fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down which objects are damaged, without keeping anybody from asking meanwhile.
    pub fn save_spoiled(&self) -> Result<(), Failure> {
        let _alone = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let spoiled = self.known().spoiled().clone();
        spoiled.save().map_err(|e| of_state(&e))
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
