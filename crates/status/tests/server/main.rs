//! The real program over a real database, asked over real sockets.
#![allow(clippy::unwrap_used, reason = "tests, their helper functions included")]

mod access;
mod events;
mod figures;
mod forms;
mod hostile;
mod limits;
mod pages;
mod records;
mod schema;
mod world;
