//! Emptied segments are removed by a thread, one after the other and in their order, so that nobody waits for the file system meanwhile.

use super::compact::superseded_puts;
use super::lock::Sign;
use super::storage::Storage;
use super::{Local, auxiliary};
use crate::error::{Error, Result};
use crate::index::SegmentState;
use borg::segment::{MAGIC, PUT_HEADER};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A removal that is under way.
#[derive(Debug)]
pub(super) struct Removal {
    /// Not known to be gone yet.
    left: BTreeMap<u32, SegmentState>,
    results: Receiver<Result<u32>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread works on.
struct Work {
    storage: Storage,
    /// Of our lock: without it, they are no longer ours to remove.
    sign: Option<Sign>,
    /// Borg's own index may point to them.
    with_index: bool,
    /// And whether a DELETE of each was dropped.
    segments: Vec<(u32, SegmentState, bool)>,
    stop: Arc<AtomicBool>,
    results: Sender<Result<u32>>,
}

impl Work {
    fn run(self) {
        if self.with_index
            && let Err(error) = auxiliary::remove_others(&self.storage, None)
        {
            let _ = self.results.send(Err(error));
            return;
        }
        let mut gone = Gone { work: &self, unsynced: vec![] };
        for (segment, state, has_dropped) in &self.segments {
            if self.stop.load(Ordering::Acquire) {
                break;
            }
            if gone.remove(*segment, state, *has_dropped).is_err() {
                return;
            }
        }
        // An error was told.
        let _ = gone.sync();
    }
}

/// Somebody was told why, or nobody listens any more.
struct Ended;

/// What was removed, and is not known to be durable.
struct Gone<'a> {
    work: &'a Work,
    /// In their order. All of them in one directory.
    unsynced: Vec<u32>,
}

impl Gone<'_> {
    /// DELETEs in a newer segment may have been dropped because this one is gone: it has to be durable that it is before any such goes.
    fn remove(&mut self, segment: u32, state: &SegmentState, has_dropped: bool) -> std::result::Result<(), Ended> {
        let storage = &self.work.storage;
        if has_dropped || self.unsynced.last().is_some_and(|last| !storage.are_neighbours(*last, segment)) {
            self.sync()?;
        }
        if self.work.sign.as_ref().is_some_and(|sign| !sign.is_there()) {
            let broken = "the lock was broken by somebody; nothing more is removed";
            return self.end(Error::Io(broken.into()));
        }
        if let Err(error) = storage.remove(segment) {
            // Those before it are told as well: they are gone.
            self.sync()?;
            return self.end(error);
        }
        if superseded_puts(state) >= PUT_HEADER as u64 || !self.unsynced.is_empty() {
            self.unsynced.push(segment);
            return Ok(());
        }
        self.tell(segment)
    }

    fn sync(&mut self) -> std::result::Result<(), Ended> {
        let Some(last) = self.unsynced.last() else { return Ok(()) };
        if let Err(error) = self.work.storage.sync_directory(*last) {
            return self.end(error);
        }
        std::mem::take(&mut self.unsynced).into_iter().try_for_each(|segment| self.tell(segment))
    }

    fn tell(&self, segment: u32) -> std::result::Result<(), Ended> {
        self.work.results.send(Ok(segment)).map_err(|_| Ended)
    }

    fn end(&self, error: Error) -> std::result::Result<(), Ended> {
        let _ = self.work.results.send(Err(error));
        Err(Ended)
    }
}

impl Removal {
    fn start(work: Work, results: Receiver<Result<u32>>) -> Result<Removal> {
        let left = work.segments.iter().map(|(segment, state, _)| (*segment, *state)).collect();
        let stop = Arc::clone(&work.stop);
        let thread = std::thread::Builder::new().name("log-removal".into()).spawn(move || work.run());
        let thread = thread.map_err(|e| Error::Io(format!("no thread for removing segments: {e}")))?;
        Ok(Removal { left, results, stop, thread: Some(thread) })
    }

    /// Whether it may be about to remove this one.
    pub(super) fn concerns(&self, segment: u32) -> bool {
        self.left.contains_key(&segment)
    }
}

/// Waits for at most one segment.
impl Drop for Removal {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread that removes segments panicked");
        }
    }
}

impl Local {
    /// Has what was emptied removed, after a commit. Whatever fails costs space only: the next compaction finds it.
    /// Tells whether there was anything.
    pub(super) fn remove_emptied(&mut self) -> bool {
        self.note_removals(Duration::ZERO);
        let progress = &mut self.compacting;
        progress.copied = 0;
        let emptied = std::mem::take(&mut progress.emptied);
        let any = !emptied.is_empty();
        progress.doomed.extend(emptied);
        self.remove_next();
        any
    }

    /// Whether anything is still being removed.
    pub(super) fn is_removing(&self) -> bool {
        self.compacting.removal.is_some()
    }

    fn remove_next(&mut self) {
        if self.compacting.removal.is_some() || self.compacting.doomed.is_empty() {
            return;
        }
        let doomed = std::mem::take(&mut self.compacting.doomed);
        if let Err(error) = self.start_removal(doomed) {
            self.removal_failed(&error);
        }
    }

    fn start_removal(&mut self, doomed: BTreeMap<u32, SegmentState>) -> Result<()> {
        if let Some(segment) = doomed.keys().find(|segment| self.shared.index.has_any(**segment)) {
            return Err(Error::Damaged(format!("segment {segment} was emptied, but the index has objects in it")));
        }
        let storage = &self.shared.storage;
        let with_index = self.auxiliary.take().is_some() || auxiliary::newest_index(storage)?.is_some();
        self.shared.publish_vanishing(doomed.keys().copied().collect());
        // The last one to let go of a file that has no name pays for its space.
        doomed.keys().for_each(|segment| self.shared.forget_file(*segment));
        let (results, told) = channel();
        let (storage, sign) = (storage.clone(), self.lock.as_ref().map(super::lock::Lock::sign));
        let dropped = &mut self.compacting.dropped;
        let segments = doomed.into_iter().map(|(segment, state)| (segment, state, dropped.remove(&segment))).collect();
        let work = Work { storage, sign, with_index, segments, stop: Arc::default(), results };
        self.compacting.removal = Some(Removal::start(work, told)?);
        Ok(())
    }

    /// Notes what was removed meanwhile, and waits so long for it at most. Tells whether nothing is left to be removed.
    pub(super) fn note_removals(&mut self, wait: Duration) -> bool {
        let deadline = Instant::now() + wait;
        let mut any = false;
        let ended = loop {
            let Some(removal) = &mut self.compacting.removal else { break Ok(false) };
            match removal.results.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Ok(segment)) => {
                    any = true;
                    let state = removal.left.remove(&segment).unwrap_or_default();
                    self.statistics.remove(&segment);
                    self.shared.forget_file(segment);
                    self.compacting.removed += 1;
                    self.compacting.removed_bytes += state.size;
                }
                Ok(Err(error)) => break Err(error),
                Err(RecvTimeoutError::Timeout) => break Ok(false),
                Err(RecvTimeoutError::Disconnected) => break Ok(true),
            }
        };
        if any {
            self.room.set_used(self.statistics.values().map(|state| state.size.saturating_sub(MAGIC.len() as u64)).sum());
        }
        match ended {
            Ok(false) => {}
            Ok(true) => {
                self.compacting.removal = None;
                self.shared.publish_vanished(&self.statistics);
                self.room.settle_copies();
                self.remove_next();
            }
            Err(error) => self.removal_failed(&error),
        }
        !self.is_removing()
    }

    /// What was emptied stays as it is: DELETEs that it was to take with it are still in it.
    fn removal_failed(&mut self, error: &Error) {
        log::error!("emptied segments stay for now: {error}");
        self.compacting.removal = None;
        self.compacting.keep_emptied();
        self.shared.publish_vanished(&self.statistics);
        self.room.settle_copies();
    }

    /// Waits for the segment that is being removed, and leaves the others to the next compaction.
    pub(super) fn end_removal(&mut self) {
        let Some(removal) = &mut self.compacting.removal else { return };
        removal.stop.store(true, Ordering::Release);
        if let Some(thread) = removal.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread that removes segments panicked");
        }
        self.compacting.keep_emptied();
        self.note_removals(Duration::ZERO);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_is_waited_for_before_what_has_dropped_deletes_goes_and_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        let storage = Storage::new(dir.path(), 5);
        for segment in 0..7 {
            storage.create(segment).unwrap();
        }
        let (results, told) = channel();
        let work = Work { storage, sign: None, with_index: false, segments: vec![], stop: Arc::default(), results };
        let told = || told.try_iter().map(|segment| segment.unwrap()).collect::<Vec<u32>>();
        let puts = SegmentState { freeable: 1000, size: 1000, ..SegmentState::default() };
        let mut gone = Gone { work: &work, unsynced: vec![] };
        assert!(gone.remove(0, &SegmentState::default(), false).is_ok());
        assert_eq!(told(), [0], "nothing in it could come back");
        assert!(gone.remove(1, &puts, false).is_ok() && gone.remove(2, &puts, false).is_ok());
        assert_eq!(told(), [0; 0], "they may come back");
        assert!(gone.remove(3, &puts, true).is_ok() && gone.remove(4, &puts, false).is_ok());
        assert_eq!(told(), [1, 2]);
        // In another directory.
        assert!(gone.remove(5, &puts, false).is_ok());
        assert_eq!(told(), [3, 4]);
        assert!(gone.remove(6, &puts, false).is_ok() && gone.sync().is_ok());
        assert_eq!(told(), [5, 6]);
    }
}
