//! The jobs that have a session, from Prepare to Finish.

use crate::known::Claimant;
use crate::opening::Opening;
use crate::restore::Source;
use crate::sent::{Sent, SentTable};
use crate::view::View;
use borg::Id;
use model::progress::SessionCounters;
use model::{Archive, ClientName, Failure, Label, Timestamp};
use repository::IdSet;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use wire::session::{Opened, Outcome, Reference, Served};

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nobody came with the token yet.
    Prepared,
    /// A client is connected.
    Running,
    /// It is over.
    Ended,
}

/// What changes while a session runs.
#[derive(Debug)]
pub struct Progress {
    /// Where it stands.
    pub phase: Phase,
    /// The complete archive.
    pub archive: Option<Archive>,
    /// The newest checkpoint.
    pub checkpoint: Option<Archive>,
    /// Why it ended early; the first reason counts.
    pub failure: Option<Failure>,
    /// What it counted.
    pub counters: SessionCounters,
    /// Whether a client ever came.
    pub opened: bool,
}

/// One job.
pub struct Job {
    /// Its number.
    pub number: u64,
    /// Whose data.
    pub client: ClientName,
    /// The config's label.
    pub label: Label,
    /// The archive that it may make, or reads.
    pub archive_name: String,
    /// What the archive records as its command.
    pub cmdline: Vec<String>,
    /// When it began.
    pub start: Timestamp,
    /// The opening it belongs to.
    pub opening: Arc<Opening>,
    /// What the client may refer to without sending it.
    pub view: View,
    /// What the session is told.
    pub opened: Opened,
    /// What it reads, if it is a restore.
    pub source: Option<Source>,
    sent: Mutex<SentTable>,
    relied: Mutex<IdSet>,
    progress: Mutex<Progress>,
    changed: Condvar,
    released: AtomicBool,
    inside: AtomicBool,
}

/// What a job is made of, for [`Job::new`].
pub struct Parts {
    /// See [`Job`].
    pub client: ClientName,
    /// See [`Job`].
    pub label: Label,
    /// See [`Job`].
    pub cmdline: Vec<String>,
    /// See [`Job`].
    pub start: Timestamp,
    /// See [`Job`].
    pub opening: Arc<Opening>,
    /// See [`Job`].
    pub view: View,
    /// See [`Job`].
    pub opened: Opened,
    /// See [`Job`].
    pub source: Option<Source>,
    /// Where what it sends is remembered, if that is too much for memory.
    pub scratch: PathBuf,
}

impl Job {
    /// A prepared one.
    pub fn new(parts: Parts) -> Job {
        let Parts { client, label, cmdline, start, opening, view, opened, source, scratch } = parts;
        let progress = Progress {
            phase: Phase::Prepared,
            archive: None,
            checkpoint: None,
            failure: None,
            counters: SessionCounters::default(),
            opened: false,
        };
        Job {
            number: opened.job,
            archive_name: opened.archive_name.clone(),
            client,
            label,
            cmdline,
            start,
            opening,
            view,
            opened,
            source,
            sent: Mutex::new(SentTable::new(&scratch)),
            relied: Mutex::default(),
            progress: Mutex::new(progress),
            changed: Condvar::new(),
            released: AtomicBool::new(false),
            inside: AtomicBool::new(false),
        }
    }

    /// One whose beginning another process of this owner has seen.
    pub fn inherited(
        parts: Parts,
        sent: impl IntoIterator<Item = (Id, Sent)>,
        relied: impl IntoIterator<Item = Id>,
    ) -> Result<Job, Failure> {
        let job = Job::new(parts);
        {
            let mut table = job.sent();
            sent.into_iter().try_for_each(|(id, sent)| table.add(id, sent).map(drop))?;
        }
        job.relied().extend(relied);
        Ok(job)
    }

    /// What changes.
    pub fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What its session sent. Never locked while waiting for [`Opening::known`].
    pub fn sent(&self) -> MutexGuard<'_, SentTable> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fresh objects of other sessions that its proposals refer to: claimed like those that it sent. Never locked while waiting for
    /// [`Opening::known`].
    pub fn relied(&self) -> MutexGuard<'_, IdSet> {
        self.relied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A chunk that this job's archives may refer to: sent in its session, or in the client's view.
    pub fn entry(&self, id: &Id) -> Result<Option<Reference>, Failure> {
        let sent = self.sent().get(id)?.map(|sent| Reference { id: id.0, size: sent.size, csize: sent.csize });
        Ok(sent.or_else(|| self.view.find(id).copied()))
    }

    /// Its session is inside the gate from now on, or outside of it: whoever cannot close the gate says who it is.
    pub fn set_inside(&self, inside: bool) {
        self.inside.store(inside, Ordering::Relaxed);
    }

    /// Whether its session is at work on a message.
    pub fn is_inside(&self) -> bool {
        self.inside.load(Ordering::Relaxed)
    }

    /// As whom it claims objects.
    pub fn claimant(&self) -> Claimant {
        Claimant::of(self.number)
    }

    /// Nobody may give this job anything to rely on any more. Under the lock of [`Opening::known`].
    pub fn let_go(&self) {
        self.released.store(true, Ordering::SeqCst);
    }

    /// Under the lock of [`Opening::known`]: whether a session may still come back to this object. Then it relies on it from now on, and
    /// has to be among those that claim it.
    pub fn holds(&self, id: &Id) -> Result<bool, Failure> {
        if self.released.load(Ordering::SeqCst) {
            return Ok(false);
        }
        if self.sent().get(id)?.is_some() {
            return Ok(true);
        }
        let mut relied = self.relied();
        let holds = relied.contains(id) || self.view.find(id).is_some();
        if holds {
            relied.insert(*id);
        }
        Ok(holds)
    }

    /// The session begins; false if it is not the first, or too late.
    pub fn begin(&self) -> bool {
        let mut progress = self.progress();
        let first = progress.phase == Phase::Prepared;
        if first {
            progress.phase = Phase::Running;
            progress.opened = true;
        }
        first
    }

    /// Notes why the session cannot succeed, unless something was noted before.
    pub fn fail(&self, failure: Failure) {
        self.progress().failure.get_or_insert(failure);
    }

    /// The session is over.
    pub fn end(&self) {
        self.progress().phase = Phase::Ended;
        self.changed.notify_all();
    }

    /// Nobody came yet.
    pub fn is_prepared(&self) -> bool {
        self.progress().phase == Phase::Prepared
    }

    /// Nobody may come any more, if nobody came yet. Then the job is over.
    pub fn withdraw(&self) -> bool {
        let mut progress = self.progress();
        let waiting = progress.phase == Phase::Prepared;
        if waiting {
            progress.phase = Phase::Ended;
        }
        waiting
    }

    /// Waits until the session is over; false if it is not in time.
    pub fn wait_for_end(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut progress = self.progress();
        while progress.phase != Phase::Ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            progress = self.changed.wait_timeout(progress, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// What a worker is told at the end.
    pub fn outcome(&self) -> Outcome {
        let progress = self.progress();
        let checkpoint = progress.checkpoint.clone().filter(|_| progress.archive.is_none());
        Outcome {
            opened: progress.opened,
            archive: progress.archive.clone(),
            checkpoint,
            failure: progress.failure.clone(),
            counters: progress.counters,
            served: self.served(),
        }
    }

    /// What the client of a restore has read by now.
    pub fn served(&self) -> Option<Served> {
        self.source.as_ref().map(|source| source.served(self.view.references.len()))
    }
}

/// All jobs, by number.
#[derive(Default)]
pub struct Jobs(Mutex<HashMap<u64, Arc<Job>>>);

impl Jobs {
    fn map(&self) -> MutexGuard<'_, HashMap<u64, Arc<Job>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one; false if its number is taken.
    pub fn insert(&self, job: Arc<Job>) -> bool {
        let mut map = self.map();
        let free = !map.contains_key(&job.number);
        if free {
            map.insert(job.number, job);
        }
        free
    }

    /// The job of that number.
    pub fn get(&self, number: u64) -> Option<Arc<Job>> {
        self.map().get(&number).cloned()
    }

    /// Forgets one.
    pub fn remove(&self, number: u64) {
        self.map().remove(&number);
    }

    /// Under the lock of [`Opening::known`]: those of this opening, but for `except`, that may still come back to this object.
    pub fn holders(&self, opening: &Arc<Opening>, except: &HashSet<u64>, id: &Id) -> Result<Vec<Claimant>, Failure> {
        let mut holders = vec![];
        for job in self.all() {
            if !except.contains(&job.number) && Arc::ptr_eq(&job.opening, opening) && job.holds(id)? {
                holders.push(job.claimant());
            }
        }
        Ok(holders)
    }

    /// All of them, as they are now.
    pub fn all(&self) -> Vec<Arc<Job>> {
        self.map().values().cloned().collect()
    }
}
