//! The real program over a real database, asked over real sockets.
#![allow(clippy::unwrap_used, reason = "tests, their helper functions included")]

mod access;
mod archives;
mod events;
mod figures;
mod forms;
mod front;
mod hostile;
mod limits;
#[path = "../../../archive/tests/all/owner.rs"]
#[allow(dead_code, reason = "readers of archives need more of it")]
mod owner;
mod pages;
mod records;
mod schema;
mod sockets;
mod world;
