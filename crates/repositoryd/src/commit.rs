//! From an accepted proposal to a durable archive.
//!
//! The order is the point: view list, intent, objects, manifest, repository commit, record. Whatever ends it in between, the next opening
//! finds either an intent whose archive is in the manifest, or one whose archive is not.

use crate::failures::{internal, of_repository, stale};
use crate::jobs::Job;
use crate::owner::Owner;
use crate::tool::Random;
use crate::viewlist::{self, ViewList};
use crate::writer::Open;
use crate::{doubts, garbage, intents};
use borg::archive::{Archive as Metadata, ChunkerParams};
use borg::compress::{Compression, compress};
use borg::manifest::{ArchiveEntry, Manifest};
use borg::{Id, MAX_OBJECT, MAX_PLAINTEXT, time};
use model::{Archive, Cause, ConfigName, Failure, Timestamp};
use std::sync::Arc;
use store::{ArchiveFilter, Intent};
use wire::session::Proposal;

/// Days that an incomplete archive waits for a success of its config.
const INCOMPLETE_DAYS: i64 = 14;

/// A proposal whose references were all found good.
pub struct Candidate {
    /// Its job.
    pub job: Arc<Job>,
    /// What the session asked for.
    pub proposal: Proposal,
    /// The item stream's chunks, in order.
    pub items: Vec<Id>,
    /// Everything it refers to.
    pub list: ViewList,
    /// Bytes that this session stored newly.
    pub deduplicated: u64,
}

/// Does all of it. An error of the repository ends the opening for everybody; an error before that concerns this archive alone.
pub fn commit(owner: &Owner, open: &mut Open, candidate: &Candidate) -> Result<Archive, Failure> {
    let now = Timestamp::now();
    let name = choose_name(&open.manifest, candidate)?;
    let removed = outdated(owner, open, candidate, now)?;
    let metadata = describe(candidate, &name, now);
    let mut random = Random::default();
    let (mut salt, mut manifest_salt) = ([0; 64], [0; 64]);
    random.fill(&mut salt);
    random.fill(&mut manifest_salt);
    random.check()?;
    let key = &open.opening.key;
    let packed = metadata.pack(key, salt);
    let id = key.id_hash(&packed);

    let mut manifest = open.manifest.clone();
    for old in &removed {
        manifest.archives.remove(old.name.as_bytes());
    }
    manifest.archives.insert(name.clone().into_bytes(), ArchiveEntry { id, time: metadata.time.clone() });
    freshen(&mut manifest, now);
    let packed_manifest = manifest.pack(key, manifest_salt);
    let archive_payload = pack_object("the archive's metadata", &packed)?;
    let manifest_payload = pack_object("the manifest", &packed_manifest)?;

    let path = owner.layout.view(owner.name.as_str(), &id.to_hex());
    let view_digest = candidate.list.write(&path)?;
    let mut archive = record(owner, candidate, id, name, view_digest, now);
    doubts::note(owner, &mut archive).inspect_err(|_| viewlist::remove(&path))?;
    let intent = Intent { archive: archive.clone(), removes: removed.iter().map(|a| a.id.clone()).collect(), time: now };
    let begun = hold(open, candidate).and_then(|()| intents::declare(owner, &intent).inspect_err(|_| let_go(open, candidate)));
    if let Err(failure) = begun {
        viewlist::remove(&path);
        return Err(failure);
    }
    pause_for_tests("before-commit");
    let stored = store(owner, open, candidate, &removed, (id, &archive_payload), &manifest_payload);
    if let Err(failure) = stored {
        // Whether it is durable, nobody knows now; the next opening will see.
        open.opening.fail(failure.clone());
        return Err(failure);
    }
    pause_for_tests("after-commit");
    open.manifest = manifest;
    {
        let mut known = open.opening.known();
        known.committed(&ids(candidate));
        known.add(id);
    }
    log::info!("archive {} is committed: {} chunks, {} new bytes", archive.name, candidate.list.references.len(), candidate.deduplicated);
    if let Err(failure) = intents::register(owner, &intent) {
        // The archive is there, only its record is not: the next opening registers it.
        open.opening.fail(failure.clone());
        return Err(failure);
    }
    Ok(archive)
}

fn ids(candidate: &Candidate) -> Vec<Id> {
    candidate.list.references.iter().map(|reference| Id(reference.id)).collect()
}

/// Looks once more whether everything is there: the proposal was judged a while ago. From here on nothing of it goes.
fn hold(open: &Open, candidate: &Candidate) -> Result<(), Failure> {
    open.opening.known().hold(ids(candidate).iter()).map_err(|lost| stale(&lost))
}

/// The commit did not even begin.
fn let_go(open: &Open, candidate: &Candidate) {
    open.opening.known().release(&ids(candidate));
}

/// The repository's part.
fn store(
    owner: &Owner,
    open: &mut Open,
    candidate: &Candidate,
    removed: &[Archive],
    archive: (Id, &[u8]),
    manifest: &[u8],
) -> Result<(), Failure> {
    let failed = |e: repository::Error| of_repository(&e);
    let sealed = seal(open, archive.1)?;
    open.repository.put(&archive.0, &sealed, 0).map_err(failed)?;
    let metadata = removed.iter().filter_map(|old| Id::from_hex(&old.id).ok());
    let mut gone: Vec<Id> = metadata.filter(|id| open.opening.known().contains(id)).collect();
    gone.iter().for_each(|id| open.opening.known().remove(id));
    if !candidate.proposal.checkpoint {
        // A running session may come back to what its last checkpoint had; what is superseded is carried along in the lists.
        gone.extend(garbage::collect(owner, open, removed, &candidate.list, candidate.job.number)?);
    }
    for id in &gone {
        open.repository.delete(id).map_err(failed)?;
    }
    let sealed = seal(open, manifest)?;
    open.repository.put(&Id::MANIFEST, &sealed, 0).map_err(failed)?;
    // Before, because whoever ends meanwhile has to know that its chunks may be durable.
    open.opening.known().publish();
    open.repository.commit().map_err(failed)
}

fn seal(open: &mut Open, payload: &[u8]) -> Result<Vec<u8>, Failure> {
    let blocks = open.opening.key.nonce_blocks(payload.len());
    if blocks == 0 {
        return Ok(open.opening.key.seal(payload, 0));
    }
    loop {
        match open.opening.nonces.take(blocks) {
            Some(nonce) => return Ok(open.opening.key.seal(payload, nonce)),
            None => open.opening.nonces.reserve(&mut open.repository, blocks)?,
        }
    }
}

fn pack_object(what: &str, packed: &[u8]) -> Result<Vec<u8>, Failure> {
    let payload = compress(Compression::Lz4, packed);
    if packed.len() > MAX_PLAINTEXT || payload.len() > MAX_OBJECT - 41 {
        return Err(Failure::new(Cause::QuotaExceeded { limit: "object-size".into() }, format!("{what} is larger than Borg allows")));
    }
    Ok(payload)
}

/// `NAME`, or for a checkpoint `NAME.checkpoint`, with a number behind it where somebody else's is in the way.
fn choose_name(manifest: &Manifest, candidate: &Candidate) -> Result<String, Failure> {
    let name = &candidate.job.archive_name;
    let taken = |name: &str| manifest.archives.contains_key(name.as_bytes());
    if !candidate.proposal.checkpoint {
        if taken(name) {
            let message = format!("the repository has an archive named {name:?} by now");
            return Err(Failure::new(Cause::ArchiveExists, message));
        }
        return Ok(name.clone());
    }
    if let Some(own) = &candidate.job.progress().checkpoint {
        return Ok(own.name.clone());
    }
    let base = format!("{name}.checkpoint");
    let numbered = (1..).map(|n| format!("{base}.{n}"));
    std::iter::once(base.clone()).chain(numbered).find(|name| !taken(name)).ok_or_else(|| internal("no name for a checkpoint"))
}

/// What goes with this commit: the session's own checkpoint before it; with a complete archive also the incomplete ones that earlier jobs
/// of the config left, and those that waited too long for a success.
fn outdated(owner: &Owner, open: &Open, candidate: &Candidate, now: Timestamp) -> Result<Vec<Archive>, Failure> {
    let own = candidate.job.progress().checkpoint.clone();
    let mut removed: Vec<Archive> = own.into_iter().collect();
    if !candidate.proposal.checkpoint {
        let filter = ArchiveFilter { repository: Some(owner.name.clone()), ..ArchiveFilter::default() };
        let all = owner.store.read(|r| r.archives().page(&filter, usize::MAX)).map_err(|e| crate::failures::of_store(&e))?;
        let config = ConfigName { client: candidate.job.client.clone(), label: candidate.job.label.clone() };
        let running: Vec<u64> = owner.jobs.all().iter().map(|job| job.number).collect();
        let limit = now.plus_seconds(-INCOMPLETE_DAYS * 86_400);
        removed.extend(all.into_iter().filter(|archive| {
            let same = ConfigName { client: archive.client.clone(), label: archive.label.clone() } == config;
            archive.incomplete && !running.contains(&archive.job) && (same || archive.end < limit)
        }));
    }
    // An entry that somebody replaced by hand is theirs.
    removed.retain(|old| {
        let entry = open.manifest.archives.get(old.name.as_bytes());
        entry.is_none_or(|entry| Id::from_hex(&old.id) == Ok(entry.id))
    });
    Ok(removed)
}

/// Borg's metadata, with the server's words for everything that is not the content.
fn describe(candidate: &Candidate, name: &str, now: Timestamp) -> Metadata {
    let Candidate { job, proposal, items, .. } = candidate;
    let totals = &proposal.statistics;
    Metadata {
        name: name.as_bytes().to_vec(),
        comment: Some(vec![]),
        hostname: Some(job.client.as_str().as_bytes().to_vec()),
        username: Some(b"borgcube".to_vec()),
        time: time::format(job.start.0),
        time_end: Some(time::format(now.0)),
        cmdline: job.cmdline.iter().map(|word| word.as_bytes().to_vec()).collect(),
        items: items.clone(),
        chunker_params: Some(ChunkerParams {
            algorithm: proposal.chunker_named.then(|| proposal.chunker_params.0.as_bytes().to_vec()),
            numbers: proposal.chunker_params.1.iter().map(|n| u64::from(*n)).collect(),
        }),
        cwd: proposal.cwd.as_ref().map(|cwd| cwd.as_bytes().to_vec()),
        size: Some(totals.original_size),
        csize: Some(totals.compressed_size),
        nfiles: Some(totals.nfiles),
        size_parts: Some(0),
        csize_parts: Some(0),
        nfiles_parts: Some(0),
        ..Metadata::default()
    }
}

/// Borg 1.x: a manifest's timestamp only goes forward; its item keys only grow.
fn freshen(manifest: &mut Manifest, now: Timestamp) {
    let previous = manifest.timestamp_micros().unwrap_or(0);
    manifest.timestamp = Some(time::format(now.0.max(previous.saturating_add(1))));
    manifest.item_keys.extend(borg::manifest::ITEM_KEYS.iter().map(|key| key.as_bytes().to_vec()));
    manifest.item_keys.sort_unstable();
    manifest.item_keys.dedup();
}

fn record(owner: &Owner, candidate: &Candidate, id: Id, name: String, view_digest: String, now: Timestamp) -> Archive {
    let Candidate { job, proposal, .. } = candidate;
    let mut statistics = proposal.statistics;
    statistics.deduplicated_size = candidate.deduplicated;
    Archive {
        id: id.to_hex(),
        name,
        repository: owner.name.clone(),
        client: job.client.clone(),
        label: job.label.clone(),
        job: job.number,
        comment: String::new(),
        statistics,
        counters: proposal.counters,
        start: job.start,
        end: now,
        incomplete: proposal.checkpoint,
        view_digest,
        claims: proposal.claims.clone(),
        suspicious: false,
        warnings: vec![],
    }
}

/// Lets a test kill the owner exactly here. Does nothing unless `BORGCUBE_TEST_PAUSE` names the place, and never in a release.
fn pause_for_tests(place: &str) {
    #[cfg(debug_assertions)]
    if std::env::var("BORGCUBE_TEST_PAUSE").is_ok_and(|wanted| wanted == place) {
        log::warn!("paused {place}");
        std::thread::sleep(std::time::Duration::from_secs(3600));
    }
    #[cfg(not(debug_assertions))]
    let _ = place;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_only_goes_forward() {
        let mut manifest = Manifest::empty("2030-01-01T00:00:00.000000");
        manifest.item_keys = vec![b"zzz".to_vec()];
        freshen(&mut manifest, Timestamp(0));
        assert_eq!(manifest.timestamp.as_deref(), Some("2030-01-01T00:00:00.000001"));
        assert_eq!(manifest.item_keys.len(), 24);
        let now = Timestamp(time::parse("2031-01-01T00:00:00.000000").unwrap());
        freshen(&mut manifest, now);
        assert_eq!(manifest.timestamp_micros(), Some(now.0));
        assert_eq!(manifest.item_keys.len(), 24);
    }
}
