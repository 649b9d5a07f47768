//! What lookups see, and how it is changed, handed to the thread, and made durable.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use borg::Id;

use super::current::{self, Current};
use super::merge::{Forgotten, remembered};
use super::run::{Place, Run};
use super::{Checkpoint, damaged, failed};
use crate::{Entry, Error, IdMap, Result};

/// What readers, the writer and the thread share.
pub(super) struct Shared {
    pub(super) place: Arc<Place>,
    pub(super) limit: usize,
    /// False for an index that vanishes anyway.
    pub(super) durable: bool,
    pub(super) state: RwLock<State>,
    /// The last checkpoint. Its lock is held by whoever changes something.
    pub(super) writer: Mutex<Option<Durable>>,
    pub(super) bell: Mutex<Bell>,
    /// Rung for the thread.
    pub(super) work: Condvar,
    /// Rung by the thread, whenever it has finished or failed to write a run.
    pub(super) written: Condvar,
    /// Something that was read is damaged.
    pub(super) broken: AtomicBool,
}

/// What lookups see.
#[derive(Default, Clone)]
pub(super) struct State {
    pub(super) changes: IdMap<Option<Entry>>,
    /// Changes that are being written.
    pub(super) frozen: Option<Arc<Frozen>>,
    /// Oldest first.
    pub(super) runs: Arc<Vec<Arc<Run>>>,
    pub(super) forgotten: Arc<Forgotten>,
    pub(super) serial: u64,
    /// Segment, and how many ids are in it.
    pub(super) counts: BTreeMap<u32, u64>,
    pub(super) next: u64,
    /// Goes up with every reset: what the thread began before does not count any more.
    pub(super) epoch: u64,
    /// Changes since the last checkpoint.
    pub(super) since: usize,
    /// Why the thread could not write a run.
    pub(super) failure: Option<Error>,
}

pub(super) struct Frozen {
    pub(super) changes: IdMap<Option<Entry>>,
    pub(super) born: u64,
}

/// A checkpoint, with its runs open.
pub(super) struct Durable {
    pub(super) current: Current,
    pub(super) runs: Vec<Arc<Run>>,
}

#[derive(Default)]
pub(super) struct Bell {
    pub(super) work: bool,
    pub(super) quit: bool,
    pub(super) written: u64,
}

impl Durable {
    pub(super) fn open(place: &Arc<Place>, current: Current) -> Result<Durable> {
        let runs = current.runs.iter().enumerate().map(|(at, name)| Run::open(place, *name, at == 0).map(Arc::new));
        let runs = runs.collect::<Result<_>>()?;
        Ok(Durable { current, runs })
    }

    pub(super) fn state(&self) -> State {
        State {
            runs: Arc::new(self.runs.clone()),
            forgotten: Arc::new(self.current.forgotten.clone()),
            serial: self.current.serial,
            counts: self.current.counts.clone(),
            next: self.current.next,
            ..State::default()
        }
    }
}

// A lock is poisoned only if a thread panicked in one of the few lines that hold it; none of them leaves anything half changed.
impl Shared {
    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn writer(&self) -> MutexGuard<'_, Option<Durable>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn bell(&self) -> MutexGuard<'_, Bell> {
        self.bell.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ring(&self) {
        self.bell().work = true;
        self.work.notify_all();
    }

    /// What is found damaged is not to be found again by the next opening.
    pub(super) fn noted<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error @ Error::IndexDamaged(_)) = &result
            && !self.broken.swap(true, Ordering::AcqRel)
        {
            log::error!("{error}");
            if let Err(error) = current::remove(&self.place.dir) {
                log::debug!("{}: nothing removed: {error}", self.place.dir.display());
            }
        }
        result
    }

    pub(super) fn get(&self, id: &Id) -> Result<Option<Entry>> {
        let (runs, forgotten) = {
            let state = self.read();
            if let Some(change) = state.changes.get(id) {
                return Ok(*change);
            }
            if let Some(frozen) = &state.frozen
                && let Some(change) = frozen.changes.get(id)
            {
                return Ok(remembered(*change, frozen.born, &state.forgotten));
            }
            (Arc::clone(&state.runs), Arc::clone(&state.forgotten))
        };
        for run in runs.iter().rev() {
            if let Some(entry) = self.noted(run.find(id))? {
                return Ok(remembered(entry, run.born, &forgotten));
            }
        }
        Ok(None)
    }

    pub(super) fn change(&self, id: Id, entry: Option<Entry>) -> Result<Option<Entry>> {
        let _writer = self.writer();
        self.make_room()?;
        let old = self.get(&id)?;
        if entry.is_some() || old.is_some() {
            self.set(id, entry, old);
        }
        Ok(old)
    }

    /// Notes a change of what was so before.
    pub(super) fn set(&self, id: Id, entry: Option<Entry>, old: Option<Entry>) {
        let mut state = self.write();
        if let Some(Entry { segment, .. }) = old
            && let Some(count) = state.counts.get_mut(&segment)
        {
            *count -= 1;
            if *count == 0 {
                state.counts.remove(&segment);
            }
        }
        if let Some(Entry { segment, .. }) = entry {
            *state.counts.entry(segment).or_default() += 1;
        }
        state.changes.insert(id, entry);
        state.since += 1;
    }

    /// Has the changes written when there are many, and waits only if the thread cannot keep up.
    pub(super) fn make_room(&self) -> Result<()> {
        let changes = self.read().changes.len();
        if changes >= self.limit && !self.freeze()? && changes >= 2 * self.limit {
            self.wait_for_thread()?;
            self.freeze()?;
        }
        Ok(())
    }

    /// Hands the changes to the thread. False if it still has others.
    pub(super) fn freeze(&self) -> Result<bool> {
        let mut state = self.write();
        let failure = state.failure.take();
        let free = state.frozen.is_none();
        if free && !state.changes.is_empty() {
            let (changes, born) = (std::mem::take(&mut state.changes), state.serial);
            state.frozen = Some(Arc::new(Frozen { changes, born }));
        }
        drop(state);
        if !free || failure.is_some() {
            // It tries again.
            self.ring();
        }
        match failure {
            Some(failure) => Err(failure),
            None => {
                if free {
                    self.ring();
                }
                Ok(free)
            }
        }
    }

    /// Waits until nothing is left to be written.
    pub(super) fn wait_for_thread(&self) -> Result<()> {
        loop {
            let seen = self.bell().written;
            {
                let mut state = self.write();
                if let Some(failure) = state.failure.take() {
                    return Err(failure);
                }
                if state.frozen.is_none() {
                    return Ok(());
                }
            }
            let bell = self.bell();
            drop(self.written.wait_while(bell, |bell| bell.written == seen));
        }
    }

    pub(super) fn checkpoint(&self, checkpoint: &Checkpoint) -> Result<()> {
        let mut durable = self.writer();
        if self.broken.load(Ordering::Acquire) {
            return Err(damaged(&self.place.dir));
        }
        // One kind of change after the other: what the thread still has is older than what was collected meanwhile.
        if !self.freeze()? {
            self.wait_for_thread()?;
            self.freeze()?;
        }
        self.wait_for_thread()?;
        let (runs, current) = {
            let state = self.read();
            let current = Current {
                checkpoint: checkpoint.clone(),
                runs: state.runs.iter().map(|run| run.name()).collect(),
                next: state.next,
                serial: state.serial,
                forgotten: (*state.forgotten).clone(),
                counts: state.counts.clone(),
            };
            (Arc::clone(&state.runs), current)
        };
        if self.durable {
            runs.iter().try_for_each(|run| self.noted(run.sync()))?;
            File::open(&self.place.dir).and_then(|dir| dir.sync_all()).map_err(|error| failed("writing", &self.place.dir, &error))?;
        }
        // From the renaming on they must not vanish. If it fails, nobody knows on which side of it: then both stay.
        runs.iter().for_each(|run| run.set_named(true));
        current.write(&self.place.dir, self.place.id, self.durable)?;
        if self.broken.load(Ordering::Acquire) {
            // Found damaged meanwhile, by a reader.
            current::remove(&self.place.dir).map_err(|error| failed("removing the index in", &self.place.dir, &error))?;
            return Err(damaged(&self.place.dir));
        }
        if let Some(old) = durable.take() {
            let stays = |run: &Run| current.runs.iter().any(|name| name.number == run.number);
            old.runs.iter().filter(|run| !stays(run)).for_each(|run| run.set_named(false));
        }
        *durable = Some(Durable { current, runs: runs.to_vec() });
        self.write().since = 0;
        Ok(())
    }
}
