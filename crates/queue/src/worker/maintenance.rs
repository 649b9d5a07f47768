//! Jobs that need no client: the repository's owner is asked, and does it.

use super::sandbox::{self, Done, Order, What, Word};
use super::{Event, Stop, TICK, Worker};
use anyhow::{Context, bail};
use archive::damaged;
use model::check::Damage;
use model::{Cause, Failure, JobState, Timestamp, Yield};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{RecvTimeoutError, Sender};
use std::time::{Duration, Instant};
use unix::paths::Layout;
use wire::frame;
use wire::maintenance::{Maintain, Operation, Progress, Report};
use wire::session::{VERSION, kind, read_json, write_json};
use wire::worker::{Finished, Pruning, Task, ToWorker};

/// Whoever restarts the owner does not mean the job. It begins anew so often; what it did by then stays done.
const TRIES: u32 = 3;

/// What an owner says of an operation.
#[derive(Debug)]
pub enum Said {
    /// So far it is.
    Progress(Progress),
    /// It is over.
    Report(Report),
    /// It cannot be done.
    Failed(Failure),
    /// It was said to somebody who is gone.
    Lost(String),
}

/// Has the owner do it, and follows it.
pub fn run(worker: &mut Worker, layout: &Layout, task: &Task, operation: &Operation, events: Sender<Event>) -> Result<Finished, Stop> {
    let report = done(worker, layout, task, operation, &events)?;
    if let Report::Checked { damage: Some(damage), chunks, .. } = &report {
        name_files(worker, layout, task, damage, chunks, &events)?;
    }
    let (yielded, failure) = judged(worker, report)?;
    let mut finished = worker.finished(failure);
    finished.yielded = Some(yielded);
    Ok(finished)
}

/// Has confined processes look which files damage concerns, one for each archive, and the owner remember it. The check is done, whatever comes of
/// this.
fn name_files(
    worker: &mut Worker,
    layout: &Layout,
    task: &Task,
    damage: &Damage,
    chunks: &[String],
    events: &Sender<Event>,
) -> Result<(), Stop> {
    worker.note(&format!("repository {} is damaged: {}", task.repository.name, damage.summary()));
    worker.flush()?;
    let (socket, mut has_said_what_lacks) = (layout.repository_socket(task.repository.name.as_str()), false);
    // All of them together have the time of one job; the check itself has had its own.
    let until = Instant::now() + Duration::from_secs(task.total_seconds);
    for (at, archive) in damaged::concerned(damage).enumerate() {
        let order = Order { archive: archive.id.clone(), seconds: task.total_seconds, what: What::Files { chunks: chunks.to_vec() } };
        let found = sandbox::run(&socket, &order, &[], until, &mut |word| {
            if let Some(Word::Ready(ready)) = word
                && !std::mem::replace(&mut has_said_what_lacks, true)
            {
                ready.lacking().into_iter().for_each(|lacking| worker.note(&lacking));
            }
            worker.goes_on()
        });
        let found = match found {
            Ok(Some(Done::Files(files))) => Ok(files),
            Ok(None) => break,
            Ok(Some(other)) => Err(format!("{other:?} came out of turn")),
            // One that takes all of the time alone is recorded like that, so that the next check comes to the others.
            Err(failure) if failure.cause == Cause::TooSlow && at > 0 => {
                worker.note(&format!("{}; the next check goes on with naming files there", failure.message));
                break;
            }
            Err(failure) => Err(failure.line()),
        };
        let found = damaged::concluded(found, damage, chunks);
        found.paths.iter().for_each(|path| worker.note(&format!("archive {}: damaged: {path}", archive.name)));
        if found.more > 0 {
            worker.note(&format!("archive {}: and {} more", archive.name, found.more));
        }
        if let Some(why) = &found.incomplete {
            worker.note(&format!("archive {}: there may be more: {why}", archive.name));
        }
        let operation = Operation::NoteFiles { files: vec![(archive.id.clone(), found)] };
        match done(worker, layout, task, &operation, events) {
            Ok(_) => {}
            Err(Stop::Failed(failure)) => {
                worker.note(&format!("which files are concerned was not recorded: {}", failure.message));
                break;
            }
            Err(stop) => return Err(stop),
        }
    }
    Ok(())
}

/// Has the owner delete what is due, if anything is.
pub fn prune(worker: &mut Worker, layout: &Layout, task: &Task, pruning: &Pruning, events: Sender<Event>) -> Result<Finished, Stop> {
    let Pruning { archives, marked, stopped, pending, refused, compact } = pruning;
    if let Some(why) = refused {
        return Err(Failure::new(Cause::RepositoryCheckNeeded, why.clone()).into());
    }
    let due = archives.len();
    worker.note(&format!(
        "{marked} more archives go when their grace period is over, {pending} were waiting for that already, {due} are due"
    ));
    stopped.iter().for_each(|why| worker.report.warn(why.clone(), Timestamp::now()));
    let (mut deleted, mut bytes, mut freed) = (0, 0, 0);
    if archives.is_empty() {
        worker.advance(JobState::RepositoryInProgress)?;
    } else {
        let compact = compact.then_some(model::Work::THRESHOLD);
        let operation = Operation::DeleteDue { archives: archives.clone(), compact };
        match done(worker, layout, task, &operation, &events)? {
            Report::Pruned { archives, bytes: size, kept_because, freed: given_back, .. } => {
                archives.iter().for_each(|name| worker.note(&format!("deleted archive {}", unix::logging::escape(name))));
                if let Some(why) = kept_because {
                    worker.note(&format!("some chunks stay: {why}"));
                }
                (deleted, bytes, freed) = (archives.len() as u64, size, given_back.unwrap_or(0));
            }
            other => return Err(anyhow::anyhow!("the owner reports {other:?}, and was asked for a prune").into()),
        }
    }
    let mut finished = worker.finished(None);
    finished.yielded = Some(Yield::Pruned { marked: *marked, deleted, bytes, freed, stopped: stopped.len() as u64 });
    Ok(finished)
}

/// Asks until the owner has answered for good.
fn done(worker: &mut Worker, layout: &Layout, task: &Task, operation: &Operation, events: &Sender<Event>) -> Result<Report, Stop> {
    let mut tries = 0;
    let report = loop {
        tries += 1;
        let stream = ask(layout, task, operation, events)?;
        match follow(worker, &stream)? {
            Ok(report) => break report,
            Err(failure) if failure.cause == Cause::OwnerLost && tries < TRIES && worker.cancelled.is_none() => {
                worker.note(&format!("{}; it begins anew", failure.message));
            }
            Err(failure) => return Err(failure.into()),
        }
    };
    if let Some(by) = worker.cancelled.clone() {
        worker.note(&format!("it was done already when {by} cancelled it"));
    }
    worker.advance(JobState::RepositoryInProgress)?;
    Ok(report)
}

fn ask(layout: &Layout, task: &Task, operation: &Operation, events: &Sender<Event>) -> Result<UnixStream, Stop> {
    let mut stream = unix::socket::connect(&layout.repository_socket(task.repository.name.as_str())).map_err(lost)?;
    write_json(&mut stream, kind::MAINTAIN, &Maintain { version: VERSION, operation: operation.clone() }).map_err(lost)?;
    let (mut reading, events) = (stream.try_clone().context("the owner's socket")?, events.clone());
    std::thread::spawn(move || {
        loop {
            let said = hear(&mut reading);
            let last = !matches!(said, Said::Progress(_));
            if events.send(Event::Owner(said)).is_err() || last {
                break;
            }
        }
    });
    Ok(stream)
}

fn lost(e: impl std::fmt::Display) -> Failure {
    Failure::new(Cause::OwnerLost, format!("the repository's owner process can't be reached: {e}"))
}

fn hear(stream: &mut UnixStream) -> Said {
    let mut payload = vec![];
    let said = frame::read(stream, &mut payload).and_then(|kind| match kind {
        kind::PROGRESS => read_json(&payload).map(Said::Progress),
        kind::REPORT => read_json(&payload).map(Said::Report),
        kind::FAILED => read_json(&payload).map(Said::Failed),
        other => Err(wire::WireError::Malformed(format!("an answer of type {other}"))),
    });
    said.unwrap_or_else(|e| Said::Lost(e.to_string()))
}

/// Until the owner has answered for good. A connection that is closed ends the operation at its next step.
fn follow(worker: &mut Worker, stream: &UnixStream) -> Result<Result<Report, Failure>, Stop> {
    let mut next_flush = Instant::now() + TICK;
    loop {
        let event = match worker.waiting.pop_front() {
            Some(event) => Some(event),
            None => match worker.events.recv_timeout(next_flush.saturating_duration_since(Instant::now())) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(Err(lost("nobody listens to it any more"))),
            },
        };
        match event {
            Some(Event::Owner(Said::Progress(progress))) => {
                worker.advance(JobState::RepositoryInProgress)?;
                worker.report.steps(progress, Timestamp::now());
            }
            Some(Event::Owner(Said::Report(report))) => return Ok(Ok(report)),
            Some(Event::Owner(Said::Failed(failure))) => return Ok(Err(failure)),
            Some(Event::Owner(Said::Lost(why))) => {
                return Ok(Err(match &worker.cancelled {
                    Some(by) => {
                        Failure::new(Cause::Cancelled { by: by.clone() }, format!("cancelled by {by}; what was done by then stays"))
                    }
                    None => Failure::new(Cause::OwnerLost, format!("the repository's owner process ended: {why}")),
                }));
            }
            Some(Event::Control(ToWorker::Cancel { by })) => {
                worker.note(&format!("cancelled by {by}: the owner ends at its next step"));
                worker.cancelled = Some(by);
                // The owner sees it, and so does the thread that listens to it.
                let _ = stream.shutdown(Shutdown::Both);
            }
            Some(Event::ControlLost) => {
                let _ = stream.shutdown(Shutdown::Both);
                if !worker.outlives {
                    return Err(anyhow::anyhow!("borgcubed is gone").into());
                }
                log::warn!("borgcubed was stopped; the operation ends at its next step");
                worker.lost = true;
                worker.cancelled.get_or_insert_with(|| "the stop of borgcubed".into());
            }
            Some(other) => return Err(unexpected(&other).into()),
            None => {}
        }
        if Instant::now() >= next_flush {
            worker.flush()?;
            next_flush = Instant::now() + TICK;
        }
    }
}

fn unexpected(event: &Event) -> anyhow::Error {
    anyhow::anyhow!("{event:?} came out of turn")
}

/// What the report means for the job: damage that a check finds makes it fail.
fn judged(worker: &mut Worker, report: Report) -> anyhow::Result<(Yield, Option<Failure>)> {
    Ok(match report {
        Report::Checked { objects, bytes, errors, error_count, complete, structure, data, damage, not_due_since, .. } => {
            let error_count = error_count.max(errors.len() as u64);
            let now = Timestamp::now();
            errors.iter().for_each(|error| worker.report.log(now, "error", "borgcube", error));
            worker.report.warnings = errors.iter().take(model::Job::MAX_WARNINGS).cloned().collect();
            worker.report.warning_count = error_count;
            let failure = errors.first().map(|first| {
                let message = match error_count {
                    1 => format!("the repository is damaged: {first}"),
                    n => format!("the repository is damaged in {n} places, the first: {first}"),
                };
                Failure::new(Cause::RepositoryCheckNeeded, message)
            });
            if failure.is_none() {
                let what = if complete { "all that was due" } else { "as far as the time went" };
                worker.note(&match not_due_since {
                    Some(last) => format!(
                        "nothing was due, and nothing was checked: all of it was checked lately, the last of it at {}",
                        last.to_local()
                    ),
                    None => format!("no damage was found: {objects} objects, {bytes} bytes read, {what}"),
                });
                if let Some(damage) = damage {
                    let message = format!("the repository is still damaged, as an earlier check has found: {}", damage.summary());
                    worker.report.warn(message, now);
                }
            }
            for (part, coverage) in [("structure", &structure), ("data", &data)] {
                if let Some(coverage) = coverage {
                    worker.note(&format!("{part}: {coverage}"));
                }
            }
            (Yield::Checked { objects, bytes, error_count, complete, structure, data, not_due_since }, failure)
        }
        Report::Compacted { segments, freed, orphans, skipped } => {
            worker.note(&format!("{segments} segment files gone, {freed} bytes freed, {orphans} objects that no archive needs deleted"));
            if skipped > 0 {
                let message = format!("{skipped} damaged segment files stay as they are: `borgcube repository check` says more");
                worker.report.warn(message, Timestamp::now());
            }
            (Yield::Compacted { segments, freed, orphans, skipped }, None)
        }
        other => bail!("the owner reports something else than what was asked for: {other:?}"),
    })
}
