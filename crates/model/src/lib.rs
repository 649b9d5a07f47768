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
pub mod binary;
pub mod blackout;
pub mod borg_pattern;
pub mod borg_report;
pub mod calendar;
pub mod cause;
pub mod check;
pub mod client;
pub mod config;
pub mod declarative;
pub mod due;
pub mod hook;
pub mod import;
pub mod job;
pub mod names;
pub mod occurrence;
pub mod progress;
pub mod queue;
pub mod recurrence;
pub mod repository;
pub mod restore;
pub mod restore_test;
pub mod retention;
pub mod retry;
pub mod schedule;
pub mod settings;
mod shorthand;
pub mod space;
pub mod sshkey;
pub mod time;
pub mod token;
pub mod trigger;
pub mod validate;
pub mod web_user;
pub mod work;

pub use archive::Archive;
pub use blackout::Blackout;
pub use cause::{Cause, Failure};
pub use check::CheckConfig;
pub use client::{Client, Connection};
pub use config::BackupConfig;
pub use hook::{Dump, Hook};
pub use job::{Job, JobState};
pub use names::{CheckName, ClientName, ConfigName, DumpName, HookName, Label, PolicyName, RepositoryName, ScheduleName};
pub use occurrence::{Occurrence, Origin, Outcome, SkipReason};
pub use recurrence::Recurrence;
pub use repository::{EncryptionMode, Repository};
pub use retention::Policy;
pub use schedule::{Action, Schedule};
pub use settings::Settings;
pub use time::Timestamp;
pub use trigger::{Trigger, TriggerId};
pub use web_user::{UserName, WebUser};
pub use work::{JobKind, Work, Yield};
