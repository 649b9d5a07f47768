//! A worker's connection: it prepares one job, and hears at the end what became of it.

use crate::failures::{internal, of_store};
use crate::jobs::Job;
use crate::leaving::{Pass, WorkerEnd};
use crate::owner::Owner;
use crate::parting;
use crate::prepare::{self, Made};
use crate::writer::Request;
use model::{Cause, Failure};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};
use unix::poll::{Interest, poll};
use wire::session::{Cached, Finish, Outcome, Prepare, kind, read_json, write_json};
use wire::{WireError, frame};

/// How long a session may take to end when its client's borg has ended.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a thread that waits for a session looks around.
const GLANCE: Duration = Duration::from_millis(100);

/// Serves a worker, whose first frame was read already, until it is gone. What it prepared and did not finish ends with it.
pub fn run(owner: &Owner, stream: UnixStream, first: u8, payload: Vec<u8>) -> Result<(), WireError> {
    attend(owner, stream, Some(first), payload, None)
}

/// Goes on with a worker that another process of this owner has served.
pub fn resume(owner: &Owner, job: Arc<Job>, end: WorkerEnd) -> Result<(), WireError> {
    let WorkerEnd { stream, token_hash, said } = end;
    let mut payload = vec![];
    let first = if said.is_empty() { None } else { Some(frame::read(&mut said.as_slice(), &mut payload)?) };
    attend(owner, stream, first, payload, Some((job, token_hash)))
}

/// Whether a frame was dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    Yes,
    /// The next process of this owner has to do it.
    Left,
}

fn attend(
    owner: &Owner,
    mut stream: UnixStream,
    first: Option<u8>,
    mut payload: Vec<u8>,
    mut prepared: Option<(Arc<Job>, String)>,
) -> Result<(), WireError> {
    let mut next = first;
    let ended = loop {
        let Some(kind) = next else {
            match read(owner, &mut stream, &mut payload) {
                Ok(None) => return leave(owner, stream, prepared, None),
                Ok(kind) => next = kind,
                Err(WireError::Closed) => break Ok(()),
                Err(e) => break Err(e),
            }
            continue;
        };
        let handled = match kind {
            kind::PREPARE if prepared.is_none() => match read_json::<Prepare>(&payload).and_then(|request| start(owner, &stream, &request))
            {
                Ok(Some(made)) => {
                    prepared = made;
                    Ok(Done::Yes)
                }
                Ok(None) => Ok(Done::Left),
                Err(e) => Err(e),
            },
            kind::FINISH => read_json::<Finish>(&payload).and_then(|request| finish(owner, &mut stream, request.job, &mut prepared)),
            kind::CACHE => match &prepared {
                Some((job, _)) => cache(owner, &stream, job),
                None => Err(WireError::Malformed("a worker asked for the cache of a job that it did not prepare".into())),
            },
            kind::HOW_FAR => {
                let served = prepared.as_ref().and_then(|(job, _)| job.served()).unwrap_or_default();
                write_json(&mut stream, kind::SERVED, &served).map(|()| Done::Yes)
            }
            other => Err(WireError::Malformed(format!("a worker sent a frame of type {other}"))),
        };
        match handled {
            Ok(Done::Yes) => next = None,
            Ok(Done::Left) => return leave(owner, stream, prepared, Some((kind, &payload))),
            Err(e) => break Err(e),
        }
    };
    if let Some((job, hash)) = prepared {
        log::info!("the worker of job {} is gone; its session ends", job.number);
        end(owner, &job, &hash, Duration::ZERO);
    }
    ended
}

/// The worker's next frame; None if the next process of this owner is to read it.
fn read(owner: &Owner, stream: &mut UnixStream, payload: &mut Vec<u8>) -> Result<Option<u8>, WireError> {
    let waiting = [(stream.as_fd(), Interest::Read), (owner.leaving.as_fd(), Interest::Read)];
    let ready = poll(&waiting, None).map_err(|e| WireError::Io(std::io::Error::other(e)))?;
    if ready[1].any() { Ok(None) } else { frame::read(stream, payload).map(Some) }
}

fn leave(
    owner: &Owner,
    stream: UnixStream,
    prepared: Option<(Arc<Job>, String)>,
    given_back: Option<(u8, &[u8])>,
) -> Result<(), WireError> {
    let mut said = vec![];
    if let Some((kind, payload)) = given_back {
        frame::write(&mut said, kind, &[payload])?;
    }
    match prepared {
        Some((job, token_hash)) => owner.estate.leave_worker(job.number, WorkerEnd { stream, token_hash, said }),
        None => owner.estate.leave_stranger(stream, said),
    }
    Ok(())
}

/// What a worker has prepared: a job and its token's hash, if that went well. None if the next process of this owner has to do it.
type Started = Option<Option<(Arc<Job>, String)>>;

fn start(owner: &Owner, stream: &UnixStream, request: &Prepare) -> Result<Started, WireError> {
    let made = match owner.pass(stream) {
        Pass::Inside(_inside) => prepare::prepare(owner, request),
        // The worker is gone, or says something it should not.
        Pass::Called => return Err(WireError::Closed),
        Pass::Leaving => return Ok(None),
    };
    let mut out = stream;
    match made {
        Err(failure) => {
            log::warn!("job {} cannot be prepared: {}", request.job, failure.line());
            write_json(&mut out, kind::FAILED, &failure)?;
            Ok(Some(None))
        }
        Ok(Made { job, prepared, token_hash }) => {
            log::info!("job {} is prepared: {} chunks in the client's view", job.number, prepared.view_chunks);
            if let Err(e) = write_json(&mut out, kind::PREPARED, &prepared) {
                end(owner, &job, &token_hash, Duration::ZERO);
                return Err(e);
            }
            Ok(Some(Some((job, token_hash))))
        }
    }
}

/// Makes the client's chunks cache and hands it over.
fn cache(owner: &Owner, stream: &UnixStream, job: &Job) -> Result<Done, WireError> {
    let made = match owner.pass(stream) {
        Pass::Inside(_inside) => prepare::cache(job),
        Pass::Called => return Err(WireError::Closed),
        Pass::Leaving => return Ok(Done::Left),
    };
    let mut out = stream;
    match made {
        Ok((file, chunks, size)) => {
            write_json(&mut out, kind::CACHED, &Cached { chunks, size })?;
            unix::fdpass::send_fds(stream, &[file.as_fd()], &[0]).map_err(|e| WireError::Io(std::io::Error::other(e)))?;
        }
        Err(failure) => {
            job.fail(failure.clone());
            write_json(&mut out, kind::FAILED, &failure)?;
        }
    }
    Ok(Done::Yes)
}

fn finish(owner: &Owner, stream: &mut UnixStream, number: u64, prepared: &mut Option<(Arc<Job>, String)>) -> Result<Done, WireError> {
    if let Some((job, _)) = prepared.as_ref().filter(|(job, _)| job.number == number)
        && !ends_or_stays(owner, job)
    {
        return Ok(Done::Left);
    }
    let outcome = match prepared.take_if(|(job, _)| job.number == number) {
        Some((job, hash)) => {
            end(owner, &job, &hash, Duration::ZERO);
            Ok(job.outcome())
        }
        None if owner.leaving.is_so() => return Ok(Done::Left),
        None => remembered(owner, number),
    };
    match outcome {
        Ok(outcome) => write_json(stream, kind::OUTCOME, &outcome)?,
        Err(failure) => write_json(stream, kind::FAILED, &failure)?,
    }
    Ok(Done::Yes)
}

/// Gives a session that runs its time to end. False if the next process of this owner goes on with it.
fn ends_or_stays(owner: &Owner, job: &Job) -> bool {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if job.is_prepared() || job.wait_for_end(GLANCE) {
            return true;
        }
        if owner.leaving.is_so() {
            return false;
        }
        if Instant::now() >= deadline {
            return true;
        }
    }
}

/// Ends a job: at once if nobody came for it, else when its session has ended, if need be by force.
fn end(owner: &Owner, job: &Job, hash: &str, patience: Duration) {
    if job.withdraw() {
        prepare::withdraw(owner, job.number, hash);
        parting::release(owner, job);
    } else if !job.wait_for_end(patience) {
        job.opening.end_session(job.number);
        if !job.wait_for_end(PATIENCE) {
            log::warn!("the session of job {} does not end by itself", job.number);
            job.opening.cut_session(job.number);
            if !job.wait_for_end(PATIENCE) {
                log::error!("the session of job {} does not end at all", job.number);
            }
        }
    }
    owner.jobs.remove(job.number);
}

/// What the database knows of a job that this process never had: an owner ended, and another one came.
fn remembered(owner: &Owner, number: u64) -> Result<Outcome, Failure> {
    if owner.jobs.get(number).is_some() {
        return Err(internal(format!("job {number} belongs to another worker's connection")));
    }
    let intents = owner.store.read(|r| r.intents().of_repository(&owner.name)).map_err(|e| of_store(&e))?;
    if intents.iter().any(|intent| intent.archive.job == number) {
        // Whether it was committed, only the repository knows.
        let gone = || Failure::new(Cause::OwnerLost, "the owner is ending");
        let (reply, answer) = sync_channel(1);
        owner.writer.send(Request::Settle { reply }).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())??;
    }
    let mut archives = owner.store.read(|r| r.archives().of_job(number)).map_err(|e| of_store(&e))?;
    archives.retain(|archive| archive.repository == owner.name);
    let archive = archives.iter().find(|archive| !archive.incomplete).cloned();
    let checkpoint = archives.into_iter().filter(|a| a.incomplete && archive.is_none()).max_by_key(|a| a.end);
    let counters = archive.as_ref().or(checkpoint.as_ref()).map(|a| a.counters).unwrap_or_default();
    let opened = archive.is_some() || checkpoint.is_some();
    let lost = || Failure::new(Cause::OwnerLost, "the repository's owner process ended during the job");
    let failure = archive.is_none().then(lost);
    Ok(Outcome { opened, archive, checkpoint, failure, counters, served: None })
}
