//! Archives, as the owners register them.

use model::{Archive, ClientName, ConfigName, RepositoryName, Timestamp};

use super::basics::name;
use super::kind;
use crate::error::Result;
use crate::handle::TableRef;
use crate::key::{Key, KeyBytes, KeyParts};
use crate::record::{Evolution, Record};
use crate::table::{Index, Table};

impl Record for Archive {
    const KIND: u16 = kind::ARCHIVE;
    const NAME: &'static str = "archive";
    const VERSION: u16 = 4;
    fn evolutions() -> &'static [Evolution] {
        EVOLUTIONS
    }
}

/// Version 1 knew no doubts about an archive, version 2 neither holds nor grace periods, version 3 no imports.
pub(super) const EVOLUTIONS: &[Evolution] = &[
    Evolution { from: 1, to: 2, apply: add_nothing },
    Evolution { from: 2, to: 3, apply: add_nothing },
    Evolution { from: 3, to: 4, apply: add_nothing },
];

/// What is new may be absent.
#[expect(clippy::unnecessary_wraps, reason = "what an evolution looks like")]
fn add_nothing(_: &mut serde_json::Value) -> std::result::Result<(), String> {
    Ok(())
}

/// An archive's key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ArchiveKey {
    /// The repository.
    pub repository: RepositoryName,
    /// Borg's archive id in it, 64 hex digits.
    pub id: String,
}

impl ArchiveKey {
    /// The key of `archive`.
    pub fn of(archive: &Archive) -> ArchiveKey {
        ArchiveKey { repository: archive.repository.clone(), id: archive.id.clone() }
    }
}

impl Key for ArchiveKey {
    fn encode(&self) -> Result<Vec<u8>> {
        Ok(KeyBytes::new().text(self.repository.as_str())?.text(&self.id)?.finish())
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut parts = KeyParts::of(bytes);
        let key = ArchiveKey { repository: name(&mut parts)?, id: parts.text()?.to_owned() };
        parts.end().map(|()| key)
    }

    fn show(&self) -> String {
        format!("{} in repository {}", self.id, self.repository)
    }
}

/// `archives`: [`Archive`] by repository and archive id.
pub struct Archives;

const BY_TIME: &str = "archives-by-time";
const BY_CLIENT: &str = "archives-by-client";
const BY_CONFIG: &str = "archives-by-config";
const BY_REPOSITORY: &str = "archives-by-repository";
const BY_NAME: &str = "archives-by-name";
const BY_JOB: &str = "archives-by-job";
const INCOMPLETE: &str = "archives-incomplete";

/// `front` and the archive's time, which is when its job began to read.
fn timed(front: KeyBytes, archive: &Archive) -> Result<Vec<Vec<u8>>> {
    Ok(vec![front.signed(archive.start.0).finish()])
}

fn config_front(config: &ConfigName) -> Result<KeyBytes> {
    KeyBytes::new().text(config.client.as_str())?.text(config.label.as_str())
}

fn config_of(archive: &Archive) -> ConfigName {
    ConfigName { client: archive.client.clone(), label: archive.label.clone() }
}

impl Table for Archives {
    type Key = ArchiveKey;
    type Record = Archive;
    const NAME: &'static str = "archives";
    fn key(record: &Archive) -> ArchiveKey {
        ArchiveKey::of(record)
    }
    fn indexes() -> &'static [Index<Archive>] {
        &[
            Index { name: BY_TIME, fronts: |a| timed(KeyBytes::new(), a) },
            Index { name: BY_CLIENT, fronts: |a| timed(KeyBytes::new().text(a.client.as_str())?, a) },
            Index { name: BY_CONFIG, fronts: |a| timed(config_front(&config_of(a))?, a) },
            Index { name: BY_REPOSITORY, fronts: |a| timed(KeyBytes::new().text(a.repository.as_str())?, a) },
            Index { name: BY_NAME, fronts: |a| Ok(vec![KeyBytes::new().text(&a.name)?.finish()]) },
            Index { name: BY_JOB, fronts: |a| Ok(vec![KeyBytes::new().number(a.job).finish()]) },
            // The few that are no restore points.
            Index { name: INCOMPLETE, fronts: |a| Ok(if a.incomplete { vec![vec![]] } else { vec![] }) },
        ]
    }
}

/// Which archives a page shows; what is not given does not narrow it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArchiveFilter {
    /// In this repository.
    pub repository: Option<RepositoryName>,
    /// Of this client.
    pub client: Option<ClientName>,
    /// Of this config.
    pub config: Option<ConfigName>,
    /// Behind this one, which was the last one of the page before.
    pub before: Option<(Timestamp, ArchiveKey)>,
}

impl ArchiveFilter {
    /// The index that narrows most, and the front to look under.
    fn index(&self) -> Result<(&'static str, KeyBytes)> {
        if let Some(config) = &self.config {
            return Ok((BY_CONFIG, config_front(config)?));
        }
        if let Some(client) = &self.client {
            return Ok((BY_CLIENT, KeyBytes::new().text(client.as_str())?));
        }
        if let Some(repository) = &self.repository {
            return Ok((BY_REPOSITORY, KeyBytes::new().text(repository.as_str())?));
        }
        Ok((BY_TIME, KeyBytes::new()))
    }

    /// What the index cannot say and its entry's key can: nothing is read for an archive of another repository.
    fn key_fits(&self, key: &[u8]) -> Result<bool> {
        match &self.repository {
            Some(repository) => Ok(ArchiveKey::decode(key)?.repository == *repository),
            None => Ok(true),
        }
    }
}

impl TableRef<'_, Archives> {
    /// The archives that `filter` lets through, the newest first, at most `limit`.
    pub fn page(&self, filter: &ArchiveFilter, limit: usize) -> Result<Vec<Archive>> {
        let (index, front) = filter.index()?;
        let below = match &filter.before {
            Some((time, key)) => Some([front.clone().signed(time.0).finish(), key.encode()?].concat()),
            None => None,
        };
        let mut archives = Vec::new();
        let mut entries = self.read.scan_back_below(index, &front.finish(), below)?;
        while archives.len() < limit {
            let Some(entry) = entries.next() else { break };
            let (_, key) = entry?;
            if filter.key_fits(key)? {
                let archive = self.indexed(key)?;
                // A config is one client's anyway; only a contradictory filter differs here.
                if filter.client.as_ref().is_none_or(|client| *client == archive.client) {
                    archives.push(archive);
                }
            }
        }
        Ok(archives)
    }

    /// The newest one that is whole and not suspicious. Looks at the thousand newest.
    pub fn newest_whole(&self, filter: &ArchiveFilter) -> Result<Option<Archive>> {
        const STEP: usize = 20;
        let mut filter = filter.clone();
        for _ in 0..50 {
            let page = self.page(&filter, STEP)?;
            if let Some(whole) = page.iter().find(|archive| !archive.incomplete && !archive.suspicious) {
                return Ok(Some(whole.clone()));
            }
            match page.last().filter(|_| page.len() == STEP) {
                Some(last) => filter.before = Some((last.start, ArchiveKey::of(last))),
                None => break,
            }
        }
        Ok(None)
    }

    /// The archives with this name; one at most in each repository.
    pub fn by_name(&self, name: &str) -> Result<Vec<Archive>> {
        let entries = self.read.scan(BY_NAME, &KeyBytes::new().text(name)?.finish())?;
        entries.map(|entry| self.indexed(entry?.1)).collect()
    }

    /// The archive with this name in one repository.
    pub fn named(&self, repository: &RepositoryName, name: &str) -> Result<Option<Archive>> {
        Ok(self.by_name(name)?.into_iter().find(|archive| archive.repository == *repository))
    }

    /// How many archives can be restored from: all but the incomplete ones. Reads none of them.
    pub fn restore_points(&self) -> Result<u64> {
        Ok(self.count()?.saturating_sub(self.read.count(INCOMPLETE)?))
    }

    /// The archives that a job made (checkpoints among them).
    pub fn of_job(&self, job: u64) -> Result<Vec<Archive>> {
        let entries = self.read.scan(BY_JOB, &job.encode()?)?;
        entries.map(|entry| self.indexed(entry?.1)).collect()
    }

    /// The first config behind `after` (None: of all) that has archives. Reads keys only.
    pub fn config_behind(&self, after: Option<&ConfigName>) -> Result<Option<ConfigName>> {
        let front = after.map(config_front).transpose()?.map_or_else(Vec::new, KeyBytes::finish);
        let Some((key, _)) = self.read.behind(BY_CONFIG, &front)? else { return Ok(None) };
        let mut parts = KeyParts::of(key);
        Ok(Some(ConfigName { client: name(&mut parts)?, label: name(&mut parts)? }))
    }

    /// Every archive whose id begins with `prefix`, in any repository: for people who type a part of it. Reads keys only.
    pub fn by_id_prefix(&self, prefix: &str) -> Result<Vec<Archive>> {
        let mut archives = Vec::new();
        for entry in self.read.scan(Archives::NAME, &[])? {
            let (key, _) = entry?;
            if ArchiveKey::decode(key)?.id.starts_with(prefix) {
                archives.push(self.indexed(key)?);
            }
        }
        Ok(archives)
    }
}
