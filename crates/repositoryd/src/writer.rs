//! The thread that has the repository: it alone opens, writes, commits and closes it, in the order of the requests.

use crate::commit::{self, Candidate};
use crate::credentials::Credentials;
use crate::failures::{internal, of_repository, of_state, of_store};
use crate::known::{Known, Tidying};
use crate::nonces::Nonces;
use crate::opening::Opening;
use crate::owner::{Owner, Permit};
use crate::reconcile::reconcile;
use crate::unlock::{Unlocked, unlock};
use crate::{intents, tool};
use borg::manifest::Manifest;
use borg::{Id, RepositoryId};
use model::{Archive, Cause, Failure};
use repository::{OpenOptions, Repository};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError};
use std::time::{Duration, Instant};

/// Where an answer goes; the asking thread waits for it.
pub type Reply<T> = SyncSender<Result<T, Failure>>;

/// How long a thread whose job is over may take to let go of the opening.
const LETTING_GO: Duration = Duration::from_secs(2);

/// Orphans that are deleted at a time: so many a request may have to wait for.
const BATCH: usize = 200;

/// What the writer is asked for. Requests for an opening that is over are answered with the reason of its end.
pub enum Request {
    /// Open the repository if it is not, and say what a new job has to know.
    Prepare {
        /// Must be free.
        archive_name: String,
        /// The answer.
        reply: Reply<Ready>,
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
    /// Make an archive durable.
    Commit {
        /// The archive.
        candidate: Box<Candidate>,
        /// The answer: its record.
        reply: Reply<Archive>,
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

/// The open repository, as only the writer has it.
pub struct Open {
    /// The repository.
    pub repository: Repository,
    /// What is shared.
    pub opening: Arc<Opening>,
    /// The real manifest as it is committed.
    pub manifest: Manifest,
    /// From what it was opened.
    source: Source,
}

/// What an opening comes from. When that changes, the opening is of the past.
#[derive(PartialEq, Eq)]
struct Source {
    url: String,
    rsh: Option<String>,
    remote_borg: Option<String>,
    repository_id: String,
    credentials: [u8; 32],
}

impl Source {
    fn of(record: &model::Repository, credentials: &Credentials) -> Source {
        Source {
            url: record.url.clone(),
            rsh: record.rsh.clone(),
            remote_borg: record.remote_borg.clone(),
            repository_id: record.repository_id.clone(),
            credentials: credentials.digest(),
        }
    }
}

/// Works until it is told to quit.
pub fn run(owner: &Owner, requests: &Receiver<Request>) {
    let idle = seconds("BORGCUBE_IDLE_SECONDS", 60);
    let mut open: Option<Open> = None;
    let mut used = Instant::now();
    loop {
        let request = next(requests, &mut open);
        if let Some(current) = &open {
            if current.opening.failure().is_some() {
                // Whoever still has requests for it is told why.
                give_up(open.take());
            } else if request.is_ok() || Arc::strong_count(&current.opening) > 1 {
                used = Instant::now();
            } else if used.elapsed() >= idle {
                close(open.take());
            }
        }
        match request {
            Err(RecvTimeoutError::Timeout) => {
                if let Some(current) = &mut open
                    && let Err(e) = current.repository.check_alive()
                {
                    current.opening.fail(of_repository(&e));
                }
            }
            Err(RecvTimeoutError::Disconnected) | Ok(Request::Quit) => break,
            Ok(request) => {
                serve(owner, &mut open, request);
                used = Instant::now();
            }
        }
        owner.is_open.store(open.is_some(), Ordering::SeqCst);
    }
    close(open.take());
    owner.is_open.store(false, Ordering::SeqCst);
}

/// The next request. While there is none, orphans go, step by step.
fn next(requests: &Receiver<Request>, open: &mut Option<Open>) -> Result<Request, RecvTimeoutError> {
    loop {
        match requests.try_recv() {
            Ok(request) => return Ok(request),
            Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
            Err(TryRecvError::Empty) => {}
        }
        if !open.as_mut().is_some_and(tidy) {
            return requests.recv_timeout(Duration::from_secs(1));
        }
    }
}

/// One step; false if there is none to take.
fn tidy(open: &mut Open) -> bool {
    if open.opening.failure().is_some() {
        return false;
    }
    let step = open.opening.known().tidy(BATCH);
    let done = match &step {
        Tidying::Nothing => return false,
        Tidying::Discard => open.repository.discard(),
        Tidying::Delete(ids) => delete(open, ids),
        Tidying::Commit => commit_deletions(open),
    };
    match done {
        Ok(()) => true,
        Err(e) => {
            open.opening.fail(of_repository(&e));
            false
        }
    }
}

fn delete(open: &mut Open, ids: &[Id]) -> repository::Result<()> {
    ids.iter().try_for_each(|id| open.repository.delete(id))
}

fn commit_deletions(open: &mut Open) -> repository::Result<()> {
    open.opening.known().publish();
    open.repository.commit()?;
    open.opening.known().committed([]);
    Ok(())
}

/// A number of seconds from the environment.
pub fn seconds(name: &str, default: u64) -> Duration {
    Duration::from_secs(std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default))
}

/// Ends a child after a failure. If it still answers, what was not committed is removed: the disk may be full of it.
fn give_up(open: Option<Open>) {
    let Some(mut open) = open else { return };
    match open.repository.discard() {
        Ok(()) => open.repository.close(),
        Err(e) => log::debug!("uncommitted objects stay until the repository is written again: {e}"),
    }
}

/// Ends the child in an orderly way, so that any borg may use the repository.
fn close(open: Option<Open>) {
    let Some(mut open) = open else { return };
    if let Err(e) = leave_tidy(&mut open) {
        log::warn!("objects that nobody needs stay in the repository: {e}");
    }
    open.repository.close();
    log::info!("the repository is closed");
}

/// Leaves as little as possible that nobody refers to, without letting anybody wait for more than a batch.
fn leave_tidy(open: &mut Open) -> repository::Result<()> {
    let opening = Arc::clone(&open.opening);
    let mixed = opening.known().is_mixed();
    if mixed {
        open.repository.discard()?;
        opening.known().discarded();
    }
    let step = opening.known().tidy(BATCH);
    if let Tidying::Delete(ids) = &step {
        delete(open, ids)?;
    }
    let (deleted, left) = {
        let known = opening.known();
        (known.has_deleted(), known.leftover())
    };
    if left > 0 {
        log::warn!("{left} chunks that no archive refers to stay in the repository");
    }
    if deleted { commit_deletions(open) } else { open.repository.discard() }
}

fn serve(owner: &Owner, open: &mut Option<Open>, request: Request) {
    match request {
        Request::Prepare { archive_name, reply } => answer(&reply, prepare(owner, open, &archive_name)),
        Request::Settle { reply } => answer(&reply, settle(owner, open)),
        Request::Put { opening, id, envelope, permit } => {
            if let Ok(current) = current(open, &opening)
                && opening.known().store(&id)
                && let Err(e) = current.repository.put(&id, &envelope, 0)
            {
                opening.fail(of_repository(&e));
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
        Request::Commit { candidate, reply } => {
            let opening = Arc::clone(&candidate.job.opening);
            answer(&reply, current(open, &opening).and_then(|current| commit::commit(owner, current, &candidate)));
        }
        Request::Tidy | Request::Quit => {}
    }
}

fn answer<T>(reply: &Reply<T>, result: Result<T, Failure>) {
    if reply.send(result).is_err() {
        log::debug!("the asking connection is gone");
    }
}

/// The open repository, if it is that opening and no failure ended it.
fn current<'a>(open: &'a mut Option<Open>, wanted: &Arc<Opening>) -> Result<&'a mut Open, Failure> {
    match open {
        Some(current) if Arc::ptr_eq(&current.opening, wanted) => match wanted.failure() {
            None => Ok(current),
            Some(failure) => Err(failure),
        },
        _ => Err(wanted.failure().unwrap_or_else(|| internal("the repository was closed under a running session"))),
    }
}

fn read(current: &mut Open, id: &Id) -> Result<Option<Vec<u8>>, Failure> {
    match current.repository.get(id) {
        Ok(envelope) => Ok(Some(envelope)),
        Err(repository::Error::ObjectNotFound(_)) => Ok(None),
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
    Ok(Ready {
        opening: Arc::clone(&current.opening),
        item_keys: current.manifest.item_keys.clone(),
        timestamp: current.manifest.timestamp_micros().unwrap_or(0),
        manifest_bytes: current.manifest.archives.keys().map(|name| name.len() + crate::limits::ENTRY).sum(),
    })
}

/// Every opening begins with it, so an open repository has nothing to settle.
fn settle(owner: &Owner, open: &mut Option<Open>) -> Result<(), Failure> {
    match open {
        Some(_) => Ok(()),
        None => reopen_if_changed(owner, open).map(drop),
    }
}

/// The open repository, opened anew if its record or its secrets were edited since.
fn reopen_if_changed<'a>(owner: &Owner, open: &'a mut Option<Open>) -> Result<&'a mut Open, Failure> {
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
        close(open.take());
    }
    match open {
        Some(current) => Ok(current),
        None => Ok(open.insert(open_repository(owner, &record, &credentials)?)),
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

fn open_repository(owner: &Owner, record: &model::Repository, credentials: &Credentials) -> Result<Open, Failure> {
    owner.layout.create_repository_directories(owner.name.as_str()).map_err(|e| of_state(&e))?;
    let expected = RepositoryId::from_hex(&record.repository_id).map_err(|e| internal(format!("the repository's record: {e}")))?;
    let host_id = std::fs::read_to_string(owner.layout.host_id_file()).ok().map(|text| text.trim().to_owned());
    let options = tool::options(&record.url, record.remote_borg.as_deref(), record.rsh.as_deref());
    let host_id = host_id.filter(|text| !text.is_empty()).or(options.host_id.clone());
    let options = OpenOptions { exclusive: true, expected: Some(expected), host_id, ..options };
    let mut repository = Repository::open(&options).map_err(|e| of_repository(&e))?;
    let Unlocked { key, manifest, encryption, nonce_above_manifest } = unlock(&mut repository, credentials)?;
    if encryption != record.encryption {
        // Otherwise whoever can write to the storage could put an unencrypted repository of the same id in its place.
        let message = format!("the repository was added with encryption {}, now it has {encryption}", record.encryption);
        return Err(Failure::new(Cause::RepositoryIntegrity, message));
    }
    let nonces = Nonces::new(owner.layout.views(owner.name.as_str()).join("nonce"), nonce_above_manifest.unwrap_or(0))?;
    let known = Known::new(repository.list_ids().map_err(|e| of_repository(&e))?);
    log::info!("the repository is open: {} objects, {} archives", known.count(), manifest.archives.len());
    intents::resolve(owner, &manifest)?;
    reconcile(owner, &manifest)?;
    let opening = Arc::new(Opening::new(expected, key, nonces, known));
    Ok(Open { repository, opening, manifest, source: Source::of(record, credentials) })
}
