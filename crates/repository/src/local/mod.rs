//! A repository on this machine, read and written without any borg program.

mod auxiliary;
mod check;
mod compact;
mod lock;
mod log;
mod opening;
mod reader;
mod removal;
mod replay;
mod shared;
mod slices;
mod space;
mod storage;
mod usage;

use self::lock::Lock;
use self::log::Log;
use self::replay::{Statistics, note, superseded};
use self::shared::Shared;
use self::space::Room;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::index::Checkpoint;
use borg::config::{Config, Settings};
use borg::segment::{PUT_HEADER, delete, put_header};
use borg::{Id, MAX_OBJECT, RepositoryId};
pub use check::{CheckOptions, CheckReport, Finding, Verify};
pub use compact::{Compaction, Step};
pub use reader::Reader;
pub use slices::{Segment, Slice};
use std::sync::Arc;
use std::time::Duration;
pub use usage::Usage;

/// Bytes of segments after which the index is made durable. Large objects are read by their headers alone, small ones whole: about a second.
const READ_AGAIN: u64 = 256 << 20;

/// An open repository on this machine.
#[derive(Debug)]
pub struct Local {
    shared: Arc<Shared>,
    /// None if it was opened for reading only.
    log: Option<Log>,
    config: Config,
    settings: Settings,
    /// The newest committed segment; None before the first commit.
    transaction: Option<u32>,
    statistics: Statistics,
    room: Room,
    /// Something failed half-way: until [`Local::discard`], nothing works any more.
    broken: Option<Error>,
    /// Segments from which everything needed was copied: removed by the next commit.
    compacting: compact::Progress,
    /// Bytes of segments that were committed since the index was made durable: going back to the last commit means reading them again.
    unread: u64,
    /// How many there may be.
    read_again: u64,
    /// Borg's index and what belongs to it are those of this transaction, and no segment they know of was removed.
    auxiliary: Option<u32>,
    /// After everything else, when this is dropped.
    lock: Option<Lock>,
}

impl Local {
    pub(crate) fn reader(&self) -> Reader {
        Reader { shared: Arc::downgrade(&self.shared) }
    }

    pub(crate) fn id(&self) -> RepositoryId {
        self.settings.id
    }

    pub(crate) fn load_key(&mut self) -> Result<Option<Vec<u8>>> {
        Ok(self.config.get("key").filter(|key| !key.is_empty()).map(String::into_bytes))
    }

    pub(crate) fn save_key(&mut self, blob: &[u8]) -> Result<()> {
        self.for_writing()?;
        let text = std::str::from_utf8(blob).map_err(|_| Error::Invalid("a key blob has to be text".into()))?;
        let mut config = self.config.clone();
        config.set("key", text);
        self.shared.storage.write("config", config.text().as_bytes())?;
        self.config = config;
        Ok(())
    }

    pub(crate) fn get(&mut self, id: &Id) -> Result<Vec<u8>> {
        self.shared.get(id)?.ok_or(Error::ObjectNotFound(*id))
    }

    pub(crate) fn put(&mut self, id: &Id, envelope: &[u8], size: u32) -> Result<()> {
        self.for_writing()?;
        if envelope.len() > MAX_OBJECT {
            return Err(Error::Invalid(format!("object {id} has {} bytes, more than Borg stores", envelope.len())));
        }
        if *id != Id::MANIFEST {
            // A manifest ends a transaction that was let in already.
            self.room.take(&self.shared.storage, (envelope.len() + PUT_HEADER) as u64)?;
        }
        let written = self.write_put(id, envelope, size);
        self.remember(written)
    }

    pub(crate) fn delete(&mut self, id: &Id) -> Result<()> {
        self.for_writing()?;
        if self.shared.index.get(id)?.is_none() {
            return Err(Error::ObjectNotFound(*id));
        }
        let written = self.write_delete(id);
        self.remember(written)
    }

    pub(crate) fn check_alive(&mut self) -> Result<()> {
        self.check()?;
        self.note_removals(Duration::ZERO);
        let lost = self.lock.as_ref().and_then(lost);
        self.remember(lost.map_or(Ok(()), Err))
    }

    pub(crate) fn list_ids(&mut self) -> Result<Vec<Id>> {
        self.reader().ids()?.map(|entry| entry.map(|(id, _)| id)).collect()
    }

    pub(crate) fn object_count(&mut self) -> Result<u64> {
        Ok(self.shared.index.len())
    }

    pub(crate) fn commit(&mut self) -> Result<()> {
        self.check_alive()?;
        if !self.log.as_ref().is_some_and(Log::is_dirty) {
            // What was emptied had nothing in it.
            if self.remove_emptied() {
                self.publish();
            }
            return Ok(());
        }
        let committed = self.write_commit();
        self.remember(committed)
    }

    pub(crate) fn rollback(&mut self) -> Result<()> {
        self.discard()
    }

    /// Forgets everything since the last commit, removes its segments and goes back to the index of that commit.
    pub(crate) fn discard(&mut self) -> Result<()> {
        let Some(log) = &self.log else { return Ok(()) };
        if !log.is_dirty() && self.broken.is_none() {
            return Ok(());
        }
        if let Some(error) = self.lock.as_ref().and_then(lost) {
            // Whoever has the lock now has removed our segments, and has perhaps committed others under their numbers.
            return self.remember(Err(error));
        }
        self.end_removal();
        if let Some(log) = &mut self.log {
            log.rest();
        }
        let caught_up = self.go_back();
        // Nobody can find anything in them any more: readers need not wait until the file system has given them up.
        let removed = self.log.as_mut().map_or(Ok(()), Log::remove_abandoned);
        self.remember(caught_up.and(removed))
    }

    /// To the index of the last commit, while nobody reads it.
    fn go_back(&mut self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let _alone = shared.shut();
        if let Some(log) = &mut self.log {
            log.abandon();
        }
        self.broken = None;
        self.compacting.discard();
        self.room.settle_copies();
        let checkpoint = shared.index.reset()?;
        self.catch_up(checkpoint.unwrap_or_default())?;
        self.publish();
        Ok(())
    }

    pub(crate) fn free_nonce(&mut self) -> Result<Option<u64>> {
        let Some(bytes) = self.shared.storage.read("nonce")? else { return Ok(None) };
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim();
        match u64::from_str_radix(text, 16) {
            Ok(nonce) if text.len() == 16 => Ok(Some(nonce)),
            _ => Err(Error::Damaged(format!("the nonce file holds {text:?}, which is no nonce"))),
        }
    }

    pub(crate) fn reserve_nonce(&mut self, next: u64, start: Option<u64>) -> Result<()> {
        self.for_writing()?;
        // Somebody else may be about to use the same ones.
        self.check_alive()?;
        if self.free_nonce()? != start {
            return Err(Error::Io("somebody else reserved nonces meanwhile".into()));
        }
        self.shared.storage.write("nonce", format!("{next:016x}").as_bytes())
    }

    pub(crate) fn destroy(mut self) -> Result<()> {
        self.for_writing()?;
        self.end_removal();
        self.log = None;
        let root = self.shared.storage.root().to_owned();
        // Without it, this is no repository any more, should the rest fail.
        self.shared.storage.remove_file("config")?;
        if let Some(lock) = self.lock.take() {
            lock.release()?;
        }
        std::fs::remove_dir_all(&root).map_err(|e| storage::failed("cannot remove", &root, &e))
    }

    pub(crate) fn close(mut self, somebody_waits: &mut dyn FnMut() -> bool) {
        self.end_removal();
        if let Err(e) = self.leave(somebody_waits) {
            // Whoever opens it next finds everything in the segments.
            ::log::warn!("{}: {e}", self.shared.storage.root().display());
        }
        if let Some(lock) = self.lock.take()
            && let Err(e) = lock.release()
        {
            ::log::warn!("{e}");
        }
    }

    fn write_put(&mut self, id: &Id, envelope: &[u8], size: u32) -> Result<()> {
        // Borg 1.x: what supersedes an object deletes it first.
        let existing = self.shared.index.get(id)?.is_some();
        if existing {
            self.write_delete(id)?;
        }
        let fresh = *id == Id::MANIFEST && !existing;
        let (segment, offset) = self.append(&put_header(id, envelope), envelope, fresh)?;
        let entry = Entry { segment, offset, size, csize: envelope.len() as u32 };
        self.shared.index.insert_absent(*id, entry)?;
        note(&mut self.statistics, segment, |state| {
            state.live += 1;
            state.size += u64::from(entry.csize) + PUT_HEADER as u64;
        });
        Ok(())
    }

    fn write_delete(&mut self, id: &Id) -> Result<()> {
        let (segment, _) = self.append(&delete(id), &[], *id == Id::MANIFEST)?;
        superseded(&mut self.statistics, self.shared.index.remove(id)?);
        note(&mut self.statistics, segment, |state| {
            state.deletes += 1;
            state.freeable += PUT_HEADER as u64;
            state.size += PUT_HEADER as u64;
        });
        Ok(())
    }

    fn append(&mut self, head: &[u8; PUT_HEADER], data: &[u8], fresh: bool) -> Result<(u32, u32)> {
        self.log.as_mut().ok_or_else(reading_only)?.append(head, data, fresh)
    }

    fn write_commit(&mut self) -> Result<()> {
        let log = self.log.as_mut().ok_or_else(reading_only)?;
        let (transaction, segments) = log.commit()?;
        self.transaction = Some(transaction);
        for segment in segments {
            // It holds already: without a stamp the next opening builds the index anew.
            match self.shared.storage.stamp(segment) {
                Ok(Some(stamp)) => {
                    self.unread += stamp.size;
                    note(&mut self.statistics, segment, |state| (state.size, state.mtime_ns) = (stamp.size, stamp.mtime_ns));
                }
                Ok(None) => {}
                Err(e) => ::log::error!("{e}"),
            }
        }
        note(&mut self.statistics, transaction, |state| state.freeable += borg::segment::HEADER as u64);
        // From here on it holds, whatever else fails.
        if self.settings.append_only
            && let Err(e) = self.note_transaction(transaction)
        {
            ::log::error!("{e}");
        }
        self.remove_emptied();
        self.publish();
        if self.wants_checkpoint()
            && let Err(e) = self.checkpoint()
        {
            ::log::error!("the next opening will take longer: {e}");
        }
        Ok(())
    }

    /// Nothing waits for a commit.
    fn publish(&self) {
        self.shared.publish(self.transaction, &self.statistics);
    }

    /// Whether so much was committed since the last checkpoint that reading it again would take long, at the next opening or when readers
    /// wait in a [`Local::discard`].
    fn wants_checkpoint(&self) -> bool {
        self.shared.index.wants_checkpoint() || self.unread > self.read_again
    }

    fn checkpoint(&mut self) -> Result<()> {
        let Some(transaction) = self.transaction else { return Ok(()) };
        self.shared.index.checkpoint(&Checkpoint { transaction, segments: self.statistics.clone() })?;
        self.unread = 0;
        Ok(())
    }

    fn for_writing(&self) -> Result<()> {
        self.check()?;
        if self.log.is_none() { Err(reading_only()) } else { Ok(()) }
    }

    fn check(&self) -> Result<()> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    fn remember<T>(&mut self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            self.broken.get_or_insert_with(|| error.clone());
        }
        result
    }
}

fn lost(lock: &Lock) -> Option<Error> {
    let location = lock.root().display();
    (!lock.is_held()).then(|| Error::Io(format!("the lock of {location} was broken by somebody; nothing more is written")))
}

fn reading_only() -> Error {
    Error::Unsupported("the repository was opened for reading only".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{OpenOptions, Repository, Reserve};

    #[test]
    fn little_is_read_again_when_something_is_discarded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("repo").to_str().unwrap().to_owned();
        let options = OpenOptions { exclusive: true, create: true, reserve: Reserve::NONE, ..OpenOptions::at(path) };
        let Repository::Local(mut local) = Repository::open(&options).unwrap() else { panic!("it is local") };
        local.read_again = 3 << 20;
        for n in 0..10 {
            local.put(&Id([n; 32]), &vec![n; 1 << 20], 0).unwrap();
            local.commit().unwrap();
            assert!(local.unread <= 3 << 20, "{}", local.unread);
        }
        local.put(&Id([10; 32]), b"never committed", 0).unwrap();
        local.discard().unwrap();
        assert_eq!(local.object_count().unwrap(), 10);
        // It does not become more by being read, and what is known is right.
        assert!(local.unread <= 3 << 20, "{}", local.unread);
        let checkpoint = local.shared.index.reset().unwrap().unwrap();
        assert!(Some(checkpoint.transaction + 4) > local.transaction, "{} of {:?}", checkpoint.transaction, local.transaction);
        local.catch_up(checkpoint).unwrap();
        for n in 0..10 {
            assert_eq!(local.get(&Id([n; 32])).unwrap(), vec![n; 1 << 20]);
        }
    }
}
