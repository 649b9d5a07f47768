//! `serve`: accepts connections until nobody needs this process any more.

use crate::owner::Owner;
use crate::succession::{Going, Inheritance, Taken};
use crate::writer::{self, Request};
use crate::{maintenance, prepare, session, succession, visitors, worker};
use anyhow::{Context, anyhow};
use model::{Cause, Failure, RepositoryName};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use store::Store;
use unix::Signal;
use unix::paths::Layout;
use unix::poll::{Interest, poll};
use unix::signals::Signals;
use wire::session::kind;
use wire::{WireError, frame};

/// How often to look whether somebody still needs us.
const TICK: Duration = Duration::from_millis(500);

/// How long a connection may take to say who it is.
const INTRODUCTION: Duration = Duration::from_secs(30);

/// How long a start with sessions to go on with, and a stop that leaves them, may take.
const START: Duration = Duration::from_secs(3600);

/// See above.
const STOP: Duration = Duration::from_secs(180);

/// The whole life of an owner.
pub fn serve(name: &RepositoryName) -> anyhow::Result<()> {
    let (left, handed): (Vec<_>, Vec<_>) = unix::activation::listen_fds()?.into_iter().partition(|(_, name)| succession::is_left(name));
    let (socket, _) = handed.into_iter().next().ok_or_else(|| anyhow!("no socket was handed over"))?;
    let listener = UnixListener::from(socket);
    listener.set_nonblocking(true)?;
    let mut signals = Signals::new(&[Signal::SIGTERM, Signal::SIGINT])?;
    let layout = Layout::from_env()?;
    let store = Store::open(layout.db()).context("the database cannot be opened")?;
    let (requests, queue) = channel();
    let owner = Arc::new(Owner::new(name.clone(), layout, store, requests)?);
    let writing = Arc::clone(&owner);
    let writer = std::thread::Builder::new().name("writer".into()).spawn(move || writer::run(&writing, &queue))?;
    let watchdog = unix::notify::watchdog_interval();
    if !go_on(&owner, succession::accept(left), &signals, watchdog) {
        return end(&owner, writer);
    }
    prepare::forget_old_sessions(&owner).map_err(|failure| anyhow!(failure.line()))?;
    let tick = watchdog.map_or(TICK, |interval| TICK.min(interval / 3));
    let mut status = String::new();
    unix::notify::ready()?;

    let limit = writer::seconds("BORGCUBE_EXIT_SECONDS", 300);
    let mut used = Instant::now();
    loop {
        let ready = poll(&[(listener.as_fd(), Interest::Read), (signals.as_fd(), Interest::Read)], Some(tick))?;
        if let Some(interval) = watchdog {
            sign_of_life(&owner, interval);
        }
        report(&owner, &mut status);
        if ready[1].any() && !signals.take().is_empty() {
            notified(unix::notify::stopping());
            if succession::is_possible(&owner) {
                log::info!("ending; {} jobs go on in the next process of this owner", owner.jobs.all().len());
                notified(unix::notify::extend_timeout(STOP));
                succession::leave(&owner, || {
                    watchdog.into_iter().for_each(|interval| sign_of_life(&owner, interval));
                    !signals.take().is_empty()
                });
                return writer.join().map_err(|_| anyhow!("the writing thread failed"));
            }
            log::info!("ending as asked");
            owner.stopping.store(true, Ordering::SeqCst);
            stop(&owner);
            break;
        }
        if ready[0].any() {
            accept(&listener, &owner);
        }
        if !owner.is_idle() {
            used = Instant::now();
        } else if used.elapsed() >= limit {
            log::info!("nobody needs this repository; ending until the next connection");
            break;
        }
        if writer.is_finished() {
            return Err(anyhow!("the writing thread ended"));
        }
    }
    end(&owner, writer)
}

/// Sessions of a process before this one. False: this process was asked to end, and the next one is to do it.
fn go_on(owner: &Arc<Owner>, inheritance: Inheritance, signals: &Signals, watchdog: Option<Duration>) -> bool {
    let Inheritance { heirs, strangers } = inheritance;
    if !heirs.is_empty() {
        // Opening the repository may mean building its index.
        notified(unix::notify::extend_timeout(START));
    }
    let mut said = false;
    let taken = succession::take_over(owner, heirs, |locked| {
        if !locked {
            return false;
        }
        if !said {
            // Nobody knows how long another borg takes: whoever has restarted us is not to wait for that.
            said = true;
            notified(unix::notify::ready());
            notified(unix::notify::status("another borg has locked the repository; the jobs go on when it has ended"));
        }
        watchdog.into_iter().for_each(|interval| sign_of_life(owner, interval));
        // It stays to be read: this is asked several times, and who is told at last must still see it.
        poll(&[(signals.as_fd(), Interest::Read)], Some(Duration::ZERO)).is_ok_and(|ready| ready[0].any())
    });
    match taken {
        Ok(Taken::Going(going)) => {
            for Going { job, worker, session } in going {
                if let Some((stream, conversation)) = session {
                    let job = Arc::clone(&job);
                    serve_in_thread(owner, move |owner| session::resume(owner, &job, stream, conversation));
                }
                serve_in_thread(owner, move |owner| worker::resume(owner, job, worker));
            }
        }
        Ok(Taken::Untouched(heirs)) => {
            notified(unix::notify::stopping());
            succession::pass_on(Inheritance { heirs, strangers });
            return false;
        }
        Err(failure) => log::error!("the sessions of the process before this one end: {}", failure.line()),
    }
    for (stream, said) in strangers {
        serve_in_thread(owner, move |owner| connection(owner, stream, &said));
    }
    true
}

/// Without one, the service manager ends us and starts another.
fn sign_of_life(owner: &Owner, interval: Duration) {
    if owner.pulse.beats(interval) {
        notified(unix::notify::watchdog());
    } else {
        log::error!("the thread that has the repository does not come to its next step");
    }
}

fn report(owner: &Owner, status: &mut String) {
    let open = if owner.is_open.load(Ordering::SeqCst) { "open" } else { "closed" };
    let now = format!("the repository is {open}; jobs: {}", owner.jobs.all().len());
    if now != *status {
        notified(unix::notify::status(&now));
        *status = now;
    }
}

/// Without a service manager that listens we work all the same.
fn notified(result: unix::Result<()>) {
    if let Err(e) = result {
        log::warn!("{e}");
    }
}

fn end(owner: &Owner, writer: JoinHandle<()>) -> anyhow::Result<()> {
    if owner.writer.send(Request::Quit).is_err() {
        log::debug!("the writer has ended already");
    }
    writer.join().map_err(|_| anyhow!("the writing thread failed"))
}

/// Ends all sessions; what they committed stays.
fn stop(owner: &Owner) {
    for job in owner.jobs.all() {
        job.fail(Failure::new(Cause::OwnerLost, "the repository's owner was stopped"));
        job.opening.end_session(job.number);
        if job.withdraw() {
            continue;
        }
        if !job.wait_for_end(Duration::from_secs(5)) {
            log::warn!("the session of job {} does not end", job.number);
        }
    }
}

fn accept(listener: &UnixListener, owner: &Arc<Owner>) {
    let stream = match listener.accept() {
        Ok((stream, _)) => stream,
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return,
        Err(e) => {
            log::error!("a connection cannot be accepted: {e}");
            // Out of descriptors, most likely: they come back when others end.
            std::thread::sleep(TICK);
            return;
        }
    };
    serve_in_thread(owner, move |owner| connection(owner, stream, &[]));
}

fn serve_in_thread(owner: &Arc<Owner>, serve: impl FnOnce(&Owner) -> Result<(), WireError> + Send + 'static) {
    owner.connections.fetch_add(1, Ordering::SeqCst);
    let serving = Arc::clone(owner);
    let started = std::thread::Builder::new().name("connection".into()).spawn(move || {
        // Counted down even if the thread panics, or the process would never end.
        let _counted = Counted(&serving.connections);
        if let Err(e) = serve(&serving) {
            log::warn!("a connection ended: {e}");
        }
    });
    if let Err(e) = started {
        owner.connections.fetch_sub(1, Ordering::SeqCst);
        log::error!("no thread for a connection: {e}");
    }
}

struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// `said` was read by a process before this one.
fn connection(owner: &Owner, mut stream: UnixStream, said: &[u8]) -> Result<(), WireError> {
    let admitted = visitors::admit(&stream, owner.layout.is_installed());
    let Some(visitor) = admitted.map_err(|e| WireError::Io(std::io::Error::other(e)))? else {
        return Ok(());
    };
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(INTRODUCTION))?;
    if said.is_empty() {
        let waiting = [(stream.as_fd(), Interest::Read), (owner.leaving.as_fd(), Interest::Read)];
        let ready = poll(&waiting, Some(INTRODUCTION)).map_err(|e| WireError::Io(std::io::Error::other(e)))?;
        if !ready[0].any() && ready[1].any() {
            owner.estate.leave_stranger(stream, vec![]);
            return Ok(());
        }
    }
    let mut payload = vec![];
    let first = match frame::read(&mut said.chain(&mut stream), &mut payload) {
        Ok(first) => first,
        // Somebody only looked whether we are there.
        Err(WireError::Closed) => return Ok(()),
        Err(e) => return Err(e),
    };
    stream.set_read_timeout(None)?;
    match first {
        kind::OPEN if visitor.opens => session::run(owner, stream, &payload),
        kind::ACCUSE if visitor.opens => session::accused(owner, &payload),
        kind::OPEN | kind::ACCUSE => Err(WireError::Malformed("a process that is no session asked for one".into())),
        kind::PREPARE | kind::FINISH if visitor.works => worker::run(owner, stream, first, payload),
        kind::PREPARE | kind::FINISH => Err(WireError::Malformed("a process that is no worker's asked for a session".into())),
        kind::MAINTAIN if visitor.works || visitor.reads_for => {
            owner.maintaining.fetch_add(1, Ordering::SeqCst);
            let _counted = Counted(&owner.maintaining);
            maintenance::run(owner, stream, &payload, visitor)
        }
        kind::MAINTAIN => Err(WireError::Malformed("a process of another user asked for maintenance".into())),
        other => Err(WireError::Malformed(format!("a connection began with a frame of type {other}"))),
    }
}
