//! Finding the end of a value that arrives in pieces.

use super::{Error, Head, Limits, Result, head};

/// Walks over one value without keeping or interpreting it, and goes on where it stopped when more bytes have come.
/// However small the pieces, each byte of structure is looked at once.
#[derive(Debug, Clone)]
pub struct Scanner {
    limits: Limits,
    position: usize,
    open: Vec<usize>,
    values: usize,
    missing: usize,
}

impl Scanner {
    /// A scanner at the start of a value.
    #[must_use]
    pub fn new(limits: Limits) -> Scanner {
        Scanner { limits, position: 0, open: Vec::new(), values: limits.values, missing: 1 }
    }

    /// Starts over with the next value.
    pub fn reset(&mut self) {
        self.position = 0;
        self.open.clear();
        self.values = self.limits.values;
        self.missing = 1;
    }

    /// After an incomplete [`Scanner::scan`]: at least this many bytes beyond its input are needed.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.missing
    }

    /// `input` is all there is of the value so far: what earlier calls saw, and more. Returns its length when it is
    /// complete (bytes of following values may come after it), `None` when more is needed.
    pub fn scan(&mut self, input: &[u8]) -> Result<Option<usize>> {
        loop {
            // A byte string whose head was seen is skipped by arithmetic: its bytes need not be here yet.
            let Some(rest) = input.get(self.position..) else {
                self.missing = self.position - input.len();
                return Ok(None);
            };
            if self.values < self.limits.values && self.open.is_empty() {
                return Ok(Some(self.position));
            }
            let (found, used) = match head(rest, &self.limits) {
                Ok(found) => found,
                Err(Error::Incomplete { needed }) => {
                    self.missing = needed;
                    return Ok(None);
                }
                Err(error) => return Err(error),
            };
            self.values = self.values.checked_sub(1).ok_or(Error::TooLarge("message"))?;
            self.position += used;
            match found {
                Head::Raw(length) => self.position = self.position.checked_add(length).ok_or(Error::Range)?,
                Head::Array(length) => self.enter(length)?,
                Head::Map(pairs) => self.enter(pairs.checked_mul(2).ok_or(Error::Range)?)?,
                _ => {}
            }
            self.leave();
        }
    }

    fn enter(&mut self, children: usize) -> Result<()> {
        if self.open.len() >= self.limits.depth {
            return Err(Error::Depth);
        }
        if children > self.values {
            return Err(Error::TooLarge("message"));
        }
        // One more than there are children: `leave` takes one off for the container itself.
        self.open.push(children.checked_add(1).ok_or(Error::Range)?);
        Ok(())
    }

    /// One value is done: count it off, and every container it completes.
    fn leave(&mut self) {
        while let Some(left) = self.open.last_mut() {
            *left -= 1;
            if *left > 0 {
                break;
            }
            self.open.pop();
        }
    }
}
