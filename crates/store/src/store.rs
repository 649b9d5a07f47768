//! The open database.

use std::cell::RefCell;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use heed::MdbError;
use model::Timestamp;
use serde::{Deserialize, Serialize};

use crate::env::{self, Environment, is};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::log::TransactionNumber;
use crate::table::{Table, TableDef};
use crate::tables;
use crate::txn::{Read, Write};

/// The layout of databases and values; another one gets another number.
const LAYOUT: u64 = 1;
pub(crate) const META: &str = "meta";
pub(crate) const LOG: &str = "log";
pub(crate) const LOG_RECORDS: &str = "log-by-record";
const LAYOUT_KEY: &[u8] = b"layout";

thread_local! {
    /// The stores in which this thread has a transaction: a second one could wait for the first for ever.
    static INSIDE: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// The database, open in this process. Clones share it; one process opens it once.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) environment: Environment,
    pub(crate) tables: Vec<TableDef>,
}

/// How to open a database when [`Store::open`] is not enough.
pub struct Options {
    tables: Vec<TableDef>,
    map_size: usize,
    read_only: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { tables: tables::all(), map_size: env::MAP_SIZE, read_only: false }
    }
}

impl Options {
    /// For BorgCube's own tables, reading and writing.
    pub fn new() -> Options {
        Options::default()
    }

    /// Adds a table.
    pub fn table<T: Table>(mut self) -> Options {
        self.tables.push(TableDef::of::<T>());
        self
    }

    /// Begins with another map size than [`env::MAP_SIZE`]; a multiple of the page size. For tests of its growth.
    pub fn map_size(mut self, bytes: usize) -> Options {
        self.map_size = bytes;
        self
    }

    /// For reading only: `data.mdb` need not be writable, `lock.mdb` still has to be.
    pub fn read_only(mut self) -> Options {
        self.read_only = true;
        self
    }

    /// Opens the database in the directory `dir`; a writer creates what is missing.
    pub fn open(self, dir: impl AsRef<Path>) -> Result<Store> {
        let mut names = vec![META, LOG, LOG_RECORDS];
        for table in &self.tables {
            names.push(table.name);
            names.extend((table.index_names)());
        }
        let (environment, new) = env::open(dir.as_ref(), &names, self.map_size, self.read_only)?;
        let inner = Arc::new(Inner { environment, tables: self.tables });
        let store = Store { inner };
        if self.read_only {
            store.read(|r| check_layout(r.meta(LAYOUT_KEY)?.unwrap_or(LAYOUT)))?;
        } else {
            // The indexes follow from the tables: filling them is no change of any record, and not logged.
            store.unlogged(|w| {
                match w.view().meta(LAYOUT_KEY)? {
                    Some(found) => check_layout(found)?,
                    None => w.set_meta(LAYOUT_KEY, LAYOUT)?,
                }
                for table in &store.inner.tables {
                    let mut missing = (table.index_names)();
                    missing.retain(|name| new.contains(name));
                    if !missing.is_empty() && !new.contains(table.name) {
                        w.fill_indexes(table, &missing)?;
                    }
                }
                Ok(())
            })?;
        }
        Ok(store)
    }
}

fn check_layout(found: u64) -> Result<()> {
    if found > LAYOUT {
        return Err(Error::NewerLayout { found, known: LAYOUT });
    }
    Ok(())
}

/// How one try of a transaction ended.
enum Try<T> {
    Finished(T),
    Full,
    Resized,
}

impl Store {
    /// Opens BorgCube's database in the directory `dir`, creating what is missing.
    pub fn open(dir: impl AsRef<Path>) -> Result<Store> {
        Options::new().open(dir)
    }

    /// Reads from one unchanging snapshot. Keep it short: while a snapshot lives, the file grows with every commit.
    pub fn read<T>(&self, f: impl FnOnce(&Read<'_>) -> Result<T>) -> Result<T> {
        let _inside = self.enter()?;
        let environment = &self.inner.environment;
        let mut swept = false;
        loop {
            let shared = environment.gate.read();
            let shared = shared.unwrap_or_else(PoisonError::into_inner);
            match environment.env.read_txn() {
                Ok(txn) => return f(&Read::new(&self.inner, &txn)),
                Err(e) if is(&e, MdbError::MapResized) => {
                    drop(shared);
                    environment.adopt_size()?;
                }
                Err(e) if is(&e, MdbError::ReadersFull) && !swept => {
                    swept = true;
                    self.clear_stale_readers()?;
                }
                Err(e) => return Err(Error::lmdb(e)),
            }
        }
    }

    /// Changes the database at the present moment, see [`write_at`](Store::write_at).
    pub fn write<T>(&self, note: &str, actor: &str, f: impl FnMut(&mut Write<'_>) -> Result<T>) -> Result<(T, TransactionNumber)> {
        self.write_at(Timestamp::now(), note, actor, f)
    }

    /// Changes the database: everything that `f` changed, and the log's entry about it, or nothing at all.
    ///
    /// Nothing is written unless `f` returns `Ok` and the commit succeeds; then it is durable. `note` says what for, `actor` who.
    /// `f` runs again from the start when the map had to grow, so it has no effects but on the database. Changes that amount to nothing
    /// are not logged and get [`TransactionNumber::NONE`].
    pub fn write_at<T>(
        &self,
        now: Timestamp,
        note: &str,
        actor: &str,
        mut f: impl FnMut(&mut Write<'_>) -> Result<T>,
    ) -> Result<(T, TransactionNumber)> {
        self.transaction(|w| {
            let value = f(w)?;
            let number = w.append_to_log(now, note, actor)?;
            Ok((value, number))
        })
    }

    fn unlogged<T>(&self, f: impl FnMut(&mut Write<'_>) -> Result<T>) -> Result<T> {
        self.transaction(f)
    }

    pub(crate) fn transaction<T>(&self, mut f: impl FnMut(&mut Write<'_>) -> Result<T>) -> Result<T> {
        let _inside = self.enter()?;
        let environment = &self.inner.environment;
        if environment.read_only {
            return Err(Error::ReadOnly);
        }
        loop {
            let seen = environment.env.info().map_size;
            match self.attempt(&mut f)? {
                Try::Finished(value) => return Ok(value),
                Try::Full => environment.grow(seen)?,
                Try::Resized => environment.adopt_size()?,
            }
        }
    }

    fn attempt<T>(&self, f: &mut impl FnMut(&mut Write<'_>) -> Result<T>) -> Result<Try<T>> {
        let environment = &self.inner.environment;
        let shared = environment.gate.read();
        let _shared = shared.unwrap_or_else(PoisonError::into_inner);
        let txn = match environment.env.write_txn() {
            Err(e) if is(&e, MdbError::MapResized) => return Ok(Try::Resized),
            txn => txn.map_err(Error::lmdb)?,
        };
        let mut write = Write::new(&self.inner, txn);
        let result = f(&mut write);
        // `f` may have swallowed the error or wrapped it in one of its own; LMDB's transaction is spoilt all the same.
        if write.met_full_map() {
            return Ok(Try::Full);
        }
        let value = result?;
        match write.commit() {
            Ok(()) => Ok(Try::Finished(value)),
            Err(e) if is(&e, MdbError::MapFull) => Ok(Try::Full),
            Err(e) => Err(environment.why_commit_failed(e)),
        }
    }

    /// Frees the slots of readers that were killed; returns how many. For the daemon's start and then every hour.
    pub fn clear_stale_readers(&self) -> Result<usize> {
        let environment = &self.inner.environment;
        environment.check_process()?;
        environment.env.clear_stale_readers().map_err(Error::lmdb)
    }

    /// Writes a compact copy, a complete database file, to `to`. Works while others read and write.
    ///
    /// `to` must not exist; it gets the mode 0600. To restore: stop everything, put the copy in the place of `data.mdb` with the modes and
    /// the owner of before, remove `lock.mdb`, start.
    pub fn copy_to(&self, to: impl AsRef<Path>) -> Result<()> {
        let _inside = self.enter()?;
        self.inner.environment.copy_to(to.as_ref())
    }

    /// The database's sizes.
    pub fn stat(&self) -> Result<Stat> {
        let environment = &self.inner.environment;
        let data = environment.env.path().join("data.mdb");
        // By its name: opening and closing the file would drop LMDB's locks.
        let file = std::fs::metadata(&data).map_err(|e| Error::io("cannot look at", &data, e))?;
        let tables = self.read(|r| {
            let names = environment.databases.keys();
            let mut tables = names.map(|name| r.table_stat(name)).collect::<Result<Vec<_>>>()?;
            tables.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(tables)
        })?;
        let page = u64::from(environment.env.unnamed_database_stat().page_size);
        let info = environment.env.info();
        Ok(Stat {
            map_size: info.map_size as u64,
            file_size: file.len(),
            used_size: (info.last_page_number as u64 + 1) * page,
            last_transaction: info.last_txn_id as u64,
            readers: info.number_of_readers,
            max_readers: info.maximum_number_of_readers,
            tables,
        })
    }

    fn enter(&self) -> Result<Inside> {
        self.inner.environment.check_process()?;
        let id = Arc::as_ptr(&self.inner).addr();
        INSIDE.with_borrow_mut(|inside| {
            if inside.contains(&id) {
                return Err(Error::Nested);
            }
            inside.push(id);
            Ok(Inside(id))
        })
    }
}

struct Inside(usize);

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.with_borrow_mut(|inside| inside.retain(|id| *id != self.0));
    }
}

/// Sizes of the database, in bytes where not said otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// The limit; it grows by itself.
    pub map_size: u64,
    /// What `data.mdb` takes on disk.
    pub file_size: u64,
    /// Up to the last page that was ever used; a copy is smaller when much of it is free.
    pub used_size: u64,
    /// LMDB's number of the last commit.
    pub last_transaction: u64,
    /// Reader slots that were in use at once.
    pub readers: u32,
    /// Reader slots there are.
    pub max_readers: u32,
    /// Tables and indexes, by name.
    pub tables: Vec<TableStat>,
}

/// One table or index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableStat {
    /// Its name.
    pub name: String,
    /// How many entries it has.
    pub entries: u64,
    /// The pages it takes, in bytes.
    pub size: u64,
}

/// Where the next number of `T` is kept: a counter that neither undo nor removal turns back.
pub(crate) fn counter_key<T: Table<Key = u64>>() -> Vec<u8> {
    [b"next ", T::NAME.as_bytes()].concat()
}

impl<'t> Write<'t> {
    /// A number for a new record of `T` that no record ever had. It is taken once the transaction commits.
    pub fn next_number<T: Table<Key = u64>>(&mut self) -> Result<u64> {
        let counter = counter_key::<T>();
        let counted = self.view().meta(&counter)?.unwrap_or(1);
        // Should the counter be behind (it cannot be by our own doing), the table itself knows better.
        let last = self.view().last_key(T::NAME)?;
        let last = last.map(|key| u64::decode(&key)).transpose()?;
        let number = counted.max(last.map_or(1, |n| n + 1));
        self.set_meta(&counter, number + 1)?;
        Ok(number)
    }
}
