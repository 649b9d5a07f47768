//! The msgpack dialect of Borg 1.x.
//!
//! Borg writes the old specification: one family of byte strings (fixraw, raw16, raw32), never `str8`, never `bin`.
//! [`Writer`] writes exactly that. [`Reader`] also understands `str8` and `bin` unless [`Limits::old_spec_only`] is set.
//! [`Scanner`] and [`Frames`] find where messages end in a stream that arrives in pieces.

mod frames;
mod reader;
mod scanner;
mod value;
mod writer;

pub use frames::Frames;
pub use reader::Reader;
pub use scanner::Scanner;
pub(crate) use value::normalise;
pub use value::{OwnedValue, Value};
pub use writer::Writer;

/// What a reader puts up with. Everything is checked before memory is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How deep arrays and maps may nest; a lone scalar has depth 0.
    pub depth: usize,
    /// Most elements of one array, most pairs of one map.
    pub elements: usize,
    /// Most bytes of one byte string.
    pub raw: usize,
    /// Most values in one message, containers included.
    pub values: usize,
    /// Refuse `str8` and `bin`, which no Borg 1.x writes.
    pub old_spec_only: bool,
}

impl Limits {
    /// Limits that only bound nesting: for data whose total size is already bounded and that is not turned into
    /// [`Value`]s.
    pub const LOOSE: Limits = Limits { depth: 32, elements: usize::MAX, raw: usize::MAX, values: usize::MAX, old_spec_only: false };
}

impl Default for Limits {
    /// Depth 32, a million values.
    fn default() -> Limits {
        Limits { depth: 32, elements: 1_000_000, raw: 64 << 20, values: 1_000_000, old_spec_only: false }
    }
}

/// Why bytes are not (yet) a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The input ends inside a value; at least this many more bytes are needed.
    #[error("the data ends inside a msgpack value, at least {needed} bytes are missing")]
    Incomplete {
        /// Lower bound of what is missing, never 0.
        needed: usize,
    },
    /// A type byte outside the dialect (extension types, 0xc1, or the new byte strings where only the old are allowed).
    #[error("msgpack type byte {0:#04x} is not part of Borg's dialect")]
    Marker(u8),
    /// Nested deeper than [`Limits::depth`].
    #[error("msgpack data is nested too deeply")]
    Depth,
    /// An array, map, byte string or message larger than its limit.
    #[error("msgpack {0} is larger than allowed")]
    TooLarge(&'static str),
    /// A value of another kind than the place asks for.
    #[error("expected {expected} in msgpack data, found {found}")]
    Type {
        /// What the place asks for.
        expected: &'static str,
        /// What was there.
        found: &'static str,
    },
    /// An integer that does not fit its place.
    #[error("an integer in msgpack data is out of range")]
    Range,
    /// Bytes follow the end of the value.
    #[error("{0} bytes follow the end of the msgpack value")]
    Trailing(usize),
}

/// Result of reading.
pub type Result<T> = std::result::Result<T, Error>;

/// What the first bytes of a value say: enough to skip it or to go into it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Head {
    Nil,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Float(f64),
    Raw(usize),
    Array(usize),
    Map(usize),
}

impl Head {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Head::Nil => "nil",
            Head::Bool(_) => "a boolean",
            Head::Int(_) | Head::UInt(_) => "an integer",
            Head::Float(_) => "a float",
            Head::Raw(_) => "a byte string",
            Head::Array(_) => "an array",
            Head::Map(_) => "a map",
        }
    }
}

/// Reads one head; the number is how many bytes it takes. Checks the limits of the single value.
pub(crate) fn head(input: &[u8], limits: &Limits) -> Result<(Head, usize)> {
    fn number<const N: usize>(input: &[u8]) -> Result<[u8; N]> {
        match input.get(1..1 + N).and_then(|bytes| bytes.try_into().ok()) {
            Some(bytes) => Ok(bytes),
            None => Err(Error::Incomplete { needed: (1 + N).saturating_sub(input.len()).max(1) }),
        }
    }
    fn length(bytes: [u8; 4]) -> Result<usize> {
        usize::try_from(u32::from_be_bytes(bytes)).map_err(|_| Error::Range)
    }
    fn signed(value: i64) -> Head {
        Head::Int(value)
    }
    fn unsigned(value: u64) -> Head {
        i64::try_from(value).map_or(Head::UInt(value), Head::Int)
    }
    let Some(&marker) = input.first() else { return Err(Error::Incomplete { needed: 1 }) };
    if limits.old_spec_only && matches!(marker, 0xc4..=0xc6 | 0xd9) {
        return Err(Error::Marker(marker));
    }
    let (head, used) = match marker {
        0x00..=0x7f => (signed(i64::from(marker)), 1),
        0x80..=0x8f => (Head::Map(usize::from(marker & 0x0f)), 1),
        0x90..=0x9f => (Head::Array(usize::from(marker & 0x0f)), 1),
        0xa0..=0xbf => (Head::Raw(usize::from(marker & 0x1f)), 1),
        0xc0 => (Head::Nil, 1),
        0xc2 => (Head::Bool(false), 1),
        0xc3 => (Head::Bool(true), 1),
        0xc4 | 0xd9 => (Head::Raw(usize::from(number::<1>(input)?[0])), 2),
        0xc5 | 0xda => (Head::Raw(usize::from(u16::from_be_bytes(number(input)?))), 3),
        0xc6 | 0xdb => (Head::Raw(length(number(input)?)?), 5),
        0xca => (Head::Float(f64::from(f32::from_be_bytes(number(input)?))), 5),
        0xcb => (Head::Float(f64::from_be_bytes(number(input)?)), 9),
        0xcc => (unsigned(u64::from(number::<1>(input)?[0])), 2),
        0xcd => (unsigned(u64::from(u16::from_be_bytes(number(input)?))), 3),
        0xce => (unsigned(u64::from(u32::from_be_bytes(number(input)?))), 5),
        0xcf => (unsigned(u64::from_be_bytes(number(input)?)), 9),
        0xd0 => (signed(i64::from(i8::from_be_bytes(number(input)?))), 2),
        0xd1 => (signed(i64::from(i16::from_be_bytes(number(input)?))), 3),
        0xd2 => (signed(i64::from(i32::from_be_bytes(number(input)?))), 5),
        0xd3 => (signed(i64::from_be_bytes(number(input)?)), 9),
        0xdc => (Head::Array(usize::from(u16::from_be_bytes(number(input)?))), 3),
        0xdd => (Head::Array(length(number(input)?)?), 5),
        0xde => (Head::Map(usize::from(u16::from_be_bytes(number(input)?))), 3),
        0xdf => (Head::Map(length(number(input)?)?), 5),
        0xe0..=0xff => (signed(i64::from(marker as i8)), 1),
        0xc1 | 0xc7..=0xc9 | 0xd4..=0xd8 => return Err(Error::Marker(marker)),
    };
    match head {
        Head::Raw(length) if length > limits.raw => Err(Error::TooLarge("byte string")),
        Head::Array(length) if length > limits.elements => Err(Error::TooLarge("array")),
        Head::Map(length) if length > limits.elements => Err(Error::TooLarge("map")),
        _ => Ok((head, used)),
    }
}

/// A name out of a hostile message, fit for a log line: short, and without what is not printable.
pub(crate) fn shown(name: &[u8]) -> String {
    let start = name.get(..64).unwrap_or(name);
    String::from_utf8_lossy(start).chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
