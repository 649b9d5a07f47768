//! Jobs: numbers that never repeat, states by compare-and-set, pages of a long list.

use model::cause::Failure;
use model::retention::{Jump, jump};
use model::{ClientName, ConfigName, Job, JobKind, JobState, Label, RepositoryName, Timestamp};

use super::kind;
use crate::error::Result;
use crate::handle::{TableMut, TableRef};
use crate::key::{Key, KeyBytes};
use crate::page::{Union, intersect_down};
use crate::record::{Evolution, Record};
use crate::table::{Index, Table};

impl Record for Job {
    const KIND: u16 = kind::JOB;
    const NAME: &'static str = "job";
    const VERSION: u16 = 3;
    fn evolutions() -> &'static [Evolution] {
        &[
            // Whoever asked for a job before there were schedules was a person.
            Evolution { from: 1, to: 2, apply: |_| Ok(()) },
            // Jobs without a client came with 3.
            Evolution { from: 2, to: 3, apply: |_| Ok(()) },
        ]
    }
}

/// `jobs`: [`Job`] by number.
pub struct Jobs;

const BY_STATE: &str = "jobs-by-state";
const BY_CLIENT: &str = "jobs-by-client";
const BY_REPOSITORY: &str = "jobs-by-repository";
const BY_CONFIG: &str = "jobs-by-config";
const BY_KIND: &str = "jobs-by-kind";
const BY_LABEL: &str = "jobs-by-label";

fn state_front(state: JobState) -> Result<Vec<u8>> {
    Ok(KeyBytes::new().text(state.as_str())?.finish())
}

fn kind_front(kind: JobKind) -> Result<Vec<u8>> {
    Ok(KeyBytes::new().text(kind.as_str())?.finish())
}

fn label_front(label: &Label) -> Result<Vec<u8>> {
    Ok(KeyBytes::new().text(label.as_str())?.finish())
}

impl Table for Jobs {
    type Key = u64;
    type Record = Job;
    const NAME: &'static str = "jobs";
    fn key(record: &Job) -> u64 {
        record.number
    }
    fn indexes() -> &'static [Index<Job>] {
        &[
            Index { name: BY_STATE, fronts: |job| Ok(vec![state_front(job.state)?]) },
            Index { name: BY_CLIENT, fronts: |job| job.client().into_iter().map(Key::encode).collect() },
            Index { name: BY_REPOSITORY, fronts: |job| job.repository.iter().map(Key::encode).collect() },
            Index { name: BY_CONFIG, fronts: |job| job.config().iter().map(Key::encode).collect() },
            Index { name: BY_KIND, fronts: |job| Ok(vec![kind_front(job.kind())?]) },
            Index { name: BY_LABEL, fronts: |job| job.config().iter().map(|config| label_front(&config.label)).collect() },
        ]
    }
}

/// Which jobs a page shows; what is not given does not narrow it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// In one of these states. Empty: in any.
    pub states: Vec<JobState>,
    /// Of this client.
    pub client: Option<ClientName>,
    /// Of this repository.
    pub repository: Option<RepositoryName>,
    /// Of this config.
    pub config: Option<ConfigName>,
    /// Of this kind.
    pub kind: Option<JobKind>,
    /// Of configs with this label.
    pub label: Option<Label>,
    /// Older than this number: the last one of the page before.
    pub before: Option<u64>,
}

impl JobFilter {
    fn unions(&self) -> Result<Vec<Union>> {
        let mut unions = Vec::new();
        if !self.states.is_empty() {
            let fronts = self.states.iter().map(|state| state_front(*state));
            unions.push(Union { index: BY_STATE, fronts: fronts.collect::<Result<_>>()? });
        }
        let mut narrow = |index, front: Option<Vec<u8>>| {
            unions.extend(front.map(|front| Union { index, fronts: vec![front] }));
        };
        narrow(BY_CLIENT, self.client.as_ref().map(Key::encode).transpose()?);
        narrow(BY_REPOSITORY, self.repository.as_ref().map(Key::encode).transpose()?);
        narrow(BY_CONFIG, self.config.as_ref().map(Key::encode).transpose()?);
        narrow(BY_KIND, self.kind.map(kind_front).transpose()?);
        narrow(BY_LABEL, self.label.as_ref().map(label_front).transpose()?);
        if unions.is_empty() {
            unions.push(Union { index: Jobs::NAME, fronts: vec![Vec::new()] });
        }
        Ok(unions)
    }
}

impl TableRef<'_, Jobs> {
    /// The jobs that `filter` lets through, the newest first, at most `limit`. Reads no job that is not on the page.
    pub fn page(&self, filter: &JobFilter, limit: usize) -> Result<Vec<Job>> {
        let unions = filter.unions()?;
        let mut jobs = Vec::new();
        let mut below = filter.before.unwrap_or(u64::MAX);
        while jobs.len() < limit && below > 0 {
            let Some(number) = intersect_down(self.read, &unions, below - 1)? else { break };
            jobs.push(self.indexed(&number.encode()?)?);
            below = number;
        }
        Ok(jobs)
    }

    /// Whether the clock jumped between the newest job and `now`.
    pub(crate) fn clock_jump(&self, now: Timestamp) -> Result<Option<Jump>> {
        let Some(last) = self.read.last_key(Jobs::NAME)? else { return Ok(None) };
        let last = self.indexed(&last)?;
        Ok(jump(last.created, now, last.number + 1))
    }

    /// The jobs in `state`, the oldest first. For `job_created` that is the queue.
    pub fn in_state(&self, state: JobState) -> Result<Vec<Job>> {
        let entries = self.read.scan(BY_STATE, &state_front(state)?)?;
        entries.map(|entry| self.indexed(entry?.1)).collect()
    }

    /// The jobs that a worker has, or should have.
    pub fn running(&self) -> Result<Vec<Job>> {
        let mut jobs = Vec::new();
        for state in JobState::ALL.into_iter().filter(|state| state.is_running()) {
            jobs.extend(self.in_state(state)?);
        }
        jobs.sort_by_key(|job| job.number);
        Ok(jobs)
    }
}

impl TableMut<'_, '_, Jobs> {
    /// Adds the job that `make` builds around a number that no job ever had.
    pub fn create(&mut self, make: impl FnOnce(u64) -> Job) -> Result<Job> {
        let number = self.write.next_number::<Jobs>()?;
        let job = make(number);
        let jump = self.view().clock_jump(job.created)?;
        self.insert(&job)?;
        if let Some(jump) = jump {
            self.write.clock_jumps().put(&Jump { job: number, ..jump })?;
        }
        Ok(job)
    }

    /// One step of the state machine, if the job is in state `previous`; otherwise [`crate::Error::State`].
    pub fn update_state(&mut self, number: u64, previous: JobState, to: JobState, now: Timestamp) -> Result<Job> {
        self.update(&number, |job| {
            job.update_state(previous, to, now)?;
            Ok(job.clone())
        })
    }

    /// Ends a job from any state that is not final.
    pub fn force_state(&mut self, number: u64, to: JobState, failure: Failure, now: Timestamp) -> Result<Job> {
        self.update(&number, |job| {
            job.force_state(to, failure, now)?;
            Ok(job.clone())
        })
    }
}
