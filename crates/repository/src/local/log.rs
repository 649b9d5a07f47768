//! The end of the log: the segment that is being written.
//!
//! Entries are gathered in memory and written in large pieces; readers find in memory what is not written yet. A thread makes durable what
//! was written while more is gathered, so that a commit finds little left to wait for.

use super::shared::Shared;
use super::storage::{Storage, failed};
use crate::error::{Error, Result};
use borg::segment::{COMMIT, MAGIC, PUT_HEADER};
use std::fs::File;
use std::io::{IoSlice, Seek, SeekFrom, Write};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// What is gathered before it is written.
const GATHERED: usize = 1 << 20;

/// What is written before the thread is asked to make it durable.
const STRETCH: u64 = 64 << 20;

/// A segment up to this size takes the COMMIT itself: one file and one sync less. Borg 1.x reads the last segment whole at every opening,
/// so a larger one would cost more than it saves.
const SMALL: u64 = 1 << 20;

/// The segment that is being written, shared with readers.
#[derive(Debug, Default)]
pub(super) struct Tail {
    /// Number of the current segment, or of the next one if there is no file.
    pub(super) segment: u32,
    file: Option<Arc<File>>,
    /// What is in the file.
    written: u64,
    /// What follows it.
    gathered: Vec<u8>,
    /// A piece that could not be written whole could not be taken back either: nobody knows what is in the file.
    torn: bool,
    /// Something was begun since the writer said last that nothing waits for a commit.
    pub(super) dirty: bool,
}

impl Tail {
    fn end(&self) -> u64 {
        self.written + self.gathered.len() as u64
    }

    /// A piece of the current segment that is not in its file yet.
    pub(super) fn unwritten(&self, offset: u64, length: usize) -> Option<&[u8]> {
        let begin = usize::try_from(offset.checked_sub(self.written)?).ok()?;
        self.gathered.get(begin..begin.checked_add(length)?)
    }

    /// Writes what was gathered, and `more` after it. If that fails, the segment is as it was, and what was gathered still waits.
    fn write(&mut self, storage: &Storage, more: [&[u8]; 2]) -> Result<()> {
        if self.torn {
            return Err(Error::Io(format!("segment {} was not written whole", self.segment)));
        }
        let written = self.try_to_write(storage, more);
        if written.is_err()
            && let Some(mut file) = self.file.as_deref()
        {
            let back = file.set_len(self.written).and_then(|()| file.seek(SeekFrom::Start(self.written)));
            self.torn = back.is_err();
        }
        written
    }

    fn try_to_write(&mut self, storage: &Storage, more: [&[u8]; 2]) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut slices = [IoSlice::new(&self.gathered), IoSlice::new(more[0]), IoSlice::new(more[1])];
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut left = &mut slices[..];
        IoSlice::advance_slices(&mut left, 0);
        let mut file: &File = file;
        while !left.is_empty() {
            match file.write_vectored(left) {
                Ok(0) => return Err(Error::Io(format!("segment {} takes no more bytes", self.segment))),
                Ok(count) => IoSlice::advance_slices(&mut left, count),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(failed(&format!("cannot write segment {} of", self.segment), storage.root(), &e)),
            }
        }
        self.written += total as u64;
        self.gathered.clear();
        Ok(())
    }
}

/// Writes the log. Only one thread does.
#[derive(Debug)]
pub(super) struct Log {
    shared: Arc<Shared>,
    syncer: Syncer,
    /// Borg 1.x: `max_segment_size`; an entry may begin up to there.
    limit: u64,
    /// Segments of this transaction.
    begun: Vec<u32>,
    /// What the thread was already asked to make durable of the current segment.
    asked: u64,
    /// Of what was asked for, what has to be done before a commit that is being prepared.
    settling: Option<u64>,
}

impl Log {
    /// A log that goes on with the segment `next`.
    pub(super) fn new(shared: Arc<Shared>, limit: u64, next: u32) -> Result<Log> {
        shared.tail().segment = next;
        Ok(Log { syncer: Syncer::start(&shared.storage)?, shared, limit, begun: vec![], asked: 0, settling: None })
    }

    /// Appends an entry, and tells where it begins. `fresh`: in a segment of its own, unless the current one is empty.
    pub(super) fn append(&mut self, head: &[u8; PUT_HEADER], data: &[u8], fresh: bool) -> Result<(u32, u32)> {
        let shared = Arc::clone(&self.shared);
        let mut tail = shared.tail();
        if tail.file.is_some() && (tail.end() > self.limit || fresh && tail.end() > MAGIC.len() as u64) {
            self.finish_segment(&mut tail)?;
        }
        if tail.file.is_none() {
            self.begin_segment(&mut tail)?;
        }
        let offset = u32::try_from(tail.end()).map_err(|_| Error::Io(format!("segment {} is too long", tail.segment)))?;
        if tail.gathered.len() + PUT_HEADER + data.len() > GATHERED {
            tail.write(&shared.storage, [head, data])?;
            if tail.written - self.asked >= STRETCH {
                self.asked = tail.written;
                self.ask(&tail, false);
            }
        } else {
            tail.gathered.extend_from_slice(head);
            tail.gathered.extend_from_slice(data);
        }
        Ok((tail.segment, offset))
    }

    /// Whether a failure to append has left everything as it was before.
    pub(super) fn is_whole(&self) -> bool {
        !self.shared.tail().torn
    }

    /// Whether something waits for a commit.
    pub(super) fn is_dirty(&self) -> bool {
        !self.begun.is_empty()
    }

    /// Has what was written up to the first call made durable beside the writer, and waits so long for it at most. True when that is done: then
    /// a commit finds little left to wait for.
    pub(super) fn settle(&mut self, wait: Duration) -> bool {
        let until = match self.settling {
            Some(until) => until,
            None => {
                let shared = Arc::clone(&self.shared);
                let tail = shared.tail();
                if tail.file.is_some() && tail.written > self.asked {
                    self.asked = tail.written;
                    self.ask(&tail, true);
                }
                drop(tail);
                *self.settling.insert(self.syncer.asked())
            }
        };
        let settled = self.syncer.is_done(until, wait);
        if settled {
            self.settling = None;
        }
        settled
    }

    /// Makes everything durable, then that it holds. Tells the transaction, and which segments are new.
    pub(super) fn commit(&mut self) -> Result<(u32, Vec<u32>)> {
        self.settling = None;
        let shared = Arc::clone(&self.shared);
        let mut tail = shared.tail();
        if tail.file.is_none() || tail.end() > SMALL {
            if tail.file.is_some() {
                self.finish_segment(&mut tail)?;
            }
            self.begin_segment(&mut tail)?;
        }
        let (segment, file) = (tail.segment, tail.file.clone());
        drop(tail);
        // The COMMIT must not be there before what it is about, whatever the file system reorders.
        self.syncer.wait()?;
        let mut tail = shared.tail();
        tail.gathered.extend_from_slice(&COMMIT);
        tail.write(&shared.storage, [&[], &[]])?;
        drop(tail);
        if let Some(file) = file {
            file.sync_all().map_err(|e| failed(&format!("cannot sync segment {segment} of"), shared.storage.root(), &e))?;
        }
        shared.storage.sync_directory(segment)?;
        let mut tail = shared.tail();
        tail.file = None;
        tail.segment = segment + 1;
        tail.written = 0;
        Ok((segment, std::mem::take(&mut self.begun)))
    }

    /// Waits for the thread, before everything since the last commit is given up.
    pub(super) fn rest(&mut self) {
        self.settling = None;
        // What it could not do does not matter any more.
        let _ = self.syncer.wait();
    }

    /// Forgets everything since the last commit. Numbers are not used again while readers may know them.
    pub(super) fn abandon(&mut self) {
        let mut tail = self.shared.tail();
        if tail.file.take().is_some() {
            tail.segment += 1;
        }
        tail.gathered.clear();
        (tail.written, tail.torn) = (0, false);
    }

    /// Removes what was abandoned.
    pub(super) fn remove_abandoned(&mut self) -> Result<()> {
        while let Some(segment) = self.begun.last().copied() {
            self.shared.forget_file(segment);
            self.shared.storage.remove(segment)?;
            self.begun.pop();
            // A commit that failed may have come as far as its last entry. It must not be found after a power cut.
            if self.begun.is_empty() {
                self.shared.storage.sync_directory(segment)?;
            }
        }
        Ok(())
    }

    fn begin_segment(&mut self, tail: &mut MutexGuard<'_, Tail>) -> Result<()> {
        tail.dirty = true;
        tail.file = Some(Arc::new(self.shared.storage.create(tail.segment)?));
        // Not before: where there was one already, it is somebody else's.
        self.begun.push(tail.segment);
        tail.written = 0;
        tail.gathered.clear();
        tail.gathered.extend_from_slice(&MAGIC);
        self.asked = 0;
        Ok(())
    }

    fn finish_segment(&mut self, tail: &mut MutexGuard<'_, Tail>) -> Result<()> {
        tail.write(&self.shared.storage, [&[], &[]])?;
        self.ask(tail, true);
        tail.file = None;
        tail.segment += 1;
        tail.written = 0;
        Ok(())
    }

    fn ask(&self, tail: &Tail, directory: bool) {
        if let Some(file) = &tail.file {
            self.syncer.ask(Arc::clone(file), tail.segment, directory);
        }
    }
}

/// The thread that makes files durable.
#[derive(Debug)]
struct Syncer {
    jobs: Option<Sender<(Arc<File>, u32, bool)>>,
    state: Arc<(Mutex<Progress>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Progress {
    asked: u64,
    done: u64,
    failed: Option<Error>,
}

impl Syncer {
    fn start(storage: &Storage) -> Result<Syncer> {
        let (jobs, work) = channel::<(Arc<File>, u32, bool)>();
        let state = Arc::<(Mutex<Progress>, Condvar)>::default();
        let (progress, storage) = (Arc::clone(&state), storage.clone());
        let run = move || {
            for (file, segment, directory) in work {
                let synced = file.sync_data().map_err(|e| failed(&format!("cannot sync segment {segment} of"), storage.root(), &e));
                let synced = synced.and_then(|()| if directory { storage.sync_directory(segment) } else { Ok(()) });
                drop(file);
                let mut now = progress.0.lock().unwrap_or_else(PoisonError::into_inner);
                now.done += 1;
                if let Err(e) = synced {
                    now.failed.get_or_insert(e);
                }
                progress.1.notify_all();
            }
        };
        let thread = std::thread::Builder::new().name("log-sync".into()).spawn(run);
        let thread = thread.map_err(|e| Error::Io(format!("no thread for syncing segments: {e}")))?;
        Ok(Syncer { jobs: Some(jobs), state, thread: Some(thread) })
    }

    fn ask(&self, file: Arc<File>, segment: u32, directory: bool) {
        self.progress().asked += 1;
        if let Some(jobs) = &self.jobs
            && jobs.send((file, segment, directory)).is_err()
        {
            let mut now = self.progress();
            now.done += 1;
            now.failed.get_or_insert(Error::Io("the thread that syncs segments is gone".into()));
        }
    }

    /// Waits until all that was asked for is done. An error is told once.
    fn wait(&self) -> Result<()> {
        let waited = self.state.1.wait_while(self.progress(), |now| now.done < now.asked);
        waited.unwrap_or_else(PoisonError::into_inner).failed.take().map_or(Ok(()), Err)
    }

    /// How much was asked for in all.
    fn asked(&self) -> u64 {
        self.progress().asked
    }

    /// Whether the first so many are done, or are within that time.
    fn is_done(&self, until: u64, wait: Duration) -> bool {
        let waited = self.state.1.wait_timeout_while(self.progress(), wait, |now| now.done < until);
        waited.unwrap_or_else(PoisonError::into_inner).0.done >= until
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.state.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread that syncs segments panicked");
        }
    }
}
