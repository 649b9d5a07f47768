//! Records that outlive versions: what the bytes of a value are, and how an old one becomes a present one.
//!
//! ```text
//! offset  0  format   u8   0xB1
//!         1  kind     u16  big-endian, what sort of record
//!         3  version  u16  big-endian, which shape of it
//!         5  checksum u64  big-endian, xxh64 of kind, version and body
//!        13  body     JSON
//! ```

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use xxhash_rust::xxh64::Xxh64;

use crate::error::{Error, Result};

/// The first byte of every value; another layout would get another number.
const FORMAT: u8 = 0xB1;
const HEADER: usize = 13;

/// A value of the database.
///
/// A released version never changes. Whoever changes the fields raises [`VERSION`](Record::VERSION), adds an [`Evolution`] and leaves a
/// fixture with the bytes of the version before. (A new field that may be absent still is a new version: the version tells an
/// *older* BorgCube that it would lose the field.)
pub trait Record: Serialize + DeserializeOwned {
    /// The kind's number, unique and never used again.
    const KIND: u16;
    /// The kind's name in sentences, such as `client`.
    const NAME: &'static str;
    /// The shape that this program writes.
    const VERSION: u16;
    /// The ways from older shapes towards the present one.
    fn evolutions() -> &'static [Evolution] {
        &[]
    }
}

/// One leap from an older shape of a record to a newer one.
#[derive(Clone, Copy)]
pub struct Evolution {
    /// The version it starts from.
    pub from: u16,
    /// The version it leads to.
    pub to: u16,
    /// Changes the JSON body in place; its error is the reason for people.
    pub apply: fn(&mut Value) -> std::result::Result<(), String>,
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded<R> {
    /// The present shape.
    pub record: R,
    /// The versions it went through, the stored one first, the present one last.
    pub path: Vec<u16>,
}

/// The bytes of `record` in its present version.
pub fn encode<R: Record>(record: &R) -> Result<Vec<u8>> {
    let body = serde_json::to_vec(record).map_err(|e| Error::Unstorable { record: R::NAME.to_owned(), reason: e.to_string() })?;
    Ok(seal(R::KIND, R::VERSION, &body))
}

/// Header and body together; also for bytes of other versions in tests and fixtures.
pub fn seal(kind: u16, version: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.push(FORMAT);
    bytes.extend(kind.to_be_bytes());
    bytes.extend(version.to_be_bytes());
    bytes.extend(checksum(kind, version, body).to_be_bytes());
    bytes.extend(body);
    bytes
}

/// Reads a record of the present version; None: it is of another one, or something is wrong with it, and [`decode`] tells.
pub fn decode_present<R: Record>(bytes: &[u8]) -> Option<R> {
    let (version, body) = open(R::KIND, "", bytes).ok()?;
    if version == R::VERSION { serde_json::from_slice(body).ok() } else { None }
}

/// Reads a part of a record of the present version, whose body has the fields of `P` and more. `what` names the record in errors.
pub(crate) fn decode_part<R: Record, P: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<P> {
    let (version, body) = open(R::KIND, what, bytes)?;
    if version != R::VERSION {
        return Err(Error::Newer { record: what.to_owned(), found: version, known: R::VERSION });
    }
    serde_json::from_slice(body).map_err(|e| Error::Damaged { record: what.to_owned(), what: format!("its body does not fit: {e}") })
}

/// Reads a record of any version that leads to the present one. `what` names the record in errors.
pub fn decode<R: Record>(what: &str, bytes: &[u8]) -> Result<Decoded<R>> {
    let (version, body) = open(R::KIND, what, bytes)?;
    let damaged = |e: serde_json::Error| Error::Damaged { record: what.to_owned(), what: format!("its body does not fit: {e}") };
    if version > R::VERSION {
        return Err(Error::Newer { record: what.to_owned(), found: version, known: R::VERSION });
    }
    if version == R::VERSION {
        let record = serde_json::from_slice(body).map_err(damaged)?;
        return Ok(Decoded { record, path: vec![version] });
    }
    let mut value = serde_json::from_slice(body).map_err(damaged)?;
    let path = evolve::<R>(what, version, &mut value)?;
    let record = serde_json::from_value(value).map_err(damaged)?;
    Ok(Decoded { record, path })
}

/// The version in which a record is stored, if the bytes are sound and of kind `kind`.
pub fn stored_version(kind: u16, what: &str, bytes: &[u8]) -> Result<u16> {
    open(kind, what, bytes).map(|(version, _)| version)
}

/// The largest leap first: from version 1 with leaps 1->2, 2->3 and 2->7 the path to 7 is 1, 2, 7.
fn evolve<R: Record>(what: &str, stored: u16, value: &mut Value) -> Result<Vec<u16>> {
    let mut path = vec![stored];
    let mut at = stored;
    while at < R::VERSION {
        let leap = R::evolutions()
            .iter()
            .filter(|e| e.from == at && e.to > at && e.to <= R::VERSION)
            .max_by_key(|e| e.to)
            .ok_or_else(|| Error::NoPath { record: what.to_owned(), stored, stuck: at, wanted: R::VERSION })?;
        (leap.apply)(value).map_err(|reason| Error::Evolution { record: what.to_owned(), from: leap.from, to: leap.to, reason })?;
        at = leap.to;
        path.push(at);
    }
    Ok(path)
}

fn open<'b>(kind: u16, what: &str, bytes: &'b [u8]) -> Result<(u16, &'b [u8])> {
    let damaged = |text: &str| Error::Damaged { record: what.to_owned(), what: text.to_owned() };
    let (Some(&format), Some(found), Some(version), Some(sum), Some(body)) =
        (bytes.first(), array::<2>(bytes, 1), array::<2>(bytes, 3), array::<8>(bytes, 5), bytes.get(HEADER..))
    else {
        return Err(damaged("it is too short"));
    };
    if format != FORMAT {
        return Err(damaged("it does not begin like a record"));
    }
    let (found, version) = (u16::from_be_bytes(found), u16::from_be_bytes(version));
    if checksum(found, version, body) != u64::from_be_bytes(sum) {
        return Err(damaged("its checksum does not fit"));
    }
    if found != kind {
        return Err(Error::WrongKind { record: what.to_owned(), found, expected: kind });
    }
    Ok((version, body))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn checksum(kind: u16, version: u16, body: &[u8]) -> u64 {
    let mut hash = Xxh64::new(0);
    hash.update(&kind.to_be_bytes());
    hash.update(&version.to_be_bytes());
    hash.update(body);
    hash.digest()
}
