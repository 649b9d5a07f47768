//! From what a check has found to what somebody has to know at night: which objects, of which archives, of whose; and whether it is over.
//!
//! The objects are remembered, and count as absent from then on ([`crate::spoiled`]); the rest is the repository's record of its health. Which
//! files they are part of, only the archives' lists of files say, which nobody parses here: whoever asked for the check does, and tells.

use super::Stop;
use super::check::{Run, foreign, verify};
use crate::failures::{internal, of_repository, of_store};
use crate::orphans;
use crate::owner::Owner;
use crate::view;
use crate::viewlist::Named;
use borg::Id;
use model::check::{Damage, DamagedArchive, DamagedFiles, Health};
use model::{Archive, Failure, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use wire::maintenance::Report;

/// Characters of a sentence about damage: names that somebody has chosen are part of it.
const LONGEST: usize = 1000;

/// A name or a sentence about one archive, fit to be printed and kept.
fn short(text: &str) -> String {
    unix::logging::bounded(&unix::logging::escape(text), DamagedFiles::SENTENCE)
}

/// What a check has found until now.
#[derive(Default)]
pub struct Found {
    /// Sentences, not more than a report has.
    pub errors: Vec<String>,
    /// How much is wrong.
    pub count: u64,
    /// Segments with something wrong in them.
    pub segments: BTreeSet<u32>,
    /// Segments of which it has to be looked whether all that is needed is in them; whether their content was read, and when.
    pub suspect: BTreeMap<u32, (bool, Timestamp)>,
    /// Chunks that an archive refers to and that are not there.
    pub missing: BTreeSet<Id>,
    /// Only content tells of some of it.
    pub needs_data: bool,
    /// All archives were looked at.
    pub all_archives: bool,
    /// What is wrong with archives themselves, by their ids: name and sentence.
    archives: BTreeMap<String, (String, String)>,
}

impl Found {
    /// One more.
    pub fn add(&mut self, error: &str) {
        self.count += 1;
        if self.errors.len() < Report::MAX_ERRORS {
            self.errors.push(unix::logging::bounded(&unix::logging::escape(error), LONGEST));
        }
    }

    /// Something is wrong with an archive.
    pub fn archive(&mut self, id: String, name: &str, error: &str) {
        self.archives.insert(id, (short(name), short(error)));
    }
}

/// What is recorded.
pub fn health(owner: &Owner) -> Result<Option<Health>, Failure> {
    owner.store.read(|r| r.health().get(&owner.name)).map_err(|e| of_store(&e))
}

/// Names what is damaged, has it count as absent, and records it, or that it is over. The second part of the answer: all damaged chunks.
pub fn conclude(run: &mut Run<'_, '_>) -> Result<(Option<Damage>, Vec<Id>), Stop> {
    let before = run.opening.known().spoiled().ids();
    let mut damaged = lost(run)?;
    damaged.extend(still_spoiled(run, &before)?);
    let missing = still_missing(run)?;
    let found: Vec<Id> = damaged.iter().copied().collect();
    damaged.extend(&missing);
    let now = Timestamp::now();
    run.ledger.save()?;
    let spoiled: Vec<Id> = damaged.iter().copied().collect();
    let has_changed = run.opening.known().spoiled().ids() != spoiled;
    if has_changed {
        // Before anybody is told: from now on no backup relies on them.
        run.opening.known().spoil(&found, &missing, &before);
        run.opening.save_spoiled()?;
    }
    let health = run.health.take();
    // A check to which nothing was due has checked nothing.
    let checked = health.as_ref().map(|health| health.checked).filter(|_| !run.has_looked).unwrap_or(now);
    let earlier = health.and_then(|health| health.damage);
    let damage = if run.found.count == 0 && damaged.is_empty() {
        let earlier = earlier.filter(|damage| !run.ledger.all_sound(now).clears(damage));
        earlier.map(|damage| match (run.has_looked, damage.chunks) {
            (true, _) => damage.not_found_again(run.found.all_archives),
            (false, chunks) => damage.opened(chunks),
        })
    } else {
        Some(describe(run, &damaged, earlier, now)?)
    };
    let plan = run.plan;
    let health = Health {
        repository: run.work.owner.name.clone(),
        checked,
        structure: Some(run.ledger.coverage(false, plan.promise_hours, now)),
        data: (plan.data || run.ledger.has_data()).then(|| run.ledger.coverage(true, plan.promise_hours, now)),
        archives: run.ledger.archives,
        index: run.ledger.index,
        damage: damage.clone(),
    };
    record(run.work.owner, &health)?;
    Ok((damage, damaged.into_iter().collect()))
}

/// The objects that what was found has taken.
fn lost(run: &mut Run<'_, '_>) -> Result<BTreeSet<Id>, Stop> {
    let mut segments: BTreeSet<u32> = run.found.segments.clone();
    segments.extend(run.found.suspect.keys());
    let mut lost = BTreeSet::new();
    if segments.is_empty() {
        return Ok(lost);
    }
    let key = &run.opening.key;
    let by_content = AtomicBool::new(false);
    let content = |id: &Id, envelope: &[u8]| verify(key, id, envelope).inspect_err(|_| by_content.store(true, Ordering::Relaxed));
    let mut reasons: Vec<(u32, String)> = vec![];
    let mut each = |id: Id, segment: u32, why: String| {
        lost.insert(id);
        reasons.push((segment, format!("object {id}: {why}")));
    };
    run.reader.lost(&segments, Some(&content), &mut each, &mut || true).map_err(|e| of_repository(&e))?;
    run.found.needs_data |= by_content.load(Ordering::Relaxed);
    for (segment, why) in reasons {
        // Of the others it is told already.
        if !run.found.segments.contains(&segment) {
            run.found.add(&why);
            run.ledger.unsound(segment);
            run.found.suspect.remove(&segment);
        }
    }
    for (segment, (content, at)) in std::mem::take(&mut run.found.suspect) {
        if !run.found.segments.contains(&segment) {
            run.ledger.sound(segment, content, at);
        }
    }
    Ok(lost)
}

/// Those of the objects that were damaged before that still are: somebody may have sent them again. A copy that is not committed yet counts for
/// nothing, because it may go again.
fn still_spoiled(run: &Run<'_, '_>, before: &[Id]) -> Result<Vec<Id>, Stop> {
    let mut still = vec![];
    let look = |id: &Id| {
        let known = run.opening.known();
        (known.is_claimed(id), known.epoch().load(Ordering::Acquire))
    };
    for id in before {
        let (was_fresh, epoch) = look(id);
        let read = run.reader.get(id);
        let (is_fresh, now) = look(id);
        match read {
            _ if was_fresh || is_fresh => still.push(*id),
            // Whether anybody needs it, the archives tell.
            Ok(None) if run.found.all_archives => {}
            Ok(None) => still.push(*id),
            // What was read may have been taken back meanwhile: the next check tells.
            Ok(Some(_)) if now != epoch => still.push(*id),
            Ok(Some(envelope)) if verify(&run.opening.key, id, &envelope).is_ok() => {}
            Ok(Some(_)) | Err(repository::Error::Damaged(_)) => still.push(*id),
            Err(e) => return Err(of_repository(&e).into()),
        }
    }
    Ok(still)
}

/// What was missing when the archives were looked at, unless somebody has sent it and committed it since.
fn still_missing(run: &mut Run<'_, '_>) -> Result<Vec<Id>, Stop> {
    let mut still = vec![];
    for id in std::mem::take(&mut run.found.missing) {
        // In this order: what is in the index and nobody's is committed.
        let is_there = run.reader.entry(&id).map_err(|e| of_repository(&e))?.is_some();
        if !is_there || run.opening.known().is_fresh(&id) {
            still.push(id);
        }
    }
    Ok(still)
}

/// The archives that have damaged chunks, or are damaged themselves.
fn describe(run: &mut Run<'_, '_>, damaged: &BTreeSet<Id>, earlier: Option<Damage>, now: Timestamp) -> Result<Damage, Stop> {
    let owner = run.work.owner;
    let records = orphans::records(owner)?;
    let attached = run.work.attach()?;
    let earlier = earlier.map(|earlier| earlier.opened(damaged.len() as u64));
    let looked: BTreeMap<(String, u64), DamagedFiles> = earlier
        .iter()
        .flat_map(|damage| damage.archives.iter().chain(&damage.unknown))
        .filter_map(|archive| Some(((archive.id.clone(), archive.chunks), archive.files.clone()?)))
        .collect();
    let mut archives = vec![];
    for record in records.iter().filter(|record| attached.archives.contains_key(&record.name)) {
        let broken = run.found.archives.get(&record.id);
        let mut error = broken.map(|(_, error)| error.clone());
        let chunks = match chunks_of(owner, record, damaged) {
            Ok(chunks) => chunks,
            Err(why) => {
                error.get_or_insert(why);
                0
            }
        };
        if chunks == 0 && error.is_none() {
            continue;
        }
        archives.push(DamagedArchive {
            name: short(&record.name),
            id: record.id.clone(),
            client: Some(record.client.clone()),
            label: Some(record.label.clone()),
            chunks,
            error,
            files: looked.get(&(record.id.clone(), chunks)).cloned(),
        });
    }
    let mut unknown = vec![];
    for (name, id) in foreign(&attached, &records) {
        let broken = run.found.archives.get(&id.to_hex()).map(|(_, error)| error.clone());
        let is_broken = broken.is_some() || damaged.contains(&id);
        let archive = DamagedArchive {
            name: short(&name),
            id: id.to_hex(),
            client: None,
            label: None,
            chunks: 0,
            error: broken.or_else(|| damaged.contains(&id).then(|| "its metadata is damaged".to_owned())),
            files: None,
        };
        if is_broken {
            archives.push(archive);
        } else if !damaged.is_empty() {
            unknown.push(archive);
        }
    }
    let (mut errors, mut error_count) = (run.found.errors.clone(), run.found.count);
    if let Some(earlier) = &earlier
        && !is_whole(run)
    {
        // What was looked at this time was a part.
        errors.extend(earlier.errors.iter().filter(|error| !run.found.errors.contains(error)).cloned());
        error_count = error_count.max(earlier.error_count).max(errors.len() as u64);
        errors.truncate(Damage::MAX_ERRORS);
    }
    archives.sort_by(|a, b| (&a.client, &a.label, &a.name).cmp(&(&b.client, &b.label, &b.name)));
    let more = |all: usize| (all.saturating_sub(Damage::MAX_ARCHIVES)) as u64;
    let (more_archives, more_unknown) = (more(archives.len()), more(unknown.len()));
    archives.truncate(Damage::MAX_ARCHIVES);
    unknown.truncate(Damage::MAX_ARCHIVES);
    let mut damage = Damage {
        since: earlier.as_ref().map_or(now, |earlier| earlier.since),
        found: now,
        needs_data: run.found.needs_data || earlier.as_ref().is_some_and(|earlier| earlier.needs_data),
        errors,
        error_count,
        chunks: damaged.len() as u64,
        archives,
        more_archives,
        unknown,
        more_unknown,
        unopenable: None,
        healed: earlier.map_or(0, |earlier| earlier.healed),
    };
    damage.fit();
    Ok(damage)
}

/// Whether everything was looked at this time.
fn is_whole(run: &Run<'_, '_>) -> bool {
    run.plan.skip_hours == 0 && run.plan.seconds.is_none() && run.plan.structure && run.plan.archives
}

fn chunks_of(owner: &Owner, record: &Archive, damaged: &BTreeSet<Id>) -> Result<u64, String> {
    let own = Id::from_hex(&record.id).is_ok_and(|id| damaged.contains(&id));
    if damaged.is_empty() {
        return Ok(0);
    }
    let list = view::lists(owner).read(&Named::of(record)).map_err(|e| e.to_string())?;
    let found = list.references.iter().filter(|reference| damaged.contains(&Id(reference.id))).count();
    Ok(found as u64 + u64::from(own))
}

fn record(owner: &Owner, health: &Health) -> Result<(), Failure> {
    let before = self::health(owner)?.and_then(|health| health.damage);
    let note = match (&before, &health.damage) {
        (_, Some(damage)) => format!("repository {} is damaged: {}", owner.name, damage.summary()),
        (Some(_), None) => format!("repository {} is sound again", owner.name),
        (None, None) => format!("repository {} was checked", owner.name),
    };
    if before.is_some() || health.damage.is_some() {
        log::warn!("{note}");
    }
    owner.store.write(&note, &owner.actor(), |w| w.health().put(health)).map(drop).map_err(|e| of_store(&e))
}

/// It is so damaged that it cannot even be opened.
pub fn note_unopenable(owner: &Owner, failure: &Failure) -> Result<(), Failure> {
    let now = Timestamp::now();
    let known = health(owner)?;
    let damage = Damage::unopened(known.as_ref().and_then(|health| health.damage.clone()), &failure.message, now);
    let empty =
        Health { repository: owner.name.clone(), checked: now, structure: None, data: None, archives: None, index: None, damage: None };
    record(owner, &Health { damage: Some(damage), ..known.unwrap_or(empty) })
}

/// Somebody has looked which files the damaged chunks are part of.
pub fn note_files(owner: &Owner, files: Vec<(String, DamagedFiles)>) -> Result<Report, Stop> {
    if files.len() > 2 * Damage::MAX_ARCHIVES || files.iter().any(|(_, files)| files.paths.len() > DamagedFiles::MAX) {
        return Err(internal("more files were named than are kept").into());
    }
    let mut files: BTreeMap<String, DamagedFiles> = files.into_iter().map(|(id, files)| (id, bounded(files))).collect();
    let note = format!("files that damage in repository {} concerns", owner.name);
    let written = owner.store.write(&note, &owner.actor(), |w| {
        let Some(mut health) = w.view().health().get(&owner.name)? else { return Ok(()) };
        let Some(damage) = &mut health.damage else { return Ok(()) };
        for archive in &mut damage.archives {
            if let Some(files) = files.remove(&archive.id) {
                archive.files = Some(files);
            }
        }
        for mut archive in std::mem::take(&mut damage.unknown) {
            match files.remove(&archive.id) {
                // It was read from beginning to end.
                Some(found) if found.paths.is_empty() && found.incomplete.is_none() => {}
                Some(found) => {
                    archive.files = Some(found);
                    damage.archives.push(archive);
                }
                None => damage.unknown.push(archive),
            }
        }
        damage.fit();
        w.health().put(&health)
    });
    written.map_err(|e| of_store(&e))?;
    Ok(Report::Noted)
}

fn bounded(mut files: DamagedFiles) -> DamagedFiles {
    files.paths.iter_mut().for_each(|path| *path = unix::logging::bounded(path, DamagedFiles::LONGEST));
    files.incomplete = files.incomplete.map(|why| unix::logging::bounded(&why, DamagedFiles::SENTENCE));
    files
}
