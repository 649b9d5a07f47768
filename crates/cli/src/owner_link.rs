//! The socket of a repository's owner, seen from a person: one request for maintenance on each connection. Closing it ends the operation at
//! its next step, and gives a released repository back.

use crate::commands::{owner, repository};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::output::live::Live;
use model::{Failure, RepositoryName};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use unix::poll::{Interest, poll};
use unix::signals::Signals;
use wire::maintenance::{Granted, Maintain, Operation, Progress, Report};
use wire::session::{VERSION, kind, read_json, write_json};
use wire::{WireError, frame};

/// A frame that has begun is complete within this time: owners write each at once.
const FRAME: Duration = Duration::from_secs(60);

/// A connection on which one operation runs.
#[derive(Debug)]
pub struct OwnerLink {
    stream: UnixStream,
    name: RepositoryName,
}

/// What an owner says.
#[derive(Debug, PartialEq)]
enum Message {
    Progress(Progress),
    Report(Report),
    Granted(Granted),
}

impl OwnerLink {
    /// Connects to the owner, which starts it if need be, and asks.
    pub fn ask(name: &RepositoryName, operation: Operation, context: &Context) -> Result<OwnerLink> {
        repository::find(&mut context.control()?, name)?;
        let socket = context.layout.repository_socket(name.as_str());
        let mut stream = unix::socket::connect(&socket).map_err(|error| match error.io_kind() {
            Some(io::ErrorKind::PermissionDenied) => Error::new(Kind::Permission, error.to_string())
                .hint("Root and the user who runs BorgCube may ask a repository's owner for that."),
            _ => Error::new(Kind::Unreachable, format!("nobody listens for repository {name}: {error}")),
        })?;
        stream.set_read_timeout(Some(FRAME)).map_err(|e| lost(name, e.into()))?;
        let request = Maintain { version: VERSION, operation };
        write_json(&mut stream, kind::MAINTAIN, &request).map_err(|e| lost(name, e))?;
        Ok(OwnerLink { stream, name: name.clone() })
    }

    /// Shows how far it is, until it is over.
    pub fn report(mut self, what: &str, interrupts: &mut Signals, context: &Context) -> Result<Report> {
        match self.until_answer(what, interrupts, context)? {
            Message::Report(report) => Ok(report),
            other => Err(self.senseless(&other)),
        }
    }

    /// Waits until the repository is unlocked; it stays so until this value is dropped.
    pub fn granted(&mut self, interrupts: &mut Signals, context: &Context) -> Result<Granted> {
        match self.until_answer("waiting for the repository", interrupts, context)? {
            Message::Granted(granted) => Ok(granted),
            other => Err(self.senseless(&other)),
        }
    }

    /// An answer that does not fit to what was asked for.
    pub fn senseless(&self, answer: &impl std::fmt::Debug) -> Error {
        log::debug!("{answer:?}");
        Error::failed(format!("the owner of repository {} gave an answer that does not fit", self.name))
            .hint("Are all programs of BorgCube of the same version?")
    }

    fn until_answer(&mut self, what: &str, interrupts: &mut Signals, context: &Context) -> Result<Message> {
        let mut live = Live::new(context.quiet || context.json);
        live.begin(what);
        let answer = loop {
            let fds = [(self.stream.as_fd(), Interest::Read), (interrupts.as_fd(), Interest::Read)];
            let ready = poll(&fds, Some(Duration::from_secs(1)))?;
            if ready[1].any() && !interrupts.take().is_empty() {
                break Err(Error::new(Kind::Interrupted, format!("{what}: interrupted")));
            }
            if !ready[0].any() {
                live.tick();
                continue;
            }
            match self.next() {
                Ok(Message::Progress(progress)) => live.step(what, &progress),
                other => break other,
            }
        };
        live.end();
        answer
    }

    fn next(&mut self) -> Result<Message> {
        let name = &self.name;
        let mut payload = vec![];
        let kind = frame::read(&mut self.stream, &mut payload).map_err(|e| lost(name, e))?;
        let message = match kind {
            kind::PROGRESS => read_json(&payload).map(Message::Progress),
            kind::REPORT => read_json(&payload).map(Message::Report),
            kind::GRANTED => read_json(&payload).map(Message::Granted),
            kind::FAILED => match read_json::<Failure>(&payload) {
                Ok(failure) => return Err(owner::error(&failure, name.as_str())),
                Err(e) => Err(e),
            },
            other => Err(WireError::Malformed(format!("an answer of type {other}"))),
        };
        message.map_err(|e| lost(name, e))
    }
}

impl AsFd for OwnerLink {
    /// Readable while the repository is released: the owner is gone.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn lost(name: &RepositoryName, error: WireError) -> Error {
    match error {
        WireError::Malformed(_) | WireError::TooLarge { .. } => {
            Error::failed(format!("the owner of repository {name} is not understood: {error}"))
                .hint("Are all programs of BorgCube of the same version?")
        }
        _ => Error::new(Kind::Unreachable, format!("the owner of repository {name} ended before it had answered: {error}"))
            .hint("Its log tells why; what it had committed by then stays."),
    }
}
