//! The session's end of the socket to the owner.
//!
//! Not blocking, so that neither side can wait for the other for ever: while a frame does not go out, what comes in is taken.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use unix::poll::{Interest, poll};
use wire::WireError;
use wire::frame::MAX_FRAME;
use wire::session::{CREDIT, charge, kind};

/// Bytes read at a time.
const STEP: usize = 128 * 1024;

/// A frame's length field and type.
const HEAD: usize = 5;

/// A chunk's id and size, which come before it.
const AROUND: usize = 36;

/// Chunks are gathered up to this size before they are sent: a client may send very small ones.
const GATHERED: usize = 64 * 1024;

/// Who was waiting for the client till the end of its time has not read what the owner says, which may be why the owner takes nothing: it
/// gets this long beyond that time.
const PATIENCE: Duration = Duration::from_secs(1);

/// The connection to the owner.
pub struct Link {
    stream: UnixStream,
    /// Frames that are not sent yet.
    output: Vec<u8>,
    input: Vec<u8>,
    /// What is received and not handed out.
    filled: Range<usize>,
    /// Frames that came while something else was waited for.
    early: VecDeque<(u8, Vec<u8>)>,
    /// What chunks were charged that the owner has not confirmed.
    in_flight: usize,
}

impl Link {
    /// Takes over a connection.
    pub fn new(stream: UnixStream) -> Result<Link, WireError> {
        stream.set_nonblocking(true)?;
        Ok(Link { stream, output: Vec::new(), input: Vec::new(), filled: 0..0, early: VecDeque::new(), in_flight: 0 })
    }

    /// For polling: readable means [`Link::receive`].
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Whether a chunk of this length may be sent at once.
    fn has_credit(&self, length: usize) -> bool {
        // One chunk may always be under way, however large.
        self.in_flight == 0 || self.in_flight + charge(length) <= CREDIT
    }

    /// Whether [`Link::put`] of a chunk of this length would send rather than gather it.
    pub fn would_send(&self, length: usize) -> bool {
        !self.has_credit(length) || self.output.len() + HEAD + AROUND + length > GATHERED
    }

    /// Sends a chunk, when there is credit for it: soon, or with [`Link::flush`]. An owner that has failed takes no more: what it said
    /// about that comes from [`Link::next`].
    pub fn put(&mut self, id: &[u8; 32], size: u32, payload: &[u8], until: Instant) -> Result<(), WireError> {
        while !self.has_credit(payload.len()) {
            if self.has_failed() {
                return Ok(());
            }
            // No credit comes back for what the owner has not got.
            self.flush(until)?;
            self.wait(Interest::Read, until)?;
            self.receive()?;
            self.sort_early()?;
        }
        self.in_flight += charge(payload.len());
        self.head(kind::PUT, id.len() + size_of_val(&size) + payload.len())?;
        self.output.extend_from_slice(id);
        self.output.extend_from_slice(&size.to_le_bytes());
        if self.output.len() + payload.len() <= GATHERED {
            self.output.extend_from_slice(payload);
            return Ok(());
        }
        self.write(payload, until)
    }

    /// Sends a frame and what was gathered before it, unless the owner has failed.
    pub fn send(&mut self, kind: u8, payload: &[u8], until: Instant) -> Result<(), WireError> {
        self.head(kind, payload.len())?;
        self.write(payload, until)
    }

    /// Has a small frame sent with the next [`Link::flush`], or with whatever is sent before that.
    pub fn gather(&mut self, kind: u8, payload: &[u8]) -> Result<(), WireError> {
        self.head(kind, payload.len())?;
        self.output.extend_from_slice(payload);
        Ok(())
    }

    /// Sends what was gathered, unless the owner has failed.
    pub fn flush(&mut self, until: Instant) -> Result<(), WireError> {
        if self.output.is_empty() { Ok(()) } else { self.write(&[], until) }
    }

    fn head(&mut self, kind: u8, payload: usize) -> Result<(), WireError> {
        let size = 1 + payload;
        if size > MAX_FRAME {
            return Err(WireError::TooLarge { size, limit: MAX_FRAME });
        }
        self.output.extend_from_slice(&u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes());
        self.output.push(kind);
        Ok(())
    }

    /// Sends what was gathered, and `more` after it.
    fn write(&mut self, more: &[u8], until: Instant) -> Result<(), WireError> {
        let gathered = std::mem::take(&mut self.output);
        let written = self.write_all(&mut [IoSlice::new(&gathered), IoSlice::new(more)], until);
        self.output = gathered;
        self.output.clear();
        written
    }

    fn write_all(&mut self, mut rest: &mut [IoSlice<'_>], until: Instant) -> Result<(), WireError> {
        let mut patience = None;
        while !rest.is_empty() {
            match self.stream.write_vectored(rest) {
                Ok(0) => return Err(WireError::Closed),
                Ok(n) => IoSlice::advance_slices(&mut rest, n),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock && self.has_failed() => return Ok(()),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    let until = *patience.get_or_insert_with(|| until.max(Instant::now() + PATIENCE));
                    self.wait(Interest::ReadWrite, until)?;
                    self.receive()?;
                    self.sort_early()?;
                }
                Err(e) => return Err(closed_or_io(e)),
            }
            while rest.first().is_some_and(|slice| slice.is_empty()) {
                rest = &mut rest[1..];
            }
        }
        Ok(())
    }

    /// Takes what has arrived, without waiting.
    pub fn receive(&mut self) -> Result<(), WireError> {
        self.make_room();
        match self.stream.read(&mut self.input[self.filled.end..]) {
            Ok(0) => Err(WireError::Closed),
            Ok(n) => {
                self.filled.end += n;
                Ok(())
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
            Err(e) => Err(closed_or_io(e)),
        }
    }

    /// Hands the next complete frame to `take`, credit excepted. None: there is none.
    pub fn next<T>(&mut self, take: impl FnOnce(u8, &[u8]) -> T) -> Result<Option<T>, WireError> {
        if let Some((kind, payload)) = self.early.pop_front() {
            return Ok(Some(take(kind, &payload)));
        }
        while let Some((kind, payload)) = self.cut()? {
            if !self.is_credit(kind, &payload)? {
                return Ok(Some(take(kind, &self.input[payload])));
            }
        }
        Ok(None)
    }

    /// Everything is said. The connection must be read to its end all the same: closing it with unread credit in it would
    /// be an error for an owner that is still reading what we said.
    pub fn finish(self) -> Link {
        if let Err(e) = self.stream.shutdown(Shutdown::Write) {
            log::debug!("the owner was gone before the end: {e}");
        }
        self
    }

    /// Waits, no longer than `until`, for the owner to close its side.
    pub fn drain(mut self, until: Instant) {
        while self.wait(Interest::Read, until).is_ok() && self.discard() {}
    }

    /// Throws away what has arrived; false at the end.
    pub fn discard(&mut self) -> bool {
        let more = self.receive().is_ok();
        self.filled = 0..0;
        more
    }

    /// Takes everything that the owner said before it went.
    pub fn take_rest(&mut self) {
        let mut before = usize::MAX;
        while self.filled.len() != before {
            before = self.filled.len();
            if self.receive().is_err() {
                return;
            }
        }
    }

    /// Whether the owner said that it cannot go on.
    fn has_failed(&self) -> bool {
        self.early.iter().any(|(kind, _)| *kind == kind::FAILED)
    }

    /// Takes credit out of what was received and keeps the rest for [`Link::next`].
    fn sort_early(&mut self) -> Result<(), WireError> {
        while let Some((kind, payload)) = self.cut()? {
            if !self.is_credit(kind, &payload)? {
                self.early.push_back((kind, self.input[payload].to_vec()));
            }
        }
        Ok(())
    }

    fn is_credit(&mut self, kind: u8, payload: &Range<usize>) -> Result<bool, WireError> {
        if kind != kind::CREDIT {
            return Ok(false);
        }
        let bytes = self.input[payload.clone()].try_into().map_err(|_| WireError::Malformed("credit is four bytes".into()))?;
        self.in_flight = self.in_flight.saturating_sub(u32::from_le_bytes(bytes) as usize);
        Ok(true)
    }

    /// Cuts off the next complete frame: its type, and where its payload lies in `input`.
    fn cut(&mut self) -> Result<Option<(u8, Range<usize>)>, WireError> {
        let Some(size) = self.announced()? else { return Ok(None) };
        if self.filled.len() < 4 + size {
            return Ok(None);
        }
        let start = self.filled.start;
        self.filled.start += 4 + size;
        Ok(Some((self.input[start + 4], start + HEAD..start + 4 + size)))
    }

    /// The length that the next frame announces, if that much is here.
    fn announced(&self) -> Result<Option<usize>, WireError> {
        let Some(bytes) = self.input[self.filled.clone()].first_chunk::<4>() else { return Ok(None) };
        match u32::from_le_bytes(*bytes) as usize {
            0 => Err(WireError::Malformed("an empty frame".into())),
            size if size > MAX_FRAME => Err(WireError::TooLarge { size, limit: MAX_FRAME }),
            size => Ok(Some(size)),
        }
    }

    fn make_room(&mut self) {
        if self.filled.is_empty() {
            self.filled = 0..0;
        }
        if self.input.len() - self.filled.end >= STEP {
            return;
        }
        self.input.copy_within(self.filled.clone(), 0);
        self.filled = 0..self.filled.len();
        // Grows with what has really arrived, not with what a length announces.
        let wanted = (self.filled.end * 2).max(self.filled.end + STEP);
        if self.input.len() < self.filled.end + STEP {
            self.input.resize(wanted.min(MAX_FRAME + 2 * STEP).max(self.filled.end + STEP), 0);
        }
    }

    fn wait(&self, interest: Interest, until: Instant) -> Result<(), WireError> {
        let left = until.saturating_duration_since(Instant::now());
        let ready = poll(&[(self.stream.as_fd(), interest)], Some(left)).map_err(std::io::Error::other)?;
        if ready.first().is_some_and(|ready| ready.any()) || left > Duration::ZERO {
            return Ok(());
        }
        Err(WireError::Io(ErrorKind::TimedOut.into()))
    }
}

fn closed_or_io(e: std::io::Error) -> WireError {
    match e.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => WireError::Closed,
        _ => WireError::Io(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_heard_behind_a_broken_pipe() {
        let (ours, mut owner) = UnixStream::pair().unwrap();
        let mut link = Link::new(ours).unwrap();
        wire::frame::write(&mut owner, kind::CREDIT, &[&[0; 4]]).unwrap();
        wire::frame::write(&mut owner, kind::FAILED, &[b"full"]).unwrap();
        drop(owner);
        let until = Instant::now() + Duration::from_secs(5);
        link.put(&[1; 32], 1, b"x", until).unwrap();
        assert!(matches!(link.flush(until), Err(WireError::Closed)));
        link.take_rest();
        assert_eq!(link.next(|kind, payload| (kind, payload.to_vec())).unwrap(), Some((kind::FAILED, b"full".to_vec())));
        assert_eq!(link.next(|kind, _| kind).unwrap(), None);
    }

    #[test]
    fn small_chunks_are_gathered_and_come_in_order() {
        let (ours, mut owner) = UnixStream::pair().unwrap();
        owner.set_nonblocking(true).unwrap();
        let mut link = Link::new(ours).unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        link.put(&[1; 32], 1, b"x", until).unwrap();
        link.put(&[2; 32], 2, b"yy", until).unwrap();
        let mut payload = vec![];
        assert!(matches!(wire::frame::read(&mut owner, &mut payload), Err(WireError::Io(e)) if e.kind() == ErrorKind::WouldBlock));
        owner.set_nonblocking(false).unwrap();
        let large = vec![7; GATHERED];
        let reading = std::thread::spawn(move || {
            let mut frame = || (wire::frame::read(&mut owner, &mut payload).unwrap(), payload.clone());
            [frame(), frame(), frame(), frame()]
        });
        // What does not fit takes the rest along, and so does every other frame.
        link.put(&[3; 32], 3, &large, until).unwrap();
        link.put(&[4; 32], 4, b"z", until).unwrap();
        link.flush(until).unwrap();
        let expected = |n: u8, payload: &[u8]| (kind::PUT, [&[n; 32], &[n, 0, 0, 0][..], payload].concat());
        assert_eq!(reading.join().unwrap(), [expected(1, b"x"), expected(2, b"yy"), expected(3, &large), expected(4, b"z")]);
    }

    #[test]
    fn small_chunks_use_up_credit_as_well() {
        let (ours, mut owner) = UnixStream::pair().unwrap();
        let mut link = Link::new(ours).unwrap();
        let reading = std::thread::spawn(move || std::io::copy(&mut owner, &mut std::io::sink()));
        let until = Instant::now() + Duration::from_secs(20);
        let fit = CREDIT / charge(1);
        for number in 0..fit {
            assert!(link.has_credit(1), "{number}");
            link.put(&[1; 32], 1, b"x", until).unwrap();
        }
        assert!(!link.has_credit(1));
        drop(link);
        reading.join().unwrap().unwrap();
    }

    #[test]
    fn nobody_waits_for_the_credit_of_an_owner_that_has_failed() {
        let (ours, mut owner) = UnixStream::pair().unwrap();
        let mut link = Link::new(ours).unwrap();
        link.in_flight = CREDIT;
        wire::frame::write(&mut owner, kind::FAILED, &[b"full"]).unwrap();
        let until = Instant::now() + Duration::from_secs(5);
        link.put(&[1; 32], 1, b"x", until).unwrap();
        assert!(Instant::now() < until);
        assert_eq!(link.next(|kind, _| kind).unwrap(), Some(kind::FAILED));
    }
}
