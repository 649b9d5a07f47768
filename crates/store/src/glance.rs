//! What a list shows of an entry of the transaction log. One transaction may have changed a hundred thousand records, and a page names a few.

use crate::error::Result;
use crate::key::Key;
use crate::log::{Entry, TransactionNumber};
use crate::record;
use model::Timestamp;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;

/// Changes that are named of one transaction.
pub const NAMED: usize = 20;

/// An [`Entry`] without what its changes replaced, and without most of them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Glance {
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
    pub changes: Named,
    /// The entry's hash, 64 hex digits.
    pub hash: String,
}

/// The first [`NAMED`] changes of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// In words: `changed client web1`.
    pub first: Vec<String>,
    /// How many there are besides.
    pub more: u64,
}

impl Glance {
    pub(crate) fn decode(key: &[u8], bytes: &[u8]) -> Result<Glance> {
        let what = format!("log entry {}", u64::decode(key)?);
        record::decode_part::<Entry, Glance>(&what, bytes)
    }
}

/// A change, without the bytes before.
#[derive(Deserialize)]
struct Change {
    record: String,
    before: Option<IgnoredAny>,
    after: Option<IgnoredAny>,
}

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Named, D::Error> {
        struct Changes;
        impl<'de> Visitor<'de> for Changes {
            type Value = Named;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of changes")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> std::result::Result<Named, A::Error> {
                let mut named = Named { first: vec![], more: 0 };
                while named.first.len() < NAMED
                    && let Some(Change { record, before, after }) = all.next_element()?
                {
                    named.first.push(format!("{} {record}", crate::log::verb(before.is_some(), after.is_some())));
                }
                while all.next_element::<IgnoredAny>()?.is_some() {
                    named.more += 1;
                }
                Ok(named)
            }
        }
        from.deserialize_seq(Changes)
    }
}
