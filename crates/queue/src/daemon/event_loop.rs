//! The loop: wait for descriptors and deadlines, deal out what happened.

use super::control::{self, Connection, MAX_CONNECTIONS, MAX_STRANGERS, MAX_WATCHERS};
use super::{ACTOR, COMPLAIN, Daemon, HOUSEKEEPING, Stop, settings};
use model::access::Rights;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use unix::Signal;
use unix::poll::{Interest, Ready, poll};
use wire::control as wire_control;

/// Calls of one connection before others have their turn; each may be a commit.
const CALLS: usize = 16;

/// How long workers that live on may take to read what we still have to say to them.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What an end of all jobs takes besides their patience.
const MARGIN: Duration = Duration::from_secs(30);

/// Everything that can happen.
#[derive(Debug)]
enum Event {
    /// Signals arrived.
    Signals,
    /// Somebody is at the control socket.
    Connect,
    /// A control connection can go on.
    Control(u64, Ready),
    /// A job's worker says something.
    Worker(u64),
    /// A job's worker has ended.
    WorkerEnded(u64),
    /// Of what the n-th ended worker left behind, these have ended.
    LeftoversEnded(usize, Vec<bool>),
}

/// What a polled descriptor belongs to.
#[derive(Debug, Clone, Copy)]
enum Source {
    Signals,
    Listener,
    Control(u64),
    Worker(u64),
    WorkerEnd(u64),
    Leftover(usize),
}

impl Daemon {
    /// Runs until it is told to stop and everything has come to its end.
    pub(super) fn run(mut self) -> anyhow::Result<()> {
        log::info!(event = "daemon-ready"; "ready; {} jobs may run at once", self.settings.limits.total);
        while !self.is_finished() {
            self.start_jobs();
            self.report_status();
            for event in self.wait()? {
                self.handle(event);
            }
            self.tick(Instant::now());
        }
        self.finish();
        Ok(())
    }

    fn is_finished(&self) -> bool {
        match self.stop {
            Stop::No => false,
            Stop::Leaving(until) => until <= Instant::now() || self.workers.values().all(|worker| worker.is_told()),
            // Ends of jobs that wait for room on the disk get the same time as the jobs.
            Stop::Waiting(_) => self.workers.is_empty() && self.unrecorded.is_empty(),
            Stop::Cancelled => self.workers.is_empty(),
            Stop::Now => true,
        }
    }

    fn wait(&self) -> anyhow::Result<Vec<Event>> {
        let (mut sources, mut fds): (Vec<Source>, Vec<(BorrowedFd<'_>, Interest)>) = (vec![], vec![]);
        let mut add = |source, fd, interest| {
            sources.push(source);
            fds.push((fd, interest));
        };
        add(Source::Signals, self.signals.as_fd(), Interest::Read);
        if let Some(listener) = self.listener.as_ref().filter(|_| self.accept_at.is_none()) {
            add(Source::Listener, listener.as_fd(), Interest::Read);
        }
        for (id, connection) in &self.connections {
            add(Source::Control(*id), connection.channel.as_fd(), connection.channel.interest(connection.listens()));
        }
        for (job, worker) in &self.workers {
            add(Source::WorkerEnd(*job), worker.pidfd().as_fd(), Interest::Read);
            if let Some(channel) = worker.channel() {
                add(Source::Worker(*job), channel.as_fd(), channel.interest(true));
            }
        }
        for (at, leftovers) in self.leftovers.iter().enumerate() {
            for pidfd in leftovers.pidfds() {
                add(Source::Leftover(at), pidfd.as_fd(), Interest::Read);
            }
        }
        let timeout = self.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
        let ready = poll(&fds, timeout)?;
        Ok(events(&sources, &ready))
    }

    fn next_deadline(&self) -> Option<Instant> {
        if self.connections.values().any(|connection| connection.busy) {
            return Some(Instant::now());
        }
        let stop = match self.stop {
            Stop::Waiting(until) | Stop::Leaving(until) => Some(until),
            _ => None,
        };
        let connections = self.connections.values().filter_map(Connection::deadline);
        let workers = self.workers.values().filter_map(|worker| worker.deadline());
        let leftovers = self.leftovers.iter().filter_map(|l| l.deadline());
        let own = [
            self.watchdog.map(|(_, at)| at),
            self.retry_at,
            self.look_again_at,
            self.timers.deadline(),
            self.accept_at,
            stop,
            Some(self.housekeeping_at),
        ];
        connections.chain(workers).chain(leftovers).chain(own.into_iter().flatten()).min()
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Signals => {
                for signal in self.signals.take() {
                    self.signalled(signal);
                }
            }
            Event::Connect => self.accept(),
            Event::Control(id, ready) => self.serve(id, ready),
            Event::Worker(job) => {
                self.listen_to(job);
            }
            Event::WorkerEnded(job) => self.worker_ended(job),
            Event::LeftoversEnded(at, ended) => {
                if let Some(leftovers) = self.leftovers.get_mut(at) {
                    leftovers.forget(&ended);
                    self.queue_changed = true;
                }
            }
        }
    }

    fn signalled(&mut self, signal: Signal) {
        let now = Instant::now();
        if signal == Signal::SIGHUP {
            log::info!("SIGHUP: looking at settings and queue again");
            notified(unix::notify::reloading());
            match settings::load(&self.store) {
                Ok(settings) => self.settings = settings,
                Err(e) => log::error!("{e:#}"),
            }
            self.queue_changed = true;
            return notified(unix::notify::ready());
        }
        self.stop = match self.stop {
            Stop::No => {
                let leaves = !self.workers.is_empty() && self.workers.values().all(|worker| worker.outlives());
                match leaves {
                    true => log::info!("{signal}: stopping; {} jobs go on, the next borgcubed finds them", self.workers.len()),
                    false => log::info!("{signal}: stopping; {} running jobs have {:?}", self.workers.len(), self.options.stop),
                }
                self.listener = None;
                if let Some(path) = self.own_socket.take()
                    && let Err(e) = std::fs::remove_file(&path)
                {
                    log::warn!("{} cannot be removed: {e}", path.display());
                }
                notified(unix::notify::stopping());
                if leaves {
                    return self.stop = Stop::Leaving(now + LAST_WORDS);
                }
                notified(unix::notify::extend_timeout(self.options.stop + self.options.cancel + MARGIN));
                Stop::Waiting(now + self.options.stop)
            }
            Stop::Leaving(_) => Stop::Now,
            Stop::Waiting(_) => {
                log::info!("{signal} again: running jobs are cancelled now");
                Stop::Waiting(now)
            }
            Stop::Cancelled | Stop::Now => {
                log::warn!("{signal} again: not waiting for running jobs");
                Stop::Now
            }
        };
    }

    fn accept(&mut self) {
        let now = Instant::now();
        for _ in 0..16 {
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok((stream, _)) => self.welcome(stream, now),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(e) => {
                    log::error!("cannot accept a connection: {e}");
                    self.accept_at = Some(now + Duration::from_secs(1));
                    return;
                }
            }
        }
    }

    fn welcome(&mut self, stream: UnixStream, now: Instant) {
        let (actor, rights) = match control::identify(&stream, self.uid) {
            Ok(who) => who,
            Err(e) => return log::warn!(event = "connection-refused"; "a connection is refused: {e}"),
        };
        // Those who may control the server never have to wait for those who may not.
        let most = match rights {
            Rights::Control => MAX_CONNECTIONS,
            Rights::Watch => MAX_WATCHERS,
            Rights::None => MAX_STRANGERS,
        };
        if self.connections.values().filter(|c| c.rights == rights).count() >= most {
            return self.complain(&format!("a connection of {actor} is refused: there are too many"));
        }
        match Connection::new(stream, actor, rights, now) {
            Ok(connection) => {
                self.last_connection += 1;
                self.connections.insert(self.last_connection, connection);
            }
            Err(e) => log::warn!(event = "connection-refused"; "a connection is refused: {e}"),
        }
    }

    /// Reads and writes a control connection and answers what was asked.
    fn serve(&mut self, id: u64, ready: Ready) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let gone = ready.error || ready.hangup;
        if gone {
            // Nobody reads the rest of a stream; a call that was sent before is still carried out.
            connection.stream = None;
        }
        let mut moved = connection.channel.flush();
        if connection.listens() && (ready.readable || gone) {
            moved = moved.and(connection.channel.fill());
        }
        let broken = moved.is_err();
        self.answer(id);
        if broken || gone {
            self.connections.remove(&id);
        }
    }

    /// Answers the calls of a connection that were read, as far as it has room for answers.
    fn answer(&mut self, id: u64) {
        for _ in 0..CALLS {
            let now = Instant::now();
            let Some(connection) = self.connections.get_mut(&id) else { return };
            connection.busy = false;
            connection.pump(now);
            if !connection.listens() {
                return;
            }
            match connection.channel.next_document() {
                Ok(Some(document)) => self.call(id, &document),
                Ok(None) => return,
                Err(e) => {
                    log::info!("{}: {e}", connection.actor);
                    return connection.close(now);
                }
            }
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.busy = true;
        }
    }

    /// What is due, and what others may have caused.
    fn tick(&mut self, now: Instant) {
        if self.accept_at.is_some_and(|at| at <= now) {
            self.accept_at = None;
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.retry();
        }
        self.timers.look(&self.layout);
        if self.look_again_at.is_some_and(|at| at <= now) {
            self.look_again_at = None;
            self.queue_changed = true;
        }
        if let Stop::Waiting(until) = self.stop
            && until <= now
        {
            self.stop = Stop::Cancelled;
            for worker in self.workers.values_mut() {
                worker.cancel("shutdown", self.options.cancel, now);
            }
        }
        for worker in self.workers.values_mut() {
            worker.press(now);
        }
        for leftovers in &mut self.leftovers {
            leftovers.press(now);
        }
        self.leftovers.retain(|l| !l.is_empty());
        if self.housekeeping_at <= now {
            self.housekeeping_at = now + HOUSEKEEPING;
            self.keep_house();
        }
        // Streams that others filled, and calls that waited for room.
        let ids: Vec<u64> = self.connections.keys().copied().collect();
        for id in ids {
            self.answer(id);
        }
        self.connections.retain(|_, connection| !connection.is_over(now));
        if let Some((interval, at)) = &mut self.watchdog
            && *at <= now
        {
            *at = now + *interval;
            notified(unix::notify::watchdog());
        }
    }

    /// About people who may not be here.
    pub(super) fn complain(&mut self, what: &str) {
        let now = Instant::now();
        if self.complained_at.is_none_or(|at| at + COMPLAIN <= now) {
            self.complained_at = Some(now);
            log::warn!("{what}");
        }
    }

    fn keep_house(&mut self) {
        self.sweep_job_keys();
        self.sweep_restore_tests();
        // A scheduler that died between its commit and its call leaves jobs that nobody has told us of.
        self.queue_changed = true;
        let now = model::Timestamp::now();
        let kept = self.store.clear_stale_readers().and_then(|_| {
            let (expired, _) = self.store.write_at(now, "forget sessions that nobody opened", ACTOR, |w| w.sessions().expire(now))?;
            Ok(expired)
        });
        match kept {
            Ok(0) => {}
            Ok(expired) => log::info!("{expired} sessions were never opened"),
            Err(e) => log::warn!("housekeeping: {e}"),
        }
    }

    /// Tells everybody who watches.
    pub(super) fn broadcast(&mut self, event: &wire_control::Event) {
        let now = Instant::now();
        for connection in self.connections.values_mut() {
            connection.notify(event, now);
        }
    }

    fn report_status(&mut self) {
        let status = match (self.stop, self.workers.len()) {
            (Stop::No, 0) => "no job runs".to_owned(),
            (Stop::Leaving(_), running) => format!("stopping; jobs that go on: {running}"),
            (Stop::No, running) => format!("jobs running: {running}"),
            (_, running) => format!("stopping; jobs still running: {running}"),
        };
        if status != self.status {
            notified(unix::notify::status(&status));
            self.status = status;
        }
    }

    fn finish(&mut self) {
        self.retry();
        for (job, outcome) in &self.unrecorded {
            log::error!("job {job}: its end ({}) could not be recorded", outcome.to);
        }
        let now = Instant::now();
        for connection in self.connections.values_mut() {
            connection.farewell(now);
        }
        if self.keeps_workers {
            // What the service manager has not read when we are gone, it does not believe.
            match unix::fdstore::barrier(LAST_WORDS) {
                Ok(true) => {}
                Ok(false) => log::warn!("the service manager does not answer; running jobs may be lost"),
                Err(e) => log::warn!("{e}"),
            }
        }
        log::info!(event = "daemon-stopped"; "stopped");
    }
}

/// Without a service manager that listens we work all the same.
fn notified(result: unix::Result<()>) {
    if let Err(e) = result {
        log::warn!("{e}");
    }
}

/// Pairs sources with their answers. Messages of a worker come before its end.
fn events(sources: &[Source], ready: &[Ready]) -> Vec<Event> {
    let mut events = vec![];
    let mut ends = vec![];
    let mut leftovers: Vec<(usize, Vec<bool>)> = vec![];
    for (source, ready) in sources.iter().zip(ready) {
        if let Source::Leftover(at) = source {
            match leftovers.last_mut().filter(|(last, _)| last == at) {
                Some((_, ended)) => ended.push(ready.any()),
                None => leftovers.push((*at, vec![ready.any()])),
            }
        }
        if !ready.any() {
            continue;
        }
        match source {
            Source::Signals => events.push(Event::Signals),
            Source::Listener => events.push(Event::Connect),
            Source::Control(id) => events.push(Event::Control(*id, *ready)),
            Source::Worker(job) => events.push(Event::Worker(*job)),
            Source::WorkerEnd(job) => ends.push(Event::WorkerEnded(*job)),
            Source::Leftover(_) => {}
        }
    }
    events.extend(ends);
    let ended = leftovers.into_iter().filter(|(_, ended)| ended.contains(&true));
    events.extend(ended.map(|(at, ended)| Event::LeftoversEnded(at, ended)));
    events
}
