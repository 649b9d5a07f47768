//! What the writer and readers have in common.

use super::check::Published;
use super::log::Tail;
use super::storage::Storage;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::index::Index;
use borg::Id;
use borg::segment::{PUT_HEADER, verify_put};
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Segments that stay open for reading.
const OPEN_FILES: usize = 64;

/// One repository, as far as more than one thread uses it.
pub(super) struct Shared {
    pub(super) storage: Storage,
    pub(super) index: Index,
    tail: Mutex<Tail>,
    files: Mutex<Files>,
    /// Closed while the index goes back to the last commit.
    gate: RwLock<()>,
    /// For whoever checks.
    pub(super) published: Published,
}

/// Files opened for reading, and when each was used.
#[derive(Debug, Default)]
struct Files {
    open: HashMap<u32, (Arc<File>, u64)>,
    clock: u64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("storage", &self.storage).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(storage: Storage, index: Index) -> Shared {
        Shared { storage, index, tail: Mutex::default(), files: Mutex::default(), gate: RwLock::default(), published: Published::default() }
    }

    pub(super) fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn shut(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// An object's envelope, checked; None if there is none.
    pub(super) fn get(&self, id: &Id) -> Result<Option<Vec<u8>>> {
        // What was found may be moved and removed before it is read; then it is in the index again, elsewhere.
        for _ in 0..3 {
            let entry = {
                let _inside = self.enter();
                self.index.get(id)?
            };
            let Some(entry) = entry else { return Ok(None) };
            match self.read(id, entry) {
                Ok(None) => {}
                // It may have been a copy that was discarded meanwhile; only if it is still said to be there, it is damaged.
                Err(Error::Damaged(_)) if self.is_elsewhere(id, entry)? => {}
                read => return read,
            }
        }
        Err(Error::Damaged(format!("the segment of object {id} is gone")))
    }

    fn is_elsewhere(&self, id: &Id, entry: Entry) -> Result<bool> {
        let _inside = self.enter();
        Ok(self.index.get(id)? != Some(entry))
    }

    /// An entry's data; None if there is no such segment any more.
    pub(super) fn read(&self, id: &Id, entry: Entry) -> Result<Option<Vec<u8>>> {
        let damaged =
            |why: &dyn std::fmt::Display| Error::Damaged(format!("object {id} in segment {} at {}: {why}", entry.segment, entry.offset));
        let mut head = [0; PUT_HEADER];
        let mut data = vec![0; entry.csize as usize];
        if !self.read_unwritten(entry, &mut head, &mut data) {
            let Some(file) = self.file(entry.segment)? else { return Ok(None) };
            let offset = u64::from(entry.offset);
            let read = file.read_exact_at(&mut head, offset).and_then(|()| file.read_exact_at(&mut data, offset + PUT_HEADER as u64));
            read.map_err(|e| damaged(&e))?;
        }
        verify_put(&head, &data, id).map_err(|e| damaged(&e))?;
        Ok(Some(data))
    }

    /// Copies an entry that is in memory only.
    fn read_unwritten(&self, entry: Entry, head: &mut [u8; PUT_HEADER], data: &mut [u8]) -> bool {
        let tail = self.tail();
        if tail.segment != entry.segment {
            return false;
        }
        let Some(bytes) = tail.unwritten(entry.offset.into(), PUT_HEADER + data.len()) else { return false };
        head.copy_from_slice(&bytes[..PUT_HEADER]);
        data.copy_from_slice(&bytes[PUT_HEADER..]);
        true
    }

    /// A segment opened for reading.
    pub(super) fn file(&self, segment: u32) -> Result<Option<Arc<File>>> {
        let mut files = self.files();
        files.clock += 1;
        let clock = files.clock;
        if let Some((file, used)) = files.open.get_mut(&segment) {
            *used = clock;
            return Ok(Some(Arc::clone(file)));
        }
        drop(files);
        let Some(file) = self.storage.open(segment)? else { return Ok(None) };
        let file = Arc::new(file);
        let mut files = self.files();
        if files.open.len() >= OPEN_FILES
            && let Some(oldest) = files.open.iter().min_by_key(|(_, (_, used))| *used).map(|(segment, _)| *segment)
        {
            files.open.remove(&oldest);
        }
        files.open.insert(segment, (Arc::clone(&file), clock));
        Ok(Some(file))
    }

    /// Closes a segment that is removed.
    pub(super) fn forget_file(&self, segment: u32) {
        self.files().open.remove(&segment);
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use crate::{Entry, OpenOptions, Repository, Reserve};
    use borg::Id;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn a_copy_that_is_discarded_while_somebody_reads_it_is_no_damage() {
        let dir = tempfile::tempdir().unwrap();
        let url = dir.path().join("repo").to_str().unwrap().to_owned();
        let options = OpenOptions { exclusive: true, create: true, reserve: Reserve::NONE, ..OpenOptions::at(url) };
        let Repository::Local(mut local) = Repository::open(&options).unwrap() else { panic!("it is local") };
        let id = Id([1; 32]);
        local.put(&id, b"x", 0).unwrap();
        local.commit().unwrap();
        let shared = Arc::clone(&local.shared);
        let good = shared.index.get(&id).unwrap().unwrap();
        let copy = Entry { offset: good.offset + 1000, ..good };
        shared.index.insert(id, copy).unwrap();
        let tail = shared.tail();
        let read = std::thread::scope(|scope| {
            let reader = scope.spawn(|| shared.get(&id));
            // It has found the copy, and waits to see whether that is in memory.
            std::thread::sleep(Duration::from_millis(200));
            shared.index.insert(id, good).unwrap();
            drop(tail);
            reader.join().unwrap()
        });
        assert_eq!(read.unwrap().unwrap(), b"x");
        // What stays there is damaged.
        shared.index.insert(id, copy).unwrap();
        assert!(matches!(shared.get(&id), Err(crate::Error::Damaged(_))));
    }
}
