//! What is due is read beside the backups, slice by slice, and nothing in the repository is changed.
//!
//! What was found sound is in the ledger after each slice, so that whoever ends this loses the slice at hand and no more. First what refers to
//! objects: the manifest, the archives' metadata, the lists of their chunks; then segment files, those first that were not checked for longest;
//! then whether the index says the same as all of them. What is damaged after all that, [`super::damage`] names.

use super::damage::{self, Found};
use super::{Stop, Work};
use crate::failures::of_repository;
use crate::ledger::Ledger;
use crate::opening::Opening;
use crate::orphans;
use crate::pauses::pause_for_tests;
use crate::upkeep::Attached;
use crate::view;
use crate::viewlist::Named;
use borg::archive::Archive as Metadata;
use borg::manifest::Manifest;
use borg::{Id, Key, MAX_PLAINTEXT};
use model::check::{CheckPlan, Health};
use model::{Archive, Cause, Failure, Timestamp};
use repository::{CheckOptions, CheckReport, Reader, Segment};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use wire::maintenance::Report;

/// A slice has at least so many bytes,
const SLICE_BYTES: u64 = 256 << 20;

/// or so many segments.
const SLICE_SEGMENTS: usize = 512;

/// How often the ledger is written while archives are looked at.
const SAVE: Duration = Duration::from_secs(5);

/// One check.
pub struct Run<'a, 'w> {
    pub work: &'a Work<'w>,
    pub plan: &'a CheckPlan,
    pub attached: Attached,
    pub opening: Arc<Opening>,
    pub reader: Reader,
    pub ledger: Ledger,
    /// What the checks before have left.
    pub health: Option<Health>,
    pub found: Found,
    /// What was checked then or later is left out.
    due: Timestamp,
    deadline: Option<Instant>,
    saved: Option<Instant>,
    objects: u64,
    bytes: u64,
    /// Something was due.
    pub has_looked: bool,
    /// An envelope was whole, and its content was not what it should be.
    only_by_content: AtomicBool,
}

/// Whether there is more to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Done,
    /// The time is over.
    Late,
}

/// Checks what is due.
pub fn check(work: &Work<'_>, plan: &CheckPlan) -> Result<Report, Stop> {
    let attached = match work.attach() {
        Err(Stop::Failed(failure)) if matches!(failure.cause, Cause::RepositoryCheckNeeded | Cause::RepositoryIntegrity) => {
            damage::note_unopenable(work.owner, &failure)?;
            return Err(failure.into());
        }
        attached => attached?,
    };
    let opening = Arc::clone(&attached.opening);
    pause_for_tests("check");
    let Some(reader) = opening.reader() else {
        let message = "a repository behind borg serve is checked with `borg check`; release it for that";
        return Err(Failure::new(Cause::RepositoryError, message).into());
    };
    let now = Timestamp::now();
    let health = damage::health(work.owner)?;
    let mut ledger = Ledger::open(&work.owner.layout.views(work.owner.name.as_str()));
    ledger.fit(&reader.segments().map_err(|e| of_repository(&e))?);
    // Damage is over only when everything was looked at since it was found.
    let found = health.as_ref().and_then(|health| health.damage.as_ref()).map(|damage| damage.found);
    let due = plan.due_before(now).max(found.map_or(Timestamp(0), |found| Timestamp(found.0 + 1).min(now)));
    let deadline = plan.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds.into()));
    let mut run = Run {
        work,
        plan,
        attached,
        opening,
        reader,
        ledger,
        health,
        found: Found::default(),
        due,
        deadline,
        saved: None,
        objects: 0,
        bytes: 0,
        has_looked: false,
        only_by_content: AtomicBool::new(false),
    };
    let looked = run.look();
    run.found.needs_data |= run.only_by_content.load(Ordering::Relaxed);
    // What was found is told, whoever has lost interest.
    run.ledger.save()?;
    let last = run.health.as_ref().map(|health| health.checked).filter(|_| !run.has_looked);
    let known = damage::conclude(&mut run);
    let complete = looked? == Step::Done;
    let (damage, chunks) = known?;
    let now = Timestamp::now();
    let Run { found, objects, bytes, ledger, .. } = run;
    log::info!("a check found {} errors", found.count);
    Ok(Report::Checked {
        objects,
        bytes,
        errors: found.errors,
        error_count: found.count,
        complete,
        structure: Some(ledger.coverage(false, plan.promise_hours, now)),
        data: (plan.data || ledger.has_data()).then(|| ledger.coverage(true, plan.promise_hours, now)),
        damage: damage.map(Box::new),
        chunks: chunks.iter().take(Report::MAX_CHUNKS).map(|id| id.to_hex()).collect(),
        not_due_since: last,
    })
}

/// The archives of other origin as well: those that have no record.
pub fn foreign(attached: &Attached, records: &[Archive]) -> Vec<(String, Id)> {
    let known: BTreeSet<&str> = records.iter().map(|record| record.id.as_str()).collect();
    let is_foreign = |(_, id): &(&String, &Id)| !known.contains(id.to_hex().as_str());
    attached.archives.iter().filter(is_foreign).map(|(name, id)| (name.clone(), *id)).collect()
}

impl Run<'_, '_> {
    fn look(&mut self) -> Result<Step, Stop> {
        let mut step = Step::Done;
        if self.plan.archives && self.is_due(self.ledger.archives) {
            self.has_looked = true;
            step = self.archives()?;
        }
        if self.plan.structure || self.plan.data {
            if self.segments()? == Step::Late {
                return Ok(Step::Late);
            }
            if self.plan.structure && self.is_due(self.ledger.index) && self.index()? == Step::Late {
                return Ok(Step::Late);
            }
        }
        Ok(step)
    }

    fn is_due(&self, checked: Option<Timestamp>) -> bool {
        checked.is_none_or(|checked| checked < self.due)
    }

    fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Goes on where the last one ended; has half of the time, so that nothing waits for it for ever.
    fn archives(&mut self) -> Result<Step, Stop> {
        let half = self.plan.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds.into()) / 2);
        let is_begun = self.ledger.archives_begun.is_some_and(|begun| begun >= self.due);
        if !is_begun {
            (self.ledger.archives_begun, self.ledger.archive) = (Some(Timestamp::now()), String::new());
        }
        let before = self.found.count;
        if let Err(error) = manifest(&self.reader, &self.opening.key) {
            self.found.add(&format!("the manifest: {error}"));
        }
        let behind = (Bound::Excluded(self.ledger.archive.clone()), Bound::Unbounded);
        let all: Vec<(String, Id)> = match self.ledger.archive.as_str() {
            "" => self.attached.archives.clone().into_iter().collect(),
            _ => self.attached.archives.range(behind).map(|(name, id)| (name.clone(), *id)).collect(),
        };
        let records = orphans::records(self.work.owner)?;
        let records: BTreeMap<&str, &Archive> = records.iter().map(|record| (record.id.as_str(), record)).collect();
        for (at, (name, id)) in all.iter().enumerate() {
            self.work.progress("archives", at as u64, all.len() as u64)?;
            if half.is_some_and(|half| Instant::now() >= half) {
                return Ok(Step::Late);
            }
            self.archive(name, id, records.get(id.to_hex().as_str()).copied())?;
            if self.found.count == before {
                self.ledger.archive.clone_from(name);
            }
            self.save_now_and_then()?;
        }
        let begun = self.ledger.archives_begun.take();
        // None of them was left to a check before this one.
        self.found.all_archives = all.len() == self.attached.archives.len();
        self.ledger.archive.clear();
        if self.found.count == before {
            self.ledger.archives = begun;
        }
        Ok(Step::Done)
    }

    fn archive(&mut self, name: &str, id: &Id, record: Option<&Archive>) -> Result<(), Stop> {
        let Broken { errors, missing } = self.broken(name, id, record);
        // It may have been deleted meanwhile.
        if errors.is_empty() || self.work.attach()?.archives.get(name) != Some(id) {
            return Ok(());
        }
        for error in &errors {
            self.found.add(&format!("archive {name}: {error}"));
        }
        self.found.archive(id.to_hex(), name, &errors[0]);
        self.found.missing.extend(missing);
        Ok(())
    }

    fn broken(&self, name: &str, id: &Id, record: Option<&Archive>) -> Broken {
        let mut broken = Broken::default();
        metadata(&self.reader, &self.opening.key, name, id, &mut broken);
        if let Some(record) = record {
            references(self.work, &self.opening, &self.reader, record, &mut broken);
        }
        broken
    }

    /// Segment files, the oldest first.
    fn segments(&mut self) -> Result<Step, Stop> {
        let present = self.reader.segments().map_err(|e| of_repository(&e))?;
        self.ledger.fit(&present);
        let mut due: Vec<(Option<Timestamp>, bool, Segment)> = vec![];
        for segment in present {
            let Some(known) = self.ledger.get(segment.number) else { continue };
            let content = self.plan.data && self.is_due(known.data);
            if content || self.plan.structure && self.is_due(known.structure) {
                due.push((if content { known.data } else { known.structure }, content, segment));
            }
        }
        due.sort_by_key(|(checked, _, segment)| (*checked, segment.number));
        self.has_looked |= !due.is_empty();
        let total: u64 = due.iter().map(|(_, _, segment)| segment.size).sum();
        let (mut at, mut done) = (0, 0);
        while at < due.len() {
            if self.is_late() {
                return Ok(Step::Late);
            }
            let content = due[at].1;
            let (mut slice, mut bytes) = (vec![], 0);
            while let Some((_, same, segment)) = due.get(at)
                && *same == content
                && (slice.is_empty() || bytes < slice_bytes() && slice.len() < SLICE_SEGMENTS)
            {
                bytes += segment.size;
                slice.push(*segment);
                at += 1;
            }
            self.slice(&slice, content, done, total)?;
            done += bytes;
            self.ledger.save()?;
            pause_for_tests("check-slice");
        }
        Ok(Step::Done)
    }

    fn slice(&mut self, slice: &[Segment], content: bool, done: u64, total: u64) -> Result<(), Stop> {
        let now = Timestamp::now();
        let key = &self.opening.key;
        let flag = &self.only_by_content;
        let verify = |id: &Id, envelope: &[u8]| verify(key, id, envelope).inspect_err(|_| flag.store(true, Ordering::Relaxed));
        let options = CheckOptions { verify: content.then_some(&verify as _), threads: 0 };
        let (mut stop, work) = (None, self.work);
        let mut progress = |read| {
            stop = work.progress("bytes", done + read, total).err();
            stop.is_none()
        };
        let read = self.reader.check_segments(slice, &options, &mut progress).map_err(|e| of_repository(&e))?;
        self.objects += read.report.objects;
        self.bytes += read.report.bytes;
        for number in read.report.segments.keys() {
            if read.report.damaged.contains(number) {
                continue;
            }
            if read.suspect.contains(number) {
                self.found.suspect.insert(*number, (content, now));
            } else {
                self.ledger.sound(*number, content, now);
            }
        }
        self.note(&read.report);
        stop.map_or(Ok(()), Err)
    }

    fn note(&mut self, report: &CheckReport) {
        report.findings.iter().for_each(|finding| self.found.add(&finding.to_string()));
        self.found.count += report.count.saturating_sub(report.findings.len() as u64);
        report.damaged.iter().for_each(|number| self.ledger.unsound(*number));
        self.found.segments.extend(&report.damaged);
    }

    fn index(&mut self) -> Result<Step, Stop> {
        self.has_looked = true;
        let now = Timestamp::now();
        let (mut stop, work, deadline) = (None, self.work, self.deadline);
        let mut go_on = || {
            stop = work.progress("index", 0, 0).err();
            stop.is_none() && deadline.is_none_or(|deadline| Instant::now() < deadline)
        };
        let report = self.reader.compare_index(&mut go_on).map_err(|e| of_repository(&e))?;
        if let Some(stop) = stop {
            return Err(stop);
        }
        if report.stopped {
            return Ok(Step::Late);
        }
        if report.count == 0 {
            self.ledger.index = Some(now);
        }
        self.note(&report);
        Ok(Step::Done)
    }

    fn save_now_and_then(&mut self) -> Result<(), Stop> {
        if self.saved.is_none_or(|saved| saved.elapsed() >= SAVE) {
            self.ledger.save()?;
            self.saved = Some(Instant::now());
        }
        Ok(())
    }
}

/// For tests, which have small repositories.
fn slice_bytes() -> u64 {
    std::env::var("BORGCUBE_CHECK_SLICE_BYTES").ok().and_then(|text| text.parse().ok()).unwrap_or(SLICE_BYTES)
}

/// What is wrong with an archive.
#[derive(Default)]
struct Broken {
    errors: Vec<String>,
    /// Chunks that it refers to and that are not there.
    missing: Vec<Id>,
}

/// Whether an envelope contains what its id promises.
pub fn verify(key: &Key, id: &Id, envelope: &[u8]) -> Result<(), String> {
    let plain = open(key, envelope)?;
    // The manifest's id is none of its content; its signature is looked at with the archives.
    if *id == Id::MANIFEST || key.id_hash(&plain) == *id { Ok(()) } else { Err("its content is not what its id promises".into()) }
}

fn open(key: &Key, envelope: &[u8]) -> Result<Vec<u8>, String> {
    let payload = key.open(envelope).map_err(|e| e.to_string())?;
    let plain = borg::compress::decompress(&payload, MAX_PLAINTEXT).map_err(|e| e.to_string())?;
    Ok(plain.into_owned())
}

fn fetch(reader: &Reader, key: &Key, id: &Id) -> Result<Vec<u8>, String> {
    let envelope = reader.get(id).map_err(|e| e.to_string())?;
    open(key, &envelope.ok_or("it is not in the repository")?)
}

fn manifest(reader: &Reader, key: &Key) -> Result<(), String> {
    Manifest::parse(&fetch(reader, key, &Id::MANIFEST)?, key).map(drop).map_err(|e| e.to_string())
}

fn metadata(reader: &Reader, key: &Key, name: &str, id: &Id, broken: &mut Broken) {
    let looked = || -> Result<Metadata, String> {
        let packed = fetch(reader, key, id).map_err(|e| format!("its metadata: {e}"))?;
        let parsed = Metadata::parse(&packed).map_err(|e| e.to_string())?;
        // Archives of old borgs have no signature; a wrong one is wrong in any case.
        Metadata::verify_tam(&packed, key).map_err(|e| e.to_string())?;
        if String::from_utf8_lossy(&parsed.name) != name {
            return Err(format!("its metadata calls it {:?}", String::from_utf8_lossy(&parsed.name)));
        }
        Ok(parsed)
    };
    let parsed = match looked() {
        Ok(parsed) => parsed,
        Err(why) => return broken.errors.push(why),
    };
    for item in &parsed.items {
        match reader.contains(item) {
            Ok(true) => {}
            Ok(false) => {
                broken.errors.push(format!("chunk {item} of its list of files is missing"));
                broken.missing.push(*item);
            }
            Err(e) => return broken.errors.push(e.to_string()),
        }
    }
}

/// What is wrong with the chunks of an archive, in at most three sentences.
fn references(work: &Work<'_>, opening: &Opening, reader: &Reader, archive: &Archive, broken: &mut Broken) {
    let list = match view::lists(work.owner).read(&Named::of(archive)) {
        Ok(list) => list,
        Err(e) => return broken.errors.push(e.to_string()),
    };
    let (mut missing, mut sizes, mut unreadable) = (vec![], (0_u64, None), None);
    for reference in &list.references {
        let id = Id(reference.id);
        match reader.entry(&id) {
            Ok(Some(entry)) if entry.size != 0 && entry.size != reference.size => sizes = (sizes.0 + 1, sizes.1.or(Some(id))),
            Ok(Some(_)) => {}
            Ok(None) => missing.push(id),
            Err(e) => unreadable = Some(e.to_string()),
        }
    }
    broken.errors.extend(unreadable);
    if opening.failure().is_some() {
        return;
    }
    if let Some(first) = missing.first() {
        broken.errors.push(format!("{} of its chunks are missing, the first one is {first}", missing.len()));
    }
    if let (count, Some(first)) = sizes {
        broken.errors.push(format!("{count} of its chunks have another size, the first one is {first}"));
    }
    broken.missing.extend(missing);
}
