//! Jobs and their state machine.
//!
//! ```text
//! backup, restore job_created -> client_preparing -> client_prepared -> client_in_progress -> client_done -> client_cleanup -> done
//! check, compact, prune, restore test
//!                 job_created -> repository_preparing -> repository_in_progress -> done
//! ```
//!
//! [`Job::update_state`] is a compare-and-set along these arrows; [`Job::force_state`] leads from any state that is not final to failed and
//! cancelled: for failures, cancellation and crashes.

use crate::cause::Failure;
use crate::hook::CommandResult;
use crate::names::{ClientName, ConfigName, RepositoryName, ScheduleName};
use crate::occurrence::Origin;
use crate::progress::Statistics;
use crate::time::Timestamp;
use crate::work::{JobKind, Work, Yield};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waits in the queue.
    JobCreated,
    /// The owner prepares key, manifest and view; the client is asked.
    ClientPreparing,
    /// The client has its cache and is about to start borg.
    ClientPrepared,
    /// borg runs on the client.
    ClientInProgress,
    /// borg has ended.
    ClientDone,
    /// Temporary files on the client are removed.
    ClientCleanup,
    /// The repository's owner is asked, and the job waits until it may begin there.
    RepositoryPreparing,
    /// The owner works.
    RepositoryInProgress,
    /// Ended well.
    Done,
    /// Ended badly; the failure says why.
    Failed,
    /// Ended because a person wanted it.
    Cancelled,
}

impl JobState {
    /// All states, in their order.
    pub const ALL: [JobState; 11] = [
        JobState::JobCreated,
        JobState::ClientPreparing,
        JobState::ClientPrepared,
        JobState::ClientInProgress,
        JobState::ClientDone,
        JobState::ClientCleanup,
        JobState::RepositoryPreparing,
        JobState::RepositoryInProgress,
        JobState::Done,
        JobState::Failed,
        JobState::Cancelled,
    ];

    /// Nothing follows.
    pub fn is_final(self) -> bool {
        matches!(self, JobState::Done | JobState::Failed | JobState::Cancelled)
    }

    /// A worker has it.
    pub fn is_running(self) -> bool {
        !self.is_final() && self != JobState::JobCreated
    }

    /// The state that follows in a job of `kind` when all goes well.
    pub fn next(self, kind: JobKind) -> Option<JobState> {
        match self {
            JobState::JobCreated if kind.has_client() => Some(JobState::ClientPreparing),
            JobState::JobCreated => Some(JobState::RepositoryPreparing),
            JobState::RepositoryPreparing => Some(JobState::RepositoryInProgress),
            JobState::RepositoryInProgress => Some(JobState::Done),
            JobState::ClientPreparing => Some(JobState::ClientPrepared),
            JobState::ClientPrepared => Some(JobState::ClientInProgress),
            JobState::ClientInProgress => Some(JobState::ClientDone),
            JobState::ClientDone => Some(JobState::ClientCleanup),
            JobState::ClientCleanup => Some(JobState::Done),
            JobState::Done | JobState::Failed | JobState::Cancelled => None,
        }
    }

    /// The name in records, JSON and the manual.
    pub fn as_str(self) -> &'static str {
        match self {
            JobState::JobCreated => "job_created",
            JobState::ClientPreparing => "client_preparing",
            JobState::ClientPrepared => "client_prepared",
            JobState::ClientInProgress => "client_in_progress",
            JobState::ClientDone => "client_done",
            JobState::ClientCleanup => "client_cleanup",
            JobState::RepositoryPreparing => "repository_preparing",
            JobState::RepositoryInProgress => "repository_in_progress",
            JobState::Done => "done",
            JobState::Failed => "failed",
            JobState::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for JobState {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|x| x.as_str() == s).ok_or_else(|| {
            let all: Vec<_> = Self::ALL.iter().map(|x| x.as_str()).collect();
            format!("{s:?} is not a job state; choose one of {}", all.join(", "))
        })
    }
}

/// A step of a job's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The state entered.
    pub state: JobState,
    /// When.
    pub time: Timestamp,
}

/// One task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Never repeats.
    pub number: u64,
    /// What it does; its fields are the record's own.
    #[serde(flatten)]
    pub work: Work,
    /// The repository concerned; absent for tasks without one.
    pub repository: Option<RepositoryName>,
    /// The archive it is to make: asked for, or made when the job starts.
    #[serde(default)]
    pub archive_name: Option<String>,
    /// Where it stands.
    pub state: JobState,
    /// Every state so far.
    pub history: Vec<Step>,
    /// Why it failed or was cancelled.
    #[serde(default)]
    pub failure: Option<Failure>,
    /// Borg's warnings, escaped for printing; at most [`Job::MAX_WARNINGS`] are kept.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// How many warnings there were.
    #[serde(default)]
    pub warning_count: u64,
    /// What became of the hooks and dumps of a backup, as its client says, in the order in which they ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<CommandResult>,
    /// Totals of the archive it made.
    #[serde(default)]
    pub statistics: Option<Statistics>,
    /// The archive it made, 64 hex digits.
    #[serde(default)]
    pub archive: Option<String>,
    /// What came of it, if it makes no archive.
    #[serde(default, rename = "yield")]
    pub yielded: Option<Yield>,
    /// The client's borg, as it says itself.
    #[serde(default)]
    pub client_borg: Option<String>,
    /// Who asked for it.
    pub actor: String,
    /// When it was asked for.
    pub created: Timestamp,
    /// What asked for it.
    #[serde(default)]
    pub origin: Origin,
    /// The schedule that asked for it, or through which a person or a trigger did.
    #[serde(default)]
    pub schedule: Option<ScheduleName>,
    /// The job whose failure this one retries.
    #[serde(default)]
    pub retry_of: Option<u64>,
    /// It is tried again later when it fails for a cause that deserves it, see [`crate::retry`].
    #[serde(default)]
    pub retry: bool,
    /// How often it was tried before this one: its place in the chain of [`Job::retry_of`].
    #[serde(default)]
    pub attempts: u32,
    /// It does not start before this moment.
    #[serde(default)]
    pub not_before: Option<Timestamp>,
}

/// A state change that the rules do not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The job is not where the caller believed it to be.
    #[error("job {job} is in state {actual}, not {expected}")]
    Unexpected {
        /// The job.
        job: u64,
        /// Where it is.
        actual: JobState,
        /// Where the caller believed it to be.
        expected: JobState,
    },
    /// There is no such step.
    #[error("job {job} can't go from {from} to {to}")]
    Illegal {
        /// The job.
        job: u64,
        /// From here.
        from: JobState,
        /// To there.
        to: JobState,
    },
}

impl Job {
    /// Warnings kept in the record; the job's log has all of them.
    pub const MAX_WARNINGS: usize = 20;

    /// A new backup job in the queue.
    pub fn backup(number: u64, config: &ConfigName, repository: RepositoryName, actor: &str, now: Timestamp) -> Job {
        Job::new(number, Work::backup(config), repository, actor, now)
    }

    /// A new job in the queue.
    pub fn new(number: u64, work: Work, repository: RepositoryName, actor: &str, now: Timestamp) -> Job {
        Job {
            number,
            work,
            repository: Some(repository),
            archive_name: None,
            state: JobState::JobCreated,
            history: vec![Step { state: JobState::JobCreated, time: now }],
            failure: None,
            warnings: vec![],
            warning_count: 0,
            commands: vec![],
            statistics: None,
            archive: None,
            yielded: None,
            client_borg: None,
            actor: actor.to_owned(),
            created: now,
            origin: Origin::Manual,
            schedule: None,
            retry_of: None,
            retry: false,
            attempts: 0,
            not_before: None,
        }
    }

    /// The job that does the same once more; `not_before`: it waits until then.
    pub fn again(&self, number: u64, repository: RepositoryName, now: Timestamp, not_before: Option<Timestamp>) -> Job {
        // A name of the server's own has the first job's number in it.
        let own = self.started().is_some_and(|started| self.archive_name == self.default_archive_name(started));
        Job {
            archive_name: self.archive_name.clone().filter(|_| !own),
            origin: self.origin,
            schedule: self.schedule.clone(),
            retry_of: Some(self.number),
            retry: self.retry,
            attempts: self.attempts.saturating_add(1),
            not_before,
            ..Job::new(number, self.work.clone(), repository, &self.actor, now)
        }
    }

    /// What sort of job it is.
    pub fn kind(&self) -> JobKind {
        self.work.kind()
    }

    /// The client concerned, where there is one.
    pub fn client(&self) -> Option<&ClientName> {
        self.work.client()
    }

    /// The config it runs, where it runs one.
    pub fn config(&self) -> Option<ConfigName> {
        self.work.config()
    }

    /// What it does, for people: `web1/etc`, `check of main`.
    pub fn subject(&self) -> String {
        self.work.on(self.repository.as_ref())
    }

    /// The name of the archive that a job begun at `now` makes when none was asked for; None if it makes none. The number keeps two jobs of
    /// one second apart.
    pub fn default_archive_name(&self, now: Timestamp) -> Option<String> {
        match &self.work {
            Work::Backup { client, label } => Some(format!("{client}-{label}-{}-{}", now.to_name(), self.number)),
            Work::Check { .. }
            | Work::Compact { .. }
            | Work::Prune { .. }
            | Work::Restore { .. }
            | Work::RestoreTest { .. }
            | Work::Import { .. } => None,
        }
    }

    /// One step along the arrows, if the job is in state `previous`.
    pub fn update_state(&mut self, previous: JobState, to: JobState, now: Timestamp) -> Result<(), StateError> {
        if self.state != previous {
            return Err(StateError::Unexpected { job: self.number, actual: self.state, expected: previous });
        }
        if previous.next(self.kind()) != Some(to) {
            return Err(StateError::Illegal { job: self.number, from: previous, to });
        }
        self.enter(to, now);
        Ok(())
    }

    /// Ends a job from any state that is not final, with the reason.
    pub fn force_state(&mut self, to: JobState, failure: Failure, now: Timestamp) -> Result<(), StateError> {
        if self.state.is_final() || !matches!(to, JobState::Failed | JobState::Cancelled) {
            return Err(StateError::Illegal { job: self.number, from: self.state, to });
        }
        self.failure = Some(failure);
        self.enter(to, now);
        Ok(())
    }

    fn enter(&mut self, state: JobState, time: Timestamp) {
        self.state = state;
        self.history.push(Step { state, time });
    }

    /// When it left the queue.
    pub fn started(&self) -> Option<Timestamp> {
        self.history.iter().find(|s| s.state.is_running()).map(|s| s.time)
    }

    /// When it ended.
    pub fn ended(&self) -> Option<Timestamp> {
        self.history.last().filter(|s| s.state.is_final()).map(|s| s.time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cause::Cause;

    fn job() -> Job {
        Job::backup(7, &"web1/etc".parse().unwrap(), "main".parse().unwrap(), "root", Timestamp(0))
    }

    #[test]
    fn the_straight_road() {
        let mut job = job();
        let mut t = 0;
        while let Some(next) = job.state.next(job.kind()) {
            t += 1;
            job.update_state(job.state, next, Timestamp(t)).unwrap();
        }
        assert_eq!(job.state, JobState::Done);
        assert_eq!(job.history.len(), 7);
        assert_eq!(job.started(), Some(Timestamp(1)));
        assert_eq!(job.ended(), Some(Timestamp(6)));
    }

    #[test]
    fn what_needs_no_client_has_a_shorter_road() {
        for work in [Work::Check { verify_data: true, config: None }, Work::Compact { threshold: 10 }] {
            let mut job = Job::new(7, work, "main".parse().unwrap(), "root", Timestamp(0));
            job.update_state(JobState::JobCreated, JobState::RepositoryPreparing, Timestamp(1)).unwrap();
            job.update_state(JobState::RepositoryPreparing, JobState::RepositoryInProgress, Timestamp(2)).unwrap();
            assert!(job.update_state(JobState::RepositoryInProgress, JobState::ClientDone, Timestamp(3)).is_err());
            job.update_state(JobState::RepositoryInProgress, JobState::Done, Timestamp(3)).unwrap();
            assert_eq!((job.started(), job.ended()), (Some(Timestamp(1)), Some(Timestamp(3))));
            assert_eq!((job.client(), job.default_archive_name(Timestamp(0))), (None, None));
        }
    }

    /// Records of backups from before there were other kinds are read as they are.
    #[test]
    fn the_work_is_part_of_the_record() {
        let json = serde_json::to_value(job()).unwrap();
        assert_eq!((&json["kind"], &json["client"], &json["label"]), (&"backup".into(), &"web1".into(), &"etc".into()));
        assert_eq!(serde_json::from_value::<Job>(json).unwrap(), job());
        let check = Job::new(8, Work::Check { verify_data: true, config: None }, "main".parse().unwrap(), "root", Timestamp(0));
        let json = serde_json::to_value(&check).unwrap();
        assert_eq!((&json["kind"], &json["verify_data"], json.get("client")), (&"check".into(), &true.into(), None));
        assert_eq!(serde_json::from_value::<Job>(json).unwrap(), check);
        assert_eq!((job().subject(), check.subject()), ("web1/etc".into(), "check of main".into()));
    }

    #[test]
    fn every_other_step_is_refused() {
        let check = Job::new(8, Work::Check { verify_data: true, config: None }, "main".parse().unwrap(), "root", Timestamp(0));
        for from in JobState::ALL {
            for to in JobState::ALL {
                for mut job in [job(), check.clone()] {
                    job.state = from;
                    let legal = from.next(job.kind()) == Some(to);
                    assert_eq!(job.update_state(from, to, Timestamp(1)).is_ok(), legal, "{from} -> {to}");
                }
            }
        }
        let mut job = job();
        let e = job.update_state(JobState::ClientDone, JobState::ClientCleanup, Timestamp(1)).unwrap_err();
        assert_eq!(e.to_string(), "job 7 is in state job_created, not client_done");
    }

    #[test]
    fn force_ends_what_has_not_ended() {
        for from in JobState::ALL {
            for to in JobState::ALL {
                let mut job = job();
                job.state = from;
                let ok = job.force_state(to, Failure::new(Cause::WorkerCrashed, "x"), Timestamp(1)).is_ok();
                assert_eq!(ok, !from.is_final() && matches!(to, JobState::Failed | JobState::Cancelled), "{from} -> {to}");
            }
        }
    }
}
