//! One end of a socket in a poll loop: complete documents in, waiting bytes out, never blocking, both bounded.

use serde::Serialize;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use unix::poll::Interest;
use wire::WireError;
use wire::json::{self, Decoder, MAX_DOCUMENT};

/// At most so many bytes are read in one turn of the loop, so that one talker does not keep the others waiting.
const TURN: usize = 256 * 1024;

/// A socket with its two buffers.
#[derive(Debug)]
pub struct Channel {
    stream: UnixStream,
    decoder: Decoder,
    /// Bytes in the decoder.
    unread: usize,
    limit: usize,
    out: Vec<u8>,
    /// How much of `out` is sent.
    sent: usize,
    ended: bool,
}

impl Channel {
    /// Takes a connected socket. A document longer than `limit` bytes is an error.
    pub fn new(stream: UnixStream, limit: usize) -> io::Result<Channel> {
        stream.set_nonblocking(true)?;
        Ok(Channel { stream, decoder: Decoder::default(), unread: 0, limit: limit.min(MAX_DOCUMENT), out: vec![], sent: 0, ended: false })
    }

    /// Reads what is there.
    pub fn fill(&mut self) -> io::Result<()> {
        let mut buffer = [0; 64 * 1024];
        let mut taken = 0;
        while taken < TURN && !self.ended {
            match (&self.stream).read(&mut buffer) {
                Ok(0) => self.ended = true,
                Ok(length) => {
                    self.decoder.push(&buffer[..length]);
                    self.unread += length;
                    taken += length;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                // Unread bytes of ours died with the peer: that is an end like any other.
                Err(e) if e.kind() == ErrorKind::ConnectionReset => self.ended = true,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// The next complete document among what was read.
    pub fn next_document(&mut self) -> Result<Option<Vec<u8>>, WireError> {
        let too_large = |size| WireError::TooLarge { size, limit: self.limit };
        let document = self.decoder.next_document()?;
        match document {
            Some(document) if document.len() > self.limit => Err(too_large(document.len())),
            Some(document) => {
                self.unread = self.unread.saturating_sub(document.len() + 1);
                Ok(Some(document))
            }
            None if self.unread > self.limit => Err(too_large(self.unread)),
            None => Ok(None),
        }
    }

    /// The peer sends nothing any more (it may still read).
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Puts a message behind what waits to be sent, and sends what the socket takes. An error of the socket shows at its next use.
    pub fn send(&mut self, message: &impl Serialize) -> Result<(), WireError> {
        let bytes = json::encode(message)?;
        if bytes.len() > MAX_DOCUMENT {
            return Err(WireError::TooLarge { size: bytes.len(), limit: MAX_DOCUMENT });
        }
        self.out.extend(bytes);
        Ok(self.flush()?)
    }

    /// Ends a message that somebody before us may have left unfinished.
    pub fn begin_anew(&mut self) {
        self.out.push(0);
    }

    /// Sends what the socket takes.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.out.len() {
            match (&self.stream).write(&self.out[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(length) => self.sent += length,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        } else if self.sent > 1024 * 1024 {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }

    /// Bytes that wait to be sent.
    pub fn waiting(&self) -> usize {
        self.out.len() - self.sent
    }

    /// What to poll for; `listen`: whether more from the peer is welcome.
    pub fn interest(&self, listen: bool) -> Interest {
        match (listen && !self.ended, self.waiting() > 0) {
            (true, true) => Interest::ReadWrite,
            (true, false) => Interest::Read,
            (false, true) => Interest::Write,
            (false, false) => Interest::Hangup,
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(limit: usize) -> (Channel, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Channel::new(ours, limit).unwrap(), theirs)
    }

    #[test]
    fn documents_arrive_in_pieces() {
        let (mut channel, mut peer) = pair(100);
        peer.write_all(b"[1]\0[2").unwrap();
        channel.fill().unwrap();
        assert_eq!(channel.next_document().unwrap().unwrap(), b"[1]");
        assert_eq!(channel.next_document().unwrap(), None);
        peer.write_all(b"]\0").unwrap();
        drop(peer);
        channel.fill().unwrap();
        assert!(channel.ended());
        assert_eq!(channel.next_document().unwrap().unwrap(), b"[2]");
    }

    #[test]
    fn long_documents_are_refused_with_and_without_an_end() {
        let (mut channel, mut peer) = pair(10);
        peer.write_all(&[b'x'; 11]).unwrap();
        channel.fill().unwrap();
        assert!(matches!(channel.next_document(), Err(WireError::TooLarge { .. })));
        let (mut channel, mut peer) = pair(10);
        peer.write_all(b"01234567890\0").unwrap();
        channel.fill().unwrap();
        assert!(matches!(channel.next_document(), Err(WireError::TooLarge { .. })));
        // Many short ones are not one long one.
        let (mut channel, mut peer) = pair(10);
        peer.write_all(&b"[1]\0".repeat(50)).unwrap();
        channel.fill().unwrap();
        for _ in 0..50 {
            assert_eq!(channel.next_document().unwrap().unwrap(), b"[1]");
        }
    }

    #[test]
    fn a_peer_that_does_not_read_does_not_block_us() {
        let (mut channel, mut peer) = pair(100);
        let text = "x".repeat(1000);
        for _ in 0..5000 {
            channel.send(&text).unwrap();
        }
        assert!(channel.waiting() > 1_000_000);
        assert_eq!(channel.interest(true), Interest::ReadWrite);
        peer.set_nonblocking(true).unwrap();
        let mut received = vec![];
        while received.len() < 5000 * 1003 {
            let _ = peer.read_to_end(&mut received);
            channel.flush().unwrap();
        }
        assert_eq!(channel.waiting(), 0);
        assert_eq!(channel.interest(true), Interest::Read);
        assert_eq!(received.iter().filter(|b| **b == 0).count(), 5000);
    }
}
