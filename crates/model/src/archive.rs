//! Archives that the server accepted.

use crate::names::{ClientName, Label, PolicyName, RepositoryName};
use crate::progress::{SessionCounters, Statistics};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// An archive in a repository. All times are the server's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    /// Borg's archive id in the repository, 64 hex digits.
    pub id: String,
    /// The archive's name in the manifest.
    pub name: String,
    /// The repository.
    pub repository: RepositoryName,
    /// Whose data it holds.
    pub client: ClientName,
    /// The config's label.
    pub label: Label,
    /// The job that made it.
    pub job: u64,
    /// Free text.
    #[serde(default)]
    pub comment: String,
    /// Totals.
    pub statistics: Statistics,
    /// What crossed the wire for it.
    #[serde(default)]
    pub counters: SessionCounters,
    /// When the job began to read.
    pub start: Timestamp,
    /// When it was committed.
    pub end: Timestamp,
    /// The newest checkpoint of a broken job: it helps a resume, it is no restore point.
    #[serde(default)]
    pub incomplete: bool,
    /// SHA-256 of the view list's file, 64 hex digits.
    pub view_digest: String,
    /// What the client claimed and the server replaced (name, host, user, times), escaped for printing.
    #[serde(default)]
    pub claims: Vec<String>,
    /// It has so much less than the config's archives before it that a person has to look before anything relies on it.
    /// (A client decides what it sends: that an archive is not suspicious proves nothing.)
    #[serde(default)]
    pub suspicious: bool,
    /// What is odd about it, in sentences, escaped for printing.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Somebody wants it kept: no policy and no delete removes it.
    #[serde(default)]
    pub hold: Option<Hold>,
    /// It will be deleted. Until then it is a restore point like the others.
    #[serde(default)]
    pub pending_deletion: Option<PendingDeletion>,
    /// Another borg made it. Its times are what that one says, unless the server's clock contradicts them.
    #[serde(default)]
    pub imported: Option<Imported>,
}

/// How an archive of other origin came to have a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// When.
    pub time: Timestamp,
    /// Who said whose it is.
    pub by: String,
    /// Its metadata bears the signature of the repository's key; archives of older borgs may have none.
    pub signed: bool,
}

/// Why an archive is kept, whatever the policies say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Since when.
    pub since: Timestamp,
    /// Who wants that.
    pub by: String,
    /// What for.
    #[serde(default)]
    pub reason: String,
}

/// The grace period of an archive that goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingDeletion {
    /// Since when.
    pub since: Timestamp,
    /// From when on it may be deleted.
    pub due: Timestamp,
    /// Who decided that.
    pub by: String,
    /// The policy it was decided by. None: a person chose the archive.
    #[serde(default)]
    pub policy: Option<PolicyName>,
}
