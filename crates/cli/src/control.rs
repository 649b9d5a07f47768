//! The control socket of `borgcubed`, seen from the caller.

use crate::error::{Error, Kind, Result};
use serde::de::DeserializeOwned;
use std::io::{self, Read, Write};
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use unix::poll::{Interest, poll};
use wire::WireError;
use wire::control::{Call, ControlError, Reply, Request};
use wire::json::{self, Decoder};

/// No single answer takes longer than this, not even that of a daemon that is just being started for us.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection.
#[derive(Debug)]
pub struct Control {
    stream: UnixStream,
    decoder: Decoder,
    patience: Duration,
}

impl Control {
    /// Connects. That nobody listens is [`Kind::Unreachable`].
    pub fn connect(socket: &Path) -> Result<Control> {
        let stream = unix::socket::connect(socket).map_err(|error| match error.io_kind() {
            Some(io::ErrorKind::PermissionDenied) => Error::new(Kind::Permission, error.to_string()),
            _ => Error::new(Kind::Unreachable, format!("borgcubed is not running: {error}")),
        })?;
        Ok(Control { stream, decoder: Decoder::default(), patience: PATIENCE })
    }

    /// Gives up soon: for completion, where a person waits for each key.
    pub fn hurry(&mut self) {
        self.patience = Duration::from_secs(2);
    }

    /// Calls a method and waits for its answer.
    pub fn call<T: DeserializeOwned>(&mut self, call: Call) -> Result<T> {
        self.send(call, false)?;
        match self.receive(None, Some(self.patience))? {
            Received::Reply(document) => match json::decode::<Good<T>>(&document) {
                Ok(Good { parameters, error: None }) => Ok(parameters),
                // An error, or something that does not fit: who reads it generally can tell which.
                _ => parameters(json::decode(&document)?),
            },
            Received::Woken | Received::TimeOver => {
                Err(Error::new(Kind::Unreachable, format!("borgcubed did not answer within {} seconds", self.patience.as_secs()))
                    .hint("Its log tells what it is doing."))
            }
        }
    }

    /// Calls a method whose answer says nothing but that it worked.
    pub fn tell(&mut self, call: Call) -> Result<()> {
        self.call::<serde_json::Value>(call).map(drop)
    }

    /// Calls a method that answers again and again.
    pub fn replies<T: DeserializeOwned>(mut self, call: Call) -> Result<Replies<T>> {
        self.send(call, true)?;
        Ok(Replies { control: self, ended: false, kind: PhantomData })
    }

    fn send(&mut self, call: Call, more: bool) -> Result<()> {
        let message = json::encode(&Request { call, more })?;
        Ok(self.stream.write_all(&message).map_err(WireError::from)?)
    }

    fn receive(&mut self, wake: Option<BorrowedFd<'_>>, timeout: Option<Duration>) -> Result<Received> {
        let deadline = timeout.map(|t| Instant::now() + t);
        loop {
            if let Some(document) = self.decoder.next_document()? {
                return Ok(Received::Reply(document));
            }
            let mut fds = vec![(self.stream.as_fd(), Interest::Read)];
            fds.extend(wake.map(|fd| (fd, Interest::Read)));
            let ready = poll(&fds, deadline.map(|d| d.saturating_duration_since(Instant::now())))?;
            if ready.get(1).is_some_and(|r| r.any()) {
                return Ok(Received::Woken);
            }
            if !ready[0].any() {
                return Ok(Received::TimeOver);
            }
            let mut buffer = [0; 64 * 1024];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(WireError::Closed.into()),
                Ok(n) => self.decoder.push(&buffer[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(WireError::from(e).into()),
            }
        }
    }
}

/// An answer as it mostly is, read without a detour: pages of archives are long.
#[derive(serde::Deserialize)]
struct Good<T> {
    parameters: T,
    #[serde(default)]
    error: Option<String>,
}

enum Received {
    /// One document.
    Reply(Vec<u8>),
    Woken,
    TimeOver,
}

fn parameters<T: DeserializeOwned>(reply: Reply) -> Result<T> {
    if let Some(error) = ControlError::from_reply(&reply) {
        return Err(error.into());
    }
    serde_json::from_value(reply.parameters).map_err(|e| {
        Error::failed(format!("borgcubed answered in a form that is not understood: {e}"))
            .hint("Are borgcube and borgcubed of the same version? borgcube status tells the daemon's.")
    })
}

/// The answers to one call.
#[derive(Debug)]
pub struct Replies<T> {
    control: Control,
    ended: bool,
    kind: PhantomData<T>,
}

/// What [`Replies::next`] has.
#[derive(Debug, PartialEq)]
pub enum Next<T> {
    /// One more answer.
    Item(T),
    /// There are no more.
    End,
    /// The other descriptor is ready.
    Woken,
    /// Nothing happened in the time given.
    TimeOver,
}

impl<T: DeserializeOwned> Replies<T> {
    /// Waits for the next answer, for `wake` to become readable, or for the time to be over.
    pub fn next(&mut self, wake: Option<BorrowedFd<'_>>, timeout: Option<Duration>) -> Result<Next<T>> {
        if self.ended {
            return Ok(Next::End);
        }
        Ok(match self.control.receive(wake, timeout)? {
            Received::Woken => Next::Woken,
            Received::TimeOver => Next::TimeOver,
            Received::Reply(document) => {
                let reply: Reply = json::decode(&document)?;
                self.ended = !reply.continues;
                // A stream may end with an answer that has nothing in it.
                let empty = reply.parameters.as_object().is_none_or(|p| p.is_empty());
                if self.ended && reply.error.is_none() && empty { Next::End } else { Next::Item(parameters(reply)?) }
            }
        })
    }
}

impl<T> AsFd for Replies<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.control.stream.as_fd()
    }
}
