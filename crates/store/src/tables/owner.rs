//! What owners keep between processes: prepared sessions, and intents ahead of a repository commit.
//!
//! Neither comes back by an undo: a token is used once, and an intent is true at one moment only.

use model::{Archive, RepositoryName, Timestamp};
use serde::{Deserialize, Serialize};

use super::basics::name;
use super::kind;
use crate::error::Result;
use crate::handle::{TableMut, TableRef};
use crate::key::{Key, KeyBytes, KeyParts};
use crate::record::{Evolution, Record};
use crate::table::{Index, Table};

/// A session that an owner prepared and a client has not opened yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedSession {
    /// SHA-256 of the token, 64 hex digits; the token itself is stored nowhere.
    pub token_hash: String,
    /// The job it is for.
    pub job: u64,
    /// The repository whose owner prepared it.
    pub repository: RepositoryName,
    /// When it was prepared.
    pub created: Timestamp,
    /// From when on it is void.
    pub expires: Timestamp,
}

impl Record for PreparedSession {
    const KIND: u16 = kind::SESSION;
    const NAME: &'static str = "prepared session";
    const VERSION: u16 = 1;
}

/// `sessions`: [`PreparedSession`] by the token's hash.
pub struct Sessions;

const BY_JOB: &str = "sessions-by-job";

impl Table for Sessions {
    type Key = String;
    type Record = PreparedSession;
    const NAME: &'static str = "sessions";
    const NO_UNDO: Option<&'static str> = Some("a token that was used or withdrawn stays so");
    fn key(record: &PreparedSession) -> String {
        record.token_hash.clone()
    }
    fn indexes() -> &'static [Index<PreparedSession>] {
        &[Index { name: BY_JOB, fronts: |s| Ok(vec![KeyBytes::new().number(s.job).finish()]) }]
    }
}

impl TableRef<'_, Sessions> {
    /// The sessions that are prepared for a job.
    pub fn of_job(&self, job: u64) -> Result<Vec<PreparedSession>> {
        let entries = self.read.scan(BY_JOB, &job.encode()?)?;
        entries.map(|entry| self.indexed(entry?.1)).collect()
    }
}

impl TableMut<'_, '_, Sessions> {
    /// Uses a token: the session is returned to the one who comes first and in time, and is gone for everybody else.
    pub fn claim(&mut self, token_hash: &str, now: Timestamp) -> Result<Option<PreparedSession>> {
        let key = token_hash.to_owned();
        if !self.view().exists(&key)? {
            return Ok(None);
        }
        let session = self.remove(&key)?;
        Ok(Some(session).filter(|session| now < session.expires))
    }

    /// Withdraws what is prepared for a job; returns how many.
    pub fn withdraw(&mut self, job: u64) -> Result<usize> {
        let sessions = self.view().of_job(job)?;
        for session in &sessions {
            self.remove(&session.token_hash)?;
        }
        Ok(sessions.len())
    }

    /// Removes what nobody claimed in time; returns how many.
    pub fn expire(&mut self, now: Timestamp) -> Result<usize> {
        let mut sessions = self.view().list()?;
        sessions.retain(|session| session.expires <= now);
        for session in &sessions {
            self.remove(&session.token_hash)?;
        }
        Ok(sessions.len())
    }
}

/// What an owner is about to commit to its repository, written before that commit. After a crash the manifest tells whether it
/// happened: then the archive is registered, otherwise the intent is dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The archive's record, ready to be registered. (A new version of it is a new version of this.)
    pub archive: Archive,
    /// Archive ids that the same commit takes out of the manifest: older checkpoints of the same config.
    #[serde(default)]
    pub removes: Vec<String>,
    /// When it was written.
    pub time: Timestamp,
}

impl Record for Intent {
    const KIND: u16 = kind::INTENT;
    const NAME: &'static str = "intent";
    // It contains an archive's record, and goes where that goes.
    const VERSION: u16 = 4;
    fn evolutions() -> &'static [Evolution] {
        super::archives::EVOLUTIONS
    }
}

/// An intent's key: one at a time for each job.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct IntentKey {
    /// The repository.
    pub repository: RepositoryName,
    /// The job.
    pub job: u64,
}

impl Key for IntentKey {
    fn encode(&self) -> Result<Vec<u8>> {
        Ok(KeyBytes::new().text(self.repository.as_str())?.number(self.job).finish())
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut parts = KeyParts::of(bytes);
        let key = IntentKey { repository: name(&mut parts)?, job: parts.number()? };
        parts.end().map(|()| key)
    }

    fn show(&self) -> String {
        format!("of job {} in repository {}", self.job, self.repository)
    }
}

/// `intents`: [`Intent`] by repository and job.
pub struct Intents;

impl Table for Intents {
    type Key = IntentKey;
    type Record = Intent;
    const NAME: &'static str = "intents";
    const NO_UNDO: Option<&'static str> = Some("an intent is about one moment of its repository");
    fn key(record: &Intent) -> IntentKey {
        IntentKey { repository: record.archive.repository.clone(), job: record.archive.job }
    }
}

impl TableRef<'_, Intents> {
    /// The intents of one repository, for its owner to resolve when it starts.
    pub fn of_repository(&self, repository: &RepositoryName) -> Result<Vec<Intent>> {
        let entries = self.read.scan(Intents::NAME, &repository.encode()?)?;
        entries.map(|entry| self.indexed(entry?.0)).collect()
    }
}

impl TableMut<'_, '_, Intents> {
    /// The commit happened: registers the archive, takes the removed ones out, and is done with the intent.
    pub fn register(&mut self, key: &IntentKey) -> Result<Archive> {
        let intent = self.remove(key)?;
        let mut archives = self.write.archives();
        for id in intent.removes {
            let key = super::ArchiveKey { repository: key.repository.clone(), id };
            if archives.view().exists(&key)? {
                archives.remove(&key)?;
            }
        }
        archives.put(&intent.archive)?;
        Ok(intent.archive)
    }
}

/// Archives that an owner takes out of its repository's manifest at this moment. Written before that commit, so that nobody is told that one of them
/// is kept; gone when their records are, or when the next opening of the repository has seen what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    /// The repository.
    pub repository: RepositoryName,
    /// Archive ids, 64 hex digits each.
    pub archives: Vec<String>,
    /// Since when.
    pub time: Timestamp,
}

impl Record for Deletion {
    const KIND: u16 = kind::DELETION;
    const NAME: &'static str = "deletion";
    const VERSION: u16 = 1;
}

/// `deletions`: [`Deletion`] by repository.
pub struct Deletions;

impl Table for Deletions {
    type Key = RepositoryName;
    type Record = Deletion;
    const NAME: &'static str = "deletions";
    const NO_UNDO: Option<&'static str> = Some("a deletion is about one moment of its repository");
    fn key(record: &Deletion) -> RepositoryName {
        record.repository.clone()
    }
}
