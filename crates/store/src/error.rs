//! Everything that can go wrong, in sentences for the person who has to act.

use std::path::PathBuf;

use crate::log::TransactionNumber;

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why the store refused or failed. Whatever the error: nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The lock file cannot be written. A reader without it would be lockless and silently read wrong data.
    #[error("{0}")]
    LockFile(String),
    /// Files or directories of the database cannot be reached.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried, such as "cannot create".
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The same process has this database open already.
    #[error("the database {} is open in this process already; clone that Store instead of opening it again", .0.display())]
    AlreadyOpen(PathBuf),
    /// A transaction was begun inside another one of the same thread.
    #[error("a transaction was begun inside another one on the same thread; finish the first one before")]
    Nested,
    /// The store was carried across a fork.
    #[error("the database was opened before this process was forked; a child has to open it itself")]
    Forked,
    /// A write through a store that was opened for reading.
    #[error("the database was opened for reading only")]
    ReadOnly,
    /// A reader came before the first writer.
    #[error("the database has no table {0:?} yet; start the program that writes it once")]
    TableMissing(String),
    /// The growing map met the machine's limit.
    #[error("the database cannot grow to {wanted} bytes: {source}")]
    CannotGrow {
        /// The map size that was tried.
        wanted: usize,
        /// What LMDB said.
        source: heed::Error,
    },
    /// No space for a commit; nothing was written.
    #[error("the file system of the database is full; make room and try again")]
    DiskFull,
    /// A database in a later layout.
    #[error("the database has layout {found}, this BorgCube knows {known}; upgrade BorgCube here, or roll the package back everywhere")]
    NewerLayout {
        /// What was found.
        found: u64,
        /// What is known here.
        known: u64,
    },
    /// A step that the job state machine does not allow.
    #[error(transparent)]
    State(#[from] model::job::StateError),
    /// LMDB itself.
    #[error("the database failed: {0}")]
    Database(heed::Error),
    /// The bytes of a record are not what was written.
    #[error("{record} is damaged: {what}; restore the database from a copy")]
    Damaged {
        /// Which record.
        record: String,
        /// What is wrong with it.
        what: String,
    },
    /// A record of another kind lies where this one should.
    #[error("{record} is of kind {found}, expected kind {expected}")]
    WrongKind {
        /// Which record.
        record: String,
        /// The kind that was found.
        found: u16,
        /// The kind that belongs there.
        expected: u16,
    },
    /// A record that a newer BorgCube wrote.
    #[error(
        "{record} was written by a newer BorgCube (version {found}, this program knows up to {known}); \
         upgrade BorgCube here, or roll the package back everywhere"
    )]
    Newer {
        /// Which record.
        record: String,
        /// The version that was found.
        found: u16,
        /// The newest version known here.
        known: u16,
    },
    /// No chain of evolutions leads from the stored version to the present one.
    #[error("{record} has version {stored}, and this BorgCube has no evolution from version {stuck} towards {wanted}")]
    NoPath {
        /// Which record.
        record: String,
        /// The version it is stored in.
        stored: u16,
        /// Where the chain ended.
        stuck: u16,
        /// The version it should have got.
        wanted: u16,
    },
    /// An evolution refused a record.
    #[error("{record} cannot be brought from version {from} to {to}: {reason}")]
    Evolution {
        /// Which record.
        record: String,
        /// The version it has.
        from: u16,
        /// The version it should get.
        to: u16,
        /// What the evolution said.
        reason: String,
    },
    /// A record that could not be written as JSON.
    #[error("{record} cannot be stored: {reason}")]
    Unstorable {
        /// Which record.
        record: String,
        /// Why.
        reason: String,
    },
    /// There is no such record.
    #[error("{0} does not exist")]
    NotFound(String),
    /// There is such a record already.
    #[error("{0} exists already")]
    Exists(String),
    /// Compare-and-set found something else than expected.
    #[error("{record} was changed by somebody else meanwhile ({what}); read it again and repeat")]
    Conflict {
        /// Which record.
        record: String,
        /// What differs.
        what: String,
    },
    /// A key that LMDB cannot hold.
    #[error("{0:?} cannot be a key: {1}")]
    BadKey(String, &'static str),
    /// The log holds no such transaction.
    #[error("there is no transaction {0} in the log")]
    NoTransaction(TransactionNumber),
    /// A later transaction is in the way of an undo.
    #[error("transaction {number} cannot be undone: transaction {later} changed {record} after it; undo that one first")]
    ChangedLater {
        /// What should have been undone.
        number: TransactionNumber,
        /// What is in the way (the newest one).
        later: TransactionNumber,
        /// The record both changed.
        record: String,
    },
    /// A transaction whose records must not come back.
    #[error("transaction {number} cannot be undone: it changed {record}, and {reason}")]
    NotUndoable {
        /// What should have been undone.
        number: TransactionNumber,
        /// The record in question.
        record: String,
        /// Why not.
        reason: &'static str,
    },
    /// The log does not hold together.
    #[error("the transaction log is broken at transaction {number}: {what}")]
    BrokenLog {
        /// Where.
        number: TransactionNumber,
        /// How.
        what: String,
    },
    /// An error of the caller's own, passed through a transaction.
    #[error(transparent)]
    Caller(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Carries the caller's own error out of a transaction, which is thereby given up.
    pub fn caller(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::Caller(error.into())
    }

    pub(crate) fn lmdb(error: heed::Error) -> Error {
        match error {
            heed::Error::Io(e) if e.kind() == std::io::ErrorKind::StorageFull => Error::DiskFull,
            e => Error::Database(e),
        }
    }

    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Error {
        Error::Io { what, path: path.into(), source }
    }
}
