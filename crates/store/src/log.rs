//! The transaction log: one hash-chained entry per write transaction, with what each change replaced.
//!
//! An entry's hash covers everything in it and the hash before it, so an entry that is changed, removed or put between others is noticed.
//! The newest entries could be cut off together with all later changes of the tables, as an old copy would have it; nothing inside a
//! database can tell that.

use std::fmt;

use model::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::key::Key;
use crate::record::{self, Record};
use crate::table::{Table, decode};

/// A transaction's place in the log, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct TransactionNumber(pub u64);

impl TransactionNumber {
    /// What a write transaction that changed nothing gets: it is not in the log.
    pub const NONE: TransactionNumber = TransactionNumber(0);
}

impl fmt::Display for TransactionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One write transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number.
    pub number: TransactionNumber,
    /// When, by the server's clock.
    pub time: Timestamp,
    /// What for.
    pub note: String,
    /// Who.
    pub actor: String,
    /// The transaction that this one reverted.
    pub undoes: Option<TransactionNumber>,
    /// What it changed.
    pub changes: Vec<Change>,
    /// The hash of the entry before, 64 hex digits; 64 zeros in the first one.
    pub previous: String,
    /// SHA-256 over all of the above, 64 hex digits.
    pub hash: String,
}

/// One record that a transaction changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The table.
    pub table: String,
    /// The record in words, such as `client web1`.
    pub record: String,
    /// The record's key.
    #[serde(with = "base64_bytes")]
    pub key: Vec<u8>,
    /// The bytes before. None: it was inserted.
    #[serde(with = "base64_option")]
    pub before: Option<Vec<u8>>,
    /// SHA-256 of the bytes after, 64 hex digits. None: it was removed.
    pub after: Option<String>,
}

impl Change {
    /// The record of `T` before the change. None: there was none, or the change is of another table.
    pub fn before_as<T: Table>(&self) -> Result<Option<T::Record>> {
        let before = self.before.as_deref().filter(|_| self.table == T::NAME);
        before.map(|bytes| Ok(decode::<T>(&self.key, bytes)?.record)).transpose()
    }

    /// The key of a record of `T`. None: the change is of another table.
    pub fn key_as<T: Table>(&self) -> Result<Option<T::Key>> {
        if self.table != T::NAME { Ok(None) } else { T::Key::decode(&self.key).map(Some) }
    }

    /// `added`, `changed` or `removed`.
    pub fn verb(&self) -> &'static str {
        verb(self.before.is_some(), self.after.is_some())
    }
}

/// What happened to a record that was there before, and is there after.
pub(crate) fn verb(before: bool, after: bool) -> &'static str {
    match (before, after) {
        (false, _) => "added",
        (true, false) => "removed",
        (true, true) => "changed",
    }
}

impl Record for Entry {
    const KIND: u16 = 1;
    const NAME: &'static str = "log entry";
    const VERSION: u16 = 1;
}

/// The hash before the first entry.
pub(crate) fn no_hash() -> String {
    "0".repeat(64)
}

impl Entry {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        record::encode(self)
    }

    pub(crate) fn decode(key: &[u8], bytes: &[u8]) -> Result<Entry> {
        let number = TransactionNumber(u64::decode(key)?);
        let what = format!("log entry {number}");
        Ok(record::decode::<Entry>(&what, bytes)?.record)
    }

    /// Every field with its length, so that no two entries have the same bytes.
    pub(crate) fn compute_hash(&self) -> String {
        let mut hash = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        let mut option = |bytes: Option<&[u8]>| match bytes {
            None => field(&[0]),
            Some(bytes) => {
                field(&[1]);
                field(bytes);
            }
        };
        option(Some(b"borgcube transaction log 1"));
        option(Some(&self.number.0.to_be_bytes()));
        option(Some(&self.time.0.to_be_bytes()));
        option(Some(self.note.as_bytes()));
        option(Some(self.actor.as_bytes()));
        option(self.undoes.map(|n| n.0.to_be_bytes()).as_ref().map(|b| &b[..]));
        option(Some(&(self.changes.len() as u64).to_be_bytes()));
        for change in &self.changes {
            option(Some(change.table.as_bytes()));
            option(Some(change.record.as_bytes()));
            option(Some(&change.key));
            option(change.before.as_deref());
            option(change.after.as_deref().map(str::as_bytes));
        }
        option(Some(self.previous.as_bytes()));
        hex(&hash.finalize())
    }

    /// Whether this entry may follow one with `previous` as its hash.
    pub(crate) fn check(&self, number: TransactionNumber, previous: &str) -> Result<()> {
        let broken = |what: &str| Error::BrokenLog { number, what: what.to_owned() };
        if self.number != number {
            return Err(broken(&format!("the entry there has the number {}", self.number)));
        }
        if self.previous != previous {
            return Err(broken("it does not follow the entry before it"));
        }
        if self.hash != self.compute_hash() {
            return Err(broken("its hash does not fit its contents"));
        }
        Ok(())
    }
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

mod base64_bytes {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        STANDARD.decode(text).map_err(D::Error::custom)
    }
}

mod base64_option {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, to: S) -> Result<S::Ok, S::Error> {
        bytes.as_ref().map(|b| STANDARD.encode(b)).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<u8>>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        let bytes = text.map(|t| STANDARD.decode(t).map_err(D::Error::custom));
        bytes.transpose()
    }
}
