//! What the client of a restore gets: a key for one job, a manifest with the one archive, the archive's metadata signed with that key, and a
//! token. Its session may read what the archive's list names, and nothing else.
//!
//! An archive is not deleted while a restore reads it: who prepares one is among the owner's jobs before the writer is asked whether the archive
//! is still there, and the writer looks at the jobs before it takes an archive out of the manifest.

use crate::failures::{ending, internal, of_repository, of_store};
use crate::jobs::{Job, Parts};
use crate::opening::Opening;
use crate::owner::Owner;
use crate::prepare::{Keys, Made, publish, withdraw};
use crate::view::{self, View};
use crate::viewlist::Named;
use crate::writer::{Ready, Request};
use borg::archive::Archive as Metadata;
use borg::compress::{Compression, compress, decompress};
use borg::manifest::{ArchiveEntry, Manifest};
use borg::tam::Status;
use borg::{Id, Key, MAX_OBJECT, MAX_PLAINTEXT};
use model::{Archive, Cause, ClientName, Failure};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use store::ArchiveKey;
use wire::session::{Opened, Prepare, Prepared, Reading, Reference, Served};

/// The client may read everything so many times: Borg 1.x with `--progress` reads the item stream twice, and what is in many files, many times.
const TIMES: u64 = 2;

/// What it may read beside that, in bytes.
const BESIDE: u64 = 64 << 20;

/// What a restore reads, and what of it was read.
pub struct Source {
    /// The archive's id in the repository.
    pub archive: Id,
    /// Its metadata, signed with the client's key: the id by which the client knows it, and the payload.
    pub metadata: (Id, Vec<u8>),
    /// One bit for each entry of the job's view.
    read: Mutex<Vec<u64>>,
    bytes: AtomicU64,
}

impl Source {
    /// Of which nothing was read yet.
    pub fn new(archive: Id, metadata: (Id, Vec<u8>), references: usize) -> Source {
        Source { archive, metadata, read: Mutex::new(vec![0; references.div_ceil(64)]), bytes: AtomicU64::new(0) }
    }

    /// With what another process of this owner has seen.
    pub fn inherited(archive: Id, metadata: (Id, Vec<u8>), references: usize, (mut read, bytes): (Vec<u64>, u64)) -> Source {
        read.resize(references.div_ceil(64), 0);
        Source { archive, metadata, read: Mutex::new(read), bytes: AtomicU64::new(bytes) }
    }

    /// For [`Source::inherited`].
    pub fn seen(&self) -> (Vec<u64>, u64) {
        (self.read.lock().unwrap_or_else(PoisonError::into_inner).clone(), self.bytes.load(Ordering::Relaxed))
    }

    /// The entry at this place of the view is being read.
    pub fn note(&self, at: usize, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        if let Some(word) = self.read.lock().unwrap_or_else(PoisonError::into_inner).get_mut(at / 64) {
            *word |= 1 << (at % 64);
        }
    }

    /// What was read, of a view with so many entries.
    pub fn served(&self, of: usize) -> Served {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let chunks = read.iter().map(|word| u64::from(word.count_ones())).sum();
        Served { chunks, of: of as u64, bytes: self.bytes.load(Ordering::Relaxed) }
    }
}

/// Does all of it for the archive of this id, which `client` is to read. The token works as soon as this returns.
pub fn prepare(owner: &Owner, request: &Prepare, client: &ClientName, id: &str) -> Result<Made, Failure> {
    let id = Id::from_hex(id).map_err(|_| internal(format!("{id:?} is no archive's id")))?;
    let key = ArchiveKey { repository: owner.name.clone(), id: id.to_hex() };
    let archive = owner.store.read(|r| r.archives().get(&key)).map_err(|e| of_store(&e))?;
    let archive = archive.ok_or_else(|| missing(&request.archive_name, owner))?;
    if archive.name != request.archive_name {
        return Err(internal(format!("the archive with the id {id} is {:?}, not {:?}", archive.name, request.archive_name)));
    }
    let Ready { opening, item_keys, timestamp, .. } = find(owner, &archive.name, id)?;
    let view = View::of_archive(owner, &archive)?;
    let settings = owner.store.read(|r| r.settings()).map_err(|e| of_store(&e))?;
    let limits = settings.map(|settings| settings.sessions).unwrap_or_default();

    let keys = Keys::make(&opening)?;
    let (packed, time) = signed_anew(owner, &opening, &archive, &id, &keys)?;
    let shown_id = keys.client_key.id_hash(&packed);
    let payload = compress(Compression::Lz4, &packed);
    if payload.len() > MAX_OBJECT - 1 {
        return Err(internal(format!("the metadata of archive {} is larger than Borg allows", archive.name)));
    }
    let mut manifest = Manifest { item_keys, ..Manifest::empty(&keys.timestamp(timestamp)) };
    manifest.archives.insert(archive.name.as_bytes().to_vec(), ArchiveEntry { id: shown_id, time });
    let opened = Opened {
        job: request.job,
        archive_name: archive.name.clone(),
        repository_id: opening.id.to_hex(),
        key_type: keys.client_key.key_type().byte(),
        key_blob: keys.key_blob.clone(),
        passphrase: keys.passphrase.clone(),
        manifest: manifest.pack(&keys.client_key, keys.manifest_salt),
        obfuscate: false,
        restore: Some(reading(&archive, &view.references, limits.objects)),
        limits,
    };
    let prepared = Prepared {
        token: keys.token.to_hex(),
        passphrase: opened.passphrase.clone(),
        repository_id: opened.repository_id.clone(),
        key_type: opened.key_type,
        manifest_id: String::new(),
        manifest_timestamp: manifest.timestamp.clone().unwrap_or_default(),
        view_chunks: view.references.len() as u64,
        mark: String::new(),
        kept: None,
        warnings: vec![],
    };
    let source = Source::new(id, (shown_id, payload), view.references.len());
    let job = Arc::new(Job::new(Parts {
        client: client.clone(),
        label: archive.label.clone(),
        cmdline: request.cmdline.clone(),
        start: request.start,
        opening,
        view,
        opened,
        source: Some(source),
        scratch: owner.layout.index(owner.name.as_str()),
    }));
    if !owner.jobs.insert(Arc::clone(&job)) {
        return Err(internal(format!("job {} was prepared already", request.job)));
    }
    let hash = keys.token_hash();
    // From here on the archive is not deleted; whether it was before, the writer knows.
    let ready = find(owner, &archive.name, id)
        .and_then(|again| if Arc::ptr_eq(&again.opening, &job.opening) { publish(owner, request.job, &hash, 0) } else { Err(ending()) });
    if let Err(failure) = ready {
        withdraw(owner, request.job, &hash);
        owner.jobs.remove(request.job);
        return Err(failure);
    }
    Ok(Made { job, prepared, token_hash: hash })
}

/// What the writer knows of an archive in the manifest.
fn find(owner: &Owner, name: &str, id: Id) -> Result<Ready, Failure> {
    let (reply, answer) = sync_channel(1);
    let request = Request::Find { name: name.to_owned(), id, reply };
    owner.writer.send(request).map_err(|_| ending())?;
    answer.recv().map_err(|_| ending())??.ok_or_else(|| missing(name, owner))
}

/// There is no such archive.
pub fn missing(name: &str, owner: &Owner) -> Failure {
    let message =
        format!("repository {} has no archive {name:?} (any more), or BorgCube did not make it and has no list of its chunks", owner.name);
    Failure::new(Cause::ArchiveMissing, unix::logging::escape(&message))
}

/// The archive's metadata, which must bear the real key's signature, with that of the client's key; and the archive's time.
fn signed_anew(owner: &Owner, opening: &Arc<Opening>, archive: &Archive, id: &Id, keys: &Keys) -> Result<(Vec<u8>, String), Failure> {
    let damaged = |why: String| {
        let message = format!("the metadata of archive {} cannot be used: {why}", archive.name);
        Failure::new(Cause::RepositoryIntegrity, unix::logging::escape(&message))
    };
    let payload = fetch(owner, opening, id)?.ok_or_else(|| damaged("there is no such object".into()))?;
    let packed = decompress(&payload, MAX_PLAINTEXT).map_err(|e| damaged(e.to_string()))?;
    verified(&opening.key, id, &packed, archive.imported.as_ref().is_some_and(|imported| !imported.signed)).map_err(damaged)?;
    let metadata = Metadata::parse(&packed).map_err(|e| damaged(e.to_string()))?;
    if metadata.name != archive.name.as_bytes() {
        return Err(damaged("it is another archive's".into()));
    }
    Ok((metadata.pack(&keys.client_key, keys.archive_salt), metadata.time))
}

/// Before anything of it is looked at: it was written with this key. `unsigned`: it had no signature when it was imported, and its id alone,
/// which is in its record, tells that it is still the same.
fn verified(key: &Key, id: &Id, packed: &[u8], unsigned: bool) -> Result<(), String> {
    if key.id_hash(packed) != *id {
        return Err("its content is not what its id promises".into());
    }
    let status = Metadata::verify_tam(packed, key).map_err(|e| e.to_string())?;
    // What BorgCube makes is signed, in every mode; without encryption that says nothing, and costs nothing.
    if status == Status::Verified || unsigned { Ok(()) } else { Err("it is not signed (TAM)".into()) }
}

/// What an honest client may read: each file, and the item stream. As many objects as a backup may have.
fn reading(archive: &Archive, references: &[Reference], objects: u64) -> Reading {
    let listed: u64 = references.iter().map(|reference| u64::from(reference.size)).sum();
    let bytes = archive.statistics.original_size.saturating_add(listed);
    Reading { objects, bytes: bytes.saturating_mul(TIMES).saturating_add(BESIDE) }
}

/// The decrypted, still compressed payload of an object; None if there is no such object.
pub fn fetch(owner: &Owner, opening: &Arc<Opening>, id: &Id) -> Result<Option<Vec<u8>>, Failure> {
    let envelope = match opening.read(id)? {
        Some(envelope) => envelope,
        None => {
            let (reply, answer) = sync_channel(1);
            let request = Request::Read { opening: Arc::clone(opening), id: *id, reply };
            owner.writer.send(request).map_err(|_| ending())?;
            match answer.recv().map_err(|_| ending())?? {
                Some(envelope) => envelope,
                None => return Ok(None),
            }
        }
    };
    let opened = opening.key.open(&envelope);
    let payload = opened.map_err(|e| Failure::new(Cause::RepositoryIntegrity, format!("chunk {id}: {e}")))?;
    Ok(Some(payload.into_owned()))
}

impl View {
    /// What one archive refers to.
    pub fn of_archive(owner: &Owner, archive: &Archive) -> Result<View, Failure> {
        let list = view::lists(owner).read(&Named::of(archive)).map_err(|e| {
            let message = format!(
                "{e}, so nobody knows which chunks belong to archive {}; borgcube archive extract reads it on the server",
                archive.name
            );
            Failure::new(Cause::Internal, unix::logging::escape(&message))
        })?;
        Ok(View {
            references: Arc::new(list.references),
            members: vec![archive.id.clone()],
            generation: [0; 32],
            base: None,
            mark: [0; 16],
            kept: None,
        })
    }
}

/// Restores that read one of these archives: their jobs.
pub fn readers(owner: &Owner, archives: &[Id]) -> Vec<u64> {
    let reads = |job: &Arc<Job>| job.source.as_ref().is_some_and(|source| archives.contains(&source.archive));
    let mut jobs: Vec<u64> = owner.jobs.all().iter().filter(|job| reads(job)).map(|job| job.number).collect();
    jobs.sort_unstable();
    jobs
}

/// Why an archive cannot be deleted that these jobs read.
pub fn in_use(jobs: &[u64]) -> Failure {
    let list: Vec<String> = jobs.iter().map(u64::to_string).collect();
    let message = format!("a restore reads it: job {}; nothing was deleted. Wait for its end, or cancel it", list.join(", "));
    Failure::new(Cause::ArchiveInUse, message)
}

/// An object that a restore reads and that is not there is nothing that the client did, and running it again does not bring it back.
pub fn lost(owner: &Owner, job: &Job, id: &Id) -> Failure {
    let message = format!("chunk {id} of archive {} is not in repository {}", job.archive_name, owner.name);
    of_repository(&repository::Error::Damaged(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_counted_once_and_its_bytes_each_time() {
        let source = Source::new(Id([1; 32]), (Id([2; 32]), vec![]), 130);
        for at in [0, 63, 64, 129, 129, 5000] {
            source.note(at, 10);
        }
        assert_eq!(source.served(130), Served { chunks: 4, of: 130, bytes: 60 });
        let again = Source::inherited(source.archive, source.metadata.clone(), 130, source.seen());
        again.note(1, 1);
        assert_eq!(again.served(130), Served { chunks: 5, of: 130, bytes: 61 });
    }

    #[test]
    fn metadata_of_another_key_are_refused() {
        let key = |n| Key::generate(borg::KeyType::Repokey, &mut |bytes| bytes.fill(n));
        let archive = Metadata { name: b"a".to_vec(), time: "2026-01-02T03:04:05.000006".into(), ..Metadata::default() };
        let packed = archive.pack(&key(1), [3; 64]);
        let id = key(1).id_hash(&packed);
        verified(&key(1), &id, &packed, false).unwrap();
        assert!(verified(&key(1), &Id([0; 32]), &packed, true).unwrap_err().contains("its id promises"));
        let foreign = archive.pack(&key(2), [3; 64]);
        assert!(verified(&key(1), &key(1).id_hash(&foreign), &foreign, true).unwrap_err().contains("TAM"));
    }
}
