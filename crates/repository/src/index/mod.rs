//! Where each object is: an index that does not have to fit into memory.
//!
//! Changes are collected in memory, written as a *run* (an immutable sorted file, see [`run`]) when there are many, and runs are merged by a
//! thread, so that there are few. A lookup asks memory, then the runs from the newest to the oldest; it reads one page of a run or none.
//! [`Index::checkpoint`] makes everything durable; what was written after the last checkpoint is gone after a crash, and whoever owns the
//! index looks it up in the repository again. The index is never more than an answer that could be found in the repository, so whatever
//! is damaged is thrown away as a whole.
//!
//! *May be used by*: this crate.

mod background;
mod borg_index;
mod current;
mod filter;
mod merge;
mod page;
mod run;
mod state;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use borg::{Id, RepositoryId};

use crate::{Entry, Error, Result};
pub use borg_index::{BorgIndex, Digests, write_borg_index};
use current::Current;
pub use merge::Entries;
use merge::Merge;
use run::Place;
use state::{Durable, Shared};

/// Changes that are collected before they are written. At most twice as many wait to be written, and twice as many come in meanwhile.
const LIMIT: usize = 62_500;

/// How long whoever has the index open may take to let go of it.
const LETTING_GO: Duration = Duration::from_secs(2);

/// What the index knew of the repository when it was made durable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The repository's transaction.
    pub transaction: u32,
    /// Its segments.
    pub segments: BTreeMap<u32, SegmentState>,
}

/// A segment as it was at a checkpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SegmentState {
    /// Bytes of the file.
    pub size: u64,
    /// When it was written last, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Objects that are still needed.
    pub live: u32,
    /// Bytes that are not.
    pub freeable: u64,
    /// DELETEs, whose bytes are among those.
    pub deletes: u32,
}

/// The index of one repository. Any number of threads may read it while one writes.
pub struct Index {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Held while the index is open: two of them would remove each other's files.
    _lock: File,
    _temporary: Option<tempfile::TempDir>,
}

fn failed(doing: &str, path: &Path, error: &std::io::Error) -> Error {
    let text = format!("{doing} {} failed: {error}", path.display());
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Error::NoSpace(text),
        _ => Error::Index(text),
    }
}

fn damaged(path: &Path) -> Error {
    Error::IndexDamaged(format!("{} is damaged; the index is built anew when the repository is opened again", path.display()))
}

impl Index {
    /// Opens what is in the directory; what is there and cannot be used is removed, and the index is empty then. With the index comes
    /// what it was told at its last checkpoint. Without a directory it is a temporary one.
    pub fn open(dir: Option<&Path>, id: RepositoryId) -> Result<(Index, Option<Checkpoint>)> {
        Index::with_limit(dir, id, LIMIT)
    }

    /// Another, empty index beside this one, which vanishes when it is dropped.
    pub fn scratch(&self) -> Result<Index> {
        let Place { dir, id, .. } = &*self.shared.place;
        let temporary =
            tempfile::Builder::new().prefix("scratch-").tempdir_in(dir).map_err(|error| failed("making a directory in", dir, &error))?;
        let (mut index, _) = Index::in_place(temporary.path(), *id, LIMIT, false)?;
        index._temporary = Some(temporary);
        Ok(index)
    }

    fn with_limit(dir: Option<&Path>, id: RepositoryId, limit: usize) -> Result<(Index, Option<Checkpoint>)> {
        if let Some(dir) = dir {
            return Index::in_place(dir, id, limit, true);
        }
        let temporary = tempfile::tempdir().map_err(|error| failed("making a directory in", &std::env::temp_dir(), &error))?;
        let (mut index, checkpoint) = Index::in_place(temporary.path(), id, limit, false)?;
        index._temporary = Some(temporary);
        Ok((index, checkpoint))
    }

    fn in_place(dir: &Path, id: RepositoryId, limit: usize, kept: bool) -> Result<(Index, Option<Checkpoint>)> {
        let dir = dir.to_owned();
        fs::create_dir_all(&dir).map_err(|error| failed("making", &dir, &error))?;
        let lock = File::create(dir.join("lock")).map_err(|error| failed("opening the lock in", &dir, &error))?;
        // A thread that was still reading when the repository was closed lets go in a moment.
        let deadline = Instant::now() + LETTING_GO;
        while let Err(error) = lock.try_lock() {
            match error {
                fs::TryLockError::Error(error) => return Err(failed("locking", &dir, &error)),
                fs::TryLockError::WouldBlock if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                fs::TryLockError::WouldBlock => return Err(Error::Index(format!("the index in {} is open already", dir.display()))),
            }
        }

        let place = Arc::new(Place { dir: dir.clone(), id, ours: AtomicBool::new(true) });
        let durable = Current::read(&dir, id).and_then(|current| match Durable::open(&place, current) {
            Ok(durable) => Some(durable),
            Err(error) => {
                log::warn!("the index is built anew: {error}");
                None
            }
        });
        if durable.is_none()
            && let Err(error) = current::remove(&dir)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(failed("removing the old index in", &dir, &error));
        }
        sweep(&dir, durable.as_ref())?;
        let checkpoint = durable.as_ref().map(|durable| durable.current.checkpoint.clone());
        let state = durable.as_ref().map(Durable::state).unwrap_or_default();
        let shared = Arc::new(Shared {
            place,
            limit,
            durable: kept,
            state: RwLock::new(state),
            writer: Mutex::new(durable),
            bell: Mutex::default(),
            work: Condvar::new(),
            written: Condvar::new(),
            broken: AtomicBool::new(false),
        });
        let thread = {
            let shared = Arc::clone(&shared);
            let builder = std::thread::Builder::new().name("index".to_owned());
            builder.spawn(move || shared.run()).map_err(|error| failed("starting a thread for", Path::new("the index"), &error))?
        };
        Ok((Index { shared, thread: Some(thread), _lock: lock, _temporary: None }, checkpoint))
    }

    /// Where the object is.
    pub fn get(&self, id: &Id) -> Result<Option<Entry>> {
        self.shared.get(id)
    }

    /// The object is here from now on; tells where it was.
    pub fn insert(&self, id: Id, entry: Entry) -> Result<Option<Entry>> {
        is_place(entry)?;
        self.shared.change(id, Some(entry))
    }

    /// Makes sure that the next change is taken, or tells why not.
    pub fn prepare(&self) -> Result<()> {
        let _writer = self.shared.writer();
        self.shared.make_room()
    }

    /// Like [`Index::insert`], for an object that was not here when the caller looked, who alone makes changes: nothing is looked up.
    pub fn insert_absent(&self, id: Id, entry: Entry) -> Result<()> {
        is_place(entry)?;
        let _writer = self.shared.writer();
        self.shared.make_room()?;
        self.shared.set(id, Some(entry), None);
        Ok(())
    }

    /// The object is gone; tells where it was.
    pub fn remove(&self, id: &Id) -> Result<Option<Entry>> {
        self.shared.change(*id, None)
    }

    /// Number of objects.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.shared.read().counts.values().sum()
    }

    /// Whether there are no objects.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shared.read().counts.is_empty()
    }

    /// How many objects are in each segment that has any.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<u32, u64> {
        self.shared.read().counts.clone()
    }

    /// Whether any object is in this segment.
    #[must_use]
    pub fn has_any(&self, segment: u32) -> bool {
        self.shared.read().counts.contains_key(&segment)
    }

    /// Objects in these segments are gone from now on. What is inserted later counts, even if it is in one of them.
    pub fn forget_segments(&self, segments: &BTreeSet<u32>) {
        let _writer = self.shared.writer();
        let mut state = self.shared.write();
        let state = &mut *state;
        state.serial += 1;
        let forgotten = Arc::make_mut(&mut state.forgotten);
        for segment in segments {
            forgotten.insert(*segment, state.serial);
            state.counts.remove(segment);
        }
        // An older run may have another place for the same id, and that is no longer true either.
        for change in state.changes.values_mut() {
            *change = change.filter(|entry| !segments.contains(&entry.segment));
        }
        state.since += 1;
    }

    /// Whether so much has changed that a checkpoint is due.
    #[must_use]
    pub fn wants_checkpoint(&self) -> bool {
        self.shared.read().since >= self.shared.limit
    }

    /// Makes everything durable, together with what is known of the repository.
    pub fn checkpoint(&self, checkpoint: &Checkpoint) -> Result<()> {
        self.shared.checkpoint(checkpoint)
    }

    /// Goes back to the last checkpoint and tells what that was told. Without any, the index is empty.
    pub fn reset(&self) -> Result<Option<Checkpoint>> {
        let durable = self.shared.writer();
        let mut state = self.shared.write();
        let mut old = durable.as_ref().map(Durable::state).unwrap_or_default();
        // Numbers of runs are not used twice, because the thread may be writing one.
        (old.epoch, old.next) = (state.epoch + 1, state.next);
        *state = old;
        drop(state);
        self.shared.ring();
        Ok(durable.as_ref().map(|durable| durable.current.checkpoint.clone()))
    }

    /// Everything that is there now, in the order of ids. Later changes are not seen.
    pub fn iter(&self) -> Result<Entries> {
        let (changes, serial, frozen, runs, forgotten) = {
            let state = self.shared.read();
            (state.changes.clone(), state.serial, state.frozen.clone(), Arc::clone(&state.runs), Arc::clone(&state.forgotten))
        };
        let mut merge = Merge::new(forgotten);
        merge.add_map(&changes, serial)?;
        if let Some(frozen) = frozen {
            merge.add_map(&frozen.changes, frozen.born)?;
        }
        runs.iter().rev().try_for_each(|run| self.shared.noted(merge.add_run(run)))?;
        Ok(Entries::new(merge))
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        self.shared.bell().quit = true;
        self.shared.work.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the index's thread has panicked");
        }
        // An iterator may live longer than the index. What it holds is left to the next opening, which uses the same names again.
        let durable = self.shared.writer().take();
        let state = std::mem::take(&mut *self.shared.write());
        drop((durable, state));
        self.shared.place.ours.store(false, Ordering::Release);
    }
}

fn is_place(entry: Entry) -> Result<()> {
    if entry.segment == page::REMOVED { Err(Error::Index(format!("there is no segment {}", entry.segment))) } else { Ok(()) }
}

/// Removes what no checkpoint names.
fn sweep(dir: &Path, durable: Option<&Durable>) -> Result<()> {
    let keep: BTreeSet<PathBuf> = durable.into_iter().flat_map(|durable| &durable.runs).map(|run| run.path().to_owned()).collect();
    let entries = fs::read_dir(dir).map_err(|error| failed("reading", dir, &error))?;
    for entry in entries {
        let path = entry.map_err(|error| failed("reading", dir, &error))?.path();
        let ours = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("run-") || name == "current.tmp");
        if ours && !keep.contains(&path) {
            fs::remove_file(&path).map_err(|error| failed("removing", &path, &error))?;
        }
        if path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("scratch-")) {
            fs::remove_dir_all(&path).map_err(|error| failed("removing", &path, &error))?;
        }
    }
    Ok(())
}
