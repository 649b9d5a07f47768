//! A session's connection: chunks come in, references are judged, archives are proposed and committed.

use crate::collection::Collection;
use crate::commit::Candidate;
use crate::failures::internal;
use crate::jobs::Job;
use crate::leaving::{Input, Pass};
use crate::legacy::Conversation;
use crate::opening::Line;
use crate::owner::Owner;
use crate::parting::{conclude, release};
use crate::pauses::pause_for_tests;
use crate::prepare;
use borg::Id;
use model::Failure;
use model::cause::Cause;
use model::token::Token;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use unix::poll::{Interest, poll};
use wire::session::{
    Accusation, End, Open, Put, Reference, VERSION, Verdict, Violation, charge, decode_ids, kind, read_json, split_id, write_json,
};
use wire::{WireError, frame};

/// Kind and payload.
type Frame = (u8, Vec<u8>);

/// Credit is given back in pieces of this size, and whenever the session might be waiting for it.
const CREDIT_BATCH: usize = 1 << 20;

/// Serves a session whose first frame was [`kind::OPEN`].
pub fn run(owner: &Owner, mut stream: UnixStream, payload: &[u8]) -> Result<(), WireError> {
    let open: Open = read_json(payload)?;
    let job = match admit(owner, &open) {
        Ok(job) => job,
        Err(failure) => {
            log::warn!(event = "session-refused", cause = failure.cause.word(); "a session is refused: {}", failure.line());
            return write_json(&mut stream, kind::REFUSED, &failure);
        }
    };
    let (number, opening) = (job.number, Arc::clone(&job.opening));
    log::info!(
        event = "session-opened", job = number, client = job.client.as_str(), repository = owner.name.as_str();
        "job {number}: the client is here, with Borg {}", unix::logging::escape(&open.client_version)
    );
    let served = attend(owner, &job, &stream, None);
    opening.leave(number);
    over(owner, &job, stream, served)
}

/// Deals with a violation in place of a session, see [`Accusation`]. If the token was used already, its session is what counts.
pub fn accused(owner: &Owner, payload: &[u8]) -> Result<(), WireError> {
    let Accusation { version, token_hash, violation } = read_json(payload)?;
    if version != VERSION {
        return Err(WireError::Malformed("session and owner are of different versions of BorgCube; restart it completely".into()));
    }
    if token_hash.len() != 64 || !token_hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(WireError::Malformed("a session names no token".into()));
    }
    match prepare::claim_accused(owner, &token_hash) {
        Ok(Some(job)) => doom(owner, &job, &violation),
        Ok(None) => log::info!("{}: the job of that key has its session, or is over", unix::logging::escape(&violation.rule)),
        Err(failure) => log::warn!("{}", failure.line()),
    }
    Ok(())
}

/// Goes on with a session that another process of this owner began.
pub fn resume(owner: &Owner, job: &Arc<Job>, stream: UnixStream, conversation: Conversation) -> Result<(), WireError> {
    let served = attend(owner, job, &stream, Some(conversation));
    job.opening.leave(job.number);
    over(owner, job, stream, served)
}

fn over(owner: &Owner, job: &Job, mut stream: UnixStream, served: Result<Ended, WireError>) -> Result<(), WireError> {
    if served.as_ref().is_ok_and(|ended| *ended == Ended::Left) {
        return Ok(());
    }
    conclude(job, &mut stream, &served);
    release(owner, job);
    job.end();
    served.map(drop)
}

/// How a session's connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The session said that it ends: the client closed its connection, or the session gave the reason.
    Closed,
    /// It is gone without a word.
    Vanished,
    /// We end it: the repository failed, the worker is gone, the owner stops.
    Called,
    /// It does not end: the next process of this owner goes on with it.
    Left,
}

fn attend(owner: &Owner, job: &Arc<Job>, stream: &UnixStream, conversation: Option<Conversation>) -> Result<Ended, WireError> {
    let (bell, ours) = UnixStream::pair()?;
    if !job.opening.enter(job.number, Line { bell, connection: stream.try_clone()? }) || job.progress().failure.is_some() {
        return Ok(Ended::Called);
    }
    let mut session = Session::new(owner, job, stream, ours)?;
    match conversation {
        None => write_json(&mut session.output, kind::OPENED, &job.opened)?,
        Some(conversation) => match owner.pass(&session.bell) {
            // What was accepted is judged again: the repository must be there for it.
            Pass::Inside(_inside) => {
                job.set_inside(true);
                let taken_up = session.take_up(conversation);
                job.set_inside(false);
                if !taken_up? {
                    return Ok(Ended::Called);
                }
            }
            Pass::Called => return Ok(Ended::Called),
            Pass::Leaving => {
                owner.estate.leave_session(job.number, stream.try_clone()?, conversation);
                return Ok(Ended::Left);
            }
        },
    }
    let (ended, given_back) = session.serve()?;
    if ended == Ended::Left {
        let given_back = given_back.as_ref().map(|(kind, payload)| (*kind, payload.as_slice()));
        let conversation = session.put_down(given_back)?;
        owner.estate.leave_session(job.number, stream.try_clone()?, conversation);
    }
    Ok(ended)
}

fn admit(owner: &Owner, open: &Open) -> Result<Arc<Job>, Failure> {
    if open.version != VERSION {
        return Err(internal("session and owner are of different versions of BorgCube; restart it completely"));
    }
    let token = Token::from_hex(open.token.as_bytes());
    let token = token.ok_or_else(|| Failure::new(Cause::PolicyViolation { rule: "token".into() }, "this is no token"))?;
    prepare::claim(owner, &token, open.client.as_ref())
}

/// Whether the session goes on.
pub enum Next {
    More,
    /// It said itself that it ends.
    Stop,
    /// It cannot, and has to be told.
    Fail,
}

pub struct Session<'a> {
    pub owner: &'a Owner,
    pub job: &'a Arc<Job>,
    input: Input,
    /// Closed by whoever wants this session to end.
    bell: UnixStream,
    pub output: UnixStream,
    /// Taken, and not given back yet.
    credit: usize,
    /// For the next proposal.
    pub collected: Collection,
    /// Bytes newly stored because of this session.
    pub deduplicated: u64,
    /// The same before compression.
    pub fresh: u64,
    pub accepted: Option<Candidate>,
    /// A chunk that was read, to be sent outside of the gate: whoever does not take it keeps nobody from the repository.
    pub fetched: Option<(Id, Vec<u8>)>,
}

impl<'a> Session<'a> {
    fn new(owner: &'a Owner, job: &'a Arc<Job>, stream: &UnixStream, bell: UnixStream) -> Result<Session<'a>, WireError> {
        Ok(Session {
            owner,
            job,
            input: Input::new(vec![], stream.try_clone()?),
            output: stream.try_clone()?,
            bell,
            credit: 0,
            collected: Collection::default(),
            deduplicated: 0,
            fresh: 0,
            accepted: None,
            fetched: None,
        })
    }

    /// Goes on where another process of this owner stopped. False if that is not possible; then the job knows why.
    fn take_up(&mut self, conversation: Conversation) -> Result<bool, WireError> {
        let Conversation { credit, deduplicated, fresh, violation, proposal, items, references, unread } = conversation;
        self.input = Input::new(unread, self.output.try_clone()?);
        (self.credit, self.deduplicated, self.fresh) = (credit, deduplicated, fresh);
        self.collected = Collection::of(items, references, violation);
        if proposal.is_some() {
            pause_for_tests("take-up");
        }
        // It was told already that this one is good.
        Ok(proposal.is_none_or(|proposal| self.judge(proposal) == Verdict::Accepted))
    }

    /// For [`Session::take_up`], with a frame that was read and not dealt with.
    fn put_down(&mut self, given_back: Option<(u8, &[u8])>) -> Result<Conversation, WireError> {
        let unread = self.input.rest(given_back)?;
        let (proposal, (items, references, violation)) = match self.accepted.take() {
            Some(candidate) => (Some(candidate.proposal), (candidate.items, candidate.list.references, None)),
            None => (None, std::mem::take(&mut self.collected).parts()),
        };
        let (credit, deduplicated, fresh) = (self.credit, self.deduplicated, self.fresh);
        Ok(Conversation { credit, deduplicated, fresh, violation, proposal, items, references, unread })
    }

    /// How it ended, and a frame that the next process of this owner has to deal with.
    fn serve(&mut self) -> Result<(Ended, Option<Frame>), WireError> {
        let mut payload = vec![];
        loop {
            if self.owner.leaving.is_so() {
                return Ok((Ended::Left, None));
            }
            if !self.input.has_some() {
                self.give_credit()?;
                let leaving = self.owner.leaving.as_fd();
                let waiting = [(self.input.as_fd(), Interest::Read), (self.bell.as_fd(), Interest::Read), (leaving, Interest::Read)];
                let ready = poll(&waiting, None).map_err(|e| WireError::Io(std::io::Error::other(e)))?;
                if ready[1].any() {
                    return Ok((Ended::Called, None));
                }
                if ready[2].any() {
                    continue;
                }
            }
            let kind = match frame::read(&mut self.input, &mut payload) {
                Ok(kind) => kind,
                Err(WireError::Closed) => return Ok((Ended::Vanished, None)),
                Err(e) => return Err(e),
            };
            if self.job.opening.failure().is_some() {
                return Ok((Ended::Called, None));
            }
            let owner = self.owner;
            let inside = match owner.pass(&self.bell) {
                Pass::Inside(inside) => inside,
                Pass::Called => return Ok((Ended::Called, None)),
                Pass::Leaving => return Ok((Ended::Left, Some((kind, payload)))),
            };
            self.job.set_inside(true);
            let next = self.handle(kind, &payload);
            self.job.set_inside(false);
            drop(inside);
            let next = next?;
            if let Some((id, payload)) = self.fetched.take() {
                frame::write(&mut self.output, kind::OBJECT, &[&id.0, &payload])?;
            }
            match next {
                Next::More => {}
                Next::Fail => return Ok((Ended::Called, None)),
                Next::Stop => return Ok((Ended::Closed, None)),
            }
        }
    }

    fn handle(&mut self, kind: u8, payload: &[u8]) -> Result<Next, WireError> {
        if self.job.source.is_some() && !matches!(kind, kind::READ | kind::VIOLATION | kind::END) {
            // The session lets nothing of the kind through. Should it be in a client's hands, this is where it ends.
            let detail = format!("the session of a restore sent a frame of type {kind}");
            self.doom(&Violation { rule: "restore-write".into(), detail });
            return Ok(Next::Fail);
        }
        match kind {
            kind::PUT => {
                let put = Put::decode(payload)?;
                if put.id == Id::MANIFEST.0 {
                    return Err(WireError::Malformed("a session put a manifest".into()));
                }
                if let Err(failure) = self.put(&put) {
                    return Ok(self.go_on(Err(failure)));
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
            kind::ITEMS => {
                let collected = self.collected.items(self.job, &decode_ids(payload)?);
                return Ok(self.go_on(collected));
            }
            kind::REFS => {
                let collected = self.collected.references(self.job, Reference::decode_all(payload)?);
                return Ok(self.go_on(collected));
            }
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

    fn go_on(&self, done: Result<(), Failure>) -> Next {
        match done {
            Ok(()) => Next::More,
            Err(failure) => {
                self.job.fail(failure);
                Next::Fail
            }
        }
    }

    fn give_credit(&mut self) -> Result<(), WireError> {
        let credit = u32::try_from(std::mem::take(&mut self.credit)).unwrap_or(u32::MAX);
        if credit > 0 {
            frame::write(&mut self.output, kind::CREDIT, &[&credit.to_le_bytes()])?;
        }
        Ok(())
    }

    fn tell(&mut self, verdict: &Verdict) -> Result<(), WireError> {
        write_json(&mut self.output, kind::VERDICT, verdict)
    }

    pub fn doom(&self, violation: &Violation) {
        doom(self.owner, self.job, violation);
    }
}

/// The job fails because its client broke a rule.
fn doom(owner: &Owner, job: &Job, violation: &Violation) {
    log::warn!(
        event = "policy-violation", job = job.number, client = job.client.as_str(), repository = owner.name.as_str(),
        cause = violation.rule.as_str();
        "job {}: {}: {}", job.number, violation.rule, violation.detail
    );
    let cause = match violation.rule.as_str() {
        "paths-overlap" => Cause::PathsOverlap,
        rule => Cause::PolicyViolation { rule: rule.to_owned() },
    };
    job.fail(Failure::new(cause, violation.detail.clone()));
}
