//! The shell around [`Session`]: three descriptors of the client, one socket to the owner, one loop.

use crate::link::Link;
use crate::session::{Action, Ending, Event, OPEN_SECONDS, Session};
use crate::shim::Bound;
use crate::stop::Stop;
use crate::strangers::Stranger;
use borg::rpc::{MAX_MESSAGE, Method, Request, ServerDecoder};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};
use unix::paths::{USER_DAEMON, USER_SSH};
use unix::poll::{Interest, poll};
use wire::WireError;
use wire::session::{Violation, kind};

/// Bytes read from the client at a time.
const STEP: usize = 256 * 1024;

/// A pipe that polls writable takes this much without blocking (POSIX: PIPE_BUF).
const PIECE: usize = 4096;

/// Replies are sent when this much is waiting, or when there is nothing else to do.
const REPLIES: usize = 16 * 1024;

/// Answers to chunks are held this long when the client sends no more: it hardly ever waits for one of them, and waking it, its ssh and
/// sshd for each costs more than the chunk does.
const HELD: Duration = Duration::from_millis(2);

/// What a client's borg reads and writes.
pub struct Client {
    /// Its calls.
    pub calls: File,
    /// Our replies.
    pub replies: File,
    /// Lines that its borg prints.
    pub notes: File,
}

impl From<[OwnedFd; 3]> for Client {
    fn from([calls, replies, notes]: [OwnedFd; 3]) -> Client {
        Client { calls: calls.into(), replies: replies.into(), notes: notes.into() }
    }
}

/// An owner may take this long to hear the last words of a session that has ended.
const LAST_WORDS: Duration = Duration::from_secs(20);

/// An owner may take this long to hear of a violation before a session.
const ACCUSING: Duration = Duration::from_secs(5);

/// Serves one session to its end; the result is the exit code, which `tell` hears first. `owner` gives the socket of the owner
/// behind a link, `stranger` is what is remembered of the client, `opened` is dropped when its token was good.
pub fn serve(
    client: Client,
    salt: [u8; 16],
    bound: Bound,
    owner: impl Fn(&str) -> PathBuf,
    stranger: Option<Stranger>,
    opened: Option<OwnedFd>,
    tell: impl FnOnce(u8),
) -> u8 {
    let mut server = Server {
        client,
        decoder: ServerDecoder::new(MAX_MESSAGE),
        replies: Vec::new(),
        link: None,
        stranger,
        opened,
        gone: false,
        held_until: None,
        leaving: None,
        events: VecDeque::new(),
        began: Instant::now(),
        code: None,
    };
    let mut session = Session::new(salt, bound);
    let code = server.run(&mut session, &owner);
    match session.ending() {
        Some(Ending::Stopped(Stop::Violation(v))) => {
            log::warn!(event = "policy-violation", cause = v.rule.as_str(); "{}", violation_line(v));
        }
        Some(Ending::Stopped(Stop::Failed(failure))) => log::warn!("{}", one_line(&failure.line())),
        Some(Ending::Stopped(Stop::Unknown)) => log::warn!(event = "session-refused"; "a client asked for a session that is not known"),
        Some(Ending::Closed) | None => {}
    }
    // The client waits for our ends of its pipes to close, not for the owner.
    let Server { client, leaving, .. } = server;
    drop(client);
    tell(code);
    if let Some(link) = leaving {
        link.drain(Instant::now() + LAST_WORDS);
    }
    code
}

/// Names what was broken. The owner's rules are broken here too, and its sentence is not escaped by [`crate::rules::Rule`].
fn violation_line(violation: &Violation) -> String {
    format!("policy violation: {}: {}", one_line(&violation.rule), one_line(&violation.detail))
}

/// What does no harm in a log. Backslashes stay: what they escape was escaped where the client was quoted.
fn one_line(text: &str) -> String {
    text.split('\\').map(unix::logging::escape).collect::<Vec<_>>().join("\\")
}

/// What happens outside and is not borrowed from a buffer.
enum Outside {
    Connected,
    NoSuchOwner,
    OwnerLost,
    ClientClosed,
    Tick,
}

struct Server {
    client: Client,
    decoder: ServerDecoder,
    replies: Vec<u8>,
    link: Option<Link>,
    stranger: Option<Stranger>,
    /// Whoever counts strangers hears by its end that this is none.
    opened: Option<OwnedFd>,
    /// The owner is at the other end of `link` no longer; what it said before is still to be handed in.
    gone: bool,
    /// All replies that wait are answers to chunks, and wait no longer than until then.
    held_until: Option<Instant>,
    /// A connection on which everything is said.
    leaving: Option<Link>,
    events: VecDeque<Outside>,
    began: Instant,
    code: Option<u8>,
}

impl Server {
    fn run(&mut self, session: &mut Session, owner: &impl Fn(&str) -> PathBuf) -> u8 {
        loop {
            if let Some(code) = self.code {
                return code;
            }
            if !self.step(session, owner) {
                self.wait(session);
            }
        }
    }

    /// Hands in one thing that is here; false if there is none.
    fn step(&mut self, session: &mut Session, owner: &impl Fn(&str) -> PathBuf) -> bool {
        let now = self.began.elapsed();
        // What the owner has said before it went comes before its going.
        if let Some(link) = &mut self.link {
            match link.next(|kind, payload| session.owner_frame(now, kind, payload)) {
                Ok(None) if self.gone => self.forget_owner(),
                Ok(None) => {}
                Ok(Some(actions)) => {
                    self.held_until = None;
                    if session.job().is_some() {
                        self.opened = None;
                    }
                    self.perform(actions, session, owner);
                    return true;
                }
                Err(error) => {
                    log::warn!("the connection to the owner: {error}");
                    self.forget_owner();
                }
            }
        }
        if let Some(outside) = self.events.pop_front() {
            let event = match outside {
                Outside::Connected => Event::Connected,
                Outside::NoSuchOwner => Event::NoSuchOwner,
                Outside::OwnerLost => Event::OwnerLost,
                Outside::ClientClosed => Event::ClientClosed,
                Outside::Tick => Event::Tick,
            };
            let actions = session.handle(now, event);
            self.perform(actions, session, owner);
            return true;
        }
        if !session.wants_client() {
            return false;
        }
        // The decoder is apart while a call borrows from it.
        let mut decoder = std::mem::replace(&mut self.decoder, ServerDecoder::new(0));
        let event = match decoder.next_request() {
            Ok(None) => None,
            Ok(Some(Ok(request))) => Some(Event::Request(request)),
            Ok(Some(Err(error))) => Some(Event::BadRequest(error)),
            Err(error) => Some(Event::BadStream(error.to_string())),
        };
        let found = event.is_some();
        match event {
            Some(event) => {
                let is_put = matches!(&event, Event::Request(Request { method: Method::Put { .. }, .. }));
                let is_first = self.replies.is_empty();
                let actions = session.handle(now, event);
                self.perform(actions, session, owner);
                if !is_put {
                    self.held_until = None;
                } else if is_first {
                    self.held_until = Some(Instant::now() + HELD);
                }
            }
            None => session.partial(now, decoder.buffered()),
        }
        self.decoder = decoder;
        found
    }

    fn perform(&mut self, actions: Vec<Action<'_>>, session: &Session, owner: &impl Fn(&str) -> PathBuf) {
        let until = self.began + session.deadline();
        for action in actions {
            let sent = match action {
                Action::Reply(bytes) => {
                    if self.replies.is_empty() {
                        self.replies = bytes;
                    } else {
                        self.replies.extend_from_slice(&bytes);
                    }
                    if self.replies.len() >= REPLIES {
                        self.flush(until);
                    }
                    Ok(())
                }
                Action::Note(line) => {
                    self.note(&line, until);
                    Ok(())
                }
                Action::Connect(link) => {
                    let outcome = self.connect(&owner(&link));
                    self.events.push_back(outcome);
                    Ok(())
                }
                Action::Accuse(link, payload) => {
                    if let Err(why) = accuse(&owner(&link), &payload) {
                        log::info!("no owner was told of the violation: {why}");
                    }
                    Ok(())
                }
                Action::Owner(kind, payload) => {
                    self.flush(until);
                    self.listening().map_or(Ok(()), |link| link.send(kind, &payload, until))
                }
                Action::Read(id) => self.listening().map_or(Ok(()), |link| link.gather(kind::READ, &id)),
                Action::Put { id, size, payload } => self.put(&id, size, &payload, until),
                Action::CloseOwner => {
                    self.leaving = self.link.take().map(Link::finish).or(self.leaving.take());
                    self.gone = false;
                    Ok(())
                }
                Action::Quit(code) => {
                    self.flush(until.max(Instant::now() + Duration::from_secs(1)));
                    self.code = Some(code);
                    return;
                }
            };
            if let Err(error) = sent {
                self.owner_error(&error);
            }
        }
    }

    fn put(&mut self, id: &[u8; 32], size: u32, payload: &[u8], until: Instant) -> Result<(), WireError> {
        // A client need not wait for the owner; and one that waits for this answer must not be able to tell by the clock how much the
        // owner has to do with the chunk: the owner gets no chunk whose answer is still here.
        if self.link.as_ref().is_some_and(|link| link.would_send(payload.len())) {
            self.flush(until);
        }
        self.listening().map_or(Ok(()), |link| link.put(id, size, payload, until))
    }

    fn connect(&mut self, path: &std::path::Path) -> Outside {
        if self.stranger.as_ref().is_some_and(|stranger| stranger.is_refused(SystemTime::now())) {
            log::warn!("a client came with too many unknown tokens: this one is not looked up");
            return Outside::NoSuchOwner;
        }
        let connected = match unix::socket::connect(path) {
            Ok(stream) => Link::new(stream),
            Err(error) => {
                let gone = error.io_kind() == Some(ErrorKind::NotFound);
                // The path names the session, not the repository: fit for the log.
                log::info!("no owner for a session: {error}");
                if gone && let Some(Err(e)) = self.stranger.as_ref().map(|stranger| stranger.missed(SystemTime::now())) {
                    log::warn!("an unknown token cannot be remembered: {e}");
                }
                return if gone { Outside::NoSuchOwner } else { Outside::OwnerLost };
            }
        };
        match connected {
            Ok(link) => {
                self.link = Some(link);
                Outside::Connected
            }
            Err(error) => {
                log::error!("the connection to the owner cannot be used: {error}");
                Outside::OwnerLost
            }
        }
    }

    fn owner_error(&mut self, error: &WireError) {
        log::warn!("the connection to the owner: {error}");
        self.link_lost();
    }

    fn link_lost(&mut self) {
        if let Some(link) = &mut self.link
            && !self.gone
        {
            link.take_rest();
            self.gone = true;
        }
    }

    fn forget_owner(&mut self) {
        self.link = None;
        self.gone = false;
        self.events.push_back(Outside::OwnerLost);
    }

    /// The link, if somebody is at its other end.
    fn listening(&mut self) -> Option<&mut Link> {
        self.link.as_mut().filter(|_| !self.gone)
    }

    /// Waits for the client, the owner or the deadline, and takes what comes.
    fn wait(&mut self, session: &Session) {
        let until = self.began + session.deadline();
        let held_until = self.held_until.filter(|held| !self.replies.is_empty() && Instant::now() < *held);
        if held_until.is_none() {
            self.flush(until);
            if let Some(Err(error)) = self.listening().map(|link| link.flush(until)) {
                self.owner_error(&error);
            }
        }
        if !self.events.is_empty() || self.gone || self.code.is_some() {
            return;
        }
        let wants_client = session.wants_client();
        let mut fds = Vec::with_capacity(2);
        if wants_client || session.minds_hangup() {
            fds.push((self.client.calls.as_fd(), if wants_client { Interest::Read } else { Interest::Hangup }));
        }
        let listens_to_client = !fds.is_empty();
        if let Some(link) = self.link.as_ref().or(self.leaving.as_ref()) {
            fds.push((link.as_fd(), Interest::Read));
        }
        let next = held_until.unwrap_or(until).min(until);
        let ready = match poll(&fds, Some(next.saturating_duration_since(Instant::now()))) {
            Ok(ready) => ready,
            Err(error) => {
                log::error!("{error}");
                self.code = Some(1);
                return;
            }
        };
        let client = ready.first().filter(|_| listens_to_client).is_some_and(|ready| ready.any());
        let link = ready.get(usize::from(listens_to_client)).is_some_and(|ready| ready.any());
        if client && wants_client {
            self.read_client();
        } else if client {
            self.events.push_back(Outside::ClientClosed);
        }
        if link {
            self.read_owner();
        }
        if !client && !link && Instant::now() >= until {
            self.events.push_back(Outside::Tick);
        }
    }

    fn read_owner(&mut self) {
        match self.link.as_mut().map(Link::receive) {
            Some(Ok(())) => {}
            Some(Err(WireError::Closed)) => self.link_lost(),
            Some(Err(error)) => self.owner_error(&error),
            None => {
                if !self.leaving.as_mut().is_some_and(Link::discard) {
                    self.leaving = None;
                }
            }
        }
    }

    fn read_client(&mut self) {
        match self.client.calls.read(self.decoder.space(STEP)) {
            Ok(0) => self.events.push_back(Outside::ClientClosed),
            Ok(n) => self.decoder.advance(n),
            Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(e) => {
                log::info!("reading from the client: {e}");
                self.events.push_back(Outside::ClientClosed);
            }
        }
    }

    /// Sends all replies; a client that does not read them is gone when time is over.
    fn flush(&mut self, until: Instant) {
        let replies = std::mem::take(&mut self.replies);
        if replies.is_empty() {
            return;
        }
        match write_all(&mut self.client.replies, &replies, until) {
            Ok(()) => {
                self.replies = replies;
                self.replies.clear();
            }
            Err(e) => {
                log::info!("writing to the client: {e}");
                self.events.push_back(Outside::ClientClosed);
            }
        }
    }

    /// A line on the client's standard error. (Borg 1.x takes a line that begins with a brace for JSON; ours never does.)
    fn note(&mut self, line: &str, until: Instant) {
        let line = format!("{line}\n");
        // The client is told as well as can be; nothing depends on it.
        let soon = until.min(Instant::now() + Duration::from_secs(5));
        if let Err(e) = write_all(&mut self.client.notes, line.as_bytes(), soon) {
            log::info!("writing to the client's standard error: {e}");
        }
    }
}

/// Tells an owner, and waits until it has dealt with it: what the client hears then, it cannot act upon before.
fn accuse(path: &Path, payload: &[u8]) -> Result<(), WireError> {
    let mut stream = unix::socket::connect(path).map_err(io::Error::other)?;
    stream.set_write_timeout(Some(ACCUSING))?;
    stream.set_read_timeout(Some(ACCUSING))?;
    wire::frame::write(&mut stream, kind::ACCUSE, &[payload])?;
    match stream.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(WireError::Malformed("an owner answers where it is to close".into())),
    }
}

/// The descriptors are the client's side of pipes that others made: they stay blocking. What fits is written at once, as far as the kernel can
/// do that; else in small pieces.
fn write_all(file: &mut File, bytes: &[u8], until: Instant) -> io::Result<()> {
    let mut rest = bytes;
    let mut in_pieces = false;
    while !rest.is_empty() {
        let at_once = if in_pieces { Ok(None) } else { unix::nowait::write(file.as_fd(), rest) };
        let written = match at_once {
            Ok(Some(n)) => Ok(n),
            Err(e) if e.kind() != ErrorKind::WouldBlock => Err(e),
            otherwise => {
                in_pieces |= otherwise.is_ok();
                wait_for_room(file, until)?;
                // Nobody else writes, so this does not block, whatever the descriptor is.
                file.write(&rest[..rest.len().min(PIECE)])
            }
        };
        match written {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => rest = &rest[n..],
            Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn wait_for_room(file: &File, until: Instant) -> io::Result<()> {
    let left = until.saturating_duration_since(Instant::now());
    let ready = poll(&[(file.as_fd(), Interest::Write)], Some(left)).map_err(io::Error::other)?;
    if ready.first().is_some_and(|ready| ready.any()) { Ok(()) } else { Err(ErrorKind::TimedOut.into()) }
}

/// Serves the client whose descriptors come over `connection`, and sends the exit code back.
pub fn serve_connection(
    connection: &UnixStream,
    run: &Path,
    opened: Option<OwnedFd>,
    owner: impl Fn(&str) -> PathBuf,
) -> anyhow::Result<u8> {
    check_peer(connection)?;
    let patience = Duration::from_secs(OPEN_SECONDS);
    if !poll(&[(connection.as_fd(), Interest::Read)], Some(patience))?.first().is_some_and(|ready| ready.any()) {
        anyhow::bail!("the other side of the connection passed no descriptors within {OPEN_SECONDS} seconds");
    }
    let (fds, word) = unix::fdpass::recv_fds(connection, 3)?;
    let Ok(fds) = <[OwnedFd; 3]>::try_from(fds) else {
        anyhow::bail!("the other side of the connection did not pass three descriptors");
    };
    let mut salt = [0; 16];
    unix::random::fill(&mut salt)?;
    let tell = |code| {
        let mut connection = connection;
        // The shim may be gone already; it has nobody to tell then. What still holds the connection must not keep it waiting.
        let told = connection.write_all(&[code]).and_then(|()| connection.shutdown(std::net::Shutdown::Both));
        if let Err(e) = told {
            log::info!("the shim did not wait for the end: {e}");
        }
    };
    let Some((peer, bound)) = Bound::read(word.get(1..).unwrap_or_default()) else {
        anyhow::bail!("the other side of the connection says nothing sensible of its client");
    };
    // No address: a client on this machine, which could do worse than guess.
    let stranger = (!peer.is_empty()).then(|| Stranger::new(run, peer));
    Ok(serve(Client::from(fds), salt, bound, owner, stranger, opened, tell))
}

/// The socket's mode says who may connect; should it ever be wrong, nobody else gets further than here.
fn check_peer(connection: &UnixStream) -> anyhow::Result<()> {
    let peer = unix::socket::peer(connection)?;
    let own = unix::socket::peer(&UnixStream::pair()?.0)?.uid;
    // The daemon's user: a worker that carries its client's stream itself.
    let name = unix::socket::user_name(peer.uid)?;
    if peer.uid == 0 || peer.uid == own || matches!(name.as_deref(), Some(USER_SSH | USER_DAEMON)) {
        return Ok(());
    }
    anyhow::bail!("a process of the user {} connected, which may not", peer.uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_is_one_harmless_line_of_the_log() {
        let violation = Violation { rule: "a\nrule".into(), detail: "was a\\nb, is\n<6>forged \u{1b}[2J \u{202e}".into() };
        let line = violation_line(&violation);
        assert_eq!(line, "policy violation: a\\nrule: was a\\nb, is\\n<6>forged \\u{1b}[2J \\u{202e}");
    }
}
