//! Jobs and their state machine.
//!
//! ```text
//! job_created -> client_preparing -> client_prepared -> client_in_progress -> client_done -> client_cleanup -> done
//!      \______________________\_______________\__________________\____________________\______________\-> failed | cancelled
//! ```
//!
//! [`Job::update_state`] is a compare-and-set along the arrows to the right; [`Job::force_state`] is for failures, cancellation and crashes.

use crate::cause::Failure;
use crate::names::{ClientName, ConfigName, Label, RepositoryName, ScheduleName};
use crate::occurrence::Origin;
use crate::progress::Statistics;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobKind {
    /// `borg create` on a client.
    Backup,
}

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
    /// Ended well.
    Done,
    /// Ended badly; the failure says why.
    Failed,
    /// Ended because a person wanted it.
    Cancelled,
}

impl JobState {
    /// All states, in their order.
    pub const ALL: [JobState; 9] = [
        JobState::JobCreated,
        JobState::ClientPreparing,
        JobState::ClientPrepared,
        JobState::ClientInProgress,
        JobState::ClientDone,
        JobState::ClientCleanup,
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

    /// The state that follows when all goes well.
    pub fn next(self) -> Option<JobState> {
        match self {
            JobState::JobCreated => Some(JobState::ClientPreparing),
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
    /// What it does.
    pub kind: JobKind,
    /// The client concerned.
    pub client: ClientName,
    /// The config that is run.
    pub label: Label,
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
    /// Totals of the archive it made.
    #[serde(default)]
    pub statistics: Option<Statistics>,
    /// The archive it made, 64 hex digits.
    #[serde(default)]
    pub archive: Option<String>,
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
        Job {
            number,
            kind: JobKind::Backup,
            client: config.client.clone(),
            label: config.label.clone(),
            repository: Some(repository),
            archive_name: None,
            state: JobState::JobCreated,
            history: vec![Step { state: JobState::JobCreated, time: now }],
            failure: None,
            warnings: vec![],
            warning_count: 0,
            statistics: None,
            archive: None,
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
        let own = self.started().is_some_and(|started| self.archive_name.as_deref() == Some(&self.default_archive_name(started)));
        Job {
            archive_name: self.archive_name.clone().filter(|_| !own),
            origin: self.origin,
            schedule: self.schedule.clone(),
            retry_of: Some(self.number),
            retry: self.retry,
            attempts: self.attempts.saturating_add(1),
            not_before,
            ..Job::backup(number, &self.config(), repository, &self.actor, now)
        }
    }

    /// The config it runs.
    pub fn config(&self) -> ConfigName {
        ConfigName { client: self.client.clone(), label: self.label.clone() }
    }

    /// The name of the archive that a job begun at `now` makes when none was asked for. The number keeps two jobs of one second apart.
    pub fn default_archive_name(&self, now: Timestamp) -> String {
        format!("{}-{}-{}-{}", self.client, self.label, now.to_name(), self.number)
    }

    /// One step along the arrows, if the job is in state `previous`.
    pub fn update_state(&mut self, previous: JobState, to: JobState, now: Timestamp) -> Result<(), StateError> {
        if self.state != previous {
            return Err(StateError::Unexpected { job: self.number, actual: self.state, expected: previous });
        }
        if previous.next() != Some(to) {
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
        self.history.iter().find(|s| s.state == JobState::ClientPreparing).map(|s| s.time)
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
        while let Some(next) = job.state.next() {
            t += 1;
            job.update_state(job.state, next, Timestamp(t)).unwrap();
        }
        assert_eq!(job.state, JobState::Done);
        assert_eq!(job.history.len(), 7);
        assert_eq!(job.started(), Some(Timestamp(1)));
        assert_eq!(job.ended(), Some(Timestamp(6)));
    }

    #[test]
    fn every_other_step_is_refused() {
        for from in JobState::ALL {
            for to in JobState::ALL {
                let mut job = job();
                job.state = from;
                let legal = from.next() == Some(to);
                assert_eq!(job.update_state(from, to, Timestamp(1)).is_ok(), legal, "{from} -> {to}");
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
