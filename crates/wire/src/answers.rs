//! What `borgcubed` answers on its control socket, as far as it is about jobs, records and the daemon itself; the methods are in [`crate::control`].

use crate::scheduling::Due;
use crate::worker::LogLine;
use model::check::Health;
use model::progress::Progress;
use model::restore_test::TestResult;
use model::{Archive, BackupConfig, CheckConfig, Client, ClientName, Job, Label, Repository, RepositoryName, Timestamp};
use serde::{Deserialize, Serialize};

/// What a service is. Varlink's own form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Info {
    /// Who makes it.
    pub vendor: String,
    /// What it is.
    pub product: String,
    /// Its version.
    pub version: String,
    /// Where to read on.
    pub url: String,
    /// Its interfaces.
    pub interfaces: Vec<String>,
}

/// The daemon's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// BorgCube's version.
    pub version: String,
    /// The daemon's process id.
    pub pid: u32,
    /// When it started.
    pub since: Timestamp,
    /// Jobs in the queue.
    pub queued: u32,
    /// Jobs that run, with their progress.
    pub running: Vec<JobDetail>,
    /// Archives that are restore points.
    pub archives: u64,
    /// Repositories, clients and configs.
    pub repositories: u32,
    /// Clients.
    pub clients: u32,
    /// Configs.
    pub configs: u32,
    /// The daemon stops: no new jobs.
    pub stopping: bool,
    /// What is due next.
    #[serde(default)]
    pub upcoming: Vec<Due>,
    /// Repositories that are lent, or at something that others wait for.
    #[serde(default)]
    pub occupied: Vec<Occupied>,
}
/// A repository that is lent, checked, compacted and so on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occupied {
    /// Which.
    pub repository: RepositoryName,
    /// By what: `a release`, `a check`.
    pub by: String,
    /// Since when.
    pub since: Timestamp,
}

/// Repositories.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Repositories {
    /// By name.
    pub repositories: Vec<Repository>,
}
/// Clients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Clients {
    /// By name.
    pub clients: Vec<Client>,
}
/// Configs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Configs {
    /// By client and label.
    pub configs: Vec<BackupConfig>,
}
/// A job's number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobNumber {
    /// The number.
    pub job: u64,
    /// What a person should know about it all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}
/// Jobs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Jobs {
    /// Newest first.
    pub jobs: Vec<ListedJob>,
}
/// A job in a listing: the record's fields, and beside them what a reader of the list wants to know at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListedJob {
    /// The record.
    #[serde(flatten)]
    pub job: Job,
    /// Why it waits.
    #[serde(default)]
    pub waits: Option<String>,
    /// Who is having it cancelled: it still runs, but not for long.
    #[serde(default)]
    pub cancelled_by: Option<String>,
}
/// A job with what only memory knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobDetail {
    /// The record.
    pub job: Job,
    /// Live progress.
    pub progress: Option<Progress>,
    /// Why it waits.
    pub waits: Option<String>,
    /// Who is having it cancelled: it still runs, but not for long.
    #[serde(default)]
    pub cancelled_by: Option<String>,
}
/// What restore tests have found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RestoreTests {
    /// Of every config, by client and label, and of those that were never tested as well.
    pub tests: Vec<ListedTests>,
}
/// What restore tests of one config have found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedTests {
    /// The client.
    pub client: ClientName,
    /// The config's label.
    pub label: Label,
    /// The last good test.
    pub last_good: Option<TestResult>,
    /// The last one that failed.
    pub last_failed: Option<TestResult>,
    /// The last one that could compare nothing.
    pub last_unproven: Option<TestResult>,
    /// Files whose hashes are recorded.
    pub recorded_files: u64,
}
/// Part of a job's log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobLog {
    /// In order.
    pub lines: Vec<LogLine>,
}
/// Archives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Archives {
    /// Newest first.
    pub archives: Vec<Archive>,
}
/// Check configs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckConfigs {
    /// By name.
    pub configs: Vec<CheckConfig>,
}
/// What is known of repositories' health.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Healths {
    /// By repository.
    pub health: Vec<Health>,
}
/// The transaction log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogEntries {
    /// Newest first.
    pub entries: Vec<LogEntry>,
}
/// One transaction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Its number.
    pub transaction: u64,
    /// When.
    pub time: Timestamp,
    /// Who.
    pub actor: String,
    /// What for.
    pub note: String,
    /// Which records, as `table/key`.
    pub records: Vec<String>,
    /// The entry's hash, 64 hex digits; it covers the entry before it.
    pub hash: String,
}
/// An undo's own transaction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Undone {
    /// Its number.
    pub transaction: u64,
}
