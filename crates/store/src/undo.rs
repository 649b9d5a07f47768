//! Reading the log, checking it, and taking one transaction back.

use std::collections::BTreeMap;

use model::Timestamp;

use crate::error::{Error, Result};
use crate::glance::Glance;
use crate::key::{Key, KeyBytes};
use crate::log::{Entry, TransactionNumber, digest, no_hash};
use crate::store::{LOG, LOG_RECORDS, Store};
use crate::table::Table;
use crate::txn::{Read, Write};

/// The transaction log of a snapshot.
pub struct Log<'t> {
    read: Read<'t>,
}

impl<'t> Read<'t> {
    /// The transaction log.
    pub fn log(&self) -> Log<'t> {
        Log { read: *self }
    }
}

impl<'t> Log<'t> {
    /// The newest entry.
    pub fn last(&self) -> Result<Option<Entry>> {
        Ok(self.newest(1)?.pop())
    }

    /// The newest entries first, at most `limit`.
    pub fn newest(&self, limit: usize) -> Result<Vec<Entry>> {
        self.newest_before(TransactionNumber(u64::MAX), limit)
    }

    /// The entries before `number`, the newest ones first, at most `limit`: the next page.
    pub fn newest_before(&self, number: TransactionNumber, limit: usize) -> Result<Vec<Entry>> {
        self.values_before(number, limit, Entry::decode, |entry| entry.number)
    }

    /// A glance at each of them, which takes little however much one of them has changed.
    pub fn glances_before(&self, number: TransactionNumber, limit: usize) -> Result<Vec<Glance>> {
        self.values_before(number, limit, Glance::decode, |glance| glance.number)
    }

    fn values_before<V>(
        &self,
        number: TransactionNumber,
        limit: usize,
        decode: fn(&[u8], &[u8]) -> Result<V>,
        number_of: fn(&V) -> TransactionNumber,
    ) -> Result<Vec<V>> {
        let mut values = Vec::new();
        let mut below = number.0;
        while values.len() < limit && below > 0 {
            let key = (below - 1).encode()?;
            let Some((key, bytes)) = self.read.at_or_before(LOG, &key)? else {
                break;
            };
            let value = decode(key, bytes)?;
            below = number_of(&value).0;
            values.push(value);
        }
        Ok(values)
    }

    /// One entry.
    pub fn get(&self, number: TransactionNumber) -> Result<Entry> {
        let key = number.0.encode()?;
        match self.read.get(LOG, &key)? {
            Some(value) => Entry::decode(&key, value),
            None => Err(Error::NoTransaction(number)),
        }
    }

    /// The transactions that changed the record of `T` with this key, the newest first.
    pub fn history<T: Table>(&self, key: &T::Key) -> Result<Vec<TransactionNumber>> {
        self.of_record(T::NAME, &key.encode()?)
    }

    fn of_record(&self, table: &str, key: &[u8]) -> Result<Vec<TransactionNumber>> {
        let front = history_front(table, key)?;
        let entries = self.read.scan_back(LOG_RECORDS, &front)?;
        entries.map(|entry| u64::decode(&entry?.0[front.len()..]).map(TransactionNumber)).collect()
    }

    /// Recomputes every hash, and compares every record with what the log says it must be. Returns the number of entries.
    pub fn verify_chain(&self) -> Result<u64> {
        let mut previous = no_hash();
        let mut count = 0;
        let mut records = LastChanges::new();
        for item in self.read.scan(LOG, &[])? {
            let (key, value) = item?;
            count += 1;
            let number = TransactionNumber(count);
            let entry = Entry::decode(key, value).map_err(|e| Error::BrokenLog { number, what: e.to_string() })?;
            entry.check(number, &previous)?;
            previous = entry.hash;
            for change in entry.changes {
                records.insert((change.table, change.key), (number, change.after));
            }
        }
        self.verify_records(&mut records)?;
        // What is left was in no table: it must have been removed.
        match records.into_iter().find(|(_, (_, after))| after.is_some()) {
            Some(((table, key), (number, _))) => Err(Error::BrokenLog { number, what: format!("{} is missing", self.show(&table, &key)) }),
            None => Ok(count),
        }
    }

    /// Compares every index with what the records say. Returns the number of entries.
    pub fn verify_indexes(&self) -> Result<u64> {
        let mut count = 0;
        for table in self.read.definitions() {
            let mut wanted = BTreeMap::new();
            for item in self.read.scan(table.name, &[])? {
                let (key, value) = item?;
                wanted.extend((table.index_keys)(key, value)?.into_iter().map(|entry| (entry, key)));
            }
            for index in (table.index_names)() {
                for item in self.read.scan(index, &[])? {
                    let (index_key, key) = item?;
                    count += 1;
                    if wanted.remove(&(index, index_key.to_vec())) != Some(key) {
                        let record = (table.show)(key);
                        return Err(Error::Damaged { record, what: format!("index {index} has an entry that does not fit it") });
                    }
                }
            }
            if let Some(((index, _), key)) = wanted.first_key_value() {
                let record = (table.show)(key);
                return Err(Error::Damaged { record, what: format!("index {index} lacks it") });
            }
        }
        Ok(count)
    }

    fn verify_records(&self, logged: &mut LastChanges) -> Result<()> {
        for table in self.read.definitions().iter().filter(|table| table.logged) {
            for item in self.read.scan(table.name, &[])? {
                let (key, value) = item?;
                let last = logged.remove(&(table.name.to_owned(), key.to_vec()));
                let (number, after) = last.unwrap_or_default();
                if after != Some(digest(value)) {
                    return Err(Error::BrokenLog { number, what: format!("{} was changed without an entry", (table.show)(key)) });
                }
            }
        }
        // Tables that this program does not know cannot be compared.
        logged.retain(|(table, _), _| self.read.definition(table).is_some());
        Ok(())
    }

    fn show(&self, table: &str, key: &[u8]) -> String {
        let definition = self.read.definition(table);
        definition.map_or_else(|| table.to_owned(), |def| (def.show)(key))
    }
}

/// For each record that the log knows, who changed it last, and what it must be since.
type LastChanges = BTreeMap<(String, Vec<u8>), (TransactionNumber, Option<String>)>;

/// The front of a record's entries in the index of the log.
pub(crate) fn history_front(table: &str, key: &[u8]) -> Result<Vec<u8>> {
    let mut front = KeyBytes::new().text(table)?.finish();
    // With its length, so that no key is the beginning of another one.
    front.extend((key.len() as u16).to_be_bytes());
    front.extend(key);
    Ok(front)
}

impl Store {
    /// Reverts one transaction, as a transaction of its own, if nothing later touched the same records.
    ///
    /// Fails with [`Error::ChangedLater`], which names the later transaction, and with [`Error::NotUndoable`] for records that must not
    /// come back. Numbers that were given to jobs stay used.
    pub fn undo(&self, number: TransactionNumber, now: Timestamp, actor: &str) -> Result<TransactionNumber> {
        let note = self.read(|r| r.log().get(number))?.note;
        let note = format!("undo {number}: {note}");
        let ((), undo) = self.write_at(now, &note, actor, |w| w.revert(number))?;
        Ok(undo)
    }
}

impl Write<'_> {
    fn revert(&mut self, number: TransactionNumber) -> Result<()> {
        let entry = self.view().log().get(number)?;
        if entry.changes.is_empty() {
            let reason = "what it tells of happened outside of the database";
            return Err(Error::NotUndoable { number, record: "nothing here".into(), reason });
        }
        self.undoes = Some(number);
        for change in entry.changes {
            let refuse = |reason| Error::NotUndoable { number, record: change.record.clone(), reason };
            let definition = self.view().definition(&change.table).copied();
            let definition = definition.ok_or_else(|| refuse("this BorgCube has no such table"))?;
            if let Some(reason) = definition.no_undo {
                return Err(refuse(reason));
            }
            let history = self.view().log().of_record(&change.table, &change.key)?;
            if let Some(&later) = history.first().filter(|later| **later > number) {
                return Err(Error::ChangedLater { number, later, record: change.record });
            }
            let now = self.view().get(definition.name, &change.key)?.map(digest);
            if now != change.after {
                return Err(Error::BrokenLog { number, what: format!("{} was changed without an entry", change.record) });
            }
            self.set(&definition, &change.key, change.before.as_deref())?;
        }
        Ok(())
    }
}
