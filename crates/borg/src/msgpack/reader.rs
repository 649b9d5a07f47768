//! Pulling values out of a byte slice.

use super::{Error, Head, Limits, Result, Value, head};
use crate::Id;

/// Reads values one after the other from a slice and borrows from it.
///
/// A container is entered by reading its length; the caller then reads that many elements (pairs for maps). Lengths
/// are checked against the rest of the input, so a length may be used to reserve memory for the elements' own bytes.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    input: &'a [u8],
    position: usize,
    limits: Limits,
    values: usize,
}

impl<'a> Reader<'a> {
    /// A reader with [`Limits::default`].
    #[must_use]
    pub fn new(input: &'a [u8]) -> Reader<'a> {
        Reader::with_limits(input, Limits::default())
    }

    /// A reader with limits of the caller's choice.
    #[must_use]
    pub fn with_limits(input: &'a [u8], limits: Limits) -> Reader<'a> {
        Reader { input, position: 0, limits, values: limits.values }
    }

    /// How many bytes were read so far.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }

    /// The bytes not yet read.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.input.get(self.position..).unwrap_or_default()
    }

    /// Fails if anything is left.
    pub fn finish(&self) -> Result<()> {
        match self.rest().len() {
            0 => Ok(()),
            left => Err(Error::Trailing(left)),
        }
    }

    fn head(&mut self) -> Result<Head> {
        let rest = self.rest();
        let (found, used) = head(rest, &self.limits)?;
        let minimum = match found {
            Head::Raw(length) | Head::Array(length) => length,
            Head::Map(pairs) => pairs.saturating_mul(2),
            _ => 0,
        };
        let left = rest.len() - used;
        if minimum > left {
            return Err(Error::Incomplete { needed: minimum - left });
        }
        self.values = self.values.checked_sub(1).ok_or(Error::TooLarge("message"))?;
        self.position += used;
        Ok(found)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let rest = self.rest();
        let bytes = rest.get(..length).ok_or(Error::Incomplete { needed: length.saturating_sub(rest.len()).max(1) })?;
        self.position += length;
        Ok(bytes)
    }

    /// Looks at the next head without consuming it.
    fn peek(&self) -> Result<Head> {
        head(self.rest(), &self.limits).map(|(head, _)| head)
    }

    fn expected<T>(expected: &'static str, found: Head) -> Result<T> {
        Err(Error::Type { expected, found: found.name() })
    }

    /// True if the next value is nil; it is consumed then.
    pub fn read_nil_if_next(&mut self) -> Result<bool> {
        if self.peek()? == Head::Nil {
            self.head()?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Reads nil.
    pub fn read_nil(&mut self) -> Result<()> {
        match self.head()? {
            Head::Nil => Ok(()),
            other => Self::expected("nil", other),
        }
    }

    /// Reads a boolean.
    pub fn read_bool(&mut self) -> Result<bool> {
        match self.head()? {
            Head::Bool(value) => Ok(value),
            other => Self::expected("a boolean", other),
        }
    }

    /// Reads an integer that fits into an `i64`.
    pub fn read_int(&mut self) -> Result<i64> {
        match self.head()? {
            Head::Int(value) => Ok(value),
            Head::UInt(_) => Err(Error::Range),
            other => Self::expected("an integer", other),
        }
    }

    /// Reads an integer that is not negative.
    pub fn read_uint(&mut self) -> Result<u64> {
        match self.head()? {
            Head::Int(value) => u64::try_from(value).map_err(|_| Error::Range),
            Head::UInt(value) => Ok(value),
            other => Self::expected("an integer", other),
        }
    }

    /// Reads an integer that fits into a `u32`.
    pub fn read_u32(&mut self) -> Result<u32> {
        self.read_uint()?.try_into().map_err(|_| Error::Range)
    }

    /// Reads a float; an integer is accepted as one.
    pub fn read_float(&mut self) -> Result<f64> {
        match self.head()? {
            Head::Float(value) => Ok(value),
            Head::Int(value) => Ok(value as f64),
            Head::UInt(value) => Ok(value as f64),
            other => Self::expected("a float", other),
        }
    }

    /// Reads a byte string.
    pub fn read_raw(&mut self) -> Result<&'a [u8]> {
        match self.head()? {
            Head::Raw(length) => self.take(length),
            other => Self::expected("a byte string", other),
        }
    }

    /// Reads a byte string of exactly `N` bytes.
    pub fn read_array_of<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.read_raw()?;
        bytes.try_into().map_err(|_| Error::Type { expected: "a byte string of fixed length", found: "one of another length" })
    }

    /// Reads a byte string of 32 bytes as an id.
    pub fn read_id(&mut self) -> Result<Id> {
        Id::try_from(self.read_raw()?).map_err(|_| Error::Type { expected: "an id of 32 bytes", found: "a byte string of another length" })
    }

    /// Enters an array; the number of elements is at most the number of bytes left.
    pub fn read_array_len(&mut self) -> Result<usize> {
        match self.head()? {
            Head::Array(length) => Ok(length),
            other => Self::expected("an array", other),
        }
    }

    /// Enters a map; twice the number of pairs is at most the number of bytes left.
    pub fn read_map_len(&mut self) -> Result<usize> {
        match self.head()? {
            Head::Map(length) => Ok(length),
            other => Self::expected("a map", other),
        }
    }

    /// Skips one value with everything in it, without recursion; returns its bytes.
    pub fn skip_value(&mut self) -> Result<&'a [u8]> {
        let start = self.position;
        let mut open: Vec<usize> = Vec::new();
        loop {
            let children = match self.head()? {
                Head::Raw(length) => {
                    self.take(length)?;
                    None
                }
                Head::Array(length) => Some(length),
                Head::Map(pairs) => Some(pairs.checked_mul(2).ok_or(Error::Range)?),
                _ => None,
            };
            if let Some(children) = children {
                if open.len() >= self.limits.depth {
                    return Err(Error::Depth);
                }
                open.push(children);
            }
            loop {
                match open.last_mut() {
                    None => return Ok(self.input.get(start..self.position).unwrap_or_default()),
                    Some(0) => {
                        open.pop();
                    }
                    Some(left) => {
                        *left -= 1;
                        break;
                    }
                }
            }
        }
    }

    /// Reads one value of any kind.
    pub fn read_value(&mut self) -> Result<Value<'a>> {
        self.value_at(0)
    }

    fn value_at(&mut self, depth: usize) -> Result<Value<'a>> {
        Ok(match self.head()? {
            Head::Nil => Value::Nil,
            Head::Bool(value) => Value::Bool(value),
            Head::Int(value) => Value::Int(value),
            Head::UInt(value) => Value::UInt(value),
            Head::Float(value) => Value::Float(value),
            Head::Raw(length) => Value::Raw(self.take(length)?),
            Head::Array(_) | Head::Map(_) if depth >= self.limits.depth => return Err(Error::Depth),
            Head::Array(length) => {
                self.announced(length)?;
                let mut elements = Vec::with_capacity(length);
                for _ in 0..length {
                    elements.push(self.value_at(depth + 1)?);
                }
                Value::Array(elements)
            }
            Head::Map(pairs) => {
                self.announced(pairs.saturating_mul(2))?;
                let mut map = Vec::with_capacity(pairs);
                for _ in 0..pairs {
                    map.push((self.value_at(depth + 1)?, self.value_at(depth + 1)?));
                }
                Value::Map(map)
            }
        })
    }

    /// A container may not announce more values than the message is still allowed to have: its memory is taken at once.
    fn announced(&self, values: usize) -> Result<()> {
        if values > self.values { Err(Error::TooLarge("message")) } else { Ok(()) }
    }
}
