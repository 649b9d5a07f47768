//! The serving side: cutting a client's byte stream into calls.

use super::StreamError;
use super::request::{self, Request, RequestError};
use crate::msgpack::{Frames, Limits};

/// Takes a client's bytes as they come and hands out calls that borrow from its buffer.
///
/// Read into [`ServerDecoder::space`] and tell [`ServerDecoder::advance`]: then a `put` is not copied again until the
/// caller does.
#[derive(Debug)]
pub struct ServerDecoder {
    frames: Frames,
    limits: Limits,
}

impl ServerDecoder {
    /// `largest` bounds one message in bytes, see [`super::MAX_MESSAGE`].
    #[must_use]
    pub fn new(largest: usize) -> ServerDecoder {
        let limits = Limits { depth: 8, elements: 100, raw: largest, values: 1000, old_spec_only: false };
        ServerDecoder { frames: Frames::new(largest, limits), limits }
    }

    /// Appends bytes; [`ServerDecoder::space`] saves the copy.
    pub fn push(&mut self, bytes: &[u8]) {
        self.frames.push(bytes);
    }

    /// Room for at least `minimum` bytes to read into.
    pub fn space(&mut self, minimum: usize) -> &mut [u8] {
        self.frames.space(minimum)
    }

    /// So many bytes were read into [`ServerDecoder::space`].
    pub fn advance(&mut self, count: usize) {
        self.frames.advance(count);
    }

    /// Bytes that were received and belong to no call handed out yet. Not 0 at the end of the stream: it was cut.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.frames.buffered()
    }

    /// The next call, `None` if more bytes are needed. The inner result tells a call that is well-formed msgpack but no
    /// call of Borg 1.x; after the outer error nothing more can be understood.
    pub fn next_request(&mut self) -> Result<Option<Result<Request<'_>, RequestError>>, StreamError> {
        let limits = self.limits;
        Ok(self.frames.next_frame()?.map(|message| request::parse(message, limits)))
    }
}
