//! An open session: one restore. The client reads one archive; which chunks belong to it, the owner knows.

use crate::intake::object::Verifier;
use crate::rules::Rule;
use crate::session::machine::{Action, unexpected};
use crate::session::task::Shown;
use crate::stop::Stop;
use crate::table::{Call, State};
use borg::compress::unwrap_obfuscated;
use borg::rpc::{Method, reply};
use borg::{Id, Key};
use model::progress::SessionCounters;
use std::collections::VecDeque;
use wire::session::{Limits, Opened, Reading, kind, split_id};

/// Reads on their way to the owner at most. Borg 1.x asks for hundreds of chunks ahead of the one that it needs; what the owner has answered
/// waits here in no case, but in the pipes on both sides.
const READS: usize = 64;

/// An open session.
pub(super) struct Restore {
    job: u64,
    limits: Limits,
    reading: Reading,
    key_blob: String,
    key: Key,
    /// What the client sees as the manifest.
    envelope: Vec<u8>,
    /// Calls that wait for the owner, in the order in which it answers.
    waiting: VecDeque<(u64, Id)>,
    objects: u64,
    bytes: u64,
}

impl Restore {
    /// Begins with what the owner gave.
    pub fn new(opened: Opened, reading: Reading, shown: Shown) -> Restore {
        let Shown { verifier, envelope, .. } = shown;
        Restore {
            job: opened.job,
            limits: opened.limits,
            reading,
            key_blob: opened.key_blob,
            key: Verifier::into_key(verifier),
            envelope,
            waiting: VecDeque::with_capacity(READS),
            objects: 0,
            bytes: 0,
        }
    }

    pub fn state(&self) -> State {
        State::Restore
    }

    pub fn wants_client(&self) -> bool {
        self.waiting.len() < READS
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub fn job(&self) -> u64 {
        self.job
    }

    pub fn counters(&self) -> SessionCounters {
        SessionCounters::default()
    }

    /// Every call that has no answer yet: a client may wait for any of them.
    pub fn take_pending(&mut self) -> Vec<u64> {
        self.waiting.drain(..).map(|(msgid, _)| msgid).collect()
    }

    /// Carries out a call that the table permits.
    pub fn request(&mut self, msgid: u64, call: Call, method: &Method<'_>, actions: &mut Vec<Action<'_>>) -> Result<(), Stop> {
        let answer = match (call, method) {
            (Call::LoadKey, _) => reply::raw(msgid, self.key_blob.as_bytes()),
            (Call::GetManifest, _) => reply::raw(msgid, &self.envelope),
            (Call::Get, Method::Get { id }) => {
                self.objects += 1;
                if self.objects > self.reading.objects {
                    let message = format!("The restore reads more than {} objects", self.reading.objects);
                    return Err(Stop::limit("objects", message));
                }
                self.waiting.push_back((msgid, *id));
                actions.push(Action::Read(id.0));
                return Ok(());
            }
            // A rollback has nothing to undo. What else comes here writes, and a test has switched off the rule that forbids it.
            _ => reply::nil(msgid),
        };
        actions.push(Action::Reply(answer));
        Ok(())
    }

    /// A frame that answers the oldest read.
    pub fn owner(&mut self, kind: u8, payload: &[u8], actions: &mut Vec<Action<'_>>) -> Result<(), Stop> {
        let (id, payload) = split_id(payload).map_err(|_| unexpected(kind))?;
        let Some((msgid, asked)) = self.waiting.front().copied().filter(|(_, asked)| asked.0 == id) else {
            return Err(unexpected(kind));
        };
        match kind {
            kind::OBJECT => {
                // Padding tells this client nothing and costs it time; and Borg 1.1 cannot read it.
                let payload = unwrap_obfuscated(payload).map_or(payload, |(inner, _)| inner);
                self.bytes = self.bytes.saturating_add(payload.len() as u64);
                if self.bytes > self.reading.bytes {
                    let message = format!("The restore reads more than {} bytes, far more than is in the archive", self.reading.bytes);
                    return Err(Stop::limit("bytes", message));
                }
                self.waiting.pop_front();
                actions.push(Action::Reply(self.object(msgid, payload)));
                Ok(())
            }
            kind::NOT_IN_VIEW => Err(Rule::RestoreRead.broken(format!("get of {asked}"))),
            _ => Err(unexpected(kind)),
        }
    }

    /// The answer with an object. The client's key does not encrypt: what is around the payload is one byte.
    fn object(&self, msgid: u64, payload: &[u8]) -> Vec<u8> {
        let mut answer = reply::raw_head(msgid, payload.len() + self.key.key_type().overhead());
        self.key.seal_into(payload, 0, &mut answer);
        answer
    }
}
