//! What goes with an incomplete archive: the chunks that its job was the first to store and that nobody else refers to.
//!
//! Chunks can be referred to by archives that somebody made with a stock borg, and those have no view lists. As long as there is one, the
//! chunks stay, whatever its time says, which its maker chose: an orphan costs space, a missing chunk costs a backup.

use crate::failures::{of_repository, of_store};
use crate::owner::Owner;
use crate::viewlist::{ViewList, find, merge};
use crate::writer::Open;
use borg::Id;
use borg::manifest::Manifest;
use model::{Archive, Failure};
use std::collections::HashSet;
use store::ArchiveFilter;
use wire::session::Reference;

/// The chunks to delete, now forgotten by everybody. `kept` are the archives that are being committed, complete ones by `jobs`.
pub fn collect(owner: &Owner, open: &Open, removed: &[Archive], kept: &[&ViewList], jobs: &HashSet<u64>) -> Result<Vec<Id>, Failure> {
    let mut lists = vec![];
    for archive in removed {
        match ViewList::read(&owner.layout.view(owner.name.as_str(), &archive.id), &archive.view_digest) {
            Ok(list) => lists.push(list.new),
            Err(e) => log::warn!("{e}; chunks of archive {} stay in the repository", archive.name),
        }
    }
    let mut candidates: Vec<Id> = lists.into_iter().flatten().collect();
    candidates.retain(|id| kept.iter().all(|list| find(&list.references, id).is_none()));
    candidates.sort_unstable();
    candidates.dedup();
    if candidates.is_empty() {
        return Ok(vec![]);
    }
    let filter = ArchiveFilter { repository: Some(owner.name.clone()), ..ArchiveFilter::default() };
    let all = owner.store.read(|r| r.archives().page(&filter, usize::MAX)).map_err(|e| of_store(&e))?;
    if has_foreign(&open.manifest, &all) {
        log::info!("{} chunks of incomplete archives stay, because archives of other origin may refer to them", candidates.len());
        return Ok(vec![]);
    }
    let mut others: Vec<Reference> = vec![];
    for archive in all.iter().filter(|archive| removed.iter().all(|old| old.id != archive.id)) {
        match ViewList::read(&owner.layout.view(owner.name.as_str(), &archive.id), &archive.view_digest) {
            Ok(list) => others = merge(others, only(list.references, &candidates)),
            // Nobody knows what it refers to.
            Err(e) => {
                log::warn!("{e}; {} chunks of incomplete archives stay in the repository", candidates.len());
                return Ok(vec![]);
            }
        }
    }
    // Known before jobs: a session that proposes an archive later looks here and finds them gone.
    let mut known = open.opening.known();
    let mut needed: HashSet<Id> = others.iter().map(|reference| Id(reference.id)).collect();
    for running in owner.jobs.all().iter().filter(|running| !jobs.contains(&running.number)) {
        needed.extend(candidates.iter().filter(|id| find(&running.view, id).is_some()));
        let sent = running.sent();
        needed.extend(candidates.iter().filter(|id| sent.contains_key(id)));
    }
    candidates.retain(|id| !needed.contains(id));
    let mut there = vec![];
    for id in candidates {
        if known.contains(&id).map_err(|e| of_repository(&e))? {
            there.push(id);
        }
    }
    let candidates = there;
    if !candidates.is_empty() {
        known.lost();
    }
    candidates.iter().for_each(|id| known.remove(id));
    Ok(candidates)
}

fn only(mut references: Vec<Reference>, wanted: &[Id]) -> Vec<Reference> {
    references.retain(|reference| wanted.binary_search(&Id(reference.id)).is_ok());
    references
}

/// Whether the manifest has archives without a record.
pub fn has_foreign(manifest: &Manifest, ours: &[Archive]) -> bool {
    has_unlisted(manifest.archives.values().map(|entry| &entry.id), ours)
}

/// Whether any of these archives has no record.
pub fn has_unlisted<'a>(mut ids: impl Iterator<Item = &'a Id>, ours: &[Archive]) -> bool {
    let known: HashSet<&str> = ours.iter().map(|archive| archive.id.as_str()).collect();
    ids.any(|id| !known.contains(id.to_hex().as_str()))
}
