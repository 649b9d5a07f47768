//! A value of any kind, borrowed or owned.

use super::{Error, Limits, Reader, Result, Writer};

/// One msgpack value that borrows its byte strings.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// nil.
    Nil,
    /// true or false.
    Bool(bool),
    /// Any integer that fits into an `i64`.
    Int(i64),
    /// Only integers above `i64::MAX`.
    UInt(u64),
    /// A float of either width.
    Float(f64),
    /// A byte string: raw, `str8` or `bin`.
    Raw(&'a [u8]),
    /// An array.
    Array(Vec<Value<'a>>),
    /// A map in the order of the wire; keys may repeat.
    Map(Vec<(Value<'a>, Value<'a>)>),
}

/// One msgpack value that owns its bytes.
pub type OwnedValue = Owned;

/// See [`OwnedValue`].
#[derive(Debug, Clone, PartialEq)]
pub enum Owned {
    /// nil.
    Nil,
    /// true or false.
    Bool(bool),
    /// Any integer that fits into an `i64`.
    Int(i64),
    /// Only integers above `i64::MAX`.
    UInt(u64),
    /// A float.
    Float(f64),
    /// A byte string.
    Raw(Vec<u8>),
    /// An array.
    Array(Vec<Owned>),
    /// A map in the order of the wire.
    Map(Vec<(Owned, Owned)>),
}

impl<'a> Value<'a> {
    /// Parses exactly one value with [`Limits::default`].
    pub fn parse(input: &'a [u8]) -> Result<Value<'a>> {
        Value::parse_with(input, Limits::default())
    }

    /// Parses exactly one value.
    pub fn parse_with(input: &'a [u8], limits: Limits) -> Result<Value<'a>> {
        let mut reader = Reader::with_limits(input, limits);
        let value = reader.read_value()?;
        reader.finish()?;
        Ok(value)
    }

    /// The bytes of a byte string.
    #[must_use]
    pub fn as_raw(&self) -> Option<&'a [u8]> {
        match self {
            Value::Raw(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// An integer that fits.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Value::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// An integer that is not negative.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Value::Int(value) => u64::try_from(*value).ok(),
            Value::UInt(value) => Some(*value),
            _ => None,
        }
    }

    /// A boolean.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The elements of an array.
    #[must_use]
    pub fn as_array(&self) -> Option<&[Value<'a>]> {
        match self {
            Value::Array(elements) => Some(elements),
            _ => None,
        }
    }

    /// The value under a byte-string key of a map, the first if it repeats.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&Value<'a>> {
        match self {
            Value::Map(pairs) => pairs.iter().find(|(name, _)| name.as_raw() == Some(key)).map(|(_, value)| value),
            _ => None,
        }
    }

    /// A copy that owns its bytes.
    #[must_use]
    pub fn to_owned(&self) -> OwnedValue {
        match self {
            Value::Nil => Owned::Nil,
            Value::Bool(value) => Owned::Bool(*value),
            Value::Int(value) => Owned::Int(*value),
            Value::UInt(value) => Owned::UInt(*value),
            Value::Float(value) => Owned::Float(*value),
            Value::Raw(bytes) => Owned::Raw(bytes.to_vec()),
            Value::Array(elements) => Owned::Array(elements.iter().map(Value::to_owned).collect()),
            Value::Map(pairs) => Owned::Map(pairs.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()),
        }
    }

    /// Appends the value in Borg's dialect.
    pub fn write(&self, writer: &mut Writer) {
        match self {
            Value::Nil => writer.nil(),
            Value::Bool(value) => writer.bool(*value),
            Value::Int(value) => writer.int(*value),
            Value::UInt(value) => writer.uint(*value),
            Value::Float(value) => writer.float(*value),
            Value::Raw(bytes) => writer.raw(bytes),
            Value::Array(elements) => {
                writer.array(elements.len());
                elements.iter().for_each(|element| element.write(writer));
            }
            Value::Map(pairs) => {
                writer.map(pairs.len());
                for (key, value) in pairs {
                    key.write(writer);
                    value.write(writer);
                }
            }
        }
    }
}

impl Owned {
    /// The same value, borrowed.
    #[must_use]
    pub fn as_value(&self) -> Value<'_> {
        match self {
            Owned::Nil => Value::Nil,
            Owned::Bool(value) => Value::Bool(*value),
            Owned::Int(value) => Value::Int(*value),
            Owned::UInt(value) => Value::UInt(*value),
            Owned::Float(value) => Value::Float(*value),
            Owned::Raw(bytes) => Value::Raw(bytes),
            Owned::Array(elements) => Value::Array(elements.iter().map(Owned::as_value).collect()),
            Owned::Map(pairs) => Value::Map(pairs.iter().map(|(k, v)| (k.as_value(), v.as_value())).collect()),
        }
    }
}

/// Rewrites one value in Borg's dialect: new-style strings become old ones, numbers get their shortest form.
pub(crate) fn normalise(packed: &[u8], limits: Limits) -> std::result::Result<Vec<u8>, Error> {
    let mut writer = Writer::new();
    Value::parse_with(packed, limits)?.write(&mut writer);
    Ok(writer.into_bytes())
}
