//! Which repositories there are, as the queue daemon tells: one connection on which it says that something changed, and now and then a
//! second one to ask for the whole list. Events alone would not do: between list and watch some would be missed.

use crate::error::Result;
use model::RepositoryName;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use wire::WireError;
use wire::control::{Call, ControlError, Event, EventReply, Reply, Repositories, Request};
use wire::json::{self, Decoder};

/// Before a lost connection is made again.
const PAUSE: Duration = Duration::from_secs(1);

/// Both connections.
#[derive(Debug)]
pub struct News {
    socket: PathBuf,
    watch: Option<Link>,
    list: Option<Link>,
    /// Something changed since the running question was asked.
    again: bool,
    /// When lost connections are made again.
    retry_at: Option<Instant>,
}

/// Which connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Changes.
    Watch,
    /// The list.
    List,
}

impl News {
    /// Connects to the daemon that is about to answer at `socket`.
    pub fn new(socket: &Path) -> News {
        let mut news = News { socket: socket.to_owned(), watch: None, list: None, again: false, retry_at: None };
        news.connect();
        news
    }

    /// Makes what connections are missing.
    pub fn connect(&mut self) {
        self.retry_at = None;
        // The order matters: who watches first misses nothing of what the list does not have yet.
        let made = match self.watch {
            Some(_) => Ok(()),
            None => Link::new(&self.socket, Call::Watch { job: None }, true).map(|link| self.watch = Some(link)),
        };
        if let Err(error) = made.and_then(|()| self.ask()) {
            self.lost(error.message());
        }
    }

    fn ask(&mut self) -> Result<()> {
        if self.list.is_some() {
            self.again = true;
            return Ok(());
        }
        self.again = false;
        self.list = Some(Link::new(&self.socket, Call::ListRepositories {}, false)?);
        Ok(())
    }

    fn lost(&mut self, why: &str) {
        log::debug!("no news from borgcubed: {why}");
        self.watch = None;
        self.list = None;
        self.retry_at = Some(Instant::now() + PAUSE);
    }

    /// What to poll.
    pub fn links(&self) -> impl Iterator<Item = (Which, BorrowedFd<'_>)> {
        [(Which::Watch, &self.watch), (Which::List, &self.list)].into_iter().filter_map(|(w, l)| Some((w, l.as_ref()?.stream.as_fd())))
    }

    /// When [`News::connect`] is due.
    pub fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Reads what has arrived; the complete list if that was it.
    pub fn arrived(&mut self, which: Which) -> Option<Vec<RepositoryName>> {
        let read = match which {
            Which::Watch => self.changes().map(|()| None),
            Which::List => self.answer(),
        };
        read.unwrap_or_else(|error| {
            self.lost(&error.to_string());
            None
        })
    }

    fn changes(&mut self) -> std::result::Result<(), WireError> {
        let Some(link) = &mut self.watch else { return Ok(()) };
        link.read()?;
        let mut changed = false;
        while let Some(reply) = link.next()? {
            let event: EventReply = serde_json::from_value(reply.parameters).map_err(|e| WireError::Malformed(e.to_string()))?;
            changed |= matches!(event.event, Event::Repository(_) | Event::RepositoryRemoved(_));
        }
        if changed && let Err(error) = self.ask() {
            self.lost(error.message());
        }
        Ok(())
    }

    fn answer(&mut self) -> std::result::Result<Option<Vec<RepositoryName>>, WireError> {
        let Some(link) = &mut self.list else { return Ok(None) };
        link.read()?;
        let Some(reply) = link.next()? else { return Ok(None) };
        let all: Repositories = serde_json::from_value(reply.parameters).map_err(|e| WireError::Malformed(e.to_string()))?;
        self.list = None;
        if self.again
            && let Err(error) = self.ask()
        {
            self.lost(error.message());
        }
        Ok(Some(all.repositories.into_iter().map(|r| r.name).collect()))
    }
}

#[derive(Debug)]
struct Link {
    stream: UnixStream,
    decoder: Decoder,
}

impl Link {
    fn new(socket: &Path, call: Call, more: bool) -> Result<Link> {
        let mut stream = unix::socket::connect(socket)?;
        let request = json::encode(&Request { call, more })?;
        stream.write_all(&request).and_then(|()| stream.set_nonblocking(true)).map_err(WireError::from)?;
        Ok(Link { stream, decoder: Decoder::default() })
    }

    /// Takes what is there.
    fn read(&mut self) -> std::result::Result<(), WireError> {
        let mut buffer = [0; 64 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(WireError::Closed),
            Ok(n) => {
                self.decoder.push(&buffer[..n]);
                Ok(())
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn next(&mut self) -> std::result::Result<Option<Reply>, WireError> {
        let Some(document) = self.decoder.next_document()? else { return Ok(None) };
        let reply: Reply = json::decode(&document)?;
        match ControlError::from_reply(&reply) {
            Some(error) => Err(WireError::Malformed(error.to_string())),
            None => Ok(Some(reply)),
        }
    }
}
