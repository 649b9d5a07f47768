//! The open repository: how it is opened, and what the thread that has it does with it.

use crate::commit::pack_manifest;
use crate::credentials::Credentials;
use crate::failures::{internal, of_repository, of_state};
use crate::journal::Journal;
use crate::known::Known;
use crate::nonces::Nonces;
use crate::opening::Opening;
use crate::owner::Owner;
use crate::pauses::pause_for_tests;
use crate::reconcile::reconcile;
use crate::spoiled::Spoiled;
use crate::unlock::{Unlocked, unlock};
use crate::{intents, orphans, space, tool};
use borg::manifest::Manifest;
use borg::{Id, RepositoryId};
use model::{Cause, Failure, Timestamp};
use repository::{OpenOptions, Repository};
use std::sync::Arc;

/// Objects that are looked at under the lock at a time.
const SLICE: usize = 10_000;

/// The open repository, as only the writer has it.
pub struct Open {
    /// The repository.
    pub repository: Repository,
    /// What is shared.
    pub opening: Arc<Opening>,
    /// The real manifest as it is committed.
    pub manifest: Manifest,
    /// Ids that may belong to nobody after a crash.
    pub journal: Journal,
    /// Counts commits of archives: what nobody referred to before one may be referred to after it.
    pub generation: u64,
    /// From what it was opened.
    pub source: Source,
    /// Under which name it is locked.
    pub host_id: Option<String>,
}

/// What an opening comes from. When that changes, the opening is of the past.
#[derive(Clone, PartialEq, Eq)]
pub struct Source {
    /// See [`model::Repository`].
    pub url: String,
    rsh: Option<String>,
    remote_borg: Option<String>,
    repository_id: String,
    credentials: [u8; 32],
}

impl Source {
    /// Of a record and its secrets.
    pub fn of(record: &model::Repository, credentials: &Credentials) -> Source {
        Source {
            url: record.url.clone(),
            rsh: record.rsh.clone(),
            remote_borg: record.remote_borg.clone(),
            repository_id: record.repository_id.clone(),
            credentials: credentials.digest(),
        }
    }
}

impl Open {
    /// Opens it. With `running`, for the sessions of that opening, which goes on if nothing of it has changed.
    pub fn new(
        owner: &Owner,
        record: &model::Repository,
        credentials: &Credentials,
        running: Option<Arc<Opening>>,
    ) -> Result<Open, Failure> {
        let name = owner.name.as_str();
        owner.layout.create_repository_directories(name).map_err(|e| of_state(&e))?;
        let expected = RepositoryId::from_hex(&record.repository_id).map_err(|e| internal(format!("the repository's record: {e}")))?;
        let options = options(owner, record);
        let host_id = options.host_id.clone();
        let options = OpenOptions { exclusive: true, expected: Some(expected), index: Some(owner.layout.index(name)), ..options };
        let mut repository = Repository::open(&options).map_err(|e| of_repository(&e))?;
        let Unlocked { key, manifest, encryption, nonce_above_manifest } = unlock(&mut repository, credentials)?;
        if encryption != record.encryption {
            // Otherwise whoever can write to the storage could put an unencrypted repository of the same id in its place.
            let message = format!("the repository was added with encryption {}, now it has {encryption}", record.encryption);
            return Err(Failure::new(Cause::RepositoryIntegrity, message));
        }
        let views = owner.layout.views(name);
        let reader = repository.reader();
        let scratch = owner.layout.index(name);
        let mut known = match &reader {
            Some(reader) => Known::indexed(reader.clone(), &scratch),
            None => Known::listed(repository.list_ids().map_err(|e| of_repository(&e))?, &scratch),
        };
        known = known.without(Spoiled::open(&views));
        log::info!("the repository is open: {} objects, {} archives", known.count(), manifest.archives.len());
        intents::resolve(owner, &manifest)?;
        reconcile(owner, &manifest)?;
        let mut journal = Journal::open(&views)?;
        let source = Source::of(record, credentials);
        let above = nonce_above_manifest.unwrap_or(0);
        let opening = match running {
            Some(opening) => {
                if !same_key(&opening.key, &key) {
                    return Err(Failure::new(Cause::RepositoryError, "the repository's key was changed while it was lent"));
                }
                opening.nonces.begin_anew(above);
                opening.reopened(known, reader);
                orphans::after_lending(owner, &opening, &manifest)?;
                opening
            }
            None => {
                orphans::settle(owner, &mut known, &manifest, &mut journal)?;
                let nonces = Nonces::new(views.join("nonce"), above)?;
                Arc::new(Opening::new(expected, key, nonces, known, reader))
            }
        };
        // Others may have had it meanwhile.
        space::note(owner, &opening);
        Ok(Open { repository, opening, manifest, journal, generation: 0, source, host_id })
    }

    /// Stores an object of our own: metadata, the manifest.
    pub fn put_own(&mut self, id: &Id, payload: &[u8]) -> Result<(), Failure> {
        let sealed = self.seal(payload)?;
        self.repository.put(id, &sealed, 0).map_err(|e| of_repository(&e))?;
        self.opening.known().add(*id);
        Ok(())
    }

    fn seal(&mut self, payload: &[u8]) -> Result<Vec<u8>, Failure> {
        let blocks = self.opening.key.nonce_blocks(payload.len());
        if blocks == 0 {
            return Ok(self.opening.key.seal(payload, 0));
        }
        loop {
            match self.opening.nonces.take(blocks) {
                Some(nonce) => return Ok(self.opening.key.seal(payload, nonce)),
                None => self.opening.nonces.reserve(&mut self.repository, blocks)?,
            }
        }
    }

    /// Commits what was stored and deleted. What becomes durable although no archive refers to it is in the journal before.
    pub fn commit(&mut self, referred: &dyn Fn(&Id) -> bool) -> Result<(), Failure> {
        let ids = self.opening.known().take_unpublished();
        ids.each(|part| {
            let orphans: Vec<Id> = part.iter().filter(|id| !referred(id)).copied().collect();
            self.journal.append(&orphans)
        })?;
        // Before, because whoever ends meanwhile has to know that its chunks may be durable.
        ids.each(|part| {
            part.chunks(SLICE).for_each(|part| self.opening.known().publish(part));
            Ok(())
        })?;
        pause_for_tests("after-journal");
        self.repository.commit().map_err(|e| of_repository(&e))
    }

    /// Writes the manifest without these archives, and commits.
    pub fn commit_without(&mut self, names: &[String]) -> Result<(), Failure> {
        let mut manifest = self.manifest.clone();
        let mut gone = vec![];
        for name in names {
            gone.extend(manifest.archives.remove(name.as_bytes()).map(|entry| entry.id));
        }
        let payload = pack_manifest(self, &mut manifest, Timestamp::now())?;
        for id in &gone {
            let there = {
                let mut known = self.opening.known();
                let there = known.is_stored(id).map_err(|e| of_repository(&e))?;
                if there {
                    known.remove(id);
                }
                there
            };
            if there {
                self.repository.delete(id).map_err(|e| of_repository(&e))?;
            }
        }
        self.opening.known().done();
        self.put_own(&Id::MANIFEST, &payload)?;
        self.commit(&|_| false)?;
        self.manifest = manifest;
        self.opening.known().committed([]);
        Ok(())
    }

    /// Forgets the journal if all of it is settled, and what is settled if it has become long.
    pub fn empty_journal(&mut self) {
        if self.opening.known().is_clean() {
            self.journal.empty();
        } else if self.journal.is_long() {
            let ids = self.opening.known().published();
            if let Err(failure) = self.journal.replace(&ids) {
                log::warn!("it stays as it is: {}", failure.line());
            }
        }
    }
}

/// How this owner opens its repository: shared, any id.
pub fn options(owner: &Owner, record: &model::Repository) -> OpenOptions {
    let options = tool::options(&record.url, record.remote_borg.as_deref(), record.rsh.as_deref());
    let host_id = std::fs::read_to_string(owner.layout.host_id_file()).ok().map(|text| text.trim().to_owned());
    let host_id = host_id.filter(|text| !text.is_empty()).or(options.host_id.clone());
    OpenOptions { host_id, ..options }
}

fn same_key(a: &borg::Key, b: &borg::Key) -> bool {
    a.key_type() == b.key_type()
        && a.enc_key() == b.enc_key()
        && a.enc_hmac_key() == b.enc_hmac_key()
        && a.id_key() == b.id_key()
        && a.chunk_seed() == b.chunk_seed()
}
