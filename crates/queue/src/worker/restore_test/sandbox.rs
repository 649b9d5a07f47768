//! The confined process of a restore test: reads the archive, draws the sample, extracts it, hashes it.
//!
//! It is this program once more. It parses what clients wrote, so it has no network, starts nothing, sees no file but those below the test's own
//! directory (where the kernel has Landlock), and its memory, files and time are bounded. Connections to the repository's owner it asks of its worker,
//! which asks for the archive on each and passes it on as a descriptor: it is of use for nothing else.

use super::super::Event;
use anyhow::{Context, Result, bail};
use archive::trial::{self, Trial, Tried, TriedFile};
use archive::{Error, Source, source};
use model::{Cause, Failure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::BufReader;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use unix::confine::Limits;
use unix::paths::{ENV_LOG, Layout};
use unix::spawn::{Child, Spawn};
use unix::{Signal, pidfd::ExitStatus};
use wire::json;

/// What this program is called with to be that process.
pub const ARGUMENT: &str = "restore-test-sandbox";

/// Address space, most of which is only reserved by the threads that read.
const MEMORY: u64 = 8 << 30;

/// Connections to the owner that it may ask for.
const CONNECTIONS: usize = 200;

/// So often it says how far it is.
const SAY_EVERY: Duration = Duration::from_millis(250);

/// What it is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// The archive's id.
    pub archive: String,
    /// The test's own directory.
    pub directory: PathBuf,
    /// Files at most.
    pub files: u32,
    /// Bytes at most.
    pub bytes: u64,
    /// Everything that is taken has to fit.
    pub is_whole: bool,
    /// Patterns.
    pub take: Vec<String>,
    /// What the sample is drawn with.
    pub seed: u32,
    /// Recorded files: hash of the path, hash of the item.
    pub known: BTreeMap<String, String>,
    /// Seconds of processor time.
    pub seconds: u64,
}

/// What it says.
#[derive(Debug, Serialize, Deserialize)]
pub enum Word {
    /// It wants a connection to the owner.
    Connect,
    /// What the system did not let it give up.
    Lacking(Vec<String>),
    /// How far it is.
    Progress { unit: String, done: u64, total: u64 },
    /// One file.
    File(Box<Told>),
    /// The last one: the rest.
    Done(Summary),
    /// The last one.
    Failed(Failure),
    /// It said something else, or ended without a last word.
    Lost(String),
}

/// A file, fit for JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Told {
    /// In hex digits.
    pub path: String,
    pub path_hash: String,
    pub item_hash: String,
    pub content: String,
    pub mode: u32,
    pub uid: i64,
    pub gid: i64,
    pub size: u64,
    /// Nanoseconds; what does not fit is the nearest that does.
    pub mtime: i64,
    pub ctime: Option<i64>,
    pub damage: Option<String>,
    pub note: Option<String>,
}

/// What there is to say about all files.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Summary {
    pub bytes: u64,
    pub seen: u64,
    pub seen_bytes: u64,
    pub too_large: u64,
    pub unmatched: Vec<String>,
    pub complaints: Vec<String>,
}

impl From<TriedFile> for Told {
    fn from(file: TriedFile) -> Told {
        let nanoseconds = |time: i128| time.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        Told {
            path: file.path.iter().map(|b| format!("{b:02x}")).collect(),
            path_hash: file.path_hash,
            item_hash: file.item_hash,
            content: file.content,
            mode: file.mode,
            uid: file.uid,
            gid: file.gid,
            size: file.size,
            mtime: nanoseconds(file.mtime),
            ctime: file.ctime.map(nanoseconds),
            damage: file.damage,
            note: file.note,
        }
    }
}

impl Told {
    /// The path's bytes.
    pub fn path(&self) -> Option<Vec<u8>> {
        let (pairs, rest) = self.path.as_bytes().as_chunks::<2>();
        let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        rest.is_empty().then(|| pairs.iter().map(byte).collect()).flatten()
    }
}

/// The worker's end.
pub struct Sandbox {
    child: Child,
}

impl Sandbox {
    /// Starts it; what it says becomes events. Call it in the thread that lives as long as the worker: the process ends with it.
    pub fn start(layout: &Layout, repository: &str, order: &Order, events: Sender<Event>) -> Result<Sandbox> {
        let (ours, theirs) = UnixStream::pair()?;
        // Whatever was installed meanwhile, it is of our version.
        let spawn = Spawn::new("/proc/self/exe").arg(ARGUMENT).keep_env(&[ENV_LOG]).same_group().death_signal(Signal::SIGKILL);
        let child = spawn.current_dir("/").fd(theirs.as_fd(), "worker").spawn()?;
        drop(theirs);
        let socket = layout.repository_socket(repository);
        let order = order.clone();
        std::thread::spawn(move || {
            let last = listen(&ours, &order, &socket, &events).unwrap_or_else(|e| Word::Lost(format!("{e:#}")));
            drop(events.send(Event::Sandbox(last)));
        });
        Ok(Sandbox { child })
    }

    /// Ends it.
    pub fn end(self) -> Result<ExitStatus> {
        if let Err(e) = self.child.pidfd.signal(Signal::SIGKILL) {
            log::debug!("the confined process has ended already: {e}");
        }
        Ok(self.child.wait()?)
    }
}

/// Gives its last word.
fn listen(stream: &UnixStream, order: &Order, socket: &Path, events: &Sender<Event>) -> Result<Word> {
    json::write(&mut &*stream, order)?;
    let mut input = BufReader::new(stream);
    let mut connections = 0;
    loop {
        match json::read(&mut input)? {
            Word::Connect => {
                connections += 1;
                if connections > CONNECTIONS {
                    bail!("it asked for more than {CONNECTIONS} connections");
                }
                let owner = unix::socket::connect(socket).map_err(Error::Connect).and_then(|owner| source::ask(owner, &order.archive));
                match owner {
                    Ok(owner) => unix::fdpass::send_fds(stream, &[owner.as_fd()], b"y")?,
                    Err(e) => {
                        log::debug!("{e}");
                        unix::fdpass::send_fds(stream, &[], b"n")?;
                    }
                }
            }
            last @ (Word::Done(_) | Word::Failed(_) | Word::Lost(_)) => return Ok(last),
            other => {
                if events.send(Event::Sandbox(other)).is_err() {
                    bail!("nobody listens to it any more");
                }
            }
        }
    }
}

/// What the process itself does, from its first instruction on.
pub fn main() -> Result<()> {
    unix::signals::ignore_sigpipe()?;
    let (fd, _) = unix::activation::listen_fds()?.into_iter().next().context("workers start this, people do not")?;
    let stream = UnixStream::from(fd);
    let order: Order = json::read(&mut BufReader::new(&stream)).context("the worker gave no order")?;
    let file_bytes = order.bytes.max(1 << 20);
    let limits = Limits { file_bytes, memory: MEMORY, cpu_seconds: order.seconds, files: 256 };
    let confined = unix::confine::confine(&order.directory, limits)?;
    let talk = Arc::new(Mutex::new(stream));
    let say = |word: &Word| json::write(&mut &*talk.lock().unwrap_or_else(PoisonError::into_inner), word);
    say(&Word::Lacking(confined.lacking().into_iter().map(str::to_owned).collect()))?;
    match tried(&order, &talk) {
        Ok(tried) => {
            let Tried { files, bytes, seen, seen_bytes, too_large, unmatched, complaints } = tried;
            for file in files {
                say(&Word::File(Box::new(file.into())))?;
            }
            say(&Word::Done(Summary { bytes, seen, seen_bytes, too_large, unmatched, complaints }))?;
        }
        Err(e) => say(&Word::Failed(failure(e)))?,
    }
    Ok(())
}

fn tried(order: &Order, talk: &Arc<Mutex<UnixStream>>) -> archive::Result<Tried> {
    let open = || {
        let connection = Arc::clone(talk);
        Source::of_asked(Arc::new(move || ask(&connection)), &order.archive)
    };
    let source = open()?;
    let trial = Trial {
        files: order.files,
        bytes: order.bytes,
        is_whole: order.is_whole,
        take: order.take.clone(),
        seed: order.seed,
        known: order.known.clone(),
    };
    let mut next = Instant::now();
    let tried = trial::run(&source, &trial, &order.directory, &mut |unit, done, total| {
        if Instant::now() >= next {
            next = Instant::now() + SAY_EVERY;
            let word = Word::Progress { unit: unit.to_owned(), done, total };
            // A worker that is gone takes us with it.
            let _ = json::write(&mut &*talk.lock().unwrap_or_else(PoisonError::into_inner), &word);
        }
    })?;
    if tried.files.iter().any(|file| file.damage.is_some()) {
        // An archive that was deleted meanwhile is not damaged.
        open()?;
    }
    Ok(tried)
}

/// A connection to the owner, from the worker.
fn ask(talk: &Mutex<UnixStream>) -> unix::Result<UnixStream> {
    let stream = talk.lock().unwrap_or_else(PoisonError::into_inner);
    let gone = |why: &str| unix::Error::Invalid(format!("the repository's owner can't be reached{why}"));
    json::write(&mut &*stream, &Word::Connect).map_err(|e| gone(&format!(": {e}")))?;
    let (mut fds, _) = unix::fdpass::recv_fds(&*stream, 1)?;
    fds.pop().map(UnixStream::from).ok_or_else(|| gone(""))
}

fn failure(error: Error) -> Failure {
    let cause = match &error {
        Error::Owner(failure) => return failure.clone(),
        Error::Connect(_) | Error::Unreachable(_) => Cause::OwnerLost,
        Error::TooLarge(_) => Cause::QuotaExceeded { limit: "restore-test".into() },
        Error::Metadata(_) => Cause::RestoreTestDamaged,
        error if trial::is_no_room(error) => Cause::RestoreTestEnospc,
        _ => Cause::Internal,
    };
    Failure::new(cause, unix::logging::escape(&error.to_string()))
}
