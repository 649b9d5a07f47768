//! Between `borgcubed` and a worker, over the socket pair that the worker has as descriptor 3.
//!
//! A worker outlives an upgrade: the other side may be of the version before. Messages may gain fields that have a default, and nothing else.

use crate::maintenance::Operation;
use model::hook::CommandResult;
use model::progress::{Progress, Statistics};
use model::restore::Restore;
use model::restore_test::{Ending, Known, RestoreTest};
use model::settings::SessionLimits;
use model::{BackupConfig, Client, Failure, Job, JobState, Repository, Timestamp, Yield};
use serde::{Deserialize, Serialize};

/// From `borgcubed` to its worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToWorker {
    /// The first message: the job.
    Start(Box<Task>),
    /// Answer to [`FromWorker::UpdateState`].
    State {
        /// None: done. Otherwise why not; the worker gives up.
        refused: Option<String>,
    },
    /// End the job early, in good order: the client may write a checkpoint.
    Cancel {
        /// Who wants it.
        by: String,
    },
    /// The oldest [`FromWorker::Log`] that was not confirmed is written. Only to a worker that outlives its `borgcubed`.
    Logged,
    /// The job's end is in the database. Only to a worker that outlives its `borgcubed`.
    Recorded,
    /// Another `borgcubed` has taken over, and does not know what the one before has read of this worker's messages. To be answered by
    /// [`FromWorker::Here`]; then everything is said again that was neither answered nor confirmed.
    Adopted {
        /// What the answer repeats.
        mark: String,
    },
}

/// All that a worker needs to know; it has no database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// The job, in its first state after the queue.
    pub job: Job,
    /// Its repository.
    pub repository: Repository,
    /// What is to be done.
    pub errand: Errand,
    /// The server's id: names the cache directory on the client.
    pub server_id: String,
    /// Bytes of the job's log that what the client writes may fill.
    pub log_bytes: u64,
    /// Seconds until the client's borg has begun, and from its end to the client's.
    pub start_seconds: u64,
    /// Seconds from the client's begin to its end, both times together if it begins anew. A check has as many to name the files that damage concerns.
    pub total_seconds: u64,
    /// Different chunks that one archive may refer to.
    #[serde(default = "objects")]
    pub objects: u64,
    /// A restart of `borgcubed` does not close the socket: the worker goes on, and waits for [`ToWorker::Recorded`] at its end.
    #[serde(default)]
    pub outlives: bool,
}

fn objects() -> u64 {
    SessionLimits::default().objects
}

/// What a worker has to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Errand {
    /// Have a client back up.
    Backup(Box<Backup>),
    /// Have the repository's owner do it.
    Maintenance(Operation),
    /// Have the repository's owner delete what policies and people have chosen.
    Prune(Box<Pruning>),
    /// Have a client restore.
    Restore(Box<Restoring>),
    /// Read archives of other origin, and have the repository's owner give them records.
    Import(Box<model::import::Import>),
    /// Extract a sample of an archive here, and compare it.
    RestoreTest(Box<Testing>),
}

/// All that a restore test needs beside the repository.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Testing {
    /// Whose archive it is.
    pub client: Client,
    /// Which archive, how much of it, and with what it is compared.
    pub test: RestoreTest,
    /// What earlier tests have recorded.
    pub known: Vec<Known>,
}

/// What a restore test adds to the record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tested {
    /// How it ended.
    pub ending: Ending,
    /// A sentence.
    pub what: String,
    /// Files with their hashes.
    pub files: Vec<Known>,
}

/// All that a restore needs beside the repository.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Restoring {
    /// The client that is restored to.
    pub client: Client,
    /// What, and where to.
    pub restore: Restore,
    /// What the archive holds, if it is still there.
    pub archive: Option<Statistics>,
    /// A check has found chunks of it damaged or missing, or cannot tell that there are none.
    #[serde(default)]
    pub damaged: bool,
}

/// What was decided about a repository's archives when the job began.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pruning {
    /// Archives whose grace period is over, by name.
    pub archives: Vec<String>,
    /// How many archives' grace periods have begun.
    pub marked: u64,
    /// What was not pruned and why, in sentences.
    pub stopped: Vec<String>,
    /// How many archives' grace periods had begun before and are not over.
    #[serde(default)]
    pub pending: u64,
    /// Nothing is pruned at all, and why: the repository is damaged.
    #[serde(default)]
    pub refused: Option<String>,
    /// Give the space back as well.
    pub compact: bool,
}

/// All that a backup needs beside the repository.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Backup {
    /// The client.
    pub client: Client,
    /// What to back up.
    pub config: BackupConfig,
    /// What the config's last archive held: the progress bar's length.
    pub expected: Option<Statistics>,
}

/// From a worker to `borgcubed`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromWorker {
    /// Asks for a state change; answered by [`ToWorker::State`].
    UpdateState {
        /// Where the worker believes the job to be.
        previous: JobState,
        /// Where it is to go.
        to: JobState,
    },
    /// Live progress, at most a few times a second.
    Progress(Progress),
    /// Lines for the job's log.
    Log(Vec<LogLine>),
    /// The last message.
    Finished(Box<Finished>),
    /// Answer to [`ToWorker::Adopted`]. What came before it, half messages included, counts for nothing.
    Here {
        /// That of the question.
        mark: String,
        /// Who had the job cancelled.
        cancelled: Option<String>,
    },
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// None: well. `Cause::Cancelled` means cancelled.
    pub failure: Option<Failure>,
    /// Totals of the archive, if there is one.
    pub statistics: Option<Statistics>,
    /// The archive's id, 64 hex digits.
    pub archive: Option<String>,
    /// First warnings, escaped for printing.
    pub warnings: Vec<String>,
    /// How many there were.
    pub warning_count: u64,
    /// The client's borg.
    pub client_borg: Option<String>,
    /// What came of it, if it was no backup.
    #[serde(default)]
    pub yielded: Option<Yield>,
    /// What a restore test has found.
    #[serde(default)]
    pub tested: Option<Box<Tested>>,
    /// What became of the hooks and dumps of a backup.
    #[serde(default)]
    pub commands: Vec<CommandResult>,
}

/// A line of a job's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When it was written.
    pub time: Timestamp,
    /// `error`, `warning`, `info`, `debug`; or `file` for a file status of `--list`.
    pub level: String,
    /// Who says so: `borgcube`, `borg`, `ssh`.
    pub source: String,
    /// The text, escaped for printing.
    pub message: String,
}
