//! The programs `borgcube-scheduler`, which turns what is due into jobs, and `borgcube-timers`, which makes systemd wake it.
//!
//! *Is*: three ways to be woken (`run NAME` by one timer, `sync` for all of them, `loop` without systemd), the spool that tells which timers
//! there should be, and the one program that runs as root, which formats every line itself from names and numbers.
//! *Is not*: the rules of what is due (`model::due`), the transaction that records it (`store`), the queue.
//! *May be used by*: its own programs only.
//!
//! The database alone decides what is due; timers only wake. So it never matters who wakes the scheduler, how often, or in what order.

pub mod cli;
mod dealing;
mod foreground;
mod run;
pub mod spool;
mod sync;
pub mod timers;
mod waking;

pub use foreground::foreground;
pub use run::{By, run};
pub use sync::sync;
