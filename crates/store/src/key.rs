//! Keys whose byte order means something: texts end with a zero byte, numbers are big-endian.

use crate::error::{Error, Result};

/// LMDB's keys end at 511 bytes; the log adds table and number to a record's key.
pub(crate) const MAX_KEY: usize = 400;

/// The key of a table.
pub trait Key: Sized {
    /// Its bytes; their order is the table's order.
    fn encode(&self) -> Result<Vec<u8>>;
    /// Reads them back.
    fn decode(bytes: &[u8]) -> Result<Self>;
    /// For people, such as `web1/etc`.
    fn show(&self) -> String;
}

/// Builds a key or the front part of one.
#[derive(Debug, Default, Clone)]
pub struct KeyBytes {
    bytes: Vec<u8>,
}

impl KeyBytes {
    /// An empty one.
    pub fn new() -> KeyBytes {
        KeyBytes::default()
    }

    /// Adds a text and its end. Fails if it contains a zero byte.
    pub fn text(mut self, text: &str) -> Result<KeyBytes> {
        if text.bytes().any(|b| b == 0) {
            return Err(Error::BadKey(text.to_owned(), "it contains a zero byte"));
        }
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
        Ok(self)
    }

    /// Adds a number.
    pub fn number(mut self, number: u64) -> KeyBytes {
        self.bytes.extend(number.to_be_bytes());
        self
    }

    /// Adds a signed number, negative ones first.
    pub fn signed(self, number: i64) -> KeyBytes {
        self.number(number.cast_unsigned() ^ (1 << 63))
    }

    /// The key.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Takes a key apart in the order in which it was built.
pub struct KeyParts<'b> {
    rest: &'b [u8],
}

impl<'b> KeyParts<'b> {
    /// Begins at the front.
    pub fn of(bytes: &'b [u8]) -> KeyParts<'b> {
        KeyParts { rest: bytes }
    }

    /// The next text.
    pub fn text(&mut self) -> Result<&'b str> {
        let end = self.rest.iter().position(|&b| b == 0).ok_or_else(|| bad(self.rest))?;
        let text = std::str::from_utf8(&self.rest[..end]).map_err(|_| bad(self.rest))?;
        self.rest = &self.rest[end + 1..];
        Ok(text)
    }

    /// The next number.
    pub fn number(&mut self) -> Result<u64> {
        let (number, rest) = self.rest.split_first_chunk::<8>().ok_or_else(|| bad(self.rest))?;
        self.rest = rest;
        Ok(u64::from_be_bytes(*number))
    }

    /// Succeeds at the end of the key only.
    pub fn end(self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(bad(self.rest)) }
    }
}

fn bad(bytes: &[u8]) -> Error {
    Error::BadKey(bytes.escape_ascii().to_string(), "it does not have the table's form")
}

impl Key for u64 {
    fn encode(&self) -> Result<Vec<u8>> {
        Ok(KeyBytes::new().number(*self).finish())
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut parts = KeyParts::of(bytes);
        let number = parts.number()?;
        parts.end().map(|()| number)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Key for String {
    fn encode(&self) -> Result<Vec<u8>> {
        Ok(KeyBytes::new().text(self)?.finish())
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut parts = KeyParts::of(bytes);
        let text = parts.text()?.to_owned();
        parts.end().map(|()| text)
    }

    fn show(&self) -> String {
        self.clone()
    }
}
