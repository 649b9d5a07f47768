//! How a session ends: why, who is told, and what becomes of what it sent.

use crate::jobs::Job;
use crate::owner::Owner;
use crate::sent::SentTable;
use crate::session::Ended;
use crate::writer::Request;
use borg::Id;
use model::Failure;
use model::cause::Cause;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use wire::WireError;
use wire::session::{kind, write_json};

/// How long a session that was told why it ends may take to close.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Objects that are looked at under the lock at a time.
const SLICE: usize = 10_000;

/// Finds the reason for an end without a complete archive, and tells the session if it does not know.
pub fn conclude(job: &Job, stream: &mut UnixStream, served: &Result<Ended, WireError>) {
    if job.progress().archive.is_some() {
        return;
    }
    if let Some(failure) = job.opening.failure() {
        job.fail(failure);
    }
    let whole = if job.source.is_some() { "everything was restored" } else { "the archive was complete" };
    let why = match served {
        // No failure of the session: why the client ended, its borg says.
        Ok(Ended::Closed) => return,
        // It goes on elsewhere.
        Ok(Ended::Left) => return,
        Ok(Ended::Vanished) => format!("the session's process ended before {whole}"),
        Ok(Ended::Called) => format!("the session was ended before {whole}, because its job is over"),
        Err(e) => format!("the session ended before {whole}: {e}"),
    };
    job.fail(Failure::new(Cause::SessionLost, why));
    let reason = job.progress().failure.clone();
    if let (Ok(Ended::Called), Some(failure)) = (served, reason) {
        match write_json(stream, kind::FAILED, &failure) {
            Ok(()) => linger(stream),
            Err(e) => log::debug!("the session of job {} was gone already: {e}", job.number),
        }
    }
}

/// Takes what is still on its way until the other side has closed: if we closed first, it would see an error and not our last words.
fn linger(stream: &mut UnixStream) {
    let deadline = Instant::now() + LAST_WORDS;
    let mut waste = vec![0; 1 << 16];
    let mut wait = || -> std::io::Result<usize> {
        let left = deadline.saturating_duration_since(Instant::now());
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        stream.read(&mut waste)
    };
    while Instant::now() < deadline && wait().is_ok_and(|count| count > 0) {}
}

/// What the session sent and no archive refers to is not needed any more.
pub fn release(owner: &Owner, job: &Job) {
    if job.opening.failure().is_some() {
        return;
    }
    let (sent, relied) = {
        // Under the lock, so that nobody gives this job more to rely on afterwards.
        let _known = job.opening.known();
        job.let_go();
        let nothing = SentTable::new(std::path::Path::new(""));
        (std::mem::replace(&mut *job.sent(), nothing), std::mem::take(&mut *job.relied()))
    };
    let (mut orphans, claimant) = (0, job.claimant());
    let mut let_go = |ids: &[Id]| orphans += ids.chunks(SLICE).map(|part| job.opening.known().release(claimant, part)).sum::<usize>();
    let released = sent.each(|part| {
        let_go(&part.iter().map(|(id, _)| *id).collect::<Vec<_>>());
        Ok(())
    });
    let_go(&relied.into_iter().collect::<Vec<_>>());
    match released {
        Ok(()) => job.opening.known().forget_claimant(claimant),
        // What it claims stays until the repository is opened again, which finds it in the journal.
        Err(failure) => log::warn!("job {}: what it sent is not removed yet: {}", job.number, failure.line()),
    }
    if orphans > 0 {
        log::info!("job {}: {orphans} chunks that no archive refers to are to go", job.number);
        if owner.writer.send(Request::Tidy).is_err() {
            log::debug!("the owner is ending");
        }
    }
}
