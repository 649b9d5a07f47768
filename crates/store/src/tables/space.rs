//! What repositories take up, day by day.
//!
//! Outside of the log: a measurement is no change that anybody made, and each backup makes one.

use model::RepositoryName;
use model::space::Space;

use super::basics::name;
use super::kind;
use crate::error::Result;
use crate::handle::{TableMut, TableRef};
use crate::key::{Key, KeyBytes, KeyParts};
use crate::record::Record;
use crate::table::{Table, decode};

impl Record for Space {
    const KIND: u16 = kind::SPACE;
    const NAME: &'static str = "space";
    const VERSION: u16 = 1;
}

/// One entry a day.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpaceKey {
    /// The repository.
    pub repository: RepositoryName,
    /// [`Space::day`].
    pub day: u64,
}

impl Key for SpaceKey {
    fn encode(&self) -> Result<Vec<u8>> {
        Ok(KeyBytes::new().text(self.repository.as_str())?.number(self.day).finish())
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut parts = KeyParts::of(bytes);
        let key = SpaceKey { repository: name(&mut parts)?, day: parts.number()? };
        parts.end().map(|()| key)
    }

    fn show(&self) -> String {
        format!("of repository {} on day {}", self.repository, self.day)
    }
}

/// `space`: [`Space`] by repository and day. The last of a day wins; [`Space::outdated`] says what goes.
pub struct SpaceTable;

impl Table for SpaceTable {
    type Key = SpaceKey;
    type Record = Space;
    const NAME: &'static str = "space";
    const LOGGED: bool = false;
    fn key(record: &Space) -> SpaceKey {
        SpaceKey { repository: record.repository.clone(), day: record.day() }
    }
}

impl TableRef<'_, SpaceTable> {
    /// The newest measurement of a repository. None: there was none.
    pub fn newest(&self, repository: &RepositoryName) -> Result<Option<Space>> {
        let newest = self.read.scan_back(SpaceTable::NAME, &repository.encode()?)?.next().transpose()?;
        newest.map(|(key, value)| Ok(decode::<SpaceTable>(key, value)?.record)).transpose()
    }

    /// All of a repository, by day.
    pub fn history(&self, repository: &RepositoryName) -> Result<Vec<Space>> {
        let entries = self.read.scan(SpaceTable::NAME, &repository.encode()?)?;
        entries.map(|entry| entry.and_then(|(key, value)| Ok(decode::<SpaceTable>(key, value)?.record))).collect()
    }

    fn days(&self, repository: &RepositoryName) -> Result<Vec<u64>> {
        let entries = self.read.scan(SpaceTable::NAME, &repository.encode()?)?;
        entries.map(|entry| Ok(SpaceKey::decode(entry?.0)?.day)).collect()
    }
}

impl TableMut<'_, '_, SpaceTable> {
    /// Keeps a measurement in the place of an earlier one of its day, and forgets what is outdated by it. By a clock that
    /// is wrong, nothing is kept nor forgotten.
    pub fn note(&mut self, space: &Space) -> Result<()> {
        let repository = &space.repository;
        let newest = self.view().newest(repository)?.filter(|newest| newest.day() == space.day());
        // Measured before that one, and kept behind it.
        if newest.as_ref().is_some_and(|newest| newest.time > space.time) {
            return Ok(());
        }
        if newest.is_none() {
            let Some(outdated) = Space::outdated(&self.view().days(repository)?, space.day()) else { return Ok(()) };
            for day in outdated {
                self.remove(&SpaceKey { repository: repository.clone(), day })?;
            }
        }
        self.put(space)
    }

    /// Forgets all of a repository: another one has its name now.
    pub fn forget(&mut self, repository: &RepositoryName) -> Result<()> {
        for day in self.view().days(repository)? {
            self.remove(&SpaceKey { repository: repository.clone(), day })?;
        }
        Ok(())
    }
}
