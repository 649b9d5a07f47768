//! From accepted proposals to durable archives.
//!
//! The order is the point: view lists, intents, objects, manifest, repository commit, records. Whatever ends it in between, the next opening
//! finds for each archive either an intent whose archive is in the manifest, or one whose archive is not.
//!
//! Proposals that wait together are committed together: one set of intents, one manifest, one commit of the repository. What is wrong with
//! one of them shows before any of that, and concerns it alone.

use crate::failures::{internal, of_repository, stale};
use crate::jobs::Job;
use crate::owner::Owner;
use crate::pauses::pause_for_tests;
use crate::tool::Random;
use crate::viewlist::Staged as StagedList;
use crate::viewlist::{self, ViewList, find};
use crate::writer::{Open, Reply, answer};
use crate::{doubts, garbage, intents, space};
use borg::archive::{Archive as Metadata, ChunkerParams};
use borg::compress::{Compression, compress};
use borg::manifest::{ArchiveEntry, Manifest};
use borg::{Id, MAX_OBJECT, MAX_PLAINTEXT, time};
use model::{Archive, Cause, ConfigName, Failure, Timestamp};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use store::{ArchiveFilter, Intent};
use wire::session::Proposal;

/// Days that an incomplete archive waits for a success of its config.
const INCOMPLETE_DAYS: i64 = 14;

/// References that are settled at a time, so that no session waits for all of them.
const SLICE: usize = 10_000;

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
    /// That as a file.
    pub staged: StagedList,
    /// Bytes that this session stored newly, as they are in the repository.
    pub deduplicated: u64,
    /// The same before compression.
    pub fresh: u64,
    /// [`crate::known::Known::losses`] when its references were looked at.
    pub losses: u64,
}

/// A candidate whose session waits for the answer.
pub struct Waiting {
    /// What is to be committed.
    pub candidate: Box<Candidate>,
    /// The answer: its record.
    pub reply: Reply<Archive>,
}

/// One that will be part of the next commit.
struct Staged {
    waiting: Waiting,
    id: Id,
    payload: Vec<u8>,
    removed: Vec<Archive>,
    intent: Intent,
    list: PathBuf,
}

/// Does all of it, and answers each. An error of the repository ends the opening for everybody; an error before that concerns one alone.
pub fn commit(owner: &Owner, open: &mut Open, group: Vec<Waiting>) {
    let now = Timestamp::now();
    let mut manifest = open.manifest.clone();
    let mut staged: Vec<Staged> = vec![];
    for waiting in group {
        match stage(owner, open, &mut manifest, &staged, &waiting.candidate, now) {
            Ok((id, payload, removed, intent, list)) => staged.push(Staged { waiting, id, payload, removed, intent, list }),
            Err(failure) => answer(&waiting.reply, Err(failure)),
        }
    }
    if staged.is_empty() {
        return;
    }
    let done = together(owner, open, manifest, &staged, now);
    for one in staged {
        answer(&one.waiting.reply, done.clone().map(|()| one.intent.archive));
    }
}

type Stage = (Id, Vec<u8>, Vec<Archive>, Intent, PathBuf);

/// What concerns one archive alone. The manifest is changed only if it is accepted.
fn stage(
    owner: &Owner,
    open: &Open,
    manifest: &mut Manifest,
    before: &[Staged],
    candidate: &Candidate,
    now: Timestamp,
) -> Result<Stage, Failure> {
    let name = choose_name(manifest, candidate)?;
    let mut removed = outdated(owner, manifest, candidate, now)?;
    removed.retain(|old| before.iter().all(|other| other.removed.iter().all(|archive| archive.id != old.id)));
    let metadata = describe(candidate, &name, now);
    let mut random = Random::default();
    let mut salt = [0; 64];
    random.fill(&mut salt);
    random.check()?;
    let packed = metadata.pack(&open.opening.key, salt);
    let id = open.opening.key.id_hash(&packed);
    let payload = pack_object("the archive's metadata", &packed)?;
    still_there(open, candidate)?;
    let list = owner.layout.view(owner.name.as_str(), &id.to_hex());
    let view_digest = candidate.staged.publish(&list)?;
    let mut archive = record(owner, candidate, id, name.clone(), view_digest, now);
    doubts::note(owner, &mut archive, candidate.fresh).inspect_err(|_| viewlist::remove(&list))?;
    // Its own object is stored for it as well.
    archive.statistics.deduplicated_size += (payload.len() + open.opening.key.key_type().overhead()) as u64;
    let intent = Intent { archive, removes: removed.iter().map(|a| a.id.clone()).collect(), time: now };
    for old in &removed {
        manifest.archives.remove(old.name.as_bytes());
    }
    manifest.archives.insert(name.into_bytes(), ArchiveEntry { id, time: metadata.time });
    Ok((id, payload, removed, intent, list))
}

/// What concerns all of them.
fn together(owner: &Owner, open: &mut Open, mut manifest: Manifest, staged: &[Staged], now: Timestamp) -> Result<(), Failure> {
    let intents: Vec<&Intent> = staged.iter().map(|one| &one.intent).collect();
    let begun = pack_manifest(open, &mut manifest, now).and_then(|payload| {
        intents::declare(owner, &intents)?;
        Ok(payload)
    });
    let payload = match begun {
        Ok(payload) => payload,
        Err(failure) => {
            staged.iter().for_each(|one| viewlist::remove(&one.list));
            return Err(failure);
        }
    };
    pause_for_tests("before-commit");
    if let Err(failure) = store(owner, open, staged, &payload) {
        // Whether it is durable, nobody knows now; the next opening will see.
        open.opening.fail(failure.clone());
        return Err(failure);
    }
    pause_for_tests("after-commit");
    open.manifest = manifest;
    settle(open, staged);
    for one in staged {
        let (archive, chunks) = (&one.intent.archive, one.waiting.candidate.list.references.len());
        log::info!("archive {} is committed: {chunks} chunks, {} new bytes", archive.name, archive.statistics.deduplicated_size);
    }
    let space = space::measure(owner, &open.opening);
    if let Err(failure) = intents::register(owner, &intents, space.as_ref()) {
        // The archives are there, only their records are not: the next opening registers them.
        open.opening.fail(failure.clone());
        return Err(failure);
    }
    open.generation += 1;
    open.empty_journal();
    Ok(())
}

/// Looks once more whether everything is there, if anything went since the proposal was judged.
fn still_there(open: &Open, candidate: &Candidate) -> Result<(), Failure> {
    if open.opening.known().losses() == candidate.losses {
        return Ok(());
    }
    for part in candidate.list.references.chunks(SLICE) {
        let known = open.opening.known();
        for reference in part {
            let id = Id(reference.id);
            if !known.contains(&id).map_err(|e| of_repository(&e))? {
                return Err(stale(&id));
            }
        }
    }
    Ok(())
}

/// Their chunks belong to archives now.
fn settle(open: &Open, staged: &[Staged]) {
    let damaged = open.opening.known().spoiled().len();
    for one in staged {
        for part in one.waiting.candidate.list.references.chunks(SLICE) {
            let ids: Vec<Id> = part.iter().map(|reference| Id(reference.id)).collect();
            open.opening.known().committed(&ids);
        }
    }
    if open.opening.known().spoiled().len() != damaged
        && let Err(failure) = open.opening.save_spoiled()
    {
        log::warn!("what was damaged and is sound now will be sent once more: {}", failure.line());
    }
}

/// The repository's part.
fn store(owner: &Owner, open: &mut Open, staged: &[Staged], manifest: &[u8]) -> Result<(), Failure> {
    let failed = |e: repository::Error| of_repository(&e);
    for one in staged {
        open.put_own(&one.id, &one.payload)?;
    }
    let mut gone: Vec<Id> = vec![];
    for id in staged.iter().flat_map(|one| &one.removed).filter_map(|old| Id::from_hex(&old.id).ok()) {
        let mut known = open.opening.known();
        if known.is_stored(&id).map_err(failed)? {
            known.remove(&id);
            gone.push(id);
        }
    }
    // A running session may come back to what its last checkpoint had; what is superseded is carried along in the lists.
    let complete = || staged.iter().filter(|one| !one.waiting.candidate.proposal.checkpoint);
    let removed: Vec<Archive> = complete().flat_map(|one| &one.removed).cloned().collect();
    let kept: Vec<&ViewList> = staged.iter().map(|one| &one.waiting.candidate.list).collect();
    let jobs: HashSet<u64> = complete().map(|one| one.waiting.candidate.job.number).collect();
    gone.extend(garbage::collect(owner, open, &removed, &kept, &jobs)?);
    for id in &gone {
        open.repository.delete(id).map_err(failed)?;
    }
    open.opening.known().done();
    open.put_own(&Id::MANIFEST, manifest)?;
    open.commit(&|id| kept.iter().any(|list| find(&list.references, id).is_some()))
}

/// The manifest as an object, of this moment.
pub fn pack_manifest(open: &Open, manifest: &mut Manifest, now: Timestamp) -> Result<Vec<u8>, Failure> {
    freshen(manifest, now);
    let mut random = Random::default();
    let mut salt = [0; 64];
    random.fill(&mut salt);
    random.check()?;
    pack_object("the manifest", &manifest.pack(&open.opening.key, salt))
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
fn outdated(owner: &Owner, manifest: &Manifest, candidate: &Candidate, now: Timestamp) -> Result<Vec<Archive>, Failure> {
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
        let entry = manifest.archives.get(old.name.as_bytes());
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
        hold: None,
        pending_deletion: None,
        imported: None,
    }
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
