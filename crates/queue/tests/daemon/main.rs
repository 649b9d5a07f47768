//! The real `borgcubed` with a worker that behaves as each test wants it to, asked over the real control socket.

#![expect(clippy::unwrap_used, reason = "a test may end that way")]

mod fake;
mod harness;

mod applying;
mod cancelling;
mod jobs;
mod people;
mod records;
mod stopping;
mod trouble;
mod watching;
mod web;
