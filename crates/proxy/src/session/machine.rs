//! Events, actions, and what every session goes through: negotiate, open, and the end.

use crate::intake::stream::Frame;
use crate::rules::Rule;
use crate::session::task::Task;
use crate::shim::Bound;
use crate::stop::{Stop, shown};
use crate::table::{self, Permission, State};
use borg::rpc::{ClientData, Method, Request, RequestError, RequestErrorKind, SERVER_VERSION, reply};
use model::token::Token;
use model::{Cause, Failure};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::time::Duration;
use wire::session::{Accusation, End, Open, Opened, VERSION, Verdict, kind, read_json};

/// What happens to a session.
#[derive(Debug)]
pub enum Event<'a> {
    /// The client calls.
    Request(Request<'a>),
    /// The client sends what is no call, but the stream goes on behind it.
    BadRequest(RequestError),
    /// The client sends what is no message; the stream is beyond repair.
    BadStream(String),
    /// The client has closed its side.
    ClientClosed,
    /// The owner is connected, as [`Action::Connect`] asked.
    Connected,
    /// There is no such owner.
    NoSuchOwner,
    /// The connection to the owner is lost.
    OwnerLost,
    /// Time passes: see [`Session::deadline`].
    Tick,
}

/// What the shell has to do, in this order.
#[derive(Debug, PartialEq)]
pub enum Action<'a> {
    /// Send these bytes to the client.
    Reply(Vec<u8>),
    /// Write this line to the client's standard error.
    Note(String),
    /// Connect to the owner behind the link of this name (SHA-256 of the token, in hexadecimal).
    Connect(String),
    /// Tell the owner behind the link of this name, on a connection of its own, what was done with that token's key: a frame of
    /// [`wire::session::kind::ACCUSE`]. That there is none any more is no error.
    Accuse(String, Vec<u8>),
    /// Send this frame to the owner.
    Owner(u8, Vec<u8>),
    /// Ask the owner for this object: soon, together with others.
    Read([u8; 32]),
    /// Send this chunk to the owner, when there is credit for it.
    Put {
        /// Its id.
        id: [u8; 32],
        /// Its plaintext size.
        size: u32,
        /// What is to be stored, without an envelope.
        payload: Cow<'a, [u8]>,
    },
    /// Nothing more is to be said to the owner: close that connection.
    CloseOwner,
    /// Everything is over: send what is buffered, end with this code.
    Quit(u8),
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// The client closed the connection.
    Closed,
    /// Earlier than that.
    Stopped(Stop),
}

/// Seconds from the start to `open`, for those who have shown no token yet. An honest borg calls it at once.
pub const OPEN_SECONDS: u64 = 10;

/// The owner may have to read a large repository's index first.
const OWNER_SECONDS: u64 = 600;

/// After the end the client gets this long to say `rollback` and close. (Borg 1.x: it waits 30 seconds for the answer, and
/// without one it shows "connection closed" in place of our sentence.)
const LINGER_SECONDS: u64 = 31;

/// The same for those whose token no owner has known: a stranger holds a process no longer than it must.
const STRANGER_LINGER_SECONDS: u64 = 3;

enum Phase {
    New,
    Negotiated { version: String },
    Opening { msgid: u64, open: Open },
    Open(Task),
    Over { exception: reply::Exception, until: Duration },
}

/// A session.
pub struct Session {
    phase: Phase,
    salt: [u8; 16],
    bound: Bound,
    now: Duration,
    last_heard: Duration,
    /// Since when a part of a message is here, and how many bytes of it.
    begun: Option<(Duration, u64)>,
    ending: Option<Ending>,
}

impl Session {
    /// Nothing was said yet. `salt` must be random; `bound` is what the client's key is for.
    pub fn new(salt: [u8; 16], bound: Bound) -> Session {
        Session { phase: Phase::New, salt, bound, now: Duration::ZERO, last_heard: Duration::ZERO, begun: None, ending: None }
    }

    /// Whether the client's next call may be handed in. While this is false nothing may be read from the client: that is
    /// its back-pressure.
    pub fn wants_client(&self) -> bool {
        match &self.phase {
            Phase::Opening { .. } => false,
            Phase::Open(task) => task.wants_client(),
            _ => true,
        }
    }

    /// Whether the client's hang-up matters even now. (Not while the owner commits: that can't be called back.)
    pub fn minds_hangup(&self) -> bool {
        match &self.phase {
            Phase::Open(task) => task.minds_hangup(),
            _ => true,
        }
    }

    /// When to hand in [`Event::Tick`] if nothing happens before.
    pub fn deadline(&self) -> Duration {
        match &self.phase {
            Phase::Over { until, .. } => *until,
            Phase::Open(task) => {
                let limits = task.limits();
                let total = Duration::from_secs(limits.total_seconds);
                let idle = self.last_heard.saturating_add(Duration::from_secs(limits.idle_seconds));
                let whole = self.begun.map_or(Duration::MAX, |(since, bytes)| {
                    let seconds = limits.grace_seconds.saturating_add(bytes / limits.bytes_per_second.max(1));
                    since.saturating_add(Duration::from_secs(seconds))
                });
                if task.wants_client() { total.min(idle).min(whole) } else { total }
            }
            Phase::Opening { .. } => Duration::from_secs(OPEN_SECONDS + OWNER_SECONDS),
            Phase::New | Phase::Negotiated { .. } => Duration::from_secs(OPEN_SECONDS),
        }
    }

    /// So many bytes of a message that is not complete are here. However slowly they come, they must come: see
    /// [`wire::session::Limits`].
    pub fn partial(&mut self, now: Duration, bytes: usize) {
        let since = self.begun.map_or(now, |(since, _)| since);
        self.begun = (bytes > 0).then_some((since, bytes as u64));
    }

    /// How it ended, if it has.
    pub fn ending(&self) -> Option<&Ending> {
        self.ending.as_ref()
    }

    /// What was opened, for the log.
    pub fn job(&self) -> Option<u64> {
        match &self.phase {
            Phase::Open(task) => Some(task.job()),
            _ => None,
        }
    }

    /// Handles an event; `now` is the time since the session began.
    pub fn handle<'a>(&mut self, now: Duration, event: Event<'a>) -> Vec<Action<'a>> {
        self.now = now;
        if now >= self.deadline() {
            let mut actions = self.too_late();
            if let Event::ClientClosed = event {
                self.client_closed(&mut actions);
            }
            return actions;
        }
        let mut actions = Vec::with_capacity(2);
        match event {
            Event::Request(request) => {
                self.begun = None;
                let msgid = request.msgid;
                if let Err(stop) = self.request(request, &mut actions) {
                    self.stop(stop, Some(msgid), &mut actions);
                }
                // Only now: the clock of an idle client starts when it has its answer.
                self.last_heard = now;
            }
            Event::BadRequest(error) => self.bad_request(&error, &mut actions),
            Event::BadStream(error) => self.bad_stream(&error, &mut actions),
            Event::ClientClosed => self.client_closed(&mut actions),
            Event::Connected => self.connected(&mut actions),
            Event::NoSuchOwner => self.stop(Stop::Unknown, None, &mut actions),
            Event::OwnerLost if matches!(self.phase, Phase::Over { .. }) => {}
            Event::OwnerLost => {
                let stop = Stop::failed(Cause::OwnerLost, "the repository's owner process ended");
                self.stop(stop, None, &mut actions);
            }
            Event::Tick => {}
        }
        actions
    }

    /// Handles a frame from the owner. Apart from [`Session::handle`], because what follows never borrows from it.
    pub fn owner_frame(&mut self, now: Duration, kind: u8, payload: &[u8]) -> Vec<Action<'static>> {
        self.now = now;
        if now >= self.deadline() {
            return self.too_late();
        }
        let mut actions = Vec::new();
        if let Err(stop) = self.owner(kind, payload, &mut actions) {
            self.stop(stop, None, &mut actions);
        }
        self.last_heard = now;
        actions
    }

    fn request<'a>(&mut self, request: Request<'a>, actions: &mut Vec<Action<'a>>) -> Result<(), Stop> {
        let msgid = request.msgid;
        if let Phase::Over { exception, .. } = &self.phase {
            let answer = match request.method {
                Method::Rollback => reply::nil(msgid),
                _ => reply::exception(msgid, exception),
            };
            actions.push(Action::Reply(answer));
            return Ok(());
        }
        let state = match &self.phase {
            Phase::New => State::New,
            Phase::Open(task) => task.state(),
            _ => State::Negotiated,
        };
        let called = || table::name(&request.method);
        let call = table::call(&request.method);
        match table::permitted(state, call) {
            Permission::Yes => {}
            Permission::Order => Rule::MethodOrder.breach(format!("{} in the state {state:?}", called()))?,
            Permission::Empty => return Err(Rule::CommitNothing.broken("a commit before any manifest")),
            Permission::Never => return Err(Rule::Method.broken(called())),
            Permission::Writes => Rule::RestoreWrite.breach(called())?,
            Permission::Cache => {
                let message = "the client's borg does not use the cache that BorgCube gave it";
                return Err(Stop::failed(Cause::ClientCache, message));
            }
        }
        match (&mut self.phase, request.method) {
            (Phase::Open(task), method) => task.request(self.now, msgid, call, method, actions),
            (_, Method::Negotiate { client }) => {
                self.phase = Phase::Negotiated { version: version(&client)? };
                actions.push(Action::Reply(reply::negotiated(msgid, &SERVER_VERSION)));
                Ok(())
            }
            (_, method) => self.open(msgid, &method, actions),
        }
    }

    fn open(&mut self, msgid: u64, method: &Method<'_>, actions: &mut Vec<Action<'_>>) -> Result<(), Stop> {
        let Method::Open { path, create, lock, append_only, make_parent_dirs, .. } = method else {
            return Err(Rule::MethodOrder.broken(table::name(method)));
        };
        let Phase::Negotiated { version } = &self.phase else {
            return Err(Rule::MethodOrder.broken("open"));
        };
        if *create || !*lock || *append_only || *make_parent_dirs {
            Rule::OpenArguments.breach("open for something else")?;
        }
        let token = Token::from_open_path(path).ok_or(Stop::Unknown)?;
        let open = Open { version: VERSION, token: token.to_hex(), client_version: version.clone(), client: self.bound.client.clone() };
        let digest: [u8; 32] = Sha256::digest(token.bytes()).into();
        let link = borg::Id(digest).to_hex();
        // Before anybody is asked: the other job must not lose its token by this.
        if let Some(own) = self.bound.token_hash.as_ref().filter(|own| **own != link) {
            Rule::TokenNotOwn.breach("the token of another job").inspect_err(|stop| actions.extend(accusation(own, stop)))?;
        }
        actions.push(Action::Connect(link));
        self.phase = Phase::Opening { msgid, open };
        Ok(())
    }

    fn connected(&mut self, actions: &mut Vec<Action<'_>>) {
        if let Phase::Opening { open, .. } = &self.phase {
            actions.push(json_frame(kind::OPEN, open));
        }
    }

    fn owner(&mut self, kind: u8, payload: &[u8], actions: &mut Vec<Action<'_>>) -> Result<(), Stop> {
        match (&mut self.phase, kind) {
            (Phase::Over { .. }, _) => Ok(()),
            (Phase::Opening { msgid, .. }, kind::OPENED) => {
                let opened: Opened = read_json(payload).map_err(|e| Stop::failed(Cause::Internal, e.to_string()))?;
                let (task, repository) = Task::new(opened, self.salt)?;
                actions.push(Action::Reply(reply::raw(*msgid, &repository)));
                self.phase = Phase::Open(task);
                Ok(())
            }
            (_, kind::REFUSED | kind::FAILED) => Err(match read_json::<Failure>(payload) {
                Ok(failure) => Stop::Failed(failure),
                Err(e) => Stop::failed(Cause::Internal, e.to_string()),
            }),
            (_, kind::VERDICT) => match read_json(payload) {
                Ok(Verdict::Violation(violation)) => Err(Stop::Violation(violation)),
                Ok(Verdict::Failed(failure)) => Err(Stop::Failed(failure)),
                Ok(Verdict::Accepted) => match &mut self.phase {
                    Phase::Open(Task::Backup(backup)) => backup.accepted(actions),
                    _ => Err(unexpected(kind)),
                },
                Err(e) => Err(Stop::failed(Cause::Internal, e.to_string())),
            },
            (Phase::Open(task), _) => task.owner(kind, payload, actions),
            _ => Err(unexpected(kind)),
        }
    }

    /// Ends the session early: the owner hears why, the client gets one clean line and a moment to close by itself.
    fn stop(&mut self, stop: Stop, msgid: Option<u64>, actions: &mut Vec<Action<'_>>) {
        if let Stop::Violation(violation) = &stop
            && unix::rule_switch::is_off(&violation.rule)
        {
            // Only in a test: the call is forgotten instead, for nothing could go on behind it.
            let pending = if let Phase::Open(task) = &mut self.phase { task.take_pending() } else { vec![] };
            actions.extend(waiting(pending, msgid).into_iter().map(|msgid| Action::Reply(reply::nil(msgid))));
            return;
        }
        let exception = stop.exception(if let Phase::Open(task) = &self.phase { task.name() } else { "backup" });
        let is_known = match self.phase {
            Phase::Opening { .. } => stop != Stop::Unknown,
            Phase::Open(_) => true,
            _ => false,
        };
        let linger = Duration::from_secs(if is_known { LINGER_SECONDS } else { STRANGER_LINGER_SECONDS });
        let over = Phase::Over { exception: exception.clone(), until: self.now + linger };
        let pending = match std::mem::replace(&mut self.phase, over) {
            Phase::Opening { msgid, .. } => vec![msgid],
            Phase::Open(mut task) => {
                match &stop {
                    Stop::Violation(violation) => actions.push(json_frame(kind::VIOLATION, violation)),
                    Stop::Failed(failure) => actions.push(end_frame(Some(failure.clone()), &task)),
                    Stop::Unknown => {}
                }
                task.take_pending()
            }
            _ => vec![],
        };
        // A client that has asked for several objects may wait for any of them.
        let waiting = waiting(pending, msgid);
        if waiting.is_empty() {
            // The client's borg shows such a line as "Remote: ...".
            actions.push(Action::Note(exception.short.join(" ")));
        }
        actions.extend(waiting.into_iter().map(|msgid| Action::Reply(reply::exception(msgid, &exception))));
        actions.push(Action::CloseOwner);
        self.ending.get_or_insert(Ending::Stopped(stop));
    }

    fn bad_request(&mut self, error: &RequestError, actions: &mut Vec<Action<'_>>) {
        if matches!(self.phase, Phase::Over { .. }) {
            actions.push(Action::Quit(1));
            return;
        }
        let stop = match error.kind {
            RequestErrorKind::Positional => outdated("1.0 or older"),
            _ => Rule::Message.broken(error.to_string()),
        };
        self.stop(stop, error.msgid, actions);
        if error.msgid.is_none() {
            actions.push(Action::Quit(1));
        }
    }

    fn bad_stream(&mut self, error: &str, actions: &mut Vec<Action<'_>>) {
        if !matches!(self.phase, Phase::Over { .. }) {
            self.stop(Rule::Message.broken(error), None, actions);
        }
        actions.push(Action::Quit(1));
    }

    fn client_closed(&mut self, actions: &mut Vec<Action<'_>>) {
        if let Phase::Open(task) = &self.phase {
            actions.push(end_frame(None, task));
        }
        actions.push(Action::CloseOwner);
        let code = u8::from(self.ending.is_some());
        self.ending.get_or_insert(Ending::Closed);
        actions.push(Action::Quit(code));
    }

    fn too_late(&mut self) -> Vec<Action<'static>> {
        let mut actions = Vec::new();
        if let Phase::Over { .. } = self.phase {
            return vec![Action::Quit(1)];
        }
        let heard = (self.now.saturating_sub(self.last_heard)).as_secs();
        let all = self.now.as_secs();
        let message = format!("the session took too long: {all} seconds in all, {heard} since the client was heard");
        self.stop(Stop::failed(Cause::TooSlow, message), None, &mut actions);
        actions
    }
}

/// The calls that have no answer, each once.
fn waiting(mut pending: Vec<u64>, last: Option<u64>) -> Vec<u64> {
    pending.extend(last.filter(|last| !pending.contains(last)));
    pending
}

pub(super) fn unexpected(kind: u8) -> Stop {
    Stop::failed(Cause::Internal, format!("the repository's owner sent a frame of type {kind:#04x} that nobody waited for"))
}

pub(super) fn frames(frames: Vec<Frame>, actions: &mut Vec<Action<'_>>) {
    actions.extend(frames.into_iter().map(|(kind, payload)| Action::Owner(kind, payload)));
}

fn json_frame(kind: u8, message: &impl serde::Serialize) -> Action<'static> {
    // These types hold text and numbers only, which always make JSON.
    Action::Owner(kind, serde_json::to_vec(message).unwrap_or_default())
}

/// For the job whose key it was.
fn accusation(token_hash: &str, stop: &Stop) -> Option<Action<'static>> {
    let Stop::Violation(violation) = stop else { return None };
    let accusation = Accusation { version: VERSION, token_hash: token_hash.to_owned(), violation: violation.clone() };
    Some(Action::Accuse(token_hash.to_owned(), serde_json::to_vec(&accusation).ok()?))
}

fn end_frame(failure: Option<Failure>, task: &Task) -> Action<'static> {
    json_frame(kind::END, &End { failure, counters: task.counters() })
}

/// The client's version if it is one we serve: 1.1.0 (its release, not before) up to anything below 2.
fn version(client: &ClientData) -> Result<String, Stop> {
    let ClientData::Version(numbers) = client else {
        return Err(outdated("1.0 or older"));
    };
    let text = match numbers.as_slice() {
        [major, minor, patch, -1] => format!("{major}.{minor}.{patch}"),
        other => shown(&other.iter().map(i64::to_string).collect::<Vec<_>>().join(".")),
    };
    match numbers.as_slice() {
        // Borg 1.x: the fourth number is -1 for a release and less before it.
        [1, 1, 0, stage, ..] if *stage < -1 => Err(outdated(&text)),
        [1, minor, _, ..] if *minor >= 1 => Ok(text),
        [major, ..] if *major >= 2 => Err(Stop::failed(
            Cause::ClientBorgFailed { code: 2, msgid: "ClientTooNew".into() },
            format!("Borg {text} is too new: this server speaks with Borg 1.1 to 1.4"),
        )),
        _ => Err(outdated(&text)),
    }
}

fn outdated(version: &str) -> Stop {
    let cause = Cause::ClientBorgOutdated { version: version.to_owned() };
    Stop::failed(cause, format!("Borg {version} is too old: this server speaks with Borg 1.1 and newer"))
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("ending", &self.ending).finish_non_exhaustive()
    }
}
