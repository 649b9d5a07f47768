//! The writer's part of maintenance: one bounded step for each request, so that backups get their turn in between.

use crate::failures::{of_repository, of_store};
use crate::garbage::roots;
use crate::open::Open;
use crate::opening::Opening;
use crate::owner::Owner;
use crate::pauses::pause_for_tests;
use crate::restore;
use crate::tidy;
use crate::view;
use crate::viewlist::Staged;
use crate::writer::{Reply, answer, current, reopen_if_changed};
use borg::Id;
use model::{Archive, Failure, Timestamp};
use repository::{Compaction, Step};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use store::{ArchiveKey, Deletion};

/// So long a step of a compaction keeps everybody else from the writer.
const SLICE: Duration = Duration::from_millis(50);

/// Names in the note of one transaction.
const NAMED: usize = 100;

/// What the writer is asked for.
pub enum Upkeep {
    /// Open the repository if it is not, and say what is in it.
    Attach {
        /// The answer.
        reply: Reply<Attached>,
    },
    /// Note ids that may belong to nobody soon.
    Note {
        /// For this opening only.
        opening: Arc<Opening>,
        /// The ids.
        ids: Vec<Id>,
        /// The answer.
        reply: Reply<()>,
    },
    /// Take archives out of the manifest, and their records.
    Remove {
        /// For this opening only.
        opening: Arc<Opening>,
        /// Names and ids, of which none may have changed.
        archives: BTreeMap<String, Id>,
        /// Records among them.
        records: Vec<Archive>,
        /// The answer.
        reply: Reply<Removal>,
    },
    /// Give an archive of the manifest a record.
    Adopt {
        /// For this opening only.
        opening: Arc<Opening>,
        /// The record, but for the digest of its list.
        archive: Box<Archive>,
        /// Its list.
        list: Staged,
        /// [`crate::known::Known::losses`] when its references were looked at.
        losses: u64,
        /// The answer: false if something went meanwhile, or the archive did. Then nothing was done.
        reply: Reply<bool>,
    },
    /// Read the key as the repository keeps it, still locked.
    LoadKey {
        /// For this opening only.
        opening: Arc<Opening>,
        /// The answer; None where it keeps none.
        reply: Reply<Option<Vec<u8>>>,
    },
    /// Delete objects that no archive refers to, as far as no session does.
    Collect {
        /// For this opening only.
        opening: Arc<Opening>,
        /// The objects.
        ids: Vec<Id>,
        /// [`Attached::generation`] of the archives that were looked at.
        generation: u64,
        /// The answer.
        reply: Reply<Collected>,
    },
    /// Decide what to compact.
    Plan {
        /// For this opening only.
        opening: Arc<Opening>,
        /// Hundredths of a segment that must be free.
        threshold: u8,
        /// The answer.
        reply: Reply<Compaction>,
    },
    /// Compact for a moment.
    Compact {
        /// For this opening only.
        opening: Arc<Opening>,
        /// Where it stands.
        compaction: Compaction,
        /// The answer: where it stands now, and whether that is the end.
        reply: Reply<(Compaction, bool)>,
    },
    /// Make deletions durable.
    Commit {
        /// For this opening only.
        opening: Arc<Opening>,
        /// All that was noted is looked after.
        last: bool,
        /// The answer.
        reply: Reply<()>,
    },
}

/// What is open.
pub struct Attached {
    /// The opening.
    pub opening: Arc<Opening>,
    /// The archives of the manifest. Names are shown as text; one that is none is shown with marks in place of what is not.
    pub archives: BTreeMap<String, Id>,
    /// Changes when archives are committed.
    pub generation: u64,
    /// The journal has what a delete that broke off has noted.
    pub is_noted: bool,
}

/// What became of archives that were to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// They are gone.
    Done,
    /// They are not what they were; nothing was done.
    Changed,
    /// These jobs are restoring them; nothing was done.
    InUse(Vec<u64>),
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// The generation has changed: nothing was deleted, because archives may refer to them now.
    pub is_outdated: bool,
    /// Objects that were deleted.
    pub deleted: u64,
    /// Bytes of their envelopes, where the index knows them.
    pub bytes: u64,
    /// Objects that sessions still need.
    pub needed: u64,
}

/// One step.
pub fn serve(owner: &Owner, open: &mut Option<Open>, request: Upkeep) {
    match request {
        Upkeep::Attach { reply } => answer(&reply, attach(owner, open)),
        Upkeep::Note { opening, ids, reply } => answer(&reply, current(open, &opening).and_then(|open| open.journal.note(&ids))),
        Upkeep::Remove { opening, archives, records, reply } => {
            answer(&reply, step(open, &opening, |open| remove(owner, open, &archives, &records)));
        }
        Upkeep::Adopt { opening, archive, list, losses, reply } => {
            // An error leaves everything as it was: the repository is not touched.
            answer(&reply, current(open, &opening).and_then(|open| adopt(owner, open, *archive, &list, losses)));
        }
        Upkeep::LoadKey { opening, reply } => {
            answer(&reply, current(open, &opening).and_then(|open| open.repository.load_key().map_err(|e| of_repository(&e))));
        }
        Upkeep::Collect { opening, ids, generation, reply } => {
            answer(&reply, step(open, &opening, |open| collect(owner, open, &ids, generation)));
        }
        Upkeep::Plan { opening, threshold, reply } => {
            let plan = |open: &mut Open| open.repository.plan_compaction(threshold).map_err(|e| of_repository(&e));
            answer(&reply, current(open, &opening).and_then(plan));
        }
        Upkeep::Compact { opening, compaction, reply } => {
            answer(&reply, current(open, &opening).and_then(|open| compact(open, compaction)));
        }
        Upkeep::Commit { opening, last, reply } => answer(&reply, step(open, &opening, |open| commit(open, last))),
    }
}

/// An error in the middle of a step ends the opening: nobody knows what of it was done.
fn step<T>(open: &mut Option<Open>, opening: &Arc<Opening>, work: impl FnOnce(&mut Open) -> Result<T, Failure>) -> Result<T, Failure> {
    work(current(open, opening)?).inspect_err(|failure| opening.fail(failure.clone()))
}

fn attach(owner: &Owner, open: &mut Option<Open>) -> Result<Attached, Failure> {
    let open = reopen_if_changed(owner, open)?;
    let archives = open.manifest.archives.iter().map(|(name, entry)| (String::from_utf8_lossy(name).into_owned(), entry.id));
    Ok(Attached {
        opening: Arc::clone(&open.opening),
        archives: archives.collect(),
        generation: open.generation,
        is_noted: open.journal.is_noted(),
    })
}

/// The records go after the manifest: should it end in between, the next opening finds records without an archive and forgets them.
fn remove(owner: &Owner, open: &mut Open, archives: &BTreeMap<String, Id>, records: &[Archive]) -> Result<Removal, Failure> {
    let same = |(name, id): (&String, &Id)| open.manifest.archives.get(name.as_bytes()).is_some_and(|entry| entry.id == *id);
    if !archives.iter().all(same) {
        return Ok(Removal::Changed);
    }
    let readers = restore::readers(owner, &archives.values().copied().collect::<Vec<_>>());
    if !readers.is_empty() {
        return Ok(Removal::InUse(readers));
    }
    let names: Vec<String> = archives.keys().cloned().collect();
    let note = format!("deleted from repository {}: {}", owner.name, shown(&names));
    pause_for_tests("before-removal");
    if !announce(owner, records)? {
        return Ok(Removal::Changed);
    }
    open.commit_without(&names)?;
    pause_for_tests("after-removal");
    let removed = owner.store.write(&note, &owner.actor(), |w| {
        for archive in records {
            let key = ArchiveKey::of(archive);
            if w.archives().view().exists(&key)? {
                w.archives().remove(&key)?;
            }
        }
        if !records.is_empty() {
            w.deletions().remove(&owner.name)?;
        }
        Ok(())
    });
    removed.map_err(|e| of_store(&e))?;
    view::forget(owner, &records.iter().map(|archive| archive.id.clone()).collect::<Vec<_>>());
    log::info!("{note}");
    Ok(Removal::Done)
}

/// From here on nobody can keep them any more. False if somebody has changed one of the records since they were chosen: a hold, for one.
fn announce(owner: &Owner, records: &[Archive]) -> Result<bool, Failure> {
    if records.is_empty() {
        return Ok(true);
    }
    let mut as_chosen = true;
    let note = format!("deleting {} archives from repository {}", records.len(), owner.name);
    let archives = records.iter().map(|archive| archive.id.clone()).collect();
    let deletion = Deletion { repository: owner.name.clone(), archives, time: Timestamp::now() };
    let written = owner.store.write(&note, &owner.actor(), |w| {
        for archive in records {
            as_chosen &= w.view().archives().get(&ArchiveKey::of(archive))?.as_ref() == Some(archive);
        }
        if !as_chosen {
            // Nothing is written, into the log neither.
            return Err(store::Error::caller("the archives are others by now"));
        }
        w.deletions().put(&deletion)
    });
    match written {
        Err(_) if !as_chosen => Ok(false),
        other => other.map(|_| true).map_err(|e| of_store(&e)),
    }
}

/// The list before the record: should it end in between, a file stays behind that nothing names, and the next opening removes it.
fn adopt(owner: &Owner, open: &mut Open, mut archive: Archive, list: &Staged, losses: u64) -> Result<bool, Failure> {
    let entry = open.manifest.archives.get(archive.name.as_bytes());
    let is_there = entry.is_some_and(|entry| Id::from_hex(&archive.id) == Ok(entry.id));
    let key = ArchiveKey::of(&archive);
    let has_record = owner.store.read(|r| r.archives().exists(&key)).map_err(|e| of_store(&e))?;
    if !is_there || has_record || list.is_gone() || open.opening.known().losses() != losses {
        return Ok(false);
    }
    let path = owner.layout.view(owner.name.as_str(), &archive.id);
    archive.view_digest = list.publish(&path)?;
    pause_for_tests("import");
    let note = format!(
        "job {}: imported archive {} of repository {} as {}/{}",
        archive.job,
        unix::logging::escape(&archive.name),
        owner.name,
        archive.client,
        archive.label
    );
    let written = owner.store.write(&note, &owner.actor(), |w| w.archives().put(&archive));
    written.map_err(|e| of_store(&e)).inspect_err(|_| list.withdraw(&path))?;
    // Whoever compares chunks with all lists asks this one as well.
    open.generation += 1;
    log::info!("{note}");
    Ok(true)
}

/// Names for the note of one transaction.
fn shown(names: &[String]) -> String {
    let first = names.get(..NAMED.min(names.len())).unwrap_or_default().join(", ");
    let more = names.len().saturating_sub(NAMED);
    if more > 0 { format!("{first}, {more} more") } else { first }
}

fn collect(owner: &Owner, open: &mut Open, ids: &[Id], generation: u64) -> Result<Collected, Failure> {
    let mut collected = Collected::default();
    if open.generation != generation {
        collected.is_outdated = true;
        return Ok(collected);
    }
    let reader = open.opening.reader();
    let kept_anyway = roots(&open.manifest);
    let mut doomed = vec![];
    {
        // Whoever sends or proposes one of them later finds it gone here, and sends it again.
        let mut known = open.opening.known();
        for id in ids {
            if kept_anyway.contains(id) {
                continue;
            }
            if known.is_claimed(id) {
                known.abandon(id)?;
                collected.needed += 1;
                continue;
            }
            if !known.is_stored(id).map_err(|e| of_repository(&e))? {
                continue;
            }
            let holders = owner.jobs.holders(&open.opening, &HashSet::new(), id)?;
            // Who holds what is damaged has nothing: it is told so, and sends it again.
            if !holders.is_empty() && !known.spoiled().contains(id) {
                known.adopt(*id, &holders)?;
                collected.needed += 1;
                continue;
            }
            if let Some(entry) = reader.as_ref().map(|reader| reader.entry(id)).transpose().map_err(|e| of_repository(&e))?.flatten() {
                collected.bytes += u64::from(entry.csize);
            }
            known.remove(id);
            doomed.push(*id);
        }
        if !doomed.is_empty() {
            known.lost();
        }
    }
    tidy::delete(open, &doomed)?;
    let mut known = open.opening.known();
    known.done();
    known.note_deleted(&doomed);
    collected.deleted = doomed.len() as u64;
    Ok(collected)
}

fn compact(open: &mut Open, mut compaction: Compaction) -> Result<(Compaction, bool), Failure> {
    match open.repository.compact_step(&mut compaction, SLICE) {
        Ok(Step::More) => Ok((compaction, false)),
        Ok(Step::Done) => Ok((compaction, true)),
        Ok(Step::Commit) => {
            pause_for_tests("compact");
            let done = open.commit(&|_| false);
            done.inspect_err(|failure| open.opening.fail(failure.clone()))?;
            open.opening.known().committed([]);
            open.empty_journal();
            Ok((compaction, false))
        }
        Err(e) => {
            // It leaves everything as it is, unless the log itself is what failed.
            if let Err(broken) = open.repository.check_alive() {
                open.opening.fail(of_repository(&broken));
            }
            Err(of_repository(&e))
        }
    }
}

fn commit(open: &mut Open, last: bool) -> Result<(), Failure> {
    if open.opening.known().has_deleted() {
        open.commit(&|_| false)?;
        open.opening.known().committed([]);
    }
    if last {
        open.journal.settled();
    }
    open.empty_journal();
    Ok(())
}
