//! What the control socket tells about retention policies, and about the archives they decide on.

use model::archive::{Hold, PendingDeletion};
use model::retention::Fate;
use model::{ConfigName, Policy, PolicyName, RepositoryName, Timestamp};
use serde::{Deserialize, Serialize};

/// Policies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policies {
    /// By name.
    pub policies: Vec<Policy>,
}

/// A policy was stored.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StoredPolicy {
    /// What a person should know about it.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// Pruning goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// Everything up to this job is taken as right.
    pub up_to_job: u64,
}

/// One archive, whatever its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ArchiveRef {
    /// The repository.
    pub repository: RepositoryName,
    /// Borg's archive id in it, 64 hex digits.
    pub id: String,
}

/// Which archives a preview is about.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RetentionFilter {
    /// Those that this policy decides about.
    pub policy: Option<PolicyName>,
    /// Those whose client's whole name matches this regular expression.
    pub client: Option<String>,
    /// Those whose config's whole label matches this regular expression.
    pub label: Option<String>,
    /// Those in this repository.
    pub repository: Option<RepositoryName>,
    /// As if this policy were stored in the place of the one with its name.
    pub instead: Option<Policy>,
    /// Only archives that go, that are going already, or whose grace period runs; groups without any are there all the same.
    pub going: bool,
}

/// What pruning has decided. Nothing is deleted by that yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pruned {
    /// Archives whose grace period has begun, by name.
    pub marked: Vec<String>,
    /// Archives whose grace period is over: the owners may delete them now.
    pub due: Vec<DueArchives>,
    /// What was not pruned.
    pub stopped: Vec<StoppedGroup>,
    /// Archives that go as well, left to the next prune.
    #[serde(default)]
    pub left: u64,
    /// Archives whose grace period had begun before and is not over.
    #[serde(default)]
    pub pending: u64,
    /// Repositories of which nothing is pruned, because they are damaged.
    #[serde(default)]
    pub refused: Vec<RefusedRepository>,
}

/// A repository of which nothing is pruned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RefusedRepository {
    /// The repository.
    pub repository: RepositoryName,
    /// Why, and what to do: a sentence.
    pub why: String,
}

/// Archives of one repository that may be deleted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DueArchives {
    /// The repository.
    pub repository: RepositoryName,
    /// Their names.
    pub archives: Vec<String>,
}

/// Archives about which nothing was decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoppedGroup {
    /// Of this config.
    pub config: ConfigName,
    /// In this repository.
    pub repository: RepositoryName,
    /// Why, in a sentence without its full stop.
    pub why: String,
}

/// A page of a preview: whole configs, in the order of their names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Preview {
    /// What would happen.
    pub groups: Vec<PreviewedGroup>,
    /// `after` for the next page. None: that was the last one.
    #[serde(default)]
    pub next: Option<ConfigName>,
}

/// The archives of one config in one repository.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PreviewedGroup {
    /// The config; it may be gone.
    pub config: ConfigName,
    /// The repository.
    pub repository: RepositoryName,
    /// The policy that decides. None: none does, or two would.
    pub policy: Option<PolicyName>,
    /// Why nothing is decided, if something stands in the way.
    #[serde(default)]
    pub stopped: Option<String>,
    /// The newest first.
    pub archives: Vec<PreviewedArchive>,
}

/// What would happen to one archive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PreviewedArchive {
    /// Borg's archive id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When its job began to read.
    pub time: Timestamp,
    /// Bytes of the files in it.
    pub original_size: u64,
    /// Its fate. None: nothing is decided, it stays.
    #[serde(default)]
    pub verdict: Option<Fate>,
    /// The verdict in words.
    #[serde(default)]
    pub sentence: String,
    /// Who holds it.
    #[serde(default)]
    pub hold: Option<Hold>,
    /// Its grace period, if that runs.
    #[serde(default)]
    pub pending_deletion: Option<PendingDeletion>,
}

impl PreviewedArchive {
    /// Whether it goes, is going already, or has a grace period that runs, whoever began that.
    #[must_use]
    pub fn may_go(&self) -> bool {
        matches!(self.verdict, Some(Fate::Goes { .. } | Fate::Going {})) || self.pending_deletion.is_some()
    }
}
