//! Room for what is stored: the repository's quota, and what has to stay free in the file system.

use super::storage::Storage;
use crate::error::{Error, Result};
use crate::options::Reserve;

/// How much may be taken in at most before the file system is looked at again.
const BETWEEN: u64 = 8 << 20;

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
    /// Bytes of all entries, for the quota. Borg counts no DELETEs, so this is a little more.
    used: u64,
}

impl Room {
    pub(super) fn new(reserve: Reserve, additional: u64, quota: u64) -> Room {
        Room { reserve, additional, quota, budget: 0, used: 0 }
    }

    /// What there is already.
    pub(super) fn set_used(&mut self, used: u64) {
        (self.used, self.budget) = (used, 0);
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
        let reserve = self.reserve.of(space.total).saturating_add(self.additional);
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
