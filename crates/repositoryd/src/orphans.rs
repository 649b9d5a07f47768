//! What may belong to nobody, and what of it does: the journal's ids against the view lists of all archives.
//!
//! Archives that somebody made with a stock borg have no view lists. As long as there is one, nobody knows what it refers to, and what the
//! journal knows stays in it.

use crate::failures::{of_repository, of_store, stale};
use crate::garbage::has_foreign;
use crate::journal::Journal;
use crate::known::Known;
use crate::opening::Opening;
use crate::owner::Owner;
use crate::viewlist::ViewList;
use borg::Id;
use borg::manifest::Manifest;
use model::{Archive, Failure};
use std::sync::Arc;
use store::ArchiveFilter;
use wire::session::Reference;

/// Ids that are compared with all view lists at a time.
const PILE: usize = 1 << 20;

/// The records of all archives of this repository.
pub fn records(owner: &Owner) -> Result<Vec<Archive>, Failure> {
    let filter = ArchiveFilter { repository: Some(owner.name.clone()), ..ArchiveFilter::default() };
    owner.store.read(|r| r.archives().page(&filter, usize::MAX)).map_err(|e| of_store(&e))
}

/// At an opening: what a crash left behind becomes orphans, which go as others do. Intents and records must be settled.
pub fn settle(owner: &Owner, known: &mut Known, manifest: &Manifest, journal: &mut Journal) -> Result<(), Failure> {
    if journal.is_empty() {
        return Ok(());
    }
    let records = records(owner)?;
    if has_foreign(manifest, &records) {
        log::info!("chunks that may belong to nobody stay, because archives of other origin may refer to them");
        return Ok(());
    }
    let (mut pile, mut orphans, mut is_sure) = (vec![], vec![], true);
    let mut look = |pile: &mut Vec<Id>| {
        is_sure &= strike_all(owner, &records, pile);
        orphans.append(pile);
    };
    journal.each(|ids| {
        for id in ids {
            if known.contains(&id).map_err(|e| of_repository(&e))? {
                pile.push(id);
            }
        }
        if pile.len() >= PILE {
            look(&mut pile);
        }
        Ok(())
    })?;
    look(&mut pile);
    if !is_sure {
        return Ok(());
    }
    if !orphans.is_empty() {
        log::warn!("{} chunks that no archive refers to were left behind; they are to go", orphans.len());
    }
    journal.replace(&orphans)?;
    known.add_orphans(orphans);
    Ok(())
}

/// Takes out of `ids` what any of these archives refers to, and sorts them. False if nobody knows what one of them refers to.
pub fn strike_all(owner: &Owner, records: &[Archive], ids: &mut Vec<Id>) -> bool {
    ids.sort_unstable();
    ids.dedup();
    for archive in records {
        if ids.is_empty() {
            return true;
        }
        match ViewList::read(&owner.layout.view(owner.name.as_str(), &archive.id), &archive.view_digest) {
            Ok(list) => strike(ids, &list.references),
            Err(e) => {
                log::warn!("{e}; chunks that may belong to archive {} stay in the repository", archive.name);
                return false;
            }
        }
    }
    true
}

/// Both are sorted.
fn strike(ids: &mut Vec<Id>, references: &[Reference]) {
    let mut references = references.iter().peekable();
    ids.retain(|id| {
        while references.next_if(|reference| reference.id < id.0).is_some() {}
        references.peek().is_none_or(|reference| reference.id != id.0)
    });
}

/// After the repository was lent to another borg: sessions whose chunks are gone end, and what an archive of other origin may refer to is
/// nobody's orphan any more.
pub fn after_lending(owner: &Owner, opening: &Arc<Opening>, manifest: &Manifest) -> Result<(), Failure> {
    let failed = |e: repository::Error| of_repository(&e);
    opening.known().drop_vanished().map_err(failed)?;
    for job in owner.jobs.all().iter().filter(|job| Arc::ptr_eq(&job.opening, opening)) {
        let known = opening.known();
        let (sent, relied) = (job.sent(), job.relied());
        for id in sent.keys().chain(relied.iter()) {
            if !known.contains(id).map_err(failed)? {
                log::warn!("job {}: chunk {id} is gone since the repository was lent; its session ends", job.number);
                job.fail(stale(id));
                opening.end_session(job.number);
                break;
            }
        }
    }
    if has_foreign(manifest, &records(owner)?) {
        opening.known().trust_all();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_referred_to_is_struck() {
        let id = |n: u8| Id([n; 32]);
        let reference = |n: u8| Reference { id: [n; 32], size: 1, csize: 1 };
        let mut ids = vec![id(1), id(2), id(3), id(9)];
        strike(&mut ids, &[reference(0), reference(2), reference(3), reference(4)]);
        assert_eq!(ids, [id(1), id(9)]);
        strike(&mut ids, &[]);
        strike(&mut ids, &[reference(9)]);
        assert_eq!(ids, [id(1)]);
        strike(&mut ids, &[reference(1)]);
        assert_eq!(ids, []);
    }
}
