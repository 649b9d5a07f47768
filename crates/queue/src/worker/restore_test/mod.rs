//! Restore tests: a sample of an archive is extracted by a confined process, hashed, and compared with what is known and with the client.
//!
//! The worker itself sees hashes and paths only, and no key: connections to the repository's owner pass through it unread.

mod live;

use super::sandbox::{Done, Extract, Order, Sandbox, Summary, Told, What, Word};
use super::{Event, Stop, TICK, Worker};
use anyhow::Context;
use model::progress::Steps;
use model::restore_test::{Ending, Extracted, Known, Live, RestoreTest, TestedArchive, Verdict, judge};
use model::{Cause, Failure, JobState, Timestamp, Yield};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender};
use std::time::{Duration, Instant};
use unix::logging::{escape, escape_bytes};
use unix::paths::Layout;
use wire::worker::{Finished, Task, Tested, Testing, ToWorker};

/// How long a test may take, its client included.
#[derive(Debug, Clone, Copy)]
struct Limit {
    seconds: u64,
    began: Instant,
}

impl Limit {
    fn new(seconds: u64, began: Instant) -> Limit {
        Limit { seconds, began }
    }

    fn is_over(self, now: Instant) -> bool {
        now.saturating_duration_since(self.began) >= Duration::from_secs(self.seconds)
    }
}

/// From the sample to the verdict.
pub fn run(worker: &mut Worker, layout: &Layout, task: &Task, errand: &Testing, events: Sender<Event>) -> Result<Finished, Stop> {
    match test(worker, layout, task, errand, &events) {
        Err(Stop::Failed(failure)) => {
            let tested = failed(&failure);
            let mut finished = worker.finished(Some(failure));
            finished.tested = tested;
            Ok(finished)
        }
        other => other,
    }
}

/// For the record, if it says anything about the archive.
fn failed(failure: &Failure) -> Option<Box<Tested>> {
    failure.cause.is_about_archive().then(|| Box::new(Tested { ending: Ending::Failed, what: failure.line(), files: vec![] }))
}

fn test(worker: &mut Worker, layout: &Layout, task: &Task, errand: &Testing, events: &Sender<Event>) -> Result<Finished, Stop> {
    let test = &errand.test;
    let TestedArchive { name, id } = test.archive.as_ref().context("the test has no archive")?;
    let seed = test.seed.unwrap_or(0);
    worker.note(&format!("archive {name}: at most {} files, {} bytes; seed {seed}", test.most_files(), test.bytes));
    let directory = Directory::make(&layout.restore_tests(), task.job.number)?;
    let order = order(errand, id, &directory.path, task.total_seconds);
    let limit = Limit::new(task.total_seconds, Instant::now());
    let (socket, told) = (layout.repository_socket(task.repository.name.as_str()), events.clone());
    let sandbox = Sandbox::start(&socket, &order, &[], move |word| told.send(Event::Sandbox(word)).is_ok())?;
    let heard = follow(worker, limit);
    // Before its files go.
    let ended = sandbox.end()?;
    let (files, summary) =
        heard?.map_err(|why| Failure::new(Cause::WorkerCrashed, format!("the confined process of the restore test {ended}: {why}")))?;
    drop(directory);
    worker.advance(JobState::RepositoryInProgress)?;

    summary.complaints.iter().for_each(|what| worker.report.warn(format!("the archive: {what}"), Timestamp::now()));
    summary.not_compared.iter().for_each(|what| worker.report.warn(what.clone(), Timestamp::now()));
    let noted = |file: &Told| Some(format!("{}: {}", shown(file), escape(file.note.as_ref()?)));
    files.iter().filter_map(noted).take(model::Job::MAX_WARNINGS).for_each(|note| worker.note(&note));
    let missing = unmatched(test, &summary)?;
    let whole: Vec<Told> = files.iter().filter(|file| file.damage.is_none()).cloned().collect();
    let mut live = if test.live && !whole.is_empty() {
        worker.note(&format!("the client is asked about {} files", whole.len()));
        live::ask(worker, &errand.client.connection, &whole, limit, events)?
    } else {
        vec![Live::NotAsked; whole.len()]
    }
    .into_iter();
    let extracted: Vec<Extracted> = files
        .iter()
        .map(|file| {
            let live = if file.damage.is_none() { live.next().unwrap_or_default() } else { Live::NotAsked };
            extracted(file, id, live)
        })
        .collect();
    let mut verdict = judge(&extracted, &errand.known, &test.expect, &missing, test.live, Timestamp::now());
    // Where the list of files has a hole, files are lost of which nobody knows.
    if let Some(complaint) = summary.complaints.first()
        && verdict.failure.is_none()
    {
        let message = format!("the list of files of archive {name} is not whole: {complaint}");
        verdict.failure = Some(Failure::new(Cause::RestoreTestDamaged, message));
        (verdict.ending, verdict.files) = (Ending::Failed, vec![]);
    }
    Ok(finished(worker, name, seed, &extracted, &summary, verdict))
}

fn order(errand: &Testing, archive: &str, directory: &Path, seconds: u64) -> Order {
    let test = &errand.test;
    let paths = test.paths.iter().map(|path| format!("pp:{}", inside(path)));
    let expected = test.expect.iter().map(|expected| format!("pf:{}", inside(&expected.path)));
    let extract = Extract {
        directory: directory.to_owned(),
        files: test.most_files(),
        bytes: test.bytes,
        is_whole: test.is_chosen() && test.files.is_none(),
        take: paths.chain(expected).collect(),
        seed: test.seed.unwrap_or(0),
        known: errand.known.iter().map(|known| (known.path.clone(), known.item.clone())).collect(),
    };
    Order { archive: archive.to_owned(), seconds, what: What::Extract(Box::new(extract)) }
}

/// A path as it stands in archives.
fn inside(path: &str) -> &str {
    path.trim_start_matches('/').trim_end_matches('/')
}

/// Expected files that are not in the archive, or not as files. A path that is not there at all is a mistake of whoever asked.
fn unmatched(test: &RestoreTest, summary: &Summary) -> Result<Vec<String>, Failure> {
    let is_unmatched = |pattern: String| summary.unmatched.contains(&pattern);
    if let Some(path) = test.paths.iter().find(|path| is_unmatched(format!("pp:{}", inside(path)))) {
        return Err(Failure::new(Cause::PathNotInArchive, format!("{} is not in the archive", escape(path))));
    }
    let expected = test.expect.iter().filter(|expected| is_unmatched(format!("pf:{}", inside(&expected.path))));
    Ok(expected.map(|expected| escape(&expected.path)).collect())
}

fn shown(file: &Told) -> String {
    file.path().map_or_else(String::new, |path| escape_bytes(&path))
}

fn extracted(file: &Told, archive: &str, live: Live) -> Extracted {
    let known = Known {
        path: file.path_hash.clone(),
        item: file.item_hash.clone(),
        content: file.content.clone(),
        archive: archive.to_owned(),
        mode: file.mode,
        uid: file.uid,
        gid: file.gid,
        size: file.size,
        mtime: file.mtime,
        time: Timestamp(0),
    };
    let text = file.path().and_then(|path| String::from_utf8(path).ok());
    Extracted { shown: shown(file), text, known, damage: file.damage.as_deref().map(escape), live }
}

fn finished(worker: &mut Worker, name: &str, seed: u32, files: &[Extracted], summary: &Summary, verdict: Verdict) -> Finished {
    let Verdict { ending, failure, warnings, notes, compared, files: known } = verdict;
    notes.iter().for_each(|note| worker.report.log(Timestamp::now(), "error", "borgcube", note));
    warnings.into_iter().for_each(|warning| worker.report.warn(warning, Timestamp::now()));
    let count = files.len() as u64;
    let what = format!(
        "{count} files of {} bytes extracted, of {} with {} in the archive; as recorded {}, as expected {}, as on the client {}, changed there {}, gone there {}, seen first {}",
        summary.bytes,
        summary.seen,
        summary.seen_bytes,
        compared.recorded,
        compared.expected,
        compared.live,
        compared.changed,
        compared.gone,
        compared.first_seen
    );
    worker.note(&what);
    if summary.too_large > 0 {
        worker.note(&format!("{} files are larger than the sample may be, and were not drawn: --bytes raises that", summary.too_large));
    }
    let line = failure.as_ref().map(Failure::line);
    let mut finished = worker.finished(failure);
    finished.tested = Some(Box::new(Tested { ending, what: line.unwrap_or(what), files: known }));
    finished.yielded = Some(Yield::RestoreTested {
        archive: name.to_owned(),
        seed,
        files: count,
        bytes: summary.bytes,
        of_files: summary.seen,
        of_bytes: summary.seen_bytes,
        recorded: compared.recorded,
        expected: compared.expected,
        live: compared.live,
        changed: compared.changed,
        gone: compared.gone,
        first_seen: compared.first_seen,
        good: ending == Ending::Good,
    });
    finished
}

/// Where a test extracts to; gone with this value. If the worker is killed, `borgcubed` removes it.
struct Directory {
    path: PathBuf,
}

impl Directory {
    fn make(below: &Path, job: u64) -> Result<Directory, Failure> {
        let path = below.join(job.to_string());
        let made = remove(&path).and_then(|()| std::fs::DirBuilder::new().mode(0o700).create(&path));
        made.map_err(|e| {
            let is_full = matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            let cause = if is_full { Cause::RestoreTestEnospc } else { Cause::Internal };
            Failure::new(cause, format!("cannot make the directory {}: {e}", path.display()))
        })?;
        Ok(Directory { path })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(e) = remove(&self.path) {
            log::error!("{} cannot be removed: {e}", self.path.display());
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Until the confined process has said its last word. The error inside is what became of it instead.
fn follow(worker: &mut Worker, limit: Limit) -> Result<Result<(Vec<Told>, Summary), String>, Stop> {
    let (mut files, mut next_flush) = (vec![], Instant::now() + TICK);
    loop {
        let event = match worker.waiting.pop_front() {
            Some(event) => Some(event),
            None => match worker.events.recv_timeout(next_flush.saturating_duration_since(Instant::now())) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(Err("nobody listens to it any more".into())),
            },
        };
        match event {
            Some(Event::Sandbox(Word::Ready(ready))) => {
                worker.advance(JobState::RepositoryInProgress)?;
                if let Some(lacking) = ready.lacking() {
                    worker.note(&lacking);
                }
            }
            Some(Event::Sandbox(Word::Progress { unit, done, total })) => {
                worker.report.steps(Steps { unit, done, total }, Timestamp::now());
            }
            Some(Event::Sandbox(Word::File(file))) => files.push(*file),
            Some(Event::Sandbox(Word::Done(Done::Tried(summary)))) => return Ok(Ok((files, summary))),
            Some(Event::Sandbox(Word::Failed(failure))) => return Err(failure.into()),
            Some(Event::Sandbox(Word::Lost(why))) => return Ok(Err(why)),
            Some(Event::Control(ToWorker::Cancel { by })) => {
                worker.cancelled = Some(by.clone());
                return Err(Failure::new(Cause::Cancelled { by: by.clone() }, format!("cancelled by {by}")).into());
            }
            Some(Event::ControlLost) => {
                if !worker.outlives {
                    return Err(anyhow::anyhow!("borgcubed is gone").into());
                }
                log::warn!("borgcubed was stopped; the restore test ends");
                worker.lost = true;
                return Err(Failure::new(Cause::BorgcubedRestart, "borgcubed was stopped").into());
            }
            Some(other) => return Err(anyhow::anyhow!("{other:?} came out of turn").into()),
            None => {}
        }
        if limit.is_over(Instant::now()) {
            let message = format!("the extraction takes longer than {} seconds (total-seconds)", limit.seconds);
            return Err(Failure::new(Cause::TooSlow, message).into());
        }
        if Instant::now() >= next_flush {
            worker.flush()?;
            next_flush = Instant::now() + TICK;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_test_is_one() {
        let began = Instant::now();
        let limit = Limit::new(100, began);
        let later = limit;
        assert!(!limit.is_over(began + Duration::from_secs(99)));
        // Whoever gets it later has what is left.
        assert!(later.is_over(began + Duration::from_secs(100)));
    }
}
