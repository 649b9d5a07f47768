//! What a person asks a repository's owner for, besides backups: deleting archives, compacting, checking, and lending the repository to
//! another borg. The locking table in `docs/locking.md` says what of it goes on beside what.

use crate::importing::{Take, Unusable};
use model::Timestamp;
use model::check::{CheckPlan, Coverage, Damage, DamagedFiles};
use model::import::Foreign;
use model::progress::Statistics;
pub use model::progress::Steps as Progress;
use model::web_user::Credential;
use serde::{Deserialize, Serialize};

/// A request; the first and only frame of its connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Maintain {
    /// [`crate::session::VERSION`].
    pub version: u32,
    /// What to do.
    pub operation: Operation,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// Take these archives out of the manifest, and delete the chunks that no other archive refers to. Their space comes back with the
    /// next compact.
    Delete {
        /// Their names.
        archives: Vec<String>,
        /// Only say what it would do.
        dry_run: bool,
    },
    /// Delete those of these archives whose grace period is over. What was held, undeleted or put off meanwhile stays.
    DeleteDue {
        /// Their names.
        archives: Vec<String>,
        /// Then compact, if something was deleted; see [`Operation::Compact`] for the threshold.
        #[serde(default)]
        compact: Option<u8>,
    },
    /// Give back the space of what was deleted, in steps between which backups go on.
    Compact {
        /// Segments of which less than so many per cent can be freed stay as they are (Borg 1.2: 10).
        threshold: u8,
    },
    /// Read everything and look whether it is whole. Changes nothing.
    Check {
        /// Also decrypt each object and recompute its id.
        verify_data: bool,
    },
    /// Check what of it is due. Changes nothing.
    CheckBy {
        /// What, how often, how long.
        plan: CheckPlan,
    },
    /// Remember which files of damaged archives are concerned: whoever asked for the check has looked.
    NoteFiles {
        /// By the archives' ids.
        files: Vec<(String, DamagedFiles)>,
    },
    /// Unlock the repository at the next commit, so that another borg may use it; sessions wait meanwhile.
    Release {
        /// Seconds to wait for what is under way, such as a compact's step or another release.
        wait_seconds: u64,
    },
    /// Read an archive: see [`crate::reading`].
    Read {
        /// Its name, its id, or the beginning of its id (at least 8 digits).
        archive: String,
    },
    /// The same on behalf of a person, who needs the role of an operator, and the setting `web-downloads`: all that the status daemon may ask for.
    ReadFor {
        /// As above.
        archive: String,
        /// Who it is; the owner itself compares that with the database.
        credential: Credential,
    },
    /// Say which archives of the manifest have no record, some at a time.
    Foreign {
        /// Behind this id.
        #[serde(default)]
        after: Option<String>,
    },
    /// Give an archive of other origin a record: see [`crate::importing`].
    Import(Box<Take>),
    /// Give away the repository's key, as it is protected by its passphrase.
    ExportKey,
}

/// The repository is unlocked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// For BORG_REPO.
    pub url: String,
    /// For BORG_HOST_ID, so that a lock which that borg leaves behind is recognised as stale.
    pub host_id: Option<String>,
    /// Sessions that wait meanwhile.
    pub sessions: u64,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Report {
    /// Of a delete.
    Deleted {
        /// Archives that are (or would be) gone.
        archives: Vec<String>,
        /// Chunks that nothing refers to any more.
        chunks: u64,
        /// Stored bytes that a compact can free.
        bytes: u64,
        /// Why chunks stay although nothing of ours refers to them, if so.
        kept_because: Option<String>,
    },
    /// Of [`Operation::DeleteDue`].
    Pruned {
        /// Archives that are gone.
        archives: Vec<String>,
        /// Chunks that nothing refers to any more.
        chunks: u64,
        /// Stored bytes that a compact can free.
        bytes: u64,
        /// Why chunks stay although nothing of ours refers to them, if so.
        kept_because: Option<String>,
        /// Bytes given back to the file system. None: nothing was compacted.
        freed: Option<u64>,
    },
    /// Of a compact.
    Compacted {
        /// Segments that are gone.
        segments: u64,
        /// Bytes given back to the file system.
        freed: u64,
        /// Objects that nothing referred to, left behind by sessions that broke off, and deleted by this compact.
        orphans: u64,
        /// Segments that should have gone and stay, because they are damaged: a check says more.
        #[serde(default)]
        skipped: u64,
    },
    /// Of [`Operation::Foreign`].
    Foreign {
        /// The archives, by id.
        archives: Vec<Foreign>,
        /// The id of the last one, if there are more.
        next: Option<String>,
    },
    /// Of an import: there is a record now.
    Imported {
        /// Different chunks, those of the list of files included.
        chunks: u64,
        /// Totals.
        statistics: Statistics,
        /// What a person should know.
        warnings: Vec<String>,
    },
    /// Of an import: nothing was changed.
    Refused {
        /// Why, in one sentence, escaped for printing.
        why: String,
        /// Objects that are missing, or are not what their ids promise; at most [`Report::MAX_UNUSABLE`].
        unusable: Vec<Unusable>,
        /// How many there are.
        count: u64,
    },
    /// Of [`Operation::ExportKey`].
    Key(Box<KeyText>),
    /// Of a check.
    Checked {
        /// Objects that were read.
        objects: u64,
        /// Bytes that were read.
        bytes: u64,
        /// What is wrong, at most [`Report::MAX_ERRORS`] of it, escaped for printing.
        errors: Vec<String>,
        /// How much is wrong.
        error_count: u64,
        /// Whether all that was due was checked; false if its time was over before.
        #[serde(default = "yes")]
        complete: bool,
        /// How much of the segment files was checked lately.
        #[serde(default)]
        structure: Option<Coverage>,
        /// How much of the content was.
        #[serde(default)]
        data: Option<Coverage>,
        /// What is known to be damaged, by this check or one before.
        #[serde(default)]
        damage: Option<Box<Damage>>,
        /// Chunks that are damaged or missing, 64 hex digits each, at most [`Report::MAX_CHUNKS`]: what they are part of, archives tell.
        #[serde(default)]
        chunks: Vec<String>,
        /// Nothing was due, so nothing was looked at: when anything was looked at last.
        #[serde(default)]
        not_due_since: Option<Timestamp>,
    },
    /// Of [`Operation::NoteFiles`].
    Noted,
}

impl Report {
    /// Errors that a report names.
    pub const MAX_ERRORS: usize = 100;

    /// Chunks that a report names.
    pub const MAX_CHUNKS: usize = 50_000;

    /// Objects that a report names.
    pub const MAX_UNUSABLE: usize = 1000;
}

fn yes() -> bool {
    true
}

/// A repository's key, protected by its passphrase.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyText {
    /// The repository's id, 64 hex digits.
    pub repository_id: String,
    /// As `borg key export` writes it, and `borg key import` reads it.
    pub file: String,
    /// As `borg key export --paper` prints it below its first line, and a person types it for `borg key import --paper`.
    pub paper: String,
}

// It opens nothing without its passphrase, and is nobody's business all the same.
impl std::fmt::Debug for KeyText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyText").field("repository_id", &self.repository_id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_travel() {
        for operation in [
            Operation::Delete { archives: vec!["a".into()], dry_run: true },
            Operation::DeleteDue { archives: vec!["a".into()], compact: Some(10) },
            Operation::Compact { threshold: 10 },
            Operation::Check { verify_data: true },
            Operation::CheckBy { plan: CheckPlan { seconds: Some(60), ..CheckPlan::everything(true) } },
            Operation::NoteFiles { files: vec![("00".into(), DamagedFiles { paths: vec!["etc/x".into()], more: 1, incomplete: None })] },
            Operation::Release { wait_seconds: 5 },
            Operation::Read { archive: "a".into() },
            Operation::ReadFor { archive: "a".into(), credential: Credential::Token { token: "00".into() } },
            Operation::Foreign { after: Some("00".into()) },
            Operation::Import(Box::new(Take {
                name: "a".into(),
                id: "00".into(),
                config: "web1/etc".parse().unwrap(),
                job: 1,
                by: "root".into(),
            })),
            Operation::ExportKey,
        ] {
            let json = serde_json::to_vec(&operation).unwrap();
            assert_eq!(serde_json::from_slice::<Operation>(&json).unwrap(), operation);
        }
    }
}
