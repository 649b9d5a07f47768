//! The program `borgcube` as people run it.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

mod commands;
mod fake;
mod maintenance;
mod repositories;
mod up;
mod waiting;
