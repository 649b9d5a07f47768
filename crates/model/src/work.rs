//! What jobs do, and what came of it.

use crate::check::Coverage;
use crate::import::Import;
use crate::names::{CheckName, ClientName, ConfigName, Label, PolicyName, RepositoryName};
use crate::restore::Restore;
use crate::restore_test::RestoreTest;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a job does, with what it needs to know beside its repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Work {
    /// `borg create` on a client.
    Backup {
        /// The client.
        client: ClientName,
        /// The config's label.
        label: Label,
    },
    /// Reads the repository and looks whether it is whole.
    Check {
        /// Also decrypt each object and recompute its id.
        verify_data: bool,
        /// What this check config says, as it is when the job begins. None: everything.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        config: Option<CheckName>,
    },
    /// Gives back the space of what was deleted.
    Compact {
        /// Segments of which less than so many per cent can be freed stay as they are.
        threshold: u8,
    },
    /// Lets policies decide about a repository's archives, and deletes what is due.
    Prune {
        /// What this policy decides about. None: all policies.
        #[serde(default)]
        policy: Option<PolicyName>,
        /// Archives of clients whose whole name matches this regular expression.
        #[serde(default)]
        clients: Option<String>,
        /// Archives of configs whose whole label matches this regular expression.
        #[serde(default)]
        labels: Option<String>,
        /// Give the space back as well.
        compact: bool,
    },
    /// `borg extract` on a client.
    Restore {
        /// The client that is restored to.
        client: ClientName,
        /// What, and where to.
        restore: Box<Restore>,
    },
    /// Archives of other origin get records, once all that they refer to was verified.
    Import {
        /// Which, and whose they are.
        import: Box<Import>,
    },
    /// Extracts a sample of an archive on the server, and compares it.
    RestoreTest {
        /// Whose archive it is.
        client: ClientName,
        /// What, and with what it is compared.
        test: Box<RestoreTest>,
    },
}

/// A job's kind alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobKind {
    /// [`Work::Backup`].
    Backup,
    /// [`Work::Check`].
    Check,
    /// [`Work::Compact`].
    Compact,
    /// [`Work::Prune`].
    Prune,
    /// [`Work::Restore`].
    Restore,
    /// [`Work::Import`].
    Import,
    /// [`Work::RestoreTest`].
    RestoreTest,
}

impl JobKind {
    /// All of them.
    pub const ALL: [JobKind; 7] =
        [JobKind::Backup, JobKind::Check, JobKind::Compact, JobKind::Prune, JobKind::Restore, JobKind::RestoreTest, JobKind::Import];

    /// The word in records, JSON and the manual.
    pub fn as_str(self) -> &'static str {
        match self {
            JobKind::Backup => "backup",
            JobKind::Check => "check",
            JobKind::Compact => "compact",
            JobKind::Prune => "prune",
            JobKind::Restore => "restore",
            JobKind::Import => "import",
            JobKind::RestoreTest => "restore-test",
        }
    }

    /// It runs on a client; the others are between the server and a repository (a restore test may ask a client while it is at work).
    pub fn has_client(self) -> bool {
        match self {
            JobKind::Backup | JobKind::Restore => true,
            JobKind::Check | JobKind::Compact | JobKind::Prune | JobKind::RestoreTest | JobKind::Import => false,
        }
    }
}

impl fmt::Display for JobKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for JobKind {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == s).ok_or_else(|| {
            let all: Vec<_> = Self::ALL.iter().map(|kind| kind.as_str()).collect();
            format!("{s:?} is not a kind of job; choose one of {}", all.join(", "))
        })
    }
}

impl Work {
    /// A compact leaves segments alone of which less can be freed, in per cent (Borg 1.2's default).
    pub const THRESHOLD: u8 = 10;

    /// The backup of a config.
    pub fn backup(config: &ConfigName) -> Work {
        Work::Backup { client: config.client.clone(), label: config.label.clone() }
    }

    /// Its kind.
    pub fn kind(&self) -> JobKind {
        match self {
            Work::Backup { .. } => JobKind::Backup,
            Work::Check { .. } => JobKind::Check,
            Work::Compact { .. } => JobKind::Compact,
            Work::Prune { .. } => JobKind::Prune,
            Work::Restore { .. } => JobKind::Restore,
            Work::Import { .. } => JobKind::Import,
            Work::RestoreTest { .. } => JobKind::RestoreTest,
        }
    }

    /// The client concerned, where there is one.
    pub fn client(&self) -> Option<&ClientName> {
        match self {
            Work::Backup { client, .. } | Work::Restore { client, .. } | Work::RestoreTest { client, .. } => Some(client),
            Work::Check { .. } | Work::Compact { .. } | Work::Prune { .. } | Work::Import { .. } => None,
        }
    }

    /// The config that is run, where there is one.
    pub fn config(&self) -> Option<ConfigName> {
        match self {
            Work::Backup { client, label } => Some(ConfigName { client: client.clone(), label: label.clone() }),
            Work::Check { .. }
            | Work::Compact { .. }
            | Work::Prune { .. }
            | Work::Restore { .. }
            | Work::RestoreTest { .. }
            | Work::Import { .. } => None,
        }
    }

    /// A word or two for people: `web1/etc`, `check of main`, `restore of ARCHIVE to web1`.
    pub fn on(&self, repository: Option<&RepositoryName>) -> String {
        if let Work::Restore { client, restore } = self {
            return format!("restore of {} to {client}", restore.archive);
        }
        if let Work::RestoreTest { client, test } = self {
            return match &test.label {
                Some(label) => format!("restore test of {client}/{label}"),
                None => format!("restore test of {client}"),
            };
        }
        match (self.config(), repository) {
            (Some(config), _) => config.to_string(),
            (None, Some(repository)) => format!("{} of {repository}", self.kind()),
            (None, None) => self.kind().to_string(),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks this way")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks this way")]
fn is_true(flag: &bool) -> bool {
    *flag
}

/// What came of a job that makes no archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Yield {
    /// Of a check.
    Checked {
        /// Objects that were read.
        objects: u64,
        /// Bytes that were read.
        bytes: u64,
        /// How much is wrong.
        error_count: u64,
        /// Whether all that was due was checked; false if its time was over before.
        #[serde(default = "yes", skip_serializing_if = "is_true")]
        complete: bool,
        /// How much of the segment files was checked lately.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        structure: Option<Coverage>,
        /// How much of the content was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        data: Option<Coverage>,
        /// Nothing was due: when anything was looked at last.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        not_due_since: Option<Timestamp>,
    },
    /// Of a compact.
    Compacted {
        /// Segment files that are gone.
        segments: u64,
        /// Bytes given back to the file system.
        freed: u64,
        /// Objects that nothing referred to, left behind by sessions that broke off, and deleted by it.
        orphans: u64,
        /// Segment files that should have gone and stay, because they are damaged.
        #[serde(default, skip_serializing_if = "is_zero")]
        skipped: u64,
    },
    /// Of a prune.
    Pruned {
        /// Archives whose grace period has begun.
        marked: u64,
        /// Archives that were deleted.
        deleted: u64,
        /// Bytes in chunks that nothing refers to any more.
        bytes: u64,
        /// Bytes given back to the file system.
        freed: u64,
        /// Configs of which pruning is stopped.
        stopped: u64,
    },
    /// Of an import.
    Imported {
        /// Archives that have a record now.
        imported: u64,
        /// Archives that were refused; the log says why.
        refused: u64,
        /// Archives that were asked for and left alone.
        skipped: u64,
    },
    /// Of a restore.
    Restored {
        /// The directory, as the client calls it; escaped for printing.
        target: String,
        /// Different chunks that the client has read.
        chunks: u64,
        /// Of so many that the archive refers to.
        of: u64,
        /// Bytes that it has read, compressed.
        bytes: u64,
    },
    /// Of a restore test.
    RestoreTested {
        /// The archive's name.
        archive: String,
        /// What the sample was drawn with.
        seed: u32,
        /// Files that were extracted,
        files: u64,
        /// and bytes of them.
        bytes: u64,
        /// Files in the archive that could have been,
        of_files: u64,
        /// and bytes of them.
        of_bytes: u64,
        /// Files that are what an earlier test has recorded.
        recorded: u64,
        /// Files that are what a person expected.
        expected: u64,
        /// Files that are what the client has.
        live: u64,
        /// Files that have changed on the client since.
        changed: u64,
        /// Files that the client has no more, or does not show.
        gone: u64,
        /// Files that no test had seen as they are: recorded.
        first_seen: u64,
        /// Something was compared, and nothing was wrong.
        good: bool,
    },
}
