//! Compaction: gives back the space of what was deleted.
//!
//! Segments of which enough is no longer needed (the victims) are emptied: their live objects are appended to the log anew, a slice at a
//! time, beside whatever else is written. Nothing is removed before a commit has made the copies hold; any commit will do. So a crash, or
//! a [`Local::discard`], leaves the victims as they were.
//!
//! **DELETEs.** A repository without an index is read from its first segment to its last. Where an object was deleted whose PUT still lies
//! in an older segment, the DELETE is what keeps it from coming back. A DELETE in a victim is therefore appended anew, unless
//! - the object is there (again): the PUT that stores it is newer and supersedes all older ones, and a DELETE behind it would kill it;
//! - or no older segment that stays has a superseded PUT of whatever object. Which PUTs are superseded is not recorded, but how many bytes
//!   of them each segment has is, so that this keeps some DELETEs longer than needed and never drops a needed one.
//!
//! Victims are emptied and removed from the oldest to the newest, and it is durable that they are gone before the next one goes of which a DELETE was
//! dropped, for that may have been because of them. Removing is the work of a thread (see [`super::removal`]); if it fails for one,
//! all that come after it stay.

use super::Local;
use super::log::Log;
use super::removal::Removal;
use super::replay::{Entries, Found, note, superseded};
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::index::SegmentState;
use borg::segment::{HEADER, MAGIC, PUT_HEADER, Tag, delete, put_header};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a step that has nothing else to do waits for a thread.
const WAITING: Duration = Duration::from_millis(10);

/// Segments that are removed after one commit at most, and their bytes.
const REMOVED_AT_ONCE: usize = 200;
const BYTES_AT_ONCE: u64 = 2 << 30;

/// How fast copying is, before it was measured: bytes in a second.
const SLOW: f64 = 100e6;

/// What is read before it is needed: more than a step copies.
const AHEAD: u64 = 48 << 20;

/// Objects from this size on are read in one step and written in the next, if both would be too much for one.
const APART: u64 = 1 << 20;

/// Segments of nothing but DELETEs that are no larger are put together, if there are so many: each of them costs a file.
const TINY: u64 = 4096;
const MANY_TINY: usize = 16;

/// What a [`Local`] knows of a compaction.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Emptied since the last commit.
    pub(super) emptied: BTreeMap<u32, SegmentState>,
    /// Emptied before it.
    pub(super) doomed: BTreeMap<u32, SegmentState>,
    /// Those of both of which a DELETE was dropped: nothing older may come back once they are gone.
    pub(super) dropped: BTreeSet<u32>,
    /// Those that are being removed.
    pub(super) removal: Option<Removal>,
    /// Bytes copied since the last commit.
    pub(super) copied: u64,
    /// Goes up when copies are discarded.
    discards: u64,
    /// Goes up when what was emptied stays all the same.
    failures: u64,
    pub(super) removed: u64,
    pub(super) removed_bytes: u64,
    copied_bytes: u64,
}

impl Progress {
    /// Nothing more of what was emptied is going to be removed: it is for the next compaction to find.
    pub(super) fn keep_emptied(&mut self) {
        self.emptied.clear();
        self.doomed.clear();
        self.dropped.clear();
        self.failures += 1;
    }

    /// Whether this segment goes after the next commit at the latest, and before any that is emptied later.
    fn is_going(&self, segment: u32) -> bool {
        let is_removed = self.removal.as_ref().is_some_and(|removal| removal.concerns(segment));
        is_removed || self.doomed.contains_key(&segment) || self.emptied.contains_key(&segment)
    }

    pub(super) fn discard(&mut self) {
        self.copied_bytes -= self.copied;
        self.copied = 0;
        self.emptied.clear();
        self.dropped.retain(|segment| self.doomed.contains_key(segment));
        self.discards += 1;
    }
}

/// A compaction that was begun.
#[derive(Debug)]
pub struct Compaction {
    threshold: u8,
    victims: BTreeSet<u32>,
    freeable: u64,
    current: Option<Current>,
    discards: u64,
    /// Of the repository, when this began.
    begin: (u64, u64, u64),
    segments: u64,
    freed: i64,
    /// Of reading, and of writing.
    rates: [Rate; 2],
    skipped: Vec<(u32, Error)>,
}

#[derive(Debug)]
struct Current {
    segment: u32,
    file: Arc<File>,
    size: u64,
    at: u64,
    /// Up to here, the system was asked to read it before it is needed.
    ahead: u64,
    /// Read, and not copied yet: where it begins, and its data.
    read: Option<(u32, Vec<u8>)>,
    keep_deletes: bool,
    /// A DELETE of something that is not there was dropped.
    has_dropped: bool,
    failures: u64,
}

/// How fast something is done, in bytes in a second.
#[derive(Debug, Clone, Copy)]
struct Rate(f64);

impl Rate {
    fn expected(self, bytes: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.0)
    }

    fn learn(&mut self, bytes: u64, took: Duration) {
        // Small ones say nothing of it.
        if bytes > 100_000 {
            self.0 = (self.0 * 3.0 + bytes as f64 / took.as_secs_f64().max(1e-6)) / 4.0;
        }
    }
}

/// What a step has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There is more to copy.
    More,
    /// Segments are empty, and a commit removes them; then there may be more.
    Commit,
    /// Nothing is left to do.
    Done,
}

impl Current {
    /// Others have the writer while the disk works for the next step.
    fn read_ahead(&mut self) {
        let until = (self.at + AHEAD).min(self.size);
        let from = self.ahead.max(self.at);
        if until >= from + AHEAD / 2 || (until == self.size && until > from) {
            if let Err(error) = unix::machine::read_ahead_of(&self.file, from, until - from) {
                log::debug!("segment {}: no reading ahead: {error}", self.segment);
            }
            self.ahead = until;
        }
    }
}

impl Compaction {
    /// Segments that are still to be emptied.
    #[must_use]
    pub fn victims(&self) -> usize {
        self.victims.len()
    }

    /// Bytes that could be freed when it began.
    #[must_use]
    pub fn freeable(&self) -> u64 {
        self.freeable
    }

    /// Segments that are gone, as of the last step.
    #[must_use]
    pub fn segments(&self) -> u64 {
        self.segments
    }

    /// Bytes given back, as of the last step: what was removed without what was written anew.
    #[must_use]
    pub fn freed(&self) -> u64 {
        self.freed.max(0) as u64
    }

    /// The others are compacted all the same.
    fn skip(&mut self, segment: u32, error: Error) {
        log::warn!("segment {segment} is not compacted: {error}");
        self.current = None;
        self.victims.remove(&segment);
        self.skipped.push((segment, error));
    }

    /// Segments that stay because they are damaged.
    #[must_use]
    pub fn skipped(&self) -> &[(u32, Error)] {
        &self.skipped
    }
}

/// Bytes of superseded PUTs, and a few for COMMITs.
pub(super) fn superseded_puts(state: &SegmentState) -> u64 {
    state.freeable.saturating_sub(u64::from(state.deletes) * PUT_HEADER as u64)
}

/// Bytes that would have to be copied, DELETEs not counted.
fn live_bytes(state: &SegmentState) -> u64 {
    state.size.saturating_sub(state.freeable + MAGIC.len() as u64)
}

impl Local {
    /// Decides which segments to empty: those of which more than `threshold` hundredths can be freed.
    pub(crate) fn plan_compaction(&mut self, threshold: u8) -> Result<Compaction> {
        self.for_writing()?;
        if self.settings.append_only {
            return Err(Error::Unsupported("the repository is append-only; nothing in it is ever removed".into()));
        }
        self.room.settle_copies();
        let (victims, freeable) = self.victims(threshold, &[]);
        let begin = (self.compacting.removed, self.compacting.removed_bytes, self.compacting.copied_bytes);
        let discards = self.compacting.discards;
        let (segments, freed, rates) = (0, 0, [Rate(SLOW); 2]);
        Ok(Compaction { threshold, victims, freeable, current: None, discards, begin, segments, freed, rates, skipped: vec![] })
    }

    fn victims(&self, threshold: u8, skipped: &[(u32, Error)]) -> (BTreeSet<u32>, u64) {
        let mut victims = BTreeSet::new();
        let mut freeable = 0;
        // Whether an older segment that stays has superseded PUTs, because of which DELETEs must stay, too.
        let mut keep_deletes = false;
        let mut deletes_only = BTreeSet::new();
        // The newest commit must stay until there is a newer one.
        for (segment, state) in self.statistics.range(..self.transaction.unwrap_or(0)) {
            if self.compacting.is_going(*segment) {
                continue;
            }
            let keeps = keep_deletes && state.deletes > 0;
            let free = match state.live {
                0 if !keeps => state.size,
                _ if keep_deletes => superseded_puts(state),
                _ => state.freeable,
            };
            let empty = state.live == 0 && !keeps;
            // A COMMIT alone is not worth it: what is written anew has one, too.
            let worth = free >= PUT_HEADER as u64 && u128::from(free) * 100 > u128::from(state.size) * u128::from(threshold);
            if (empty || worth) && !skipped.iter().any(|(skipped, _)| skipped == segment) {
                victims.insert(*segment);
                freeable += free;
            } else {
                keep_deletes |= superseded_puts(state) >= PUT_HEADER as u64;
                if state.live == 0 && state.size <= TINY {
                    deletes_only.insert(*segment);
                }
            }
        }
        if deletes_only.len() >= MANY_TINY {
            victims.append(&mut deletes_only);
        }
        (victims, freeable)
    }

    /// Goes on for about `budget`. An error leaves everything as it is, also what others stored and did not commit yet; after one that says
    /// that there is no space, less can be compacted than planned. Of the reserve, half is left alone.
    pub(crate) fn compact_step(&mut self, compaction: &mut Compaction, budget: Duration) -> Result<Step> {
        self.for_writing()?;
        let step = self.slice(compaction, Instant::now(), budget);
        let (removed, removed_bytes, copied) = compaction.begin;
        compaction.segments = self.compacting.removed - removed;
        compaction.freed =
            (self.compacting.removed_bytes - removed_bytes) as i64 - self.compacting.copied_bytes.saturating_sub(copied) as i64;
        step
    }

    fn slice(&mut self, compaction: &mut Compaction, begin: Instant, budget: Duration) -> Result<Step> {
        if self.is_removing() && !self.note_removals(budget.min(WAITING)) {
            return Ok(Step::More);
        }
        if compaction.discards != self.compacting.discards {
            // What was copied is gone, and perhaps other things are as they were before.
            compaction.discards = self.compacting.discards;
            compaction.begin.2 = compaction.begin.2.min(self.compacting.copied_bytes);
            compaction.current = None;
            compaction.victims = self.victims(compaction.threshold, &compaction.skipped).0;
        }
        if compaction.current.as_ref().is_some_and(|current| current.failures != self.compacting.failures) {
            // DELETEs of it may have been dropped because an older segment would be gone, which stays now.
            compaction.current = None;
        }
        let mut bytes = 0;
        loop {
            if compaction.current.is_none() {
                if self.is_batch_full(compaction) {
                    return Ok(self.before_commit(budget));
                }
                let Some(next) = self.next_victim(compaction)? else {
                    return Ok(if self.compacting.emptied.is_empty() { Step::Done } else { self.before_commit(budget) });
                };
                let next = compaction.current.insert(next);
                next.read_ahead();
                if bytes > 0 {
                    return Ok(Step::More);
                }
            }
            let Some(current) = &mut compaction.current else { continue };
            let outcome = self.empty_some(current, &mut compaction.rates, begin, budget, &mut bytes);
            let segment = current.segment;
            match outcome {
                Ok(false) => {
                    current.read_ahead();
                    return Ok(Step::More);
                }
                Ok(true) if self.shared.index.has_any(segment) => compaction.skip(segment, Error::CheckNeeded(format!(
                    "segment {segment} is damaged: it should hold objects that are not found in it, because an id has rotted. It stays as it \
                     is, and a check of the repository says more"
                ))),
                Ok(true) => {
                    let state = self.statistics.get(&segment).copied().unwrap_or_default();
                    if current.has_dropped {
                        self.compacting.dropped.insert(segment);
                    }
                    compaction.current = None;
                    compaction.victims.remove(&segment);
                    self.compacting.emptied.insert(segment, state);
                }
                Err(error @ Error::Damaged(_)) => compaction.skip(segment, error),
                // A commit makes room.
                Err(Error::NoSpace(_)) if !self.compacting.emptied.is_empty() => return Ok(self.before_commit(budget)),
                Err(error) => return Err(error),
            }
            if begin.elapsed() >= budget {
                return Ok(Step::More);
            }
        }
    }

    /// A commit waits for the disk, and everybody for the commit: the disk gets its work before, and time for it.
    fn before_commit(&mut self, budget: Duration) -> Step {
        let settled = self.log.as_mut().is_none_or(|log| log.settle(budget.min(WAITING)));
        if settled { Step::Commit } else { Step::More }
    }

    /// No more than about a segment is written before something is removed.
    fn is_batch_full(&self, compaction: &Compaction) -> bool {
        let Progress { emptied, copied, .. } = &self.compacting;
        let next = compaction.victims.first().and_then(|segment| self.statistics.get(segment)).map_or(0, live_bytes);
        let bytes: u64 = emptied.values().map(|state| state.size).sum();
        !emptied.is_empty()
            && (copied + next > self.settings.max_segment_size || emptied.len() >= REMOVED_AT_ONCE || bytes >= BYTES_AT_ONCE)
    }

    /// The oldest victim; if there is no space for it, the oldest one that fits.
    fn next_victim(&mut self, compaction: &mut Compaction) -> Result<Option<Current>> {
        let Some(first) = compaction.victims.first().copied() else { return Ok(None) };
        let (available, kept) = self.room.for_copies(&self.shared.storage)?;
        let needs = |segment: &u32| self.statistics.get(segment).map_or(0, |s| live_bytes(s) + u64::from(s.deletes) * PUT_HEADER as u64);
        let Some(segment) = compaction.victims.iter().copied().find(|segment| needs(segment) == 0 || needs(segment) + kept <= available)
        else {
            if !self.compacting.emptied.is_empty() {
                // A commit makes room.
                return Ok(None);
            }
            let [need, free, kept] = [needs(&first).div_ceil(1 << 20), available >> 20, kept >> 20];
            return Err(Error::NoSpace(format!(
                "compacting segment {first} needs {need} MiB for a while; {free} MiB are free, of which {kept} MiB are kept for commits"
            )));
        };
        let Some(state) = self.statistics.get(&segment).copied() else {
            compaction.victims.remove(&segment);
            return self.next_victim(compaction);
        };
        let Some(file) = self.shared.file(segment)? else {
            return Err(Error::Damaged(format!("segment {segment} is gone")));
        };
        let older = self.statistics.range(..segment).filter(|(older, _)| !self.compacting.is_going(**older));
        let keep_deletes = older.map(|(_, state)| superseded_puts(state)).any(|bytes| bytes >= PUT_HEADER as u64);
        let failures = self.compacting.failures;
        Ok(Some(Current { segment, file, size: state.size, at: 0, ahead: 0, read: None, keep_deletes, has_dropped: false, failures }))
    }

    /// Empties a part of a segment; true if nothing is left in it.
    ///
    /// A step takes at least as long as reading, or writing, one object: nothing can come between the parts of an entry.
    fn empty_some(
        &mut self,
        current: &mut Current,
        rates: &mut [Rate; 2],
        begin: Instant,
        budget: Duration,
        bytes: &mut u64,
    ) -> Result<bool> {
        let (segment, file) = (current.segment, Arc::clone(&current.file));
        if current.size == 0 {
            // Borg 1.x: a removal that was cut short.
            return Ok(true);
        }
        let mut entries = Entries::new_at(&file, segment, current.size, current.at);
        while let Some(found) = entries.next() {
            let Found { offset, header, id } = found?;
            let size = u64::from(header.size);
            if *bytes > 0 && begin.elapsed() + rates[0].expected(size) > budget {
                return Ok(false);
            }
            let known = match header.tag {
                Tag::Commit => None,
                Tag::Put | Tag::Delete => self.shared.index.get(&id)?,
            };
            match (header.tag, known) {
                (Tag::Put, Some(entry)) if (entry.segment, entry.offset) == (segment, offset) => {
                    let begun = Instant::now();
                    let data = match current.read.take() {
                        Some((at, data)) if at == offset => data,
                        _ => {
                            let data = self.shared.read(&id, entry)?;
                            let data = data.ok_or_else(|| Error::Damaged(format!("segment {segment} is gone")))?;
                            rates[0].learn(size, begun.elapsed());
                            if size >= APART && begin.elapsed() + rates[1].expected(size) > budget {
                                current.read = Some((offset, data));
                                return Ok(false);
                            }
                            data
                        }
                    };
                    self.room.take_for_copy(&self.shared.storage, size)?;
                    let begun = Instant::now();
                    let copied = self.copy_put(&id, entry, &data);
                    self.copied(copied)?;
                    rates[1].learn(size, begun.elapsed());
                }
                (Tag::Delete, None) if current.keep_deletes => {
                    self.room.take_for_copy(&self.shared.storage, size)?;
                    let copied = self.copy_delete(&id);
                    self.copied(copied)?;
                }
                // Skipping is fast, but there may be millions.
                (_, known) => {
                    current.has_dropped |= header.tag == Tag::Delete && known.is_none();
                    *bytes += HEADER as u64;
                    current.at = entries.position();
                    continue;
                }
            }
            *bytes += size;
            self.compacting.copied += size;
            self.compacting.copied_bytes += size;
            current.at = entries.position();
        }
        Ok(true)
    }

    /// A full disk is no reason to give up what others have stored and not committed: without the copy, all is as it was.
    fn copied(&mut self, copied: Result<()>) -> Result<()> {
        match copied {
            Err(error @ Error::NoSpace(_)) if self.log.as_ref().is_some_and(Log::is_whole) => Err(error),
            other => self.remember(other),
        }
    }

    fn copy_put(&mut self, id: &borg::Id, entry: Entry, data: &[u8]) -> Result<()> {
        // Once it is in the log, it has to be in the index.
        self.shared.index.prepare()?;
        let (segment, offset) = self.append(&put_header(id, data), data, false)?;
        superseded(&mut self.statistics, self.shared.index.insert(*id, Entry { segment, offset, ..entry })?);
        note(&mut self.statistics, segment, |state| {
            state.live += 1;
            state.size += (data.len() + PUT_HEADER) as u64;
        });
        Ok(())
    }

    fn copy_delete(&mut self, id: &borg::Id) -> Result<()> {
        let (segment, _) = self.append(&delete(id), &[], false)?;
        note(&mut self.statistics, segment, |state| {
            state.deletes += 1;
            state.freeable += PUT_HEADER as u64;
            state.size += PUT_HEADER as u64;
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{OpenOptions, Repository, Reserve};
    use borg::Id;

    fn opened(path: &std::path::Path, create: bool) -> Box<Local> {
        let options = OpenOptions { exclusive: true, create, reserve: Reserve::NONE, ..OpenOptions::at(path.to_str().unwrap()) };
        match Repository::open(&options).unwrap() {
            Repository::Local(local) => local,
            Repository::Served(_) => panic!("it is local"),
        }
    }

    /// Ten segments of one object each, of which all but the last are superseded; emptied, and not committed yet.
    fn emptied(path: &std::path::Path) -> (Box<Local>, Compaction) {
        let mut local = opened(path, true);
        for n in 0..10 {
            local.put(&Id([1; 32]), &vec![n; 2 << 20], 0).unwrap();
            local.commit().unwrap();
        }
        let mut compaction = local.plan_compaction(10).unwrap();
        while local.compact_step(&mut compaction, Duration::ZERO).unwrap() != Step::Commit {}
        (local, compaction)
    }

    fn step_to_end(local: &mut Local, compaction: &mut Compaction) {
        while local.compact_step(compaction, Duration::from_millis(5)).unwrap() != Step::Done {}
    }

    #[test]
    fn a_commit_does_not_wait_for_the_removal_of_segments() {
        let dir = tempfile::tempdir().unwrap();
        let (mut local, mut compaction) = emptied(&dir.path().join("repo"));
        let emptied = local.compacting.emptied.len();
        assert!(emptied > 5, "{emptied}");
        local.commit().unwrap();
        assert!(local.is_removing() && local.compacting.removed == 0);
        step_to_end(&mut local, &mut compaction);
        assert!(!local.is_removing() && compaction.segments() >= emptied as u64);
        // Closed while it is at work: what is left is found again.
        let path = dir.path().join("other");
        let (mut local, _) = super::tests::emptied(&path);
        local.commit().unwrap();
        drop(local);
        let mut local = opened(&path, false);
        assert_eq!(local.get(&Id([1; 32])).unwrap(), vec![9; 2 << 20]);
        let mut compaction = local.plan_compaction(10).unwrap();
        while local.compact_step(&mut compaction, Duration::from_millis(5)).unwrap() != Step::Done {
            local.commit().unwrap();
        }
        assert!(local.shared.storage.segments().unwrap().len() <= 4);
    }

    #[test]
    fn if_a_segment_cannot_be_removed_the_newer_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("repo");
        let (mut local, mut compaction) = emptied(&path);
        let going: Vec<u32> = local.compacting.emptied.keys().copied().collect();
        // A directory cannot be unlinked.
        let (stuck, aside) = (path.join("data/0").join(going[2].to_string()), path.join("data/aside"));
        std::fs::rename(&stuck, &aside).unwrap();
        std::fs::create_dir_all(stuck.join("full")).unwrap();
        local.commit().unwrap();
        while !local.note_removals(Duration::from_millis(5)) {}
        let there = |local: &Local| local.statistics.keys().copied().filter(|segment| going.contains(segment)).collect::<Vec<_>>();
        assert_eq!(there(&local), going[2..]);
        std::fs::remove_dir_all(&stuck).unwrap();
        std::fs::rename(&aside, &stuck).unwrap();
        step_to_end(&mut local, &mut compaction);
        let mut compaction = local.plan_compaction(10).unwrap();
        while local.compact_step(&mut compaction, Duration::from_millis(5)).unwrap() != Step::Done {
            local.commit().unwrap();
        }
        assert_eq!(there(&local), [0; 0]);
        assert_eq!(local.get(&Id([1; 32])).unwrap(), vec![9; 2 << 20]);
    }
}
