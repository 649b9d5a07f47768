//! The two ways to a repository.

use crate::error::{Error, Result};
use crate::local::{Compaction, Local, Reader, Step};
use crate::location::Location;
use crate::options::OpenOptions;
use crate::served::Served;
use borg::{Id, RepositoryId};
use std::time::Duration;

/// An open repository. What was not committed when it is dropped is lost.
#[derive(Debug)]
pub enum Repository {
    /// On this machine, read and written by ourselves.
    Local(Box<Local>),
    /// Behind a `borg serve` child.
    Served(Box<Served>),
}

impl Repository {
    /// Opens a repository, or creates it.
    pub fn open(options: &OpenOptions) -> Result<Repository> {
        match Location::parse(&options.url)? {
            Location::Local(path) if !options.served => Local::open(&path, options).map(|local| Repository::Local(Box::new(local))),
            _ => Served::open(options).map(|served| Repository::Served(Box::new(served))),
        }
    }

    /// What other threads may use beside this one; None if the repository is served.
    #[must_use]
    pub fn reader(&self) -> Option<Reader> {
        match self {
            Repository::Local(local) => Some(local.reader()),
            Repository::Served(_) => None,
        }
    }

    /// The repository's id.
    #[must_use]
    pub fn id(&self) -> RepositoryId {
        match self {
            Repository::Local(local) => local.id(),
            Repository::Served(served) => served.id(),
        }
    }

    /// The key blob in the repository's config; None if it has none.
    pub fn load_key(&mut self) -> Result<Option<Vec<u8>>> {
        match self {
            Repository::Local(local) => local.load_key(),
            Repository::Served(served) => served.load_key(),
        }
    }

    /// Puts a key blob into the repository's config.
    pub fn save_key(&mut self, blob: &[u8]) -> Result<()> {
        match self {
            Repository::Local(local) => local.save_key(blob),
            Repository::Served(served) => served.save_key(blob),
        }
    }

    /// An object's envelope. Sees what was put before, committed or not.
    pub fn get(&mut self, id: &Id) -> Result<Vec<u8>> {
        match self {
            Repository::Local(local) => local.get(id),
            Repository::Served(served) => served.get(id),
        }
    }

    /// Stores an envelope; `size` is the length of its plaintext, 0 if nobody knows it. An error of this or an earlier call may surface
    /// later, at [`Repository::commit`] at the latest.
    pub fn put(&mut self, id: &Id, envelope: &[u8], size: u32) -> Result<()> {
        match self {
            Repository::Local(local) => local.put(id, envelope, size),
            Repository::Served(served) => served.put(id, envelope),
        }
    }

    /// Deletes an object, with errors as for [`Repository::put`].
    pub fn delete(&mut self, id: &Id) -> Result<()> {
        match self {
            Repository::Local(local) => local.delete(id),
            Repository::Served(served) => served.delete(id),
        }
    }

    /// Looks, without waiting, whether everything put and deleted so far was accepted. For the time between calls.
    pub fn check_alive(&mut self) -> Result<()> {
        match self {
            Repository::Local(local) => local.check_alive(),
            Repository::Served(served) => served.check_alive(),
        }
    }

    /// All ids, the manifest's among them.
    pub fn list_ids(&mut self) -> Result<Vec<Id>> {
        match self {
            Repository::Local(local) => local.list_ids(),
            Repository::Served(served) => served.list_ids(),
        }
    }

    /// How many objects there are, the manifest included.
    pub fn object_count(&mut self) -> Result<u64> {
        match self {
            Repository::Local(local) => local.object_count(),
            Repository::Served(served) => served.object_count(),
        }
    }

    /// Makes everything put and deleted so far durable, without compacting.
    pub fn commit(&mut self) -> Result<()> {
        match self {
            Repository::Local(local) => local.commit(),
            Repository::Served(served) => served.commit(),
        }
    }

    /// Forgets everything since the last commit.
    pub fn rollback(&mut self) -> Result<()> {
        match self {
            Repository::Local(local) => local.rollback(),
            Repository::Served(served) => served.rollback(),
        }
    }

    /// Forgets everything since the last commit and frees its space at once, also after an error.
    pub fn discard(&mut self) -> Result<()> {
        match self {
            Repository::Local(local) => local.discard(),
            Repository::Served(served) => served.discard(),
        }
    }

    /// Decides which segments to compact: those of which more than `threshold` hundredths can be freed. Nothing is written yet.
    pub fn plan_compaction(&mut self, threshold: u8) -> Result<Compaction> {
        match self {
            Repository::Local(local) => local.plan_compaction(threshold),
            Repository::Served(_) => Err(served_compacts_itself()),
        }
    }

    /// Compacts for about `budget`. In between, everything else can be done, commits and discards among it.
    pub fn compact_step(&mut self, compaction: &mut Compaction, budget: Duration) -> Result<Step> {
        match self {
            Repository::Local(local) => local.compact_step(compaction, budget),
            Repository::Served(_) => Err(served_compacts_itself()),
        }
    }

    /// The first nonce that nobody reserved; None if no reservation was ever made.
    pub fn free_nonce(&mut self) -> Result<Option<u64>> {
        match self {
            Repository::Local(local) => local.free_nonce(),
            Repository::Served(served) => served.free_nonce(),
        }
    }

    /// Reserves all nonces below `next`; `start` is what [`Repository::free_nonce`] answered. Durable at once, commit or not.
    pub fn reserve_nonce(&mut self, next: u64, start: Option<u64>) -> Result<()> {
        match self {
            Repository::Local(local) => local.reserve_nonce(next, start),
            Repository::Served(served) => served.reserve_nonce(next, start),
        }
    }

    /// Removes the whole repository: for one that was created a moment ago and cannot be completed.
    pub fn destroy(self) -> Result<()> {
        match self {
            Repository::Local(local) => local.destroy(),
            Repository::Served(served) => served.destroy(),
        }
    }

    /// Ends the use of the repository and releases its lock. What was not committed is lost.
    pub fn close(self) {
        self.close_unless(&mut || false);
    }

    /// The same, without what takes long and is only worth something to another borg, as soon as `somebody_waits` for the repository.
    pub fn close_unless(self, somebody_waits: &mut dyn FnMut() -> bool) {
        match self {
            Repository::Local(local) => local.close(somebody_waits),
            Repository::Served(served) => served.close(),
        }
    }
}

fn served_compacts_itself() -> Error {
    Error::Unsupported("a repository behind borg serve is compacted with `borg compact`".into())
}
