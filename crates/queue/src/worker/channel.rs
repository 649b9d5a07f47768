//! The worker's end of the socket pair to `borgcubed`.
//!
//! Where a service manager keeps the other end, it stays open while `borgcubed` is restarted. Nobody reads then, so a thread writes, and the client
//! goes on. What was not confirmed is kept, and said again when another `borgcubed` has taken over: the one before may have
//! been killed with half a message read.

use super::Event;
use anyhow::{Context, Result, bail};
use model::JobState;
use model::progress::Progress;
use std::collections::VecDeque;
use std::io::{BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use wire::json;
use wire::worker::{Finished, FromWorker, LogLine, Task, ToWorker};

/// Bytes of log lines that may wait for `borgcubed`; then the client has to wait.
const WAITING: usize = 8 << 20;

/// What `borgcubed` is to hear.
#[derive(Debug, Default)]
struct Outbox {
    /// Keep what was sent until it is confirmed.
    outlives: bool,
    here: Option<String>,
    log: VecDeque<(Vec<LogLine>, usize)>,
    log_bytes: usize,
    /// So many of the log are sent.
    log_sent: usize,
    state: Option<(JobState, JobState)>,
    state_sent: bool,
    progress: Option<Progress>,
    finished: Option<Box<Finished>>,
    finished_sent: bool,
    /// The last message is written, or recorded if that is waited for.
    over: bool,
    cancelled: Option<String>,
    lost: bool,
}

impl Outbox {
    /// What to say next. The last message says nothing of what it was before it has been written, see [`Outbox::said`].
    fn next(&mut self) -> Option<FromWorker> {
        if let Some(mark) = self.here.take() {
            return Some(FromWorker::Here { mark, cancelled: self.cancelled.clone() });
        }
        if self.outlives {
            if let Some((lines, _)) = self.log.get(self.log_sent) {
                self.log_sent += 1;
                return Some(FromWorker::Log(lines.clone()));
            }
        } else if let Some((lines, bytes)) = self.log.pop_front() {
            self.log_bytes -= bytes;
            return Some(FromWorker::Log(lines));
        }
        if let Some((previous, to)) = self.state.filter(|_| !self.state_sent) {
            self.state_sent = true;
            return Some(FromWorker::UpdateState { previous, to });
        }
        if let Some(progress) = self.progress.take() {
            return Some(FromWorker::Progress(progress));
        }
        let finished = self.finished.clone().filter(|_| !self.finished_sent)?;
        self.finished_sent = true;
        Some(FromWorker::Finished(finished))
    }

    /// A message is written.
    fn said(&mut self, last: bool) {
        self.over |= last && !self.outlives;
    }

    /// `borgcubed` says something that concerns what it was told. True: others are to hear of it as well.
    fn heard(&mut self, message: &ToWorker) -> bool {
        match message {
            ToWorker::Logged => {
                if let Some((_, bytes)) = self.log.pop_front() {
                    self.log_bytes -= bytes;
                    self.log_sent = self.log_sent.saturating_sub(1);
                }
                false
            }
            ToWorker::Recorded => {
                self.over = true;
                false
            }
            ToWorker::Adopted { mark } => {
                self.here = Some(mark.clone());
                (self.log_sent, self.state_sent, self.finished_sent) = (0, false, false);
                false
            }
            ToWorker::State { .. } => {
                self.state = None;
                true
            }
            ToWorker::Cancel { by } => {
                self.cancelled.get_or_insert_with(|| by.clone());
                true
            }
            ToWorker::Start(_) => true,
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    outbox: Mutex<Outbox>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, outbox: MutexGuard<'a, Outbox>) -> MutexGuard<'a, Outbox> {
        self.changed.wait(outbox).unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Outbox)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

/// Writes to `borgcubed`; what it says arrives as events.
pub struct Channel {
    shared: Arc<Shared>,
}

impl Channel {
    /// Takes the descriptor that `borgcubed` passed, and waits for the job.
    pub fn open(fd: OwnedFd, events: Sender<Event>) -> Result<(Channel, Task)> {
        let stream = UnixStream::from(fd);
        let mut input = BufReader::new(stream.try_clone()?);
        let task = match json::read(&mut input).context("borgcubed gave no job")? {
            ToWorker::Start(task) => *task,
            other => bail!("borgcubed began with {other:?} instead of a job"),
        };
        let shared = Arc::new(Shared::default());
        shared.change(|outbox| outbox.outlives = task.outlives);
        let (reading, writing) = (Arc::clone(&shared), Arc::clone(&shared));
        std::thread::spawn(move || {
            listen(&mut input, &reading, &events);
            reading.change(|outbox| outbox.lost = true);
        });
        std::thread::spawn(move || {
            if let Err(e) = talk(stream, &writing) {
                log::debug!("borgcubed hears nothing more: {e}");
                writing.change(|outbox| outbox.lost = true);
            }
        });
        Ok((Channel { shared }, task))
    }

    /// Has log lines written. Waits only if there is very much before them. That nobody reads them any more, an event tells.
    pub fn log(&mut self, lines: Vec<LogLine>) {
        let bytes = lines.iter().map(|line| line.message.len() + 64).sum();
        let mut outbox = self.shared.lock();
        while outbox.log_bytes > WAITING && !outbox.lost {
            outbox = self.shared.wait(outbox);
        }
        outbox.log.push_back((lines, bytes));
        outbox.log_bytes += bytes;
        self.sent(outbox);
    }

    /// Tells how far the client is; what was not sent before counts for nothing.
    pub fn progress(&mut self, progress: Progress) {
        let mut outbox = self.shared.lock();
        outbox.progress = Some(progress);
        self.sent(outbox);
    }

    fn sent(&self, outbox: MutexGuard<'_, Outbox>) {
        self.shared.changed.notify_all();
        drop(outbox);
    }

    /// Says how the job ended, and waits until that is known.
    pub fn finish(self, finished: Finished) -> Result<()> {
        let mut outbox = self.shared.lock();
        outbox.finished = Some(Box::new(finished));
        self.shared.changed.notify_all();
        while !outbox.over {
            if outbox.lost {
                bail!("borgcubed is gone; it will say of this job that it was lost");
            }
            outbox = self.shared.wait(outbox);
        }
        Ok(())
    }

    /// Asks for a state change and waits for the answer. Other events meanwhile go to `other`, also that `borgcubed` is gone.
    pub fn update_state(&mut self, previous: JobState, to: JobState, events: &Receiver<Event>, other: &mut VecDeque<Event>) -> Result<()> {
        self.shared.change(|outbox| (outbox.state, outbox.state_sent) = (Some((previous, to)), false));
        loop {
            match events.recv()? {
                Event::Control(ToWorker::State { refused: None }) => return Ok(()),
                Event::Control(ToWorker::State { refused: Some(why) }) => bail!("borgcubed refused the state {to}: {why}"),
                Event::ControlLost => {
                    other.push_back(Event::ControlLost);
                    return Ok(());
                }
                event => other.push_back(event),
            }
        }
    }
}

/// Until `borgcubed` is gone for good.
fn listen(input: &mut BufReader<UnixStream>, shared: &Shared, events: &Sender<Event>) {
    loop {
        let message: ToWorker = match json::read(input) {
            Ok(message) => message,
            // Half a message: whoever began it was killed. The next one begins with what ends this one.
            Err(wire::WireError::Malformed(e)) => {
                log::debug!("borgcubed said something that means nothing: {e}");
                continue;
            }
            Err(_) => break,
        };
        let mut forward = false;
        shared.change(|outbox| forward = outbox.heard(&message));
        if forward && events.send(Event::Control(message)).is_err() {
            return;
        }
    }
    drop(events.send(Event::ControlLost));
}

fn talk(mut stream: UnixStream, shared: &Shared) -> Result<()> {
    loop {
        let message = {
            let mut outbox = shared.lock();
            loop {
                if outbox.lost {
                    return Ok(());
                }
                match outbox.next() {
                    Some(message) => break message,
                    None => outbox = shared.wait(outbox),
                }
            }
        };
        stream.write_all(&json::encode(&message)?)?;
        shared.change(|outbox| outbox.said(matches!(message, FromWorker::Finished(_))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Timestamp;

    fn line(message: &str) -> Vec<LogLine> {
        vec![LogLine { time: Timestamp(0), level: "info".into(), source: "borg".into(), message: message.into() }]
    }

    fn all(outbox: &mut Outbox) -> Vec<String> {
        let name = |message| match message {
            FromWorker::Here { mark, .. } => format!("here {mark}"),
            FromWorker::Log(lines) => lines[0].message.clone(),
            FromWorker::UpdateState { to, .. } => to.to_string(),
            FromWorker::Progress(_) => "progress".into(),
            FromWorker::Finished(_) => "finished".into(),
        };
        std::iter::from_fn(|| outbox.next().map(name)).collect()
    }

    fn outbox(outlives: bool) -> Outbox {
        let log = [(line("a"), 1), (line("b"), 1)].into();
        let state = Some((JobState::ClientPreparing, JobState::ClientPrepared));
        Outbox { outlives, log, log_bytes: 2, state, progress: Some(Progress::default()), ..Outbox::default() }
    }

    #[test]
    fn what_was_not_confirmed_is_said_again() {
        let mut outbox = outbox(true);
        assert_eq!(all(&mut outbox), ["a", "b", "client_prepared", "progress"]);
        outbox.heard(&ToWorker::Logged);
        outbox.heard(&ToWorker::Adopted { mark: "m".into() });
        assert_eq!(all(&mut outbox), ["here m", "b", "client_prepared"]);
        assert!(outbox.heard(&ToWorker::State { refused: None }));
        outbox.heard(&ToWorker::Logged);
        outbox.heard(&ToWorker::Adopted { mark: "n".into() });
        assert_eq!(all(&mut outbox), ["here n"]);
        assert_eq!((outbox.log_bytes, outbox.log_sent), (0, 0));
        let finished = Finished {
            failure: None,
            statistics: None,
            archive: None,
            warnings: vec![],
            warning_count: 0,
            yielded: None,
            tested: None,
            commands: vec![],
            client_borg: None,
        };
        outbox.finished = Some(Box::new(finished));
        assert_eq!(all(&mut outbox), ["finished"]);
        outbox.said(true);
        assert!(!outbox.over);
        outbox.heard(&ToWorker::Adopted { mark: "o".into() });
        assert_eq!(all(&mut outbox), ["here o", "finished"]);
        outbox.heard(&ToWorker::Recorded);
        assert!(outbox.over);
    }

    #[test]
    fn without_a_successor_nothing_is_kept() {
        let mut outbox = outbox(false);
        assert_eq!(all(&mut outbox), ["a", "b", "client_prepared", "progress"]);
        assert_eq!((outbox.log_bytes, outbox.log.len()), (0, 0));
        outbox.said(true);
        assert!(outbox.over);
    }

    #[test]
    fn who_is_cancelled_tells_the_successor_by_whom() {
        let mut outbox = Outbox { outlives: true, ..Outbox::default() };
        assert!(outbox.heard(&ToWorker::Cancel { by: "root".into() }));
        outbox.heard(&ToWorker::Adopted { mark: "m".into() });
        assert!(matches!(outbox.next(), Some(FromWorker::Here { cancelled: Some(by), .. }) if by == "root"));
    }
}
