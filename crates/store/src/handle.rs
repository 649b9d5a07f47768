//! Typed tables inside a transaction: the verbs.

use std::marker::PhantomData;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::log;
use crate::record::{self, Record};
use crate::table::{Table, TableDef, decode, key_bytes, show};
use crate::txn::{Read, Write};

/// A table to read from.
pub struct TableRef<'t, T> {
    pub(crate) read: Read<'t>,
    table: PhantomData<T>,
}

/// A record together with the mark of the bytes it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored<R> {
    /// The record, in its present shape.
    pub record: R,
    /// What [`TableMut::replace`] compares.
    pub stamp: Stamp,
    /// The versions it went through when it was read.
    pub path: Vec<u16>,
}

/// Names the stored state of one record: its version and a hash of its bytes. It may travel, for instance through an editor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Stamp(String);

impl Stamp {
    fn of(version: u16, bytes: &[u8]) -> Stamp {
        Stamp(format!("{version}-{}", log::digest(bytes)))
    }
}

impl<'t, T: Table> TableRef<'t, T> {
    pub(crate) fn new(read: Read<'t>) -> TableRef<'t, T> {
        TableRef { read, table: PhantomData }
    }

    /// The record with this key, if there is one.
    pub fn get(&self, key: &T::Key) -> Result<Option<T::Record>> {
        self.get_bytes(&key_bytes::<T>(key)?)
    }

    /// The record with this key; it is an error if there is none.
    pub fn require(&self, key: &T::Key) -> Result<T::Record> {
        let key = key_bytes::<T>(key)?;
        let record = self.get_bytes(&key)?;
        record.ok_or_else(|| Error::NotFound(show::<T>(&key)))
    }

    /// Whether there is a record with this key.
    pub fn exists(&self, key: &T::Key) -> Result<bool> {
        Ok(self.bytes(&key_bytes::<T>(key)?)?.is_some())
    }

    /// The record with the mark of its stored state, for a later [`TableMut::replace`].
    pub fn stored(&self, key: &T::Key) -> Result<Option<Stored<T::Record>>> {
        let key = key_bytes::<T>(key)?;
        let Some(bytes) = self.bytes(&key)? else {
            return Ok(None);
        };
        let decoded = decode::<T>(&key, bytes)?;
        let version = decoded.path.first().copied().unwrap_or(T::Record::VERSION);
        Ok(Some(Stored { stamp: Stamp::of(version, bytes), record: decoded.record, path: decoded.path }))
    }

    /// Every record in the order of the keys.
    pub fn list(&self) -> Result<Vec<T::Record>> {
        let entries = self.read.scan(T::NAME, &[])?;
        entries
            .map(|entry| {
                let (key, value) = entry?;
                Ok(decode::<T>(key, value)?.record)
            })
            .collect()
    }

    /// How many records there are.
    pub fn count(&self) -> Result<u64> {
        self.read.count(T::NAME)
    }

    /// The record that an index entry points to.
    pub(crate) fn indexed(&self, key: &[u8]) -> Result<T::Record> {
        let record = self.get_bytes(key)?;
        record.ok_or_else(|| Error::Damaged { record: show::<T>(key), what: "an index has it, its table does not".to_owned() })
    }

    fn get_bytes(&self, key: &[u8]) -> Result<Option<T::Record>> {
        let bytes = self.bytes(key)?;
        let record = bytes.map(|bytes| Ok(decode::<T>(key, bytes)?.record));
        record.transpose()
    }

    fn bytes(&self, key: &[u8]) -> Result<Option<&'t [u8]>> {
        self.read.get(T::NAME, key)
    }
}

/// A table to change.
pub struct TableMut<'w, 't, T> {
    pub(crate) write: &'w mut Write<'t>,
    table: PhantomData<T>,
}

impl<'w, 't, T: Table> TableMut<'w, 't, T> {
    pub(crate) fn new(write: &'w mut Write<'t>) -> TableMut<'w, 't, T> {
        TableMut { write, table: PhantomData }
    }

    /// The table as this transaction sees it.
    pub fn view(&self) -> TableRef<'_, T> {
        TableRef::new(self.write.view())
    }

    /// The record with this key, if there is one.
    pub fn get(&self, key: &T::Key) -> Result<Option<T::Record>> {
        self.view().get(key)
    }

    /// The record with this key; it is an error if there is none.
    pub fn require(&self, key: &T::Key) -> Result<T::Record> {
        self.view().require(key)
    }

    /// Adds a record; it is an error if there is one with its key.
    pub fn insert(&mut self, record: &T::Record) -> Result<()> {
        let key = T::key(record);
        if self.view().exists(&key)? {
            return Err(Error::Exists(show::<T>(&key_bytes::<T>(&key)?)));
        }
        self.put(record)
    }

    /// Adds a record or takes the place of the one with its key.
    pub fn put(&mut self, record: &T::Record) -> Result<()> {
        let key = key_bytes::<T>(&T::key(record))?;
        let value = record::encode(record)?;
        self.write.set(&TableDef::of::<T>(), &key, Some(&value))
    }

    /// Changes a record in place and returns what `change` returned; when it fails, the record stays.
    ///
    /// An old record is evolved first; its new form replaces only the very version that the evolution started from.
    pub fn update<V>(&mut self, key: &T::Key, change: impl FnOnce(&mut T::Record) -> Result<V>) -> Result<V> {
        let stored = self.require_stored(key)?;
        let mut record = stored.record;
        let value = change(&mut record)?;
        self.check_key(key, &record)?;
        self.compare_and_set(key, &stored.stamp, &record)?;
        Ok(value)
    }

    /// Takes the place of a record that was read earlier, if nobody changed it since ([`Error::Conflict`] otherwise).
    pub fn replace(&mut self, read: &Stamp, record: &T::Record) -> Result<()> {
        self.compare_and_set(&T::key(record), read, record)
    }

    /// Removes a record and returns it.
    pub fn remove(&mut self, key: &T::Key) -> Result<T::Record> {
        let record = self.require(key)?;
        let key = key_bytes::<T>(key)?;
        self.write.set(&TableDef::of::<T>(), &key, None)?;
        Ok(record)
    }

    fn require_stored(&self, key: &T::Key) -> Result<Stored<T::Record>> {
        let stored = self.view().stored(key)?;
        let missing = || Ok(Error::NotFound(show::<T>(&key_bytes::<T>(key)?)));
        stored.map_or_else(|| Err(missing().unwrap_or_else(|e: Error| e)), Ok)
    }

    fn compare_and_set(&mut self, key: &T::Key, read: &Stamp, record: &T::Record) -> Result<()> {
        let now = self.require_stored(key)?;
        if now.stamp != *read {
            return Err(Error::Conflict {
                record: show::<T>(&key_bytes::<T>(key)?),
                what: format!("its state is {}, expected {}", now.stamp.0, read.0),
            });
        }
        self.put(record)
    }

    fn check_key(&self, key: &T::Key, record: &T::Record) -> Result<()> {
        let (key, new) = (key_bytes::<T>(key)?, key_bytes::<T>(&T::key(record))?);
        if key == new {
            return Ok(());
        }
        Err(Error::Unstorable { record: show::<T>(&key), reason: format!("a change must not turn it into {}", show::<T>(&new)) })
    }
}
