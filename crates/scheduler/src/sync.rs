//! `sync`: all schedules at once, at boot, daily, and when schedules or the clock were changed.

use crate::dealing::{Jitter, begins, deal};
use crate::{spool, waking};
use model::{Schedule, Timestamp};
use store::Store;
use unix::paths::Layout;

/// Starts what is due, then writes down which timers there should be.
///
/// A timer that only has future dates never catches up, so what was missed is started here. What lies within its jitter is left to its timer.
pub fn sync(store: &Store, layout: &Layout, now: Timestamp) -> anyhow::Result<()> {
    let mut failed = None;
    if start_due(store, now, Jitter::Timer, &mut failed)? {
        waking::wake(&layout.control_socket());
    }
    spool::write_all(store, layout, now)?;
    failed.map_or(Ok(()), |e| Err(e.into()))
}

/// Deals with everything that is due. Returns whether there are new jobs. One schedule that fails keeps none of the others back.
pub fn start_due(store: &Store, now: Timestamp, jitter: Jitter, failed: &mut Option<store::Error>) -> anyhow::Result<bool> {
    let mut jobs = false;
    for schedule in store.read(|r| r.schedules().list())? {
        if !is_time(&schedule, now, jitter) {
            continue;
        }
        match deal(store, &schedule.name, now) {
            Ok(entry) => jobs |= entry.is_some_and(|entry| !entry.jobs().is_empty()),
            // Removed since it was listed.
            Err(store::Error::NotFound(_)) => {}
            Err(e) => {
                log::error!("schedule {}: {e}", schedule.name);
                *failed = Some(e);
            }
        }
    }
    Ok(jobs)
}

fn is_time(schedule: &Schedule, now: Timestamp, jitter: Jitter) -> bool {
    let due = model::due::due(schedule, now);
    match begins(schedule, &due, jitter) {
        Some(moment) => moment <= now,
        None => !due.is_empty(),
    }
}
