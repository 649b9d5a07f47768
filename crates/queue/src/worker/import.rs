//! Imports: archives of other origin are read by confined processes, one for each, and the repository's owner gives them records.
//!
//! Whoever made them may have written anything into their lists of files. What is not understood to its last byte is refused: the list of
//! chunks that comes out decides what is deleted one day. The worker itself sees that list, and whether it is one, and nothing else.

use super::sandbox::{self, Done, Order, What, Word};
use super::{Event, Stop, TICK, Worker};
use archive::source;
use model::check::DamagedFiles;
use model::import::{Choice, Foreign, Import};
use model::{Cause, ConfigName, Failure, JobState, Timestamp, Yield};
use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use unix::logging::escape;
use unix::paths::Layout;
use wire::frame;
use wire::importing::{BATCH, Counted, Take, Unusable, Use, kind as importing};
use wire::maintenance::{Maintain, Operation, Progress, Report};
use wire::session::{VERSION, kind, read_json, write_json};
use wire::worker::{Finished, Task, ToWorker};

/// Whoever restarts the owner does not mean the job: an archive is begun anew so often.
const TRIES: u32 = 3;

/// Files that are named of an archive that is refused.
const NAMED: usize = 20;

/// What the thread that imports has to tell.
#[derive(Debug)]
pub enum Said {
    /// So far it is.
    Progress(Progress),
    /// A line for the log.
    Note(String),
    /// A warning.
    Warn(String),
    /// It is over.
    Ended(Result<Tally, Failure>),
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Tally {
    imported: u64,
    refused: u64,
    skipped: u64,
    /// Why the first one was refused.
    first: Option<String>,
    /// Chunks are missing or damaged.
    is_damage: bool,
}

/// Imports one archive after the other.
pub fn run(worker: &mut Worker, layout: &Layout, task: &Task, import: &Import, events: Sender<Event>) -> Result<Finished, Stop> {
    let thread = Importer {
        socket: layout.repository_socket(task.repository.name.as_str()),
        scratch: layout.job_log(task.job.number).parent().map(PathBuf::from).unwrap_or_default(),
        job: task.job.number,
        by: task.job.actor.clone(),
        seconds: task.total_seconds,
        objects: task.objects,
        has_said_what_lacks: Cell::default(),
        stop: Arc::default(),
        asked: Arc::default(),
        events: events.clone(),
    };
    let (stop, asked) = (Arc::clone(&thread.stop), Arc::clone(&thread.asked));
    let import = import.clone();
    std::thread::spawn(move || {
        let ended = thread.run(&import);
        // Nobody listens any more only if the worker has ended.
        let _ = events.send(Event::Import(Said::Ended(ended)));
    });
    worker.advance(JobState::RepositoryInProgress)?;
    let tally = follow(worker, &stop, &asked)?;
    let failure = tally.failure();
    let mut finished = worker.finished(failure);
    finished.yielded = Some(Yield::Imported { imported: tally.imported, refused: tally.refused, skipped: tally.skipped });
    Ok(finished)
}

impl Tally {
    fn failure(&self) -> Option<Failure> {
        let first = self.first.as_deref()?;
        let cause = if self.is_damage { Cause::RepositoryCheckNeeded } else { Cause::RepositoryError };
        let of = self.imported + self.refused;
        Some(Failure::new(cause, format!("{} of {of} archives could not be imported, the first: {first}", self.refused)))
    }
}

/// Until the thread has ended. A person who cancels it ends it at its next step; what was imported by then stays.
fn follow(worker: &mut Worker, stop: &AtomicBool, asked: &Mutex<Option<UnixStream>>) -> Result<Tally, Stop> {
    let end = || {
        stop.store(true, Ordering::SeqCst);
        if let Some(stream) = &*asked.lock().unwrap_or_else(PoisonError::into_inner) {
            // The owner sees it, and so does the thread that listens to it.
            let _ = stream.shutdown(Shutdown::Both);
        }
    };
    let mut next_flush = Instant::now() + TICK;
    loop {
        let event = match worker.waiting.pop_front() {
            Some(event) => Some(event),
            None => match worker.events.recv_timeout(next_flush.saturating_duration_since(Instant::now())) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Err(anyhow::anyhow!("nobody tells anything any more").into()),
            },
        };
        let now = Timestamp::now();
        match event {
            Some(Event::Import(Said::Progress(progress))) => worker.report.steps(progress, now),
            Some(Event::Import(Said::Note(line))) => worker.note(&line),
            Some(Event::Import(Said::Warn(line))) => worker.report.warn(line, now),
            Some(Event::Import(Said::Ended(ended))) => {
                let by = worker.cancelled.clone().filter(|_| stop.load(Ordering::SeqCst));
                let cancelled = |by: String| {
                    Failure::new(Cause::Cancelled { by: by.clone() }, format!("cancelled by {by}; what was imported by then stays"))
                };
                return match (ended, by) {
                    (Err(_), Some(by)) => Err(cancelled(by).into()),
                    (Err(failure), None) => Err(failure.into()),
                    (Ok(tally), _) => Ok(tally),
                };
            }
            Some(Event::Control(ToWorker::Cancel { by })) => {
                worker.note(&format!("cancelled by {by}: it ends at its next step"));
                worker.cancelled = Some(by);
                end();
            }
            Some(Event::ControlLost) => {
                end();
                if !worker.outlives {
                    return Err(anyhow::anyhow!("borgcubed is gone").into());
                }
                log::warn!("borgcubed was stopped; the import ends at its next step");
                worker.lost = true;
                worker.cancelled.get_or_insert_with(|| "the stop of borgcubed".into());
            }
            Some(other) => return Err(anyhow::anyhow!("{other:?} came out of turn").into()),
            None => {}
        }
        if Instant::now() >= next_flush || worker.report.is_heavy() {
            worker.flush()?;
            next_flush = Instant::now() + TICK;
        }
    }
}

/// The thread that does it.
struct Importer {
    socket: PathBuf,
    /// Where files without a name may be made.
    scratch: PathBuf,
    job: u64,
    by: String,
    /// That one archive may take.
    seconds: u64,
    /// Different chunks that one archive may refer to.
    objects: u64,
    has_said_what_lacks: Cell<bool>,
    stop: Arc<AtomicBool>,
    /// The connection on which an answer is awaited.
    asked: Arc<Mutex<Option<UnixStream>>>,
    events: Sender<Event>,
}

/// Why one archive is not imported.
enum Why {
    /// The others may be.
    Refused { why: String, is_damage: bool },
    /// Nothing more can be done.
    Failed(Failure),
}

impl From<Failure> for Why {
    fn from(failure: Failure) -> Why {
        Why::Failed(failure)
    }
}

impl Importer {
    fn tell(&self, said: Said) {
        // Whoever does not listen has ended, and this ends with it.
        let _ = self.events.send(Event::Import(said));
    }

    fn stopped(&self) -> Failure {
        Failure::new(Cause::Internal, "it was ended")
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn run(&self, import: &Import) -> Result<Tally, Failure> {
        let (chosen, missing) = import.choose(self.foreign()?).map_err(|why| Failure::new(Cause::Internal, why))?;
        let mut tally = Tally::default();
        for name in missing {
            tally.skipped += 1;
            self.tell(Said::Warn(format!("there is no archive {} without a record: nothing to do", escape(&name))));
        }
        let total = chosen.len() as u64;
        for (done, (archive, choice)) in (0..).zip(chosen) {
            self.tell(Said::Progress(Progress { unit: "archives".into(), done, total }));
            let name = escape(&archive.name);
            match choice {
                Choice::Skip(why) => {
                    tally.skipped += 1;
                    self.tell(Said::Note(format!("archive {name} is left alone: {why}")));
                }
                Choice::Import(config) => match self.import(&archive, &config) {
                    Ok(()) => tally.imported += 1,
                    Err(Why::Failed(failure)) => return Err(failure),
                    Err(Why::Refused { why, is_damage }) => {
                        tally.refused += 1;
                        tally.is_damage |= is_damage;
                        let sentence = format!("archive {name} is not imported: {why}");
                        tally.first.get_or_insert_with(|| sentence.clone());
                        self.tell(Said::Warn(sentence));
                    }
                },
            }
        }
        Ok(tally)
    }

    /// The archives without a record.
    fn foreign(&self) -> Result<Vec<Foreign>, Failure> {
        let (mut all, mut after, mut tries) = (vec![], None, 0);
        loop {
            tries += 1;
            let stream = self.ask(Operation::Foreign { after: after.clone() })?;
            match self.answer(stream) {
                Ok(Report::Foreign { archives, next }) => {
                    all.extend(archives);
                    (after, tries) = (next, 0);
                    if after.is_none() {
                        return Ok(all);
                    }
                }
                Ok(other) => return Err(senseless(&other)),
                Err(failure) if failure.cause == Cause::OwnerLost && tries < TRIES && !self.is_stopped() => {}
                Err(failure) => return Err(failure),
            }
        }
    }

    fn import(&self, archive: &Foreign, config: &ConfigName) -> Result<(), Why> {
        let mut tries = 0;
        loop {
            tries += 1;
            if self.is_stopped() {
                return Err(self.stopped().into());
            }
            match self.try_import(archive, config) {
                Err(Why::Failed(failure)) if failure.cause == Cause::OwnerLost && tries < TRIES && !self.is_stopped() => {
                    self.tell(Said::Note(format!("{}; it begins anew", failure.message)));
                }
                other => return other,
            }
        }
    }

    fn try_import(&self, archive: &Foreign, config: &ConfigName) -> Result<(), Why> {
        if let Some(why) = &archive.damage {
            return Err(Why::Refused { why: format!("its metadata cannot be used: {why}"), is_damage: true });
        }
        let stream = unix::socket::connect(&self.socket).map_err(lost)?;
        let id = source::identity(stream, &archive.id).map_err(reading)?;
        if id != archive.id {
            // An archive can be called like another one's id.
            let why = format!("archive {} has this one's id as its name; rename or delete that first", escape(&id));
            return Err(Why::Refused { why, is_damage: false });
        }
        let list = self.collect(archive)?;
        let take = Take { name: archive.name.clone(), id: archive.id.clone(), config: config.clone(), job: self.job, by: self.by.clone() };
        let stream = self.ask(Operation::Import(Box::new(take)))?;
        // An owner that does not want more says why.
        match list.send(&stream) {
            Err(Unsent::Nonsense) => {
                let why = "the confined process that reads it does not say what it refers to".into();
                return Err(Why::Refused { why, is_damage: false });
            }
            Err(Unsent::Scratch(e)) => return Err(scratch(e)),
            Err(Unsent::Owner(e)) => log::debug!("the owner does not listen to the end: {e}"),
            Ok(()) => {}
        }
        match self.answer(stream)? {
            Report::Imported { chunks, statistics, warnings } => {
                let (name, files) = (escape(&archive.name), statistics.nfiles);
                self.tell(Said::Note(format!("archive {name} is imported as {config}: {files} files, {chunks} chunks")));
                warnings.into_iter().for_each(|warning| self.tell(Said::Warn(format!("archive {name}: {warning}"))));
                Ok(())
            }
            Report::Refused { why, unusable, count } if count > 0 => {
                let why = why + &self.concerned(archive, &unusable)?;
                Err(Why::Refused { why, is_damage: true })
            }
            Report::Refused { why, .. } => Err(Why::Refused { why, is_damage: false }),
            other => Err(senseless(&other).into()),
        }
    }

    /// What the archive refers to.
    fn collect(&self, archive: &Foreign) -> Result<List, Why> {
        let file = || tempfile::tempfile_in(&self.scratch).map_err(scratch);
        let files = [file()?, file()?];
        match self.confined(archive, What::Uses { most: self.objects }, &files)? {
            Done::Uses { file, uses, counted } => {
                let [first, second] = files;
                Ok(List { file: if file == 0 { first } else { second }, uses, counted })
            }
            Done::Refused { why, is_damage } => Err(Why::Refused { why, is_damage }),
            other => Err(Failure::new(Cause::Internal, format!("{other:?} came out of turn")).into()),
        }
    }

    /// Has a confined process do it.
    fn confined(&self, archive: &Foreign, what: What, files: &[File]) -> Result<Done, Why> {
        let order = Order { archive: archive.id.clone(), seconds: self.seconds, what };
        let until = Instant::now() + Duration::from_secs(self.seconds);
        let done = sandbox::run(&self.socket, &order, files, until, &mut |word| {
            match word {
                Some(Word::Progress { unit, done, total }) => self.tell(Said::Progress(Progress { unit, done, total })),
                Some(Word::Ready(ready)) if !self.has_said_what_lacks.replace(true) => {
                    ready.lacking().into_iter().for_each(|lacking| self.tell(Said::Note(lacking)));
                }
                _ => {}
            }
            !self.is_stopped()
        });
        match done {
            Ok(Some(done)) => Ok(done),
            Ok(None) => Err(self.stopped().into()),
            // What is wrong with one archive concerns no other one.
            Err(failure) if matches!(failure.cause, Cause::WorkerCrashed | Cause::TooSlow) => {
                Err(Why::Refused { why: failure.message, is_damage: false })
            }
            Err(failure) => Err(judged(failure)),
        }
    }

    /// What is wrong with which chunks, and which files have them.
    fn concerned(&self, archive: &Foreign, unusable: &[Unusable]) -> Result<String, Why> {
        for Unusable { id, why } in unusable {
            self.tell(Said::Note(format!("chunk {id}: {why}")));
        }
        let chunks = unusable.iter().map(|one| one.id.clone()).collect();
        match self.confined(archive, What::Files { chunks }, &[])? {
            Done::Files(files) => Ok(named(files)),
            other => Err(Failure::new(Cause::Internal, format!("{other:?} came out of turn")).into()),
        }
    }

    fn ask(&self, operation: Operation) -> Result<UnixStream, Failure> {
        let mut stream = unix::socket::connect(&self.socket).map_err(lost)?;
        write_json(&mut stream, kind::MAINTAIN, &Maintain { version: VERSION, operation }).map_err(lost)?;
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream.try_clone().map_err(lost)?);
        if self.is_stopped() {
            return Err(self.stopped());
        }
        Ok(stream)
    }

    fn answer(&self, mut stream: UnixStream) -> Result<Report, Failure> {
        let mut payload = vec![];
        loop {
            match frame::read(&mut stream, &mut payload).map_err(lost)? {
                kind::PROGRESS => self.tell(Said::Progress(read_json(&payload).map_err(lost)?)),
                kind::REPORT => return read_json(&payload).map_err(lost),
                kind::FAILED => return Err(read_json(&payload).map_err(lost)?),
                other => return Err(lost(format!("an answer of type {other}"))),
            }
        }
    }
}

/// Files, for the end of a sentence.
fn named(DamagedFiles { mut paths, more, incomplete }: DamagedFiles) -> String {
    let more = more.saturating_add(paths.len().saturating_sub(NAMED) as u64);
    paths.truncate(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let incomplete = incomplete.map(|why| format!("; there may be more: {why}")).unwrap_or_default();
    if paths.is_empty() { incomplete } else { format!("; files: {}{more}{incomplete}", paths.join(", ")) }
}

/// What an archive refers to, as a process says that nobody trusts, and that is gone.
#[derive(Debug)]
struct List {
    file: File,
    uses: u64,
    counted: Counted,
}

/// Why a list is not said to its end.
#[derive(Debug)]
enum Unsent {
    /// It is none.
    Nonsense,
    /// It cannot be read.
    Scratch(io::Error),
    /// The owner does not listen.
    Owner(wire::WireError),
}

impl List {
    /// Says it to the owner. A list that is none is not said to its end, so that nothing comes of it.
    fn send(mut self, mut stream: &UnixStream) -> Result<(), Unsent> {
        let size = self.file.metadata().map_err(Unsent::Scratch)?.len();
        if self.uses.checked_mul(Use::SIZE as u64) != Some(size) {
            return Err(Unsent::Nonsense);
        }
        self.file.seek(SeekFrom::Start(0)).map_err(Unsent::Scratch)?;
        let (mut left, mut last) = (self.uses, None);
        while left > 0 {
            let count = left.min(BATCH as u64);
            let mut bytes = vec![0; count as usize * Use::SIZE];
            self.file.read_exact(&mut bytes).map_err(Unsent::Scratch)?;
            for one in Use::decode_all(&bytes).map_err(Unsent::Owner)? {
                if last.replace(one.id).is_some_and(|last| last >= one.id) {
                    return Err(Unsent::Nonsense);
                }
            }
            frame::write(&mut stream, importing::USES, &[&bytes]).map_err(Unsent::Owner)?;
            left -= count;
        }
        write_json(&mut stream, importing::COUNTED, &self.counted).map_err(Unsent::Owner)
    }
}

/// What is wrong with one archive concerns no other one.
fn reading(error: archive::Error) -> Why {
    match error {
        archive::Error::Owner(failure) => judged(failure),
        other => Why::Failed(lost(other)),
    }
}

fn judged(failure: Failure) -> Why {
    match failure.cause {
        Cause::RepositoryIntegrity => Why::Refused { why: failure.message, is_damage: true },
        _ => Why::Failed(failure),
    }
}

fn scratch(e: io::Error) -> Why {
    Why::Failed(Failure::new(Cause::DatabaseEnospc, format!("cannot write what does not fit into memory: {e}")))
}

fn lost(e: impl std::fmt::Display) -> Failure {
    Failure::new(Cause::OwnerLost, format!("the repository's owner process can't be reached: {}", escape(&e.to_string())))
}

fn senseless(report: &Report) -> Failure {
    Failure::new(Cause::Internal, format!("the owner reports something else than what was asked for: {report:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(ids: &[u8], uses: u64) -> List {
        let mut bytes = vec![];
        ids.iter().for_each(|id| Use { id: [*id; 32], size: 5, count: 1 }.encode(&mut bytes));
        let file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut &file, &bytes).unwrap();
        List { file, uses, counted: Counted { files: 7, repaired: 0 } }
    }

    /// What an owner hears of it: frames.
    fn heard(list: List) -> (Result<(), Unsent>, Vec<u8>) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let said = list.send(&ours);
        drop(ours);
        let (mut kinds, mut payload) = (vec![], vec![]);
        while let Ok(kind) = frame::read(&mut theirs, &mut payload) {
            kinds.push(kind);
        }
        (said, kinds)
    }

    #[test]
    fn a_list_that_is_none_is_not_said_to_its_end() {
        let (said, kinds) = heard(list(&[1, 2, 3], 3));
        assert!(said.is_ok() && kinds == [importing::USES, importing::COUNTED]);
        assert_eq!(heard(list(&[], 0)).1, [importing::COUNTED]);
        for (ids, uses) in [(&[1, 1][..], 2), (&[2, 1], 2), (&[1, 2], 3), (&[1, 2], 1), (&[1, 2], u64::MAX)] {
            let (said, kinds) = heard(list(ids, uses));
            assert!(matches!(said, Err(Unsent::Nonsense)) && kinds.is_empty(), "{ids:?} {uses}: {said:?}");
        }
    }

    #[test]
    fn files_end_a_sentence() {
        let files = |count: usize, more, incomplete: Option<&str>| {
            named(DamagedFiles { paths: (0..count).map(|n| n.to_string()).collect(), more, incomplete: incomplete.map(Into::into) })
        };
        assert_eq!(files(0, 0, None), "");
        assert_eq!(files(2, 0, None), "; files: 0, 1");
        assert!(files(30, 5, Some("a hole")).ends_with(", 19 and 15 more; there may be more: a hole"));
    }

    #[test]
    fn a_refusal_fails_the_job_and_says_what_kind_it_is() {
        let tally = |refused: u64, is_damage| Tally {
            imported: 3,
            refused,
            skipped: 9,
            first: (refused > 0).then(|| "archive a is not imported: x".into()),
            is_damage,
        };
        assert_eq!(tally(0, false).failure(), None);
        let failure = tally(2, true).failure().unwrap();
        assert_eq!(failure.cause, Cause::RepositoryCheckNeeded);
        assert_eq!(failure.message, "2 of 5 archives could not be imported, the first: archive a is not imported: x");
        assert_eq!(tally(1, false).failure().unwrap().cause, Cause::RepositoryError);
    }
}
