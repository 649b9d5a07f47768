//! The worker's end of the socket pair to `borgcubed`.

use super::Event;
use anyhow::{Context, Result, bail};
use model::JobState;
use std::collections::VecDeque;
use std::io::BufReader;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender};
use wire::json;
use wire::worker::{FromWorker, Task, ToWorker};

/// Writes to `borgcubed`; what it says arrives as events.
pub struct Channel {
    stream: UnixStream,
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
        std::thread::spawn(move || {
            loop {
                let event = match json::read(&mut input) {
                    Ok(message) => Event::Control(message),
                    Err(_) => Event::ControlLost,
                };
                let last = matches!(event, Event::ControlLost);
                if events.send(event).is_err() || last {
                    return;
                }
            }
        });
        Ok((Channel { stream }, task))
    }

    /// Sends one message.
    pub fn send(&mut self, message: &FromWorker) -> Result<()> {
        json::write(&mut self.stream, message).context("borgcubed is gone")
    }

    /// Asks for a state change and waits for the answer. Other events meanwhile go to `other`.
    pub fn update_state(&mut self, previous: JobState, to: JobState, events: &Receiver<Event>, other: &mut VecDeque<Event>) -> Result<()> {
        self.send(&FromWorker::UpdateState { previous, to })?;
        loop {
            match events.recv()? {
                Event::Control(ToWorker::State { refused: None }) => return Ok(()),
                Event::Control(ToWorker::State { refused: Some(why) }) => bail!("borgcubed refused the state {to}: {why}"),
                Event::ControlLost => bail!("borgcubed is gone"),
                event => other.push_back(event),
            }
        }
    }
}
