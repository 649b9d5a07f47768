//! Connections of the control socket: who it is, what was asked, what goes on being answered.

use super::channel::Channel;
use super::joblog::LogReader;
use model::access::{Peer, Rights, rights};
use model::trigger::AccessContext;
use serde_json::json;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use wire::control::{Call, ControlError, ErrorKind, Event, EventReply, JobLog, Reply};

/// Longest call: a change of the largest config that there may be, before and after, has room; so has a configuration of many thousands.
const MAX_CALL: usize = wire::json::MAX_DOCUMENT;
/// The same of those who may not call anything.
const MAX_STRANGE_CALL: usize = 64 * 1024;
/// The same of the status daemon: a form, and the record that it changes.
const MAX_WATCHERS_CALL: usize = 1024 * 1024;
/// As much may wait for a reader before the next answer to it is prepared.
const HIGH_WATER: usize = 1024 * 1024;
/// A watcher that lets more events wait is dropped.
const SLOW: usize = 1024 * 1024;
/// From here on progress is left out: the next one will do.
const BUSY: usize = 64 * 1024;
/// Parts of a log for one reader before others have their turn.
const CHUNKS: usize = 4;
/// Connections at once.
pub const MAX_CONNECTIONS: usize = 256;
/// Of people without permission, for the time they need to read that.
pub const MAX_STRANGERS: usize = 16;
/// And of the status daemon.
pub const MAX_WATCHERS: usize = 64;
/// How long a stranger, or one that is being closed, may keep a connection.
const STRANGER: Duration = Duration::from_secs(10);

/// How the log calls root; nobody else is called so.
pub const ROOT: &str = "root";

/// One connection.
#[derive(Debug)]
pub struct Connection {
    /// The socket.
    pub channel: Channel,
    /// Who, as the log calls them.
    pub actor: String,
    /// What they may do.
    pub rights: Rights,
    /// What goes on being answered; further calls wait.
    pub stream: Option<Stream>,
    /// There is more to do for it, which had to make room for others.
    pub busy: bool,
    /// Nothing more is read; what waits is sent.
    closing: bool,
    deadline: Option<Instant>,
}

/// An answer of many parts.
#[derive(Debug)]
pub enum Stream {
    /// Events, of one job or of everything.
    Watch(Option<u64>),
    /// A job's log.
    Log(LogStream),
}

/// A job's log on its way to a reader.
#[derive(Debug)]
pub struct LogStream {
    /// The job.
    pub job: u64,
    /// Where the reader stands.
    pub reader: LogReader,
    /// The job is not over yet, and the reader wants to hear the end.
    pub wait: bool,
}

/// How the kernel names somebody, for permission and for the log.
pub fn identify(stream: &UnixStream, daemon_uid: u32) -> unix::Result<(String, Rights)> {
    let peer = unix::socket::peer(stream)?;
    if peer.uid == 0 {
        return Ok((ROOT.into(), Rights::Control));
    }
    let actor = match unix::socket::user_name(peer.uid)? {
        Some(name) => format!("user:{name}"),
        None => format!("uid:{}", peer.uid),
    };
    let in_group = peer.uid != daemon_uid && unix::socket::is_in_group(peer.uid, unix::paths::GROUP_OPERATORS)?;
    let status = unix::socket::user_id(unix::paths::USER_STATUS)?;
    Ok((actor, rights(&Peer { uid: peer.uid, in_group }, daemon_uid, status)))
}

impl Connection {
    /// A new one.
    pub fn new(stream: UnixStream, actor: String, rights: Rights, now: Instant) -> std::io::Result<Connection> {
        let (deadline, limit) = match rights {
            Rights::Control => (None, MAX_CALL),
            Rights::Watch => (None, MAX_WATCHERS_CALL),
            Rights::None => (Some(now + STRANGER), MAX_STRANGE_CALL),
        };
        Ok(Connection { channel: Channel::new(stream, limit)?, actor, rights, stream: None, busy: false, closing: false, deadline })
    }

    /// Whether the next call may be looked at.
    pub fn listens(&self) -> bool {
        self.stream.is_none() && !self.closing && self.channel.waiting() < HIGH_WATER
    }

    /// Whether there is room for another part of a stream.
    pub fn has_room(&self) -> bool {
        !self.closing && self.channel.waiting() < HIGH_WATER
    }

    /// Nothing more will come of it.
    pub fn is_over(&self, now: Instant) -> bool {
        let spoken = self.closing || (self.channel.ended() && self.listens() && !self.busy);
        (spoken && self.channel.waiting() == 0) || self.deadline.is_some_and(|at| at <= now)
    }

    /// When it is closed whatever happens.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Sends what waits, then closes.
    pub fn close(&mut self, now: Instant) {
        self.stream = None;
        self.closing = true;
        self.deadline = Some(now + STRANGER);
    }

    /// Sends a reply.
    pub fn reply(&mut self, reply: &Reply, now: Instant) {
        match self.channel.send(reply) {
            Ok(()) => {}
            Err(wire::WireError::TooLarge { .. }) => {
                let error = ControlError::new(
                    ErrorKind::InvalidArgument,
                    "the answer is too large; ask for less at once, with a filter or a smaller limit",
                );
                self.reply(&error.to_reply(), now);
            }
            // It is gone: whatever is still to be said goes nowhere.
            Err(_) => {
                self.close(now);
                self.deadline = Some(now);
            }
        }
    }

    /// Tells a watcher what happened, if it watches that.
    pub fn notify(&mut self, event: &Event, now: Instant) {
        let Some(Stream::Watch(wanted)) = &self.stream else {
            if let (Some(Stream::Log(log)), Event::Job(job)) = (&mut self.stream, event)
                && log.job == job.number
                && job.state.is_final()
            {
                log.wait = false;
            }
            return;
        };
        let (of_job, is_last, is_progress) = match event {
            Event::Job(job) => (Some(job.number), job.state.is_final(), false),
            Event::Progress { job, .. } => (Some(*job), false, true),
            Event::Repository(_) | Event::RepositoryRemoved(_) | Event::SchedulesChanged | Event::UsersChanged => (None, false, false),
        };
        if wanted.is_some() && *wanted != of_job {
            return;
        }
        let last = wanted.is_some() && is_last;
        let waiting = self.channel.waiting();
        if is_progress && waiting > BUSY {
            return;
        }
        if waiting > SLOW {
            let error =
                ControlError::new(ErrorKind::Conflict, "events come faster than you read them, some would be lost; start watching again");
            self.reply(&error.to_reply(), now);
            self.close(now);
            return;
        }
        let answer = EventReply { event: event.clone() };
        let reply = if last { Reply::new(&answer) } else { Reply::continued(&answer) };
        if last {
            self.stream = None;
        }
        self.reply(&reply, now);
    }

    /// Sends as much of a log as the reader has room for and one turn allows.
    pub fn pump(&mut self, now: Instant) {
        for _ in 0..CHUNKS {
            if !self.has_room() {
                return;
            }
            let Some(Stream::Log(log)) = &mut self.stream else { return };
            // Asked before the look at the file: what the job wrote last is seen by that look.
            let wait = log.wait;
            let lines = match log.reader.next_chunk() {
                Ok(lines) => lines,
                Err(e) => {
                    let error = ControlError::new(ErrorKind::Internal, format!("the log of job {} cannot be read: {e}", log.job));
                    self.stream = None;
                    self.reply(&error.to_reply(), now);
                    return;
                }
            };
            match (lines.is_empty(), wait) {
                (true, true) => return,
                (true, false) => {
                    self.stream = None;
                    self.reply(&Reply::new(&JobLog { lines }), now);
                }
                (false, _) => self.reply(&Reply::continued(&JobLog { lines }), now),
            }
        }
        self.busy = self.has_room() && matches!(self.stream, Some(Stream::Log(_)));
    }

    /// The daemon ends; streams do not end without a word.
    pub fn farewell(&mut self, now: Instant) {
        if self.stream.take().is_some() {
            let error = ControlError::new(ErrorKind::Stopping, "borgcubed stops; ask again when it is back");
            self.reply(&error.to_reply(), now);
        }
    }
}

/// What the status daemon may ask for: what goes on, what a trigger starts that anybody may use who knows its id, and what its users ask for.
pub fn for_watchers(call: &Call) -> bool {
    match call {
        Call::GetStatus {} | Call::GetJob { .. } | Call::GetJobLog { .. } | Call::Watch { .. } => true,
        Call::FireTrigger { context, .. } => *context == AccessContext::AnonymousWeb,
        // Who is behind it, and what that user may do, is looked at then.
        Call::OnBehalf { .. } => true,
        _ => false,
    }
}

/// What a stranger gets.
pub fn stranger(actor: &str) -> Reply {
    let group = unix::paths::GROUP_OPERATORS;
    let message = format!("{actor} may not control this server; be root, the user that runs it, or in the group {group}");
    let mut reply = ControlError::new(ErrorKind::PermissionDenied, message).to_reply();
    if let Some(parameters) = reply.parameters.as_object_mut() {
        parameters.insert("actor".into(), json!(actor));
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::progress::Progress;
    use model::web_user::Credential;
    use std::io::Read;

    fn connection(stream: Option<Stream>) -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(ours, "root".into(), Rights::Control, Instant::now()).unwrap();
        connection.stream = stream;
        theirs.set_nonblocking(true).unwrap();
        (connection, theirs)
    }

    fn replies(peer: &mut UnixStream) -> Vec<serde_json::Value> {
        let mut bytes = vec![];
        let _ = peer.read_to_end(&mut bytes);
        bytes.split(|b| *b == 0).filter(|d| !d.is_empty()).map(|d| serde_json::from_slice(d).unwrap()).collect()
    }

    fn job(number: u64, state: model::JobState) -> Event {
        let mut job = model::Job::backup(number, &"web1/etc".parse().unwrap(), "main".parse().unwrap(), "root", model::Timestamp(1));
        job.state = state;
        Event::Job(Box::new(job))
    }

    #[test]
    fn who_watches_changes_nothing_and_lists_nothing() {
        let anonymous = Call::FireTrigger { id: String::new(), context: AccessContext::AnonymousWeb };
        let credential = Credential::Token { token: String::new() };
        let for_a_user = Call::OnBehalf { credential, call: Box::new(Call::CancelJob { job: 1 }) };
        for call in [
            Call::GetStatus {},
            Call::GetJob { job: 1 },
            Call::GetJobLog { job: 1, follow: true },
            Call::Watch { job: None },
            anonymous,
            for_a_user,
        ] {
            assert!(for_watchers(&call), "{call:?}");
        }
        let name = "main".parse().unwrap();
        let others = [
            Call::CancelJob { job: 1 },
            Call::Wake {},
            Call::ListTriggers {},
            Call::FireTrigger { id: String::new(), context: AccessContext::LocalCli },
            Call::Undo { transaction: 1 },
            Call::RemoveRepository { name },
            Call::GetSettings {},
            Call::ListClients {},
            Call::ListWebUsers {},
            Call::RenewWebToken { name: "alice".parse().unwrap() },
        ];
        for call in others {
            assert!(!for_watchers(&call), "{call:?}");
        }
    }

    #[test]
    fn a_watched_job_ends_its_stream() {
        let now = Instant::now();
        let (mut c, mut peer) = connection(Some(Stream::Watch(Some(5))));
        c.notify(&job(4, model::JobState::Done), now);
        c.notify(&Event::RepositoryRemoved("main".parse().unwrap()), now);
        c.notify(&job(5, model::JobState::ClientDone), now);
        c.notify(&job(5, model::JobState::Done), now);
        c.notify(&job(5, model::JobState::Done), now);
        let replies = replies(&mut peer);
        assert_eq!(replies.len(), 2);
        assert_eq!((replies[0]["continues"].as_bool(), replies[1]["continues"].as_bool()), (Some(true), None));
        assert!(c.listens());
    }

    #[test]
    fn a_slow_watcher_loses_progress_first_and_then_the_connection() {
        let now = Instant::now();
        let (mut c, mut peer) = connection(Some(Stream::Watch(None)));
        let progress = Event::Progress { job: 1, progress: Progress { path: "x".repeat(1000), ..Default::default() } };
        for _ in 0..20_000 {
            c.notify(&progress, now);
        }
        assert!(c.stream.is_some() && c.channel.waiting() <= BUSY + 2000);
        for _ in 0..20_000 {
            c.notify(&job(1, model::JobState::ClientDone), now);
        }
        assert!(c.stream.is_none() && !c.listens());
        assert!(c.channel.waiting() < SLOW + 10_000);
        let mut got = vec![];
        while c.channel.waiting() > 0 {
            let _ = peer.read_to_end(&mut got);
            c.channel.flush().unwrap();
        }
        let _ = peer.read_to_end(&mut got);
        let last = got.split(|b| *b == 0).rfind(|d| !d.is_empty()).unwrap();
        let last: serde_json::Value = serde_json::from_slice(last).unwrap();
        assert_eq!(last["error"], "org.borgcube.Control.Conflict");
        assert!(c.is_over(now));
    }
}
