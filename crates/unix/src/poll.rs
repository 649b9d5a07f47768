//! Waiting for several descriptors at once.

use crate::{Error, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// What to wait for. Hang-up and errors are always reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Bytes, a connection, or the end.
    Read,
    /// Room to write.
    Write,
    /// Either.
    ReadWrite,
    /// Nothing but hang-up and errors.
    Hangup,
}

/// What a descriptor is ready for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ready {
    /// Reading does not block (it may return the end).
    pub readable: bool,
    /// Writing does not block.
    pub writable: bool,
    /// The peer is gone; there may still be bytes to read.
    pub hangup: bool,
    /// The descriptor is in error; the next call on it tells.
    pub error: bool,
}

impl Ready {
    /// Whether there is anything to do at all.
    pub fn any(self) -> bool {
        self.readable || self.writable || self.hangup || self.error
    }
}

/// Waits until at least one descriptor is ready or `timeout` is over (None: for ever). The answer has one entry for
/// each entry of `fds`, in the same order; all empty means time is over. Signals do not shorten the wait: who wants
/// to hear of them polls [`crate::signals::Signals`].
pub fn poll(fds: &[(BorrowedFd<'_>, Interest)], timeout: Option<Duration>) -> Result<Vec<Ready>> {
    let mut polled: Vec<PollFd<'_>> = fds.iter().map(|(fd, interest)| PollFd::new(*fd, flags(*interest))).collect();
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let left = match (timeout, deadline) {
            (Some(_), Some(deadline)) => milliseconds(deadline.saturating_duration_since(Instant::now())),
            _ => PollTimeout::NONE,
        };
        match nix::poll::poll(&mut polled, left) {
            Err(Errno::EINTR) => {}
            Err(e) => return Err(Error::io("cannot wait for descriptors", e)),
            // A wait longer than poll can express (24 days) ends early without being over.
            Ok(0) if deadline.is_some_and(|deadline| Instant::now() < deadline) => {}
            Ok(_) => return Ok(polled.iter().map(ready).collect()),
        }
    }
}

/// Rounded up, so that a loop does not spin through the last millisecond.
fn milliseconds(left: Duration) -> PollTimeout {
    let rounded = left.as_nanos().div_ceil(1_000_000);
    PollTimeout::try_from(rounded.min(i32::MAX as u128)).unwrap_or(PollTimeout::MAX)
}

fn flags(interest: Interest) -> PollFlags {
    match interest {
        Interest::Read => PollFlags::POLLIN,
        Interest::Write => PollFlags::POLLOUT,
        Interest::ReadWrite => PollFlags::POLLIN | PollFlags::POLLOUT,
        Interest::Hangup => PollFlags::empty(),
    }
}

fn ready(fd: &PollFd<'_>) -> Ready {
    // None: flags this version of nix does not know. Report an error, so that the caller looks instead of spinning.
    let flags = fd.revents().unwrap_or(PollFlags::POLLERR);
    Ready {
        readable: flags.contains(PollFlags::POLLIN),
        writable: flags.contains(PollFlags::POLLOUT),
        hangup: flags.contains(PollFlags::POLLHUP),
        error: flags.intersects(PollFlags::POLLERR | PollFlags::POLLNVAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Write, pipe};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    const SOON: Option<Duration> = Some(Duration::from_secs(20));
    const NOW: Option<Duration> = Some(Duration::ZERO);

    #[test]
    fn answers_stand_where_the_questions_stood() {
        let (silent, _keep) = UnixStream::pair().unwrap();
        let (talking, mut peer) = UnixStream::pair().unwrap();
        peer.write_all(b"x").unwrap();
        let ready = poll(&[(silent.as_fd(), Interest::Read), (talking.as_fd(), Interest::ReadWrite)], SOON).unwrap();
        assert_eq!(ready[0], Ready::default());
        assert_eq!(ready[1], Ready { readable: true, writable: true, ..Ready::default() });
        assert!(!ready[0].any() && ready[1].any());
    }

    #[test]
    fn time_runs_out() {
        let (silent, _keep) = UnixStream::pair().unwrap();
        let asked = Instant::now();
        let ready = poll(&[(silent.as_fd(), Interest::Read)], Some(Duration::from_millis(30))).unwrap();
        assert!(asked.elapsed() >= Duration::from_millis(30));
        assert_eq!(ready, [Ready::default()]);
        assert!(poll(&[], NOW).unwrap().is_empty());
    }

    #[test]
    fn a_peer_that_is_gone_is_seen_without_asking() {
        let (reader, writer) = pipe().unwrap();
        assert_eq!(poll(&[(reader.as_fd(), Interest::Hangup)], NOW).unwrap(), [Ready::default()]);
        drop(writer);
        let ready = poll(&[(reader.as_fd(), Interest::Hangup)], SOON).unwrap();
        assert!(ready[0].hangup && !ready[0].readable);
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        assert!(poll(&[(writer.as_fd(), Interest::Hangup)], SOON).unwrap()[0].error);
    }

    #[test]
    fn waits_are_rounded_up_and_never_overflow() {
        assert_eq!(milliseconds(Duration::from_micros(1)), PollTimeout::from(1u8));
        assert_eq!(milliseconds(Duration::ZERO), PollTimeout::ZERO);
        assert_eq!(milliseconds(Duration::MAX), PollTimeout::MAX);
        let (_reader, writer) = pipe().unwrap();
        assert!(poll(&[(writer.as_fd(), Interest::Write)], Some(Duration::MAX)).unwrap()[0].writable);
    }
}
