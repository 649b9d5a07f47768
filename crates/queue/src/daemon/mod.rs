//! `borgcubed`: one poll loop, no threads.
//!
//! | module | what |
//! |---|---|
//! | `event_loop` | waits for descriptors and deadlines, deals out events |
//! | `control`, `request`, `channel` | connections, calls, bytes |
//! | `methods`, `records`, `lists`, `undo`, `apply` | what people may ask for |
//! | `on_behalf`, `web_users` | what users of the status pages may do, and who they are |
//! | `queue` | from `job_created` to a worker |
//! | `outcomes` | from a worker's end to the job's record |
//! | `retries` | jobs that wait for a moment |
//! | `scheduling`, `timers`, `rates` | schedules and triggers, systemd's timers for them, how often triggers work |
//! | `keys` | what sshd is told of keys |
//! | `workers`, `ending`, `leftovers`, `joblog` | running jobs |
//!
//! The database is written here and by the owners (archives); nobody polls it: who commits tells the watchers.

mod apply;
mod channel;
mod checks;
mod control;
mod ending;
mod errors;
mod event_loop;
mod joblog;
mod keys;
mod leftovers;
mod lists;
mod methods;
mod on_behalf;
mod outcomes;
mod policies;
mod queue;
mod rates;
mod records;
pub mod request;
mod restore_tests;
mod restores;
mod retries;
mod scheduling;
mod settings;
mod space;
mod timers;
mod undo;
mod web_users;
mod workers;

use anyhow::Context;
use control::Connection;
use leftovers::Leftovers;
use model::{Settings, Timestamp};
use outcomes::Outcome;
use rates::Rates;
use settings::Options;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use store::Store;
use unix::Signal;
use unix::paths::Layout;
use unix::signals::Signals;
use workers::Worker;

/// Who the transaction log names for what the daemon does by itself.
const ACTOR: &str = "borgcubed";
/// How long to wait before the database is tried again when it could not be written.
const RETRY: Duration = Duration::from_secs(5);
/// How often to look for what was forgotten: reader slots of killed processes, tokens that nobody used.
const HOUSEKEEPING: Duration = Duration::from_secs(3600);
/// At most so often the log tells of people who may not be here; they could fill it otherwise.
const COMPLAIN: Duration = Duration::from_secs(10);

/// The daemon with everything it knows.
struct Daemon {
    store: Store,
    layout: Layout,
    options: Options,
    settings: Settings,
    since: Timestamp,
    uid: u32,
    signals: Signals,
    listener: Option<UnixListener>,
    /// The socket's path, if the daemon made it itself.
    own_socket: Option<PathBuf>,
    /// The service manager keeps descriptors for the daemon after this one: workers live on.
    keeps_workers: bool,
    /// No descriptors left: accept again then.
    accept_at: Option<Instant>,
    connections: BTreeMap<u64, Connection>,
    last_connection: u64,
    workers: BTreeMap<u64, Worker>,
    leftovers: Vec<Leftovers>,
    /// Ends of jobs that the database has not taken yet.
    unrecorded: BTreeMap<u64, Outcome>,
    /// Something changed that may let a job start.
    queue_changed: bool,
    /// A queued job waits for a moment: look at the queue again then.
    look_again_at: Option<Instant>,
    /// Queued jobs that watchers have heard of.
    announced: BTreeSet<u64>,
    /// How often triggers are used.
    rates: Rates,
    timers: timers::Timers,
    /// When to try again what the database refused.
    retry_at: Option<Instant>,
    stop: Stop,
    watchdog: Option<(Duration, Instant)>,
    status: String,
    housekeeping_at: Instant,
    complained_at: Option<Instant>,
    /// Held as long as the process lives: one daemon for one state directory.
    _lock: File,
}

/// How far a stop is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// Not asked for.
    No,
    /// Workers go on without us; they are told what we owe them, until then.
    Leaving(Instant),
    /// Running jobs may go on until then.
    Waiting(Instant),
    /// They were asked to end.
    Cancelled,
    /// At once, whatever runs.
    Now,
}

/// The program.
pub fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        None => {}
        Some("--version" | "-V") => {
            println!("borgcubed {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Some(_) => {
            println!(
                "borgcubed, BorgCube's queue daemon. It takes no arguments; the state directory comes by BORGCUBE_STATE, the control socket\n\
                 by socket activation (otherwise it is made). SIGTERM stops gracefully, a second one sooner; SIGHUP looks at settings and queue.\n\
                 Where the service manager keeps descriptors (FileDescriptorStoreMax=, KillMode=process), SIGTERM leaves the running jobs to the next borgcubed."
            );
            return ExitCode::from(2);
        }
    }
    if let Err(e) = unix::harden::close_inherited() {
        eprintln!("borgcubed: {e}");
        return ExitCode::FAILURE;
    }
    unix::logging::init("borgcubed");
    match start().and_then(Daemon::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            log::error!("{e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Everything up to the moment when calls are answered.
fn start() -> anyhow::Result<Daemon> {
    let (kept, mut handed): (Vec<_>, Vec<_>) = unix::activation::listen_fds()?.into_iter().partition(|(_, name)| name.starts_with("job-"));
    unix::signals::ignore_sigpipe()?;
    // Before anything else, so that a stop during the start is not lost.
    let signals = Signals::new(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP])?;
    let layout = Layout::from_env()?;
    layout.create_directories()?;
    let lock = lock(&layout)?;
    let options = Options::from_env()?;
    let store = Store::open(layout.db()).context("the database cannot be opened")?;
    let settings = settings::load(&store)?;
    let (listener, own_socket) = match handed.is_empty() {
        false => (UnixListener::from(handed.swap_remove(0).0), None),
        true => {
            let path = layout.control_socket();
            (unix::socket::listen(&path, 0o660)?, Some(path))
        }
    };
    listener.set_nonblocking(true)?;
    let watchdog = unix::notify::watchdog_interval().map(|interval| (interval / 2, Instant::now()));
    let mut daemon = Daemon {
        uid: effective_uid()?,
        store,
        layout,
        options,
        settings,
        since: Timestamp::now(),
        signals,
        listener: Some(listener),
        own_socket,
        keeps_workers: unix::fdstore::capacity() > 0,
        accept_at: None,
        connections: BTreeMap::new(),
        last_connection: 0,
        workers: BTreeMap::new(),
        leftovers: vec![],
        unrecorded: BTreeMap::new(),
        queue_changed: true,
        look_again_at: None,
        announced: BTreeSet::new(),
        rates: Rates::default(),
        timers: timers::Timers::default(),
        retry_at: None,
        stop: Stop::No,
        watchdog,
        status: String::new(),
        housekeeping_at: Instant::now() + HOUSEKEEPING,
        complained_at: None,
        _lock: lock,
    };
    daemon.recover(kept)?;
    daemon.write_permanent_keys();
    daemon.sweep_job_keys();
    daemon.sweep_restore_tests();
    unix::notify::ready()?;
    Ok(daemon)
}

/// The user this process acts as.
fn effective_uid() -> anyhow::Result<u32> {
    let status = std::fs::read_to_string("/proc/self/status").context("/proc cannot be read")?;
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().nth(1)?.parse().ok());
    uid.context("/proc/self/status names no user")
}

/// Two daemons would take each other's running jobs for lost ones.
fn lock(layout: &Layout) -> anyhow::Result<File> {
    let path = layout.daemon_lock();
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            anyhow::bail!("another borgcubed serves the state directory {}; stop that one first", layout.state().display())
        }
        Err(std::fs::TryLockError::Error(e)) => Err(e).with_context(|| format!("cannot lock {}", path.display())),
    }
}
