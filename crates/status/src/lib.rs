//! The program `borgcube-statusd`: pages, a JSON API, metrics and live events about what BorgCube does, over HTTP.
//!
//! *Is*: a reader. One figure has one source: the structs in [`view`] are what a page shows and what the API answers.
//! *Is not*: able to change anything. It reads the database, and of `borgcubed` it may only hear what happens and what jobs wrote, and hand on
//! the ids of triggers that are meant for the web. It has no keys, no repositories, and runs as a user of its own.
//! *May be used by*: its own program only.
//!
//! ```text
//! borgcubed ──Watch──► hub ──broadcast──► viewers (server-sent events)
//! database  ──short reads──► figures ──► view ──► templates/*.html | JSON | metrics
//! ```
//!
//! Nothing polls the database: a request reads it, events come from the control socket.

pub mod access;
pub mod acts;
pub mod address;
pub mod api;
pub mod browse;
pub mod cli;
pub mod control;
pub mod figures;
pub mod forms;
pub mod guard;
pub mod hub;
pub mod live;
pub mod metrics;
pub mod patient;
pub mod query;
pub mod refusals;
pub mod render;
pub mod routes;
pub mod serve;
pub mod sessions;
pub mod socket;
pub mod source;
pub mod text;
pub mod view;
pub mod viewer;
