//! What has to be done so that the timers are as they should be. Decides, does nothing.

use super::dropin;
use crate::spool::Entry;
use model::ScheduleName;
use std::collections::{BTreeMap, BTreeSet};

/// How things stand.
#[derive(Debug, Default)]
pub struct Present {
    /// The drop-ins there are, with their text; None if that cannot be read or is not ours.
    pub dropins: BTreeMap<ScheduleName, Option<String>>,
    /// Timers that do not wait for anything: never started, stopped, or all of their moments are over.
    pub elapsed_or_stopped: BTreeSet<ScheduleName>,
}

/// What to do, in the order of the fields; the manager is reloaded before anything is started.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Drop-ins to write.
    pub write: Vec<(ScheduleName, String)>,
    /// Timers to stop, whose drop-ins go.
    pub remove: Vec<ScheduleName>,
    /// Timers to start, or to start again: a reload does not revive one whose moments were over.
    pub restart: Vec<ScheduleName>,
}

impl Plan {
    /// `refused`: schedules whose files make no sense; their timers stay as they are.
    pub fn of(wanted: &BTreeMap<ScheduleName, Entry>, refused: &[ScheduleName], present: &Present) -> Plan {
        let mut plan = Plan::default();
        for (name, entry) in wanted {
            let text = dropin::text(entry);
            let as_it_is = present.dropins.get(name).is_some_and(|there| there.as_deref() == Some(&text));
            if !as_it_is {
                plan.write.push((name.clone(), text));
            }
            if !as_it_is || present.elapsed_or_stopped.contains(name) {
                plan.restart.push(name.clone());
            }
        }
        let kept = |name: &&ScheduleName| !wanted.contains_key(name) && !refused.contains(name);
        plan.remove = present.dropins.keys().filter(kept).cloned().collect();
        plan
    }

    /// Whether units have changed.
    pub fn reload(&self) -> bool {
        !self.write.is_empty() || !self.remove.is_empty()
    }
}
