//! NUL-framed JSON: one document, one NUL byte.

use crate::WireError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{BufRead, Write};

/// Longest document that anybody sends: a page of jobs with their warnings, a chunk of a job log.
pub const MAX_DOCUMENT: usize = 16 * 1024 * 1024;

/// The bytes of one message, NUL included.
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, WireError> {
    let mut bytes = serde_json::to_vec(message).map_err(|e| WireError::Malformed(e.to_string()))?;
    bytes.push(0);
    Ok(bytes)
}

/// Writes one message and flushes.
pub fn write(out: &mut impl Write, message: &impl Serialize) -> Result<(), WireError> {
    out.write_all(&encode(message)?)?;
    Ok(out.flush()?)
}

/// Reads one message; blocks until it is complete.
pub fn read<T: DeserializeOwned>(input: &mut impl BufRead) -> Result<T, WireError> {
    decode(&read_document(input)?)
}

/// Reads the document of one message, without its NUL; blocks until it is complete. For whoever counts its bytes.
pub fn read_document(input: &mut impl BufRead) -> Result<Vec<u8>, WireError> {
    let mut bytes = vec![];
    let limit = MAX_DOCUMENT as u64 + 1;
    std::io::Read::take(&mut *input, limit).read_until(0, &mut bytes)?;
    match bytes.pop() {
        Some(0) => Ok(bytes),
        None => Err(WireError::Closed),
        Some(_) if bytes.len() + 1 >= MAX_DOCUMENT => Err(WireError::TooLarge { size: bytes.len(), limit: MAX_DOCUMENT }),
        Some(_) => Err(WireError::Closed),
    }
}

/// Reads the document of one message, without its NUL.
pub fn decode<T: DeserializeOwned>(document: &[u8]) -> Result<T, WireError> {
    serde_json::from_slice(document).map_err(|e| WireError::Malformed(e.to_string()))
}

/// Collects bytes as they arrive and gives back complete documents: for poll loops.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    searched: usize,
}

impl Decoder {
    /// Adds bytes from the socket.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete document, without its NUL.
    pub fn next_document(&mut self) -> Result<Option<Vec<u8>>, WireError> {
        match self.buffer[self.searched..].iter().position(|b| *b == 0) {
            Some(at) => {
                let mut document: Vec<u8> = self.buffer.drain(..=self.searched + at).collect();
                document.pop();
                self.searched = 0;
                Ok(Some(document))
            }
            None if self.buffer.len() > MAX_DOCUMENT => Err(WireError::TooLarge { size: self.buffer.len(), limit: MAX_DOCUMENT }),
            None => {
                self.searched = self.buffer.len();
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_in_pieces() {
        let mut decoder = Decoder::default();
        decoder.push(b"{\"a\":1}\0{\"b\"");
        assert_eq!(decoder.next_document().unwrap().unwrap(), b"{\"a\":1}");
        assert_eq!(decoder.next_document().unwrap(), None);
        decoder.push(b":2}\0\0");
        assert_eq!(decoder.next_document().unwrap().unwrap(), b"{\"b\":2}");
        assert_eq!(decoder.next_document().unwrap().unwrap(), b"");
    }

    #[test]
    fn blocking_reads() {
        let mut input = &b"[1]\0[2]\0[3"[..];
        assert_eq!(read::<Vec<u8>>(&mut input).unwrap(), [1]);
        assert_eq!(read::<Vec<u8>>(&mut input).unwrap(), [2]);
        assert!(matches!(read::<Vec<u8>>(&mut input), Err(WireError::Closed)));
        assert!(matches!(read::<Vec<u8>>(&mut &b""[..]), Err(WireError::Closed)));
    }

    #[test]
    fn endless_documents_end() {
        let mut decoder = Decoder::default();
        decoder.push(&vec![b'x'; MAX_DOCUMENT + 1]);
        assert!(decoder.next_document().is_err());
        assert!(read::<Vec<u8>>(&mut std::io::BufReader::new(std::io::repeat(b' '))).is_err());
    }
}
