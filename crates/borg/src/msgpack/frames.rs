//! A buffer that cuts a byte stream into messages.

use super::{Error, Limits, Result, Scanner};

/// Collects bytes as they arrive and hands out one complete msgpack value after the other, borrowed from the buffer.
///
/// Bytes are copied once at most: read straight into [`Frames::space`] and nothing is copied but the start of a message
/// that did not fit.
#[derive(Debug, Clone)]
pub struct Frames {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Length of the message handed out last; it is dropped when the next one is asked for.
    taken: usize,
    scanner: Scanner,
    largest: usize,
    scan_from: usize,
}

const GROW: usize = 64 * 1024;

impl Frames {
    /// `largest` is the most bytes one message may have.
    #[must_use]
    pub fn new(largest: usize, limits: Limits) -> Frames {
        Frames { buffer: Vec::new(), start: 0, end: 0, taken: 0, scanner: Scanner::new(limits), largest, scan_from: 0 }
    }

    /// Bytes that are here and not handed out.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.end - self.start - self.taken
    }

    /// Appends bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        let space = self.space(bytes.len());
        if let Some(target) = space.get_mut(..bytes.len()) {
            target.copy_from_slice(bytes);
            self.advance(bytes.len());
        }
    }

    /// Room for at least `minimum` bytes (and at least one) to read into; tell with [`Frames::advance`] how many came.
    pub fn space(&mut self, minimum: usize) -> &mut [u8] {
        let minimum = minimum.max(1);
        self.drop_taken();
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
        if self.buffer.len() - self.end < minimum {
            if self.start > 0 {
                self.buffer.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            }
            let wanted = self.end + minimum;
            if self.buffer.len() < wanted {
                // Doubling keeps the copying linear; the memory follows what really came, not what was announced.
                let doubled = self.end.saturating_mul(2).min(self.largest.saturating_add(GROW));
                self.buffer.resize(wanted.max(doubled).max(GROW), 0);
            }
        }
        self.buffer.get_mut(self.end..).unwrap_or_default()
    }

    /// `count` bytes were written into [`Frames::space`].
    pub fn advance(&mut self, count: usize) {
        self.end = self.end.saturating_add(count).min(self.buffer.len());
    }

    /// Lower bound of the bytes missing for the next message; 1 if nothing is known.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.scanner.missing().max(1)
    }

    fn drop_taken(&mut self) {
        self.start += self.taken;
        self.taken = 0;
    }

    /// The next complete message, `None` if more bytes are needed. The message stays in the buffer until the next call
    /// of any method that takes `&mut self`. After an error the stream is beyond repair.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>> {
        self.drop_taken();
        let here = self.buffer.get(self.start..self.end).unwrap_or_default();
        if here.len() < self.scan_from {
            return Ok(None);
        }
        match self.scanner.scan(here)? {
            Some(length) if length > self.largest => Err(Error::TooLarge("message")),
            Some(length) => {
                self.scanner.reset();
                self.scan_from = 0;
                self.taken = length;
                Ok(here.get(..length))
            }
            None => {
                let wanted = here.len().saturating_add(self.scanner.missing());
                if wanted > self.largest {
                    return Err(Error::TooLarge("message"));
                }
                self.scan_from = wanted;
                Ok(None)
            }
        }
    }
}
