//! One schedule's due occurrences, in one transaction.

use model::due::delay;
use model::{Occurrence, Outcome, Schedule, ScheduleName, Timestamp};
use store::Store;

/// What the transaction log and the jobs name as the one who asked.
pub fn actor(name: &ScheduleName) -> String {
    format!("schedule:{name}")
}

/// Creates the jobs of what is due in `name`, and records what became of each occurrence. None: nothing was due.
pub fn deal(store: &Store, name: &ScheduleName, now: Timestamp) -> store::Result<Option<Occurrence>> {
    let actor = actor(name);
    let note = format!("schedule {name}: what is due");
    let (entry, _) = store.write_at(now, &note, &actor, |w| w.run_due(name, now, &actor))?;
    if let Some(entry) = &entry {
        tell(entry);
    }
    Ok(entry)
}

/// When the newest occurrence of `schedule` that is due at `now` begins with its delay. None: nothing is to be run (there may be skips).
pub fn begins(schedule: &Schedule, due: &model::due::Due, jitter: Jitter) -> Option<Timestamp> {
    let occurrence = due.run?;
    let seconds = match jitter {
        Jitter::Own => delay(schedule, occurrence),
        Jitter::Timer => i64::from(schedule.jitter_seconds),
    };
    Some(occurrence.plus_seconds(seconds))
}

/// Who delays a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jitter {
    /// We do, by the same delay for the same occurrence whenever we are asked.
    Own,
    /// A timer of systemd, by a delay that we do not know: only what is later than the longest one is ours.
    Timer,
}

fn tell(entry: &Occurrence) {
    let name = &entry.schedule;
    let time = entry.time.to_local();
    match &entry.outcome {
        Outcome::Run { jobs, done, left_out } => {
            let jobs = if jobs.is_empty() { "no jobs".to_owned() } else { format!("jobs {}", list(jobs)) };
            log::info!(schedule = name.as_str(), event = "schedule-run"; "schedule {name}: run of {time}: {jobs}");
            for sentence in done {
                log::info!(schedule = name.as_str(); "schedule {name}: {sentence}");
            }
            for part in left_out {
                log::info!(schedule = name.as_str(); "schedule {name}: {} left out: {}", part.what, part.reason);
            }
        }
        Outcome::Skip { reason, .. } => {
            log::warn!(schedule = name.as_str(), event = "schedule-skip"; "schedule {name}: skipped {time}: {reason}. {}", reason.explanation());
        }
    }
}

fn list(jobs: &[u64]) -> String {
    const SHOWN: usize = 10;
    let mut text = jobs.iter().take(SHOWN).map(u64::to_string).collect::<Vec<_>>().join(", ");
    if jobs.len() > SHOWN {
        text.push_str(&format!(" and {} more", jobs.len() - SHOWN));
    }
    text
}
