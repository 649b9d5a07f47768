//! Transactions: reading and changing bytes with their indexes and the log. The typed tables sit on top.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Bound;

use heed::{MdbError, RoTxn, RwTxn};
use model::Timestamp;

use crate::env::is;
use crate::error::{Error, Result};
use crate::handle::{TableMut, TableRef};
use crate::key::Key;
use crate::log::{Change, Entry, TransactionNumber, digest, no_hash};
use crate::store::{Inner, LOG, LOG_RECORDS, META, TableStat};
use crate::table::{Table, TableDef};

/// A snapshot to read from.
#[derive(Clone, Copy)]
pub struct Read<'t> {
    inner: &'t Inner,
    txn: &'t RoTxn<'t>,
}

impl<'t> Read<'t> {
    pub(crate) fn new(inner: &'t Inner, txn: &'t RoTxn<'t>) -> Read<'t> {
        Read { inner, txn }
    }

    /// The table `T`.
    pub fn table<T: Table>(&self) -> TableRef<'t, T> {
        TableRef::new(*self)
    }

    pub(crate) fn get(&self, db: &str, key: &[u8]) -> Result<Option<&'t [u8]>> {
        let db = self.inner.environment.db(db)?;
        db.get(self.txn, key).map_err(Error::lmdb)
    }

    /// All entries whose keys begin with `front`, in order.
    pub(crate) fn scan(&self, db: &str, front: &[u8]) -> Result<impl Iterator<Item = Result<(&'t [u8], &'t [u8])>> + use<'t>> {
        let db = self.inner.environment.db(db)?;
        let end = after_all_with(front);
        let entries = db.range(self.txn, &range(front, end.as_deref())).map_err(Error::lmdb)?;
        Ok(entries.map(|entry| entry.map_err(Error::lmdb)))
    }

    /// All entries whose keys begin with `front`, in reverse order.
    pub(crate) fn scan_back(&self, db: &str, front: &[u8]) -> Result<impl Iterator<Item = Result<(&'t [u8], &'t [u8])>> + use<'t>> {
        self.scan_back_below(db, front, None)
    }

    /// The same, only what lies below the key `below`.
    pub(crate) fn scan_back_below(
        &self,
        db: &str,
        front: &[u8],
        below: Option<Vec<u8>>,
    ) -> Result<impl Iterator<Item = Result<(&'t [u8], &'t [u8])>> + use<'t>> {
        let db = self.inner.environment.db(db)?;
        let end = below.or_else(|| after_all_with(front));
        let entries = db.rev_range(self.txn, &range(front, end.as_deref())).map_err(Error::lmdb)?;
        Ok(entries.map(|entry| entry.map_err(Error::lmdb)))
    }

    /// The last entry at or before `key`.
    pub(crate) fn at_or_before(&self, db: &str, key: &[u8]) -> Result<Option<(&'t [u8], &'t [u8])>> {
        let db = self.inner.environment.db(db)?;
        db.get_lower_than_or_equal_to(self.txn, key).map_err(Error::lmdb)
    }

    /// The first entry behind all whose keys begin with `front`; without one, the first of all.
    pub(crate) fn behind(&self, db: &str, front: &[u8]) -> Result<Option<(&'t [u8], &'t [u8])>> {
        let db = self.inner.environment.db(db)?;
        if front.is_empty() {
            return db.first(self.txn).map_err(Error::lmdb);
        }
        match after_all_with(front) {
            Some(end) => db.get_greater_than_or_equal_to(self.txn, &end).map_err(Error::lmdb),
            None => Ok(None),
        }
    }

    pub(crate) fn last_key(&self, db: &str) -> Result<Option<Vec<u8>>> {
        let db = self.inner.environment.db(db)?;
        let last = db.last(self.txn).map_err(Error::lmdb)?;
        Ok(last.map(|(key, _)| key.to_vec()))
    }

    pub(crate) fn count(&self, db: &str) -> Result<u64> {
        let db = self.inner.environment.db(db)?;
        db.len(self.txn).map_err(Error::lmdb)
    }

    pub(crate) fn table_stat(&self, name: &str) -> Result<TableStat> {
        let db = self.inner.environment.db(name)?;
        let stat = db.stat(self.txn).map_err(Error::lmdb)?;
        Ok(TableStat { name: name.to_owned(), entries: stat.entries as u64, size: stat.non_free_page_size() as u64 })
    }

    pub(crate) fn meta(&self, key: &[u8]) -> Result<Option<u64>> {
        self.get(META, key)?.map(u64::decode).transpose()
    }

    pub(crate) fn definition(&self, table: &str) -> Option<&'t TableDef> {
        self.inner.tables.iter().find(|def| def.name == table)
    }

    pub(crate) fn definitions(&self) -> &'t [TableDef] {
        &self.inner.tables
    }
}

/// LMDB has no empty keys, also not as the end of a range.
fn range<'k>(front: &'k [u8], end: Option<&'k [u8]>) -> (Bound<&'k [u8]>, Bound<&'k [u8]>) {
    let start = if front.is_empty() { Bound::Unbounded } else { Bound::Included(front) };
    (start, end.map_or(Bound::Unbounded, Bound::Excluded))
}

/// The first key behind all that begin with `front`, if there is one.
fn after_all_with(front: &[u8]) -> Option<Vec<u8>> {
    let last = front.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = front[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// A transaction that changes the database. Its changes are seen by itself at once, by everybody else after the commit.
pub struct Write<'t> {
    inner: &'t Inner,
    txn: RwTxn<'t>,
    /// What each changed record was before this transaction.
    before: BTreeMap<(&'static str, Vec<u8>), Option<Vec<u8>>>,
    pub(crate) undoes: Option<TransactionNumber>,
    full: Cell<bool>,
    witnessed: bool,
}

impl<'t> Write<'t> {
    pub(crate) fn new(inner: &'t Inner, txn: RwTxn<'t>) -> Write<'t> {
        Write { inner, txn, before: BTreeMap::new(), undoes: None, full: Cell::new(false), witnessed: false }
    }

    /// The database as this transaction sees it, its own changes included.
    pub fn view(&self) -> Read<'_> {
        Read::new(self.inner, &self.txn)
    }

    /// Something happened that changes nothing here, and belongs into the log all the same.
    pub fn witness(&mut self) {
        self.witnessed = true;
    }

    /// The table `T`.
    pub fn table<T: Table>(&mut self) -> TableMut<'_, 't, T> {
        TableMut::new(self)
    }

    pub(crate) fn met_full_map(&self) -> bool {
        self.full.get()
    }

    pub(crate) fn commit(self) -> heed::Result<()> {
        self.txn.commit()
    }

    /// Puts or deletes a record together with the entries of its indexes, and remembers what was there.
    pub(crate) fn set(&mut self, table: &TableDef, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        let old = self.view().get(table.name, key)?.map(<[u8]>::to_vec);
        if old.as_deref() == value {
            return Ok(());
        }
        let index_keys = |value: Option<&[u8]>| match value {
            Some(value) => (table.index_keys)(key, value),
            None => Ok(Vec::new()),
        };
        let (stale, fresh) = (index_keys(old.as_deref())?, index_keys(value)?);
        for (index, index_key) in stale.iter().filter(|entry| !fresh.contains(entry)) {
            self.delete_bytes(index, index_key)?;
        }
        for (index, index_key) in &fresh {
            self.put_bytes(index, index_key, key)?;
        }
        match value {
            Some(value) => self.put_bytes(table.name, key, value)?,
            None => self.delete_bytes(table.name, key)?,
        }
        if table.logged {
            self.before.entry((table.name, key.to_vec())).or_insert(old);
        }
        Ok(())
    }

    pub(crate) fn fill_indexes(&mut self, table: &TableDef, indexes: &[&str]) -> Result<()> {
        let mut entries = Vec::new();
        for record in self.view().scan(table.name, &[])? {
            let (key, value) = record?;
            for (index, index_key) in (table.index_keys)(key, value)? {
                if indexes.contains(&index) {
                    entries.push((index, index_key, key.to_vec()));
                }
            }
        }
        for (index, index_key, key) in entries {
            self.put_bytes(index, &index_key, &key)?;
        }
        Ok(())
    }

    pub(crate) fn set_meta(&mut self, key: &[u8], number: u64) -> Result<()> {
        self.put_bytes(META, key, &number.encode()?)
    }

    /// Writes the entry about everything that changed. Changes that cancelled out are none.
    pub(crate) fn append_to_log(&mut self, time: Timestamp, note: &str, actor: &str) -> Result<TransactionNumber> {
        let mut changes = Vec::new();
        for ((table, key), before) in std::mem::take(&mut self.before) {
            let after = self.view().get(table, &key)?;
            if after == before.as_deref() {
                continue;
            }
            let after = after.map(digest);
            let show = self.view().definition(table).map(|def| def.show);
            changes.push(Change { table: table.to_owned(), record: show.map_or_else(String::new, |show| show(&key)), key, before, after });
        }
        if changes.is_empty() && !self.witnessed {
            return Ok(TransactionNumber::NONE);
        }
        let last = self.view().log().last()?;
        let (number, previous) = last.map_or((1, no_hash()), |e| (e.number.0 + 1, e.hash));
        let mut entry = Entry {
            number: TransactionNumber(number),
            time,
            note: note.to_owned(),
            actor: actor.to_owned(),
            undoes: self.undoes,
            changes,
            previous,
            hash: String::new(),
        };
        entry.hash = entry.compute_hash();
        let number_bytes = number.encode()?;
        self.put_bytes(LOG, &number_bytes, &entry.encode()?)?;
        for change in &entry.changes {
            let mut key = crate::undo::history_front(&change.table, &change.key)?;
            key.extend(&number_bytes);
            self.put_bytes(LOG_RECORDS, &key, &[])?;
        }
        Ok(entry.number)
    }

    pub(crate) fn put_bytes(&mut self, db: &str, key: &[u8], value: &[u8]) -> Result<()> {
        let db = self.inner.environment.db(db)?;
        let put = db.put(&mut self.txn, key, value);
        self.note_full(put)
    }

    pub(crate) fn delete_bytes(&mut self, db: &str, key: &[u8]) -> Result<()> {
        let db = self.inner.environment.db(db)?;
        let deleted = db.delete(&mut self.txn, key).map(|_| ());
        self.note_full(deleted)
    }

    fn note_full(&self, result: heed::Result<()>) -> Result<()> {
        result.map_err(|e| {
            if is(&e, MdbError::MapFull) {
                self.full.set(true);
            }
            Error::lmdb(e)
        })
    }
}
