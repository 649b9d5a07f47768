//! Hearing from the queue daemon that schedules were changed.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use wire::control::{Call, Event, EventReply, Reply, Request};
use wire::json::{self, Decoder};

/// How long to wait before the daemon is called again.
const RETRY: Duration = Duration::from_secs(2);

/// A connection on which the daemon tells what happens, made again when it breaks.
#[derive(Debug)]
pub struct Watching {
    socket: PathBuf,
    stream: Option<(UnixStream, Decoder)>,
    retry_at: Instant,
}

impl Watching {
    pub fn new(socket: &Path) -> Watching {
        Watching { socket: socket.to_owned(), stream: None, retry_at: Instant::now() }
    }

    /// Connects if there is no connection and it is time to. True: there is a new one, and what happened before it was made was not heard.
    pub fn connect(&mut self) -> bool {
        if self.stream.is_some() || Instant::now() < self.retry_at {
            return false;
        }
        self.retry_at = Instant::now() + RETRY;
        match open(&self.socket) {
            Ok(stream) => {
                self.stream = Some((stream, Decoder::default()));
                true
            }
            Err(e) => {
                log::debug!("borgcubed cannot be heard: {e:#}");
                false
            }
        }
    }

    /// How long until [`Watching::connect`] has something to do.
    pub fn timeout(&self) -> Duration {
        match self.stream {
            Some(_) => Duration::MAX,
            None => self.retry_at.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)),
        }
    }

    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.stream.as_ref().map(|(stream, _)| stream.as_fd())
    }

    /// Takes what has arrived. True: schedules were changed.
    pub fn hear(&mut self) -> bool {
        let Some((stream, decoder)) = &mut self.stream else { return false };
        let mut buffer = [0; 16 * 1024];
        let lost = match stream.read(&mut buffer) {
            Ok(0) => true,
            Ok(n) => {
                decoder.push(&buffer[..n]);
                false
            }
            Err(e) => !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        };
        let mut changed = false;
        let mut nonsense = false;
        while let Some(document) = decoder.next_document().unwrap_or_else(|_| {
            nonsense = true;
            None
        }) {
            changed |= is_change(&document);
        }
        if lost || nonsense {
            self.stream = None;
        }
        changed
    }
}

/// An event that this program does not know is none that it has to know of.
fn is_change(document: &[u8]) -> bool {
    let reply = json::decode::<Reply>(document).ok();
    let event = reply.and_then(|reply| serde_json::from_value::<EventReply>(reply.parameters).ok());
    matches!(event, Some(EventReply { event: Event::SchedulesChanged }))
}

fn open(socket: &Path) -> anyhow::Result<UnixStream> {
    let mut stream = unix::socket::connect(socket)?;
    stream.set_write_timeout(Some(RETRY))?;
    stream.write_all(&json::encode(&Request { call: Call::Watch { job: None }, more: true })?)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}
