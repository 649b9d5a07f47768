//! One backup's session as a pure state machine: events in, actions out. No sockets, no clock, no randomness of its own.

mod backup;
mod machine;

pub use machine::{Action, Ending, Event, OPEN_SECONDS, Session};
