//! A client that cannot reach this server: a second connection of ours to it carries its borg's stream.
//!
//! On the client the stream goes through two named pipes in the job's directory, so that nothing is needed there but `cat`, and nothing
//! of its sshd but to run a command. Here the two ends of that connection go to a session, as the shim's would. Same session, same rules.

use super::Event;
use super::client::Gate;
use super::client::{command, read_lines};
use super::script::quote;
use anyhow::{Context, Result};
use model::client::Connection;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use unix::paths::ENV_KEPT;
use unix::poll::{Interest, poll};
use unix::spawn::{Child, Spawn, Stdio};
use unix::{Signal, fdpass};

/// The second connection.
pub struct Carrier {
    child: Child,
}

/// The client's SSH command on this road: its borg's stream goes through the pipes.
pub const RSH: &str = "sh -c 'cd \"$borgcube_job_dir\" || exit; cat <down & exec cat >up' carrier";

impl Carrier {
    /// Starts it. The client's script has made the pipes already.
    pub fn start(
        connection: &Connection,
        directory: &str,
        token: &str,
        socket: PathBuf,
        events: &Sender<Event>,
        gate: &Arc<Gate>,
    ) -> Result<Carrier> {
        let spawn = connect(connection, &remote(directory)).keep_env(ENV_KEPT).same_group();
        let mut child =
            spawn.stdin(Stdio::Pipe).stdout(Stdio::Pipe).stderr(Stdio::Pipe).spawn().context("the second connection can't be started")?;
        let calls = OwnedFd::from(child.stdout.take().context("no standard output")?);
        let replies = OwnedFd::from(child.stdin.take().context("no standard input")?);
        read_lines(child.stderr.take().context("no standard error")?, events.clone(), gate.clone(), Event::Line, None);
        let hash = super::keys::token_hash(token).context("the owner gave no token")?;
        let (events, gate) = (events.clone(), gate.clone());
        std::thread::spawn(move || {
            if let Err(why) = pass(calls, replies, &socket, &hash) {
                // Who has ended already hears it no more.
                gate.tell(&events, Event::CarrierLost(format!("{why:#}")));
            }
        });
        Ok(Carrier { child })
    }

    /// The client's borg has ended.
    pub fn end(self) -> Result<()> {
        self.child.pidfd.signal(Signal::SIGTERM)?;
        self.child.wait()?;
        Ok(())
    }
}

fn connect(connection: &Connection, line: &str) -> Spawn<'static> {
    command(connection, line)
}

/// What the client's shell runs: the far ends of the pipes. The second `cat` must not hold our standard output open, for its end is
/// what a session waits for. `directory` is as [`super::script::directory`] gives it.
fn remote(directory: &str) -> String {
    let script = format!("cd {directory} || exit; cat <up & exec cat >down");
    format!("exec sh -c {}", quote(&script))
}

/// Waits for the client's first words, and gives the connection to a session until that ends.
fn pass(calls: OwnedFd, replies: OwnedFd, socket: &Path, token_hash: &str) -> Result<()> {
    // Not before: a session does not wait long for a client that says nothing.
    let ready = poll(&[(calls.as_fd(), Interest::Read)], None)?;
    if !ready.first().is_some_and(|ready| ready.readable) {
        anyhow::bail!("the second connection to the client ended before its borg used it");
    }
    let notes = OwnedFd::from(File::options().write(true).open("/dev/null")?);
    let mut session = unix::socket::connect(socket).context("no session can be had")?;
    // No address: this is no stranger.
    let word = format!("!\n{token_hash}\n");
    fdpass::send_fds(&session, &[calls.as_fd(), replies.as_fd(), notes.as_fd()], word.as_bytes()).context("no session can be had")?;
    // With copies left here the client would not hear that the session has closed them.
    drop((calls, replies, notes));
    // Its code says nothing that the owner does not say better.
    drop(session.read(&mut [0]));
    Ok(())
}
