//! What goes with an incomplete archive: the chunks that it refers to or that its job was the first to store, and that nobody else refers to.
//!
//! Chunks can be referred to by archives that somebody made with a stock borg, and those have no view lists. As long as there is one, the
//! chunks stay, whatever its time says, which its maker chose: an orphan costs space, a missing chunk costs a backup.

use crate::failures::of_repository;
use crate::orphans::records;
use crate::owner::Owner;
use crate::view;
use crate::viewlist::{Named, ViewList, find};
use crate::writer::Open;
use borg::Id;
use borg::manifest::Manifest;
use model::{Archive, Failure};
use repository::IdSet;
use std::collections::HashSet;

/// The chunks to delete, now forgotten by everybody. `kept` are the archives that are being committed, complete ones by `jobs`. What a
/// running session may come back to becomes its own, and goes with it.
pub fn collect(owner: &Owner, open: &Open, removed: &[Archive], kept: &[&ViewList], jobs: &HashSet<u64>) -> Result<Vec<Id>, Failure> {
    if removed.is_empty() {
        return Ok(vec![]);
    }
    let all = records(owner)?;
    if has_foreign(&open.manifest, &all) {
        log::info!("chunks of incomplete archives stay, because archives of other origin may refer to them");
        return Ok(vec![]);
    }
    let lists = view::lists(owner);
    let (gone, others): (Vec<&Archive>, Vec<&Archive>) = all.iter().partition(|archive| removed.iter().any(|old| old.id == archive.id));
    let gone: Vec<Named> = gone.into_iter().map(Named::of).collect();
    let others: Vec<Named> = others.into_iter().map(Named::of).collect();
    // First what is in this commit, which leaves little.
    let candidates = lists.unreferenced(&gone, &[]).and_then(|mut ids| {
        ids.retain(|id| kept.iter().all(|list| find(&list.references, id).is_none()));
        lists.subtract(&mut ids, &others).map(|()| ids)
    });
    let candidates = match candidates {
        Ok(candidates) => candidates,
        // Nobody knows what it refers to.
        Err(e) => {
            log::warn!("{e}; chunks of incomplete archives stay in the repository");
            return Ok(vec![]);
        }
    };
    let kept_anyway = roots(&open.manifest);
    // Known before jobs: a session that proposes an archive later looks here and finds them gone.
    let mut known = open.opening.known();
    let mut doomed = vec![];
    for id in candidates {
        if kept_anyway.contains(&id) {
            continue;
        }
        if known.is_claimed(&id) {
            known.abandon(&id)?;
            continue;
        }
        if !known.is_stored(&id).map_err(|e| of_repository(&e))? {
            continue;
        }
        let holders = owner.jobs.holders(&open.opening, jobs, &id)?;
        // Who holds what is damaged has nothing: it is told so, and sends it again.
        if !holders.is_empty() && !known.spoiled().contains(&id) {
            known.adopt(id, &holders)?;
            continue;
        }
        known.remove(&id);
        doomed.push(id);
    }
    if !doomed.is_empty() {
        known.lost();
    }
    Ok(doomed)
}

/// What is there for its own sake: the manifest, and the metadata of its archives. No view list names it. A client may have sent the same as
/// a chunk, if it knows the metadata of an archive that another borg made; it is never garbage because that chunk is.
pub fn roots(manifest: &Manifest) -> IdSet {
    manifest.archives.values().map(|entry| entry.id).chain([Id::MANIFEST]).collect()
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
