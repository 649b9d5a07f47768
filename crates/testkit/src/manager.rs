//! A small service manager that does for BorgCube's daemons what systemd does: it listens for them, keeps descriptors over their restarts, hears when they are ready,
//! and starts again those that crashed. Real units run on the booted machines of tests/machines; here every step can be looked at.

use crate::process;
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use unix::poll::{Interest, poll};
use unix::spawn::{Child, Spawn, Stdio};

use crate::retry_until;

/// How long a daemon may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often the manager looks around.
const TURN: Duration = Duration::from_millis(3);

/// How long a daemon that crashed rests.
const REST: Duration = Duration::from_millis(100);

/// The unit of the queue daemon.
pub const BORGCUBED: &str = "borgcubed";

/// The unit of a repository's owner.
pub fn owner(repository: &str) -> String {
    format!("borgcube-repositoryd@{repository}")
}

struct Service {
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    listener: UnixListener,
    /// Started by the first connection, and not again when it ends well.
    on_demand: bool,
    notify: UnixDatagram,
    notify_path: PathBuf,
    store: Vec<(String, OwnedFd)>,
    child: Option<Child>,
    stopped: bool,
    start_at: Option<Instant>,
    ready: bool,
    starts: u32,
    exits: Vec<String>,
    messages: VecDeque<String>,
    beats: u64,
    deaf: bool,
}

struct State {
    services: BTreeMap<String, Service>,
    sessions: Vec<Child>,
    session_listener: UnixListener,
    session_program: PathBuf,
    environment: Vec<(String, String)>,
    log: fs::File,
}

/// Runs until it is dropped; then everything that it started is killed.
pub struct Manager {
    state: Arc<Mutex<State>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    directory: PathBuf,
    programs: PathBuf,
}

impl std::fmt::Debug for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manager").field("directory", &self.directory).finish_non_exhaustive()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Manager {
    /// Listens for `borgcubed` and for sessions of the state directory `directory`/state, and starts `borgcubed`. What it starts gets `environment` and nothing else,
    /// and writes into `log`.
    ///
    /// # Panics
    /// When something of that does not work.
    pub fn start(directory: &Path, programs: &Path, environment: &[(String, String)], log: &Path) -> Manager {
        let run = directory.join("state/run");
        for path in [&run, &run.join("repositories"), &run.join("sessions")] {
            fs::create_dir_all(path).expect("a directory can be made");
        }
        let session_listener = unix::socket::listen(&run.join("session.sock"), 0o600).expect("the session socket");
        session_listener.set_nonblocking(true).expect("not to block");
        let log = fs::File::options().create(true).append(true).open(log).expect("the log can be opened");
        let state = State {
            services: BTreeMap::new(),
            sessions: vec![],
            session_listener,
            session_program: programs.join("borgcube-session"),
            environment: environment.to_vec(),
            log,
        };
        let state = Arc::new(Mutex::new(state));
        let over = Arc::new(AtomicBool::new(false));
        let (theirs, ends) = (Arc::clone(&state), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            while !ends.load(Ordering::SeqCst) {
                lock(&theirs).turn();
                std::thread::sleep(TURN);
            }
        });
        let manager = Manager { state, over, thread: Some(thread), directory: directory.to_owned(), programs: programs.to_owned() };
        manager.add(BORGCUBED, "borgcubed", &[], &run.join("control.sock"), false, vec![]);
        manager
    }

    /// Listens for the owner of a repository.
    pub fn add_owner(&self, repository: &str, environment: &[(&str, &str)]) {
        let state = self.directory.join("state");
        let credentials = state.join("credentials").join(repository);
        let mut all = vec![("CREDENTIALS_DIRECTORY".to_owned(), credentials.display().to_string())];
        all.extend(environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let socket = state.join("run/repositories").join(format!("{repository}.sock"));
        self.add(&owner(repository), "borgcube-repositoryd", &["serve", repository], &socket, true, all);
    }

    fn add(&self, unit: &str, program: &str, arguments: &[&str], socket: &Path, on_demand: bool, environment: Vec<(String, String)>) {
        let listener = unix::socket::listen(socket, 0o600).expect("a socket");
        let notify_path = self.directory.join(format!("notify-{unit}"));
        let notify = UnixDatagram::bind(&notify_path).expect("a notify socket");
        notify.set_nonblocking(true).expect("not to block");
        let service = Service {
            program: self.programs.join(program),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            environment,
            listener,
            on_demand,
            notify,
            notify_path,
            store: vec![],
            child: None,
            stopped: false,
            start_at: None,
            ready: false,
            starts: 0,
            exits: vec![],
            messages: VecDeque::new(),
            beats: 0,
            deaf: false,
        };
        lock(&self.state).services.insert(unit.to_owned(), service);
    }

    fn ask<T>(&self, unit: &str, ask: impl FnOnce(&mut Service) -> T) -> T {
        let mut state = lock(&self.state);
        ask(state.services.get_mut(unit).unwrap_or_else(|| panic!("there is no unit {unit}")))
    }

    #[track_caller]
    fn until(&self, unit: &str, what: &str, mut is_so: impl FnMut(&Service) -> bool) {
        let so = retry_until(PATIENCE, || self.ask(unit, |service| is_so(service).then_some(())));
        assert!(so.is_some(), "{unit} does not {what}");
    }

    /// `systemctl restart`: SIGTERM to the main process alone, and a new one that gets what was kept. Waits until it is ready; an owner that did not run
    /// stays so until somebody connects.
    #[track_caller]
    pub fn restart(&self, unit: &str) {
        let starts = self.ask(unit, |service| {
            service.signal(Signal::SIGTERM);
            service.starts
        });
        self.until(unit, "end", |service| service.starts > starts || service.child.is_none());
        self.ask(unit, |service| {
            if service.child.is_none() {
                service.start_at.get_or_insert_with(Instant::now);
            }
        });
        self.until(unit, "become ready", |service| service.starts > starts && service.ready);
    }

    /// `kill -9`: it is started again, as Restart=on-failure does, with what was kept.
    #[track_caller]
    pub fn kill(&self, unit: &str) {
        let starts = self.ask(unit, |service| {
            service.signal(Signal::SIGKILL);
            service.starts
        });
        self.until(unit, "start again", |service| service.starts > starts && service.ready);
    }

    /// `systemctl stop`: what was kept is dropped. Waits for the end.
    #[track_caller]
    pub fn stop(&self, unit: &str) {
        self.ask(unit, |service| {
            service.stopped = true;
            service.signal(Signal::SIGTERM);
        });
        self.until(unit, "end", |service| service.child.is_none() && service.store.is_empty());
    }

    /// `systemctl start`, after a stop.
    #[track_caller]
    pub fn begin(&self, unit: &str) {
        self.ask(unit, |service| {
            service.stopped = false;
            service.start_at = Some(Instant::now());
        });
        self.until(unit, "become ready", |service| service.ready);
    }

    /// Sends a signal to a daemon's main process.
    pub fn signal(&self, unit: &str, signal: Signal) {
        self.ask(unit, |service| service.signal(signal));
    }

    /// Reads nothing of what a daemon says for a while, as one that has much to do.
    pub fn deafen(&self, unit: &str, deaf: bool) {
        self.ask(unit, |service| service.deaf = deaf);
    }

    /// Names of the descriptors that are kept.
    pub fn kept(&self, unit: &str) -> Vec<String> {
        self.ask(unit, |service| service.store.iter().map(|(name, _)| name.clone()).collect())
    }

    /// What a daemon has sent, the last two hundred lines of it, without its signs of life.
    pub fn messages(&self, unit: &str) -> Vec<String> {
        self.ask(unit, |service| service.messages.iter().cloned().collect())
    }

    /// How often it has said that it lives.
    pub fn beats(&self, unit: &str) -> u64 {
        self.ask(unit, |service| service.beats)
    }

    /// The daemon's process, if it runs.
    pub fn pid(&self, unit: &str) -> Option<i32> {
        self.ask(unit, |service| service.child.as_ref().map(|child| child.pid))
    }

    /// How its processes ended so far.
    pub fn exits(&self, unit: &str) -> Vec<String> {
        self.ask(unit, |service| service.exits.clone())
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
        let mut state = lock(&self.state);
        let services: Vec<Child> = state.services.values_mut().filter_map(|service| service.child.take()).collect();
        let all: Vec<Child> = services.into_iter().chain(std::mem::take(&mut state.sessions)).collect();
        process::kill_all(&all.iter().map(|child| child.pid).collect::<Vec<_>>());
        for child in all {
            let _gone = child.wait();
        }
    }
}

impl State {
    fn turn(&mut self) {
        let now = Instant::now();
        for service in self.services.values_mut() {
            service.hear();
            service.reap(now);
            let wanted = !service.on_demand
                || poll(&[(service.listener.as_fd(), Interest::Read)], Some(Duration::ZERO)).is_ok_and(|ready| ready[0].readable);
            let asked = service.start_at.is_some_and(|at| at <= now) || (service.start_at.is_none() && wanted);
            if service.child.is_none() && !service.stopped && asked {
                service.start(&self.environment, &self.log);
            }
        }
        self.sessions.retain(|session| !matches!(session.pidfd.try_wait(), Ok(Some(_))));
        while let Ok((connection, _)) = self.session_listener.accept() {
            let mut spawn = Spawn::new(&self.session_program).stderr(Stdio::Fd(self.log.as_fd())).fd(connection.as_fd(), "connection");
            for (name, value) in &self.environment {
                spawn = spawn.env(name, value);
            }
            self.sessions.push(spawn.spawn().expect("a session starts"));
        }
    }
}

impl Service {
    fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            child.pidfd.signal(signal).expect("a signal can be sent");
        }
    }

    fn start(&mut self, environment: &[(String, String)], log: &fs::File) {
        let mut spawn = Spawn::new(&self.program).args(&self.arguments).stderr(Stdio::Fd(log.as_fd()));
        for (name, value) in environment.iter().chain(&self.environment) {
            spawn = spawn.env(name, value);
        }
        spawn = spawn.env("NOTIFY_SOCKET", &self.notify_path).env("FDSTORE", "512").env("WATCHDOG_USEC", "1000000");
        spawn = spawn.fd(self.listener.as_fd(), "listener");
        for (name, fd) in &self.store {
            spawn = spawn.fd(fd.as_fd(), name);
        }
        self.start_at = None;
        self.ready = false;
        self.starts += 1;
        self.child = Some(spawn.spawn().expect("a daemon starts"));
    }

    fn reap(&mut self, now: Instant) {
        let Some(Ok(Some(status))) = self.child.as_ref().map(|child| child.pidfd.try_wait()) else { return };
        // What it said last counts.
        self.hear();
        self.child = None;
        self.exits.push(status.to_string());
        if self.stopped {
            self.store.clear();
        } else if !status.success() || !self.on_demand {
            self.start_at = Some(now + REST);
        }
    }

    fn hear(&mut self) {
        if self.deaf {
            return;
        }
        while let Ok((fds, data)) = unix::fdpass::recv_fds(&self.notify, unix::fdpass::MAX_FDS) {
            let text = String::from_utf8_lossy(&data).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            let name = lines.iter().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or("stored").to_owned();
            let has = |line: &str| lines.contains(&line);
            self.ready |= has("READY=1");
            self.beats += u64::from(has("WATCHDOG=1"));
            if has("FDSTOREREMOVE=1") {
                self.store.retain(|(kept, _)| *kept != name);
            } else if has("FDSTORE=1") {
                assert!(has("FDPOLL=0"), "systemd would drop {name} when its peer closes");
                self.store.extend(fds.into_iter().map(|fd| (name.clone(), fd)));
            }
            // A barrier is passed when its descriptor is closed, which has just happened.
            self.messages.extend(lines.iter().filter(|line| **line != "WATCHDOG=1").map(|line| (*line).to_owned()));
            while self.messages.len() > 200 {
                self.messages.pop_front();
            }
        }
    }
}
