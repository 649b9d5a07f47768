//! Worker processes: started with a socket pair, watched by their pidfds, listened to with suspicion.

use super::channel::Channel;
use super::ending::{Ending, Step};
use super::joblog::{self, JobLog};
use super::settings::Options;
use model::progress::{Progress, Statistics};
use model::queue::Brief;
use model::{Cause, Failure, JobState};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use unix::Signal;
use unix::paths::{ENV_CREDENTIALS, ENV_KEPT};
use unix::pidfd::{PidFd, kill_group};
use unix::spawn::Spawn;
use wire::worker::{Errand, Finished, FromWorker, LogLine, Task, ToWorker};

/// Longest message of a worker.
const MAX_MESSAGE: usize = 2 * 1024 * 1024;
/// More that a worker does not fetch means that it does not listen.
const MAX_WAITING: usize = 4 * 1024 * 1024;
/// A worker gives up after one refused state change; one that goes on is broken.
const MAX_REFUSED: u32 = 3;
/// How long a worker may live on without its socket or after its last message.
const GRACE: Duration = Duration::from_secs(15);
/// How long the service manager may take to read that it keeps a worker: nobody else is served meanwhile.
const ARRIVAL: Duration = Duration::from_secs(2);
/// At most so often watchers hear of progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// One running worker.
#[derive(Debug)]
pub struct Worker {
    /// What the queue's rules look at.
    pub brief: Brief,
    process: Process,
    /// What the service manager keeps for our successor has this worker's descriptors.
    kept: bool,
    /// Taken over from a daemon before us: what it says counts from its answer to this on.
    awaited: Option<String>,
    channel: Option<Channel>,
    log: Option<JobLog>,
    /// What the job's watchers saw last.
    pub progress: Option<Progress>,
    last_progress: Option<Instant>,
    /// What the config's last archive held.
    expected: Option<Statistics>,
    /// A state change that the worker waits for because the database could not be written.
    pub pending: Option<(JobState, JobState)>,
    refused: u32,
    ending: Ending,
    /// Who wants the job cancelled.
    pub cancelled_by: Option<String>,
    /// Its last message came.
    pub finished: bool,
    /// What it did wrong.
    fault: Option<String>,
    /// How long it may take to end when it is cancelled.
    patience: Duration,
    /// What hooks after the backup may take besides.
    beyond: Duration,
}

/// A worker's process: our child, or that of a daemon before us.
#[derive(Debug)]
struct Process {
    pid: i32,
    pidfd: PidFd,
    is_child: bool,
}

/// Where the service manager keeps what belongs to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Our end of the socket pair.
    Socket,
    /// The process.
    Pidfd,
}

impl Part {
    /// The name of a kept descriptor.
    pub fn name(self, job: u64) -> String {
        match self {
            Part::Socket => format!("job-{job}-socket"),
            Part::Pidfd => format!("job-{job}-process"),
        }
    }

    /// What a kept descriptor is; None if it is none of ours.
    pub fn of(name: &str) -> Option<(u64, Part)> {
        let (job, part) = name.strip_prefix("job-")?.split_once('-')?;
        let part = match part {
            "socket" => Part::Socket,
            "process" => Part::Pidfd,
            _ => return None,
        };
        Some((job.parse().ok()?, part))
    }
}

/// Nobody needs the descriptors of that job any more.
pub fn forget(job: u64) {
    for part in [Part::Socket, Part::Pidfd] {
        if let Err(e) = unix::fdstore::forget(&part.name(job)) {
            log::warn!("job {job}: {e}");
        }
    }
}

/// What a worker wants from the daemon.
#[derive(Debug, PartialEq)]
pub enum Wish {
    /// A state change.
    UpdateState {
        /// Where it believes the job to be.
        previous: JobState,
        /// Where it is to go.
        to: JobState,
    },
    /// Watchers are to hear of progress.
    Progress(Progress),
    /// The job's log grew.
    Logged,
    /// The job has ended.
    Finished(Box<Finished>),
}

/// What a log may have beside the client's lines: the worker counts those, and this is there in case it does not.
const BESIDE: u64 = 1 << 20;

impl Worker {
    /// Starts the program for `task`; its first message is under way. With `keep`, the service manager keeps it for our successor.
    pub fn start(options: &Options, log_path: &Path, mut task: Task, keep: bool) -> anyhow::Result<Worker> {
        let (ours, theirs) = UnixStream::pair()?;
        let brief = Brief::from(&task.job);
        // Before it runs: a worker that nobody finds again has to see the end of its socket.
        let kept = keep && is_kept(brief.number, Part::Socket, ours.as_fd());
        let channel = Channel::new(ours, MAX_MESSAGE)?;
        let spawned = Spawn::new(&options.worker)
            .arg(brief.number.to_string())
            .keep_env(ENV_KEPT)
            .keep_env(&[ENV_CREDENTIALS])
            .fd(theirs.as_fd(), "worker")
            .stderr(unix::spawn::Stdio::Inherit)
            .spawn();
        let child = spawned.inspect_err(|_| {
            if kept {
                forget(brief.number)
            }
        })?;
        drop(theirs);
        // It does nothing before it has its task. So whoever finds a socket alone finds a worker that has not begun, and ends with it.
        let kept = kept
            && (is_whole(brief.number, child.pidfd.as_fd()) || {
                forget(brief.number);
                false
            });
        task.outlives = kept;
        let process = Process { pid: child.pid, pidfd: child.pidfd, is_child: true };
        let log = open_log(log_path, brief.number, task.log_bytes);
        let mut worker = Worker::new(brief, process, channel, log);
        worker.kept = kept;
        worker.expected = match &task.errand {
            Errand::Backup(backup) => backup.expected,
            Errand::Restore(restoring) => restoring.archive,
            Errand::Maintenance(_) | Errand::Prune(_) | Errand::RestoreTest(_) | Errand::Import(_) => None,
        };
        if let Errand::Backup(backup) = &task.errand {
            worker.beyond = Duration::from_secs(backup.config.commands.seconds_after());
        }
        worker.send(&ToWorker::Start(Box::new(task)));
        Ok(worker)
    }

    /// Takes over a worker that a daemon before us has started.
    pub fn adopt(
        options: &Options,
        brief: Brief,
        (socket, pidfd): (OwnedFd, OwnedFd),
        log_path: &Path,
        log_bytes: u64,
    ) -> anyhow::Result<Worker> {
        let pidfd = PidFd::from_fd(pidfd);
        // One that has ended meanwhile has no number any more, and nobody to be signalled.
        let pid = pidfd.pid().unwrap_or(0);
        let channel = Channel::new(UnixStream::from(socket), MAX_MESSAGE)?;
        let log = open_log(log_path, brief.number, log_bytes);
        let mut worker = Worker::new(brief, Process { pid, pidfd, is_child: false }, channel, log);
        worker.kept = true;
        worker.patience = options.cancel;
        let mark = unix::random::hex(8)?;
        worker.awaited = Some(mark.clone());
        if let Some(channel) = &mut worker.channel {
            channel.begin_anew();
        }
        worker.send(&ToWorker::Adopted { mark });
        Ok(worker)
    }

    fn new(brief: Brief, process: Process, channel: Channel, log: Option<JobLog>) -> Worker {
        Worker {
            brief,
            process,
            kept: false,
            awaited: None,
            channel: Some(channel),
            log,
            progress: None,
            last_progress: None,
            expected: None,
            pending: None,
            refused: 0,
            ending: Ending::default(),
            cancelled_by: None,
            finished: false,
            fault: None,
            patience: GRACE,
            beyond: Duration::ZERO,
        }
    }

    /// Whether everything that we have to say is said.
    pub fn is_told(&self) -> bool {
        self.channel.as_ref().is_none_or(|channel| channel.waiting() == 0)
    }

    /// Whether it goes on without us.
    pub fn outlives(&self) -> bool {
        self.kept && self.channel.is_some()
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.process.pid
    }

    /// Readable when it has ended.
    pub fn pidfd(&self) -> &unix::pidfd::PidFd {
        &self.process.pidfd
    }

    /// Its socket, while that is open.
    pub fn channel(&self) -> Option<&Channel> {
        self.channel.as_ref()
    }

    /// When [`Worker::press`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.ending.deadline()
    }

    fn send(&mut self, message: &ToWorker) {
        let Some(channel) = &mut self.channel else { return };
        // A broken socket shows at the next read.
        if let Err(e) = channel.send(message) {
            log::debug!("job {}: {e}", self.brief.number);
        }
        if channel.waiting() > MAX_WAITING {
            self.misbehaved("it does not read its messages");
        }
    }

    /// Answers a state change.
    pub fn answer_state(&mut self, refused: Option<String>) {
        self.refused += u32::from(refused.is_some());
        self.send(&ToWorker::State { refused });
        if self.refused > MAX_REFUSED {
            self.misbehaved("it goes on with state changes that were refused");
        }
    }

    /// Asks it to end the job; after `patience` it is made to.
    pub fn cancel(&mut self, by: &str, patience: Duration, now: Instant) {
        if self.cancelled_by.is_none() {
            self.cancelled_by = Some(by.to_owned());
            self.send(&ToWorker::Cancel { by: by.to_owned() });
            self.note(&joblog::line("info", format!("cancelled by {by}")));
        }
        self.ending.expect_by(now + patience + self.beyond);
    }

    /// Its program breaks the protocol: it is ended without further words.
    fn misbehaved(&mut self, how: &str) {
        if self.fault.is_some() {
            return;
        }
        log::error!(event = "worker-misbehaves", job = self.brief.number; "job {}: the worker misbehaves: {how}", self.brief.number);
        self.fault = Some(how.to_owned());
        self.channel = None;
        self.ending.expect_by(Instant::now());
    }

    /// Carries out what is due on its way to the end.
    pub fn press(&mut self, now: Instant) {
        while let Some(step) = self.ending.due(now) {
            let signal = match step {
                Step::Terminate => Signal::SIGTERM,
                Step::Kill => Signal::SIGKILL,
            };
            log::warn!(event = "worker-misbehaves", job = self.brief.number; "job {}: sending {signal} to the worker's process group", self.brief.number);
            // Not reaped yet, so the number still is this group's. Init reaps those of a daemon before us: they are asked whether they live.
            let lives = self.process.is_child || matches!(self.process.pidfd.has_ended(), Ok(false));
            if lives && let Err(e) = kill_group(self.process.pid, signal) {
                log::error!("job {}: {e}", self.brief.number);
            }
        }
    }

    /// Sends and reads what the socket has, and says what the worker wants.
    pub fn listen(&mut self, now: Instant) -> Vec<Wish> {
        let mut wishes = vec![];
        let Some(channel) = &mut self.channel else { return wishes };
        let moved = channel.flush().and_then(|()| channel.fill());
        // What arrived before an error counts.
        while let Some(channel) = &mut self.channel {
            if let Some(mark) = &self.awaited {
                match channel.next_document() {
                    Ok(Some(document)) => {
                        if let Ok(FromWorker::Here { mark: answer, cancelled }) = wire::json::decode(&document)
                            && answer == *mark
                        {
                            self.here(cancelled, now);
                        }
                    }
                    Ok(None) => break,
                    Err(e) => self.misbehaved(&e.to_string()),
                }
                continue;
            }
            match channel.next_document().and_then(|document| document.map(|d| wire::json::decode(&d)).transpose()) {
                Ok(Some(message)) => wishes.extend(self.take(message, now)),
                Ok(None) => break,
                Err(e) => self.misbehaved(&e.to_string()),
            }
        }
        let over = moved.is_err() || self.channel.as_ref().is_some_and(Channel::ended);
        if over {
            self.channel = None;
            self.ending.expect_by(now + GRACE);
        }
        wishes
    }

    /// It has heard that we have taken over, and begins anew.
    fn here(&mut self, cancelled: Option<String>, now: Instant) {
        log::info!("job {}: its worker goes on", self.brief.number);
        self.awaited = None;
        if let Some(by) = cancelled {
            self.cancelled_by = Some(by);
            self.ending.expect_by(now + self.patience);
        }
    }

    /// The job's end is in the database: the worker may end as well.
    pub fn recorded(&mut self, now: Instant) {
        if self.kept && self.finished {
            self.send(&ToWorker::Recorded);
            self.ending.expect_by(now + GRACE);
        }
    }

    fn take(&mut self, message: FromWorker, now: Instant) -> Option<Wish> {
        if self.finished {
            self.misbehaved("it talks on after its last message");
            return None;
        }
        match message {
            FromWorker::UpdateState { previous, to } => {
                if self.pending.is_some() {
                    self.misbehaved("it asks for a state change before the one before is answered");
                    return None;
                }
                Some(Wish::UpdateState { previous, to })
            }
            FromWorker::Progress(mut progress) => {
                joblog::cut(&mut progress.path, 4096);
                progress.expected = progress.expected.or(self.expected);
                self.progress = Some(progress.clone());
                if self.last_progress.is_some_and(|last| now < last + PROGRESS_EVERY) {
                    return None;
                }
                self.last_progress = Some(now);
                Some(Wish::Progress(progress))
            }
            FromWorker::Log(lines) => {
                self.log_with(|log| log.write(lines));
                if self.kept {
                    self.send(&ToWorker::Logged);
                }
                Some(Wish::Logged)
            }
            FromWorker::Finished(finished) => {
                self.finished = true;
                if !self.kept {
                    self.ending.expect_by(now + GRACE);
                }
                Some(Wish::Finished(finished))
            }
            FromWorker::Here { .. } => {
                self.misbehaved("it answers what nobody asked");
                None
            }
        }
    }

    /// Appends a line of the daemon's own to the job's log.
    pub fn note(&mut self, line: &LogLine) {
        self.log_with(|log| log.note(line));
    }

    fn log_with(&mut self, write: impl FnOnce(&mut JobLog) -> std::io::Result<()>) {
        let Some(log) = &mut self.log else { return };
        if let Err(e) = write(log) {
            log::warn!("job {}: its log cannot be written: {e}", self.brief.number);
        }
    }

    /// Reaps it, once its pidfd says that it has ended, and says how. None: not yet.
    pub fn reap(&mut self) -> Option<String> {
        let status = if self.process.is_child {
            self.process.pidfd.try_wait().map(|status| status.map(|status| status.to_string()))
        } else {
            // Init knows how.
            self.process.pidfd.has_ended().map(|ended| ended.then(|| "ended".to_owned()))
        };
        let status = status.unwrap_or_else(|e| {
            log::error!("job {}: {e}", self.brief.number);
            Some("ended".to_owned())
        });
        if self.kept && status.is_some() {
            forget(self.brief.number);
        }
        status
    }

    /// How a job ends whose worker ended, as `status` says, and without a last message.
    pub fn end_without_result(&self, status: &str) -> (JobState, Failure) {
        if let Some(by) = &self.cancelled_by {
            let message = format!("cancelled by {by}; its worker {status} before it had cleaned up");
            return (JobState::Cancelled, Failure::new(Cause::Cancelled { by: by.clone() }, message));
        }
        if self.awaited.is_some() {
            let message = format!("borgcubed was restarted, and meanwhile the job's worker {status}");
            return (JobState::Failed, Failure::new(Cause::BorgcubedRestart, message));
        }
        let message = match &self.fault {
            Some(fault) => format!("the job's worker misbehaved: {fault}; it {status}"),
            None => format!("the job's worker {status} without a result"),
        };
        (JobState::Failed, Failure::new(Cause::WorkerCrashed, unix::logging::escape(&message)))
    }
}

/// Gives a descriptor to the service manager. Whatever happens then, a job that is not kept ends with us.
fn is_kept(job: u64, part: Part, fd: BorrowedFd<'_>) -> bool {
    match unix::fdstore::keep(&part.name(job), fd) {
        Ok(()) => true,
        Err(e) => {
            log::warn!("job {job}: a restart of borgcubed will end it: {e}");
            false
        }
    }
}

/// The same of its process. Only what the service manager has read can be relied upon: we may be killed at any moment.
fn is_whole(job: u64, pidfd: BorrowedFd<'_>) -> bool {
    if !is_kept(job, Part::Pidfd, pidfd) {
        return false;
    }
    match unix::fdstore::barrier(ARRIVAL) {
        Ok(true) => true,
        Ok(false) => {
            log::warn!("job {job}: a restart of borgcubed will end it: the service manager does not answer");
            false
        }
        Err(e) => {
            log::warn!("job {job}: a restart of borgcubed will end it: {e}");
            false
        }
    }
}

fn open_log(path: &Path, job: u64, log_bytes: u64) -> Option<JobLog> {
    JobLog::with_cap(path, log_bytes.saturating_mul(2).saturating_add(BESIDE))
        .inspect_err(|e| log::warn!("job {job}: {} cannot be written: {e}", path.display()))
        .ok()
}

/// The last message of a worker, cut to what a record holds.
pub fn bounded(mut finished: Finished) -> Finished {
    finished.warnings.truncate(model::Job::MAX_WARNINGS);
    for warning in &mut finished.warnings {
        joblog::cut(warning, 1000);
    }
    if let Some(borg) = &mut finished.client_borg {
        joblog::cut(borg, 100);
    }
    finished.archive = finished.archive.filter(|id| id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()));
    if let Some(tested) = &mut finished.tested {
        joblog::cut(&mut tested.what, 1000);
        tested.files.truncate(model::restore_test::TestRecord::MOST);
        let is_hash = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        tested.files.retain(|known| [&known.path, &known.item, &known.content, &known.archive].into_iter().all(|text| is_hash(text)));
    }
    finished.failure = finished.failure.map(|failure| Failure::new(failure.cause, failure.message));
    finished
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_descriptors_have_names() {
        for part in [Part::Socket, Part::Pidfd] {
            assert_eq!(Part::of(&part.name(17)), Some((17, part)));
        }
        for other in ["control", "job-", "job-1", "job-x-socket", "job-1-other", "borgcubed.socket"] {
            assert_eq!(Part::of(other), None, "{other}");
        }
    }

    #[test]
    fn a_last_message_is_cut_to_measure() {
        let finished = Finished {
            failure: Some(Failure { cause: Cause::Internal, message: "a\nb".repeat(5000) }),
            statistics: None,
            archive: Some("../../etc/passwd".into()),
            warnings: vec!["ü".repeat(5000); 100],
            warning_count: 100,
            client_borg: Some("borg 1.4.5".repeat(1000)),
            yielded: None,
            tested: None,
            commands: vec![],
        };
        let finished = bounded(finished);
        assert_eq!(finished.archive, None);
        assert_eq!(finished.warnings.len(), model::Job::MAX_WARNINGS);
        assert!(finished.warnings.iter().all(|w| w.len() <= 1003));
        let message = finished.failure.unwrap().message;
        assert!(message.len() < 1100 && !message.contains('\n'));
        assert!(finished.client_borg.unwrap().len() < 110);
    }
}
