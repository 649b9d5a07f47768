//! The connection to the client: `ssh`, or a shell on this machine.

use super::Event;
use super::binary::Reply;
use super::script::Input;
use anyhow::{Context, Result};
use model::client::Connection;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::process::ChildStdin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use unix::Signal;
use unix::paths::{CREDENTIAL_SSH_KEY, ENV_BORG, ENV_CREDENTIALS, ENV_KEPT};
use unix::pidfd::ExitStatus;
use unix::spawn::{Child, Spawn, Stdio};

/// A line is read up to this size; what follows up to the line break is dropped by the report as one long line.
const LINE: u64 = model::borg_report::MAX_LINE as u64 + 1;

/// Bytes of lines that may wait to be looked at; a client that writes faster has to wait.
const WAITING: usize = 4 * 1024 * 1024;

/// What a line takes beside its bytes: empty ones would wait in any number.
const EVENT: usize = 128;

/// What all threads of one run of a client go through: it keeps what waits below [`WAITING`] bytes, and when it is shut they are heard no more.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    bytes: usize,
    is_shut: bool,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of a line of so many bytes, when there is room for it. False: nobody listens any more.
    fn enter(&self, bytes: usize, events: &Sender<Event>, event: Event) -> bool {
        let mut state = self.lock();
        while state.bytes > WAITING && !state.is_shut {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.bytes += bytes + EVENT;
        // Under the lock: what is sent was sent before it is shut.
        !state.is_shut && events.send(event).is_ok()
    }

    /// Tells of something that takes no room.
    pub fn tell(&self, events: &Sender<Event>, event: Event) {
        let state = self.lock();
        if !state.is_shut && events.send(event).is_err() {
            log::debug!("nobody hears the client any more");
        }
    }

    /// A line of so many bytes was looked at.
    pub fn leave(&self, bytes: usize) {
        let mut state = self.lock();
        state.bytes = state.bytes.saturating_sub(bytes + EVENT);
        self.changed.notify_all();
    }

    /// From now on nothing comes through.
    pub fn shut(&self) {
        self.lock().is_shut = true;
        self.changed.notify_all();
    }
}

/// Bytes of the answer to a client that says which chunks cache it has.
const ANSWER: usize = 20;

/// What a client is told when it asks.
#[derive(Debug)]
pub enum Answer {
    /// About a Borg binary; the question about its chunks cache is still to come.
    Binary(Reply),
    /// It keeps its own.
    Keep,
    /// It takes this one, of so many bytes.
    Take(File, u64),
}

/// A running connection. Dropping `stdin` asks the client to stop.
pub struct Client {
    child: Child,
    stdin: Option<std::thread::JoinHandle<Option<ChildStdin>>>,
    /// Where the feeding thread waits for what is to be said about the cache.
    answer: Option<Sender<Answer>>,
}

impl Client {
    /// Starts the connection, feeds its standard input and turns its lines into events.
    pub fn start(connection: &Connection, input: Input, events: &Sender<Event>, gate: &Arc<Gate>) -> Result<Client> {
        // In our own process group: a signal to the group ends everything of this job on this machine.
        let spawn = command(connection, &input.command).keep_env(&for_client()).same_group();
        let mut child =
            spawn.stdin(Stdio::Pipe).stdout(Stdio::Pipe).stderr(Stdio::Pipe).spawn().context("the client's connection can't be started")?;
        let stdout = child.stdout.take().context("no standard output")?;
        let stderr = child.stderr.take().context("no standard error")?;
        let stdin = child.stdin.take().context("no standard input")?;
        read_lines(stdout, events.clone(), gate.clone(), Event::Step, Some(Event::Eof));
        read_lines(stderr, events.clone(), gate.clone(), Event::Line, Some(Event::Eof));
        // A thread: the client may not read (yet), and we must hear what it says meanwhile.
        let (answer, answers) = channel();
        let feeder = std::thread::spawn(move || feed(stdin, &input.head, &answers));
        Ok(Client { child, stdin: Some(feeder), answer: Some(answer) })
    }

    /// Tells the client what to do about its chunks cache. Only the first time counts.
    pub fn answer(&mut self, answer: Answer) {
        if let Some(feeder) = self.answer.take()
            && feeder.send(answer).is_err()
        {
            // It went away; that shows on its other pipes.
            log::debug!("the client takes no answer");
        }
    }

    /// Tells the client which Borg binary to use.
    pub fn answer_binary(&self, reply: Reply) {
        if let Some(feeder) = &self.answer
            && feeder.send(Answer::Binary(reply)).is_err()
        {
            log::debug!("the client takes no answer");
        }
    }

    /// Whether the client was not told yet.
    pub fn is_waiting(&self) -> bool {
        self.answer.is_some()
    }

    /// Closes the client's standard input: borg gets SIGINT there and may write a checkpoint.
    pub fn ask_to_stop(&mut self) {
        self.answer = None;
        if let Some(feeder) = self.stdin.take() {
            // If it still writes, the pipe is dropped as soon as it gets on, or with the process.
            std::thread::spawn(move || drop(feeder.join()));
        }
    }

    /// Ends the local end of the connection at once. What else of it runs on this machine, `borgcubed` finds.
    pub fn kill(&self) {
        if let Err(e) = self.child.pidfd.signal(Signal::SIGKILL) {
            log::warn!("the client's connection cannot be ended: {e}");
        }
    }

    /// Waits for the local end of the connection.
    pub fn wait(mut self) -> Result<ExitStatus> {
        self.ask_to_stop();
        Ok(self.child.wait()?)
    }
}

/// A command line of the client's shell, over a connection of its own.
pub fn command(connection: &Connection, command: &str) -> Spawn<'static> {
    match connection {
        Connection::Local { .. } => Spawn::new("sh").arg("-c").arg(command),
        Connection::Ssh(ssh) => {
            let mut rsh = ssh.rsh.as_deref().unwrap_or("ssh").split_whitespace();
            let mut spawn = Spawn::new(rsh.next().unwrap_or("ssh")).args(rsh);
            for option in
                ["-oBatchMode=yes", "-oServerAliveInterval=30", "-oServerAliveCountMax=4", "-oConnectTimeout=30", "-T", "-x", "-a"]
            {
                spawn = spawn.arg(option);
            }
            if let Some(file) = ssh.ssh_identity_file.clone().or_else(server_key) {
                spawn = spawn.args(["-i", &file, "-oIdentitiesOnly=yes"]);
            }
            spawn.args(&ssh.rsh_options).arg("--").arg(&ssh.remote).arg(command)
        }
    }
}

/// The server's key to its clients, where it is a credential of `borgcubed`, which passes it on.
fn server_key() -> Option<String> {
    let path = std::path::PathBuf::from(std::env::var_os(ENV_CREDENTIALS)?).join(CREDENTIAL_SSH_KEY);
    path.is_file().then(|| path.to_string_lossy().into_owned())
}

/// Gives the pipe back, open: closing it means "stop".
fn feed(mut stdin: ChildStdin, head: &[u8], answers: &Receiver<Answer>) -> Option<ChildStdin> {
    // An error is a client that went away; it shows on its other pipes.
    stdin.write_all(head).ok()?;
    stdin.flush().ok()?;
    let answer = loop {
        match answers.recv() {
            Ok(Answer::Binary(reply)) => reply.write(&mut stdin).ok()?,
            other => break other,
        }
    };
    match answer {
        Ok(Answer::Keep) => stdin.write_all(&answer_line("keep")).ok()?,
        Ok(Answer::Take(mut chunks, size)) => {
            stdin.write_all(&answer_line(&size.to_string())).ok()?;
            chunks.rewind().ok()?;
            std::io::copy(&mut chunks, &mut stdin).ok()?;
        }
        // It is asked to stop.
        Ok(Answer::Binary(_)) | Err(_) => {}
    }
    stdin.flush().ok()?;
    Some(stdin)
}

/// Exactly [`ANSWER`] bytes, so that the client knows how much to read.
pub fn answer_line(word: &str) -> Vec<u8> {
    format!("{word:<width$}\n", width = ANSWER - 1).into_bytes()
}

/// Turns lines into events, and their end into `end`.
pub fn read_lines(
    input: impl Read + Send + 'static,
    events: Sender<Event>,
    gate: Arc<Gate>,
    make: fn(Vec<u8>) -> Event,
    end: Option<Event>,
) {
    std::thread::spawn(move || {
        let mut input = BufReader::new(input);
        loop {
            let mut line = vec![];
            match input.by_ref().take(LINE).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            while line.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
                line.pop();
            }
            if !gate.enter(line.len(), &events, make(line)) {
                break;
            }
        }
        if let Some(end) = end {
            gate.tell(&events, end);
        }
    });
}

/// What of our environment the way to a client keeps. A local client's commands see it; the server's borg is none of theirs.
fn for_client() -> Vec<&'static str> {
    ENV_KEPT.iter().copied().filter(|name| *name != ENV_BORG).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_borg_is_nothing_for_clients() {
        assert!(ENV_KEPT.contains(&ENV_BORG) && !for_client().contains(&ENV_BORG) && for_client().contains(&"PATH"));
    }
}
