//! Worker processes: started with a socket pair, watched by their pidfds, listened to with suspicion.

use super::channel::Channel;
use super::ending::{Ending, Step};
use super::joblog::{self, JobLog};
use super::settings::Options;
use model::progress::{Progress, Statistics};
use model::queue::Brief;
use model::{Cause, Failure, JobState};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use unix::Signal;
use unix::paths::ENV_KEPT;
use unix::pidfd::ExitStatus;
use unix::spawn::{Child, Spawn};
use wire::worker::{Finished, FromWorker, LogLine, Task, ToWorker};

/// Longest message of a worker.
const MAX_MESSAGE: usize = 2 * 1024 * 1024;
/// More that a worker does not fetch means that it does not listen.
const MAX_WAITING: usize = 4 * 1024 * 1024;
/// A worker gives up after one refused state change; one that goes on is broken.
const MAX_REFUSED: u32 = 3;
/// How long a worker may live on without its socket or after its last message.
const GRACE: Duration = Duration::from_secs(15);
/// At most so often watchers hear of progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// One running worker.
#[derive(Debug)]
pub struct Worker {
    /// What the queue's rules look at.
    pub brief: Brief,
    child: Child,
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
    /// Starts the program for `task`; its first message is under way.
    pub fn start(options: &Options, log_path: &Path, task: Task) -> anyhow::Result<Worker> {
        let (ours, theirs) = UnixStream::pair()?;
        let channel = Channel::new(ours, MAX_MESSAGE)?;
        let brief = Brief::from(&task.job);
        let child = Spawn::new(&options.worker)
            .arg(brief.number.to_string())
            .keep_env(ENV_KEPT)
            .fd(theirs.as_fd(), "worker")
            .stderr(unix::spawn::Stdio::Inherit)
            .spawn()?;
        drop(theirs);
        let log = JobLog::with_cap(log_path, task.log_bytes.saturating_mul(2).saturating_add(BESIDE))
            .inspect_err(|e| log::warn!("job {}: {} cannot be written: {e}", brief.number, log_path.display()));
        let mut worker = Worker {
            brief,
            child,
            channel: Some(channel),
            log: log.ok(),
            progress: None,
            last_progress: None,
            expected: task.expected,
            pending: None,
            refused: 0,
            ending: Ending::default(),
            cancelled_by: None,
            finished: false,
            fault: None,
        };
        worker.send(&ToWorker::Start(Box::new(task)));
        Ok(worker)
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.child.pid
    }

    /// Readable when it has ended.
    pub fn pidfd(&self) -> &unix::pidfd::PidFd {
        &self.child.pidfd
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
        self.ending.expect_by(now + patience);
    }

    /// Its program breaks the protocol: it is ended without further words.
    fn misbehaved(&mut self, how: &str) {
        if self.fault.is_some() {
            return;
        }
        log::error!("job {}: the worker misbehaves: {how}", self.brief.number);
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
            log::warn!("job {}: sending {signal} to the worker's process group", self.brief.number);
            // Not reaped yet, so the number still is this group's.
            if let Err(e) = self.child.kill_group(signal) {
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
                Some(Wish::Logged)
            }
            FromWorker::Finished(finished) => {
                self.finished = true;
                self.ending.expect_by(now + GRACE);
                Some(Wish::Finished(finished))
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

    /// Reaps it, once its pidfd says that it has ended.
    pub fn reap(&mut self) -> Option<ExitStatus> {
        match self.child.pidfd.try_wait() {
            Ok(status) => status,
            Err(e) => {
                log::error!("job {}: {e}", self.brief.number);
                Some(ExitStatus::Exited(-1))
            }
        }
    }

    /// How a job ends whose worker ended with `status` and without a last message.
    pub fn end_without_result(&self, status: ExitStatus) -> (JobState, Failure) {
        if let Some(by) = &self.cancelled_by {
            let message = format!("cancelled by {by}; its worker {status} before it had cleaned up");
            return (JobState::Cancelled, Failure::new(Cause::Cancelled { by: by.clone() }, message));
        }
        let message = match &self.fault {
            Some(fault) => format!("the job's worker misbehaved: {fault}; it {status}"),
            None => format!("the job's worker {status} without a result"),
        };
        (JobState::Failed, Failure::new(Cause::WorkerCrashed, unix::logging::escape(&message)))
    }
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
    finished.failure = finished.failure.map(|failure| Failure::new(failure.cause, failure.message));
    finished
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_last_message_is_cut_to_measure() {
        let finished = Finished {
            failure: Some(Failure { cause: Cause::Internal, message: "a\nb".repeat(5000) }),
            statistics: None,
            archive: Some("../../etc/passwd".into()),
            warnings: vec!["ü".repeat(5000); 100],
            warning_count: 100,
            client_borg: Some("borg 1.4.5".repeat(1000)),
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
