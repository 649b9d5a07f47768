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
    segments: Vec<(u32, SegmentState)>,
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
        for (segment, state) in &self.segments {
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            let removed = self.remove(*segment, state);
            let ends = removed.is_err();
            // Nobody listens any more where the repository is given up.
            if self.results.send(removed.map(|()| *segment)).is_err() || ends {
                return;
            }
        }
    }

    fn remove(&self, segment: u32, state: &SegmentState) -> Result<()> {
        if self.sign.as_ref().is_some_and(|sign| !sign.is_there()) {
            return Err(Error::Io("the lock was broken by somebody; nothing more is removed".into()));
        }
        self.storage.remove(segment)?;
        // The DELETE in a newer one may have been dropped because this one is gone.
        if superseded_puts(state) >= PUT_HEADER as u64 { self.storage.sync_directory(segment) } else { Ok(()) }
    }
}

impl Removal {
    fn start(work: Work, results: Receiver<Result<u32>>) -> Result<Removal> {
        let (left, stop) = (work.segments.iter().copied().collect(), Arc::clone(&work.stop));
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
        let work = Work { storage, sign, with_index, segments: doomed.into_iter().collect(), stop: Arc::default(), results };
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
