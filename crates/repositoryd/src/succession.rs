//! A restart of the owner in the middle of backups: it stops between two frames, makes durable what it received, and leaves sockets and what it knows to the service
//! manager; the next process of it goes on. The clients notice a pause.
//!
//! What was stored and belongs to no archive yet is in the journal of orphans by then. The successor claims it for its sessions again before anybody could look after
//! orphans.

use crate::failures::{ending, internal};
use crate::jobs::{Job, Parts, Phase};
use crate::known::Claimant;
use crate::leaving::WorkerEnd;
use crate::legacy::{Conversation, Facts, Legacy, SourceFacts};
use crate::opening::Opening;
use crate::owner::Owner;
use crate::restore::Source;
use crate::view::View;
use crate::viewlist::Named;
use crate::writer::Request;
use borg::Id;
use model::{Cause, Failure};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};
use unix::poll::{Interest, poll};
use wire::session::{kind, write_json};

/// How long threads may take to come to the end of what they are doing.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the service manager may take to read what it is sent.
const BARRIER: Duration = Duration::from_secs(10);

/// How often to look whether they have.
const GLANCE: Duration = Duration::from_millis(20);

/// How often to look around while the repository is opened.
const LOOK: Duration = Duration::from_millis(200);

/// Descriptors of one job.
const EACH: usize = 3;

/// The names of kept descriptors begin with these.
const NAMES: [&str; 5] = ["job-", "session-", "worker-", "stranger-", "said-"];

/// Whether a descriptor is one that was left to us.
pub fn is_left(name: &str) -> bool {
    NAMES.iter().any(|beginning| name.starts_with(beginning))
}

/// Whether the sessions that run can be left to a successor.
pub fn is_possible(owner: &Owner) -> bool {
    let needed = owner.jobs.all().len() * EACH + 2 * owner.connections.load(Ordering::SeqCst);
    let capacity = unix::fdstore::capacity();
    if capacity > 0 && capacity < needed {
        log::warn!("the service manager keeps {capacity} descriptors, {needed} are needed: sessions end; see FileDescriptorStoreMax=");
    }
    capacity >= needed.max(1)
}

/// Leaves. `look` is called while threads are waited for, and says whether there is no time for that.
pub fn leave(owner: &Owner, mut look: impl FnMut() -> bool) {
    // In this order: whoever is sent away from the gate by the one finds the other.
    owner.leaving.begin();
    owner.stopping.store(true, Ordering::SeqCst);
    let deadline = Instant::now() + PATIENCE;
    let busy = || owner.connections.load(Ordering::SeqCst) > owner.maintaining.load(Ordering::SeqCst);
    while busy() && Instant::now() < deadline && !look() {
        std::thread::sleep(GLANCE);
    }
    let (reply, answer) = sync_channel(1);
    let closed = owner.writer.send(Request::Leave { reply }).map_err(|_| ending());
    let closed = closed.and_then(|()| answer.recv().map_err(|_| ending())?);
    let mut left = 0;
    for job in owner.jobs.all() {
        match closed.clone().and_then(|()| leave_job(owner, &job)) {
            Ok(()) => left += 1,
            Err(failure) => abandon(owner, &job, &failure),
        }
    }
    leave_strangers(owner.estate.take_strangers());
    have_left(left);
}

fn leave_strangers(strangers: Vec<(UnixStream, Vec<u8>)>) {
    for (number, (stream, said)) in strangers.into_iter().enumerate() {
        if let Err(e) = leave_stranger(number, &stream, &said) {
            log::warn!("a connection is closed: {e}");
        }
    }
}

fn have_left(jobs: usize) {
    match unix::fdstore::barrier(BARRIER) {
        Ok(true) => log::info!("{jobs} jobs are left to the next process of this owner"),
        Ok(false) => log::error!("the service manager does not answer; the sessions may be lost"),
        Err(e) => log::error!("{e}; the sessions may be lost"),
    }
}

/// What was left to us goes to the one after us as it came: nothing could be done with it yet.
pub fn pass_on(inheritance: Inheritance) {
    let mut left = 0;
    for heir in inheritance.heirs {
        match leave_legacy(heir.number, &heir.legacy, &heir.worker, heir.session.as_ref()) {
            Ok(()) => left += 1,
            Err(failure) => heir.end(&failure),
        }
    }
    leave_strangers(inheritance.strangers);
    have_left(left);
}

fn leave_job(owner: &Owner, job: &Job) -> Result<(), Failure> {
    let stuck = || Failure::new(Cause::OwnerLost, "the repository's owner was restarted, and this job could not be interrupted");
    if let Some(failure) = job.opening.failure() {
        return Err(failure);
    }
    let WorkerEnd { stream: worker, token_hash, said } = owner.estate.take_worker(job.number).ok_or_else(stuck)?;
    let session = owner.estate.take_session(job.number);
    let (stream, conversation) = session.map_or((None, None), |(stream, conversation)| (Some(stream), Some(conversation)));
    let progress = job.progress();
    if (progress.phase == Phase::Running) != stream.is_some() {
        return Err(stuck());
    }
    let facts = Facts {
        version: wire::session::VERSION,
        client: job.client.clone(),
        label: job.label.clone(),
        cmdline: job.cmdline.clone(),
        start: job.start,
        opened: job.opened.clone(),
        members: job.view.members.clone(),
        generation: job.view.generation,
        base: job.view.base.as_ref().map(|base| (base.id.clone(), base.digest.clone())),
        mark: job.view.mark,
        kept: job.view.kept,
        began: progress.opened,
        ended: progress.phase == Phase::Ended,
        archive: progress.archive.clone(),
        checkpoint: progress.checkpoint.clone(),
        failure: progress.failure.clone(),
        counters: progress.counters,
        token_hash,
        source: job.source.as_ref().map(|source| {
            let (read, bytes) = source.seen();
            let (metadata_id, metadata) = source.metadata.clone();
            SourceFacts { archive: source.archive.0, metadata_id: metadata_id.0, metadata, read, bytes }
        }),
    };
    drop(progress);
    let mut sent = vec![];
    job.sent().each(|part| {
        sent.extend_from_slice(part);
        Ok(())
    })?;
    let relied = job.relied().iter().copied().collect();
    let legacy = Legacy { facts, view: Arc::clone(&job.view.references), sent, relied, conversation, said };
    leave_legacy(job.number, &legacy, &worker, stream.as_ref())
}

fn leave_legacy(number: u64, legacy: &Legacy, worker: &UnixStream, session: Option<&UnixStream>) -> Result<(), Failure> {
    let file = legacy.write()?;
    let keep = |what: &str, fd| unix::fdstore::keep(&format!("{what}-{number}"), fd).map_err(|e| internal(e.to_string()));
    if let Some(session) = session {
        keep("session", session.as_fd())?;
    }
    keep("worker", worker.as_fd())?;
    // Last: without it the others mean nothing.
    keep("job", file.as_fd())
}

fn leave_stranger(number: usize, stream: &UnixStream, said: &[u8]) -> anyhow::Result<()> {
    let mut file = unix::fdpass::memfd("said")?;
    std::io::Write::write_all(&mut file, said)?;
    unix::fdstore::keep(&format!("stranger-{number}"), stream.as_fd())?;
    Ok(unix::fdstore::keep(&format!("said-{number}"), file.as_fd())?)
}

/// Nothing goes on: the session is told, the worker sees the end of its connection.
fn abandon(owner: &Owner, job: &Job, failure: &Failure) {
    log::error!("job {}: its session ends: {}", job.number, failure.line());
    if let Some((mut stream, _)) = owner.estate.take_session(job.number)
        && let Err(e) = write_json(&mut stream, kind::FAILED, failure)
    {
        log::debug!("job {}: {e}", job.number);
    }
    drop(owner.estate.take_worker(job.number));
}

/// One job that was left to us.
pub struct Heir {
    /// Its number.
    pub number: u64,
    legacy: Legacy,
    worker: UnixStream,
    session: Option<UnixStream>,
}

impl Heir {
    /// Its session is told; its worker sees the end of its connection and asks again.
    fn end(mut self, failure: &Failure) {
        log::error!("job {}: its session ends: {}", self.number, failure.line());
        if let Some(session) = &mut self.session
            && let Err(e) = write_json(session, kind::FAILED, failure)
        {
            log::debug!("job {}: {e}", self.number);
        }
    }

    /// Whether its worker has ended, because somebody has cancelled the job for example. (It may also have said something.)
    fn is_forsaken(&self) -> bool {
        poll(&[(self.worker.as_fd(), Interest::Hangup)], Some(Duration::ZERO)).is_ok_and(|ready| ready[0].any())
    }
}

/// What an owner before us has left.
#[derive(Default)]
pub struct Inheritance {
    /// Jobs.
    pub heirs: Vec<Heir>,
    /// Connections of those who have not said what they want.
    pub strangers: Vec<(UnixStream, Vec<u8>)>,
}

/// Sorts it out. Nobody after us is to find it again.
pub fn accept(left: Vec<(OwnedFd, String)>) -> Inheritance {
    let mut found: HashMap<&str, BTreeMap<u64, OwnedFd>> = HashMap::new();
    for (fd, name) in left {
        if let Err(e) = unix::fdstore::forget(&name) {
            log::warn!("{e}");
        }
        for beginning in NAMES {
            if let Some(number) = name.strip_prefix(beginning).and_then(|number| number.parse().ok()) {
                found.entry(beginning).or_default().insert(number, fd);
                break;
            }
        }
    }
    if found.is_empty() {
        return Inheritance::default();
    }
    match unix::fdstore::barrier(BARRIER) {
        Ok(true) => {}
        Ok(false) => log::warn!("the service manager does not answer"),
        Err(e) => log::warn!("{e}"),
    }
    let mut take = |beginning: &str| found.remove(beginning).unwrap_or_default();
    let (jobs, mut sessions, mut workers) = (take("job-"), take("session-"), take("worker-"));
    let mut inheritance = Inheritance::default();
    for (number, file) in jobs {
        let (session, worker) = (sessions.remove(&number).map(UnixStream::from), workers.remove(&number).map(UnixStream::from));
        match (Legacy::read(File::from(file)), worker) {
            (Ok(legacy), Some(worker)) if legacy.conversation.is_some() == session.is_some() => {
                inheritance.heirs.push(Heir { number, legacy, worker, session });
            }
            (Ok(_), _) => log::error!("job {number}: a part of what was left of it is missing; it ends"),
            (Err(e), _) => log::error!("job {number}: what was left of it cannot be read, it ends: {e}"),
        }
    }
    let (strangers, mut said) = (take("stranger-"), take("said-"));
    for (number, stream) in strangers {
        let mut bytes = vec![];
        let read = said
            .remove(&number)
            .map(File::from)
            .map(|mut file| std::io::Seek::rewind(&mut file).and_then(|()| std::io::Read::read_to_end(&mut file, &mut bytes)));
        match read {
            Some(Ok(_)) => inheritance.strangers.push((UnixStream::from(stream), bytes)),
            Some(Err(e)) => log::warn!("a connection is closed: {e}"),
            None => {}
        }
    }
    inheritance
}

/// A job that goes on.
pub struct Going {
    /// The job.
    pub job: Arc<Job>,
    /// Its worker.
    pub worker: WorkerEnd,
    /// Its session, if that runs.
    pub session: Option<(UnixStream, Conversation)>,
}

/// What the writer does: opens the repository, and claims everything for the sessions that go on. Says what is gone.
pub fn claim(opening: &Opening, claims: &[(u64, Vec<Id>)]) -> Result<HashMap<u64, Id>, Failure> {
    let mut gone = HashMap::new();
    for (job, ids) in claims {
        for id in ids {
            let mut known = opening.known();
            if !known.claim(id, Claimant::of(*job), None).map_err(|e| crate::failures::of_repository(&e))? {
                gone.entry(*job).or_insert(*id);
            }
        }
    }
    Ok(gone)
}

/// What came of [`take_over`].
pub enum Taken {
    /// They go on.
    Going(Vec<Going>),
    /// This process was asked to end before it could open the repository: for [`pass_on`].
    Untouched(Vec<Heir>),
}

/// Takes over. An error ends them all: their workers ask again and hear it. Only while another borg has locked the repository, such as one that it was
/// lent to, it is tried again, as long as somebody needs it. Every moment `look` is told whether that is what is waited for, and says whether this process
/// is to end.
pub fn take_over(owner: &Owner, mut heirs: Vec<Heir>, mut look: impl FnMut(bool) -> bool) -> Result<Taken, Failure> {
    let mut locked = false;
    while !heirs.is_empty() {
        let failure = match inherit(owner, &heirs, || _ = look(locked)) {
            Ok((opening, gone)) => {
                return Ok(Taken::Going(heirs.into_iter().filter_map(|heir| go_on(owner, heir, &opening, &gone)).collect()));
            }
            Err(failure) => failure,
        };
        let (lasting, over): (Vec<_>, Vec<_>) =
            heirs.into_iter().partition(|heir| failure.cause == Cause::RepositoryLockTimeout && !heir.is_forsaken());
        over.into_iter().for_each(|heir| heir.end(&failure));
        if lasting.is_empty() {
            return Err(failure);
        }
        if !locked {
            log::warn!("{} jobs wait for the repository: {}", lasting.len(), failure.line());
        }
        locked = true;
        if look(locked) {
            return Ok(Taken::Untouched(lasting));
        }
        heirs = lasting;
    }
    Ok(Taken::Going(vec![]))
}

/// One try.
fn inherit(owner: &Owner, heirs: &[Heir], mut look: impl FnMut()) -> Result<(Arc<Opening>, HashMap<u64, Id>), Failure> {
    let claims = heirs
        .iter()
        .map(|heir| (heir.number, heir.legacy.sent.iter().map(|(id, _)| *id).chain(heir.legacy.relied.iter().copied()).collect()))
        .collect();
    owner.inherits.store(true, Ordering::SeqCst);
    let (reply, answer) = sync_channel(1);
    owner.writer.send(Request::Inherit { claims, reply }).map_err(|_| ending())?;
    let inherited = loop {
        match answer.recv_timeout(LOOK) {
            Ok(inherited) => break inherited,
            Err(RecvTimeoutError::Timeout) => look(),
            Err(RecvTimeoutError::Disconnected) => break Err(ending()),
        }
    };
    owner.inherits.store(false, Ordering::SeqCst);
    inherited
}

fn go_on(owner: &Owner, heir: Heir, opening: &Arc<Opening>, gone: &HashMap<u64, Id>) -> Option<Going> {
    let Heir { number, legacy, worker, session } = heir;
    let Legacy { facts, view, sent, relied, conversation, said } = legacy;
    let view = View {
        references: view,
        members: facts.members,
        generation: facts.generation,
        base: facts.base.map(|(id, digest)| Named { id, digest }),
        mark: facts.mark,
        kept: facts.kept,
    };
    let source = facts.source.map(|facts| {
        let SourceFacts { archive, metadata_id, metadata, read, bytes } = facts;
        Source::inherited(Id(archive), (Id(metadata_id), metadata), view.references.len(), (read, bytes))
    });
    let parts = Parts {
        client: facts.client,
        label: facts.label,
        cmdline: facts.cmdline,
        start: facts.start,
        opening: Arc::clone(opening),
        view,
        opened: facts.opened,
        source,
        scratch: owner.layout.index(owner.name.as_str()),
    };
    let job = match Job::inherited(parts, sent, relied) {
        Ok(job) => Arc::new(job),
        Err(failure) => {
            log::error!("job {number}: its session ends: {}", failure.line());
            return None;
        }
    };
    {
        let mut progress = job.progress();
        progress.phase = match (facts.ended, facts.began) {
            (true, _) => Phase::Ended,
            (false, true) => Phase::Running,
            (false, false) => Phase::Prepared,
        };
        (progress.archive, progress.checkpoint) = (facts.archive, facts.checkpoint);
        (progress.failure, progress.counters, progress.opened) = (facts.failure, facts.counters, facts.began);
    }
    if let Some(id) = gone.get(&number) {
        job.fail(crate::failures::stale(id));
    }
    if !owner.jobs.insert(Arc::clone(&job)) {
        log::error!("job {number} was left to us twice");
        return None;
    }
    log::info!("job {number} goes on");
    let worker = WorkerEnd { stream: worker, token_hash: facts.token_hash, said };
    Some(Going { job, worker, session: session.zip(conversation) })
}
