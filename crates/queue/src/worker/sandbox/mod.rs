//! The confined process: this program once more, that reads one archive for a worker.
//!
//! It takes apart what clients wrote, so it has no network, starts nothing, sees no file (but those below the directory of a restore test, where the
//! kernel has Landlock), and its memory, files and time are bounded. Connections to the repository's owner it asks of its worker, which asks for the one
//! archive on each and passes it on as a descriptor: it is of use for nothing else. What it says is what a client may have it say: little,
//! bounded, and looked at before it counts.

mod inside;
mod words;

use anyhow::{Context, Result, bail};
use archive::{Error, source};
pub use inside::main;
use model::restore_test::RestoreTest;
use model::{Cause, Failure};
use std::fs::File;
use std::io::BufReader;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use unix::paths::ENV_LOG;
use unix::spawn::{Child, Spawn};
use unix::{Signal, pidfd::ExitStatus};
use wire::json;
pub use words::{Done, Extract, Order, Summary, Told, What, Word};

/// What this program is called with to be that process.
pub const ARGUMENT: &str = "sandbox";

/// Connections to the owner that it may ask for.
const CONNECTIONS: usize = 200;

/// Bytes that it may say, besides how far it is.
const TALK: usize = 64 << 20;

/// So often it may say how far it is; what comes in between is dropped.
const NEWS: Duration = Duration::from_millis(100);

/// How often whoever waits for it is asked whether it is to go on.
const GLANCE: Duration = Duration::from_millis(250);

/// The worker's end. It is ended with this value.
pub struct Sandbox {
    child: Option<Child>,
}

impl Sandbox {
    /// Starts it, with these files besides; what it says is told in a thread of its own until `tell` says no. Call it in a thread that lives as long
    /// as the process is to: it ends with it.
    pub fn start(socket: &Path, order: &Order, files: &[File], mut tell: impl FnMut(Word) -> bool + Send + 'static) -> Result<Sandbox> {
        let (ours, theirs) = UnixStream::pair()?;
        // Whatever was installed meanwhile, it is of our version.
        let spawn = Spawn::new("/proc/self/exe").arg(ARGUMENT).keep_env(&[ENV_LOG]).same_group().death_signal(Signal::SIGKILL);
        let spawn = spawn.current_dir("/").fd(theirs.as_fd(), "worker");
        let child = files.iter().fold(spawn, |spawn, file| spawn.fd(file.as_fd(), "scratch")).spawn()?;
        drop(theirs);
        let (order, socket) = (order.clone(), socket.to_owned());
        let connect =
            move |archive: &str| unix::socket::connect(&socket).map_err(Error::Connect).and_then(|owner| source::ask(owner, archive));
        std::thread::spawn(move || {
            let lost = |e: anyhow::Error| Word::Lost(unix::logging::bounded(&unix::logging::escape(&format!("{e:#}")), words::SENTENCE));
            let last = listen(&ours, &order, &connect, &mut tell).unwrap_or_else(lost);
            tell(last);
        });
        Ok(Sandbox { child: Some(child) })
    }

    /// Ends it, and says how it has ended.
    pub fn end(mut self) -> Result<ExitStatus> {
        self.child.take().context("it has ended before").and_then(|child| end(&child))
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Some(Err(e)) = self.child.take().map(|child| end(&child)) {
            log::error!("the confined process cannot be ended: {e:#}");
        }
    }
}

fn end(child: &Child) -> Result<ExitStatus> {
    if let Err(e) = child.pidfd.signal(Signal::SIGKILL) {
        log::debug!("the confined process has ended already: {e}");
    }
    Ok(child.wait()?)
}

/// Has an order done. `go_on` hears what the process has given up and how far it is, is asked now and then without any of it, and ends it with false:
/// then there is no result. When there is one, the process is gone. It has until then, and the order's seconds of processor time.
///
/// # Errors
/// [`Cause::WorkerCrashed`]: the process ended otherwise, or said what it may not. [`Cause::TooSlow`]: the time is over. Else what it says or what the system refuses.
pub fn run(
    socket: &Path,
    order: &Order,
    files: &[File],
    until: Instant,
    go_on: &mut dyn FnMut(Option<Word>) -> bool,
) -> Result<Option<Done>, Failure> {
    if Instant::now() >= until {
        return Err(too_slow(order));
    }
    let (sender, words) = channel();
    let broken = |e: anyhow::Error| Failure::new(Cause::Internal, format!("a confined process cannot be started: {e:#}"));
    let sandbox = Sandbox::start(socket, order, files, move |word| sender.send(word).is_ok()).map_err(broken)?;
    loop {
        let word = match words.recv_timeout(GLANCE) {
            Ok(word) => Some(word),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Word::Lost("nobody listens to it any more".into())),
        };
        match word {
            Some(Word::Done(done)) => {
                sandbox.end().map_err(broken)?;
                return Ok(Some(done));
            }
            Some(Word::Failed(failure)) => return Err(failure),
            Some(Word::Lost(why)) => return Err(lost(sandbox, &order.archive, &why)),
            other => {
                if !go_on(other) {
                    return Ok(None);
                }
            }
        }
        if Instant::now() >= until {
            return Err(too_slow(order));
        }
    }
}

fn too_slow(Order { archive, seconds, .. }: &Order) -> Failure {
    Failure::new(Cause::TooSlow, format!("archive {archive} was not read to its end within {seconds} seconds in all (total-seconds)"))
}

fn lost(sandbox: Sandbox, archive: &str, why: &str) -> Failure {
    let ended = sandbox.end().map_or_else(|e| format!("cannot be ended: {e:#}"), |ended| ended.to_string());
    Failure::new(Cause::WorkerCrashed, format!("the confined process that reads archive {archive} {ended}: {why}"))
}

/// Gives its last word. What it may not say is an error.
fn listen(
    stream: &UnixStream,
    order: &Order,
    connect: &dyn Fn(&str) -> archive::Result<UnixStream>,
    tell: &mut dyn FnMut(Word) -> bool,
) -> Result<Word> {
    json::write(&mut &*stream, order)?;
    let mut input = BufReader::new(stream);
    let (mut connections, mut files, mut said) = (0, 0, 0);
    let (mut is_ready, mut next_news) = (false, Instant::now());
    loop {
        let document = json::read_document(&mut input)?;
        let word: Word = json::decode(&document).context("what it says is not understood")?;
        if !matches!(word, Word::Progress { .. }) {
            said += document.len();
        }
        if said > TALK {
            bail!("it said more than {TALK} bytes");
        }
        if matches!(word, Word::Ready(_)) == is_ready {
            bail!("it said what does not follow on what it had said");
        }
        let word = match word {
            Word::Connect => {
                connections += 1;
                if connections > CONNECTIONS {
                    bail!("it asked for more than {CONNECTIONS} connections");
                }
                match connect(&order.archive) {
                    Ok(owner) => unix::fdpass::send_fds(stream, &[owner.as_fd()], b"y")?,
                    Err(e) => {
                        log::debug!("{e}");
                        unix::fdpass::send_fds(stream, &[], b"n")?;
                    }
                }
                continue;
            }
            Word::Progress { .. } if Instant::now() < next_news => continue,
            Word::Progress { unit, done, total } => {
                next_news = Instant::now() + NEWS;
                Word::Progress { unit: unix::logging::bounded(&unit, words::UNIT), done, total }
            }
            Word::Ready(ready) => {
                is_ready = true;
                Word::Ready(ready)
            }
            Word::File(file) => {
                files += 1;
                if !matches!(order.what, What::Extract(_)) || files > RestoreTest::MAX_FILES || file.path().is_none() {
                    bail!("it said more than it was asked");
                }
                Word::File(file)
            }
            Word::Done(done) => return Ok(Word::Done(done.checked(&order.what)?)),
            Word::Failed(failure) => return Ok(Word::Failed(words::checked(failure))),
            Word::Lost(why) => bail!(why),
        };
        if !tell(word) {
            bail!("nobody listens to it any more");
        }
    }
}

#[cfg(test)]
mod tests;
