//! An archive is read beside everything else: objects are looked up, opened, and passed on as they are.
//!
//! Nothing here decompresses or parses what a client wrote, but for the archive's metadata, which were made anew and signed here (or by whoever
//! else has the key). Which ids are asked for is the reader's affair, as long as they are the archive's.

use super::{Stop, Work};
use crate::behalf;
use crate::failures::{ending, internal, of_repository, of_store};
use crate::opening::Opening;
use crate::upkeep::Attached;
use crate::view;
use crate::viewlist::{Named, find};
use crate::writer::Request;
use borg::archive::Archive as Metadata;
use borg::tam::Status;
use borg::{Id, MAX_PLAINTEXT};
use model::web_user::Credential;
use model::{Cause, Failure};
use std::collections::HashSet;
use std::io::{BufWriter, Write};
use std::os::fd::AsFd;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Weak};
use store::ArchiveKey;
use wire::reading::{Lacking, MAX_FETCH, Readable, Reason, kind as reading};
use wire::session::{Reference, decode_ids, kind, write_json};
use wire::{WireError, frame};

/// Bytes of payloads that are in memory before they are sent: the gate is not kept while a slow reader takes them.
const PART: usize = 4 << 20;

/// Small objects are sent together.
const BUFFER: usize = 64 << 10;

/// Fewer digits of an id may mean anything.
const SHORTEST_ID: usize = 8;

/// Serves a connection until whoever reads closes it. `behalf`: of somebody who reads through the status daemon, as long as that is allowed.
pub fn run(work: &Work<'_>, archive: &str, behalf: Option<&Credential>) -> Result<(), WireError> {
    let mut output = work.stream.try_clone()?;
    let served = begin(work, archive, behalf).and_then(|(mut reading, readable, packed)| {
        told(write_json(&mut output, reading::READABLE, &readable))?;
        told(frame::write(&mut output, reading::METADATA, &[&packed]))?;
        drop(packed);
        reading.serve(work, behalf)
    });
    match served {
        Ok(()) | Err(Stop::Gone) => Ok(()),
        Err(Stop::Failed(failure)) => {
            log::warn!("reading an archive fails: {}", failure.line());
            write_json(&mut output, kind::FAILED, &failure)
        }
    }
}

fn told(sent: Result<(), WireError>) -> Result<(), Stop> {
    sent.map_err(|e| {
        log::debug!("whoever reads is gone: {e}");
        Stop::Gone
    })
}

/// One archive and whoever reads it.
struct Reading {
    id: Id,
    name: String,
    /// Not held: a repository that nobody uses is closed, even if somebody has an archive mounted.
    opening: Weak<Opening>,
    scope: Scope,
}

/// Which objects belong to the archive.
enum Scope {
    /// Those of its list of files; of the others nobody asked yet.
    Items(HashSet<Id>, Option<Named>),
    /// Sorted.
    Listed(Vec<Reference>),
    /// BorgCube has no list of its chunks: it did not make it, or the list is damaged.
    Any,
}

/// An answer that was looked up and not sent yet.
pub(super) enum Answer {
    Object(Id, Vec<u8>),
    Lacking(Id, Reason, String),
}

fn begin(work: &Work<'_>, wanted: &str, behalf: Option<&Credential>) -> Result<(Reading, Readable, Vec<u8>), Stop> {
    let reader = behalf.map(|credential| behalf::admit(work.owner, credential)).transpose()?;
    let _inside = pass(work)?;
    let attached = work.attach()?;
    let (name, id) = find_archive(work, &attached, wanted)?;
    let opening = &attached.opening;
    let damaged = |why: String| Stop::from(Failure::new(Cause::RepositoryIntegrity, format!("the metadata of archive {name}: {why}")));
    let Genuine { packed, metadata: parsed, is_signed } = metadata(work, opening, &id)?.map_err(damaged)?;
    let key = ArchiveKey { repository: work.owner.name.clone(), id: id.to_hex() };
    let record = work.owner.store.read(|r| r.archives().get(&key)).map_err(|e| Stop::from(of_store(&e)))?;
    let scope = match record {
        Some(record) => Scope::Items(parsed.items.iter().copied().collect(), Some(Named::of(&record))),
        None => Scope::Any,
    };
    let readable = Readable {
        name: name.clone(),
        id: id.to_hex(),
        repository_id: opening.id.to_hex(),
        is_signed,
        key_type: opening.key.key_type().byte(),
        id_key: crate::viewlist::hex(opening.key.id_key()),
    };
    let by = reader.map_or_else(String::new, |name| format!(" by {name}"));
    log::info!("archive {} is being read{by}", unix::logging::escape(&name));
    Ok((Reading { id, name, opening: Arc::downgrade(opening), scope }, readable, packed))
}

/// An archive's metadata that were written with the repository's key.
pub(super) struct Genuine {
    /// As Borg packed them.
    pub packed: Vec<u8>,
    /// What they say.
    pub metadata: Metadata,
    /// Whether they bear a signature as well; archives of older borgs may not.
    pub is_signed: bool,
}

/// Reads an archive's metadata, or says what is wrong with them.
pub(super) fn metadata(work: &Work<'_>, opening: &Arc<Opening>, id: &Id) -> Result<Result<Genuine, String>, Stop> {
    let payload = match look_up(work, opening, id)? {
        Answer::Object(_, payload) => payload,
        Answer::Lacking(_, _, why) => return Ok(Err(why)),
    };
    Ok(genuine(opening, id, &payload))
}

fn genuine(opening: &Opening, id: &Id, payload: &[u8]) -> Result<Genuine, String> {
    let packed = borg::compress::decompress(payload, MAX_PLAINTEXT).map_err(|e| e.to_string())?.into_owned();
    if opening.key.id_hash(&packed) != *id {
        return Err("its content is not what its id promises".into());
    }
    let metadata = Metadata::parse(&packed).map_err(|e| e.to_string())?;
    // Archives of old borgs have no signature; a wrong one is wrong in any case.
    let status = Metadata::verify_tam(&packed, &opening.key).map_err(|e| e.to_string())?;
    Ok(Genuine { packed, metadata, is_signed: status == Status::Verified })
}

/// By its name, its id or the beginning of its id.
fn find_archive(work: &Work<'_>, attached: &Attached, wanted: &str) -> Result<(String, Id), Stop> {
    if let Some(id) = attached.archives.get(wanted) {
        return Ok((wanted.to_owned(), *id));
    }
    let is_id = wanted.len() >= SHORTEST_ID && wanted.bytes().all(|b| b.is_ascii_hexdigit());
    let wanted_id = wanted.to_ascii_lowercase();
    let mut found = attached.archives.iter().filter(|(_, id)| is_id && id.to_hex().starts_with(&wanted_id));
    match (found.next(), found.next()) {
        (Some((name, id)), None) => Ok((name.clone(), *id)),
        (Some(_), Some(_)) => {
            Err(Failure::new(Cause::RepositoryError, format!("several archives have ids that begin with {wanted}")).into())
        }
        (None, _) => {
            let message = format!("repository {} has no archive {wanted:?}", work.owner.name);
            Err(Failure::new(Cause::RepositoryError, message).into())
        }
    }
}

/// Waits while the repository is lent to another borg.
fn pass<'a>(work: &Work<'a>) -> Result<std::sync::RwLockReadGuard<'a, ()>, Stop> {
    let owner = work.owner;
    owner.gate.pass(&[owner.leaving.as_fd()]).ok_or_else(|| ending().into())
}

/// An object's payload, or why there is none.
pub(super) fn look_up(work: &Work<'_>, opening: &Arc<Opening>, id: &Id) -> Result<Answer, Stop> {
    let lacking = |reason, why: String| Ok(Answer::Lacking(*id, reason, unix::logging::escape(&why)));
    let envelope = match opening.reader_of(id) {
        Some(reader) => match reader.get(id) {
            Ok(envelope) => envelope,
            Err(repository::Error::Damaged(why)) => return lacking(Reason::Damaged, why),
            Err(repository::Error::Io(e)) => return lacking(Reason::Damaged, e.to_string()),
            Err(e) => return Err(of_repository(&e).into()),
        },
        None => {
            let (reply, answer) = sync_channel(1);
            let request = Request::Read { opening: Arc::clone(opening), id: *id, reply };
            work.owner.writer.send(request).map_err(|_| ending())?;
            answer.recv().map_err(|_| ending())??
        }
    };
    let Some(envelope) = envelope else { return lacking(Reason::Missing, format!("object {id} is not in the repository")) };
    match opening.key.open(&envelope) {
        Ok(payload) => Ok(Answer::Object(*id, payload.into_owned())),
        Err(e) => lacking(Reason::Damaged, format!("object {id}: {e}")),
    }
}

impl Reading {
    fn serve(&mut self, work: &Work<'_>, behalf: Option<&Credential>) -> Result<(), Stop> {
        let mut input = &work.stream;
        let mut output = BufWriter::with_capacity(BUFFER, &work.stream);
        let mut payload = vec![];
        loop {
            match frame::read(&mut input, &mut payload) {
                Ok(reading::FETCH) => {}
                Ok(other) => return Err(internal(format!("a reader sent a frame of type {other}")).into()),
                Err(WireError::Closed) => return Ok(()),
                Err(e) => {
                    log::debug!("whoever reads is gone: {e}");
                    return Err(Stop::Gone);
                }
            }
            let ids = decode_ids(&payload).map_err(|e| Stop::from(internal(e.to_string())))?;
            if ids.len() > MAX_FETCH {
                return Err(internal(format!("a reader asked for {} objects at once", ids.len())).into());
            }
            let mut rest = ids.into_iter().map(Id).peekable();
            while rest.peek().is_some() {
                // Whoever may not any more gets nothing more: the next part may be asked for long after the one before.
                if let Some(credential) = behalf {
                    behalf::admit(work.owner, credential)?;
                }
                for answer in self.part(work, &mut rest)? {
                    told(match answer {
                        Answer::Object(id, payload) => frame::write(&mut output, kind::OBJECT, &[&id.0, &payload]),
                        Answer::Lacking(id, reason, sentence) => {
                            let head = Lacking { id: id.0, reason, sentence: "" }.head();
                            frame::write(&mut output, reading::LACKING, &[&head, sentence.as_bytes()])
                        }
                    })?;
                }
                told(output.flush().map_err(WireError::Io))?;
            }
        }
    }

    /// As many answers as fit into memory, and one more.
    fn part(&mut self, work: &Work<'_>, ids: &mut impl Iterator<Item = Id>) -> Result<Vec<Answer>, Stop> {
        let _inside = pass(work)?;
        let mut opening = self.attach(work)?;
        let (mut answers, mut bytes, mut is_sure) = (vec![], 0, false);
        while bytes < PART
            && let Some(id) = ids.next()
        {
            if !self.belongs(work, &id) {
                let sentence = format!("object {id} does not belong to this archive");
                answers.push(Answer::Lacking(id, Reason::Foreign, sentence));
                continue;
            }
            let mut answer = look_up(work, &opening, &id);
            if answer.is_err() || (!is_sure && matches!(answer, Ok(Answer::Lacking(..)))) {
                // It may have been closed in the meantime, or the archive was deleted.
                is_sure = true;
                self.opening = Weak::new();
                opening = self.attach(work)?;
                answer = look_up(work, &opening, &id);
            }
            let answer = answer?;
            bytes += match &answer {
                Answer::Object(_, payload) => payload.len(),
                Answer::Lacking(_, _, sentence) => sentence.len(),
            };
            answers.push(answer);
        }
        Ok(answers)
    }

    /// The open repository, as long as it still has the archive.
    fn attach(&mut self, work: &Work<'_>) -> Result<Arc<Opening>, Stop> {
        if let Some(opening) = self.opening.upgrade()
            && opening.failure().is_none()
        {
            return Ok(opening);
        }
        let attached = work.attach()?;
        if attached.archives.values().all(|id| *id != self.id) {
            let message = format!("archive {} was deleted while it was read", self.name);
            return Err(Failure::new(Cause::RepositoryError, message).into());
        }
        self.opening = Arc::downgrade(&attached.opening);
        Ok(attached.opening)
    }

    fn belongs(&mut self, work: &Work<'_>, id: &Id) -> bool {
        if let Scope::Items(items, list) = &mut self.scope {
            if items.contains(id) {
                return true;
            }
            // Who only wants the names of files never comes here.
            let list = list.take().map(|list| view::lists(work.owner).read(&list));
            self.scope = match list {
                Some(Ok(list)) => Scope::Listed(list.references),
                Some(Err(e)) => {
                    log::warn!("{e}; its archive is read without it");
                    Scope::Any
                }
                None => Scope::Any,
            };
        }
        match &self.scope {
            Scope::Listed(references) => find(references, id).is_some(),
            Scope::Items(..) | Scope::Any => *id != Id::MANIFEST,
        }
    }
}
