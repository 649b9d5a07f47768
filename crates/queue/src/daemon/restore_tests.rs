//! Restore tests: which archive, what is remembered of them, and what a killed worker has left behind.

use super::Daemon;
use super::errors::{from_store, refuse, refuse_in};
use model::restore_test::{Ending, Known, RestoreTest, TestRecord, TestResult, TestedArchive};
use model::{Archive, ClientName, ConfigName, Job, JobState, RepositoryName, Timestamp, Work};
use std::collections::BTreeMap;
use store::{ArchiveFilter, ArchiveKey, Read, Result, Write};
use wire::control::{ControlError, ErrorKind, JobNumber, ListedTests, RestoreTests};
use wire::worker::{Tested, Testing};

impl Daemon {
    /// A job that tests a restore.
    pub(super) fn run_restore_test(
        &mut self,
        client: &ClientName,
        repository: Option<RepositoryName>,
        test: RestoreTest,
        retry: bool,
        actor: &str,
    ) -> std::result::Result<JobNumber, ControlError> {
        self.takes_jobs()?;
        test.check().map_err(|why| refuse(ErrorKind::InvalidArgument, why))?;
        let now = Timestamp::now();
        let work = Work::RestoreTest { client: client.clone(), test: Box::new(test.clone()) };
        let note = work.on(None);
        let written = self.store.write_at(now, &note, actor, |w| {
            let r = w.view();
            if !r.clients().exists(client)? {
                return Err(refuse_in(
                    ErrorKind::NotFound,
                    format!("there is no client {client}; `borgcube client list` shows the clients"),
                ));
            }
            let config = test.label.clone().map(|label| ConfigName { client: client.clone(), label });
            let home = config.as_ref().map(|config| r.configs().get(config)).transpose()?.flatten().map(|config| config.repository);
            // An archive that a person names is looked for where that person says, and a config's where they go.
            let repository = repository.clone().or_else(|| home.filter(|_| test.archive.is_none()));
            let archive = chosen(&r, client, repository.as_ref(), &test)?;
            let archive = archive.ok_or_else(|| {
                let of = config.as_ref().map_or_else(|| client.to_string(), ToString::to_string);
                let message = match &test.archive {
                    Some(archive) => format!("there is no archive {} of {of}; `borgcube archive list` shows the archives", archive.name),
                    None => format!("there is no whole archive of {of} yet: nothing can be restored"),
                };
                refuse_in(ErrorKind::NotFound, message)
            })?;
            w.jobs().create(|number| Job { retry, ..Job::new(number, work.clone(), archive.repository, actor, now) })
        });
        let (job, _) = written.map_err(from_store)?;
        let number = job.number;
        log::info!(job = number, client = client.as_str(); "job {number}: {note}, asked for by {actor}");
        self.job_changed(job);
        Ok(JobNumber { job: number, warnings: vec![] })
    }

    /// What is known of every config.
    pub(super) fn list_restore_tests(&self) -> std::result::Result<RestoreTests, ControlError> {
        let listed = self.store.read(|r| {
            let records = r.restore_tests().list()?.into_iter().map(|record| ((record.client.clone(), record.label.clone()), record));
            let mut records: BTreeMap<_, TestRecord> = records.collect();
            let configs = r.configs().list()?.into_iter();
            Ok(configs
                .map(|config| {
                    let record = records.remove(&(config.client.clone(), config.label.clone()));
                    // A config of that name that is gone says nothing about this one.
                    let since = |result: Option<TestResult>| result.filter(|result| result.time >= config.created);
                    let record = record.unwrap_or_else(|| TestRecord::new(&config.name()));
                    ListedTests {
                        last_good: since(record.last_good),
                        last_failed: since(record.last_failed),
                        last_unproven: since(record.last_unproven),
                        recorded_files: record.files.len() as u64,
                        client: config.client,
                        label: config.label,
                    }
                })
                .collect())
        });
        Ok(RestoreTests { tests: listed.map_err(from_store)? })
    }

    /// Removes what workers that were killed have extracted.
    pub(super) fn sweep_restore_tests(&self) {
        let directory = self.layout.restore_tests();
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let job = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok());
            if job.is_none_or(|job| self.workers.contains_key(&job)) {
                continue;
            }
            match std::fs::remove_dir_all(entry.path()) {
                Ok(()) => log::info!("what a restore test that runs no more has extracted is removed"),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                // Its last process may still be ending; this is done again.
                Err(e) => log::warn!("{} cannot be removed yet: {e}", entry.path().display()),
            }
        }
    }
}

/// The archive that is meant: that of this name and id, or the newest whole one.
fn chosen(r: &Read<'_>, client: &ClientName, repository: Option<&RepositoryName>, test: &RestoreTest) -> Result<Option<Archive>> {
    let config = test.label.clone().map(|label| ConfigName { client: client.clone(), label });
    let fits = |archive: &Archive| archive.client == *client && test.label.as_ref().is_none_or(|label| archive.label == *label);
    match (&test.archive, repository) {
        (Some(TestedArchive { id, .. }), Some(repository)) => {
            Ok(r.archives().get(&ArchiveKey { repository: repository.clone(), id: id.clone() })?.filter(fits))
        }
        (Some(TestedArchive { name, id }), None) => {
            Ok(r.archives().by_name(name)?.into_iter().find(|archive| archive.id == *id && fits(archive)))
        }
        (None, repository) => {
            let filter = ArchiveFilter { repository: repository.cloned(), client: Some(client.clone()), config, before: None };
            r.archives().newest_whole(&filter)
        }
    }
}

/// All that the job's worker needs to know, or what is missing.
pub(super) fn gather(r: &Read<'_>, job: &Job, client: &ClientName, test: &RestoreTest) -> Result<std::result::Result<Testing, String>> {
    let Some(client) = r.clients().get(client)? else { return Ok(Err(format!("client {client} was removed"))) };
    let Some(archive) = chosen(r, &client.name, job.repository.as_ref(), test)? else {
        return Ok(Err(match &test.archive {
            Some(archive) => format!("archive {} was deleted before the test began", archive.name),
            None => format!("there is no whole archive for the {}", job.subject()),
        }));
    };
    let config = ConfigName { client: client.name.clone(), label: archive.label.clone() };
    let known = r.restore_tests().get(&config)?.map(|record| record.files).unwrap_or_default();
    let mut seed = [0; 4];
    if let Err(e) = unix::random::fill(&mut seed) {
        return Ok(Err(format!("no random numbers for a sample: {e}")));
    }
    let test = RestoreTest {
        label: Some(archive.label.clone()),
        archive: Some(TestedArchive { name: archive.name.clone(), id: archive.id.clone() }),
        seed: test.seed.or(Some(u32::from_le_bytes(seed))),
        ..test.clone()
    };
    Ok(Ok(Testing { client, test, known }))
}

/// The end of a test, for the record.
pub(super) fn record(w: &mut Write<'_>, job: &Job, tested: Option<&Tested>, now: Timestamp) -> Result<()> {
    let Work::RestoreTest { client, test } = &job.work else { return Ok(()) };
    let Some(label) = &test.label else { return Ok(()) };
    let Some((ending, what, files)) = judged(job, tested) else { return Ok(()) };
    let config = ConfigName { client: client.clone(), label: label.clone() };
    let mut record = w.restore_tests().get(&config)?.unwrap_or_else(|| TestRecord::new(&config));
    let archive = test.archive.as_ref().map(|archive| archive.name.clone()).unwrap_or_default();
    record.add(ending, TestResult { time: now, job: job.number, archive, what }, files);
    w.restore_tests().put(&record)
}

/// What a job says about its archive. The job's own end decides: a worker that reports success too early has failed. One that failed by a mistake of
/// whoever asked, at a limit, or with its worker, is a failed job like any, and says nothing.
fn judged(job: &Job, tested: Option<&Tested>) -> Option<(Ending, String, Vec<Known>)> {
    match (&job.failure, tested) {
        (None, Some(tested)) if job.state == JobState::Done => Some((tested.ending, tested.what.clone(), tested.files.clone())),
        (Some(failure), _) if job.state == JobState::Failed && failure.cause.is_about_archive() => {
            Some((Ending::Failed, failure.line(), vec![]))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Cause, Failure};

    #[test]
    fn only_what_says_something_about_the_archive_is_remembered() {
        let after = |cause: Cause| {
            let mut job = Job::backup(7, &"web1/etc".parse().unwrap(), "main".parse().unwrap(), "root", Timestamp(0));
            job.force_state(JobState::Failed, Failure::new(cause, "why"), Timestamp(1)).unwrap();
            judged(&job, None).map(|(ending, what, _)| (ending, what))
        };
        assert_eq!(after(Cause::RestoreTestDiffers), Some((Ending::Failed, "restore-test-differs: why".into())));
        assert!(after(Cause::ArchiveMissing).is_some());
        for cause in [Cause::PathNotInArchive, Cause::WorkerCrashed, Cause::TooSlow, Cause::BorgcubedRestart, Cause::RestoreTestEnospc] {
            assert_eq!(after(cause.clone()), None, "{}", cause.word());
        }
    }
}
