//! What a table is: a kind of record, its key, and the indexes that follow from its records.

use crate::error::{Error, Result};
use crate::key::{Key, MAX_KEY};
use crate::record::{self, Record};

/// One table. Implemented by empty types such as [`crate::tables::Clients`].
pub trait Table: 'static {
    /// Its key.
    type Key: Key;
    /// Its values.
    type Record: Record;
    /// The name of its database, never changed once released.
    const NAME: &'static str;
    /// Why its records must not come back by an undo, if so.
    const NO_UNDO: Option<&'static str> = None;
    /// Whether changes of it are in the transaction log. Only what is measured again and again is not: an undo leaves it as it is, and nobody notices
    /// who changes it past us.
    const LOGGED: bool = true;
    /// The key is part of the record.
    fn key(record: &Self::Record) -> Self::Key;
    /// The indexes over it.
    fn indexes() -> &'static [Index<Self::Record>] {
        &[]
    }
}

/// An index: a database of its own, maintained by every change of its table, also by undo.
///
/// It is filled when its database does not exist yet, so a new index needs no migration. If `fronts` changes its mind about an old
/// record (a new rule, or an evolution that changes what it looks at), give the index a new name.
pub struct Index<R> {
    /// The name of its database.
    pub name: &'static str,
    /// The front parts of the index's keys for a record; the table's key follows each.
    pub fronts: fn(&R) -> Result<Vec<Vec<u8>>>,
}

/// The entries of a record: index and key.
pub(crate) type IndexKeys = Vec<(&'static str, Vec<u8>)>;

/// A table as code that does not know its types sees it.
#[derive(Clone, Copy)]
pub struct TableDef {
    pub(crate) name: &'static str,
    pub(crate) no_undo: Option<&'static str>,
    pub(crate) logged: bool,
    pub(crate) index_names: fn() -> Vec<&'static str>,
    pub(crate) index_keys: fn(&[u8], &[u8]) -> Result<IndexKeys>,
    pub(crate) show: fn(&[u8]) -> String,
}

impl TableDef {
    /// The definition of `T`.
    pub const fn of<T: Table>() -> TableDef {
        TableDef {
            name: T::NAME,
            no_undo: T::NO_UNDO,
            logged: T::LOGGED,
            index_names: index_names::<T>,
            index_keys: index_keys::<T>,
            show: show::<T>,
        }
    }
}

fn index_names<T: Table>() -> Vec<&'static str> {
    T::indexes().iter().map(|index| index.name).collect()
}

fn index_keys<T: Table>(key: &[u8], value: &[u8]) -> Result<IndexKeys> {
    if T::indexes().is_empty() {
        return Ok(Vec::new());
    }
    let record = decode::<T>(key, value)?.record;
    let mut keys = Vec::new();
    for index in T::indexes() {
        for mut index_key in (index.fronts)(&record)? {
            index_key.extend(key);
            if index_key.len() > MAX_KEY {
                return Err(Error::BadKey(show::<T>(key), "it is too long"));
            }
            keys.push((index.name, index_key));
        }
    }
    Ok(keys)
}

/// `client web1`: the record in sentences.
pub(crate) fn show<T: Table>(key: &[u8]) -> String {
    let name = T::Key::decode(key).map_or_else(|_| key.escape_ascii().to_string(), |k| k.show());
    format!("{} {name}", T::Record::NAME)
}

/// Key bytes, checked for what LMDB can hold.
pub(crate) fn key_bytes<T: Table>(key: &T::Key) -> Result<Vec<u8>> {
    let bytes = key.encode()?;
    if bytes.is_empty() || bytes.len() > MAX_KEY {
        return Err(Error::BadKey(key.show(), "it is empty or too long"));
    }
    Ok(bytes)
}

/// Decodes a value and makes sure that it belongs to its key.
pub(crate) fn decode<T: Table>(key: &[u8], value: &[u8]) -> Result<record::Decoded<T::Record>> {
    // Without a name for the case that something is wrong: pages and plans read many thousands.
    if let Some(record) = record::decode_present::<T::Record>(value)
        && T::key(&record).encode()? == key
    {
        return Ok(record::Decoded { record, path: vec![T::Record::VERSION] });
    }
    let what = show::<T>(key);
    let decoded = record::decode::<T::Record>(&what, value)?;
    if T::key(&decoded.record).encode()? != key {
        return Err(Error::Damaged { what: format!("it says that it is {}", T::key(&decoded.record).show()), record: what });
    }
    Ok(decoded)
}
