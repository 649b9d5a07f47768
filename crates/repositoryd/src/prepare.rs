//! What a client gets for one job: a key, a manifest, a cache, a token. Nothing of it opens the repository.

use crate::failures::{internal, of_repository, of_state, of_store};
use crate::jobs::{Job, Parts};
use crate::limits;
use crate::opening::Opening;
use crate::owner::Owner;
use crate::restore;
use crate::tool::Random;
use crate::view::{self, View};
use crate::viewlist::hex;
use crate::writer::{Ready, Request};
use borg::cache::{REFCOUNT_STICKY, write_chunks_index_of};
use borg::manifest::{Manifest, manifest_id};
use borg::{Id, Key, KeyType, keyblob, time};
use model::token::Token;
use model::{Cause, ClientName, Failure, JobState, Timestamp, Work};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use store::PreparedSession;
use wire::session::{Opened, Prepare, Prepared, Purpose, Reference, VERSION};

/// How long a token waits for its client, in seconds. Tests wait less.
fn token_seconds() -> i64 {
    i64::try_from(crate::writer::seconds("BORGCUBE_TOKEN_SECONDS", 600).as_secs()).unwrap_or(i64::MAX)
}

/// Chunks that are looked at under a lock at a time.
const SLICE: usize = 4096;

/// A prepared job: what the worker gets, and the job itself.
pub struct Made {
    /// The job.
    pub job: Arc<Job>,
    /// For the worker.
    pub prepared: Prepared,
    /// By which [`withdraw`] finds the token again.
    pub token_hash: String,
}

/// The name of a token in database and file system: SHA-256 of its 32 bytes.
pub fn token_hash(token: &Token) -> String {
    hex(&Sha256::digest(token.bytes()))
}

/// Does all of it. The token works as soon as this returns.
pub fn prepare(owner: &Owner, request: &Prepare) -> Result<Made, Failure> {
    if request.version != VERSION {
        return Err(internal("worker and owner are of different versions of BorgCube; restart it completely"));
    }
    let record = owner.store.read(|r| r.jobs().require(&request.job)).map_err(|e| of_store(&e))?;
    // A restore that met damage begins again without it, from wherever it has come to.
    let is_due = match &request.purpose {
        Purpose::Backup => record.state == JobState::ClientPreparing,
        Purpose::Restore { .. } => (JobState::ClientPreparing..=JobState::ClientCleanup).contains(&record.state),
    };
    if record.repository.as_ref() != Some(&owner.name) || !is_due {
        return Err(internal(format!("job {} is {} and not about to use repository {}", request.job, record.state, owner.name)));
    }
    if owner.jobs.get(request.job).is_some() {
        return Err(internal(format!("job {} was prepared already", request.job)));
    }
    match &request.purpose {
        Purpose::Backup => backup(owner, request, &record),
        Purpose::Restore { archive } => {
            // Which archive a job may read is in the database, whatever its worker says.
            let Work::Restore { client, restore } = &record.work else {
                return Err(internal(format!("job {} is no restore", request.job)));
            };
            if restore.id != *archive || restore.archive != request.archive_name {
                return Err(internal(format!("job {} restores archive {}, and no other", request.job, restore.archive)));
            }
            restore::prepare(owner, request, client, archive)
        }
    }
}

fn backup(owner: &Owner, request: &Prepare, record: &model::Job) -> Result<Made, Failure> {
    model::names::check_archive_name(&request.archive_name).map_err(|e| internal(e.to_string()))?;
    let Some(name) = record.config() else { return Err(internal(format!("job {} is no backup", request.job))) };
    let config = owner.store.read(|r| r.configs().get(&name)).map_err(|e| of_store(&e))?;
    // What the client runs before its borg comes has time limits of its own.
    let hook_seconds = config.as_ref().map_or(0, |config| config.commands.seconds_before());
    // As borg is told, for compression may also stand among the further options.
    let asks = |argument: &String| ["--compression=obfuscate", "-Cobfuscate"].iter().any(|option| argument.starts_with(option));
    let obfuscate = config.is_some_and(|config| config.borg_arguments(&request.archive_name).iter().any(asks));
    let (reply, answer) = sync_channel(1);
    let asked = owner.writer.send(Request::Prepare { archive_name: request.archive_name.clone(), reply });
    let gone = || Failure::new(Cause::OwnerLost, "the owner is ending");
    asked.map_err(|_| gone())?;
    let Ready { opening, item_keys, timestamp, manifest_bytes } = answer.recv().map_err(|_| gone())??;

    let view = View::load(owner, &name.client, &name.label)?;
    let settings = owner.store.read(|r| r.settings()).map_err(|e| of_store(&e))?;
    let bytes = view.references.iter().map(|r| u64::from(r.csize)).sum();
    let present = limits::Present { archives: view.members.len(), bytes, manifest: manifest_bytes };
    let (limits, warning) = limits::next(settings.map(|s| s.sessions).unwrap_or_default(), present)?;

    let keys = Keys::make(&opening)?;
    let (client_key, hash) = (&keys.client_key, keys.token_hash());
    let manifest_timestamp = keys.timestamp(timestamp);
    let manifest = Manifest { item_keys, ..Manifest::empty(&manifest_timestamp) }.pack(client_key, keys.manifest_salt);
    let opened = Opened {
        job: request.job,
        archive_name: request.archive_name.clone(),
        repository_id: opening.id.to_hex(),
        key_type: client_key.key_type().byte(),
        key_blob: keys.key_blob.clone(),
        passphrase: keys.passphrase.clone(),
        manifest,
        obfuscate,
        restore: None,
        limits,
    };
    let parts = |view| Parts {
        client: name.client.clone(),
        label: name.label.clone(),
        cmdline: request.cmdline.clone(),
        start: request.start,
        opening: Arc::clone(&opening),
        view,
        opened: opened.clone(),
        source: None,
        scratch: owner.layout.index(owner.name.as_str()),
    };
    let job = pin(owner, view, parts)?;
    let prepared = Prepared {
        token: keys.token.to_hex(),
        passphrase: opened.passphrase.clone(),
        repository_id: opening.id.to_hex(),
        key_type: client_key.key_type().byte(),
        manifest_id: manifest_id(&opened.manifest, client_key).to_hex(),
        manifest_timestamp,
        view_chunks: job.view.references.len() as u64,
        mark: view::shown(&job.view.mark),
        kept: kept(&job).map(view::shown),
        warnings: warning.into_iter().collect(),
    };
    if let Err(failure) = publish(owner, request.job, &hash, hook_seconds) {
        withdraw(owner, request.job, &hash);
        owner.jobs.remove(request.job);
        return Err(failure);
    }
    Ok(Made { job, prepared, token_hash: hash })
}

/// The mark of the cache that the client may keep: none, if that has chunks that are damaged here.
fn kept(job: &Job) -> Option<&[u8; 16]> {
    job.view.kept.as_ref().filter(|_| !job.opening.known().spoiled().any(|id| job.view.find(id).is_some()))
}

/// What is made anew for each job.
pub struct Keys {
    /// The client's key, which shares nothing with the real one but how ids are computed and where chunks are cut.
    pub client_key: Key,
    /// What the client's borg shows.
    pub token: Token,
    /// Of the key's blob; empty without a key.
    pub passphrase: String,
    /// The key as `load_key` gives it.
    pub key_blob: String,
    /// For the manifest's signature.
    pub manifest_salt: [u8; 64],
    /// For that of an archive.
    pub archive_salt: [u8; 64],
}

impl Keys {
    /// Makes them.
    pub fn make(opening: &Opening) -> Result<Keys, Failure> {
        let mut random = Random::default();
        let client_key = opening.key.client_key(&mut |buffer| random.fill(buffer));
        let (mut token, mut secret, mut salt, mut manifest_salt, mut archive_salt) = ([0; 32], [0; 32], [0; 32], [0; 64], [0; 64]);
        for buffer in [&mut token[..], &mut secret, &mut salt, &mut manifest_salt, &mut archive_salt] {
            random.fill(buffer);
        }
        random.check()?;
        let has_key = client_key.key_type() != KeyType::None;
        let passphrase = if has_key { hex(&secret) } else { String::new() };
        let key_blob = if has_key { keyblob::lock(&client_key, opening.id, passphrase.as_bytes(), 1, salt) } else { String::new() };
        Ok(Keys { client_key, token: Token::from_random(token), passphrase, key_blob, manifest_salt, archive_salt })
    }

    /// See [`token_hash`].
    pub fn token_hash(&self) -> String {
        token_hash(&self.token)
    }

    /// The timestamp of the client's manifest: now, and not before that of the real one (in microseconds).
    pub fn timestamp(&self, real: i64) -> String {
        time::format(Timestamp::now().0.max(real))
    }
}

/// From here on nothing that the job may refer to is deleted. If archives of the client went while its view was put together, once more:
/// who removes an archive removes its record before its chunks, and looks for jobs in between.
fn pin(owner: &Owner, mut view: View, parts: impl Fn(View) -> Parts) -> Result<Arc<Job>, Failure> {
    loop {
        let job = Arc::new(Job::new(parts(view)));
        if !owner.jobs.insert(Arc::clone(&job)) {
            return Err(internal(format!("job {} was prepared already", job.number)));
        }
        let remove = |_: &Failure| owner.jobs.remove(job.number);
        if job.view.is_current(owner, &job.client).inspect_err(remove)? {
            return Ok(job);
        }
        owner.jobs.remove(job.number);
        view = View::load(owner, &job.client, &job.label)?;
    }
}

/// The job's view as a chunks cache, sealed, with how many entries and bytes it has. Only what is there and stays: what got lost, the
/// client sends again, and what another session has sent again may go with it.
pub fn cache(job: &Job) -> Result<(File, u64, u64), Failure> {
    let mut there = vec![];
    match job.opening.sweep(job.view.references.len())? {
        Some(mut sweep) => {
            for part in job.view.references.chunks(SLICE) {
                let mut found = Vec::with_capacity(SLICE);
                for reference in part {
                    if sweep.has(&Id(reference.id)).map_err(|e| of_repository(&e))? {
                        found.push(reference);
                    }
                }
                let known = job.opening.known();
                let stays = |id: &Id| !known.is_fresh(id) && !known.spoiled().contains(id);
                there.extend(found.into_iter().filter(|reference| stays(&Id(reference.id))));
            }
        }
        None => {
            for reference in job.view.references.iter() {
                if job.opening.stays(&Id(reference.id))? {
                    there.push(reference);
                }
            }
        }
    }
    chunks_cache(&there)
}

/// The chunks index in memory, with how many entries and bytes it has.
fn chunks_cache(view: &[&Reference]) -> Result<(File, u64, u64), Failure> {
    let file = unix::fdpass::memfd("chunks").map_err(|e| of_state(&e))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let failed = |e: String| internal(format!("the client's cache cannot be made: {e}"));
    let entry = |r: &&Reference| (Id(r.id), REFCOUNT_STICKY, r.size, r.csize);
    write_chunks_index_of(view, entry, &mut out).map_err(|e| failed(e.to_string()))?;
    out.flush().map_err(|e| failed(e.to_string()))?;
    let file = out.into_inner().map_err(|e| failed(e.to_string()))?;
    let size = file.metadata().map_err(|e| failed(e.to_string()))?.len();
    unix::fdpass::seal(&file).map_err(|e| of_state(&e))?;
    Ok((file, view.len() as u64, size))
}

/// Lets the token be found: first in the database, then by name. It lives `more` seconds longer than usual.
pub fn publish(owner: &Owner, job: u64, hash: &str, more: u64) -> Result<(), Failure> {
    let now = Timestamp::now();
    let session = PreparedSession {
        token_hash: hash.to_owned(),
        job,
        repository: owner.name.clone(),
        created: now,
        expires: now.plus_seconds(token_seconds().saturating_add(i64::try_from(more).unwrap_or(i64::MAX))),
    };
    let note = format!("job {job}: a session is prepared");
    let written = owner.store.write(&note, &owner.actor(), |w| {
        w.sessions().expire(now)?;
        w.sessions().put(&session)
    });
    written.map_err(|e| of_store(&e))?;
    let link = owner.layout.session_link(hash);
    std::os::unix::fs::symlink(owner.layout.session_link_target(owner.name.as_str()), &link)
        .map_err(|e| internal(format!("cannot create {}: {e}", link.display())))
}

/// Takes a token back, if it was not used.
pub fn withdraw(owner: &Owner, job: u64, hash: &str) {
    unlink(&owner.layout.session_link(hash));
    let note = format!("job {job}: the session is withdrawn");
    if let Err(e) = owner.store.write(&note, &owner.actor(), |w| w.sessions().withdraw(job)) {
        log::warn!("the token of job {job} stays in the database until it expires: {e}");
    }
}

/// The job of a token, once: whoever asks second, or too late, gets the reason. Whoever comes with the key of `client` gets that
/// client's jobs only, and uses up no other's token.
pub fn claim(owner: &Owner, token: &Token, client: Option<&ClientName>) -> Result<Arc<Job>, Failure> {
    let refused = |why: &str| Failure::new(Cause::PolicyViolation { rule: "token".into() }, why);
    let hash = token_hash(token);
    if let Some(client) = client {
        let prepared = owner.store.read(|r| r.sessions().get(&hash)).map_err(|e| of_store(&e))?;
        let job = prepared.and_then(|session| owner.jobs.get(session.job));
        if let Some(job) = job.filter(|job| job.client != *client) {
            let rule = Cause::PolicyViolation { rule: "token-not-own".into() };
            return Err(Failure::new(rule, format!("the key of {client} came with the token of a job of {}", job.client)));
        }
    }
    let claimed = owner.store.write("a token is used", &owner.actor(), |w| w.sessions().claim(&hash, Timestamp::now()));
    let (session, _) = claimed.map_err(|e| of_store(&e))?;
    unlink(&owner.layout.session_link(&hash));
    let session = session.ok_or_else(|| refused("this token is unknown, was used before, or has expired"))?;
    let job = owner.jobs.get(session.job).filter(|_| session.repository == owner.name);
    match job {
        Some(job) if job.begin() => Ok(job),
        _ => Err(refused("the job of this token is over")),
    }
}

/// The job whose key was used for something else than its token, if that was not used yet: nobody can use it any more.
pub fn claim_accused(owner: &Owner, token_hash: &str) -> Result<Option<Arc<Job>>, Failure> {
    let written = owner.store.write("a token is void", &owner.actor(), |w| w.sessions().claim(token_hash, Timestamp::now()));
    let (session, _) = written.map_err(|e| of_store(&e))?;
    let Some(session) = session.filter(|session| session.repository == owner.name) else { return Ok(None) };
    unlink(&owner.layout.session_link(&session.token_hash));
    Ok(owner.jobs.get(session.job).filter(|job| job.is_prepared()))
}

/// Removes what an earlier process of this owner prepared and did not leave to us: nobody holds its keys any more.
pub fn forget_old_sessions(owner: &Owner) -> Result<(), Failure> {
    let done = owner.store.write("sessions of an owner that ended are void", &owner.actor(), |w| {
        let mut old = w.sessions().view().list()?;
        old.retain(|session| session.repository == owner.name && owner.jobs.get(session.job).is_none());
        for session in &old {
            w.sessions().remove(&session.token_hash)?;
        }
        Ok(old)
    });
    let (old, _) = done.map_err(|e| of_store(&e))?;
    old.iter().for_each(|session| unlink(&owner.layout.session_link(&session.token_hash)));
    Ok(())
}

fn unlink(link: &Path) {
    if let Err(e) = std::fs::remove_file(link)
        && e.kind() != std::io::ErrorKind::NotFound
    {
        log::warn!("{} stays behind: {e}", link.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_key_shares_nothing_but_ids() {
        let mut random = Random::default();
        for kind in [KeyType::Repokey, KeyType::KeyfileBlake2, KeyType::Authenticated] {
            let key = Key::generate(kind, &mut |buffer| random.fill(buffer));
            let client = key.client_key(&mut |buffer| random.fill(buffer));
            assert_eq!(client.id_hash(b"x"), key.id_hash(b"x"));
            assert_ne!(client.enc_key(), key.enc_key());
            assert_ne!(client.enc_hmac_key(), key.enc_hmac_key());
            assert!(!client.key_type().is_encrypted());
        }
    }

    #[test]
    fn a_cache_in_memory_cannot_be_changed() {
        let reference = Reference { id: [5; 32], size: 10, csize: 7 };
        let (file, chunks, size) = chunks_cache(&[&reference]).unwrap();
        assert_eq!((chunks, size), (1, 18 + 1031 * 44));
        assert!(unix::fdpass::is_sealed(&file));
    }
}
