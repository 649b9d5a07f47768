//! `borgcube-worker`: one job, from the queue to its end.
//!
//! It has no database and no repository key: state changes it asks of `borgcubed`, sessions of the repository's owner.
//! [`backup`] reads like the story of a backup; what concerns a repository alone is in [`maintenance`].

mod about;
mod binary;
mod carrier;
mod channel;
mod client;
mod commands;
mod import;
mod keys;
mod maintenance;
mod owner;
mod patience;
pub mod report;
mod restore;
mod restore_test;
mod sandbox;
mod script;
#[cfg(test)]
mod script_hooks;
mod verdict;

use about::About;
use anyhow::{Context, Result, bail};
use binary::{Shelf, Wanted};
use carrier::Carrier;
use channel::Channel;
use client::{Answer, Client, Gate};
use commands::Results;
use keys::JobKey;
use model::client::{BinaryUse, Connection, KeyUse, Road};
use model::progress::{Statistics, Steps};
use model::{Cause, Failure, JobKind, JobState, Timestamp};
use owner::Owner;
use patience::Patience;
use report::{Report, Step};
use script::Way;
pub(crate) use script::quote;
#[cfg(test)]
pub(crate) use script::tests::task as test_task;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};
use unix::paths::{Layout, sibling_program};
use verdict::Evidence;
use wire::session::{self, Prepare, Prepared, Purpose, Served};
use wire::worker::{Backup, Errand, Finished, Task, ToWorker};

/// How often progress and log lines are passed on.
const TICK: Duration = Duration::from_millis(250);

/// Seconds that a client which was asked to end because it took too long has for a checkpoint, unless `BORGCUBE_CANCEL_SECONDS` says otherwise; its
/// script ends borg after a minute.
const TO_END: u64 = 75;

/// Everything that wakes a worker.
#[derive(Debug)]
enum Event {
    /// `borgcubed` says something.
    Control(ToWorker),
    /// `borgcubed` is gone.
    ControlLost,
    /// A line of the client's script.
    Step(Vec<u8>),
    /// A line of the client's borg or of ssh.
    Line(Vec<u8>),
    /// One of the client's two output streams ended.
    Eof,
    /// The second connection to the client came to nothing.
    CarrierLost(String),
    /// The owner says something about an operation on its repository.
    Owner(maintenance::Said),
    /// The thread that imports archives says something.
    Import(import::Said),
    /// The confined process of a restore test says something.
    Sandbox(sandbox::Word),
}

/// The whole life of a worker.
pub fn run() -> Result<()> {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == sandbox::ARGUMENT) {
        return sandbox::main();
    }
    unix::logging::init("borgcube-worker");
    unix::signals::ignore_sigpipe()?;
    let (sender, events) = channel();
    let (fd, _) = unix::activation::listen_fds()?.into_iter().next().context("borgcubed starts workers, people do not")?;
    let layout = Layout::from_env()?;
    let (channel, task) = Channel::open(fd, sender.clone())?;
    let mut worker = Worker::new(channel, events, &task, &layout);

    let result = match &task.errand {
        Errand::Backup(errand) => backup(&mut worker, &layout, &task, errand, sender),
        Errand::Maintenance(operation) => maintenance::run(&mut worker, &layout, &task, operation, sender),
        Errand::Prune(pruning) => maintenance::prune(&mut worker, &layout, &task, pruning, sender),
        Errand::Restore(errand) => restore::run(&mut worker, &layout, &task, errand, sender),
        Errand::Import(errand) => import::run(&mut worker, &layout, &task, errand, sender),
        Errand::RestoreTest(errand) => restore_test::run(&mut worker, &layout, &task, errand, sender),
    };
    let finished = match result {
        Ok(finished) => finished,
        Err(Stop::Failed(failure)) => worker.finished(Some(failure)),
        Err(Stop::Broken(e)) => return Err(e),
    };
    worker.flush()?;
    if unix::logging::has_fields() {
        worker.about.conclude();
    }
    worker.channel.finish(finished)
}

fn to_end() -> Duration {
    let seconds = std::env::var(unix::paths::ENV_CANCEL_SECONDS).ok().and_then(|text| text.parse::<u32>().ok());
    Duration::from_secs(seconds.map_or(TO_END, u64::from))
}

fn expected(errand: &Errand) -> Option<Statistics> {
    match errand {
        Errand::Backup(backup) => backup.expected,
        Errand::Restore(restoring) => restoring.archive,
        Errand::Maintenance(_) | Errand::Prune(_) | Errand::RestoreTest(_) | Errand::Import(_) => None,
    }
}

/// The binaries that the job's client may ask for.
fn shelf(errand: &Errand, layout: &Layout) -> Option<Shelf> {
    let client = match errand {
        Errand::Backup(backup) => Some(&backup.client),
        Errand::Restore(restoring) => Some(&restoring.client),
        Errand::Maintenance(_) | Errand::Prune(_) | Errand::RestoreTest(_) | Errand::Import(_) => None,
    };
    client.filter(|client| client.binary_use() != BinaryUse::Never).map(|_| Shelf::of(layout))
}

/// Why a job stops before its end.
enum Stop {
    /// The job fails, and this is why.
    Failed(Failure),
    /// There is nobody to tell.
    Broken(anyhow::Error),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Failed(failure)
    }
}

impl From<anyhow::Error> for Stop {
    fn from(e: anyhow::Error) -> Stop {
        Stop::Broken(e)
    }
}

fn backup(worker: &mut Worker, layout: &Layout, task: &Task, backup: &Backup, sender: Sender<Event>) -> Result<Finished, Stop> {
    let job = &task.job;
    worker.report.commands = Results::of(&backup.config);
    let commands = &backup.config.commands;
    worker.patience.allow(commands.seconds_before(), commands.seconds_after());
    let start = job.started().unwrap_or_else(Timestamp::now);
    let archive_name = job.archive_name.clone().or_else(|| job.default_archive_name(start)).context("the job makes no archive")?;
    let arguments = backup.config.borg_arguments(&archive_name);

    let mut owner = Owner::connect(layout, task.repository.name.as_str())?;
    let mut cmdline = vec!["borg".to_owned()];
    cmdline.extend(arguments.iter().cloned());
    let prepared =
        owner.prepare(&Prepare { version: session::VERSION, job: job.number, archive_name, cmdline, start, purpose: Purpose::Backup })?;
    worker.note(&format!("the client's view has {} chunks", prepared.view_chunks));
    for warning in &prepared.warnings {
        worker.report.warn(warning.clone(), Timestamp::now());
    }

    let connection = &backup.client.connection;
    let way = way(task, connection, layout, &prepared)?;
    let input = script::build(task, backup, &prepared, &arguments, &way);
    let mut client = Client::start(connection, input, &sender, &worker.gate)?;
    // The threads have their own; the channel must end with them.
    let sender = matches!(way, Way::Carrier).then_some(sender);
    // After a view that was stale, nothing on the client counts.
    let kept = prepared.kept.as_deref().filter(|_| job.retry_of.is_none());
    let carrier = Carriage::of(sender, connection, script::directory(task, connection, &prepared), layout);
    worker.attend(&mut client, &mut Caches { owner: &mut owner, prepared: &prepared, kept, counts: false, carrier })?;
    let ended = client.wait()?;
    // From now on sshd knows the job's key no more.
    drop(way);

    // An owner that ended right after the commit comes back and knows: whether there is an archive decides everything.
    let repository = task.repository.name.as_str();
    let outcome = owner.finish(job.number).or_else(|_| Owner::connect(layout, repository)?.finish(job.number));
    if let Err(failure) = &outcome {
        worker.note(&failure.line());
    }
    let outcome = outcome.ok();
    let evidence = Evidence {
        outcome: outcome.as_ref(),
        report: &worker.report,
        connection: ended,
        cancelled: worker.cancelled.as_deref(),
        over_ssh: matches!(connection, Connection::Ssh(_)),
    };
    let (failure, warning) = verdict::judge(&evidence);
    if let Some(warning) = warning {
        worker.report.warn(warning, Timestamp::now());
    }
    for warning in outcome.iter().filter_map(|o| o.archive.as_ref()).flat_map(|archive| &archive.warnings) {
        worker.report.warn(warning.clone(), Timestamp::now());
    }
    if failure.is_none() {
        worker.advance(JobState::ClientCleanup)?;
    }
    let mut finished = worker.finished(failure);
    if let Some(archive) = outcome.and_then(|o| o.archive) {
        let c = &archive.counters;
        worker.note(&format!(
            "archive {} committed; the client sent {} objects, {} bytes; item stream {} bytes, {} of them new",
            archive.name, c.puts, c.put_bytes, c.item_stream_bytes, c.item_stream_put_bytes
        ));
        finished.statistics = Some(archive.statistics);
        finished.archive = Some(archive.id);
    }
    Ok(finished)
}

/// How the client's borg comes to a session.
fn way(task: &Task, connection: &Connection, layout: &Layout, prepared: &Prepared) -> Result<Way, Failure> {
    Ok(match connection {
        Connection::Local { .. } => {
            let (shim, socket) = (sibling_program("borgcube-proxy"), layout.session_socket());
            Way::Command(format!("{} --socket {}", script::quote(&path(&shim)), script::quote(&path(&socket))))
        }
        Connection::Ssh(ssh) if ssh.road == Road::Carrier => Way::Carrier,
        Connection::Ssh(ssh) if ssh.key == KeyUse::Job => Way::Key(JobKey::make(layout, task.job.number, &prepared.token)?),
        Connection::Ssh(ssh) => {
            Way::Command(ssh.client_rsh.clone().unwrap_or_else(|| "ssh -o BatchMode=yes -o ServerAliveInterval=30".to_owned()))
        }
    })
}

fn path(path: &std::path::Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Where the client's chunks cache comes from.
struct Caches<'a> {
    owner: &'a mut Owner,
    prepared: &'a Prepared,
    /// The mark of a cache that the client may keep.
    kept: Option<&'a str>,
    /// How far the client is, the owner says: it counts what the client reads.
    counts: bool,
    /// On the road of the carrier.
    carrier: Option<Carriage<'a>>,
}

/// What the second connection needs, and that connection when the client is ready for it.
struct Carriage<'a> {
    connection: &'a Connection,
    /// Where the job's files are on the client.
    directory: String,
    socket: std::path::PathBuf,
    /// Until the connection has it.
    events: Option<Sender<Event>>,
    carrier: Option<Carrier>,
}

impl<'a> Carriage<'a> {
    fn of(events: Option<Sender<Event>>, connection: &'a Connection, directory: String, layout: &Layout) -> Option<Carriage<'a>> {
        events.map(|events| Carriage { connection, directory, socket: layout.session_socket(), events: Some(events), carrier: None })
    }
}

/// A job's state as the worker sees it.
struct Worker {
    channel: Channel,
    events: Receiver<Event>,
    /// Bounds what the client's lines take up.
    gate: Arc<Gate>,
    /// Events that arrived while an answer was awaited.
    waiting: VecDeque<Event>,
    kind: JobKind,
    state: JobState,
    /// How far the client is; one that begins anew is back at the beginning.
    seen: JobState,
    /// Until the client has asked for one of them.
    shelf: Option<Shelf>,
    report: Report,
    cancelled: Option<String>,
    patience: Patience,
    about: About,
    /// A `borgcubed` that is restarted finds this worker again.
    outlives: bool,
    /// There is no `borgcubed` any more; the next one will say that the job was lost.
    lost: bool,
}

impl Worker {
    fn new(channel: Channel, events: Receiver<Event>, task: &Task, layout: &Layout) -> Worker {
        Worker {
            channel,
            events,
            gate: Arc::default(),
            waiting: VecDeque::new(),
            kind: task.job.kind(),
            state: task.job.state,
            seen: task.job.state,
            shelf: shelf(&task.errand, layout),
            report: Report::new(expected(&task.errand), task.log_bytes),
            cancelled: None,
            patience: Patience::new(task.start_seconds, task.total_seconds, Instant::now()),
            about: About::of(task),
            outlives: task.outlives,
            lost: false,
        }
    }

    /// Follows the client until both its streams have ended.
    fn attend(&mut self, client: &mut Client, caches: &mut Caches<'_>) -> Result<()> {
        let mut open_streams = 2;
        let mut next_flush = Instant::now() + TICK;
        let mut asked = None;
        while open_streams > 0 {
            let event = match self.waiting.pop_front() {
                Some(event) => Some(event),
                None => match self.events.recv_timeout(next_flush.saturating_duration_since(Instant::now())) {
                    Ok(event) => Some(event),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => break,
                },
            };
            match event {
                Some(Event::Step(line)) => {
                    self.gate.leave(line.len());
                    match self.report.step(&line, Timestamp::now()) {
                        Some(Step::Binary(wanted)) => self.on_binary(&wanted, client),
                        Some(Step::Cache(mark)) => self.on_cache(&mark, client, caches),
                        Some(Step::Prepared) => {
                            self.carry(client, caches);
                            self.on_step(Step::Prepared)?;
                        }
                        Some(step) => self.on_step(step)?,
                        None => {}
                    }
                }
                Some(Event::Line(line)) => {
                    self.gate.leave(line.len());
                    self.report.line(&line, Timestamp::now());
                }
                Some(Event::Eof) => open_streams -= 1,
                Some(Event::CarrierLost(why)) => self.carrier_lost(client, &why),
                Some(Event::Control(ToWorker::Cancel { by })) => {
                    let may = if self.kind == JobKind::Backup { "may write a checkpoint" } else { "ends" };
                    self.note(&format!("cancelled by {by}: borg on the client {may}"));
                    self.cancelled = Some(by);
                    client.ask_to_stop();
                }
                Some(Event::Control(other)) => bail!("borgcubed sent {other:?} out of turn"),
                Some(Event::Import(other)) => bail!("{other:?} in a backup"),
                Some(Event::Owner(other)) => bail!("the owner said {other:?} in a backup"),
                Some(Event::Sandbox(other)) => bail!("a confined process said {other:?}, and none was started"),
                Some(Event::ControlLost) => {
                    client.ask_to_stop();
                    if !self.outlives {
                        bail!("borgcubed is gone");
                    }
                    // It was stopped and not restarted. The client's borg has its minute for a checkpoint.
                    log::warn!("borgcubed was stopped; the client is asked to end");
                    self.lost = true;
                }
                None => {}
            }
            if let Some(asked) = asked {
                if Instant::now() >= asked {
                    self.note("the client does not end: the connection is closed");
                    client.kill();
                    break;
                }
            } else if let Some(why) = self.patience.over(self.seen, Instant::now()) {
                self.note(&why);
                self.report.script_failure.get_or_insert(Failure::new(Cause::TooSlow, why));
                client.ask_to_stop();
                asked = Some(Instant::now() + to_end() + self.patience.beyond());
            }
            if Instant::now() >= next_flush || self.report.is_heavy() {
                if caches.counts
                    && let Some(Served { chunks, of, .. }) = caches.owner.how_far()
                {
                    self.report.steps(Steps { unit: "chunks".into(), done: chunks, total: of }, Timestamp::now());
                }
                self.flush()?;
                next_flush = Instant::now() + TICK;
            }
        }
        match caches.carrier.take().and_then(|carriage| carriage.carrier) {
            Some(carrier) => carrier.end(),
            None => Ok(()),
        }
    }

    /// Whether nobody has it cancelled, for whoever works and does not listen.
    fn goes_on(&mut self) -> bool {
        while let Ok(event) = self.events.try_recv() {
            match event {
                Event::Control(ToWorker::Cancel { by }) => self.cancelled = Some(by),
                other => self.waiting.push_back(other),
            }
        }
        self.cancelled.is_none() && !self.is_control_lost()
    }

    /// Whether `borgcubed` is gone, and nobody has taken note of it.
    fn is_control_lost(&self) -> bool {
        self.waiting.iter().any(|event| matches!(event, Event::ControlLost))
    }

    /// The client has no borg that will do. It is told once.
    fn on_binary(&mut self, wanted: &Wanted, client: &mut Client) {
        let Some(shelf) = self.shelf.take().filter(|_| client.is_waiting()) else { return };
        match shelf.answer(wanted) {
            Ok((reply, note)) => {
                self.note(&note);
                client.answer_binary(reply);
            }
            Err(failure) => {
                self.note(&failure.line());
                self.report.script_failure.get_or_insert(failure);
                client.ask_to_stop();
            }
        }
    }

    /// The client says which chunks cache it has. Whether that is true is its own affair: what it may refer to, the owner decides.
    fn on_cache(&mut self, mark: &str, client: &mut Client, caches: &mut Caches<'_>) {
        if !client.is_waiting() {
            return;
        }
        if caches.kept == Some(mark) {
            self.note(&format!("the client keeps its chunks cache of {} chunks", caches.prepared.view_chunks));
            return client.answer(Answer::Keep);
        }
        match caches.owner.cache() {
            Ok((file, size)) => {
                self.note(&format!("the client gets a chunks cache of {size} bytes"));
                client.answer(Answer::Take(file, size));
            }
            Err(failure) => {
                // Why, the owner says at the end as well.
                self.note(&failure.line());
                client.ask_to_stop();
            }
        }
    }

    /// The client has made its pipes: the second connection begins. A client that says so twice gets no third.
    fn carry(&mut self, client: &mut Client, caches: &mut Caches<'_>) {
        let Some(carriage) = &mut caches.carrier else { return };
        let Some(events) = carriage.events.take() else { return };
        match Carrier::start(carriage.connection, &carriage.directory, &caches.prepared.token, carriage.socket.clone(), &events, &self.gate)
        {
            Ok(carrier) => carriage.carrier = Some(carrier),
            Err(e) => self.carrier_lost(client, &format!("{e:#}")),
        }
    }

    fn carrier_lost(&mut self, client: &mut Client, why: &str) {
        self.note(why);
        self.report.script_failure.get_or_insert(Failure::new(Cause::ClientConnectionFailed, why));
        client.ask_to_stop();
    }

    fn on_step(&mut self, step: Step) -> Result<()> {
        // What was seen before a step is told before it.
        self.flush()?;
        match step {
            Step::Binary(_) | Step::Cache(_) | Step::Command => Ok(()),
            Step::Prepared => self.advance(JobState::ClientPrepared),
            Step::Started => {
                if let Some(version) = self.report.version.clone() {
                    self.note(&format!("the client runs {version}"));
                }
                self.advance(JobState::ClientInProgress)
            }
            Step::Exit(code) => {
                self.note(&format!("borg on the client ended with code {code}"));
                self.advance(JobState::ClientDone)
            }
            Step::Clean => self.advance(JobState::ClientCleanup),
            Step::Failed(_) => Ok(()),
        }
    }

    /// Moves the job along to `to`. A step that the client repeats or leaves out changes nothing it should not.
    fn advance(&mut self, to: JobState) -> Result<()> {
        self.seen = self.seen.max(to);
        while self.state < to
            && let Some(next) = self.state.next(self.kind)
            && !self.lost
        {
            self.channel.update_state(self.state, next, &self.events, &mut self.waiting)?;
            self.state = next;
        }
        Ok(())
    }

    /// The client is about to begin a second time. What was said of the first time counts no more.
    fn begin_again(&mut self, task: &Task, layout: &Layout) {
        // Its threads may still have something to say: shut before what was said is thrown away.
        self.gate.shut();
        self.gate = Arc::default();
        while let Ok(event) = self.events.try_recv() {
            self.waiting.push_back(event);
        }
        self.waiting.retain(|event| matches!(event, Event::Control(_) | Event::ControlLost));
        self.report.again();
        self.seen = task.job.state;
        self.patience.begin_again(Instant::now());
        self.shelf = shelf(&task.errand, layout);
    }

    fn note(&mut self, message: &str) {
        self.report.log(Timestamp::now(), "info", "borgcube", message);
    }

    /// Passes on what has come together.
    fn flush(&mut self) -> Result<()> {
        let lines = self.report.take_lines();
        if unix::logging::has_fields() {
            for line in &lines {
                self.about.tell(line);
            }
        }
        if !lines.is_empty() {
            self.channel.log(lines);
        }
        if let Some(progress) = self.report.progress.take() {
            self.channel.progress(progress);
        }
        Ok(())
    }

    fn finished(&mut self, failure: Option<Failure>) -> Finished {
        if let Some(failure) = &failure {
            let line = if matches!(failure.cause, Cause::Cancelled { .. }) { failure.message.clone() } else { failure.line() };
            self.report.log(Timestamp::now(), "error", "borgcube", &line);
        }
        Finished {
            failure,
            statistics: None,
            archive: None,
            warnings: std::mem::take(&mut self.report.warnings),
            warning_count: self.report.warning_count,
            client_borg: self.report.version.clone(),
            yielded: None,
            tested: None,
            commands: self.report.commands.take_results(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use wire::json;

    impl Worker {
        /// One with a job, `borgcubed`'s end of its socket, and what its events come through.
        pub(super) fn of_test() -> (Worker, Task, UnixStream, Sender<Event>) {
            let (mut theirs, ours) = UnixStream::pair().unwrap();
            let (task, _) = test_task(Connection::Local { remote_borg: None, remote_cache_dir: None });
            theirs.write_all(&json::encode(&ToWorker::Start(Box::new(task))).unwrap()).unwrap();
            let (sender, events) = channel();
            let (channel, task) = Channel::open(ours.into(), sender.clone()).unwrap();
            let layout = Layout::new(std::path::Path::new("/nonexistent"));
            (Worker::new(channel, events, &task, &layout), task, theirs, sender)
        }
    }

    #[test]
    fn a_client_that_begins_again_is_alone() {
        let (mut worker, task, theirs, sender) = Worker::of_test();
        let read = |worker: &Worker, input: Box<dyn std::io::Read + Send>| {
            client::read_lines(input, sender.clone(), worker.gate.clone(), Event::Step, Some(Event::Eof));
        };
        let next = |worker: &Worker| worker.events.recv_timeout(Duration::from_secs(60));
        // The first writes more than may wait, and one line of it is still to come; nobody looks at it.
        let (mut late, input) = UnixStream::pair().unwrap();
        read(&worker, Box::new(input));
        late.write_all(b"early\n").unwrap();
        assert!(matches!(next(&worker), Ok(Event::Step(line)) if line == b"early"));
        read(&worker, Box::new(std::io::Cursor::new(b"flood\n".repeat(200_000))));
        for _ in 0..20_000 {
            let event = next(&worker).unwrap();
            assert!(matches!(event, Event::Step(_)), "{event:?}");
            worker.waiting.push_back(event);
        }
        worker.begin_again(&task, &Layout::new(std::path::Path::new("/nonexistent")));
        assert!(worker.waiting.is_empty());
        // What it says now, and its end, do not count.
        late.write_all(b"late\n").unwrap();
        drop(late);
        read(&worker, Box::new(std::io::Cursor::new(b"second\n".repeat(20_000))));
        drop(sender);
        drop(theirs);
        let (mut lines, mut ends) = (0, 0);
        loop {
            match next(&worker) {
                Ok(Event::Step(line)) => {
                    assert_eq!(line, b"second", "{}", String::from_utf8_lossy(&line));
                    worker.gate.leave(line.len());
                    lines += 1;
                }
                Ok(Event::Eof) => ends += 1,
                Ok(Event::ControlLost) => {}
                Ok(other) => panic!("{other:?}"),
                Err(e) => break assert_eq!(e, RecvTimeoutError::Disconnected),
            }
        }
        assert_eq!((lines, ends), (20_000, 1));
    }
}
