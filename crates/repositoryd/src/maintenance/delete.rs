//! Archives are deleted: out of the manifest first, then their chunks, as far as nothing else refers to them.
//!
//! The chunks are in the journal before the archives are out of the manifest, so a crash in between leaves nothing that the next opening
//! does not find.

use super::{Stop, Work};
use crate::orphans;
use crate::restore;
use crate::space;
use crate::upkeep::{Attached, Removal, Upkeep};
use crate::view;
use crate::viewlist::{Named, ViewListError};
use borg::Id;
use model::{Archive, Cause, Failure, Timestamp};
use std::collections::{BTreeMap, HashSet};
use wire::maintenance::Report;

/// Ids that are noted in one step.
const NOTE: usize = 1 << 16;

/// Names in one sentence.
const NAMED: usize = 5;

/// So often it is planned anew because archives have changed meanwhile.
const ATTEMPTS: usize = 20;

/// What is to be done.
struct Plan {
    attached: Attached,
    /// What goes, by name.
    archives: BTreeMap<String, Id>,
    /// Those that have a record.
    records: Vec<Archive>,
    /// Those that stay and have one.
    others: Vec<Archive>,
    /// Chunks that no archive refers to afterwards.
    chunks: Vec<Id>,
    /// Chunks that no archive with a list refers to afterwards; those without may.
    doubtful: Vec<Id>,
    kept_because: Option<String>,
}

/// Deletes archives by name, or only says what would go.
pub fn delete(work: &Work<'_>, names: &[String], dry_run: bool) -> Result<Report, Stop> {
    carry_out(work, dry_run, || Ok(names.to_vec()))
}

/// Deletes those of the archives whose grace period is over.
pub fn delete_due(work: &Work<'_>, names: &[String]) -> Result<Report, Stop> {
    carry_out(work, false, || due(work, names))
}

fn carry_out(work: &Work<'_>, dry_run: bool, names: impl Fn() -> Result<Vec<String>, Stop>) -> Result<Report, Stop> {
    for _ in 0..ATTEMPTS {
        let names = names()?;
        if names.is_empty() {
            return Ok(Report::Deleted { archives: vec![], chunks: 0, bytes: 0, kept_because: None });
        }
        let plan = plan(work, &names, dry_run)?;
        if dry_run {
            return count(work, plan);
        }
        for part in [&plan.chunks, &plan.doubtful].into_iter().flat_map(|ids| ids.chunks(NOTE)) {
            work.ask(|reply| Upkeep::Note { opening: plan.attached.opening.clone(), ids: part.to_vec(), reply })?;
        }
        let Plan { attached, archives, records, others, chunks, doubtful, kept_because } = plan;
        let done = work.ask(|reply| Upkeep::Remove {
            opening: attached.opening.clone(),
            archives: archives.clone(),
            records: records.clone(),
            reply,
        })?;
        match done {
            Removal::Done => {}
            Removal::Changed => continue,
            Removal::InUse(jobs) => return Err(restore::in_use(&jobs).into()),
        }
        // What is doubtful stays in the journal: a compact looks at it again when all archives have lists.
        let attached = Attached { is_noted: attached.is_noted || !doubtful.is_empty(), ..attached };
        let collected = work.collect(&attached, &others, chunks)?;
        space::note(work.owner, &attached.opening);
        return Ok(Report::Deleted {
            archives: archives.into_keys().collect(),
            chunks: collected.deleted,
            bytes: collected.bytes,
            kept_because,
        });
    }
    let message = "the archives that were to be deleted kept changing; nothing was deleted. Try again";
    Err(Failure::new(Cause::RepositoryError, message).into())
}

/// Those that are to be deleted by now. Whoever made the list did so a while ago, and somebody may want to keep one since.
fn due(work: &Work<'_>, names: &[String]) -> Result<Vec<String>, Stop> {
    let now = Timestamp::now();
    let is_due = |archive: &Archive| archive.hold.is_none() && archive.pending_deletion.as_ref().is_some_and(|pending| pending.due <= now);
    let due: HashSet<String> = orphans::records(work.owner)?.into_iter().filter(is_due).map(|archive| archive.name).collect();
    Ok(names.iter().filter(|name| due.contains(*name)).cloned().collect())
}

fn plan(work: &Work<'_>, names: &[String], dry_run: bool) -> Result<Plan, Stop> {
    let attached = work.attach()?;
    let mut archives = BTreeMap::new();
    for name in names {
        if name.contains(char::REPLACEMENT_CHARACTER) {
            let message =
                format!("the name of archive {name:?} is not valid UTF-8; nothing was deleted. `borg rename` gives it another one");
            return Err(Failure::new(Cause::RepositoryError, message).into());
        }
        match attached.archives.get(name) {
            Some(id) => archives.insert(name.clone(), *id),
            None => {
                let message = format!("repository {} has no archive named {name:?}; nothing was deleted", work.owner.name);
                return Err(Failure::new(Cause::ArchiveMissing, message).into());
            }
        };
    }
    let readers = restore::readers(work.owner, &archives.values().copied().collect::<Vec<_>>());
    if !readers.is_empty() {
        return Err(restore::in_use(&readers).into());
    }
    let all = orphans::records(work.owner)?;
    if let Some((archive, hold)) = all.iter().find_map(|a| a.hold.as_ref().filter(|_| archives.contains_key(&a.name)).map(|hold| (a, hold)))
    {
        let message = format!(
            "archive {} is held by {}; nothing was deleted. To delete it, release it first: borgcube archive release",
            archive.name, hold.by
        );
        return Err(Failure::new(Cause::RepositoryError, message).into());
    }
    let (records, others): (Vec<Archive>, Vec<Archive>) =
        all.into_iter().partition(|archive| archives.get(&archive.name).is_some_and(|id| Id::from_hex(&archive.id) == Ok(*id)));
    let mut plan = Plan { attached, archives, records, others, chunks: vec![], doubtful: vec![], kept_because: None };
    plan.kept_because = find_chunks(work, &mut plan, dry_run)?;
    Ok(plan)
}

/// Says why chunks stay, if they do.
fn find_chunks(work: &Work<'_>, plan: &mut Plan, dry_run: bool) -> Result<Option<String>, Stop> {
    let listed: HashSet<&str> = plan.records.iter().chain(&plan.others).map(|archive| archive.id.as_str()).collect();
    let foreign = |name: &&String| {
        let id = plan.attached.archives.get(*name).map(|id| id.to_hex()).unwrap_or_default();
        !listed.contains(id.as_str())
    };
    let staying: Vec<&String> = plan.attached.archives.keys().filter(|name| !plan.archives.contains_key(*name)).filter(foreign).collect();
    if !staying.is_empty() {
        let because = shown(&staying);
        match unreferenced(work, plan, dry_run) {
            Ok(ids) => plan.doubtful = ids,
            Err(e) => log::warn!("{e}; what only its archive has is not freed later"),
        }
        return Ok(Some(format!(
            "archives that were not made by BorgCube may refer to them, and it has no list of their chunks (borgcube archive import makes one): {}",
            because
        )));
    }
    let mut because = None;
    let unlisted: Vec<&String> = plan.archives.keys().filter(foreign).collect();
    if !unlisted.is_empty() {
        because = Some(format!("BorgCube did not make them and has no list of their chunks: {}", shown(&unlisted)));
    }
    work.progress("archives", 0, 0)?;
    match unreferenced(work, plan, dry_run) {
        Ok(ids) => plan.chunks = ids,
        Err(e) => because = Some(format!("{e}, so nobody knows what its archive refers to")),
    }
    Ok(because)
}

/// What only the lists of archives that go have.
fn unreferenced(work: &Work<'_>, plan: &Plan, dry_run: bool) -> Result<Vec<Id>, ViewListError> {
    let named = |archives: &[Archive]| archives.iter().map(Named::of).collect::<Vec<_>>();
    let lists = view::lists(work.owner);
    // Nothing is deleted on trust.
    let lists = if dry_run { lists.trusting() } else { lists };
    lists.unreferenced(&named(&plan.records), &named(&plan.others))
}

fn shown(names: &[&String]) -> String {
    let first: Vec<&str> = names.iter().take(NAMED).map(|name| name.as_str()).collect();
    let more = names.len().saturating_sub(NAMED);
    let list = unix::logging::escape(&first.join(", "));
    if more > 0 { format!("{list} and {more} more") } else { list }
}

/// What a delete would report now.
fn count(work: &Work<'_>, plan: Plan) -> Result<Report, Stop> {
    let Plan { attached, archives, chunks: ids, kept_because, .. } = plan;
    let jobs = work.owner.jobs.all();
    let reader = attached.opening.reader();
    let (mut chunks, mut bytes) = (0, 0);
    for (at, id) in ids.iter().enumerate() {
        work.progress("objects", at as u64, ids.len() as u64)?;
        let is_held = jobs.iter().map(|job| job.entry(id)).collect::<Result<Vec<_>, _>>()?.iter().any(Option::is_some);
        if is_held || !attached.opening.stays(id)? {
            continue;
        }
        chunks += 1;
        let entry = reader.as_ref().map(|reader| reader.entry(id)).transpose();
        bytes += entry.map_err(|e| crate::failures::of_repository(&e))?.flatten().map_or(0, |entry| u64::from(entry.csize));
    }
    Ok(Report::Deleted { archives: archives.into_keys().collect(), chunks, bytes, kept_because })
}
