//! What the confined process itself does, from its first instruction on.

use super::words::{Done, Extract, Order, Ready, Summary, What, Word};
use anyhow::{Context, Result};
use archive::trial::{self, Trial, Tried};
use archive::{Error, Source, damaged, uses};
use model::{Cause, Failure};
use std::fs::File;
use std::io::BufReader;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use unix::confine::Limits;
use wire::json;

/// Address space, most of which is only reserved by the threads that read.
const MEMORY: u64 = 8 << 30;

/// So often it says how far it is.
const SAY_EVERY: Duration = Duration::from_millis(250);

/// Its worker.
#[derive(Clone)]
struct Talk {
    stream: Arc<Mutex<UnixStream>>,
    next: Instant,
}

/// Reads the order, gives up everything else, and does it.
pub fn main() -> Result<()> {
    unix::signals::ignore_sigpipe()?;
    let mut fds = unix::activation::listen_fds()?.into_iter().map(|(fd, _)| fd);
    let stream = UnixStream::from(fds.next().context("workers start this, people do not")?);
    let scratch: Vec<File> = fds.map(File::from).collect();
    let order: Order = json::read(&mut BufReader::new(&stream)).context("the worker gave no order")?;
    let (directory, file_bytes) = match &order.what {
        What::Extract(extract) => (Some(extract.directory.as_path()), extract.bytes.max(1 << 20)),
        What::Uses { most } => (None, uses::scratch_bytes(*most)),
        // It may have something to say when it fails.
        What::Files { .. } => (None, 1 << 20),
    };
    let limits = Limits { file_bytes, memory: MEMORY, cpu_seconds: order.seconds, files: 256 };
    let confined = unix::confine::confine(directory, limits)?;
    let mut talk = Talk { stream: Arc::new(Mutex::new(stream)), next: Instant::now() };
    talk.say(&Word::Ready(Ready::from(confined)))?;
    let done = match &order.what {
        What::Extract(extract) => tried(&order.archive, extract, &mut talk),
        What::Uses { most } => uses(&order.archive, *most, scratch, &mut talk),
        What::Files { chunks } => files(&order.archive, chunks, &mut talk),
    };
    match done {
        Ok(done) => talk.say(&Word::Done(done)),
        Err(e) => talk.say(&Word::Failed(failure(e))),
    }
}

impl Talk {
    fn say(&self, word: &Word) -> Result<()> {
        Ok(json::write(&mut &*self.stream.lock().unwrap_or_else(PoisonError::into_inner), word)?)
    }

    fn progress(&mut self, unit: &str, done: u64, total: u64) {
        if Instant::now() >= self.next {
            self.next = Instant::now() + SAY_EVERY;
            // A worker that is gone takes us with it.
            let _ = self.say(&Word::Progress { unit: unit.to_owned(), done, total });
        }
    }

    fn open(&self, archive: &str) -> archive::Result<Source> {
        let stream = Arc::clone(&self.stream);
        Source::of_asked(Arc::new(move || ask(&stream)), archive)
    }
}

/// A connection to the owner, from the worker.
fn ask(talk: &Mutex<UnixStream>) -> unix::Result<UnixStream> {
    let stream = talk.lock().unwrap_or_else(PoisonError::into_inner);
    let gone = |why: &str| unix::Error::Invalid(format!("the repository's owner can't be reached{why}"));
    json::write(&mut &*stream, &Word::Connect).map_err(|e| gone(&format!(": {e}")))?;
    let (mut fds, _) = unix::fdpass::recv_fds(&*stream, 1)?;
    fds.pop().map(UnixStream::from).ok_or_else(|| gone(""))
}

fn tried(archive: &str, extract: &Extract, talk: &mut Talk) -> archive::Result<Done> {
    let source = talk.open(archive)?;
    let trial = Trial {
        files: extract.files,
        bytes: extract.bytes,
        is_whole: extract.is_whole,
        take: extract.take.clone(),
        seed: extract.seed,
        known: extract.known.clone(),
    };
    let tried = trial::run(&source, &trial, &extract.directory, &mut |unit, done, total| talk.progress(unit, done, total))?;
    if tried.files.iter().any(|file| file.damage.is_some()) {
        // An archive that was deleted meanwhile is not damaged.
        talk.open(archive)?;
    }
    let Tried { files, bytes, seen, seen_bytes, too_large, unmatched, complaints, not_compared } = tried;
    for file in files {
        // See above.
        let _ = talk.say(&Word::File(Box::new(file.into())));
    }
    Ok(Done::Tried(Summary { bytes, seen, seen_bytes, too_large, unmatched, complaints, not_compared }))
}

fn uses(archive: &str, most: u64, scratch: Vec<File>, talk: &mut Talk) -> archive::Result<Done> {
    let scratch: [File; 2] = scratch.try_into().map_err(|_| Error::Scratch(std::io::Error::other("there are not two scratch files")))?;
    let collected = talk.open(archive).and_then(|source| {
        uses::collect(&source, most, &scratch, &mut |done, total| {
            talk.progress("pieces of the list of files", done as u64, total as u64);
            true
        })
    });
    let refused = |why: &str, is_damage| Ok(Done::Refused { why: unix::logging::escape(why), is_damage });
    match collected {
        Ok(Some(uses)) => Ok(uses.into()),
        Ok(None) => refused("it was not read to its end", false),
        Err(Error::Incomplete(why)) => refused(&why, true),
        Err(Error::TooLarge(why)) => refused(&why, false),
        Err(Error::Metadata(e)) => refused(&e.to_string(), true),
        Err(e) => Err(e),
    }
}

fn files(archive: &str, chunks: &[String], talk: &mut Talk) -> archive::Result<Done> {
    let source = talk.open(archive)?;
    let found = damaged::files(&source, &damaged::ids(chunks), &mut || true)?;
    Ok(Done::Files(found.unwrap_or_default()))
}

fn failure(error: Error) -> Failure {
    let cause = match &error {
        Error::Owner(failure) => return failure.clone(),
        Error::Connect(_) | Error::Unreachable(_) => Cause::OwnerLost,
        Error::TooLarge(_) => Cause::QuotaExceeded { limit: "restore-test".into() },
        Error::Metadata(_) => Cause::RestoreTestDamaged,
        Error::Scratch(_) => Cause::DatabaseEnospc,
        error if trial::is_no_room(error) => Cause::RestoreTestEnospc,
        _ => Cause::Internal,
    };
    Failure::new(cause, unix::logging::escape(&error.to_string()))
}
