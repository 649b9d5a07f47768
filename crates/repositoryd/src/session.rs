//! A session's connection: chunks come in, references are judged, archives are proposed and committed.

use crate::collection::Collection;
use crate::commit::Candidate;
use crate::failures::{internal, stale};
use crate::jobs::{Job, Sent};
use crate::opening::Line;
use crate::owner::Owner;
use crate::prepare;
use crate::viewlist::ViewList;
use crate::writer::Request;
use borg::Id;
use model::cause::Cause;
use model::token::Token;
use model::{Archive, Failure};
use std::collections::HashSet;
use std::io::{BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};
use unix::poll::{Interest, poll};
use wire::session::{
    End, Open, Proposal, Put, Reference, VERSION, Verdict, Violation, charge, decode_ids, kind, read_json, split_id, write_json,
};
use wire::{WireError, frame};

/// Credit is given back in pieces of this size, and whenever the session might be waiting for it.
const CREDIT_BATCH: usize = 1 << 20;

/// The overhead of the client's envelopes: its key never encrypts.
const CLIENT_OVERHEAD: u32 = 1;

/// How long a session that was told why it ends may take to close.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Serves a session whose first frame was [`kind::OPEN`].
pub fn run(owner: &Owner, mut stream: UnixStream, payload: &[u8]) -> Result<(), WireError> {
    let open: Open = read_json(payload)?;
    let job = match admit(owner, &open) {
        Ok(job) => job,
        Err(failure) => {
            log::warn!("a session is refused: {}", failure.line());
            return write_json(&mut stream, kind::REFUSED, &failure);
        }
    };
    let (number, opening) = (job.number, Arc::clone(&job.opening));
    log::info!("job {number}: the client is here, with Borg {}", unix::logging::escape(&open.client_version));
    let served = attend(owner, &job, &stream);
    opening.leave(number);
    conclude(&job, &mut stream, &served);
    release(owner, &job);
    job.end();
    served.map(drop)
}

/// How a session's connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// The session said that it ends: the client closed its connection, or the session gave the reason.
    Closed,
    /// It is gone without a word.
    Vanished,
    /// We end it: the repository failed, the worker is gone, the owner stops.
    Called,
}

fn attend(owner: &Owner, job: &Arc<Job>, stream: &UnixStream) -> Result<Ended, WireError> {
    let (bell, ours) = UnixStream::pair()?;
    if !job.opening.enter(job.number, Line { bell, connection: stream.try_clone()? }) {
        return Ok(Ended::Called);
    }
    Session::new(owner, job, stream, ours)?.serve()
}

fn admit(owner: &Owner, open: &Open) -> Result<Arc<Job>, Failure> {
    if open.version != VERSION {
        return Err(internal("session and owner are of different versions of BorgCube; restart it completely"));
    }
    let token = Token::from_hex(open.token.as_bytes());
    let token = token.ok_or_else(|| Failure::new(Cause::PolicyViolation { rule: "token".into() }, "this is no token"))?;
    prepare::claim(owner, &token)
}

/// Finds the reason for an end without a complete archive, and tells the session if it does not know.
fn conclude(job: &Job, stream: &mut UnixStream, served: &Result<Ended, WireError>) {
    if job.progress().archive.is_some() {
        return;
    }
    if let Some(failure) = job.opening.failure() {
        job.fail(failure);
    }
    let why = match served {
        // No failure of the session: why the client ended, its borg says.
        Ok(Ended::Closed) => return,
        Ok(Ended::Vanished) => "the session's process ended before the archive was complete".to_owned(),
        Ok(Ended::Called) => "the session was ended before the archive was complete, because its job is over".to_owned(),
        Err(e) => format!("the session ended before the archive was complete: {e}"),
    };
    job.fail(Failure::new(Cause::SessionLost, why));
    let reason = job.progress().failure.clone();
    if let (Ok(Ended::Called), Some(failure)) = (served, reason) {
        match write_json(stream, kind::FAILED, &failure) {
            Ok(()) => linger(stream),
            Err(e) => log::debug!("the session of job {} was gone already: {e}", job.number),
        }
    }
}

/// Takes what is still on its way until the other side has closed: if we closed first, it would see an error and not our last words.
fn linger(stream: &mut UnixStream) {
    let deadline = Instant::now() + LAST_WORDS;
    let mut waste = vec![0; 1 << 16];
    let mut wait = || -> std::io::Result<usize> {
        let left = deadline.saturating_duration_since(Instant::now());
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        stream.read(&mut waste)
    };
    while Instant::now() < deadline && wait().is_ok_and(|count| count > 0) {}
}

/// What the session sent and no archive refers to is not needed any more.
fn release(owner: &Owner, job: &Job) {
    if job.opening.failure().is_some() {
        return;
    }
    let mut known = job.opening.known();
    let (sent, relied) = (std::mem::take(&mut *job.sent()), std::mem::take(&mut *job.relied()));
    let orphans = known.release(sent.keys().chain(&relied));
    drop(known);
    if orphans > 0 {
        log::info!("job {}: {orphans} chunks that no archive refers to are to go", job.number);
        if owner.writer.send(Request::Tidy).is_err() {
            log::debug!("the owner is ending");
        }
    }
}

/// Whether the session goes on.
enum Next {
    More,
    /// It said itself that it ends.
    Stop,
    /// It cannot, and has to be told.
    Fail,
}

struct Session<'a> {
    owner: &'a Owner,
    job: &'a Arc<Job>,
    input: BufReader<UnixStream>,
    /// Closed by whoever wants this session to end.
    bell: UnixStream,
    output: UnixStream,
    /// Taken, and not given back yet.
    credit: usize,
    /// For the next proposal.
    collected: Collection,
    /// Bytes newly stored because of this session.
    deduplicated: u64,
    accepted: Option<Candidate>,
    /// New chunks of the last checkpoint.
    carried: Vec<Id>,
}

impl<'a> Session<'a> {
    fn new(owner: &'a Owner, job: &'a Arc<Job>, stream: &UnixStream, bell: UnixStream) -> Result<Session<'a>, WireError> {
        Ok(Session {
            owner,
            job,
            input: BufReader::with_capacity(1 << 18, stream.try_clone()?),
            output: stream.try_clone()?,
            bell,
            credit: 0,
            collected: Collection::default(),
            deduplicated: 0,
            accepted: None,
            carried: vec![],
        })
    }

    fn serve(&mut self) -> Result<Ended, WireError> {
        write_json(&mut self.output, kind::OPENED, &self.job.opened)?;
        let mut payload = vec![];
        loop {
            if self.input.buffer().is_empty() {
                self.give_credit()?;
                let waiting = [(self.input.get_ref().as_fd(), Interest::Read), (self.bell.as_fd(), Interest::Read)];
                let ready = poll(&waiting, None).map_err(|e| WireError::Io(std::io::Error::other(e)))?;
                if ready[1].any() {
                    return Ok(Ended::Called);
                }
            }
            let kind = match frame::read(&mut self.input, &mut payload) {
                Ok(kind) => kind,
                Err(WireError::Closed) => return Ok(Ended::Vanished),
                Err(e) => return Err(e),
            };
            if self.job.opening.failure().is_some() {
                return Ok(Ended::Called);
            }
            match self.handle(kind, &payload)? {
                Next::More => {}
                Next::Fail => return Ok(Ended::Called),
                Next::Stop => return Ok(Ended::Closed),
            }
        }
    }

    fn handle(&mut self, kind: u8, payload: &[u8]) -> Result<Next, WireError> {
        match kind {
            kind::PUT => {
                let put = Put::decode(payload)?;
                if put.id == Id::MANIFEST.0 {
                    return Err(WireError::Malformed("a session put a manifest".into()));
                }
                if let Err(failure) = self.put(&put) {
                    self.job.fail(failure);
                    return Ok(Next::Fail);
                }
                self.credit += charge(put.payload.len());
                if self.credit >= CREDIT_BATCH {
                    self.give_credit()?;
                }
            }
            kind::READ => {
                let (id, _) = split_id(payload)?;
                return self.read(Id(id));
            }
            kind::ITEMS => self.collected.items(self.job, &decode_ids(payload)?),
            kind::REFS => self.collected.references(self.job, Reference::decode_all(payload)?),
            kind::PROPOSE => {
                let verdict = self.judge(read_json(payload)?);
                self.tell(&verdict)?;
            }
            kind::COMMIT => {
                let verdict = self.commit();
                self.tell(&verdict)?;
            }
            kind::VIOLATION => {
                self.doom(&read_json(payload)?);
                return Ok(Next::Stop);
            }
            kind::END => {
                let end: End = read_json(payload)?;
                self.job.progress().counters = end.counters;
                if let Some(failure) = end.failure {
                    self.job.fail(failure);
                }
                return Ok(Next::Stop);
            }
            other => return Err(WireError::Malformed(format!("a session sent a frame of type {other}"))),
        }
        Ok(Next::More)
    }

    fn give_credit(&mut self) -> Result<(), WireError> {
        let credit = u32::try_from(std::mem::take(&mut self.credit)).unwrap_or(u32::MAX);
        if credit > 0 {
            frame::write(&mut self.output, kind::CREDIT, &[&credit.to_le_bytes()])?;
        }
        Ok(())
    }

    /// Takes a verified chunk: dropped if it is there, else encrypted here and handed to the writer.
    fn put(&mut self, put: &Put<'_>) -> Result<(), Failure> {
        let id = Id(put.id);
        let size = u32::try_from(put.payload.len()).unwrap_or(u32::MAX);
        let record = Sent { size: put.size, csize: size.saturating_add(CLIENT_OVERHEAD), new: false };
        {
            let mut sent = self.job.sent();
            if sent.contains_key(&id) {
                return Ok(());
            }
            // Before asking what is known: who deletes garbage looks here.
            sent.insert(id, record);
        }
        let opening = Arc::clone(&self.job.opening);
        if opening.known().claim(&id) {
            return Ok(());
        }
        let nonce = self.nonce(opening.key.nonce_blocks(put.payload.len()))?;
        let envelope = opening.key.seal(put.payload, nonce);
        let permit = self.owner.budget.take(envelope.len());
        {
            // Known and queued in one step: who finds it known may commit right away, and that has to come behind it.
            let mut known = opening.known();
            if known.claim(&id) {
                return Ok(());
            }
            known.add_fresh(id);
            let request = Request::Put { opening: Arc::clone(&opening), id, envelope, permit };
            self.owner.writer.send(request).map_err(|_| ending())?;
        }
        self.job.sent().insert(id, Sent { new: true, ..record });
        self.deduplicated += put.payload.len() as u64;
        Ok(())
    }

    fn nonce(&self, blocks: u64) -> Result<u64, Failure> {
        if blocks == 0 {
            return Ok(0);
        }
        loop {
            if let Some(nonce) = self.job.opening.nonces.take(blocks) {
                return Ok(nonce);
            }
            let (reply, answer) = sync_channel(1);
            let request = Request::Reserve { opening: Arc::clone(&self.job.opening), blocks, reply };
            self.owner.writer.send(request).map_err(|_| ending())?;
            answer.recv().map_err(|_| ending())??;
        }
    }

    fn read(&mut self, id: Id) -> Result<Next, WireError> {
        if self.job.entry(&id).is_none() {
            frame::write(&mut self.output, kind::NOT_IN_VIEW, &[&id.0])?;
            return Ok(Next::More);
        }
        match self.fetch(id) {
            Ok(payload) => {
                frame::write(&mut self.output, kind::OBJECT, &[&id.0, &payload])?;
                Ok(Next::More)
            }
            Err(failure) => {
                self.job.fail(failure);
                Ok(Next::Fail)
            }
        }
    }

    fn fetch(&self, id: Id) -> Result<Vec<u8>, Failure> {
        let (reply, answer) = sync_channel(1);
        let request = Request::Read { opening: Arc::clone(&self.job.opening), id, reply };
        self.owner.writer.send(request).map_err(|_| ending())?;
        let envelope = answer.recv().map_err(|_| ending())??;
        let envelope = envelope.ok_or_else(|| stale(&id))?;
        let opened = self.job.opening.key.open(&envelope);
        let payload = opened.map_err(|e| Failure::new(Cause::RepositoryIntegrity, format!("chunk {id}: {e}")))?;
        Ok(payload.into_owned())
    }

    /// Judges what was collected, and starts a new collection.
    fn judge(&mut self, proposal: Proposal) -> Verdict {
        self.accepted = None;
        if self.job.progress().archive.is_some() {
            self.collected.note("archive-complete", "another archive was proposed behind the complete one".into());
        }
        let (items, references) = match std::mem::take(&mut self.collected).finish() {
            Ok(collected) => collected,
            Err(violation) => {
                self.doom(&violation);
                return Verdict::Violation(violation);
            }
        };
        {
            let mut known = self.job.opening.known();
            if let Some(lost) = references.iter().find(|r| !known.contains(&Id(r.id))) {
                let failure = stale(&Id(lost.id));
                self.job.fail(failure.clone());
                return Verdict::Failed(failure);
            }
            // What another session has stored and no archive refers to would go with that session.
            let (sent, mut relied) = (self.job.sent(), self.job.relied());
            for id in references.iter().map(|r| Id(r.id)).filter(|id| known.is_fresh(id)).collect::<Vec<_>>() {
                if !sent.contains_key(&id) && relied.insert(id) {
                    known.claim(&id);
                }
            }
        }
        let mut new: HashSet<Id> = if proposal.checkpoint { self.carried.iter().copied().collect() } else { HashSet::new() };
        {
            let sent = self.job.sent();
            new.extend(references.iter().map(|r| Id(r.id)).filter(|id| sent.get(id).is_some_and(|sent| sent.new)));
        }
        let mut new: Vec<Id> = new.into_iter().collect();
        new.sort_unstable();
        let list = ViewList { references, new };
        self.accepted = Some(Candidate { job: Arc::clone(self.job), proposal, items, list, deduplicated: self.deduplicated });
        Verdict::Accepted
    }

    fn commit(&mut self) -> Verdict {
        let Some(candidate) = self.accepted.take() else {
            return Verdict::Failed(internal("a commit without an accepted proposal"));
        };
        let checkpoint = candidate.proposal.checkpoint;
        let carried = if checkpoint { candidate.list.new.clone() } else { vec![] };
        match self.committed(candidate) {
            Ok(archive) => {
                let mut progress = self.job.progress();
                progress.counters = archive.counters;
                *(if checkpoint { &mut progress.checkpoint } else { &mut progress.archive }) = Some(archive);
                self.carried = carried;
                Verdict::Accepted
            }
            Err(failure) => {
                self.job.fail(failure.clone());
                Verdict::Failed(failure)
            }
        }
    }

    fn committed(&self, candidate: Candidate) -> Result<Archive, Failure> {
        let (reply, answer) = sync_channel(1);
        self.owner.writer.send(Request::Commit { candidate: Box::new(candidate), reply }).map_err(|_| ending())?;
        answer.recv().map_err(|_| ending())?
    }

    fn tell(&mut self, verdict: &Verdict) -> Result<(), WireError> {
        write_json(&mut self.output, kind::VERDICT, verdict)
    }

    fn doom(&self, violation: &Violation) {
        log::warn!("job {}: {}: {}", self.job.number, violation.rule, violation.detail);
        let cause = match violation.rule.as_str() {
            "paths-overlap" => Cause::PathsOverlap,
            rule => Cause::PolicyViolation { rule: rule.to_owned() },
        };
        self.job.fail(Failure::new(cause, violation.detail.clone()));
    }
}

fn ending() -> Failure {
    Failure::new(Cause::OwnerLost, "the owner is ending")
}
