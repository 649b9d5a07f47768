//! An open session: one backup, from `open` to the last commit.

use crate::intake::object::{Examined, Verifier};
use crate::intake::stream::Examination;
use crate::intake::{archive, manifest};
use crate::rules::Rule;
use crate::session::machine::{Action, frames};
use crate::session::task::Shown;
use crate::stop::Stop;
use crate::table::{Call, State};
use borg::Id;
use borg::manifest::Manifest;
use borg::rpc::{Method, reply};
use model::Cause;
use model::progress::SessionCounters;
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use wire::session::{Limits, Opened, SMALL_OBJECT, kind, split_id};

/// Archive metadata objects held at a time, and their bytes. Honest clients have two: a checkpoint and its successor.
const MAX_HELD: usize = 8;
const MAX_HELD_BYTES: usize = 64 << 20;

/// Ids remembered to tell which item stream chunks came in this session; beyond that the counter is a lower bound.
const MAX_REMEMBERED: usize = 16 << 20;

/// Seconds of a minute.
const MINUTE: u64 = 60;

/// Manifests that may be put beyond the checkpoints: the complete archive, and what is rolled back.
const MORE_PROPOSALS: u64 = 16;

/// A manifest that the client has put, on its way to become what the client sees.
struct Candidate {
    envelope: Vec<u8>,
    manifest: Manifest,
    request: manifest::Request,
}

/// What the owner is asked at the moment.
enum Waiting {
    /// Nothing: the client may call.
    No,
    /// To read back the item stream.
    Reading(Candidate, Box<Examination>),
    /// To judge the proposal.
    Verdict(Candidate),
    /// To make it durable.
    Commit(Candidate),
}

/// An open session.
pub(super) struct Backup {
    job: u64,
    archive_name: String,
    limits: Limits,
    key_blob: String,
    verifier: Verifier,
    salt: [u8; 16],
    /// What the client sees as the manifest, as an envelope and parsed.
    envelope: Vec<u8>,
    manifest: Manifest,
    /// Archive metadata that was put, as envelopes.
    held: HashMap<Id, Vec<u8>>,
    /// Those of committed checkpoints, which the client may delete.
    checkpoints: HashSet<Id>,
    committed_checkpoints: u64,
    /// Beginnings of the ids that were put.
    put: HashSet<u64>,
    counters: SessionCounters,
    small_puts: u64,
    /// Manifests that were put.
    proposals: u64,
    staged: Option<Candidate>,
    is_final: bool,
    waiting: Waiting,
    /// The call whose answer waits for the owner.
    pending: Option<u64>,
}

impl Backup {
    /// Begins with what the owner gave.
    pub fn new(opened: Opened, salt: [u8; 16], shown: Shown) -> Backup {
        let Shown { verifier, manifest, envelope, .. } = shown;
        Backup {
            job: opened.job,
            archive_name: opened.archive_name,
            limits: opened.limits,
            key_blob: opened.key_blob,
            verifier,
            salt,
            envelope,
            manifest,
            held: HashMap::new(),
            checkpoints: HashSet::new(),
            committed_checkpoints: 0,
            put: HashSet::new(),
            counters: SessionCounters::default(),
            small_puts: 0,
            proposals: 0,
            staged: None,
            is_final: false,
            waiting: Waiting::No,
            pending: None,
        }
    }

    pub fn state(&self) -> State {
        match (self.is_final, &self.staged) {
            (true, _) => State::Final,
            (false, Some(_)) => State::Staged,
            (false, None) => State::Open,
        }
    }

    pub fn wants_client(&self) -> bool {
        matches!(self.waiting, Waiting::No)
    }

    pub fn minds_hangup(&self) -> bool {
        !matches!(self.waiting, Waiting::Commit(_))
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub fn job(&self) -> u64 {
        self.job
    }

    pub fn counters(&self) -> SessionCounters {
        self.counters
    }

    pub fn take_pending(&mut self) -> Option<u64> {
        self.pending.take()
    }

    /// Carries out a call that the table permits.
    pub fn request<'a>(
        &mut self,
        now: Duration,
        msgid: u64,
        call: Call,
        method: Method<'a>,
        actions: &mut Vec<Action<'a>>,
    ) -> Result<(), Stop> {
        let answer = match (call, method) {
            (Call::LoadKey, _) => reply::raw(msgid, self.key_blob.as_bytes()),
            (Call::GetManifest, _) => reply::raw(msgid, &self.envelope),
            (Call::Get, Method::Get { id }) => match self.held.get(&id) {
                Some(envelope) => reply::raw(msgid, envelope),
                None => return Err(Rule::GetNotOwn.broken(format!("get of {id}"))),
            },
            (Call::Put, Method::Put { id, data }) => {
                let chunk = self.put(&id, data)?;
                // The answer stands before the chunk: it must not depend on what the owner does with it.
                actions.push(Action::Reply(reply::nil(msgid)));
                actions.extend(chunk);
                return Ok(());
            }
            (Call::PutManifest, Method::Put { data, .. }) => {
                self.pending = Some(msgid);
                return self.put_manifest(now, data, actions);
            }
            (Call::Delete, Method::Delete { id }) => {
                if !self.checkpoints.remove(&id) {
                    Rule::DeleteNotOwn.breach(format!("delete of {id}"))?;
                }
                self.held.remove(&id);
                reply::nil(msgid)
            }
            (Call::Commit, _) => {
                let Some(candidate) = self.staged.take() else {
                    return Err(Rule::CommitNothing.broken("nothing was proposed"));
                };
                self.pending = Some(msgid);
                self.waiting = Waiting::Commit(candidate);
                actions.push(Action::Owner(kind::COMMIT, Vec::new()));
                return Ok(());
            }
            (Call::Rollback, _) => {
                self.staged = None;
                reply::nil(msgid)
            }
            // Nonces: the client encrypts nothing, and if it did the server would not care about its counters.
            _ => reply::nil(msgid),
        };
        actions.push(Action::Reply(answer));
        Ok(())
    }

    /// The chunk to pass on; None for what stays here.
    fn put<'a>(&mut self, id: &Id, envelope: &'a [u8]) -> Result<Option<Action<'a>>, Stop> {
        self.counters.puts += 1;
        self.counters.put_bytes += envelope.len() as u64;
        if self.counters.puts > self.limits.objects {
            return Err(Stop::limit("objects", format!("The backup has more than {} objects", self.limits.objects)));
        }
        if self.counters.put_bytes > self.limits.bytes {
            return Err(Stop::limit("bytes", format!("The backup sends more than {} bytes", self.limits.bytes)));
        }
        let payload = self.verifier.payload(envelope)?;
        let Examined { size, is_archive, payload } = self.verifier.examine(id, payload)?;
        if size < SMALL_OBJECT {
            self.small_puts += 1;
            let most = self.limits.small_objects;
            if self.small_puts > most {
                let message = format!("The backup has more than {most} objects of less than {SMALL_OBJECT} bytes");
                return Err(Stop::limit("small-objects", message));
            }
        }
        if is_archive {
            self.hold(id, envelope)?;
            return Ok(None);
        }
        if self.put.len() < MAX_REMEMBERED {
            self.put.insert(beginning(id));
        }
        Ok(Some(Action::Put { id: id.0, size, payload }))
    }

    /// Archive metadata stays here: the owner makes its own from what is proposed.
    fn hold(&mut self, id: &Id, envelope: &[u8]) -> Result<(), Stop> {
        self.held.insert(*id, envelope.to_vec());
        let bytes: usize = self.held.values().map(Vec::len).sum();
        if self.held.len() > MAX_HELD || bytes > MAX_HELD_BYTES {
            let detail = format!("{} archives of {bytes} bytes that no manifest named", self.held.len());
            Rule::ArchivesHeld.breach(detail)?;
        }
        Ok(())
    }

    fn put_manifest(&mut self, now: Duration, envelope: &[u8], actions: &mut Vec<Action<'_>>) -> Result<(), Stop> {
        self.proposals += 1;
        let by_now = now.as_secs().saturating_mul(self.limits.proposals_per_minute) / MINUTE;
        if self.proposals > by_now.saturating_add(Limits::BURST) {
            let message = format!("The backup proposes more than {} archives in a minute", self.limits.proposals_per_minute);
            return Err(Stop::limit("proposals-per-minute", message));
        }
        if self.proposals > self.limits.checkpoints.saturating_add(MORE_PROPOSALS) {
            return Err(Stop::limit("proposals", format!("The backup proposes more than {} archives", self.proposals - 1)));
        }
        let payload = self.verifier.payload(envelope)?;
        let plaintext = self.verifier.plaintext(payload, "the manifest")?.to_vec();
        let name = self.archive_name.as_bytes();
        let (request, manifest) = manifest::request(&plaintext, &self.manifest, name, self.verifier.key())?;
        if request.checkpoint && self.committed_checkpoints >= self.limits.checkpoints {
            return Err(Stop::limit("checkpoints", format!("The backup has more than {} checkpoints", self.limits.checkpoints)));
        }
        let Some(metadata) = self.held.get(&request.archive) else {
            return Err(Rule::ArchiveNotPut.broken(format!("the manifest names the archive {}", request.archive)));
        };
        // Verified when it was put.
        let payload = self.verifier.payload(metadata)?;
        let accepted = archive::accept(self.verifier.plaintext(payload, "the archive")?, &request.name)?;
        let examination = Examination::new(request.checkpoint, accepted, self.salt, self.counters.put_bytes)?;
        let candidate = Candidate { envelope: envelope.to_vec(), manifest, request };
        self.waiting = Waiting::Reading(candidate, Box::new(examination));
        self.go_on(actions)
    }

    /// A frame that answers a read.
    pub fn owner(&mut self, kind: u8, payload: &[u8], actions: &mut Vec<Action<'_>>) -> Result<(), Stop> {
        let unexpected = || Stop::failed(Cause::Internal, format!("the repository's owner sent an unexpected frame of type {kind:#04x}"));
        let Waiting::Reading(_, examination) = &mut self.waiting else {
            return Err(unexpected());
        };
        let (id, payload) = split_id(payload).map_err(|_| unexpected())?;
        match kind {
            kind::OBJECT => {
                let put_now = self.put.contains(&beginning(&Id(id)));
                examination.object(id, payload, put_now, &mut self.verifier).ok_or_else(unexpected)??;
            }
            kind::NOT_IN_VIEW => return Err(examination.not_in_view(id)),
            _ => return Err(unexpected()),
        }
        self.go_on(actions)
    }

    fn go_on(&mut self, actions: &mut Vec<Action<'_>>) -> Result<(), Stop> {
        let Waiting::Reading(_, examination) = &mut self.waiting else {
            return Ok(());
        };
        if !examination.is_complete() {
            frames(examination.frames(), actions);
            return Ok(());
        }
        if let Waiting::Reading(candidate, examination) = std::mem::replace(&mut self.waiting, Waiting::No) {
            frames(examination.finish(&mut self.counters)?, actions);
            self.waiting = Waiting::Verdict(candidate);
        }
        Ok(())
    }

    /// The owner has accepted the proposal or the commit.
    pub fn accepted(&mut self, actions: &mut Vec<Action<'_>>) -> Result<(), Stop> {
        match std::mem::replace(&mut self.waiting, Waiting::No) {
            Waiting::Verdict(candidate) => self.staged = Some(candidate),
            Waiting::Commit(candidate) => self.committed(candidate),
            Waiting::No | Waiting::Reading(..) => {
                return Err(Stop::failed(Cause::Internal, "the repository's owner accepted what was not proposed"));
            }
        }
        if let Some(msgid) = self.pending.take() {
            actions.push(Action::Reply(reply::nil(msgid)));
        }
        Ok(())
    }

    fn committed(&mut self, candidate: Candidate) {
        let Candidate { envelope, manifest, request } = candidate;
        if request.checkpoint {
            self.committed_checkpoints += 1;
            self.checkpoints.insert(request.archive);
        } else {
            self.is_final = true;
        }
        // What no manifest names any more can never be named or read again.
        self.held.retain(|id, _| manifest.archives.values().any(|entry| entry.id == *id));
        self.checkpoints.retain(|id| self.held.contains_key(id));
        self.envelope = envelope;
        self.manifest = manifest;
    }
}

fn beginning(id: &Id) -> u64 {
    id.0.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
