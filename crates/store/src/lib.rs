//! What BorgCube remembers.

pub mod env;
mod error;
pub mod handle;
pub mod key;
pub mod log;
pub mod record;
mod store;
pub mod table;
pub mod tables;
pub mod txn;
mod undo;

pub use error::{Error, Result};
pub use handle::{Stamp, Stored, TableMut, TableRef};
pub use key::{Key, KeyBytes, KeyParts};
pub use log::{Change, Entry, TransactionNumber};
pub use record::{Decoded, Evolution, Record};
pub use table::{Index, Table, TableDef};
pub use store::{Options, Stat, Store, TableStat};
pub use txn::{Read, Write};
pub use undo::Log;
