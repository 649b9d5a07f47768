//! What may belong to nobody, and what of it does: the journal's ids against the view lists of all archives.
//!
//! Archives that somebody made with a stock borg have no view lists. As long as there is one, nobody knows what it refers to, and what the
//! journal knows stays in it.

use crate::failures::{of_repository, of_store, stale};
use crate::garbage::{has_foreign, roots};
use crate::jobs::Job;
use crate::journal::Journal;
use crate::known::Known;
use crate::opening::Opening;
use crate::owner::Owner;
use crate::restore;
use crate::view;
use crate::viewlist::Named;
use borg::Id;
use borg::manifest::Manifest;
use model::{Archive, Failure};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use store::ArchiveFilter;

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
    let kept_anyway = roots(manifest);
    journal.each(|ids| {
        for id in ids {
            // What is damaged takes up space as well.
            if !kept_anyway.contains(&id) && known.is_stored(&id).map_err(|e| of_repository(&e))? {
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
    if owner.inherits.load(Ordering::SeqCst) {
        log::info!("{} chunks belong to sessions that go on, or to nobody", orphans.len());
    } else if !orphans.is_empty() {
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
    let named: Vec<Named> = records.iter().map(Named::of).collect();
    match view::lists(owner).subtract(ids, &named) {
        Ok(()) => true,
        Err(e) => {
            log::warn!("{e}; chunks that may belong to its archive stay in the repository");
            false
        }
    }
}

/// After the repository was lent to another borg: sessions whose chunks are gone end, and what an archive of other origin may refer to is
/// nobody's orphan any more.
pub fn after_lending(owner: &Owner, opening: &Arc<Opening>, manifest: &Manifest) -> Result<(), Failure> {
    let failed = |e: repository::Error| of_repository(&e);
    opening.known().drop_vanished().map_err(failed)?;
    for job in owner.jobs.all().iter().filter(|job| Arc::ptr_eq(&job.opening, opening)) {
        let restores = |source: &restore::Source| manifest.archives.get(job.archive_name.as_bytes()).is_none_or(|e| e.id != source.archive);
        if job.source.as_ref().is_some_and(restores) {
            log::warn!("job {}: archive {} is gone since the repository was lent; its restore ends", job.number, job.archive_name);
            job.fail(restore::missing(&job.archive_name, owner));
            opening.end_session(job.number);
        } else if let Some(id) = gone(opening, job)? {
            log::warn!("job {}: chunk {id} is gone since the repository was lent; its session ends", job.number);
            job.fail(stale(&id));
            opening.end_session(job.number);
        }
    }
    if has_foreign(manifest, &records(owner)?) {
        opening.known().trust_all();
    }
    Ok(())
}

/// A chunk that the job has sent or relies on, and that is not there any more.
fn gone(opening: &Opening, job: &Job) -> Result<Option<Id>, Failure> {
    let known = opening.known();
    let mut gone = None;
    let mut look = |id: &Id| -> Result<(), Failure> {
        if gone.is_none() && !known.contains(id).map_err(|e| of_repository(&e))? {
            gone = Some(*id);
        }
        Ok(())
    };
    job.sent().each(|part| part.iter().try_for_each(|(id, _)| look(id)))?;
    job.relied().iter().try_for_each(look)?;
    Ok(gone)
}
