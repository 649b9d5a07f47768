//! What a person asks for: a connection for each request, answered when it is done.
//!
//! The connection's own thread does what is slow (view lists, reading, checking); what changes the repository it asks of the writer in
//! bounded steps, between which the writer serves everybody else. See `docs/locking.md` for what goes on beside what.

mod check;
mod compact;
mod damage;
mod delete;
mod export_key;
mod foreign;
mod import;
mod prune;
mod read;
mod verify;

use crate::failures::{ending, internal};
use crate::lending::{self, is_gone};
use crate::orphans;
use crate::owner::Owner;
use crate::upkeep::{Attached, Collected, Upkeep};
use crate::visitors::Visitor;
use crate::writer::{Reply, Request};
use borg::Id;
use model::check::CheckPlan;
use model::{Archive, Failure};
use std::cell::Cell;
use std::collections::HashSet;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};
use wire::WireError;
use wire::maintenance::{Maintain, Operation, Progress, Report};
use wire::session::{VERSION, kind, read_json, write_json};

/// Objects that are collected in one step.
const BATCH: usize = 1000;

/// Deletions after which they are made durable, so that what a discard would bring back stays bounded.
const COMMIT_AFTER: u64 = 50_000;

/// How often a person hears of it.
const NEWS: Duration = Duration::from_millis(200);

/// Serves a connection whose first frame was [`kind::MAINTAIN`].
pub fn run(owner: &Owner, mut stream: UnixStream, payload: &[u8], visitor: Visitor) -> Result<(), WireError> {
    let Maintain { version, operation } = read_json(payload)?;
    if version != VERSION {
        let failure = internal("this program and the owner are of different versions of BorgCube; restart it completely");
        return write_json(&mut stream, kind::FAILED, &failure);
    }
    if !visitor.works && !matches!(operation, Operation::ReadFor { .. }) {
        log::warn!(
            "the status daemon asked for something else than to read on behalf of a person, which is refused: is it still what it was?"
        );
        let failure = internal("the status daemon may read on behalf of a person, and nothing else");
        return write_json(&mut stream, kind::FAILED, &failure);
    }
    let work = Work { owner, stream: stream.try_clone()?, told: Cell::new(Instant::now()) };
    let done = match operation {
        Operation::Release { wait_seconds } => return lending::run(owner, &mut stream, Duration::from_secs(wait_seconds)),
        Operation::Compact { threshold } => work.alone("a compact", || compact::compact(&work, threshold)),
        Operation::Check { verify_data } => work.alone("a check", || check::check(&work, &CheckPlan::everything(verify_data))),
        Operation::CheckBy { plan } => work.alone("a check", || check::check(&work, &plan)),
        Operation::NoteFiles { files } => damage::note_files(owner, files),
        Operation::Delete { archives, dry_run } => work.alone("a delete", || delete::delete(&work, &archives, dry_run)),
        Operation::DeleteDue { archives, compact } => work.alone("a prune", || prune::prune(&work, &archives, compact)),
        Operation::Read { archive } => return read::run(&work, &archive, None),
        Operation::ReadFor { archive, credential } => return read::run(&work, &archive, Some(&credential)),
        Operation::Foreign { after } => foreign::foreign(&work, after.as_deref()),
        Operation::Import(take) => import::run(&work, &take),
        Operation::ExportKey => export_key::export(&work),
    };
    match done {
        Ok(report) => write_json(&mut stream, kind::REPORT, &report),
        Err(Stop::Gone) => {
            log::info!("whoever asked for maintenance is gone; it ends here");
            Ok(())
        }
        Err(Stop::Failed(failure)) => {
            log::warn!("maintenance fails: {}", failure.line());
            write_json(&mut stream, kind::FAILED, &failure)
        }
    }
}

/// Why an operation ends before its end.
enum Stop {
    /// Nobody wants it any more.
    Gone,
    /// It cannot be done.
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Failed(failure)
    }
}

/// One operation at work.
struct Work<'a> {
    owner: &'a Owner,
    stream: UnixStream,
    told: Cell<Instant>,
}

impl Work<'_> {
    /// Waits for the turn.
    fn alone(&self, what: &'static str, work: impl FnOnce() -> Result<Report, Stop>) -> Result<Report, Stop> {
        self.alone_while(what, is_gone, work)
    }

    /// The same, as long as whoever wants it is not gone.
    fn alone_while(
        &self,
        what: &'static str,
        is_gone: fn(&UnixStream) -> bool,
        work: impl FnOnce() -> Result<Report, Stop>,
    ) -> Result<Report, Stop> {
        let turn = self.owner.turn.take(what, None, || !is_gone(&self.stream));
        let _turn = turn.map_err(|_| Stop::Gone)?;
        work()
    }

    /// A step of the writer.
    fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Upkeep) -> Result<T, Stop> {
        let (reply, answer) = sync_channel(1);
        self.owner.writer.send(Request::Upkeep(request(reply))).map_err(|_| ending())?;
        Ok(answer.recv().map_err(|_| ending())??)
    }

    fn attach(&self) -> Result<Attached, Stop> {
        self.ask(|reply| Upkeep::Attach { reply })
    }

    /// Tells how far it is, now and then, and hears whether anybody still wants to know.
    fn progress(&self, unit: &str, done: u64, total: u64) -> Result<(), Stop> {
        if self.told.get().elapsed() < NEWS {
            return Ok(());
        }
        self.told.set(Instant::now());
        if is_gone(&self.stream) {
            return Err(Stop::Gone);
        }
        let progress = Progress { unit: unit.to_owned(), done, total };
        write_json(&mut &self.stream, kind::PROGRESS, &progress).map_err(|_| Stop::Gone)
    }

    /// Deletes what nothing refers to, batch by batch. `ids` were compared with the archives of `records`; those that come meanwhile
    /// are asked before more is deleted.
    fn collect(&self, attached: &Attached, records: &[Archive], mut ids: Vec<Id>) -> Result<Collected, Stop> {
        let mut known: HashSet<String> = records.iter().map(|archive| archive.id.clone()).collect();
        let mut generation = attached.generation;
        let mut sum = Collected::default();
        let (mut at, mut pending) = (0, 0);
        while at < ids.len() {
            let batch = ids[at..ids.len().min(at + BATCH)].to_vec();
            let count = batch.len();
            let opening = &attached.opening;
            let done = self.ask(|reply| Upkeep::Collect { opening: opening.clone(), ids: batch, generation, reply })?;
            if done.is_outdated {
                generation = self.attach()?.generation;
                let all = orphans::records(self.owner)?;
                let new: Vec<Archive> = all.into_iter().filter(|archive| known.insert(archive.id.clone())).collect();
                let mut left = ids.split_off(at);
                if !orphans::strike_all(self.owner, &new, &mut left) {
                    // Nobody knows what the new one refers to; what is in the journal is looked at again later.
                    return Ok(sum);
                }
                ids = left;
                at = 0;
                continue;
            }
            at += count;
            sum.deleted += done.deleted;
            sum.bytes += done.bytes;
            sum.needed += done.needed;
            pending += done.deleted;
            if pending >= COMMIT_AFTER {
                pending = 0;
                self.ask(|reply| Upkeep::Commit { opening: opening.clone(), last: false, reply })?;
            }
            self.progress("objects", sum.deleted, sum.deleted + (ids.len() - at) as u64)?;
        }
        self.ask(|reply| Upkeep::Commit { opening: attached.opening.clone(), last: !attached.is_noted, reply })?;
        Ok(sum)
    }
}
