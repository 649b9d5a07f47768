//! The calling side: cutting what `borg serve` answers into replies.

use super::StreamError;
use crate::Id;
use crate::msgpack::{Error, Frames, Limits, Reader, Value};

/// One answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply<'a> {
    /// Number of the call it belongs to.
    pub msgid: u64,
    /// The result, or what the other side threw.
    pub outcome: Result<Value<'a>, RemoteException>,
}

/// An exception of the serving side.
#[derive(Debug, Clone, PartialEq, Eq, Default, thiserror::Error)]
#[error("{class}: {}", if short.is_empty() { args.join(", ") } else { short.join(" ") })]
pub struct RemoteException {
    /// Class name, for example `ObjectNotFound`.
    pub class: String,
    /// Arguments of the class.
    pub args: Vec<String>,
    /// The message for people.
    pub short: Vec<String>,
    /// The traceback.
    pub full: Vec<String>,
}

/// Takes the bytes of `borg serve` and hands out replies that borrow from its buffer.
#[derive(Debug)]
pub struct ReplyDecoder {
    frames: Frames,
    limits: Limits,
}

impl ReplyDecoder {
    /// `largest` bounds one message in bytes, see [`super::MAX_MESSAGE`].
    #[must_use]
    pub fn new(largest: usize) -> ReplyDecoder {
        let limits = Limits { depth: 8, elements: 1 << 20, raw: largest, values: 1 << 20, old_spec_only: false };
        ReplyDecoder { frames: Frames::new(largest, limits), limits }
    }

    /// Appends bytes; [`ReplyDecoder::space`] saves the copy.
    pub fn push(&mut self, bytes: &[u8]) {
        self.frames.push(bytes);
    }

    /// Room for at least `minimum` bytes to read into.
    pub fn space(&mut self, minimum: usize) -> &mut [u8] {
        self.frames.space(minimum)
    }

    /// So many bytes were read into [`ReplyDecoder::space`].
    pub fn advance(&mut self, count: usize) {
        self.frames.advance(count);
    }

    /// Bytes that were received and belong to no reply handed out yet.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.frames.buffered()
    }

    /// The next reply, `None` if more bytes are needed. After an error nothing more can be understood.
    pub fn next_reply(&mut self) -> Result<Option<Reply<'_>>, StreamError> {
        let limits = self.limits;
        match self.frames.next_frame()? {
            Some(message) => Ok(Some(parse(message, limits)?)),
            None => Ok(None),
        }
    }
}

impl Reply<'_> {
    /// The ids of a `list` or `scan` page; `None` if the result is something else.
    #[must_use]
    pub fn ids(&self) -> Option<Vec<Id>> {
        let elements = self.outcome.as_ref().ok()?.as_array()?;
        elements.iter().map(|element| Id::try_from(element.as_raw()?).ok()).collect()
    }
}

fn parse(message: &[u8], limits: Limits) -> Result<Reply<'_>, Error> {
    let mut reader = Reader::with_limits(message, limits);
    if matches!(message.first(), Some(0x90..=0x9f | 0xdc | 0xdd)) {
        return parse_positional(&mut reader);
    }
    let (mut msgid, mut result) = (None, None);
    let mut exception = RemoteException::default();
    for _ in 0..reader.read_map_len()? {
        match reader.read_raw()? {
            b"i" => msgid = Some(reader.read_uint()?),
            b"r" => result = Some(reader.read_value()?),
            b"exception_class" => exception.class = text(reader.read_raw()?),
            b"exception_args" => exception.args = texts(&mut reader)?,
            b"exception_short" => exception.short = texts(&mut reader)?,
            b"exception_full" => exception.full = texts(&mut reader)?,
            _ => {
                reader.skip_value()?;
            }
        }
    }
    let expected = |expected| Error::Type { expected, found: "a map without it" };
    let msgid = msgid.ok_or(expected("a message number"))?;
    let outcome = match result {
        _ if !exception.class.is_empty() => Err(exception),
        Some(value) => Ok(value),
        None => return Err(expected("a result or an exception")),
    };
    Ok(Reply { msgid, outcome })
}

/// `[1, msgid, error, result]`: the answer to `negotiate`, and all that servers before 1.1 know.
fn parse_positional<'a>(reader: &mut Reader<'a>) -> Result<Reply<'a>, Error> {
    if reader.read_array_len()? != 4 {
        return Err(Error::Type { expected: "an array of four", found: "one of another length" });
    }
    reader.skip_value()?;
    let msgid = reader.read_uint()?;
    if reader.read_nil_if_next()? {
        return Ok(Reply { msgid, outcome: Ok(reader.read_value()?) });
    }
    let class = text(reader.read_raw()?);
    Ok(Reply { msgid, outcome: Err(RemoteException { class, ..RemoteException::default() }) })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An array of texts; other things in it (numbers in exception arguments) become texts.
fn texts(reader: &mut Reader<'_>) -> Result<Vec<String>, Error> {
    let Value::Array(elements) = reader.read_value()? else {
        return Err(Error::Type { expected: "an array", found: "something else" });
    };
    let shown = |element: &Value<'_>| match element {
        Value::Raw(bytes) => text(bytes),
        Value::Int(number) => number.to_string(),
        Value::UInt(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::Nil | Value::Array(_) | Value::Map(_) => String::new(),
    };
    Ok(elements.iter().map(shown).collect())
}
