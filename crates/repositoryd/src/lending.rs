//! The repository is lent to another borg: closed at a commit, and opened again for the sessions that waited.

use crate::credentials::Credentials;
use crate::failures::{ending, of_store};
use crate::open::{Open, options};
use crate::opening::Opening;
use crate::owner::Owner;
use crate::tidy;
use crate::writer::{Reply, answer};
use model::{Cause, Failure};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel, sync_channel};
use std::time::{Duration, Instant};
use unix::poll::{Interest, poll};
use wire::WireError;
use wire::maintenance::Granted;
use wire::session::{kind, write_json};

/// How often to look whether the process is to end.
const GLANCE: Duration = Duration::from_millis(200);

/// What the writer is asked for.
pub struct Lend {
    /// Sent when the repository is closed.
    pub reply: Reply<Granted>,
    /// Disconnected when it is given back.
    pub back: Receiver<()>,
    /// Sent when it is open again, if anybody needs it, or cannot be opened.
    pub done: Reply<()>,
}

/// The connection's part: nobody is inside the gate while the repository is away.
pub fn run(owner: &Owner, stream: &mut UnixStream, wait: Duration) -> Result<(), WireError> {
    // Nobody waits for longer than a year.
    let deadline = Instant::now() + wait.min(Duration::from_secs(365 * 86_400));
    let turn = owner.turn.take("a release", Some(deadline), || !is_gone(stream));
    let _turn = match turn {
        Ok(turn) => turn,
        Err(other) => {
            let message = format!("{other} is going on in this repository; wait for its end, or wait longer with --wait");
            return write_json(stream, kind::FAILED, &Failure::new(Cause::RepositoryLockTimeout, message));
        }
    };
    let Some(_closed) = owner.gate.close(deadline, || !is_gone(stream)) else {
        return write_json(stream, kind::FAILED, &Failure::new(Cause::RepositoryLockTimeout, occupied(owner)));
    };
    let (reply, answer) = sync_channel(1);
    let (done, ended) = sync_channel(1);
    let (given_back, back) = channel();
    let sent = owner.writer.send(crate::writer::Request::Lend(Lend { reply, back, done }));
    let granted = sent.map_err(|_| ending()).and_then(|()| answer.recv().map_err(|_| ending())?);
    let told = match granted {
        Ok(granted) => {
            log::info!("the repository is lent to another borg; {} sessions wait", granted.sessions);
            let told = write_json(stream, kind::GRANTED, &granted);
            if told.is_ok() {
                wait_for_end(owner, stream);
            }
            drop(given_back);
            log::info!("the repository is given back");
            told
        }
        Err(failure) => write_json(stream, kind::FAILED, &failure),
    };
    // Nobody may look at the repository before it is there again.
    if let Ok(Err(failure)) = ended.recv() {
        log::warn!("the repository cannot be opened again: {}", failure.line());
    }
    told
}

/// Who did not come to an end in time.
fn occupied(owner: &Owner) -> String {
    let jobs = owner.jobs.all();
    let inside = jobs.iter().filter(|job| job.is_inside()).map(|job| format!("job {} ({}/{})", job.number, job.client, job.label));
    let inside: Vec<String> = inside.collect();
    let who = if inside.is_empty() { "a session".to_owned() } else { inside.join(", ") };
    format!("{who} is in the middle of a commit or another step and did not come to its end in time; wait longer with --wait, or cancel it")
}

/// Whether whoever asked is no longer there.
pub fn is_gone(stream: &UnixStream) -> bool {
    let ready = poll(&[(stream.as_fd(), Interest::Read)], Some(Duration::ZERO));
    // Nothing more is to be said on this connection, so whatever comes is its end.
    ready.map_or(true, |ready| ready[0].any())
}

fn wait_for_end(owner: &Owner, stream: &UnixStream) {
    while !owner.stopping.load(Ordering::SeqCst) {
        match poll(&[(stream.as_fd(), Interest::Read)], Some(GLANCE)) {
            Ok(ready) if !ready[0].any() => {}
            _ => return,
        }
    }
    if let Err(e) = stream.shutdown(Shutdown::Both) {
        log::debug!("whoever has the repository is gone already: {e}");
    }
}

/// The writer's part: nothing else happens meanwhile.
pub fn lend(owner: &Owner, open: &mut Option<Open>, lend: Lend) {
    let granted = match close(owner, open, true) {
        Ok(granted) => granted,
        Err(failure) => {
            answer(&lend.reply, Err(failure));
            return answer(&lend.done, Ok(()));
        }
    };
    let (granted, running) = granted;
    owner.is_open.store(false, Ordering::SeqCst);
    answer(&lend.reply, Ok(granted));
    while matches!(lend.back.recv_timeout(GLANCE), Err(RecvTimeoutError::Timeout)) {
        if owner.stopping.load(Ordering::SeqCst) {
            return answer(&lend.done, Err(ending()));
        }
    }
    let Some(opening) = running else { return answer(&lend.done, Ok(())) };
    match reopen_when_free(owner, &opening) {
        Ok(Some(current)) => {
            *open = Some(current);
            answer(&lend.done, Ok(()));
        }
        // What becomes of the sessions then, others decide.
        Ok(None) => answer(&lend.done, Err(ending())),
        Err(failure) => {
            opening.fail(failure.clone());
            answer(&lend.done, Err(failure));
        }
    }
}

/// Whoever had the repository may have gone without its borg: that is waited for, as long as there are sessions that need it. None: this process is
/// to end.
fn reopen_when_free(owner: &Owner, opening: &Arc<Opening>) -> Result<Option<Open>, Failure> {
    let mut told = false;
    loop {
        let failure = match reopen(owner, opening) {
            Err(failure) if failure.cause == Cause::RepositoryLockTimeout => failure,
            other => return other.map(Some),
        };
        if owner.stopping.load(Ordering::SeqCst) {
            return Ok(None);
        }
        if !owner.jobs.all().iter().any(|job| Arc::ptr_eq(&job.opening, opening)) {
            return Err(failure);
        }
        if !told {
            log::warn!("jobs wait for the repository: {}", failure.line());
        }
        told = true;
    }
}

/// At a commit, with everything that sessions have sent so far. What takes long and serves only another borg is done `for_borg`.
pub fn close(owner: &Owner, open: &mut Option<Open>, for_borg: bool) -> Result<(Granted, Option<Arc<Opening>>), Failure> {
    let record = owner.store.read(|r| r.repositories().require(&owner.name)).map_err(|e| of_store(&e))?;
    let mut granted = Granted { url: record.url.clone(), host_id: options(owner, &record).host_id, sessions: 0 };
    let Some(mut current) = open.take() else { return Ok((granted, None)) };
    granted.url.clone_from(&current.source.url);
    granted.host_id.clone_from(&current.host_id);
    let opening = Arc::clone(&current.opening);
    let running = owner.jobs.all().into_iter().filter(|job| Arc::ptr_eq(&job.opening, &opening)).count();
    if running == 0 {
        tidy::close_unless(Some(current), &mut || !for_borg);
        return Ok((granted, None));
    }
    granted.sessions = running as u64;
    let pending = {
        let known = opening.known();
        known.is_mixed() || known.has_deleted()
    };
    if pending && let Err(failure) = current.commit(&|_| false) {
        opening.fail(failure.clone());
        tidy::give_up(Some(current));
        return Err(failure);
    }
    opening.known().committed([]);
    current.repository.close_unless(&mut || !for_borg);
    Ok((granted, Some(opening)))
}

fn reopen(owner: &Owner, opening: &Arc<Opening>) -> Result<Open, Failure> {
    let record = owner.store.read(|r| r.repositories().require(&owner.name)).map_err(|e| of_store(&e))?;
    let credentials = Credentials::read()?;
    Open::new(owner, &record, &credentials, Some(Arc::clone(opening)))
}
