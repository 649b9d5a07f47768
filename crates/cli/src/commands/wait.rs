//! Waiting for a job's end, with live progress.

use super::job::{self, Flat};
use crate::context::{Context, shell_word};
use crate::control::{Next, Replies};
use crate::error::{Error, Kind, Result};
use crate::output::live::Live;
use crate::output::{cards, shown};
use model::{Job, JobState};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use unix::Signal;
use unix::poll::{Interest, poll};
use unix::signals::Signals;
use wire::control::{Call, Event, EventReply, JobDetail};

/// How long a daemon that went away may take to come back.
const RETURN: Duration = Duration::from_secs(60);

/// Ctrl-C and friends, from now on told instead of deadly.
pub fn interrupts() -> Result<Signals> {
    Ok(Signals::new(&[Signal::SIGINT, Signal::SIGTERM])?)
}

/// Shows progress until the job has ended and says how; a job that did not end well is an error. A job that BorgCube itself runs once more
/// has not ended before that one has.
pub fn until_end(number: u64, interrupts: &Signals, context: &Context) -> Result<()> {
    let detail = ended(number, interrupts, context)?;
    // A server that was stopped tells no more; then this job's end is what there is.
    let retried_as = job::retry(&detail.job, context).unwrap_or_else(|error| {
        log::debug!("{}", error.message());
        None
    });
    if let Some(again) = retried_as {
        let why = detail.job.failure.as_ref().map(|f| shown(&f.line())).unwrap_or_default();
        context.note(&format!("Job {number} failed ({why}) and is run again as job {again}."));
        return until_end(again, interrupts, context);
    }
    if context.json {
        context.print_json(&Flat::new(&detail, None))?;
    }
    verdict(&detail.job)?;
    context.say(&cards::ended(&detail.job))
}

fn ended(job: u64, interrupts: &Signals, context: &Context) -> Result<JobDetail> {
    let mut live = Live::new(context.quiet || context.json);
    let watched = watch(job, interrupts, context, &mut live);
    live.end();
    let last = watched?;
    match (context.control().and_then(|mut control| control.call(Call::GetJob { job })), last) {
        // BorgCube stopped right behind the job's end.
        (Err(error), Some(job)) if error.kind() == Kind::Unreachable => {
            Ok(JobDetail { job, progress: None, waits: None, cancelled_by: None })
        }
        (detail, _) => detail,
    }
}

/// Follows the job over restarts of the daemon; gives its record if it was told with its end.
fn watch(job: u64, interrupts: &Signals, context: &Context, live: &mut Live) -> Result<Option<Job>> {
    let mut gone: Option<Instant> = None;
    loop {
        let error = match follow(job, interrupts, context, live, &mut gone) {
            Err(error) if error.kind() == Kind::Unreachable => error,
            other => return other,
        };
        if let Some(error) = stopped(job, context) {
            return Err(error);
        }
        let since = *gone.get_or_insert_with(|| {
            live.remark("borgcubed went away; waiting for it to come back");
            Instant::now()
        });
        if since.elapsed() > RETURN {
            return Err(error.hint(format!("Job {job} may still be running: borgcube job show {job}")));
        }
        if poll(&[(interrupts.as_fd(), Interest::Read)], Some(Duration::from_millis(500)))?[0].any() {
            return Err(interrupted(job));
        }
    }
}

/// `borgcube up` takes its socket along when it stops; while it only starts the daemon again, the socket stays. No job of it goes on
/// without it.
fn stopped(job: u64, context: &Context) -> Option<Error> {
    let state = context.state.as_ref().filter(|_| !context.layout.control_socket().exists())?;
    let sentence = format!("BorgCube was stopped while job {job} was waited for; the job does not go on");
    let start = format!("Start it again with: borgcube up --state {}", shell_word(state));
    let look =
        format!("Then borgcube job show {job} tells how it ended; a backup goes on from its last checkpoint when its config runs again.");
    Some(Error::new(Kind::Unreachable, sentence).hint(start).hint(look))
}

fn follow(job: u64, interrupts: &Signals, context: &Context, live: &mut Live, gone: &mut Option<Instant>) -> Result<Option<Job>> {
    let mut replies: Replies<EventReply> = context.control()?.replies(Call::Watch { job: Some(job) })?;
    loop {
        match replies.next(Some(interrupts.as_fd()), Some(Duration::from_secs(1)))? {
            Next::Item(EventReply { event: Event::Job(now) }) if now.number == job => {
                *gone = None;
                live.job(&now);
                if now.state.is_final() {
                    return Ok(Some(*now));
                }
            }
            Next::Item(EventReply { event: Event::Progress { job: number, progress } }) if number == job => live.progress(&progress),
            Next::Item(_) => {}
            Next::TimeOver => live.tick(),
            Next::End => return Ok(None),
            Next::Woken => return Err(interrupted(job)),
        }
    }
}

fn interrupted(job: u64) -> Error {
    Error::new(Kind::Interrupted, format!("job {job} goes on without being waited for"))
        .hint(format!("Cancel it with: borgcube job cancel {job}"))
        .hint(format!("Wait for it again with: borgcube job wait {job}"))
}

/// How the job ended, as success or as an error with its own exit code.
fn verdict(job: &Job) -> Result<()> {
    let (kind, how) = match job.state {
        JobState::Done => return Ok(()),
        JobState::Failed => (Kind::JobFailed, "failed"),
        JobState::Cancelled => (Kind::JobCancelled, "was cancelled"),
        state => return Err(Error::failed(format!("job {} is still in state {state}", job.number))),
    };
    let number = job.number;
    let Some(failure) = &job.failure else {
        return Err(Error::new(kind, format!("job {number} {how}")).hint(format!("Its log: borgcube job log {number}")));
    };
    Err(match kind {
        Kind::JobCancelled => Error::new(kind, format!("job {number} {how}: {}", shown(&failure.message))),
        _ => Error::new(kind, format!("job {number} {how}: {}", shown(&failure.line())))
            .hint(failure.cause.advice_for(job.kind()))
            .hint(format!("Its log: borgcube job log {number}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Cause, Failure, Timestamp};

    #[test]
    fn endings_have_their_exit_codes() {
        let mut job = Job::backup(7, &"web1/etc".parse().unwrap(), "main".parse().unwrap(), "root", Timestamp(0));
        assert_eq!(verdict(&job).unwrap_err().kind(), Kind::Failed);
        let mut other = job.clone();
        job.force_state(JobState::Failed, Failure::new(Cause::PathMissing, "no /x"), Timestamp(1)).unwrap();
        let error = verdict(&job).unwrap_err();
        assert_eq!((error.kind().code(), error.message()), (10, "job 7 failed: path-missing: no /x"));
        assert_eq!(error.hints()[0], Cause::PathMissing.advice());
        other.force_state(JobState::Cancelled, Failure::new(Cause::Cancelled { by: "ada".into() }, "ada did"), Timestamp(1)).unwrap();
        assert_eq!(verdict(&other).unwrap_err().kind().code(), 11);
        other.state = JobState::Done;
        assert!(verdict(&other).is_ok());
    }
}
