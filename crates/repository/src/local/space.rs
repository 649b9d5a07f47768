//! Room for what is stored: the repository's quota, and what has to stay free in the file system.

use super::storage::Storage;
use crate::error::{Error, Result};
use crate::options::Reserve;

/// How much may be taken in at most before the file system is looked at again.
const BETWEEN: u64 = 8 << 20;

/// What copies leave free however little is kept: a commit must still be possible, because only it makes room.
const SPARE: u64 = 1 << 20;

/// Decides whether there is room.
#[derive(Debug)]
pub(super) struct Room {
    reserve: Reserve,
    /// Borg 1.x: `additional_free_space`.
    additional: u64,
    /// Borg 1.x: `storage_quota`; 0 means none.
    quota: u64,
    /// What may be taken in before the file system is looked at again.
    budget: u64,
    /// The same for copies of a compaction.
    copying: u64,
    /// What copies took and will give back, when what they were copied from is removed.
    lent: u64,
    /// Bytes of all entries, for the quota. Borg counts no DELETEs, so this is a little more.
    used: u64,
}

impl Room {
    pub(super) fn new(reserve: Reserve, additional: u64, quota: u64) -> Room {
        Room { reserve, additional, quota, budget: 0, copying: 0, lent: 0, used: 0 }
    }

    /// What there is already.
    pub(super) fn set_used(&mut self, used: u64) {
        (self.used, self.budget, self.copying) = (used, 0, 0);
    }

    /// No copies wait any more for the removal of what they were copied from.
    pub(super) fn settle_copies(&mut self) {
        self.lent = 0;
    }

    /// What is free, and how much of it copies may not use: half of what is kept, so that what comes after them can be committed.
    /// What has to be kept is what deletions are for, and a compaction is how they give anything back.
    pub(super) fn for_copies(&self, storage: &Storage) -> Result<(u64, u64)> {
        let space = storage.space()?;
        Ok((space.available, self.kept(space.total) / 2 + SPARE))
    }

    /// Takes so many bytes for a copy, if there is room for it.
    pub(super) fn take_for_copy(&mut self, storage: &Storage, bytes: u64) -> Result<()> {
        if self.copying < bytes {
            let (available, kept) = self.for_copies(storage)?;
            match available.checked_sub(kept) {
                Some(free) if free >= bytes => self.copying = bytes.max(BETWEEN.min(free / 4)),
                _ => {
                    let (free, kept) = (available >> 20, kept >> 20);
                    return Err(Error::NoSpace(format!(
                        "a copy was to be written; {free} MiB are free, of which {kept} MiB are kept for commits"
                    )));
                }
            }
        }
        self.copying -= bytes;
        self.lent += bytes;
        // What they take, others no longer have.
        self.budget = self.budget.saturating_sub(bytes);
        Ok(())
    }

    /// What must stay free in a file system of so many bytes.
    fn kept(&self, total: u64) -> u64 {
        self.reserve.of(total).saturating_add(self.additional)
    }

    /// Takes so many bytes more, if there is room for them.
    pub(super) fn take(&mut self, storage: &Storage, bytes: u64) -> Result<()> {
        if self.quota > 0 && self.used.saturating_add(bytes) > self.quota {
            let (quota, used) = (self.quota, self.used);
            return Err(Error::NoSpace(format!("its storage quota of {quota} bytes is used up ({used} bytes are stored)")));
        }
        if self.budget < bytes {
            self.look(storage, bytes)?;
        }
        self.budget = self.budget.saturating_sub(bytes);
        self.used = self.used.saturating_add(bytes);
        Ok(())
    }

    fn look(&mut self, storage: &Storage, bytes: u64) -> Result<()> {
        if self.reserve == Reserve::NONE && self.additional == 0 {
            self.budget = u64::MAX;
            return Ok(());
        }
        let space = storage.space()?;
        let reserve = self.kept(space.total);
        // A compaction beside them is not to end backups for which there would be room without it.
        let reserve = reserve - self.lent.min(reserve / 2);
        match space.available.checked_sub(reserve) {
            // Others write there, too: the nearer the end, the more often it is looked at.
            Some(free) if free >= bytes => {
                self.budget = bytes.max(BETWEEN.min(free / 4));
                Ok(())
            }
            _ => Err(Error::NoSpace(format!(
                "{} MiB are free, and {} MiB of them are kept for deletions and repairs",
                space.available >> 20,
                reserve >> 20
            ))),
        }
    }
}
