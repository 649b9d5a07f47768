//! The queue: `borgcubed`, which decides what runs, and `borgcube-worker`, which runs one job.
//!
//! *Is*: [`daemon`], one poll loop that owns the database's jobs, answers the control socket and starts, watches and ends workers;
//! [`worker`], the story of one backup on one client.
//! *Is not*: anything with a repository's key, and no place for rules: those are in `model`.
//! *May be used by*: nobody but its own two programs. They share no memory; they speak `wire::worker` over a socket pair.

pub mod daemon;
mod forced;
pub mod worker;
