//! What BorgCube remembers: versioned records in LMDB, transactions with a note and an actor, a hash-chained log, undo.
//!
//! *Is*: the tables, the records' bytes and their way from old versions to the present one, the indexes, the log, copies.
//! *Is not*: rules (they are in `model`), secrets (keys and passphrases never enter the database), progress of running jobs, view lists.
//! *May be used by*: the programs `borgcubed`, `borgcube-repositoryd`, `borgcube-scheduler`, `borgcube-statusd` (reading) and the CLI's
//! `db` commands. Never by what parses hostile input. This crate is the only one that knows `heed`.
//!
//! # A record type gains two fields
//!
//! Version 1 of a host has a name. It is released, and people have such records:
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use store::{Evolution, Options, Record, Table};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # {
//! #[derive(Serialize, Deserialize)]
//! struct Host {
//!     name: String,
//! }
//!
//! impl Record for Host {
//!     const KIND: u16 = 1000;
//!     const NAME: &'static str = "host";
//!     const VERSION: u16 = 1;
//! }
//!
//! struct Hosts;
//!
//! impl Table for Hosts {
//!     type Key = String;
//!     type Record = Host;
//!     const NAME: &'static str = "hosts";
//!     fn key(host: &Host) -> String {
//!         host.name.clone()
//!     }
//! }
//!
//! let store = Options::new().table::<Hosts>().open(&dir)?;
//! store.write("add web1", "root", |w| w.table::<Hosts>().insert(&Host { name: "web1".into() }))?;
//! # }
//! # Ok(()) }
//! ```
//!
//! The next release also wants to know where a host stands and how many disks it has. So the version is 2, and one evolution says what
//! the old hosts get:
//!
//! ```
//! # use serde::{Deserialize, Serialize};
//! # use store::{Evolution, Options, Record, Table};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # { // the records of version 1
//! #     #[derive(Serialize, Deserialize)]
//! #     struct Host { name: String }
//! #     impl Record for Host {
//! #         const KIND: u16 = 1000;
//! #         const NAME: &'static str = "host";
//! #         const VERSION: u16 = 1;
//! #     }
//! #     struct Hosts;
//! #     impl Table for Hosts {
//! #         type Key = String;
//! #         type Record = Host;
//! #         const NAME: &'static str = "hosts";
//! #         fn key(host: &Host) -> String { host.name.clone() }
//! #     }
//! #     let store = Options::new().table::<Hosts>().open(&dir)?;
//! #     store.write("add web1", "root", |w| w.table::<Hosts>().insert(&Host { name: "web1".into() }))?;
//! # }
//! #[derive(Serialize, Deserialize, Debug, PartialEq)]
//! struct Host {
//!     name: String,
//!     location: String,
//!     disks: u32,
//! }
//!
//! impl Record for Host {
//!     const KIND: u16 = 1000;
//!     const NAME: &'static str = "host";
//!     const VERSION: u16 = 2;
//!     fn evolutions() -> &'static [Evolution] {
//!         &[Evolution {
//!             from: 1,
//!             to: 2,
//!             apply: |host| {
//!                 host["location"] = "somewhere".into();
//!                 host["disks"] = 1.into();
//!                 Ok(())
//!             },
//!         }]
//!     }
//! }
//! #
//! # struct Hosts;
//! # impl Table for Hosts {
//! #     type Key = String;
//! #     type Record = Host;
//! #     const NAME: &'static str = "hosts";
//! #     fn key(host: &Host) -> String { host.name.clone() }
//! # }
//!
//! let store = Options::new().table::<Hosts>().open(&dir)?;
//! let web1 = "web1".to_string();
//!
//! // The old record has the new fields as soon as it is read ...
//! let host = store.read(|r| r.table::<Hosts>().require(&web1))?;
//! assert_eq!(host, Host { name: "web1".into(), location: "somewhere".into(), disks: 1 });
//!
//! // ... but reading writes nothing,
//! let versions = |store: &store::Store| store.read(|r| Ok(r.table::<Hosts>().stored(&web1)?.unwrap().path));
//! assert_eq!(versions(&store)?, [1, 2]);
//!
//! // and neither does a transaction that ends in an error.
//! let refused = store.write("move web1", "root", |w| {
//!     w.table::<Hosts>().update(&web1, |host| {
//!         host.location = "Berlin".into();
//!         Ok(())
//!     })?;
//!     Err::<(), _>(store::Error::caller("Berlin is full"))
//! });
//! assert_eq!(refused.unwrap_err().to_string(), "Berlin is full");
//! assert_eq!(versions(&store)?, [1, 2]);
//!
//! // The transaction that commits stores the new form.
//! let ((), number) = store.write("move web1", "root", |w| {
//!     w.table::<Hosts>().update(&web1, |host| {
//!         host.location = "Paris".into();
//!         Ok(())
//!     })
//! })?;
//! assert_eq!(versions(&store)?, [2]);
//!
//! // Undo brings back the very bytes of before.
//! store.undo(number, model::Timestamp::now(), "root")?;
//! assert_eq!(versions(&store)?, [1, 2]);
//! # Ok(()) }
//! ```

pub mod env;
mod error;
mod glance;
mod handle;
pub mod key;
mod log;
mod page;
pub mod record;
pub mod retention;
mod scheduling;
mod store;
mod table;
pub mod tables;
#[cfg(test)]
mod tamper;
mod txn;
mod undo;

pub use error::{Error, Result};
pub use glance::{Glance, Named};
pub use handle::{Stamp, Stored, TableMut, TableRef};
pub use key::{Key, KeyBytes, KeyParts};
pub use log::{Change, Entry, TransactionNumber};
pub use record::{Decoded, Evolution, Record};
pub use scheduling::{Fired, Ran};
pub use store::{Options, Stat, Store, TableStat};
pub use table::{Index, Table, TableDef};
pub use tables::{ArchiveFilter, ArchiveKey, Deletion, Intent, IntentKey, JobFilter, OccurrenceFilter, PreparedSession};
pub use txn::{Read, Write};
pub use undo::Log;
