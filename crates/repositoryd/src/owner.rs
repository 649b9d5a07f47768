//! What all threads of an owner share for its whole life.

use crate::gate::{Gate, Turn};
use crate::jobs::Jobs;
use crate::leaving::{Estate, Leaving};
use crate::pulse::Pulse;
use crate::view::Views;
use crate::writer::Request;
use model::RepositoryName;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use store::Store;
use unix::paths::Layout;

/// Bytes that may wait for the writer, of all sessions together.
const BUDGET: usize = 64 << 20;

/// What even the smallest request counts: it bounds how many of them somebody else's request may find before it.
const LEAST: usize = 4 << 10;

/// The owner of one repository.
pub struct Owner {
    /// The repository's name.
    pub name: RepositoryName,
    /// Where things are.
    pub layout: Layout,
    /// The database.
    pub store: Store,
    /// Jobs with a session.
    pub jobs: Jobs,
    /// Views in use.
    pub views: Views,
    /// To the thread that has the repository.
    pub writer: Sender<Request>,
    /// Memory for what waits for the writer.
    pub budget: Arc<Budget>,
    /// Open connections.
    pub connections: AtomicUsize,
    /// Whether the repository is open.
    pub is_open: AtomicBool,
    /// Commits that were sent to the writer and not taken by it.
    pub committing: AtomicUsize,
    /// Closed while the repository is lent to another borg.
    pub gate: Gate,
    /// Whose turn maintenance is.
    pub turn: Turn,
    /// The process is about to end.
    pub stopping: AtomicBool,
    /// The process is about to end, and another one goes on with its sessions.
    pub leaving: Leaving,
    /// What that one gets.
    pub estate: Estate,
    /// Sessions of a process before this one are about to go on.
    pub inherits: AtomicBool,
    /// Connections of those among them who ask for maintenance.
    pub maintaining: AtomicUsize,
    /// Whether the writer lives.
    pub pulse: Pulse,
}

impl Owner {
    /// Who changes the database, for its log.
    pub fn actor(&self) -> String {
        format!("owner of {}", self.name)
    }

    /// An owner that waits for its first connection.
    pub fn new(name: RepositoryName, layout: Layout, store: Store, writer: Sender<Request>) -> std::io::Result<Owner> {
        let jobs = Jobs::default();
        let budget = Arc::new(Budget::new());
        let turn = Turn::shown_at(layout.repository_turn(name.as_str()));
        Ok(Owner {
            name,
            layout,
            store,
            jobs,
            views: Views::default(),
            writer,
            budget,
            connections: AtomicUsize::new(0),
            is_open: AtomicBool::new(false),
            committing: AtomicUsize::new(0),
            gate: Gate::default(),
            turn,
            stopping: AtomicBool::new(false),
            leaving: Leaving::new()?,
            estate: Estate::default(),
            inherits: AtomicBool::new(false),
            maintaining: AtomicUsize::new(0),
            pulse: Pulse::default(),
        })
    }

    /// Whether nobody is connected and nothing is open.
    pub fn is_idle(&self) -> bool {
        self.connections.load(Ordering::SeqCst) == 0 && !self.is_open.load(Ordering::SeqCst)
    }
}

/// Bytes to be had before more is queued.
pub struct Budget {
    state: Mutex<Free>,
    changed: Condvar,
}

struct Free {
    bytes: usize,
    /// Threads that wait for more: if there are none, nobody has to be called.
    waiting: usize,
}

/// A part of the budget; comes back when dropped.
pub struct Permit {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    fn new() -> Budget {
        Budget { state: Mutex::new(Free { bytes: BUDGET, waiting: 0 }), changed: Condvar::new() }
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `bytes` are free, or what the smallest request counts. A single object always fits.
    pub fn take(self: &Arc<Self>, bytes: usize) -> Permit {
        let bytes = bytes.clamp(LEAST, BUDGET);
        let mut free = self.free();
        while free.bytes < bytes {
            free.waiting += 1;
            free = self.changed.wait(free).unwrap_or_else(PoisonError::into_inner);
            free.waiting -= 1;
        }
        free.bytes -= bytes;
        Permit { budget: Arc::clone(self), bytes }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut free = self.budget.free();
        free.bytes += self.bytes;
        if free.waiting > 0 {
            self.budget.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_budget_makes_wait() {
        let budget = Arc::new(Budget::new());
        let first = budget.take(BUDGET - 1);
        let other = Arc::clone(&budget);
        let waiting = std::thread::spawn(move || drop(other.take(2)));
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!waiting.is_finished());
        drop(first);
        waiting.join().unwrap();
        let free = budget.free();
        assert_eq!((free.bytes, free.waiting), (BUDGET, 0));
    }
}
