//! What BorgCube decides and what it remembers, as plain values.
//!
//! *Is*: validated names, the records that the store keeps, the job state machine, the queue's rules,
//! failure causes and how a Borg client's messages lead to one.
//! *Is not*: storage, sockets, clocks, Borg's byte formats. Nothing here performs I/O; the present moment is an argument.
//! *May be used by*: every other crate except `borg` and `unix`.
//!
//! A name that exists is a valid name:
//!
//! ```
//! use model::names::ClientName;
//! assert!("web1.example.net".parse::<ClientName>().is_ok());
//! assert!("-oProxyCommand=x".parse::<ClientName>().is_err());
//! ```

pub mod access;
pub mod archive;
pub mod borg_report;
pub mod cause;
pub mod client;
pub mod config;
pub mod job;
pub mod names;
pub mod progress;
pub mod queue;
pub mod recurrence;
pub mod repository;
pub mod settings;
mod shorthand;
pub mod time;
pub mod token;

pub use archive::Archive;
pub use cause::{Cause, Failure};
pub use client::{Client, Connection};
pub use config::BackupConfig;
pub use job::{Job, JobKind, JobState};
pub use names::{ClientName, ConfigName, Label, RepositoryName};
pub use repository::{EncryptionMode, Repository};
pub use settings::Settings;
pub use time::Timestamp;
