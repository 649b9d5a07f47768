//! Restores: a stock borg on the client extracts an archive that the repository's owner shows to this one job.

mod damaged;

use super::report::Troubles;
use super::script::{self, Way};
use super::verdict::{self, Evidence};
use super::{Caches, Carriage, Event, Stop, Worker, way};
use crate::worker::client::Client;
use crate::worker::owner::Owner;
use anyhow::Result as Anyhow;
use model::borg_report::{Ending, ending};
use model::client::Connection;
use model::restore::Restore;
use model::{Cause, Failure, JobState, Timestamp, Yield};
use std::sync::mpsc::Sender;
use unix::paths::Layout;
use wire::session::{self, Outcome, Prepare, Purpose, Served};
use wire::worker::{Finished, Restoring, Task};

/// What a client is told to restore this time.
struct Round<'a> {
    restore: Restore,
    /// Files that the time before may have left half written; None: it is the first time.
    again: Option<&'a [Vec<u8>]>,
}

/// What came of it.
struct Came {
    failure: Option<Failure>,
    warning: Option<String>,
    served: Served,
}

/// From the token to the verdict. No stock borg goes on behind a chunk that is damaged, so a client that has met one begins anew, without the files
/// that cannot be read: everything else is restored.
pub fn run(worker: &mut Worker, layout: &Layout, task: &Task, errand: &Restoring, sender: Sender<Event>) -> Result<Finished, Stop> {
    let restore = &errand.restore;
    let mut damage = None;
    if errand.damaged && !damaged::is_exact(restore) {
        worker
            .note("the archive is known to be damaged; which files the patterns select only the client's borg knows, so it is tried first");
    } else if errand.damaged {
        worker.note("the archive is known to be damaged: all that is to be restored is read first, to see which files that concerns");
        damage = damaged::look(worker, layout, task, restore)?;
    }
    let mut came = None;
    if damage.is_none() {
        came = Some(once(worker, layout, task, errand, &Round { restore: restore.clone(), again: None }, &sender)?);
        let told = came.as_ref().and_then(|came| came.failure.as_ref());
        if worker.cancelled.is_none() && !worker.lost && told.is_some_and(damaged::may_be) {
            worker.note("a part of the archive cannot be read: all that is to be restored is read here, to see which files that concerns");
            damage = damaged::look(worker, layout, task, restore)?;
        }
    }
    if let Some(damage) = &damage {
        match damage.rest(restore) {
            Ok(rest) => {
                let again = came.is_some().then_some(damage.paths.as_slice());
                worker.begin_again(task, layout);
                worker.note(&format!("restoring everything but the files that are damaged: {}", damage.names()));
                came = Some(once(worker, layout, task, errand, &Round { restore: rest, again }, &sender)?);
            }
            Err(why) => worker.note(&why),
        }
    }
    drop(sender);
    Ok(conclude(worker, task, restore, came, damage)?)
}

/// One run of the client's script.
fn once(
    worker: &mut Worker,
    layout: &Layout,
    task: &Task,
    errand: &Restoring,
    round: &Round<'_>,
    sender: &Sender<Event>,
) -> Result<Came, Stop> {
    let (job, restore, connection) = (&task.job, &round.restore, &errand.client.connection);
    let arguments = restore.borg_arguments();
    let mut cmdline = vec!["borg".to_owned()];
    cmdline.extend(arguments.iter().cloned());

    let mut owner = Owner::connect(layout, task.repository.name.as_str())?;
    let prepared = owner.prepare(&Prepare {
        version: session::VERSION,
        job: job.number,
        archive_name: restore.archive.clone(),
        cmdline,
        start: job.started().unwrap_or_else(Timestamp::now),
        purpose: Purpose::Restore { archive: restore.id.clone() },
    })?;
    worker.note(&format!("archive {} of {} has {} chunks", restore.archive, restore.of, prepared.view_chunks));

    let way = way(task, connection, layout, &prepared)?;
    let input = script::restore(task, errand, restore, round.again, &prepared, &way);
    let mut client = Client::start(connection, input, sender, &worker.gate)?;
    let sender = matches!(way, Way::Carrier).then(|| sender.clone());
    let carrier = Carriage::of(sender, connection, script::directory(task, connection, &prepared), layout);
    worker.attend(&mut client, &mut Caches { owner: &mut owner, prepared: &prepared, kept: None, counts: restore.is_whole(), carrier })?;
    let ended = client.wait()?;
    // From now on sshd knows the job's key no more.
    drop(way);

    let repository = task.repository.name.as_str();
    let outcome = owner.finish(job.number).or_else(|_| Owner::connect(layout, repository)?.finish(job.number));
    if let Err(failure) = &outcome {
        worker.note(&failure.line());
    }
    let outcome = outcome.ok();
    let evidence = Evidence {
        outcome: outcome.as_ref(),
        report: &worker.report,
        connection: ended,
        cancelled: worker.cancelled.as_deref(),
        over_ssh: matches!(connection, Connection::Ssh(_)),
    };
    let (failure, warning) = judge(&evidence, restore.paths.len() as u64, restore.is_whole());
    Ok(Came { failure, warning, served: outcome.and_then(|outcome| outcome.served).unwrap_or_default() })
}

/// How the job ends, after what the client did and what is damaged.
fn conclude(worker: &mut Worker, task: &Task, restore: &Restore, came: Option<Came>, damage: Option<damaged::Found>) -> Anyhow<Finished> {
    let target = worker.report.target.clone().unwrap_or_default();
    let Came { failure, warning, served: Served { chunks, of, bytes } } =
        came.unwrap_or(Came { failure: None, warning: None, served: Served::default() });
    if let Some(warning) = warning {
        worker.report.warn(warning, Timestamp::now());
    }
    let failure = match damage {
        None => failure,
        Some(damage) => Some(damage.failure(task.repository.name.as_str(), restore, &target, failure)),
    };
    if let Some(failure) = &failure
        && !target.is_empty()
        && chunks > 0
    {
        worker.note(&format!("what was restored by then is in {target} on the client ({})", failure.cause.word()));
    }
    if failure.is_none() {
        worker.note(&format!("restored into {target}: the client read {chunks} of {of} chunks, {bytes} bytes"));
        worker.advance(JobState::ClientCleanup)?;
    }
    let mut finished = worker.finished(failure);
    finished.yielded = Some(Yield::Restored { target, chunks, of, bytes });
    Ok(finished)
}

/// The failure, or None when everything that was asked for is on the client; and a warning, if any. A client may lie about what it wrote, not about
/// what it has read.
fn judge(evidence: &Evidence<'_>, paths: u64, whole: bool) -> (Option<Failure>, Option<String>) {
    let Evidence { outcome, report, .. } = evidence;
    if let Some(failure) = verdict::trouble(evidence) {
        return (Some(failure), None);
    }
    let Troubles { no_room, denied, unmatched } = &report.troubles;
    let more = |count: u64| if count > 1 { format!(", and {} more", count - 1) } else { String::new() };
    if let Some((first, count)) = no_room {
        let message = format!("the client has no room for everything: {first}{}", more(*count));
        return (Some(Failure::new(Cause::ClientEnospc, message)), None);
    }
    if let Some((first, count)) = denied {
        let message = format!("the client's user may not restore everything: {first}{}", more(*count));
        return (Some(Failure::new(Cause::ClientPermission, message)), None);
    }
    if paths > 0 && *unmatched >= paths {
        let message = "none of the paths is in the archive; nothing was restored";
        return (Some(Failure::new(Cause::PathNotInArchive, message)), None);
    }
    let code = report.exit.unwrap_or(0);
    let lied = |message: String| (Some(Failure::new(Cause::ClientBorgFailed { code, msgid: String::new() }, message)), None);
    let Some(Outcome { opened: true, served: Some(served), .. }) = outcome else {
        return lied("borg on the client reported success, but never asked for the archive".to_owned());
    };
    if whole && served.chunks < served.of {
        let message = format!("the client read {} of the archive's {} chunks: not everything was restored", served.chunks, served.of);
        return match ending(code) {
            Ending::Good { warnings: true } => (None, Some(message)),
            _ => lied(format!("borg on the client reported success, but {message}")),
        };
    }
    (None, None)
}

/// What a restore's messages come down to. (Borg 1.x goes on with the next file, and says so in a warning.)
impl Troubles {
    /// One of borg's warnings.
    pub fn warning(&mut self, message: &str) {
        let errno = |numbers: &[u32]| numbers.iter().any(|n| message.contains(&format!("[Errno {n}]")));
        let note = |place: &mut Option<(String, u64)>| match place {
            Some((_, count)) => *count += 1,
            None => *place = Some((message.to_owned(), 1)),
        };
        // ENOSPC, EDQUOT; EACCES, EROFS.
        if errno(&[28, 122]) {
            note(&mut self.no_room);
        } else if errno(&[13, 30]) {
            note(&mut self.denied);
        } else if message.starts_with("Include pattern '") && message.ends_with("' never matched.") {
            self.unmatched += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Report;
    use super::*;
    use model::progress::SessionCounters;
    use unix::pidfd::ExitStatus;

    fn outcome(chunks: u64, of: u64) -> Outcome {
        Outcome {
            opened: chunks > 0,
            archive: None,
            checkpoint: None,
            failure: None,
            counters: SessionCounters::default(),
            served: Some(Served { chunks, of, bytes: 0 }),
        }
    }

    fn report(exit: i32, warnings: &[&str]) -> Report {
        let mut report = Report::default();
        report.step(format!("borgcube exit {exit}").as_bytes(), Timestamp(0));
        for warning in warnings {
            let line = serde_json::json!({"type": "log_message", "levelname": "WARNING", "message": warning});
            report.line(line.to_string().as_bytes(), Timestamp(0));
        }
        report
    }

    fn word(outcome: Option<&Outcome>, report: &Report, paths: u64, cancelled: Option<&str>) -> (&'static str, bool) {
        let evidence = Evidence { outcome, report, connection: ExitStatus::Exited(0), cancelled, over_ssh: true };
        let (failure, warning) = judge(&evidence, paths, paths == 0);
        (failure.map_or("good", |failure| failure.cause.word()), warning.is_some())
    }

    #[test]
    fn what_was_read_outranks_what_is_said() {
        assert_eq!(word(Some(&outcome(5, 5)), &report(0, &[]), 0, None), ("good", false));
        assert_eq!(word(Some(&outcome(4, 5)), &report(0, &[]), 0, None), ("client-borg-failed", false));
        assert_eq!(word(Some(&outcome(4, 5)), &report(1, &["etc/x: something"]), 0, None), ("good", true));
        assert_eq!(word(Some(&outcome(4, 5)), &report(0, &[]), 1, None), ("good", false));
        assert_eq!(word(Some(&outcome(0, 5)), &report(0, &[]), 1, None), ("client-borg-failed", false));
        assert_eq!(word(None, &report(0, &[]), 0, None), ("owner-lost", false));
        assert_eq!(word(Some(&outcome(4, 5)), &report(2, &[]), 0, Some("anna")), ("cancelled", false));
    }

    #[test]
    fn borgs_warnings_have_causes() {
        let full = "a/b: write: [Errno 28] No space left on device";
        let quota = "a/b: write: [Errno 122] Disk quota exceeded";
        let denied = "a/b: open: [Errno 13] Permission denied: 'a/b'";
        let never = "Include pattern 'pp:etc/x' never matched.";
        let read = outcome(5, 5);
        assert_eq!(word(Some(&read), &report(1, &[full, denied]), 0, None).0, "client-enospc");
        assert_eq!(word(Some(&read), &report(100, &[quota]), 0, None).0, "client-enospc");
        assert_eq!(word(Some(&read), &report(1, &[denied]), 0, None).0, "client-permission");
        assert_eq!(word(Some(&read), &report(1, &[never]), 1, None).0, "path-not-in-archive");
        assert_eq!(word(Some(&read), &report(1, &[never]), 2, None).0, "good");
        assert_eq!(word(Some(&read), &report(1, &["a: chown: [Errno 1] Operation not permitted"]), 0, None).0, "good");
    }
}
