//! One poll loop over everything that runs.

use super::borgcubed::Borgcubed;
use super::news::{News, Which};
use super::owner::Owner;
use super::programs::Programs;
use super::scheduler::Scheduler;
use super::status::{Status, Where};
use crate::error::{Error, Result};
use model::RepositoryName;
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};
use unix::Signal;
use unix::paths::Layout;
use unix::pidfd::ExitStatus;
use unix::poll::{Interest, poll};
use unix::signals::Signals;
use unix::spawn::Child;

/// As many sessions at once; further connections wait.
const MAX_SESSIONS: usize = 256;
/// As many of them may belong to clients that have not shown a good token yet; then the oldest has to go.
const MAX_STRANGERS: usize = 64;
/// How long sessions and owners may take to end.
const GRACE: Duration = Duration::from_secs(10);
/// So many signals mean: now, whatever is lost.
const IMPATIENT: u32 = 3;

/// Everything that can wake the loop.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    /// A person or the system wants something.
    Signals,
    /// Somebody connected to the session socket.
    Connection,
    /// A session's client is no stranger any more.
    Opened(i32),
    /// A session has ended.
    SessionEnded(i32),
    /// The queue daemon has ended.
    BorgcubedEnded,
    /// The scheduler has ended.
    SchedulerEnded,
    /// The status daemon has ended.
    StatusEnded,
    /// The queue daemon says something.
    News(Which),
    /// Somebody connected to a repository's socket.
    OwnerWanted(RepositoryName),
    /// An owner has ended.
    OwnerEnded(RepositoryName),
}

/// How far the stop is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No stop.
    Running,
    /// The queue daemon winds up; sessions and owners are still needed.
    Queue,
    /// The others are asked to end until then.
    Rest(Instant),
    /// They were killed.
    Killed,
}

/// All children and their sockets.
#[derive(Debug)]
pub struct Supervisor {
    layout: Layout,
    programs: Programs,
    signals: SignalsBox,
    borgcubed: Borgcubed,
    scheduler: Scheduler,
    status: Status,
    news: News,
    session_listener: UnixListener,
    sessions: BTreeMap<i32, Child>,
    /// Sessions of strangers, the oldest first, with what ends when they are none any more.
    strangers: VecDeque<(i32, UnixStream)>,
    owners: BTreeMap<RepositoryName, Owner>,
    /// Owners of repositories that were removed.
    orphans: Vec<Child>,
    /// The queue daemon has answered at least once.
    ready: bool,
    phase: Phase,
    asked: u32,
}

struct SignalsBox(Signals);

impl std::fmt::Debug for SignalsBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signals")
    }
}

impl Supervisor {
    /// Makes the sockets and starts the queue daemon.
    pub fn start(layout: &Layout, programs: Programs, status: Option<Where>) -> Result<Supervisor> {
        // Before the first child: a stop right at the start must not leave one behind.
        let signals = SignalsBox(Signals::new(&[Signal::SIGTERM, Signal::SIGINT])?);
        unix::signals::ignore_sigpipe()?;
        let session_listener = unix::socket::listen(&layout.session_socket(), 0o600)?;
        let status = Status::listen(layout, status)?;
        let borgcubed = Borgcubed::start(layout, &programs)?;
        Ok(Supervisor {
            news: News::new(&layout.control_socket()),
            layout: layout.clone(),
            programs,
            signals,
            borgcubed,
            scheduler: Scheduler::new(),
            status,
            session_listener,
            sessions: BTreeMap::new(),
            strangers: VecDeque::new(),
            owners: BTreeMap::new(),
            orphans: vec![],
            ready: false,
            phase: Phase::Running,
            asked: 0,
        })
    }

    /// Where the status pages are.
    pub fn status_url(&self) -> Option<String> {
        self.status.url()
    }

    /// Until everything has ended.
    pub fn run(mut self) -> Result<()> {
        let mut outcome = Ok(());
        while !self.is_over() {
            for event in self.wait()? {
                if let Err(error) = self.handle(event) {
                    // The first is the one to tell; what runs is ended in good order.
                    outcome = outcome.and(Err(error));
                    self.stop();
                }
            }
            self.keep_time();
        }
        self.tidy();
        outcome
    }

    fn is_over(&self) -> bool {
        let idle = self.owners.values().all(|o| o.child.is_none()) && self.orphans.is_empty();
        matches!(self.phase, Phase::Rest(_) | Phase::Killed)
            && idle
            && self.sessions.is_empty()
            && self.borgcubed.child.is_none()
            && self.scheduler.child.is_none()
            && self.status.child.is_none()
    }

    fn wait(&self) -> Result<Vec<Event>> {
        let sources = self.sources();
        let fds: Vec<(BorrowedFd<'_>, Interest)> = sources.iter().map(|(fd, _)| (*fd, Interest::Read)).collect();
        let ready = poll(&fds, self.timeout())?;
        Ok(sources.into_iter().zip(ready).filter(|(_, r)| r.any()).map(|((_, event), _)| event).collect())
    }

    fn sources(&self) -> Vec<(BorrowedFd<'_>, Event)> {
        let now = Instant::now();
        let mut sources = vec![(self.signals.0.as_fd(), Event::Signals)];
        sources.extend(self.borgcubed.child.iter().map(|c| (c.pidfd.as_fd(), Event::BorgcubedEnded)));
        sources.extend(self.scheduler.child.iter().map(|c| (c.pidfd.as_fd(), Event::SchedulerEnded)));
        sources.extend(self.status.child.iter().map(|c| (c.pidfd.as_fd(), Event::StatusEnded)));
        sources.extend(self.news.links().map(|(which, fd)| (fd, Event::News(which))));
        sources.extend(self.sessions.iter().map(|(pid, c)| (c.pidfd.as_fd(), Event::SessionEnded(*pid))));
        sources.extend(self.strangers.iter().map(|(pid, opened)| (opened.as_fd(), Event::Opened(*pid))));
        for (name, owner) in &self.owners {
            sources.extend(owner.child.iter().map(|c| (c.pidfd.as_fd(), Event::OwnerEnded(name.clone()))));
        }
        if matches!(self.phase, Phase::Running | Phase::Queue) {
            if self.sessions.len() < MAX_SESSIONS {
                sources.push((self.session_listener.as_fd(), Event::Connection));
            }
            for (name, owner) in &self.owners {
                sources.extend(owner.awaits(now).map(|listener| (listener.as_fd(), Event::OwnerWanted(name.clone()))));
            }
        }
        sources
    }

    /// Until the next thing that no descriptor tells.
    fn timeout(&self) -> Option<Duration> {
        let mut moments: Vec<Instant> = self.owners.values().filter_map(Owner::rest_ends).collect();
        moments.extend(self.borgcubed.start_at);
        moments.extend(self.scheduler.start_at);
        moments.extend(self.status.start_at);
        moments.extend(self.news.retry_at());
        if let Phase::Rest(deadline) = self.phase {
            moments.push(deadline);
        }
        let now = Instant::now();
        let next = moments.into_iter().min().map(|at| at.saturating_duration_since(now));
        // Owners of removed repositories are rare: looked at from time to time.
        if self.orphans.is_empty() { next } else { Some(next.unwrap_or(GRACE).min(Duration::from_millis(200))) }
    }

    fn handle(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Signals => self.signalled(),
            Event::Connection => self.connected(),
            Event::Opened(pid) => self.strangers.retain(|(stranger, _)| *stranger != pid),
            Event::SessionEnded(pid) => self.session_ended(pid)?,
            Event::BorgcubedEnded => return self.borgcubed_ended(),
            Event::SchedulerEnded => self.scheduler_ended()?,
            Event::StatusEnded => self.status_ended()?,
            Event::News(which) => {
                if let Some(names) = self.news.arrived(which) {
                    self.reconcile(&names);
                }
            }
            Event::OwnerWanted(name) => {
                if let Some(owner) = self.owners.get_mut(&name) {
                    owner.wanted(&self.programs, &self.layout);
                }
            }
            Event::OwnerEnded(name) => {
                if let Some(owner) = self.owners.get_mut(&name)
                    && let Some(child) = &owner.child
                {
                    let status = child.wait()?;
                    owner.ended(status);
                }
            }
        }
        Ok(())
    }

    fn signalled(&mut self) {
        for _ in self.signals.0.take() {
            self.stop();
        }
    }

    /// The first time politely, the second time less so, the third time at once.
    fn stop(&mut self) {
        self.asked += 1;
        if self.asked >= IMPATIENT {
            log::warn!("stopping at once; running jobs are lost");
            self.kill();
            return;
        }
        if self.phase == Phase::Running {
            log::info!("stopping; running jobs get time to end");
            self.phase = Phase::Queue;
        }
        self.borgcubed.start_at = None;
        // Nothing new begins.
        self.scheduler.signal(Signal::SIGTERM);
        self.status.start_at = None;
        if !self.borgcubed.signal(Signal::SIGTERM) && self.borgcubed.child.is_none() {
            self.end_the_rest();
        }
    }

    fn end_the_rest(&mut self) {
        if let Phase::Rest(_) | Phase::Killed = self.phase {
            return;
        }
        self.phase = Phase::Rest(Instant::now() + GRACE);
        // People may watch how running jobs end.
        self.status.signal(Signal::SIGTERM);
        self.signal_the_rest(Signal::SIGTERM);
    }

    fn kill(&mut self) {
        self.phase = Phase::Killed;
        self.borgcubed.signal(Signal::SIGKILL);
        self.scheduler.signal(Signal::SIGKILL);
        self.status.signal(Signal::SIGKILL);
        self.signal_the_rest(Signal::SIGKILL);
    }

    fn signal_the_rest(&self, signal: Signal) {
        let owners = self.owners.values().filter_map(|o| o.child.as_ref());
        for child in self.sessions.values().chain(owners).chain(&self.orphans) {
            let sent = if signal == Signal::SIGKILL { child.kill_group(signal) } else { child.pidfd.signal(signal) };
            if let Err(error) = sent {
                log::error!("{error}");
            }
        }
    }

    fn connected(&mut self) {
        match self.start_session() {
            Ok((child, opened)) => {
                self.strangers.push_back((child.pid, opened));
                self.sessions.insert(child.pid, child);
            }
            Err(error) => log::error!("a session does not start: {}", error.message()),
        }
        // An honest client opens at once. Who keeps many connections that do not only shuts out himself.
        if self.strangers.len() > MAX_STRANGERS
            && let Some((oldest, _)) = self.strangers.pop_front()
            && let Some(child) = self.sessions.get(&oldest)
        {
            log::warn!("more than {MAX_STRANGERS} clients have not shown a token: the one that waits longest is sent away");
            if let Err(error) = child.kill_group(Signal::SIGKILL) {
                log::error!("{error}");
            }
        }
    }

    fn start_session(&self) -> Result<(Child, UnixStream)> {
        let failed = |e: std::io::Error| Error::failed(e.to_string());
        let (connection, _) = self.session_listener.accept().map_err(failed)?;
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        Ok((self.programs.session(&connection, &theirs)?, ours))
    }

    fn session_ended(&mut self, pid: i32) -> Result<()> {
        self.strangers.retain(|(stranger, _)| *stranger != pid);
        if let Some(child) = self.sessions.remove(&pid) {
            let status = child.wait()?;
            if !matches!(status, ExitStatus::Exited(_)) {
                log::warn!("session {pid} {status}");
            }
        }
        Ok(())
    }

    fn borgcubed_ended(&mut self) -> Result<()> {
        let Some(child) = &self.borgcubed.child else { return Ok(()) };
        let status = child.wait()?;
        if self.phase != Phase::Running {
            self.borgcubed.child = None;
            self.end_the_rest();
            return Ok(());
        }
        if !self.ready {
            self.borgcubed.child = None;
            return Err(Error::failed(format!("borgcubed {status} before it was ready")).hint("What it wrote above says why."));
        }
        self.borgcubed.ended(status);
        Ok(())
    }

    fn scheduler_ended(&mut self) -> Result<()> {
        let Some(child) = &self.scheduler.child else { return Ok(()) };
        let status = child.wait()?;
        match self.phase {
            Phase::Running => self.scheduler.ended(status),
            _ => self.scheduler.child = None,
        }
        Ok(())
    }

    fn status_ended(&mut self) -> Result<()> {
        let Some(child) = &self.status.child else { return Ok(()) };
        let status = child.wait()?;
        match self.phase {
            Phase::Running => self.status.ended(status),
            _ => self.status.child = None,
        }
        Ok(())
    }

    /// Sockets for the repositories that there are.
    fn reconcile(&mut self, names: &[RepositoryName]) {
        let gone: Vec<RepositoryName> = self.owners.keys().filter(|n| !names.contains(n)).cloned().collect();
        for name in gone {
            self.forget(&name);
        }
        for name in names {
            if self.owners.contains_key(name) {
                continue;
            }
            match Owner::listen(name, &self.layout) {
                Ok(owner) => {
                    self.owners.insert(name.clone(), owner);
                }
                Err(error) => log::error!("repository {name}: {}", error.message()),
            }
        }
        if !self.ready {
            self.ready = true;
            if self.phase == Phase::Running {
                self.scheduler.start(&self.programs);
                self.status.start(&self.programs);
            }
            log::info!("BorgCube is ready in {}", self.layout.state().display());
        }
    }

    fn forget(&mut self, name: &RepositoryName) {
        remove(&self.layout.repository_socket(name.as_str()));
        let Some(child) = self.owners.remove(name).and_then(|owner| owner.child) else { return };
        if let Err(error) = child.pidfd.signal(Signal::SIGTERM) {
            log::error!("{error}");
        }
        self.orphans.push(child);
    }

    /// What is due although no descriptor told.
    fn keep_time(&mut self) {
        let now = Instant::now();
        self.orphans.retain(|child| !matches!(child.pidfd.try_wait(), Ok(Some(_))));
        if self.phase == Phase::Running {
            if self.borgcubed.start_at.is_some_and(|at| at <= now) {
                self.borgcubed.restart(&self.programs);
            }
            if self.scheduler.start_at.is_some_and(|at| at <= now) {
                self.scheduler.start(&self.programs);
            }
            if self.status.start_at.is_some_and(|at| at <= now) {
                self.status.start(&self.programs);
            }
            if self.news.retry_at().is_some_and(|at| at <= now) {
                self.news.connect();
            }
        }
        if let Phase::Rest(deadline) = self.phase
            && deadline <= now
        {
            log::warn!("not everything has ended in time; the rest is killed");
            self.kill();
        }
    }

    /// Nobody listens any more: sockets that say so are better than sockets that refuse.
    fn tidy(&self) {
        for path in [self.layout.control_socket(), self.layout.session_socket(), self.layout.status_socket(), self.layout.status_url()] {
            remove(&path);
        }
        for name in self.owners.keys() {
            remove(&self.layout.repository_socket(name.as_str()));
        }
        log::info!("stopped");
    }
}

fn remove(path: &std::path::Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        log::warn!("cannot remove {}: {error}", path.display());
    }
}
