//! The thread that has the repository: it alone opens, writes, commits and closes it, in the order of the requests.

use crate::commit::{self, Waiting};
use crate::credentials::Credentials;
use crate::failures::{internal, of_repository, of_store};
pub use crate::open::Open;
use crate::open::Source;
use crate::opening::Opening;
use crate::owner::{Owner, Permit};
use crate::pauses::pause_for_tests;
use crate::upkeep::{self, Upkeep};
use crate::{lending, succession, tidy};
use borg::Id;
use model::{Cause, Failure};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError};
use std::time::{Duration, Instant};

/// Where an answer goes; the asking thread waits for it.
pub type Reply<T> = SyncSender<Result<T, Failure>>;

/// How long a thread whose job is over may take to let go of the opening.
const LETTING_GO: Duration = Duration::from_secs(2);

/// Archives in one commit: so many manifests' worth of work somebody may have to wait for.
const GROUP: usize = 64;

/// What the writer is asked for. Requests for an opening that is over are answered with the reason of its end.
pub enum Request {
    /// Open the repository if it is not, and say what a new job has to know.
    Prepare {
        /// Must be free.
        archive_name: String,
        /// The answer.
        reply: Reply<Ready>,
    },
    /// Open the repository if it is not, and say what a restore has to know.
    Find {
        /// The archive's name.
        name: String,
        /// Its id.
        id: Id,
        /// The answer; None if there is no such archive.
        reply: Reply<Option<Ready>>,
    },
    /// Open the repository if it is not: what an owner before this one was about to commit is then settled.
    Settle {
        /// The answer.
        reply: Reply<()>,
    },
    /// Store an envelope.
    Put {
        /// For this opening only.
        opening: Arc<Opening>,
        /// Its id.
        id: Id,
        /// What is stored.
        envelope: Vec<u8>,
        /// The length of its plaintext.
        size: u32,
        /// Its memory.
        permit: Permit,
    },
    /// Look after orphans, once nothing else waits.
    Tidy,
    /// Read an envelope.
    Read {
        /// For this opening only.
        opening: Arc<Opening>,
        /// Its id.
        id: Id,
        /// The answer; None if there is no such object.
        reply: Reply<Option<Vec<u8>>>,
    },
    /// Reserve nonces for so many blocks.
    Reserve {
        /// For this opening only.
        opening: Arc<Opening>,
        /// Blocks needed at once.
        blocks: u64,
        /// The answer.
        reply: Reply<()>,
    },
    /// Make an archive durable, together with those that wait behind it. [`Owner::committing`] was counted up before.
    Commit(Waiting),
    /// A step of maintenance.
    Upkeep(Upkeep),
    /// Close the repository, so that another borg may use it, until it is given back.
    Lend(lending::Lend),
    /// Commit everything that sessions have sent, close the repository, and end.
    Leave {
        /// The answer.
        reply: Reply<()>,
    },
    /// Open the repository for sessions of an owner before this one.
    Inherit {
        /// What each job's session has sent or relies on.
        claims: Vec<(u64, Vec<Id>)>,
        /// The opening, and of each job a chunk that is not there any more, if there is one.
        reply: Reply<(Arc<Opening>, HashMap<u64, Id>)>,
    },
    /// Close the repository and end.
    Quit,
}

/// What a new job has to know of the open repository.
pub struct Ready {
    /// The opening.
    pub opening: Arc<Opening>,
    /// The real manifest's item keys.
    pub item_keys: Vec<Vec<u8>>,
    /// The real manifest's timestamp in microseconds.
    pub timestamp: i64,
    /// Its size in bytes, about.
    pub manifest_bytes: usize,
}

/// The thread's state.
struct Writer<'a> {
    owner: &'a Owner,
    requests: &'a Receiver<Request>,
    /// Taken from the requests, and not served yet.
    next: Option<Request>,
    open: Option<Open>,
}

/// Works until it is told to quit.
pub fn run(owner: &Owner, requests: &Receiver<Request>) {
    let idle = seconds("BORGCUBE_IDLE_SECONDS", 60);
    let mut writer = Writer { owner, requests, next: None, open: None };
    let mut used = Instant::now();
    loop {
        owner.pulse.step(false);
        let request = writer.next();
        owner.pulse.step(request.as_ref().is_ok_and(takes_its_time));
        if let Some(current) = &writer.open {
            if current.opening.failure().is_some() {
                // Whoever still has requests for it is told why.
                owner.pulse.step(true);
                tidy::give_up(writer.open.take());
            } else if request.is_ok() || Arc::strong_count(&current.opening) > 1 {
                used = Instant::now();
            } else if used.elapsed() >= idle {
                // Borg's index takes minutes for a large repository.
                owner.pulse.step(true);
                let (next, requests) = (&mut writer.next, writer.requests);
                tidy::close_unless(writer.open.take(), &mut || {
                    if next.is_none() {
                        *next = requests.try_recv().ok();
                    }
                    next.is_some()
                });
            }
        }
        match request {
            Err(RecvTimeoutError::Timeout) => {
                if let Some(current) = &mut writer.open
                    && let Err(e) = current.repository.check_alive()
                {
                    current.opening.fail(of_repository(&e));
                }
            }
            Err(RecvTimeoutError::Disconnected) | Ok(Request::Quit) => break,
            Ok(Request::Leave { reply }) => {
                answer(&reply, lending::close(owner, &mut writer.open, false).map(drop));
                break;
            }
            Ok(request) => {
                writer.serve(request);
                used = Instant::now();
            }
        }
        owner.is_open.store(writer.open.is_some(), Ordering::SeqCst);
    }
    tidy::close(writer.open.take());
    owner.is_open.store(false, Ordering::SeqCst);
}

/// Whether nobody can say how long it takes: an index may have to be built, a person has the repository, every archive is read.
fn takes_its_time(request: &Request) -> bool {
    match request {
        Request::Put { .. } | Request::Read { .. } | Request::Reserve { .. } | Request::Tidy | Request::Commit(_) => false,
        Request::Prepare { .. }
        | Request::Find { .. }
        | Request::Settle { .. }
        | Request::Inherit { .. }
        | Request::Upkeep(_)
        | Request::Lend(_)
        | Request::Leave { .. }
        | Request::Quit => true,
    }
}

/// A number of seconds from the environment.
pub fn seconds(name: &str, default: u64) -> Duration {
    Duration::from_secs(std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default))
}

impl Writer<'_> {
    /// The next request. While there is none, orphans go, step by step.
    fn next(&mut self) -> Result<Request, RecvTimeoutError> {
        if let Some(request) = self.next.take() {
            return Ok(request);
        }
        loop {
            match self.requests.try_recv() {
                Ok(request) => return Ok(request),
                Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) => {}
            }
            self.owner.pulse.step(false);
            if !self.open.as_mut().is_some_and(tidy::step) {
                return self.requests.recv_timeout(Duration::from_secs(1));
            }
        }
    }

    fn serve(&mut self, request: Request) {
        let (owner, open) = (self.owner, &mut self.open);
        match request {
            Request::Prepare { archive_name, reply } => answer(&reply, prepare(owner, open, &archive_name)),
            Request::Find { name, id, reply } => answer(&reply, find(owner, open, &name, id)),
            Request::Settle { reply } => answer(&reply, settle(owner, open)),
            Request::Put { opening, id, envelope, size, permit } => {
                if let Ok(current) = current(open, &opening)
                    && let Err(failure) = put(current, &id, &envelope, size)
                {
                    opening.fail(failure);
                }
                drop(permit);
            }
            Request::Read { opening, id, reply } => answer(&reply, current(open, &opening).and_then(|current| read(current, &id))),
            Request::Reserve { opening, blocks, reply } => {
                let reserved = current(open, &opening).and_then(|current| opening.nonces.reserve(&mut current.repository, blocks));
                if let Err(failure) = &reserved {
                    opening.fail(failure.clone());
                }
                answer(&reply, reserved);
            }
            Request::Commit(first) => self.commit(first),
            Request::Upkeep(upkeep) => upkeep::serve(owner, open, upkeep),
            Request::Lend(lend) => lending::lend(owner, open, lend),
            Request::Inherit { claims, reply } => answer(&reply, inherit(owner, open, &claims)),
            Request::Tidy | Request::Leave { .. } | Request::Quit => {}
        }
    }

    /// Commits an archive, with all that wait for the same behind it. What was sent before them is stored before.
    fn commit(&mut self, first: Waiting) {
        let committing = &self.owner.committing;
        committing.fetch_sub(1, Ordering::SeqCst);
        pause_for_tests("group");
        let mut group = vec![first];
        while self.next.is_none() && group.len() < GROUP && committing.load(Ordering::SeqCst) > 0 {
            match self.requests.try_recv() {
                Ok(Request::Commit(waiting)) => {
                    committing.fetch_sub(1, Ordering::SeqCst);
                    group.push(waiting);
                }
                Ok(request @ (Request::Put { .. } | Request::Read { .. } | Request::Reserve { .. } | Request::Tidy)) => self.serve(request),
                Ok(other) => self.next = Some(other),
                Err(_) => break,
            }
        }
        let mut ready = vec![];
        for waiting in group {
            match current(&mut self.open, &waiting.candidate.job.opening) {
                Ok(_) => ready.push(waiting),
                Err(failure) => answer(&waiting.reply, Err(failure)),
            }
        }
        if let Some(open) = &mut self.open
            && !ready.is_empty()
        {
            commit::commit(self.owner, open, ready);
        }
    }
}

/// Answers; whoever asked may be gone.
pub fn answer<T>(reply: &Reply<T>, result: Result<T, Failure>) {
    if reply.send(result).is_err() {
        log::debug!("the asking connection is gone");
    }
}

/// The open repository, if it is that opening and no failure ended it.
pub fn current<'a>(open: &'a mut Option<Open>, wanted: &Arc<Opening>) -> Result<&'a mut Open, Failure> {
    match open {
        Some(current) if Arc::ptr_eq(&current.opening, wanted) => match wanted.failure() {
            None => Ok(current),
            Some(failure) => Err(failure),
        },
        _ => Err(wanted.failure().unwrap_or_else(|| internal("the repository was closed under a running session"))),
    }
}

fn put(current: &mut Open, id: &Id, envelope: &[u8], size: u32) -> Result<(), Failure> {
    let is_needed = current.opening.known().store(id)?;
    if is_needed { current.repository.put(id, envelope, size).map_err(|e| of_repository(&e)) } else { Ok(()) }
}

fn read(current: &mut Open, id: &Id) -> Result<Option<Vec<u8>>, Failure> {
    match current.repository.get(id) {
        Ok(envelope) => Ok(Some(envelope)),
        Err(repository::Error::ObjectNotFound(_)) => Ok(None),
        // That is known, and it is as good as absent: it was sent again and taken back, or is asked for all the same.
        Err(repository::Error::Damaged(_)) if current.opening.known().spoiled().contains(id) => Ok(None),
        Err(e) => {
            let failure = of_repository(&e);
            current.opening.fail(failure.clone());
            Err(failure)
        }
    }
}

fn prepare(owner: &Owner, open: &mut Option<Open>, archive_name: &str) -> Result<Ready, Failure> {
    let current = reopen_if_changed(owner, open)?;
    if current.manifest.archives.contains_key(archive_name.as_bytes()) {
        let message = format!("the repository has an archive named {archive_name:?} already");
        return Err(Failure::new(Cause::ArchiveExists, message));
    }
    Ok(ready(current))
}

fn find(owner: &Owner, open: &mut Option<Open>, name: &str, id: Id) -> Result<Option<Ready>, Failure> {
    let current = reopen_if_changed(owner, open)?;
    let entry = current.manifest.archives.get(name.as_bytes());
    Ok(entry.is_some_and(|entry| entry.id == id).then(|| ready(current)))
}

fn ready(current: &Open) -> Ready {
    Ready {
        opening: Arc::clone(&current.opening),
        item_keys: current.manifest.item_keys.clone(),
        timestamp: current.manifest.timestamp_micros().unwrap_or(0),
        manifest_bytes: current.manifest.archives.keys().map(|name| name.len() + crate::limits::ENTRY).sum(),
    }
}

/// Before anybody could look after orphans, which is what everything here is at first.
fn inherit(owner: &Owner, open: &mut Option<Open>, claims: &[(u64, Vec<Id>)]) -> Result<(Arc<Opening>, HashMap<u64, Id>), Failure> {
    let opening = Arc::clone(&reopen_if_changed(owner, open)?.opening);
    let gone = succession::claim(&opening, claims)?;
    Ok((opening, gone))
}

/// Every opening begins with it, so an open repository has nothing to settle.
fn settle(owner: &Owner, open: &mut Option<Open>) -> Result<(), Failure> {
    match open {
        Some(_) => Ok(()),
        None => reopen_if_changed(owner, open).map(drop),
    }
}

/// The open repository, opened anew if its record or its secrets were edited since.
pub fn reopen_if_changed<'a>(owner: &Owner, open: &'a mut Option<Open>) -> Result<&'a mut Open, Failure> {
    let record = owner.store.read(|r| r.repositories().require(&owner.name)).map_err(|e| of_store(&e))?;
    let credentials = Credentials::read()?;
    if let Some(current) = open
        && current.source != Source::of(&record, &credentials)
    {
        if !is_let_go(owner, &current.opening) {
            let message = "the repository's place or secrets were changed while other jobs are still using it as it was; \
                           run this again when they have ended";
            return Err(Failure::new(Cause::RepositoryUnreachable, message));
        }
        log::info!("the repository's record or secrets were changed; opening it anew");
        tidy::close(open.take());
    }
    match open {
        Some(current) => Ok(current),
        None => Ok(open.insert(Open::new(owner, &record, &credentials, None)?)),
    }
}

/// Whether no job holds the opening. The thread of a job that was finished a moment ago may still be about to let go.
fn is_let_go(owner: &Owner, opening: &Arc<Opening>) -> bool {
    let deadline = Instant::now() + LETTING_GO;
    while Arc::strong_count(opening) > 1 {
        if Instant::now() >= deadline || owner.jobs.all().iter().any(|job| Arc::ptr_eq(&job.opening, opening)) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}
