//! One session, a backup's or a restore's, as a pure state machine: events in, actions out. No sockets, no clock, no randomness of its own.

mod backup;
mod machine;
mod restore;
mod task;

pub use machine::{Action, Ending, Event, OPEN_SECONDS, Session};
