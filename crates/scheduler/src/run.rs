//! `run NAME`: woken by one timer, or by a person.

use crate::dealing::{actor, deal};
use crate::{spool, waking};
use anyhow::bail;
use model::{Outcome, ScheduleName, Timestamp};
use store::Store;
use unix::paths::Layout;

/// Who woke the scheduler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// The schedule's timer: what is due is run.
    Timer,
    /// A person, by the name for the log: the schedule is run, whatever is due.
    Hand(String),
}

/// From a wake-up to jobs in the queue.
pub fn run(store: &Store, layout: &Layout, name: &ScheduleName, by: &By, now: Timestamp) -> anyhow::Result<()> {
    if !store.read(|r| r.schedules().exists(name))? {
        if *by == By::Timer {
            // It was removed a moment ago; its timer follows.
            log::warn!("there is no schedule {name} any more");
            return spool::write_all(store, layout, now);
        }
        bail!("there is no schedule {name}; `borgcube schedule list` shows what there is");
    }
    let (jobs, switched) = match by {
        By::Timer => match deal(store, name, now)? {
            None => {
                log::info!("schedule {name}: nothing is due");
                (false, false)
            }
            Some(entry) => {
                let switched = matches!(&entry.outcome, Outcome::Run { done, .. } if !done.is_empty());
                (!entry.jobs().is_empty(), switched)
            }
        },
        By::Hand(person) => by_hand(store, name, person, now)?,
    };
    if switched {
        spool::write_all(store, layout, now)?;
    }
    if jobs {
        waking::wake(&layout.control_socket());
    }
    Ok(())
}

fn by_hand(store: &Store, name: &ScheduleName, person: &str, now: Timestamp) -> anyhow::Result<(bool, bool)> {
    let note = format!("run schedule {name} ({})", actor(name));
    let (ran, _) = store.write_at(now, &note, person, |w| w.run_by_hand(name, now, person))?;
    log::info!("schedule {name}: run by {person}: {} jobs", ran.jobs.len());
    for part in &ran.left_out {
        log::warn!("schedule {name}: {} left out: {}", part.what, part.reason);
    }
    Ok((!ran.jobs.is_empty(), !ran.changed.is_empty()))
}
