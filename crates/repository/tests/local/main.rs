//! Our own way to read and write a repository, judged by every real borg of this machine.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;
mod exchange;
mod failures;
mod locks;
mod rules;
