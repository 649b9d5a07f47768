//! Calls to a `borg serve` child and their replies.
//!
//! The child answers while it is still being written to. A thread reads its answers all the time, so that neither side ever waits for
//! the other with a full pipe.

use super::diagnostics::Diagnostics;
use crate::error::{Error, Result};
use borg::Id;
use borg::msgpack::Value;
use borg::rpc::{MAX_MESSAGE, RemoteException, Reply, ReplyDecoder};
use std::io::{BufWriter, Read, Write};
use std::process::{ChildStdin, ChildStdout};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;
use unix::Signal;
use unix::spawn::{Child, Spawn, Stdio};

/// How long the first reply may take, for which a child only has to start, if need be on another machine.
const START: Duration = Duration::from_secs(60);

/// How long any other may take. Generous, because Borg 1.x may have to rebuild a large repository's index first, or to compact it; a child
/// that takes longer is stuck.
pub(crate) const WORK: Duration = Duration::from_secs(2 * 3600);

/// How long a child may take to release its lock and go.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a call answered, owned.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    Nothing,
    Int(u64),
    Raw(Vec<u8>),
    Ids(Vec<Id>),
    /// The server's version.
    Version(Vec<i64>),
    Unexpected,
}

/// One reply, or the end of them with the reason.
enum Event {
    Reply { msgid: u64, outcome: std::result::Result<Answer, RemoteException> },
    End(String),
}

/// The child with its pipes.
pub(crate) struct Connection {
    child: Child,
    /// None once it was told that nothing more comes.
    input: Option<BufWriter<ChildStdin>>,
    events: Receiver<Event>,
    said: Diagnostics,
    /// Why there will be no more replies.
    ended: Option<String>,
    /// How long a reply may take.
    patience: Duration,
    next: u64,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("pid", &self.child.pid).field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Connection {
    /// Starts the child. Its environment is what is listed here and nothing else.
    pub(crate) fn start(command: &[String], host_id: Option<&str>) -> Result<Connection> {
        let (program, args) = command.split_first().ok_or_else(|| Error::Unreachable("there is no program to start".into()))?;
        let mut spawn = Spawn::new(program)
            .args(args)
            .keep_env(&["PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "SSH_AUTH_SOCK"])
            // It takes half a second at every start and tests the program, not the repository.
            .env("BORG_SELFTEST", "disabled")
            .stdin(Stdio::Pipe)
            .stdout(Stdio::Pipe)
            .stderr(Stdio::Pipe);
        if let Some(id) = host_id {
            spawn = spawn.env(unix::paths::ENV_BORG_HOST_ID, id);
        }
        let mut child = spawn.spawn().map_err(|e| Error::Unreachable(format!("the repository cannot be reached: {e}")))?;
        let said = Diagnostics::default();
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take()) else {
            return Err(Error::Unreachable("the repository's program has no pipes".into()));
        };
        said.collect(stderr);
        let (sender, events) = channel();
        let reading = std::thread::Builder::new().name("borg-replies".into()).spawn(move || read_replies(stdout, &sender));
        let ended = reading.err().map(|e| format!("no thread for its replies: {e}"));
        Ok(Connection { child, input: Some(BufWriter::with_capacity(1 << 17, stdin)), events, said, ended, patience: START, next: 1 })
    }

    /// A number for the next call.
    pub(crate) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// Sends a message in one or two parts; it may stay in our buffer until [`Connection::wait`].
    pub(crate) fn send(&mut self, head: &[u8], body: &[u8]) -> Result<()> {
        let Some(input) = &mut self.input else { return Err(self.lost()) };
        match input.write_all(head).and_then(|()| input.write_all(body)) {
            Ok(()) => Ok(()),
            Err(_) => Err(self.lost()),
        }
    }

    /// The next reply, whichever it is.
    pub(crate) fn wait(&mut self) -> Result<(u64, std::result::Result<Answer, RemoteException>)> {
        if let Some(input) = &mut self.input
            && input.flush().is_err()
        {
            return Err(self.lost());
        }
        match self.events.recv_timeout(self.patience) {
            Ok(Event::Reply { msgid, outcome }) => Ok((msgid, outcome)),
            Ok(Event::End(why)) => {
                self.ended.get_or_insert(why);
                Err(self.lost())
            }
            Err(RecvTimeoutError::Timeout) => {
                if let Err(e) = self.child.kill_group(Signal::SIGKILL) {
                    log::warn!("{e}");
                }
                self.ended.get_or_insert(format!("it did not answer for {} seconds and was killed", self.patience.as_secs()));
                Err(self.lost())
            }
            Err(RecvTimeoutError::Disconnected) => Err(self.lost()),
        }
    }

    /// From now on a reply may take that long.
    pub(crate) fn allow(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// A reply that is there already.
    pub(crate) fn poll(&mut self) -> Result<Option<(u64, std::result::Result<Answer, RemoteException>)>> {
        match self.events.try_recv() {
            Ok(Event::Reply { msgid, outcome }) => Ok(Some((msgid, outcome))),
            Ok(Event::End(why)) => {
                self.ended.get_or_insert(why);
                Err(self.lost())
            }
            // A thread that is gone has sent its reason before.
            Err(_) => Ok(None),
        }
    }

    /// The child does not answer any more: says why, as far as anybody knows.
    fn lost(&mut self) -> Error {
        self.shut();
        while self.ended.is_none() {
            match self.events.recv_timeout(Duration::from_secs(60)) {
                Ok(Event::End(why)) => self.ended = Some(why),
                Ok(Event::Reply { .. }) => {}
                Err(RecvTimeoutError::Timeout) => self.ended = Some("it takes no more calls".into()),
                Err(RecvTimeoutError::Disconnected) => self.ended = Some("it ended".into()),
            }
        }
        let why = self.ended.clone().unwrap_or_default();
        // Its last words may come a little after the end of its replies.
        std::thread::sleep(Duration::from_millis(100));
        Error::Unreachable(match self.said.last_words() {
            Some(words) => format!("the repository's borg is gone: {why}; it said: {words}"),
            None => format!("the repository's borg is gone: {why}"),
        })
    }

    /// Tells the child that nothing more comes, and waits until it has released its lock and is gone.
    pub(crate) fn finish(&mut self) {
        self.shut();
        let deadline = std::time::Instant::now() + PATIENCE;
        while self.ended.is_none() {
            match self.events.recv_timeout(deadline.saturating_duration_since(std::time::Instant::now())) {
                Ok(Event::Reply { .. }) => {}
                Ok(Event::End(why)) => self.ended = Some(why),
                Err(RecvTimeoutError::Disconnected) => self.ended = Some("it ended".into()),
                Err(RecvTimeoutError::Timeout) => break,
            }
        }
        for signal in [None, Some(Signal::SIGTERM), Some(Signal::SIGKILL)] {
            if let Some(signal) = signal {
                log::warn!("the repository's borg does not end; sending {signal}");
                if let Err(e) = self.child.kill_group(signal) {
                    log::warn!("{e}");
                }
            }
            if self.gone_within(Duration::from_secs(5)) {
                return;
            }
        }
        log::error!("the repository's borg (process {}) cannot be killed", self.child.pid);
    }

    /// Closes the child's input. Not flushed by a drop: what was not confirmed is not wanted any more, and the pipe may be full.
    fn shut(&mut self) {
        if let Some(input) = self.input.take() {
            drop(input.into_parts().0);
        }
    }

    fn gone_within(&self, patience: Duration) -> bool {
        let deadline = std::time::Instant::now() + patience;
        loop {
            match self.child.pidfd.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => {
                    log::debug!("the repository's borg {status}");
                    return true;
                }
                // Reaped already.
                Err(_) => return true,
            }
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            let waited = [(std::os::fd::AsFd::as_fd(&self.child.pidfd), unix::poll::Interest::Read)];
            if left.is_zero() || unix::poll::poll(&waited, Some(left)).is_err() {
                return false;
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Turns the child's output into events until it ends or makes no sense.
fn read_replies(mut stdout: ChildStdout, events: &Sender<Event>) {
    let mut decoder = ReplyDecoder::new(MAX_MESSAGE);
    let why = loop {
        match stdout.read(decoder.space(1 << 16)) {
            Ok(0) => break "it closed the connection".to_owned(),
            Ok(count) => decoder.advance(count),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => break e.to_string(),
        }
        let broken = loop {
            match decoder.next_reply() {
                Ok(None) => break None,
                Ok(Some(reply)) => {
                    if events.send(event(reply)).is_err() {
                        return;
                    }
                }
                Err(e) => break Some(format!("what it answers is not Borg's protocol ({e})")),
            }
        };
        if let Some(why) = broken {
            break why;
        }
    };
    // The other side may have been dropped meanwhile.
    let _ = events.send(Event::End(why));
}

fn event(reply: Reply<'_>) -> Event {
    let ids = reply.ids();
    let outcome = reply.outcome.map(|value| match (value, ids) {
        (_, Some(ids)) => Answer::Ids(ids),
        (Value::Nil, _) => Answer::Nothing,
        (Value::Raw(bytes), _) => Answer::Raw(bytes.to_vec()),
        (value @ Value::Map(_), _) => version(&value).map_or(Answer::Unexpected, Answer::Version),
        (value, _) => value.as_u64().map_or(Answer::Unexpected, Answer::Int),
    });
    Event::Reply { msgid: reply.msgid, outcome }
}

fn version(value: &Value<'_>) -> Option<Vec<i64>> {
    value.get(b"server_version")?.as_array()?.iter().map(Value::as_i64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn start(script: &str) -> Connection {
        Connection::start(&["sh".into(), "-c".into(), script.into()], None).unwrap()
    }

    #[test]
    fn a_child_that_does_not_answer_is_killed() {
        let mut connection = start("sleep 300; true");
        connection.allow(Duration::from_millis(200));
        let began = Instant::now();
        let error = connection.wait().unwrap_err().to_string();
        assert!(error.contains("did not answer"), "{error}");
        connection.finish();
        assert!(began.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn a_child_that_reads_nothing_keeps_nobody() {
        // Takes no call and stays: what is left in our buffer must not wait for room in its pipe.
        let mut connection = start("exec >&-; sleep 300");
        let (mut filled, chunk) = (0, vec![0; 1 << 10]);
        // More than its pipe takes, all of it still in our buffer.
        while filled < (1 << 16) + (1 << 10) {
            connection.input.as_mut().unwrap().write_all(&chunk).unwrap();
            filled += chunk.len();
        }
        let began = Instant::now();
        assert!(matches!(connection.events.recv_timeout(Duration::from_secs(60)), Ok(Event::End(_))));
        connection.ended = Some("gone".into());
        let error = connection.lost().to_string();
        assert!(error.contains("is gone") && connection.input.is_none(), "{error}");
        assert!(began.elapsed() < Duration::from_secs(60));
        connection.child.kill_group(Signal::SIGKILL).unwrap();
    }
}
