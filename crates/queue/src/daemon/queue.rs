//! From `job_created` to a running worker.

use super::errors::{is_disk_full, is_final};
use super::records::runs_here;
use super::workers::Worker;
use super::{ACTOR, Daemon, RETRY, Stop, checks, policies};
use model::import::Attribution;
use model::progress::Statistics;
use model::queue::{Blocked, Brief, blocked, startable};
use model::settings::SessionLimits;
use model::{Cause, ConfigName, Failure, Job, JobState, Repository, Settings, Timestamp, Work};
use std::time::Instant;
use store::{ArchiveFilter, ArchiveKey, Read, Result, Write};
use wire::control::Event;
use wire::maintenance::Operation;
use wire::worker::{Backup, Errand, Restoring, Task};

/// What became of a job that was to start.
enum Started {
    /// Its state is changed, a worker may have it.
    Task(Box<Task>),
    /// It ended before it began.
    Failed(Box<Job>),
}

impl Daemon {
    /// Starts what may start now.
    pub(super) fn start_jobs(&mut self) {
        if !self.queue_changed || self.stop != Stop::No || self.retry_at.is_some() {
            return;
        }
        self.queue_changed = false;
        let queued = match self.ripe(Timestamp::now()) {
            Ok(queued) => queued,
            Err(e) => return self.try_again_later("the queue cannot be read", &e),
        };
        for number in startable(&queued, &self.running(), &self.settings.limits) {
            self.start_job(number);
        }
    }

    /// What stands in the way of others: workers, and what they left behind.
    pub(super) fn running(&self) -> Vec<Brief> {
        let workers = self.workers.values().map(|worker| worker.brief.clone());
        workers.chain(self.leftovers.iter().map(|l| l.brief.clone())).collect()
    }

    /// Why a queued job does not run next to those that do.
    pub(super) fn waits(&self, job: &Job, running: &[Brief]) -> Option<String> {
        if job.state != JobState::JobCreated {
            return None;
        }
        if self.stop != Stop::No {
            return Some("waits: borgcubed is stopping".into());
        }
        if let Some(why) = self.held(job) {
            return Some(why);
        }
        let why = blocked(&Brief::from(job), running, &self.settings.limits);
        Some(match why.as_ref().map(Blocked::to_string) {
            Some(why) => why,
            None if self.retry_at.is_some() => "waits: the database cannot be written".into(),
            None => "waits for its turn".into(),
        })
    }

    fn start_job(&mut self, number: u64) {
        let now = Timestamp::now();
        let settings = self.settings.clone();
        let note = format!("job {number}: start");
        let installed = self.layout.is_installed();
        let started = self.store.write_at(now, &note, ACTOR, |w| prepare(w, number, &settings, installed, now));
        let task = match started {
            Ok((Started::Task(task), _)) => task,
            Ok((Started::Failed(job), _)) => return self.job_changed(*job),
            // A record that cannot be read: waiting mends nothing.
            Err(e) if is_final(&e) => {
                let failure = Failure::new(Cause::Internal, format!("the job cannot start: {e}"));
                return self.end_job(number, JobState::Failed, Some(failure), None);
            }
            Err(e) => return self.try_again_later(&format!("job {number} cannot start"), &e),
        };
        let job = task.job.clone();
        let client = job.client().map(model::ClientName::as_str).unwrap_or_default();
        let what = match job.config() {
            Some(config) => format!("{config} into {}", task.repository.name),
            None => job.subject(),
        };
        log::info!(
            event = "job-started", job = number, client = client, repository = task.repository.name.as_str();
            "job {number}: {what}, asked for by {}", job.actor);
        // For each worker two descriptors; more than there is room for are dropped without a word.
        let keep = self.keeps_workers && unix::fdstore::capacity() >= 2 * (self.workers.len() + 1);
        let worker = Worker::start(&self.options, &self.layout.job_log(number), *task, keep);
        self.job_changed(job);
        match worker {
            Ok(worker) => {
                self.workers.insert(number, worker);
            }
            Err(e) => {
                let failure = Failure::new(Cause::WorkerCrashed, format!("the job's worker cannot be started: {e:#}"));
                self.end_job(number, JobState::Failed, Some(failure), None);
            }
        }
    }

    /// The database does not take it: nothing is lost, it is tried again.
    pub(super) fn try_again_later(&mut self, what: &str, error: &store::Error) {
        if is_disk_full(error) {
            log::error!(event = "database-trouble"; "{what}: {error}; trying again every {RETRY:?}");
        } else {
            log::error!(event = "database-trouble"; "{what}: {error}");
        }
        self.queue_changed = true;
        self.retry_at.get_or_insert(Instant::now() + RETRY);
    }

    /// Tells the watchers.
    pub(super) fn job_changed(&mut self, job: Job) {
        if job.state.is_final() || job.state == JobState::JobCreated {
            self.queue_changed = true;
        }
        if job.state == JobState::JobCreated {
            self.announced.insert(job.number);
        } else {
            self.announced.remove(&job.number);
        }
        self.broadcast(&Event::Job(Box::new(job)));
    }
}

/// The state change before the fork, together with everything that the worker will need to know.
fn prepare(w: &mut Write<'_>, number: u64, settings: &Settings, installed: bool, now: Timestamp) -> Result<Started> {
    let job = w.jobs().require(&number)?;
    let (mut errand, repository) = match gather(&w.view(), &job)? {
        Ok(gathered) => gathered,
        Err(missing) => {
            let job = w.jobs().force_state(number, JobState::Failed, Failure::new(Cause::ConfigMissing, missing), now)?;
            return Ok(Started::Failed(Box::new(job)));
        }
    };
    if let Errand::Backup(backup) = &errand
        && let Some(why) = runs_here(&backup.config, &backup.client, installed)
    {
        let commands = &backup.config.commands;
        let cause = match (commands.hooks.first(), commands.dumps.first()) {
            (None, Some(dump)) => Cause::DumpFailed { dump: dump.name.to_string() },
            (hook, _) => Cause::HookFailed { hook: hook.map(|hook| hook.name.to_string()).unwrap_or_default() },
        };
        let job = w.jobs().force_state(number, JobState::Failed, Failure::new(cause, why), now)?;
        return Ok(Started::Failed(Box::new(job)));
    }
    let job = w.jobs().update(&number, |job| {
        let first = job.state.next(job.kind()).unwrap_or(JobState::JobCreated);
        job.update_state(JobState::JobCreated, first, now)?;
        if job.archive_name.is_none() {
            job.archive_name = job.default_archive_name(now);
        }
        if let (Work::RestoreTest { test, .. }, Errand::RestoreTest(testing)) = (&mut job.work, &errand) {
            **test = testing.test.clone();
        }
        Ok(job.clone())
    })?;
    if let Errand::Prune(pruning) = &mut errand {
        **pruning = policies::decide(w, &job, now)?;
    }
    let server_id = settings.server_id.clone();
    let SessionLimits { log_bytes, start_seconds, total_seconds, objects, .. } = settings.sessions;
    let task = Task { job, repository, errand, server_id, log_bytes, start_seconds, total_seconds, objects, outlives: false };
    Ok(Started::Task(Box::new(task)))
}

/// What the job's worker is to do, and the repository's record; or the sentence that says what is missing.
fn gather(r: &Read<'_>, job: &Job) -> Result<std::result::Result<(Errand, Repository), String>> {
    let repository = job.repository.as_ref().map(|name| r.repositories().get(name)).transpose()?.flatten();
    let errand = match &job.work {
        Work::Backup { client, label } => {
            let name = ConfigName { client: client.clone(), label: label.clone() };
            let (Some(config), Some(client)) = (r.configs().get(&name)?, r.clients().get(client)?) else {
                return Ok(Err(format!("config {name} or its client was removed")));
            };
            Errand::Backup(Box::new(Backup { client, config, expected: expected(r, &name)? }))
        }
        Work::Restore { client, restore } => {
            let Some(client) = r.clients().get(client)? else { return Ok(Err(format!("client {client} was removed"))) };
            let key = job.repository.clone().map(|repository| ArchiveKey { repository, id: restore.id.clone() });
            let archive = key.map(|key| r.archives().get(&key)).transpose()?.flatten().map(|archive| archive.statistics);
            let health = job.repository.as_ref().map(|name| r.health().get(name)).transpose()?.flatten();
            let damaged = health.and_then(|health| health.damage).is_some_and(|damage| damage.concerns(&restore.id));
            Errand::Restore(Box::new(Restoring { client, restore: (**restore).clone(), archive, damaged }))
        }
        Work::Check { verify_data, config } => match checks::plan(r, job, *verify_data, config.as_ref())? {
            Ok(plan) => Errand::Maintenance(Operation::CheckBy { plan }),
            Err(missing) => return Ok(Err(missing)),
        },
        Work::RestoreTest { client, test } => match super::restore_tests::gather(r, job, client, test)? {
            Ok(testing) => Errand::RestoreTest(Box::new(testing)),
            Err(missing) => return Ok(Err(missing)),
        },
        Work::Prune { .. } => Errand::Prune(Box::default()),
        Work::Import { import } => {
            if let Attribution::Config(config) = &import.attribution
                && !r.clients().exists(&config.client)?
            {
                return Ok(Err(format!("client {} was removed", config.client)));
            }
            Errand::Import(import.clone())
        }
        Work::Compact { threshold } => Errand::Maintenance(Operation::Compact { threshold: *threshold }),
    };
    Ok(match repository {
        Some(repository) => Ok((errand, repository)),
        None => Err(format!("the repository of {} was removed", job.subject())),
    })
}

/// Totals of the config's last whole archive.
fn expected(r: &Read<'_>, config: &ConfigName) -> Result<Option<Statistics>> {
    let filter = ArchiveFilter { config: Some(config.clone()), ..Default::default() };
    let archives = r.archives().page(&filter, 20)?;
    Ok(archives.iter().find(|archive| !archive.incomplete).map(|archive| archive.statistics))
}
