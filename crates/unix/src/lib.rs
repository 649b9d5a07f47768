//! How BorgCube touches the machine: sockets, descriptors, children, signals, files, terminal, log.
//!
//! The only crate with `unsafe` (all of it in the private module `raw`) and the only user of nix, rustix,
//! sd-notify and signal-hook. Everything is synchronous; who waits for several things uses [`poll::poll`].
//!
//! It is deliberately not: a place for decisions. It knows no Borg, no database, no job and no policy; it knows
//! which paths, environment variables and user names exist ([`paths`]) and how to do things safely.
//!
//! Every program of BorgCube and the crates `store`, `repository` and `wire` may use it; `borg` and `model` may not.

pub mod activation;
pub mod beneath;
pub mod confine;
pub mod credentials;
mod error;
pub mod events;
pub mod fdpass;
pub mod fdstore;
pub mod files;
pub mod harden;
mod journal;
pub mod logging;
pub mod machine;
pub mod notify;
pub mod nowait;
pub mod paths;
pub mod pidfd;
pub mod poll;
pub mod random;
mod raw;
pub mod rule_switch;
pub mod signals;
pub mod slots;
pub mod socket;
pub mod spawn;
pub mod terminal;

pub use error::{Error, Result};
/// The signals of the machine, by name (`Signal::SIGTERM`).
pub use nix::sys::signal::Signal;
