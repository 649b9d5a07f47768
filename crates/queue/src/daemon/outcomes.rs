//! What workers say, and how jobs end in the database.

use super::errors::is_final;
use super::joblog::{self, JobLog};
use super::leftovers::Leftovers;
use super::workers::{self, Part, Wish, Worker, bounded};
use super::{ACTOR, Daemon};
use model::queue::Brief;
use model::{Cause, Failure, Job, JobState, Timestamp};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::Instant;
use store::{ArchiveKey, Write};
use wire::control::Event;
use wire::worker::Finished;

/// How a job ended, until the database has it.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// `done`, `failed` or `cancelled`.
    pub to: JobState,
    failure: Option<Failure>,
    finished: Option<Finished>,
    time: Timestamp,
}

impl Daemon {
    /// Jobs that a daemon before this one left running. Those whose workers the service manager has kept go on, the others were lost with it.
    pub(super) fn recover(&mut self, kept: Vec<(OwnedFd, String)>) -> anyhow::Result<()> {
        let mut kept = sorted(kept);
        for job in self.store.read(|r| r.jobs().running())? {
            let number = job.number;
            if let Some((Some(socket), Some(pidfd))) = kept.remove(&number) {
                let (brief, path) = (Brief::from(&job), self.layout.job_log(number));
                match Worker::adopt(&self.options, brief, (socket, pidfd), &path, self.settings.sessions.log_bytes) {
                    Ok(worker) => {
                        self.workers.insert(number, worker);
                        continue;
                    }
                    Err(e) => log::error!(event = "database-trouble", job = number; "job {number}: its worker cannot be taken over: {e:#}"),
                }
            }
            let mut message = format!("borgcubed ended while the job was in state {}", job.state);
            if let Some(archive) =
                self.store.read(|r| r.archives().of_job(number))?.iter().find(|archive| !archive.incomplete && archive.imported.is_none())
            {
                message.push_str(&format!("; its archive {} is complete", archive.name));
            }
            log::warn!(job = number; "job {number}: {message}");
            workers::forget(number);
            self.end_job(number, JobState::Failed, Some(Failure::new(Cause::BorgcubedRestart, message)), None);
        }
        // Jobs that have ended: their workers see the end of their sockets.
        kept.keys().for_each(|number| workers::forget(*number));
        if !self.workers.is_empty() {
            log::info!("{} jobs of the borgcubed before this one go on", self.workers.len());
        }
        Ok(())
    }

    /// A worker's messages.
    pub(super) fn listen_to(&mut self, number: u64) -> bool {
        let Some(worker) = self.workers.get_mut(&number) else { return false };
        let wishes = worker.listen(Instant::now());
        let spoke = !wishes.is_empty();
        for wish in wishes {
            match wish {
                Wish::UpdateState { previous, to } => self.update_state(number, previous, to),
                Wish::Progress(progress) => self.broadcast(&Event::Progress { job: number, progress }),
                // Readers read on by themselves.
                Wish::Logged => {}
                Wish::Finished(finished) => self.finished(number, bounded(*finished)),
            }
        }
        spoke
    }

    fn update_state(&mut self, number: u64, previous: JobState, to: JobState) {
        let now = Timestamp::now();
        let note = format!("job {number}: {previous} -> {to}");
        // The ends are the daemon's: a worker reports them with its last message.
        let result = if to.is_final() {
            Err(store::Error::State(model::job::StateError::Illegal { job: number, from: previous, to }))
        } else {
            self.store.write_at(now, &note, ACTOR, |w| w.jobs().update_state(number, previous, to, now)).map(|(job, _)| job)
        };
        let done = matches!(&result, Err(e) if is_final(e)) && self.is_in_state(number, to);
        let Some(worker) = self.workers.get_mut(&number) else { return };
        match result {
            Ok(job) => {
                worker.answer_state(None);
                self.job_changed(job);
            }
            // Done, but the daemon before this one could not say so any more.
            Err(e) if done => {
                log::debug!(job = number; "job {number}: {e}");
                worker.answer_state(None);
            }
            Err(e) if is_final(&e) => {
                log::warn!(job = number; "job {number}: its worker may not go from {previous} to {to}: {e}");
                worker.answer_state(Some(e.to_string()));
            }
            // The worker waits; a full disk ends no job.
            Err(e) => {
                worker.pending = Some((previous, to));
                self.try_again_later(&note, &e);
            }
        }
    }

    fn is_in_state(&self, number: u64, state: JobState) -> bool {
        self.store.read(|r| r.jobs().get(&number)).is_ok_and(|job| job.is_some_and(|job| job.state == state))
    }

    fn finished(&mut self, number: u64, finished: Finished) {
        let (to, failure) = match &finished.failure {
            None => (JobState::Done, None),
            Some(failure) if matches!(failure.cause, Cause::Cancelled { .. }) => (JobState::Cancelled, Some(failure.clone())),
            Some(failure) => (JobState::Failed, Some(failure.clone())),
        };
        self.end_job(number, to, failure, Some(finished));
    }

    /// A worker's process is over: what it said last counts, then it is reaped.
    pub(super) fn worker_ended(&mut self, number: u64) {
        // Each turn of reading is bounded; a socket buffer holds no more than a few.
        for _ in 0..8 {
            if !self.listen_to(number) {
                break;
            }
        }
        let Some(mut worker) = self.workers.remove(&number) else { return };
        let leftovers = Leftovers::of(&worker.brief, worker.pid(), Instant::now());
        let Some(status) = worker.reap() else {
            // Not yet, whatever poll said.
            self.workers.insert(number, worker);
            return;
        };
        log::debug!(job = number; "job {number}: its worker {status}");
        self.leftovers.extend(leftovers);
        self.sweep_job_keys();
        self.sweep_restore_tests();
        self.queue_changed = true;
        if !worker.finished {
            let (to, failure) = worker.end_without_result(&status);
            self.end_job(number, to, Some(failure), None);
        }
    }

    /// Ends a job in the database, or remembers to.
    pub(super) fn end_job(&mut self, number: u64, to: JobState, failure: Option<Failure>, finished: Option<Finished>) {
        if let Some(failure) = failure.as_ref().filter(|_| finished.is_none()) {
            self.note_in_log(number, &failure.line());
        }
        let outcome = Outcome { to, failure, finished, time: Timestamp::now() };
        if self.unrecorded.contains_key(&number) {
            return;
        }
        self.record(number, outcome);
    }

    /// A line about the job's end that its worker could not write itself.
    fn note_in_log(&mut self, number: u64, text: &str) {
        let line = joblog::line("error", text);
        if let Some(worker) = self.workers.get_mut(&number) {
            return worker.note(&line);
        }
        let noted = JobLog::open(&self.layout.job_log(number)).and_then(|mut log| log.note(&line));
        if let Err(e) = noted {
            log::warn!(job = number; "job {number}: its log cannot be written: {e}");
        }
    }

    fn record(&mut self, number: u64, outcome: Outcome) {
        let note = format!("job {number}: {}", outcome.to);
        let written = self.store.write_at(outcome.time, &note, ACTOR, |w| end(w, number, &outcome));
        match written {
            Ok(((job, again), _)) => {
                let subject = job.client().cloned();
                let client = subject.as_ref().map(model::ClientName::as_str).unwrap_or_default();
                let repository = job.repository.as_ref().map(model::RepositoryName::as_str).unwrap_or_default();
                match &job.failure {
                    None => log::info!(event = "job-done", job = number, client = client, repository = repository; "job {number}: done"),
                    Some(failure) if job.state == JobState::Cancelled => {
                        log::info!(event = "job-cancelled", job = number, client = client, repository = repository; "job {number}: {}", failure.message);
                    }
                    Some(failure) => log::warn!(
                        event = "job-failed", job = number, client = client, repository = repository, cause = failure.cause.word();
                        "job {number}: failed: {}", failure.line()
                    ),
                }
                self.recorded(number);
                self.job_changed(job);
                if let Some(again) = again {
                    let when = again.not_before.map(|at| format!(", not before {}", at.to_local())).unwrap_or_default();
                    log::info!(event = "job-retried", job = number, client = client; "job {number}: tried again as job {}{when}", again.number);
                    self.job_changed(again);
                }
            }
            Err(e) if is_final(&e) => {
                log::error!(event = "database-trouble", job = number; "job {number}: its end cannot be recorded: {e}");
                self.recorded(number);
            }
            Err(e) => {
                self.unrecorded.insert(number, outcome);
                self.try_again_later(&format!("the end of job {number} cannot be recorded"), &e);
            }
        }
    }

    /// Its worker is not needed any more.
    fn recorded(&mut self, number: u64) {
        if let Some(worker) = self.workers.get_mut(&number) {
            worker.recorded(Instant::now());
        }
    }

    /// What the database refused before.
    pub(super) fn retry(&mut self) {
        for (number, outcome) in std::mem::take(&mut self.unrecorded) {
            self.record(number, outcome);
        }
        let pending: Vec<_> = self.workers.iter_mut().filter_map(|(number, w)| Some((*number, w.pending.take()?))).collect();
        for (number, (previous, to)) in pending {
            self.update_state(number, previous, to);
        }
    }
}

/// By job, of those that the service manager has kept for us.
fn sorted(kept: Vec<(OwnedFd, String)>) -> BTreeMap<u64, (Option<OwnedFd>, Option<OwnedFd>)> {
    let mut jobs: BTreeMap<u64, (Option<OwnedFd>, Option<OwnedFd>)> = BTreeMap::new();
    for (fd, name) in kept {
        match Part::of(&name) {
            Some((job, Part::Socket)) => jobs.entry(job).or_default().0 = Some(fd),
            Some((job, Part::Pidfd)) => jobs.entry(job).or_default().1 = Some(fd),
            None => log::warn!("a descriptor named {} was handed over; nobody knows what for", unix::logging::escape(&name)),
        }
    }
    jobs
}

/// The job's last transaction; unused tokens of its sessions are void with it.
fn end(w: &mut Write<'_>, number: u64, outcome: &Outcome) -> store::Result<(Job, Option<Job>)> {
    w.sessions().withdraw(number)?;
    let job = w.jobs().update(&number, |job| {
        if let Some(finished) = &outcome.finished {
            job.statistics = finished.statistics;
            job.archive = finished.archive.clone();
            job.warnings = finished.warnings.clone();
            job.warning_count = finished.warning_count.max(finished.warnings.len() as u64);
            job.commands = finished.commands.clone();
            job.client_borg = finished.client_borg.clone();
            job.yielded = finished.yielded.clone();
        }
        apply(job, outcome)?;
        Ok(job.clone())
    })?;
    let tested = outcome.finished.as_ref().and_then(|finished| finished.tested.as_deref());
    super::restore_tests::record(w, &job, tested, outcome.time)?;
    doubt_archive(w, &job, outcome.finished.is_some())?;
    let again = super::retries::after(w, &job, outcome.time)?;
    Ok((job, again))
}

/// An archive whose dumps nobody has vouched for is not one that others are measured by, or make way for. borg's script ends it before there is an archive;
/// this is for scripts that could not.
fn doubt_archive(w: &mut Write<'_>, job: &Job, is_reported: bool) -> store::Result<()> {
    let Some(failure) = &job.failure else { return Ok(()) };
    let has_dumps =
        |name| -> store::Result<bool> { Ok(w.view().configs().get(&name)?.is_some_and(|config| !config.commands.dumps.is_empty())) };
    let is_in_doubt = match job.config() {
        Some(name) if !is_reported => has_dumps(name)?,
        _ => matches!(failure.cause, Cause::DumpFailed { .. }),
    };
    if !is_in_doubt {
        return Ok(());
    }
    for archive in w.view().archives().of_job(job.number)?.into_iter().filter(|archive| !archive.incomplete) {
        w.archives().update(&ArchiveKey::of(&archive), |archive| {
            archive.suspicious = true;
            archive.warnings.push(format!("its dumps may not be whole: job {} failed: {}", job.number, failure.message));
            Ok(())
        })?;
    }
    Ok(())
}

fn apply(job: &mut Job, outcome: &Outcome) -> Result<(), model::job::StateError> {
    match &outcome.failure {
        Some(failure) => job.force_state(outcome.to, failure.clone(), outcome.time),
        None if job.state.next(job.kind()) == Some(JobState::Done) => job.update_state(job.state, JobState::Done, outcome.time),
        None => {
            let message = format!("the worker reported success in state {}", job.state);
            job.force_state(JobState::Failed, Failure::new(Cause::Internal, message), outcome.time)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(state: JobState) -> Job {
        let mut job = Job::backup(7, &"web1/etc".parse().unwrap(), "main".parse().unwrap(), "root", Timestamp(0));
        job.state = state;
        job
    }

    #[test]
    fn success_counts_only_at_the_end_of_the_road() {
        let outcome = Outcome { to: JobState::Done, failure: None, finished: None, time: Timestamp(5) };
        let mut good = job(JobState::ClientCleanup);
        apply(&mut good, &outcome).unwrap();
        assert_eq!((good.state, good.ended()), (JobState::Done, Some(Timestamp(5))));
        let mut early = job(JobState::ClientPrepared);
        apply(&mut early, &outcome).unwrap();
        assert_eq!(early.state, JobState::Failed);
        assert_eq!(early.failure.unwrap().cause, Cause::Internal);
        assert!(apply(&mut job(JobState::Failed), &outcome).is_err());
    }
}
