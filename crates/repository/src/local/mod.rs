//! A repository on this machine, read and written without any borg program.

use crate::entry::Entry;
use crate::error::Result;
use borg::{Id, RepositoryId};
use std::convert::Infallible;

/// An open repository on this machine.
#[derive(Debug)]
pub struct Local {
    never: Infallible,
}

/// Reads beside the writer.
#[derive(Debug, Clone)]
pub struct Reader {
    never: Infallible,
}

impl Reader {
    /// Whether the object is there.
    pub fn contains(&self, _id: &Id) -> Result<bool> {
        match self.never {}
    }

    /// Where the object is; None if there is none.
    pub fn entry(&self, _id: &Id) -> Result<Option<Entry>> {
        match self.never {}
    }

    /// The object's envelope, committed or not; None if there is none.
    pub fn get(&self, _id: &Id) -> Result<Option<Vec<u8>>> {
        match self.never {}
    }

    /// How many objects there are, the manifest included.
    #[must_use]
    pub fn count(&self) -> u64 {
        match self.never {}
    }

    /// All objects of this moment, sorted by id.
    pub fn ids(&self) -> Result<Box<dyn Iterator<Item = Result<(Id, Entry)>> + Send>> {
        match self.never {}
    }
}

impl Local {
    pub(crate) fn reader(&self) -> Reader {
        match self.never {}
    }

    pub(crate) fn id(&self) -> RepositoryId {
        match self.never {}
    }

    pub(crate) fn load_key(&mut self) -> Result<Option<Vec<u8>>> {
        match self.never {}
    }

    pub(crate) fn save_key(&mut self, _blob: &[u8]) -> Result<()> {
        match self.never {}
    }

    pub(crate) fn get(&mut self, _id: &Id) -> Result<Vec<u8>> {
        match self.never {}
    }

    pub(crate) fn put(&mut self, _id: &Id, _envelope: &[u8], _size: u32) -> Result<()> {
        match self.never {}
    }

    pub(crate) fn delete(&mut self, _id: &Id) -> Result<()> {
        match self.never {}
    }

    pub(crate) fn check_alive(&mut self) -> Result<()> {
        match self.never {}
    }

    pub(crate) fn list_ids(&mut self) -> Result<Vec<Id>> {
        match self.never {}
    }

    pub(crate) fn object_count(&mut self) -> Result<u64> {
        match self.never {}
    }

    pub(crate) fn commit(&mut self) -> Result<()> {
        match self.never {}
    }

    pub(crate) fn rollback(&mut self) -> Result<()> {
        match self.never {}
    }

    pub(crate) fn discard(&mut self) -> Result<()> {
        match self.never {}
    }

    pub(crate) fn free_nonce(&mut self) -> Result<Option<u64>> {
        match self.never {}
    }

    pub(crate) fn reserve_nonce(&mut self, _next: u64, _start: Option<u64>) -> Result<()> {
        match self.never {}
    }

    pub(crate) fn destroy(self) -> Result<()> {
        match self.never {}
    }

    pub(crate) fn close(self) {
        match self.never {}
    }
}
